/* monitor/mem.c - see mem.h. nofpu.
 *
 * Order of checks for an access (SDM 3A 6.9, class "access to operands"): segment or canonical (mem_linear), alignment,
 * then paging page by page in ascending order. Nothing is read from a device or written anywhere before the last page has
 * been checked. Data breakpoints are traps: they are noted once the access cannot fault any more.
 */
#include "monitor/mem.h"
#include "monitor/pttrace.h"
#include "base/check.h"
#include "monitor/selfcheck.h"
#include "shadowmmu/ptwalk.h"

#define MAX_BYTES 8192u
#define MAX_PAGES 3

/* One page of an access. */
struct mem_page {
    uint64_t lin; /* of the first byte in this page */
    uint64_t gpa;
    unsigned bytes;
    uint8_t *host; /* NULL: MMIO */
    bool rom, traced;
    uint64_t page_bytes; /* of the guest's page */
};

static inline bool is_write(unsigned how) { return how & (MEM_W | MEM_RW); }
static inline bool is_user(const struct vcpu *v, unsigned how) { return v->c.cpl == 3 && !(how & MEM_SUPER); }

/* ---- segments ---- */

static int segment_fault(struct vcpu *v, unsigned seg) { return sys_fault_err(v, seg == S_SS ? EXC_SS : EXC_GP, 0); }

static int linear_long(struct vcpu *v, unsigned seg, uint64_t off, unsigned n, uint64_t *lin)
{
    uint64_t base = seg == S_FS || seg == S_GS ? v->c.seg[seg].base : 0;
    uint64_t first = base + off, last = first + (n ? n - 1 : 0);
    if (!x86_is_canonical(first) || !x86_is_canonical(last))
        return segment_fault(v, seg);
    *lin = first;
    return 0;
}

/* May this kind of access be made through the segment at all? (SDM 3A 5.5.) */
static bool type_allows(const struct seg *s, unsigned how)
{
    if ((s->attr & SEG_UNUSABLE) || !(s->attr & SEG_P) || !(s->attr & SEG_S))
        return false;
    if (how & MEM_X)
        return s->attr & SEG_CODE;
    if (s->attr & SEG_CODE)
        return !is_write(how) && (s->attr & SEG_RW);
    return !is_write(how) || (s->attr & SEG_RW);
}

static bool limit_allows(const struct seg *s, uint64_t off, unsigned n)
{
    uint64_t last = off + (n ? n - 1 : 0);
    if (!(s->attr & SEG_CODE) && (s->attr & SEG_EC)) /* expand-down: the valid part is above the limit */
        return off > s->limit && last <= (s->attr & SEG_DB ? 0xffffffffu : 0xffffu);
    /* Accesses that wrap at 4 GiB in a segment without end are implementation-specific (SDM 3A 5.3): in a flat one they wrap, in
     * one that starts elsewhere they exceed the limit (seen on the CPU). */
    return last <= s->limit || (s->limit == 0xffffffffu && !s->base);
}

int mem_linear(struct vcpu *v, unsigned seg, uint64_t off, unsigned n, unsigned how, uint64_t *lin)
{
    const struct cpu *c = &v->c;
    const struct seg *s = &c->seg[seg];
    if (cpu_code64(c))
        return linear_long(v, seg, off, n, lin);
    /* Real and virtual-8086 mode know no types: a write through CS is fine. Limits do hold (unreal mode lives of it). */
    if (!cpu_real_selectors(c) && !type_allows(s, how))
        return segment_fault(v, seg);
    if (!limit_allows(s, off, n))
        return segment_fault(v, seg);
    *lin = (s->base + off) & 0xffffffffu;
    return 0;
}

/* ---- debug registers and alignment ---- */

/* The linear range of DRi if it is an enabled data breakpoint. */
static bool watch_range(const struct cpu *c, unsigned i, uint64_t *first, unsigned *bytes, bool *reads)
{
    static const uint8_t len[4] = {1, 2, 8, 4};
    uint64_t dr7 = c->dr[7];
    unsigned rw = dr7 >> (16 + 4 * i) & 3;
    if (!(dr7 >> (2 * i) & 3) || !(rw & 1))
        return false;
    *bytes = len[dr7 >> (18 + 4 * i) & 3];
    *first = (cpu_long_mode(c) ? c->dr[i] : c->dr[i] & 0xffffffffu) & ~(uint64_t)(*bytes - 1);
    *reads = rw == 3;
    return true;
}

bool mem_page_watched(const struct vcpu *v, uint64_t lin)
{
    if (!(v->c.dr[7] & 0xff))
        return false;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t first;
        unsigned bytes;
        bool reads;
        if (watch_range(&v->c, i, &first, &bytes, &reads) && ((first ^ lin) & PAGE_MASK) == 0)
            return true;
    }
    return false;
}

void mem_check_watch(struct vcpu *v, uint64_t lin, unsigned n, unsigned how)
{
    if (!(v->c.dr[7] & 0xff))
        return;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t first;
        unsigned bytes;
        bool reads;
        if (!watch_range(&v->c, i, &first, &bytes, &reads) || !(reads || is_write(how)))
            continue;
        /* Overlap of [lin, lin + n) and [first, first + bytes), either of which may wrap. */
        if (lin - first < bytes || first - lin < n)
            v->dr6_pending |= 1u << i;
    }
}

int mem_check_align(struct vcpu *v, uint64_t lin, unsigned n, unsigned how)
{
    if (!(v->c.key & CPU_KEY_AC) || (how & (MEM_SUPER | MEM_X | MEM_UNALIGNED)))
        return 0;
    unsigned a = 1;
    switch (n) {
    case 2:
    case 4:
    case 8: a = n; break;  /* 16 and more: #GP where they must be aligned, else nothing (SDM 2A tables 2-18 ff.) */
    case 6: a = 4; break;  /* far pointers m16:32, descriptor-table registers */
    case 10: a = 8; break; /* m80, m16:64 */
    }
    return lin & (a - 1) ? sys_fault_err(v, EXC_AC, 0) : 0;
}

/* ---- paging ---- */

/* The linear address k bytes further on: 32-bit addresses wrap at 4 GiB, but for what long mode itself addresses. */
static uint64_t advance(const struct vcpu *v, uint64_t lin, unsigned k, unsigned how)
{
    const struct cpu *c = &v->c;
    bool wide = cpu_long_mode(c) && (cpu_code64(c) || (how & MEM_SUPER) || lin >> 32);
    return wide ? lin + k : (lin + k) & 0xffffffffu;
}

static int page_fault(struct vcpu *v, uint64_t lin, uint32_t error)
{
    v->fault = (struct guest_fault){.vector = EXC_PF, .has_error = true, .error = error};
    v->fault.cr2 = lin;
    return SYS_FAULT;
}

static int walk(struct vcpu *v, uint64_t lin, unsigned how, struct pt_result *r)
{
    uint32_t error;
    unsigned access = is_write(how) ? PT_WRITE : how & MEM_X ? PT_EXEC : PT_READ;
    if (cpu_long_mode(&v->c) && !x86_is_canonical(lin))
        return sys_fault_err(v, EXC_GP, 0);
    if (is_user(v, how))
        access |= PT_USER;
    if (how & MEM_SUPER)
        access |= PT_IMPLICIT;
    if (pt_walk(v->mem, &v->c, lin, access, r, &error))
        return page_fault(v, lin, error);
    return 0;
}

/* Enters a data page into the soft TLB, with what softtlb.h's rule allows. */
static void fill_tlb(struct vcpu *v, const struct mem_page *p, unsigned how, const struct pt_result *r)
{
    if (!p->host || (how & MEM_X) || mem_page_watched(v, p->lin))
        return;
    /* With SMAP a supervisor access to a user page depends on EFLAGS.AC and on being explicit: look each time. */
    bool user = is_user(v, how);
    if (!user && r->user && (v->c.cr4 & CR4_SMAP))
        return;
    bool write = r->writable && r->dirty && !p->rom && !p->traced;
    softtlb_fill(&v->tlb[user], p->lin & PAGE_MASK, p->host - (p->gpa & 0xfff), r->page_bytes, write, r->global);
    struct audit_entry e = {.lin = p->lin & PAGE_MASK, .gpa = p->gpa & PAGE_MASK, .write = write, .global = r->global};
    if (v->audit)
        selfcheck_entered(v, user ? AUDIT_TLB_USER : AUDIT_TLB_SUPER, &e);
}

static int translate(struct vcpu *v, uint64_t lin, unsigned how, struct mem_page *p, bool *global)
{
    struct pt_result r;
    int err = walk(v, lin, how, &r);
    if (err)
        return err;
    if (v->pttrace && !(how & MEM_X))
        pttrace_note(v, lin, &r);
    const struct gpmem_slot *s = gpmem_find(v->mem, r.gpa);
    p->lin = lin;
    p->gpa = r.gpa;
    p->host = s ? s->host + (r.gpa - s->gpa) : NULL;
    p->rom = s && s->rom;
    p->traced = s && (s->flags[(r.gpa - s->gpa) >> 12] & GP_TRACED_MASK);
    p->page_bytes = r.page_bytes;
    *global = r.global;
    fill_tlb(v, p, how, &r);
    return 0;
}

int mem_translate(struct vcpu *v, uint64_t lin, unsigned how, uint64_t *gpa, uint8_t **host)
{
    struct mem_page p;
    bool global;
    int err = translate(v, lin, how, &p, &global);
    if (err)
        return err;
    *gpa = p.gpa;
    *host = p.rom && is_write(how) ? NULL : p.host;
    return 0;
}

int mem_fetch_page(struct vcpu *v, uint64_t lin, uint64_t *gpa, uint8_t **host, bool *global, uint64_t *bytes)
{
    struct mem_page p;
    int err = translate(v, lin, MEM_X, &p, global);
    if (err)
        return err;
    *gpa = p.gpa;
    *host = p.host;
    *bytes = p.page_bytes;
    return 0;
}

/* Checks a whole access; fills pages in ascending order. */
static int translate_run(struct vcpu *v, uint64_t lin, unsigned n, unsigned how, struct mem_page *p, unsigned *count)
{
    bool global;
    uint64_t first = lin;
    ASSERT(n <= MAX_BYTES);
    *count = 0;
    int err = mem_check_align(v, lin, n, how);
    if (err)
        return err;
    for (unsigned left = n; left;) {
        unsigned here = PAGE_SIZE - (lin & 0xfff);
        if (here > left)
            here = left;
        err = translate(v, lin, how, &p[*count], &global);
        if (err)
            return err;
        p[(*count)++].bytes = here;
        lin = advance(v, lin, here, how);
        left -= here;
    }
    mem_check_watch(v, first, n, how);
    return 0;
}

/* ---- data ---- */

/* Guest memory is shared with devices: 1, 2, 4, 8 bytes move in one access (volatile: exactly one), aligned or not. */
typedef volatile uint16_t any16 __attribute__((aligned(1)));
typedef volatile uint32_t any32 __attribute__((aligned(1)));
typedef volatile uint64_t any64 __attribute__((aligned(1)));
static inline void copy(void *to, const void *from, unsigned n)
{
    switch (n) {
    case 1: *(volatile uint8_t *)to = *(const volatile uint8_t *)from; break;
    case 2: *(any16 *)to = *(const any16 *)from; break;
    case 4: *(any32 *)to = *(const any32 *)from; break;
    case 8: *(any64 *)to = *(const any64 *)from; break;
    default: {
        size_t count = n;
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    }
    }
}

/* A piece of an access that reached a device. Whole operands go as they are, the rest in aligned powers of two. */
static int mmio(struct vcpu *v, uint64_t gpa, unsigned n, bool write, uint8_t *data)
{
    if (n == 1 || n == 2 || n == 4 || n == 8)
        return vcpu_mmio(v, gpa, n, write, data);
    while (n) {
        unsigned size = 8;
        while (size > n || (gpa & (size - 1)))
            size >>= 1;
        int err = vcpu_mmio(v, gpa, size, write, data);
        if (err)
            return err;
        gpa += size;
        data += size;
        n -= size;
    }
    return 0;
}

static int read_slow(struct vcpu *v, uint64_t lin, uint8_t *buf, unsigned n, unsigned how)
{
    struct mem_page p[MAX_PAGES];
    unsigned count;
    int err = translate_run(v, lin, n, how, p, &count);
    for (unsigned i = 0; i < count && !err; i++) {
        if (p[i].host)
            copy(buf, p[i].host, p[i].bytes);
        else
            err = mmio(v, p[i].gpa, p[i].bytes, false, buf);
        buf += p[i].bytes;
    }
    return err;
}

static int write_slow(struct vcpu *v, uint64_t lin, uint8_t *buf, unsigned n, unsigned how)
{
    struct mem_page p[MAX_PAGES];
    unsigned count;
    int err = translate_run(v, lin, n, how | MEM_W, p, &count);
    for (unsigned i = 0; i < count && !err; i++) {
        if (!p[i].host)
            err = mmio(v, p[i].gpa, p[i].bytes, true, buf);
        else if (!p[i].rom) {
            if (p[i].traced)
                vcpu_trace_write(v, p[i].gpa, p[i].bytes);
            copy(p[i].host, buf, p[i].bytes);
        }
        buf += p[i].bytes;
    }
    return err;
}

/* Host pointer from the soft TLB if all n bytes are in one page that it has, else NULL. */
static inline uint8_t *tlb_hit(struct vcpu *v, uint64_t lin, unsigned n, unsigned how)
{
    const struct softtlb *t = &v->tlb[is_user(v, how)];
    unsigned i = stlb_index(lin);
    int64_t tag = is_write(how) ? t->tag_w[i] : t->tag_r[i];
    if (tag != -(int64_t)(lin & PAGE_MASK) || (lin & 0xfff) + n > PAGE_SIZE || (how & MEM_X) || (v->c.key & CPU_KEY_AC))
        return NULL;
    return (uint8_t *)(lin + t->addend[i]);
}

int mem_read(struct vcpu *v, uint64_t lin, void *buf, unsigned n, unsigned how)
{
    const uint8_t *host = tlb_hit(v, lin, n, how);
    if (!host)
        return read_slow(v, lin, buf, n, how);
    copy(buf, host, n);
    return 0;
}

int mem_write(struct vcpu *v, uint64_t lin, const void *buf, unsigned n, unsigned how)
{
    uint8_t *host = tlb_hit(v, lin, n, how | MEM_W);
    if (!host)
        return write_slow(v, lin, (uint8_t *)buf, n, how);
    copy(host, buf, n);
    return 0;
}

int mem_probe(struct vcpu *v, uint64_t lin, unsigned n, unsigned how)
{
    struct mem_page p[MAX_PAGES];
    unsigned count;
    uint32_t watched = v->dr6_pending;
    int err = tlb_hit(v, lin, n, how) ? 0 : translate_run(v, lin, n, how, p, &count);
    v->dr6_pending = watched; /* nothing was accessed yet */
    return err;
}

int mem_read_u(struct vcpu *v, uint64_t lin, unsigned n, unsigned how, uint64_t *val)
{
    uint64_t x = 0;
    int err = mem_read(v, lin, &x, n, how);
    if (!err)
        *val = x;
    return err;
}

int mem_write_u(struct vcpu *v, uint64_t lin, unsigned n, unsigned how, uint64_t val)
{
    return mem_write(v, lin, &val, n, how);
}

uint8_t *mem_direct(struct vcpu *v, uint64_t lin, unsigned how, int *fault)
{
    struct mem_page p;
    bool global;
    *fault = 0;
    uint8_t *host = tlb_hit(v, lin, 1, how);
    if (host)
        return host;
    /* With alignment checks on, elements are accessed one by one. */
    if (v->c.key & CPU_KEY_AC)
        return NULL;
    *fault = translate(v, lin, how, &p, &global);
    if (*fault || (is_write(how) && (p.rom || p.traced)) || mem_page_watched(v, lin))
        return NULL;
    return p.host;
}

uint8_t *mem_direct_over_code(struct vcpu *v, uint64_t lin, unsigned below, unsigned n)
{
    struct mem_page p;
    bool global;
    if ((v->c.key & CPU_KEY_AC) || mem_page_watched(v, lin) || translate(v, lin, MEM_W, &p, &global) || p.rom ||
        !p.host)
        return NULL;
    const uint8_t *f = gpmem_page_flags(v->mem, p.gpa);
    if (!f || (*f & GP_TRACED_MASK) != GP_CODE)
        return NULL;
    vcpu_trace_write(v, p.gpa - below, n);
    return p.host;
}

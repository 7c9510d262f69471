/* tests/guest/paging_hammer.c - random work on page tables, checked access by access against a walk of the tables in C.
 *
 * Map, unmap, permissions of every level, A and D cleared, aliases, large pages made and split, page-table pages recycled as data and
 * back, tables that map themselves, frames outside RAM and of the local APIC, reserved bits, CR0.WP, EFER.NXE, CR4.PGE;
 * INVLPG of one page, all by CR3, all by CR4, or nothing where an entry was not present before (SDM 3A 4.10.4.3); in long mode, where
 * they are offered, under PCIDs that come and go, with INVPCID or a CR3 load for those that missed an invalidation. What is not
 * defined is not done: a change that could leave something stale is always followed by the invalidation the manual names.
 *
 * This file is the 2-level form; paging_hammer_pae.c and paging_hammer64.c include it. Command line: seed=N steps=N scatter=N.
 * Prints a hash of all outcomes now and then, so that two runs can be compared, and the first accesses that differ from the walk. */
#include "rt.h"

#ifdef __x86_64__
#define LEVELS 4
#define INDEX_BITS 9
#define TOP ((word)rt_pml4)
#define REGIONS 96u
#elif defined(PAE)
#define LEVELS 3
#define INDEX_BITS 9
#define TOP 0x1100000u
#define REGIONS 64u
#else
#define LEVELS 2
#define INDEX_BITS 10
#define TOP 0x1100000u
#define REGIONS 64u
#endif
#if LEVELS == 2
typedef uint32_t entry;
#define NX 0u
#else
typedef uint64_t entry;
#define NX (1ull << 63)
#endif
enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80, G = 0x100, HOW = 0xfff };
#define LARGE_SHIFT (12 + INDEX_BITS)
#define LARGE ((word)1 << LARGE_SHIFT)
#define PER_TABLE (1u << INDEX_BITS)

/* Physical memory: 128 MiB are taken for granted. */
#define TABLES 0x1200000u /* page tables of the regions, one page each, and the scattered ones */
#define N_TABLES 2560u
#define FRAMES 0x2000000u /* data */
#define N_FRAMES 8192u
#define BIG 0x4000000u /* data in large pages */
#define BIG_END 0x7c00000u
#define RAM_END 0x8000000u
#define LAPIC 0xfee00000u
#define NOWHERE 0xa0000000u
/* A page of code for ring 3. */
#define USER_PAGE 0x1101000u
#define USER_TABLES 0x1102000u
#define CODE_AT 0xf00u /* in each data page: mov $x, %eax; jmp *%edx */

extern volatile uint64_t rt_pml4[512], rt_pdpt[512], rt_pd[4 * 512];

/* ---- random numbers, the hash ---- */

static uint64_t state;
static uint32_t rnd(void)
{
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(state >> 33);
}
static unsigned below(unsigned n) { return (unsigned)((uint64_t)rnd() * n >> 31); }
static bool one_in(unsigned n) { return below(n) == 0; }

static uint64_t hash = 0xcbf29ce484222325ull;
static void mix(uint64_t x) { hash = (hash ^ x) * 0x100000001b3ull; }

static unsigned step, wrong, faults, accesses;

/* ---- tables ---- */

static word lin_of[REGIONS]; /* first address of each region: what one entry of a page directory covers */
static volatile entry *pde[REGIONS];
static uint32_t pt_of[REGIONS]; /* its page table, or 0 */
static uint8_t live[N_TABLES];  /* 1: a table; 0: data */
static uint32_t upper[16];      /* page directories and above */
static volatile entry *upper_entry[16];
static unsigned n_upper, n_upper_entries;
static bool nxe, wp, pge, is_tcg;
static uint64_t reserved;

static void cpuid(uint32_t leaf, uint32_t r[4])
{
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(0));
}

/* ---- PCIDs (SDM 3A 4.10.1): all with the same tables; random numbers of their own, so that the rest is the same without ---- */

#if LEVELS == 4
#define PCIDS 12u                 /* more than anybody keeps */
static bool pcids, behind[PCIDS]; /* has missed an invalidation */
static unsigned pcid;
enum { ADDRESS, CONTEXT, EVERYTHING, NONGLOBAL };
static uint64_t pcid_state = 1;
static unsigned pcid_below(unsigned n)
{
    pcid_state = pcid_state * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)((pcid_state >> 33) * n >> 31);
}
static void invpcid(word type, word which, word lin)
{
    word desc[2] = {which, lin};
    __asm__ volatile("invpcid (%1), %0" : : "r"(type), "r"(desc) : "memory");
}
/* Only what is current has been invalidated. */
static void leave_others_behind(word lin)
{
    for (unsigned i = 0; i < PCIDS && pcids; i++)
        if (i != pcid) {
            bool told = lin && !behind[i] && pcid_below(4) == 0;
            if (told)
                invpcid(ADDRESS, i, lin);
            behind[i] |= !told;
        }
}
static void nobody_is_behind(void) { memset(behind, 0, sizeof behind); }
static bool flush_by_invpcid(void)
{
    if (!pcids || pcid_below(2))
        return false;
    invpcid(pge ? EVERYTHING : NONGLOBAL, 0, 0);
    nobody_is_behind();
    return true;
}
static void switch_pcid(void)
{
    if (!pcids || pcid_below(4))
        return;
    pcid = pcid_below(PCIDS);
    bool keep = !behind[pcid];
    if (!keep && pcid_below(2)) {
        invpcid(CONTEXT, pcid, 0);
        keep = true;
    }
    behind[pcid] = false;
    write_cr3(TOP | pcid | (keep ? 1ull << 63 : 0));
}
static void set_up_pcids(void)
{
    uint32_t r[4];
    cpuid(1, r);
    pcids = r[2] >> 17 & 1;
    cpuid(7, r);
    pcids &= r[1] >> 10 & 1;
    if (pcids)
        write_cr4(read_cr4() | 0x20000);
}
#else
static void leave_others_behind(word lin) {}
static void nobody_is_behind(void) {}
static bool flush_by_invpcid(void) { return false; }
static void switch_pcid(void) {}
static void set_up_pcids(void) {}
#endif

static void invlpg(word lin)
{
    __asm__ volatile("invlpg (%0)" : : "r"(lin) : "memory");
    leave_others_behind(lin);
}
/* Ends everything, global or not. */
static void flush(void)
{
    bool cr3 = !pge || one_in(8);
    if (flush_by_invpcid())
        return;
    if (cr3) {
        write_cr3(read_cr3());
        leave_others_behind(0);
    }
    if (pge) {
        write_cr4(read_cr4() & ~0x80ul);
        write_cr4(read_cr4() | 0x80);
        nobody_is_behind();
    }
}

static bool is_upper(uint32_t page)
{
    for (unsigned i = 0; i < n_upper; i++)
        if (upper[i] == page)
            return true;
    return page == (uint32_t)TOP;
}
static bool is_pt(uint32_t page)
{
    return page >= TABLES && page < TABLES + N_TABLES * 4096 && live[(page - TABLES) >> 12];
}

static bool is_data(uint64_t phys)
{
    return (phys >= FRAMES && phys < BIG_END) || (phys >= TABLES && phys < TABLES + 64 * 4096);
}

struct walk {
    bool fault, outside; /* outside: a table or the page is no RAM */
    uint32_t err;
    uint64_t phys;
    bool user;
    unsigned n;
    volatile entry *path[4];
};
enum { READ, WRITE, EXEC };

/* SDM 3A 4.3-4.7. */
static struct walk walk(word lin, int how, bool user)
{
    struct walk w = {.user = true};
    uint64_t table = TOP;
    bool writable = true, nx = false;
    unsigned shift = 12 + (LEVELS - 1) * INDEX_BITS;
    w.err = (how == WRITE ? W : 0) | (user ? U : 0) | (how == EXEC && nxe ? 0x10 : 0);
    for (;; shift -= INDEX_BITS) {
        volatile entry *e = (volatile entry *)(word)table + (lin >> shift & (PER_TABLE - 1));
        entry v = *e;
        w.path[w.n++] = e;
        if (!(v & P)) {
            w.fault = true;
            return w;
        }
#if LEVELS == 3
        if (shift == 30) { /* in registers since the CR3 load: no rights, no A */
            w.n--;
            table = v & ~0xfffull;
            continue;
        }
#endif
        bool large = shift > 12 && (v & PS);
        uint64_t bad = reserved | (nxe ? 0 : NX);
        if (large && (LEVELS > 2))
            bad |= ((1ull << shift) - 1) & ~0x1fffull;
        if (shift == 39)
            bad |= PS, large = false;
        if (LEVELS == 2)
            bad = large ? 1u << 21 : 0;
        if (v & bad) {
            w.fault = true;
            w.err |= P | 8;
            return w;
        }
        writable = writable && (v & W);
        w.user = w.user && (v & U);
        nx = nx || (v & NX);
        if (shift > 12 && !large) {
            table = v & 0xfffffffffff000ull;
            if (table >= RAM_END) {
                w.outside = true;
                return w;
            }
            continue;
        }
        uint64_t base = v & 0xfffffffffff000ull;
        if (LEVELS == 2 && large)
            base = (v & 0xffc00000u) | (uint64_t)(v >> 13 & 0xff) << 32;
        w.phys = (base & ~((1ull << shift) - 1)) | (lin & ((1ull << shift) - 1));
        break;
    }
    w.outside = w.phys >= RAM_END && (w.phys & ~0xfffull) != LAPIC;
    if ((user && !w.user) || (how == WRITE && !writable && (user || wp)) || (how == EXEC && nx)) {
        w.fault = true;
        w.err |= P;
    }
    return w;
}

/* ---- accesses: instructions that stand alone, so that each can be adapted alone ---- */

struct site {
    void *fn, *end;
};
#define COPIES 8
#ifdef __x86_64__
#define C "%rcx"
#define EXEC_SITE "leaq 2f(%rip), %rdx\n jmp *%rcx"
#define POINTER ".quad"
#else
#define C "%ecx"
#define EXEC_SITE "movl $2f, %edx\n jmp *%ecx"
#define POINTER ".long"
#endif
/* Address in cx, value in ax before and after. */
#define SITES(insn)                                                                                                    \
    ".rept 8\n .text\n .balign 16\n 1: " insn "\n 2: ret\n .section .rodata\n " POINTER " 1b, 2b\n .endr\n"
extern const struct site sites[][COPIES];
__asm__(".section .rodata\n .balign 8\n sites:\n" SITES("movb (" C "), %al") SITES("movzwl (" C "), %eax")
            SITES("movl (" C "), %eax") SITES("movb %al, (" C ")") SITES("movw %ax, (" C ")")
                SITES("movl %eax, (" C ")") SITES("lock xaddl %eax, (" C ")")
                    SITES("cmpl %eax, (" C ")\n sete %al\n movzbl %al, %eax") SITES("xorl %eax, (" C ")")
                        SITES("movdqu (" C "), %xmm0\n movd %xmm0, %eax")
                            SITES("movd %eax, %xmm0\n pshufd $0, %xmm0, %xmm0\n movdqu %xmm0, (" C ")")
                                SITES(EXEC_SITE) ".text\n");
enum { LOAD8, LOAD16, LOAD32, STORE8, STORE16, STORE32, XADD32, CMP32, XOR32, LOAD128, STORE128, CALL, N_KINDS };
static const struct {
    uint8_t bytes, how;
} kinds[N_KINDS] = {{1, READ},  {2, READ}, {4, READ},  {1, WRITE}, {2, WRITE},  {4, WRITE},
                    {4, WRITE}, {4, READ}, {4, WRITE}, {16, READ}, {16, WRITE}, {1, EXEC}};

/* 64-bit: the sites run in the upper half, too. */
#ifdef __x86_64__
#define UPPER_HALF 0xffffffff80000000ul
#else
#define UPPER_HALF 0
#endif

static struct {
    unsigned vec;
    uint32_t err;
    word cr2, cx, fixup;
} caught;

static bool hook(struct rt_frame *f)
{
    if ((f->vec != 14 && f->vec != 13) || !caught.fixup || (f->cs & 3))
        return false;
    caught.vec = f->vec;
    caught.err = (uint32_t)f->err;
    caught.cr2 = read_cr2();
    caught.cx = f->cx;
    f->ip = caught.fixup;
    return true;
}

static uint32_t kernel_access(unsigned kind, bool soft, word lin, uint32_t val)
{
    unsigned copy = (soft ? 4 : 0) + below(4);
    const struct site *s = &sites[kind][copy];
    word up = copy & 1 ? UPPER_HALF : 0, ax = val;
    caught.vec = 0;
    caught.fixup = (word)s->end + up;
    __asm__ volatile("call *%1" : "+a"(ax) : "r"((word)s->fn + up), "c"(lin) : "edx", "memory", "cc");
    caught.fixup = 0;
    return (uint32_t)ax;
}

static const uint8_t user_code[] = {
    0x8b, 0x01, 0xcd, 0x80, 0x90, 0x90, 0x90, 0x90, /* mov (%ecx), %eax; int $0x80 */
    0x89, 0x01, 0xcd, 0x80, 0x90, 0x90, 0x90, 0x90, /* mov %eax, (%ecx); int $0x80 */
    0xff, 0xe1, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, /* jmp *%ecx */
    0xcd, 0x80,                                     /* int $0x80: where the code called comes back */
};
#define USER_LIN 0x30000000u

static uint32_t user_access(int how, word lin, uint32_t val)
{
    word ip = USER_LIN + (how == READ ? 0 : how == WRITE ? 8 : 16);
    if (rt_setjmp() == 0) {
#ifdef __x86_64__
        __asm__ volatile("pushq %0\n pushq %1\n pushq $2\n pushq %2\n pushq %3\n iretq"
                         :
                         : "i"(SEL_UDATA), "r"((word)USER_LIN + 0xf80), "i"(SEL_UCODE64), "r"(ip), "a"(val), "c"(lin),
                           "d"((word)USER_LIN + 24)
                         : "memory");
#else
        __asm__ volatile("movl %0, %%ds\n pushl %0\n pushl %1\n pushl $2\n pushl %2\n pushl %3\n iretl"
                         :
                         : "r"(SEL_UDATA), "i"(USER_LIN + 0xf80), "i"(SEL_UCODE), "m"(ip), "a"(val), "c"(lin),
                           "d"(USER_LIN + 24)
                         : "memory");
#endif
        __builtin_unreachable();
    }
    caught.vec = rt_exc.vec == 0x80 ? 0 : (unsigned)rt_exc.vec;
    caught.err = (uint32_t)rt_exc.err;
    caught.cr2 = rt_exc_cr2;
    return (uint32_t)rt_exc.ax;
}

/* ---- one access, predicted and compared ---- */

static void complain(const char *what, word lin, unsigned kind, bool user, const struct walk *w, uint64_t got,
                     uint64_t want)
{
    if (++wrong > 10)
        return;
    rt_printf("step %u: %s at %lx kind %u%s: %llx, should be %llx (walk: fault %d err %x phys %llx)\n", step, what, lin,
              kind, user ? " user" : "", (unsigned long long)got, (unsigned long long)want, w->fault, w->err,
              (unsigned long long)w->phys);
}

static void *at(uint64_t phys) { return (void *)(word)phys; }
static uint32_t load(uint64_t phys, unsigned n)
{
    return n == 1   ? *(volatile uint8_t *)at(phys)
           : n == 2 ? *(volatile uint16_t *)at(phys)
                    : *(volatile uint32_t *)at(phys);
}

static bool check_fault(word lin, unsigned kind, bool user, const struct walk *w, word cr2)
{
    accesses++;
    if (w->fault != (caught.vec == 14)) {
        complain(w->fault ? "no fault" : "a fault", lin, kind, user, w, caught.vec << 16 | caught.err, w->fault);
        return true;
    }
    if (!w->fault)
        return false;
    faults++;
    uint32_t err = caught.err;
    if (is_tcg) /* it has P = 0 beside RSVD, and reads before it writes */
        err |= (err & 8 ? P : 0) | (kind == XADD32 || kind == XOR32 ? W : 0);
    if (err != w->err)
        complain("error code", lin, kind, user, w, err, w->err);
    if (caught.cr2 != cr2)
        complain("CR2", lin, kind, user, w, caught.cr2, cr2);
    mix(err);
    mix(cr2);
    return true;
}

static void check_flags(word lin, unsigned kind, bool user, const struct walk *w, bool wrote)
{
    for (unsigned i = 0; i < w->n; i++)
        if (!(*w->path[i] & A))
            complain("A", lin, kind, user, w, *w->path[i], i);
    if (wrote && !(*w->path[w->n - 1] & D))
        complain("D", lin, kind, user, w, *w->path[w->n - 1], 1);
}

static entry some_leaf(void);

static void fill_page(uint32_t page, uint32_t n)
{
    for (unsigned i = 0; i < CODE_AT; i += 256)
        *(volatile uint32_t *)(word)(page + i) = n * 0x9e3779b1u + i;
    *(volatile uint8_t *)(word)(page + CODE_AT) = 0xb8;
    *(volatile uint32_t *)(word)(page + CODE_AT + 1) = n;
    *(volatile uint16_t *)(word)(page + CODE_AT + 5) = 0xe2ff; /* jmp *%edx */
}

/* What is a table is read as whole entries, and written with entries that are in order. */
static void table_access(word lin, const struct walk *w)
{
    uint32_t page = (uint32_t)w->phys & ~0xfffu;
    lin = (lin & ~(word)0xfff) | (below(PER_TABLE) * sizeof(entry));
    uint64_t phys = page | (lin & 0xfff);
    bool write = is_pt(page) && one_in(2);
    struct walk v = walk(lin, write ? WRITE : READ, false);
    unsigned kind = write ? STORE32 : LOAD32;
    uint32_t new = write ? (uint32_t)some_leaf() : 0, want = load(phys, 4);
    uint32_t got = kernel_access(kind, true, lin, new);
    if (!check_fault(lin, kind, false, &v, lin)) {
        if (write ? load(phys, 4) != new : (got ^ want) & ~(A | D))
            complain("table entry", lin, kind, false, &v, write ? load(phys, 4) : got, write ? new : want);
        mix(write ? new : got & ~(A | D));
    }
    flush();
}

static void run_access(word lin, unsigned kind, bool user, const struct walk *w)
{
    unsigned n = kinds[kind].bytes;
    int how = kinds[kind].how;
    if (user && how != EXEC)
        n = 4;
    uint32_t val = rnd(), before = how == EXEC ? load(w->phys + 1, 4) : w->fault ? 0 : load(w->phys, n < 4 ? n : 4);
    bool soft = (w->user || (w->phys >= RAM_END)) ^ one_in(64);
    entry leaf = *w->path[w->n - 1];
    uint32_t got = user ? user_access(how, lin, val) : kernel_access(kind, soft, lin, val);
    if ((w->fault || how != WRITE) && ((leaf ^ *w->path[w->n - 1]) & D))
        complain("D without a write", lin, kind, user, w, *w->path[w->n - 1], leaf);
    if (check_fault(lin, kind, user, w, lin))
        return;
    uint32_t mask = n == 1 ? 0xff : n == 2 ? 0xffff : ~0u, after = load(w->phys, n < 4 ? n : 4), want = before;
    if (how == WRITE) {
        want = user || (kind != XADD32 && kind != XOR32) ? val & mask : kind == XADD32 ? before + val : before ^ val;
        if (after != want)
            complain("stored", lin, kind, user, w, after, want);
        if (!user && kind == XADD32 && got != before)
            complain("exchanged", lin, kind, user, w, got, before);
    } else if (kind == CMP32 && !user) {
        want = before == val;
        mask = 1;
    }
    if (how != WRITE && (how == EXEC ? got != before : (got & mask) != want))
        complain("value", lin, kind, user, w, got, want);
    if (is_data(w->phys)) /* other pages are not the same everywhere */
        mix(want);
    check_flags(lin, kind, user, w, how == WRITE);
}

static unsigned pick_page(void) { return one_in(4) ? below(PER_TABLE) : below(12) * 37 % PER_TABLE; }

/* Over the end of a page: both must allow it, and the first fault is the one reported. */
static void crossing(word lin)
{
    static const uint8_t what[] = {LOAD32, STORE32, XADD32, LOAD128, STORE128, LOAD16};
    unsigned kind = what[below(sizeof what)], n = kinds[kind].bytes, first = 1 + below(n - 1);
    lin = (lin | 0xfff) + 1 - first;
    struct walk a = walk(lin, kinds[kind].how, false), b = walk(lin + first, kinds[kind].how, false);
    const struct walk *w = a.fault ? &a : &b;
    if (a.outside || b.outside || (!a.fault && (!is_data(a.phys) || is_pt(a.phys & ~0xfffull))) ||
        (!b.fault && (!is_data(b.phys) || is_pt(b.phys & ~0xfffull))))
        return;
    if (kind == XADD32 && a.fault && b.fault) /* reads both before it writes either, under TCG */
        return;
    uint32_t val = rnd();
    uint32_t last = b.fault ? 0 : load(b.phys, 1);
    kernel_access(kind, a.user || b.user, lin, val);
    if (check_fault(lin, kind, false, w, a.fault ? lin : lin + first)) {
        if (!b.fault && load(b.phys, 1) != last)
            complain("half stored", lin, kind, false, w, load(b.phys, 1), last);
        return;
    }
    mix(load(a.phys, 1));
    mix(load(b.phys, 1));
    check_flags(lin, kind, false, &a, kinds[kind].how == WRITE);
    check_flags(lin, kind, false, &b, kinds[kind].how == WRITE);
}

static void access(word lin)
{
    bool user = one_in(10);
    unsigned kind = user ? (one_in(3) ? CALL : one_in(2) ? LOAD32 : STORE32) : below(N_KINDS), n = kinds[kind].bytes;
    int how = kinds[kind].how;
    struct walk w = walk(lin, how, user);
    if (w.outside) {
        kernel_access(LOAD32, true, lin & ~(word)3, 0); /* whatever comes */
        return;
    }
    if (!w.fault && w.phys >= RAM_END) { /* the APIC's version */
        lin = (lin & ~(word)0xfff) | 0x30;
        w = walk(lin, READ, false);
        if (!w.fault)
            run_access(lin, LOAD32, false, &w);
        return;
    }
    if (!w.fault && (is_pt(w.phys & ~0xfffull) || is_upper(w.phys & ~0xfffull))) {
        table_access(lin, &w);
        return;
    }
    if (!user && one_in(12)) {
        crossing(lin);
        return;
    }
    if (!w.fault && !is_data(w.phys)) { /* the guest's own pages, through a directory that is its own table */
        lin &= ~(word)3;
        w = walk(lin, READ, false);
        if (!w.fault)
            run_access(lin, LOAD32, false, &w);
        return;
    }
    unsigned off = how == EXEC ? CODE_AT : how == WRITE && one_in(16) ? CODE_AT + 1 : below(CODE_AT - n);
    if (how == WRITE && off == CODE_AT + 1 && !user)
        kind = STORE32;
    lin = (lin & ~(word)0xfff) | off;
    w = walk(lin, how, user);
    run_access(lin, kind, user, &w);
}

/* ---- strings over several pages ---- */

static bool plain(word lin, bool write, struct walk *w)
{
    *w = walk(lin, write ? WRITE : READ, false);
    return !w->outside && (w->fault || (is_data(w->phys) && !is_pt(w->phys & ~0xfffull)));
}

static void string(word from, word to)
{
    unsigned n = 1 + below(9000), done, off = below(CODE_AT);
    from += off, to += off; /* code is copied onto code */
    if (one_in(4)) {
        n = 1 + below(CODE_AT - off);
        to -= below(off + 1);
    }
    struct walk s = {.fault = false}, d = {.fault = false};
    for (done = 0; done < n; done++) { /* one byte of each page decides */
        if ((done == 0 || !((from + done) & 0xfff)) && !plain(from + done, false, &s))
            return;
        if ((done == 0 || !((to + done) & 0xfff)) && !plain(to + done, true, &d))
            return;
        if (s.fault || d.fault)
            break;
    }
    word cx = n, si = from, di = to;
    caught.vec = 0;
    __asm__ volatile("movl $1f, %3\n rep movsb\n 1:"
                     : "+c"(cx), "+S"(si), "+D"(di), "=m"(*(uint32_t *)&caught.fixup)
                     :
                     : "memory");
    caught.fixup = 0;
    if (caught.vec)
        cx = caught.cx;
    if (n - cx != done)
        complain("bytes copied", to, 99, false, &d, n - cx, done);
    if (check_fault(from, 99, false, s.fault ? &s : &d, s.fault ? from + done : to + done))
        return;
    mix(cx);
}

/* ---- changes ---- */

static uint32_t frame(unsigned i) { return FRAMES + i * 4096; }

static entry rights(void)
{
    entry e = P;
    e |= one_in(4) ? 0 : W;
    e |= one_in(3) ? U : 0;
    e |= one_in(5) ? NX : 0;
    e |= one_in(6) ? G : 0;
    e |= one_in(4) ? A | (one_in(2) ? D : 0) : 0;
    return e;
}

static entry some_leaf(void)
{
    switch (below(24)) {
    case 0: return rights() | NOWHERE;
    case 1: return (rights() & ~(entry)W) | LAPIC;
    case 2: return (rights() & ~(entry)P) | frame(below(N_FRAMES));
    case 3:
        return TABLES + below(N_TABLES) * 4096 > TABLES + 64 * 4096 ? rights() | (TABLES + below(64) * 4096)
                                                                    : 0; /* perhaps a table */
#if LEVELS > 2
    case 4: return rights() | frame(below(N_FRAMES)) | 1ull << 51;
#endif
    default: return rights() | frame(below(one_in(2) ? 64 : N_FRAMES));
    }
}

static bool large_in_use(unsigned r) { return *pde[r] & PS; }

/* One entry of a page table, and what the manual wants for it. */
static void change_leaf(unsigned r, unsigned i)
{
    if (!pt_of[r])
        return;
    volatile entry *e = (volatile entry *)(word)pt_of[r] + i;
    entry old = *e;
    switch (below(6)) {
    case 0: *e = 0; break;
    case 1: *e = old ^ (entry)(one_in(2) ? W : one_in(2) ? U : NX); break;
    case 2: *e = old & ~(entry)(one_in(2) ? A | D : D); break;
    default: *e = some_leaf(); break;
    }
    if (!(old & P))
        return; /* nothing can be stale: no TLB holds what is not present */
    unsigned aliases = 0;
    for (unsigned k = 0; k < REGIONS; k++)
        aliases += pt_of[k] == pt_of[r];
    if (aliases != 1 || large_in_use(r) || one_in(16))
        flush();
    else
        invlpg(lin_of[r] + ((word)i << 12) + below(4096));
}

static unsigned table_users(uint32_t pt)
{
    unsigned n = 0;
    for (unsigned r = 0; r < REGIONS; r++)
        n += pt_of[r] == pt;
    return n;
}

/* A page of the pool becomes a table: it may have been data up to now. */
static uint32_t new_table(void)
{
    for (;;) {
        unsigned i = below(64);
        if (live[i])
            continue;
        live[i] = 1;
        memset((void *)(word)(TABLES + i * 4096), 0, 4096);
        return TABLES + i * 4096;
    }
}

static uint64_t big_frame(void)
{
    unsigned n = (BIG_END - BIG) >> LARGE_SHIFT;
    return BIG + (uint64_t)below(n) * LARGE;
}

static void change_region(unsigned r)
{
    uint32_t had = pt_of[r];
    entry up = P | W | U | (one_in(8) ? 0 : A);
    pt_of[r] = 0;
    switch (below(10)) {
    case 0: *pde[r] = 0; break;
    case 1: *pde[r] = rights() | PS | (entry)big_frame(); break;
    case 2: { /* the same page, split, or as large as it was */
        entry old = *pde[r];
        if ((old & (P | PS)) == (P | PS) && (old & ~(entry)(LARGE - 1)) < RAM_END &&
            (old & ~(entry)(LARGE - 1)) >= BIG) {
            pt_of[r] = new_table();
            for (unsigned i = 0; i < PER_TABLE; i++)
                ((volatile entry *)(word)pt_of[r])[i] = (old & ~(entry)PS) + i * 4096;
            *pde[r] = up | pt_of[r];
        } else
            *pde[r] = 0;
        break;
    }
    case 3: { /* another region's table */
        unsigned o = below(REGIONS);
        pt_of[r] = o == r ? had : pt_of[o];
        *pde[r] = pt_of[r] ? up | pt_of[r] : 0;
        break;
    }
    case 4: /* its own directory as its table */ *pde[r] = (up & ~(entry)W) | ((uint32_t)(word)pde[r] & ~0xfffu); break;
    case 5: *pde[r] = up | NOWHERE; break;
    case 6: *pde[r] = rights() | PS | (entry)big_frame() | (LEVELS == 2 ? (entry)1 << 21 : (entry)1 << 14); break;
    default:
        pt_of[r] = new_table();
        *pde[r] = (up & ~(entry)(one_in(4) ? W : 0) & ~(entry)(one_in(4) ? U : 0)) | pt_of[r];
    }
    if (had && !table_users(had))
        live[(had - TABLES) >> 12] = 0; /* data again */
    flush();
    if (!had || table_users(had))
        return;
    memset((void *)(word)had, 0, 4096); /* A bits are not the same everywhere */
    fill_page(had, rnd());
}

static void change_upper(void)
{
    if (!n_upper_entries)
        return;
    volatile entry *e = upper_entry[below(n_upper_entries)];
    switch (below(4)) {
    case 0: *e ^= W; break;
    case 1: *e ^= U; break;
    case 2: *e ^= NX; break;
    default:
        *e |= W | U;
        *e &= ~(entry)NX;
        break;
    }
    flush();
}

static void change_registers(void)
{
    switch (below(LEVELS > 2 ? 4 : 2)) {
    case 0:
        write_cr0(read_cr0() ^ 0x10000);
        wp = !wp;
        break;
    case 1:
        write_cr4(read_cr4() ^ 0x80);
        pge = !pge;
        break;
    default:
        if (one_in(2)) {
            nxe = !nxe;
            wrmsr(0xc0000080, rdmsr(0xc0000080) ^ 0x800);
        }
    }
    flush();
}

static void one_step(void)
{
    switch_pcid();
    unsigned r = below(REGIONS), what = below(100);
    word lin = lin_of[r] + ((word)pick_page() << 12);
    if (what < 72)
        access(lin);
    else if (what < 74)
        string(lin, lin_of[below(REGIONS)] + ((word)pick_page() << 12));
    else if (what < 95)
        change_leaf(r, pick_page());
    else if (what < 98)
        change_region(r);
    else if (what < 99)
        change_upper();
    else
        change_registers();
}

/* ---- many scattered pages ---- */

static void scatter(unsigned n)
{
    /* Each table holds some; the regions beyond the random ones are taken, one after the other. */
    enum { HOLDERS = 2048 };
    static uint32_t slot[65536]; /* region number and page */
    static word scatter_lin[HOLDERS];
    unsigned holders = 0;
#ifdef __x86_64__
    for (unsigned i = 0; i < HOLDERS; i++)
        scatter_lin[holders++] = 0xffffa00000000000ul + (word)i * LARGE;
    volatile uint64_t *pdpt = (volatile uint64_t *)0x1110000, *pd = (volatile uint64_t *)0x1111000;
    memset((void *)pdpt, 0, 5 * 4096);
    rt_pml4[0xffffa00000000000ul >> 39 & 511] = (word)pdpt | P | W;
    for (unsigned i = 0; i < 4; i++)
        pdpt[i] = ((word)pd + i * 4096) | P | W;
    for (unsigned i = 0; i < holders; i++)
        pd[i] = (TABLES + (256 + i) * 4096) | P | W;
#else
    volatile entry *top = (volatile entry *)(word)upper[0];
    for (unsigned i = 0; i < 1u << (32 - LARGE_SHIFT); i++) {
        word lin = (word)i << LARGE_SHIFT;
        if (lin < 0x40000000u || lin >= 0xc0000000u)
            continue;
        volatile entry *e = top + (i - (0x40000000u >> LARGE_SHIFT));
#if LEVELS == 2
        e = (volatile entry *)TOP + i;
#endif
        bool used = false;
        for (unsigned r = 0; r < REGIONS; r++)
            used |= pde[r] == e;
        if (used)
            continue;
        *e = (TABLES + (256 + holders) * 4096) | P | W;
        scatter_lin[holders++] = lin;
    }
#endif
    memset((void *)(TABLES + 256 * 4096), 0, holders * 4096);
    memset(live + 256, 1, holders);
    flush();
    for (unsigned i = 0; i < n; i++) {
        unsigned h = below(holders), p = below(PER_TABLE), f = below(N_FRAMES);
        slot[i] = h << INDEX_BITS | p;
        ((volatile entry *)(word)(TABLES + (256 + h) * 4096))[p] = frame(f) | P | W | (one_in(3) ? G : 0);
    }
    flush();
#define SLOT_LIN(i) (scatter_lin[slot[i] >> INDEX_BITS] + ((word)(slot[i] & (PER_TABLE - 1)) << 12))
#define SLOT_ENTRY(i)                                                                                                  \
    ((volatile entry *)(word)(TABLES + (256 + (slot[i] >> INDEX_BITS)) * 4096) + (slot[i] & (PER_TABLE - 1)))
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned k = 0; k < n; k++) {
            unsigned i = round & 1 ? below(n) : k;
            word lin = SLOT_LIN(i) + below(CODE_AT / 4) * 4;
            struct walk w = walk(lin, round ? WRITE : READ, false);
            step = i;
            run_access(lin, round ? STORE32 : LOAD32, false, &w);
        }
        for (unsigned k = 0; k < n / 8; k++) {
            unsigned i = below(n);
            entry old = *SLOT_ENTRY(i);
            *SLOT_ENTRY(i) = one_in(3) ? 0 : frame(below(N_FRAMES)) | P | (one_in(4) ? 0 : W);
            if (old & P)
                invlpg(SLOT_LIN(i));
        }
        rt_printf("scatter round %u: hash %016llx\n", round, (unsigned long long)hash);
    }
}

/* ---- set-up ---- */

static uint32_t option(const char *name, uint32_t otherwise)
{
    uint32_t flags = *(uint32_t *)(word)rt_multiboot_info;
    const char *s = (const char *)(word) * (uint32_t *)(word)(rt_multiboot_info + 16);
    if (!rt_multiboot_info || !(flags & 4))
        return otherwise;
    for (; *s; s++) {
        unsigned n = 0;
        while (name[n] && s[n] == name[n])
            n++;
        if (name[n])
            continue;
        uint32_t x = 0;
        for (s += n; *s >= '0' && *s <= '9'; s++)
            x = x * 10 + (uint32_t)(*s - '0');
        return x;
    }
    return otherwise;
}

#ifdef __x86_64__
static void map_upper_half(void)
{
    /* The guest's own pages are the supervisor's; the upper half has them once more. */
    for (unsigned i = 0; i < 2048; i++)
        rt_pd[i] &= ~(uint64_t)U;
    volatile uint64_t *pt = (volatile uint64_t *)USER_TABLES;
    rt_pd[USER_LIN >> 21] = (word)pt | P | W | U;
    pt[0] = USER_PAGE | P | W | U;
    volatile uint64_t *high = (volatile uint64_t *)0x1103000;
    memset((void *)high, 0, 4096);
    high[510] = rt_pdpt[0], high[511] = rt_pdpt[1];
    rt_pml4[511] = (word)high | P | W;
}

static void choose_regions(void)
{
    /* Two page directories' worth of upper half, one of lower half: regions in each. */
    for (unsigned k = 0; k < 3; k++) {
        word base = k == 2 ? 0x100000000000ul : 0xffff900000000000ul + k * 0x40000000ul;
        volatile uint64_t *pdpt = (volatile uint64_t *)(0x1104000ul + (k == 2 ? 1 : 0) * 4096);
        uint32_t pd = 0x1106000u + k * 4096;
        if (k != 1)
            memset((void *)pdpt, 0, 4096);
        memset((void *)(word)pd, 0, 4096);
        rt_pml4[base >> 39 & 511] = (word)pdpt | P | W | U;
        pdpt[base >> 30 & 511] = pd | P | W | U;
        upper[n_upper++] = pd;
        upper[n_upper++] = (uint32_t)(word)pdpt;
        upper_entry[n_upper_entries++] = &rt_pml4[base >> 39 & 511];
        upper_entry[n_upper_entries++] = &pdpt[base >> 30 & 511];
        for (unsigned i = 0; i < 32; i++) {
            unsigned slot = i < 8 ? i : (i * 61 + 17) % 512;
            lin_of[k * 32 + i] = base + (word)slot * LARGE;
            pde[k * 32 + i] = (volatile entry *)(word)pd + slot;
        }
    }
}

static void set_up_tables(void)
{
    map_upper_half();
    choose_regions();
}
#else
/* The guest itself, its devices, and the user page. */
static void map_own(volatile entry *pd)
{
    for (word lin = 0; lin < 0x10000000u; lin += LARGE)
        pd[lin >> LARGE_SHIFT] = lin | P | W | PS;
    volatile entry *devices = pd + (0xfec00000u >> LARGE_SHIFT);
    for (unsigned i = 0;
         i < (0x1400000u >> LARGE_SHIFT) && (0xfec00000u >> LARGE_SHIFT) + i < (LEVELS == 3 ? 2048u : 1024u); i++)
        devices[i] = (0xfec00000u + i * LARGE) | P | W | PS;
    volatile entry *pt = (volatile entry *)USER_TABLES;
    pd[USER_LIN >> LARGE_SHIFT] = (word)pt | P | W | U;
    pt[(USER_LIN >> 12) & (PER_TABLE - 1)] = USER_PAGE | P | W | U;
}

static void choose_regions(volatile entry *first)
{
    for (unsigned i = 0; i < REGIONS; i++) {
        unsigned slot = i < 8 ? i : (i * 61 + 17) % (0x80000000u >> LARGE_SHIFT);
        lin_of[i] = 0x40000000u + (word)slot * LARGE;
        pde[i] = first + slot;
    }
}

static void set_up_tables(void)
{
    memset((void *)TOP, 0, 4096);
#if LEVELS == 3
    volatile uint64_t *pd = (volatile uint64_t *)0x1110000;
    memset((void *)pd, 0, 4 * 4096);
    for (unsigned i = 0; i < 4; i++)
        ((volatile uint64_t *)TOP)[i] = (0x1110000 + i * 4096) | P;
    upper[n_upper++] = 0x1111000; /* 1 and 2 are neighbours: the tests' */
    upper[n_upper++] = 0x1112000;
    volatile entry *first = (volatile entry *)0x1111000;
#else
    volatile entry *pd = (volatile entry *)TOP;
    volatile entry *first = pd + (0x40000000u >> 22);
#endif
    map_own(pd);
    choose_regions(first);
    write_cr4(read_cr4() | 0x10 | (LEVELS == 3 ? 0x20 : 0));
    write_cr3(TOP);
    write_cr0(read_cr0() | 0x80000000);
}
#endif

static void set_up(void)
{
    uint32_t r[4];
    cpuid(0x40000000, r);
    is_tcg = r[1] == 0x54474354;
    cpuid(0x80000008, r);
    reserved = (0xfffffffffffffull << (r[0] & 0xff)) & 0xfffffffffffffull & ~0xfffull;
    for (unsigned i = 0; i < N_FRAMES; i++)
        fill_page(frame(i), i);
    for (unsigned i = 0; i < 64; i++)
        fill_page(TABLES + i * 4096, i);
    for (uint32_t p = BIG; p < BIG_END; p += 4096)
        fill_page(p, p >> 12);
    memcpy((void *)(word)USER_PAGE, user_code, sizeof user_code);
    memset((void *)(word)USER_TABLES, 0, 4 * 4096);
    write_cr4(read_cr4() | 0x600);
    set_up_tables();
    if (LEVELS > 2) {
        wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
        nxe = true;
    }
    write_cr3(read_cr3());
}

int main(void)
{
    uint32_t seed = option("seed=", 1), steps = option("steps=", 4000), scattered = option("scatter=", 4000);
    state = seed;
    rt_printf("seed %u, %u steps, %u scattered pages\n", seed, steps, scattered);
    set_up();
    set_up_pcids();
    rt_hook = hook;
    for (unsigned r = 0; r < REGIONS; r++)
        change_region(r);
    unsigned every = steps / 10 ? steps / 10 : 1;
    for (step = 1; step <= steps; step++) {
        one_step();
        if (step % every == 0)
            rt_printf("step %u: hash %016llx\n", step, (unsigned long long)hash);
    }
    scatter(scattered < 65536 ? scattered : 65536);
    rt_printf("%u accesses, %u faults, %u wrong\n", accesses, faults, wrong);
    return wrong != 0;
}

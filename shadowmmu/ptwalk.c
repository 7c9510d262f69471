/* shadowmmu/ptwalk.c - see ptwalk.h. nofpu: no library calls, no vector registers.
 *
 * A walk reads every level, then checks the access, then sets accessed/dirty bits; when another agent changed an entry in
 * between, the locked compare-exchange fails and the walk starts again, so the bits are only ever set in the entries that
 * the decision was based on.
 * Entries outside RAM read as all-ones, as a bus without a device answers. What follows is what the formats say: in PAE
 * and 4-level tables all-ones has reserved bits set (#PF with RSVD); in 2-level tables it is a present entry.
 */
#include "shadowmmu/ptwalk.h"
#include "shadowmmu/gpmem_int.h"

#define ADDR_MASK ((((uint64_t)1 << GUEST_MAXPHYADDR) - 1) & PAGE_MASK)
#define RSVD_HIGH_LONG (((uint64_t)1 << 52) - ((uint64_t)1 << GUEST_MAXPHYADDR)) /* bits 51:M */
#define RSVD_HIGH_PAE (((uint64_t)1 << 63) - ((uint64_t)1 << GUEST_MAXPHYADDR))  /* bits 62:M */
#define MAX_LEVELS 4

struct walk {
    struct gpmem *m;
    const struct cpu *c;
    uint64_t lin;
    unsigned access;
    unsigned n; /* entries read, root first */
    uint64_t gpa[MAX_LEVELS];
    uint64_t entry[MAX_LEVELS];
    bool wide;     /* 8-byte entries */
    bool w, u, nx; /* and-ed, and-ed, or-ed along the walk */
};

static uint64_t read_entry(const struct walk *k, uint64_t gpa)
{
    const volatile uint8_t *p = gpmem_ptr(k->m, gpa);
    if (!p)
        return k->wide ? ~0ull : 0xffffffffull;
    return k->wide ? *(const volatile uint64_t *)p : *(const volatile uint32_t *)p;
}

static uint32_t error_code(const struct walk *k)
{
    uint32_t e = 0;
    if (k->access & PT_WRITE)
        e |= PF_W;
    if (k->access & PT_USER)
        e |= PF_U;
    /* The I/D bit exists only with NX paging or SMEP (SDM 3A 4.7). */
    bool nx_on = (k->c->cr4 & CR4_PAE) && (k->c->efer & EFER_NXE);
    if ((k->access & PT_EXEC) && (nx_on || (k->c->cr4 & CR4_SMEP)))
        e |= PF_I;
    return e;
}

/* Reads one level. 0, or the error-code bits that the entry itself causes plus a marker that there is a fault. */
enum step { STEP_OK, STEP_NOT_PRESENT, STEP_RESERVED };
static enum step step(struct walk *k, uint64_t gpa, uint64_t reserved)
{
    uint64_t e = read_entry(k, gpa);
    k->gpa[k->n] = gpa;
    k->entry[k->n++] = e;
    if (!(e & PTE_P))
        return STEP_NOT_PRESENT;
    if (e & reserved)
        return STEP_RESERVED;
    k->w = k->w && (e & PTE_W);
    k->u = k->u && (e & PTE_U);
    k->nx = k->nx || (k->wide && (e & PTE_NX));
    return STEP_OK;
}

/* A large leaf: address bits between PAT (bit 12) and the page size are reserved. */
static enum step large_leaf(const struct walk *k, unsigned shift, struct pt_result *r)
{
    uint64_t e = k->entry[k->n - 1], size = (uint64_t)1 << shift;
    if (e & (size - 1) & ~0x1fffull)
        return STEP_RESERVED;
    r->page_bytes = size;
    r->gpa = (e & ADDR_MASK & ~(size - 1)) | (k->lin & (size - 1));
    return STEP_OK;
}

static void small_leaf(const struct walk *k, struct pt_result *r)
{
    r->page_bytes = PAGE_SIZE;
    r->gpa = (k->entry[k->n - 1] & (k->wide ? ADDR_MASK : 0xfffff000ull)) | (k->lin & 0xfff);
}

/* SDM 3A 4.3, tables 4-4 to 4-6. */
static enum step walk_2level(struct walk *k, struct pt_result *r)
{
    enum step s = step(k, (k->c->cr3 & 0xfffff000u) | (k->lin >> 22 << 2), 0);
    if (s != STEP_OK)
        return s;
    uint64_t pde = k->entry[0];
    if ((pde & PTE_PS) && (k->c->cr4 & CR4_PSE)) {
        if (pde & 0x200000) /* bit 21 is beyond a 40-bit PSE-36 address */
            return STEP_RESERVED;
        r->page_bytes = 4u << 20;
        r->gpa = (pde & 0xffc00000u) | (pde >> 13 & 0xff) << 32 | (k->lin & 0x3fffff);
        return STEP_OK;
    }
    s = step(k, (pde & 0xfffff000u) | (k->lin >> 12 & 0x3ff) << 2, 0);
    if (s == STEP_OK)
        small_leaf(k, r);
    return s;
}

static enum step walk_pd(struct walk *k, uint64_t pd, uint64_t reserved, struct pt_result *r)
{
    enum step s = step(k, pd | (k->lin >> 21 & 0x1ff) << 3, reserved);
    if (s != STEP_OK)
        return s;
    uint64_t pde = k->entry[k->n - 1];
    if (pde & PTE_PS)
        return large_leaf(k, 21, r);
    s = step(k, (pde & ADDR_MASK) | (k->lin >> 12 & 0x1ff) << 3, reserved);
    if (s == STEP_OK)
        small_leaf(k, r);
    return s;
}

/* SDM 3A 4.4. The PDPTEs are registers; their reserved bits were checked when they were loaded. */
static enum step walk_pae(struct walk *k, struct pt_result *r)
{
    uint64_t pdpte = k->c->pdpte[k->lin >> 30 & 3];
    if (!(pdpte & PTE_P))
        return STEP_NOT_PRESENT;
    return walk_pd(k, pdpte & ADDR_MASK, RSVD_HIGH_PAE | (k->c->efer & EFER_NXE ? 0 : PTE_NX), r);
}

/* SDM 3A 4.5. */
static enum step walk_4level(struct walk *k, struct pt_result *r)
{
    uint64_t reserved = RSVD_HIGH_LONG | (k->c->efer & EFER_NXE ? 0 : PTE_NX);
    enum step s = step(k, (k->c->cr3 & ADDR_MASK) | (k->lin >> 39 & 0x1ff) << 3, reserved | PTE_PS);
    if (s != STEP_OK)
        return s;
    s = step(k, (k->entry[0] & ADDR_MASK) | (k->lin >> 30 & 0x1ff) << 3, reserved);
    if (s != STEP_OK)
        return s;
    if (k->entry[1] & PTE_PS)
        return large_leaf(k, 30, r);
    return walk_pd(k, k->entry[1] & ADDR_MASK, reserved, r);
}

/* Would a write of this kind be allowed? (SDM 3A 4.6.1; SMAP and U/S are checked apart.) */
static bool write_allowed(const struct walk *k) { return k->w || (!(k->access & PT_USER) && !(k->c->cr0 & CR0_WP)); }

static bool smap_forbids(const struct walk *k)
{
    if (!(k->c->cr4 & CR4_SMAP) || !k->u || (k->access & (PT_USER | PT_EXEC)))
        return false;
    return (k->access & PT_IMPLICIT) || !(k->c->eflags_sys & EFLAGS_AC);
}

static bool access_allowed(const struct walk *k)
{
    if ((k->access & PT_USER) && !k->u)
        return false;
    if (smap_forbids(k))
        return false;
    if ((k->access & PT_WRITE) && !write_allowed(k))
        return false;
    if (k->access & PT_EXEC) {
        if (k->nx)
            return false;
        if (!(k->access & PT_USER) && k->u && (k->c->cr4 & CR4_SMEP))
            return false;
    }
    return true;
}

/* Sets bits in entry i unless it changed since it was read. Returns false if it did. */
static bool set_bits(struct walk *k, unsigned i, uint64_t bits)
{
    uint64_t old = k->entry[i];
    if ((old & bits) == bits)
        return true;
    const struct gpmem_slot *s = gpmem_find(k->m, k->gpa[i]);
    if (!s || s->rom) /* the bus drops the write */
        return true;
    uint8_t *p = s->host + (k->gpa[i] - s->gpa);
    /* A and D change no translation, so whoever watches page tables need not hear; code and dirty logs must. */
    gpmem_trace(k->m, k->gpa[i], k->wide ? 8 : 4, GP_CODE | GP_DIRTYLOG);
    if (k->wide) {
        if (!__sync_bool_compare_and_swap((uint64_t *)p, old, old | bits))
            return false;
    } else if (!__sync_bool_compare_and_swap((uint32_t *)p, (uint32_t)old, (uint32_t)(old | bits)))
        return false;
    k->entry[i] = old | bits;
    return true;
}

/* Accessed in every entry, dirty in the leaf of a write (SDM 3A 4.8). */
static bool set_accessed_dirty(struct walk *k)
{
    for (unsigned i = 0; i < k->n; i++) {
        bool leaf = i == k->n - 1;
        if (!set_bits(k, i, PTE_A | (leaf && (k->access & PT_WRITE) ? PTE_D : 0)))
            return false;
    }
    return true;
}

static enum step walk_levels(struct walk *k, struct pt_result *r)
{
    k->n = 0;
    k->w = k->u = true;
    k->nx = false;
    k->wide = k->c->cr4 & CR4_PAE;
    if (!k->wide)
        return walk_2level(k, r);
    return cpu_long_mode(k->c) ? walk_4level(k, r) : walk_pae(k, r);
}

static void fill_result(const struct walk *k, struct pt_result *r)
{
    uint64_t leaf = k->entry[k->n - 1];
    r->writable = write_allowed(k) && !smap_forbids(k);
    r->dirty = leaf & PTE_D;
    r->user = k->u;
    r->global = (leaf & PTE_G) && (k->c->cr4 & CR4_PGE);
    r->nx = k->nx;
    r->n_tables = k->n;
    for (unsigned i = 0; i < k->n; i++)
        r->table_gpa[i] = k->gpa[i] & PAGE_MASK;
}

static int walk_unpaged(uint64_t lin, struct pt_result *r)
{
    r->gpa = lin & 0xffffffffu;
    r->page_bytes = 1u << 30;
    r->writable = r->dirty = r->user = r->global = true;
    r->nx = false;
    r->n_tables = 0;
    return 0;
}

int pt_walk(struct gpmem *m, const struct cpu *c, uint64_t lin, unsigned access, struct pt_result *r,
            uint32_t *pf_error)
{
    if (!(c->cr0 & CR0_PG))
        return walk_unpaged(lin, r);
    struct walk k;
    k.m = m;
    k.c = c;
    k.lin = cpu_long_mode(c) ? lin : lin & 0xffffffffu;
    k.access = access;
    for (;;) {
        enum step s = walk_levels(&k, r);
        if (s != STEP_OK) {
            *pf_error = error_code(&k) | (s == STEP_RESERVED ? PF_P | PF_RSVD : 0);
            return 1;
        }
        if (!access_allowed(&k)) {
            *pf_error = error_code(&k) | PF_P;
            return 1;
        }
        if ((access & PT_PROBE) || set_accessed_dirty(&k))
            break;
    }
    fill_result(&k, r);
    return 0;
}

/* SDM 3A 4.4.1: bits 2:1, 8:5 and 63:MAXPHYADDR of a present PDPTE are reserved. */
bool pt_pdptes_valid(const uint64_t pdpte[4])
{
    const uint64_t reserved = 0x1e6 | ~(((uint64_t)1 << GUEST_MAXPHYADDR) - 1);
    for (unsigned i = 0; i < 4; i++)
        if ((pdpte[i] & PTE_P) && (pdpte[i] & reserved))
            return false;
    return true;
}

int pt_load_pdptes(struct gpmem *m, struct cpu *c, uint64_t cr3)
{
    const volatile uint64_t *p = (const volatile uint64_t *)gpmem_ptr(m, cr3 & 0xffffffe0u);
    uint64_t e[4];
    for (unsigned i = 0; i < 4; i++)
        e[i] = p ? p[i] : ~0ull;
    if (!pt_pdptes_valid(e))
        return 1;
    for (unsigned i = 0; i < 4; i++)
        c->pdpte[i] = e[i];
    return 0;
}

/* monitor/direct.c - see direct.h. */
#include "monitor/direct.h"
#include "base/err.h"
#include "monitor/vm_int.h"
#include "shadowmmu/ptwalk.h"
#include "shadowmmu/uworld.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SPACE_BITS 10
#define SPACES (1u << SPACE_BITS)
#define CHUNK_PAGES 512u
#define CHUNK_SHIFT 21
#define AROUND 16u
#define MIN_ADDRESS 0x10000u
/* Promotion: user time spent translated and how long it ran between two kernel entries, in TSC ticks. Demotion: CPU time of the
 * world per turn, which includes what entering and leaving costs it (about 2.5 us). Setting a world up costs milliseconds, a turn
 * a signal and two hand-offs: only programs that compute gain. */
#define PROMOTE_TICKS 40000000u
#define PROMOTE_BURST 60000u
#define DEMOTE_NS 12000u
#define LONG_TURN_NS 200000u /* waiting is then for the CPU, not for the hand-off: no tier could help */
#define BURST_WINDOW 256u
#define MIN_WINDOW_NS 20000000u

/* 2 MiB of a world: the entries as they were when their pages were mapped. */
struct chunk {
    uint64_t lin;
    uint64_t table; /* guest physical address of the page table, or ~0 for a piece of a large page */
    struct chunk *next;
    unsigned pages;
    uint64_t pte[CHUNK_PAGES]; /* 0 = not mapped; for a large page its entry */
    uint8_t prot[CHUNK_PAGES];
};
#define CHUNK_HASH 64u
struct space {
    uint64_t cr3;
    struct uworld *world;
    struct chunk *chunk[CHUNK_HASH];
    bool stale;   /* CR3 was loaded since it ran */
    bool refused; /* something in it cannot run directly */
    bool direct;  /* promoted */
    uint64_t user_ticks, burst_ticks, world_ns, turn_ns;
    unsigned bursts, penalty;
    uint64_t used;      /* for choosing a victim */
    uint64_t fault_lin; /* last address that was the guest's own fault: likely to be there now; ~0 = none */
};
struct direct {
    enum vm_user_mode mode;
    struct uw_pool *pool;
    struct uworld *running; /* for the kick */
    uint64_t clock;
    struct space space[SPACES];
};

int direct_create(struct direct **out, struct vcpu *v, enum vm_user_mode mode, const char **why)
{
    *out = NULL;
    *why = NULL;
    if (mode == VM_USER_TRANSLATED)
        return 0;
    struct direct *d = calloc(1, sizeof *d);
    if (!d)
        return -RD_E_NOMEM;
    struct uw_config cfg = {.mem_fd = gpmem_fd(v->mem), .fault_cpuid = true};
    d->mode = mode;
    if (uw_pool_create(&d->pool, &cfg, why)) {
        free(d);
        return 0;
    }
    for (unsigned i = 0; i < SPACES; i++)
        d->space[i].cr3 = d->space[i].fault_lin = ~0ull;
    *out = d;
    return 0;
}

static void forget(struct space *s)
{
    for (unsigned i = 0; i < CHUNK_HASH; i++)
        for (struct chunk *c = s->chunk[i], *next; c; c = next) {
            next = c->next;
            free(c);
        }
    memset(s->chunk, 0, sizeof s->chunk);
}

static void drop_world(struct space *s)
{
    if (s->world)
        uw_put(s->world);
    s->world = NULL;
    forget(s);
}

void direct_destroy(struct direct *d)
{
    if (!d)
        return;
    for (unsigned i = 0; i < SPACES; i++)
        drop_world(&d->space[i]);
    uw_pool_destroy(d->pool);
    free(d);
}

/* ---- spaces ---- */

static uint64_t cr3_base(const struct vcpu *v) { return v->c.cr3 & ~0xfffull & ((1ull << GUEST_MAXPHYADDR) - 1); }

static struct space *space_slot(struct direct *d, uint64_t cr3)
{
    return &d->space[(cr3 >> 12) * 0x9e3779b97f4a7c15ull >> (64 - SPACE_BITS)];
}

/* The current space; one that shares its slot loses it. */
static struct space *space_of(struct vcpu *v)
{
    struct direct *d = v->priv->direct;
    uint64_t cr3 = cr3_base(v);
    struct space *s = space_slot(d, cr3);
    if (s->cr3 != cr3) {
        drop_world(s);
        *s = (struct space){.cr3 = cr3, .fault_lin = ~0ull, .stale = true};
        s->direct = d->mode == VM_USER_DIRECT;
    }
    return s;
}

/* Ends the world that has not run for longest. */
static void evict(struct direct *d)
{
    struct space *victim = NULL;
    for (unsigned i = 0; i < SPACES; i++)
        if (d->space[i].world && (!victim || d->space[i].used < victim->used))
            victim = &d->space[i];
    if (victim)
        drop_world(victim);
}

static bool state_allows(const struct vcpu *v)
{
    const struct cpu *c = &v->c;
    const uint32_t bad = CPU_KEY_STEP | CPU_KEY_AC | CPU_KEY_TS | CPU_KEY_EM | CPU_KEY_REAL;
    if (c->cpl != 3 || (c->key & bad) || !(c->key & CPU_KEY_OSFXSR) || !(c->cr0 & CR0_PG))
        return false;
    /* 32-bit code could load the host's own selectors without anybody noticing: it stays translated. */
    return (c->key & CPU_KEY_CODE64) && (int64_t)c->rip >= 0;
}

bool direct_wanted(struct vcpu *v)
{
    struct direct *d = v->priv->direct;
    if (!d || !state_allows(v))
        return false;
    const struct space *s = space_slot(d, cr3_base(v));
    if (s->cr3 != cr3_base(v))
        return d->mode == VM_USER_DIRECT;
    return s->direct && !s->refused;
}

void direct_account(struct vcpu *v, uint64_t ticks)
{
    struct direct *d = v->priv->direct;
    struct space *s = space_slot(d, cr3_base(v));
    if (d->mode != VM_USER_AUTO || s->cr3 != cr3_base(v)) {
        if (d->mode == VM_USER_AUTO) {
            fpu_leave(v);
            space_of(v);
        }
        return;
    }
    s->user_ticks += ticks;
    s->burst_ticks += ticks;
    if (++s->bursts < BURST_WINDOW && s->burst_ticks < (uint64_t)PROMOTE_TICKS << s->penalty)
        return;
    uint64_t burst = s->burst_ticks / s->bursts;
    if (burst >= PROMOTE_BURST && s->user_ticks >= (uint64_t)PROMOTE_TICKS << s->penalty && !s->refused) {
        s->direct = true;
        v->stats->uw_promoted++;
    }
    s->bursts = 0;
    s->burst_ticks = 0;
}

/* CPU time that the world's process has used. */
static uint64_t world_ns(const struct space *s)
{
    clockid_t id;
    struct timespec t;
    if (clock_getcpuclockid(uw_pid(s->world), &id) || clock_gettime(id, &t))
        return 0;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t wall_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Direct code came back after wall_ns. Not worth it: coming back too often, or waiting for the hand-offs for longer than the
 * code ran, as on a host whose CPUs are all busy. */
static void account_direct(struct vcpu *v, struct space *s, uint64_t ns)
{
    s->turn_ns += ns;
    if (++s->bursts < BURST_WINDOW && s->turn_ns < MIN_WINDOW_NS)
        return;
    unsigned turns = s->bursts;
    uint64_t wall = s->turn_ns;
    s->turn_ns = 0;
    uint64_t now = world_ns(s), spent = now - s->world_ns;
    s->world_ns = now;
    s->bursts = 0;
    s->burst_ticks = 0;
    if (v->priv->direct->mode != VM_USER_AUTO ||
        (spent / turns >= DEMOTE_NS && (wall < 2 * spent || spent / turns >= LONG_TURN_NS)))
        return;
    s->direct = false;
    s->user_ticks = 0;
    s->penalty += s->penalty < 8;
    v->stats->uw_demoted++;
    drop_world(s);
}

/* ---- what is mapped ---- */

static struct chunk *find_chunk(struct space *s, uint64_t lin)
{
    struct chunk *c = s->chunk[lin >> CHUNK_SHIFT & (CHUNK_HASH - 1)];
    while (c && c->lin != lin >> CHUNK_SHIFT)
        c = c->next;
    return c;
}

static struct chunk *make_chunk(struct space *s, uint64_t lin)
{
    struct chunk *c = find_chunk(s, lin);
    if (c)
        return c;
    c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    struct chunk **head = &s->chunk[lin >> CHUNK_SHIFT & (CHUNK_HASH - 1)];
    c->lin = lin >> CHUNK_SHIFT;
    c->table = ~0ull;
    c->next = *head;
    *head = c;
    return c;
}

static void unmap_page(struct space *s, struct chunk *c, unsigned page)
{
    if (!c->pte[page])
        return;
    uw_unmap(s->world, (c->lin << CHUNK_SHIFT) + (uint64_t)page * PAGE_SIZE, PAGE_SIZE);
    c->pte[page] = 0;
    c->prot[page] = 0;
    c->pages--;
}

static void unmap_chunk(struct space *s, struct chunk *c)
{
    uw_unmap(s->world, c->lin << CHUNK_SHIFT, CHUNK_PAGES * PAGE_SIZE);
    memset(c->pte, 0, sizeof c->pte);
    memset(c->prot, 0, sizeof c->prot);
    c->pages = 0;
}

static unsigned pte_bytes(const struct vcpu *v) { return v->c.cr4 & CR4_PAE ? 8 : 4; }

static uint64_t read_pte(const struct vcpu *v, uint64_t table, uint64_t lin)
{
    unsigned n = pte_bytes(v);
    uint64_t index = lin >> PAGE_SHIFT & (n == 8 ? 511 : 1023);
    const uint8_t *p = gpmem_ptr(v->mem, table + index * n);
    return !p ? 0 : n == 8 ? *(const volatile uint64_t *)p : *(const volatile uint32_t *)p;
}

/* The leaf of a walk: the table that holds the entry (or ~0 for large pages) and a value that changes when the translation does. */
static uint64_t leaf_of(struct vcpu *v, uint64_t lin, const struct pt_result *r, uint64_t *table)
{
    if (r->page_bytes != PAGE_SIZE || !r->n_tables) {
        *table = ~0ull;
        return (r->gpa & ~0xfffull) | PTE_P | (r->writable ? PTE_W : 0) | (r->dirty ? PTE_D : 0) | (r->nx ? PTE_NX : 0);
    }
    *table = r->table_gpa[r->n_tables - 1];
    return read_pte(v, *table, lin);
}

/* Every table above the leaf may have changed as well: walk once per chunk, then compare entries. */
static void sync_chunk(struct vcpu *v, struct space *s, struct chunk *c)
{
    uint64_t base = c->lin << CHUNK_SHIFT, table = ~0ull;
    unsigned first = 0;
    struct pt_result r;
    uint32_t err;
    while (first < CHUNK_PAGES && !c->pte[first])
        first++;
    if (first == CHUNK_PAGES)
        return;
    uint64_t lin = base + (uint64_t)first * PAGE_SIZE;
    bool there = !pt_walk(v->mem, &v->c, lin, PT_READ | PT_USER | PT_PROBE, &r, &err);
    uint64_t leaf = there ? leaf_of(v, lin, &r, &table) : 0;
    if (!there || table != c->table) {
        /* The first page alone may be gone; its table tells of the others only if it is still in use. */
        if (there || c->table == ~0ull || c->pages == 1) {
            unmap_chunk(s, c);
            return;
        }
        unmap_page(s, c, first);
        sync_chunk(v, s, c);
        return;
    }
    if (table == ~0ull) {
        if (leaf != c->pte[first])
            unmap_chunk(s, c);
        return;
    }
    for (unsigned i = first; i < CHUNK_PAGES; i++)
        if (c->pte[i] && ((read_pte(v, table, base + (uint64_t)i * PAGE_SIZE) ^ c->pte[i]) & ~PTE_A))
            unmap_page(s, c, i);
}

static void sync_space(struct vcpu *v, struct space *s)
{
    v->stats->uw_syncs++;
    for (unsigned i = 0; i < CHUNK_HASH; i++)
        for (struct chunk *c = s->chunk[i]; c; c = c->next)
            sync_chunk(v, s, c);
    s->stale = false;
}

void direct_cr3_loaded(struct vcpu *v)
{
    struct space *s = space_slot(v->priv->direct, cr3_base(v));
    if (s->cr3 == cr3_base(v))
        s->stale = true;
}

void direct_invlpg(struct vcpu *v, uint64_t lin)
{
    struct space *s = space_slot(v->priv->direct, cr3_base(v));
    if (s->cr3 == cr3_base(v) && s->world)
        s->stale = true;
}

void direct_protect(struct vcpu *v, uint64_t gpa)
{
    struct direct *d = v->priv->direct;
    for (unsigned k = 0; k < SPACES; k++) {
        struct space *s = &d->space[k];
        for (unsigned i = 0; s->world && i < CHUNK_HASH; i++)
            for (struct chunk *c = s->chunk[i]; c; c = c->next)
                for (unsigned n = 0; n < CHUNK_PAGES; n++)
                    if (c->pte[n] && (c->prot[n] & UW_W) && ((c->pte[n] ^ gpa) & 0xfffffffff000ull) == 0)
                        unmap_page(s, c, n);
    }
}

/* Enters a translation. */
static int map_page(struct vcpu *v, struct space *s, uint64_t lin, const struct pt_result *r)
{
    const struct gpmem_slot *slot = gpmem_find(v->mem, r->gpa);
    uint64_t page = lin & PAGE_MASK, gpa = r->gpa & PAGE_MASK, table;
    uint64_t leaf = leaf_of(v, lin, r, &table);
    /* Below vm.mmap_min_addr the host maps nothing. */
    if (!slot || page < MIN_ADDRESS || uw_conflicts(v->priv->direct->pool, page, PAGE_SIZE))
        return -RD_E_UNSUPPORTED;
    struct chunk *c = make_chunk(s, lin);
    if (!c)
        return -RD_E_NOMEM;
    if (c->pages && c->table != table)
        unmap_chunk(s, c);
    c->table = table;
    uint8_t *flags = &slot->flags[(gpa - slot->gpa) >> PAGE_SHIFT];
    bool write = r->writable && r->dirty && !slot->rom && !(*flags & GP_TRACED_MASK);
    unsigned prot = UW_R | (write ? UW_W : 0) | (r->nx ? 0 : UW_X),
             i = (unsigned)(lin >> PAGE_SHIFT) & (CHUNK_PAGES - 1);
    c->pages += !c->pte[i];
    c->pte[i] = leaf;
    c->prot[i] = (uint8_t)prot;
    if (write)
        *flags |= GP_WORLD;
    v->stats->uw_maps++;
    return uw_map(s->world, page, slot->memfd_offset + (gpa - slot->gpa), PAGE_SIZE, prot | UW_POPULATE);
}

/* Pages beside the one that faulted that the guest has used before (A is set: nothing changes for it). */
static void map_around(struct vcpu *v, struct space *s, uint64_t lin)
{
    uint64_t start = lin & ~(uint64_t)(AROUND * PAGE_SIZE - 1);
    struct chunk *c = find_chunk(s, lin);
    if (!c || c->table == ~0ull)
        return;
    for (unsigned i = 0; i < AROUND; i++) {
        uint64_t at = start + (uint64_t)i * PAGE_SIZE;
        struct pt_result r;
        uint32_t err;
        if (c->pte[at >> PAGE_SHIFT & (CHUNK_PAGES - 1)])
            continue;
        uint64_t pte = read_pte(v, c->table, at);
        if ((pte & (PTE_P | PTE_U | PTE_A)) != (PTE_P | PTE_U | PTE_A))
            continue;
        if (!pt_walk(v->mem, &v->c, at, PT_READ | PT_USER | PT_PROBE, &r, &err) && gpmem_find(v->mem, r.gpa))
            map_page(v, s, at, &r);
    }
}

static enum direct_result page_fault(struct vcpu *v, struct space *s, uint64_t lin, uint32_t error)
{
    struct pt_result r;
    uint32_t err;
    unsigned how = error & PF_W ? PT_WRITE : error & PF_I ? PT_EXEC : PT_READ;
    if ((v->c.key & CPU_KEY_CODE64) && (int64_t)lin < 0)
        return DIRECT_STEP; /* upper half: the engine knows what it is */
    if (pt_walk(v->mem, &v->c, lin, how | PT_USER, &r, &err)) {
        v->fault = (struct guest_fault){.vector = EXC_PF, .has_error = true, .error = err, .cr2 = lin};
        s->fault_lin = lin;
        return DIRECT_FAULT;
    }
    const struct gpmem_slot *slot = gpmem_find(v->mem, r.gpa);
    if (!slot || (slot->rom && (error & PF_W))) {
        v->stats->uw_steps++;
        return DIRECT_STEP;
    }
    /* Its translations are of no use any more: this space runs directly. */
    if ((error & PF_W) && (slot->flags[(r.gpa - slot->gpa) >> PAGE_SHIFT] & GP_CODE))
        vcpu_trace_write_page(v, r.gpa);
    if (map_page(v, s, lin, &r)) {
        s->refused = true;
        v->stats->uw_refused++;
        return DIRECT_NO;
    }
    map_around(v, s, lin);
    v->stats->uw_hidden++;
    return DIRECT_GO_ON;
}

/* The page the guest kernel has just been asked for is probably there. */
static void map_expected(struct vcpu *v, struct space *s)
{
    struct pt_result r;
    uint32_t err;
    uint64_t lin = s->fault_lin;
    s->fault_lin = ~0ull;
    if (lin == ~0ull || pt_walk(v->mem, &v->c, lin, PT_READ | PT_USER | PT_PROBE, &r, &err) ||
        !gpmem_find(v->mem, r.gpa))
        return;
    map_page(v, s, lin, &r);
    map_around(v, s, lin);
}

/* ---- running ---- */

static uint16_t selector(struct vcpu *v, struct space *s, unsigned seg)
{
    const struct seg *g = &v->c.seg[seg];
    uint16_t sel = 0;
    bool wrapped = false;
    if (!(g->sel & ~3u))
        return 0;
    if (g->base == 0)
        return UW_DATA;
    uw_ldt(s->world, (uint32_t)g->base, &sel, &wrapped);
    if (wrapped)
        uw_ldt(s->world, (uint32_t)g->base, &sel, &wrapped);
    return sel;
}

static void state_in(struct vcpu *v, struct space *s, struct uw_state *u)
{
    const struct cpu *c = &v->c;
    bool wide = c->key & CPU_KEY_CODE64;
    memcpy(u->gpr, c->gpr, sizeof u->gpr);
    u->rip = c->rip;
    u->rflags = cpu_get_eflags(c) & (EFLAGS_ARITH | EFLAGS_DF | EFLAGS_ID | EFLAGS_R1);
    u->fs_base = c->seg[S_FS].base;
    u->gs_base = c->seg[S_GS].base;
    u->cs = wide ? UW_CS64 : UW_CS32;
    u->ds = u->es = wide ? 0 : UW_DATA;
    u->fs = wide ? 0 : selector(v, s, S_FS);
    u->gs = wide ? 0 : selector(v, s, S_GS);
}

static void state_out(struct vcpu *v, const struct uw_state *u)
{
    struct cpu *c = &v->c;
    bool wide = c->key & CPU_KEY_CODE64;
    for (unsigned i = 0; i < 16; i++)
        c->gpr[i] = wide ? u->gpr[i] : i < 8 ? (uint32_t)u->gpr[i] : c->gpr[i];
    c->rip = wide ? u->rip : (uint32_t)u->rip;
    c->flags = u->rflags & EFLAGS_ARITH;
    c->df_flag = (u->rflags & EFLAGS_DF) != 0;
    c->eflags_sys = (c->eflags_sys & ~EFLAGS_ID) | (u->rflags & EFLAGS_ID);
    if (wide) {
        c->seg[S_FS].base = u->fs_base;
        c->seg[S_GS].base = u->gs_base;
    }
}

static enum direct_result syscall_event(struct vcpu *v, uint8_t op, uint64_t imm)
{
    struct sys_op o = {.op = op, .opsize = v->c.key & CPU_KEY_CODE64 ? 8 : 4, .len = 2, .flags = SYS_F_IMM | SYS_F_END};
    memcpy(&v->op, &o, sizeof v->op);
    v->op_imm = imm;
    v->stats->uw_syscalls++;
    return DIRECT_SYSCALL;
}

/* Traps come with rip behind INT3, INT1 or INTO: back to the instruction, which the engine will carry out. */
static bool back_to_insn(struct vcpu *v, uint8_t vector)
{
    static const uint8_t opcode[] = {[EXC_DB] = 0xf1, [EXC_BP] = 0xcc, [EXC_OF] = 0xce};
    uint8_t b[2] = {0, 0};
    uint64_t rip = v->c.rip;
    if (mem_read(v, rip - 1, &b[1], 1, MEM_R) == 0 && b[1] == opcode[vector])
        v->c.rip = rip - 1;
    else if (vector == EXC_BP && mem_read(v, rip - 2, b, 1, MEM_R) == 0 && b[0] == 0xcd)
        v->c.rip = rip - 2;
    return v->c.rip != rip;
}

static enum direct_result event(struct vcpu *v, struct space *s, const struct uw_event *e)
{
    switch (e->kind) {
    case UW_SYSCALL: return syscall_event(v, SYS_OP_SYSCALL, 0);
    case UW_INT80: return syscall_event(v, SYS_OP_INT, 0x80);
    case UW_SYSENTER: return syscall_event(v, SYS_OP_SYSENTER, 0);
    case UW_KICK: return DIRECT_GO_ON;
    case UW_DEAD:
        drop_world(s);
        s->refused = true;
        v->stats->uw_refused++;
        return DIRECT_NO;
    default: break;
    }
    if (e->vector == EXC_PF)
        return page_fault(v, s, e->cr2, e->error);
    if ((e->vector == EXC_BP || e->vector == EXC_DB || e->vector == EXC_OF) && !back_to_insn(v, e->vector))
        return DIRECT_GO_ON;
    v->stats->uw_steps++;
    return DIRECT_STEP; /* the engine knows what this instruction does */
}

static bool world_for(struct vcpu *v, struct space *s)
{
    struct direct *d = v->priv->direct;
    if (s->world)
        return true;
    s->world = uw_get(d->pool);
    if (!s->world) {
        evict(d);
        s->world = uw_get(d->pool);
    }
    s->stale = false;
    s->bursts = 0;
    s->turn_ns = 0;
    s->world_ns = s->world ? world_ns(s) : 0;
    return s->world;
}

enum direct_result direct_run(struct vcpu *v)
{
    struct direct *d = v->priv->direct;
    struct space *s = space_of(v);
    struct uw_state u;
    struct uw_event e;
    if (!world_for(v, s))
        return DIRECT_NO;
    s->used = ++d->clock;
    if (s->stale)
        sync_space(v, s);
    map_expected(v, s);
    state_in(v, s, &u);
    uw_fpu_load(s->world, v->xsave, v->cpu->xsave_bytes);
    __atomic_store_n(&d->running, s->world, __ATOMIC_SEQ_CST);
    if (vcpu_deliverable(v)) {
        d->running = NULL;
        return DIRECT_GO_ON;
    }
    uint64_t start = wall_ns();
    int rc = uw_run(s->world, &u, &e);
    uint64_t ns = wall_ns() - start;
    __atomic_store_n(&d->running, NULL, __ATOMIC_SEQ_CST);
    v->stats->uw_runs++;
    if (rc) { /* did not run: the host refused mappings, and the world is empty or dead */
        forget(s);
        if (rc == -RD_E_HOST)
            drop_world(s);
        return DIRECT_NO;
    }
    if (e.kind != UW_DEAD) {
        state_out(v, &u);
        uw_fpu_save(s->world, v->xsave, v->cpu->xsave_bytes);
    }
    uint64_t hidden = v->stats->uw_hidden;
    enum direct_result result = event(v, s, &e);
    /* Hidden faults are the cost of moving in, paid once; what counts is how the program itself comes back. */
    if (s->world && v->stats->uw_hidden == hidden)
        account_direct(v, s, ns);
    return result;
}

void direct_kick(struct vcpu *v)
{
    struct direct *d = v->priv->direct;
    struct uworld *w = d ? __atomic_load_n(&d->running, __ATOMIC_SEQ_CST) : NULL;
    if (w)
        uw_kick(w);
}

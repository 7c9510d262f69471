/* monitor/direct.c - see direct.h. */
#include "monitor/direct_int.h"
#include "base/err.h"
#include <stdlib.h>
#include <string.h>

/* A host that keeps refusing mappings (there is a limit to their number) empties the world again and again. Each such event is to be
 * paid off by so much time of running; turns that only bring back what was lost do not count, and a large world has many. */
#define EMPTIED_COST_NS 100000000u
#define EMPTIED_LIMIT_NS 250000000u
#define SWEEP_LOADS 16u /* CR3 loads between two looks for spaces that have ended */

/* ---- FPU state: it stays in the signal frame of the world that ran last, until somebody wants it (vcpu.h, fpu_away) ---- */

static void fpu_fetch(struct vcpu *v)
{
    const struct space *s = v->fpu_away;
    uw_fpu_save(s->world, v->xsave, v->cpu->xsave_bytes);
    v->stats->uw_fpu_out++;
}

static void fpu_give(struct vcpu *v, struct space *s)
{
    if (v->fpu_away == s)
        return;
    fpu_bring(v);
    uw_fpu_load(s->world, v->xsave, v->cpu->xsave_bytes);
    v->fpu_away = s;
    v->stats->uw_fpu_in++;
}

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
    d->v = v;
    d->mode = mode;
    if (uw_pool_create(&d->pool, &cfg, why)) {
        free(d);
        return 0;
    }
    for (unsigned i = 0; i < SPACES; i++)
        direct_new_space(d, &d->space[i], ~0ull);
    direct_measure(d, v->stats);
    v->fpu_fetch = fpu_fetch;
    *out = d;
    return 0;
}

void direct_drop_world(struct direct *d, struct space *s)
{
    unsigned i = 0;
    if (!s->world)
        return;
    if (d->loose == s->world)
        direct_stop(d->v);
    if (d->v->fpu_away == s)
        fpu_bring(d->v);
    direct_warm_put(d, s);
    while (d->live[i] != s)
        i++;
    d->live[i] = d->live[--d->n_live];
}

void direct_destroy(struct direct *d)
{
    if (!d)
        return;
    for (unsigned i = 0; i < SPACES; i++)
        direct_drop_world(d, &d->space[i]);
    direct_warm_clear(d);
    uw_pool_destroy(d->pool);
    free(d);
}

/* ---- spaces ---- */

/* With PAE the root is a table of 32 bytes (SDM 3A table 4-7): several share a page. */
static uint64_t cr3_base(const struct vcpu *v)
{
    uint64_t low = (v->c.cr4 & CR4_PAE) && !cpu_long_mode(&v->c) ? 0x1f : 0xfff;
    return v->c.cr3 & ~low & ((1ull << GUEST_MAXPHYADDR) - 1);
}

static struct space *space_slot(struct direct *d, uint64_t cr3)
{
    return &d->space[(cr3 >> 5) * 0x9e3779b97f4a7c15ull >> (64 - SPACE_BITS)];
}

/* The current space; one that shares its slot loses it. */
static struct space *space_of(struct vcpu *v)
{
    struct direct *d = v->priv->direct;
    uint64_t cr3 = cr3_base(v);
    struct space *s = space_slot(d, cr3);
    if (s->cr3 != cr3 || s->ended) {
        direct_drop_world(d, s);
        direct_new_space(d, s, cr3);
    }
    return s;
}

/* Ends the world that has not run for longest. */
static void evict(struct direct *d)
{
    struct space *victim = NULL;
    for (unsigned i = 0; i < d->n_live; i++)
        if (!victim || d->live[i]->used < victim->used)
            victim = d->live[i];
    if (!victim)
        return;
    d->v->stats->uw_evicted++;
    direct_drop_world(d, victim);
}

bool direct_root_is_empty(struct vcpu *v, const struct space *s)
{
    bool lma = cpu_long_mode(&v->c), pae = !lma && (v->c.cr4 & CR4_PAE);
    /* PAE: the last gigabyte is the kernel's wherever it has a part of its own. */
    unsigned n = lma ? 256 : pae ? 3 : 1024, bytes = cpu_pte_bytes(&v->c);
    uint64_t want = pae ? PTE_P : PTE_P | PTE_U;
    const uint8_t *p = gpmem_ptr(v->mem, s->cr3);
    for (unsigned i = n; p && i-- > 0;) {
        uint64_t e = bytes == 8 ? *(const volatile uint64_t *)(p + 8 * i) : *(const volatile uint32_t *)(p + 4 * i);
        if ((e & want) == want)
            return false;
    }
    return true;
}

/* The guest's processes end without telling: their worlds, and what was known of their spaces, go back when their tables are empty. */
static void sweep(struct vcpu *v)
{
    struct direct *d = v->priv->direct;
    d->cr3_loads = 0;
    for (unsigned i = d->n_live; i-- > 0;) {
        struct space *s = d->live[i];
        if (!direct_root_is_empty(v, s))
            continue;
        direct_drop_world(d, s);
        direct_new_space(d, s, ~0ull);
    }
}

/* Pool's counters that are worth seeing. */
static void note_waits(struct vcpu *v)
{
    const struct uw_counts *n = uw_counts(v->priv->direct->pool);
    v->stats->uw_spun = n->events_spun;
    v->stats->uw_slept = n->events_slept;
    v->stats->uw_parted = n->parted;
}

void direct_rest(struct vcpu *v)
{
    struct direct *d = v->priv->direct;
    if (d) {
        uw_rest(d->pool);
        note_waits(v);
    }
    if (d && d->n_live && (d->cr3_loads >= SWEEP_LOADS || (d->cr3_loads && v->exit.reason == VM_EXIT_HLT)))
        sweep(v);
}

/* What the CPU's state has that a world cannot have, as the counter for it; NULL: nothing. */
static uint64_t *unfit(struct vcpu *v)
{
    const struct cpu *c = &v->c;
    const uint32_t bad = CPU_KEY_STEP | CPU_KEY_AC | CPU_KEY_TS | CPU_KEY_EM | CPU_KEY_REAL | CPU_KEY_SLOWTSC;
    if ((c->key & bad) || !(c->key & CPU_KEY_OSFXSR) || !(c->cr0 & CR0_PG) || (int64_t)c->rip < 0)
        return &v->stats->uw_unfit_state;
    /* AC would count on the host whatever the guest's CR0.AM says; NT does not survive a signal; IOPL there is 0, and IF is 1. */
    if ((c->eflags_sys & (EFLAGS_AC | EFLAGS_NT | EFLAGS_IOPL)) || !c->if_flag)
        return &v->stats->uw_unfit_flags;
    return direct_segments_allowed(v) ? NULL : &v->stats->uw_unfit_segments;
}

bool direct_wanted(struct vcpu *v)
{
    struct direct *d = v->priv->direct;
    if (!d || v->c.cpl != 3)
        return false;
    const struct space *s = space_slot(d, cr3_base(v));
    bool known = s->cr3 == cr3_base(v) && !s->ended;
    if (known ? !s->tier.direct || s->refused : d->mode != VM_USER_DIRECT)
        return false;
    uint64_t *why = unfit(v);
    if (why) {
        ++*why;
        return false;
    }
    return !known || !direct_is_careful(s, v->c.rip);
}

bool direct_careful(struct vcpu *v)
{
    struct direct *d = v->priv->direct;
    const struct space *s = space_slot(d, cr3_base(v));
    return s->cr3 == cr3_base(v) && s->tier.direct && !s->refused && direct_is_careful(s, v->c.rip);
}

void direct_account(struct vcpu *v, uint64_t ticks, enum tier_end how)
{
    struct direct *d = v->priv->direct;
    struct space *s = space_slot(d, cr3_base(v));
    unsigned times = v->priv->user_skipped + 1;
    v->priv->user_ticks = v->priv->user_skipped = v->priv->user_skip = 0;
    if (d->mode != VM_USER_AUTO)
        return;
    if (s->cr3 != cr3_base(v) || s->ended) {
        fpu_leave(v);
        space_of(v);
        return;
    }
    if (!s->tier.direct && !s->refused)
        direct_account_translated(v, s, ticks, times, how);
}

/* Spaces end without telling. One whose root table is empty soon after it ran has; its account is not the next owner's. */
static void forget_ended(struct vcpu *v, const struct space *current)
{
    struct direct *d = v->priv->direct;
    for (unsigned i = 0; i < RECENT; i++) {
        struct space *s = &d->space[d->recent[i]];
        if (s != current && s->cr3 != ~0ull && !s->ended)
            s->ended = direct_root_is_empty(v, s);
    }
}

void direct_stop(struct vcpu *v)
{
    struct direct *d = v->priv->direct;
    struct uworld *w = d ? d->loose : NULL;
    if (!w)
        return;
    d->loose = NULL;
    v->stats->uw_stops++;
    if (uw_stop(w))
        return;
    v->stats->uw_ran_on++;
    for (unsigned i = 0; i < d->n_live; i++)
        if (d->live[i]->world == w)
            d->live[i]->refused = true;
}

void direct_cr3_loaded(struct vcpu *v)
{
    struct direct *d = v->priv->direct;
    struct space *s = space_slot(d, cr3_base(v));
    d->cr3_loads++;
    v->priv->user_skip = v->priv->user_skipped = 0;
    forget_ended(v, s->cr3 == cr3_base(v) ? s : NULL);
    if (s->cr3 != cr3_base(v))
        return;
    s->stale |= s->global || s->generation != v->priv->generation;
    d->recent[d->n_recent++ % RECENT] = (uint16_t)(s - d->space);
}

void direct_invlpg(struct vcpu *v, uint64_t lin)
{
    struct space *s = space_slot(v->priv->direct, cr3_base(v));
    if (s->cr3 == cr3_base(v) && s->world)
        direct_invalidate(s, lin);
}

/* ---- running ---- */

/* Flags beside the arithmetic ones and DF that POPF may change at CPL 3. */
#define POPF_FLAGS (EFLAGS_ID | EFLAGS_AC | EFLAGS_NT | EFLAGS_TF)

static int state_in(struct vcpu *v, struct space *s, struct uw_state *u)
{
    struct cpu *c = &v->c;
    c->eflags_sys &= ~EFLAGS_RF; /* an instruction will run */
    memcpy(u->gpr, c->gpr, sizeof u->gpr);
    for (unsigned i = 0; i < 8 && !cpu_long_mode(c); i++)
        u->gpr[i] = (uint32_t)c->gpr[i];
    u->rip = c->rip;
    u->rflags = cpu_get_eflags(c) & (EFLAGS_ARITH | EFLAGS_DF | EFLAGS_ID | EFLAGS_R1);
    return direct_segments_in(v, s, u);
}

/* 0, or SYS_FAULT: state is up to date all the same. */
static int state_out(struct vcpu *v, struct space *s, const struct uw_state *given, const struct uw_state *u)
{
    struct cpu *c = &v->c;
    int rc = direct_segments_out(v, s, given, u);
    bool wide = c->key & CPU_KEY_CODE64;
    /* Compatibility mode leaves the other half of the registers alone, and it may have been entered unseen. */
    for (unsigned i = 0; i < 16; i++)
        c->gpr[i] = cpu_long_mode(c) ? u->gpr[i] : i < 8 ? (uint32_t)u->gpr[i] : c->gpr[i];
    c->rip = wide ? u->rip : (uint32_t)u->rip;
    c->flags = u->rflags & EFLAGS_ARITH;
    c->df_flag = (u->rflags & EFLAGS_DF) != 0;
    c->eflags_sys = (c->eflags_sys & ~POPF_FLAGS) | (u->rflags & POPF_FLAGS);
    if (wide) {
        c->seg[S_FS].base = u->fs_base;
        c->seg[S_GS].base = u->gs_base;
    }
    cpu_update_key(c);
    return rc;
}

/* An instruction of two bytes. */
static enum direct_result sys_event(struct vcpu *v, uint8_t op, uint64_t imm, uint64_t *counter)
{
    struct sys_op o = {.op = op, .opsize = v->c.key & CPU_KEY_CODE64 ? 8 : 4, .len = 2, .flags = SYS_F_IMM | SYS_F_END};
    memcpy(&v->op, &o, sizeof v->op);
    v->op_imm = imm;
    ++*counter;
    return DIRECT_SYS;
}
static enum direct_result syscall_event(struct vcpu *v, uint8_t op, uint64_t imm)
{
    return sys_event(v, op, imm, &v->stats->uw_syscalls);
}

/* Programs ask dozens of times when they start: not worth a translated block and the FPU state that it would want. */
static bool is_cpuid(struct vcpu *v)
{
    uint8_t b[2];
    return mem_read(v, v->c.rip, b, sizeof b, MEM_R) == 0 && b[0] == 0x0f && b[1] == 0xa2;
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
        direct_drop_world(v->priv->direct, s);
        s->refused = true;
        v->stats->uw_refused++;
        return DIRECT_NO;
    default: break;
    }
    if (e->vector == EXC_PF)
        return direct_page_fault(v, s, e->cr2, e->error);
    if (e->vector == EXC_GP && is_cpuid(v))
        return sys_event(v, SYS_OP_CPUID, 0, &v->stats->uw_steps);
    if (e->vector == EXC_DB && (v->c.eflags_sys & EFLAGS_TF))
        return DIRECT_TRAP;
    if ((e->vector == EXC_BP || e->vector == EXC_DB || e->vector == EXC_OF) && !back_to_insn(v, e->vector))
        return DIRECT_GO_ON;
    v->stats->uw_steps++;
    return DIRECT_STEP; /* the engine knows what this instruction does */
}

/* Those that have just ended have what the next one is likely to want. */
static void reap_ended(struct direct *d)
{
    for (unsigned i = 0; i < RECENT; i++) {
        struct space *s = &d->space[d->recent[i]];
        if (s->ended)
            direct_drop_world(d, s);
    }
}

static bool world_for(struct vcpu *v, struct space *s)
{
    struct direct *d = v->priv->direct;
    if (s->world)
        return true;
    reap_ended(d);
    if (!direct_warm_take(v, s, false))
        s->world = uw_get(d->pool);
    if (!s->world) {
        evict(d);
        direct_warm_take(v, s, true);
    }
    if (!s->world)
        return false;
    d->live[d->n_live++] = s;
    s->stale = false;
    s->generation = v->priv->generation;
    if (v->audit && selfcheck_wants_world(v))
        direct_audit(v, s);
    direct_start_window(s);
    return true;
}

/* Where the stub lies no access faults, so it cannot be left to page faults to find out that the guest has pages there. Looked at before
 * each turn, as nobody says when a page comes: mostly that is one load, of a root entry that is not there. */
static bool has_pages_at_stub(struct vcpu *v, const struct space *s)
{
    const uint8_t *root = cpu_long_mode(&v->c) ? gpmem_ptr(v->mem, s->cr3) : NULL;
    struct pt_result r;
    uint32_t err;
    if (!root || !(((const volatile uint64_t *)root)[UW_DEFAULT_BASE >> 39] & PTE_P))
        return false;
    for (uint64_t at = UW_DEFAULT_BASE; at < UW_DEFAULT_BASE + UW_SPAN; at += PAGE_SIZE)
        if (!pt_walk(v->mem, &v->c, at, PT_READ | PT_USER | PT_PROBE, &r, &err))
            return true;
    return false;
}

/* The world is as the guest's tables are, and u as the guest's registers. False: not this time. */
static bool prepare(struct vcpu *v, struct space *s, struct uw_state *u)
{
    if (!(v->c.key & CPU_KEY_CODE64) && !s->narrow) {
        s->narrow = true;
        direct_unmap_all(s);
    }
    if (has_pages_at_stub(v, s)) {
        s->refused = true;
        v->stats->uw_refused++;
        return false;
    }
    if (s->stale) {
        direct_sync(v, s);
        s->generation = v->priv->generation;
        if (v->audit && selfcheck_wants_world(v))
            direct_audit(v, s);
    }
    direct_map_expected(v, s);
    direct_sync_pages(v, s);
    if (state_in(v, s, u)) {
        direct_forget(s);
        return false;
    }
    return true;
}

/* A program's first page is not there as a rule: that takes no world to find out, and the right one can be chosen when it is. */
static bool first_fetch_faults(struct vcpu *v, struct space *s)
{
    struct pt_result r;
    uint32_t err;
    uint64_t rip = v->c.rip;
    if (s->world || !pt_walk(v->mem, &v->c, rip, PT_EXEC | PT_USER, &r, &err))
        return false;
    v->fault = (struct guest_fault){.vector = EXC_PF, .has_error = true, .error = err, .cr2 = rip};
    s->fault_lin = rip;
    return true;
}

enum direct_result direct_run(struct vcpu *v)
{
    struct direct *d = v->priv->direct;
    struct uw_state u, given;
    struct uw_event e;
    uint64_t since = __builtin_ia32_rdtsc();
    if (d->cr3_loads >= SWEEP_LOADS && d->n_live)
        sweep(v);
    struct space *s = space_of(v);
    if (first_fetch_faults(v, s))
        return DIRECT_FAULT;
    if (!world_for(v, s))
        return DIRECT_NO;
    s->used = ++d->clock;
    if (!prepare(v, s, &given))
        return DIRECT_NO;
    u = given;
    fpu_give(v, s);
    __atomic_store_n(&d->running, s->world, __ATOMIC_SEQ_CST);
    if (vcpu_deliverable(v)) {
        d->running = NULL;
        return DIRECT_GO_ON;
    }
    struct acct_span span = acct_begin(&v->stats->acct, ACCT_host_call);
    int rc = uw_flush(s->world);
    acct_end(&v->stats->acct, &span, ACCT_host_call);
    bool shares = uw_shares(s->world);
    uint64_t start = __builtin_ia32_rdtsc();
    uint32_t before = acct_enter(&v->stats->acct, ACCT_direct_user);
    rc = rc ? rc : uw_run(s->world, &u, &e);
    acct_enter(&v->stats->acct, before);
    v->stats->acct.count[ACCT_world_switch]++;
    uint64_t ran = __builtin_ia32_rdtsc() - start;
    __atomic_store_n(&d->running, NULL, __ATOMIC_SEQ_CST);
    d->loose = s->world;
    v->stats->uw_runs++;
    if (rc) { /* did not run: the host refused mappings, and the world is empty or dead */
        direct_forget(s);
        if (rc == -RD_E_HOST)
            direct_drop_world(d, s);
        if ((s->emptied_ns += EMPTIED_COST_NS) >= EMPTIED_LIMIT_NS && !s->refused) {
            s->refused = true;
            v->stats->uw_refused++;
        }
        return DIRECT_NO;
    }
    if (e.kind != UW_DEAD && state_out(v, s, &given, &u))
        return DIRECT_FAULT;
    uint64_t hidden = v->stats->uw_hidden, calls = v->stats->uw_syscalls, apart = v->stats->uw_apart;
    enum direct_result result = event(v, s, &e);
    uint64_t ns = ran * 1024 / d->ticks_per_1024ns;
    if (v->stats->uw_hidden == hidden)
        s->emptied_ns -= s->emptied_ns < ns ? s->emptied_ns : ns;
    if (v->stats->uw_apart != apart) {
        uint64_t now = direct_world_ns(s);
        direct_note_apart(s, given.rip, now - s->apart_ns);
        s->apart_ns = now;
    }
    struct tier_turn turn = {.before = start - since, .ran = ran, .shares = shares};
    turn.after = __builtin_ia32_rdtsc() - start - ran;
    turn.how = v->stats->uw_syscalls != calls  ? TIER_CALL
               : v->stats->uw_hidden != hidden ? TIER_HIDDEN
               : result == DIRECT_FAULT        ? TIER_FAULT
                                               : TIER_OTHER;
    if (s->world)
        direct_account_turn(v, s, &turn);
    return result;
}

void direct_kick(struct vcpu *v)
{
    struct direct *d = v->priv->direct;
    struct uworld *w = d ? __atomic_load_n(&d->running, __ATOMIC_SEQ_CST) : NULL;
    if (w)
        uw_kick(w);
}

unsigned direct_worlds(const struct direct *d, int *pid, unsigned max)
{
    unsigned n = 0;
    for (unsigned i = 0; i < d->n_live && n < max; i++)
        pid[n++] = uw_pid(d->live[i]->world);
    for (unsigned i = 0; i < d->n_warm && n < max; i++)
        pid[n++] = uw_pid(d->warm[i].world);
    return n;
}

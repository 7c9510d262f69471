/* monitor/direct_tier.c - what turns of direct execution cost, at start-up and since; the policy itself is tier.c. */
#include "base/clock.h"
#include "base/log.h"
#include "monitor/direct_int.h"
#include <string.h>

#define TRIALS 16u
#define TRIALS_APART 64u /* enough for a world to part from the monitor (USERWORLDS.md, Hand-off) */
#define TRIAL_MAPS 24u
#define TRIAL_PAGE 0x40000000u /* nothing is mapped there in a new world */
/* Hidden faults that bring a program of usual size into a new world. */
#define MOVE_PAGES 100u
/* If it cannot be measured: what was seen on the machines this was written on. */
#define USUAL_TURN_NS 5000u
#define USUAL_MAP_NS 8000u

/* What the cheapest of some turns takes that end at the first instruction, when its world is apart and when it shares the monitor's CPU. */
static void try_turns(struct uworld *w, uint64_t turn[2], unsigned n)
{
    struct uw_state u;
    struct uw_event e;
    for (unsigned i = 0; i < n; i++) {
        memset(&u, 0, sizeof u);
        u.rip = TRIAL_PAGE;
        u.cs = UW_CS64;
        bool shares = uw_shares(w);
        uint64_t start = __builtin_ia32_rdtsc();
        if (uw_run(w, &u, &e) || e.kind != UW_EXCEPTION)
            return;
        uint64_t ran = __builtin_ia32_rdtsc() - start;
        turn[shares] = ran < turn[shares] ? ran : turn[shares];
    }
}

static void try_mappings(struct uworld *w, uint64_t *map)
{
    for (unsigned i = 0; i < TRIAL_MAPS; i++) {
        uint64_t start = __builtin_ia32_rdtsc();
        if (uw_map(w, TRIAL_PAGE, 0, PAGE_SIZE, UW_R) || uw_flush(w))
            return;
        uint64_t took = __builtin_ia32_rdtsc() - start;
        *map = took < *map ? took : *map;
    }
}

void direct_measure(struct direct *d, struct stats *st)
{
    uint64_t ns = clock_now_ns(), ticks = __builtin_ia32_rdtsc(), turn[2] = {~0ull, ~0ull}, map = ~0ull;
    struct uworld *w = uw_get(d->pool);
    if (w) {
        try_turns(w, turn, TRIALS);
        try_mappings(w, &map); /* before it is apart, as most first mappings are */
        try_turns(w, turn, TRIALS_APART);
        uw_put(w);
        uw_rest(d->pool);
    }
    ticks = __builtin_ia32_rdtsc() - ticks;
    ns = clock_now_ns() - ns;
    d->ticks_per_1024ns = ticks * 1024 / (ns ? ns : 1);
    d->ticks_per_1024ns += !d->ticks_per_1024ns;
    if (turn[1] == ~0ull)
        turn[1] = USUAL_TURN_NS * d->ticks_per_1024ns / 1024;
    if (turn[0] > turn[1]) /* a host of one CPU, or a busy one */
        turn[0] = turn[1];
    if (map == ~0ull)
        map = USUAL_MAP_NS * d->ticks_per_1024ns / 1024;
    tier_costs_init(&d->costs, turn, map, MOVE_PAGES);
    st->uw_cost_turn_ns = turn[0] * 1024 / d->ticks_per_1024ns;
    st->uw_cost_turn_sharing_ns = turn[1] * 1024 / d->ticks_per_1024ns;
    st->uw_cost_map_ns = map * 1024 / d->ticks_per_1024ns;
}

void direct_new_space(struct direct *d, struct space *s, uint64_t cr3)
{
    tier_end(&s->tier, &d->costs);
    *s = (struct space){.cr3 = cr3, .fault_lin = ~0ull, .stale = true};
    tier_init(&s->tier);
    s->tier.direct = d->mode == VM_USER_DIRECT;
}

/* CPU time that the world's process has used. */
uint64_t direct_world_ns(const struct space *s)
{
    clockid_t id;
    return clock_getcpuclockid(uw_pid(s->world), &id) ? 0 : clock_ns(id);
}

void direct_start_window(struct space *s) { s->world_ns = direct_world_ns(s); }

static long long us(const struct direct *d, int64_t ticks)
{
    return (long long)(ticks * 1024 / (int64_t)d->ticks_per_1024ns / 1000);
}

static void log_move(struct vcpu *v, const struct space *s, const struct tier *was)
{
    static const char *const why[] = {"", "gain", "slower since demotion", "entries", "trial", "moving in"};
    const struct direct *d = v->priv->direct;
    const struct tier *t = &s->tier;
    log_line(LOG_TIER,
             "%llu us: %llx %s: %s; balance %lld us, ratio %u.%02u, %u entries in %u turns, %lld us, moving %lld of "
             "%lld; saved %lld, in all %lld, "
             "distrust %u, trust %u; turn %lld fault %lld first %lld us",
             (unsigned long long)(clock_now_ns() / 1000), (unsigned long long)s->cr3,
             t->direct ? "promoted" : "demoted", why[t->why], us(d, was->balance), t->ratio / 16u,
             t->ratio % 16u * 100 / 16, was->w.entries, was->w.turns, us(d, (int64_t)was->w.ticks),
             us(d, (int64_t)was->invested), us(d, (int64_t)was->grant), us(d, was->saved), us(d, t->profit),
             t->distrust, t->trust, us(d, (int64_t)d->costs.turn[TIER_CALL]), us(d, (int64_t)d->costs.turn[TIER_FAULT]),
             us(d, (int64_t)d->costs.first));
}

bool direct_account_translated(struct vcpu *v, struct space *s, uint64_t ticks, unsigned times, enum tier_end how)
{
    struct direct *d = v->priv->direct;
    struct tier was;
    if (log_on(TIER))
        was = s->tier;
    if (!tier_translated(&s->tier, &d->costs, ticks, times, how)) {
        /* Of lengths that differ, lest a program's loop is always sampled at the same place. */
        if (how == TIER_CALL && tier_is_far(&s->tier, &d->costs))
            v->priv->user_skip = 4 + (d->skips = (5 * d->skips + 3) & 7);
        return false;
    }
    fpu_leave(v);
    v->stats->uw_promoted++;
    v->stats->uw_promoted_again += s->tier.why == TIER_WHY_SLOWER;
    if (log_on(TIER))
        log_move(v, s, &was);
    if (s->world)
        direct_start_window(s);
    return true;
}

void direct_account_turn(struct vcpu *v, struct space *s, const struct tier_turn *turn)
{
    struct direct *d = v->priv->direct;
    if (d->mode != VM_USER_AUTO || !tier_turn(&s->tier, &d->costs, turn))
        return;
    /* The world's CPU time has its spinning for the monitor in it, time by the clock has other processes in it: the smaller one is
     * nearer (tier_judge). */
    struct tier was = s->tier;
    uint64_t cpu = (direct_world_ns(s) - s->world_ns) * d->ticks_per_1024ns / 1024;
    if (!tier_judge(&s->tier, &d->costs, cpu)) {
        direct_start_window(s);
        return;
    }
    /* It keeps its world: what is mapped there is compared with the guest's tables when it comes back. */
    v->stats->uw_demoted++;
    if (log_on(TIER))
        log_move(v, s, &was);
}

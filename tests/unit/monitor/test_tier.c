/* Tiering: scripted programs against a simulated clock. A program is stretches of user code between kernel entries; each takes
 * `user` ticks on the CPU, `ratio` times as many translated, and a turn of direct execution costs `turn` more. */
#include "monitor/tier.h"
#include <criterion/criterion.h>

#define MS 2000000ull /* ticks */
#define US 2000ull
#define TICK_MS 4u /* the guest's timer interrupts every stretch */

struct sim {
    struct tier t;
    struct tier_costs c;
    uint64_t clock, translated, direct; /* what it took; what it would have taken one way only */
    uint64_t world;                     /* CPU time of the world in this window */
    unsigned promoted, demoted, slower;
};

static struct sim start(void)
{
    struct sim s = {.c = {.bare_turn = 2 * US, .turn = 4 * US, .move = 2 * MS}};
    tier_init(&s.t);
    return s;
}

static void stretch_translated(struct sim *s, uint64_t ticks)
{
    s->clock += ticks;
    if (!tier_translated(&s->t, &s->c, ticks))
        return;
    s->promoted++;
    s->slower += s->t.why == TIER_WHY_SLOWER;
    s->clock += s->c.move;
}

static void turn_direct(struct sim *s, uint64_t user, uint64_t turn, bool entered)
{
    s->clock += user + turn;
    s->world += user + s->c.bare_turn;
    if (!tier_turn(&s->t, user + turn, entered))
        return;
    s->demoted += tier_judge(&s->t, &s->c, s->world);
    s->world = 0;
}

/* n times `user` ticks of native work and a kernel entry. */
static void run(struct sim *s, unsigned n, uint64_t user, unsigned ratio, uint64_t turn)
{
    while (n--) {
        s->translated += user * ratio;
        s->direct += user + turn;
        uint64_t left = user, slice = TICK_MS * MS;
        while (!s->t.direct && left * ratio > slice) { /* the timer's interrupt counts as an entry there */
            stretch_translated(s, slice);
            left -= slice / ratio;
        }
        if (!s->t.direct) {
            stretch_translated(s, left * ratio);
            continue;
        }
        for (; left > slice; left -= slice)
            turn_direct(s, slice, turn, false);
        turn_direct(s, left, turn, true);
    }
}

static uint64_t best(const struct sim *s) { return s->direct < s->translated ? s->direct : s->translated; }
static void expect_near_best(const struct sim *s, unsigned percent)
{
    cr_expect_leq(s->clock * 100, best(s) * percent + 2000 * s->c.move,
                  "%.1f ms, directly %.1f, translated %.1f; %u/%u moves", (double)s->clock / MS, (double)s->direct / MS,
                  (double)s->translated / MS, s->promoted, s->demoted);
}

Test(tier, compute_loop_is_promoted_within_its_first_ticks_and_stays)
{
    struct sim s = start();
    run(&s, 1, 500 * MS, 4, 10 * US);
    cr_expect_eq(s.promoted, 1);
    cr_expect_eq(s.demoted, 0);
    cr_expect_eq(s.t.why, TIER_WHY_GAIN);
    expect_near_best(&s, 103);
}

Test(tier, compute_loop_that_translation_does_not_slow_down_is_no_worse)
{
    struct sim s = start();
    run(&s, 1, 500 * MS, 1, 10 * US);
    expect_near_best(&s, 103);
}

Test(tier, system_call_storm_is_never_promoted)
{
    struct sim s = start();
    run(&s, 1000000, US / 5, 3, 3 * US);
    cr_expect_eq(s.promoted, 0);
    cr_expect_eq(s.clock, s.translated);
}

Test(tier, system_call_storm_after_computing_is_demoted_soon)
{
    struct sim s = start();
    run(&s, 1, 100 * MS, 4, 3 * US);
    cr_assert(s.t.direct);
    s.clock = s.translated = s.direct = 0;
    run(&s, 100000, US / 5, 3, 3 * US);
    cr_expect_not(s.t.direct);
    cr_expect_eq(s.t.why, TIER_WHY_ENTRIES);
    expect_near_best(&s, 110);
}

Test(tier, computing_after_a_system_call_storm_is_promoted_again)
{
    struct sim s = start();
    for (unsigned i = 0; i < 4; i++) {
        run(&s, 1, 100 * MS, 4, 3 * US);
        run(&s, 20000, US / 5, 3, 3 * US);
    }
    s.clock = s.translated = s.direct = 0;
    run(&s, 1, 300 * MS, 4, 3 * US);
    cr_expect(s.t.direct);
    expect_near_best(&s, 125);
}

/* gcc: a page fault each 170 us of native time, ten times as long translated, turns with a page to map. */
Test(tier, compiler_stays_direct)
{
    struct sim s = start();
    run(&s, 14000, 170 * US, 10, 40 * US);
    cr_expect_eq(s.promoted, 1);
    cr_expect_eq(s.demoted, 0);
    expect_near_best(&s, 103);
}

/* It starts with relocations: short stretches, and a fault for each new page. */
Test(tier, compiler_that_starts_with_short_stretches_ends_direct)
{
    struct sim s = start();
    run(&s, 3000, 3 * US, 10, 15 * US);
    run(&s, 14000, 100 * US, 10, 15 * US);
    cr_expect(s.t.direct);
    expect_near_best(&s, 115);
}

Test(tier, code_that_is_much_slower_translated_than_guessed_goes_back)
{
    struct sim s = start();
    run(&s, 200, 100 * US, 10, 15 * US);
    cr_assert(s.t.direct);
    run(&s, 100000, US, 40, 16 * US);
    cr_expect_geq(s.demoted, 1);
    cr_expect_geq(s.slower, 1);
    cr_expect(s.t.direct);
    expect_near_best(&s, 115);
}

Test(tier, page_fault_storm_runs_translated)
{
    struct sim s = start();
    run(&s, 1, 100 * MS, 4, 3 * US);
    s.clock = s.translated = s.direct = 0;
    run(&s, 100000, US / 4, 4, 15 * US);
    cr_expect_not(s.t.direct);
    expect_near_best(&s, 115);
}

Test(tier, short_lived_processes_are_never_promoted)
{
    struct sim all = start();
    for (unsigned i = 0; i < 3000; i++) {
        struct sim s = start();
        run(&s, 60, 4 * US, 5, 10 * US);
        all.promoted += s.promoted;
    }
    cr_expect_eq(all.promoted, 0);
}

/* Between both: whatever it does, it must not move for ever. */
Test(tier, code_at_break_even_moves_seldom)
{
    struct sim s = start();
    run(&s, 1000000, 2 * US, 4, 6 * US);
    cr_expect_leq(s.promoted, 40);
    expect_near_best(&s, 120);
}

Test(tier, phases_cost_little_more_than_the_better_way_throughout)
{
    struct sim s = start();
    for (unsigned i = 0; i < 50; i++) {
        run(&s, 1, 20 * MS, 5, 10 * US);
        run(&s, 5000, US / 3, 3, 10 * US);
    }
    expect_near_best(&s, 60); /* better than either way throughout */
}

Test(tier, busy_host_makes_turns_dear_but_not_computing_worse)
{
    struct sim s = start();
    run(&s, 500, 300 * US, 4, 200 * US);
    cr_expect(s.t.direct);
    cr_expect_gt(s.c.turn, 20 * US);
    run(&s, 1, 500 * MS, 4, 3000 * US);
    cr_expect(s.t.direct);
    struct sim other = start();
    other.c = s.c;
    run(&other, 2000, 40 * US, 3, 200 * US);
    expect_near_best(&other, 110);
}

Test(tier, cost_of_turns_on_a_host_that_was_busy_is_forgotten)
{
    struct sim s = start();
    s.c.turn = 300 * US;
    run(&s, 64 * 500, US / 5, 3, 3 * US);
    cr_expect_leq(s.c.turn, 5 * US);
}

/* Tiering: scripted programs against a simulated clock. A program is stretches of user code between kernel entries; each takes
 * `user` ticks on the CPU, `ratio` times as many translated, and a turn of direct execution costs `turn` more. */
#include "monitor/tier.h"
#include <criterion/criterion.h>
#include <string.h>

#define MS 2000000ull /* ticks */
#define US 2000ull
#define TICK_MS 4u /* the guest's timer interrupts every stretch */

#define AROUND 16u /* pages that a hidden fault brings in */

struct sim {
    struct tier t;
    struct tier_costs c;
    uint64_t clock, translated, direct; /* what it took; what it would have taken one way only */
    uint64_t world;                     /* CPU time of the world in this window */
    unsigned pages, missing;            /* that the program uses; ... and that its world has not */
    unsigned skip, skipped, skips;      /* stretches that are not timed, as the monitor does it */
    unsigned promoted, demoted, slower;
};

static struct sim start(void)
{
    struct sim s;
    memset(&s, 0, sizeof s);
    tier_costs_init(&s.c, (const uint64_t[]){2 * US, 2 * US}, 8 * US, 100);
    tier_init(&s.t);
    s.missing = s.pages = 50 * AROUND; /* a usual program: about 1 ms */
    return s;
}

static void stretch_translated(struct sim *s, uint64_t ticks, enum tier_end how)
{
    s->clock += ticks;
    if (how != TIER_CALL)
        s->skip = s->skipped = 0;
    if (s->skip && --s->skip) {
        s->skipped++;
        return;
    }
    unsigned times = s->skipped + 1;
    s->skip = s->skipped = 0;
    if (!tier_translated(&s->t, &s->c, ticks, times, how)) {
        if (how == TIER_CALL && tier_is_far(&s->t, &s->c))
            s->skip = 5 + (s->skips = (5 * s->skips + 3) & 7);
        return;
    }
    s->promoted++;
    s->slower += s->t.why == TIER_WHY_SLOWER;
}

static void one_turn(struct sim *s, uint64_t user, uint64_t extra, enum tier_end how)
{
    struct tier_turn turn = {.ran = user + s->c.bare[0], .after = extra, .how = how};
    s->clock += turn.ran + turn.after;
    s->world += turn.ran;
    if (!tier_turn(&s->t, &s->c, &turn))
        return;
    s->demoted += tier_judge(&s->t, &s->c, s->world);
    s->world = 0;
}

/* turn: what one costs, the bare one included. Pages that are not there yet are touched on the way. */
static void turn_direct(struct sim *s, uint64_t user, uint64_t turn, enum tier_end how)
{
    for (unsigned i = 0; s->missing && s->t.direct && i < 64; i++) {
        s->missing -= s->missing < AROUND ? s->missing : AROUND;
        one_turn(s, 0, 20 * US, TIER_HIDDEN);
    }
    one_turn(s, user, turn > s->c.bare[0] ? turn - s->c.bare[0] : 0, how);
}

/* n times `user` ticks of native work and an entry into the kernel of this kind. */
static void run_to(struct sim *s, unsigned n, uint64_t user, unsigned ratio, uint64_t turn, enum tier_end how)
{
    while (n--) {
        s->translated += user * ratio;
        s->direct += user + (turn > s->c.bare[0] ? turn : s->c.bare[0]);
        uint64_t left = user, slice = TICK_MS * MS;
        while (left) {
            bool direct = s->t.direct;
            uint64_t part = direct ? slice : slice / ratio, now = left < part ? left : part;
            left -= now;
            if (direct)
                turn_direct(s, now, turn, left ? TIER_OTHER : how);
            else
                stretch_translated(s, now * ratio, left ? TIER_OTHER : how);
        }
    }
}
static void run(struct sim *s, unsigned n, uint64_t user, unsigned ratio, uint64_t turn)
{
    run_to(s, n, user, ratio, turn, TIER_CALL);
}

/* The program touches so many pages that are new to its address space: a fault each, then they are there. */
static void touch(struct sim *s, unsigned pages)
{
    for (unsigned i = 0; i < pages; i++) {
        bool direct = s->t.direct;
        run_to(s, 1, US / 4, 4, 14 * US, TIER_FAULT);
        s->pages++;
        s->missing += !direct;
    }
}

static uint64_t best(const struct sim *s) { return s->direct < s->translated ? s->direct : s->translated; }
static void expect_near_best(const struct sim *s, unsigned percent)
{
    cr_expect_leq(s->clock * 100, best(s) * percent + 500 * s->c.move,
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
    cr_expect_gt(s.c.turn[TIER_CALL], 20 * US);
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
    s.c.turn[TIER_CALL] = s.c.turn[TIER_FAULT] = 300 * US;
    run(&s, 64 * 500, US / 5, 3, 3 * US);
    cr_expect_leq(s.c.turn[TIER_CALL], 5 * US);
}

/* ---- patterns that went wrong once ---- */

/* Time until the space runs directly if from now on it only computes. */
static uint64_t until_direct(struct sim *s, unsigned ratio)
{
    uint64_t since = s->clock;
    for (unsigned i = 0; i < 1000 && (!s->t.direct || s->missing); i++)
        run(s, 1, MS / 8, ratio, 3 * US);
    return s->clock - since;
}

/* Arrays are made, which is faults, and then worked on; so do most benchmarks of memory. */
Test(tier, computing_after_first_touches_is_direct_within_milliseconds)
{
    struct sim s = start();
    run(&s, 1, 100 * MS, 4, 3 * US);
    for (unsigned i = 0; i < 12; i++) {
        touch(&s, 4096);
        cr_expect_not(s.t.direct, "phase %u", i);
        uint64_t took = until_direct(&s, 4);
        cr_expect_leq(took, 16 * MS, "phase %u: %.1f ms", i, (double)took / MS); /* of which 5.6 are moving in */
        run(&s, 1, 100 * MS, 4, 3 * US);
        cr_expect(s.t.direct, "phase %u", i);
    }
}

/* No history, however unlucky, keeps a program that computes translated. */
Test(tier, computing_is_direct_soon_whatever_was_before)
{
    uint64_t seed = 1;
    for (unsigned k = 0; k < 300; k++) {
        struct sim s = start();
        for (unsigned i = 0; i < 40; i++) {
            seed = seed * 6364136223846793005ull + 1442695040888963407ull;
            unsigned dice = seed >> 33, ratio = 1 + (dice >> 8) % 12, n = 1 + (dice >> 12) % 4000;
            switch (dice % 4) {
            case 0: run(&s, n, US / 4, ratio, 3 * US); break;
            case 1: run(&s, n / 16, 20 * US, ratio, (3 + dice % 61) * US); break;
            case 2: touch(&s, n); break;
            default: run(&s, 1, n * US, ratio, 3 * US); break;
            }
        }
        s.missing = s.missing < 1024 ? s.missing : 1024;
        uint64_t took = until_direct(&s, 4);
        cr_expect_leq(took, 16 * MS, "history %u: %.1f ms", k, (double)took / MS);
    }
}

/* A shell's children: each computes just long enough to be promoted, and ends. */
Test(tier, processes_that_end_when_they_have_been_promoted_make_promotion_dearer)
{
    struct sim all = start();
    uint64_t clock = 0, translated = 0;
    unsigned late = 0;
    for (unsigned i = 0; i < 2000; i++) {
        struct sim s = start();
        s.c = all.c;
        run(&s, 60, 8 * US, 4, 10 * US);
        all.promoted += s.promoted;
        late += i >= 1000 ? s.promoted : 0;
        if (s.promoted) /* what it had moved in is of no use to anybody */
            s.clock += 20 * US;
        tier_end(&s.t, &s.c);
        all.c = s.c;
        clock += s.clock;
        translated += s.translated;
    }
    cr_expect_leq(late, 50, "%u of 1000 promoted, %u at all", late, all.promoted);
    cr_expect_leq(clock * 100, translated * 105);
    /* And those that live longer get the old rule back. */
    for (unsigned i = 0; i < 40; i++) {
        struct sim s = start();
        s.c = all.c;
        run(&s, 1, 50 * MS, 4, 10 * US);
        cr_expect(s.t.direct);
        tier_end(&s.t, &s.c);
        all.c = s.c;
    }
    cr_expect_leq(all.c.first, all.c.move);
}

/* Computing and storms of entries in turn, each as long as it takes to have chosen wrongly. */
Test(tier, alternating_phases_cost_a_bounded_factor)
{
    for (unsigned compute = 50; compute <= 12800; compute *= 2)
        for (unsigned storm = 16; storm <= 16384; storm *= 2) {
            struct sim s = start();
            while (s.translated < 400 * MS) {
                run(&s, 1, compute * US, 4, 3 * US);
                run(&s, storm, US / 5, 3, 5 * US);
            }
            cr_expect_leq(s.clock * 100, best(&s) * 150 + 500 * s.c.move, "%u us, %u calls: %.2f, %u moves", compute,
                          storm, (double)s.clock / (double)best(&s), s.promoted);
        }
}

/* The same for programs of one phase, whatever they are like. */
Test(tier, regret_is_bounded)
{
    for (unsigned ratio = 1; ratio <= 16; ratio *= 2)
        for (unsigned user = 1; user <= 256; user *= 2)
            for (unsigned turn = 2; turn <= 64; turn *= 2) {
                struct sim s = start();
                run(&s, (unsigned)(400 * MS / (user * US * ratio)), user * US, ratio, turn * US);
                cr_expect_leq(s.clock * 100, best(&s) * 135 + 500 * s.c.move,
                              "%u us, translated %u times, turns of %u: %.2f of the better way, %u/%u moves", user,
                              ratio, turn, (double)s.clock / (double)best(&s), s.promoted, s.demoted);
            }
}

/* A page that is taken away and given back again and again is no investment. */
Test(tier, hidden_faults_that_do_not_end_are_not_moving_in)
{
    struct sim s = start();
    run(&s, 1, 100 * MS, 4, 3 * US);
    cr_assert(s.t.direct);
    uint64_t since = s.clock;
    for (unsigned i = 0; i < 20000 && s.t.direct; i++) {
        s.missing = 2 * AROUND;
        run(&s, 2, US, 4, 5 * US);
    }
    cr_expect_not(s.t.direct);
    cr_expect_leq(s.clock - since, 5 * s.c.move);
}

/* fork and wait in a process that had computed before: its few instructions are as fast translated, the turns are all that counts. */
Test(tier, a_guess_that_is_wrong_is_found_out_by_a_trial)
{
    struct sim s = start();
    run(&s, 1, 100 * MS, 4, 3 * US);
    cr_assert(s.t.direct);
    s.clock = s.translated = s.direct = 0;
    run(&s, 40000, 12 * US, 1, 9 * US);
    cr_expect_not(s.t.direct);
    expect_near_best(&s, 110);
}

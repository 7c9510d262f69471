#include "base/acct.h"
#include "base/clock.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char *kind_name(unsigned kind) { return kind == 7 ? "seven" : "other"; }

/* How long it really took: other processes may have the CPU for longer than it was to be. */
static uint64_t burn(uint64_t ns)
{
    uint64_t start = clock_now_ns(), now = start;
    while (now < start + ns)
        now = clock_now_ns();
    return now - start;
}

static void rest(long ns)
{
    struct timespec t = {0, ns};
    nanosleep(&t, NULL);
}

Test(acct, a_timed_span_is_less_what_was_timed_inside_of_it)
{
    struct acct a = {.on = true, .state = ACCT_loop};
    struct acct_span outer = acct_begin(&a, ACCT_device);
    uint64_t start = __builtin_ia32_rdtsc();
    struct acct_span inner = acct_begin(&a, ACCT_host_call);
    burn(20000000);
    cr_assert_eq(a.state, ACCT_host_call);
    acct_end(&a, &inner, ACCT_host_call);
    uint64_t inside = __builtin_ia32_rdtsc() - start;
    cr_assert_eq(a.state, ACCT_device);
    acct_end(&a, &outer, ACCT_fault_true);
    cr_assert_eq(a.state, ACCT_loop);
    cr_assert_gt(a.ticks[ACCT_host_call], inside / 2);
    cr_assert_lt(a.ticks[ACCT_fault_true], inside / 2);
    cr_assert_eq(a.ticks[ACCT_device], 0);
    cr_assert_eq(a.inner, a.ticks[ACCT_host_call] + a.ticks[ACCT_fault_true]);
}

Test(acct, nothing_is_stamped_when_it_is_off)
{
    struct acct a = {.state = ACCT_loop};
    struct acct_span s = acct_begin(&a, ACCT_device);
    acct_end(&a, &s, ACCT_device);
    cr_assert_eq(a.ticks[ACCT_device], 0);
    cr_assert_eq(a.count[ACCT_device], 1);
    cr_assert_eq(a.state, ACCT_loop);
}

/* A made-up run: a third computing (sampled), a third in callouts (sampled), a third idle (timed). How many ns the first was for one
 * of the second. */
static double made_up_run(struct acct *a)
{
    uint64_t computing = 0, calling = 0;
    cr_assert_eq(acct_start(a, clock_now_ns()), 0);
    acct_setup_done(a, ACCT_tc_window);
    for (unsigned i = 0; i < 40; i++) {
        computing += burn(8000000);
        acct_enter(a, ACCT_CALLOUT(7));
        calling += burn(8000000);
        acct_enter(a, ACCT_tc_window);
        struct acct_span s = acct_begin(a, ACCT_idle);
        rest(8000000);
        acct_end(a, &s, ACCT_idle);
    }
    acct_stop(a);
    return (double)computing / (double)calling;
}

/* Does what was sampled agree with what was measured? On a busy host the sampler may get the CPU late. */
static bool sampled_well(const struct acct *a, double sum, double ratio)
{
    double wall = (double)a->wall_ns, idle = (double)acct_ns(a, ACCT_idle),
           sampled_idle = (double)a->sampled_ns[ACCT_idle],
           sampled_ratio = (double)acct_ns(a, ACCT_tc_window) / (double)acct_ns(a, ACCT_callout);
    return fabs(sum / wall - 1) <= 0.15 && fabs(sampled_idle - idle) <= 0.15 * wall &&
           fabs(sampled_ratio - ratio) <= 0.6 * ratio;
}

Test(acct, classes_add_up_to_the_wall_time)
{
    static struct acct a;
    bool well = false;
    for (unsigned attempt = 0; attempt < 3 && !well; attempt++) {
        memset(&a, 0, sizeof a);
        uint64_t sum = 0, start = clock_now_ns();
        double ratio = made_up_run(&a);
        double wall = (double)(clock_now_ns() - start);
        for (unsigned c = 0; c < ACCT_CLASSES; c++)
            sum += acct_ns(&a, c);
        cr_assert_float_eq((double)a.wall_ns / wall, 1.0, 0.02);
        cr_assert_gt(a.signal_ns, 100);
        well = sampled_well(&a, (double)sum, ratio);
    }
    cr_assert(well);
}

Test(acct, json_has_every_class_and_the_callouts_kinds)
{
    static struct acct a;
    char text[8192];
    FILE *f = fmemopen(text, sizeof text, "w");
    made_up_run(&a);
    acct_write_json(&a, f, kind_name);
    fclose(f);
#define ACCT(name, how, comment) cr_assert(strstr(text, "\"" #name "\": "));
#include "base/acct.def"
#undef ACCT
    cr_assert(strstr(text, "\"callouts_by_kind\": {\"seven\": "));
}

/* Signals interrupt the TC: their delivery, which nothing can stamp, is taken from there. */
Test(acct, what_signals_cost_is_moved_to_the_faults)
{
    struct acct a = {.signal_ns = 1000, .wall_ns = 1000000, .ticks_total = 1000000};
    a.sampled_ns[ACCT_tc_window] = 100000;
    a.count[ACCT_fault_hidden] = 30;
    a.count[ACCT_fault_true] = 10;
    a.ticks[ACCT_fault_true] = 500;
    cr_assert_eq(acct_ns(&a, ACCT_tc_window), 60000);
    cr_assert_eq(acct_ns(&a, ACCT_fault_hidden), 30000);
    cr_assert_eq(acct_ns(&a, ACCT_fault_true), 10500);
    a.sampled_ns[ACCT_tc_window] = 20000; /* never more than is there */
    cr_assert_eq(acct_ns(&a, ACCT_tc_window), 0);
    cr_assert_eq(acct_ns(&a, ACCT_fault_hidden), 15000);
}

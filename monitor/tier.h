/* monitor/tier.h - whether an address space's user code should run translated or directly. A policy: numbers in, verdicts out.
 *
 * Role:    an account for each space of what the other way of running it would have saved so far, in TSC ticks. What a way costs is
 *          measured while it is in use, in time from one entry into the guest's kernel to the next: a system call or a page
 *          fault is the same progress however the code before it ran. The other way is guessed from that, with the ratio of
 *          translated to native time (a guess, 4, until it has been measured in this space) and the cost of a turn of direct
 *          execution (measured at start-up and since, for each way to end one).
 *          The account moves a space when it has reached what moving costs, and starts anew: so the loss against whoever knows what
 *          comes is at most a few times what his own moves cost him (docs/DIRECT.md). Moving in (pages that a new world has not yet)
 *          has an account of its own: it is an investment, limited by what has been lost without it, and not lost by a demotion, as
 *          the world is kept. A move is on probation: the time for each entry shows the ratio, and a space that has
 *          become slower by a demotion goes back at once.
 * Owner:   the caller's structs; nothing is allocated. Threads: none. nofpu.
 */
#ifndef MONITOR_TIER_H
#define MONITOR_TIER_H
#include <stdbool.h>
#include <stdint.h>

/* How a stretch of user code ended. The first two are the program's doing, and as many however it runs. */
enum tier_end {
    TIER_CALL,   /* by an instruction: a system call */
    TIER_FAULT,  /* by an exception of the guest's */
    TIER_HIDDEN, /* directly only: a page had to be entered into the world */
    TIER_OTHER,  /* by an interrupt, or by what only the way it ran brings with it */
    TIER_ENDS
};

/* Ticks. Shared by all spaces. */
struct tier_costs {
    uint64_t bare
        [2]; /* a turn of direct execution with no user code in it, as measured at start-up: apart, sharing the CPU (USERWORLDS.md) */
    uint64_t
        turn[TIER_FAULT +
             1]; /* ... with what else a turn brings (mappings, busy hosts): starts as that, follows what is seen */
    uint64_t floor[TIER_FAULT + 1]; /* ... and goes back to this when nothing confirms more */
    uint64_t move;                  /* into a new world: what it costs about, as guessed at start-up */
    uint64_t first; /* what the first promotion of a space takes: that, and what the last ones came to */
};
/* map: entering a page into a world; a program of usual size takes so many of these. */
void tier_costs_init(struct tier_costs *c, const uint64_t bare[2], uint64_t map, unsigned move_pages);

enum tier_why {
    TIER_WHY_NONE,
    TIER_WHY_GAIN,    /* promoted: translation has cost more than moving */
    TIER_WHY_SLOWER,  /* promoted: it was faster before it was demoted */
    TIER_WHY_ENTRIES, /* demoted: turns cost more than running directly saves */
    TIER_WHY_TRIAL,   /* demoted: to see what translation takes, as that is not known and turns are dear */
    TIER_WHY_MOVING,  /* demoted: moving in has cost more than was lost before it, and goes on */
};

/* What is seen of a window. */
struct tier_window {
    uint32_t turns, entries; /* stretches; those that ended by what the program did */
    uint64_t ticks, longest; /* their time; the longest stretch */
    uint64_t ran, bare; /* direct: of that, in the world, hand-offs included; so much with no user code in the turns */
    uint64_t moving;    /* direct: for hidden faults */
    uint32_t n[TIER_FAULT + 1];     /* direct: turns that ended so ... */
    uint64_t extra[TIER_FAULT + 1]; /* ... and time outside of the world that they brought */
};

struct tier {
    bool direct;
    uint8_t probation; /* the move is on probation: it has been measured what was before */
    uint8_t why;       /* enum tier_why of the last move */
    uint8_t last;      /* enum tier_end of the last turn */
    uint8_t distrust;  /* promotions that did not pay, lately; each doubles what the next one takes */
    uint8_t sure;      /* measurements of the ratio that confirmed each other; each doubles how long it counts */
    uint8_t trust;     /* demotions that were mistakes, lately; the same for those */
    uint16_t ratio;    /* translated to native time, in 1/16 */
    uint16_t measured; /* ... as it was measured last; 0 = never */
    bool guess;        /* ratio is (again) */
    uint64_t doubtful; /* ticks of direct execution on a guess that matters */
    uint64_t hold;     /* ticks for which a measured ratio stays */
    uint64_t calm;     /* ticks since distrust and trust were last changed */
    struct tier_window w;
    int64_t balance;    /* what the other way would have saved */
    int64_t saved;      /* by running directly, since it was promoted */
    int64_t profit;     /* the same since the space began, moving in deducted */
    uint64_t invested;  /* in moving in, since it was promoted */
    uint64_t allowance; /* what may be */
    uint64_t grant;     /* what it was at the last promotion */
    uint32_t promotions;
    uint64_t before, native; /* time for an entry before the last move; in direct execution, of which user code */
};

void tier_init(struct tier *t);
/* The address space has ended: others learn from what it came to. */
void tier_end(struct tier *t, struct tier_costs *c);
/* Translated user code ran for so many ticks and then ended that way; a sample, if it stands for several times. True: promoted. */
bool tier_translated(struct tier *t, struct tier_costs *c, uint64_t ticks, unsigned times, enum tier_end how);
/* Far from being promoted: a sample of what comes will do, until one of them shows otherwise. */
bool tier_is_far(const struct tier *t, const struct tier_costs *c);
/* A turn of direct execution. True: a window is full, and tier_judge wants to know how much of w.ran was spent on a CPU. */
struct tier_turn {
    uint64_t before, ran, after; /* ticks: preparing, in the world with hand-offs, handling what it ended by */
    enum tier_end how;
    bool shares; /* the monitor's CPU */
};
bool tier_turn(struct tier *t, const struct tier_costs *c, const struct tier_turn *turn);
/* True: demoted. */
bool tier_judge(struct tier *t, struct tier_costs *c, uint64_t world_ticks);
#endif

/* monitor/tier.h - whether an address space's user code should run translated or directly. A policy: numbers in, verdicts out.
 *
 * Role:    an account for each space of what the other way of running it would have saved so far, in TSC ticks. What a way costs is
 *          measured while it is in use, in time from one entry into the guest's kernel to the next: a system call or a page
 *          fault is the same progress however the code before it ran. The other way is guessed from that, with the ratio of
 *          translated to native time (a guess, 4, until it has been measured in this space) and the cost of a turn of direct
 *          execution (measured at start-up and since).
 *          The account moves a space when it has reached what moving costs; so no choice is ever much worse than the other one would
 *          have been. A demotion is on probation: if the space is slower afterwards it goes back at once, and stays for longer.
 * Owner:   the caller's structs; nothing is allocated. Threads: none. nofpu.
 */
#ifndef MONITOR_TIER_H
#define MONITOR_TIER_H
#include <stdbool.h>
#include <stdint.h>

/* Ticks. Shared by all spaces. */
struct tier_costs {
    uint64_t bare_turn; /* of direct execution, with no user code in it: as measured at start-up */
    uint64_t turn; /* ... with what else a turn brings (mappings, busy hosts): starts as that, follows what is seen */
    uint64_t move; /* into a world: what a promotion costs */
};

enum tier_why {
    TIER_WHY_NONE,
    TIER_WHY_GAIN,    /* promoted: translation has cost more than moving in */
    TIER_WHY_SLOWER,  /* promoted: it was faster before it was demoted */
    TIER_WHY_ENTRIES, /* demoted: turns cost more than running directly saves */
};

struct tier {
    bool direct, probation;
    uint8_t why;             /* enum tier_why of the last move */
    uint8_t distrust;        /* in promotions: how many did not pay, lately; each doubles what the next one takes */
    uint8_t trust;           /* in direct execution: how many demotions were mistakes, lately; the same for those */
    uint16_t ratio;          /* translated to native time, in 1/16 */
    uint32_t hold;           /* windows for which a measured ratio stays */
    uint32_t entries, turns; /* in this window ... */
    uint64_t ticks;          /* ... and its time */
    int64_t balance;         /* what the other way would have saved */
    int64_t saved;           /* by running directly, since it was promoted */
    uint64_t direct_ticks, direct_user; /* the last direct window: for each entry */
};

void tier_init(struct tier *t);
/* Translated user code ran for so many ticks and then entered the kernel. True: promoted. */
bool tier_translated(struct tier *t, struct tier_costs *c, uint64_t ticks);
/* A turn of direct execution took so many ticks, all included; entered: it ended in the guest's kernel, and the program's doing. True:
 * a window is full, and tier_judge wants to know how much of it was spent in the world, hand-offs included. */
bool tier_turn(struct tier *t, uint64_t ticks, bool entered);
/* True: demoted. */
bool tier_judge(struct tier *t, struct tier_costs *c, uint64_t world_ticks);
#endif

/* monitor/tier.c - see tier.h. nofpu. */
#include "monitor/tier.h"

#define RATIO_GUESS 64u /* four times */
#define RATIO_MIN 20u
#define RATIO_MAX 1024u
#define WINDOW_ENTRIES 64u
#define WINDOW_MOVES 4u /* a window is also full after so many times the cost of moving */
#define PROBATION_ENTRIES 128u
#define DOUBLINGS_MAX 5u
#define WAIT_TURNS 64u
#define HOLD 16u        /* windows; doubled with each mistake */
#define TRUST_MOVES 32u /* direct execution that has saved so many moves forgets one that did not pay */

void tier_init(struct tier *t) { *t = (struct tier){.ratio = RATIO_GUESS}; }

static void start_window(struct tier *t)
{
    t->entries = t->turns = 0;
    t->ticks = 0;
}

static uint8_t one_more(uint8_t n) { return n < DOUBLINGS_MAX ? n + 1 : n; }

static uint64_t per_entry(uint64_t ticks, uint64_t entries) { return ticks / (entries ? entries : 1); }

/* What was measured in one phase of a program is no truth for ever. */
static void age_ratio(struct tier *t)
{
    if (t->hold && --t->hold)
        return;
    t->ratio = (uint16_t)(t->ratio + ((int)RATIO_GUESS - (int)t->ratio) / 8);
}

static void move(struct tier *t, bool direct, enum tier_why why)
{
    t->direct = direct;
    t->probation = !direct;
    t->why = why;
    t->balance = 0;
    t->saved = 0;
    start_window(t);
}

/* The first window after a demotion: faster, entry by entry, or slower than before? Also shows the ratio. */
static bool end_probation(struct tier *t)
{
    uint64_t now = per_entry(t->ticks, t->entries), before = t->direct_ticks;
    uint64_t ratio = now * 16 / (t->direct_user ? t->direct_user : 1);
    t->ratio = ratio < RATIO_MIN ? RATIO_MIN : ratio > RATIO_MAX ? RATIO_MAX : (uint16_t)ratio;
    t->hold = HOLD << t->trust;
    t->probation = false;
    start_window(t);
    if (now <= before + before / 4)
        return false;
    t->trust = one_more(t->trust);
    t->hold = HOLD << t->trust;
    return true;
}

bool tier_translated(struct tier *t, struct tier_costs *c, uint64_t ticks)
{
    t->entries++;
    t->ticks += ticks;
    bool full = t->ticks >= WINDOW_MOVES * c->move;
    if (t->probation) {
        if (t->entries < PROBATION_ENTRIES && !full)
            return false;
        if (end_probation(t)) {
            move(t, true, TIER_WHY_SLOWER);
            return true;
        }
        return false;
    }
    if (t->entries >= WINDOW_ENTRIES || full) {
        start_window(t);
        age_ratio(t);
        c->turn -= (c->turn - c->bare_turn) / 64; /* a busy host does not stay so */
    }
    t->balance += (int64_t)(ticks - ticks * 16 / t->ratio - c->turn);
    if (t->balance < 0)
        t->balance = 0;
    if (t->balance < (int64_t)(c->move << t->distrust))
        return false;
    move(t, true, TIER_WHY_GAIN);
    return true;
}

bool tier_turn(struct tier *t, uint64_t ticks, bool entered)
{
    t->entries += entered;
    t->turns++;
    t->ticks += ticks;
    return t->turns >= WINDOW_ENTRIES || (t->ticks >> 26); /* tens of ms */
}

/* A good past is no reason to go on at a loss for long. */
static void note_savings(struct tier *t, const struct tier_costs *c, int64_t loss)
{
    int64_t least = -(int64_t)c->move;
    t->balance = t->balance + loss < least ? least : t->balance + loss;
    t->saved -= loss;
    if (t->saved < (int64_t)(TRUST_MOVES * c->move))
        return;
    t->saved -= TRUST_MOVES * c->move / 2;
    t->distrust -= t->distrust > 0;
}

bool tier_judge(struct tier *t, struct tier_costs *c, uint64_t world_ticks)
{
    uint64_t bare = t->turns * c->bare_turn, floor = bare / 8;
    uint64_t spent = world_ticks < t->ticks ? world_ticks : t->ticks;
    /* Who waits for longer than that waits for the CPU, which others have: no tier could help. */
    uint64_t waited = t->ticks - spent, limit = WAIT_TURNS * bare;
    uint64_t cost = spent + (waited < limit ? waited : limit);
    uint64_t user = spent > bare + floor ? spent - bare : floor;
    uint64_t turn = per_entry(cost > user ? cost - user : 0, t->turns);
    if (t->turns >= WINDOW_ENTRIES / 4) {
        turn = turn < c->bare_turn ? c->bare_turn : turn;
        c->turn = (7 * c->turn + turn) / 8;
    }
    note_savings(t, c, (int64_t)(cost - user * t->ratio / 16));
    t->direct_ticks = per_entry(t->ticks, t->entries);
    t->direct_user = per_entry(user, t->entries);
    start_window(t);
    age_ratio(t);
    if (t->balance < (int64_t)(c->move << t->trust))
        return false;
    bool paid = t->saved >= (int64_t)c->move;
    t->distrust = paid ? t->distrust - (t->distrust > 0) : one_more(t->distrust);
    move(t, false, TIER_WHY_ENTRIES);
    return true;
}

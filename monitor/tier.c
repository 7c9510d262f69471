/* monitor/tier.c - see tier.h. nofpu. */
#include "monitor/tier.h"

#define RATIO_GUESS 64u /* four times */
#define RATIO_MIN 20u
#define RATIO_MAX 800u
#define WINDOW_TURNS 64u
#define WINDOW_MOVES 4u     /* a window of translated code is also full after so many times the cost of moving */
#define WARM_UP_ENTRIES 16u /* after a demotion: they translate what has not run translated yet */
#define STEADY_ENTRIES 8u
#define STEADY 8u /* a window in which no stretch is longer than so many average ones tells something about others */
#define DISTRUST_MAX 5u
#define TRUST_MAX 3u
#define WAIT_TURNS 64u
#define SURE_MAX 5u
/* Direct execution on a guess goes on for so long before it is tried whether the guess is right. */
#define TRIAL_MOVES 4u
#define HOLD_MOVES 32u  /* a measured ratio stays for so many times the cost of moving; doubled with each mistake */
#define CALM_MOVES 32u  /* distrust and trust go down by one after so many */
#define LONG_TURNS 64u  /* turns of direct execution add nothing to speak of to a stretch that is so many long */
#define BACK_SHARE 8u   /* the cost of moving into a world that has been kept: so much less */
#define LEAVE_SHARE 4u  /* and of leaving it */
#define CREDIT_MOVES 2u /* what direct execution has saved lately makes up for so much */
#define GRANT_MAX 8u    /* moves */
#define FIRST_MAX 8u
#define LEARN_SHARE 8u

void tier_costs_init(struct tier_costs *c, const uint64_t bare[2], uint64_t map, unsigned move_pages)
{
    *c = (struct tier_costs){.bare = {bare[0], bare[1]}, .move = move_pages * (bare[1] + map)};
    c->floor[TIER_CALL] = bare[0];
    c->floor[TIER_FAULT] = bare[0] + map;
    c->turn[TIER_CALL] = bare[1];
    c->turn[TIER_FAULT] = bare[1] + map;
    c->first = c->move;
}

void tier_init(struct tier *t) { *t = (struct tier){.ratio = RATIO_GUESS, .guess = true, .last = TIER_OTHER}; }

static void start_window(struct tier *t) { t->w = (struct tier_window){.turns = 0}; }

static uint64_t ratio_of(uint64_t a, uint64_t b) { return a / (b ? b : 1); }

static uint64_t clamp(uint64_t n, uint64_t least, uint64_t most) { return n < least ? least : n > most ? most : n; }

/* Promotions that nobody lived to gain from make first ones dearer, as much as they cost; others make them cheaper again. */
void tier_end(struct tier *t, struct tier_costs *c)
{
    int64_t most = 2 * (int64_t)c->move, profit = t->profit - (t->direct ? (int64_t)t->w.moving : 0);
    if (!t->promotions)
        return;
    profit = profit > most ? most : profit < -most ? -most : profit;
    int64_t first = (int64_t)c->first - profit / (int64_t)LEARN_SHARE;
    c->first = first < (int64_t)c->move / 2 ? c->move / 2 : clamp((uint64_t)first, 0, FIRST_MAX * c->move);
}

static uint8_t one_more(uint8_t n, uint8_t most) { return n < most ? n + 1 : n; }

/* What was measured in one phase of a program is no truth for ever. */
static void pass_time(struct tier *t, const struct tier_costs *c, uint64_t ticks)
{
    t->calm += ticks;
    if (t->calm >= CALM_MOVES * c->move) {
        t->calm = 0;
        t->distrust -= t->distrust > 0;
        t->trust -= t->trust > 0;
    }
    if (t->hold > ticks) {
        t->hold -= ticks;
        return;
    }
    t->hold = c->move;
    t->guess = true;
    t->ratio = (uint16_t)(t->ratio + ((int)RATIO_GUESS - (int)t->ratio) / 8);
}

/* A window in which nothing stands out, of the program's own entries: another one of the kind can be compared with it. */
static bool steady(const struct tier_window *w)
{
    return w->entries >= STEADY_ENTRIES && w->longest < STEADY * (w->ticks / w->turns);
}

/* From the time for an entry one way and the other. False: that is no ratio, but another phase of the program. */
static bool learn_ratio(struct tier *t, const struct tier_costs *c, uint64_t translated, uint64_t native)
{
    uint64_t ratio = ratio_of(translated * 16, native);
    if (ratio < 12 || ratio > RATIO_MAX)
        return false;
    ratio = clamp(ratio, RATIO_MIN, RATIO_MAX);
    bool again = t->measured && ratio < 2ull * t->measured && t->measured < 2 * ratio;
    t->sure = again ? one_more(t->sure, SURE_MAX) : 0;
    t->ratio = t->measured = (uint16_t)ratio;
    t->guess = false;
    t->hold = HOLD_MOVES * c->move << t->sure;
    return true;
}

static void move(struct tier *t, bool direct, enum tier_why why)
{
    t->direct = direct;
    t->probation = direct ? 1 : 2;
    t->why = why;
    t->balance = 0;
    t->saved = 0;
    t->invested = 0;
    t->last = TIER_OTHER;
    start_window(t);
}

/* ---- translated ---- */

/* What promotion takes: what it will cost, as far as anyone can tell. */
static uint64_t needed(const struct tier *t, const struct tier_costs *c)
{
    uint64_t need = (t->promotions ? c->move / BACK_SHARE : c->first) << t->distrust;
    if (t->why == TIER_WHY_MOVING && need < t->grant)
        need = t->grant; /* so much was not enough; the next time it is twice as much */
    return t->probation && need < c->move ? c->move : need; /* what is being measured is not guessed */
}

static void promote(struct tier *t, const struct tier_costs *c, enum tier_why why)
{
    uint64_t need = needed(t, c);
    if (steady(&t->w))
        t->before = ratio_of(t->w.ticks, t->w.entries);
    else if (t->probation) { /* it was that of direct execution */
        t->before = 0;
        t->guess = false; /* a trial that showed nothing is not repeated soon */
        t->hold = HOLD_MOVES * c->move;
    }
    t->grant = clamp(2 * need, 2 * c->move, GRANT_MAX * c->move);
    t->allowance = t->grant;
    t->promotions++;
    int64_t credit = t->balance < (int64_t)(CREDIT_MOVES * c->move) ? t->balance : (int64_t)(CREDIT_MOVES * c->move);
    move(t, true, why);
    t->balance =
        credit > 0 ? -credit : 0; /* a stretch may be over before it is known how long it was: more like it may come */
}

/* The first window after a demotion, when what it needs has been translated: faster, entry by entry, or slower than before? */
static bool slower(struct tier *t, const struct tier_costs *c)
{
    uint64_t now = ratio_of(t->w.ticks, t->w.entries);
    bool same = steady(&t->w) && learn_ratio(t, c, now, t->native);
    if (!same || now <= t->before + t->before / 4)
        return false;
    t->trust = one_more(t->trust, TRUST_MAX);
    t->calm = 0;
    return true;
}

static int64_t least_balance(const struct tier_costs *c) { return -(int64_t)(c->move / LEAVE_SHARE); }

bool tier_is_far(const struct tier *t, const struct tier_costs *c)
{
    return !t->direct && !t->probation && t->balance == least_balance(c);
}

static void gain(struct tier *t, const struct tier_costs *c, uint64_t ticks, unsigned times, enum tier_end how)
{
    uint64_t turn = how == TIER_FAULT ? c->turn[TIER_FAULT] : c->turn[TIER_CALL];
    uint64_t ratio = t->ratio;
    if (ticks >= LONG_TURNS * turn && ratio < RATIO_GUESS)
        ratio = RATIO_GUESS; /* whatever it is: next to nothing can be lost */
    int64_t least = least_balance(c), each = (int64_t)(ticks - ticks * 16 / ratio - turn),
            sum = t->balance + times * each;
    t->balance = sum < least ? least : sum;
}

/* A busy host does not stay so. */
static void forget_turns(struct tier_costs *c)
{
    for (unsigned i = 0; i <= TIER_FAULT; i++)
        c->turn[i] -= (c->turn[i] - c->floor[i]) / 64;
}

bool tier_translated(struct tier *t, struct tier_costs *c, uint64_t ticks, unsigned times, enum tier_end how)
{
    struct tier_window *w = &t->w;
    if (ticks >= LONG_TURNS * c->turn[TIER_CALL]) /* this one stands out */
        times = 1;
    w->turns += times;
    w->entries += how <= TIER_FAULT ? times : 0;
    w->ticks += ticks * times;
    w->longest = ticks > w->longest ? ticks : w->longest;
    gain(t, c, ticks, times, how);
    if (t->balance >= (int64_t)needed(t, c)) {
        promote(t, c, t->probation && slower(t, c) ? TIER_WHY_SLOWER : TIER_WHY_GAIN);
        return true;
    }
    if (w->entries < (t->probation == 2 ? WARM_UP_ENTRIES : WINDOW_TURNS) && w->ticks < WINDOW_MOVES * c->move)
        return false;
    if (t->probation == 1 && slower(t, c)) {
        promote(t, c, TIER_WHY_SLOWER);
        return true;
    }
    t->probation -= t->probation > 0;
    if (!t->probation)
        t->before = steady(w) ? ratio_of(w->ticks, w->entries) : 0;
    forget_turns(c);
    pass_time(t, c, w->ticks);
    start_window(t);
    return false;
}

/* ---- direct ---- */

bool tier_turn(struct tier *t, const struct tier_costs *c, const struct tier_turn *turn)
{
    struct tier_window *w = &t->w;
    uint64_t ticks = turn->before + turn->ran + turn->after;
    w->turns++;
    w->entries += turn->how <= TIER_FAULT;
    w->ticks += ticks;
    w->ran += turn->ran;
    w->longest = ticks > w->longest ? ticks : w->longest;
    w->bare += c->bare[turn->shares];
    if (turn->how == TIER_HIDDEN)
        w->moving += turn->after + c->bare[turn->shares];
    if (t->last == TIER_HIDDEN)
        w->moving += turn->before;
    if (turn->how <= TIER_FAULT) {
        w->n[turn->how]++;
        w->extra[turn->how] += turn->after;
    }
    if (t->last <= TIER_FAULT) /* the page that the guest's kernel was asked for is entered before the next turn */
        w->extra[t->last] += turn->before;
    t->last = (uint8_t)turn->how;
    if (w->turns >= WINDOW_TURNS / 4 && w->ticks >= WINDOW_MOVES * c->move)
        return true;
    return w->turns >= WINDOW_TURNS || (w->ticks >> 26); /* tens of ms */
}

/* What turns cost here and now. waited: for the CPU, for each of them. */
static void learn_turns(const struct tier_window *w, struct tier_costs *c, uint64_t waited)
{
    uint64_t bare = w->bare / w->turns;
    for (unsigned i = 0; i <= TIER_FAULT; i++) {
        if (w->n[i] < WINDOW_TURNS / 4)
            continue;
        uint64_t turn = bare + waited + w->extra[i] / w->n[i];
        c->turn[i] = (7 * c->turn[i] + (turn < c->floor[i] ? c->floor[i] : turn)) / 8;
    }
}

/* What is left of moving in when it has used up what it may cost. */
static uint64_t invest(struct tier *t, uint64_t moving)
{
    uint64_t granted = moving < t->allowance ? moving : t->allowance;
    t->allowance -= granted;
    t->invested += moving;
    return moving - granted;
}

static void demote(struct tier *t, const struct tier_costs *c, enum tier_why why)
{
    bool paid = t->saved >= (int64_t)(t->invested + c->move / BACK_SHARE);
    t->doubtful = 0;
    if (why == TIER_WHY_ENTRIES) {
        t->distrust = paid ? t->distrust - (t->distrust > 0) : one_more(t->distrust, DISTRUST_MAX);
        t->calm = 0;
    }
    move(t, false, why);
}

/* A program with turns that are no small part of its time runs on a guess of what the other way takes. */
static bool wants_trial(struct tier *t, const struct tier_costs *c, uint64_t cost, uint64_t user)
{
    bool matters = t->guess && t->native && cost > user + user / 4;
    t->doubtful = matters ? t->doubtful + t->w.ticks : 0;
    return t->doubtful >= TRIAL_MOVES * c->move;
}

bool tier_judge(struct tier *t, struct tier_costs *c, uint64_t world_ticks)
{
    const struct tier_window *w = &t->w;
    uint64_t bare = w->bare, least = bare / 8;
    /* Who waits for longer than that waits for the CPU, which others have: no tier could help. */
    uint64_t user = w->ran > bare + least ? w->ran - bare : least, limit = WAIT_TURNS * bare;
    user = user < world_ticks ? user : world_ticks > least ? world_ticks : least;
    uint64_t waited = w->ran > bare + user ? w->ran - bare - user : 0, lost = waited > limit ? waited - limit : 0;
    uint64_t cost = w->ticks - lost, moving = w->moving < cost ? w->moving : cost;
    learn_turns(w, c, (waited - lost) / w->turns);
    /* Of user code that is short against a turn's own cost not much can be said. */
    bool like_others = steady(w) && user >= bare / 2;
    if (t->probation && t->before && like_others)
        learn_ratio(t, c, t->before, ratio_of(user, w->entries));
    t->probation = t->probation && !like_others && moving;
    uint64_t over = invest(t, moving);
    int64_t loss = (int64_t)(cost - moving - user * t->ratio / 16), floor = -(int64_t)(CREDIT_MOVES * c->move);
    t->saved -= loss;
    t->profit -= loss + (int64_t)moving;
    loss += (int64_t)over;
    /* A good past is no reason to go on at a loss for long. */
    t->balance = t->balance + loss < floor ? floor : t->balance + loss;
    if (!t->probation) {
        t->before = ratio_of(cost - moving, w->entries);
        t->native = like_others ? ratio_of(user, w->entries) : 0;
    }
    bool leave = t->balance >= (int64_t)((c->move / LEAVE_SHARE) << t->trust);
    bool trial = !leave && wants_trial(t, c, cost - moving, user);
    if (leave || trial) {
        demote(t, c, trial ? TIER_WHY_TRIAL : over ? TIER_WHY_MOVING : TIER_WHY_ENTRIES);
        return true;
    }
    pass_time(t, c, w->ticks);
    start_window(t);
    return false;
}

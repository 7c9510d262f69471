#include "base/rng.h"
#include "base/check.h"
#include "base/clock.h"
#include <stdlib.h>
#include <unistd.h>

/* SplitMix64: spreads any seed, zero included, over the whole state. */
static uint64_t splitmix(uint64_t *x)
{
    uint64_t z = *x += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t rotl(uint64_t x, unsigned n) { return x << n | x >> (64 - n); }

void rng_init(struct rng *r, uint64_t seed)
{
    uint64_t x = seed;
    for (unsigned i = 0; i < 4; i++)
        r->s[i] = splitmix(&x);
    r->seed = seed;
    check_note_seed(seed);
}

uint64_t rng_pick_seed(void)
{
    const char *env = getenv("RD_SEED");
    if (env && *env)
        return strtoull(env, NULL, 0);
    uint64_t x = clock_ns(CLOCK_REALTIME) + ((uint64_t)getpid() << 40);
    return splitmix(&x);
}

/* xoshiro256** by Blackman and Vigna. */
uint64_t rng_next(struct rng *r)
{
    uint64_t *s = r->s, out = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return out;
}

/* The high half of a 128-bit product is uniform once the few low halves that would make some results likelier than others
 * are thrown away (Lemire 2019). */
uint64_t rng_below(struct rng *r, uint64_t n)
{
    ASSERT(n > 0);
    uint64_t surplus = -n % n;
    for (;;) {
        unsigned __int128 m = (unsigned __int128)rng_next(r) * n;
        if ((uint64_t)m >= surplus)
            return (uint64_t)(m >> 64);
    }
}

bool rng_once_in(struct rng *r, uint64_t n) { return n && rng_below(r, n) == 0; }

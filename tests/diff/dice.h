/* tests/diff/dice.h - the generator's random numbers: splitmix64, one state a case. Unlike base/rng.h it is re-seeded for
 * every case, hundred thousands of times a second, and is nobody's "seed of the run". */
#ifndef TESTS_DIFF_DICE_H
#define TESTS_DIFF_DICE_H
#include <stdbool.h>
#include <stdint.h>

struct dice {
    uint64_t s;
};
static inline uint64_t dice_u64(struct dice *r)
{
    uint64_t z = r->s += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}
/* 0 .. n-1; the bias for small n does not matter here. */
static inline uint32_t dice_below(struct dice *r, uint32_t n) { return (uint32_t)(dice_u64(r) >> 32) % n; }
static inline bool dice_chance(struct dice *r, unsigned percent) { return dice_below(r, 100) < percent; }
#endif

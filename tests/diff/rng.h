/* tests/diff/rng.h - the generator's random numbers: splitmix64, so that (seed, case) alone gives a case on every machine. */
#ifndef TESTS_DIFF_RNG_H
#define TESTS_DIFF_RNG_H
#include <stdbool.h>
#include <stdint.h>

struct rng {
    uint64_t s;
};
static inline uint64_t rng_u64(struct rng *r)
{
    uint64_t z = r->s += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}
/* 0 .. n-1; the bias for small n does not matter here. */
static inline uint32_t rng_below(struct rng *r, uint32_t n) { return (uint32_t)(rng_u64(r) >> 32) % n; }
static inline bool rng_chance(struct rng *r, unsigned percent) { return rng_below(r, 100) < percent; }
#endif

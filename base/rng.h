/* base/rng.h - random numbers that can be had again: one printed seed makes a whole run repeatable.
 *
 * Role:    for tests and for the check modes that make rare paths common (random eviction, forced exits). Not for secrets.
 * Seeds:   rng_init makes the seed known to check_failed, so that a failing run says how to repeat it.
 * Threads: one struct rng per thread.
 */
#ifndef BASE_RNG_H
#define BASE_RNG_H
#include <stdbool.h>
#include <stdint.h>

struct rng {
    uint64_t s[4]; /* xoshiro256**, never all zero */
    uint64_t seed;
};
void rng_init(struct rng *r, uint64_t seed);
/* The seed for this run: $RD_SEED (decimal or 0x...) if it is set, else a new one each time. Print it. */
uint64_t rng_pick_seed(void);
uint64_t rng_next(struct rng *r);
/* Uniform in [0, n); n > 0. */
uint64_t rng_below(struct rng *r, uint64_t n);
/* True once in n calls on the average; never if n is 0. */
bool rng_once_in(struct rng *r, uint64_t n);

/* For nofpu code and threads of their own: Knuth's MMIX, 31 good bits. Any state will do. */
static inline uint32_t rng_small(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*state >> 33);
}
#endif

/* codecache/jumpcache.h - direct-mapped table of indirect-jump targets that generated code looks up inline.
 *
 * tag[i] = minus the guest RIP whose block's indirect entry is pc[i]; an empty slot holds a tag that no RIP of that index can
 * match. Valid for one translation key and CS base at a time; the run loop flushes on a change. nofpu; vCPU thread only.
 */
#ifndef CODECACHE_JUMPCACHE_H
#define CODECACHE_JUMPCACHE_H
#include <stdint.h>

#define JC_BITS 12
#define JC_SIZE (1u << JC_BITS)
struct jump_cache {
    int64_t tag[JC_SIZE];
    uint64_t pc[JC_SIZE];
};
/* Bits 1-12 of the RIP (functions and return addresses rarely collide in bit 0). */
static inline unsigned jc_index(uint64_t rip) { return (unsigned)(rip >> 1) & (JC_SIZE - 1); }
#define JC_MASK ((uint64_t)(JC_SIZE - 1) << 1)

static inline int64_t jc_empty_tag(unsigned i) { return i ? 0 : -2; }
static inline void jc_flush(struct jump_cache *jc)
{
    for (unsigned i = 0; i < JC_SIZE; i++)
        jc->tag[i] = 0;
    jc->tag[0] = jc_empty_tag(0);
}
static inline void jc_fill(struct jump_cache *jc, uint64_t rip, uint64_t pc)
{
    unsigned i = jc_index(rip);
    jc->tag[i] = (int64_t)-rip;
    jc->pc[i] = pc;
}
static inline void jc_drop(struct jump_cache *jc, uint64_t rip)
{
    unsigned i = jc_index(rip);
    if (jc->tag[i] == (int64_t)-rip)
        jc->tag[i] = jc_empty_tag(i);
}
#endif

/* codecache/jumpcache.h - direct-mapped table of indirect-jump targets that generated code looks up inline.
 *
 * tag[i] = minus the guest RIP whose block's indirect entry is pc[i]; an empty slot holds a tag that no RIP of that index can
 * match. Valid for one translation key and CS base at a time; the run loop flushes on a change. nofpu; vCPU thread only.
 */
#ifndef CODECACHE_JUMPCACHE_H
#define CODECACHE_JUMPCACHE_H
#include <stdint.h>

#define JC_BITS 18
#define JC_SHIFT 2
#define JC_SIZE (1u << JC_BITS)
/* Guests flush often, and mostly few entries: the slots that were filled since are noted, as many as this. */
#define JC_LOG 16384u
struct jump_cache {
    int64_t tag[JC_SIZE];
    uint64_t pc[JC_SIZE];
    unsigned n_filled; /* > JC_LOG: more than are noted */
    uint32_t filled[JC_LOG];
};
/* What an address space had that is not current. Blocks that die leave it no longer valid: its owner throws it away then. */
#define JC_PARKED 128u
struct jc_park {
    unsigned n;
    struct {
        int64_t tag;
        uint64_t pc;
    } entry[JC_PARKED];
};
/* Bits of the RIP that choose the slot: functions and return addresses that are used together rarely differ in the lowest ones only. */
static inline unsigned jc_index(uint64_t rip) { return (unsigned)(rip >> JC_SHIFT) & (JC_SIZE - 1); }
#define JC_MASK ((uint64_t)(JC_SIZE - 1) << JC_SHIFT)

static inline int64_t jc_empty_tag(unsigned i) { return i ? 0 : -(1 << JC_SHIFT); }
/* In memory that is all zeros; takes none of it that is not needed. */
static inline void jc_create(struct jump_cache *jc) { jc->tag[0] = jc_empty_tag(0); }
static inline void jc_init(struct jump_cache *jc)
{
    for (unsigned i = 0; i < JC_SIZE; i++)
        jc->tag[i] = jc_empty_tag(i);
    jc->n_filled = 0;
}
static inline void jc_flush(struct jump_cache *jc)
{
    if (jc->n_filled > JC_LOG) {
        jc_init(jc);
        return;
    }
    for (unsigned k = 0; k < jc->n_filled; k++)
        jc->tag[jc->filled[k]] = jc_empty_tag(jc->filled[k]);
    jc->n_filled = 0;
}
static inline void jc_fill(struct jump_cache *jc, uint64_t rip, uint64_t pc)
{
    unsigned i = jc_index(rip);
    jc->tag[i] = (int64_t)-rip;
    jc->pc[i] = pc;
    if (jc->n_filled < JC_LOG)
        jc->filled[jc->n_filled++] = i;
    else
        jc->n_filled = JC_LOG + 1;
}
/* Empties jc; the entries made last go to *park, as many as it holds. */
static inline void jc_park(struct jump_cache *jc, struct jc_park *park)
{
    park->n = 0;
    for (unsigned k = jc->n_filled; k <= JC_LOG && k-- > 0 && park->n < JC_PARKED;) {
        unsigned i = jc->filled[k];
        if (jc->tag[i] == jc_empty_tag(i))
            continue;
        park->entry[park->n].tag = jc->tag[i];
        park->entry[park->n++].pc = jc->pc[i];
        jc->tag[i] = jc_empty_tag(i);
    }
    jc_flush(jc);
}
/* They come back into jc, which is empty. */
static inline void jc_unpark(struct jump_cache *jc, struct jc_park *park)
{
    for (unsigned k = park->n; k-- > 0;)
        jc_fill(jc, (uint64_t)-park->entry[k].tag, park->entry[k].pc);
    park->n = 0;
}
static inline void jc_drop(struct jump_cache *jc, uint64_t rip)
{
    unsigned i = jc_index(rip);
    if (jc->tag[i] == (int64_t)-rip)
        jc->tag[i] = jc_empty_tag(i);
}
/* Targets in [rip, rip + bytes), which wraps where mask says. */
static inline void jc_drop_range(struct jump_cache *jc, uint64_t rip, uint64_t bytes, uint64_t mask)
{
    const uint64_t step = 1u << JC_SHIFT;
    for (uint64_t at = rip & ~(step - 1); at - rip < bytes || rip - at < step; at += step) {
        unsigned i = jc_index(at);
        if ((((uint64_t)-jc->tag[i] - rip) & mask) < bytes)
            jc->tag[i] = jc_empty_tag(i);
    }
}
#endif

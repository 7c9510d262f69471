/* monitor/direct_int.h - private to direct.c (spaces, tiers, turns), direct_map.c (what a world has mapped), direct_seg.c (selectors).
 *
 * DIR-1  A page is writable in a world only if the guest's entry is writable and dirty and the frame is not traced.
 * DIR-2  In a space that has run 32-bit code (`narrow`) a page is executable in the world only after selscan has found nothing
 *        in it, and never writable at the same time. Pages in which it did (PAGE_CAREFUL) run translated.
 */
#ifndef MONITOR_DIRECT_INT_H
#define MONITOR_DIRECT_INT_H
#include "monitor/tier.h"
#include "monitor/vm_int.h"
#include "shadowmmu/ptwalk.h"
#include "shadowmmu/uworld.h"

#define SPACE_BITS 10
#define SPACES (1u << SPACE_BITS)
#define CHUNK_PAGES 512u
#define CHUNK_SHIFT 21
#define CHUNK_HASH 64u
#define APART_SLOTS 64u
#define INVALID_MAX 8u
#define RECENT 4u
#define WARM 8u

/* 2 MiB of a world: the entries as they were when their pages were mapped. */
struct chunk {
    uint64_t lin;
    uint64_t table; /* guest physical address of the page table, or ~0 for a piece of a large page */
    struct chunk *next;
    unsigned pages;
    uint64_t pte[CHUNK_PAGES]; /* 0 = not mapped; for a large page its entry */
    uint8_t prot[CHUNK_PAGES]; /* UW_R, UW_W, UW_X and: */
};
#define PAGE_CAREFUL 0x80u /* has instructions on selectors (or keeps company with such a page): runs translated */
#define PAGE_FLIP 0x10u    /* times this: how often it was written to after it had been executable ... */
#define PAGE_FLIPS 0x70u   /* ... in these bits; a page that does it too often runs translated too */

struct space {
    uint64_t cr3;
    struct uworld *world;
    struct chunk *chunk[CHUNK_HASH];
    bool stale;          /* its translations were flushed since it ran ... */
    uint64_t generation; /* ... that is, since they were these (pcid.h) */
    bool global;         /* has pages that are global: INVLPG of one may come while another space is current */
    bool giant;          /* has had a piece of a page of more than two chunks mapped */
    uint8_t n_invalid;
    uint64_t invalid[INVALID_MAX]; /* pages of which INVLPG spoke since it ran */
    bool refused;                  /* something in it cannot run directly */
    bool ended;                    /* its root table was found empty: who has it now is another one */
    bool narrow;                   /* has run 32-bit code: DIR-2 */
    struct tier tier;
    uint64_t world_ns,
        apart_ns;        /* CPU time of the world when the window began; at the last turn that ended at a page apart */
    uint64_t emptied_ns; /* what being emptied by the host has cost and good turns have not paid off yet */
    uint8_t apart[APART_SLOTS]; /* short turns in a row that began in a page and ended at one that runs translated */
    uint64_t used;              /* for choosing a victim */
    uint64_t fault_lin;         /* last address that was the guest's own fault: likely to be there now; ~0 = none */
};
struct direct {
    struct vcpu *v;
    enum vm_user_mode mode;
    struct uw_pool *pool;
    struct uworld *running; /* for the kick */
    struct uworld *loose;   /* ran last; whether its thread has really stopped has not been asked yet */
    uint64_t clock;
    struct tier_costs costs;
    uint64_t ticks_per_1024ns;
    unsigned cr3_loads; /* since sweep */
    unsigned skips;     /* a small generator: how many stretches are not timed */
    unsigned n_recent;
    uint16_t recent[RECENT]; /* spaces that ran last */
    unsigned n_warm;
    struct space warm[WARM]; /* world, chunk and narrow of spaces that have ended or given it up, oldest first */
    unsigned n_live;
    struct space *live[SPACES]; /* those that have a world */
    struct space space[SPACES];
};

/* -- direct.c -- */
void direct_drop_world(struct direct *d, struct space *s);
/* Has the guest taken all user mappings out of the space's root table? So kernels do before they free it. nofpu. */
bool direct_root_is_empty(struct vcpu *v, const struct space *s);

/* -- direct_warm.c: worlds between two spaces -- */
/* The space gives its world up. It stays as it is for the next one that can use it, or is emptied and put back. */
void direct_warm_put(struct direct *d, struct space *s);
/* One that has the code mapped that the space is about to run, adjusted to its tables; or an empty one, if there are many or any will do. */
bool direct_warm_take(struct vcpu *v, struct space *s, bool any);
void direct_warm_clear(struct direct *d);

/* -- direct_tier.c: what the policy (tier.h) is told, and what follows from its verdicts -- */
/* Runs turns without user code, to see what they take on this host. */
void direct_measure(struct direct *d, struct stats *st);
void direct_new_space(struct direct *d, struct space *s, uint64_t cr3);
/* The space has got a world. */
void direct_start_window(struct space *s);
/* Translated user code of the space ran and ended that way, so many times. True: it will run directly. nofpu. */
bool direct_account_translated(struct vcpu *v, struct space *s, uint64_t ticks, unsigned times, enum tier_end how);
/* A turn of its world. */
void direct_account_turn(struct vcpu *v, struct space *s, const struct tier_turn *turn);
uint64_t direct_world_ns(const struct space *s);

/* -- direct_map.c -- */
void direct_forget(struct space *s); /* the world is empty or gone */
void direct_unmap_all(struct space *s);
void direct_sync(struct vcpu *v, struct space *s);
/* INVLPG: the page is to be compared before the space runs again, by direct_sync_pages or direct_sync. nofpu. */
void direct_invalidate(struct space *s, uint64_t lin);
void direct_sync_pages(struct vcpu *v, struct space *s);
/* The world has pages of another space mapped, as s->chunk says: now it becomes this one's. */
void direct_adopt(struct vcpu *v, struct space *s);
/* Is this frame mapped at lin? */
bool direct_has_frame(const struct space *s, uint64_t lin, uint64_t gpa);
/* -check shadow: right after that, each page must be what the tables say. */
void direct_audit(struct vcpu *v, const struct space *s);
/* The page that the guest kernel was last asked for, and for 32-bit code the stack's: SYSENTER needs it. */
void direct_map_expected(struct vcpu *v, struct space *s);
enum direct_result direct_page_fault(struct vcpu *v, struct space *s, uint64_t lin, uint32_t error);
/* Does rip lie in a PAGE_CAREFUL page? nofpu. */
bool direct_is_careful(const struct space *s, uint64_t rip);

/* A turn that began at rip ended at a page that runs translated, ns of the world's CPU time after the last that did. */
void direct_note_apart(struct space *s, uint64_t rip, uint64_t ns);

/* -- direct_seg.c -- */
/* Can a world have the segments as they are? nofpu. */
bool direct_segments_allowed(const struct vcpu *v);
int direct_segments_in(struct vcpu *v, struct space *s, struct uw_state *u);
/* What came back against what was given. A selector that changed was loaded unseen: the guest's descriptor of that number is
 * loaded now. 0, or SYS_FAULT with v->fault. */
int direct_segments_out(struct vcpu *v, struct space *s, const struct uw_state *given, const struct uw_state *u);
#endif

/* shadowmmu/audit.h - the shadow audit (-check shadow): is every shadow translation one that the guest's tables allow?
 *
 * Role:     a model of what a TLB without limits may hold (SDM 3A 4.10): every translation that was entered, as a page-table
 *           walker of its own finds it at that moment, until a flush that covers it. What a shadow structure holds must be in the
 *           model: audit_check is asked about each entry, audit_fill and audit_flush are told what happens. So an entry is
 *           - wrong when it is entered, if the tables do not allow it then (AUDIT_FILL_*);
 *           - wrong later, if nobody reported it, if it allows more than was entered, if a flush since should have removed it, or
 *             if it is writable although its frame is traced. A table that has merely changed since is no error: only a flush
 *             makes the guest's new tables binding.
 * Owner:    audit_create/audit_destroy, per vCPU.   Threads: the vCPU's. nofpu. Signals: all but create/destroy.
 * Cost:     48 bytes for each translation entered since the last compaction, and a walk for each fill.
 */
#ifndef SHADOWMMU_AUDIT_H
#define SHADOWMMU_AUDIT_H
#include "arch/cpu.h"
#include "shadowmmu/gpmem.h"
#include <stdbool.h>
#include <stdint.h>

struct audit;

#define AUDIT_WHERES(X)                                                                                                \
    X(TLB_SUPER, "soft TLB, supervisor")                                                                               \
    X(TLB_USER, "soft TLB, user")                                                                                      \
    X(FETCH, "fetch TLB")                                                                                              \
    X(WIN64, "64-bit window")                                                                                          \
    X(WIN32, "32-bit window")                                                                                          \
    X(WORLD, "user world")
enum audit_where {
#define X(name, text) AUDIT_##name,
    AUDIT_WHERES(X)
#undef X
        AUDIT_WHERE_COUNT
};

#define AUDIT_RULES(X)                                                                                                 \
    X(FILL_ABSENT, "entered, but the guest's tables do not map this address")                                          \
    X(FILL_FRAME, "entered with another frame than the guest's tables have")                                           \
    X(FILL_WRITE, "entered as writable, but the guest's tables do not allow a write, or D is clear")                   \
    X(FILL_GLOBAL, "entered as global, but the guest's entry is not")                                                  \
    X(FILL_ACCESSED, "entered although an accessed bit on the way is clear")                                           \
    X(FILL_USER, "entered against U/S or SMAP")                                                                        \
    X(FILL_NX, "entered as executable, but the guest's entry has NX")                                                  \
    X(UNKNOWN, "there, but never entered")                                                                             \
    X(FRAME, "leads to another frame than when it was entered")                                                        \
    X(WRITE, "writable, but was not entered as writable")                                                              \
    X(FLUSHED, "still there after a flush that covers it")                                                             \
    X(MODE, "still there after CR0, CR4 or EFER changed what it means")                                                \
    X(TRACED, "writable, but the frame is traced or ROM")                                                              \
    X(NO_MEMORY, "leads to a frame that is not memory")                                                                \
    X(HOST, "the host's own mapping is another one")
enum audit_rule {
    AUDIT_OK,
#define X(name, text) AUDIT_##name,
    AUDIT_RULES(X)
#undef X
};
const char *audit_where_text(enum audit_where w);
const char *audit_rule_text(enum audit_rule r);

enum audit_flush { AUDIT_FLUSH_NONE, AUDIT_FLUSH_PAGE, AUDIT_FLUSH_NONGLOBAL, AUDIT_FLUSH_ALL };

#define AUDIT_PCIDS 4096u
/* One entry, as the shadow structure has it. */
struct audit_entry {
    uint64_t lin, gpa; /* 4 KiB pages */
    bool write, global, exec;
    uint16_t pcid; /* whose it is, if it is not global; 0 without CR4.PCIDE */
};
#define AUDIT_LEVELS 4
/* The first violation found, for the report. */
struct audit_violation {
    enum audit_rule rule;
    enum audit_where where;
    struct audit_entry entry;
    uint64_t entered; /* number of the flush after which it was entered; 0 = never */
    unsigned levels;  /* what the guest's tables say now */
    uint64_t pte_gpa[AUDIT_LEVELS], pte[AUDIT_LEVELS];
    enum audit_flush flush; /* the last one, its address (AUDIT_FLUSH_PAGE) and its number */
    uint64_t flush_lin, serial;
};

int audit_create(struct audit **out, struct gpmem *mem);
void audit_destroy(struct audit *a);

/* An entry is made now: does the walk allow it? Remembers it. False: a violation. */
bool audit_fill(struct audit *a, const struct cpu *c, enum audit_where where, const struct audit_entry *e);
/* The same for a structure that is compared as a whole with the tables (user worlds): nothing is remembered. */
bool audit_compare(struct audit *a, const struct cpu *c, enum audit_where where, const struct audit_entry *e);
/* The guest's flush has been carried out. lin: AUDIT_FLUSH_PAGE only. */
void audit_flush(struct audit *a, enum audit_flush what, uint64_t lin);
/* Another PCID is current from now on: flushes are of its translations (and of global ones). */
void audit_switch(struct audit *a, uint16_t pcid);
/* INVPCID has been carried out: nothing that is not global is left of this context; AUDIT_PCIDS: of any. */
void audit_flush_pcid(struct audit *a, uint16_t pcid);
/* Is this entry, found in a shadow structure, one that may be there? False: a violation. */
bool audit_check(struct audit *a, const struct cpu *c, enum audit_where where, const struct audit_entry *e);
/* Something else found it wrong. */
void audit_blame(struct audit *a, const struct cpu *c, enum audit_where where, enum audit_rule rule,
                 const struct audit_entry *e);
/* The model has grown: every entry must be walked (audit_check) between these two, then what was not seen is forgotten. */
bool audit_is_full(const struct audit *a);
void audit_compact_begin(struct audit *a);
void audit_compact_end(struct audit *a);

const struct audit_violation *audit_violation(const struct audit *a); /* NULL: none so far */
uint64_t audit_fills(const struct audit *a);
#endif

/* monitor/vm_int.h - private to the run loop of the monitor: vm.c, run.c, site.c, callout.c, hostsig.c, mmu.c, fpuswitch. */
#ifndef MONITOR_VM_INT_H
#define MONITOR_VM_INT_H
#include "base/check.h"
#include "base/rng.h"
#include "codecache/codecache.h"
#include "monitor/cpumodel.h"
#include "monitor/direct.h"
#include "monitor/engine.h"
#include "monitor/fpu.h"
#include "monitor/mem.h"
#include "monitor/pcid.h"
#include "monitor/pttrace.h"
#include "monitor/selfcheck.h"
#include "monitor/sysinsn.h"
#include "monitor/vcpu.h"
#include "shadowmmu/window.h"
#include "translator/translator.h"
#include <pthread.h>
#include <signal.h>

struct vm {
    struct vm_config cfg;
    struct vm_ops ops;
    void *opaque;
    struct gpmem *mem;
    struct cpumodel *cpu;
    struct stats stats;
    struct vcpu *vcpu;
};

/* Why enter() came back. ORDER none; glue gets the numbers through xl_helpers. */
enum tc_exit {
    TC_EXIT_NONE, /* 0 means "go on" to the bridge */
    TC_EXIT_LINK,
    TC_EXIT_INDIRECT,
    TC_EXIT_DISPATCH,
    TC_EXIT_HOSTFAULT,
    TC_EXIT_FAULT,   /* v->fault at c.rip */
    TC_EXIT_CAREFUL, /* run the instruction at c.rip with callout sites */
    TC_EXIT_ALONE,   /* run a block from c.rip with a look-up for each site */
    TC_EXIT_RESTART, /* a string instruction stopped between iterations */
    TC_EXIT_JUMP,    /* to the bridge only: stay in the TC, at v->jump_target */
    TC_EXIT_OUT      /* v->exit is filled */
};
/* Bits of vcpu.event_pending. */
#define EV_KICK 1u
#define EV_INTR 2u
#define EV_NMI 4u
#define EV_WINDOW 8u
#define EV_INJECT 16u

#define ITLB_BITS 8
#define CODE_LARGE_MAX 32u
struct itlb_entry {
    uint64_t lin, gpa;
    uint64_t generation; /* of the translations it is one of */
    uint8_t *host;
    bool global, user;
};
#define SITE_BITS 15
/* A site changes when it was left so often in one period, which is 2^24 cycles of the TSC: some milliseconds. What happens more
 * rarely costs less than the slower site would. */
#define SITE_CAREFUL_LIMIT 4
#define SITE_ALONE_LIMIT 32
#define SITE_PERIOD_SHIFT 24
struct site_entry {
    uint64_t phys;
    bool used, alone; /* alone: must not lead a group of sites */
    uint8_t strategy;
    uint8_t exits;   /* careful exits and broken groups ... */
    uint8_t period;  /* ... in this period */
    uint8_t returns; /* how often it went back */
    uint16_t easy;   /* runs of plain memory as a callout */
};
#define SITE_EASY_SLOTS 1024u
#define SITE_EASY_RUN 256u
struct site_table {
    unsigned n;
    uint64_t pages[64]; /* frames with entries, by their low 12 bits: most translations need not look further */
    struct site_entry entry[1u << SITE_BITS];
};
/* What to do about a host fault in translated code. */
enum fault_action {
    FA_GUEST,   /* the guest's exception fault_trap, if it is one */
    FA_RESUME,  /* mapped: the access again */
    FA_SOFTEN,  /* change the site's strategy, the instruction again */
    FA_CAREFUL, /* a traced page: this instruction as a careful block */
    FA_RAISE,   /* v->fault */
    FA_RESTART  /* kicked inside a string instruction: the rest of it later */
};
struct bounce {
    bool write; /* contents go back to the guest after the instruction */
    unsigned size, how;
    uint64_t desc, addr; /* of the site, as in its descriptor */
    bool whole;          /* all of it at one go */
    uint64_t need;       /* otherwise: bytes that the mask leaves (bit i: byte i) */
    unsigned shift;      /* where in buf it starts */
    uint64_t rip;        /* of the instruction, when faults come after it (XL_SITE_LATE) */
    uint64_t fip, fdp;   /* the guest's x87 pointers, for FNSTENV and FNSAVE */
    uint8_t buf[512 + 64] __attribute__((aligned(64)));
};
/* wintax.c */
struct wintax {
    uint64_t faults, since;
    unsigned strikes, flushes;
    bool too_high;
};
struct vcpu_priv {
    struct codecache *cc;
    struct xl *xl;
    struct xl_layout layout;
    struct xl_entry enter64, enter32;
    struct xl_result result;
    /* jump cache validity */
    uint32_t jc_key[2];
    uint64_t jc_cs_base[2];
    uint32_t jc_cs_limit[2];
    bool jc_used[2], jc_fleeting[2], jc_lasting[2]; /* has entries; of pages that are not global; of some that are */
    uint64_t jc_pages[128]; /* linear pages with entries in either, by their low 12 bits and half */
    struct itlb_entry itlb[1u << ITLB_BITS];
    struct pcids pcids;
    uint64_t generation, global_generation,
        last_generation;                 /* of the current address space's translations, of global ones (pcid.h) */
    uint64_t code_large[CODE_LARGE_MAX]; /* large pages that code was fetched from: first address | log2 of the size */
    unsigned n_code_large;               /* more than CODE_LARGE_MAX: not known which */
    struct cc_block *enter_block;        /* being entered or last entered ... */
    uint64_t rf_rip;                     /* where the TC was entered with RF set */
    uint64_t enter_pc;                   /* ... or, if this is not 0, the block at this host pc */
    bool stay;                           /* system instructions may go on in the TC: no single step, chaining is on */
    /* how the last block was left, for linking */
    struct cc_block *link_from;
    int link_index;
    bool want_jc;
    unsigned invalidated; /* blocks that died since the run loop looked: a running block may be among them */
    bool code_page_lost;
    bool deferred_out; /* a write that has happened needs the embedder: v->exit is filled */
    struct bounce bounce;
    /* MMIO or port data that the embedder has completed, to be consumed when the instruction runs again */
    bool io_have, io_is_write, io_mmio;
    bool io_restart; /* the access of the last exit is repeated: the instruction has not happened yet */
    uint64_t io_addr;
    unsigned io_size;
    uint8_t io_data[64];
    int inject_vector; /* -1 = none */
    struct site_table sites;
    uint16_t easy[SITE_EASY_SLOTS]; /* accesses in a row, by return address */
    uint64_t translating_phys;
    bool translating_window;
    struct window *win64, *win32; /* NULL: not in use */
    const char *window_why;       /* ... because of this; NULL: not wanted */
    struct wintax tax;            /* whether they pay */
    struct direct *direct;        /* NULL: user code is translated */
    const char *direct_why;
    uint64_t user_ticks;   /* of translated user code since it was entered ... */
    uint32_t user_skip;    /* so many stretches need not be timed ... */
    uint32_t user_skipped; /* ... and so many have not been since the last one that was */
    uint64_t user_since;   /* ... up to here, when it was last seen running; 0 = it is not */
    enum fault_action fault_action;
    uint64_t soften_phys;
    enum xl_strategy soften_strategy;
    uint64_t fault_pc; /* host pc of the last host fault ... */
    int fault_trap;    /* ... and its x86 vector, -1 if it is not one that a guest instruction can cause */
    uint64_t fault_addr;
    pthread_t thread;
    bool thread_known;
    struct rng rng;
    uint64_t force_lcg; /* state of the generator behind force_exit */
    char *altstack;
    struct { /* selfcheck.h */
        bool on, tc_due, host_due, reported;
        unsigned tc_steps, sabotage;
        uint64_t seed, lcg;
    } check;
};
/* sites.c */
enum xl_strategy site_strategy(struct vcpu *v, uint64_t phys, bool *alone);
void site_set_strategy(struct vcpu *v, uint64_t phys, enum xl_strategy s);
void site_note_careful(struct vcpu *v, uint64_t phys);
void site_note_callout(struct vcpu *v, uint64_t ret_pc, bool plain);
/* wintax.c: a hidden fault on a page that is not global; a CR3 load; RESET */
void wintax_fault(struct vcpu *v);
void wintax_flush(struct vcpu *v);
void wintax_reset(struct vcpu *v);
void site_note_alone(struct vcpu *v, uint64_t phys);
/* winfault.c */
enum fault_action window_fault(struct vcpu *v, const struct cc_block *b, uint64_t pc, int trap, uint64_t addr,
                               bool write);
void window_switch(struct vcpu *v, uint32_t mode);
bool window_usable(const struct vcpu *v, uint32_t mode);

/* site.c, bounce.c, callout.c: called by glue. nofpu. */
int tc_site_miss(struct vcpu *v, uint64_t ret_pc);
int tc_site_pre(struct vcpu *v, uint64_t ret_pc);
int tc_site_post(struct vcpu *v, uint64_t ret_pc);
int tc_callout(struct vcpu *v, uint64_t ret_pc);
/* The state has moved on to another rip, mode or privilege: TC_EXIT_JUMP if the jump cache knows the block there and nothing has
 * to be looked at first, else TC_EXIT_DISPATCH. old_key: of the block that called. */
int tc_go_on(struct vcpu *v, uint32_t old_key);
/* v->fault at c.rip is delivered; then as above. */
int tc_raise(struct vcpu *v, uint32_t old_key);
/* Brings gpr[] and rip up to date at a recovery point. Returns the block. */
struct cc_block *tc_recover(struct vcpu *v, uint64_t pc);
/* What the TC is running now, for the account of time (base/acct.h). */
static inline uint32_t tc_class(const struct vcpu *v)
{
    return v->c.cpl == 3 ? ACCT_tc_user : v->priv->win64 ? ACCT_tc_window : ACCT_tc_soft;
}
/* C goes back to the TC, or with an exit code to the run loop. */
static inline void tc_account(struct vcpu *v, int code)
{
    acct_enter(&v->stats->acct, code && code != TC_EXIT_JUMP ? (uint32_t)ACCT_loop : tc_class(v));
}
/* events */
static inline void vcpu_set_event(struct vcpu *v, uint32_t bit)
{
    __atomic_or_fetch(&v->event_pending, bit, __ATOMIC_SEQ_CST);
}
static inline void vcpu_clear_event(struct vcpu *v, uint32_t bit)
{
    __atomic_and_fetch(&v->event_pending, ~bit, __ATOMIC_SEQ_CST);
}
static inline bool vcpu_deliverable(const struct vcpu *v)
{
    uint32_t ev = __atomic_load_n(&v->event_pending, __ATOMIC_RELAXED);
    return (ev & EV_KICK) || ((ev & EV_NMI) && !v->nmi_blocked) ||
           (v->c.if_flag && (ev & (EV_INTR | EV_WINDOW | EV_INJECT)));
}
/* The account of translated user code's time, for tiering. */
static inline void user_clock_stop(struct vcpu *v)
{
    struct vcpu_priv *p = v->priv;
    if (p->user_since)
        p->user_ticks += __builtin_ia32_rdtsc() - p->user_since;
    p->user_since = 0;
}
/* Takes what the embedder put into v->exit for the access that is about to be repeated. */
void vcpu_complete_io(struct vcpu *v);
/* mmu.c */
bool vcpu_itlb_holds(const struct vcpu *v, const struct itlb_entry *t);
int vcpu_fetch(struct vcpu *v, uint64_t lin, uint64_t *gpa, uint8_t **host, bool *global);
void vcpu_mark_code(struct vcpu *v, uint64_t gpa);
/* GP_CODE or GP_PT: takes the right to write away from every mapping of the page. */
void vcpu_trace_page(struct vcpu *v, uint64_t gpa, uint8_t why);
/* All translations of a page go. */
void vcpu_trace_write_page(struct vcpu *v, uint64_t gpa);
void vcpu_jc_check(struct vcpu *v, uint32_t mode);
void vcpu_jc_enter(struct vcpu *v, const struct cc_block *b, bool global);
/* For pcid.c: the jump cache of user code, to and from a parking place. */
void vcpu_jc_park(struct vcpu *v, struct pcid_park *k);
void vcpu_jc_unpark(struct vcpu *v, struct pcid_park *k);
void vcpu_drop_block(void *opaque, struct cc_block *b);
void vcpu_dma_hook(void *opaque, uint64_t gpa, size_t bytes);
/* block.c: finds or makes the block at the current rip. NULL with *err = SYS_FAULT or SYS_EXIT. */
struct cc_block *vcpu_block(struct vcpu *v, uint32_t key, int *err);
/* blockmake.c */
struct cc_block *vcpu_make_block(struct vcpu *v, const struct cc_key *k, const uint8_t *host, uint64_t lin, int *err);
/* hostsig.c */
int hostsig_install(void);
int hostsig_thread_enter(struct vcpu *v);
void hostsig_thread_leave(struct vcpu *v);
void hostsig_forget(struct vcpu *v);
/* report.c */
void vcpu_report(struct vcpu *v, const char *why);
/* -d exec, -d cpu: a block is about to be entered. */
void vcpu_log_entry(struct vcpu *v, const struct cc_block *b);
#endif

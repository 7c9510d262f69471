/* shadowmmu/uworld.h - user worlds: host processes in which guest user code runs directly on the CPU.
 *
 * Role:    a world holds pieces of guest memory's memfd at guest addresses, one stub, and nothing else. It is a big TLB plus a
 *          CPU to run on: whoever sees the guest change its tables says so here. It knows nothing of guest tables, kernels or
 *          processes. How it works and what it guarantees: docs/USERWORLDS.md.
 * Owner:   uw_pool_create/uw_pool_destroy by the VM, worlds by uw_get/uw_put.
 * Threads: pool and worlds belong to one thread (no lock), but for uw_kick. The thread that creates the pool must outlive it:
 *          the kernel ends all worlds with it. Not nofpu: the guest's FPU state must not be live in the caller's registers.
 * Signals: uw_kick only.
 * Trust:   what comes back (state, events, FPU image) was writable by guest code: any value is possible, none is followed.
 */
#ifndef SHADOWMMU_UWORLD_H
#define SHADOWMMU_UWORLD_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct uw_pool;
struct uworld;

struct uw_config {
    int mem_fd;          /* guest memory's memfd */
    uint64_t base;       /* where the stub lies, 64 KiB aligned; 0: UW_DEFAULT_BASE */
    unsigned max_worlds; /* 0: 256 */
    unsigned spare;      /* worlds made ahead of need; 0: 2 */
    unsigned spin_us;    /* longest wait that is spun for; 0: 50. Nothing spins on a host with one CPU. */
    bool
        fault_cpuid; /* make CPUID raise #GP in user code; uw_faults_cpuid says whether the host could. Then it does so in the
                          * thread that owns the pool too, as SIGSEGV, while it has worlds. */
};
#define UW_DEFAULT_BASE 0x7e2aa0000000ull
#define UW_SPAN 0x10000ull /* bytes from base that guest pages cannot have */

/* 0 or -RD_E_HOST/-RD_E_NOMEM/-RD_E_INVAL/-RD_E_UNSUPPORTED; *why says in a few words what the host lacks or refused: after 0, what the
 * worlds do without, or "" (the text is the pool's). The
 * whole mechanism has been tried once when this returns 0. Forks: call it early, while the caller has few mappings. */
int uw_pool_create(struct uw_pool **out, const struct uw_config *cfg, const char **why);
void uw_pool_destroy(struct uw_pool *p);
bool uw_faults_cpuid(const struct uw_pool *p);
/* Whether uw_ldt can work. */
bool uw_has_ldt(const struct uw_pool *p);
/* Whether a guest page in the range would lie where the worlds' stub does. */
bool uw_conflicts(const struct uw_pool *p, uint64_t gva, uint64_t bytes);

/* An empty world, its registers in the state after reset. NULL: no more can be had now. uw_put forgets its mappings and state. */
struct uworld *uw_get(struct uw_pool *p);
void uw_put(struct uworld *w);
/* After uw_run: the guest thread executes nothing before the next one. The host's kernel says so; that uw_run has come back may be the doing of
 * a hostile program that runs on. To be asked before anything that is mapped becomes somebody else's. A system call if the thread
 * sleeps, some us if it spins. False: it would not stop, and has been killed; the next uw_run gives UW_DEAD. nofpu. */
bool uw_stop(struct uworld *w);
/* Passes a world on to another guest program without emptying it: forgets the thread's state, as uw_put does, but keeps mappings.
 * 0; or -RD_E_HOST: the host cannot tell that the old program's thread has stopped for good, or it is dead: uw_put is left to do. */
int uw_renew(struct uworld *w);

/* -- mappings. Commands are queued, and performed in order by uw_flush or, before it runs the guest, uw_run. Adjacent ones merge.
 * All return 0, -RD_E_INVAL (alignment, range, conflict), or as uw_flush does when the queue was full. -- */
#define UW_R 1u
#define UW_W 2u
#define UW_X 4u
#define UW_POPULATE 8u /* enter the host's page tables now; good for few pages that are about to be touched */
int uw_map(struct uworld *w, uint64_t gva, uint64_t memfd_offset, uint64_t bytes, unsigned prot);
int uw_unmap(struct uworld *w, uint64_t gva, uint64_t bytes);
/* The range must be mapped throughout. */
int uw_protect(struct uworld *w, uint64_t gva, uint64_t bytes, unsigned prot);
int uw_unmap_all(struct uworld *w);
/* After it returned 0 the guest, whatever it does, sees the new mappings only. -RD_E_NOMEM: the host refused a command (number
 * of mappings, memory) and the world is now empty. -RD_E_HOST: the world is dead; only uw_put is left to do. */
int uw_flush(struct uworld *w);

/* -- running -- */
#define UW_CS64 0x33u
#define UW_CS32 0x23u
#define UW_DATA 0x2bu /* flat data selector */
struct uw_state {
    uint64_t gpr[16]; /* encoding order */
    uint64_t rip;
    uint64_t rflags;           /* in: arithmetic flags, DF, TF, RF, AC, ID count; out: as the CPU had them */
    uint64_t fs_base, gs_base; /* used if the selector is not an LDT one */
    uint16_t cs;               /* UW_CS64 or UW_CS32 */
    uint16_t ds, es, fs, gs;   /* in: 0, UW_DATA, or from uw_ldt; anything else counts as 0 */
};
enum uw_event_kind {
    UW_EXCEPTION, /* vector, error, cr2 */
    UW_SYSCALL,   /* SYSCALL: rip is the instruction's, rcx and r11 are already clobbered as it does */
    UW_INT80,     /* INT 80h: rip is the instruction's */
    UW_SYSENTER, /* SYSENTER (or 32-bit SYSCALL): rip and the stack pointer are unknown, as the instruction itself forgets them */
    UW_KICK, /* uw_kick */
    UW_DEAD  /* the world is gone (killed, or guest code wrecked it); state is unchanged. Only uw_put is left to do. */
};
struct uw_event {
    uint8_t kind;     /* enum uw_event_kind */
    uint8_t vector;   /* UW_EXCEPTION: as the CPU raised it, 14 = page fault */
    uint8_t insn_len; /* UW_SYSCALL, UW_INT80, UW_SYSENTER: 2 */
    bool lost; /* UW_SYSENTER: EBP did not point to mapped memory (keep the stack's page mapped), so EAX was lost */
    uint32_t
        error; /* as the CPU gave it. #PF: P says nothing about the guest's tables (the host fills its own lazily) */
    uint64_t cr2;
};
/* Runs guest user code from *s until something happens; *s is then the state at that event. 0, or as uw_flush (did not run). */
int uw_run(struct uworld *w, struct uw_state *s, struct uw_event *ev);
/* Will its next turn be on the monitor's CPU? It takes about twice as long then. */
bool uw_shares(const struct uworld *w);
/* The monitor's thread will do something else, wherever the host likes. */
void uw_rest(struct uw_pool *p);
/* Makes the current or, if there is none, the next uw_run return soon. Any thread, signal handlers. A later run may see one
 * more UW_KICK than was asked for. */
void uw_kick(struct uworld *w);

/* FPU state as an XSAVE image in standard format; meaningful between runs. Bytes beyond what both sides have are left alone
 * (save) or ignored (load); reserved bits are cleared both ways. Return the bytes used. */
size_t uw_fpu_save(struct uworld *w, void *image, size_t bytes);
size_t uw_fpu_load(struct uworld *w, const void *image, size_t bytes);
/* Components the host keeps, as XCR0. */
uint64_t uw_fpu_features(const struct uw_pool *p);

/* Selector of a flat 4 GiB read/write data segment with this base (32 bits), for 32-bit code. The same base gives the same
 * selector until the table is full and starts anew (then *wrapped is set: reload all from uw_ldt). 0 or as uw_flush. */
int uw_ldt(struct uworld *w, uint32_t base, uint16_t *sel, bool *wrapped);

/* Counters for statistics and tests. */
struct uw_counts {
    uint64_t created, recycled, renewed, killed; /* worlds */
    uint64_t runs, events_spun, events_slept;    /* how uw_run waited */
    uint64_t parted;                             /* worlds that left the monitor's CPU */
    uint64_t batches, commands, emptied;
};
const struct uw_counts *uw_counts(const struct uw_pool *p);
/* Host process of a world, for tests and reports. */
int uw_pid(const struct uworld *w);
#endif

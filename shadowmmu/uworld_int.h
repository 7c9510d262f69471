/* shadowmmu/uworld_int.h - what the stub's assembly and the monitor's side of a user world share: one layout.
 *
 * UW-1  Guest code can execute the stub at any offset with any registers. So no stub path keeps a guest's register value across
 *       a wait: addresses are RIP-relative, and the way out of the wait loads everything anew.
 * UW-2  The guest thread's filter lets three system call instructions pass, each with one meaning; the mapper's registers and its
 *       command page are out of the guest's reach.
 * UW-3  What the monitor relies on ("these mappings are gone") it reads from the read-only page, which only the kernel
 *       writes, through the mapper's pwrite. The read/write pages are hearsay.
 * UW-4  That the guest thread has stopped, so that what it has mapped may become somebody else's, is what the host's kernel says
 *       (uw_stop), not what the pages say.
 */
#ifndef SHADOWMMU_UWORLD_INT_H
#define SHADOWMMU_UWORLD_INT_H

/* Offsets from the stub's base. */
#define UW_CONST 0x1000 /* struct uw_const; code lies before it, both read/execute */
#define UW_RO 0x2000    /* struct uw_hdr and the command ring: read-only in the world */
#define UW_RO_BYTES 0x4000
#define UW_RW 0x6000 /* struct uw_mailbox, then the signal stack: read/write */
#define UW_RW_BYTES 0x5000
#define UW_ALT 0x7000
#define UW_ALT_BYTES 0x4000
#define UW_SLOT_BYTES 0x9000 /* per world in the control memfd: RO part, then RW part */
#define UW_TASK_END 0x7ffffffff000

/* struct uw_const */
#define UW_C_PROG_GUEST (UW_CONST + 0)
#define UW_C_PROG_MAPPER (UW_CONST + 16)
#define UW_C_MASK (UW_CONST + 32)
#define UW_C_ERRNO (UW_CONST + 0x800)
#define UW_C_ERRNOS 512
/* struct uw_hdr */
#define UW_H_SEQ (UW_RO + 0)
#define UW_H_COUNT (UW_RO + 4)
#define UW_H_DONE (UW_RO + 8)
#define UW_H_MWAIT (UW_RO + 16)
#define UW_H_EWAIT (UW_RO + 20)
#define UW_H_SPIN_GUEST (UW_RO + 24)
#define UW_H_STOP (UW_RO + 28)
#define UW_H_DONE_POS (UW_RO + 32)
#define UW_H_FRAME (UW_RO + 40)
#define UW_H_SLOT_POS (UW_RO + 48)
#define UW_H_PARENT (UW_RO + 56)
#define UW_H_RING (UW_RO + 64)
/* struct uw_mailbox */
#define UW_M_TURN (UW_RW + 0)
#define UW_M_ASLEEP (UW_RW + 4)
#define UW_M_SELECTORS (UW_RW + 8)
#define UW_M_READY (UW_RW + 12)
#define UW_M_FRAME (UW_RW + 16)
#define UW_M_FS (UW_RW + 24)
#define UW_M_GS (UW_RW + 32)
#define UW_M_SEL (UW_RW + 40)
#define UW_M_PID (UW_RW + 48)
#define UW_M_MREADY (UW_RW + 52)
#define UW_M_FLAGS (UW_RW + 56)
#define UW_M_MAPPER (UW_RW + 64)
/* uw_mailbox.turn */
#define UW_TURN_MONITOR 0
#define UW_TURN_GUEST 1

/* Descriptors kept in a world. */
#define UW_FD_MEM 0
#define UW_FD_CTL 1

/* What a process that gives up exits with: 64 + step. ORDER uw_step */
#define UW_EXIT 64

#ifndef __ASSEMBLER__
#include "base/bits.h"
#include "shadowmmu/uworld.h"
#include <linux/filter.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/types.h>

#define UW_STEPS(X)                                                                                                    \
    X(GROUP, "its own process group was refused")                                                                      \
    X(FDS, "descriptors could not be arranged")                                                                        \
    X(RSEQ, "restartable sequences could not be given up")                                                             \
    X(LIMITS, "limits or capabilities could not be lowered")                                                           \
    X(SIGNALS, "signal handlers were refused")                                                                         \
    X(STUB, "the stub's addresses are taken or cannot be mapped")                                                      \
    X(NEWPRIVS, "no_new_privs was refused")                                                                            \
    X(UNMAP, "the host's own pages could not be unmapped")                                                             \
    X(PARENT, "the parent had ended")                                                                                  \
    X(SLOT, "shared pages could not be mapped")                                                                        \
    X(THREAD, "a second thread was refused")                                                                           \
    X(SECCOMP, "seccomp filters were refused")
enum uw_step {
    UW_STEP_NONE,
#define STEP(name, text) UW_STEP_##name,
    UW_STEPS(STEP)
#undef STEP
        UW_STEP_COUNT
};

struct uw_const {
    uint64_t prog_guest[2], prog_mapper[2]; /* struct sock_fprog with the stub's addresses */
    uint64_t guest_mask;                    /* signals blocked while guest code runs */
    struct sock_filter guest[64], mapper[64];
    uint8_t pad[0x800 - 40 - 128 * sizeof(struct sock_filter)];
    uint32_t number[UW_C_ERRNOS]; /* number[i] = i: a source for pwrite that nobody can change */
};
_Static_assert(sizeof(struct uw_const) == 0x1000, "one page");
_Static_assert(offsetof(struct uw_const, number) == UW_C_ERRNO - UW_CONST, "layout");

/* A system call that the mapper makes. */
struct uw_cmd {
    uint64_t nr, arg[6], pad;
};
struct uw_hdr {
    _Atomic uint32_t seq;                     /* batches handed out */
    uint32_t count;                           /* commands in this one */
    _Atomic uint32_t done;                    /* batches performed; written by the world's kernel */
    uint32_t err;                             /* errno of the first failed command, or 0; same */
    _Atomic uint32_t mapper_wait, event_wait; /* the monitor sleeps for done, for turn */
    uint32_t spin_guest;                      /* TSC ticks to spin before sleeping ... */
    _Atomic uint32_t stop;                    /* ... which ends when this is set */
    uint64_t done_pos;                        /* where done lies in the control memfd */
    uint64_t frame_sp;                        /* stack pointer for rt_sigreturn */
    uint64_t slot_pos;                        /* zygote: slot of the world to make */
    uint32_t parent, pad;                     /* zygote: the monitor's process */
    struct uw_cmd ring[];
};
_Static_assert(offsetof(struct uw_hdr, ring) == UW_H_RING - UW_RO, "layout");
#define UW_RING ((UW_RO_BYTES - 64) / sizeof(struct uw_cmd))

struct uw_mailbox {
    _Atomic uint32_t turn;
    _Atomic uint32_t asleep; /* the guest thread sleeps for turn */
    uint32_t load_selectors; /* on resume */
    _Atomic uint32_t ready;
    _Atomic uint64_t frame; /* where the last signal frame lies */
    uint64_t fs_base, gs_base;
    uint16_t sel[4];     /* ds es fs gs */
    _Atomic int32_t pid; /* zygote: result of the last clone */
    _Atomic uint32_t mready;
    uint64_t flags; /* flags that rt_sigreturn does not restore: ID */
    int32_t mapper; /* thread id */
};
_Static_assert(offsetof(struct uw_mailbox, flags) == UW_M_FLAGS - UW_RW, "layout");

/* The kernel's 64-bit rt_sigframe (arch/x86/include/uapi/asm/{sigcontext,ucontext}.h): ABI. */
struct uw_sigcontext {
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15, di, si, bp, bx, dx, ax, cx, sp, ip, flags;
    uint16_t cs, gs, fs, ss;
    uint64_t err, trapno, oldmask, cr2, fpstate, reserved[8];
};
struct uw_frame {
    uint64_t pretcode;
    uint64_t uc_flags, uc_link, ss_sp, ss_flags, ss_size;
    struct uw_sigcontext sc;
    uint64_t sigmask;
    int32_t signo, errno_, code, pad;
    uint64_t addr; /* of a fault; or of the system call instruction's end */
    int32_t syscall;
    uint32_t arch;
};

enum uw_life { UW_FREE, UW_STARTING, UW_SPARE, UW_USED, UW_GONE };
#define UW_LDT_ENTRIES 512u
struct uworld {
    struct uw_pool *pool;
    uint64_t slot_pos; /* in the control memfd */
    struct uw_hdr *hdr;
    struct uw_mailbox *mb;
    pid_t pid;
    enum uw_life life;
    unsigned n_cmds; /* queued in the ring */
    atomic_int running, kick;
    uint16_t sel[4];  /* selectors loaded in the guest thread */
    pid_t mapper;     /* its thread id, */
    int mapper_cpu;   /* ... and the CPU it is bound to, or -1 */
    int guest_cpu;    /* the same of the guest thread */
    bool shares;      /* the monitor's CPU */
    bool away;        /* the guest thread is bound to other CPUs than the monitor was on when they parted */
    bool renewed;     /* has not run since another guest program's thread slept here */
    bool follows;     /* the last turn of any world was this one's too */
    uint64_t back;    /* TSC when the last turn ended */
    uint64_t pause;   /* how long after the one before that the last one began */
    uint8_t retries;  /* to be apart, lately */
    uint8_t settling; /* turns apart that do not count yet */
    uint16_t streak;  /* shares: turns in a row for parting; apart: turns */
    uint16_t debt;    /* apart: what slow turns have cost and quick ones not yet saved */
    unsigned n_ldt;
    uint32_t ldt_base[UW_LDT_ENTRIES];
};

#define UW_COMPONENTS 20u /* XSAVE components that have a place in the standard format */
struct uw_pool {
    struct uw_config cfg;
    int ctl_fd;
    uint8_t *ctl; /* the control memfd: the zygote's slot, then the worlds' */
    size_t ctl_bytes;
    pid_t zygote;
    uint64_t vdso; /* the monitor's, or 0 */
    size_t vdso_bytes;
    struct uw_hdr *zhdr;
    struct uw_mailbox *zmb;
    struct uworld *starting;   /* being cloned, or NULL */
    const struct uworld *last; /* that ran; only compared */
    uint64_t spin_max;         /* TSC ticks; 0: never spin */
    uint64_t tsc_per_us;
    bool cpuid_faults;
    bool dispatches; /* the host has Syscall User Dispatch */
    bool has_ldt;
    char lacks[160]; /* what the host does not have that can be done without, in words */
    bool several_cpus;
    int shared_cpu;      /* which the monitor's thread is bound to, or -1 */
    cpu_set_t cpus;      /* that the monitor may use */
    int fail_status;     /* wait status of the first process that gave up, for *why */
    uint64_t frame_addr; /* in the world; 0 until the first event */
    size_t frame_bytes;  /* from there to the end of the signal stack */
    uint8_t *fresh;      /* a signal frame of a thread that has done nothing yet */
    uint8_t *given;      /* the frame with which a world that was passed on went into its first turn */
    uint64_t xfeatures;
    uint32_t xstate_bytes, mxcsr_mask;
    uint32_t xoffset[UW_COMPONENTS], xsize[UW_COMPONENTS]; /* CPUID leaf 0DH; 0, 0: not there */
    unsigned n_used;                                       /* worlds between uw_get and uw_put */
    struct uw_counts counts;
    struct uworld world[];
};

/* In uworld_stub.S: position-independent, copied to the base. */
extern const char uw_stub[], uw_stub_end[], uw_stub_zygote[], uw_stub_handler[], uw_stub_probe[];
extern const char uw_ip_wake[], uw_ip_wait[], uw_ip_return[];
#define UW_SIG_KICK SIGUSR1

/* uworld_filter.c: fills the constants for a stub at base. */
void uw_const_init(struct uw_const *c, uint64_t base);
/* uworld_zygote.c: starts the zygote; its pid or -errno. */
pid_t uw_zygote_start(struct uw_pool *p);
/* uworld_run.c */
struct uw_frame *uw_frame_of(const struct uworld *w);
/* Resumes the guest thread and waits; false: the world is dead. */
bool uw_switch(struct uworld *w);
/* Waits until *word is no longer val (or a spurious end) for 100 ms at most. */
void uw_futex_wait(void *word, uint32_t val);
void uw_futex_wake(void *word);
/* uworld_cpu.c: before the mapper is woken; around a turn, which took so many ticks */
void uw_cpu_init(struct uw_pool *p);
void uw_cpu_mapper(struct uworld *w);
void uw_cpu_before(struct uworld *w);
void uw_cpu_after(struct uworld *w, uint64_t ticks);
/* How long either side spins for the other in this turn; 0: it does not. */
uint64_t uw_cpu_spin(const struct uworld *w);
/* From the next turn on. */
void uw_cpu_share(struct uworld *w);
/* uworld_pool.c: whether the world's process still lives; if not, it is marked so. */
bool uw_alive(struct uworld *w);
bool uw_is_waiting(struct uworld *w);
void uw_kill(struct uworld *w);

static inline uint64_t uw_tsc(void) { return __builtin_ia32_rdtsc(); }
#endif
#endif

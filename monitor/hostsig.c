/* monitor/hostsig.c - host signals: faults of translated code, and the kick.
 *
 * The alternate stack is needed because the guest owns RSP while the TC runs. SS_AUTODISARM: the kernel must not conclude from a
 * guest's RSP that happens to point into the alternate stack that it is already on it. Handlers only decide where to continue;
 * work is done by the run loop.
 */
#define _GNU_SOURCE
#include "base/check.h"
#include "base/err.h"
#include "devices/term.h"
#include "monitor/vm_int.h"
#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif
#define ALTSTACK_BYTES (128 * 1024)

static _Thread_local struct vcpu *current;

static int kick_signal(void) { return SIGRTMIN + 1; }
int vcpu_kick_signal(void) { return kick_signal(); }

/* Leaves the jump-cache stub of a direct exit: the block it is about to reach must be kicked as well. */
static void kick_jc_target(struct vcpu *v, const struct cc_block *b, uint64_t pc)
{
    for (unsigned i = 0; i < b->d.n_exits; i++) {
        const struct ccf_exit *e = &b->d.exit[i];
        if (!e->jc_pc || pc < e->jc_pc || pc >= e->jc_end)
            continue;
        const struct jump_cache *jc = &v->jc[(b->key.mode & CPU_KEY_CPL) == CPU_KEY_CPL];
        struct cc_block *t = cc_find(v->priv->cc, jc->pc[jc_index(e->target)]);
        if (t)
            cc_kick(v->priv->cc, t, 0);
    }
}

static void kick_handler(int sig, siginfo_t *si, void *ctx)
{
    struct vcpu *v = current;
    greg_t *g = ((ucontext_t *)ctx)->uc_mcontext.gregs;
    if (!v)
        return;
    vcpu_set_event(v, EV_KICK);
    direct_kick(v);
    if (!v->in_tc)
        return;
    struct vcpu_priv *p = v->priv;
    struct cc_block *b = cc_find(p->cc, (uint64_t)g[REG_RIP]);
    if (b) {
        const struct ccf_point *at = cc_find_point(b, (uint64_t)g[REG_RIP]);
        if (at && (at->spilled & CCF_STRING)) { /* it may be long: stop between two of its iterations */
            p->fault_pc = (uint64_t)g[REG_RIP];
            p->fault_action = FA_RESTART;
            g[REG_RIP] = (greg_t)(b->key.mode & CPU_KEY_CODE64 ? p->enter64 : p->enter32).exit_hostfault;
            return;
        }
        kick_jc_target(v, b, (uint64_t)g[REG_RIP]);
        g[REG_RIP] = (greg_t)cc_kick(p->cc, b, (uint64_t)g[REG_RIP]);
        return;
    }
    /* In glue or in a callout: on the way in, or going back to the block that called. */
    b = p->enter_pc ? cc_find(p->cc, p->enter_pc) : p->enter_block;
    if (b)
        cc_kick(p->cc, b, 0);
    b = v->host_sp ? cc_find(p->cc, *(const uint64_t *)(uintptr_t)(v->host_sp - 8)) : NULL;
    if (b)
        cc_kick(p->cc, b, 0);
}

/* The vector that a guest instruction may have caused; -1 if none can. */
static int guest_vector(int trap)
{
    switch (trap) {
    case EXC_DE:
    case EXC_UD:
    case EXC_SS:
    case EXC_GP:
    case EXC_MF:
    case EXC_AC:
    case EXC_XM: return trap;
    default: return -1;
    }
}

static enum acct_class fault_class(enum fault_action action)
{
    switch (action) {
    case FA_RESUME: return ACCT_fault_hidden;
    case FA_RAISE: return ACCT_fault_true;
    case FA_CAREFUL: return ACCT_fault_trace;
    case FA_SOFTEN: return ACCT_fault_adapt;
    default: return ACCT_fault_other;
    }
}

/* While there are user worlds CPUID faults in this thread too (shadowmmu/uworld.h). The engine has no use for it then; a library may. */
static bool own_cpuid(const siginfo_t *si, greg_t *g)
{
    static const uint8_t cpuid[] = {0x0f, 0xa2};
    if (si->si_code <= 0 || g[REG_TRAPNO] != EXC_GP ||
        memcmp((const void *)(uintptr_t)g[REG_RIP], cpuid, sizeof cpuid) != 0 ||
        syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1))
        return false;
    uint32_t a, b, c, d;
    __cpuid_count((uint32_t)g[REG_RAX], (uint32_t)g[REG_RCX], a, b, c, d);
    g[REG_RAX] = a, g[REG_RBX] = b, g[REG_RCX] = c, g[REG_RDX] = d;
    g[REG_RIP] += (greg_t)sizeof cpuid;
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
    return true;
}

static void fault_handler(int sig, siginfo_t *si, void *ctx)
{
    struct vcpu *v = current;
    greg_t *g = ((ucontext_t *)ctx)->uc_mcontext.gregs;
    bool sent = si->si_code <= 0; /* by somebody's kill: not a fault of this instruction */
    struct cc_block *b = v && v->in_tc && !sent ? cc_find(v->priv->cc, (uint64_t)g[REG_RIP]) : NULL;
    if (!b) { /* our own bug, or our end: say so, and die of the signal itself */
        static volatile sig_atomic_t once;
        if (sig == SIGSEGV && own_cpuid(si, g))
            return;
        term_restore();
        if (sent) {
            signal(sig, SIG_DFL);
            raise(sig);
            return;
        }
        if (!once++) {
            check_say("ringdown: internal error: signal %d at host pc %#llx, address %#llx\n", sig,
                      (unsigned long long)g[REG_RIP], (unsigned long long)g[REG_CR2]);
            if (v)
                check_say("ringdown: guest rip %#llx, key %#x\n", (unsigned long long)v->c.rip, v->c.key);
        }
        signal(sig, SIG_DFL);
        return;
    }
    if (v->vm->cfg.trap && g[REG_TRAPNO] == EXC_GP && *(const uint8_t *)(uintptr_t)g[REG_RIP] == XL_TRAP_BYTE) {
        v->stats->traps++;
        v->stats->acct.count[ACCT_fault_insn]++;
        g[REG_RIP]++; /* to the callout */
        return;
    }
    v->priv->fault_pc = (uint64_t)g[REG_RIP];
    v->priv->fault_addr = (uint64_t)g[REG_CR2];
    v->priv->fault_trap = guest_vector((int)g[REG_TRAPNO]);
    struct acct_span span = acct_begin(&v->stats->acct, ACCT_fault_other);
    v->priv->fault_action =
        window_fault(v, b, (uint64_t)g[REG_RIP], (int)g[REG_TRAPNO], (uint64_t)g[REG_CR2], g[REG_ERR] & PF_W);
    acct_end(&v->stats->acct, &span, fault_class(v->priv->fault_action));
    if (v->priv->fault_action == FA_RESUME)
        return;
    const struct xl_entry *e = b->key.mode & CPU_KEY_CODE64 ? &v->priv->enter64 : &v->priv->enter32;
    g[REG_RIP] = (greg_t)e->exit_hostfault;
}

int hostsig_install(void)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sigfillset(&sa.sa_mask);
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sa.sa_sigaction = fault_handler;
    for (unsigned i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        sigdelset(&sa.sa_mask, faults[i]);
        if (sigaction(faults[i], &sa, NULL))
            return -RD_E_HOST;
    }
    sa.sa_sigaction = kick_handler;
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK; /* interrupts waiting system calls */
    return sigaction(kick_signal(), &sa, NULL) ? -RD_E_HOST : 0;
}

int hostsig_thread_enter(struct vcpu *v)
{
    struct vcpu_priv *p = v->priv;
    if (!p->altstack) {
        p->altstack = mmap(NULL, ALTSTACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p->altstack == MAP_FAILED) {
            p->altstack = NULL;
            return -RD_E_NOMEM;
        }
    }
    if (current != v) {
        stack_t ss = {.ss_sp = p->altstack, .ss_size = ALTSTACK_BYTES, .ss_flags = (int)SS_AUTODISARM};
        if (sigaltstack(&ss, NULL))
            return -RD_E_HOST;
        current = v;
        v->gs_base = v->gs_base_neg = 0;
        p->thread = pthread_self();
        __atomic_store_n(&p->thread_known, true, __ATOMIC_SEQ_CST);
    }
    return 0;
}

/* The thread keeps the alternate stack until it runs another vCPU or the VM is destroyed. */
void hostsig_thread_leave(struct vcpu *v) {}

void hostsig_forget(struct vcpu *v)
{
    stack_t off = {.ss_flags = SS_DISABLE};
    if (current == v) {
        sigaltstack(&off, NULL);
        current = NULL;
    }
    if (v->priv->altstack)
        munmap(v->priv->altstack, ALTSTACK_BYTES);
    v->priv->altstack = NULL;
}

void vcpu_kick(struct vcpu *v)
{
    vcpu_set_event(v, EV_KICK);
    if (__atomic_load_n(&v->priv->thread_known, __ATOMIC_SEQ_CST))
        pthread_kill(v->priv->thread, kick_signal());
}

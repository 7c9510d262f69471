/* tests/diff/native_stub.c - the native backend's child: runs cases on the CPU, one signal a case, and records how each ended.
 *
 * Everything here lies in section stub_text, which the parent copies to STUB_TEXT: no libc, no data, no call out of the file.
 * A case starts by rt_sigreturn from a doctored signal frame (that sets all registers, the XSAVE state, CS and SS, so also
 * 16- and 32-bit code of the LDT) and ends by the signal of its trap or fault, whose frame holds the final state.
 */
#include "tests/diff/native_ctl.h"
#include <asm/prctl.h>
#include <asm/unistd.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#define STUB __attribute__((section("stub_text"), noinline))
#define CTL ((struct nat_ctl *)STUB_CTL)

/* The kernel's rt signal frame from the ucontext on (arch/x86/include/uapi/asm/{ucontext,sigcontext}.h). */
struct kframe {
    uint64_t uc_flags, uc_link, ss_sp, ss_flags, ss_size;
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
    uint16_t cs, gs, fs, ss;
    uint64_t err, trapno, oldmask, cr2;
    uint8_t *fpstate;
    uint64_t reserved[8];
    uint64_t sigmask;
};
/* UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS: take the frame as it is. */
#define FRAME_FLAGS 7u
/* The kernel's own words inside the FXSAVE area (struct _fpx_sw_bytes) stay as they are. */
#define FPU_SW_BEGIN 464u
#define FPU_SW_END 512u
/* EFLAGS that rt_sigreturn restores are AC OF DF TF SF ZF AF PF CF RF; cases start with no other set. */

static inline long sys6(long nr, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long ret;
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
}

static inline void copy(void *dst, const void *src, uint64_t n)
{
    __asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
}

static inline void fill(void *dst, uint8_t val, uint64_t n)
{
    __asm__ volatile("rep stosb" : "+D"(dst), "+c"(n) : "a"(val) : "memory");
}

STUB static uint64_t get_base(int fs)
{
    uint64_t v;
    if (!CTL->has_fsgsbase) {
        sys6(__NR_arch_prctl, fs ? ARCH_GET_FS : ARCH_GET_GS, (long)&v, 0, 0, 0, 0);
        return v;
    }
    if (fs)
        __asm__ volatile("rdfsbase %0" : "=r"(v));
    else
        __asm__ volatile("rdgsbase %0" : "=r"(v));
    return v;
}

STUB static void set_base(int fs, uint64_t v)
{
    if (!CTL->has_fsgsbase)
        sys6(__NR_arch_prctl, fs ? ARCH_SET_FS : ARCH_SET_GS, (long)v, 0, 0, 0, 0);
    else if (fs)
        __asm__ volatile("wrfsbase %0" : : "r"(v));
    else
        __asm__ volatile("wrgsbase %0" : : "r"(v));
}

/* The end of a case: everything observable goes to its result; the code bytes become int3 again. */
STUB static void record(int sig, const struct kframe *f)
{
    struct dt_result *r = &CTL->results[CTL->current];
    struct dt_regs *g = &r->regs;
    r->vector = sig == SIGALRM ? DT_VEC_TIMEOUT : sig == SIGSYS ? DT_VEC_SYSCALL : (uint32_t)f->trapno;
    r->error = (uint32_t)f->err;
    r->cr2 = f->cr2;
    g->gpr[0] = f->rax, g->gpr[1] = f->rcx, g->gpr[2] = f->rdx, g->gpr[3] = f->rbx;
    g->gpr[4] = f->rsp, g->gpr[5] = f->rbp, g->gpr[6] = f->rsi, g->gpr[7] = f->rdi;
    copy(&g->gpr[8], &f->r8, 64);
    g->rip = f->rip;
    g->rflags = f->eflags;
    g->sel[DT_CS] = f->cs;
    g->sel[DT_SS] = f->ss;
    __asm__ volatile("movw %%ds, %0; movw %%es, %1; movw %%fs, %2; movw %%gs, %3"
                     : "=m"(g->sel[DT_DS]), "=m"(g->sel[DT_ES]), "=m"(g->sel[DT_FS]), "=m"(g->sel[DT_GS]));
    g->fsbase = get_base(1);
    g->gsbase = get_base(0);
    copy(r->fpu, f->fpstate, CTL->fpu_bytes);
    for (unsigned i = 0; i < DT_DATA_PAGES; i++)
        if (CTL->data_mask >> i & 1)
            copy(r->mem + i * DT_PAGE, (void *)(STUB_ALIAS + i * DT_PAGE), DT_PAGE);
    const struct dt_case *c = &CTL->cases[CTL->current];
    fill((void *)(STUB_ALIAS + DT_DATA_BYTES + c->code_off), 0xcc, c->code_len);
}

/* The start of a case: memory, then the frame from which rt_sigreturn takes all registers. */
STUB static void load(const struct dt_case *c, struct kframe *f)
{
    const struct dt_regs *g = &c->regs;
    for (unsigned i = 0; i < DT_DATA_PAGES; i++)
        if (CTL->data_mask >> i & 1)
            copy((void *)(STUB_ALIAS + i * DT_PAGE), CTL->golden + i * DT_PAGE, DT_PAGE);
    for (unsigned i = 0; i < c->n_patches; i++)
        copy((void *)(STUB_ALIAS + c->patch[i].off), c->patch[i].bytes, c->patch[i].len);
    copy((void *)(STUB_ALIAS + DT_DATA_BYTES + c->code_off), c->code, c->code_len);
    f->uc_flags = FRAME_FLAGS;
    f->sigmask = 0;
    f->rax = g->gpr[0], f->rcx = g->gpr[1], f->rdx = g->gpr[2], f->rbx = g->gpr[3];
    f->rsp = g->gpr[4], f->rbp = g->gpr[5], f->rsi = g->gpr[6], f->rdi = g->gpr[7];
    copy(&f->r8, &g->gpr[8], 64);
    f->rip = g->rip;
    f->eflags = g->rflags;
    f->cs = g->sel[DT_CS];
    f->ss = g->sel[DT_SS];
    copy(f->fpstate, c->fpu, FPU_SW_BEGIN);
    copy(f->fpstate + FPU_SW_END, c->fpu + FPU_SW_END, CTL->fpu_bytes - FPU_SW_END);
    __asm__ volatile("movw %0, %%ds; movw %1, %%es; movw %2, %%fs; movw %3, %%gs"
                     :
                     : "m"(g->sel[DT_DS]), "m"(g->sel[DT_ES]), "m"(g->sel[DT_FS]), "m"(g->sel[DT_GS]));
    if (c->mode == DT_64) {
        set_base(1, g->fsbase);
        set_base(0, g->gsbase);
    }
}

STUB static void next_batch(void)
{
    struct nat_ctl *t = CTL;
    uint32_t seen = t->done;
    if (t->current >= 0) { /* not so at the very start */
        __atomic_store_n(&t->done, t->go, __ATOMIC_RELEASE);
        sys6(__NR_futex, (long)&t->done, FUTEX_WAKE, 1, 0, 0, 0);
        seen = t->done;
    }
    while (__atomic_load_n(&t->go, __ATOMIC_ACQUIRE) == seen)
        sys6(__NR_futex, (long)&t->go, FUTEX_WAIT, seen, 0, 0, 0);
    t->current = 0;
}

/* Called by stub_entry only. */
__attribute__((used)) void stub_signal(int sig, void *info, struct kframe *f);
STUB void stub_signal(int sig, void *info, struct kframe *f)
{
    struct nat_ctl *t = CTL;
    if (t->current < 0)
        next_batch();
    else {
        record(sig, f);
        if (++t->current == (int32_t)t->n)
            next_batch();
    }
    load(&t->cases[t->current], f);
}

/* Entry of every signal: the case's AC and DF must not reach C code. The return address that the kernel pushed is
 * stub_return. */
__asm__(".pushsection stub_text,\"ax\"\n"
        "stub_entry:\n"
        "  pushfq\n"
        "  andl $~0x244400, (%rsp)\n" /* AC, NT, DF; and ID, which rt_sigreturn leaves as it finds it */
        "  popfq\n"
        "  jmp stub_signal\n"
        "stub_return:\n"
        "  movl $15, %eax\n" /* rt_sigreturn */
        "  syscall\n"
        ".popsection\n");
/* Hidden, so that their addresses are taken relative to RIP: the code runs at another place than it was linked for. */
__attribute__((visibility("hidden"))) void stub_entry(void);
__attribute__((visibility("hidden"))) void stub_return(void);

struct ksigaction {
    void (*handler)(void);
    uint64_t flags;
    void (*restorer)(void);
    uint64_t mask;
};

STUB static long set_handlers(void)
{
    uint64_t stack[3] = {STUB_STACK, 0, STUB_STACK_BYTES / 2};
    long r = sys6(__NR_sigaltstack, (long)stack, 0, 0, 0, 0, 0);
    struct ksigaction sa;
    sa.handler = stub_entry;
    sa.flags = 0x04000000u | SA_ONSTACK | SA_SIGINFO | SA_NODEFER; /* SA_RESTORER */
    sa.restorer = stub_return;
    sa.mask = ~0ull;
    const uint64_t wanted = 1ull << SIGSEGV | 1ull << SIGBUS | 1ull << SIGILL | 1ull << SIGFPE | 1ull << SIGTRAP |
                            1ull << SIGSYS | 1ull << SIGALRM;
    for (int i = 1; i < 32; i++)
        if (wanted >> i & 1)
            r |= sys6(__NR_rt_sigaction, i, (long)&sa, 0, 8, 0, 0);
    return r;
}

/* Allowed: the calls of this file, from this file. Anything else is a case that has reached the kernel: SIGSYS. */
STUB static long set_filter(void)
{
    struct sock_filter prog[11];
    unsigned n = 0;
#define LD(o) prog[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, o)
#define JEQ(v, t, e) prog[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, v, t, e)
#define RET(v) prog[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, v)
    LD(offsetof(struct seccomp_data, instruction_pointer) + 4);
    JEQ(STUB_BASE >> 32, 0, 7);
    LD(offsetof(struct seccomp_data, arch));
    JEQ(AUDIT_ARCH_X86_64, 0, 5);
    LD(offsetof(struct seccomp_data, nr));
    JEQ(__NR_rt_sigreturn, 2, 0);
    JEQ(__NR_futex, 1, 0);
    JEQ(__NR_arch_prctl, 0, 1);
    RET(SECCOMP_RET_ALLOW);
    RET(SECCOMP_RET_TRAP);
#undef LD
#undef JEQ
#undef RET
    struct sock_fprog fp;
    fp.len = (unsigned short)n;
    fp.filter = prog;
    long r = sys6(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0);
    return r | sys6(__NR_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, (long)&fp, 0, 0, 0);
}

/* Populated: a page that is allowed but not there yet would give another error code than the VM's. */
STUB static long map_case_memory(void)
{
    struct nat_ctl *t = CTL;
    for (const struct dt_map *m = t->maps; m->count; m++) {
        int prot = PROT_READ | (m->kind == 'W' ? PROT_WRITE : m->kind == 'X' ? PROT_EXEC : 0);
        long r = sys6(__NR_mmap, (long)m->lin, m->count * DT_PAGE, prot, MAP_SHARED | MAP_FIXED | MAP_POPULATE,
                      t->backing_fd, m->page * DT_PAGE);
        if (r != (long)m->lin)
            return -1;
    }
    fill((void *)(STUB_ALIAS + DT_DATA_BYTES), 0xcc, DT_CODE_BYTES);
    return 0;
}

STUB static void setup(void)
{
    struct nat_ctl *t = CTL;
    t->setup_error = 1;
    if (sys6(__NR_munmap, 0, STUB_BASE, 0, 0, 0, 0))
        goto fail;
    /* Above the stub lie libraries, stack and vdso; some kernels seal the vdso, then they stay. */
    sys6(__NR_munmap, STUB_END, 0x7ffffffff000 - STUB_END, 0, 0, 0, 0);
    t->setup_error = 2;
    if (map_case_memory())
        goto fail;
    t->setup_error = 3;
    for (unsigned i = 0; i < DT_LDT_COUNT; i++)
        if (t->ldt_arg[i][1] && sys6(__NR_modify_ldt, 0x11, (long)t->ldt_arg[i], 16, 0, 0, 0))
            goto fail;
    t->setup_error = 4;
    if (set_handlers())
        goto fail;
    t->setup_error = 5;
    sys6(__NR_close, t->backing_fd, 0, 0, 0, 0, 0);
    if (set_filter())
        goto fail;
    t->setup_error = 0;
    __asm__ volatile("ud2");
fail:
    sys6(__NR_exit_group, 1, 0, 0, 0, 0, 0);
}

STUB void stub_main(void)
{
    __asm__ volatile("mov %0, %%rsp\n\tcall *%1\n\tud2" : : "r"(STUB_STACK + STUB_STACK_BYTES - 64), "r"(setup));
    __builtin_unreachable();
}

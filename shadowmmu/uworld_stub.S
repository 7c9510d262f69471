/* shadowmmu/uworld_stub.S - the only host code in a user world. Position-independent; copied to the base.
 *
 * No stack: rsp may be anything. Addresses are RIP-relative (invariant UW-1). The three labels uw_ip_* follow the system
 * call instructions that the guest thread's filter knows. Layout: uworld_int.h.
 */
#include "shadowmmu/uworld_int.h"

#define SYS_MMAP 9
#define SYS_MUNMAP 11
#define SYS_SIGPROCMASK 14
#define SYS_SIGRETURN 15
#define SYS_PWRITE 18
#define SYS_CLONE 56
#define SYS_GETPPID 110
#define SYS_PRCTL 157
#define SYS_FUTEX 202
#define SYS_EXIT_GROUP 231
#define SYS_SECCOMP 317
#define FUTEX_WAIT 0
#define FUTEX_WAKE 1
#define MAP_SHARED_FIXED 0x11
#define CLONE_PARENT 0x8000
#define CLONE_THREAD_FLAGS 0x50f00 /* VM FS FILES SIGHAND THREAD SYSVSEM */
#define FILTER_SPEC_ALLOW 4 /* no speculation switches for filtered threads: guest code must run at full speed */
/* ORDER uw_step */
#define STEP_UNMAP 8
#define STEP_PARENT 9
#define STEP_SLOT 10
#define STEP_THREAD 11
#define STEP_SECCOMP 12

#define AT(offset) uw_stub + (offset)(%rip)

        .section .rodata
        .balign 64
        .globl uw_stub, uw_stub_end, uw_stub_zygote, uw_stub_handler, uw_stub_probe
        .globl uw_ip_wake, uw_ip_wait, uw_ip_return
uw_stub:

/* Give up: edi = step. */
give_up:
        add     $UW_EXIT, %edi
        mov     $SYS_EXIT_GROUP, %eax
        syscall
        ud2

/* ---- zygote: entered once, with all signals blocked and everything but the stub still to be unmapped ---- */
uw_stub_zygote:
        xor     %edi, %edi
        lea     AT(0), %rsi
        mov     $SYS_MUNMAP, %eax
        syscall
        test    %rax, %rax
        jnz     1f
        lea     AT(0x10000), %rdi
        movabs  $UW_TASK_END, %rsi
        sub     %rdi, %rsi
        mov     $SYS_MUNMAP, %eax
        syscall
        test    %rax, %rax
        jz      2f
1:      mov     $STEP_UNMAP, %edi
        jmp     give_up
2:      xor     %r12d, %r12d            /* requests served */
zygote_wait:
        mov     AT(UW_H_SEQ), %eax
        cmp     %r12d, %eax
        jne     zygote_serve
        lea     AT(UW_H_SEQ), %rdi
        mov     $FUTEX_WAIT, %esi
        mov     %r12d, %edx
        xor     %r10d, %r10d
        mov     $SYS_FUTEX, %eax
        syscall
        jmp     zygote_wait
zygote_serve:
        mov     %eax, %r12d
        mov     AT(UW_H_SLOT_POS), %r13
        mov     $CLONE_PARENT, %edi
        xor     %esi, %esi
        xor     %edx, %edx
        xor     %r10d, %r10d
        xor     %r8d, %r8d
        mov     $SYS_CLONE, %eax
        syscall
        test    %eax, %eax
        jz      world
        mov     %eax, AT(UW_M_PID)
        mov     %r12d, %eax
        xchg    %eax, AT(UW_M_TURN)
        lea     AT(UW_M_TURN), %rdi
        mov     $FUTEX_WAKE, %esi
        mov     $1, %edx
        mov     $SYS_FUTEX, %eax
        syscall
        jmp     zygote_wait

/* ---- a new world: r13 = its slot ---- */
world:
        mov     $1, %edi                /* PR_SET_PDEATHSIG, SIGKILL */
        mov     $9, %esi
        mov     $SYS_PRCTL, %eax
        syscall
        mov     $SYS_GETPPID, %eax
        syscall
        cmp     AT(UW_H_PARENT), %eax
        mov     $STEP_PARENT, %edi
        jne     give_up
        lea     AT(UW_RO), %rdi
        mov     $UW_RO_BYTES, %esi
        mov     $1, %edx                /* PROT_READ */
        mov     $MAP_SHARED_FIXED, %r10d
        mov     $UW_FD_CTL, %r8d
        mov     %r13, %r9
        mov     $SYS_MMAP, %eax
        syscall
        cmp     $-4096, %rax
        ja      1f
        lea     AT(UW_RW), %rdi
        mov     $UW_RW_BYTES, %esi
        mov     $3, %edx                /* PROT_READ | PROT_WRITE */
        lea     UW_RO_BYTES(%r13), %r9
        mov     $SYS_MMAP, %eax
        syscall
        cmp     $-4096, %rax
        jbe     2f
1:      mov     $STEP_SLOT, %edi
        jmp     give_up
2:      mov     $CLONE_THREAD_FLAGS, %edi
        xor     %esi, %esi
        xor     %edx, %edx
        xor     %r10d, %r10d
        xor     %r8d, %r8d
        mov     $SYS_CLONE, %eax
        syscall
        test    %rax, %rax
        jz      mapper
        mov     $STEP_THREAD, %edi
        js      give_up
        mov     %eax, AT(UW_M_MAPPER)
        /* This, the first thread, has the alternate signal stack: it becomes the guest's. */
        mov     $2, %edi                /* SIG_SETMASK */
        lea     AT(UW_C_MASK), %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        mov     $SYS_SIGPROCMASK, %eax
        syscall
        /* Syscall User Dispatch, where the host has it: comes before seccomp, which lets SYS_uretprobe pass unseen. */
        mov     $59, %edi               /* PR_SET_SYSCALL_USER_DISPATCH */
        mov     $1, %esi                /* PR_SYS_DISPATCH_ON: all but ... */
        lea     AT(0), %rdx             /* ... the stub's code */
        mov     $UW_CONST, %r10d
        xor     %r8d, %r8d
        mov     $SYS_PRCTL, %eax
        syscall
        lea     AT(UW_C_PROG_GUEST), %rdx
        mov     $1, %edi                /* SECCOMP_SET_MODE_FILTER */
        mov     $FILTER_SPEC_ALLOW, %esi
        mov     $SYS_SECCOMP, %eax
        syscall
        test    %rax, %rax
        mov     $STEP_SECCOMP, %edi
        jnz     give_up
        movl    $1, AT(UW_M_READY)
        jmp     guest_sleep

/* ---- guest thread: every signal comes here, all others blocked, on the shared signal stack ---- */
        .balign 64
uw_stub_handler:
        rdfsbase %rax
        mov     %rax, AT(UW_M_FS)
        rdgsbase %rax
        mov     %rax, AT(UW_M_GS)
        mov     %ds, AT(UW_M_SEL + 0)
        mov     %es, AT(UW_M_SEL + 2)
        mov     %fs, AT(UW_M_SEL + 4)
        mov     %gs, AT(UW_M_SEL + 6)
        mov     %rsp, AT(UW_M_FRAME)
        mov     $UW_TURN_MONITOR, %eax
        xchg    %eax, AT(UW_M_TURN)     /* a full barrier: event_wait is read afterwards */
        cmpl    $0, AT(UW_H_EWAIT)
        je      1f
        lea     AT(UW_M_TURN), %rdi
        mov     $FUTEX_WAKE, %esi
        mov     $1, %edx
        mov     $SYS_FUTEX, %eax
        syscall
uw_ip_wake:
1:      rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        mov     AT(UW_H_SPIN_GUEST), %ecx
        add     %rax, %rcx
2:      cmpl    $UW_TURN_GUEST, AT(UW_M_TURN)
        je      guest_resume
        cmpl    $0, AT(UW_H_STOP)
        jne     guest_sleep
        pause
        rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        cmp     %rcx, %rax
        jb      2b
guest_sleep:
        mov     $1, %eax
        xchg    %eax, AT(UW_M_ASLEEP)
        lea     AT(UW_M_TURN), %rdi
        mov     $FUTEX_WAIT, %esi
        mov     $UW_TURN_MONITOR, %edx
        xor     %r10d, %r10d
        mov     $SYS_FUTEX, %eax
        syscall
uw_ip_wait:
        movl    $0, AT(UW_M_ASLEEP)
        cmpl    $UW_TURN_GUEST, AT(UW_M_TURN)
        jne     guest_sleep
guest_resume:
        cmpl    $0, AT(UW_M_SELECTORS)
        je      1f
        mov     AT(UW_M_SEL + 0), %ds
        mov     AT(UW_M_SEL + 2), %es
        mov     AT(UW_M_SEL + 4), %fs
        mov     AT(UW_M_SEL + 6), %gs
1:      mov     AT(UW_M_FS), %rax
        wrfsbase %rax
        mov     AT(UW_M_GS), %rax
        wrgsbase %rax
        mov     AT(UW_H_FRAME), %rsp
        /* rt_sigreturn keeps the flags it does not restore (ID): have them right when it is called. The frame's first
         * word, the return address, is free. */
        pushq   AT(UW_M_FLAGS)
        popfq
        mov     $SYS_SIGRETURN, %eax
        syscall
uw_ip_return:
        ud2
/* For the monitor's own test of a world: a system call instruction that no filter knows. */
uw_stub_probe:
        syscall
        ud2

/* ---- mapper thread: registers only, all signals blocked ---- */
        .balign 64
mapper:
        lea     AT(UW_C_PROG_MAPPER), %rdx
        mov     $1, %edi
        mov     $FILTER_SPEC_ALLOW, %esi
        mov     $SYS_SECCOMP, %eax
        syscall
        test    %rax, %rax
        mov     $STEP_SECCOMP, %edi
        jnz     give_up
        movl    $1, AT(UW_M_MREADY)
        xor     %r12d, %r12d            /* batches performed */
mapper_next:
        cmp     AT(UW_H_SEQ), %r12d
        jne     mapper_work
mapper_sleep:
        lea     AT(UW_H_SEQ), %rdi
        mov     $FUTEX_WAIT, %esi
        mov     %r12d, %edx
        xor     %r10d, %r10d
        mov     $SYS_FUTEX, %eax
        syscall
        cmp     AT(UW_H_SEQ), %r12d
        je      mapper_sleep
mapper_work:
        inc     %r12d
        lea     AT(UW_H_RING), %r13
        mov     AT(UW_H_COUNT), %r14d
1:      test    %r14d, %r14d
        jz      mapper_done
        mov     (%r13), %rax
        mov     8(%r13), %rdi
        mov     16(%r13), %rsi
        mov     24(%r13), %rdx
        mov     32(%r13), %r10
        mov     40(%r13), %r8
        mov     48(%r13), %r9
        syscall
        cmp     $-4096, %rax
        ja      mapper_failed
        add     $64, %r13
        dec     %r14d
        jmp     1b
mapper_failed:
        neg     %eax
        cmp     $UW_C_ERRNOS, %eax
        jb      1f
        mov     $1, %eax
1:      lea     AT(UW_C_ERRNO), %rsi
        lea     (%rsi, %rax, 4), %rsi
        mov     AT(UW_H_DONE_POS), %r10
        add     $4, %r10
        mov     $UW_FD_CTL, %edi
        mov     $4, %edx
        mov     $SYS_PWRITE, %eax
        syscall
mapper_done:
        lea     AT(UW_H_SEQ), %rsi
        mov     AT(UW_H_DONE_POS), %r10
        mov     $UW_FD_CTL, %edi
        mov     $4, %edx
        mov     $SYS_PWRITE, %eax
        syscall
        mfence
        cmpl    $0, AT(UW_H_MWAIT)
        je      mapper_next
        lea     AT(UW_H_DONE), %rdi
        mov     $FUTEX_WAKE, %esi
        mov     $1, %edx
        mov     $SYS_FUTEX, %eax
        syscall
        jmp     mapper_next
uw_stub_end:
        .org    uw_stub + UW_CONST      /* an error if the code has grown into the constants */
        .section .note.GNU-stack, "", @progbits

/* Guest code for test_uworld.c: snippets that are copied into guest memory and run there. Position-independent. */
        .macro  SNIPPET name
        .globl  uwg_\name, uwg_\name\()_end
        .balign 16
uwg_\name:
        .endm
        .macro  END name
uwg_\name\()_end:
        .endm
        .section .rodata

/* Adds its register's number to each register, sets flags with the last addition, calls the kernel. */
SNIPPET regs
        .set    i, 0
        .irp    r, rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
        .set    i, i + 1
        lea     i(%\r), %\r
        .endr
        cmp     $1, %r15
        hlt
END regs

SNIPPET syscall_loop
1:      syscall
        jmp     1b
END syscall_loop

SNIPPET int80
        int     $0x80
END int80

SNIPPET sysenter
        sysenter
END sysenter

SNIPPET spin
1:      inc     %rax
        jmp     1b
END spin

SNIPPET load
        mov     (%rdi), %rax
        hlt
END load

SNIPPET store
        mov     %rax, (%rdi)
        hlt
END store

SNIPPET jump
        jmp     *%rdi
END jump

SNIPPET jump_rsi
        jmp     *%rsi
END jump_rsi

SNIPPET divide
        xor     %edx, %edx
        div     %rcx
END divide

SNIPPET ud2
        ud2
END ud2

SNIPPET int3
        nop
        int3
        nop
END int3

SNIPPET cpuid
        cpuid
        hlt
END cpuid

SNIPPET unaligned
        mov     1(%rdi), %rax
        hlt
END unaligned

SNIPPET x87_fault
        fld1
        fldz
        fdivrp
        fwait
        hlt
END x87_fault

SNIPPET sse_fault
        divss   %xmm1, %xmm0
        hlt
END sse_fault

/* FS and GS base as the CPU has them, and the words they lead to. */
SNIPPET bases
        rdfsbase %rax
        rdgsbase %rbx
        mov     %fs:8, %rcx
        mov     %gs:8, %rdx
        hlt
END bases

/* ymm2 = ymm0 + ymm1 (bytes); the x87 top of stack doubles. */
SNIPPET vectors
        vpaddb  %ymm0, %ymm1, %ymm2
        fadd    %st(0), %st(0)
        hlt
END vectors

/* The same with 64-byte vectors, which the test only runs where there are some. */
SNIPPET vectors512
        vpaddd  %zmm0, %zmm17, %zmm18
        kxnorw  %k1, %k1, %k2
        hlt
END vectors512

/* Toggles EFLAGS.ID as a CPU detection does. rsp: a stack. */
SNIPPET toggle_id
        pushfq
        xorl    $0x200000, (%rsp)
        popfq
        hlt
        pushfq
        pop     %rax
        hlt
END toggle_id

/* All system call numbers below esi, from edi. Each is an event. */
SNIPPET numbers
1:      mov     %edi, %eax
        syscall
        inc     %edi
        cmp     %esi, %edi
        jb      1b
        hlt
END numbers

/* Writes rax where rdi points, 8 bytes at a time, rcx times; then calls. */
SNIPPET fill
        rep stosq
        hlt
END fill

/* Rewrites the instruction it then executes: mov $1,%eax becomes mov $2,%eax. rdi = its own address in a writable page. */
SNIPPET smc
        lea     1f(%rip), %rdi
        movb    $2, 1(%rdi)
1:      mov     $1, %eax
        hlt
END smc

/* rt_sigreturn with a frame of the guest's making at rsp, through the stub's own instruction at rdi. */
SNIPPET forge
        mov     $15, %eax
        jmp     *%rdi
END forge

/* Says that its turn is over (rsi: the mailbox; rdx: where the last signal frame was), and goes on. */
SNIPPET feign
        mov     %rdx, 16(%rsi)
        movl    $0, (%rsi)
        mov     $15, %eax
        jmp     *%rdi
END feign

        .code32
SNIPPET c32
        add     $1, %eax
        mov     %gs:4, %ebx
        mov     %fs:4, %ecx
        push    %ds
        pop     %ds
        push    %gs
        pop     %gs
        mov     %gs:8, %edx
        int     $0x80
END c32

/* As the vDSO does it. */
SNIPPET c32_sysenter
        push    %ecx
        push    %edx
        push    %ebp
        mov     %esp, %ebp
        sysenter
END c32_sysenter

SNIPPET c32_far
        ljmp    $0x33, $0x500000
END c32_far

SNIPPET c32_into
        mov     $0x7fffffff, %eax
        inc     %eax
        into
END c32_into
        .code64
        .section .note.GNU-stack, "", @progbits

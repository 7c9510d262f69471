/* bench/guest/nano_ops.S - one loop per operation: nano_NAME(n) does it n times. See nano.c for what each one is.
 * Position independent: in the guest it runs at its alias in the upper half, except for the loop at ring 3. */
    .text
    .macro loop name
    .balign 64
    .globl nano_\name
nano_\name:
    pushq %rbx
    pushq %r12
    movq %rdi, %r12
    movq %rsi, %r8
    .balign 32
1:
    .endm
    .macro again
    decq %r12
    jnz 1b
    popq %r12
    popq %rbx
    retq
    .endm

    .balign 64
leaf:
    retq
    loop loop
    nop
    again
    loop callret
    callq leaf
    again
    loop popf
    pushq $2
    popfq
    again
    loop cpuid
    xorl %eax, %eax
    cpuid
    again
    loop rdtsc
    rdtsc
    again
    loop seg_load
    movl %r8d, %ds
    again

#ifndef BENCH_NATIVE
    loop cli_sti
    cli
    sti
    again
    loop pushf
    pushfq
    popq %rax
    again
    loop rdmsr
    movl $0x1b, %ecx
    rdmsr
    again
    loop wrmsr
    movl $0xc0000100, %ecx
    xorl %eax, %eax
    xorl %edx, %edx
    wrmsr
    again
    loop swapgs
    swapgs
    again
    loop cr8wr
    xorl %eax, %eax
    movq %rax, %cr8
    again
    loop cr0rd
    movq %cr0, %rax
    again
    loop clts
    clts
    again
    loop cr3wr
    movq %r8, %cr3
    again
    loop invlpg
    invlpg (%r8)
    again
    loop in
    inb $0x80, %al
    again
    loop out
    outb %al, $0x80
    again
    loop mmio_read
    movl (%r8), %eax
    again
    loop mmio_write
    movl $0, (%r8)
    again
    loop user_read
    movl (%r8), %eax
    again
/* r8 -> data in a page of code that has been translated */
    loop code_write
    movl %eax, (%r8)
    again
    .globl nano_beside_code
nano_beside_code:
    .quad 0
    loop pgfault
    .byte 0x41, 0x8a, 0x00
    again
    loop divzero
    xorl %ecx, %ecx
    movl $1, %eax
    xorl %edx, %edx
    divl %ecx
    again
    loop int80
    int $0x80
    again
/* r8 -> { address of a page-table entry, -, - , address of a page that another entry of that table maps }: with that page in
 * use, the table cannot be forgotten. */
    loop ptemod
    movq 24(%r8), %rdx
    movq (%r8), %rax
    movl (%rdx), %ecx
    xorq $0x200, (%rax)
    again

/* Another page behind the same address, made known with INVLPG, and touched. r8 -> { entry's address, mask, page's address } */
    loop pte_remap
    movq (%r8), %rax
    movq 8(%r8), %rdx
    xorq %rdx, (%rax)
    movq 16(%r8), %rdx
    invlpg (%rdx)
    movl (%rdx), %eax
    again
/* r8 -> { CR3 of this turn, CR3 of the next, address of a page that differs }; one operation = two switches, two accesses */
    loop ctx_switch
    movq (%r8), %rax
    movq 16(%r8), %rdx
    movq %rax, %cr3
    movl (%rdx), %ecx
    movq 8(%r8), %rax
    movq %rax, %cr3
    movl (%rdx), %ecx
    again
/* r8 = address of the interrupt command register; the handler counts r9 up. */
    .balign 64
    .globl nano_self_ipi
nano_self_ipi:
    movq %rsi, %r8
    sti
1:  xorl %r9d, %r9d
    movl $0x44041, (%r8)
2:  testl %r9d, %r9d
    jz 2b
    decq %rdi
    jnz 1b
    cli
    retq
/* Waits for n interrupts, reading the clock all the time, and stores to r8[] the time that passed over each of them. */
    .balign 64
    .globl nano_gaps
nano_gaps:
    movq %rsi, %r8
    xorl %r9d, %r9d
    xorl %r10d, %r10d
    sti
1:  rdtsc
    shlq $32, %rdx
    leaq (%rax,%rdx), %rcx
    /* rcx: before the interrupt for certain. Once the count has changed, one more reading is after it for certain. */
2:  rdtsc
    shlq $32, %rdx
    addq %rdx, %rax
    cmpl %r9d, %r10d
    jne 3f
    movq %rax, %rcx
    jmp 2b
3:  rdtsc
    shlq $32, %rdx
    addq %rdx, %rax
    subq %rcx, %rax
    movq %rax, (%r8)
    addq $8, %r8
    movl %r9d, %r10d
    decq %rdi
    jnz 1b
    cli
    retq

/* System calls from a loop at ring 3: the loop runs where it was linked, the handler at its alias. */
    .balign 64
    .globl nano_syscall, nano_syscall_entry
nano_syscall:
    pushq %rbx
    pushq %rbp
    pushq %r12
    movq %rdi, %r12
    movq %rsp, kernel_rsp(%rip)
    pushq $0x23
    pushq $0
    pushq $2
    pushq $0x2b
    movl $user_loop, %eax
    pushq %rax
    iretq
user_loop:
    xorl %eax, %eax
    .balign 32
1:  syscall
    decq %r12
    jnz 1b
    movl $1, %eax
    syscall
    .balign 64
nano_syscall_entry:
    testl %eax, %eax
    jnz 2f
    sysretq
2:  movq kernel_rsp(%rip), %rsp
    popq %r12
    popq %rbp
    popq %rbx
    retq

/* Handlers. */
    .globl nano_on_pgfault, nano_on_divzero, nano_on_int, nano_on_irq
    .balign 64
nano_on_pgfault:
    addq $8, %rsp
    addq $3, (%rsp)
    iretq
    .balign 64
nano_on_divzero:
    addq $2, (%rsp)
    iretq
    .balign 64
nano_on_int:
    iretq
    .balign 64
nano_on_irq:
    pushq %rax
    incl %r9d
    movabsq $(0xffff888000000000 + 0xfee000b0), %rax
    movl $0, (%rax)
    popq %rax
    iretq

    .bss
    .balign 8
kernel_rsp:
    .skip 8
#endif

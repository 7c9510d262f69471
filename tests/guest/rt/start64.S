/* tests/guest/rt/start64.S - entry through long mode, exception stubs and ring 3 of 64-bit guests.
 * The first 4 GiB are mapped one to one with 2 MiB pages, user accessible. */
#include "rt.h"
    .section .multiboot, "a"
    .balign 4
    .long 0x1badb002, 0, -0x1badb002

    .text
    .globl _start, rt_reload_segments, rt_setjmp, rt_stubs, rt_user, rt_user_at
    .code32
_start:
    cli
    cld
    movl $stack_top, %esp
    movl %ebx, rt_multiboot_info
    movl $rt_pd, %edi
    movl $0x87, %eax
1:  movl %eax, (%edi)
    addl $8, %edi
    addl $0x200000, %eax
    jnc 1b
    movl $rt_pml4, %edi
    movl $rt_pdpt + 7, (%edi)
    movl $rt_pdpt, %edi
    movl $rt_pd + 7, %eax
2:  movl %eax, (%edi)
    addl $8, %edi
    addl $0x1000, %eax
    cmpl $rt_pdpt + 32, %edi
    jne 2b
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $rt_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    lgdt early_gdtr
    ljmpl $8, $3f
    .code64
3:  xorl %eax, %eax
    movl %eax, %ss
    pushq $0
    popfq
    call rt_init

rt_reload_segments:
    popq %rdx
    pushq $SEL_KCODE
    pushq $1f
    lretq
1:  movl $SEL_KDATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    jmpq *%rdx

rt_setjmp:
    popq %rcx
    movq %rcx, jmp_rip
    movq %rbx, jmp_rbx
    movq %rbp, jmp_rbp
    movq %r12, jmp_r12
    movq %r13, jmp_r13
    movq %r14, jmp_r14
    movq %r15, jmp_r15
    movq %rsp, jmp_rsp
    movb $1, rt_armed
    xorl %eax, %eax
    jmpq *%rcx

recover:
    movl $SEL_KDATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movq jmp_rsp, %rsp
    pushq $2
    popfq
    movq jmp_rbx, %rbx
    movq jmp_rbp, %rbp
    movq jmp_r12, %r12
    movq jmp_r13, %r13
    movq jmp_r14, %r14
    movq jmp_r15, %r15
    movl $1, %eax
    jmpq *jmp_rip

    .altmacro
    .macro stub vec
    .balign 16
    .if (\vec != 8) && (\vec < 10 || \vec > 14) && (\vec != 17)
    pushq $0
    .endif
    pushq $\vec
    jmp common
    .endm
    .balign 16
rt_stubs:
    .set i, 0
    .rept 256
    stub %i
    .set i, i + 1
    .endr

common:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    movq %rsp, %rbx
    andq $-16, %rsp
    call rt_dispatch
    testb %al, %al
    jz recover
    movq %rbx, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq

/* void rt_user(void (*fn)(void)) */
rt_user:
    movq $rt_user_stack_top - 24, %rdx
    movq $user_done, (%rdx)
    movl $SEL_UDATA, %ecx
    movl %ecx, %ds
    movl %ecx, %es
    pushq $SEL_UDATA
    pushq %rdx
    pushq $2
    pushq $SEL_UCODE64
    pushq %rdi
    iretq
user_done:
    int $0x80

/* void rt_user_at(cs, ip, ss, sp, flags) */
rt_user_at:
    pushq %rdx
    pushq %rcx
    pushq %r8
    pushq %rdi
    pushq %rsi
    iretq

    .data
    .balign 8
early_gdt:
    .quad 0, 0x00af9b000000ffff
early_gdtr:
    .word 15
    .long early_gdt

    .bss
    .balign 4096
    .globl rt_pml4, rt_pdpt, rt_pd
rt_pml4: .skip 4096
rt_pdpt: .skip 4096
rt_pd: .skip 4 * 4096
    .skip 16384
stack_top:
    .skip 8192
    .globl rt_user_stack_top
rt_user_stack_top:
jmp_rip: .skip 8
jmp_rbx: .skip 8
jmp_rbp: .skip 8
jmp_r12: .skip 8
jmp_r13: .skip 8
jmp_r14: .skip 8
jmp_r15: .skip 8
jmp_rsp: .skip 8
    .globl rt_multiboot_info
rt_multiboot_info: .skip 4

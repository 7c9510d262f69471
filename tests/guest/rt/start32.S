/* tests/guest/rt/start32.S - entry, exception stubs, ring 3 and real-mode switches of 32-bit guests. */
#include "rt.h"
    .section .multiboot, "a"
    .balign 4
    .long 0x1badb002, 0, -0x1badb002

    .text
    .globl _start, rt_reload_segments, rt_setjmp, rt_stubs, rt_user, rt_user_at, rt_real
_start:
    cli
    cld
    movl $stack_top, %esp
    movl %ebx, rt_multiboot_info
    pushl $0
    popfl
    call rt_init

rt_reload_segments:
    ljmpl $SEL_KCODE, $1f
1:  movl $SEL_KDATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    ret

/* int rt_setjmp(void): arms the recorder; comes back a second time, with 1, when it has caught something. */
rt_setjmp:
    popl %ecx
    movl %ecx, jmp_eip
    movl %ebx, jmp_ebx
    movl %esi, jmp_esi
    movl %edi, jmp_edi
    movl %ebp, jmp_ebp
    movl %esp, jmp_esp
    movb $1, rt_armed
    xorl %eax, %eax
    jmpl *%ecx

recover:
    movl jmp_esp, %esp
    pushl $2
    popfl
    movl jmp_ebx, %ebx
    movl jmp_esi, %esi
    movl jmp_edi, %edi
    movl jmp_ebp, %ebp
    movl $1, %eax
    jmpl *jmp_eip

    .altmacro
    .macro stub vec
    .balign 16
    .if (\vec != 8) && (\vec < 10 || \vec > 14) && (\vec != 17)
    pushl $0
    .endif
    pushl $\vec
    jmp common
    .endm
    .balign 16
rt_stubs:
    .set i, 0
    .rept 256
    stub %i
    .set i, i + 1
    .endr

/* The stack may be a 16-bit one of base 0, with anything in the upper half of ESP: C runs on the flat one at the same place. */
common:
    pushal
    pushl %ds
    pushl %es
    pushl %fs
    pushl %gs
    pushl %ss
    movl %ss, %eax
    larl %eax, %eax
    testl $0x400000, %eax
    jnz 1f
    movzwl %sp, %esp
1:  movl $SEL_KDATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    movl %eax, %ss
    cld
    movl %esp, %ebx
    pushl %ebx
    call rt_dispatch
    testb %al, %al
    jz recover
    movl %ebx, %esp
    movl (%esp), %eax
    movl %eax, %ss
    addl $4, %esp
    popl %gs
    popl %fs
    popl %es
    popl %ds
    popal
    addl $8, %esp
    iretl

/* void rt_user(void (*fn)(void)) */
rt_user:
    movl 4(%esp), %eax
    movl $rt_user_stack_top - 16, %edx
    movl $user_done, (%edx)
    movl $SEL_UDATA, %ecx
    movl %ecx, %ds
    movl %ecx, %es
    movl %ecx, %fs
    movl %ecx, %gs
    pushl %ecx
    pushl %edx
    pushl $2
    pushl $SEL_UCODE
    pushl %eax
    iretl
user_done:
    int $0x80

/* void rt_user_at(cs, ip, ss, sp, flags) */
rt_user_at:
    movl 4(%esp), %ecx
    movl 8(%esp), %eax
    movl $SEL_UDATA, %edx
    movl %edx, %ds
    pushl 12(%esp)
    pushl 20(%esp)
    pushl 28(%esp)
    pushl %ecx
    pushl %eax
    iretl

/* void rt_real(const void *from, const void *to) */
rt_real:
    pushal
    pushfl
    cli
    movl 40(%esp), %esi
    movl 44(%esp), %ecx
    subl %esi, %ecx
    movl $0x8000, %edi
    cld
    rep movsb
    movl $low_start, %esi
    movl $low_end, %ecx
    subl %esi, %ecx
    movl $0x7000, %edi
    rep movsb
    movl %esp, jmp_real_esp
    sidt real_idtr
    lidt ivt_idtr
    ljmpl $SEL_CODE16, $0x7000

#define LOW(sym) (0x7000 + (sym) - low_start)
low_start:
    .code16
    movw $SEL_DATA16, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %fs
    movw %ax, %gs
    movw %ax, %ss
    movl %cr0, %eax
    andb $0xfe, %al
    movl %eax, %cr0
    ljmpw $0, $LOW(1f)
1:  movw $0x6000, %ax
    movw %ax, %ss
    movw $0xfff0, %sp
    movw $0x800, %ax
    movw %ax, %ds
    movw %ax, %es
    xorw %ax, %ax
    movw %ax, %fs
    movw %ax, %gs
    lcallw $0x800, $0
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl LOW(low_gdtr)
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $SEL_KCODE, $real_back
    .balign 4
low_gdtr:
    .word RT_GDT_SLOTS * 8 - 1
    .long rt_gdt
low_end:
    .code32
real_back:
    movl $SEL_KDATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    movl jmp_real_esp, %esp
    lidt real_idtr
    popfl
    popal
    ret

    .data
    .balign 4
ivt_idtr:
    .word 0x3ff
    .long 0

    .bss
    .balign 16
    .skip 16384
stack_top:
    .skip 8192
    .globl rt_user_stack_top
rt_user_stack_top:
jmp_eip: .skip 4
jmp_ebx: .skip 4
jmp_esi: .skip 4
jmp_edi: .skip 4
jmp_ebp: .skip 4
jmp_esp: .skip 4
jmp_real_esp: .skip 4
real_idtr: .skip 8
    .globl rt_multiboot_info
rt_multiboot_info: .skip 4

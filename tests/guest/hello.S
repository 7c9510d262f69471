/* tests/guest/hello.S - the smallest guest: no stack, no IDT, no GDT of its own. Polls COM1, mirrors to port 0xe9, exits. */
    .section .multiboot, "a"
    .balign 4
    .long 0x1badb002, 0, -0x1badb002

    .text
    .globl _start
_start:
    cmpl $0x2badb002, %eax
    movl $bad, %esi
    jne 1f
    movl $text, %esi
1:  movb (%esi), %al
    testb %al, %al
    jz done
    movb %al, %bl
    movw $0x3fd, %dx
2:  inb %dx, %al
    testb $0x20, %al
    jz 2b
    movb %bl, %al
    movw $0x3f8, %dx
    outb %al, %dx
    outb %al, $0xe9
    incl %esi
    jmp 1b
done:
    xorl %eax, %eax
    outl %eax, $0xf4
    hlt
    jmp done

    .section .rodata
text: .asciz "hello from protected mode\n"
bad:  .asciz "not started by a multiboot loader\n"

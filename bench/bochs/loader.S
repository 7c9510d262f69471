/* bench/bochs/loader.S - boot sector of the disks that bench/rdbench/bochs.py makes: Bochs loads no kernels itself.
 *
 * Copies pieces of the disk to their places in memory and enters protected mode as the multiboot and Linux boot protocols want it: flat
 * segments (code 10h, data 18h), interrupts off, EAX, EBX and ESI as given. The table at 190h is filled in by bochs.py:
 *     entry, eax, ebx, esi, then up to 7 pieces: first sector, number of sectors, physical address; 32 bits each
 * Pieces are read through a buffer at 10000h by INT 13h AH=42h and copied in "unreal" mode: flat limits in a real-mode DS and ES.
 */
    .set BUFFER, 0x10000
    .set CHUNK, 64 /* sectors */
    .code16
    .text
    .globl _start
_start:
    cli
    cld
    ljmp $0, $begin
begin:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %ss
    movw $0x7c00, %sp
    movb %dl, drive
    inb $0x92, %al /* A20 */
    orb $2, %al
    andb $0xfe, %al
    outb %al, $0x92
    movw $0x3fb, %dx /* the serial port: 8 bits; after a reset it has 5, and the guests leave it to the firmware */
    movb $3, %al
    outb %al, %dx
    movw $pieces, %si
piece:
    movl 4(%si), %eax
    testl %eax, %eax
    jz enter
    cmpl $CHUNK, %eax
    jbe 1f
    movl $CHUNK, %eax
1:  movw %ax, packet + 2
    movl (%si), %ebx
    movl %ebx, packet + 8
    addl %eax, (%si)
    subl %eax, 4(%si)
    pushw %si
    pushw %ax
    movw $packet, %si
    movb $0x42, %ah
    movb drive, %dl
    sti
    int $0x13
    cli
    popw %ax
    popw %si
    jc failed
    movzwl %ax, %ecx
    shll $7, %ecx
    call flat
    movl 8(%si), %edi
    pushw %si
    movl $BUFFER, %esi
    addr32 rep movsl
    popw %si
    movl %edi, 8(%si)
    cmpl $0, 4(%si)
    jne piece
    addw $12, %si
    jmp piece

/* 4 GiB limits for DS and ES. */
flat:
    lgdtl gdtr
    movl %cr0, %eax
    incw %ax
    movl %eax, %cr0
    movw $0x18, %bx
    movw %bx, %ds
    movw %bx, %es
    decw %ax
    movl %eax, %cr0
    xorw %bx, %bx
    movw %bx, %ds
    movw %bx, %es
    ret

enter:
    call flat
    incw %ax
    movl %eax, %cr0
    ljmpl $0x10, $protected
failed:
    hlt
    jmp failed

    .code32
protected:
    movl $0x18, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    movl %eax, %ss
    movl registers + 0, %eax
    movl registers + 4, %ebx
    movl registers + 8, %esi
    xorl %ebp, %ebp
    xorl %edi, %edi
    jmp *entry

    .balign 4
packet:
    .byte 16, 0
    .word 0, 0, BUFFER >> 4
    .quad 0
gdt:
    .quad 0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:
    .word 31
    .long gdt
drive:
    .byte 0

    .org 0x190
entry:
    .long 0
registers:
    .long 0, 0, 0
pieces:
    .skip 7 * 12 + 4
    .org 0x1fe
    .word 0xaa55

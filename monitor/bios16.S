/* monitor/bios16.S - real-mode services for kernels that are entered in 16-bit mode: what their setup code asks a BIOS for.
 *
 * Guest code. boot_bios16.c copies it to BIOS16_SEG:0, fills in the header and points the interrupt vectors here; nothing of it
 * runs on the host. No variables of its own: it lies in the reserved ROM area, and what must be kept is in the BIOS data area.
 * A service answers in the caller's FLAGS (on the stack, IRET loads them), never in its own. Interrupts are off inside; all
 * hardware interrupts are masked in the controllers as the board leaves them.
 * Numbers: IBM PC AT Technical Reference (INT 10h-1Ah, BIOS data area), ACPI 6.5 15.1 (INT 15h E820h).
 */
#define AT(label) label - bios16_image
#define BDA_SEG 0x40
#define BDA_COM1 0x00
#define BDA_EQUIPMENT 0x10
#define BDA_BASE_KIB 0x13
#define BDA_VIDEO_MODE 0x49
#define BDA_COLUMNS 0x4a
#define BDA_CURSOR 0x50
#define BDA_CURSOR_SHAPE 0x60
#define BDA_VIDEO_PAGE 0x62
#define SMAP 0x534d4150
#define E820_BYTES 20
#define E820_ENTRIES 32 /* ORDER BOOT_MAX_RANGES */

    .section .rodata.bios16, "a"
    .code16
    .globl bios16_image, bios16_image_end
    .balign 16
bios16_image:
/* ORDER struct bios16_header (boot_bios16.c) */
e820_count:
    .word 0
low_kib: /* from 1 to 16 MiB, in KiB */
    .word 0
high_64k: /* from 16 MiB up, in units of 64 KiB */
    .word 0
extended_kib: /* from 1 MiB up, as far as 16 bits count */
    .word 0
    .word AT(ignore), AT(master_irq), AT(slave_irq)
    .word AT(int10), AT(int11), AT(int12), AT(int13), AT(int15), AT(int16), AT(no_boot), AT(int1a)
    .balign 4
e820_table:
    .fill E820_BYTES * E820_ENTRIES

/* -- ways back: with a bit of the caller's FLAGS changed, or with them as they are -- */
.macro answer op, bits
    pushw %bp
    movw %sp, %bp
    \op $\bits, 6(%bp)
    popw %bp
    iretw
.endm
failed: /* CF = 1 */
    answer orb, 0x01
done: /* CF = 0 */
    answer andb, 0xfe
is_zero: /* ZF = 1 */
    answer orb, 0x40
ignore:
    iretw

/* -- hardware interrupts nobody asked for: tell the controllers, go on -- */
slave_irq:
    pushw %ax
    movb $0x20, %al
    outb %al, $0xa0
    jmp 1f
master_irq:
    pushw %ax
    movb $0x20, %al
1:  outb %al, $0x20
    popw %ax
    iretw

no_boot: /* INT 18h, 19h: there is nothing else to boot */
    cli
    hlt
    jmp no_boot

/* -- INT 10h, screen: the mode is what the BIOS data area says, and stays. No columns there: no screen -- */
int10:
    pushw %ds
    pushw $BDA_SEG
    popw %ds
    cmpb $0x0e, %ah
    je teletype
    cmpb $0x0f, %ah
    je get_mode
    cmpb $0x01, %ah
    je set_cursor_shape
    cmpb $0x02, %ah
    je set_cursor
    cmpb $0x03, %ah
    je get_cursor
    cmpw $0, BDA_COLUMNS
    je int10_end
    cmpw $0x1a00, %ax
    je get_display
    cmpb $0x12, %ah
    jne int10_end
    cmpb $0x10, %bl
    jne int10_end
    movw $0x0003, %bx /* colour, 256 KiB */
    movw $0x0009, %cx /* feature bits, switches: an 80-column colour screen */
int10_end:
    popw %ds
    iretw
get_display:
    movb %ah, %al
    movw $0x0008, %bx /* VGA with a colour screen, no second one */
    jmp int10_end
get_mode:
    movb BDA_VIDEO_MODE, %al
    movb BDA_COLUMNS, %ah
    movb BDA_VIDEO_PAGE, %bh
    jmp int10_end
set_cursor_shape:
    movw %cx, BDA_CURSOR_SHAPE
    jmp int10_end
get_cursor: /* there is one page */
    movw BDA_CURSOR, %dx
    movw BDA_CURSOR_SHAPE, %cx
    xorw %ax, %ax
    jmp int10_end
set_cursor:
    movw %dx, BDA_CURSOR
    jmp int10_end

/* To the first serial port, if there is one: the setup code's complaints are seen also without a screen. */
teletype:
    pushw %ax
    pushw %cx
    pushw %dx
    movw BDA_COM1, %dx
    testw %dx, %dx
    jz 3f
    movw %ax, %cx
    addw $5, %dx /* line status */
    movb $0xff, %ch
1:  inb %dx, %al
    testb $0x20, %al /* transmitter empty */
    jnz 2f
    decb %ch /* a port that never gets ready must not hold up the boot */
    jnz 1b
2:  subw $5, %dx
    movb %cl, %al
    outb %al, %dx
3:  popw %dx
    popw %cx
    popw %ax
    jmp int10_end

/* -- INT 11h, 12h: equipment, KiB of conventional memory -- */
int11:
    pushw %ds
    pushw $BDA_SEG
    popw %ds
    movw BDA_EQUIPMENT, %ax
    popw %ds
    iretw
int12:
    pushw %ds
    pushw $BDA_SEG
    popw %ds
    movw BDA_BASE_KIB, %ax
    popw %ds
    iretw

int13: /* no disk */
    movb $0x01, %ah
    jmp failed

/* -- INT 15h, memory size -- */
int15:
    cmpw $0xe820, %ax
    je int15_e820
    cmpw $0xe801, %ax
    je int15_e801
    cmpb $0x88, %ah
    je int15_88
unsupported:
    movb $0x86, %ah
    jmp failed
int15_88:
    movw %cs:AT(extended_kib), %ax
    jmp done
int15_e801:
    movw %cs:AT(low_kib), %ax
    movw %cs:AT(high_64k), %bx
    movw %ax, %cx
    movw %bx, %dx
    jmp done
/* EBX = number of the entry, ES:DI = where to, ECX = room there, EDX = SMAP */
int15_e820:
    cmpl $SMAP, %edx
    jne unsupported
    cmpl $E820_BYTES, %ecx
    jb unsupported
    movzwl %cs:AT(e820_count), %eax
    cmpl %eax, %ebx
    jae unsupported
    pushw %ds
    pushw %si
    pushw %di
    pushw %cs
    popw %ds
    imulw $E820_BYTES, %bx, %si
    addw $AT(e820_table), %si
    movw $E820_BYTES / 2, %cx
    cld
    rep movsw
    popw %di
    popw %si
    popw %ds
    incl %ebx
    cmpl %eax, %ebx
    jb 1f
    xorl %ebx, %ebx /* that was the last one */
1:  movl $E820_BYTES, %ecx
    movl %edx, %eax
    jmp done

/* -- INT 16h, keyboard: nobody types -- */
int16:
    testb $0xef, %ah /* 00h, 10h read a key: would wait for ever */
    jz 1f
    pushw %ax
    andb $0xef, %ah
    cmpb $0x02, %ah
    popw %ax
    jb 2f /* 01h, 11h: is there a key? */
    ja ignore
    xorb %al, %al /* 02h, 12h: no shift key is down */
    iretw
1:  xorw %ax, %ax
    iretw
2:  xorw %ax, %ax
    jmp is_zero

/* -- INT 1Ah, time, from the clock chip -- */
int1a:
    cmpb $0x00, %ah
    je get_ticks
    cmpb $0x02, %ah
    je get_time
    cmpb $0x04, %ah
    je get_date
    movb $0x86, %ah
    jmp failed
get_time:
    call wait_for_clock
    movb $0x04, %al
    call read_cmos
    movb %al, %ch
    movb $0x02, %al
    call read_cmos
    movb %al, %cl
    movb $0x00, %al
    call read_cmos
    movb %al, %dh
    xorb %dl, %dl
    jmp done
get_date:
    call wait_for_clock
    movb $0x32, %al
    call read_cmos
    movb %al, %ch
    movb $0x09, %al
    call read_cmos
    movb %al, %cl
    movb $0x08, %al
    call read_cmos
    movb %al, %dh
    movb $0x07, %al
    call read_cmos
    movb %al, %dl
    jmp done
/* CX:DX = ticks since midnight, 1193182 / 65536 a second. No interrupt counts them: they follow from the time. */
get_ticks:
    pushl %eax
    pushl %ebx
    call wait_for_clock
    movb $0x04, %al
    call read_binary
    imull $3600, %eax, %ebx
    movb $0x02, %al
    call read_binary
    imull $60, %eax, %eax
    addl %eax, %ebx
    movb $0x00, %al
    call read_binary
    addl %eax, %ebx
    imull $13534, %ebx, %eax /* 1193182 - 18 * 65536; a day's worth fits into 32 bits */
    shrl $16, %eax
    imull $18, %ebx, %ebx
    addl %ebx, %eax
    movw %ax, %dx
    shrl $16, %eax
    movw %ax, %cx
    popl %ebx
    popl %eax
    xorb %al, %al /* midnight has not passed unseen */
    jmp done
read_cmos: /* AL = register */
    outb %al, $0x70
    inb $0x71, %al
    ret
read_binary: /* EAX = register AL, which holds two decimal digits */
    call read_cmos
    movb %al, %ah
    shrb $4, %ah
    andb $0x0f, %al
    aad
    movzbl %al, %eax
    ret
wait_for_clock: /* until no update is in progress, or for long enough */
    pushw %ax
    pushw %cx
    movw $0xffff, %cx
1:  movb $0x0a, %al
    call read_cmos
    testb $0x80, %al
    loopnz 1b
    popw %cx
    popw %ax
    ret
bios16_image_end:
    .section .note.GNU-stack, "", @progbits

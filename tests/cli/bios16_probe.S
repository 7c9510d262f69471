/* Setup code of a made-up bzImage: calls the interrupts of a table and writes what they gave back to port 0xe9. run_cli.py
 * puts it at 0x268 of the file and the table at 0x400: records of 20 bytes (number of the interrupt, 0: end; a byte of no
 * meaning; EAX, EBX, ECX, EDX; FLAGS). For each call: ES, DS, EDI, ESI, EBP, ESP, EBX, EDX, ECX, EAX, FLAGS, and 20 bytes at
 * ES:DI, which held 0xee. */
#define TABLE 0x400
#define BUFFER 0xa000
#define RECORD 20
#define STATE 38
    .text
    .code16
start:
    movw $TABLE, %bp
next:
    movb (%bp), %al
    testb %al, %al
    jz end
    movb %al, vector - start + 0x268 + 1 /* DS:0 is the file's first byte */
    pushw %ds
    popw %es
    cld
    movw $BUFFER, %di
    movw $20, %cx
    movb $0xee, %al
    rep stosb
    movl $BUFFER, %edi
    movl $0x12345678, %esi
    movl 2(%bp), %eax
    movl 6(%bp), %ebx
    movl 10(%bp), %ecx
    movl 14(%bp), %edx
    pushw 18(%bp)
    popfw
vector:
    int $0
    pushfw
    pushal
    pushw %ds
    pushw %es
    cli
    cld
    movw %sp, %si
    movw $STATE, %cx
    call out
    movw $BUFFER, %si
    movw $20, %cx
    call out
    addw $STATE, %sp
    addw $RECORD, %bp
    jmp next
out:
    lodsb
    outb %al, $0xe9
    loop out
    ret
end:
    movb $21, %al
    outb %al, $0xf4
    hlt
    .section .note.GNU-stack, "", @progbits

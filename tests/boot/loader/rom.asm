; tests/boot/loader/rom.asm - a 64 KiB "BIOS" that only loads the entry state that the boot loader made, and jumps.
; The V_* values come from image.c. The descriptor table and the page tables are the loader's, in guest RAM.
bits 16
org 0
start:
    cli
    o32 lgdt [cs:gdtr]
%if V_LONG
    mov eax, V_CR4
    mov cr4, eax
    mov eax, V_CR3
    mov cr3, eax
    mov ecx, 0xc0000080
    mov eax, V_EFER & 0x900 ; LMA follows by itself
    xor edx, edx
    wrmsr
%endif
    mov eax, V_CR0
    mov cr0, eax
    jmp dword 0x10:(0xf0000 + flat)
gdtr:
    dw V_GDT_LIMIT
    dd V_GDT
%if V_LONG
bits 64
%else
bits 32
%endif
flat:
    mov eax, 0x18
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    xor ecx, ecx
    xor edx, edx
    xor ebp, ebp
    xor edi, edi
    xor esp, esp
    mov eax, V_RAX
    mov ebx, V_RBX
    mov esi, V_RSI
%if V_LONG
    mov r8, V_RIP
    jmp r8
%else
    jmp 0x10:V_RIP
%endif
    times 0xfff0 - ($ - $$) db 0
bits 16
    jmp 0xf000:start
    times 0x10000 - ($ - $$) db 0

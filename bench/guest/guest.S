/* bench/guest/guest.S - entry of the benchmark guests (keeps the multiboot information), calls at another address. */
    .text
    .globl bench_start, bench_multiboot_info, call_high
    .code32
bench_start:
    movl %ebx, bench_multiboot_info
    jmp _start

    .code64
/* uint64_t call_high(uint64_t fn, uint64_t a, uint64_t b): calls fn(a, b) on the same stack at its alias in the upper half. */
call_high:
    movq %rdi, %rax
    movq %rsi, %rdi
    movq %rdx, %rsi
    movabsq $0xffff888000000000, %rdx
    addq %rdx, %rsp
    leaq 1f(%rip), %rcx
    addq %rdx, %rcx
    jmpq *%rcx
1:  callq *%rax
    movabsq $0xffff888000000000, %rdx
    subq %rdx, %rsp
    retq

    .data
    .balign 4
bench_multiboot_info:
    .long 0

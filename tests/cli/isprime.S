/* int isPrime(int a) { for (int i = 2; i < a; i++) { if (a % i == 0) return 0; } return 1; } as compilers write it, with the
 * literature's labels. */
    .text
    .globl isPrime
    .type isPrime, @function
isPrime:
    mov %edi, %ecx
    mov $2, %esi
    cmp %ecx, %esi
    jge prime
nexti:
    mov %ecx, %eax
    cdq
    idiv %esi
    test %edx, %edx
    jz notPrime
    inc %esi
    cmp %ecx, %esi
    jl nexti
prime:
    mov $1, %eax
    ret
notPrime:
    xor %eax, %eax
    ret
    .size isPrime, . - isPrime
    .section .note.GNU-stack, "", @progbits

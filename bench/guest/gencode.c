/* bench/guest/gencode.c - code that nobody has run yet, for the speed of translation: see compute.h.
 *
 * The mixture is that of compiled code: a third of the instructions reaches memory, a block has about five of them and ends
 * with a conditional jump, a function has some ten blocks. Every instruction is executed exactly once in one call.
 */
#include "compute.h"

struct gen {
    uint8_t *at;
    uint32_t x;
    uint64_t count;
};

static uint32_t dice(struct gen *g, uint32_t sides)
{
    g->x = g->x * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)g->x * sides >> 32);
}

static void bytes(struct gen *g, unsigned n, uint32_t b)
{
    for (; n; n--, b >>= 8)
        *g->at++ = (uint8_t)b;
}
static void imm32(struct gen *g, uint32_t v) { bytes(g, 4, v); }

/* One instruction without a jump. rbx points to the data; rsp and rbx are left alone. */
static void plain(struct gen *g)
{
    uint32_t disp = dice(g, 15) * 8;
    g->count++;
    switch (dice(g, 16)) {
    case 0: bytes(g, 4, 0x00438b48 | disp << 24); break;               /* mov rax, [rbx+d] */
    case 1: bytes(g, 4, 0x004b8948 | disp << 24); break;               /* mov [rbx+d], rcx */
    case 2: bytes(g, 2, 0x938b), imm32(g, disp); break;                /* mov edx, [rbx+d32] */
    case 3: bytes(g, 4, 0x004bb60f | disp << 24); break;               /* movzx ecx, byte [rbx+d] */
    case 4: bytes(g, 4, 0x00007b80 | disp << 16 | disp << 24); break;  /* cmp byte [rbx+d], d */
    case 5: bytes(g, 3, 0xc80148); break;                              /* add rax, rcx */
    case 6: bytes(g, 5, 0x88748d48), g->at[-1] = (uint8_t)disp; break; /* lea rsi, [rax+rcx*4+d] */
    case 7: bytes(g, 3, 0xff8548); break;                              /* test rdi, rdi */
    case 8: bytes(g, 1, 0xbe), imm32(g, g->x); break;                  /* mov esi, imm */
    case 9: bytes(g, 4, 0x00e88349 | disp << 24); break;               /* sub r8, d */
    case 10: bytes(g, 1, 0x25), imm32(g, g->x | 0xffff); break;        /* and eax, imm */
    case 11: bytes(g, 3, 0xc1894d); break;                             /* mov r9, r8 */
    case 12: bytes(g, 4, 0x03e2c148); break;                           /* shl rdx, 3 */
    case 13: bytes(g, 3, 0xc23148); break;                             /* xor rdx, rax */
    case 14: bytes(g, 3, 0xf70148); break;                             /* add rdi, rsi */
    default: bytes(g, 4, 0x5a415141), g->count++; break;               /* push r9; pop r10 */
    }
}

/* Jumps to the next instruction whether the condition holds or not. */
static void conditional(struct gen *g)
{
    g->count++;
    bytes(g, 2, 0x70 | dice(g, 16));
}

static void function(struct gen *g, unsigned blocks)
{
    for (unsigned i = 0; i < blocks; i++) {
        for (unsigned k = 2 + dice(g, 5); k; k--)
            plain(g);
        if (i + 1 < blocks)
            conditional(g);
    }
    *g->at++ = 0xc3;
    g->count++;
}

uint64_t gencode(uint8_t *code, uint64_t n, uint32_t seed, uint64_t *used)
{
    /* A table of calls first, then the functions they go to; the table is as long as it can be needed. */
    uint64_t calls = n / 40 + 1, made = 0;
    struct gen g = {code + 5 * calls + 1, seed, 0};
    for (; made < calls && g.count < n; made++) {
        uint8_t *call = code + 5 * made;
        call[0] = 0xe8;
        uint32_t rel = (uint32_t)(g.at - (call + 5));
        __builtin_memcpy(call + 1, &rel, 4);
        function(&g, 6 + dice(&g, 8));
        g.count++;
    }
    code[5 * made] = 0xc3;
    *used = (uint64_t)(g.at - code);
    return g.count + 1;
}

uint64_t gencode_call(const uint8_t *code, uint64_t *data)
{
    uint64_t r = 0;
    register uint64_t *base __asm__("rbx") = data;
    __asm__ volatile(
        "xorl %%ecx, %%ecx\n xorl %%edx, %%edx\n xorl %%esi, %%esi\n xorl %%edi, %%edi\n xorl %%r8d, %%r8d\n"
        "xorl %%r9d, %%r9d\n xorl %%r10d, %%r10d\n call *%2\n xorq %%rdi, %%rax\n xorq %%rdx, %%rax"
        : "+&a"(r), "+r"(base)
        : "r"((uint64_t)code)
        : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "memory", "cc");
    return r;
}

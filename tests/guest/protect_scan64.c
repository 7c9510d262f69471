/* tests/guest/protect_scan64.c - a kernel that looks for its monitor: every kind of access to upper-half addresses that it has not
 * mapped, where the 64-bit window would have the host's own user addresses (docs/WINDOW.md). All it may find are its own page faults.
 * Holds for the soft path, and is what a protected window would have to pass. */
#include "rt.h"

static uint8_t ist_stack[8192] __attribute__((aligned(16)));
static uint8_t saved_sp[8];
enum { LOAD, STORE, PUSH, CALL, STRING, LOCKED, SSE, XSAVE, KINDS };
static const char *const names[KINDS] = {"load", "store", "push", "call", "string", "lock", "sse", "xsave"};
static unsigned faults[KINDS], others[KINDS];
static uint64_t first_other;

static void access(unsigned kind, uint64_t at)
{
    switch (kind) {
    case LOAD: __asm__ volatile("movq (%0), %%rax" : : "r"(at) : "rax", "memory"); break;
    case STORE: __asm__ volatile("movl $0x5a5a5a5a, (%0)" : : "r"(at) : "memory"); break;
    case PUSH:
        __asm__ volatile("movq %%rsp, %1\n\t movq %0, %%rsp\n\t pushq $77\n\t movq %1, %%rsp"
                         :
                         : "r"(at + 8), "m"(saved_sp)
                         : "memory");
        break;
    case CALL: __asm__ volatile("call *(%0)" : : "r"(at) : "memory", "rax"); break;
    case STRING: __asm__ volatile("rep stosb" : : "D"(at), "c"(16ul), "a"(0x5a) : "memory"); break;
    case LOCKED: __asm__ volatile("lock orl $0, (%0)" : : "r"(at) : "memory", "cc"); break;
    case SSE: __asm__ volatile("movups (%0), %%xmm0" : : "r"(at) : "memory"); break;
    case XSAVE: __asm__ volatile("fxsave64 (%0)" : : "r"(at & ~1023ul) : "memory"); break;
    }
}

static void probe(unsigned kind, uint64_t at)
{
    if (rt_setjmp() == 0) {
        access(kind, at);
        rt_disarm();
    } else if (rt_exc.vec == 14 && (rt_exc_cr2 ^ at) < 4096) {
        faults[kind]++;
        return;
    }
    if (!others[kind]++ && !first_other)
        first_other = at;
}

static uint64_t next(void)
{
    static uint64_t x = 42;
    x ^= x << 13;
    x ^= x >> 7;
    return x ^= x << 17;
}

int main(void)
{
    const uint64_t hole = 0xffff800000001000ul; /* the host's address 0 */
    unsigned k = 0;
    write_cr4(read_cr4() | 0x600);
    rt_tss.ist[0] = (uint64_t)ist_stack + sizeof ist_stack;
    rt_idt[14 * 2] |= 1ull << 32;
    for (uint64_t at = 0; at < 0x80000000; at += 0x11000) /* text, heap, translations, CPU state: below 2 GiB */
        probe(k++ % KINDS, hole + at);
    for (uint64_t at = 0x400000; at < 0x600000; at += 0x1000)
        probe(k++ % KINDS, hole + at);
    for (unsigned i = 0; i < 16000; i++) /* guest memory, tables: the first 8 TiB */
        probe(k++ % KINDS, hole + next() % (8ul << 40) / 64 * 64);
    for (unsigned i = 0; i < 16000; i++) /* libraries and stack: the last TiB */
        probe(k++ % KINDS, 0 - (next() % (1ul << 40) / 64 + 64) * 64);
    for (k = 0; k < KINDS; k++)
        rt_printf("%s: %s, %u not\n", names[k], faults[k] > 1000 ? "page faults" : "too few", others[k]);
    if (first_other)
        rt_printf("first at %lx\n", first_other);
    return 0;
}

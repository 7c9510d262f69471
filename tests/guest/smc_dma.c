/* tests/guest/smc_dma.c - DMA into code that has run before: fw_cfg's DMA interface copies an item to memory, past the CPU.
 *
 * Item 0 is the signature "QEMU", zeros behind it: enough to change immediates, and to wipe whole pages. A serializing
 * instruction (CPUID) stands between the DMA and what it has written wherever the architecture wants one. */
#include "rt.h"

#define PD ((volatile uint32_t *)0x400000)
#define PT ((volatile uint32_t *)0x401000)
#define LIN(n) (0x800000u + (n)*0x1000u) /* through PT */
#define CODE(n) (0x500000u + (n)*0x1000u)
enum { P = 1, W = 2, U = 4, PS = 0x80 };

static volatile struct {
    uint32_t control, length;
    uint32_t addr_hi, addr_lo; /* all big-endian */
} cmd __attribute__((aligned(16), used));

static void cpuid(void)
{
    uint32_t a = 0, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d) : : "memory");
}
static void out32(uint16_t port, uint32_t v) { __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory"); }

static void prepare(uint32_t skip, uint32_t to, uint32_t n)
{
    cmd.control = __builtin_bswap32(0x8 | 0x4); /* select item 0, skip */
    cmd.length = __builtin_bswap32(skip);
    out32(0x514, 0);
    out32(0x518, __builtin_bswap32((uint32_t)&cmd));
    cmd.control = __builtin_bswap32(0x2); /* read on from there */
    cmd.length = __builtin_bswap32(n);
    cmd.addr_hi = 0;
    cmd.addr_lo = __builtin_bswap32(to);
    out32(0x514, 0);
}

static void start(void)
{
    out32(0x518, __builtin_bswap32((uint32_t)&cmd));
    if (cmd.control)
        rt_printf("[dma: control %x] ", __builtin_bswap32(cmd.control));
}

static void dma(uint32_t skip, uint32_t to, uint32_t n)
{
    prepare(skip, to, n);
    start();
    cpuid();
}

/* mov $imm, %eax; ret */
static void make(uint32_t at, uint32_t imm)
{
    *(volatile uint8_t *)at = 0xb8;
    *(volatile uint32_t *)(at + 1) = imm;
    *(volatile uint8_t *)(at + 5) = 0xc3;
    cpuid();
}

static unsigned call(uint32_t at)
{
    unsigned r;
    __asm__ volatile("call *%1" : "=a"(r) : "r"(at) : "ecx", "edx", "memory", "cc");
    return r;
}

static void one_function(void)
{
    make(CODE(0), 1);
    rt_printf("before %x ", call(CODE(0)));
    dma(0, CODE(0) + 1, 4);
    rt_printf("after %x ", call(CODE(0)));
    dma(4, CODE(0) + 1, 4);
    rt_printf("zeros %x ", call(CODE(0)));
    make(CODE(0), 0x01020304);
    rt_printf("by the CPU %x ", call(CODE(0)));
    dma(1, CODE(0) + 2, 1);
    rt_printf("one byte %x ", call(CODE(0)));
    dma(0, CODE(0) + 100, 200);
    rt_printf("elsewhere in the page %x\n", call(CODE(0)));
    unsigned good = 0;
    for (unsigned i = 0; i < 500; i++) {
        dma(i % 5, CODE(0) + 1, 4);
        uint32_t want = i % 5 == 4 ? 0 : 0x554d4551u >> 8 * (i % 5);
        good += call(CODE(0)) == want;
    }
    rt_printf("500 times: %u right\n", good);
}

static void pages(void)
{
    /* Functions at the end of one page, at the start of the next and across both. */
    make(CODE(1) - 6, 0x11111111);
    make(CODE(1) + 8, 0x22222222);
    make(CODE(2) - 3, 0x33333333);
    rt_printf("two pages: %x %x %x\n", call(CODE(1) - 6), call(CODE(1) + 8), call(CODE(2) - 3));
    dma(0, CODE(1) - 5, 4);
    dma(0, CODE(1) + 9, 4);
    dma(0, CODE(2) - 2, 4);
    rt_printf("each: %x %x %x\n", call(CODE(1) - 6), call(CODE(1) + 8), call(CODE(2) - 3));
    make(CODE(3) - 16, 0x44444444);
    make(CODE(4) + 16, 0x55555555);
    rt_printf("%x %x, ", call(CODE(3) - 16), call(CODE(4) + 16));
    dma(4, CODE(3) - 8, 0x1000 + 16); /* a page and a bit, behind the first, up to the second */
    rt_printf("between them wiped: %x %x\n", call(CODE(3) - 16), call(CODE(4) + 16));
    /* A wiped page runs through additions of AL to (EAX) into the function behind it. */
    static uint8_t byte;
    byte = 0;
    make(CODE(6), 0x66666666);
    make(CODE(5) + 0xff0, 0);
    call(CODE(5) + 0xff0);
    dma(4, CODE(5), 0x1000);
    unsigned r;
    __asm__ volatile("call *%1" : "=a"(r) : "r"(CODE(5) + 0xff0), "0"(&byte) : "memory", "cc");
    rt_printf("through a wiped page: %x, %u additions of %s\n", r, 8,
              byte == (uint8_t)(8 * (uintptr_t)&byte) ? "AL" : "?");
}

/* The instruction that starts the DMA lies in the page, and in the block, that it changes. */
static void running_page(void)
{
    static const uint8_t code[] = {
        0xef,                               /* out %eax, %dx */
        0x53, 0x31, 0xc0, 0x0f, 0xa2, 0x5b, /* push %ebx; xor %eax, %eax; cpuid; pop %ebx */
        0xb8, 0x01, 0x00, 0x00, 0x00,       /* mov $1, %eax */
        0xc3,
    };
    for (unsigned i = 0; i < 3; i++) {
        memcpy((void *)CODE(7), code, sizeof code);
        cpuid();
        prepare(i * 2, CODE(7) + 8, 4);
        unsigned r;
        __asm__ volatile("call *%1"
                         : "=a"(r)
                         : "r"(CODE(7)), "0"(__builtin_bswap32((uint32_t)&cmd)), "d"(0x518)
                         : "ecx", "memory", "cc");
        rt_printf("from the page itself: %x\n", r);
    }
    /* In a loop that is all in one page: the first DMA makes the counter's limit smaller. */
    static const uint8_t loop[] = {
        0x51, 0x52, 0x53, 0x31, 0xc0, 0x0f, 0xa2, 0x5b, 0x5a, 0x59, /* cpuid, registers kept */
        0x41,                                                       /* inc %ecx */
        0x83, 0xf9, 0x7f,                                           /* cmp $0x7f, %ecx */
        0x74, 0x0a,                                                 /* je to the ret */
        0x83, 0xf9, 0x02,                                           /* cmp $2, %ecx */
        0x75, 0xeb,                                                 /* jne back */
        0x89, 0xf0,                                                 /* mov %esi, %eax */
        0xef,                                                       /* out %eax, %dx */
        0xeb, 0xe6,                                                 /* jmp back */
        0xc3,
    };
    memcpy((void *)CODE(8), loop, sizeof loop);
    cpuid();
    prepare(0, CODE(8) + 13, 1); /* 'Q' = 0x51 */
    unsigned n = 0;
    __asm__ volatile("call *%1"
                     : "+c"(n)
                     : "r"(CODE(8)), "S"(__builtin_bswap32((uint32_t)&cmd)), "d"(0x518)
                     : "eax", "memory", "cc");
    rt_printf("a loop's limit: %x\n", n);
}

static void paged(void)
{
    memset((void *)PD, 0, 8192);
    for (unsigned i = 0; i < 4; i++)
        PD[i] = i << 22 | P | W | U | PS;
    PD[2] = (uint32_t)PT | P | W;
    for (unsigned i = 0; i < 4; i++)
        PT[i] = CODE(10) | P | (i & 1 ? W : 0);
    write_cr4(read_cr4() | 0x10);
    write_cr3((word)PD);
    write_cr0(read_cr0() | 0x80010000);
    make(LIN(1), 7);
    rt_printf("through four mappings: %x %x %x %x, ", call(LIN(0)), call(LIN(1)), call(LIN(2)), call(LIN(3)));
    dma(0, CODE(10) + 1, 4);
    rt_printf("after DMA %x %x %x %x\n", call(LIN(0)), call(LIN(1)), call(LIN(2)), call(LIN(3)));
    /* A page that is data and code by turns: written by the CPU, run, written by DMA, read, run. */
    unsigned good = 0;
    for (unsigned i = 0; i < 100; i++) {
        make(LIN(3) + 64, i);
        good += call(LIN(0) + 64) == i;
        dma(0, CODE(10) + 65, 4);
        good += *(volatile uint32_t *)(LIN(2) + 65) == 0x554d4551;
        good += call(LIN(2) + 64) == 0x554d4551;
    }
    rt_printf("data and code by turns: %u of 300\n", good);
    /* DMA over page tables: it takes effect with INVLPG, like any write to them. */
    make(CODE(11), 0xb);
    PT[8] = CODE(11) | P | W;
    rt_printf("entry %x, ", call(LIN(8)));
    dma(4, (uint32_t)&PT[8], 4);
    __asm__ volatile("invlpg (%0)" : : "r"(LIN(8)) : "memory");
    TRY_ASM("wiped by DMA", "call *%%eax", "a"(LIN(8)));
}

int main(void)
{
    rt_printf("fw_cfg DMA: %x\n", inb(0x514) == 'Q');
    one_function();
    pages();
    running_page();
    paged();
    return 0;
}

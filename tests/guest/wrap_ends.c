/* tests/guest/wrap_ends.c - code and data at the ends of pages, of 64 KiB and of 4 GiB. */
#include "rt.h"

#define PD ((volatile uint32_t *)0x400000)
#define PT0 ((volatile uint32_t *)0x401000) /* linear 0 */
#define PTF ((volatile uint32_t *)0x402000) /* linear 0xffc00000 */
#define PAGE(n) (0x500000u + (n)*0x1000u)
enum { P = 1, W = 2, U = 4, PS = 0x80 };

static void paging_on(void)
{
    memset((void *)PD, 0, 0x3000);
    for (unsigned i = 0; i < 8; i++)
        PD[i] = i << 22 | P | W | PS;
    /* Page 0 and the last page are next to each other in memory, so that a wrap runs on. */
    PD[0] = (uint32_t)PT0 | P | W;
    for (unsigned i = 0; i < 1024; i++)
        PT0[i] = i << 12 | P | W;
    PT0[0] = PAGE(1) | P | W;
    PD[1023] = (uint32_t)PTF | P | W;
    PTF[1023] = PAGE(0) | P | W;
    write_cr4(read_cr4() | 0x10);
    write_cr3((word)PD);
    write_cr0(read_cr0() | 0x80000000);
}

static unsigned call(uint32_t at)
{
    unsigned r;
    __asm__ volatile("call *%1" : "=a"(r) : "r"(at) : "ecx", "edx", "memory", "cc");
    return r;
}

static void data_4g(void)
{
    *(volatile uint32_t *)(PAGE(0) + 0xffc) = 0x44332211;
    *(volatile uint32_t *)PAGE(1) = 0x88776655;
    uint32_t a, b;
    __asm__ volatile("movl $-2, %%ecx\n movl (%%ecx), %0" : "=r"(a) : : "ecx");
    __asm__ volatile("movl $-4, %%ecx\n movl 4(%%ecx), %0" : "=r"(b) : : "ecx");
    rt_printf("read over 4 GiB %08x, displacement wraps %08x\n", a, b);
    __asm__ volatile("movl $-1, %%ecx\n movl $0xddccbbaa, (%%ecx)" : : : "ecx", "memory");
    rt_printf("written %08x %08x\n", *(volatile uint32_t *)(PAGE(0) + 0xffc), *(volatile uint32_t *)PAGE(1));
    PT0[0] = 0;
    __asm__ volatile("invlpg 0" : : : "memory");
    TRY("read over 4 GiB into an absent page", __asm__ volatile("movl $-2, %%ecx\n" AT "cmpl $0, (%%ecx)"
                                                                :
                                                                :
                                                                : "ecx", "cc"));
    PT0[0] = PAGE(1) | P | W;
}

static void code_4g(void)
{
    /* mov $imm, %eax; ret from 0xfffffffe on */
    memcpy((void *)(PAGE(0) + 0xffe), "\xb8\x44", 2);
    memcpy((void *)PAGE(1), "\x33\x22\x11\xc3", 4);
    rt_printf("instruction over 4 GiB %08x\n", call(0xfffffffe));
    memcpy((void *)(PAGE(0) + 0xffe), "\x31\xc0", 2); /* xor %eax, %eax, then on at 0 */
    memcpy((void *)PAGE(1), "\x40\xc3", 2);
    rt_printf("falls through to 0: %08x\n", call(0xfffffffe));
    memcpy((void *)(PAGE(0) + 0xff0), "\xe9\x0b\x01\x00\x00", 5); /* jmp to 0x100 */
    memcpy((void *)(PAGE(1) + 0x100), "\xb8\x07\x00\x00\x00\xc3", 6);
    rt_printf("jumps over 4 GiB: %08x\n", call(0xfffffff0));
    memcpy((void *)(PAGE(1) + 0x200), "\xe9\xdb\xfd\xff\xff", 5); /* back to 0xffffffe0 */
    memcpy((void *)(PAGE(0) + 0xfe0), "\xb8\x09\x00\x00\x00\xc3", 6);
    rt_printf("jumps back over 0: %08x\n", call(0x200));
    memcpy((void *)(PAGE(0) + 0xff8), "\xe8\x03\x01\x00\x00\xc3", 6); /* call 0x100 */
    rt_printf("calls over 4 GiB: %08x\n", call(0xfffffff8));
}

static void page_ends(void)
{
    /* Every split of a 10-byte instruction over a page boundary, in one mapping where the second page is elsewhere. */
    static const uint8_t insn[] = {0xc7, 0x05, 0x00, 0x00, 0x50, 0x00,
                                   0x78, 0x56, 0x34, 0x12, 0xc3}; /* movl $0x12345678, 0x500000 */
    unsigned good = 0;
    PT0[0x300] = PAGE(20) | P | W;
    PT0[0x301] = PAGE(30) | P | W;
    for (unsigned before = 1; before <= 10; before++) {
        memcpy((void *)(0x301000 - before), insn, before);
        memcpy((void *)0x301000, insn + before, sizeof insn - before);
        *(volatile uint32_t *)0x500000 = 0;
        call(0x301000 - before);
        good += *(volatile uint32_t *)0x500000 == 0x12345678;
    }
    rt_printf("splits that work: %u of 10\n", good);
    /* The instruction ends with the page and the next page is absent: no fault until it is reached. */
    PT0[0x301] = 0;
    __asm__ volatile("invlpg 0x301000" : : : "memory");
    memcpy((void *)(0x301000 - 11), insn, 11);
    call(0x301000 - 11);
    rt_printf("code that ends with its page: ok\n");
    memcpy((void *)(0x301000 - 10), insn, 10);
    TRY_ASM("runs into an absent page", "call *%%ecx", "c"(0x301000 - 10));
    rt_printf("  eip %lx, store was done %d\n", rt_exc.ip, *(volatile uint32_t *)0x500000 == 0x12345678);
    memcpy((void *)(0x301000 - 9), insn, 9);
    TRY_ASM("instruction cut off by an absent page", "call *%%ecx", "c"(0x301000 - 9));
    rt_printf("  eip %lx\n", rt_exc.ip);
    *(volatile uint8_t *)(0x301000 - 2) = 0xeb; /* jmp short back, last bytes of the page */
    *(volatile uint8_t *)(0x301000 - 1) = 0xf4;
    memcpy((void *)(0x301000 - 12), "\xb8\x05\x00\x00\x00\xc3", 6);
    rt_printf("jump in the last bytes: %x\n", call(0x301000 - 2));
    *(volatile uint8_t *)(0x301000 - 2) =
        0x74; /* jz over the end: not taken runs into the absent page, taken does not */
    TRY("jcc in the last bytes", unsigned r; __asm__ volatile("xorl %%eax, %%eax\n call *%1"
                                                              : "=a"(r)
                                                              : "r"(0x301000 - 2)
                                                              : "memory", "cc");
        rt_printf("%x ", r));
    TRY("jcc not taken", unsigned r; __asm__ volatile("orl $1, %%eax\n call *%1"
                                                      : "=a"(r)
                                                      : "r"(0x301000 - 2), "0"(1)
                                                      : "memory", "cc"));
    rt_printf("  eip %lx\n", rt_exc.ip);
}

int main(void)
{
    paging_on();
    data_4g();
    code_4g();
    page_ends();
    return 0;
}

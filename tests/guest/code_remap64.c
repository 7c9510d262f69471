/* tests/guest/code_remap64.c - code whose mapping changes, in long mode: other pages under an address, one page at several, large pages
 * split, what INVLPG, CR3 and CR4.PGE end; code that ends with its page while the next one is absent, NX or a supervisor's.
 *
 * Where an entry has changed and nothing was invalidated yet, the old or the new code may run, and nothing else (SDM 3A 4.10). */
#include "rt.h"

extern volatile uint64_t rt_pml4[512];
/* Slot 256 of the PML4, 0xffff800000000000, and slot 1, 0x8000000000, belong to the tests; they share everything below. */
#define PDPT ((volatile uint64_t *)0x400000)
#define PD ((volatile uint64_t *)0x401000)
#define PT ((volatile uint64_t *)0x402000)
#define PAGE(n) (0x600000ul + (n)*0x1000ul)
#define HIGH 0xffff800000000000ul
#define LOW 0x8000000000ul
enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80, G = 0x100 };
#define NX (1ull << 63)

static word origin; /* HIGH or LOW */
#define LIN(n) (origin + (n)*0x1000ul)

static void flush(void) { write_cr3(read_cr3()); }
static void invlpg(word lin) { __asm__ volatile("invlpg (%0)" : : "r"(lin) : "memory"); }

/* mov $imm, %eax; ret */
static void make(word at, uint32_t imm)
{
    *(volatile uint8_t *)at = 0xb8;
    *(volatile uint32_t *)(at + 1) = imm;
    *(volatile uint8_t *)(at + 5) = 0xc3;
}

static unsigned call(word at)
{
    unsigned r;
    __asm__ volatile("call *%1" : "=a"(r) : "r"(at) : "rcx", "rdx", "memory", "cc");
    return r;
}

static void map(unsigned n, word page, uint64_t bits)
{
    PT[n] = page | P | bits;
    invlpg(LIN(n));
}

static void other_page(void)
{
    for (unsigned i = 0; i < 8; i++) {
        make(PAGE(i), 100 + i);
        make(PAGE(i) + 0x800, 200 + i);
    }
    unsigned good = 0;
    for (unsigned i = 0; i < 400; i++) {
        map(0, PAGE(i & 7), W);
        good += call(LIN(0)) == 100 + (i & 7);
        good += call(LIN(0) + 0x800) == 200 + (i & 7);
    }
    rt_printf("remapped with INVLPG: %u of 800\n", good);
    good = 0;
    for (unsigned i = 0; i < 400; i++) {
        PT[0] = PAGE(i & 7) | P | W;
        flush();
        good += call(LIN(0)) == 100 + (i & 7);
    }
    rt_printf("with CR3: %u of 400\n", good);
    good = 0;
    for (unsigned i = 0; i < 400; i++) {
        unsigned old = 100 + (i + 7) % 8, new = 100 + i % 8;
        map(0, PAGE((i + 7) % 8), W);
        good += call(LIN(0)) == old;
        PT[0] = PAGE(i % 8) | P | W;
        unsigned r = call(LIN(0));
        good += r == old || r == new;
        invlpg(LIN(0));
        good += call(LIN(0)) == new;
    }
    rt_printf("without: old or new: %u of 1200\n", good);
    /* Absent before: nothing that is not present is ever in a TLB, so no INVLPG is needed. */
    good = 0;
    for (unsigned i = 0; i < 100; i++) {
        PT[1] = 0;
        invlpg(LIN(1));
        if (rt_setjmp() == 0)
            call(LIN(1));
        else
            good += rt_exc.vec == 14 && rt_exc.err == 0x10 && rt_exc_cr2 == LIN(1) && rt_exc.ip == LIN(1);
        PT[1] = PAGE(i & 7) | P;
        good += call(LIN(1)) == 100 + (i & 7);
    }
    rt_printf("absent, then present without INVLPG: %u of 200\n", good);
}

static void globals(void)
{
    write_cr4(read_cr4() | 0x80);
    unsigned good = 0;
    for (unsigned i = 0; i < 50; i++) {
        map(2, PAGE(i & 7), W | G);
        good += call(LIN(2)) == 100 + (i & 7);
        PT[2] = PAGE((i + 1) & 7) | P | W | G;
        flush(); /* does not have to end it */
        unsigned r = call(LIN(2));
        good += r == 100 + (i & 7) || r == 100 + ((i + 1) & 7);
        if (i & 1) {
            write_cr4(read_cr4() & ~0x80ul);
            write_cr4(read_cr4() | 0x80);
        } else
            invlpg(LIN(2));
        good += call(LIN(2)) == 100 + ((i + 1) & 7);
    }
    rt_printf("global: %u of 150\n", good);
    write_cr4(read_cr4() & ~0x80ul);
}

static void aliases(void)
{
    for (unsigned i = 0; i < 4; i++)
        map(4 + i, PAGE(10), W);
    make(PAGE(10), 1);
    rt_printf("one page four times: %u %u %u %u", call(LIN(4)), call(LIN(5)), call(LIN(6)), call(LIN(7)));
    make(LIN(6), 2);
    rt_printf(", written through one %u %u %u %u", call(LIN(4)), call(LIN(5)), call(LIN(6)), call(LIN(7)));
    make(PAGE(10), 3);
    rt_printf(", through the identity map %u %u %u %u\n", call(LIN(4)), call(LIN(5)), call(LIN(6)), call(LIN(7)));
    /* Position matters although the bytes are the same: lea 0(%rip), %rax; ret */
    memcpy((void *)PAGE(11), "\x48\x8d\x05\x00\x00\x00\x00\xc3", 8);
    bool good = true;
    for (unsigned i = 0; i < 20; i++) {
        map(4 + (i & 3), PAGE(11), 0);
        word r;
        __asm__ volatile("call *%1" : "=a"(r) : "r"(LIN(4 + (i & 3))) : "memory");
        good = good && r == LIN(4 + (i & 3)) + 7;
    }
    rt_printf("rip-relative in each: %d\n", good);
    /* Two copies of a jump over the page's end; the second page differs by address. */
    memcpy((void *)(PAGE(12) + 0xffb), "\xe9\x00\x00\x00\x00", 5); /* jmp to the next page */
    make(PAGE(13), 13);
    make(PAGE(14), 14);
    map(8, PAGE(12), 0);
    map(9, PAGE(13), 0);
    map(10, PAGE(12), 0);
    map(11, PAGE(14), 0);
    rt_printf("into the next page, from the same one at two addresses:");
    for (unsigned i = 0; i < 4; i++)
        rt_printf(" %u", call(LIN(8 + 2 * (i & 1)) + 0xffb));
    memcpy((void *)(PAGE(12) + 0xffd), "\xb8\x01\x00", 3); /* mov $x, %eax over the end */
    memcpy((void *)PAGE(13), "\x0d\x00\xc3", 3);
    memcpy((void *)PAGE(14), "\x0e\x00\xc3", 3);
    rt_printf(", an instruction over the end:");
    for (unsigned i = 0; i < 4; i++)
        rt_printf(" %x", call(LIN(8 + 2 * (i & 1)) + 0xffd));
    rt_printf("\n");
}

static void sizes(void)
{
    /* 2 MiB pages in slots 1 and 2 of the PD: the same code at 0x800000 and 0xa00000 + 0x3000. */
    make(0x803000, 31);
    make(0xa03000, 32);
    word at = origin + 0x203000;
    PD[1] = 0x800000 | P | W | PS;
    flush();
    rt_printf("large page %u", call(at));
    PD[1] = 0xa00000 | P | W | PS;
    invlpg(at + 0x100000); /* any address in it will do */
    rt_printf(", another %u", call(at));
    volatile uint64_t *pt = (volatile uint64_t *)0x403000;
    for (unsigned i = 0; i < 512; i++)
        pt[i] = (0xa00000ul + i * 0x1000ul) | P | W;
    PD[1] = (word)pt | P | W;
    flush();
    rt_printf(", split %u", call(at));
    pt[3] = 0x803000 | P | W;
    invlpg(at);
    rt_printf(", one page of it exchanged %u", call(at));
    PD[1] = 0xa00000 | P | W | PS;
    flush();
    rt_printf(", joined %u\n", call(at));
}

/* Where the exception left off, if there was one. */
static void where(word from, bool eax)
{
    if (rt_exc.vec != 255)
        rt_printf("  rip+%lx", rt_exc.ip - from);
    if (rt_exc.vec != 255 && eax)
        rt_printf(" eax %lx", rt_exc.ax & 0xff);
    if (rt_exc.vec != 255)
        rt_printf("\n");
    rt_exc.vec = 255;
}

/* Code that runs, or does not, over the end of a page. bits: of the second page's entry; 0: absent. */
static void page_end(const char *name, uint64_t bits)
{
    rt_printf("-- next page %s\n", name);
    rt_exc.vec = 255;
    map(12, PAGE(20), W);
    PT[13] = bits ? PAGE(21) | bits : 0;
    invlpg(LIN(13));
    for (unsigned i = 0; i < 16; i++)
        *(volatile uint8_t *)(PAGE(21) + i) = 0xc3;
    make(PAGE(20) + 0xffa, 5); /* all of it in the page */
    TRY("ends with the page", rt_printf("%u ", call(LIN(12) + 0xffa)));
    memcpy((void *)(PAGE(20) + 0xffb), "\xb8\x06\x00\x00\x00", 5);
    TRY("runs on into the next", rt_printf("%u ", call(LIN(12) + 0xffb)));
    where(LIN(13), true);
    *(volatile uint8_t *)PAGE(21) = 0;
    memcpy((void *)(PAGE(20) + 0xffc), "\xb8\x07\x00\x00", 4);
    TRY("an instruction over the end", rt_printf("%u ", call(LIN(12) + 0xffc)));
    where(LIN(12), false);
    /* A block of several: the fault belongs to the last, with what the others have done. */
    memcpy((void *)(PAGE(20) + 0xff7), "\x31\xc0\xff\xc0\xff\xc0\xff\xc0\x05", 9);
    memcpy((void *)PAGE(21), "\x04\x00\x00\x00\xc3", 5);
    TRY("increments, then that", rt_printf("%u ", call(LIN(12) + 0xff7)));
    where(LIN(12), true);
    memcpy((void *)(PAGE(20) + 0xffe), "\xeb\xf8", 2); /* jump back in the last bytes */
    make(PAGE(20) + 0xff8, 8);
    TRY("a jump back at the end", rt_printf("%u ", call(LIN(12) + 0xffe)));
    memcpy((void *)(PAGE(20) + 0xffe), "\x74\xf8", 2);
    TRY("je taken", unsigned r; __asm__ volatile("xorl %%eax, %%eax\n call *%1"
                                                 : "=a"(r)
                                                 : "r"(LIN(12) + 0xffe)
                                                 : "memory");
        rt_printf("%u ", r));
    *(volatile uint8_t *)PAGE(21) = 0xc3;
    TRY("je not taken", unsigned r; __asm__ volatile("orl $9, %%eax\n call *%1"
                                                     : "=a"(r)
                                                     : "r"(LIN(12) + 0xffe), "0"(9)
                                                     : "memory");
        rt_printf("%u ", r));
    *(volatile uint8_t *)(PAGE(20) + 0xfff) = 0xf3; /* a prefix is the page's last byte */
    *(volatile uint8_t *)PAGE(21) = 0xc3;
    TRY("a prefix before the end", call(LIN(12) + 0xfff));
    where(LIN(12), false);
}

static word user_at;
static void user_jump(void) { __asm__ volatile("movl $3, %%eax\n jmp *%0" : : "r"(user_at) : "rax"); }

/* At ring 3, the next page is a supervisor's, or not. */
static void user_end(const char *name, uint64_t bits)
{
    map(12, PAGE(20), W | U);
    PT[13] = PAGE(21) | bits;
    invlpg(LIN(13));
    memcpy((void *)(PAGE(20) + 0xffe), "\xff\xc0", 2);
    memcpy((void *)PAGE(21), "\xff\xc0\xcd\x80", 4);
    user_at = LIN(12) + 0xffe;
    TRY(name, rt_user(user_jump));
    where(LIN(12), true);
}

static void everything(word at)
{
    origin = at;
    rt_printf("==== at %lx\n", origin);
    other_page();
    globals();
    aliases();
    sizes();
    page_end("present", P | W);
    page_end("absent", 0);
    page_end("NX", P | W | NX);
    page_end("reserved bit", P | W | 1ull << 51);
    user_end("ring 3, user page", P | W | U);
    user_end("ring 3, supervisor page", P | W);
    user_end("ring 3, NX page", P | W | U | NX);
    /* The same once more: what was learnt before must not stay. */
    page_end("present again", P | W);
}

int main(void)
{
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
    write_cr0(read_cr0() | 0x10000);
    memset((void *)PDPT, 0, 0x4000);
    PDPT[0] = (word)PD | P | W | U;
    PD[0] = (word)PT | P | W | U;
    rt_pml4[256] = rt_pml4[1] = (word)PDPT | P | W | U;
    everything(HIGH);
    everything(LOW);
    /* Both at once: the same tables in two places. */
    origin = HIGH;
    map(0, PAGE(0), W);
    unsigned good = 0;
    for (unsigned i = 0; i < 200; i++) {
        PT[0] = PAGE(i & 7) | P | W;
        invlpg(HIGH);
        invlpg(LOW);
        good += call(HIGH) == 100 + (i & 7);
        good += call(LOW) == 100 + (i & 7);
    }
    rt_printf("both: %u of 400\n", good);
    return 0;
}

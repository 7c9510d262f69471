/* tests/guest/paging_smap64.c - SMEP and SMAP if they are offered. */
#include "rt.h"

extern volatile uint64_t rt_pml4[512], rt_pdpt[512];
/* Slot 256 of the PML4, 0xffff800000000000, belongs to the tests. */
#define PDPT ((volatile uint64_t *)0x400000)
#define PD ((volatile uint64_t *)0x401000)
#define PT ((volatile uint64_t *)0x402000)
#define PAGE(n) (0x500000ul + (n)*0x1000ul)
#define LIN(n) (0xffff800000000000ul + (n)*0x1000ul)
enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80, G = 0x100 };
#define NX (1ull << 63)

#define TRY_READ(name, lin) TRY_ASM(name, "cmpl $0, (%%rcx)", "c"(lin))
#define TRY_WRITE(name, lin) TRY_ASM(name, "movl $7, (%%rcx)", "c"(lin))
#define TRY_CALL(name, lin) TRY_ASM(name, "call *%%rcx", "c"(lin))

static void flush(void) { write_cr3(read_cr3()); }

static void set(uint64_t pml4e, uint64_t pdpte, uint64_t pde, uint64_t pte)
{
    rt_pml4[256] = pml4e;
    PDPT[0] = pdpte;
    PD[0] = pde;
    PT[0] = pte;
    flush();
    *(volatile uint16_t *)PAGE(0) = 0x80cd;
}

#define T3 ((uint64_t)PDPT | P | W | U)
#define T2 ((uint64_t)PD | P | W | U)
#define T1 ((uint64_t)PT | P | W | U)
#define T0 (PAGE(0) | P | W | U)

static void smep_smap(void)
{
    set(T3, T2, T1, T0);
    /* The runtime itself runs on user pages: make the image's supervisor for this part. */
    volatile uint64_t *pd = (volatile uint64_t *)(rt_pdpt[0] & ~0xfffull);
    const uint64_t image = pd[0];
    pd[0] &= ~(uint64_t)U;
    flush();
    write_cr4(read_cr4() | 0x100000);
    *(volatile uint8_t *)PAGE(0) = 0xc3;
    TRY_CALL("SMEP: fetch from a user page", LIN(0));
    TRY_READ("SMEP: read of a user page", LIN(0));
    PT[0] &= ~(uint64_t)U;
    flush();
    TRY_CALL("SMEP: fetch from a supervisor page", LIN(0));
    PT[0] = 0;
    flush();
    TRY_CALL("SMEP: fetch from an absent page", LIN(0));
    wrmsr(0xc0000080, rdmsr(0xc0000080) & ~0x800ull);
    TRY_CALL("SMEP without NXE: fetch from an absent page", LIN(0));
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
    set(T3, T2, T1, T0);
    write_cr4((read_cr4() & ~0x100000ul) | 0x200000);
    *(volatile uint8_t *)0x1ff000 = 0;
    TRY_READ("SMAP: read of a user page", LIN(0));
    TRY_WRITE("SMAP: write", LIN(0));
    TRY("SMAP: with stac", __asm__ volatile("stac\n" AT "cmpl $0, (%0)\n clac" : : "r"(LIN(0)) : "memory", "cc"));
    TRY("SMAP: again after clac", __asm__ volatile(AT "cmpl $0, (%0)" : : "r"(LIN(0)) : "memory", "cc"));
    TRY("SMAP: popf with AC", __asm__ volatile("pushf\n orl $0x40000, (%%rsp)\n popf\n" AT "movl $1, (%0)\n clac"
                                               :
                                               : "r"(LIN(0))
                                               : "memory", "cc"));
    write_cr4(read_cr4() & ~0x200000ul);
    TRY("stac without SMAP in use", __asm__ volatile(AT "stac\n clac" : : : "cc"));
    pd[0] = image;
    flush();
}

int main(void)
{
    uint32_t eax = 7, ebx, ecx = 0, edx;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    if ((ebx & 0x100080) != 0x100080) {
        rt_printf("[skip] SMEP and SMAP are not offered\n");
        return 0;
    }
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
    smep_smap();
    return 0;
}

/* bench/guest/nano.c - nanobenchmarks: what one privileged operation costs, in TSC ticks, as in Adams and Agesen (2006).
 *
 * Each figure contains the two instructions of the loop ("loop" is the loop with a NOP). The native program has the few
 * operations that a user process can do.
 */
#include "harness.h"
#include <stddef.h>

typedef uint64_t nano_op(uint64_t n, uint64_t arg);
nano_op nano_loop, nano_callret, nano_popf, nano_cpuid, nano_rdtsc, nano_seg_load;
#ifndef BENCH_NATIVE
nano_op nano_cli_sti, nano_pushf, nano_rdmsr, nano_wrmsr, nano_swapgs, nano_cr8wr, nano_cr0rd, nano_clts, nano_cr3wr;
nano_op nano_invlpg, nano_in, nano_out, nano_mmio_read, nano_mmio_write, nano_pgfault, nano_divzero, nano_int80;
nano_op nano_user_read, nano_code_write, nano_ptemod, nano_pte_remap, nano_ctx_switch, nano_self_ipi, nano_gaps,
    nano_syscall;
#endif

/* Doubles n until a run is long enough, then takes the samples. ops: what one turn counts as. */
static void measure(const char *name, nano_op *fn, uint64_t arg, unsigned ops)
{
    if (!harness_wanted(name))
        return;
    uint64_t took[MAX_SAMPLES], n = 8, t = 0, again, length = sample_ticks();
    for (;; n *= 2) {
        uint64_t start = ticks();
        call_high((uint64_t)fn + HIGH, n, arg);
        t = ticks() - start;
        if (t < length / 4)
            continue;
        /* It may have been disturbed. */
        start = ticks();
        call_high((uint64_t)fn + HIGH, n, arg);
        again = ticks() - start;
        t = again < t ? again : t;
        if (t >= length / 4)
            break;
    }
    n = n * length / t + 1;
    for (unsigned i = 0; i < harness_samples; i++) {
        harness_begin(name);
        uint64_t start = ticks();
        call_high((uint64_t)fn + HIGH, n, arg);
        took[i] = ticks() - start;
        harness_end(name);
    }
    harness_report(name, 0, n * ops, took);
}

#ifdef BENCH_NATIVE
void bench_main(void)
{
    measure("loop", nano_loop, 0, 1);
    measure("callret", nano_callret, 0, 1);
    measure("popf", nano_popf, 0, 1);
    measure("cpuid", nano_cpuid, 0, 1);
    measure("rdtsc", nano_rdtsc, 0, 1);
    measure("seg-load", nano_seg_load, 0, 1);
}
#else
#define LAPIC 0xfee00000ul
/* Two roots that differ in one page of the upper half, with 4 KiB pages. */
#define VIEW (HIGH + (1ul << 39))
extern uint64_t rt_pml4[512], rt_pdpt[512];
extern uint8_t nano_beside_code[], nano_syscall_entry[], nano_on_pgfault[], nano_on_divzero[], nano_on_int[],
    nano_on_irq[];
static uint64_t other_pml4[512] __attribute__((aligned(4096)));
static uint64_t view_tables[2][3][512] __attribute__((aligned(4096)));
static uint8_t view_pages[2][4096] __attribute__((aligned(4096)));

static void high_tables(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) idt = {sizeof rt_idt - 1, (uint64_t)rt_idt + HIGH},
                              gdt = {sizeof rt_gdt - 1, (uint64_t)rt_gdt + HIGH};
    __asm__ volatile("lidt %0; lgdt %1" : : "m"(idt), "m"(gdt));
}
static void gate(unsigned vec, const uint8_t *handler, unsigned type)
{
    rt_gate(vec, (void (*)(void))((uint64_t)handler + HIGH), SEL_KCODE, type);
}
static void make_views(void)
{
    for (unsigned i = 0; i < 2; i++) {
        view_tables[i][0][0] = (uint64_t)view_tables[i][1] + 3;
        view_tables[i][1][0] = (uint64_t)view_tables[i][2] + 3;
        view_tables[i][2][0] = (uint64_t)view_pages[i] + 3;
        view_tables[i][2][1] = (uint64_t)view_pages[1 - i] + 3;
    }
    rt_pml4[VIEW >> 39 & 511] = (uint64_t)view_tables[0][0] + 3;
    memcpy(other_pml4, rt_pml4, sizeof other_pml4);
    other_pml4[VIEW >> 39 & 511] = (uint64_t)view_tables[1][0] + 3;
    write_cr3(read_cr3());
}
static void lapic(unsigned reg, uint32_t v) { *(volatile uint32_t *)(HIGH + LAPIC + reg) = v; }

/* What an interrupt of the timer takes from the code it interrupts: entry, EOI, return and two readings of the clock. */
static void measure_timer(void)
{
    static uint64_t gaps[MAX_SAMPLES];
    if (!harness_wanted("timer-irq") || harness_outside)
        return;
    lapic(0x3e0, 0xb);
    lapic(0x320, 0x20040);
    lapic(0x380, 200000);
    call_high((uint64_t)nano_gaps + HIGH, harness_samples, (uint64_t)gaps + HIGH);
    lapic(0x320, 0x10040);
    lapic(0x380, 0);
    harness_report("timer-irq", 0, 1, gaps);
}

static void setup(void)
{
    high_tables();
    make_views();
    gate(0, nano_on_divzero, 0x8e);
    gate(14, nano_on_pgfault, 0x8e);
    gate(0x80, nano_on_int, 0xee);
    gate(0x40, nano_on_irq, 0x8e);
    gate(0x41, nano_on_irq, 0x8e);
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);
    wrmsr(0xc0000081, (uint64_t)SEL_UCODE << 48 | (uint64_t)SEL_KCODE << 32);
    wrmsr(0xc0000082, (uint64_t)nano_syscall_entry + HIGH);
    wrmsr(0xc0000084, 0x700);
    lapic(0xf0, 0x1ff);
}

void bench_main(void)
{
    setup();
    static uint64_t remap[4], roots[3];
    remap[0] = (uint64_t)&view_tables[0][2][0] + HIGH;
    remap[1] = (uint64_t)view_pages[0] ^ (uint64_t)view_pages[1];
    remap[2] = roots[2] = VIEW;
    remap[3] = VIEW + 4096;
    roots[0] = (uint64_t)other_pml4;
    roots[1] = (uint64_t)rt_pml4;
    measure("loop", nano_loop, 0, 1);
    measure("callret", nano_callret, 0, 1);
    measure("syscall", nano_syscall, 0, 1);
    measure("in", nano_in, 0, 1);
    measure("out", nano_out, 0, 1);
    measure("cr8wr", nano_cr8wr, 0, 1);
    measure("pgfault", nano_pgfault, HIGH + (8ul << 30), 1);
    measure("divzero", nano_divzero, 0, 1);
    measure("int80", nano_int80, 0, 1);
    measure("ptemod", nano_ptemod, (uint64_t)remap + HIGH, 1);
    measure("pte-remap", nano_pte_remap, (uint64_t)remap + HIGH, 1);
    measure("invlpg", nano_invlpg, VIEW, 1);
    measure("cr3wr", nano_cr3wr, (uint64_t)rt_pml4, 1);
    measure("ctx-switch", nano_ctx_switch, (uint64_t)roots + HIGH, 2);
    measure("cli-sti", nano_cli_sti, 0, 1);
    measure("popf", nano_popf, 0, 1);
    measure("pushf", nano_pushf, 0, 1);
    measure("swapgs", nano_swapgs, 0, 1);
    measure("seg-load", nano_seg_load, SEL_KDATA, 1);
    measure("cpuid", nano_cpuid, 0, 1);
    measure("rdtsc", nano_rdtsc, 0, 1);
    measure("rdmsr", nano_rdmsr, 0, 1);
    measure("wrmsr", nano_wrmsr, 0, 1);
    measure("cr0rd", nano_cr0rd, 0, 1);
    measure("clts", nano_clts, 0, 1);
    measure("mmio-read", nano_mmio_read, HIGH + LAPIC + 0x80, 1);
    measure("mmio-write", nano_mmio_write, HIGH + LAPIC + 0x80, 1);
    measure("user-read", nano_user_read, (uint64_t)view_pages[0], 1); /* a user page, lower half */
    measure("code-write", nano_code_write, (uint64_t)nano_beside_code + HIGH, 1);
    measure("self-ipi", nano_self_ipi, HIGH + LAPIC + 0x300, 1);
    measure_timer();
}
#endif

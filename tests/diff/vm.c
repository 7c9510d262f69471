/* tests/diff/vm.c - the VM backend: each case as a CPL 3 program in long mode, ended by its trap.
 *
 * The guest has what a Linux process sees: the same linear addresses, selectors and descriptors; a GDT, LDT, IDT, TSS and a
 * stack that only CPL 0 can reach. All 256 handlers are one HLT each, so vcpu_run comes back at the first trap or fault with
 * the vector in RIP and the machine's own frame on the stack: delivery is tested along with the instruction.
 */
#include "monitor/engine.h"
#include "monitor/vcpu.h"
#include "shadowmmu/gpmem.h"
#include "tests/diff/dcase.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>

/* Guest physical layout. The first megabyte is also mapped, for CPL 0, at SUPER. */
#define SUPER 0xffff800000000000ull
#define GPA_GDT 0x10000u
#define GPA_LDT 0x11000u
#define GPA_IDT 0x12000u
#define GPA_TSS 0x13000u
#define GPA_HANDLERS 0x14000u
#define GPA_STACK 0x15000u
#define STACK_TOP (SUPER + GPA_STACK + PAGE_SIZE)
#define GPA_BACKING 0x100000u
#define GPA_TABLES 0x200000u
#define RAM_BYTES 0x400000u
/* The host's GDT as Linux lays it out, where CPL 3 can see it. */
#define GDT_ENTRIES 16u
#define GDT_TSS 8u
#define GDT_LDT 10u
#define KERNEL_CS 0x10u
#define TICK_MS 250
#define HANG_TICKS 8

struct vmback {
    struct vm *vm;
    struct vcpu *v;
    uint8_t *ram;
    uint64_t next_table;
    const uint8_t *golden;
    bool ring0;
    const struct dt_case *cases;
    unsigned n;
    size_t fpu_bytes;
    uint8_t *fpu;
    struct cpu base; /* state common to all cases */
    struct dt_result results[DT_BATCH];
};

/* -- guest tables -- */

static uint64_t *table_of(struct vmback *b, uint64_t *entry)
{
    if (!(*entry & PTE_P)) {
        *entry = b->next_table | PTE_P | PTE_W | PTE_U | PTE_A;
        b->next_table += PAGE_SIZE;
    }
    return (uint64_t *)(b->ram + (*entry & 0xfffff000u));
}

static void map_page(struct vmback *b, uint64_t lin, uint64_t gpa, uint64_t flags)
{
    uint64_t *t = (uint64_t *)(b->ram + GPA_TABLES);
    for (unsigned shift = 39; shift > 12; shift -= 9)
        t = table_of(b, &t[lin >> shift & 511]);
    t[lin >> 12 & 511] = gpa | flags | PTE_P;
}

static void build_tables(struct vmback *b)
{
    b->next_table = GPA_TABLES + PAGE_SIZE;
    for (uint64_t gpa = 0; gpa < GPA_BACKING; gpa += PAGE_SIZE)
        map_page(b, SUPER + gpa, gpa, PTE_W | PTE_A | PTE_D);
    for (const struct dt_map *m = dt_maps(); m->count; m++)
        for (uint64_t i = 0; i < m->count; i++)
            map_page(b, m->lin + i * PAGE_SIZE, GPA_BACKING + (m->page + i) * PAGE_SIZE,
                     (b->ring0 ? 0 : PTE_U) | (m->kind == 'W' ? PTE_W : 0) | (m->kind == 'X' ? 0 : PTE_NX));
}

static uint64_t flat_desc(unsigned type, unsigned dpl, unsigned l, unsigned db)
{
    uint64_t hi = 0x008f0000u | db << 22 | l << 21 | 1u << 15 | dpl << 13 | 1u << 12 | type << 8;
    return hi << 32 | 0xffff;
}

static void put_system_desc(uint64_t *gdt, unsigned index, unsigned type, uint64_t base, uint32_t limit)
{
    gdt[index] =
        (limit & 0xffff) | (base & 0xffffff) << 16 | (uint64_t)type << 40 | 1ull << 47 | (base >> 24 & 0xff) << 56;
    gdt[index + 1] = base >> 32;
}

static void build_descriptors(struct vmback *b)
{
    uint64_t *gdt = (uint64_t *)(b->ram + GPA_GDT), *ldt = (uint64_t *)(b->ram + GPA_LDT);
    gdt[1] = flat_desc(0xb, 0, 0, 1);
    gdt[2] = flat_desc(0xb, 0, 1, 0);
    gdt[3] = flat_desc(0x3, 0, 0, 1);
    gdt[4] = flat_desc(0xb, 3, 0, 1);
    gdt[5] = flat_desc(0x3, 3, 0, 1);
    gdt[6] = flat_desc(0xb, 3, 1, 0);
    gdt[15] = 0x0040f50000000000ull; /* Linux keeps the CPU's number in its limit: read-only, expand-down, DPL 3 */
    put_system_desc(gdt, GDT_TSS, DT_TSS_BUSY, SUPER + GPA_TSS, 103);
    put_system_desc(gdt, GDT_LDT, DT_LDT, SUPER + GPA_LDT, DT_LDT_COUNT * 8 - 1);
    for (unsigned i = 0; i < DT_LDT_COUNT; i++)
        ldt[i] = dt_ldt[i].limit ? dt_desc_bits(&dt_ldt[i]) : 0;
    uint64_t *idt = (uint64_t *)(b->ram + GPA_IDT), ist = b->ring0;
    for (unsigned i = 0; i < 256; i++) {
        uint64_t to = SUPER + GPA_HANDLERS + i * 16, dpl = i == EXC_BP || i == EXC_OF ? 3 : 0;
        idt[2 * i] = (to & 0xffff) | KERNEL_CS << 16 | ist << 32 | (uint64_t)DT_INT << 40 | dpl << 45 | 1ull << 47 |
                     (to >> 16 & 0xffff) << 48;
        idt[2 * i + 1] = to >> 32;
        b->ram[GPA_HANDLERS + i * 16] = 0xf4; /* HLT */
    }
    uint64_t top = STACK_TOP;
    memcpy(b->ram + GPA_TSS + 4, &top, 8);  /* RSP0 */
    memcpy(b->ram + GPA_TSS + 36, &top, 8); /* IST1: a case at CPL 0 keeps its stack */
    uint16_t iomap = 104;                   /* beyond the limit: no port is allowed */
    memcpy(b->ram + GPA_TSS + 102, &iomap, 2);
}

/* -- state -- */

static struct seg seg_from_desc(uint64_t d, uint16_t sel)
{
    struct seg s = {.sel = sel};
    s.base = (d >> 16 & 0xffffff) | (d >> 56) << 24;
    s.limit = (uint32_t)((d & 0xffff) | (d >> 32 & 0xf0000));
    s.attr = (uint32_t)(d >> 40 & 0xf0ff);
    if (s.attr & SEG_G)
        s.limit = s.limit << 12 | 0xfff;
    cpu_seg_cache(&s);
    return s;
}

static struct seg seg_of(const struct vmback *b, uint16_t sel)
{
    if (!(sel & 0xfffc)) {
        struct seg s = {.sel = sel, .attr = SEG_UNUSABLE};
        return s;
    }
    return seg_from_desc(*(uint64_t *)(b->ram + ((sel & 4) ? GPA_LDT : GPA_GDT) + (sel & 0xfff8)), sel);
}

static void system_segment(struct seg *s, uint16_t sel, uint64_t base, uint32_t limit, uint32_t type)
{
    *s = (struct seg){.sel = sel, .base = base, .limit = limit, .attr = type | SEG_P};
}

static void make_base_state(struct vmback *b)
{
    struct cpu *c = &b->base;
    vcpu_get_state(b->v, c);
    c->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    c->cr3 = GPA_TABLES;
    c->cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP;
    if (getauxval(AT_HWCAP2) >> 1 & 1)
        c->cr4 |= CR4_FSGSBASE;
    if (dt_xsave()->xcr0 & 4) {
        c->cr4 |= CR4_OSXSAVE;
        c->xcr0 = dt_xsave()->xcr0;
    }
    c->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    c->gdtr = (struct dtable){.base = SUPER + GPA_GDT, .limit = GDT_ENTRIES * 8 - 1};
    c->idtr = (struct dtable){.base = SUPER + GPA_IDT, .limit = 4095};
    system_segment(&c->seg[S_TR], GDT_TSS * 8, SUPER + GPA_TSS, 103, DT_TSS_BUSY);
    system_segment(&c->seg[S_LDTR], GDT_LDT * 8, SUPER + GPA_LDT, DT_LDT_COUNT * 8 - 1, DT_LDT);
    c->cpl = 3;
    c->shadow = 0;
    c->cr2 = 0;
}

static void to_ring0(struct cpu *c)
{
    static const unsigned seg[] = {S_CS, S_SS};
    c->cpl = 0;
    for (unsigned i = 0; i < 2; i++) {
        c->seg[seg[i]].sel &= 0xfffc;
        c->seg[seg[i]].attr &= ~SEG_DPL;
    }
}

static int load(struct vmback *b, const struct dt_case *k)
{
    struct cpu c = b->base;
    memcpy(c.gpr, k->regs.gpr, sizeof c.gpr);
    c.rip = k->regs.rip;
    cpu_set_eflags(&c, (uint32_t)k->regs.rflags);
    for (unsigned i = 0; i < DT_SEGS; i++)
        c.seg[i] = seg_of(b, k->regs.sel[i]);
    if (k->mode == DT_64) {
        c.seg[S_FS].base = k->regs.fsbase;
        c.seg[S_GS].base = k->regs.gsbase;
    }
    if (k->ring0)
        to_ring0(&c);
    cpu_update_key(&c);
    uint8_t *data = b->ram + GPA_BACKING;
    memcpy(data, b->golden, DT_DATA_BYTES);
    for (unsigned i = 0; i < k->n_patches; i++)
        memcpy(data + k->patch[i].off, k->patch[i].bytes, k->patch[i].len);
    memcpy(data + DT_DATA_BYTES + k->code_off, k->code, k->code_len);
    vm_invalidate_code(b->vm, GPA_BACKING + DT_DATA_BYTES, DT_CODE_BYTES);
    memset(b->fpu, 0, b->fpu_bytes);
    memcpy(b->fpu, k->fpu, dt_xsave()->bytes < b->fpu_bytes ? dt_xsave()->bytes : b->fpu_bytes);
    int err = vcpu_set_state(b->v, &c);
    return err ? err : vcpu_set_fpu(b->v, b->fpu, b->fpu_bytes);
}

/* The handler's HLT has been passed: vector from RIP, the interrupted state from the frame (SDM 3A 6.14.2). */
static bool read_frame(struct vmback *b, const struct cpu *c, struct dt_result *r)
{
    uint64_t at = c->rip - 1 - (SUPER + GPA_HANDLERS), depth = STACK_TOP - c->gpr[R_RSP];
    if (at >= 256 * 16 || at % 16 || (depth != 40 && depth != 48))
        return false;
    uint64_t f[6];
    memcpy(f, b->ram + (c->gpr[R_RSP] - SUPER), depth);
    const uint64_t *p = f + (depth == 48);
    r->vector = (uint32_t)(at / 16);
    r->error = depth == 48 ? (uint32_t)f[0] : 0;
    r->cr2 = c->cr2;
    r->regs.rip = p[0];
    r->regs.sel[DT_CS] = (uint16_t)p[1];
    r->regs.rflags = p[2];
    r->regs.gpr[4] = p[3];
    r->regs.sel[DT_SS] = (uint16_t)p[4];
    return true;
}

static void record(struct vmback *b, const struct dt_case *k, struct dt_result *r)
{
    struct cpu c;
    vcpu_get_state(b->v, &c);
    memcpy(r->regs.gpr, c.gpr, sizeof c.gpr);
    for (unsigned i = DT_DS; i < DT_SEGS; i++)
        r->regs.sel[i] = c.seg[i].sel;
    r->regs.sel[DT_ES] = c.seg[S_ES].sel;
    r->regs.fsbase = c.seg[S_FS].base;
    r->regs.gsbase = c.seg[S_GS].base;
    bool ended = read_frame(b, &c, r);
    if (k->ring0) { /* as on the CPU */
        r->regs.sel[DT_CS] |= 3;
        r->regs.sel[DT_SS] |= 3;
    }
    if (!ended) {
        if (!k->ring0) /* there a stray jump may lead anywhere */
            fprintf(stderr, "diff: case %llu: HLT at %#llx, cpl %u\n", (unsigned long long)k->number,
                    (unsigned long long)c.rip, c.cpl);
        r->vector = DT_VEC_DIED;
    }
    if (vcpu_get_fpu(b->v, b->fpu, b->fpu_bytes))
        r->vector = DT_VEC_DIED;
    memcpy(r->fpu, b->fpu, b->fpu_bytes < DT_FPU_MAX ? b->fpu_bytes : DT_FPU_MAX);
    memcpy(r->mem, b->ram + GPA_BACKING, DT_DATA_BYTES);
}

/* -- running, with a watchdog -- */

static struct vcpu *volatile watched;
static volatile sig_atomic_t ticks;
static void on_tick(int sig)
{
    if (watched && ++ticks >= HANG_TICKS)
        vcpu_kick(watched);
}

static int start_ticks(void)
{
    struct sigaction sa = {.sa_handler = on_tick, .sa_flags = SA_RESTART | SA_ONSTACK};
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 4};
    struct itimerspec its = {{0, TICK_MS * 1000000}, {0, TICK_MS * 1000000}};
    timer_t t;
    return sigaction(SIGRTMIN + 4, &sa, NULL) || timer_create(CLOCK_MONOTONIC, &ev, &t) ||
           timer_settime(t, 0, &its, NULL);
}

static enum vm_exit_reason run(struct vmback *b)
{
    ticks = 0;
    watched = b->v;
    enum vm_exit_reason why = vcpu_run(b->v);
    watched = NULL;
    return why;
}

static void run_case(struct vmback *b, const struct dt_case *k, struct dt_result *r)
{
    int err = load(b, k);
    enum vm_exit_reason why = err ? VM_EXIT_NONE : run(b);
    if (why == VM_EXIT_HLT) {
        record(b, k, r);
    } else if (why == VM_EXIT_KICK) {
        r->vector = DT_VEC_TIMEOUT; /* no mismatch if the CPU's run did not end either */
    } else {
        if (!k->ring0)
            fprintf(stderr, "diff: case %llu: exit %d (%s)\n", (unsigned long long)k->number, (int)why,
                    err ? "state refused" : vcpu_exit_info(b->v)->text);
        r->vector = DT_VEC_DIED;
    }
    memset(b->ram + GPA_BACKING + DT_DATA_BYTES + k->code_off, 0xcc, k->code_len);
}

static void vm_start(void *self, const struct dt_case *cases, unsigned n)
{
    struct vmback *b = self;
    b->cases = cases;
    b->n = n;
}

static const struct dt_result *vm_finish(void *self)
{
    struct vmback *b = self;
    for (unsigned i = 0; i < b->n; i++)
        run_case(b, &b->cases[i], &b->results[i]);
    return b->results;
}

static void vm_close(void *self)
{
    struct vmback *b = self;
    const struct stats *s = b->v->stats;
    if (b->ring0)
        printf("diff: window: %llu pages entered, %llu hidden and %llu true faults, %llu sites made soft\n",
               (unsigned long long)s->window_maps, (unsigned long long)s->window_hidden,
               (unsigned long long)s->window_true, (unsigned long long)s->window_softened);
    vm_destroy(b->vm);
    free(b->fpu);
    free(b);
}

static int setup(struct vmback *b, const struct dt_vm_config *cfg)
{
    static const struct vm_ops ops;
    struct vm_config c = {.user = VM_USER_TRANSLATED,
                          .tc_bytes = cfg->tc_bytes,
                          .no_chain = cfg->no_chain,
                          .max_insns = cfg->max_insns,
                          .evict_random = cfg->evict_random,
                          .force_exit = cfg->force_exit,
                          .seed = cfg->seed,
                          .cpu_model = "host"};
    int err = vm_create(&b->vm, &c, &ops, b);
    if (err)
        return err;
    err = vm_add_memory(b->vm, 0, RAM_BYTES, false);
    if (err)
        return err;
    b->ram = gpmem_ptr(vm_memory(b->vm), 0);
    b->v = vm_vcpu(b->vm, 0);
    b->ring0 = cfg->ring0;
    memset(b->ram + GPA_BACKING + DT_DATA_BYTES, 0xcc, DT_CODE_BYTES);
    build_tables(b);
    build_descriptors(b);
    make_base_state(b);
    /* The size follows XCR0: set the state once before asking. */
    err = vcpu_set_state(b->v, &b->base);
    b->fpu_bytes = vcpu_fpu_bytes(b->v);
    b->fpu = aligned_alloc(64, (b->fpu_bytes + 63) & ~63ull);
    return err;
}

int dt_vm_open(struct dt_backend *out, const uint8_t *golden, const struct dt_vm_config *cfg)
{
    struct vmback *b = aligned_alloc(_Alignof(struct vmback), sizeof *b);
    if (!b) {
        fprintf(stderr, "diff: out of memory\n");
        return -1;
    }
    memset(b, 0, sizeof *b);
    b->golden = golden;
    int err = setup(b, cfg);
    if (err || start_ticks()) {
        fprintf(stderr, "diff: no VM (%d)\n", err);
        return -1;
    }
    *out = (struct dt_backend){"vm", b, vm_start, vm_finish, vm_close};
    return 0;
}

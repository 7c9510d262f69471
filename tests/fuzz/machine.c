/* tests/fuzz/machine.c - builds and runs the machine that a fuzz input describes. */
#include "tests/fuzz/machine.h"
#include "base/err.h"
#include "monitor/vcpu.h"
#include "shadowmmu/gpmem.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Guest physical layout: RAM with a hole behind it, then a little ROM. */
#define RAM_BYTES 0x200000u
#define ROM_GPA 0x400000u
#define ROM_BYTES 0x10000u
#define HANDLERS16 0x600u
#define GDT 0x1000u
#define LDT 0x1800u
#define IDT 0x2000u
#define TSS 0x3000u
#define TSS2 0x3400u
#define ROOT 0x4000u /* page tables: four pages */
#define TABLES_BYTES 0x4000u
#define HANDLERS 0x8000u
#define CODE 0x10000u
#define DATA 0x20000u
#define STACK 0x2f000u
#define FUZZED_BYTES 0x30000u /* what mutations may reach */
#define MAX_EXITS 200u
/* GDT slots */
enum {
    G_CODE32 = 1,
    G_DATA32,
    G_CODE16,
    G_DATA16,
    G_CODE64,
    G_UCODE32,
    G_UDATA,
    G_UCODE64,
    G_UCODE16,
    G_TSS = 10,
    G_LDT = 12,
    G_CALL = 14,
    G_TASK = 16,
    G_TSS2 = 17,
    G_CONFORM = 19,
    G_DOWN = 20,
    G_COUNT = 32
};

struct input {
    const uint8_t *p, *end;
};
static uint64_t take(struct input *in, unsigned bytes)
{
    uint64_t v = 0;
    unsigned n = (size_t)(in->end - in->p) < bytes ? (unsigned)(in->end - in->p) : bytes;
    memcpy(&v, in->p, n);
    in->p += n;
    return v;
}

struct machine {
    struct vm *vm;
    struct vcpu *v;
    uint8_t *ram;
    unsigned kind;
    uint64_t io; /* state of the devices: a hash of all they were told */
    uint8_t vector;
};

/* -- devices: deterministic nonsense -- */

static uint64_t stir(struct machine *m, uint64_t x)
{
    m->io = (m->io ^ x) * 0x9e3779b97f4a7c15ull;
    return m->io >> 23;
}

static int on_pio(void *self, uint16_t port, unsigned size, bool is_write, uint32_t *val)
{
    uint64_t x =
        stir(self, port | (uint64_t)size << 16 | (uint64_t)is_write << 20 | (is_write ? (uint64_t)*val << 32 : 0));
    if (port & 8)
        return VM_IO_EXIT;
    if (!is_write)
        *val = (uint32_t)x;
    return VM_IO_DONE;
}

static int on_mmio(void *self, uint64_t gpa, unsigned size, bool is_write, uint8_t *data)
{
    uint64_t x = stir(self, gpa ^ (uint64_t)size << 50 ^ (uint64_t)is_write << 60);
    if (gpa & 0x1000)
        return VM_IO_EXIT;
    for (unsigned i = 0; !is_write && i < size; i++)
        data[i] = (uint8_t)(x >> (i & 7) * 8);
    return VM_IO_DONE;
}

static int on_ack(void *self) { return ((struct machine *)self)->vector; }

/* -- tables -- */

static void put64(struct machine *m, uint32_t gpa, uint64_t v) { memcpy(m->ram + gpa, &v, 8); }

static uint64_t descriptor(uint32_t base, uint32_t limit, unsigned access, unsigned nibble)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)nibble << 52 | (uint64_t)(base >> 24) << 56;
}

static uint64_t gate(unsigned sel, uint32_t off, unsigned access)
{
    return (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)access << 40 | (uint64_t)(off >> 16) << 48;
}

static void build_gdt(struct machine *m, struct input *in)
{
    bool lm = m->kind >= FUZZ_LONG;
    put64(m, GDT + 8 * G_CODE32, descriptor(0, 0xfffff, 0x9b, 12));
    put64(m, GDT + 8 * G_DATA32, descriptor(0, 0xfffff, 0x93, 12));
    put64(m, GDT + 8 * G_CODE16, descriptor(CODE, 0xffff, 0x9b, 0));
    put64(m, GDT + 8 * G_DATA16, descriptor(DATA, 0xffff, 0x93, 0));
    put64(m, GDT + 8 * G_CODE64, descriptor(0, 0xfffff, 0x9b, 10));
    put64(m, GDT + 8 * G_UCODE32, descriptor(0, 0xfffff, 0xfb, 12));
    put64(m, GDT + 8 * G_UDATA, descriptor(0, 0xfffff, 0xf3, 12));
    put64(m, GDT + 8 * G_UCODE64, descriptor(0, 0xfffff, 0xfb, 10));
    put64(m, GDT + 8 * G_UCODE16, descriptor(CODE, 0xffff, 0xfb, 0));
    put64(m, GDT + 8 * G_TSS, descriptor(TSS, 0x2ff, 0x8b, 0));
    put64(m, GDT + 8 * G_LDT, descriptor(LDT, 0xff, 0x82, 0));
    put64(m, GDT + 8 * G_CALL, gate(lm ? 8 * G_CODE64 : 8 * G_CODE32, HANDLERS + 0x800, 0xec));
    put64(m, GDT + 8 * G_TASK, gate(8 * G_TSS2, 0, 0xe5));
    put64(m, GDT + 8 * G_TSS2, descriptor(TSS2, 0x67, 0xe9, 0));
    put64(m, GDT + 8 * G_CONFORM, descriptor(0, 0xfffff, 0x9f, 12));
    put64(m, GDT + 8 * G_DOWN, descriptor(DATA, 0x7ff, 0xf7, 4));
    for (unsigned i = G_DOWN + 1; i < G_COUNT; i++)
        put64(m, GDT + 8 * i, take(in, 1) & 1 ? take(in, 8) : 0);
    for (unsigned i = 0; i < 16; i++)
        memcpy(m->ram + LDT + 8 * i, m->ram + GDT + 8 * (i % 10), 8);
}

/* Handlers: HLT, IRET, or a jump to itself's end, as the input says; each gate kind in turn. */
static void build_idt(struct machine *m, struct input *in)
{
    uint8_t mix = (uint8_t)take(in, 1);
    for (unsigned v = 0; v < 256; v++) {
        uint32_t to = HANDLERS + 8 * v;
        uint8_t kind = (uint8_t)(mix >> v % 8 & 1);
        m->ram[to] = kind ? 0xcf : 0xf4;
        m->ram[to + 1] = 0xf4;
        uint16_t ivt[2] = {(uint16_t)(HANDLERS16 + 2 * v), 0};
        m->ram[HANDLERS16 + 2 * v] = kind ? 0xcf : 0xf4;
        m->ram[HANDLERS16 + 2 * v + 1] = 0xf4;
        memcpy(m->ram + 4 * v, ivt, 4);
        if (m->kind >= FUZZ_LONG) {
            put64(m, IDT + 16 * v, gate(8 * G_CODE64, to, 0x8e | (v % 5 ? 0 : 0x60)));
            put64(m, IDT + 16 * v + 8, 0);
        } else if (v % 16 == 13 && (mix & 4)) {
            put64(m, IDT + 8 * v, gate(8 * G_TASK, 0, 0xe5));
        } else {
            put64(m, IDT + 8 * v, gate(8 * G_CODE32, to, (v & 1 ? 0x8f : 0x8e) | (v % 5 ? 0 : 0x60)));
        }
    }
}

static void build_tss(struct machine *m)
{
    if (m->kind >= FUZZ_LONG) {
        put64(m, TSS + 4, STACK - 0x1000);
        for (unsigned i = 0; i < 7; i++)
            put64(m, TSS + 36 + 8 * i, STACK - 0x2000);
    } else {
        uint32_t esp0[2] = {STACK - 0x1000, 8 * G_DATA32};
        memcpy(m->ram + TSS + 4, esp0, 8);
    }
    uint32_t two[26] = {
        [1] = STACK - 0x3000,  [2] = 8 * G_DATA32,  [7] = ROOT,          [8] = HANDLERS + 0x800, [9] = 2,
        [14] = STACK - 0x4000, [18] = 8 * G_DATA32, [19] = 8 * G_CODE32, [20] = 8 * G_DATA32,    [21] = 8 * G_DATA32};
    memcpy(m->ram + TSS2, two, sizeof two);
    m->ram[TSS + 102] = 0x68; /* I/O bitmap */
}

static void build_paging(struct machine *m, struct input *in)
{
    uint64_t flags = 7 | (take(in, 1) & 0x78);
    bool pae = m->kind == FUZZ_PAE || m->kind >= FUZZ_LONG;
    if (!pae) {
        for (unsigned i = 0; i < 4; i++) {
            uint32_t pde = i ? (0x400000u * i) | 0x87u : (ROOT + 0x3000) | 7u;
            memcpy(m->ram + ROOT + 4 * i, &pde, 4);
        }
        for (unsigned i = 0; i < 1024; i++) {
            uint32_t pte = (uint32_t)(i * PAGE_SIZE | flags);
            memcpy(m->ram + ROOT + 0x3000 + 4 * i, &pte, 4);
        }
        return;
    }
    uint32_t top = m->kind == FUZZ_PAE ? ROOT + 0x1000 : ROOT;
    if (m->kind != FUZZ_PAE) {
        put64(m, top, (ROOT + 0x1000) | 7);
        put64(m, top + 8 * 256, (ROOT + 0x1000) | 7);
    }
    put64(m, ROOT + 0x1000, (ROOT + 0x2000) | (m->kind == FUZZ_PAE ? 1 : 7));
    put64(m, ROOT + 0x2000, (ROOT + 0x3000) | 7);
    put64(m, ROOT + 0x2008, 0x200000 | 0x87);
    put64(m, ROOT + 0x2010, ROM_GPA | 0x87);
    for (unsigned i = 0; i < 512; i++)
        put64(m, ROOT + 0x3000 + 8 * i, i * PAGE_SIZE | flags);
}

/* -- state -- */

static struct seg seg_from(const struct machine *m, uint16_t sel)
{
    uint64_t d;
    memcpy(&d, m->ram + (sel & 4 ? LDT : GDT) + (sel & 0xf8), 8);
    struct seg s = {.sel = sel,
                    .base = (d >> 16 & 0xffffff) | (d >> 56) << 24,
                    .limit = (uint32_t)((d & 0xffff) | (d >> 32 & 0xf0000)),
                    .attr = (uint32_t)(d >> 40 & 0xf0ff)};
    if (s.attr & SEG_G)
        s.limit = s.limit << 12 | 0xfff;
    cpu_seg_cache(&s);
    return s;
}

static struct seg seg_real(uint16_t sel, bool vm86)
{
    struct seg s = {.sel = sel, .base = (uint32_t)sel << 4, .limit = 0xffff, .attr = vm86 ? 0xf3 : 0x93};
    cpu_seg_cache(&s);
    return s;
}

static void set_segments(struct machine *m, struct cpu *c, struct input *in)
{
    bool user = c->cpl == 3;
    uint16_t rpl = c->cpl, code = 0, data = (uint16_t)(8 * (user ? G_UDATA : G_DATA32) | rpl);
    switch (m->kind) {
    case FUZZ_PM16:
    case FUZZ_COMPAT16: code = (uint16_t)(8 * (user ? G_UCODE16 : G_CODE16) | rpl); break;
    case FUZZ_LONG: code = (uint16_t)(8 * (user ? G_UCODE64 : G_CODE64) | rpl); break;
    default: code = (uint16_t)(8 * (user ? G_UCODE32 : G_CODE32) | rpl); break;
    }
    uint8_t odd = (uint8_t)take(in, 1);
    for (unsigned i = 0; i < 6; i++) {
        if (m->kind == FUZZ_REAL || m->kind == FUZZ_VM86)
            c->seg[i] = seg_real(i == S_CS ? CODE >> 4 : DATA >> 4, m->kind == FUZZ_VM86);
        else
            c->seg[i] = seg_from(m, i == S_CS ? code : i != S_SS && (odd >> i & 1) ? (uint16_t)(8 * G_DOWN | 3) : data);
    }
    if (m->kind == FUZZ_PM16 && !user && (odd & 0x40))
        c->seg[S_SS] = seg_from(m, 8 * G_DATA16);
    c->seg[S_TR] = (struct seg){.sel = 8 * G_TSS, .base = TSS, .limit = 0x2ff, .attr = SEG_P | DT_TSS_BUSY};
    c->seg[S_LDTR] = (struct seg){.sel = 8 * G_LDT, .base = LDT, .limit = 0xff, .attr = SEG_P | DT_LDT};
}

static void set_control(struct machine *m, struct cpu *c, struct input *in)
{
    c->cr0 = CR0_ET | CR0_NE;
    c->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT;
    c->efer = 0;
    if (m->kind != FUZZ_REAL)
        c->cr0 |= CR0_PE;
    if (m->kind == FUZZ_PAGED || m->kind == FUZZ_PAE || m->kind >= FUZZ_LONG)
        c->cr0 |= CR0_PG | CR0_WP;
    if (m->kind == FUZZ_PAGED)
        c->cr4 |= CR4_PSE;
    if (m->kind == FUZZ_PAE || m->kind >= FUZZ_LONG)
        c->cr4 |= CR4_PAE;
    if (m->kind >= FUZZ_LONG)
        c->efer = EFER_LME | EFER_LMA;
    c->cr0 ^= take(in, 4) & (CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM);
    c->cr4 ^= take(in, 4) &
              (CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PGE | CR4_OSFXSR | CR4_UMIP | CR4_FSGSBASE | CR4_OSXSAVE);
    c->efer |= take(in, 2) & (EFER_SCE | EFER_NXE);
    c->cr3 = m->kind == FUZZ_PAE ? ROOT + 0x1000 : ROOT;
    for (unsigned i = 0; m->kind == FUZZ_PAE && i < 4; i++)
        memcpy(&c->pdpte[i], m->ram + ROOT + 0x1000 + 8 * i, 8);
    c->star = (uint64_t)(8 * G_UCODE32) << 48 | (uint64_t)(8 * G_CODE64) << 32 | (HANDLERS + 0x800);
    c->lstar = c->cstar = HANDLERS + 0x800;
    c->sysenter_cs = 8 * G_CODE32;
    c->sysenter_eip = HANDLERS + 0x800;
    c->sysenter_esp = STACK - 0x5000;
    c->gdtr = (struct dtable){.base = GDT, .limit = G_COUNT * 8 - 1};
    c->idtr = (struct dtable){.base = m->kind == FUZZ_REAL ? 0 : IDT, .limit = m->kind == FUZZ_REAL ? 0x3ff : 0xfff};
}

static int set_state(struct machine *m, struct input *in)
{
    struct cpu c;
    vcpu_get_state(m->v, &c);
    uint8_t flags = (uint8_t)take(in, 1);
    c.cpl = m->kind == FUZZ_VM86 ? 3 : m->kind == FUZZ_REAL ? 0 : flags & 1 ? 3 : 0;
    set_control(m, &c, in);
    set_segments(m, &c, in);
    for (unsigned i = 0; i < 16; i++) {
        uint8_t how = (uint8_t)take(in, 1);
        uint64_t v = how & 1 ? take(in, 8) : how & 2 ? DATA + take(in, 2) : take(in, 2);
        c.gpr[i] = m->kind == FUZZ_LONG ? v : (uint32_t)v;
    }
    c.gpr[R_RSP] = m->kind == FUZZ_REAL || m->kind == FUZZ_VM86 ? 0xf000 : STACK;
    uint32_t fl = (uint32_t)take(in, 4) &
                  (EFLAGS_ARITH | EFLAGS_DF | EFLAGS_IF | EFLAGS_TF | EFLAGS_NT | EFLAGS_AC | EFLAGS_IOPL);
    cpu_set_eflags(&c, fl | (m->kind == FUZZ_VM86 ? EFLAGS_VM : 0));
    bool based = m->kind == FUZZ_REAL || m->kind == FUZZ_VM86 || m->kind == FUZZ_PM16 || m->kind == FUZZ_COMPAT16;
    c.rip = based ? 0 : CODE;
    if (flags & 2) /* near the end of the segment or of the window */
        c.rip += 0xfff0;
    for (unsigned i = 0; (flags & 4) && i < 4; i++)
        c.dr[i] = take(in, 2) + CODE;
    if (flags & 4)
        c.dr[7] = (take(in, 4) & 0xffff03ff) | 0x400;
    c.shadow = 0;
    cpu_update_key(&c);
    return vcpu_set_state(m->v, &c);
}

static void put_memory(struct machine *m, struct input *in)
{
    unsigned mutations = (unsigned)take(in, 1) % 32;
    for (unsigned i = 0; i < mutations; i++) {
        uint32_t at = (uint32_t)take(in, 3) % FUZZED_BYTES;
        m->ram[at] = (uint8_t)take(in, 1);
    }
    /* The rest is code; what does not end ends in HLT. A second copy lies where "near the end" starts. */
    memset(m->ram + CODE, 0xf4, 0x10000);
    size_t n = (size_t)(in->end - in->p) < 0x8000 ? (size_t)(in->end - in->p) : 0x8000;
    memcpy(m->ram + CODE, in->p, n);
    memcpy(m->ram + CODE + 0xfff0, in->p, n < 16 ? n : 16);
    for (uint32_t i = 0; i < 0x10000; i++)
        m->ram[DATA + i] = n ? in->p[i % n] : (uint8_t)i;
}

/* -- running -- */

static struct vcpu *volatile running;
static void on_alarm(int sig)
{
    if (running)
        vcpu_kick(running);
}

static timer_t make_timer(unsigned ms)
{
    struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = SA_RESTART | SA_ONSTACK};
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 5};
    /* Again and again: a kick between two runs must not be the last. */
    struct itimerspec its = {{ms / 1000, ms % 1000 * 1000000}, {ms / 1000, ms % 1000 * 1000000}};
    timer_t t;
    sigaction(SIGRTMIN + 5, &sa, NULL);
    if (timer_create(CLOCK_MONOTONIC, &ev, &t) || timer_settime(t, 0, &its, NULL))
        return NULL;
    return t;
}

/* Completes an exit; false if the machine stands still for good. */
static bool complete(struct machine *m, struct fuzz_result *r, enum vm_exit_reason why)
{
    struct vcpu_exit *x = vcpu_exit_info(m->v);
    switch (why) {
    case VM_EXIT_IO:
    case VM_EXIT_MMIO:
        if (x->size > sizeof x->data || (why == VM_EXIT_IO && x->size > 4)) {
            snprintf(r->broken, sizeof r->broken, "exit %d of size %u", (int)why, x->size);
            return false;
        }
        for (unsigned i = 0; !x->is_write && i < x->size; i++)
            x->data[i] = (uint8_t)stir(m, i);
        return true;
    case VM_EXIT_HLT:
        if (r->exits[VM_EXIT_HLT] > 3)
            return false;
        if (vcpu_can_inject(m->v)) {
            vcpu_inject(m->v, m->vector);
            return true;
        }
        if (r->exits[VM_EXIT_HLT] > 2)
            return false;
        vcpu_inject_nmi(m->v);
        return true;
    case VM_EXIT_INTR_WINDOW: vcpu_request_intr_window(m->v, false); return true;
    case VM_EXIT_DEBUG: return true;
    case VM_EXIT_INTERNAL:
        /* The one thing that the engine refuses, and says so: code that is not in memory. */
        if (strstr(x->text, "which is no memory")) {
            r->finished = true;
            return false;
        }
        snprintf(r->broken, sizeof r->broken, "internal: %.140s", x->text);
        return false;
    default: return false;
    }
}

static void run_machine(struct machine *m, struct fuzz_result *r)
{
    running = m->v;
    for (r->total = 0; r->total < MAX_EXITS; r->total++) {
        enum vm_exit_reason why = vcpu_run(m->v);
        if ((unsigned)why >= 16 || (unsigned)why != vcpu_exit_info(m->v)->reason) {
            snprintf(r->broken, sizeof r->broken, "exit reason %d, exit info says %u", (int)why,
                     vcpu_exit_info(m->v)->reason);
            break;
        }
        r->exits[why]++;
        if (!complete(m, r, why)) {
            r->finished |= why == VM_EXIT_HLT || why == VM_EXIT_SHUTDOWN;
            break;
        }
    }
    running = NULL;
}

static uint64_t hash_memory(const struct machine *m)
{
    uint64_t h = 0;
    for (uint32_t i = 0; i < RAM_BYTES; i += 8) {
        uint64_t v;
        memcpy(&v, m->ram + i, 8);
        h = (h ^ v) * 0x9e3779b97f4a7c15ull;
        h ^= h >> 29;
    }
    return h;
}

static int build(struct machine *m, struct input *in, const struct vm_config *settings)
{
    static const struct vm_ops ops = {.pio = on_pio, .mmio = on_mmio, .intr_ack = on_ack};
    static const struct vm_config defaults = {.seed = 1, .tc_bytes = FUZZ_TC_BYTES, .cpu_model = "host"};
    int err = vm_create(&m->vm, settings ? settings : &defaults, &ops, m);
    if (err)
        return err;
    err = vm_add_memory(m->vm, 0, RAM_BYTES, false);
    if (!err)
        err = vm_add_memory(m->vm, ROM_GPA, ROM_BYTES, true);
    if (err) {
        vm_destroy(m->vm);
        return err;
    }
    m->ram = gpmem_ptr(vm_memory(m->vm), 0);
    m->v = vm_vcpu(m->vm, 0);
    m->kind = (unsigned)take(in, 1) % FUZZ_KINDS;
    m->vector = (uint8_t)take(in, 1);
    build_gdt(m, in);
    build_idt(m, in);
    build_tss(m);
    build_paging(m, in);
    return 0;
}

/* A hash of the page tables without the bits that the CPU sets. */
static uint64_t hash_tables(const struct machine *m)
{
    uint64_t h = 0, e;
    for (uint32_t at = ROOT; at < ROOT + TABLES_BYTES; at += 8) {
        memcpy(&e, m->ram + at, 8);
        h = (h ^ (e & ~0x0000006000000060ull)) * 0x9e3779b97f4a7c15ull;
    }
    return h;
}

void fuzz_run(const uint8_t *data, size_t n, const struct vm_config *settings, unsigned ms, struct fuzz_result *r)
{
    struct machine m = {0};
    struct input in = {data, data + n};
    memset(r, 0, sizeof *r);
    int err = build(&m, &in, settings);
    if (err) {
        snprintf(r->broken, sizeof r->broken, "no VM: %s", err_text(err));
        return;
    }
    timer_t t = make_timer(ms);
    int refused = set_state(&m, &in); /* a refusal is an answer, too */
    put_memory(&m, &in);
    uint64_t tables = hash_tables(&m);
    if (!refused)
        run_machine(&m, r);
    r->tables_changed = hash_tables(&m) != tables;
    timer_delete(t);
    vcpu_get_state(m.v, &r->cpu);
    r->memory = hash_memory(&m);
    if (!refused && !r->broken[0] && vcpu_set_state(m.v, &r->cpu))
        snprintf(r->broken, sizeof r->broken, "the engine refuses the state it ended in");
    vm_destroy(m.vm);
}

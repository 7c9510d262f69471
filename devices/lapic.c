/* devices/lapic.c - registers, priorities, acknowledge and EOI of the local APIC. See lapic.h; SDM vol. 3A chapter 11. nofpu:
 * whatever is outside this file and lapic_timer.c is called behind leave(), but for the INTR pin. */
#include "base/check.h"
#include "base/log.h"
#include "devices/bus.h"
#include "devices/lapic_int.h"
#include "devices/tsc.h"
#include <string.h>

/* Register numbers: MMIO offset / 16, or MSR - 800h. */
enum {
    REG_ID = 0x02,
    REG_VERSION = 0x03,
    REG_TPR = 0x08,
    REG_APR = 0x09,
    REG_PPR = 0x0a,
    REG_EOI = 0x0b,
    REG_RRR = 0x0c,
    REG_LDR = 0x0d,
    REG_DFR = 0x0e,
    REG_SVR = 0x0f,
    REG_ISR = 0x10,
    REG_TMR = 0x18,
    REG_IRR = 0x20,
    REG_ESR = 0x28,
    REG_ICR_LOW = 0x30,
    REG_ICR_HIGH = 0x31,
    REG_LVT_TIMER = 0x32,
    REG_LVT_ERROR = 0x37,
    REG_INITIAL_COUNT = 0x38,
    REG_CURRENT_COUNT = 0x39,
    REG_DIVIDE = 0x3e,
    REG_SELF_IPI = 0x3f,
};
#define SVR_WRITABLE 0x3ffu
#define DIVIDE_WRITABLE 0xbu
#define ICR_WRITABLE 0x000ccfffu
#define ESR_SEND_ILLEGAL 0x20u
#define ESR_RECEIVED_ILLEGAL 0x40u
#define ESR_ILLEGAL_REGISTER 0x80u
#define PV_EOI_ENABLE 1ull
#define PV_EOI_RESERVED 2ull

static void leave(const struct lapic *l) { fpu_hook_leave(&l->cfg.fpu); }

/* -- priorities (SDM 11.8.3) -- */
static int highest(const uint32_t bits[8])
{
    for (int i = 7; i >= 0; i--) {
        if (bits[i])
            return i * 32 + 31 - __builtin_clz(bits[i]);
    }
    return -1;
}

static bool test_bit(const uint32_t bits[8], unsigned v) { return bits[v / 32] >> (v % 32) & 1; }
static void set_bit(uint32_t bits[8], unsigned v) { bits[v / 32] |= 1u << (v % 32); }
static void clear_bit(uint32_t bits[8], unsigned v) { bits[v / 32] &= ~(1u << (v % 32)); }

bool lapic_hw_enabled(const struct lapic *l) { return l->s.base & APIC_BASE_EN; }
bool lapic_sw_enabled(const struct lapic *l) { return lapic_hw_enabled(l) && (l->s.svr & SVR_ENABLE); }

static uint32_t task_priority(const struct lapic *l)
{
    const uint64_t *cr8 = l->cfg.cr8;
    return !cr8 || *cr8 == l->s.tpr >> 4 ? l->s.tpr : (uint32_t)(*cr8 & 15) << 4;
}

uint32_t lapic_ppr(const struct lapic *l)
{
    int isr = highest(l->s.isr);
    uint32_t in_service = isr < 0 ? 0 : (uint32_t)isr & 0xf0;
    uint32_t tpr = task_priority(l);
    return (tpr & 0xf0) >= in_service ? tpr : in_service;
}

/* Vector that would be taken now, or -1. Software disabling keeps what is already in IRR deliverable (SDM 11.4.7.2). */
static int ready_vector(const struct lapic *l)
{
    int irr = lapic_hw_enabled(l) ? highest(l->s.irr) : -1;
    return irr >= 0 && ((uint32_t)irr & 0xf0) > (lapic_ppr(l) & 0xf0) ? irr : -1;
}

/* Virtual wire: the 8259's INTR reaches the CPU past a disabled APIC, through LINT0 as ExtINT, or by an IOAPIC's ExtINT. */
static bool pic_ready(const struct lapic *l)
{
    uint32_t lint0 = l->s.lvt[LVT_LINT0];
    if (!l->s.lint[0])
        return false;
    return !lapic_hw_enabled(l) || l->s.extint_message || (!(lint0 & LVT_MASKED) && LVT_MODE(lint0) == APIC_EXTINT);
}

void lapic_output(struct lapic *l)
{
    if (l->cfg.cr8)
        *l->cfg.cr8_slow = highest(l->s.irr) >= 0 || (task_priority(l) & 15);
    irq_set(&l->cfg.intr, ready_vector(l) >= 0 || pic_ready(l));
}

/* All of the TPR, wherever the value comes from. */
static void set_task_priority(struct lapic *l, uint32_t tpr)
{
    l->s.tpr = tpr;
    if (l->cfg.cr8)
        *l->cfg.cr8 = tpr >> 4;
}

/* -- EOI, also the guest's way of saying it through memory -- */
static void end_of_interrupt(struct lapic *l)
{
    int v = highest(l->s.isr);
    if (v < 0)
        return;
    l->eois++;
    clear_bit(l->s.isr, (unsigned)v);
    lapic_timer_eoi(l, (uint8_t)v);
    if (test_bit(l->s.tmr, (unsigned)v)) {
        uint32_t *lint0 = &l->s.lvt[LVT_LINT0];
        if ((*lint0 & LVT_REMOTE_IRR) && LVT_VECTOR(*lint0) == v) {
            *lint0 &= ~LVT_REMOTE_IRR;
            lapic_lint_level(l);
        }
        leave(l);
        if (l->bus->eoi)
            l->bus->eoi(l->bus->eoi_opaque, (uint8_t)v);
    }
    lapic_output(l);
}

static uint64_t pv_eoi_gpa(const struct lapic *l) { return l->s.pv_eoi_msr & ~3ull; }

void lapic_sync_pv_eoi(struct lapic *l)
{
    uint8_t flag = 0, zero = 0;
    if (!l->s.pv_eoi_pending)
        return;
    l->s.pv_eoi_pending = false;
    leave(l);
    if (gmem_read(&l->cfg.mem, pv_eoi_gpa(l), &flag, 1)) {
        l->s.pv_eoi_msr = 0; /* RAM does not go away; the guest named a page that never was */
        return;
    }
    if (flag & 1) { /* not done yet: from now on the guest has to write EOI */
        gmem_write(&l->cfg.mem, pv_eoi_gpa(l), &zero, 1);
        return;
    }
    l->pv_eois++;
    end_of_interrupt(l);
}

static void offer_pv_eoi(struct lapic *l, unsigned vector)
{
    const uint8_t one = 1;
    if (!(l->s.pv_eoi_msr & PV_EOI_ENABLE) || highest(l->s.irr) >= 0 || test_bit(l->s.tmr, vector) || l->s.owed)
        return;
    leave(l);
    l->s.pv_eoi_pending = !gmem_write(&l->cfg.mem, pv_eoi_gpa(l), &one, 1);
}

/* -- accepting -- */
static void set_error(struct lapic *l, uint32_t bit)
{
    if (l->s.esr_pending & bit)
        return; /* also what ends the recursion when the error vector itself is illegal */
    l->s.esr_pending |= bit;
    if (!(l->s.lvt[LVT_ERROR] & LVT_MASKED))
        lapic_accept(l, LVT_VECTOR(l->s.lvt[LVT_ERROR]), false);
}

bool lapic_accept(struct lapic *l, uint8_t vector, bool level)
{
    if (!lapic_sw_enabled(l))
        return false;
    if (vector < 16) {
        set_error(l, ESR_RECEIVED_ILLEGAL);
        return false;
    }
    lapic_sync_pv_eoi(l);
    set_bit(l->s.irr, vector);
    if (level)
        set_bit(l->s.tmr, vector);
    else
        clear_bit(l->s.tmr, vector);
    lapic_output(l);
    return true;
}

bool lapic_has_irr(const struct lapic *l, uint8_t vector) { return test_bit(l->s.irr, vector); }

static void cpu_event(struct lapic *l, enum lapic_event e, uint8_t vector)
{
    leave(l);
    if (l->cfg.event)
        l->cfg.event(l->cfg.event_opaque, e, vector);
}

/* One message that names this CPU. Returns whether it was accepted. */
bool lapic_receive(struct lapic *l, enum apic_delivery mode, uint8_t vector, bool level)
{
    switch (mode) {
    case APIC_FIXED:
    case APIC_LOWEST: return lapic_accept(l, vector, level);
    case APIC_SMI: cpu_event(l, LAPIC_EVENT_SMI, 0); return true;
    case APIC_NMI:
        leave(l);
        irq_pulse(&l->cfg.nmi);
        return true;
    case APIC_INIT: cpu_event(l, LAPIC_EVENT_INIT, 0); return true;
    case APIC_SIPI: cpu_event(l, LAPIC_EVENT_SIPI, vector); return true;
    case APIC_EXTINT:
        l->s.extint_message = true;
        lapic_output(l);
        return true;
    case APIC_RESERVED3: break;
    }
    return false;
}

/* -- LINT pins -- */
void lapic_lint_level(struct lapic *l)
{
    uint32_t *lvt = &l->s.lvt[LVT_LINT0];
    if (l->s.lint[0] && !(*lvt & (LVT_MASKED | LVT_REMOTE_IRR)) && (*lvt & LVT_LEVEL) && LVT_MODE(*lvt) == APIC_FIXED &&
        lapic_accept(l, LVT_VECTOR(*lvt), true))
        *lvt |= LVT_REMOTE_IRR;
}

static void lint_edge(struct lapic *l, unsigned pin)
{
    uint32_t lvt = l->s.lvt[LVT_LINT0 + pin];
    if (!lapic_hw_enabled(l)) { /* the pins are INTR and NMI then */
        leave(l);
        if (pin == 1)
            irq_pulse(&l->cfg.nmi);
        return;
    }
    if (lvt & LVT_MASKED)
        return;
    if (LVT_MODE(lvt) == APIC_FIXED && (lvt & LVT_LEVEL) && pin == 0)
        return; /* lapic_lint_level */
    if (LVT_MODE(lvt) != APIC_EXTINT && LVT_MODE(lvt) != APIC_SIPI && LVT_MODE(lvt) != APIC_LOWEST)
        lapic_receive(l, LVT_MODE(lvt), LVT_VECTOR(lvt), false);
}

void lapic_set_lint(struct lapic *l, unsigned pin, bool level)
{
    CHECK(pin < 2);
    bool rising = level && !l->s.lint[pin];
    l->s.lint[pin] = level;
    if (pin == 0 && !level)
        l->s.extint_message = false;
    if (rising)
        lint_edge(l, pin);
    if (pin == 0) {
        lapic_lint_level(l);
        lapic_output(l);
    }
}

static void lint_irq(void *opaque, int n, bool level) { lapic_set_lint(opaque, (unsigned)n, level); }

struct irq_line lapic_lint_line(struct lapic *l, unsigned pin)
{
    return (struct irq_line){.fn = lint_irq, .opaque = l, .n = (int)pin};
}

/* -- the CPU's side -- */
bool lapic_has_intr(struct lapic *l)
{
    lapic_sync_pv_eoi(l);
    return ready_vector(l) >= 0 || pic_ready(l);
}

int lapic_ack(struct lapic *l)
{
    lapic_sync_pv_eoi(l);
    if (pic_ready(l) && l->cfg.pic_ack) {
        l->s.extint_message = false;
        leave(l);
        int v = l->cfg.pic_ack(l->cfg.pic_opaque);
        lapic_output(l);
        if (v >= 0)
            return v;
    }
    int v = ready_vector(l);
    if (v >= 0) {
        clear_bit(l->s.irr, (unsigned)v);
        set_bit(l->s.isr, (unsigned)v);
        offer_pv_eoi(l, (unsigned)v);
    }
    lapic_output(l);
    return v;
}

static void write_tpr(struct lapic *l, uint32_t tpr)
{
    lapic_sync_pv_eoi(l);
    set_task_priority(l, tpr & 0xff);
    lapic_output(l);
}

uint64_t lapic_read_cr8(struct lapic *l) { return task_priority(l) >> 4; }
void lapic_write_cr8(struct lapic *l, uint64_t val) { write_tpr(l, (uint32_t)(val & 0xf) << 4); }

/* -- IPIs -- */
static void send_ipi(struct lapic *l, uint32_t icr, uint32_t dest)
{
    enum { SHORT_NONE, SHORT_SELF, SHORT_ALL, SHORT_OTHERS } shorthand = icr >> 18 & 3;
    struct apic_msg m = {.dest = dest, .logical = icr >> 11 & 1, .vector = (uint8_t)icr, .mode = icr >> 8 & 7};
    bool init_deassert = m.mode == APIC_INIT && (icr & 0x8000) && !(icr & 0x4000);
    if (init_deassert || m.mode == APIC_RESERVED3 || m.mode == APIC_EXTINT)
        return;
    if ((m.mode == APIC_FIXED || m.mode == APIC_LOWEST) && m.vector < 16) {
        set_error(l, ESR_SEND_ILLEGAL);
        return;
    }
    if (shorthand == SHORT_NONE) {
        apic_bus_deliver(l->bus, &m);
        return;
    }
    for (unsigned i = 0; i < l->bus->count; i++) {
        struct lapic *to = l->bus->cpu[i];
        bool self = to == l;
        if (shorthand == SHORT_ALL || (shorthand == SHORT_SELF) == self)
            lapic_receive(to, m.mode, m.vector, false);
    }
}

/* -- registers -- */
static uint32_t lvt_writable(const struct lapic *l, unsigned i)
{
    switch (i) {
    case LVT_TIMER: return 0x300ff | (l->cfg.tsc_deadline ? 0x40000 : 0);
    case LVT_LINT0:
    case LVT_LINT1: return 0x1a7ff;
    case LVT_ERROR: return 0x100ff;
    default: return 0x107ff;
    }
}

static void write_lvt(struct lapic *l, unsigned i, uint32_t val)
{
    uint32_t old = l->s.lvt[i], new = (val & lvt_writable(l, i)) | (old & LVT_REMOTE_IRR);
    if (!(l->s.svr & SVR_ENABLE))
        new |= LVT_MASKED;
    l->s.lvt[i] = new;
    if (i == LVT_TIMER) {
        lapic_timer_lvt_changed(l, old);
    } else if (i == LVT_LINT0) {
        if (!(new &LVT_LEVEL))
            l->s.lvt[i] &= ~LVT_REMOTE_IRR;
        lapic_lint_level(l);
        lapic_output(l);
    }
}

static void write_svr(struct lapic *l, uint32_t val)
{
    l->s.svr = val & SVR_WRITABLE;
    if (!(val & SVR_ENABLE)) {
        for (unsigned i = 0; i < LVT_COUNT; i++)
            l->s.lvt[i] |= LVT_MASKED;
    }
    lapic_output(l);
}

static bool is_x2(const struct lapic *l) { return l->s.base & APIC_BASE_EXTD; }

uint32_t lapic_ldr(const struct lapic *l)
{
    /* derived from the id in x2APIC mode: cluster and bit (SDM 11.12.10.2) */
    return is_x2(l) ? (l->cfg.id >> 4) << 16 | 1u << (l->cfg.id & 15) : l->s.ldr;
}

/* Reads what both modes have. False: no such register. */
static bool read_reg(struct lapic *l, unsigned reg, uint32_t *val)
{
    switch (reg) {
    case REG_ID: *val = is_x2(l) ? l->cfg.id : l->s.id; return true;
    case REG_VERSION: *val = LAPIC_VERSION; return true;
    case REG_TPR: *val = task_priority(l); return true;
    case REG_PPR: *val = lapic_ppr(l); return true;
    case REG_LDR: *val = lapic_ldr(l); return true;
    case REG_SVR: *val = l->s.svr; return true;
    case REG_ESR: *val = l->s.esr; return true;
    case REG_ICR_LOW: *val = l->s.icr_low; return true;
    case REG_INITIAL_COUNT: *val = l->s.initial_count; return true;
    case REG_CURRENT_COUNT: *val = lapic_timer_current(l); return true;
    case REG_DIVIDE: *val = l->s.divide; return true;
    default: break;
    }
    if (reg >= REG_ISR && reg < REG_ISR + 8)
        *val = l->s.isr[reg - REG_ISR];
    else if (reg >= REG_TMR && reg < REG_TMR + 8)
        *val = l->s.tmr[reg - REG_TMR];
    else if (reg >= REG_IRR && reg < REG_IRR + 8)
        *val = l->s.irr[reg - REG_IRR];
    else if (reg >= REG_LVT_TIMER && reg <= REG_LVT_ERROR)
        *val = l->s.lvt[reg - REG_LVT_TIMER];
    else
        return false;
    return true;
}

/* Writes what both modes have, ICR excepted. False: read-only or no such register. */
static bool write_reg(struct lapic *l, unsigned reg, uint32_t val)
{
    switch (reg) {
    case REG_TPR: write_tpr(l, val); return true;
    case REG_EOI: end_of_interrupt(l); return true;
    case REG_SVR: write_svr(l, val); return true;
    case REG_ESR: /* a write shows what has gathered since the last one (SDM 11.5.3) */
        l->s.esr = l->s.esr_pending;
        l->s.esr_pending = 0;
        return true;
    case REG_INITIAL_COUNT: lapic_timer_set_count(l, val); return true;
    case REG_DIVIDE: lapic_timer_set_divide(l, val & DIVIDE_WRITABLE); return true;
    default: break;
    }
    if (reg < REG_LVT_TIMER || reg > REG_LVT_ERROR)
        return false;
    write_lvt(l, reg - REG_LVT_TIMER, val);
    return true;
}

uint32_t lapic_mmio_read(struct lapic *l, uint32_t offset)
{
    unsigned reg = offset >> 4;
    uint32_t val = 0;
    lapic_sync_pv_eoi(l);
    if (offset & 0xc)
        return 0; /* between the registers: undefined on hardware */
    if (reg == REG_DFR)
        val = l->s.dfr;
    else if (reg == REG_ICR_HIGH)
        val = l->s.icr_high;
    else if (reg != REG_APR && reg != REG_RRR && reg != REG_EOI && !read_reg(l, reg, &val))
        set_error(l, ESR_ILLEGAL_REGISTER);
    return val >> 8 * (offset & 3);
}

void lapic_mmio_write(struct lapic *l, uint32_t offset, uint32_t val)
{
    unsigned reg = offset >> 4;
    lapic_sync_pv_eoi(l);
    if (offset & 0xf)
        return;
    switch (reg) {
    case REG_ID: l->s.id = val & 0xff000000; return;
    case REG_LDR: l->s.ldr = val & 0xff000000; return;
    case REG_DFR: l->s.dfr = val | 0x0fffffff; return;
    case REG_ICR_HIGH: l->s.icr_high = val & 0xff000000; return;
    case REG_ICR_LOW:
        l->s.icr_low = val & ICR_WRITABLE;
        send_ipi(l, val, l->s.icr_high == 0xff000000 ? UINT32_MAX : l->s.icr_high >> 24);
        return;
    case REG_VERSION:
    case REG_APR:
    case REG_PPR:
    case REG_RRR:
    case REG_CURRENT_COUNT: return; /* read-only, present */
    default: break;
    }
    if (write_reg(l, reg, val) || (reg >= REG_ISR && reg < REG_IRR + 8))
        return;
    set_error(l, ESR_ILLEGAL_REGISTER);
}

/* -- x2APIC (SDM 11.12): reserved bits, wrong registers and wrong directions are #GP -- */
static int x2_read(struct lapic *l, unsigned reg, uint64_t *val)
{
    uint32_t v;
    if (reg == REG_ICR_LOW) {
        *val = (uint64_t)l->s.icr_high << 32 | l->s.icr_low;
        return 0;
    }
    if (!read_reg(l, reg, &v))
        return -1;
    *val = v;
    return 0;
}

static uint64_t x2_writable(const struct lapic *l, unsigned reg)
{
    if (reg >= REG_LVT_TIMER && reg <= REG_LVT_ERROR)
        return lvt_writable(l, reg - REG_LVT_TIMER) | 0x1000 | (reg - REG_LVT_TIMER >= LVT_LINT0 ? LVT_REMOTE_IRR : 0);
    switch (reg) {
    case REG_TPR: return 0xff;
    case REG_SVR: return SVR_WRITABLE;
    case REG_ICR_LOW: return 0xffffffff00000000ull | ICR_WRITABLE | 0x1000;
    case REG_INITIAL_COUNT: return 0xffffffff;
    case REG_DIVIDE: return DIVIDE_WRITABLE;
    case REG_SELF_IPI: return 0xff;
    default: return 0; /* EOI and ESR take zero only */
    }
}

static int x2_write(struct lapic *l, unsigned reg, uint64_t val)
{
    if (val & ~x2_writable(l, reg))
        return -1;
    if (reg == REG_ICR_LOW) {
        l->s.icr_high = (uint32_t)(val >> 32);
        l->s.icr_low = (uint32_t)val & ICR_WRITABLE;
        send_ipi(l, (uint32_t)val, l->s.icr_high);
        return 0;
    }
    if (reg == REG_SELF_IPI) {
        send_ipi(l, 0x40000 | (uint32_t)val, 0);
        return 0;
    }
    return write_reg(l, reg, (uint32_t)val) ? 0 : -1;
}

/* -- MSRs -- */
static int write_base(struct lapic *l, uint64_t val)
{
    uint64_t reserved = ~0ull << l->cfg.maxphyaddr | 0x2ff | (l->cfg.x2apic ? 0 : APIC_BASE_EXTD);
    uint64_t mode = APIC_BASE_EN | APIC_BASE_EXTD, from = l->s.base & mode, to = val & mode;
    if (val & reserved || to == APIC_BASE_EXTD)
        return -1;
    /* only disabled -> xAPIC -> x2APIC -> disabled, and xAPIC -> disabled (SDM figure 11-27) */
    if ((from == mode && to == APIC_BASE_EN) || (from == 0 && to == mode))
        return -1;
    leave(l); /* the clock, the bus */
    l->s.base = val;
    if (from && !to)
        lapic_reset_registers(l);
    if (from == APIC_BASE_EN && to == mode)
        l->s.icr_high = 0;
    apic_bus_map_page(l->bus);
    lapic_output(l);
    return 0;
}

static int write_pv_eoi(struct lapic *l, uint64_t val)
{
    if (!l->cfg.pv_eoi || val & PV_EOI_RESERVED)
        return -1;
    lapic_sync_pv_eoi(l);
    l->s.pv_eoi_msr = val;
    return 0;
}

int lapic_rdmsr(struct lapic *l, uint32_t msr, uint64_t *val)
{
    lapic_sync_pv_eoi(l);
    if (msr == MSR_APIC_BASE) {
        *val = l->s.base;
        return 0;
    }
    if (msr == MSR_TSC_DEADLINE && l->cfg.tsc_deadline) {
        *val = l->s.tsc_deadline;
        return 0;
    }
    if (msr == MSR_KVM_PV_EOI && l->cfg.pv_eoi) {
        *val = l->s.pv_eoi_msr;
        return 0;
    }
    if (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST)
        return is_x2(l) ? x2_read(l, msr - MSR_X2APIC_FIRST, val) : -1;
    return 1;
}

int lapic_wrmsr(struct lapic *l, uint32_t msr, uint64_t val)
{
    lapic_sync_pv_eoi(l);
    if (msr == MSR_APIC_BASE)
        return write_base(l, val);
    if (msr == MSR_TSC_DEADLINE && l->cfg.tsc_deadline) {
        lapic_timer_set_deadline(l, val);
        return 0;
    }
    if (msr == MSR_KVM_PV_EOI)
        return l->cfg.pv_eoi ? write_pv_eoi(l, val) : 1;
    if (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST)
        return is_x2(l) ? x2_write(l, msr - MSR_X2APIC_FIRST, val) : -1;
    return 1;
}

/* -- reset and saved state -- */
void lapic_reset_registers(struct lapic *l)
{
    bool lint0 = l->s.lint[0], lint1 = l->s.lint[1];
    uint64_t base = l->s.base;
    vtimer_cancel(&l->timer);
    memset(&l->s, 0, sizeof(l->s));
    set_task_priority(l, 0);
    l->s.base = base;
    l->s.lint[0] = lint0;
    l->s.lint[1] = lint1;
    l->s.id = l->cfg.id << 24;
    l->s.dfr = UINT32_MAX;
    l->s.svr = 0xff;
    for (unsigned i = 0; i < LVT_COUNT; i++)
        l->s.lvt[i] = LVT_MASKED;
    if (l->cfg.bsp)
        l->s.lvt[LVT_LINT0] = APIC_EXTINT << 8; /* see "Reset" in lapic.h */
}

void lapic_init_reset(struct lapic *l)
{
    uint32_t id = l->s.id;
    lapic_reset_registers(l);
    l->s.id = id;
    lapic_output(l);
}

static void lapic_reset(void *dev)
{
    struct lapic *l = dev;
    l->s.base = LAPIC_DEFAULT_BASE | APIC_BASE_EN | (l->cfg.bsp ? APIC_BASE_BSP : 0);
    lapic_reset_registers(l);
    apic_bus_map_page(l->bus);
    lapic_output(l);
}

void lapic_init(struct lapic *l, struct apic_bus *ab, const struct lapic_cfg *cfg)
{
    CHECK(ab->count < LAPIC_MAX_CPUS && cfg->maxphyaddr >= 32 && cfg->maxphyaddr <= 52);
    memset(l, 0, sizeof(*l));
    l->cfg = *cfg;
    l->bus = ab;
    vtimer_init(&l->timer, cfg->loop, lapic_timer_fired, l);
    ab->cpu[ab->count++] = l;
    lapic_reset(l);
}

#define F(m) DEV_FIELD(__typeof__(((struct lapic *)0)->s), m)
#define A(m) DEV_ARRAY(__typeof__(((struct lapic *)0)->s), m)
static const struct dev_field fields[] = {
    F(base),
    F(tsc_deadline),
    F(pv_eoi_msr),
    F(id),
    F(tpr),
    F(ldr),
    F(dfr),
    F(svr),
    F(esr),
    F(esr_pending),
    F(icr_high),
    F(icr_low),
    F(divide),
    A(lvt),
    A(isr),
    A(tmr),
    A(irr),
    F(initial_count),
    F(period_ns),
    F(next_ns),
    F(owed),
    A(lint),
    F(extint_message),
    F(pv_eoi_pending),
};

static void lapic_save(const void *dev, struct dev_writer *w)
{
    const struct lapic *l = dev;
    __typeof__(((struct lapic *)0)->s) s = l->s;
    s.tpr = task_priority(l);
    dev_put_fields(w, &s, fields, DEV_COUNT(fields));
}

static bool valid_state(const struct lapic *l, const __typeof__(l->s) *s)
{
    uint64_t mode = s->base & (APIC_BASE_EN | APIC_BASE_EXTD);
    uint64_t reserved = ~0ull << l->cfg.maxphyaddr | 0x2ff | (l->cfg.x2apic ? 0 : APIC_BASE_EXTD);
    if (s->base & reserved || mode == APIC_BASE_EXTD)
        return false;
    if ((s->isr[0] | s->irr[0] | s->tmr[0]) & 0xffff)
        return false;
    if (s->tpr > 0xff || s->svr & ~SVR_WRITABLE || s->divide & ~DIVIDE_WRITABLE || s->owed > LAPIC_MAX_OWED)
        return false;
    for (unsigned i = 0; i < LVT_COUNT; i++) {
        if (s->lvt[i] & ~(lvt_writable(l, i) | (i == LVT_LINT0 ? LVT_REMOTE_IRR : 0)))
            return false;
    }
    return !s->next_ns || (s->period_ns && s->period_ns <= 128ull << 32);
}

static int lapic_restore(void *dev, struct dev_reader *r, uint16_t version)
{
    struct lapic *l = dev;
    __typeof__(l->s) in = l->s;
    dev_get_fields(r, &in, fields, DEV_COUNT(fields));
    if (r->failed || !valid_state(l, &in))
        return -RD_E_FORMAT;
    l->s = in;
    set_task_priority(l, in.tpr);
    if (l->cfg.cr8)
        *l->cfg.cr8_slow = 1; /* until the next change of what waits */
    apic_bus_map_page(l->bus);
    lapic_timer_rearm(l);
    return 0;
}

const struct dev_ops lapic_dev_ops = {
    .type = "lapic",
    .version = 1,
    .reset = lapic_reset,
    .save = lapic_save,
    .restore = lapic_restore,
};

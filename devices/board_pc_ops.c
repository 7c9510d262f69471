/* devices/board_pc_ops.c - the engine's callbacks answered by the board's chips. See monitor/engine.h for the conventions. nofpu: the
 * guest's FPU state is live when the engine calls. */
#include "base/log.h"
#include "devices/board_pc_int.h"
#include "monitor/engine.h"

#define KVM_ENOSYS 1000u

void board_sync_tsc(struct board_pc *b)
{
    uint64_t offset = b->cfg.tsc_offset ? *b->cfg.tsc_offset : 0;
    if (offset == b->tsc.offset)
        return;
    fpu_hook_leave(&b->cfg.fpu);
    if (b->cfg.kvm)
        kvmclock_pause(&b->kvmclock);
    b->tsc.offset = offset;
    if (b->cfg.kvm)
        kvmclock_resume(&b->kvmclock, false);
    lapic_time_changed(&b->lapic);
}

void board_set_intr(void *board, int n, bool level)
{
    struct board_pc *b = board;
    b->intr_level = level;
    irq_set(&b->cfg.intr, level);
}

/* What every callback begins with. */
static void begin(struct board_pc *b)
{
    if (log_mask)
        fpu_hook_leave(&b->cfg.fpu);
    board_sync_tsc(b);
}

static int pio(void *opaque, uint16_t port, unsigned size, bool is_write, uint32_t *val)
{
    struct board_pc *b = opaque;
    begin(b);
    if (is_write)
        bus_pio_write(b->bus, port, size, *val);
    else
        *val = bus_pio_read(b->bus, port, size);
    return VM_IO_DONE;
}

static int mmio(void *opaque, uint64_t gpa, unsigned size, bool is_write, uint8_t *data)
{
    struct board_pc *b = opaque;
    begin(b);
    if (is_write)
        bus_mmio_write(b->bus, gpa, data, size);
    else
        bus_mmio_read(b->bus, gpa, data, size);
    return VM_IO_DONE;
}

/* The PIT wants to know when its tick was taken, also when the IOAPIC brought it. */
static bool is_pit_vector(const struct board_pc *b, int vector)
{
    uint64_t redir = b->ioapic.s.redir[ioapic_isa_pin(0)];
    return !(redir >> 16 & 1) && (int)(redir & 0xff) == vector;
}

static int intr_ack(void *opaque)
{
    struct board_pc *b = opaque;
    begin(b);
    int vector = lapic_ack(&b->lapic);
    if (vector >= 0 && is_pit_vector(b, vector)) {
        fpu_hook_leave(&b->cfg.fpu);
        pit_irq_acked(&b->pit);
    }
    return vector;
}

static int read_msr(void *opaque, uint32_t msr, uint64_t *val)
{
    struct board_pc *b = opaque;
    begin(b);
    int r = lapic_rdmsr(&b->lapic, msr, val);
    if (r != 1 || !b->cfg.kvm)
        return r;
    fpu_hook_leave(&b->cfg.fpu);
    return kvmclock_rdmsr(&b->kvmclock, 0, msr, val);
}

static int write_msr(void *opaque, uint32_t msr, uint64_t val)
{
    struct board_pc *b = opaque;
    begin(b);
    int r = lapic_wrmsr(&b->lapic, msr, val);
    if (r != 1 || !b->cfg.kvm)
        return r;
    fpu_hook_leave(&b->cfg.fpu);
    return kvmclock_wrmsr(&b->kvmclock, 0, msr, val);
}

/* The guest was told it runs under KVM: a call of which CPUID promised nothing is answered as KVM answers it. */
static int hypercall(void *opaque, uint64_t nr, const uint64_t args[4], uint64_t *ret)
{
    const struct board_pc *b = opaque;
    if (!b->cfg.kvm)
        return 1;
    *ret = (uint64_t) - (int64_t)KVM_ENOSYS;
    return 0;
}

static uint64_t read_cr8(void *opaque) { return lapic_read_cr8(&((struct board_pc *)opaque)->lapic); }
static void write_cr8(void *opaque, uint64_t val) { lapic_write_cr8(&((struct board_pc *)opaque)->lapic, val); }
static uint8_t apic_id(void *opaque) { return (uint8_t)lapic_id(&((struct board_pc *)opaque)->lapic); }

const struct vm_ops board_pc_vm_ops = {
    .pio = pio,
    .mmio = mmio,
    .intr_ack = intr_ack,
    .rdmsr = read_msr,
    .wrmsr = write_msr,
    .hypercall = hypercall,
    .read_cr8 = read_cr8,
    .write_cr8 = write_cr8,
    .apic_id = apic_id,
    .nofpu = true,
};

void board_pc_tick(struct board_pc *b)
{
    board_sync_tsc(b);
    if (b->cfg.kvm)
        kvmclock_update_steal(&b->kvmclock, 0);
}

void board_pc_pause(struct board_pc *b)
{
    if (b->cfg.kvm)
        kvmclock_pause(&b->kvmclock);
}

void board_pc_resume(struct board_pc *b)
{
    lapic_time_changed(&b->lapic);
    if (b->cfg.kvm)
        kvmclock_resume(&b->kvmclock, true);
}

bool board_pc_power_button(struct board_pc *b) { return acpi_pm_power_button(&b->acpi); }

void board_pc_nmi(struct board_pc *b)
{
    lapic_set_lint(&b->lapic, 1, true);
    lapic_set_lint(&b->lapic, 1, false);
}

/* Linux takes back what KVM may write to (PV EOI, steal time) in its reboot notifiers, which a panic does not run. */
bool board_pc_reset_is_unclean(const struct board_pc *b)
{
    return b->cfg.kvm && ((b->lapic.s.pv_eoi_msr & 1) || (b->kvmclock.s.steal[0] & 1));
}

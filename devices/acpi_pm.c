/* devices/acpi_pm.c - see acpi_pm.h. */
#include "devices/acpi_pm.h"
#include "base/err.h"
#include "base/log.h"
#include "devices/bus.h"
#include <string.h>

#define STS_TMR 0x0001u
#define STS_PWRBTN 0x0100u
#define STS_ALL 0x8731u
#define EN_ALL 0x0721u
#define CNT_SCI_EN 0x0001u
#define CNT_SLP_EN 0x2000u
#define CNT_SLP_TYP 0x1c00u
#define CNT_STORED (CNT_SCI_EN | 0x0002u /* BM_RLD */ | CNT_SLP_TYP)
#define TOGGLE_TICKS 0x80000000ull /* the timer's top bit changes every 2^31 ticks */
#define CFG_PMBA 0x40u
#define CFG_DEVACTB 0x58u
#define CFG_PMREGMISC 0x80u

static uint64_t ticks_now(const struct acpi_pm *pm)
{
    return (uint64_t)((unsigned __int128)vtime_now(pm->cfg.loop) * ACPI_PM_HZ / NS_PER_SEC);
}

static void latch_timer(struct acpi_pm *pm)
{
    uint64_t t = ticks_now(pm);
    if (t < pm->s.next_toggle)
        return;
    pm->s.sts |= STS_TMR;
    pm->s.next_toggle = (t / TOGGLE_TICKS + 1) * TOGGLE_TICKS;
}

/* SCI level, and the timer that will set TMR_STS if somebody waits for it. */
static void update(struct acpi_pm *pm)
{
    latch_timer(pm);
    uint64_t at = VTIME_NEVER;
    if ((pm->s.en & STS_TMR) && !(pm->s.sts & STS_TMR)) {
        unsigned __int128 ns = (unsigned __int128)pm->s.next_toggle * NS_PER_SEC / ACPI_PM_HZ + 1;
        at = ns >= VTIME_NEVER ? VTIME_NEVER : (uint64_t)ns;
    }
    vtimer_arm(&pm->timer, at);
    bool pending = (pm->s.sts & pm->s.en & EN_ALL) || (pm->s.gpe_sts & pm->s.gpe_en);
    irq_set(&pm->cfg.sci, (pm->s.cnt & CNT_SCI_EN) && pending);
}

static void timer_fired(void *opaque) { update(opaque); }

static uint32_t read_dword(struct acpi_pm *pm, unsigned offset)
{
    switch (offset) {
    case ACPI_PM_EVT: latch_timer(pm); return pm->s.sts | (uint32_t)pm->s.en << 16;
    case ACPI_PM_CNT: return pm->s.cnt;
    case ACPI_PM_TMR: return (uint32_t)ticks_now(pm);
    case ACPI_PM_GPE0: return pm->s.gpe_sts | (uint32_t)pm->s.gpe_en << 16;
    default: return 0;
    }
}

static uint64_t block_read(void *opaque, uint64_t offset, unsigned size)
{
    return read_dword(opaque, offset & ~3u) >> 8 * (offset & 3);
}

static void sleep_request(struct acpi_pm *pm)
{
    unsigned type = (pm->s.cnt & CNT_SLP_TYP) >> 10;
    if (type != ACPI_PM_SLP_TYP_S5) {
        LOGF(UNIMP, "sleep type %u asked for: only power-off exists", type);
        return;
    }
    if (pm->cfg.power_off)
        pm->cfg.power_off(pm->cfg.opaque);
}

static uint16_t set_byte(uint16_t reg, unsigned high, uint8_t val)
{
    return high ? (uint16_t)((reg & 0x00ff) | val << 8) : (uint16_t)((reg & 0xff00) | val);
}

/* All registers allow byte access, so a wider one is a run of bytes. Returns whether SLP_EN was written. */
static bool write_byte(struct acpi_pm *pm, unsigned offset, uint8_t val)
{
    unsigned high = offset & 1;
    uint16_t bits = (uint16_t)(high ? val << 8 : val);
    switch (offset & ~1u) {
    case ACPI_PM_EVT:
        latch_timer(pm);
        pm->s.sts &= (uint16_t)~bits; /* write one to clear */
        break;
    case ACPI_PM_EVT + 2: pm->s.en = set_byte(pm->s.en, high, val) & EN_ALL; break;
    case ACPI_PM_CNT: pm->s.cnt = set_byte(pm->s.cnt, high, val) & CNT_STORED; return bits & CNT_SLP_EN;
    case ACPI_PM_GPE0: pm->s.gpe_sts &= (uint16_t)~bits; break;
    case ACPI_PM_GPE0 + 2: pm->s.gpe_en = set_byte(pm->s.gpe_en, high, val); break;
    default: break;
    }
    return false;
}

static void block_write(void *opaque, uint64_t offset, unsigned size, uint64_t val)
{
    struct acpi_pm *pm = opaque;
    bool sleep = false;
    for (unsigned i = 0; i < size; i++)
        sleep |= write_byte(pm, (unsigned)offset + i, (uint8_t)(val >> 8 * i));
    update(pm);
    if (sleep)
        sleep_request(pm);
}

const struct bus_ops acpi_pm_bus_ops = {.read = block_read, .write = block_write, .max_size = 4};

/* -- APM ports: there is no SMM behind them, the switch to ACPI mode is made here -- */
static uint64_t apm_read(void *opaque, uint64_t offset, unsigned size)
{
    struct acpi_pm *pm = opaque;
    return offset ? pm->s.apm_status : pm->s.apm_control;
}

static void apm_write(void *opaque, uint64_t offset, unsigned size, uint64_t val)
{
    struct acpi_pm *pm = opaque;
    if (offset) {
        pm->s.apm_status = (uint8_t)val;
        return;
    }
    pm->s.apm_control = (uint8_t)val;
    if (val == ACPI_PM_CMD_ENABLE)
        pm->s.cnt |= CNT_SCI_EN;
    else if (val == ACPI_PM_CMD_DISABLE)
        pm->s.cnt &= (uint16_t)~CNT_SCI_EN;
    update(pm);
}

static const struct bus_ops apm_ops = {.read = apm_read, .write = apm_write, .max_size = 1};

/* -- events from outside -- */
bool acpi_pm_power_button(struct acpi_pm *pm)
{
    bool heard = (pm->s.cnt & CNT_SCI_EN) && (pm->s.en & STS_PWRBTN);
    pm->s.sts |= STS_PWRBTN;
    update(pm);
    return heard;
}

void acpi_pm_gpe(struct acpi_pm *pm, unsigned bit)
{
    pm->s.gpe_sts |= (uint16_t)(1u << (bit & 15));
    update(pm);
}

/* Reset control register: bit 2 starts a reset, bit 1 says hard or soft; both are a whole-machine reset here. */
uint8_t acpi_reset_read(void *opaque)
{
    struct acpi_pm *pm = opaque;
    return pm->s.reset_control;
}

void acpi_reset_write(void *opaque, uint8_t val)
{
    struct acpi_pm *pm = opaque;
    pm->s.reset_control = val & 0x0a;
    if ((val & 0x04) && pm->cfg.reset)
        pm->cfg.reset(pm->cfg.opaque);
}

/* -- reset and saved state -- */
static void acpi_pm_reset(void *dev)
{
    struct acpi_pm *pm = dev;
    memset(&pm->s, 0, sizeof(pm->s));
    pm->s.next_toggle = (ticks_now(pm) / TOGGLE_TICKS + 1) * TOGGLE_TICKS;
    update(pm);
}

int acpi_pm_init(struct acpi_pm *pm, struct bus *b, const struct acpi_pm_cfg *cfg)
{
    memset(pm, 0, sizeof(*pm));
    pm->cfg = *cfg;
    vtimer_init(&pm->timer, cfg->loop, timer_fired, pm);
    acpi_pm_reset(pm);
    struct bus_range r = {"apm", BUS_PIO, 0xb2, 2, &apm_ops, pm};
    int h = bus_add(b, &r);
    return h < 0 ? h : 0;
}

#define F(m) DEV_FIELD(__typeof__(((struct acpi_pm *)0)->s), m)
static const struct dev_field fields[] = {
    F(sts), F(en), F(cnt), F(gpe_sts), F(gpe_en), F(next_toggle), F(apm_control), F(apm_status), F(reset_control),
};

static void acpi_pm_save(const void *dev, struct dev_writer *w)
{
    const struct acpi_pm *pm = dev;
    dev_put_fields(w, &pm->s, fields, DEV_COUNT(fields));
}

static int acpi_pm_restore(void *dev, struct dev_reader *r, uint16_t version)
{
    struct acpi_pm *pm = dev;
    __typeof__(pm->s) in = pm->s;
    dev_get_fields(r, &in, fields, DEV_COUNT(fields));
    if (r->failed || in.sts & ~STS_ALL || in.en & ~EN_ALL || in.cnt & ~CNT_STORED || in.reset_control & ~0x0a)
        return -RD_E_FORMAT;
    struct irq_line sci = pm->cfg.sci;
    pm->s = in;
    pm->cfg.sci.fn = NULL; /* restoring drives no line, but the timer has to be armed */
    update(pm);
    pm->cfg.sci = sci;
    return 0;
}

const struct dev_ops acpi_pm_dev_ops = {
    .type = "acpi-pm",
    .version = 1,
    .reset = acpi_pm_reset,
    .save = acpi_pm_save,
    .restore = acpi_pm_restore,
};

/* -- PCI function -- */
static void map_block(struct piix4_pm *p)
{
    uint16_t base = pci_get16(&p->pci, CFG_PMBA) & 0xffc0;
    bool want = (p->pci.cfg[CFG_PMREGMISC] & 1) && base;
    if (p->handle >= 0 && want && base == p->base)
        return;
    if (p->handle >= 0)
        bus_remove(p->pci.bus->bus, p->handle);
    p->handle = -1;
    p->base = base;
    if (!want)
        return;
    struct bus_range r = {"acpi-pm", BUS_PIO, base, ACPI_PM_BYTES, &acpi_pm_bus_ops, p->pm};
    p->handle = bus_add(p->pci.bus->bus, &r);
    if (p->handle < 0)
        LOGF(GUEST_ERRORS, "PM block moved to port %#x, where something else is", base);
}

static void config_changed(void *opaque, unsigned offset, unsigned bytes) { map_block(opaque); }

int piix4_pm_init(struct piix4_pm *p, struct pci_bus *bus, struct acpi_pm *pm)
{
    static const struct pci_id id = {
        .vendor = 0x8086, .device = 0x7113, .revision = 3, .class_code = 0x068000, .int_pin = 1};
    p->pm = pm;
    p->handle = -1;
    p->base = 0;
    pci_dev_init(&p->pci, "piix4-pm", &id);
    p->pci.config_changed = config_changed;
    p->pci.opaque = p;
    p->pci.cfg[CFG_PMBA] = 1;
    pci_set16(p->pci.wmask, CFG_PMBA, 0xffc0);
    memset(p->pci.wmask + CFG_DEVACTB, 0xff, 4);
    p->pci.cfg[CFG_DEVACTB + 3] = 0x02; /* APMC_EN: tells SeaBIOS that SMM needs no setting up; there is none */
    p->pci.wmask[CFG_PMREGMISC] = 1;
    return pci_add(bus, &p->pci, PCI_DEVFN(PCI_SLOT_ISA, 3));
}

void piix4_pm_firmware_setup(struct piix4_pm *p)
{
    pci_config_write(p->pci.bus, p->pci.devfn, CFG_PMBA, 2, ACPI_PM_BASE_DEFAULT | 1);
    pci_config_write(p->pci.bus, p->pci.devfn, CFG_PMREGMISC, 1, 1);
    pci_config_write(p->pci.bus, p->pci.devfn, PCI_INT_LINE, 1, ACPI_SCI_IRQ);
    p->pm->s.cnt |= CNT_SCI_EN;
    update(p->pm);
}

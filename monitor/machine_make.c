/* monitor/machine_make.c - turns a struct cmdline into a VM, a board and consoles; and starts them, at power-on and after resets. */
#include "base/err.h"
#include "base/log.h"
#include "devices/bus.h"
#include "monitor/cpumodel.h"
#include "monitor/hostlayout.h"
#include "monitor/machine_int.h"
#include "monitor/sysinsn.h"
#include "shadowmmu/gpmem.h"
#include "shadowmmu/ptwalk.h"
#include <errno.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define DEBUGCON_PORT 0xe9u
#define DEBUGEXIT_PORT 0x501u
#define DEBUGEXIT_BYTES 2u
#define PAGE 0x1000u

/* ---- what devices call ---- */

static int guest_read(void *opaque, uint64_t gpa, void *buf, size_t bytes)
{
    return gpmem_read(opaque, gpa, buf, bytes);
}
static int guest_write(void *opaque, uint64_t gpa, const void *buf, size_t bytes)
{
    return gpmem_write(opaque, gpa, buf, bytes);
}

static void set_nmi(void *opaque, int n, bool level)
{
    if (level)
        vcpu_inject_nmi(opaque);
}

static void leave_fpu(void *opaque) { fpu_leave(opaque); }

static void board_event(void *opaque, enum board_event e, int arg)
{
    struct machine *m = opaque;
    switch (e) {
    case BOARD_RESET:
        m->guest_reset = true;
        m->reset_cause = (enum board_reset_cause)arg;
        break;
    case BOARD_POWER_OFF: m->guest_off = true; break;
    case BOARD_DEBUG_EXIT: machine_quit(m, arg); return;
    }
    vcpu_kick(m->v);
}

static void kick(void *opaque) { vcpu_kick(((struct machine *)opaque)->v); }

/* ---- memory ---- */

static int check_memory(const struct machine *m)
{
    struct sysinfo si;
    uint64_t bytes = m->c->mem_bytes;
    if (sysinfo(&si))
        return 0;
    uint64_t host = ((uint64_t)si.totalram + si.totalswap) * si.mem_unit;
    if (bytes > host)
        return machine_fail(m, "-m: %llu MiB of guest memory are more than this host has (%llu MiB with swap)",
                            (unsigned long long)bytes >> 20, (unsigned long long)host >> 20);
    return 0;
}

static int add_memory(struct machine *m)
{
    uint64_t ram = m->c->mem_bytes, below = ram < BOARD_RAM_HOLE ? ram : BOARD_RAM_HOLE;
    const struct {
        uint64_t gpa, end;
    } part[] = {{0, BOARD_VGA_HOLE}, {BOARD_VGA_HOLE_END, below}, {1ull << 32, (1ull << 32) + (ram - below)}};
    for (unsigned i = 0; i < 3; i++) {
        if (part[i].end <= part[i].gpa)
            continue;
        int rc = vm_add_memory(m->vm, part[i].gpa, part[i].end - part[i].gpa, false);
        if (rc)
            return machine_fail(m, "-m: cannot set up %llu MiB of guest memory: %s", (unsigned long long)ram >> 20,
                                err_text(rc));
    }
    m->n_map = boot_default_map(ram, 0, m->map);
    return 0;
}

/* ---- the engine ---- */

static int make_vm(struct machine *m)
{
    const struct cmdline_engine *e = &m->c->engine;
    struct vm_config cfg = {
        .tc_bytes = e->tc_bytes,
        .no_window = e->window == 0,
        .window_why = hostlayout_ok() ? NULL : "the host puts stacks where Linux guests have their kernel",
        .user = (enum vm_user_mode)e->user, /* the same order: monitor/cmdline.h */
        .no_adapt = !e->adapt,
        .no_chain = !e->chain,
        .trap = e->engine == ENGINE_TRAP,
        .max_insns = (unsigned)e->max_insns,
        .evict_random = (unsigned)e->evict_random,
        .force_exit = (unsigned)e->force_exit,
        .count = e->count,
        .seed = e->seed,
        .check_shadow = (unsigned)e->check_shadow,
        .check_tc = (unsigned)e->check_tc,
        .check_sabotage = (unsigned)e->check_sabotage,
        .cpu_model = m->c->cpu_spec,
    };
    int rc = vm_create(&m->vm, &cfg, &board_pc_vm_ops, &m->board);
    if (rc)
        return machine_fail(m, "cannot create the virtual machine: %s", err_text(rc));
    m->v = vm_vcpu(m->vm, 0);
    const char *lacks;
    if (cfg.trap && !vm_has_window(m->vm, &lacks))
        return machine_fail(m, "-accel trap: needs the kernel window: %s", lacks ? lacks : "it is switched off");
    if (m->c->stats_file && e->account && vm_account_start(m->vm, m->start_ns))
        return machine_fail(m, "-stats: cannot start a thread for the account of time");
    return add_memory(m);
}

/* ---- the board ---- */

static uint64_t prop_number(const struct props *p, const char *key, uint64_t val)
{
    props_u64(p, key, 0xffff, &val); /* the parser has checked it */
    return val;
}

static int add_debugcon(struct machine *m, struct board_pc_cfg *cfg, uint16_t base, uint8_t readback,
                        const struct chr_spec *s)
{
    char label[24];
    if (cfg->n_debugcon == BOARD_DEBUGCONS)
        return machine_fail(m, "more than %d debug consoles", BOARD_DEBUGCONS);
    struct board_debugcon_cfg *d = &cfg->debugcon[cfg->n_debugcon];
    snprintf(label, sizeof label, "debugcon%u", cfg->n_debugcon);
    d->base = base;
    d->readback = readback;
    int status = s ? machine_open_chr(m, s, label, &d->chr) : 0;
    if (!status && (!s || s->kind != CHR_NONE))
        cfg->n_debugcon++;
    return status;
}

static int add_device(struct machine *m, struct board_pc_cfg *cfg, const struct cmdline_item *item)
{
    const struct props *p = &item->props;
    const char *driver = props_get(p, "driver"), *chardev = props_get(p, "chardev");
    if (!strcmp(driver, "isa-debugcon"))
        return add_debugcon(m, cfg, (uint16_t)prop_number(p, "iobase", DEBUGCON_PORT),
                            (uint8_t)prop_number(p, "readback", DEBUGCON_PORT),
                            chardev ? cmdline_chardev(m->c, chardev) : NULL);
    if (!strcmp(driver, "isa-debug-exit")) {
        uint64_t base = prop_number(p, "iobase", DEBUGEXIT_PORT), size = prop_number(p, "iosize", DEBUGEXIT_BYTES);
        if (cfg->debugexit_size)
            return machine_fail(m, "%s %s: there is one isa-debug-exit already", item->opt, item->text);
        if (!size || base + size > 0x10000)
            return machine_fail(m, "%s %s: iobase and iosize are no range of ports", item->opt, item->text);
        cfg->debugexit_base = (uint16_t)base;
        cfg->debugexit_size = (uint16_t)size;
        return 0;
    }
    return machine_fail(m, "%s %s: this device is not supported in this version", item->opt, item->text);
}

static int open_serials(struct machine *m, struct board_pc_cfg *cfg)
{
    char label[24];
    if (m->c->serial.n > BOARD_SERIALS)
        return machine_fail(m, "%s %s: there are %d serial ports", m->c->serial.v[BOARD_SERIALS].opt,
                            m->c->serial.v[BOARD_SERIALS].text, BOARD_SERIALS);
    for (unsigned i = 0; i < m->c->serial.n; i++) {
        const struct chr_spec *s = &m->c->serial.v[i];
        snprintf(label, sizeof label, "serial%u", i);
        cfg->serial[i].present = s->kind != CHR_NONE;
        int status = machine_open_chr(m, s, label, &cfg->serial[i].chr);
        if (status)
            return status;
    }
    return 0;
}

/* hpet=on of any -machine. */
static bool machine_flag(const struct cmdline *c, const char *key, bool val)
{
    for (unsigned i = 0; i < c->machine_opts.n; i++)
        props_bool(&c->machine_opts.v[i].props, key, &val);
    return val;
}

static bool wants_kvm(const struct cmdline *c)
{
    bool on = true;
    props_bool(&c->cpu_props, "kvm", &on);
    return on;
}

static int open_consoles(struct machine *m, struct board_pc_cfg *cfg)
{
    int status = open_serials(m, cfg);
    for (unsigned i = 0; i < m->c->debugcon.n && !status; i++)
        status = add_debugcon(m, cfg, DEBUGCON_PORT, DEBUGCON_PORT, &m->c->debugcon.v[i]);
    for (unsigned i = 0; i < m->c->devices.n && !status; i++)
        status = add_device(m, cfg, &m->c->devices.v[i]);
    return status;
}

/* What CPUID says about what the board does. */
static void tell_cpu(struct machine *m)
{
    struct cpumodel *cpu = vm_cpumodel(m->vm);
    static const uint32_t leaves[] = {KVM_CPUID_BASE, KVM_CPUID_BASE + 1, KVM_CPUID_LAST};
    uint32_t hv[3][5];
    cpumodel_set_tsc(cpu, (uint32_t)(m->board.tsc.hz / 1000), LAPIC_BUS_HZ);
    if (!m->board.cfg.kvm)
        return;
    for (unsigned i = 0; i < 3; i++) {
        hv[i][0] = leaves[i];
        kvmclock_cpuid(&m->board.kvmclock, leaves[i], &hv[i][1]);
    }
    cpumodel_set_hv(cpu, hv, 3);
}

static int add_fwcfg_items(struct machine *m)
{
    char err[256] = "out of memory";
    for (unsigned i = 0; i < m->c->fw_cfg.n; i++)
        if (fwcfg_add_option(&m->board.fwcfg, m->c->fw_cfg.v[i].text, err, sizeof err))
            return machine_fail(m, "-fw_cfg %s: %s", m->c->fw_cfg.v[i].text, err);
    return 0;
}

static int make_board(struct machine *m)
{
    const struct cpumodel *cpu = vm_cpumodel(m->vm);
    struct tsc_calibration tsc;
    uint32_t leaf1[4], sizes[4];
    char err[256];
    tsc_calibrate(&tsc);
    cpumodel_leaf(cpu, 1, 0, leaf1);
    cpumodel_leaf(cpu, 0x80000008, 0, sizes);
    struct board_pc_cfg cfg = {
        .ram_bytes = m->c->mem_bytes,
        .loop = m->loop,
        .mem = {guest_read, guest_write, vm_memory(m->vm)},
        .intr = {.fn = vcpu_intr_pin, .opaque = m->v},
        .nmi = {.fn = set_nmi, .opaque = m->v},
        .fpu = {.leave = leave_fpu, .opaque = m->v},
        .tsc_hz = tsc.hz,
        .tsc_offset = &m->v->c.tsc_offset,
        .x2apic = cpumodel_has(cpu, CPU_FEAT_X2APIC),
        .tsc_deadline = cpumodel_has(cpu, CPU_FEAT_TSC_DEADLINE),
        .maxphyaddr = (uint8_t)sizes[0],
        .cpu_signature = leaf1[0],
        .cpu_features = leaf1[3],
        .hpet = machine_flag(m->c, "hpet", false) && !m->c->no_hpet,
        .kvm = wants_kvm(m->c),
        .event = board_event,
        .opaque = m,
    };
    vcpu_share_cr8(m->v, &cfg.cr8, &cfg.cr8_slow);
    int status = open_consoles(m, &cfg);
    if (status)
        return status;
    m->board_made = true;
    if (board_pc_init(&m->board, &cfg, err, sizeof err))
        return machine_fail(m, "%s", err);
    status = machine_open_monitors(m); /* after the ports: a shared terminal begins with the console */
    if (!status)
        status = add_fwcfg_items(m);
    if (status)
        return status;
    tell_cpu(m);
    LOGF(BOOT, "TSC %llu Hz (%s)", (unsigned long long)tsc.hz,
         tsc.source == TSC_FROM_HYPERVISOR_LEAF ? "from the hypervisor's CPUID leaf"
         : tsc.source == TSC_FROM_CPUID_15      ? "from CPUID leaf 15h"
                                                : "measured");
    return 0;
}

/* ---- all of it ---- */

static int make_loop(struct machine *m)
{
    struct evloop_config cfg = {.kick = kick, .opaque = m, .timer_signal = vcpu_kick_signal()};
    int rc = evloop_create(&m->loop, &cfg);
    return rc ? machine_fail(m, "cannot create the event loop: %s", err_text(rc)) : 0;
}

/* What is written for the outside comes last: a machine that cannot start leaves nothing behind. */
static int open_files(struct machine *m)
{
    if (m->c->stats_file && !(m->stats = fopen(m->c->stats_file, "we")))
        return machine_fail(m, "-stats: cannot open '%s': %s", m->c->stats_file, strerror(errno));
    if (!m->c->pidfile)
        return 0;
    FILE *f = fopen(m->c->pidfile, "we");
    m->pidfile_written = f != NULL;
    if (!f || fprintf(f, "%ld\n", (long)getpid()) < 0 || fclose(f))
        return machine_fail(m, "-pidfile: cannot write '%s': %s", m->c->pidfile, strerror(errno));
    return 0;
}

int machine_make(struct machine *m)
{
    if (m->c->log_file && log_open(m->c->log_file))
        return machine_fail(m, "-D: cannot open '%s': %s", m->c->log_file, strerror(errno));
    log_mask = m->c->log_mask;
    int status = check_memory(m);
    if (!status)
        status = make_vm(m);
    if (!status)
        status = make_loop(m);
    if (!status)
        status = make_board(m);
    if (!status)
        status = machine_start(m);
    if (!status)
        status = open_files(m);
    if (status)
        return status;
    machine_start_chrs(m);
    return machine_confine(m);
}

static int set_msr(struct machine *m, uint32_t msr, uint64_t val) { return sys_wrmsr(m->v, msr, val); }

/* As a BIOS leaves the memory types: RAM write-back, ROMs write-protected, the VGA window and PCI's memory uncached. Linux
 * takes registers that are all zero for a broken machine and gives up its PAT. */
static int set_up_mtrrs(struct machine *m)
{
    const uint64_t wb = 0x0606060606060606ull, wp = 0x0505050505050505ull, end = 1ull << 32;
    const uint64_t phys = (1ull << GUEST_MAXPHYADDR) - 1;
    int err = set_msr(m, MSR_MTRR_FIX64K_00000, wb) | set_msr(m, MSR_MTRR_FIX16K_80000, wb) |
              set_msr(m, MSR_MTRR_FIX16K_A0000, 0);
    for (uint32_t msr = MSR_MTRR_FIX4K_C0000; msr < MSR_MTRR_FIX4K_C0000 + 8; msr++)
        err |= set_msr(m, msr, wp);
    uint32_t n = MSR_MTRR_BASE0;
    for (uint64_t base = board_pc_pci_first(&m->board), bytes; base < end; base += bytes, n += 2) {
        bytes = base & -base; /* a range is a power of two, aligned to its size */
        err |= set_msr(m, n, base | MTRR_TYPE_UC) | set_msr(m, n + 1, (phys & ~(bytes - 1)) | MTRR_VALID);
    }
    return err | set_msr(m, MSR_MTRR_DEF_TYPE, MTRR_ENABLE | MTRR_FIXED_ENABLE | MTRR_TYPE_WB);
}

static enum boot_entry kernel_entry(unsigned bits)
{
    return bits == 16 ? BOOT_ENTRY_16 : bits == 32 ? BOOT_ENTRY_32 : bits == 64 ? BOOT_ENTRY_64 : BOOT_ENTRY_AUTO;
}

int machine_start(struct machine *m)
{
    struct boot_config bc = {
        .kernel = m->c->kernel,
        .initrd = m->c->initrd,
        .append = m->c->append,
        .map = m->map,
        .n_map = m->n_map,
        .rsdp_gpa = board_pc_rsdp(&m->board),
        .entry = kernel_entry(m->c->kernel_entry),
        .open_file = machine_open_file,
        .opaque = m,
    };
    struct boot_info info;
    struct cpu cpu;
    char err[512];
    vcpu_reset(m->v);
    board_pc_reset(&m->board);
    int rc = board_pc_firmware_setup(&m->board);
    if (rc)
        return machine_fail(m, "-m: no room for firmware tables in %llu KiB of guest memory",
                            (unsigned long long)m->c->mem_bytes >> 10);
    if (set_up_mtrrs(m))
        return machine_fail(m, "the CPU does not take a BIOS's memory types");
    vcpu_get_state(m->v, &cpu);
    if (boot_load(&bc, vm_memory(m->vm), &cpu, &info, err, sizeof err))
        return machine_fail(m, "%s", err);
    LOGF(BOOT, "%s: %s, entry %#llx", m->c->kernel, info.protocol, (unsigned long long)info.entry);
    if (vcpu_set_state(m->v, &cpu))
        return machine_fail(m, "'%s': its entry state is not a possible one", m->c->kernel);
    return 0;
}

void machine_unmake(struct machine *m)
{
    machine_close_chrs(m);
    machine_close_files(m);
    if (m->pidfile_written)
        unlink(m->c->pidfile);
    if (m->board_made)
        board_pc_fini(&m->board);
    if (m->loop) /* first: its helper thread kicks the vCPU */
        evloop_destroy(m->loop);
    if (m->vm)
        vm_destroy(m->vm);
}

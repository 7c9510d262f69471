/* devices/lapic_dump.c - a local APIC for people to read. */
#include "devices/lapic.h"

static void vectors(FILE *f, const char *name, const uint32_t *bits)
{
    fprintf(f, "%s:", name);
    for (unsigned v = 0; v < 256; v++)
        if (bits[v / 32] >> (v % 32) & 1)
            fprintf(f, " %02x", v);
    fputc('\n', f);
}

void lapic_dump(const struct lapic *l, FILE *f)
{
    static const char *const lvt[LVT_COUNT] = {"timer", "thermal", "performance", "lint0", "lint1", "error"};
    static const char *const timer[4] = {"one-shot", "periodic", "TSC deadline", "reserved mode"};
    bool on = l->s.base & APIC_BASE_EN, x2apic = l->s.base & APIC_BASE_EXTD;
    fprintf(f, "lapic%u: %s, id=%02x tpr=%02x svr=%03x ldr=%08x dfr=%08x esr=%02x icr=%08x %08x\n", l->cfg.id,
            !on      ? "off"
            : x2apic ? "x2APIC"
                     : "xAPIC",
            l->s.id, l->s.tpr, l->s.svr, l->s.ldr, l->s.dfr, l->s.esr, l->s.icr_high, l->s.icr_low);
    for (unsigned i = 0; i < LVT_COUNT; i++)
        fprintf(f, "lvt %s: %05x%s\n", lvt[i], l->s.lvt[i], l->s.lvt[i] & 0x10000 ? " masked" : "");
    fprintf(f, "timer: %s, initial count %u, divide %x, TSC deadline %#llx, %u ticks owed\n",
            timer[l->s.lvt[LVT_TIMER] >> 17 & 3], l->s.initial_count, l->s.divide,
            (unsigned long long)l->s.tsc_deadline, l->s.owed);
    vectors(f, "in service", l->s.isr);
    vectors(f, "requested", l->s.irr);
    fprintf(f, "ended: %llu interrupts, %llu of them by PV EOI (%s)\n", (unsigned long long)l->eois,
            (unsigned long long)l->pv_eois, l->s.pv_eoi_msr & 1 ? "on" : "off");
}

/* ACPI tables: structure and checksums here; the AML by iasl and acpiexec, where they are installed. */
#include "tests/unit/devices/dev_ram.h"
#include "devices/acpi_tables.h"
#include "devices/aml.h"
#include "devices/bus.h"
#include "devices/fwcfg.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define GPA 0xe0000u
static const struct acpi_cfg full = {
    .cpus = 2,
    .com_mask = 0xf,
    .ps2 = true,
    .rtc = true,
    .hpet = true,
    .fwcfg = true,
    .hole32_first = 0xc0000000,
    .hole32_last = 0xfebfffff,
    .hole64_first = 0x8000000000,
    .hole64_last = 0xffffffffff,
};
static struct acpi_blob blob;
static uint8_t *img;

static void setup(void)
{
    cr_assert_eq(acpi_build(&blob, &full), 0);
    img = malloc(acpi_image_bytes(&blob));
    cr_assert_eq(acpi_place(&blob, GPA, img, acpi_image_bytes(&blob)), 0);
}
TestSuite(acpi, .init = setup);

static uint64_t get(uint64_t gpa, unsigned n)
{
    uint64_t v = 0;
    cr_assert(gpa >= GPA && gpa + n <= GPA + acpi_image_bytes(&blob), "%#llx is outside", (unsigned long long)gpa);
    memcpy(&v, img + (gpa - GPA), n);
    return v;
}
static uint8_t sum(const uint8_t *p, size_t n)
{
    uint8_t s = 0;
    while (n--)
        s = (uint8_t)(s + *p++);
    return s;
}
/* GPA of a table by signature, through the XSDT; checks its checksum. */
static uint64_t table(const char *sig)
{
    uint64_t xsdt = get(GPA + 24, 8);
    for (uint64_t at = xsdt + 36; at < xsdt + get(xsdt + 4, 4); at += 8) {
        uint64_t t = get(at, 8);
        if (!memcmp(img + (t - GPA), sig, 4)) {
            cr_assert_eq(sum(img + (t - GPA), get(t + 4, 4)), 0, "%s", sig);
            return t;
        }
    }
    cr_assert_fail("no %s", sig);
    return 0;
}

Test(acpi, rsdp_is_found_by_scanning)
{
    cr_assert_eq(memcmp(img, "RSD PTR ", 8), 0);
    cr_assert_eq(sum(img, 20), 0);
    cr_assert_eq(sum(img, 36), 0);
    cr_assert_eq(img[15], 2);
}

Test(acpi, rsdt_and_xsdt_list_the_same_tables)
{
    uint64_t rsdt = get(GPA + 16, 4), xsdt = get(GPA + 24, 8), n = (get(xsdt + 4, 4) - 36) / 8;
    cr_assert_eq((get(rsdt + 4, 4) - 36) / 4, n);
    cr_assert_eq(n, 4);
    cr_assert_eq(sum(img + (rsdt - GPA), get(rsdt + 4, 4)), 0);
    cr_assert_eq(sum(img + (xsdt - GPA), get(xsdt + 4, 4)), 0);
    for (unsigned i = 0; i < n; i++)
        cr_assert_eq(get(rsdt + 36 + 4 * i, 4), get(xsdt + 36 + 8 * i, 8));
}

Test(acpi, fadt_points_at_dsdt_and_facs)
{
    uint64_t f = table("FACP"), facs = get(f + 36, 4), dsdt = get(f + 40, 4);
    cr_assert_eq(facs & 63, 0);
    cr_assert_eq(memcmp(img + (facs - GPA), "FACS", 4), 0);
    cr_assert_eq(memcmp(img + (dsdt - GPA), "DSDT", 4), 0);
    cr_assert_eq(get(f + 140, 8), dsdt);
    cr_assert_eq(sum(img + (dsdt - GPA), get(dsdt + 4, 4)), 0);
    cr_assert_eq(get(f + 46, 2), 9);
    cr_assert_eq(get(f + 76, 4), 0x608);
    cr_assert_eq(get(f + 112, 4) & 1u << 10, 1u << 10);
    cr_assert_eq(get(f + 120, 8), 0xcf9);
    cr_assert_eq(get(f + 128, 1), 6);
}

Test(acpi, madt_lists_cpus_ioapic_and_overrides)
{
    uint64_t m = table("APIC"), end = m + get(m + 4, 4);
    unsigned cpus = 0, ioapics = 0, iso = 0, nmi = 0;
    for (uint64_t p = m + 44; p < end; p += get(p + 1, 1)) {
        cr_assert_gt(get(p + 1, 1), 1);
        cpus += get(p, 1) == 0;
        ioapics += get(p, 1) == 1 && get(p + 2, 1) == 2 && get(p + 4, 4) == 0xfec00000;
        iso += get(p, 1) == 2 && ((get(p + 3, 1) == 0 && get(p + 4, 4) == 2) || get(p + 3, 1) == 9);
        nmi += get(p, 1) == 4;
    }
    cr_assert(cpus == 2 && ioapics == 1 && iso == 2 && nmi == 1);
}

Test(acpi, bad_configurations_are_refused)
{
    struct acpi_blob b;
    struct acpi_cfg c = full;
    c.cpus = 0;
    cr_assert_eq(acpi_build(&b, &c), -RD_E_INVAL);
    c.cpus = ACPI_MAX_CPUS + 1;
    cr_assert_eq(acpi_build(&b, &c), -RD_E_INVAL);
    c = full;
    c.hole32_last = c.hole32_first;
    cr_assert_eq(acpi_build(&b, &c), -RD_E_INVAL);
    uint8_t small[64];
    cr_assert_eq(acpi_place(&blob, GPA, small, sizeof(small)), -RD_E_INVAL);
    cr_assert_eq(acpi_place(&blob, GPA + 4, img, acpi_image_bytes(&blob)), -RD_E_INVAL);
}

Test(acpi, most_cpus_and_no_extras_fit)
{
    struct acpi_blob b;
    struct acpi_cfg c = {.cpus = ACPI_MAX_CPUS, .hole32_first = 0x80000000, .hole32_last = 0xfebfffff};
    cr_assert_eq(acpi_build(&b, &c), 0);
    acpi_free(&b);
}

/* What firmware does with the loader script must give the same tables as acpi_place. */
Test(acpi, loader_script_reproduces_the_placed_image)
{
    struct bus *bus;
    struct fwcfg fw;
    bus_create(&bus);
    cr_assert_eq(fwcfg_init(&fw, bus, NULL), 0);
    cr_assert_eq(acpi_export(&blob, &fw), 0);
    const struct fwcfg_item *s = fwcfg_find_file(&fw, "etc/table-loader");
    uint8_t *tables = malloc(blob.len), rsdp[36];
    memcpy(tables, fwcfg_find_file(&fw, "etc/acpi/tables")->data, blob.len);
    memcpy(rsdp, fwcfg_find_file(&fw, "etc/acpi/rsdp")->data, 36);
    for (const uint8_t *c = s->data; c < s->data + s->len; c += 128) {
        uint32_t cmd, a[3];
        memcpy(&cmd, c, 4);
        uint8_t *file = strcmp((const char *)c + 4, "etc/acpi/rsdp") ? tables : rsdp;
        if (cmd == 2) {
            uint64_t v = 0;
            memcpy(a, c + 116, 4);
            memcpy(&v, file + a[0], c[120]);
            v += GPA + 64;
            memcpy(file + a[0], &v, c[120]);
        } else if (cmd == 3) {
            memcpy(a, c + 60, 12);
            file[a[0]] = 0;
            file[a[0]] = (uint8_t)-sum(file + a[1], a[2]);
        } else {
            cr_assert_eq(cmd, 1);
        }
    }
    cr_assert_eq(memcmp(rsdp, img, 36), 0);
    cr_assert_eq(memcmp(tables, img + 64, blob.len), 0);
    fwcfg_fini(&fw);
}

/* Runs a command; its output (bounded) and exit status. */
static int run(const char *cmd, char *out, size_t cap)
{
    FILE *p = popen(cmd, "r");
    size_t n = fread(out, 1, cap - 1, p);
    out[n] = 0;
    char sink[4096];
    while (fread(sink, 1, sizeof(sink), p))
        ;
    return pclose(p);
}

static void with_dsdt(const char *cmd_format, char *out, size_t cap, int *status)
{
    char dir[] = "/tmp/acpiXXXXXX", cmd[512];
    cr_assert_not_null(mkdtemp(dir));
    snprintf(cmd, sizeof(cmd), "%s/dsdt.aml", dir);
    FILE *f = fopen(cmd, "wb");
    uint64_t dsdt = get(table("FACP") + 40, 4);
    fwrite(img + (dsdt - GPA), 1, get(dsdt + 4, 4), f);
    fclose(f);
    snprintf(cmd, sizeof(cmd), cmd_format, dir);
    *status = run(cmd, out, cap);
    snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
    cr_assert_eq(system(cmd), 0);
}

Test(acpi, iasl_disassembles_the_dsdt_and_compiles_it_again_without_errors)
{
    static char out[65536];
    int status;
    if (system("command -v iasl >/dev/null"))
        cr_skip_test("iasl is not installed");
    with_dsdt("cd %s && iasl -d dsdt.aml 2>&1 && iasl -p again dsdt.dsl 2>&1", out, sizeof(out), &status);
    cr_assert_eq(status, 0, "%s", out);
    cr_assert_not_null(strstr(out, "0 Errors, 0 Warnings"), "%s", out);
}

Test(acpi, acpiexec_runs_the_routing_methods)
{
    static char out[1 << 20];
    int status;
    if (system("command -v acpiexec >/dev/null"))
        cr_skip_test("acpiexec is not installed");
    with_dsdt("cd %s && printf 'evaluate \\\\_PIC 1\\nevaluate \\\\_SB.PCI0._PRT\\nevaluate \\\\_SB.PCI0.ISA.LNKB._SRS "
              "(23 00 08 18 79 00)\\nevaluate \\\\_SB.PCI0.ISA.LNKB._CRS\\nevaluate \\\\_SB.PCI0.ISA.LNKB._STA\\n"
              "evaluate \\\\_S5\\nquit\\n' | acpiexec dsdt.aml 2>&1",
              out, sizeof(out), &status);
    cr_assert_null(strstr(out, "AE_"), "%s", strstr(out, "AE_"));
    cr_assert_not_null(strstr(out, "Contains 128 Elements"));
    /* slot 3, INTA: PIRQC, GSI 18 */
    const char *slot3 = strstr(out, "000000000003FFFF");
    cr_assert_not_null(slot3);
    char *gsi = strstr(slot3, "0000000000000012");
    cr_assert(gsi && gsi < strstr(slot3 + 1, "000000000003FFFF"));
    cr_assert_not_null(strstr(out, "23 00 08 18 79 00")); /* IRQ 11, as was set */
}

Test(acpi, mptable_checks_out_and_names_the_same_routing)
{
    uint8_t mp[8192];
    long n = mptable_build(&full, 0xf0000, mp, sizeof(mp));
    cr_assert_gt(n, 0);
    cr_assert_eq(memcmp(mp, "_MP_", 4), 0);
    cr_assert_eq(sum(mp, 16), 0);
    uint8_t *t = mp + 16, *p = t + 44;
    unsigned len = t[4] | t[5] << 8, entries = t[34] | t[35] << 8, pci = 0, isa = 0, cpus = 0;
    cr_assert_eq(sum(t, len), 0);
    cr_assert_eq((long)len + 16, n);
    for (unsigned i = 0; i < entries; i++) {
        cpus += p[0] == 0;
        if (p[0] == 3 && p[4] == 0 && p[5] == (3 << 2 | 0))
            pci = p[7];
        if (p[0] == 3 && p[1] == 0 && p[4] == 1 && p[5] == 0)
            isa = p[7];
        p += p[0] == 0 ? 20 : 8;
    }
    cr_assert_eq(p, mp + n);
    cr_assert(cpus == 2 && pci == 18 && isa == 2);
    cr_assert_lt(mptable_build(&full, 0xf0000, mp, 100), 0);
    cr_assert_lt(mptable_build(&full, 0xf0001, mp, sizeof(mp)), 0);
}

/* -- encoder -- */
Test(aml, package_lengths_of_one_two_and_three_bytes)
{
    static uint8_t buf[9000], body[6000];
    static const struct {
        unsigned n, enc;
    } t[] = {{10, 1}, {62, 1}, {63, 2}, {4093, 2}, {4094, 3}, {6000, 3}};
    for (unsigned i = 0; i < 6; i++) {
        struct aml a;
        aml_init(&a, buf, sizeof(buf));
        aml_open_if(&a);
        aml_bytes(&a, body, t[i].n);
        aml_close(&a);
        cr_assert_not(a.bad);
        cr_assert_eq(a.len, 1 + t[i].enc + t[i].n);
        unsigned len =
            t[i].enc == 1 ? buf[1] & 0x3f : (buf[1] & 15u) | buf[2] << 4 | (t[i].enc == 3 ? buf[3] << 12 : 0);
        cr_assert_eq(len, t[i].n + t[i].enc);
        cr_assert_eq(buf[1] >> 6, t[i].enc - 1);
    }
}

Test(aml, names_are_padded_and_pathed)
{
    uint8_t buf[64];
    struct aml a;
    aml_init(&a, buf, sizeof(buf));
    aml_ref(&a, "\\_SB.PCI0");
    cr_assert_eq(a.len, 10);
    cr_assert_eq(memcmp(buf, "\\\x2e_SB_PCI0", 10), 0);
    a.len = 0;
    aml_ref(&a, "A.B.C");
    cr_assert_eq(memcmp(buf,
                        "\x2f\x03"
                        "A___B___C___",
                        14),
                 0);
    aml_ref(&a, "TOOLONG");
    cr_assert(a.bad);
}

Test(aml, overflow_and_unbalanced_brackets_stick)
{
    uint8_t buf[4];
    struct aml a;
    aml_init(&a, buf, sizeof(buf));
    aml_int(&a, 0x12345678);
    cr_assert(a.bad);
    aml_init(&a, buf, sizeof(buf));
    aml_close(&a);
    cr_assert(a.bad);
}

Test(aml, eisa_id_is_compressed)
{
    uint8_t buf[8];
    struct aml a;
    aml_init(&a, buf, sizeof(buf));
    aml_eisaid(&a, "PNP0A03");
    cr_assert_eq(memcmp(buf, "\x0c\x41\xd0\x0a\x03", 5), 0);
}

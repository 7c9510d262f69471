/* fw_cfg: QEMU's docs/specs/fw_cfg. */
#include "tests/unit/devices/dev_ram.h"
#include "devices/bus.h"
#include "devices/fwcfg.h"
#include <stdio.h>
#include <unistd.h>

static struct bus *bus;
static struct fwcfg f;
static struct dev_ram ram;

static void setup(void)
{
    struct gmem m = dev_ram_mem(&ram);
    bus_create(&bus);
    cr_assert_eq(fwcfg_init(&f, bus, &m), 0);
}
TestSuite(fwcfg, .init = setup);

static void sel(uint16_t key) { bus_pio_write(bus, 0x510, 2, key); }
static void get(void *out, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        ((uint8_t *)out)[i] = (uint8_t)bus_pio_read(bus, 0x511, 1);
}
static uint32_t be32(const uint8_t *p) { return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]; }
static void put_be(uint64_t at, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        ram.b[at + i] = (uint8_t)(v >> 8 * (n - 1 - i));
}
/* Runs a DMA command placed at 0x100; returns the control word afterwards. */
static uint32_t dma(uint32_t control, uint32_t len, uint64_t addr)
{
    put_be(0x100, control, 4);
    put_be(0x104, len, 4);
    put_be(0x108, addr, 8);
    bus_pio_write(bus, 0x514, 4, 0);
    bus_pio_write(bus, 0x518, 4, __builtin_bswap32(0x100));
    return be32(ram.b + 0x100);
}

Test(fwcfg, signature_id_and_dma_signature)
{
    char sig[4];
    uint32_t id;
    sel(FWCFG_SIGNATURE);
    get(sig, 4);
    cr_assert_eq(memcmp(sig, "QEMU", 4), 0);
    sel(FWCFG_ID);
    get(&id, 4);
    cr_assert_eq(id, 3);
    cr_assert_eq(bus_pio_read(bus, 0x514, 4), 0x554d4551u); /* "QEMU" in guest memory order */
    cr_assert_eq(bus_pio_read(bus, 0x518, 4), 0x47464320u);
}

Test(fwcfg, data_then_zeroes_and_reselect_starts_again)
{
    uint8_t b[6];
    cr_assert_eq(fwcfg_add_u16(&f, FWCFG_NB_CPUS, 0x1234), 0);
    sel(FWCFG_NB_CPUS);
    get(b, 6);
    cr_assert_eq(memcmp(b, "\x34\x12\0\0\0\0", 6), 0);
    sel(FWCFG_NB_CPUS);
    get(b, 1);
    cr_assert_eq(b[0], 0x34);
    sel(0x7777);
    get(b, 1);
    cr_assert_eq(b[0], 0);
}

Test(fwcfg, directory_lists_files_big_endian)
{
    uint8_t d[4 + 2 * 64];
    cr_assert_eq(fwcfg_add_file(&f, "etc/one", "abc", 3), 0);
    cr_assert_eq(fwcfg_add_file(&f, "opt/two", "defgh", 5), 0);
    sel(FWCFG_FILE_DIR);
    get(d, sizeof(d));
    cr_assert_eq(be32(d), 2);
    cr_assert_eq(be32(d + 4), 3);
    cr_assert_eq(d[8] << 8 | d[9], 0x20);
    cr_assert_str_eq((char *)d + 12, "etc/one");
    cr_assert_eq(be32(d + 68), 5);
    cr_assert_str_eq((char *)d + 76, "opt/two");
    char text[5];
    sel(0x21);
    get(text, 5);
    cr_assert_eq(memcmp(text, "defgh", 5), 0);
}

Test(fwcfg, names_and_keys_are_unique_and_bounded)
{
    char longest[64];
    memset(longest, 'x', sizeof(longest));
    longest[56] = 0;
    cr_assert_eq(fwcfg_add_file(&f, longest, "", 0), -RD_E_INVAL);
    longest[55] = 0;
    cr_assert_eq(fwcfg_add_file(&f, longest, "", 0), 0);
    cr_assert_eq(fwcfg_add_file(&f, longest, "", 0), -RD_E_BUSY);
    cr_assert_eq(fwcfg_add_file(&f, "", "", 0), -RD_E_INVAL);
    cr_assert_eq(fwcfg_add_u16(&f, FWCFG_SIGNATURE, 0), -RD_E_BUSY);
}

Test(fwcfg, table_full_is_an_error)
{
    char name[16];
    int e = 0, n = 0;
    for (; !e && n < 1000; n++) {
        snprintf(name, sizeof(name), "f%d", n);
        e = fwcfg_add_file(&f, name, "x", 1);
    }
    cr_assert_eq(e, -RD_E_NOMEM);
    cr_assert_eq(n, FWCFG_MAX_ITEMS - 3 + 1);
}

Test(fwcfg, dma_select_and_read)
{
    fwcfg_add_file(&f, "etc/x", "hello", 5);
    memset(ram.b + 0x2000, 0xaa, 16);
    cr_assert_eq(dma(0x20u << 16 | 8 | 2, 8, 0x2000), 0);
    cr_assert_eq(memcmp(ram.b + 0x2000, "hello\0\0\0\xaa", 9), 0);
}

Test(fwcfg, dma_skip_then_read_continues)
{
    fwcfg_add_file(&f, "etc/x", "hello", 5);
    cr_assert_eq(dma(0x20u << 16 | 8 | 4, 3, 0), 0);
    cr_assert_eq(dma(2, 2, 0x2000), 0);
    cr_assert_eq(memcmp(ram.b + 0x2000, "lo", 2), 0);
    cr_assert_eq(dma(4, 0xffffffff, 0), 0);
    cr_assert_eq(dma(4, 0xffffffff, 0), 0);
    cr_assert_eq(dma(2, 1, 0x2000), 0);
    cr_assert_eq(ram.b[0x2000], 0);
}

Test(fwcfg, dma_outside_ram_reports_an_error)
{
    cr_assert_eq(dma(8 | 2, 4, 0xfffffffffffffff0ull), 1);
    cr_assert_eq(dma(8 | 2, 0xffffffff, 0x2000), 1);
    cr_assert_eq(dma(8 | 16, 4, 0x2000), 1); /* nothing is writable */
    bus_pio_write(bus, 0x514, 4, 0xffffffff);
    bus_pio_write(bus, 0x518, 4, 0xffffffff); /* descriptor itself outside: nothing happens */
}

Test(fwcfg, large_dma_crosses_chunks)
{
    static uint8_t big[10000];
    for (unsigned i = 0; i < sizeof(big); i++)
        big[i] = (uint8_t)(i * 7);
    fwcfg_add_bytes(&f, FWCFG_KERNEL_DATA, big, sizeof(big));
    cr_assert_eq(dma(FWCFG_KERNEL_DATA << 16 | 8 | 2, sizeof(big), 0x4000), 0);
    cr_assert_eq(memcmp(ram.b + 0x4000, big, sizeof(big)), 0);
}

static uint8_t made[4];
static void make(void *opaque, const uint8_t **data, size_t *len)
{
    made[0]++;
    *data = made;
    *len = sizeof(made);
}

Test(fwcfg, callback_makes_the_data_at_selection)
{
    uint8_t b;
    cr_assert_eq(fwcfg_add_file_cb(&f, "etc/made", make, NULL, sizeof(made)), 0);
    sel(0x20);
    get(&b, 1);
    cr_assert_eq(b, 1);
    dma(0x20u << 16 | 8 | 2, 1, 0x2000);
    cr_assert_eq(ram.b[0x2000], 2);
}

Test(fwcfg, command_line_items)
{
    char err[128], path[] = "/tmp/fwcfgXXXXXX";
    uint8_t b[8];
    cr_assert_eq(fwcfg_add_option(&f, "name=opt/a,string=hi there", err, sizeof(err)), 0);
    cr_assert_eq(fwcfg_find_file(&f, "opt/a")->len, 8);
    int fd = mkstemp(path);
    cr_assert_eq(write(fd, "file!", 5), 5);
    close(fd);
    char arg[64];
    snprintf(arg, sizeof(arg), "opt/b,file=%s", path);
    cr_assert_eq(fwcfg_add_option(&f, arg, err, sizeof(err)), 0);
    unlink(path);
    sel(0x21);
    get(b, 5);
    cr_assert_eq(memcmp(b, "file!", 5), 0);
    static const char *const bad[] = {"",
                                      "opt/x",
                                      "opt/x,",
                                      "name=,string=a",
                                      "opt/x,strin=a",
                                      "opt/x,file=/nonexistent",
                                      "opt/x,file=/",
                                      "opt/a,string=twice"};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_assert_lt(fwcfg_add_option(&f, bad[i], err, sizeof(err)), 0, "'%s'", bad[i]);
        cr_assert_gt(strlen(err), 10, "'%s'", bad[i]);
    }
}

Test(fwcfg, round_trip)
{
    fwcfg_add_file(&f, "etc/x", "hello", 5);
    uint8_t b[2];
    sel(0x20);
    get(b, 2);
    const struct dev d = {&fwcfg_dev_ops, &f, 0};
    dev_refuses_truncation(&d);
    dev_round_trip(&d);
    get(b, 2);
    cr_assert_eq(memcmp(b, "ll", 2), 0);
}

/* Random damage to every kind of kernel file: an error line or a load, never a crash, never a write outside of RAM. */
#include "tests/unit/monitor/test_boot_util.h"

TestSuite(boot_hostile, .init = t_setup, .fini = t_teardown);

static uint32_t state;
static uint32_t next(void)
{
    state ^= state << 13;
    state ^= state >> 17;
    return state ^= state << 5;
}

static const uint32_t nasty[] = {0,      1,          3,          0x7f,       0xff,       0xfff,
                                 0x1000, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff, 0x100000};

/* A few fields of the first KiB replaced: by values at the edges, or by anything. */
static void damage(size_t bytes, size_t head)
{
    for (unsigned n = next() % 6 + 1; n; n--) {
        size_t at = next() % (head < bytes ? head : bytes) & ~(size_t)3;
        uint32_t v = next() & 1 ? nasty[next() % (sizeof nasty / sizeof nasty[0])] : next();
        if (at + 4 > bytes)
            continue;
        if (next() & 1)
            put32(t_image + at, v);
        else
            t_image[at + next() % 4] = (uint8_t)v;
    }
}

static void check_result(int r, unsigned turn)
{
    if (r)
        cr_expect(t_err[0] && !strchr(t_err, '\n'), "turn %u: no line", turn);
    else
        cr_expect(boot_ram_end(&(struct boot){.cfg = &t_cfg}, t_info.entry), "turn %u: entry 0x%llx is no RAM", turn,
                  (unsigned long long)t_info.entry);
}

enum { TURNS = 3000 };

Test(boot_hostile, damaged_bzimage)
{
    state = 0x1234567;
    for (unsigned turn = 0; turn < TURNS; turn++) {
        memset(t_image, 0, 0x3000);
        t_image[0x1f1] = 4;
        put32(t_image + 0x1f4, 0x60);
        put16(t_image + 0x1fe, 0xaa55);
        t_image[0x201] = 0x6a;
        memcpy(t_image + 0x202, "HdrS", 4);
        put16(t_image + 0x206, 0x20f);
        t_image[0x211] = 1;
        put32(t_image + 0x22c, 0x7fffffff);
        put32(t_image + 0x230, 0x200000);
        t_image[0x234] = 1;
        put16(t_image + 0x236, 1);
        put32(t_image + 0x238, 2047);
        put64(t_image + 0x258, 0x1000000);
        put32(t_image + 0x260, 0x100000);
        for (unsigned i = next() % 4; i; i--)
            put32(t_image + (0x1f0 + next() % 0x78), nasty[next() % 12]);
        memcpy(t_image + 0x202, "HdrS", 4);
        put16(t_image + 0x1fe, 0xaa55);
        t_cfg.entry = next() % 4;
        t_cfg.bios_services = next() & 1;
        check_result(t_load(next() % 4 ? 0x1000 : next() % 0x1200 + 1), turn);
    }
}

static void damaged_elf(const struct t_elf *e, uint32_t seed, bool mb1, bool mb2)
{
    state = seed;
    for (unsigned turn = 0; turn < TURNS; turn++) {
        size_t n = t_make_elf(e);
        damage(n, 0x180);
        if (turn % 4 == 0)
            damage(n, 0x830);
        if (mb1) {
            uint32_t f = turn & 1 ? 0x10003 : 3,
                     h[8] = {0x1badb002, f, -(0x1badb002 + f), 0x100400, 0x100000, 0, 0, 0x100020};
            h[3 + next() % 5] = nasty[next() % 12];
            memcpy(t_image + 0x400, h, sizeof h);
        }
        if (mb2) {
            uint32_t len = 0x60 + (next() % 8) * 8;
            for (unsigned i = 0; i < 0x200; i += 8) {
                put32(t_image + 0x410 + i, next() % 12);
                put32(t_image + 0x414 + i, next() % 40);
            }
            uint32_t h[4] = {0xe85250d6, 0, len, -(0xe85250d6 + len)};
            memcpy(t_image + 0x400, h, sizeof h);
        }
        t_cfg.entry = turn % 7 == 0 ? BOOT_ENTRY_64 : BOOT_ENTRY_AUTO;
        check_result(t_load(next() % 4 ? n : next() % n + 1), turn);
    }
}
Test(boot_hostile, damaged_vmlinux)
{
    static const struct t_elf e = {true, 0x1000000, 0xffffffff81000000, 0x1000040, 0x5000, 0};
    damaged_elf(&e, 0xabcdef1, false, false);
}
Test(boot_hostile, damaged_pvh)
{
    static const struct t_elf e = {false, 0x1000000, 0xc1000000, 0x1000040, 0x5000, 0x1000080};
    damaged_elf(&e, 0xabcdef2, false, false);
}
Test(boot_hostile, damaged_multiboot)
{
    static const struct t_elf e = {false, 0x100000, 0x100000, 0x100020, 0x3000, 0};
    damaged_elf(&e, 0xabcdef3, true, false);
}
Test(boot_hostile, damaged_multiboot2)
{
    static const struct t_elf e = {false, 0x100000, 0x100000, 0x100020, 0x3000, 0};
    damaged_elf(&e, 0xabcdef4, false, true);
}

/* Placement in guest RAM, and the memory map. */
#include "tests/unit/monitor/test_boot_util.h"

static struct boot b;
static void setup(void)
{
    t_setup();
    b = (struct boot){.cfg = &t_cfg, .mem = t_mem, .err = t_err, .errsz = sizeof t_err, .kernel.name = "k"};
}
TestSuite(boot_mem, .init = setup, .fini = t_teardown);

Test(boot_mem, default_map_has_the_pc_s_holes)
{
    cr_assert_eq(t_cfg.n_map, 4);
    cr_expect(t_map[0].gpa == 0 && t_map[0].bytes == 0x9fc00 && t_map[0].type == BOOT_MEM_RAM);
    cr_expect(t_map[1].gpa == 0x9fc00 && t_map[1].gpa + t_map[1].bytes == MIB && t_map[1].type == BOOT_MEM_RESERVED);
    cr_expect(t_map[2].gpa == MIB && t_map[2].bytes == T_RAM - MIB - T_ACPI && t_map[2].type == BOOT_MEM_RAM);
    cr_expect(t_map[3].gpa == T_RAM - T_ACPI && t_map[3].bytes == T_ACPI && t_map[3].type == BOOT_MEM_ACPI);
}
Test(boot_mem, default_map_puts_the_rest_above_4g)
{
    struct boot_range m[5];
    cr_assert_eq(boot_default_map(4096 * MIB, 0x10000, m), 5);
    cr_expect_eq(m[2].gpa + m[2].bytes + m[3].bytes, BOOT_RAM_HOLE);
    cr_expect(m[4].gpa == BOOT_4G && m[4].bytes == 1024 * MIB && m[4].type == BOOT_MEM_RAM);
}
Test(boot_mem, default_map_of_little_memory_stays_below_it)
{
    struct boot_range m[5];
    unsigned n = boot_default_map(0x80000, 0x10000, m);
    cr_assert_eq(n, 2);
    cr_expect_eq(m[0].bytes, 0x80000);
}
Test(boot_mem, map_out_of_order_is_refused)
{
    cr_expect_eq(boot_map_check(&b), 0);
    t_map[1].gpa = 0x1000;
    cr_expect_eq(boot_map_check(&b), -RD_E_INVAL);
    t_map[1] = (struct boot_range){0x9fc00, UINT64_MAX, BOOT_MEM_RAM};
    cr_expect_eq(boot_map_check(&b), -RD_E_INVAL, "wraps");
    t_cfg.n_map = 0;
    cr_expect_eq(boot_map_check(&b), -RD_E_INVAL);
}
Test(boot_mem, claims_refuse_overlap_and_holes)
{
    cr_assert_eq(boot_claim(&b, "a", 0x200000, 0x1000), 0);
    cr_expect_eq(boot_claim(&b, "b", 0x200fff, 1), -RD_E_FORMAT);
    cr_expect_eq(boot_claim(&b, "b", 0x1ff000, 0x1001), -RD_E_FORMAT);
    cr_expect_eq(boot_claim(&b, "b", 0x1ff000, 0x1000), 0);
    cr_expect_eq(boot_claim(&b, "b", 0x201000, 0x1000), 0);
    cr_expect_eq(b.n_claims, 1, "touching claims merge");
    cr_expect_eq(boot_claim(&b, "video", 0x9f000, 0x1000), -RD_E_RANGE);
    cr_expect_eq(boot_claim(&b, "acpi", T_RAM - T_ACPI, 1), -RD_E_RANGE);
    cr_expect_eq(boot_claim(&b, "wrap", MIB, UINT64_MAX), -RD_E_RANGE);
    cr_expect_eq(boot_claim(&b, "far", UINT64_MAX, 1), -RD_E_RANGE);
}
Test(boot_mem, places_lowest_and_highest_around_claims)
{
    uint64_t at;
    struct boot_want low = {.bytes = 0x1800, .align = 0x1000, .min = MIB, .max = BOOT_4G}, high = low;
    high.highest = true;
    cr_assert_eq(boot_claim(&b, "a", MIB + 0x1000, 0x1000), 0);
    cr_assert(boot_place(&b, &low, &at) && at == MIB + 0x2000, "0x%llx", (unsigned long long)at);
    cr_assert(boot_place(&b, &low, &at) && at == MIB + 0x4000, "0x%llx", (unsigned long long)at);
    cr_assert(boot_place(&b, &high, &at) && at == T_RAM - T_ACPI - 0x2000, "0x%llx", (unsigned long long)at);
    cr_assert(boot_place(&b, &high, &at) && at == T_RAM - T_ACPI - 0x4000, "0x%llx", (unsigned long long)at);
    high.max = 0x400000;
    cr_assert(boot_place(&b, &high, &at) && at == 0x400000 - 0x2000);
}
Test(boot_mem, place_fails_without_room)
{
    uint64_t at;
    struct boot_want w = {.bytes = T_RAM, .align = 0x1000, .min = 0, .max = BOOT_4G};
    cr_expect(!boot_place(&b, &w, &at));
    w.highest = true;
    cr_expect(!boot_place(&b, &w, &at));
    w = (struct boot_want){.bytes = 0x1000, .align = 1ull << 40, .min = 1, .max = UINT64_MAX};
    cr_expect(!boot_place(&b, &w, &at), "alignment larger than memory");
    w = (struct boot_want){.bytes = 1, .align = 1, .min = 0xa0000, .max = MIB};
    cr_expect(!boot_place(&b, &w, &at), "no RAM there");
}
Test(boot_mem, basic_memory_is_in_kib)
{
    uint32_t lower, upper;
    boot_basic_mem(&b, &lower, &upper);
    cr_expect_eq(lower, 639);
    cr_expect_eq(upper, (T_RAM - MIB - T_ACPI) >> 10);
}

Test(boot_mem, bios_data_area_tells_the_end_of_low_memory)
{
    cr_assert_eq(boot_put_bda(&b), 0);
    cr_expect_eq(t_read(0x40e, 2), 0x9fc0);
    cr_expect_eq(t_read(0x413, 2), 639);
    cr_expect_eq(t_read(0x9fc00, 1), 1);
    cr_expect_eq(t_read(0x44a, 2), 0, "no screen");
}
Test(boot_mem, bios_data_area_keeps_what_the_board_has_put_there)
{
    static const uint8_t com[2] = {0xf8, 0x03}, equipment[2] = {0x06, 0x02};
    cr_assert_eq(gpmem_write(t_mem, 0x400, com, 2), 0);
    cr_assert_eq(gpmem_write(t_mem, 0x410, equipment, 2), 0);
    cr_assert_eq(boot_put_bda(&b), 0);
    cr_expect_eq(t_read(0x400, 2), 0x3f8);
    cr_expect_eq(t_read(0x410, 2), 0x206);
    cr_expect_eq(t_read(0x413, 2), 639);
}
Test(boot_mem, bios_data_area_is_left_to_firmware_and_to_kernels_that_load_there)
{
    cr_assert_eq(boot_claim(&b, "kernel", 0x480, 16), 0);
    cr_assert_eq(boot_put_bda(&b), 0);
    cr_expect_eq(t_read(0x413, 2), 0);
    b.n_claims = 0;
    t_cfg.bios_services = true;
    cr_assert_eq(boot_put_bda(&b), 0);
    cr_expect_eq(t_read(0x413, 2), 0);
}

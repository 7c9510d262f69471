/* ELF kernels: PVH and Linux's vmlinux, and files that lie. */
#include "tests/unit/monitor/test_boot_util.h"

TestSuite(boot_elf, .init = t_setup, .fini = t_teardown);

static const struct t_elf plain64 = {true, 0x1000000, 0xffffffff81000000, 0x1000040, 0x5000, 0};
static const struct t_elf pvh64 = {true, 0x1000000, 0xffffffff81000000, 0x1000040, 0x5000, 0x1000080};
static const struct t_elf pvh32 = {false, 0x1000000, 0xc1000000, 0x1000040, 0x5000, 0x1000080};

Test(boot_elf, pvh_start_info)
{
    uint8_t data[100] = {1, 2, 3};
    t_write_file(t_initrd, data, sizeof data);
    t_cfg.initrd = t_initrd;
    t_cfg.append = "root=x";
    t_cfg.rsdp_gpa = 0xe0000;
    for (int is64 = 0; is64 < 2; is64++) {
        T_LOADS(t_make_elf(is64 ? &pvh64 : &pvh32));
        cr_expect_str_eq(t_info.protocol, "PVH");
        t_expect_flat32(0x1000080);
        cr_expect(t_cpu.seg[S_TR].limit == 0x67 && t_cpu.seg[S_TR].attr == (SEG_P | DT_TSS_BUSY));
        uint64_t s = t_cpu.gpr[R_RBX];
        cr_expect_eq(t_r32(s), 0x336ec578);
        cr_expect_eq(t_r32(s + 4), 1, "version");
        cr_expect_eq(t_r32(s + 12), 1, "modules");
        cr_expect_eq(t_r64(t_r64(s + 16)), t_info.initrd_gpa);
        cr_expect_eq(t_r64(t_r64(s + 16) + 8), sizeof data);
        cr_expect_eq(t_r32(t_info.initrd_gpa), 0x00030201);
        cr_expect_str_eq(t_string(t_r64(s + 24)), "root=x");
        cr_expect_eq(t_r64(s + 32), 0xe0000);
        cr_assert_eq(t_r32(s + 48), t_cfg.n_map);
        cr_expect(t_r64(t_r64(s + 40) + 48) == t_map[2].gpa && t_r64(t_r64(s + 40) + 56) == t_map[2].bytes);
    }
}
Test(boot_elf, segment_is_loaded_and_its_rest_cleared)
{
    gpmem_write(t_mem, 0x1004ff8, "dirtdirt", 8);
    T_LOADS(t_make_elf(&pvh64));
    cr_expect_eq(t_read(0x1000123, 1), (uint8_t)(0x123 * 7 + 1));
    cr_expect_eq(t_r64(0x1004ff8), 0);
}
Test(boot_elf, vmlinux_64_bit)
{
    t_cfg.append = "quiet";
    T_LOADS(t_make_elf(&plain64));
    cr_expect_str_eq(t_info.protocol, "Linux 64-bit");
    cr_expect_eq(t_cpu.rip, 0x1000040);
    cr_expect(cpu_code64(&t_cpu));
    uint64_t p = t_cpu.gpr[R_RSI];
    cr_expect(t_r32(p + 0x202) == 0x53726448 && t_read(p + 0x1fe, 2) == 0xaa55 && t_read(p + 0x210, 1) == 0xff);
    cr_expect_str_eq(t_string(t_r32(p + 0x228)), "quiet");
}
Test(boot_elf, who_asks_for_64_bits_gets_them_despite_the_note)
{
    t_cfg.entry = BOOT_ENTRY_64;
    T_LOADS(t_make_elf(&pvh64));
    cr_expect_str_eq(t_info.protocol, "Linux 64-bit");
    T_FAILS(t_make_elf(&pvh32), RD_E_UNSUPPORTED, "no 64-bit entry");
    t_cfg.entry = BOOT_ENTRY_16;
    T_FAILS(t_make_elf(&pvh64), RD_E_UNSUPPORTED, "no 16-bit entry");
}
Test(boot_elf, vmlinux_32_bit_with_a_virtual_entry_address)
{
    struct t_elf e = {false, 0x1000000, 0xc1000000, 0xc1000040, 0x5000, 0};
    T_LOADS(t_make_elf(&e));
    cr_expect_str_eq(t_info.protocol, "Linux 32-bit");
    t_expect_flat32(0x1000040);
}
Test(boot_elf, segment_outside_of_memory)
{
    struct t_elf e = plain64;
    e.paddr = e.entry = T_RAM;
    T_FAILS(t_make_elf(&e), RD_E_RANGE, "no such memory");
    e.paddr = e.entry = 0x9f000; /* over the EBDA */
    T_FAILS(t_make_elf(&e), RD_E_RANGE, "no such memory");
    e.paddr = UINT64_MAX - 0xfff;
    T_FAILS(t_make_elf(&e), RD_E_FORMAT, "wraps");
    e = plain64;
    e.memsz = 1ull << 40;
    T_FAILS(t_make_elf(&e), RD_E_RANGE, "no such memory");
}
Test(boot_elf, entry_outside_of_the_segments)
{
    struct t_elf e = plain64;
    e.entry = 0x3000000;
    T_FAILS(t_make_elf(&e), RD_E_FORMAT, "entry point");
    e = pvh64;
    e.pvh = 0x10;
    T_FAILS(t_make_elf(&e), RD_E_FORMAT, "PVH entry point");
}
Test(boot_elf, file_bytes_larger_than_memory_bytes)
{
    struct t_elf e = plain64;
    e.memsz = 0xfff;
    T_FAILS(t_make_elf(&e), RD_E_FORMAT, "larger in the file");
}
Test(boot_elf, header_of_another_kind)
{
    t_make_elf(&plain64);
    t_image[EI_DATA] = ELFDATA2MSB;
    T_FAILS(0x2000, RD_E_FORMAT, "little-endian");
    t_make_elf(&plain64);
    t_image[EI_CLASS] = 7;
    T_FAILS(0x2000, RD_E_FORMAT, "neither 32-bit nor 64-bit");
    t_make_elf(&plain64);
    put16(t_image + 18, EM_ARM);
    T_FAILS(0x2000, RD_E_FORMAT, "not for x86");
    t_make_elf(&plain64);
    put16(t_image + 56, 0);
    T_FAILS(0x2000, RD_E_FORMAT, "no program headers");
}
Test(boot_elf, truncated_at_every_length)
{
    t_make_elf(&pvh64);
    for (size_t n = 1; n < 0x1fff; n += n < 0x200 ? 1 : 61)
        cr_expect_lt(t_load(n), 0, "%zu bytes were accepted", n);
}

/* Linux boot protocol: a made-up bzImage, field by field (Documentation/arch/x86/boot.rst). */
#include "tests/unit/monitor/test_boot_util.h"

#define SETUP_SECTS 4
#define CODE_AT ((SETUP_SECTS + 1) * 512)
#define CODE_BYTES 0x20000
#define IMAGE_BYTES (CODE_AT + CODE_BYTES)
#define PREF 0x1000000

static uint32_t bp(unsigned offset, size_t bytes) { return (uint32_t)t_read(t_info.info_gpa + offset, bytes); }

/* A relocatable 64-bit-capable kernel of protocol 2.15 that wants 16 MiB and 8 MiB of room. */
static void setup(void)
{
    t_setup();
    uint8_t *h = t_image;
    memset(h, 0, CODE_AT);
    for (size_t i = 0; i < CODE_BYTES; i++)
        h[CODE_AT + i] = (uint8_t)(i * 13 + 5);
    h[0x1f1] = SETUP_SECTS;
    put32(h + 0x1f4, CODE_BYTES / 16);
    put16(h + 0x1fe, 0xaa55);
    h[0x200] = 0xeb;
    h[0x201] = 0x6a;
    memcpy(h + 0x202, "HdrS", 4);
    put16(h + 0x206, 0x20f);
    h[0x211] = 1;
    put32(h + 0x214, 0x100000);
    put32(h + 0x22c, 0x7fffffff);
    put32(h + 0x230, 0x200000);
    h[0x234] = 1;
    put16(h + 0x236, 0x3f);
    put32(h + 0x238, 2047);
    put64(h + 0x258, PREF);
    put32(h + 0x260, 8 * MIB);
}
TestSuite(boot_linux, .init = setup, .fini = t_teardown);

Test(boot_linux, entry_32_bit)
{
    t_cfg.append = "console=ttyS0 quiet";
    t_cfg.rsdp_gpa = 0xe0010;
    T_LOADS(IMAGE_BYTES);
    cr_expect_str_eq(t_info.protocol, "Linux 32-bit");
    t_expect_flat32(PREF);
    cr_expect_eq(t_cpu.seg[S_CS].sel, 0x10);
    cr_expect_eq(t_cpu.seg[S_DS].sel, 0x18);
    cr_expect_eq(t_cpu.gpr[R_RSI], t_info.info_gpa);
    cr_expect_eq(t_cpu.gpr[R_RBX] | t_cpu.gpr[R_RBP] | t_cpu.gpr[R_RDI], 0);
    uint8_t code[CODE_BYTES];
    cr_assert_eq(gpmem_read(t_mem, PREF, code, sizeof code), 0);
    cr_expect(!memcmp(code, t_image + CODE_AT, CODE_BYTES), "the code is there");
    cr_expect_str_eq(t_string(bp(0x228, 4)), "console=ttyS0 quiet");
    cr_expect_eq(bp(0x210, 1), 0xff, "type_of_loader");
    cr_expect_eq(bp(0x211, 1), 0x81, "loadflags: loaded high, heap");
    cr_expect_eq(bp(0x214, 4), PREF, "code32_start");
    cr_expect_eq(t_r64(t_info.info_gpa + 0x70), 0xe0010, "acpi_rsdp_addr");
    cr_expect_eq(bp(0x206, 2), 0x20f);
    cr_expect_eq(bp(0x1ef, 1), 0, "sentinel");
}
Test(boot_linux, e820_is_the_board_s_map)
{
    T_LOADS(IMAGE_BYTES);
    cr_assert_eq(bp(0x1e8, 1), t_cfg.n_map);
    for (unsigned i = 0; i < t_cfg.n_map; i++) {
        uint64_t e = t_info.info_gpa + 0x2d0 + i * 20;
        cr_expect(t_r64(e) == t_map[i].gpa && t_r64(e + 8) == t_map[i].bytes && t_r32(e + 16) == t_map[i].type);
    }
}
Test(boot_linux, entry_64_bit_has_identity_mapped_4_gib)
{
    t_cfg.entry = BOOT_ENTRY_64;
    T_LOADS(IMAGE_BYTES);
    cr_expect_str_eq(t_info.protocol, "Linux 64-bit");
    cr_expect_eq(t_cpu.rip, PREF + 0x200);
    cr_expect(cpu_code64(&t_cpu) && (t_cpu.cr0 & CR0_PG) && t_cpu.cr4 == CR4_PAE &&
              t_cpu.efer == (EFER_LME | EFER_LMA));
    cr_expect_eq(t_cpu.key, CPU_KEY_CODE64);
    cr_expect_eq(t_cpu.gpr[R_RSI], t_info.info_gpa);
    uint64_t probes[] = {0, t_info.info_gpa, PREF, 0x7fe12345, 0xffffffff};
    for (unsigned i = 0; i < 5; i++) {
        uint64_t p4 = t_r64(t_cpu.cr3) & PAGE_MASK, p3 = t_r64(p4 + (probes[i] >> 30) * 8) & PAGE_MASK;
        uint64_t leaf = t_r64(p3 + (probes[i] >> 21 & 511) * 8);
        cr_expect_eq(leaf, (probes[i] & ~0x1fffffull) | PTE_P | PTE_W | PTE_PS);
    }
}
Test(boot_linux, entry_64_bit_without_the_flag_is_refused)
{
    put16(t_image + 0x236, 0);
    t_cfg.entry = BOOT_ENTRY_64;
    T_FAILS(IMAGE_BYTES, RD_E_UNSUPPORTED, "XLF_KERNEL_64");
}
static void expect_entry_16(void)
{
    cr_expect_str_eq(t_info.protocol, "Linux 16-bit");
    cr_expect(t_cpu.seg[S_CS].sel == 0x1020 && t_cpu.seg[S_CS].base == 0x10200 && t_cpu.rip == 0);
    cr_expect(t_cpu.seg[S_SS].sel == 0x1000 && t_cpu.gpr[R_RSP] == 0xe000 && !(t_cpu.cr0 & CR0_PE));
    cr_expect_str_eq(t_string(t_r32(0x10228)), "x");
    cr_expect_eq(t_read(0x10224, 2), 0xde00, "heap_end_ptr");
    uint64_t seed = t_r64(0x10250);
    cr_expect_eq(t_r32(seed + 8), 9, "setup_data: a random seed");
}
Test(boot_linux, entry_16_bit_leaves_firmware_s_data_alone)
{
    t_cfg.entry = BOOT_ENTRY_16;
    t_cfg.bios_services = true;
    t_cfg.append = "x";
    T_LOADS(IMAGE_BYTES);
    expect_entry_16();
    for (uint64_t gpa = 0; gpa < 0x500; gpa += 8)
        cr_expect_eq(t_r64(gpa), 0);
    cr_expect_eq(t_r64(BIOS16_GPA), 0);
}
static uint64_t handler(unsigned vector)
{
    uint32_t v = t_r32(4 * vector);
    return (v >> 16 << 4) + (v & 0xffff);
}
Test(boot_linux, entry_16_bit_brings_services_along)
{
    t_cfg.entry = BOOT_ENTRY_16;
    t_cfg.append = "x";
    T_LOADS(IMAGE_BYTES);
    expect_entry_16();
    for (unsigned v = 0; v < 256; v++)
        cr_expect(handler(v) > BIOS16_GPA && handler(v) < 0x100000, "vector %02x", v);
    static const uint8_t own[] = {0x08, 0x10, 0x11, 0x12, 0x13, 0x15, 0x16, 0x18, 0x1a, 0x70, 0xff};
    for (unsigned i = 0; i < sizeof own; i++)
        for (unsigned k = 0; k < i; k++)
            cr_expect_neq(handler(own[i]), handler(own[k]), "vectors %02x and %02x", own[i], own[k]);
    cr_expect_eq(t_read(handler(0xff), 1), 0xcf, "the others are an IRET");
    cr_expect_eq(t_read(BIOS16_GPA, 2), t_cfg.n_map);
    cr_expect_eq(t_read(BIOS16_GPA + 2, 2), 15 << 10, "KiB from 1 to 16 MiB");
    cr_expect_eq(t_read(BIOS16_GPA + 4, 2), ((T_RAM - T_ACPI) >> 16) - 256, "64 KiB above 16 MiB");
    cr_expect_eq(t_read(BIOS16_GPA + 6, 2), ((T_RAM - T_ACPI) >> 10) - 1024, "KiB above 1 MiB");
    for (unsigned i = 0; i < t_cfg.n_map; i++) {
        uint64_t e = BIOS16_GPA + 0x20 + i * 20;
        cr_expect(t_r64(e) == t_map[i].gpa && t_r64(e + 8) == t_map[i].bytes && t_r32(e + 16) == t_map[i].type);
    }
    cr_expect_eq(t_read(0x40e, 2), 0x9fc0, "EBDA");
    cr_expect_eq(t_read(0x41a, 2), t_read(0x41c, 2), "the keyboard buffer is empty");
    cr_expect(t_read(0x449, 1) == 3 && t_read(0x44a, 2) == 0 && t_read(0x485, 2) == 0, "no screen");
    t_cfg.vga_text = true;
    T_LOADS(IMAGE_BYTES);
    cr_expect(t_read(0x449, 1) == 3 && t_read(0x44a, 2) == 80 && t_read(0x484, 1) == 24 && t_read(0x485, 2) == 16);
}
Test(boot_linux, entry_16_bit_with_much_memory_reports_what_the_registers_hold)
{
    t_cfg.entry = BOOT_ENTRY_16;
    t_map[2].bytes = BOOT_RAM_HOLE - MIB; /* more than is there; nothing goes to its end */
    t_cfg.n_map = 3;
    T_LOADS(IMAGE_BYTES);
    cr_expect_eq(t_read(BIOS16_GPA + 4, 2), 0xbf00);
    cr_expect_eq(t_read(BIOS16_GPA + 6, 2), 0xffff);
}
Test(boot_linux, initrd_is_as_high_as_it_may_be)
{
    uint8_t data[5000];
    memset(data, 0xa5, sizeof data);
    t_write_file(t_initrd, data, sizeof data);
    t_cfg.initrd = t_initrd;
    T_LOADS(IMAGE_BYTES);
    cr_expect_eq(bp(0x218, 4), T_RAM - T_ACPI - 0x2000);
    cr_expect_eq(bp(0x21c, 4), sizeof data);
    cr_expect_eq(t_read(bp(0x218, 4) + 4999, 1), 0xa5);
    put32(t_image + 0x22c, 0x2000fff);
    T_LOADS(IMAGE_BYTES);
    cr_expect_eq(bp(0x218, 4), 0x2001000 - 0x2000, "initrd_addr_max is the last address");
}
Test(boot_linux, initrd_never_meets_the_kernel_s_working_space)
{
    static uint8_t data[3 * MIB];
    t_write_file(t_initrd, data, sizeof data);
    t_cfg.initrd = t_initrd;
    put32(t_image + 0x22c, PREF + 9 * MIB - 1); /* one MiB above init_size, fifteen below the kernel */
    T_LOADS(IMAGE_BYTES);
    cr_expect_eq(bp(0x218, 4), PREF - 3 * MIB);
    put32(t_image + 0x22c, 3 * MIB);
    T_FAILS(IMAGE_BYTES, RD_E_RANGE, "does not fit");
}
Test(boot_linux, initrd_missing_empty_or_a_directory)
{
    t_cfg.initrd = "/nonexistent/initrd";
    T_FAILS(IMAGE_BYTES, RD_E_NOENT, "cannot open initrd '/nonexistent/initrd'");
    t_cfg.initrd = t_initrd;
    T_FAILS(IMAGE_BYTES, RD_E_FORMAT, "is empty");
    t_cfg.initrd = "/tmp";
    T_FAILS(IMAGE_BYTES, RD_E_INVAL, "not a regular file");
}
Test(boot_linux, small_memory_loads_low_and_still_leaves_init_size)
{
    gpmem_destroy(t_mem);
    cr_assert_eq(gpmem_create(&t_mem, 20 * MIB), 0);
    cr_assert_eq(gpmem_add(t_mem, 0, 20 * MIB, false), 0);
    t_cfg.n_map = boot_default_map(20 * MIB, 0, t_map);
    T_FAILS(IMAGE_BYTES, RD_E_RANGE, "the kernel needs memory 0x1000000-0x1800000");
    put32(t_image + 0x260, 4 * MIB);
    T_LOADS(IMAGE_BYTES);
    cr_expect_eq(t_cpu.rip, PREF);
    put64(t_image + 0x258, 0x200000);
    T_LOADS(IMAGE_BYTES);
    cr_expect_eq(t_cpu.rip, 0x200000);
}
Test(boot_linux, preferred_place_taken_by_reserved_memory_moves_the_kernel)
{
    /* RAM 1-16 MiB, a hole at the preferred address, RAM from 32 MiB on: nowhere to run at or above 16 MiB but there. */
    t_map[2] = (struct boot_range){MIB, 15 * MIB, BOOT_MEM_RAM};
    t_map[3] = (struct boot_range){32 * MIB, 32 * MIB, BOOT_MEM_RAM};
    T_FAILS(IMAGE_BYTES, RD_E_RANGE, "needs memory");
    put64(t_image + 0x258, 0x200000);
    T_LOADS(IMAGE_BYTES);
}
Test(boot_linux, fixed_kernel_runs_at_its_preferred_address)
{
    t_image[0x234] = 0;
    T_LOADS(IMAGE_BYTES);
    cr_expect_eq(t_cpu.rip, 0x100000, "a kernel that cannot be moved is loaded where the protocol began");
}
Test(boot_linux, random_seed_is_in_setup_data)
{
    uint8_t seed[BOOT_SEED_BYTES];
    for (unsigned i = 0; i < sizeof seed; i++)
        seed[i] = (uint8_t)(i + 1);
    t_cfg.rng_seed = seed;
    T_LOADS(IMAGE_BYTES);
    uint64_t item = t_r64(t_info.info_gpa + 0x250);
    cr_expect(t_r64(item) == 0 && t_r32(item + 8) == 9 && t_r32(item + 12) == BOOT_SEED_BYTES);
    cr_expect(t_read(item + 16, 1) == 1 && t_read(item + 47, 1) == 32);
}
Test(boot_linux, command_line_longer_than_the_kernel_takes)
{
    static char line[2049];
    memset(line, 'x', 2048);
    t_cfg.append = line;
    T_FAILS(IMAGE_BYTES, RD_E_INVAL, "2048 characters");
    line[2047] = 0;
    T_LOADS(IMAGE_BYTES);
}
Test(boot_linux, screen_only_if_there_is_one)
{
    T_LOADS(IMAGE_BYTES);
    cr_expect_eq(bp(0x0f, 1), 0);
    t_cfg.vga_text = true;
    T_LOADS(IMAGE_BYTES);
    cr_expect(bp(0x0f, 1) == 1 && bp(0x07, 1) == 80 && bp(0x0e, 1) == 25);
}
Test(boot_linux, old_protocols)
{
    put16(t_image + 0x206, 0x205);
    T_FAILS(IMAGE_BYTES, RD_E_UNSUPPORTED, "2.05 is too old");
    put16(t_image + 0x206, 0x206);
    T_LOADS(IMAGE_BYTES);
    cr_expect_eq(t_cpu.rip, 0x100000);
    cr_expect_eq(t_r64(t_info.info_gpa + 0x70), 0, "no acpi_rsdp_addr before 2.14");
    t_image[0x211] = 0;
    T_FAILS(IMAGE_BYTES, RD_E_UNSUPPORTED, "zImage");
}
Test(boot_linux, truncated_at_every_length)
{
    for (size_t n = 1; n < CODE_AT + 64; n++)
        cr_expect_lt(t_load(n), 0, "%zu bytes were accepted", n);
    T_FAILS(IMAGE_BYTES - 16, RD_E_FORMAT, "truncated");
    T_FAILS(CODE_AT, RD_E_FORMAT, "truncated");
}
Test(boot_linux, kernel_larger_than_memory)
{
    put32(t_image + 0x260, 0xfffff000);
    T_FAILS(IMAGE_BYTES, RD_E_RANGE, "the guest has not that much");
}
Test(boot_linux, alignment_that_is_no_power_of_two)
{
    put32(t_image + 0x230, 0x300000);
    T_FAILS(IMAGE_BYTES, RD_E_FORMAT, "kernel_alignment");
    put32(t_image + 0x230, 0);
    T_FAILS(IMAGE_BYTES, RD_E_FORMAT, "kernel_alignment");
}
Test(boot_linux, kernel_missing_or_no_kernel_at_all)
{
    T_FAILS(0, RD_E_FORMAT, "is empty");
    memset(t_image, 'x', 4096);
    T_FAILS(4096, RD_E_FORMAT, "not a kernel in a known format");
    t_cfg.kernel = "/nonexistent/bad\nname";
    T_FAILS(4096, RD_E_NOENT, "/nonexistent/bad?name");
}

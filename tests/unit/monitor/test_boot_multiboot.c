/* Multiboot 1 and 2: information structures as a kernel finds them. */
#include "tests/unit/monitor/test_boot_util.h"

TestSuite(boot_multiboot, .init = t_setup, .fini = t_teardown);
TestSuite(boot_multiboot2, .init = t_setup, .fini = t_teardown);

static const struct t_elf elf32 = {false, 0x100000, 0x100000, 0x100020, 0x3000, 0};

/* An ELF kernel with a multiboot 1 header in its first page. */
static size_t make_mb1(uint32_t flags)
{
    size_t n = t_make_elf(&elf32);
    put32(t_image + 0x400, 0x1badb002);
    put32(t_image + 0x404, flags);
    put32(t_image + 0x408, -(0x1badb002 + flags));
    return n;
}

Test(boot_multiboot, information)
{
    t_cfg.append = "one two";
    T_LOADS(make_mb1(3));
    cr_expect_str_eq(t_info.protocol, "multiboot");
    t_expect_flat32(0x100020);
    cr_expect_eq(t_cpu.gpr[R_RAX], 0x2badb002);
    uint64_t i = t_cpu.gpr[R_RBX];
    cr_expect_eq(t_r32(i), 0x24f, "flags: memory, device, command line, modules, map, loader's name");
    cr_expect(t_r32(i + 4) == 639 && t_r32(i + 8) == (T_RAM - MIB - T_ACPI) >> 10);
    char want[100];
    snprintf(want, sizeof want, "%s one two", t_kernel);
    cr_expect_str_eq(t_string(t_r32(i + 16)), want);
    cr_expect_str_eq(t_string(t_r32(i + 64)), "ringdown");
    cr_expect_eq(t_r32(i + 20), 0, "no modules");
    cr_assert_eq(t_r32(i + 44), t_cfg.n_map * 24);
    for (unsigned k = 0; k < t_cfg.n_map; k++) {
        uint64_t e = t_r32(i + 48) + k * 24;
        cr_expect(t_r32(e) == 20 && t_r64(e + 4) == t_map[k].gpa && t_r64(e + 12) == t_map[k].bytes &&
                  t_r32(e + 20) == t_map[k].type);
    }
}
Test(boot_multiboot, modules_are_page_aligned_and_keep_their_strings)
{
    char list[200];
    t_write_file(t_initrd, "module one", 10);
    snprintf(list, sizeof list, "%s a=1,,2 b,%s", t_initrd, t_initrd);
    t_cfg.initrd = list;
    T_LOADS(make_mb1(3));
    uint64_t i = t_cpu.gpr[R_RBX], m = t_r32(i + 24);
    cr_assert_eq(t_r32(i + 20), 2);
    cr_expect(t_r32(m) >= 0x103000 && (t_r32(m) & 0xfff) == 0 && t_r32(m + 4) - t_r32(m) == 10);
    cr_expect(t_r32(m + 16) > t_r32(m) && (t_r32(m + 16) & 0xfff) == 0);
    cr_expect_eq(t_read(t_r32(m), 8), t_read(t_r32(m + 16), 8));
    char want[100];
    snprintf(want, sizeof want, "%s a=1,2 b", t_initrd);
    cr_expect_str_eq(t_string(t_r32(m + 8)), want);
    cr_expect_str_eq(t_string(t_r32(m + 24)), t_initrd);
    t_cfg.initrd = "/nonexistent/m x";
    T_FAILS(make_mb1(3), RD_E_NOENT, "cannot open module '/nonexistent/m'");
}
Test(boot_multiboot, too_many_modules)
{
    char list[500] = "";
    for (int i = 0; i < 80; i++)
        strcat(list, "a,");
    t_cfg.initrd = list;
    T_FAILS(make_mb1(3), RD_E_INVAL, "more than 64 modules");
}
Test(boot_multiboot, unknown_demands_are_refused)
{
    T_FAILS(make_mb1(0x8), RD_E_UNSUPPORTED, "unknown multiboot features");
    T_LOADS(make_mb1(0x20000003)); /* upper half: not demands */
}
Test(boot_multiboot, video_wish_gets_the_text_screen)
{
    T_LOADS(make_mb1(4));
    cr_expect_eq(t_r32(t_cpu.gpr[R_RBX]) & 0x1000, 0);
    t_cfg.vga_text = true;
    T_LOADS(make_mb1(4));
    uint64_t i = t_cpu.gpr[R_RBX];
    cr_expect(t_r32(i) & 0x1000);
    cr_expect(t_r64(i + 88) == 0xb8000 && t_r32(i + 96) == 160 && t_r32(i + 100) == 80 && t_r32(i + 104) == 25);
    cr_expect_eq(t_read(i + 109, 1), 2);
}
Test(boot_multiboot, elf_64_bit_is_refused)
{
    static const struct t_elf e = {true, 0x100000, 0x100000, 0x100020, 0x3000, 0};
    t_make_elf(&e);
    put32(t_image + 0x400, 0x1badb002);
    put32(t_image + 0x404, 0);
    put32(t_image + 0x408, -0x1badb002u);
    T_FAILS(0x2000, RD_E_UNSUPPORTED, "64-bit ELF");
}
Test(boot_multiboot, header_addresses_replace_elf)
{
    memset(t_image, 0x90, 0x2000);
    uint32_t h[8] = {0x1badb002, 0x10000, -(0x1badb002 + 0x10000), 0x200100, 0x200000, 0x201000, 0x204000, 0x200010};
    memcpy(t_image + 0x100, h, sizeof h);
    t_image[0xfff] = 0x77;
    gpmem_write(t_mem, 0x203ffc, "dirt", 4);
    T_LOADS(0x2000);
    t_expect_flat32(0x200010);
    cr_expect(t_read(0x200fff, 1) == 0x77 && t_read(0x201000, 1) == 0 && t_r32(0x203ffc) == 0);
    put32(t_image + 0x100 + 20, 0); /* load_end 0: all of the file */
    T_LOADS(0x2000);
    cr_expect_eq(t_read(0x201000, 1), 0x90);
    put32(t_image + 0x100 + 20, 0x203000);
    T_FAILS(0x2000, RD_E_FORMAT, "load_end_addr");
    put32(t_image + 0x100 + 20, 0);
    put32(t_image + 0x100 + 16, 0x1f0000);
    T_FAILS(0x2000, RD_E_FORMAT, "load_addr");
    put32(t_image + 0x100 + 16, 0x200000);
    put32(t_image + 0x100 + 28, 0x300000);
    T_FAILS(0x2000, RD_E_FORMAT, "entry point");
    put32(t_image + 0x100 + 28, 0x200010);
    T_FAILS(0x110, RD_E_FORMAT, "truncated header");
}
Test(boot_multiboot, neither_elf_nor_addresses)
{
    memset(t_image, 0, 0x2000);
    put32(t_image, 0x1badb002);
    put32(t_image + 8, -0x1badb002u);
    T_FAILS(0x2000, RD_E_FORMAT, "neither an ELF file");
}
Test(boot_multiboot, header_beyond_8_kib_is_not_one)
{
    size_t n = t_make_elf(&elf32);
    (void)n;
    memset(t_image + 0x2000, 0, 0x1000);
    put32(t_image + 0x2000, 0x1badb002);
    put32(t_image + 0x2008, -0x1badb002u);
    T_LOADS(0x3000);
    cr_expect_str_eq(t_info.protocol, "Linux 32-bit");
}

/* -- multiboot 2 -- */
static uint8_t *tag_at;
static void begin_mb2(void)
{
    t_make_elf(&elf32);
    tag_at = t_image + 0x410;
}
static void add(uint16_t type, uint16_t flags, unsigned words, const uint32_t *w)
{
    put16(tag_at, type);
    put16(tag_at + 2, flags);
    put32(tag_at + 4, 8 + words * 4);
    if (words)
        memcpy(tag_at + 8, w, words * 4);
    tag_at += boot_align(8 + words * 4, 8);
}
static size_t end_mb2(void)
{
    add(0, 0, 0, NULL);
    uint32_t len = (uint32_t)(tag_at - (t_image + 0x400));
    put32(t_image + 0x400, 0xe85250d6);
    put32(t_image + 0x404, 0);
    put32(t_image + 0x408, len);
    put32(t_image + 0x40c, -(0xe85250d6 + len));
    return 0x2000;
}
/* Guest address of the first tag of a type, or 0. */
static uint64_t find_tag(uint32_t type, unsigned skip)
{
    uint64_t i = t_cpu.gpr[R_RBX], end = i + t_r32(i);
    for (uint64_t at = i + 8; at + 8 <= end; at += boot_align(t_r32(at + 4), 8)) {
        if (t_r32(at) == type && !skip--)
            return at;
        if (t_r32(at) == 0)
            return 0;
    }
    return 0;
}

Test(boot_multiboot2, information)
{
    char list[100];
    t_write_file(t_initrd, "abcdefgh", 8);
    snprintf(list, sizeof list, "%s x y", t_initrd);
    t_cfg.initrd = list;
    t_cfg.append = "args";
    begin_mb2();
    T_LOADS(end_mb2());
    cr_expect_str_eq(t_info.protocol, "multiboot 2");
    t_expect_flat32(0x100020);
    cr_expect_eq(t_cpu.gpr[R_RAX], 0x36d76289);
    cr_expect_eq(t_cpu.gpr[R_RBX] & 7, 0);
    char want[100];
    snprintf(want, sizeof want, "%s args", t_kernel);
    cr_assert(find_tag(1, 0) && find_tag(2, 0) && find_tag(3, 0) && find_tag(4, 0) && find_tag(6, 0) && find_tag(0, 0));
    cr_expect_str_eq(t_string(find_tag(1, 0) + 8), want);
    cr_expect_eq(t_r32(find_tag(1, 0) + 4), 8 + strlen(want) + 1);
    cr_expect_str_eq(t_string(find_tag(2, 0) + 8), "ringdown");
    cr_expect_str_eq(t_string(find_tag(3, 0) + 16), list);
    cr_expect_eq(t_r64(t_r32(find_tag(3, 0) + 8)), 0x6867666564636261);
    cr_expect_eq(t_r32(find_tag(4, 0) + 8), 639);
    uint64_t map = find_tag(6, 0);
    cr_expect(t_r32(map + 8) == 24 && t_r32(map + 4) == 16 + 24 * t_cfg.n_map && t_r64(map + 16 + 48) == t_map[2].gpa);
    cr_expect(!find_tag(8, 0) && !find_tag(14, 0) && !find_tag(21, 0));
}
Test(boot_multiboot2, rsdp_is_copied_by_revision)
{
    uint8_t rsdp[36] = "RSD PTR ";
    t_cfg.rsdp_gpa = 0xe0000;
    begin_mb2();
    size_t n = end_mb2();
    gpmem_write(t_mem, 0xe0000, rsdp, sizeof rsdp);
    T_LOADS(n);
    cr_assert(find_tag(14, 0) && !find_tag(15, 0));
    cr_expect_eq(t_r32(find_tag(14, 0) + 4), 28);
    rsdp[15] = 2;
    gpmem_write(t_mem, 0xe0000, rsdp, sizeof rsdp);
    T_LOADS(n);
    cr_assert(find_tag(15, 0) && !find_tag(14, 0));
    cr_expect(t_r32(find_tag(15, 0) + 4) == 44 && t_r64(find_tag(15, 0) + 8) == 0x2052545020445352);
}
Test(boot_multiboot2, entry_tag_wins)
{
    uint32_t entry = 0x100444;
    begin_mb2();
    add(3, 0, 1, &entry);
    T_LOADS(end_mb2());
    t_expect_flat32(0x100444);
    entry = 0x500000;
    begin_mb2();
    add(3, 0, 1, &entry);
    T_FAILS(end_mb2(), RD_E_FORMAT, "entry point");
}
Test(boot_multiboot2, relocatable_image_moves)
{
    uint32_t lowest[] = {0x800000, 0xffffffff, 0x200000, 1}, highest[] = {0, 0xffffff, 0x10000, 2},
             nowhere[] = {0, 0xfff, 0x1000, 1};
    begin_mb2();
    add(10, 0, 4, lowest);
    T_LOADS(end_mb2());
    t_expect_flat32(0x800020);
    cr_assert(find_tag(21, 0));
    cr_expect_eq(t_r32(find_tag(21, 0) + 8), 0x800000);
    cr_expect_eq(t_read(0x800100, 1), (uint8_t)(0x100 * 7 + 1));
    begin_mb2();
    add(10, 0, 4, highest);
    T_LOADS(end_mb2());
    t_expect_flat32(0xff0020);
    begin_mb2();
    add(10, 0, 4, nowhere);
    T_FAILS(end_mb2(), RD_E_RANGE, "no room");
    uint32_t any[] = {0, 0xffffffff, 0x1000, 0};
    begin_mb2();
    add(10, 0, 4, any);
    T_LOADS(end_mb2());
    t_expect_flat32(0x100020);
    any[2] = 3;
    begin_mb2();
    add(10, 0, 4, any);
    T_FAILS(end_mb2(), RD_E_FORMAT, "power of two");
}
Test(boot_multiboot2, address_tag)
{
    uint32_t where[] = {0x200400, 0x200000, 0x201000, 0x208000}, entry = 0x200010;
    begin_mb2();
    add(2, 0, 4, where);
    T_FAILS(end_mb2(), RD_E_FORMAT, "without an entry tag");
    begin_mb2();
    add(2, 0, 4, where);
    add(3, 0, 1, &entry);
    T_LOADS(end_mb2());
    t_expect_flat32(0x200010);
    cr_expect_eq(t_r32(0x200400), 0xe85250d6);
}
Test(boot_multiboot2, requests)
{
    uint32_t known[] = {1, 3, 6}, efi[] = {6, 12};
    begin_mb2();
    add(1, 0, 3, known);
    T_LOADS(end_mb2());
    begin_mb2();
    add(1, 0, 2, efi);
    T_FAILS(end_mb2(), RD_E_UNSUPPORTED, "information of type 12");
    begin_mb2();
    add(1, 1, 2, efi);
    T_LOADS(end_mb2());
    begin_mb2();
    add(77, 0, 0, NULL);
    T_FAILS(end_mb2(), RD_E_UNSUPPORTED, "feature 77");
    begin_mb2();
    add(77, 1, 0, NULL);
    T_LOADS(end_mb2());
}
Test(boot_multiboot2, headers_that_lie)
{
    begin_mb2();
    add(3, 0, 0, NULL); /* entry tag without an address */
    T_FAILS(end_mb2(), RD_E_FORMAT, "too short");
    begin_mb2();
    end_mb2();
    put32(t_image + 0x414, 4);
    T_FAILS(0x2000, RD_E_FORMAT, "runs over");
    begin_mb2();
    end_mb2();
    put16(t_image + 0x410, 4); /* the end tag becomes another one */
    T_FAILS(0x2000, RD_E_FORMAT, "no end tag");
    put32(t_image + 0x404, 4);
    put32(t_image + 0x40c, le32(t_image + 0x40c) - 4);
    T_FAILS(0x2000, RD_E_FORMAT, "i386");
}

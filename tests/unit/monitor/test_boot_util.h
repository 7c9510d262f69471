/* tests/unit/monitor/test_boot_util.h - what the tests of the boot loaders share: a small guest, files made on the spot. */
#ifndef TEST_BOOT_UTIL_H
#define TEST_BOOT_UTIL_H
#include "monitor/boot_int.h"
#include "shadowmmu/gpmem.h"
#include <criterion/criterion.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MIB 0x100000ull
#define T_RAM (64 * MIB)
#define T_ACPI 0x10000ull

static struct gpmem *t_mem;
static struct boot_range t_map[5];
static struct boot_config t_cfg;
static struct boot_info t_info;
static struct cpu t_cpu;
static char t_err[256];
static char t_kernel[] = "/tmp/rd-boot-kernel-XXXXXX", t_initrd[] = "/tmp/rd-boot-initrd-XXXXXX";
static uint8_t t_image[4 * MIB];

static inline void t_setup_ram(uint64_t ram)
{
    cr_assert_eq(gpmem_create(&t_mem, ram), 0);
    cr_assert_eq(gpmem_add(t_mem, 0, ram, false), 0);
    t_cfg = (struct boot_config){.kernel = t_kernel, .map = t_map};
    t_cfg.n_map = boot_default_map(ram, T_ACPI, t_map);
    close(mkstemp(t_kernel));
    close(mkstemp(t_initrd));
}
static inline void t_setup(void) { t_setup_ram(T_RAM); }
static inline void t_teardown(void)
{
    unlink(t_kernel);
    unlink(t_initrd);
    gpmem_destroy(t_mem);
}

static inline void t_write_file(const char *name, const void *data, size_t bytes)
{
    FILE *f = fopen(name, "wb");
    cr_assert(f && fwrite(data, 1, bytes, f) == bytes && fclose(f) == 0);
}

/* Loads t_image as the kernel, from reset state. */
static inline int t_load(size_t bytes)
{
    t_write_file(t_kernel, t_image, bytes);
    memset(&t_cpu, 0, sizeof t_cpu);
    memset(t_err, 0, sizeof t_err);
    return boot_load(&t_cfg, t_mem, &t_cpu, &t_info, t_err, sizeof t_err);
}

/* It fails with one line that has this text in it, and leaves the CPU alone. */
#define T_FAILS(bytes, code, text)                                                                                     \
    do {                                                                                                               \
        static const struct cpu reset;                                                                                 \
        cr_expect_eq(t_load(bytes), -(code), "code");                                                                  \
        cr_expect(strstr(t_err, text) && !strchr(t_err, '\n'), "message: %s", t_err);                                  \
        cr_expect(!memcmp(&t_cpu, &reset, sizeof reset), "the CPU was changed");                                       \
    } while (0)
#define T_LOADS(bytes) cr_assert_eq(t_load(bytes), 0, "%s", t_err)

static inline uint64_t t_read(uint64_t gpa, size_t bytes)
{
    uint64_t v = 0;
    cr_assert_eq(gpmem_read(t_mem, gpa, &v, bytes), 0, "gpa 0x%llx", (unsigned long long)gpa);
    return v;
}
static inline uint32_t t_r32(uint64_t gpa) { return (uint32_t)t_read(gpa, 4); }
static inline uint64_t t_r64(uint64_t gpa) { return t_read(gpa, 8); }
static inline char *t_string(uint64_t gpa)
{
    static char s[4096];
    for (size_t i = 0; i < sizeof s - 1; i++)
        if (!(s[i] = (char)t_read(gpa + i, 1)))
            break;
    return s;
}

/* What all 32-bit entries promise. */
static inline void t_expect_flat32(uint64_t rip)
{
    cr_expect_eq(t_cpu.rip, rip);
    cr_expect_eq(t_cpu.cr0, CR0_PE | CR0_ET);
    cr_expect_eq(t_cpu.cr4 | t_cpu.efer | t_cpu.cr3, 0);
    cr_expect_eq(cpu_get_eflags(&t_cpu), EFLAGS_R1);
    cr_expect(cpu_seg_is_flat(&t_cpu.seg[S_DS]) && cpu_seg_is_flat(&t_cpu.seg[S_SS]) &&
              cpu_seg_is_flat(&t_cpu.seg[S_ES]));
    cr_expect_eq(t_cpu.seg[S_CS].limit, 0xffffffff);
    cr_expect_eq(t_cpu.key, CPU_KEY_CODE32 | CPU_KEY_SS32 | CPU_KEY_FLAT);
    /* The table in memory describes the same segments: reloading a selector must change nothing. */
    cr_expect_eq(t_r64(t_cpu.gdtr.base + t_cpu.seg[S_CS].sel), 0x00cf9b000000ffff);
    cr_expect_eq(t_r64(t_cpu.gdtr.base + t_cpu.seg[S_DS].sel), 0x00cf93000000ffff);
}

/* Builds an ELF file in t_image: headers, then one page of code at file offset 0x1000. Returns its size. */
struct t_elf {
    bool is64;
    uint64_t paddr, vaddr, entry, memsz;
    uint64_t pvh; /* 0: no note */
};
static inline size_t t_make_elf(const struct t_elf *o)
{
    memset(t_image, 0, 0x3000);
    memcpy(t_image, ELFMAG, SELFMAG);
    t_image[EI_CLASS] = o->is64 ? ELFCLASS64 : ELFCLASS32;
    t_image[EI_DATA] = ELFDATA2LSB;
    for (size_t i = 0; i < 0x1000; i++)
        t_image[0x1000 + i] = (uint8_t)(i * 7 + 1);
    uint32_t note[7] = {4, o->is64 ? 8 : 4, 18, 0x006e6558, (uint32_t)o->pvh, 0, 0};
    memcpy(t_image + 0x800, note, sizeof note);
    if (o->is64) {
        Elf64_Ehdr h = {.e_type = ET_EXEC,
                        .e_machine = EM_X86_64,
                        .e_entry = o->entry,
                        .e_phoff = 0x100,
                        .e_phentsize = sizeof(Elf64_Phdr),
                        .e_phnum = o->pvh ? 2 : 1};
        memcpy(h.e_ident, t_image, EI_NIDENT);
        memcpy(t_image, &h, sizeof h);
        Elf64_Phdr p[2] = {{.p_type = PT_LOAD,
                            .p_offset = 0x1000,
                            .p_vaddr = o->vaddr,
                            .p_paddr = o->paddr,
                            .p_filesz = 0x1000,
                            .p_memsz = o->memsz},
                           {.p_type = PT_NOTE, .p_offset = 0x800, .p_filesz = 24, .p_align = 4}};
        memcpy(t_image + 0x100, p, sizeof p);
    } else {
        Elf32_Ehdr h = {.e_type = ET_EXEC,
                        .e_machine = EM_386,
                        .e_entry = (uint32_t)o->entry,
                        .e_phoff = 0x100,
                        .e_phentsize = sizeof(Elf32_Phdr),
                        .e_phnum = o->pvh ? 2 : 1};
        memcpy(h.e_ident, t_image, EI_NIDENT);
        memcpy(t_image, &h, sizeof h);
        Elf32_Phdr p[2] = {{.p_type = PT_LOAD,
                            .p_offset = 0x1000,
                            .p_vaddr = (uint32_t)o->vaddr,
                            .p_paddr = (uint32_t)o->paddr,
                            .p_filesz = 0x1000,
                            .p_memsz = (uint32_t)o->memsz},
                           {.p_type = PT_NOTE, .p_offset = 0x800, .p_filesz = 20, .p_align = 4}};
        memcpy(t_image + 0x100, p, sizeof p);
    }
    return 0x2000;
}
#endif

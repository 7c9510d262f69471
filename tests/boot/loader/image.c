/* tests/boot/loader/image.c - runs Ringdown's boot loader on a real kernel and writes what it made: guest RAM to a file, the
 * entry state as nasm definitions to standard output. run.sh boots the two under QEMU: an oracle for the loaders that does
 * not need Ringdown's own CPU.
 *
 * usage: image RAM-MIB RAM-FILE 16|32|64|auto KERNEL INITRD|- COMMAND-LINE
 */
#include "monitor/boot.h"
#include "shadowmmu/gpmem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *why)
{
    fprintf(stderr, "image: %s\n", why);
    return 1;
}

static int write_ram(const struct gpmem *mem, uint64_t bytes, const char *path)
{
    static uint8_t page[1 << 16];
    static const uint8_t zero[1 << 16];
    FILE *f = fopen(path, "wb");
    if (!f)
        return 1;
    for (uint64_t gpa = 0; gpa < bytes; gpa += sizeof page) {
        if (gpmem_read(mem, gpa, page, sizeof page))
            return 1;
        /* Holes keep the file small. */
        if (!memcmp(page, zero, sizeof page) && gpa + sizeof page < bytes ? fseek(f, sizeof page, SEEK_CUR)
                                                                          : fwrite(page, sizeof page, 1, f) != 1)
            return 1;
    }
    return fclose(f);
}

int main(int argc, char **argv)
{
    if (argc != 7)
        return fail("usage: image RAM-MIB RAM-FILE 16|32|64|auto KERNEL INITRD|- COMMAND-LINE");
    uint64_t ram = strtoull(argv[1], NULL, 10) << 20;
    struct gpmem *mem;
    struct boot_range map[5];
    struct boot_config cfg = {.kernel = argv[4], .append = argv[6], .map = map, .vga_text = false};
    cfg.n_map = boot_default_map(ram, 0, map);
    cfg.initrd = strcmp(argv[5], "-") ? argv[5] : NULL;
    cfg.entry = !strcmp(argv[3], "64") ? BOOT_ENTRY_64 : !strcmp(argv[3], "32") ? BOOT_ENTRY_32 : BOOT_ENTRY_AUTO;
    if (gpmem_create(&mem, ram) || gpmem_add(mem, 0, ram, false))
        return fail("no guest memory");
    struct cpu cpu = {0};
    struct boot_info info;
    char err[256];
    if (boot_load(&cfg, mem, &cpu, &info, err, sizeof err))
        return fail(err);
    if (write_ram(mem, ram, argv[2]))
        return fail("cannot write the RAM file");
    fprintf(stderr, "image: %s, entry 0x%llx, information 0x%llx, initrd 0x%llx + 0x%llx\n", info.protocol,
            (unsigned long long)info.entry, (unsigned long long)info.info_gpa, (unsigned long long)info.initrd_gpa,
            (unsigned long long)info.initrd_bytes);
    printf("-DV_RAX=0x%llx -DV_RBX=0x%llx -DV_RSI=0x%llx -DV_RIP=0x%llx -DV_CR0=0x%llx -DV_CR3=0x%llx -DV_CR4=0x%llx "
           "-DV_EFER=0x%llx -DV_GDT=0x%llx -DV_GDT_LIMIT=0x%x -DV_LONG=%d\n",
           (unsigned long long)cpu.gpr[R_RAX], (unsigned long long)cpu.gpr[R_RBX], (unsigned long long)cpu.gpr[R_RSI],
           (unsigned long long)cpu.rip, (unsigned long long)cpu.cr0, (unsigned long long)cpu.cr3,
           (unsigned long long)cpu.cr4, (unsigned long long)cpu.efer, (unsigned long long)cpu.gdtr.base, cpu.gdtr.limit,
           cpu_code64(&cpu));
    gpmem_destroy(mem);
    return 0;
}

/* monitor/boot_load.c - tells which boot protocol a file speaks, and the error line. */
#include "monitor/boot_int.h"
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

int boot_fail(struct boot *b, enum rd_err code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (b->errsz)
        vsnprintf(b->err, b->errsz, fmt, ap);
    va_end(ap);
    /* File names may hold anything; the message stays one line. */
    for (size_t i = 0; i < b->errsz && b->err[i]; i++)
        if (iscntrl((unsigned char)b->err[i]))
            b->err[i] = '?';
    return -(int)code;
}

static int load_elf(struct boot *b)
{
    struct boot_elf elf;
    int r = boot_elf_parse(b, &elf);
    if (r)
        return r;
    /* PVH is a 32-bit entry; who asks for 64 bits gets Linux's own protocol. */
    if (elf.has_pvh && b->cfg->entry != BOOT_ENTRY_64)
        return boot_load_pvh(b, &elf);
    return boot_load_vmlinux(b, &elf);
}

static int load_any(struct boot *b)
{
    const struct boot_file *f = &b->kernel;
    if (boot_is_bzimage(f))
        return boot_load_bzimage(b);
    if (b->cfg->entry == BOOT_ENTRY_16)
        return boot_fail(b, RD_E_UNSUPPORTED, "'%s' is not a bzImage: it has no 16-bit entry", f->name);
    long mb1 = boot_find_multiboot(f), mb2 = boot_find_multiboot2(f);
    /* Kernels with both headers (Xen) put a 64-bit ELF file behind the first, which only multiboot 2 allows. */
    if (mb1 >= 0 && mb2 >= 0 && boot_is_elf(f) && f->data[4] == 2)
        mb1 = -1;
    if ((mb1 >= 0 || mb2 >= 0) && b->cfg->entry == BOOT_ENTRY_64)
        return boot_fail(b, RD_E_UNSUPPORTED, "'%s' is a multiboot kernel: it has no 64-bit entry", f->name);
    if (mb1 >= 0)
        return boot_load_multiboot(b, mb1);
    if (mb2 >= 0)
        return boot_load_multiboot2(b, mb2);
    if (boot_is_elf(f))
        return load_elf(b);
    return boot_fail(b, RD_E_FORMAT, "'%s' is not a kernel in a known format (bzImage, ELF, multiboot)", f->name);
}

int boot_load(const struct boot_config *cfg, struct gpmem *mem, struct cpu *cpu, struct boot_info *info, char *err,
              size_t errsz)
{
    /* The loaders work on a copy, so that a failure half-way leaves the caller's CPU in reset. */
    struct cpu c = *cpu;
    struct boot b = {.cfg = cfg, .mem = mem, .cpu = &c, .err = err, .errsz = errsz, .kernel.name = cfg->kernel};
    if (errsz)
        err[0] = 0;
    int r = boot_map_check(&b);
    if (!r)
        r = boot_file_read(&b, "kernel", cfg->kernel, &b.kernel);
    if (!r)
        r = load_any(&b);
    if (!r)
        r = boot_put_bda(&b);
    free(b.kernel.data);
    if (r)
        return r;
    cpu_update_key(&c);
    *cpu = c;
    if (info)
        *info = b.info;
    return 0;
}

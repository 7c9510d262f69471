/* monitor/boot_pvh.c - the PVH entry of Xen's x86/HVM direct boot ABI: 32-bit, EBX points to struct hvm_start_info. */
#include "monitor/boot_int.h"

#define START_MAGIC 0x336ec578u
#define START_BYTES 56
#define MODULE_BYTES 32
#define MAP_ENTRY_BYTES 24
#define PVH_INITRD_MAX 0x80000000ull /* 64-bit kernels map the first 2 GiB early */

static int put_map(struct boot *b, uint64_t *gpa)
{
    uint8_t map[BOOT_MAX_RANGES * MAP_ENTRY_BYTES] = {0};
    for (unsigned i = 0; i < b->cfg->n_map; i++) {
        put64(map + i * MAP_ENTRY_BYTES, b->cfg->map[i].gpa);
        put64(map + i * MAP_ENTRY_BYTES + 8, b->cfg->map[i].bytes);
        put32(map + i * MAP_ENTRY_BYTES + 16, b->cfg->map[i].type);
    }
    return boot_put_low(b, "the memory map", map, b->cfg->n_map * MAP_ENTRY_BYTES, gpa);
}

static int put_module(struct boot *b, uint8_t *start)
{
    if (!b->cfg->initrd)
        return 0;
    uint8_t module[MODULE_BYTES] = {0};
    uint64_t gpa;
    int r = boot_put_initrd(b, b->cfg->initrd, PVH_INITRD_MAX, &b->info.initrd_gpa, &b->info.initrd_bytes);
    if (r)
        return r;
    put64(module, b->info.initrd_gpa);
    put64(module + 8, b->info.initrd_bytes);
    r = boot_put_low(b, "the module list", module, sizeof module, &gpa);
    put32(start + 12, 1);
    put64(start + 16, gpa);
    return r;
}

int boot_load_pvh(struct boot *b, const struct boot_elf *elf)
{
    if (elf->pvh_entry < elf->lo || elf->pvh_entry >= elf->hi || elf->hi > BOOT_4G)
        return boot_fail(b, RD_E_FORMAT, "'%s': the PVH entry point is in no segment below 4 GiB", b->kernel.name);
    int r = boot_elf_load(b, elf, 0);
    if (r)
        return r;
    uint8_t start[START_BYTES] = {0};
    uint64_t map, cmdline;
    const char *append = b->cfg->append ? b->cfg->append : "";
    put32(start, START_MAGIC);
    put32(start + 4, 1); /* version: with a memory map */
    r = put_module(b, start);
    if (!r)
        r = boot_put_low(b, "the command line", append, strlen(append) + 1, &cmdline);
    if (!r)
        r = put_map(b, &map);
    if (r)
        return r;
    put64(start + 24, cmdline);
    put64(start + 32, b->cfg->rsdp_gpa);
    put64(start + 40, map);
    put32(start + 48, b->cfg->n_map);
    r = boot_put_low(b, "hvm_start_info", start, sizeof start, &b->info.info_gpa);
    if (!r)
        r = boot_cpu_flat32(b, elf->pvh_entry);
    b->cpu->gpr[R_RBX] = b->info.info_gpa;
    b->info.entry = elf->pvh_entry;
    b->info.protocol = "PVH";
    return r;
}

/* monitor/objfile.h - code files for `ringdown translate`: ELF objects and executables, or raw bytes, as parts with addresses.
 *
 * Role:     reads, places and relocates what a function needs to run: sections of an object file (one after the other from base),
 *           segments of an executable (where it says; position-independent ones moved by base), raw bytes at base. Names of functions.
 * Hostile:  the file may hold anything; sizes are limited to OBJFILE_MAX_BYTES.
 * Errors:   0, or -RD_E_* and one line in err that names the file.
 */
#ifndef MONITOR_OBJFILE_H
#define MONITOR_OBJFILE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OBJFILE_MAX_BYTES (64u << 20)
#define OBJFILE_MAX_PARTS 64
struct objfile_part {
    uint64_t addr, bytes;
    uint8_t *data;    /* bytes of them */
    unsigned section; /* of an object file */
};
struct objfile_symbol {
    uint64_t addr, bytes; /* bytes may be 0: not known */
    const char *name;
    bool is_function;
};
struct objfile {
    unsigned mode; /* 16, 32, 64 */
    bool is_elf;
    struct objfile_part part[OBJFILE_MAX_PARTS];
    unsigned n_parts;
    uint64_t entry; /* executable: its entry; object: its first function; raw: its first byte */
    struct objfile_symbol *sym;
    size_t n_syms;
    uint8_t *file;
    size_t file_bytes;
};
/* mode: of raw bytes, 0 = 64; it overrides nothing in ELF files. base: 0 = the default of the mode. */
int objfile_load(struct objfile *o, const char *name, unsigned mode, uint64_t base, char *err, size_t errsz)
    __attribute__((warn_unused_result));
void objfile_free(struct objfile *o);
const struct objfile_symbol *objfile_find(const struct objfile *o, const char *name);
/* The symbol that an address belongs to, or NULL. */
const struct objfile_symbol *objfile_at(const struct objfile *o, uint64_t addr);
/* All bytes in one part? */
bool objfile_holds(const struct objfile *o, uint64_t addr, uint64_t bytes);
#endif

#include "monitor/objfile.h"
#include "base/err.h"
#include <ctype.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BASE_FLAT 0x100000u
#define BASE_REAL 0x20000u

struct load {
    struct objfile *o;
    const char *name;
    uint64_t base;
    bool is64;
    Elf64_Ehdr eh; /* widened */
    uint64_t total;
    char *err;
    size_t errsz;
};

static int fail(struct load *l, enum rd_err code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int fail(struct load *l, enum rd_err code, const char *fmt, ...)
{
    va_list ap;
    int n = snprintf(l->err, l->errsz, "'%s': ", l->name);
    va_start(ap, fmt);
    if (n >= 0 && (size_t)n < l->errsz)
        vsnprintf(l->err + n, l->errsz - (size_t)n, fmt, ap);
    va_end(ap);
    for (char *p = l->err; *p; p++)
        if (iscntrl((unsigned char)*p))
            *p = '?';
    return -(int)code;
}

static bool in_file(const struct load *l, uint64_t at, uint64_t bytes)
{
    return at <= l->o->file_bytes && bytes <= l->o->file_bytes - at;
}

static int read_file(struct load *l)
{
    struct stat st;
    int fd = open(l->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0;
    if (fd < 0)
        return fail(l, errno == ENOENT ? RD_E_NOENT : RD_E_IO, "%s", strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode))
        rc = fail(l, RD_E_INVAL, "not a regular file");
    else if (st.st_size == 0 || st.st_size > OBJFILE_MAX_BYTES)
        rc = fail(l, RD_E_FORMAT, "%s", st.st_size ? "larger than 64 MiB" : "empty");
    else if (!(l->o->file = malloc((size_t)st.st_size)))
        rc = fail(l, RD_E_NOMEM, "out of memory");
    else if (read(fd, l->o->file, (size_t)st.st_size) != st.st_size)
        rc = fail(l, RD_E_IO, "cannot be read");
    else
        l->o->file_bytes = (size_t)st.st_size;
    close(fd);
    return rc;
}

/* ---- parts ---- */

static int add_part(struct load *l, uint64_t addr, uint64_t bytes, struct objfile_part **out)
{
    struct objfile *o = l->o;
    if (o->n_parts == OBJFILE_MAX_PARTS)
        return fail(l, RD_E_FORMAT, "more than %d parts to load", OBJFILE_MAX_PARTS);
    if (bytes > OBJFILE_MAX_BYTES - l->total || addr + bytes < addr)
        return fail(l, RD_E_FORMAT, "does not fit into memory");
    for (unsigned i = 0; i < o->n_parts; i++)
        if (addr < o->part[i].addr + o->part[i].bytes && o->part[i].addr < addr + bytes)
            return fail(l, RD_E_FORMAT, "parts overlap at 0x%llx", (unsigned long long)addr);
    uint8_t *data = calloc(1, bytes ? bytes : 1);
    if (!data)
        return fail(l, RD_E_NOMEM, "out of memory");
    l->total += bytes;
    *out = &o->part[o->n_parts++];
    **out = (struct objfile_part){.addr = addr, .bytes = bytes, .data = data};
    return 0;
}

static struct objfile_part *part_of(struct objfile *o, uint64_t addr, uint64_t bytes)
{
    for (unsigned i = 0; i < o->n_parts; i++)
        if (addr >= o->part[i].addr && bytes <= o->part[i].bytes && addr - o->part[i].addr <= o->part[i].bytes - bytes)
            return &o->part[i];
    return NULL;
}

bool objfile_holds(const struct objfile *o, uint64_t addr, uint64_t bytes)
{
    return part_of((struct objfile *)o, addr, bytes) != NULL;
}

/* ---- ELF: headers, widened to 64 bits ---- */

static int read_header(struct load *l)
{
    const struct objfile *o = l->o;
    Elf32_Ehdr h;
    l->is64 = o->file[EI_CLASS] == ELFCLASS64;
    if (!in_file(l, 0, l->is64 ? sizeof l->eh : sizeof h))
        return fail(l, RD_E_FORMAT, "truncated ELF header");
    if (l->is64)
        memcpy(&l->eh, o->file, sizeof l->eh);
    else {
        memcpy(&h, o->file, sizeof h);
        memcpy(l->eh.e_ident, h.e_ident, EI_NIDENT);
        l->eh.e_type = h.e_type;
        l->eh.e_machine = h.e_machine;
        l->eh.e_entry = h.e_entry;
        l->eh.e_phoff = h.e_phoff;
        l->eh.e_shoff = h.e_shoff;
        l->eh.e_phentsize = h.e_phentsize;
        l->eh.e_phnum = h.e_phnum;
        l->eh.e_shentsize = h.e_shentsize;
        l->eh.e_shnum = h.e_shnum;
    }
    if (l->eh.e_ident[EI_DATA] != ELFDATA2LSB || l->eh.e_machine != (l->is64 ? EM_X86_64 : EM_386))
        return fail(l, RD_E_FORMAT, "not for x86");
    size_t ph = l->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr),
           sh = l->is64 ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr);
    if ((l->eh.e_phnum &&
         (l->eh.e_phentsize < ph || !in_file(l, l->eh.e_phoff, (uint64_t)l->eh.e_phnum * l->eh.e_phentsize))) ||
        (l->eh.e_shnum &&
         (l->eh.e_shentsize < sh || !in_file(l, l->eh.e_shoff, (uint64_t)l->eh.e_shnum * l->eh.e_shentsize))))
        return fail(l, RD_E_FORMAT, "truncated ELF tables");
    return 0;
}

static Elf64_Shdr section(const struct load *l, unsigned i)
{
    const uint8_t *p = l->o->file + l->eh.e_shoff + (uint64_t)i * l->eh.e_shentsize;
    Elf64_Shdr s;
    Elf32_Shdr q;
    if (l->is64) {
        memcpy(&s, p, sizeof s);
        return s;
    }
    memcpy(&q, p, sizeof q);
    return (Elf64_Shdr){.sh_name = q.sh_name,
                        .sh_type = q.sh_type,
                        .sh_flags = q.sh_flags,
                        .sh_addr = q.sh_addr,
                        .sh_offset = q.sh_offset,
                        .sh_size = q.sh_size,
                        .sh_link = q.sh_link,
                        .sh_info = q.sh_info,
                        .sh_addralign = q.sh_addralign,
                        .sh_entsize = q.sh_entsize};
}

static Elf64_Phdr segment(const struct load *l, unsigned i)
{
    const uint8_t *p = l->o->file + l->eh.e_phoff + (uint64_t)i * l->eh.e_phentsize;
    Elf64_Phdr s;
    Elf32_Phdr q;
    if (l->is64) {
        memcpy(&s, p, sizeof s);
        return s;
    }
    memcpy(&q, p, sizeof q);
    return (Elf64_Phdr){
        .p_type = q.p_type, .p_offset = q.p_offset, .p_vaddr = q.p_vaddr, .p_filesz = q.p_filesz, .p_memsz = q.p_memsz};
}

static Elf64_Sym symbol(const struct load *l, const Elf64_Shdr *table, uint64_t i)
{
    Elf64_Sym s;
    Elf32_Sym q;
    if (l->is64) {
        memcpy(&s, l->o->file + table->sh_offset + i * sizeof s, sizeof s);
        return s;
    }
    memcpy(&q, l->o->file + table->sh_offset + i * sizeof q, sizeof q);
    return (Elf64_Sym){.st_name = q.st_name,
                       .st_info = q.st_info,
                       .st_shndx = q.st_shndx,
                       .st_value = q.st_value,
                       .st_size = q.st_size};
}

static uint64_t symbol_count(const struct load *l, const Elf64_Shdr *table)
{
    uint64_t n = table->sh_size / (l->is64 ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym));
    return in_file(l, table->sh_offset, table->sh_size) ? n : 0;
}

/* A name in a string table that ends inside it, or NULL. */
static const char *string_at(const struct load *l, const Elf64_Shdr *strings, uint64_t at)
{
    if (!in_file(l, strings->sh_offset, strings->sh_size) || at >= strings->sh_size)
        return NULL;
    const char *s = (const char *)l->o->file + strings->sh_offset + at;
    return memchr(s, 0, strings->sh_size - at) ? s : NULL;
}

/* ---- loading ---- */

static int load_segments(struct load *l)
{
    uint64_t shift = l->eh.e_type == ET_DYN ? l->base : 0;
    for (unsigned i = 0; i < l->eh.e_phnum; i++) {
        Elf64_Phdr p = segment(l, i);
        struct objfile_part *part;
        if (p.p_type != PT_LOAD || !p.p_memsz)
            continue;
        if (p.p_filesz > p.p_memsz || !in_file(l, p.p_offset, p.p_filesz))
            return fail(l, RD_E_FORMAT, "segment %u is truncated", i);
        int rc = add_part(l, p.p_vaddr + shift, p.p_memsz, &part);
        if (rc)
            return rc;
        memcpy(part->data, l->o->file + p.p_offset, p.p_filesz);
    }
    l->o->entry = l->eh.e_entry + shift;
    return l->o->n_parts ? 0 : fail(l, RD_E_FORMAT, "nothing to load");
}

static int load_sections(struct load *l)
{
    uint64_t at = l->base;
    for (unsigned i = 0; i < l->eh.e_shnum; i++) {
        Elf64_Shdr s = section(l, i);
        struct objfile_part *part;
        uint64_t align = s.sh_addralign ? s.sh_addralign : 1;
        if (!(s.sh_flags & SHF_ALLOC) || !s.sh_size)
            continue;
        if ((align & (align - 1)) || align > 4096 || (s.sh_type != SHT_NOBITS && !in_file(l, s.sh_offset, s.sh_size)))
            return fail(l, RD_E_FORMAT, "section %u is truncated or badly aligned", i);
        at = (at + align - 1) & ~(align - 1);
        int rc = add_part(l, at, s.sh_size, &part);
        if (rc)
            return rc;
        part->section = i;
        if (s.sh_type != SHT_NOBITS)
            memcpy(part->data, l->o->file + s.sh_offset, s.sh_size);
        at += s.sh_size;
    }
    return l->o->n_parts ? 0 : fail(l, RD_E_FORMAT, "nothing to load");
}

static struct objfile_part *part_of_section(struct objfile *o, unsigned i)
{
    for (unsigned k = 0; k < o->n_parts; k++)
        if (o->part[k].section == i)
            return &o->part[k];
    return NULL;
}

/* Address of a symbol in the loaded image; false: it is not there. */
static bool symbol_addr(const struct load *l, const Elf64_Sym *s, uint64_t *addr)
{
    if (s->st_shndx == SHN_ABS) {
        *addr = s->st_value;
        return true;
    }
    if (s->st_shndx == SHN_UNDEF || s->st_shndx >= SHN_LORESERVE)
        return false;
    *addr = s->st_value + (l->eh.e_type == ET_DYN ? l->base : 0);
    if (l->eh.e_type != ET_REL)
        return true;
    const struct objfile_part *p = part_of_section(l->o, s->st_shndx);
    *addr = p ? p->addr + s->st_value : 0;
    return p != NULL;
}

/* ---- relocation of object files (psABI x86-64 4.4.1, i386 4.4.1) ---- */

struct reloc {
    uint64_t offset;
    uint32_t type, sym;
    int64_t addend;
    bool addend_in_place;
};

static int apply(struct load *l, const struct objfile_part *part, const struct reloc *r, uint64_t s)
{
    bool x64 = l->is64, wide = x64 && r->type == R_X86_64_64;
    bool narrow = !x64 && (r->type == R_386_16 || r->type == R_386_PC16);
    bool relative = x64 ? r->type == R_X86_64_PC32 || r->type == R_X86_64_PLT32
                        : r->type == R_386_PC32 || r->type == R_386_PLT32 || r->type == R_386_PC16;
    bool absolute =
        x64 ? wide || r->type == R_X86_64_32 || r->type == R_X86_64_32S : r->type == R_386_32 || r->type == R_386_16;
    unsigned size = wide ? 8 : narrow ? 2 : 4;
    if (!relative && !absolute)
        return fail(l, RD_E_UNSUPPORTED, "relocation of type %u is not supported: link the file first", r->type);
    if (r->offset > part->bytes || size > part->bytes - r->offset)
        return fail(l, RD_E_FORMAT, "a relocation points outside its section");
    uint8_t *at = part->data + r->offset;
    int32_t in_place = 0;
    memcpy(&in_place, at, narrow ? 2 : 4);
    uint64_t v = s + (uint64_t)(r->addend_in_place ? in_place : r->addend) - (relative ? part->addr + r->offset : 0);
    memcpy(at, &v, size);
    return 0;
}

static struct reloc read_reloc(const struct load *l, const Elf64_Shdr *table, uint64_t i)
{
    const uint8_t *p = l->o->file + table->sh_offset;
    if (l->is64) {
        Elf64_Rela r;
        memcpy(&r, p + i * sizeof r, sizeof r);
        return (struct reloc){r.r_offset, (uint32_t)ELF64_R_TYPE(r.r_info), (uint32_t)ELF64_R_SYM(r.r_info), r.r_addend,
                              false};
    }
    Elf32_Rel r;
    memcpy(&r, p + i * sizeof r, sizeof r);
    return (struct reloc){r.r_offset, ELF32_R_TYPE(r.r_info), ELF32_R_SYM(r.r_info), 0, true};
}

static int relocate_section(struct load *l, const Elf64_Shdr *table)
{
    struct objfile_part *part = part_of_section(l->o, table->sh_info);
    size_t size = l->is64 ? sizeof(Elf64_Rela) : sizeof(Elf32_Rel);
    if (!part)
        return 0; /* debug information */
    if (!in_file(l, table->sh_offset, table->sh_size) || table->sh_link >= l->eh.e_shnum)
        return fail(l, RD_E_FORMAT, "truncated relocations");
    Elf64_Shdr syms = section(l, table->sh_link);
    for (uint64_t i = 0; i < table->sh_size / size; i++) {
        struct reloc r = read_reloc(l, table, i);
        uint64_t addr = 0;
        if (r.sym >= symbol_count(l, &syms))
            return fail(l, RD_E_FORMAT, "a relocation names no symbol");
        Elf64_Sym s = symbol(l, &syms, r.sym);
        if (r.type == 0)
            continue;
        if (!symbol_addr(l, &s, &addr)) {
            Elf64_Shdr strings = syms.sh_link < l->eh.e_shnum ? section(l, syms.sh_link) : (Elf64_Shdr){0};
            const char *name = string_at(l, &strings, s.st_name);
            return fail(l, RD_E_UNSUPPORTED, "'%s' is not in the file: link it first", name ? name : "?");
        }
        int rc = apply(l, part, &r, addr);
        if (rc)
            return rc;
    }
    return 0;
}

static int relocate(struct load *l)
{
    for (unsigned i = 0; i < l->eh.e_shnum; i++) {
        Elf64_Shdr s = section(l, i);
        int rc = s.sh_type == (l->is64 ? SHT_RELA : SHT_REL) ? relocate_section(l, &s) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- symbols ---- */

static int by_addr(const void *a, const void *b)
{
    const struct objfile_symbol *x = a, *y = b;
    return x->addr < y->addr ? -1 : x->addr > y->addr;
}

static int read_symbols(struct load *l)
{
    struct objfile *o = l->o;
    for (unsigned i = 0; i < l->eh.e_shnum; i++) {
        Elf64_Shdr t = section(l, i);
        if (t.sh_type != SHT_SYMTAB || t.sh_link >= l->eh.e_shnum || o->sym)
            continue;
        Elf64_Shdr strings = section(l, t.sh_link);
        uint64_t n = symbol_count(l, &t), addr;
        if (!n)
            continue;
        o->sym = calloc(n, sizeof o->sym[0]);
        if (!o->sym)
            return fail(l, RD_E_NOMEM, "out of memory");
        for (uint64_t k = 0; k < n; k++) {
            Elf64_Sym s = symbol(l, &t, k);
            unsigned type = ELF64_ST_TYPE(s.st_info);
            const char *name = string_at(l, &strings, s.st_name);
            if (!name || !*name || type > STT_FUNC || !symbol_addr(l, &s, &addr) || !objfile_holds(o, addr, 1))
                continue;
            o->sym[o->n_syms++] = (struct objfile_symbol){addr, s.st_size, name, type == STT_FUNC};
        }
    }
    if (o->sym)
        qsort(o->sym, o->n_syms, sizeof o->sym[0], by_addr);
    return 0;
}

const struct objfile_symbol *objfile_find(const struct objfile *o, const char *name)
{
    for (size_t i = 0; i < o->n_syms; i++)
        if (!strcmp(o->sym[i].name, name))
            return &o->sym[i];
    return NULL;
}

const struct objfile_symbol *objfile_at(const struct objfile *o, uint64_t addr)
{
    const struct objfile_symbol *best = NULL;
    for (size_t i = 0; i < o->n_syms && o->sym[i].addr <= addr; i++)
        if (objfile_holds(o, o->sym[i].addr, addr - o->sym[i].addr + 1))
            best = &o->sym[i];
    return best;
}

/* An object file starts at its first function, else at the first part that is there. */
static void choose_entry(struct objfile *o)
{
    o->entry = o->part[0].addr;
    for (size_t i = 0; i < o->n_syms; i++)
        if (o->sym[i].is_function) {
            o->entry = o->sym[i].addr;
            return;
        }
}

static int load_elf(struct load *l)
{
    int rc = read_header(l);
    if (rc)
        return rc;
    l->o->mode = l->is64 ? 64 : 32;
    bool rel = l->eh.e_type == ET_REL;
    rc = rel ? load_sections(l) : load_segments(l);
    if (!rc && rel)
        rc = relocate(l);
    if (!rc)
        rc = read_symbols(l);
    if (!rc && rel)
        choose_entry(l->o);
    return rc;
}

static int load_raw(struct load *l)
{
    struct objfile_part *part;
    int rc = add_part(l, l->base, l->o->file_bytes, &part);
    if (rc)
        return rc;
    memcpy(part->data, l->o->file, l->o->file_bytes);
    l->o->entry = l->base;
    return 0;
}

int objfile_load(struct objfile *o, const char *name, unsigned mode, uint64_t base, char *err, size_t errsz)
{
    *o = (struct objfile){.mode = mode ? mode : 64};
    struct load l = {.o = o,
                     .name = name,
                     .base = base         ? base
                             : mode == 16 ? BASE_REAL
                                          : BASE_FLAT,
                     .err = err,
                     .errsz = errsz};
    int rc = read_file(&l);
    o->is_elf = !rc && o->file_bytes >= EI_NIDENT && !memcmp(o->file, ELFMAG, SELFMAG);
    if (!rc)
        rc = o->is_elf ? load_elf(&l) : load_raw(&l);
    if (!rc && mode == 16 && o->mode == 32) /* 16-bit code comes in 32-bit object files */
        o->mode = 16;
    else if (!rc && mode && o->mode != mode)
        rc = fail(&l, RD_E_INVAL, "holds %u-bit code, not %u-bit", o->mode, mode);
    if (rc)
        objfile_free(o);
    return rc;
}

void objfile_free(struct objfile *o)
{
    for (unsigned i = 0; i < o->n_parts; i++)
        free(o->part[i].data);
    free(o->sym);
    free(o->file);
    *o = (struct objfile){0};
}

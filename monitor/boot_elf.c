/* monitor/boot_elf.c - ELF kernels: program headers and the PVH note. The file is hostile; offsets are checked before use. */
#include "monitor/boot_int.h"
#include <elf.h>

#define XEN_ELFNOTE_PHYS32_ENTRY 18

bool boot_is_elf(const struct boot_file *f) { return f->bytes >= EI_NIDENT && !memcmp(f->data, ELFMAG, SELFMAG); }

static bool in_file(const struct boot_file *f, uint64_t offset, uint64_t bytes)
{
    return offset <= f->bytes && bytes <= f->bytes - offset;
}

static int bad(struct boot *b, const char *why)
{
    return boot_fail(b, RD_E_FORMAT, "'%s': bad ELF file: %s", b->kernel.name, why);
}

/* The fields of both header formats that matter, widened. */
struct phdrs {
    uint64_t offset;
    unsigned count, entry_bytes;
};

static int parse_header(struct boot *b, struct boot_elf *e, struct phdrs *ph)
{
    const struct boot_file *f = &b->kernel;
    unsigned class = f->data[EI_CLASS];
    if (class != ELFCLASS32 && class != ELFCLASS64)
        return bad(b, "neither 32-bit nor 64-bit");
    e->is64 = class == ELFCLASS64;
    if (f->data[EI_DATA] != ELFDATA2LSB)
        return bad(b, "not little-endian");
    if (f->bytes < (e->is64 ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr)))
        return bad(b, "truncated header");
    unsigned machine = le16(f->data + offsetof(Elf64_Ehdr, e_machine)), want_phent;
    if (e->is64) {
        Elf64_Ehdr h;
        memcpy(&h, f->data, sizeof h);
        e->entry = h.e_entry;
        *ph = (struct phdrs){h.e_phoff, h.e_phnum, h.e_phentsize};
        want_phent = sizeof(Elf64_Phdr);
    } else {
        Elf32_Ehdr h;
        memcpy(&h, f->data, sizeof h);
        e->entry = h.e_entry;
        *ph = (struct phdrs){h.e_phoff, h.e_phnum, h.e_phentsize};
        want_phent = sizeof(Elf32_Phdr);
    }
    if (machine != EM_386 && machine != EM_X86_64)
        return bad(b, "not for x86");
    if (ph->count == 0)
        return bad(b, "no program headers (not an executable)");
    if (ph->entry_bytes < want_phent || !in_file(f, ph->offset, (uint64_t)ph->count * ph->entry_bytes))
        return bad(b, "truncated program headers");
    return 0;
}

static Elf64_Phdr read_phdr(const struct boot_file *f, const struct boot_elf *e, const struct phdrs *ph, unsigned i)
{
    const uint8_t *at = f->data + ph->offset + (uint64_t)i * ph->entry_bytes;
    Elf64_Phdr p;
    if (e->is64) {
        memcpy(&p, at, sizeof p);
    } else {
        Elf32_Phdr q;
        memcpy(&q, at, sizeof q);
        p = (Elf64_Phdr){.p_type = q.p_type,
                         .p_offset = q.p_offset,
                         .p_vaddr = q.p_vaddr,
                         .p_paddr = q.p_paddr,
                         .p_filesz = q.p_filesz,
                         .p_memsz = q.p_memsz,
                         .p_align = q.p_align};
    }
    return p;
}

static int add_segment(struct boot *b, struct boot_elf *e, const Elf64_Phdr *p)
{
    if (p->p_memsz == 0)
        return 0;
    if (p->p_filesz > p->p_memsz)
        return bad(b, "a segment is larger in the file than in memory");
    if (!in_file(&b->kernel, p->p_offset, p->p_filesz))
        return bad(b, "truncated: a segment's bytes are not in the file");
    if (p->p_paddr + p->p_memsz < p->p_paddr)
        return bad(b, "a segment wraps around the address space");
    if (e->n_segs == BOOT_MAX_SEGMENTS)
        return bad(b, "too many segments");
    e->seg[e->n_segs++] = (struct boot_segment){p->p_offset, p->p_filesz, p->p_vaddr, p->p_paddr, p->p_memsz};
    if (p->p_paddr < e->lo)
        e->lo = p->p_paddr;
    if (p->p_paddr + p->p_memsz > e->hi)
        e->hi = p->p_paddr + p->p_memsz;
    return 0;
}

/* Looks for Xen's note with the 32-bit entry point; its value has 4 bytes in 32-bit kernels and 8 in 64-bit ones. */
static void scan_notes(const struct boot_file *f, struct boot_elf *e, const Elf64_Phdr *p)
{
    uint64_t align = p->p_align == 8 ? 8 : 4, left = p->p_filesz;
    if (!in_file(f, p->p_offset, p->p_filesz))
        return;
    const uint8_t *at = f->data + p->p_offset;
    while (left >= sizeof(Elf64_Nhdr)) {
        uint32_t name = le32(at), desc = le32(at + 4), type = le32(at + 8);
        uint64_t desc_at = boot_align(sizeof(Elf64_Nhdr) + (uint64_t)name, align),
                 next = boot_align(desc_at + desc, align);
        if (desc_at + desc > left)
            return;
        if (type == XEN_ELFNOTE_PHYS32_ENTRY && name == 4 && !memcmp(at + sizeof(Elf64_Nhdr), "Xen", 4) && desc >= 4) {
            e->pvh_entry = desc >= 8 ? le64(at + desc_at) : le32(at + desc_at);
            e->has_pvh = true;
            return;
        }
        if (next > left)
            return;
        at += next;
        left -= next;
    }
}

/* Most kernels give a physical entry address; some give the virtual one of a segment whose physical address differs. */
static uint64_t entry_to_physical(const struct boot_elf *e)
{
    for (unsigned i = 0; i < e->n_segs; i++)
        if (e->entry >= e->seg[i].paddr && e->entry - e->seg[i].paddr < e->seg[i].bytes)
            return e->entry;
    for (unsigned i = 0; i < e->n_segs; i++)
        if (e->entry >= e->seg[i].vaddr && e->entry - e->seg[i].vaddr < e->seg[i].bytes)
            return e->entry - e->seg[i].vaddr + e->seg[i].paddr;
    return e->entry;
}

int boot_elf_parse(struct boot *b, struct boot_elf *e)
{
    struct phdrs ph = {0};
    *e = (struct boot_elf){.lo = UINT64_MAX};
    int r = parse_header(b, e, &ph);
    for (unsigned i = 0; !r && i < ph.count; i++) {
        Elf64_Phdr p = read_phdr(&b->kernel, e, &ph, i);
        if (p.p_type == PT_LOAD)
            r = add_segment(b, e, &p);
        else if (p.p_type == PT_NOTE && !e->has_pvh)
            scan_notes(&b->kernel, e, &p);
    }
    if (r)
        return r;
    if (e->n_segs == 0)
        return bad(b, "nothing to load");
    e->entry_paddr = entry_to_physical(e);
    return 0;
}

int boot_elf_load(struct boot *b, const struct boot_elf *e, uint64_t delta)
{
    int r = 0;
    for (unsigned i = 0; !r && i < e->n_segs; i++)
        r = boot_claim(b, "a segment", e->seg[i].paddr + delta, e->seg[i].bytes);
    for (unsigned i = 0; !r && i < e->n_segs; i++) {
        const struct boot_segment *s = &e->seg[i];
        r = boot_write(b, s->paddr + delta, b->kernel.data + s->file_offset, s->file_bytes);
        if (!r)
            r = boot_zero(b, s->paddr + delta + s->file_bytes, s->bytes - s->file_bytes);
    }
    return r;
}

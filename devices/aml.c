/* devices/aml.c - see aml.h. */
#include "devices/aml.h"
#include <string.h>

#define OP_NAME 0x08
#define OP_BYTE 0x0a
#define OP_WORD 0x0b
#define OP_DWORD 0x0c
#define OP_STRING 0x0d
#define OP_QWORD 0x0e
#define OP_SCOPE 0x10
#define OP_BUFFER 0x11
#define OP_PACKAGE 0x12
#define OP_METHOD 0x14
#define OP_DUAL_NAME 0x2e
#define OP_MULTI_NAME 0x2f
#define OP_EXT 0x5b
#define OP_IF 0xa0
#define OP_ELSE 0xa1
#define EXT_REGION 0x80
#define EXT_FIELD 0x81
#define EXT_DEVICE 0x82

void aml_init(struct aml *a, void *buf, size_t cap) { *a = (struct aml){.buf = buf, .cap = cap}; }

void aml_bytes(struct aml *a, const void *p, size_t n)
{
    if (a->bad || n > a->cap - a->len) {
        a->bad = true;
        return;
    }
    memcpy(a->buf + a->len, p, n);
    a->len += n;
}

void aml_op(struct aml *a, uint8_t op) { aml_bytes(a, &op, 1); }

static void aml_le(struct aml *a, uint64_t v, unsigned n)
{
    uint8_t b[8];
    for (unsigned i = 0; i < n; i++)
        b[i] = (uint8_t)(v >> (8 * i));
    aml_bytes(a, b, n);
}

/* One NameSeg: up to four characters, padded with underscores (ACPI 20.2.2). Returns what follows it. */
static const char *name_seg(struct aml *a, const char *s)
{
    char seg[4];
    unsigned n = 0;
    while (*s && *s != '.' && n < 4)
        seg[n++] = *s++;
    if (n == 0 || (*s && *s != '.'))
        a->bad = true;
    while (n < 4)
        seg[n++] = '_';
    aml_bytes(a, seg, 4);
    return *s == '.' ? s + 1 : s;
}

void aml_ref(struct aml *a, const char *path)
{
    while (*path == '\\' || *path == '^')
        aml_op(a, (uint8_t)*path++);
    unsigned segs = 1;
    for (const char *p = path; *p; p++)
        segs += *p == '.';
    if (segs == 2) {
        aml_op(a, OP_DUAL_NAME);
    } else if (segs > 2) {
        aml_op(a, OP_MULTI_NAME);
        aml_op(a, (uint8_t)segs);
    }
    for (unsigned i = 0; i < segs && !a->bad; i++)
        path = name_seg(a, path);
}

void aml_int(struct aml *a, uint64_t v)
{
    if (v <= 1) {
        aml_op(a, (uint8_t)v);
    } else if (v <= 0xff) {
        aml_op(a, OP_BYTE);
        aml_le(a, v, 1);
    } else if (v <= 0xffff) {
        aml_op(a, OP_WORD);
        aml_le(a, v, 2);
    } else if (v <= 0xffffffff) {
        aml_op(a, OP_DWORD);
        aml_le(a, v, 4);
    } else {
        aml_op(a, OP_QWORD);
        aml_le(a, v, 8);
    }
}

void aml_string(struct aml *a, const char *s)
{
    aml_op(a, OP_STRING);
    aml_bytes(a, s, strlen(s) + 1);
}

static unsigned hex_digit(char c) { return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10); }

/* Compressed EISA id (ACPI 19.3.4): three 5-bit letters, four hex digits, stored most significant byte first. */
void aml_eisaid(struct aml *a, const char *id)
{
    if (strlen(id) != 7) {
        a->bad = true;
        return;
    }
    uint32_t v = (uint32_t)(id[0] - 0x40) << 26 | (uint32_t)(id[1] - 0x40) << 21 | (uint32_t)(id[2] - 0x40) << 16;
    for (unsigned i = 0; i < 4; i++)
        v |= hex_digit(id[3 + i]) << (12 - 4 * i);
    aml_op(a, OP_DWORD);
    aml_le(a, __builtin_bswap32(v), 4);
}

static void open_term(struct aml *a)
{
    if (a->depth == AML_MAX_DEPTH) {
        a->bad = true;
        return;
    }
    a->open_at[a->depth++] = a->len;
}

/* PkgLength (ACPI 20.2.4) counts its own bytes; it goes in front of what was written since the open. */
void aml_close(struct aml *a)
{
    if (a->bad || a->depth == 0) {
        a->bad = true;
        return;
    }
    size_t at = a->open_at[--a->depth], body = a->len - at;
    uint8_t enc[4];
    unsigned n = body + 1 < 0x40 ? 1 : body + 2 < 0x1000 ? 2 : 3;
    size_t total = body + n;
    if (n == 1) {
        enc[0] = (uint8_t)total;
    } else {
        enc[0] = (uint8_t)((n - 1) << 6 | (total & 0xf));
        for (unsigned i = 1; i < n; i++)
            enc[i] = (uint8_t)(total >> (8 * i - 4));
    }
    if (total >= 0x100000 || n > a->cap - a->len) {
        a->bad = true;
        return;
    }
    memmove(a->buf + at + n, a->buf + at, body);
    memcpy(a->buf + at, enc, n);
    a->len += n;
}

void aml_buffer(struct aml *a, const void *p, size_t n)
{
    aml_op(a, OP_BUFFER);
    open_term(a);
    aml_int(a, n);
    aml_bytes(a, p, n);
    aml_close(a);
}

void aml_open_scope(struct aml *a, const char *path)
{
    aml_op(a, OP_SCOPE);
    open_term(a);
    aml_ref(a, path);
}

void aml_open_device(struct aml *a, const char *name)
{
    aml_op(a, OP_EXT);
    aml_op(a, EXT_DEVICE);
    open_term(a);
    aml_ref(a, name);
}

void aml_open_method(struct aml *a, const char *name, unsigned args, bool serialized)
{
    aml_op(a, OP_METHOD);
    open_term(a);
    aml_ref(a, name);
    aml_op(a, (uint8_t)((args & 7) | (serialized ? 8 : 0)));
}

void aml_open_package(struct aml *a, unsigned elements)
{
    if (elements > 255)
        a->bad = true;
    aml_op(a, OP_PACKAGE);
    open_term(a);
    aml_op(a, (uint8_t)elements);
}

void aml_open_if(struct aml *a)
{
    aml_op(a, OP_IF);
    open_term(a);
}

void aml_open_else(struct aml *a)
{
    aml_op(a, OP_ELSE);
    open_term(a);
}

void aml_name(struct aml *a, const char *name)
{
    aml_op(a, OP_NAME);
    aml_ref(a, name);
}

void aml_name_int(struct aml *a, const char *name, uint64_t v)
{
    aml_name(a, name);
    aml_int(a, v);
}

void aml_name_eisaid(struct aml *a, const char *name, const char *id)
{
    aml_name(a, name);
    aml_eisaid(a, id);
}

void aml_region(struct aml *a, const char *name, enum aml_space space, uint64_t offset, uint64_t bytes)
{
    aml_op(a, OP_EXT);
    aml_op(a, EXT_REGION);
    aml_ref(a, name);
    aml_op(a, (uint8_t)space);
    aml_int(a, offset);
    aml_int(a, bytes);
}

void aml_byte_fields(struct aml *a, const char *region, const char *const *names, unsigned n)
{
    aml_op(a, OP_EXT);
    aml_op(a, EXT_FIELD);
    open_term(a);
    aml_ref(a, region);
    aml_op(a, 0x01); /* ByteAcc, NoLock, Preserve */
    for (unsigned i = 0; i < n; i++) {
        name_seg(a, names[i]);
        aml_op(a, 8); /* width in bits, in PkgLength encoding */
    }
    aml_close(a);
}

static void res_put(struct aml_res *r, const void *p, size_t n)
{
    if (n > sizeof(r->b) - 2 - r->len) {
        r->bad = true;
        return;
    }
    memcpy(r->b + r->len, p, n);
    r->len += n;
}

void aml_res_io(struct aml_res *r, uint16_t base, uint8_t bytes)
{
    uint8_t d[8] = {
        0x47, 0x01 /* decodes 16 bits */, (uint8_t)base, (uint8_t)(base >> 8), (uint8_t)base, (uint8_t)(base >> 8), 1,
        bytes};
    res_put(r, d, sizeof(d));
}

void aml_res_irq(struct aml_res *r, uint16_t mask, bool level_low_shared)
{
    uint8_t d[4] = {0x23, (uint8_t)mask, (uint8_t)(mask >> 8), level_low_shared ? 0x18 : 0x01};
    res_put(r, d, sizeof(d));
}

void aml_res_fixed_mem32(struct aml_res *r, uint32_t base, uint32_t bytes, bool writable)
{
    uint8_t d[12] = {0x86, 9, 0, writable};
    memcpy(d + 4, &base, 4);
    memcpy(d + 8, &bytes, 4);
    res_put(r, d, sizeof(d));
}

void aml_res_window(struct aml_res *r, enum aml_range type, unsigned bits, uint64_t first, uint64_t last)
{
    unsigned w = bits / 8;
    uint8_t d[6 + 5 * 8] = {bits == 16 ? 0x88 : bits == 32 ? 0x87 : 0x8a};
    uint64_t f[5] = {0 /* granularity */, first, last, 0 /* translation */, last - first + 1};
    d[1] = (uint8_t)(3 + 5 * w);
    d[3] = (uint8_t)type;
    d[4] = 0x0c;                         /* MinFixed, MaxFixed, positive decode, producer */
    d[5] = type == AML_RANGE_MEM  ? 0x01 /* read/write, non-cacheable */
           : type == AML_RANGE_IO ? 0x03 /* whole range */
                                  : 0;
    for (unsigned i = 0; i < 5; i++)
        memcpy(d + 6 + i * w, &f[i], w);
    res_put(r, d, 6 + 5 * w);
}

void aml_name_res(struct aml *a, const char *name, struct aml_res *r)
{
    static const uint8_t end_tag[2] = {0x79, 0x00}; /* checksum 0 = not checked (ACPI 6.4.2.9) */
    a->bad |= r->bad;
    memcpy(r->b + r->len, end_tag, 2);
    aml_name(a, name);
    aml_buffer(a, r->b, r->len + 2);
}

/* devices/aml.h - writes ACPI Machine Language: the few opcodes a PC's DSDT needs.
 *
 * Role:     append-only encoder into a caller-owned buffer. Terms with a PkgLength are opened and closed like brackets; the
 *           length is inserted at the close. Names are given as in ASL ("\\_SB.PCI0", "_HID") and padded here.
 * Errors:   sticky: running out of room or a bad name sets .bad, later calls do nothing; check once at the end.
 * Sources:  ACPI 6.4, section 20 (AML grammar), 6.4 (resource descriptors).
 */
#ifndef DEVICES_AML_H
#define DEVICES_AML_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AML_MAX_DEPTH 12
struct aml {
    uint8_t *buf;
    size_t len, cap;
    unsigned depth;
    size_t open_at[AML_MAX_DEPTH]; /* where the PkgLength of each open term belongs */
    bool bad;
};
/* One-byte operators that are simply followed by their operands. */
enum {
    AML_ZERO = 0x00,
    AML_ONE = 0x01,
    AML_LOCAL0 = 0x60,
    AML_ARG0 = 0x68,
    AML_STORE = 0x70,
    AML_DECREMENT = 0x76,
    AML_SHIFT_LEFT = 0x79, /* value, count, target */
    AML_AND = 0x7b,        /* a, b, target */
    AML_OR = 0x7d,
    AML_FIND_RIGHT = 0x82, /* value, target */
    AML_CREATE_WORD_FIELD = 0x8b,
    AML_RETURN = 0xa4,
};
enum aml_space { AML_SYSTEM_IO = 1, AML_PCI_CONFIG = 2 };

void aml_init(struct aml *a, void *buf, size_t cap);
void aml_op(struct aml *a, uint8_t op);
void aml_bytes(struct aml *a, const void *p, size_t n);
void aml_ref(struct aml *a, const char *path); /* a NameString, as operand or target */
void aml_int(struct aml *a, uint64_t v);       /* shortest constant */
void aml_string(struct aml *a, const char *s);
void aml_eisaid(struct aml *a, const char *id); /* "PNP0A03" */
void aml_buffer(struct aml *a, const void *p, size_t n);

void aml_open_scope(struct aml *a, const char *path);
void aml_open_device(struct aml *a, const char *name);
void aml_open_method(struct aml *a, const char *name, unsigned args, bool serialized);
void aml_open_package(struct aml *a, unsigned elements);
void aml_open_if(struct aml *a); /* the predicate follows */
void aml_open_else(struct aml *a);
void aml_close(struct aml *a);

/* Name(name, ...): the object follows. */
void aml_name(struct aml *a, const char *name);
void aml_name_int(struct aml *a, const char *name, uint64_t v);
void aml_name_eisaid(struct aml *a, const char *name, const char *id);
void aml_region(struct aml *a, const char *name, enum aml_space space, uint64_t offset, uint64_t bytes);
/* Field(region, ByteAcc, NoLock, Preserve) of n consecutive bytes, names as 4-character strings. */
void aml_byte_fields(struct aml *a, const char *region, const char *const *names, unsigned n);

/* Resource templates. The buffer holds descriptors; aml_name_crs ends it with the end tag and names it. */
struct aml_res {
    uint8_t b[512];
    size_t len;
    bool bad;
};
void aml_res_io(struct aml_res *r, uint16_t base, uint8_t bytes);
void aml_res_irq(struct aml_res *r, uint16_t mask, bool level_low_shared);
void aml_res_fixed_mem32(struct aml_res *r, uint32_t base, uint32_t bytes, bool writable);
enum aml_range { AML_RANGE_MEM = 0, AML_RANGE_IO = 1, AML_RANGE_BUS = 2 };
/* Address-space descriptor of a bridge window (producer, fixed, positive decode), inclusive bounds; size by bits 16/32/64. */
void aml_res_window(struct aml_res *r, enum aml_range type, unsigned bits, uint64_t first, uint64_t last);
void aml_name_res(struct aml *a, const char *name, struct aml_res *r);
#endif

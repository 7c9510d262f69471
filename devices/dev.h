/* devices/dev.h - the shape of a device, and the portable format of its saved state.
 *
 * Role:     a device is a plain instance struct (no file-level state: several machines per process) with three functions, kept
 *           in a struct dev_ops: reset, save, restore. Its registers are reached through a struct bus_ops (bus.h), its outputs
 *           are struct irq_line (irq.h), its time is vtime.h. Addresses and IRQ numbers belong to the board, not to the chip.
 * Owner:    the board embeds or allocates instances; foo_init(struct foo *, wiring...) makes one usable and in reset state.
 *           Put everything that is saved into one nested struct (foo.s), so that restore can fill a copy, check it, and
 *           assign: a rejected image leaves the device as it was.
 * Threads:  the machine thread only. No locks.
 * Format:   little-endian integers in the order of the field list; bool is one byte 0/1. Nothing host-specific: virtual
 *           times are saved as they are (the clock is restored before the devices). A section is
 *           name (u8 length + bytes), instance u32, version u16, body length u32, body.
 * Hostile:  an image may be forged. restore() checks every index, count and enum and returns -RD_E_FORMAT; it never drives
 *           an interrupt line (each end of a line restores its own level) and re-arms its timers from restored state.
 */
#ifndef DEVICES_DEV_H
#define DEVICES_DEV_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dev_writer { /* growing buffer; after a failed allocation the rest is dropped and failed stays set */
    uint8_t *buf;
    size_t len, cap;
    bool failed;
};
struct dev_reader { /* reads past the end give 0 and set failed */
    const uint8_t *buf;
    size_t len, pos;
    bool failed;
};

struct dev_ops {
    const char *type;         /* "pit"; section name of the saved state */
    uint16_t version;         /* of the body; restore is given the image's version, which is never newer than this */
    void (*reset)(void *dev); /* as RESET# does; lines driven to their reset level */
    void (*save)(const void *dev, struct dev_writer *w);
    int (*restore)(void *dev, struct dev_reader *r, uint16_t version); /* 0 or -RD_E_FORMAT */
};
/* One row of the board's device list. */
struct dev {
    const struct dev_ops *ops;
    void *state;
    uint32_t instance;
};

void dev_put(struct dev_writer *w, uint64_t val, unsigned bytes); /* 1, 2, 4, 8 */
void dev_put_bytes(struct dev_writer *w, const void *p, size_t n);
void dev_writer_free(struct dev_writer *w);
uint64_t dev_get(struct dev_reader *r, unsigned bytes);
void dev_get_bytes(struct dev_reader *r, void *p, size_t n);

/* A list of integer, bool or enum members of one struct. Arrays are saved element by element. */
struct dev_field {
    uint32_t offset, count;
    uint8_t size; /* of one element */
    bool is_bool;
};
#define DEV_FIELD(type, member)                                                                                        \
    {                                                                                                                  \
        offsetof(type, member), 1, sizeof(((type *)0)->member),                                                        \
            _Generic(((type *)0)->member, bool                                                                         \
                     : true, default                                                                                   \
                     : false)                                                                                          \
    }
#define DEV_ARRAY(type, member)                                                                                        \
    {                                                                                                                  \
        offsetof(type, member), sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0]),                          \
            sizeof(((type *)0)->member[0]),                                                                            \
            _Generic(((type *)0)->member[0], bool                                                                      \
                     : true, default                                                                                   \
                     : false)                                                                                          \
    }
#define DEV_COUNT(a) (sizeof(a) / sizeof((a)[0]))
void dev_put_fields(struct dev_writer *w, const void *base, const struct dev_field *f, size_t n);
void dev_get_fields(struct dev_reader *r, void *base, const struct dev_field *f, size_t n);

/* Whole section of one device. Restore wants the next section to be this device's, of a known version, read to its exact
 * end: 0, -RD_E_FORMAT, -RD_E_UNSUPPORTED (newer version). Save: 0 or -RD_E_NOMEM. */
int dev_save(struct dev_writer *w, const struct dev *d);
int dev_restore(struct dev_reader *r, const struct dev *d);
#endif

/* devices/gmem.h - guest memory as DMA sees it: two functions that the board supplies.
 *
 * Role:     both copy the whole range or nothing: 0, or -RD_E_RANGE when any byte is not RAM. Writes honour traced pages
 *           (gpmem_write does). Host is x86, so multi-byte fields are in guest order as they are.
 */
#ifndef DEVICES_GMEM_H
#define DEVICES_GMEM_H
#include <stddef.h>
#include <stdint.h>

struct gmem {
    int (*read)(void *opaque, uint64_t gpa, void *buf, size_t bytes);
    int (*write)(void *opaque, uint64_t gpa, const void *buf, size_t bytes);
    void *opaque;
};
static inline int gmem_read(const struct gmem *m, uint64_t gpa, void *buf, size_t bytes)
{
    return m->read(m->opaque, gpa, buf, bytes);
}
static inline int gmem_write(const struct gmem *m, uint64_t gpa, const void *buf, size_t bytes)
{
    return m->write(m->opaque, gpa, buf, bytes);
}
#endif

/* shadowmmu/gpmem_nofpu.c - look-ups in guest physical memory that may run while guest FPU state is live. */
#include "shadowmmu/gpmem_int.h"

const struct gpmem_slot *gpmem_find(const struct gpmem *m, uint64_t gpa)
{
    for (unsigned i = 0; i < m->n_slots; i++) {
        const struct gpmem_slot *s = &m->slots[i];
        /* One unsigned comparison covers both ends: below the slot the difference is huge. */
        if (gpa - s->gpa < s->bytes)
            return s;
    }
    return NULL;
}

uint8_t *gpmem_ptr(const struct gpmem *m, uint64_t gpa)
{
    const struct gpmem_slot *s = gpmem_find(m, gpa);
    return s ? s->host + (gpa - s->gpa) : NULL;
}

uint8_t *gpmem_page_flags(const struct gpmem *m, uint64_t gpa)
{
    const struct gpmem_slot *s = gpmem_find(m, gpa);
    return s ? s->flags + ((gpa - s->gpa) >> 12) : NULL;
}

void gpmem_trace(const struct gpmem *m, uint64_t gpa, size_t bytes, uint8_t mask)
{
    const uint8_t *flags = gpmem_page_flags(m, gpa);
    if (flags && (*flags & mask) && m->trace_hook)
        m->trace_hook(m->trace_opaque, gpa, bytes);
}

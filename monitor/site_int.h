/* monitor/site_int.h - private to site.c, bounce.c and sitemask.c: a memory site in C. nofpu. */
#ifndef MONITOR_SITE_INT_H
#define MONITOR_SITE_INT_H
#include "monitor/vm_int.h"

/* Where glue has put register r. */
static inline uint64_t *site_reg(struct vcpu *v, unsigned r, uint64_t desc)
{
    return r < 8 || (desc & XL_SITE_64) ? &v->c.gpr[r] : &v->c.hscratch[r - 8];
}
static inline unsigned site_how(uint64_t desc)
{
    static const uint8_t how[] = {MEM_R, MEM_W, MEM_RW, MEM_R};
    return how[XL_SITE_HOW(desc)] | (desc & XL_SITE_UNALIGNED ? MEM_UNALIGNED : 0);
}
/* Linear address of size bytes of the access, with every segment check. */
int site_linear(struct vcpu *v, uint64_t desc, uint64_t addr, unsigned size, uint64_t *lin);
/* A misaligned operand that must be aligned: #GP(0) before anything else is looked at, also before #SS. */
int site_align(struct vcpu *v, uint64_t desc, uint64_t addr, unsigned size);
/* Back to the state at the return address ret_pc, on the way out with code. */
int site_leave(struct vcpu *v, uint64_t ret_pc, int code);
/* The x87 status word, wherever it is. */
uint16_t site_fsw(struct vcpu *v);
/* The bytes that the mask of a masked operand (XL_MASK_*) leaves. May leave the FPU. */
uint64_t site_mask_bytes(struct vcpu *v, uint32_t mask);
#endif

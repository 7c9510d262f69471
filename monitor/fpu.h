/* monitor/fpu.h - the guest's x87/SSE/AVX state while C runs: its image and who may look into it.
 *
 * Role:    v->xsave is an XSAVE image in standard format with 64-bit instruction pointers, of the components v->fpu_mask. It is
 *          current only after fpu_leave and fpu_bring (vcpu.h); what is declared here does the latter itself. A component whose
 *          XSTATE_BV bit is clear is in its initial state and its bytes mean nothing: fpu_image_own first.
 * Owner:   fpu_create by whoever creates the vCPU, before its first run; fpu_destroy.
 */
#ifndef MONITOR_FPU_H
#define MONITOR_FPU_H
#include "monitor/engine.h"
#include "monitor/vcpu.h"
#include <stddef.h>
#include <stdint.h>

#define FPU_FCW 0
#define FPU_FSW 2
#define FPU_FTW 4
#define FPU_FIP 8
#define FPU_FDP 16
#define FPU_MXCSR 24
#define FPU_ST 32   /* ST0..ST7, 16 bytes each */
#define FPU_XMM 160 /* XMM0..15 */
#define FPU_BV 512  /* XSTATE_BV */
#define FPU_XCOMP 520
#define FPU_AREA 576 /* legacy region and header; extended components follow */
#define FPU_BYTES 4096

/* Allocates the image and sets v->fpu_mask: the components that both the CPU model may offer and the host has. -RD_E_NOMEM. */
int fpu_create(struct vcpu *v);
void fpu_destroy(struct vcpu *v);
/* State after RESET, or after INIT (which changes nothing but is asked for anyway: SDM 3A table 9-1). Calls fpu_leave. */
void fpu_reset(struct vcpu *v);
/* Makes components (XCR0 bits) explicit: writes initial values where XSTATE_BV says so, sets the bits. After fpu_leave. nofpu. */
void fpu_image_own(struct vcpu *v, uint64_t components);
/* The image's x87 pointers become the guest's where they are the host's: those of copied instructions. Calls fpu_leave. nofpu. */
void fpu_own_pointers(struct vcpu *v);
/* Pointer to register n's bytes in the image: low 16 of XMM, 16..31 of YMM (n < 16), 32..63 of ZMM (n < 16), all of ZMM16..31,
 * opmask n. NULL if this CPU has no such thing. */
enum fpu_part { FPU_PART_XMM, FPU_PART_YMM, FPU_PART_ZMM, FPU_PART_ZMM_HIGH, FPU_PART_K };
uint8_t *fpu_image_part(struct vcpu *v, enum fpu_part part, unsigned n);
/* The state as others may store it: standard format for the CPU model's XCR0, every component explicit. Returns its size;
 * fills buf if bytes is enough. Calls fpu_leave. */
size_t fpu_image_get(struct vcpu *v, void *buf, size_t bytes);
/* Puts such a state back after checking it as XRSTOR would. 0 or -RD_E_FORMAT, nothing changed. */
int fpu_image_set(struct vcpu *v, const void *buf, size_t bytes);
/* Before one of the callbacks that vm_ops.nofpu is about. */
static inline void fpu_leave_for_ops(struct vcpu *v)
{
    if (!v->ops || !v->ops->nofpu)
        fpu_leave(v);
}
/* The same on the account of time: what ops_begin returns goes to ops_end. */
static inline uint32_t ops_begin(struct vcpu *v)
{
    fpu_leave_for_ops(v);
    return acct_enter(&v->stats->acct, ACCT_device);
}
static inline void ops_end(struct vcpu *v, uint32_t before) { acct_enter(&v->stats->acct, before); }
#endif

/* devices/fpu_hook.h - chips that are called while the guest's x87 and vector registers are live.
 *
 * Role:     code built nofpu (devices/CMakeLists.txt) may be reached with the guest's FPU state in the host's registers; it calls
 *           fpu_hook_leave before it calls anything else: the clock, timers, guest memory, the C library. Idempotent and cheap.
 *           A hook of zeros is for boards without a CPU (tests).
 */
#ifndef DEVICES_FPU_HOOK_H
#define DEVICES_FPU_HOOK_H
struct fpu_hook {
    void (*leave)(void *opaque);
    void *opaque;
};
static inline void fpu_hook_leave(const struct fpu_hook *h)
{
    if (h->leave)
        h->leave(h->opaque);
}
#endif

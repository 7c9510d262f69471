/* tests/diff/native_ctl.h - what the parent and the child of the native backend share.
 *
 * Role:   the child owns no libc, stack, vdso or heap: only this block, a copy of the section stub_text, an alternate signal
 *         stack, and the pages of the case. A wild access of a case therefore finds nothing but a fault.
 * Layout: all of it sits in [STUB_BASE, STUB_END), far from every address that a case is likely to form.
 */
#ifndef TESTS_DIFF_NATIVE_CTL_H
#define TESTS_DIFF_NATIVE_CTL_H
#include "tests/diff/dcase.h"

#define STUB_BASE 0x700000000000ull
#define STUB_TEXT STUB_BASE
#define STUB_TEXT_BYTES 0x10000u
#define STUB_STACK (STUB_BASE + 0x100000)
#define STUB_STACK_BYTES 0x40000u
#define STUB_ALIAS (STUB_BASE + 0x200000) /* the backing object, writable */
#define STUB_CTL (STUB_BASE + 0x400000)
#define STUB_END (STUB_BASE + 0x10000000)

struct nat_ctl {
    /* futex words: the parent counts go up, the child answers with done */
    uint32_t go, done;
    uint32_t n;
    int32_t current;      /* case being run, -1 = none yet; the parent's watchdog looks at it */
    uint32_t setup_error; /* step of stub_main that failed, 0 = none */
    uint32_t has_fsgsbase;
    uint32_t fpu_bytes; /* of the kernel's frame that are compared */
    uint32_t data_mask; /* data pages that exist */
    int32_t backing_fd;
    struct dt_map maps[2 * DT_DATA_PAGES + 8];
    uint64_t ldt_arg[DT_LDT_COUNT][2]; /* struct user_desc, see native.c */
    uint8_t golden[DT_DATA_BYTES];
    struct dt_case cases[DT_BATCH];
    struct dt_result results[DT_BATCH];
};
/* Start of the child after fork; runs from the copy at STUB_TEXT. Never returns. */
void stub_main(void);
#endif

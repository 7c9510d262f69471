/* tests/user/guest/ut.h - what the tests of user programs share: register names, FPU images, code made at run time. */
#ifndef UT_H
#define UT_H
#include "../../boot/guest/bt.h"
#include <ucontext.h>

#ifdef __x86_64__
#define UT_IP REG_RIP
#define UT_SP REG_RSP
#define UT_AX REG_RAX
#define UT_BX REG_RBX
#define UT_CX REG_RCX
#define UT_DX REG_RDX
#else
#define UT_IP REG_EIP
#define UT_SP REG_ESP
#define UT_AX REG_EAX
#define UT_BX REG_EBX
#define UT_CX REG_ECX
#define UT_DX REG_EDX
#endif
enum { UT_PAGE = 4096 };

/* XCR0 components that these tests know: x87, SSE, AVX, AVX-512. 0 without XSAVE. */
uint64_t ut_xfeatures(void);
/* Fills an XSAVE image (standard format, 64-byte aligned, UT_XSAVE_BYTES) with a pattern for all of ut_xfeatures. */
enum { UT_XSAVE_BYTES = 4096 };
void ut_fill_image(void *image, uint32_t seed);
/* Compares the components of ut_xfeatures; -1 if equal, else the first offset that differs. */
int ut_image_differs(const void *a, const void *b);
/* Finds the offset of a component in the image. */
unsigned ut_component(unsigned n, unsigned *bytes);

void *ut_anon(size_t bytes, int prot);
/* Installs a SA_SIGINFO handler with these flags. */
void ut_handle(int sig, void (*f)(int, siginfo_t *, void *), int flags);

/* AC stays set in a handler: C code must not run with it. */
static inline void ut_clear_ac(void)
{
#ifdef __x86_64__
    __asm__ volatile("pushf; andl $~0x40000, (%%rsp); popf" ::: "memory", "cc");
#else
    __asm__ volatile("pushf; andl $~0x40000, (%%esp); popf" ::: "memory", "cc");
#endif
}

#endif

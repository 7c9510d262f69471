/* tests/user/guest/u_state.c - FPU images: see ut.h. */
#include "ut.h"
#include <cpuid.h>

uint64_t ut_xfeatures(void)
{
    unsigned a, b, c, d;
    uint32_t lo, hi;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo & 0xe7;
}

unsigned ut_component(unsigned n, unsigned *bytes)
{
    unsigned a, b, c, d;
    __cpuid_count(0xd, n, a, b, c, d);
    if (bytes)
        *bytes = a;
    return b;
}

void ut_fill_image(void *image, uint32_t seed)
{
    uint8_t *p = image;
    uint64_t features = ut_xfeatures();
    memset(p, 0, UT_XSAVE_BYTES);
    *(uint16_t *)p = 0x027f;                           /* FCW: double precision */
    *(uint16_t *)(p + 2) = 0x3800;                     /* FSW: TOP = 7 */
    p[4] = 0xff;                                       /* FTW, abridged: all in use */
    *(uint32_t *)(p + 24) = 0x1f80 | (seed & 3) << 13; /* MXCSR: a rounding mode */
    uint32_t s = seed * 2654435761u + 1;
    for (unsigned i = 0; i < 8; i++) {
        uint8_t *st = p + 32 + 16 * i;
        for (unsigned j = 0; j < 8; j++)
            st[j] = (uint8_t)bt_random(&s);
        st[7] |= 0x80; /* a normal number */
        st[8] = (uint8_t)bt_random(&s);
        st[9] = 0x3f;
    }
    for (unsigned i = 160; i < 160 + 16 * (sizeof(long) == 8 ? 16 : 8); i++)
        p[i] = (uint8_t)bt_random(&s);
    *(uint64_t *)(p + 512) = features;
    for (unsigned n = 2; n < 8; n++)
        if (features >> n & 1) {
            unsigned bytes, at = ut_component(n, &bytes);
            REQUIRE(at >= 576 && at + bytes <= UT_XSAVE_BYTES);
            if (sizeof(long) == 4)
                bytes = n == 7 ? 0 : n == 2 ? 128 : n == 6 ? 256 : bytes;
            for (unsigned i = 0; i < bytes; i++)
                p[at + i] = (uint8_t)bt_random(&s);
        }
}

int ut_image_differs(const void *a, const void *b)
{
    const uint8_t *x = a, *y = b;
    uint64_t features = ut_xfeatures();
    /* Not: instruction and operand pointers (8 to 23), what XSAVE leaves alone (28 to 31, 416 to 575). */
    for (unsigned i = 0; i < 416; i++)
        if (x[i] != y[i] && !(i >= 6 && i < 24) && !(i >= 28 && i < 32))
            return (int)i;
    for (unsigned n = 2; n < 8; n++)
        if (features >> n & 1) {
            unsigned bytes, at = ut_component(n, &bytes);
            for (unsigned i = at; i < at + bytes; i++)
                if (x[i] != y[i])
                    return (int)i;
        }
    return -1;
}

void *ut_anon(size_t bytes, int prot)
{
    void *p = mmap(NULL, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(p != MAP_FAILED);
    return p;
}

void ut_handle(int sig, void (*f)(int, siginfo_t *, void *), int flags)
{
    struct sigaction sa = {.sa_sigaction = f, .sa_flags = SA_SIGINFO | flags};
    REQUIRE(sigaction(sig, &sa, NULL) == 0);
}

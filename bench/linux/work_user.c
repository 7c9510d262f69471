/* bench/linux/work_user.c - computing in user mode. */
#include "work.h"
#include <stdlib.h>
#include <string.h>

static volatile uint64_t sink;

static int compare_ints(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}
enum { NUMBERS = 4000 };
static int numbers[NUMBERS];
static void qsort_ints(uint64_t n)
{
    while (n--) {
        uint32_t x = 12345;
        for (int i = 0; i < NUMBERS; i++)
            numbers[i] = (int)(x = x * 1664525u + 1013904223u);
        qsort(numbers, NUMBERS, sizeof numbers[0], compare_ints);
    }
}
static uint64_t qsort_check(void)
{
    qsort_ints(1);
    uint64_t h = 0;
    for (int i = 0; i < NUMBERS; i++)
        h = h * 31 + (uint32_t)numbers[i];
    return h;
}

static double float_sum(uint64_t n)
{
    double s = 1.0;
    while (n--)
        for (int i = 1; i <= 1000; i++)
            s = s * 0.999999 + 1.0 / (i + s);
    return s;
}
static void floating(uint64_t n) { sink += (uint64_t)float_sum(n); }
static uint64_t float_check(void) { return (uint64_t)(float_sum(3) * 1e6); }

/* The same sums with vectors of 16 and of 32 bytes. The results are exact: small integers. */
enum { VECTOR_WORDS = 4096 };
typedef float float4 __attribute__((vector_size(16)));
typedef float float8 __attribute__((vector_size(32)));
static float left[VECTOR_WORDS] __attribute__((aligned(64))), right[VECTOR_WORDS] __attribute__((aligned(64)));
static void vector_open(void)
{
    for (int i = 0; i < VECTOR_WORDS; i++) {
        left[i] = (float)(i % 7);
        right[i] = (float)(i % 5);
    }
}
#define VECTOR_SUM(name, type, lanes, ...)                                                                             \
    __VA_ARGS__ static float name(uint64_t n)                                                                          \
    {                                                                                                                  \
        float total = 0;                                                                                               \
        while (n--) {                                                                                                  \
            type sum = {0}, other = {0};                                                                               \
            for (int i = 0; i < VECTOR_WORDS; i += 2 * lanes) {                                                        \
                sum += *(const type *)(left + i) * *(const type *)(right + i);                                         \
                other += *(const type *)(left + i + lanes) * *(const type *)(right + i + lanes);                       \
            }                                                                                                          \
            sum += other;                                                                                              \
            total = 0;                                                                                                 \
            for (int i = 0; i < lanes; i++)                                                                            \
                total += sum[i];                                                                                       \
        }                                                                                                              \
        return total;                                                                                                  \
    }
VECTOR_SUM(sse_sum, float4, 4)
VECTOR_SUM(avx_sum, float8, 8, __attribute__((target("avx2,fma"))))
static void sse(uint64_t n) { sink += (uint64_t)sse_sum(n); }
static void avx(uint64_t n) { sink += (uint64_t)avx_sum(n); }
static uint64_t sse_check(void) { return (uint64_t)sse_sum(1); }
static uint64_t avx_check(void) { return (uint64_t)avx_sum(1); }

static void primes(uint64_t n)
{
    for (uint64_t k = 0; k < n; k++) {
        int a = 10007 + (int)(k & 1), prime = 1;
        for (int i = 2; i < a; i++)
            if (a % i == 0) {
                prime = 0;
                break;
            }
        sink += (uint64_t)prime;
    }
}

static uint64_t __attribute__((noinline, noclone, optimize("no-inline", "no-optimize-sibling-calls"))) fib(unsigned k)
{
    return k < 2 ? k : fib(k - 1) + fib(k - 2);
}
static void calls(uint64_t n)
{
    while (n--)
        sink += fib(15);
}

/* SHA-256 as in FIPS 180-4, without tricks. One operation = one block of 64 bytes. */
static uint32_t k256[64];
static uint32_t sha_state[8];
static uint32_t ror(uint32_t x, unsigned n) { return x >> n | x << (32 - n); }
static void sha_open(void)
{
    /* The constants are fractions of cube roots; the benchmark only needs fixed ones. */
    uint32_t x = 0x428a2f98;
    for (int i = 0; i < 64; i++)
        k256[i] = x = x * 1664525u + 1013904223u;
    for (int i = 0; i < 8; i++)
        sha_state[i] = k256[i] ^ 0x6a09e667;
}
static void sha_block(const uint8_t *p)
{
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + w[i - 7] + (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) +
               (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(s, sha_state, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t t1 =
            s[7] + (ror(s[4], 6) ^ ror(s[4], 11) ^ ror(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) + k256[i] + w[i];
        uint32_t t2 = (ror(s[0], 2) ^ ror(s[0], 13) ^ ror(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof s[0]);
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        sha_state[i] += s[i];
}
static void sha(uint64_t n)
{
    static uint8_t block[64];
    while (n--) {
        block[n & 63]++;
        sha_block(block);
    }
}
static uint64_t sha_check(void)
{
    sha(100);
    return (uint64_t)sha_state[0] << 32 | sha_state[7];
}

/* An LZ77 match finder over 32 KiB of text-like bytes: byte loads, hashing, unpredictable branches. */
enum { TEXT = 32768 };
static uint8_t text[TEXT + 8];
static uint16_t heads[4096];
static void compress_open(void)
{
    static const char *const words[] = {"the ",    "guest ", "host ",        "page ", "fault ",
                                        "window ", "and ",   "translation ", "is ",   "of "};
    uint32_t x = 7;
    for (size_t at = 0; at < TEXT;) {
        x = x * 1664525u + 1013904223u;
        const char *w = words[(x >> 16) % 10];
        size_t n = strlen(w);
        memcpy(text + at, w, at + n < TEXT ? n : TEXT - at);
        at += n;
    }
}
static uint64_t compress_once(void)
{
    uint64_t out = 0;
    memset(heads, 0, sizeof heads);
    for (uint32_t at = 1; at < TEXT;) {
        uint32_t v = text[at] | (uint32_t)text[at + 1] << 8 | (uint32_t)text[at + 2] << 16, h = v * 2654435761u >> 20;
        uint32_t from = heads[h], n = 0;
        heads[h] = (uint16_t)at;
        if (from)
            while (n < 255 && at + n < TEXT && text[from + n] == text[at + n])
                n++;
        out = out * 31 + (n > 3 ? (uint64_t)n << 16 | from : text[at]);
        at += n > 3 ? n : 1;
    }
    return out;
}
static void compressing(uint64_t n)
{
    while (n--)
        sink += compress_once();
}

/* What malloc-heavy programs do: many small allocations in mixed order, a linked structure. */
static void mallocs(uint64_t n)
{
    static void *slot[256];
    uint32_t x = 99;
    while (n--) {
        x = x * 1664525u + 1013904223u;
        unsigned k = x >> 24;
        free(slot[k]);
        slot[k] = malloc(16 + (x >> 12 & 511));
        if (slot[k])
            *(uint32_t *)slot[k] = x;
    }
}

const struct work user_works[] = {
    {"qsort-4000", qsort_ints, NULL, NULL, qsort_check},
    {"float-1000", floating, NULL, NULL, float_check},
    {"sse", sse, vector_open, NULL, sse_check},
    {"prime-10007", primes, NULL, NULL, NULL},
    {"fib-15", calls, NULL, NULL, NULL},
    {"sha256-block", sha, sha_open, NULL, sha_check},
    {"compress-32k", compressing, compress_open, NULL, compress_once},
    {"malloc", mallocs, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
const struct work avx_works[] = {
    {"avx", avx, vector_open, NULL, avx_check},
    {NULL, NULL, NULL, NULL, NULL},
};

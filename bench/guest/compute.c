/* bench/guest/compute.c - see compute.h. No function pointer may stand in static data here: the guest runs this code at
 * another address than it was linked for, so addresses must be taken by instructions. */
#include "compute.h"
#include <stdbool.h>
#include <stddef.h>

#define NOINLINE __attribute__((noinline, noclone))

static uint8_t *area;
static int32_t *numbers;
static uint32_t crc_table[256];

uint64_t compute_init(uint64_t where)
{
    area = (uint8_t *)where;
    numbers = (int32_t *)where;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
        crc_table[i] = c;
    }
    return 0;
}

/* The example of the issue and of the literature; 10007 is prime. */
static NOINLINE int is_prime(int a)
{
    for (int i = 2; i < a; i++)
        if (a % i == 0)
            return 0;
    return 1;
}
static uint64_t run_isprime(uint64_t n)
{
    uint64_t primes = 0;
    volatile int number = 10007;
    for (uint64_t i = 0; i < n; i++)
        primes += (uint64_t)is_prime(number);
    return primes;
}

static uint64_t run_xorshift(uint64_t n)
{
    uint64_t x = 88172645463325252u;
    while (n--) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return x;
}

static void fill_numbers(uint64_t n)
{
    uint32_t x = 12345;
    for (uint64_t i = 0; i < n; i++)
        numbers[i] = (int32_t)(x = x * 1664525u + 1013904223u);
}
static NOINLINE void insertion_sort(int32_t *lo, int32_t *hi)
{
    for (int32_t *p = lo + 1; p <= hi; p++) {
        int32_t v = *p, *q = p;
        for (; q > lo && q[-1] > v; q--)
            *q = q[-1];
        *q = v;
    }
}
static NOINLINE void quick_sort(int32_t *lo, int32_t *hi)
{
    while (hi - lo > 12) {
        int32_t pivot = lo[(hi - lo) / 2], *i = lo, *j = hi;
        while (i <= j) {
            while (*i < pivot)
                i++;
            while (*j > pivot)
                j--;
            if (i <= j) {
                int32_t t = *i;
                *i++ = *j;
                *j-- = t;
            }
        }
        quick_sort(lo, j);
        lo = i;
    }
    insertion_sort(lo, hi);
}
static uint64_t run_sort(uint64_t n)
{
    quick_sort(numbers, numbers + n - 1);
    uint64_t sum = 0;
    for (uint64_t i = 0; i < n; i += 4099)
        sum = sum * 31 + (uint32_t)numbers[i];
    return sum;
}

static uint64_t run_float(uint64_t n)
{
    double s = 1.0;
    for (uint64_t i = 1; i <= n; i++)
        s = s * 0.999999 + 1.0 / ((double)i + s);
    return (uint64_t)(s * 1e6);
}

#define MATRIX 64
static void fill_matrices(uint64_t n)
{
    double *m = (double *)area;
    for (int i = 0; i < 3 * MATRIX * MATRIX; i++)
        m[i] = (double)(i % 97) * 0.25;
}
static uint64_t run_matmul(uint64_t n)
{
    double *a = (double *)area, *b = a + MATRIX * MATRIX, *c = b + MATRIX * MATRIX, sum = 0;
    while (n--)
        for (int i = 0; i < MATRIX; i++)
            for (int j = 0; j < MATRIX; j++) {
                double s = 0;
                for (int k = 0; k < MATRIX; k++)
                    s += a[i * MATRIX + k] * b[k * MATRIX + j];
                c[i * MATRIX + j] = s;
            }
    for (int i = 0; i < MATRIX * MATRIX; i++)
        sum += c[i];
    return (uint64_t)sum;
}

static NOINLINE uint64_t fib(uint64_t k)
{
    if (k < 2)
        return k;
    return fib(k - 1) + fib(k - 2);
}
static uint64_t run_fib(uint64_t n)
{
    uint64_t sum = 0;
    while (n--)
        sum += fib(20);
    return sum;
}

#define TARGET(number)                                                                                                 \
    static NOINLINE uint64_t target##number(uint64_t x) { return (x ^ number * 0x9e37u) + (x >> (number + 1)); }
TARGET(0)
TARGET(1)
TARGET(2)
TARGET(3)
TARGET(4)
TARGET(5)
TARGET(6)
TARGET(7)
static uint64_t run_icall(uint64_t n)
{
    uint64_t (*volatile table[8])(uint64_t);
    table[0] = target0;
    table[1] = target1;
    table[2] = target2;
    table[3] = target3;
    table[4] = target4;
    table[5] = target5;
    table[6] = target6;
    table[7] = target7;
    uint64_t x = 1;
    for (uint64_t i = 0; i < n; i++)
        x = table[i & 7](x + i);
    return x;
}

/* A little stack machine: loads, stores and an indirect jump an operation. */
static uint64_t run_interp(uint64_t n)
{
    static const uint8_t code[] = {0, 3, 1, 2, 4, 0, 5, 2, 1, 6, 3, 7, 2, 4, 5, 1, 0, 6, 7, 3};
    uint64_t a = 1, b = 2, steps = 0;
    uint64_t *volatile cell = (uint64_t *)area;
    *cell = 0;
    while (steps < n)
        for (size_t i = 0; i < sizeof code; i++, steps++)
            switch (code[i]) {
            case 0: a += b; break;
            case 1: b ^= a << 3; break;
            case 2: *cell = a; break;
            case 3: b += *cell; break;
            case 4: a = a * 3 + 1; break;
            case 5: b >>= 1; break;
            case 6: a ^= b; break;
            case 7: a -= *cell; break;
            }
    return a ^ b;
}

static void fill_bytes(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        area[i] = (uint8_t)(i * 7 + (i >> 8));
}
static void fill_64k(uint64_t n) { fill_bytes(65536); }
static uint64_t run_crc(uint64_t n)
{
    uint32_t c = ~0u;
    for (uint64_t i = 0; i < n; i++)
        c = crc_table[(c ^ area[i & 0xffff]) & 0xff] ^ c >> 8;
    return ~c;
}

/* A random cycle through 1 MiB: latency of loads, one dependent on the other. */
#define CELLS (1u << 17)
static void make_cycle(uint64_t n)
{
    uint32_t *next = (uint32_t *)area, x = 1;
    for (uint32_t i = 0; i < CELLS; i++)
        next[i] = i;
    for (uint32_t i = CELLS - 1; i > 0; i--) {
        x = x * 1664525u + 1013904223u;
        uint32_t j = (uint32_t)((uint64_t)x * i >> 32), t = next[i];
        next[i] = next[j];
        next[j] = t;
    }
}
static uint64_t run_chase(uint64_t n)
{
    const uint32_t *next = (const uint32_t *)area;
    uint32_t at = 0;
    while (n--)
        at = next[at];
    return at;
}

/* Kernel-like copying: whole pages by REP MOVSQ, all over 16 MiB. */
#define COPY_PAGES 2048u
static uint64_t run_copy_rep(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        uint64_t count = 512;
        uint8_t *from = area + (i * 37 % COPY_PAGES) * 4096, *to = area + (24u << 20) + (i * 101 % COPY_PAGES) * 4096;
        __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    }
    return area[(24u << 20) + 4095];
}
static uint64_t run_copy_loop(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t *from = (const uint64_t *)(area + (i * 37 % COPY_PAGES) * 4096);
        volatile uint64_t *to = (volatile uint64_t *)(area + (24u << 20) + (i * 101 % COPY_PAGES) * 4096);
        for (int k = 0; k < 512; k += 4) {
            to[k] = from[k];
            to[k + 1] = from[k + 1];
            to[k + 2] = from[k + 2];
            to[k + 3] = from[k + 3];
        }
    }
    return area[(24u << 20) + 4095];
}
static void fill_pages(uint64_t n) { fill_bytes(COPY_PAGES * 4096); }

const struct work compute_works[] = {
    {"isprime", run_isprime, NULL, 20, WORK_SCALES},
    {"xorshift", run_xorshift, NULL, 300000, WORK_SCALES},
    {"sort-4m", run_sort, fill_numbers, 4u << 20, WORK_LONG},
    {"sort-4k", run_sort, fill_numbers, 4u << 10, 0},
    {"float", run_float, NULL, 100000, WORK_SCALES},
    {"matmul", run_matmul, fill_matrices, 5, WORK_SCALES},
    {"fib", run_fib, NULL, 15, WORK_SCALES},
    {"icall", run_icall, NULL, 300000, WORK_SCALES},
    {"interp", run_interp, NULL, 300000, WORK_SCALES},
    {"crc", run_crc, fill_64k, 200000, WORK_SCALES},
    {"chase", run_chase, make_cycle, 100000, WORK_SCALES},
    {"copy-rep", run_copy_rep, fill_pages, 2048, WORK_SCALES},
    {"copy-loop", run_copy_loop, fill_pages, 2048, WORK_SCALES},
    {NULL, NULL, NULL, 0, 0},
};

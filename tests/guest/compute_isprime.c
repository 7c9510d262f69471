/* tests/guest/compute_isprime.c - plain computation: loops, division, calls, memory, 64-bit arithmetic in 32-bit code. */
#include "rt.h"

__attribute__((noinline)) static int is_prime(int a)
{
    for (int i = 2; i < a; i++) {
        if (a % i == 0)
            return 0;
    }
    return 1;
}

__attribute__((noinline)) static unsigned ack(unsigned m, unsigned n)
{
    if (m == 0)
        return n + 1;
    return ack(m - 1, n == 0 ? 1 : ack(m, n - 1));
}

static unsigned state = 1;
static unsigned xorshift(void)
{
    state ^= state << 13;
    state ^= state >> 17;
    return state ^= state << 5;
}

static unsigned values[2000];

static void sort(int lo, int hi)
{
    while (lo < hi) {
        unsigned pivot = values[(lo + hi) / 2];
        int i = lo, j = hi;
        while (i <= j) {
            while (values[i] < pivot)
                i++;
            while (values[j] > pivot)
                j--;
            if (i <= j) {
                unsigned t = values[i];
                values[i++] = values[j];
                values[j--] = t;
            }
        }
        sort(lo, j);
        lo = i;
    }
}

static uint64_t fnv(const uint8_t *p, unsigned n)
{
    uint64_t h = 0xcbf29ce484222325ull;
    while (n--)
        h = (h ^ *p++) * 0x100000001b3ull;
    return h;
}

static unsigned op_add(unsigned a) { return a + 3; }
static unsigned op_xor(unsigned a) { return a ^ 0x5a5a; }
static unsigned op_rol(unsigned a) { return a << 7 | a >> 25; }

int main(void)
{
    static unsigned (*const ops[3])(unsigned) = {op_add, op_xor, op_rol};
    rt_printf("49 is %sprime\n", is_prime(49) ? "" : "not ");
    unsigned count = 0;
    for (int i = 2; i < 2000; i++)
        count += (unsigned)is_prime(i);
    rt_printf("%u primes below 2000\n", count);
    rt_printf("ackermann(2, 9) = %u\n", ack(2, 9));
    for (unsigned i = 0; i < 2000; i++)
        values[i] = xorshift();
    sort(0, 1999);
    bool sorted = true;
    for (unsigned i = 1; i < 2000; i++)
        sorted = sorted && values[i - 1] <= values[i];
    rt_printf("sorted: %d, hash %016llx\n", sorted, (unsigned long long)fnv((uint8_t *)values, sizeof values));
    unsigned x = 1;
    for (unsigned i = 0; i < 3000; i++)
        x = ops[i % 3](x);
    rt_printf("indirect calls: %08x\n", x);
    return 0;
}

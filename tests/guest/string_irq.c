/* tests/guest/string_irq.c - every repeated string instruction, forwards and backwards, interrupted in its middle by a timer: what is
 * saved is the instruction itself with the count, the addresses and the memory of what is done so far, and it goes on to the
 * right end (SDM 2B REP). string_irq64.c is the same in 64-bit code. */
#include "rt.h"

enum { BYTES = 0x200000 };
static uint8_t *const src = (uint8_t *)0x1000000, *const dst = (uint8_t *)0x1800000;

static volatile unsigned ticks, inside, exact, rf_seen;
static word base __attribute__((used));
static word start_cx, start_si, start_di;
static int step_si, step_di; /* bytes per iteration, signed; 0 = does not move */

/* Counts interrupts that found the instruction under way, and those of them with registers that belong together. */
static bool on_irq(struct rt_frame *f)
{
    if (f->vec < 0x20 || f->vec > 0x2f)
        return false;
    ticks++;
    word done = start_cx - f->cx;
    if (f->ip == base && done > 0 && done < start_cx) {
        inside++;
        rf_seen += f->flags >> 16 & 1;
        exact += f->si == start_si + (word)step_si * done && f->di == start_di + (word)step_di * done;
    }
    rt_eoi();
    return true;
}

#ifdef __x86_64__
#define SET_BASE "movl $1f, %%edx\n movq %%rdx, base\n"
#define DX "rdx"
#else
#define SET_BASE "movl $1f, %%edx\n movl %%edx, base\n"
#define DX "edx"
#endif

/* Runs insn until it was interrupted inside; unit: bytes an iteration. port: what DX is. */
#define INTERRUPTED(name, insn, unit, back, moves_si, moves_di, port, check)                                           \
    do {                                                                                                               \
        unsigned rounds = 0, wrong = 0;                                                                                \
        inside = exact = rf_seen = 0;                                                                                  \
        while (!inside && rounds < 400) {                                                                              \
            word n = count_of(name, unit), s = (word)src, d = (word)dst;                                               \
            if (back)                                                                                                  \
                s += (n - 1) * (unit), d += (n - 1) * (unit);                                                          \
            start_cx = n, start_si = s, start_di = d;                                                                  \
            step_si = (moves_si) ? (back) ? -(unit) : (unit) : 0;                                                      \
            step_di = (moves_di) ? (back) ? -(unit) : (unit) : 0;                                                      \
            word flags;                                                                                                \
            prepare(++rounds);                                                                                         \
            __asm__ volatile(SET_BASE "movl %5, %%edx\n sti\n nop\n jmp 9f\n 9: " insn "\n cli\n cld\n pushf\n pop %3" \
                             : "+c"(n), "+S"(s), "+D"(d), "=r"(flags)                                                  \
                             : "a"(fill), "i"(port)                                                                    \
                             : DX, "memory", "cc");                                                                    \
            wrong += n != 0 || s != start_si + (word)step_si * start_cx || d != start_di + (word)step_di * start_cx || \
                     !(check);                                                                                         \
        }                                                                                                              \
        rt_printf("%s: interrupted inside %d, registers exact %d, result %s, RF %d\n", name, inside > 0,               \
                  exact == inside, wrong ? "wrong" : "right", rf_seen > 0);                                            \
    } while (0)

static uint32_t fill;

/* Port accesses are slow: fewer of them. */
static word count_of(const char *name, unsigned unit)
{
    bool port = name[4] == 'i' || name[4] == 'o';
    return port ? 20000 : BYTES / unit;
}

static void prepare(unsigned round)
{
    fill = 0x01010101u * round;
    for (unsigned i = 0; i < BYTES; i += 4096) {
        *(volatile uint32_t *)(src + i) = fill + i;
        *(volatile uint32_t *)(dst + i) = 0;
    }
}

static bool copied(void)
{
    for (unsigned i = 0; i < BYTES; i += 4096)
        if (*(volatile uint32_t *)(dst + i) != fill + i)
            return false;
    return true;
}

static bool filled(unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i += 4096)
        if (*(volatile uint32_t *)(dst + i) != fill)
            return false;
    return true;
}

static bool same(void)
{
    for (unsigned i = 0; i < BYTES; i += 4)
        *(volatile uint32_t *)(dst + i) = *(volatile uint32_t *)(src + i);
    return true;
}

static void kernel(void)
{
    INTERRUPTED("rep movsb", "1: rep movsb", 1, 0, 1, 1, 0, copied());
    INTERRUPTED("rep movsl", "1: rep movsl", 4, 0, 1, 1, 0, copied());
    INTERRUPTED("rep movsb backwards", "std\n 1: rep movsb", 1, 1, 1, 1, 0, copied());
    INTERRUPTED("rep movsl backwards", "std\n 1: rep movsl", 4, 1, 1, 1, 0, copied());
    INTERRUPTED("rep stosb", "1: rep stosb", 1, 0, 0, 1, 0, filled(BYTES));
    INTERRUPTED("rep stosl", "1: rep stosl", 4, 0, 0, 1, 0, filled(BYTES));
    INTERRUPTED("rep stosw backwards", "std\n 1: rep stosw", 2, 1, 0, 1, 0, filled(BYTES));
    INTERRUPTED("rep lodsl", "1: rep lodsl", 4, 0, 1, 0, 0, true);
    same();
#ifdef __x86_64__
    INTERRUPTED("rep movsq", "1: rep movsq", 8, 0, 1, 1, 0, copied());
    INTERRUPTED("rep stosq", "1: rep stosq", 8, 0, 0, 1, 0, *dst == (uint8_t)fill);
    INTERRUPTED("rep movsb, 32-bit addresses", "1: addr32 rep movsb", 1, 0, 1, 1, 0, copied());
#endif
    INTERRUPTED("rep insb", "1: rep insb", 1, 0, 0, 1, 0x71, true);
    INTERRUPTED("rep outsb", "1: rep outsb", 1, 0, 1, 0, 0x80, true);
    INTERRUPTED("rep outsl", "1: rep outsl", 4, 0, 1, 0, 0x80, true);
}

/* Comparisons end by what they find: all of memory is the same but for the last byte. */
static void comparisons(void)
{
    memset(src, 'x', BYTES);
    memset(dst, 'x', BYTES);
    src[BYTES - 1] = 'y';
    unsigned wrong, rounds;
#define COMPARED(name, insn, unit, moves_si, zf)                                                                       \
    do {                                                                                                               \
        inside = exact = rf_seen = wrong = rounds = 0;                                                                 \
        while (!inside && rounds++ < 400) {                                                                            \
            word n = BYTES / (unit) + 5, s = (word)src, d = (word)dst, flags;                                          \
            start_cx = n, start_si = s, start_di = d;                                                                  \
            step_si = (moves_si) ? (unit) : 0, step_di = (unit);                                                       \
            __asm__ volatile(SET_BASE "sti\n nop\n jmp 9f\n 9: " insn "\n cli\n pushf\n pop %3"                        \
                             : "+c"(n), "+S"(s), "+D"(d), "=r"(flags)                                                  \
                             : "a"(0x78787878)                                                                         \
                             : DX, "memory", "cc");                                                                    \
            wrong += n != 5 || d != (word)dst + BYTES || (flags >> 6 & 1) != (zf);                                     \
        }                                                                                                              \
        rt_printf("%s: interrupted inside %d, registers exact %d, result %s, RF %d\n", name, inside > 0,               \
                  exact == inside, wrong ? "wrong" : "right", rf_seen > 0);                                            \
    } while (0)
    COMPARED("repe cmpsb", "1: repe cmpsb", 1, 1, 0);
    COMPARED("repe cmpsl", "1: repe cmpsl", 4, 1, 0);
    dst[BYTES - 1] = 'y';
    COMPARED("repe scasb", "1: repe scasb", 1, 0, 0);
    COMPARED("repe scasl", "1: repe scasl", 4, 0, 0);
    memset(dst, 'z', BYTES);
    dst[BYTES - 1] = 'x';
    COMPARED("repne scasb", "1: repne scasb", 1, 0, 1);
}

static void user_copy(void)
{
    __asm__ volatile(SET_BASE "1: rep movsb\n int $0x80" : : "c"(BYTES), "S"(src), "D"(dst) : DX, "memory");
}

/* At ring 3 with IF = 1. */
static void user(void)
{
    unsigned rounds = 0;
    bool right = true;
    inside = exact = 0;
    start_cx = BYTES, start_si = (word)src, start_di = (word)dst;
    step_si = step_di = 1;
    while (!inside && rounds < 400) {
        prepare(++rounds);
        if (rt_setjmp() == 0) {
#ifdef __x86_64__
            rt_user_at(SEL_UCODE64, (word)user_copy, SEL_UDATA, (word)rt_user_stack_top - 64, 0x202);
#else
            __asm__ volatile("movl %0, %%es" : : "r"(SEL_UDATA));
            rt_user_at(SEL_UCODE, (word)user_copy, SEL_UDATA, (word)rt_user_stack_top - 64, 0x202);
#endif
        }
        right = right && rt_exc.vec == 0x80 && rt_exc.cx == 0 && copied();
    }
    rt_printf("ring 3, rep movsb: interrupted inside %d, registers exact %d, result %s\n", inside > 0, exact == inside,
              right ? "right" : "wrong");
}

int main(void)
{
    rt_hook = on_irq;
    outb(0x70, 0x0f); /* what port 0x71 shows: an unused cell */
    rt_pic_init(0xfe);
    rt_pit(1193, 2); /* 1 ms */
    kernel();
    comparisons();
    user();
    return 0;
}

/* tests/guest/rt/rt.c - see rt.h. */
#include "rt.h"
#include <stdarg.h>

void *memset(void *to, int c, size_t n)
{
    void *d = to;
    __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, size_t n)
{
    void *d = to;
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(from), "+c"(n) : : "memory");
    return to;
}

void rt_putc(char c)
{
    while (!(inb(0x3fd) & 0x20))
        ;
    outb(0x3f8, (uint8_t)c);
    outb(0xe9, (uint8_t)c);
}

static void put_str(const char *s)
{
    while (*s)
        rt_putc(*s++);
}

static void put_num(uint64_t x, unsigned base, unsigned width, char pad)
{
    char buf[24];
    unsigned n = 0;
    do {
        /* No 64-bit division in 32-bit guests: there is no library. */
        unsigned digit = base == 16 ? (unsigned)(x & 15) : (unsigned)((uint32_t)x % 10);
        buf[n++] = "0123456789abcdef"[digit];
        x = base == 16 ? x >> 4 : (uint32_t)x / 10;
    } while (x);
    for (unsigned i = n; i < width; i++)
        rt_putc(pad);
    while (n)
        rt_putc(buf[--n]);
}

void rt_printf(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    for (; *fmt; fmt++) {
        if (*fmt != '%') {
            rt_putc(*fmt);
            continue;
        }
        fmt++;
        char pad = ' ';
        unsigned width = 0, longs = 0;
        if (*fmt == '0')
            pad = '0';
        while (*fmt >= '0' && *fmt <= '9')
            width = width * 10 + (unsigned)(*fmt++ - '0');
        while (*fmt == 'l') {
            longs++;
            fmt++;
        }
        switch (*fmt) {
        case 's': put_str(va_arg(ap, const char *)); break;
        case 'c': rt_putc((char)va_arg(ap, int)); break;
        case 'd': {
            int x = va_arg(ap, int);
            if (x < 0)
                rt_putc('-');
            put_num(x < 0 ? -(unsigned)x : (unsigned)x, 10, width, pad);
            break;
        }
        case 'u': put_num(va_arg(ap, unsigned), 10, width, pad); break;
        case 'x':
            put_num(longs == 2   ? va_arg(ap, unsigned long long)
                    : longs == 1 ? va_arg(ap, unsigned long)
                                 : va_arg(ap, unsigned),
                    16, width, pad);
            break;
        default: rt_putc(*fmt);
        }
    }
    va_end(ap);
}

_Noreturn void rt_exit(unsigned code)
{
    for (;;) {
        __asm__ volatile("outl %0, %1" : : "a"(code), "Nd"((uint16_t)0xf4));
        __asm__ volatile("cli; hlt");
    }
}

/* ---- descriptors ---- */

uint64_t rt_gdt[RT_GDT_SLOTS] __attribute__((aligned(16)));
uint64_t rt_idt[512] __attribute__((aligned(16)));
struct {
    struct rt_tss tss;
    uint8_t iomap[8193];
} rt_tss_block __attribute__((aligned(4096)));
extern struct rt_tss rt_tss __attribute__((alias("rt_tss_block")));
uint8_t rt_kstack[16384] __attribute__((aligned(16)));

uint64_t rt_desc(uint32_t base, uint32_t limit, uint32_t attr)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(attr & 0xf0ff) << 40 |
           (uint64_t)(limit >> 16 & 0xf) << 48 | (uint64_t)(base >> 24) << 56;
}

void rt_gate(unsigned vec, void (*handler)(void), unsigned sel, unsigned type)
{
    word h = (word)handler;
    uint64_t low = (h & 0xffff) | (uint64_t)sel << 16 | (uint64_t)type << 40 | (uint64_t)(h >> 16 & 0xffff) << 48;
#ifdef __x86_64__
    rt_idt[2 * vec] = low;
    rt_idt[2 * vec + 1] = h >> 32;
#else
    rt_idt[vec] = low;
#endif
}

void rt_gate_default(unsigned vec, unsigned type)
{
    rt_gate(vec, (void (*)(void))(word)(rt_stubs + 16 * vec), SEL_KCODE, type);
}

void rt_load_idt(uint32_t limit)
{
    struct {
        uint16_t limit;
        word base;
    } __attribute__((packed)) d = {(uint16_t)limit, (word)rt_idt};
    __asm__ volatile("lidt %0" : : "m"(d));
}

static void load_gdt(void)
{
    struct {
        uint16_t limit;
        word base;
    } __attribute__((packed)) d = {sizeof rt_gdt - 1, (word)rt_gdt};
    __asm__ volatile("lgdt %0" : : "m"(d));
}

static void build_gdt(void)
{
    uint32_t tss = (uint32_t)(word)&rt_tss_block;
#ifdef __x86_64__
    rt_gdt[SEL_KCODE / 8] = rt_desc(0, 0xfffff, 0xa09b);
    rt_gdt[SEL_UCODE64 / 8] = rt_desc(0, 0xfffff, 0xa0fb);
    rt_gdt[SEL_KCODE32 / 8] = rt_desc(0, 0xfffff, 0xc09b);
#else
    rt_gdt[SEL_KCODE / 8] = rt_desc(0, 0xfffff, 0xc09b);
#endif
    rt_gdt[SEL_KDATA / 8] = rt_desc(0, 0xfffff, 0xc093);
    rt_gdt[SEL_UCODE / 8] = rt_desc(0, 0xfffff, 0xc0fb);
    rt_gdt[SEL_UDATA / 8] = rt_desc(0, 0xfffff, 0xc0f3);
    rt_gdt[SEL_CODE16 / 8] = rt_desc(0, 0xffff, 0x009b);
    rt_gdt[SEL_DATA16 / 8] = rt_desc(0, 0xffff, 0x0093);
    rt_gdt[SEL_TSS / 8] = rt_desc(tss, sizeof rt_tss_block - 1, 0x0089);
}

void rt_init(void);
void rt_reload_segments(void);
void rt_init(void)
{
    outb(0x21, 0xff); /* the firmware left the timer running */
    outb(0xa1, 0xff);
    build_gdt();
    load_gdt();
    rt_reload_segments();
    for (unsigned v = 0; v < 256; v++)
        rt_gate_default(v, v == 0x80 || v == 3 || v == 4 ? 0xee : 0x8e);
    rt_load_idt(sizeof rt_idt - 1);
    memset(rt_iomap, 0xff, sizeof rt_tss_block.iomap);
    rt_tss.iomap = sizeof(struct rt_tss);
#ifdef __x86_64__
    rt_tss.rsp[0] = (word)rt_kstack + sizeof rt_kstack;
#else
    rt_tss.esp0 = (word)rt_kstack + sizeof rt_kstack;
    rt_tss.ss0 = SEL_KDATA;
#endif
    __asm__ volatile("ltr %w0" : : "r"(SEL_TSS));
    rt_exit((unsigned)main());
}

/* ---- exceptions ---- */

struct rt_frame rt_exc;
word rt_exc_cr2;
volatile word rt_at;
bool (*volatile rt_hook)(struct rt_frame *f);
volatile bool rt_armed;

void rt_disarm(void) { rt_armed = false; }

const char *rt_vector_name(word vec)
{
    static const char *const names[20] = {"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "cso",
                                          "#TS", "#NP", "#SS", "#GP", "#PF", "15",  "#MF", "#AC", "#MC", "#XM"};
    return vec < 20 ? names[vec] : "int";
}

static bool has_error_code(word vec) { return vec == 8 || (vec >= 10 && vec <= 14) || vec == 17; }

void rt_report(const char *name)
{
    const struct rt_frame *e = &rt_exc;
    rt_printf("%s: %s", name, rt_vector_name(e->vec));
    if (e->vec >= 20)
        rt_printf(" %lx", e->vec);
    if (has_error_code(e->vec))
        rt_printf(" err=%04lx", e->err);
    if (e->vec == 14)
        rt_printf(" cr2=%lx", rt_exc_cr2);
    if (rt_at && e->ip - rt_at < 64)
        rt_printf(" ip+%lx", e->ip - rt_at);
    rt_printf(" cs=%lx\n", e->cs & 0xffff);
    rt_at = 0;
}

bool rt_dispatch(struct rt_frame *f);
bool rt_dispatch(struct rt_frame *f)
{
    if (rt_hook && rt_hook(f))
        return true;
    rt_exc = *f;
    rt_exc_cr2 = read_cr2();
    if (!rt_armed) {
        rt_report("UNEXPECTED");
        rt_printf("ip=%lx flags=%lx\n", f->ip, f->flags);
        rt_exit(0x7f);
    }
    rt_armed = false;
    return false;
}

/* ---- interrupt hardware ---- */

void rt_pic_init(uint8_t mask_master)
{
    outb(0x20, 0x11);
    outb(0xa0, 0x11);
    outb(0x21, 0x20);
    outb(0xa1, 0x28);
    outb(0x21, 4);
    outb(0xa1, 2);
    outb(0x21, 1);
    outb(0xa1, 1);
    outb(0x21, mask_master);
    outb(0xa1, 0xff);
}

void rt_pit(unsigned divisor, unsigned mode)
{
    outb(0x43, (uint8_t)(0x30 | mode << 1));
    outb(0x40, (uint8_t)divisor);
    outb(0x40, (uint8_t)(divisor >> 8));
}

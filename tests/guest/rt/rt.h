/* tests/guest/rt/rt.h - what bare guests share: output, exits, exceptions caught and named, descriptors, modes.
 *
 * A guest is a multiboot image of 32 or 64 bits; start32.S or start64.S brings up a stack, a GDT and an IDT and calls
 * main(). Everything printed goes to COM1 (polled) and port 0xe9. Returning from main leaves through isa-debug-exit.
 * Output must not depend on where the linker put things: report addresses relative to something.
 */
#ifndef RT_H
#define RT_H

/* Selectors of rt_gdt (the same in both sizes where both have it). */
#define SEL_KCODE 0x08
#define SEL_KDATA 0x10
#define SEL_UCODE 0x1b /* 64-bit guests: the compatibility-mode one */
#define SEL_UDATA 0x23
#define SEL_UCODE64 0x2b /* 64-bit guests */
#define SEL_KCODE32 0x30 /* 64-bit guests: compatibility mode at ring 0 */
#define SEL_CODE16 0x38  /* base 0, 64 KiB */
#define SEL_DATA16 0x40
#define SEL_TSS 0x48  /* two slots in 64-bit guests */
#define SEL_FREE 0x58 /* from here on the guest's own, up to slot RT_GDT_SLOTS - 1 */
#define RT_GDT_SLOTS 64

#ifndef __ASSEMBLER__
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef unsigned long word;        /* 32 or 64 bits, as the guest */
extern uint32_t rt_multiboot_info; /* where the loader's information is */
int main(void);

/* ---- output ---- */
void rt_putc(char c);
void rt_printf(const char *fmt, ...)
    __attribute__((format(printf, 1, 2))); /* %s %c %d %u %x %lx %p %%, widths with 0 */
_Noreturn void rt_exit(unsigned code);     /* QEMU's exit status is 2 * code + 1 */
void *memset(void *to, int c, size_t n);
void *memcpy(void *to, const void *from, size_t n);

/* ---- ports and registers ---- */
static inline void outb(uint16_t port, uint8_t v) { __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port)); }
static inline uint8_t inb(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
#define RT_REG(name)                                                                                                   \
    static inline word read_##name(void)                                                                               \
    {                                                                                                                  \
        word x;                                                                                                        \
        __asm__ volatile("mov %%" #name ", %0" : "=r"(x) : : "memory");                                                \
        return x;                                                                                                      \
    }                                                                                                                  \
    static inline void write_##name(word x) { __asm__ volatile("mov %0, %%" #name : : "r"(x) : "memory"); }
RT_REG(cr0)
RT_REG(cr2)
RT_REG(cr3)
RT_REG(cr4)
RT_REG(dr0)
RT_REG(dr1)
RT_REG(dr2)
RT_REG(dr3)
RT_REG(dr6)
RT_REG(dr7)
#undef RT_REG
static inline uint64_t rdmsr(uint32_t n)
{
    uint32_t lo, hi;
    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(n));
    return (uint64_t)hi << 32 | lo;
}
static inline void wrmsr(uint32_t n, uint64_t v)
{
    __asm__ volatile("wrmsr" : : "c"(n), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}
static inline word get_flags(void)
{
    word f;
    __asm__ volatile("pushf; pop %0" : "=r"(f));
    return f;
}
static inline void set_flags(word f) { __asm__ volatile("push %0; popf" : : "r"(f) : "memory", "cc"); }

/* ---- exceptions ---- */
#ifdef __x86_64__
struct rt_frame {
    word r15, r14, r13, r12, r11, r10, r9, r8, di, si, bp, bx, dx, cx, ax;
    word vec, err, ip, cs, flags, sp, ss;
};
#else
struct rt_frame {
    word own_ss, gs, fs, es, ds, di, si, bp, handler_sp, bx, dx, cx, ax;
    word vec, err, ip, cs, flags;
    word sp, ss;                 /* only if the privilege changed */
    word v_es, v_ds, v_fs, v_gs; /* only from virtual-8086 mode */
};
#endif
extern struct rt_frame rt_exc; /* the last one caught */
extern word rt_exc_cr2;
extern volatile word rt_at; /* address of the instruction on trial */
/* Sees every vector first; true = dealt with, resume with the frame as it is now. */
extern bool (*volatile rt_hook)(struct rt_frame *f);
int rt_setjmp(void) __attribute__((returns_twice));
void rt_disarm(void);
void rt_report(const char *name); /* prints what was caught */
const char *rt_vector_name(word vec);

/* Runs code; prints "name: ok" or the exception with error code, CR2 and the distance of the pushed IP from AT. */
#define TRY(name, ...)                                                                                                 \
    do {                                                                                                               \
        if (rt_setjmp() == 0) {                                                                                        \
            __VA_ARGS__;                                                                                               \
            rt_disarm();                                                                                               \
            rt_printf("%s: ok\n", name);                                                                               \
        } else                                                                                                         \
            rt_report(name);                                                                                           \
    } while (0)
/* Marks the instruction that follows in an asm text. */
#ifdef __x86_64__
#define AT "movq $771f, rt_at\n771: "
#else
#define AT "movl $771f, rt_at\n771: "
#endif
/* The same at ring 3; code that ends comes back as "int 80". */
#define TRY_USER(name, ...)                                                                                            \
    TRY(                                                                                                               \
        name, void user_(void) { __VA_ARGS__; } rt_user(user_))
#define TRY_USER_ASM(name, insns) TRY_USER(name, __asm__ volatile(AT insns : : : "memory", "cc", "eax", "ecx", "edx"))
#define TRY_ASM(name, insns, ...) TRY(name, __asm__ volatile(AT insns : : __VA_ARGS__ : "memory", "cc"))

/* ---- descriptors ---- */
extern uint64_t rt_gdt[RT_GDT_SLOTS];
extern uint64_t rt_idt[512];
/* attr as in bytes 5 and 6 of a descriptor: 0x93 = ring 0 data, 0x4000 = D/B, 0x8000 = G, 0x2000 = L. */
uint64_t rt_desc(uint32_t base, uint32_t limit, uint32_t attr);
/* Points vector at a handler; type 0x8e = interrupt gate of ring 0, 0xee of ring 3, 0x8f trap gate. */
void rt_gate(unsigned vec, void (*handler)(void), unsigned sel, unsigned type);
void rt_gate_default(unsigned vec, unsigned type); /* back to the recorder, with this type */
void rt_load_idt(uint32_t limit);
extern uint8_t rt_stubs[]; /* 16 bytes each */
#ifdef __x86_64__
struct rt_tss {
    uint32_t pad0;
    uint64_t rsp[3], pad1, ist[7], pad2;
    uint16_t pad3, iomap;
} __attribute__((packed));
#else
struct rt_tss {
    uint32_t back, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
    uint32_t es, cs, ss, ds, fs, gs, ldt;
    uint16_t trap, iomap;
};
#endif
extern struct rt_tss rt_tss;
#define rt_iomap                                                                                                       \
    ((uint8_t *)&rt_tss + sizeof rt_tss) /* I/O permission bits, 8192 bytes and one of ones, all denied at start */

/* Calls fn at ring 3 on a stack of its own; when fn returns, int 0x80 comes back and TRY reports it as "int 80". */
_Noreturn void rt_user(void (*fn)(void));
_Noreturn void rt_user_at(word cs, word ip, word ss, word sp,
                          word flags); /* IRET to anywhere, with DS = SEL_UDATA in 32-bit guests */
extern uint8_t rt_user_stack_top[];

#ifndef __x86_64__
/* Runs 16-bit code in real mode: copies [from, to) to 0x8000 and enters it at 0x800:0 with DS = ES = 0x800, SS = 0x6000,
 * SP = 0xfff0, interrupts off. It ends with a far return. Values go through rt_real_word (0x500 in real mode, DS = 0). */
void rt_real(const void *from, const void *to);
#define rt_real_words ((volatile uint16_t *)0x500)
#endif

/* ---- interrupts ---- */
void rt_pic_init(uint8_t mask_master); /* vectors 0x20-0x2f, slave masked */
void rt_pit(unsigned divisor, unsigned mode);
static inline void rt_eoi(void) { outb(0x20, 0x20); }
#endif
#endif

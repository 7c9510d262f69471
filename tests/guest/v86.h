/* tests/guest/v86.h - virtual-8086 mode for guests: code is copied to 0x10000 and entered at 1000:0 by IRET. */
#ifndef V86_H
#define V86_H
#include "rt.h"

#define V86_CS 0x1000u
/* The frame of an exception from virtual-8086 mode tells where it was, what the segments held and what they hold now. */
_Noreturn static void v86_enter(uint32_t flags, uint32_t ip)
{
    __asm__ volatile("pushl $0x4444\n pushl $0x3333\n pushl $0x2222\n pushl $0x1111\n" /* gs fs ds es */
                     "pushl $0x2000\n pushl $0xfff0\n pushl %0\n pushl %1\n pushl %2\n iretl"
                     :
                     : "r"(flags | 0x20002), "i"(V86_CS), "r"(ip)
                     : "memory");
    __builtin_unreachable();
}

/* Runs 16-bit code and prints where and how it left. */
static void v86_try(const char *name, const void *from, const void *to, uint32_t flags)
{
    memset((void *)0x10000, 0xf4, 256);
    memcpy((void *)0x10000, from, (size_t)((const uint8_t *)to - (const uint8_t *)from));
    rt_at = 0x10000; /* no exception is near it: IP is printed here */
    if (rt_setjmp() == 0)
        v86_enter(flags, 0);
    const struct rt_frame *e = &rt_exc;
    rt_printf("%s: %s", name, rt_vector_name(e->vec));
    if (e->vec >= 20)
        rt_printf(" %lx", e->vec);
    if (e->vec == 8 || (e->vec >= 10 && e->vec <= 14) || e->vec == 17)
        rt_printf(" err=%04lx", e->err);
    rt_printf(" at %04lx:%04lx ss:sp %04lx:%04lx flags %lx\n", e->cs & 0xffff, e->ip, e->ss & 0xffff, e->sp & 0xffff,
              e->flags & ~0x108d5ul); /* RF is debug_step's business */
}

/* 16-bit code between two labels of its own; used as V86(name, flags, "insns"). */
#define V86(name, flags, insns)                                                                                        \
    do {                                                                                                               \
        const void *from_, *to_;                                                                                       \
        __asm__ volatile("jmp 9f\n .code16\n 7: " insns "\n 8: .code32\n 9: movl $7b, %0\n movl $8b, %1"               \
                         : "=r"(from_), "=r"(to_));                                                                    \
        v86_try(name, from_, to_, flags);                                                                              \
    } while (0)
#endif

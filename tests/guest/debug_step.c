/* tests/guest/debug_step.c - single steps, breakpoints on code, data and ports, debug registers, RF (SDM 3B ch. 17). */
#include "rt.h"

static struct {
    word vec, off, dr6, flags;
} log_[64];
static unsigned n_log;
static word base __attribute__((used));
static bool set_rf, stop_tf;

/* Notes every #DB and goes on. */
static bool note(struct rt_frame *f)
{
    if (f->vec != 1)
        return false;
    if (n_log < 64) {
        log_[n_log].vec = f->vec;
        log_[n_log].off = f->ip - base;
        log_[n_log].dr6 = read_dr6();
        log_[n_log++].flags = f->flags;
    }
    write_dr6(0xffff0ff0);
    if (set_rf)
        f->flags |= 0x10000;
    if (stop_tf)
        f->flags &= ~0x100ul;
    return true;
}

static void show(const char *name)
{
    rt_printf("%s:", name);
    for (unsigned i = 0; i < n_log; i++)
        rt_printf(" +%lx/%lx%s", log_[i].off, log_[i].dr6 & 0xe00f, log_[i].flags & 0x10000 ? "/RF" : "");
    rt_printf("\n");
    n_log = 0;
    set_rf = stop_tf = false;
}

/* Steps through code that starts at label 1; it ends with clearing TF. */
#define STEP(name, insns, ...)                                                                                         \
    do {                                                                                                               \
        __asm__ volatile("pushal\n movl $1f, %0\n pushfl\n orl $0x100, (%%esp)\n popfl\n 1: " insns                    \
                         "\n pushfl\n andl $~0x100, (%%esp)\n popfl\n popal"                                           \
                         : "=m"(base)                                                                                  \
                         : __VA_ARGS__                                                                                 \
                         : "memory", "cc");                                                                            \
        show(name);                                                                                                    \
    } while (0)

static uint8_t buf[64];
static volatile uint32_t cell[2048] __attribute__((aligned(64), used));

static void single_step(void)
{
    STEP("nops", "nop\n nop\n nop", "i"(0));
    STEP("pushf shows TF", "pushfl\n popl %%eax\n nop", "i"(0));
    STEP("call and ret", "jmp 3f\n 2: nop\n ret\n 3: call 2b\n nop", "i"(0));
    STEP("jumps", "jmp 2f\n nop\n 2: jz 3f\n nop\n 3: nop", "i"(0));
    STEP("mov ss hides one trap", "movl %%ss, %%eax\n movl %%eax, %%ss\n nop\n nop", "i"(0));
    STEP("pop ss hides one trap", "pushl %%ss\n popl %%ss\n nop\n nop", "i"(0));
    STEP("lss does not", "pushl %%ss\n pushl %%esp\n lss (%%esp), %%esp\n nop\n addl $4, %%esp", "i"(0));
    STEP("sti does not", "sti\n nop\n cli\n nop", "i"(0));
    STEP("rep movsb: each iteration", "rep movsb\n nop", "c"(3), "S"(buf), "D"(buf + 8));
    STEP("rep with ecx 0", "rep movsb\n nop", "c"(0), "S"(buf), "D"(buf + 8));
    STEP("cpuid", "pushl %%ebx\n xorl %%eax, %%eax\n cpuid\n popl %%ebx\n nop", "c"(0), "d"(0));
    STEP("mov cr0", "movl %%cr0, %%eax\n movl %%eax, %%cr0\n nop", "i"(0));
    STEP("in and out", "inb $0x61, %%al\n outb %%al, $0x80\n nop", "i"(0));
    STEP("popf that keeps it", "pushl $0x102\n popfl\n nop", "i"(0));
    STEP("iret that keeps it", "pushl $0x102\n pushl %1\n pushl $2f\n iretl\n nop\n 2: nop", "i"(SEL_KCODE));
    __asm__ volatile("movl $1f, %0\n pushl $0x102\n pushl %1\n pushl $1f\n iretl\n 1: nop\n pushl $2\n popfl\n nop"
                     : "=m"(base)
                     : "i"(SEL_KCODE)
                     : "memory", "cc");
    show("iret that sets it");
    stop_tf = true;
    __asm__ volatile("movl $1f, %0\n pushl $0x102\n popfl\n 1: nop\n nop\n nop" : "=m"(base) : : "memory", "cc");
    show("popf that sets it");
}

/* INT n clears TF: the handler is not stepped; the trap comes after its IRET's next instruction. */
static bool note_int(struct rt_frame *f)
{
    if (f->vec == 0x30 || f->vec == 3)
        return true;
    return note(f);
}

static void steps_and_events(void)
{
    rt_hook = note_int;
    STEP("int n", "int $0x30\n nop\n nop", "i"(0));
    STEP("int3", "int3\n nop\n nop", "i"(0));
    rt_hook = note;
    TRY("a fault is not stepped", __asm__ volatile("pushl $0x102\n popfl\n" AT "ud2" : : : "memory", "cc"));
    rt_printf("  flags %lx\n", rt_exc.flags & ~0x8d5ul);
    n_log = 0;
    TRY("int1", __asm__ volatile("movl $1f, %0\n 1: .byte 0xf1" : "=m"(base)));
    show("  sets no bit");
}

static void code_breakpoints(void)
{
    set_rf = true;
    __asm__ volatile("movl $1f, %0\n movl $1f + 1, %%eax\n movl %%eax, %%dr1\n movl $0x408, %%eax\n movl %%eax, %%dr7\n"
                     "1: nop\n nop\n nop\n xorl %%eax, %%eax\n movl %%eax, %%dr7"
                     : "=m"(base)
                     :
                     : "eax", "memory");
    show("DR1 on code");
    set_rf = true;
    __asm__ volatile(
        "movl $1f, %0\n movl $1f, %%eax\n movl %%eax, %%dr0\n movl $0x402, %%eax\n movl %%eax, %%dr7\n movl $3, %%ecx\n"
        "1: decl %%ecx\n jnz 1b\n xorl %%eax, %%eax\n movl %%eax, %%dr7"
        : "=m"(base)
        :
        : "eax", "ecx", "memory", "cc");
    show("DR0 in a loop");
    set_rf = true;
    __asm__ volatile("movl $1f, %0\n movl $1f + 2, %%eax\n movl %%eax, %%dr0\n movl $0x402, %%eax\n movl %%eax, %%dr7\n"
                     "1: movl $5, %%ecx\n nop\n xorl %%eax, %%eax\n movl %%eax, %%dr7"
                     : "=m"(base)
                     :
                     : "eax", "ecx", "memory");
    show("DR0 inside an instruction");
    set_rf = true;
    __asm__ volatile("movl $1f, %0\n movl $1f, %%eax\n movl %%eax, %%dr0\n movl %%eax, %%dr2\n movl $0x422, %%eax\n "
                     "movl %%eax, %%dr7\n"
                     "1: nop\n xorl %%eax, %%eax\n movl %%eax, %%dr7"
                     : "=m"(base)
                     :
                     : "eax", "memory");
    show("two on one instruction");
    set_rf = true;
    __asm__ volatile("movl $1f, %0\n movl $1f, %%eax\n movl %%eax, %%dr0\n movl $0x402, %%eax\n movl %%eax, %%dr7\n"
                     "1: rep movsb\n xorl %%eax, %%eax\n movl %%eax, %%dr7"
                     : "=m"(base)
                     : "c"(3), "S"(buf), "D"(buf + 8)
                     : "eax", "memory");
    show("on rep movsb, once");
    write_dr7(0x400);
}

#define WATCH(name, dr7, insns, ...)                                                                                   \
    do {                                                                                                               \
        write_dr0((word)&cell[1026]);                                                                                  \
        write_dr1((word)buf + 9);                                                                                      \
        write_dr7(0x400 | (dr7));                                                                                      \
        __asm__ volatile("pushal\n movl $1f, %0\n 1: " insns "\n nop\n popal"                                          \
                         : "=m"(base)                                                                                  \
                         : __VA_ARGS__                                                                                 \
                         : "memory", "cc");                                                                            \
        write_dr7(0x400);                                                                                              \
        show(name);                                                                                                    \
    } while (0)
/* DR7 for breakpoint 0: write 4, read/write 4, write 1, read/write 2 */
#define W4 0xd0002
#define RW4 0xf0002
#define W1 0x10002
#define RW2 0x70002

static void data_breakpoints(void)
{
    WATCH("write, dword", W4, "movl $1, cell+4104", "i"(0));
    WATCH("write, byte inside", W4, "movb $1, cell+4107", "i"(0));
    WATCH("write, overlapping from below", W4, "movl $1, cell+4101", "i"(0));
    WATCH("write next to it", W4, "movl $1, cell+4108\n movl $1, cell+4100", "i"(0));
    WATCH("read with a write watch", W4, "movl cell+4104, %%eax", "i"(0));
    WATCH("read with a read/write watch", RW4, "movl cell+4104, %%eax", "i"(0));
    WATCH("rmw", W4, "incl cell+4104", "i"(0));
    WATCH("cmp reads only", W4, "cmpl $0, cell+4104", "i"(0));
    WATCH("one byte", W1, "movb $1, cell+4105\n movb $1, cell+4104", "i"(0));
    WATCH("two bytes", RW2, "movb cell+4106, %%al\n movb cell+4105, %%al", "i"(0));
    WATCH("push", W4, "movl %%esp, %%ecx\n movl $cell+4108, %%esp\n pushl $5\n movl %%ecx, %%esp", "c"(0));
    write_dr0((word)&cell[1026]);
    write_dr7(0x400 | RW4);
    TRY_USER("pop at ring 3",
             __asm__ volatile("movl $1f, base\n movl $cell+4104, %%esp\n 1: popl %%eax\n nop\n int $0x80"
                              :
                              :
                              : "eax", "memory"));
    write_dr7(0x400);
    show("  pop");
    WATCH("call", W4, "movl %%esp, %%ecx\n movl $cell+4108, %%esp\n call 2f\n 2: movl %%ecx, %%esp", "c"(0));
    WATCH("rep stosb stops in the middle", 0x100008, "rep stosb", "c"(4), "D"(buf + 8), "a"(0));
    WATCH("rep movsb, both", 0x300008 | W4, "rep movsb", "c"(4), "S"(buf + 8), "D"((uint32_t)&cell[1026]));
    WATCH("not enabled", 0xd0000, "movl $1, cell+4104", "i"(0));
    WATCH("global enable", 0xd0002, "movl $1, cell+4104", "i"(0));
    WATCH("local enable", 0xd0001, "movl $1, cell+4104", "i"(0));
    WATCH("cmov that is not taken still reads", RW4, "xorl %%eax, %%eax\n cmovnzl cell+4104, %%eax", "i"(0));
    WATCH("lea touches nothing", RW4, "leal cell+4104, %%eax", "i"(0));
    WATCH("mov ss from memory: one later", RW4, "movl $0x10, cell+4104\n movw cell+4104, %%ss\n nop", "i"(0));
}

static void port_breakpoints(void)
{
    write_cr4(read_cr4() | 8);
    write_dr0(0x80);
    write_dr7(0x400 | 0x20002);
    __asm__ volatile("movl $1f, %0\n 1: outb %%al, $0x80\n outb %%al, $0x81\n inb $0x80, %%al\n nop"
                     : "=m"(base)
                     :
                     : "eax");
    write_dr7(0x400);
    show("port 0x80");
    write_cr4(read_cr4() & ~8ul);
}

static void registers(void)
{
    write_dr0(0x12345678);
    write_dr3(0x9abcdef0);
    rt_printf("dr0 %lx dr3 %lx\n", read_dr0(), read_dr3());
    write_dr6(0);
    rt_printf("dr6 of 0: %lx\n", read_dr6());
    write_dr6(0xffffffff);
    rt_printf("dr6 of ones: %lx\n", read_dr6() & ~0x10800ul); /* RTM and BLD as the processor has them */
    write_dr6(0xffff0ff0);
    write_dr7(0);
    rt_printf("dr7 of 0: %lx\n", read_dr7());
    uint32_t x = 0;
    TRY("dr4 is dr6", __asm__ volatile(AT "movl %%dr4, %0" : "=r"(x)); rt_printf("%x ", x));
    TRY("dr5 is dr7", __asm__ volatile(AT "movl %%dr5, %0" : "=r"(x)); rt_printf("%x ", x));
    write_cr4(read_cr4() | 8);
    TRY("dr4 with DE", __asm__ volatile(AT "movl %%dr4, %0" : "=r"(x)));
    TRY("mov to dr5 with DE", __asm__ volatile(AT "movl %0, %%dr5" : : "r"(x)));
    write_cr4(read_cr4() & ~8ul);
    rt_hook = NULL;
    write_dr7(0x2400);
    TRY("GD: mov from dr0", __asm__ volatile(AT "movl %%dr0, %0" : "=r"(x)));
    rt_printf("  dr6 %lx dr7 %lx\n", read_dr6() & 0xe00f, read_dr7());
    write_dr6(0xffff0ff0);
    rt_hook = note;
}

/* RF in the pushed image: set for faults, clear for traps and interrupts (SDM 3B 17.3.1.1). */
static void rf(void)
{
    rt_hook = NULL;
    TRY("ud2", __asm__ volatile(AT "ud2"));
    rt_printf("  RF %lx\n", rt_exc.flags >> 16 & 1);
    TRY("#GP", __asm__ volatile(AT "movl %0, %%es" : : "r"(0x1238)));
    rt_printf("  RF %lx\n", rt_exc.flags >> 16 & 1);
    TRY("#DE", __asm__ volatile(AT "divl %0" : : "r"(0), "a"(1), "d"(0)));
    rt_printf("  RF %lx\n", rt_exc.flags >> 16 & 1);
    TRY("int3", __asm__ volatile(AT "int3"));
    rt_printf("  RF %lx\n", rt_exc.flags >> 16 & 1);
    TRY("int 0x30", __asm__ volatile(AT "int $0x30"));
    rt_printf("  RF %lx\n", rt_exc.flags >> 16 & 1);
    TRY("pushf never shows RF", uint32_t x;
        __asm__ volatile("pushl $0x10002\n pushl %1\n pushl $1f\n iretl\n 1: pushfl\n popl %0"
                         : "=r"(x)
                         : "i"(SEL_KCODE)
                         : "memory", "cc");
        rt_printf("%x ", x & 0x10000));
}

int main(void)
{
    rt_hook = note;
    single_step();
    steps_and_events();
    code_breakpoints();
    data_breakpoints();
    port_breakpoints();
    registers();
    rf();
    return 0;
}

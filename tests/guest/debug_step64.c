/* tests/guest/debug_step64.c - single steps, breakpoints and INT1, INT3, INTO, BOUND in 64-bit code, at ring 0 and ring 3
 * (SDM 3B ch. 17). What does not depend on the mode is in debug_step.c. */
#include "rt.h"

static struct {
    word off, dr6, flags;
    uint16_t cs;
} log_[64];
static unsigned n_log;
static word base __attribute__((used));
static bool set_rf, stop_tf;

static bool note(struct rt_frame *f)
{
    if (f->vec == 0x30 || f->vec == 3)
        return true;
    if (f->vec != 1)
        return false;
    if (n_log < 64) {
        log_[n_log].off = f->ip - base;
        /* B0-B3 may be set for breakpoints that are not enabled, too. */
        word dr7 = read_dr7(), enabled = 0;
        for (unsigned i = 0; i < 4; i++)
            enabled |= (dr7 >> (2 * i) & 3 ? 1ul : 0) << i;
        log_[n_log].dr6 = read_dr6() & (0xe000 | enabled);
        log_[n_log].cs = (uint16_t)f->cs;
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
    for (unsigned i = 0; i < n_log; i++) {
        if (log_[i].off < 0x80)
            rt_printf(" +%lx", log_[i].off);
        else
            rt_printf(" elsewhere");
        rt_printf("/%lx%s%s", log_[i].dr6 & 0xe00f, log_[i].flags & 0x10000 ? "/RF" : "",
                  log_[i].cs & 3 ? "/user" : "");
    }
    rt_printf("\n");
    n_log = 0;
    set_rf = stop_tf = false;
}

#define SAVE "pushq %%rax\n pushq %%rcx\n pushq %%rdx\n pushq %%rbx\n pushq %%rsi\n pushq %%rdi\n pushq %%r8\n"
#define RESTORE "\n popq %%r8\n popq %%rdi\n popq %%rsi\n popq %%rbx\n popq %%rdx\n popq %%rcx\n popq %%rax"

/* Steps through code that starts at label 1; it ends with clearing TF. */
#define STEP(name, insns, ...)                                                                                         \
    do {                                                                                                               \
        __asm__ volatile(SAVE "leaq 1f(%%rip), %%r11\n movq %%r11, %0\n pushfq\n orl $0x100, (%%rsp)\n"                \
                              " popfq\n 1: " insns "\n pushfq\n andl $~0x100, (%%rsp)\n popfq" RESTORE                 \
                         : "=m"(base)                                                                                  \
                         : __VA_ARGS__                                                                                 \
                         : "memory", "cc", "r11");                                                                     \
        show(name);                                                                                                    \
    } while (0)

static uint8_t buf[4096] __attribute__((aligned(64), used));
static volatile uint64_t cell[2048] __attribute__((aligned(64), used));

static void single_step(void)
{
    STEP("nops", "nop\n nop", "i"(0));
    STEP("pushf shows TF", "pushfq\n popq %%rax\n nop", "i"(0));
    STEP("call and ret", "jmp 3f\n 2: nop\n ret\n 3: call 2b\n nop", "i"(0));
    STEP("indirect", "leaq 2f(%%rip), %%rax\n jmp *%%rax\n nop\n 2: nop", "i"(0));
    STEP("rip-relative", "movq cell(%%rip), %%rax\n leaq cell(%%rip), %%rax\n nop", "i"(0));
    STEP("mov ss hides one trap", "movl %%ss, %%eax\n movl %%eax, %%ss\n nop\n nop", "i"(0));
    STEP("mov ds does not", "movl %%ds, %%eax\n movl %%eax, %%ds\n nop", "i"(0));
    STEP("sti does not", "sti\n nop\n cli\n nop", "i"(0));
    STEP("rep movsb: each iteration", "rep movsb\n nop", "c"(3), "S"(buf), "D"(buf + 64));
    STEP("rep stosq: each iteration", "rep stosq\n nop", "c"(3), "D"(buf + 64));
    STEP("rep movsq backwards", "std\n rep movsq\n cld\n nop", "c"(2), "S"(buf + 64), "D"(buf + 128));
    STEP("repe cmpsb that ends early", "repe cmpsb\n nop", "c"(5), "S"("abx"), "D"("aby"));
    STEP("repne scasb", "movb $'c', %%al\n repne scasb\n nop", "c"(9), "D"("abcd"));
    STEP("rep lodsb", "rep lodsb\n nop", "c"(2), "S"(buf));
    STEP("rep with rcx 0", "rep movsb\n nop", "c"(0), "S"(buf), "D"(buf + 64));
    STEP("rep with ecx 0", "addr32 rep movsb\n nop", "c"(0x100000000), "S"(buf), "D"(buf + 64));
    STEP("rep outsb", "movl $0x80, %%edx\n rep outsb\n nop", "c"(2), "S"(buf));
    STEP("cpuid", "xorl %%eax, %%eax\n cpuid\n nop", "c"(0));
    STEP("mov cr0, cr3, cr8",
         "movq %%cr0, %%rax\n movq %%rax, %%cr0\n movq %%cr3, %%rax\n movq %%rax, %%cr3\n movq %%cr8, %%rax\n nop",
         "i"(0));
    STEP("wrmsr, swapgs", "movl $0xc0000102, %%ecx\n rdmsr\n wrmsr\n swapgs\n swapgs\n nop", "c"(0));
    STEP("xmm, lock", "lock incl cell(%%rip)\n cmpxchg16b cell(%%rip)\n nop", "c"(0));
    STEP("popf that keeps it", "pushq $0x102\n popfq\n nop", "i"(0));
    STEP("popf that clears it still traps", "pushq $2\n popfq\n nop\n nop", "i"(0));
    STEP("iret that keeps it",
         "movq %%rsp, %%rax\n pushq %1\n pushq %%rax\n pushq $0x102\n pushq %2\n leaq 2f(%%rip), %%rax\n pushq %%rax\n "
         "iretq\n nop\n 2: nop",
         "i"(SEL_KDATA), "i"(SEL_KCODE));
    STEP("iret that clears it",
         "movq %%rsp, %%rax\n pushq %1\n pushq %%rax\n pushq $2\n pushq %2\n leaq 2f(%%rip), %%rax\n pushq %%rax\n "
         "iretq\n 2: nop",
         "i"(SEL_KDATA), "i"(SEL_KCODE));
    STEP("lretq", "pushq %1\n leaq 2f(%%rip), %%rax\n pushq %%rax\n lretq\n nop\n 2: nop", "i"(SEL_KCODE));
    STEP("int n", "int $0x30\n nop\n nop", "i"(0));
    STEP("int3", "int3\n nop\n nop", "i"(0));
    stop_tf = true;
    __asm__ volatile("leaq 1f(%%rip), %%rax\n movq %%rax, %0\n pushq $0x102\n popfq\n 1: nop\n nop"
                     : "=m"(base)
                     :
                     : "rax", "memory", "cc");
    show("popf that sets it");
    stop_tf = true;
    __asm__ volatile("leaq 1f(%%rip), %%rax\n movq %%rax, %0\n movq %%rsp, %%rax\n pushq %1\n pushq %%rax\n pushq "
                     "$0x102\n pushq %2\n"
                     " leaq 1f(%%rip), %%rax\n pushq %%rax\n iretq\n 1: nop\n nop"
                     : "=m"(base)
                     : "i"(SEL_KDATA), "i"(SEL_KCODE)
                     : "rax", "memory", "cc");
    show("iret that sets it");
    base = 0;
    TRY("a fault is not stepped", __asm__ volatile("pushq $0x102\n popfq\n" AT "ud2" : : : "memory", "cc"));
    rt_printf("  flags %lx\n", rt_exc.flags & ~0x8d5ul);
    show("  steps");
    TRY("a page fault is not stepped",
        __asm__ volatile("movabsq $0xffff900000000000, %%rax\n pushq $0x102\n popfq\n" AT "movl (%%rax), %%eax"
                         :
                         :
                         : "memory", "cc", "rax"));
    show("  steps");
}

/* ---- ring 3 and SYSCALL ---- */

void syscall_entry(void);

__asm__(".globl syscall_entry\n"
        "syscall_entry: nop\n movq %r11, saved_r11(%rip)\n nop\n sysretq\n"
        ".lcomm saved_r11, 8\n");

static void user_syscall(void)
{
    __asm__ volatile("leaq 1f(%%rip), %%rax\n movq %%rax, base\n pushq $0x102\n popfq\n 1: nop\n syscall\n nop\n nop\n "
                     "pushq $2\n popfq\n int $0x80"
                     :
                     :
                     : "rax", "rcx", "r11", "memory", "cc");
}

static void syscalls(void)
{
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);
    wrmsr(0xc0000081, (uint64_t)0x1b << 48 | (uint64_t)SEL_KCODE << 32); /* SYSRET: CS 0x2b, SS 0x23 */
    wrmsr(0xc0000082, (word)syscall_entry);
    wrmsr(0xc0000084, 0x300);
    TRY("syscall that masks TF", rt_user(user_syscall));
    show("  steps");
    wrmsr(0xc0000084, 0);
    TRY("syscall that does not", rt_user(user_syscall));
    show("  steps");
}

static void user_steps(void)
{
    __asm__ volatile("leaq 1f(%%rip), %%rax\n movq %%rax, base\n pushq $0x102\n popfq\n 1: nop\n movq cell(%%rip), "
                     "%%rax\n call 2f\n 2: popq %%rax\n"
                     " pushq $2\n popfq\n nop\n int $0x80"
                     :
                     :
                     : "rax", "memory", "cc");
}
static void user_rep(void)
{
    __asm__ volatile("leaq 1f(%%rip), %%rax\n movq %%rax, base\n pushq $0x102\n popfq\n 1: rep movsb\n nop\n pushq "
                     "$2\n popfq\n int $0x80"
                     :
                     : "c"(3), "S"(buf), "D"(buf + 64)
                     : "rax", "memory", "cc");
}
static void user_int(void)
{
    __asm__ volatile(
        "leaq 1f(%%rip), %%rax\n movq %%rax, base\n pushq $0x102\n popfq\n 1: int3\n nop\n pushq $2\n popfq\n int $0x80"
        :
        :
        : "rax", "memory", "cc");
}
static void user_int1(void)
{
    __asm__ volatile("leaq 1f(%%rip), %%rax\n movq %%rax, base\n 1: .byte 0xf1\n nop\n int $0x80"
                     :
                     :
                     : "rax", "memory");
}
static void user_plain(void)
{
    __asm__ volatile("1: nop\n movq %%rax, cell+64\n movq cell+64, %%rax\n nop\n int $0x80" : : : "rax", "memory");
}

static void ring3(void)
{
    TRY("ring 3", rt_user(user_steps));
    show("  steps");
    TRY("ring 3, rep movsb", rt_user(user_rep));
    show("  steps");
    TRY("ring 3, int3", rt_user(user_int));
    show("  steps");
    TRY("ring 3, int1", rt_user(user_int1));
    show("  sets no bit");
    stop_tf = true;
    base = (word)user_plain;
    TRY("iret to ring 3 with TF",
        rt_user_at(SEL_UCODE64, (word)user_plain, SEL_UDATA, (word)rt_user_stack_top - 64, 0x102));
    rt_printf("  %u trap, user %d\n", n_log, log_[0].cs & 3);
    n_log = 0;
    write_dr0((word)&cell[8]);
    write_dr7(0x400 | 0x90002); /* write, 8 bytes */
    base = (word)user_plain;
    TRY("ring 3, write watched", rt_user(user_plain));
    rt_printf("  %u trap, dr6 %lx\n", n_log, log_[0].dr6 & 0xe00f);
    n_log = 0;
    write_dr7(0x400);
    set_rf = true;
    write_dr1((word)user_plain);
    write_dr7(0x400 | 0x8);
    TRY("ring 3, execution breakpoint", rt_user(user_plain));
    show("  hits");
    write_dr7(0x400);
}

/* ---- breakpoints ---- */

#define WATCH(name, dr7, insns, ...)                                                                                   \
    do {                                                                                                               \
        write_dr0((word)&cell[16]);                                                                                    \
        write_dr1((word)buf + 9);                                                                                      \
        write_dr7(0x400 | (dr7));                                                                                      \
        __asm__ volatile(SAVE "leaq 1f(%%rip), %%r11\n movq %%r11, %0\n 1: " insns "\n nop" RESTORE                    \
                         : "=m"(base)                                                                                  \
                         : __VA_ARGS__                                                                                 \
                         : "memory", "cc", "r11");                                                                     \
        write_dr7(0x400);                                                                                              \
        show(name);                                                                                                    \
    } while (0)
#define W8 0x90002
#define RW8 0xb0002
#define W4 0xd0002
#define RW2 0x70002

static void data_breakpoints(void)
{
    WATCH("write, qword", W8, "movq $1, cell+128", "i"(0));
    WATCH("write, last byte", W8, "movb $1, cell+135", "i"(0));
    WATCH("write, from below", W8, "movq $1, cell+121", "i"(0));
    WATCH("write next to it", W8, "movq $1, cell+120\n movq $1, cell+136", "i"(0));
    WATCH("read with a write watch", W8, "movq cell+128, %%rax", "i"(0));
    WATCH("read with a read/write watch", RW8, "movq cell+128, %%rax", "i"(0));
    WATCH("rip-relative", W8, "movq %%rax, cell+128(%%rip)", "i"(0));
    WATCH("four of the eight bytes watched", W4, "movl $1, cell+132\n movl $1, cell+128", "i"(0));
    WATCH("16-byte store over it", W8, "movups %%xmm0, cell+124", "i"(0));
    WATCH("cmpxchg16b", W8, "movl $0, %%ecx\n cmpxchg16b cell+128", "c"(0));
    WATCH("push", W8, "movq %%rsp, %%rcx\n movq $cell+136, %%rsp\n pushq $5\n movq %%rcx, %%rsp", "c"(0));
    WATCH("call", W8, "movq %%rsp, %%rcx\n movq $cell+136, %%rsp\n call 2f\n 2: movq %%rcx, %%rsp", "c"(0));
    WATCH("rep stosq", W8, "rep stosq", "c"(4), "D"(&cell[14]), "a"(0));
    WATCH("rep stosb in the middle", 0x100008, "rep stosb", "c"(4), "D"(buf + 8), "a"(0));
    WATCH("rep movsb, both", 0x300008 | W4, "rep movsb", "c"(4), "S"(buf + 8), "D"(&cell[16]));
    WATCH("two at once", W8 | 0x100008, "movq cell+128, %%rax\n movb $1, buf+9\n movq $1, cell+128", "i"(0));
    WATCH("not enabled", 0x90000, "movq $1, cell+128", "i"(0));
    WATCH("watch and step", W8,
          "pushfq\n orl $0x100, (%%rsp)\n popfq\n movq $1, cell+128\n pushfq\n andl $~0x100, (%%rsp)\n popfq", "i"(0));
    write_dr0(0xffff800000001000);
    rt_printf("dr0 %lx\n", read_dr0());
}

#define EXEC(name, dr7, at, insns, ...)                                                                                \
    do {                                                                                                               \
        set_rf = true;                                                                                                 \
        __asm__ volatile(SAVE "leaq 1f(%%rip), %%r11\n movq %%r11, %0\n leaq " at                                      \
                              "(%%rip), %%rax\n movq %%rax, %%dr0\n leaq 1f(%%rip), %%rax\n"                           \
                              " movq %%rax, %%dr2\n movl %1, %%eax\n movq %%rax, %%dr7\n 1: " insns                    \
                              "\n movl $0x400, %%eax\n movq %%rax, %%dr7" RESTORE                                      \
                         : "=m"(base)                                                                                  \
                         : "i"(0x400 | (dr7)), ##__VA_ARGS__                                                           \
                         : "memory", "cc", "r11");                                                                     \
        show(name);                                                                                                    \
    } while (0)

static void code_breakpoints(void)
{
    EXEC("first instruction", 2, "1f", "nop\n nop", "c"(0));
    EXEC("later one", 2, "2f", "nop\n nop\n 2: nop\n nop", "c"(0));
    EXEC("two on one", 0x22, "1f", "nop\n nop", "c"(0));
    EXEC("inside an instruction", 2, "1f + 2", "movq $5, %%rax\n nop", "c"(0));
    EXEC("in a loop", 2, "2f", "movl $3, %%edx\n 2: decl %%edx\n jnz 2b", "c"(0));
    EXEC("behind a jump", 2, "2f", "jmp 2f\n nop\n 2: nop", "c"(0));
    EXEC("on rep movsb, once", 2, "1f", "rep movsb", "c"(3), "S"(buf), "D"(buf + 64));
    EXEC("behind mov ss: lost", 2, "2f", "movl %%ss, %%eax\n movl %%eax, %%ss\n 2: nop\n nop", "c"(0));
    set_rf = true;
    TRY("on an instruction that faults",
        __asm__ volatile(
            "leaq 1f(%%rip), %%rax\n movq %%rax, %%dr0\n movq %%rax, base\n movl $0x402, %%eax\n movq %%rax, %%dr7\n" AT
            "1: ud2"
            :
            :
            : "rax", "memory"));
    write_dr7(0x400);
    show("  first");
    rt_printf("GD:");
    write_dr7(0x2400);
    rt_hook = NULL;
    word x = 0;
    TRY("mov from dr3", __asm__ volatile(AT "movq %%dr3, %0" : "=r"(x)));
    rt_printf("  dr6 %lx dr7 %lx\n", read_dr6() & 0xe00f, read_dr7());
    write_dr6(0xffff0ff0);
    TRY("dr6, upper half", __asm__ volatile("movabsq $0x100000000, %%rax\n" AT "movq %%rax, %%dr6" : : : "rax"));
    TRY("dr7, upper half", __asm__ volatile("movabsq $0x100000000, %%rax\n" AT "movq %%rax, %%dr7" : : : "rax"));
    TRY("dr0 takes anything", __asm__ volatile("movabsq $0x123456789abcdef0, %%rax\n" AT "movq %%rax, %%dr0"
                                               :
                                               :
                                               : "rax"));
    rt_printf("  dr0 %lx\n", read_dr0());
    rt_hook = note;
}

static void software(void)
{
    rt_hook = NULL;
    TRY("int1", __asm__ volatile(AT ".byte 0xf1"));
    rt_printf("  RF %lx dr6 %lx\n", rt_exc.flags >> 16 & 1, read_dr6() & 0xe00f);
    TRY("int3", __asm__ volatile(AT "int3"));
    TRY("int $3", __asm__ volatile(AT "int $3"));
    TRY("int $1", __asm__ volatile(AT "int $1"));
    rt_printf("  RF %lx\n", rt_exc.flags >> 16 & 1);
    TRY("into", __asm__ volatile(AT ".byte 0xce"));
    TRY("bound is EVEX", __asm__ volatile(AT ".byte 0x62, 0x03, 0x90, 0x90, 0x90, 0x90"));
    TRY_USER("ring 3: int $1 needs the gate", __asm__ volatile(AT "int $1"));
    TRY_USER("ring 3: int1 does not", __asm__ volatile(AT ".byte 0xf1"));
    TRY_USER("ring 3: int3", __asm__ volatile(AT "int3"));
    rt_gate_default(3, 0x8e);
    TRY_USER("ring 3: int3 needs the gate", __asm__ volatile(AT "int3"));
    TRY("ring 0: int3", __asm__ volatile(AT "int3"));
    rt_gate_default(3, 0xee);
    rt_hook = note;
}

int main(void)
{
    write_cr4(read_cr4() | 0x600);
    rt_hook = note;
    single_step();
    ring3();
    syscalls();
    data_breakpoints();
    code_breakpoints();
    software();
    return 0;
}

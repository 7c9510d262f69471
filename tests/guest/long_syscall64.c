/* tests/guest/long_syscall64.c - SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS and the base registers in long mode. */
#include "rt.h"

static volatile uint64_t seen[16] __attribute__((used));
static volatile uint64_t way_out
    __attribute__((used)); /* 0 = int 0x80, 1 = sysretq, 2 = sysretl, 3 = sysexit, 4 = sysexitq */
static uint8_t stack[4096] __attribute__((aligned(16), used));
__asm__(".text\n"
        "entry: movq %rcx, seen\n movq %r11, seen+8\n movq %rsp, seen+16\n movl %cs, %eax\n movq %rax, seen+24\n"
        "movl %ss, %eax\n movq %rax, seen+32\n movq $stack+4096, %rsp\n pushfq\n popq seen+40\n"
        "cmpq $1, way_out\n je 1f\n cmpq $2, way_out\n je 2f\n cmpq $3, way_out\n je 3f\n cmpq $4, way_out\n je 4f\n "
        "int $0x80\n"
        "1: movq seen+16, %rsp\n sysretq\n"
        "2: movq seen+16, %rsp\n movl $compat_there, %ecx\n sysretl\n"
        "3: movl $compat_there, %edx\n movl $0x380000, %ecx\n sysexitl\n"
        "4: movq $long_there, %rdx\n movl $0x380000, %ecx\n sysexitq\n"
        "long_there: movl %cs, %eax\n movq %rax, seen+48\n movl %ss, %eax\n movq %rax, seen+56\n movq %rsp, seen+64\n "
        "int $0x80\n"
        ".code32\n compat_there: movl %cs, %eax\n movl %eax, seen+48\n movl %ss, %eax\n movl %eax, seen+56\n movl "
        "%esp, seen+64\n"
        "int $0x80\n .code64\n");
extern void entry(void);

static void user_syscall(void)
{
    __asm__ volatile("pushq $0x4ed7\n popfq\n movq %%rsp, seen+72\n" AT
                     "syscall\n 772: pushfq\n popq seen+80\n movq %%rcx, seen+88\n"
                     "movq $772b, %%rax\n movq %%rax, seen+96\n movq %%rsp, seen+104\n"
                     :
                     :
                     : "rax", "rcx", "r11", "memory", "cc");
}

static void show_entry(void)
{
    rt_printf("  r11 %llx rsp same %d cs %llx ss %llx flags %llx\n", (unsigned long long)seen[1], seen[2] == seen[9],
              (unsigned long long)seen[3], (unsigned long long)seen[4], (unsigned long long)seen[5]);
}

static void syscalls(void)
{
    wrmsr(0xc0000080, rdmsr(0xc0000080) & ~1ull);
    TRY_USER("syscall without SCE", user_syscall());
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);
    wrmsr(0xc0000081, 0x001b000800000000ull);
    wrmsr(0xc0000082, (word)entry);
    wrmsr(0xc0000084, 0x0700); /* masks TF, IF, DF */
    way_out = 0;
    TRY("syscall", rt_user(user_syscall));
    show_entry();
    way_out = 1;
    TRY("syscall and sysretq", rt_user(user_syscall));
    rt_printf("  flags %llx rcx is rip %d rsp same %d, cs now %lx ss %lx\n", (unsigned long long)seen[10] & ~0x8d5ull,
              seen[11] == seen[12], seen[13] == seen[9], rt_exc.cs, rt_exc.ss);
    way_out = 2;
    TRY("syscall and sysretl", rt_user(user_syscall));
    rt_printf("  cs %llx ss %llx, at the trap cs %lx ss %lx\n", (unsigned long long)seen[6],
              (unsigned long long)seen[7], rt_exc.cs, rt_exc.ss);
    wrmsr(0xc0000084, 0x4700 | 0x8d5);
    way_out = 0;
    TRY("syscall with another mask", rt_user(user_syscall));
    rt_printf("  flags %llx r11 %llx\n", (unsigned long long)seen[5], (unsigned long long)seen[1]);
    TRY("syscall from ring 0", user_syscall());
    rt_printf("  cs %llx\n", (unsigned long long)seen[3]);
    TRY_USER("sysretq at ring 3", __asm__ volatile(AT "sysretq"));
    TRY("lstar non-canonical", rt_at = 0; wrmsr(0xc0000082, 0x800000000000ull));
    TRY("cstar non-canonical", rt_at = 0; wrmsr(0xc0000083, 0x800000000000ull));
}

static void sysenters(void)
{
    wrmsr(0x174, 0);
    TRY_USER("sysenter with a null CS", __asm__ volatile(AT "sysenter"));
    TRY("sysexit with a null CS", __asm__ volatile(AT "sysexitl"));
    wrmsr(0x174, SEL_KCODE);
    wrmsr(0x175, (word)stack + 4096);
    wrmsr(0x176, (word)entry);
    way_out = 0;
    TRY_USER("sysenter", __asm__ volatile("pushq $0x202\n popfq\n" AT "sysenter"));
    rt_printf("  cs %llx ss %llx rsp is the MSR's %d flags %llx\n", (unsigned long long)seen[3],
              (unsigned long long)seen[4], seen[2] == (word)stack + 4096, (unsigned long long)seen[5] & ~0x8d5ull);
    way_out = 3;
    TRY_USER("sysenter and sysexitl", __asm__ volatile("sysenter"));
    rt_printf("  cs %llx ss %llx esp %llx\n", (unsigned long long)seen[6], (unsigned long long)seen[7],
              (unsigned long long)seen[8]);
    way_out = 4;
    TRY_USER("sysenter and sysexitq", __asm__ volatile("sysenter"));
    rt_printf("  cs %llx ss %llx rsp %llx\n", (unsigned long long)seen[6], (unsigned long long)seen[7],
              (unsigned long long)seen[8]);
    TRY_USER("sysexit at ring 3", __asm__ volatile(AT "sysexitq"));
    TRY("sysexitq to non-canonical", __asm__ volatile(AT "sysexitq" : : "d"(0x800000000000ul), "c"(0x380000)));
}

static void bases(void)
{
    static uint64_t a = 0x1111, b = 0x2222;
    wrmsr(0xc0000101, (word)&a);
    wrmsr(0xc0000102, (word)&b);
    uint64_t x;
    __asm__ volatile("movq %%gs:0, %0" : "=r"(x));
    rt_printf("gs:0 %llx\n", (unsigned long long)x);
    __asm__ volatile("swapgs\n movq %%gs:0, %0" : "=r"(x));
    rt_printf("after swapgs %llx, msrs swapped %d\n", (unsigned long long)x,
              rdmsr(0xc0000101) == (word)&b && rdmsr(0xc0000102) == (word)&a);
    TRY_USER("swapgs at ring 3", __asm__ volatile(AT "swapgs"));
    wrmsr(0xc0000100, (word)&a);
    __asm__ volatile("movq %%fs:0, %0" : "=r"(x));
    rt_printf("fs:0 %llx\n", (unsigned long long)x);
    __asm__ volatile("movl %1, %%fs\n movq %%fs:(%2), %0" : "=r"(x) : "r"(SEL_KDATA), "r"(&b));
    rt_printf("fs loaded with flat data %llx, base msr %llx\n", (unsigned long long)x,
              (unsigned long long)rdmsr(0xc0000100));
    rt_gdt[SEL_FREE / 8] = rt_desc(0x300000, 0, 0x4093);
    *(volatile uint64_t *)0x310000 = 0x3333;
    __asm__ volatile("movl %1, %%gs\n movq %%gs:0x10000, %0" : "=r"(x) : "r"(SEL_FREE));
    rt_printf("gs with a base and no limit %llx, base msr %llx\n", (unsigned long long)x,
              (unsigned long long)rdmsr(0xc0000101));
    __asm__ volatile("movl %1, %%es\n movq %%es:0x310000, %0\n movl %2, %%es"
                     : "=&r"(x)
                     : "r"(SEL_FREE), "r"(SEL_KDATA));
    rt_printf("es has no base %llx\n", (unsigned long long)x);
    TRY("fs base non-canonical", rt_at = 0; wrmsr(0xc0000100, 0x800000000000ull));
    TRY("kernel gs base non-canonical", rt_at = 0; wrmsr(0xc0000102, 1ull << 63));
    TRY_ASM("rdfsbase without FSGSBASE", "rdfsbase %%rax", "a"(0));
    write_cr4(read_cr4() | 0x10000);
    TRY("wrfsbase", __asm__ volatile("wrfsbase %1\n movq %%fs:0, %0"
                                     : "=&r"(x)
                                     : "r"(&b));
        rt_printf("%llx ", (unsigned long long)x));
    TRY("wrgsbase 32-bit", __asm__ volatile("wrgsbase %k1\n rdgsbase %0"
                                            : "=&r"(x)
                                            : "r"(0xffffffff12345678ul));
        rt_printf("%llx ", (unsigned long long)x));
    TRY("wrfsbase non-canonical", __asm__ volatile(AT "wrfsbase %0" : : "r"(0x800000000000ul)));
    TRY_USER("wrfsbase at ring 3", __asm__ volatile(AT "wrfsbase %0" : : "r"(0x1000ul)));
    rt_printf("fs base %llx\n", (unsigned long long)rdmsr(0xc0000100));
    write_cr4(read_cr4() & ~0x10000ul);
    TRY_ASM("wrgsbase without FSGSBASE", "wrgsbase %%rax", "a"(0));
    /* Loading a null selector: Intel clears the base, AMD keeps it; not printed. */
}

int main(void)
{
    syscalls();
    sysenters();
    bases();
    return 0;
}

/* tests/user/guest/unfit.c - what cannot run directly, in a process that computes first, so that user=auto runs it directly: MMIO
 * mapped into user space, ports, a 16-bit code segment. One line for each, "ok NAME" if it works as on a PC. Guests only. */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void compute(unsigned ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    long long end = t.tv_sec * 1000ll + t.tv_nsec / 1000000 + ms, now;
    do {
        for (volatile unsigned i = 0; i < 500000; i++)
            ;
        clock_gettime(CLOCK_MONOTONIC, &t);
        now = t.tv_sec * 1000ll + t.tv_nsec / 1000000;
    } while (now < end);
}

/* The I/O APIC's index register; the kernel writes it before each use of its own. */
static int mmio(void)
{
    mknod("/tmp/mem", S_IFCHR | 0600, makedev(1, 1));
    int fd = open("/tmp/mem", O_RDWR);
    volatile uint32_t *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0xfec00000);
    if (fd < 0 || p == MAP_FAILED) {
        perror("/dev/mem");
        return 0;
    }
    compute(50);
    unsigned bad = 0;
    for (unsigned i = 0; i < 1000; i++) {
        p[0] = i % 2;
        bad += (p[0] & 0xff) != i % 2;
    }
    if (bad > 100) /* interrupts may come between */
        printf("I/O APIC: %u times another index\n", bad);
    return bad <= 100;
}

static int ports(void)
{
    if (iopl(3))
        return 0;
    compute(50);
    unsigned toggled = 0, last = inb(0x61) & 0x10;
    for (unsigned i = 0; i < 20000; i++) { /* the refresh bit */
        unsigned now = inb(0x61) & 0x10;
        toggled += now != last;
        last = now;
        outb(0, 0x80);
    }
    return toggled > 10;
}

static uint64_t saved_rsp __attribute__((used));
/* A far call out of 64-bit code into a 16-bit segment: 32-bit return frame, stack below 4 GiB. */
static unsigned call16(const void *target, void *stack_top)
{
    unsigned v;
    __asm__ volatile("mov %%rsp, saved_rsp\n mov %2, %%rsp\n lcall *(%1)\n mov saved_rsp, %%rsp\n"
                     : "=&a"(v)
                     : "r"(target), "r"(stack_top)
                     : "rbx", "rcx", "rdx", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory",
                       "cc");
    return v & 0xffff;
}

static int code16(void)
{
    static const uint8_t code[] = {0xb8, 0x34, 0x12, 0x40, 0x66, 0xcb}; /* mov ax, 1234h; inc ax; o32 retf */
    uint8_t *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (p == MAP_FAILED)
        return 0;
    memcpy(p, code, sizeof code);
    struct user_desc d = {.entry_number = 3,
                          .base_addr = (unsigned)(uintptr_t)p,
                          .limit = 4095,
                          .useable = 1,
                          .contents = MODIFY_LDT_CONTENTS_CODE};
    compute(50);
    if (syscall(SYS_modify_ldt, 1, &d, sizeof d))
        return 0;
    struct {
        uint32_t offset;
        uint16_t sel;
    } __attribute__((packed)) target = {0, 3 * 8 + 7};
    for (unsigned i = 0; i < 1000; i++)
        if (call16(&target, p + 8192 - 64) != 0x1235)
            return 0;
    return 1;
}

/* Nothing but system calls after so much computing: worth a demotion. */
static int storm(void)
{
    compute(300);
    for (unsigned i = 0; i < 200000; i++)
        if (syscall(SYS_getppid) <= 0)
            return 0;
    return 1;
}

int main(void)
{
    static const struct {
        const char *name;
        int (*f)(void);
    } test[] = {{"storm", storm}, {"mmio", mmio}, {"ports", ports}, {"code16", code16}};
    int bad = 0;
    for (unsigned i = 0; i < sizeof test / sizeof test[0]; i++) {
        int good = test[i].f();
        printf("%s unfit-%s\n", good ? "ok" : "FAIL", test[i].name);
        fflush(stdout);
        bad |= !good;
    }
    return bad;
}

/* tests/guest/nmi_basic.c - NMIs, which the local APIC sends to itself: what they save, blocking until IRET, one kept pending,
 * shadows, faults while one is delivered, HLT, ring 3 (SDM 3A 6.7). nmi_basic64.c is the same in 64-bit code.
 *
 * How long an NMI takes to arrive is not defined, so the guest waits for it, or for long enough to say that it does not come. */
#include "rt.h"

#define ICR_LOW ((volatile uint32_t *)0xfee00300)
#define ICR_HIGH ((volatile uint32_t *)0xfee00310)
#define APIC_ID ((volatile uint32_t *)0xfee00020)
#define SVR ((volatile uint32_t *)0xfee000f0)

#define IOAPIC ((volatile uint32_t *)0xfec00000)
#ifdef __x86_64__
#define DX "rdx"
#else
#define DX "edx"
#endif

static volatile unsigned count, depth, deepest;
static volatile bool send_more, faulting_iret, seen_gp;
static volatile word last_ip, last_cs, last_flags, last_cx;
static word base __attribute__((used));

static void send(void)
{
    *ICR_HIGH = *APIC_ID; /* the ID is in the same bits */
    *ICR_LOW = 0x4400;
}

static bool wait_for(unsigned n)
{
    for (unsigned i = 0; i < 200000 && count < n; i++)
        __asm__ volatile("" : : : "memory");
    return count >= n;
}

static void linger(void)
{
    for (volatile unsigned i = 0; i < 20000; i++)
        ;
}

/* An IRET to here, from inside the handler, with the stack as it is. */
static void iret_to_next(void)
{
#ifdef __x86_64__
    __asm__ volatile("movq %%rsp, %%rax\n pushq %0\n pushq %%rax\n pushfq\n pushq %1\n pushq $1f\n iretq\n 1:"
                     :
                     : "i"(SEL_KDATA), "i"(SEL_KCODE)
                     : "rax", "memory", "cc");
#else
    __asm__ volatile("pushfl\n pushl %0\n pushl $1f\n iretl\n 1:" : : "i"(SEL_KCODE) : "memory", "cc");
#endif
}

/* IRET to a selector that is not there: #GP at the IRET. */
static void iret_that_faults(void)
{
#ifdef __x86_64__
    __asm__ volatile("movq %%rsp, %%rax\n pushq %0\n pushq %%rax\n pushfq\n pushq $0x1f8\n pushq $1f\n"
                     "iretq\n 1: movq %%rax, %%rsp"
                     :
                     : "i"(SEL_KDATA)
                     : "rax", "memory", "cc");
#else
    __asm__ volatile("movl %%esp, %%eax\n pushfl\n pushl $0x1f8\n pushl $1f\n iretl\n 1: movl %%eax, %%esp"
                     :
                     :
                     : "eax", "memory", "cc");
#endif
}

static bool on_nmi(struct rt_frame *f)
{
    if (f->vec == 13 && faulting_iret) { /* steps over the IRET of one or two bytes; without a real return */
        seen_gp = true;
        f->ip += *(uint8_t *)f->ip == 0x48 ? 2 : 1;
        return true;
    }
    if (f->vec != 2)
        return false;
    depth++;
    if (depth > deepest)
        deepest = depth;
    count++;
    last_ip = f->ip - base;
    last_cs = f->cs & 0xffff;
    last_flags = f->flags;
    last_cx = f->cx;
    if (send_more) {
        send_more = false;
        unsigned before = count;
        send();
        send();
        linger();
        rt_printf("  inside the handler: %u more\n", count - before);
        if (faulting_iret) {
            iret_that_faults();
            linger();
            rt_printf("  after an IRET that faulted: #GP %d, %u more\n", seen_gp, count - before);
            faulting_iret = false;
        } else if (deepest == 1) {
            iret_to_next();
            linger();
            rt_printf("  after an IRET inside it: %u more\n", count - before);
        }
    }
    depth--;
    return true;
}

static void start(void) { count = depth = deepest = 0; }

static void plain(void)
{
    start();
    send();
    rt_printf("with IF = 0: %d, cs %lx, IF %lx\n", wait_for(1), last_cs, last_flags >> 9 & 1);
    set_flags(0x202);
    start();
    send();
    rt_printf("with IF = 1: %d, IF %lx\n", wait_for(1), last_flags >> 9 & 1);
    set_flags(2);
    start();
    for (unsigned i = 1; i <= 1000; i++) {
        send();
        if (!wait_for(i))
            rt_printf("number %u does not come\n", i);
    }
    rt_printf("a thousand: %u\n", count);
}

static void blocking(void)
{
    rt_printf("two more while one is handled:\n");
    start();
    send_more = true;
    send();
    wait_for(2);
    linger();
    rt_printf("  then %u in all, nested %u deep\n", count, deepest);
    rt_printf("an IRET that faults ends the blocking too:\n");
    start();
    send_more = faulting_iret = true;
    send();
    wait_for(2);
    linger();
    rt_printf("  then %u in all\n", count);
}

/* MOV SS holds NMIs back for one instruction; STI may or may not. Both come afterwards. */
static void shadows(void)
{
    start();
    *ICR_HIGH = *APIC_ID;
    __asm__ volatile("movl %0, %%ss\n movl $0x4400, (%1)\n" : : "r"(SEL_KDATA), "r"(ICR_LOW) : "memory");
    rt_printf("sent behind MOV SS: %d\n", wait_for(1));
    start();
    *ICR_HIGH = *APIC_ID;
    __asm__ volatile("sti\n movl $0x4400, (%0)\n cli" : : "r"(ICR_LOW) : "memory");
    rt_printf("sent behind STI: %d\n", wait_for(1));
    start();
    *ICR_HIGH = *APIC_ID;
    __asm__ volatile("movl $0x4400, (%1)\n movl %0, %%ss\n nop" : : "r"(SEL_KDATA), "r"(ICR_LOW) : "memory");
    rt_printf("sent in front of MOV SS: %d\n", wait_for(1));
}

/* The timer's interrupt line as an NMI, through the I/O APIC: it comes at any moment. */
static void timer_nmi(bool on)
{
    IOAPIC[0] = 0x15;
    IOAPIC[4] = *APIC_ID;
    IOAPIC[0] = 0x14;
    IOAPIC[4] = on ? 0x402 : 0x10402;
    if (on)
        rt_pit(1193, 2); /* 1 ms */
}

static void halted(void)
{
    timer_nmi(true);
    start();
    unsigned before = count;
    for (unsigned i = 0; i < 5; i++)
        __asm__ volatile("cli\n hlt" : : : "memory");
    rt_printf("HLT with IF = 0 is woken: %d\n", count >= before + 5);
    timer_nmi(false);
}

/* A long string instruction is interrupted between two iterations, with RF = 1 on the stack (SDM 3B 17.3.1.1). */
static void strings(void)
{
    enum { BYTES = 0x400000 };
    uint8_t *to = (uint8_t *)0x1000000;
    bool inside = false, rf = false;
    timer_nmi(true);
    /* An interruption that comes before the first iteration after the last one may show RF = 0. */
    for (unsigned i = 0; i < 50 && !(inside && rf); i++) {
        word n = BYTES;
        void *d = to;
        last_cx = 0;
        __asm__ volatile("movl $1f, %%edx\n mov %%" DX ", base\n 1: rep stosb"
                         : "+c"(n), "+D"(d)
                         : "a"(i)
                         : DX, "memory");
        bool now = last_ip == 0 && last_cx > 0 && last_cx < BYTES;
        inside |= now;
        rf |= now && (last_flags & 0x10000);
        if (n != 0 || d != to + BYTES || to[0] != (uint8_t)i || to[BYTES - 1] != (uint8_t)i)
            rt_printf("round %u: wrong registers or memory\n", i);
    }
    timer_nmi(false);
    rt_printf("inside REP STOSB: %d\n", inside);
    rt_printf("RF pushed: %d\n", rf);
}

static void user_spin(void)
{
    unsigned seen = count;
    for (unsigned i = 0; i < 200000 && count == seen; i++)
        __asm__ volatile("" : : : "memory");
}

static void user_send(void)
{
    *ICR_LOW = 0x4400; /* pages are the user's too */
    user_spin();
}

static void rings(void)
{
    start();
    *ICR_HIGH = *APIC_ID;
    TRY("ring 3", rt_user(user_send));
    rt_printf("  %u, cs %lx\n", count, last_cs);
}

static void faults(void)
{
    /* The gate of vector 2 is not present: #NP with the EXT bit, in place of the NMI. NMIs stay blocked until an IRET. */
    start();
    rt_gate_default(2, 0x0e);
    TRY("gate not present", send(); linger());
    rt_gate_default(2, 0x8e);
    iret_to_next();
    send();
    rt_printf("  the next one: %d\n", wait_for(1));
    start();
    rt_gate(2, (void (*)(void))0, 0x1f8, 0x8e);
    TRY("gate to a bad selector", send(); linger());
    rt_gate_default(2, 0x8e);
    iret_to_next();
    /* Both gates bad: #NP while #NP is delivered is a double fault; an NMI is benign. */
    rt_gate_default(2, 0x0e);
    rt_gate_default(11, 0x0e);
    TRY("#NP not present either", send(); linger());
    rt_gate_default(2, 0x8e);
    rt_gate_default(11, 0x8e);
    iret_to_next();
    /* INT 2 is no NMI: nothing is blocked. */
    start();
    rt_gate_default(2, 0x8e);
    send_more = true;
    __asm__ volatile("int $2");
    linger();
    rt_printf("int 2: then %u in all\n", count);
}

int main(void)
{
    rt_hook = on_nmi;
    wrmsr(0x1b, rdmsr(0x1b) | 0x800);
    *SVR = 0x1ff;
    plain();
    blocking();
    shadows();
    halted();
    strings();
    rings();
    faults();
    return 0;
}

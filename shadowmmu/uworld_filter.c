/* shadowmmu/uworld_filter.c - the seccomp filters of a world's two threads. See uworld_int.h, UW-2. */
#define _GNU_SOURCE
#include "shadowmmu/uworld_int.h"
#include "base/check.h"
#include <errno.h>
#include <linux/audit.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define OFF_NR offsetof(struct seccomp_data, nr)
#define OFF_ARCH offsetof(struct seccomp_data, arch)
#define OFF_IP offsetof(struct seccomp_data, instruction_pointer)
#define OFF_ARG(i) (offsetof(struct seccomp_data, args) + 8 * (i))

/* A program being written. Tests jump over the rest of their clause when they fail; clauses are short and end in a return. */
struct prog {
    struct sock_filter *f;
    unsigned n, max;
};

static void put(struct prog *p, uint16_t code, uint32_t k, unsigned jt, unsigned jf)
{
    CHECK(p->n < p->max);
    p->f[p->n++] = (struct sock_filter){.code = code, .jt = (uint8_t)jt, .jf = (uint8_t)jf, .k = k};
}
static void ret(struct prog *p, uint32_t action) { put(p, BPF_RET | BPF_K, action, 0, 0); }

/* Fails unless the word at off is val. Failing jumps are collected by clause_end. */
static void want(struct prog *p, size_t off, uint32_t val)
{
    put(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)off, 0, 0);
    put(p, BPF_JMP | BPF_JEQ | BPF_K, val, 0, 0xff);
}
static void want64(struct prog *p, size_t off, uint64_t val)
{
    want(p, off, (uint32_t)val);
    want(p, off + 4, (uint32_t)(val >> 32));
}
/* Ends the clause that began at start: allow if nothing failed; go on after it otherwise. */
static void clause_end(struct prog *p, unsigned start)
{
    ret(p, SECCOMP_RET_ALLOW);
    for (unsigned i = start; i < p->n; i++)
        if (p->f[i].code == (BPF_JMP | BPF_JEQ | BPF_K) && p->f[i].jf == 0xff)
            p->f[i].jf = (uint8_t)(p->n - i - 1);
}

static uint64_t ip_of(uint64_t base, const char *label) { return base + (uint64_t)(label - uw_stub); }

static void guest_clause(struct prog *p, uint64_t ip, uint32_t nr)
{
    want64(p, OFF_IP, ip);
    want(p, OFF_NR, nr);
    want(p, OFF_ARCH, AUDIT_ARCH_X86_64);
}

/* The way back, and futex waits and wakes on the turn word; all else is an event, with the registers as they were. */
static unsigned guest_filter(struct sock_filter *f, unsigned max, uint64_t base)
{
    struct prog p = {f, 0, max};
    unsigned start = p.n;
    guest_clause(&p, ip_of(base, uw_ip_return), SYS_rt_sigreturn);
    clause_end(&p, start);
    static const char *const label[2] = {uw_ip_wait, uw_ip_wake};
    for (unsigned i = 0; i < 2; i++) {
        start = p.n;
        guest_clause(&p, ip_of(base, label[i]), SYS_futex);
        want64(&p, OFF_ARG(0), base + UW_M_TURN);
        want64(&p, OFF_ARG(1), i ? FUTEX_WAKE : FUTEX_WAIT);
        clause_end(&p, start);
    }
    ret(&p, SECCOMP_RET_TRAP);
    return p.n;
}

static void mapper_clause_nr(struct prog *p, uint32_t nr)
{
    want(p, OFF_ARCH, AUDIT_ARCH_X86_64);
    want(p, OFF_NR, nr);
}

/* Nobody but the mapper's own loop can make its calls; this is a second fence. */
static unsigned mapper_filter(struct sock_filter *f, unsigned max, uint64_t base)
{
    struct prog p = {f, 0, max};
    unsigned start = p.n;
    mapper_clause_nr(&p, SYS_mmap);
    want64(&p, OFF_ARG(4), UW_FD_MEM);
    clause_end(&p, start);
    static const uint32_t plain[] = {SYS_munmap, SYS_mprotect, SYS_futex, SYS_modify_ldt};
    for (unsigned i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        start = p.n;
        mapper_clause_nr(&p, plain[i]);
        clause_end(&p, start);
    }
    start = p.n;
    mapper_clause_nr(&p, SYS_pwrite64);
    want64(&p, OFF_ARG(0), UW_FD_CTL);
    want64(&p, OFF_ARG(2), 4);
    clause_end(&p, start);
    ret(&p, SECCOMP_RET_KILL_PROCESS);
    return p.n;
}

/* Blocked while guest code runs: all but what the CPU raises, and the kick. */
static uint64_t guest_mask(void)
{
    static const int open[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, UW_SIG_KICK};
    uint64_t mask = ~0ull;
    for (unsigned i = 0; i < sizeof open / sizeof open[0]; i++)
        mask &= ~(1ull << (open[i] - 1));
    return mask;
}

void uw_const_init(struct uw_const *c, uint64_t base)
{
    memset(c, 0, sizeof *c);
    uint64_t at = base + UW_CONST;
    c->prog_guest[0] = guest_filter(c->guest, 64, base);
    c->prog_guest[1] = at + offsetof(struct uw_const, guest);
    c->prog_mapper[0] = mapper_filter(c->mapper, 64, base);
    c->prog_mapper[1] = at + offsetof(struct uw_const, mapper);
    c->guest_mask = guest_mask();
    for (unsigned i = 0; i < UW_C_ERRNOS; i++)
        c->number[i] = i;
}

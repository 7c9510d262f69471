/* String instructions: every one against a byte-by-byte model, faults in the middle, segments, ports. Own copy of string.c,
 * so that ports can be played. */
#define sys_io_allowed t_io_allowed
#define sys_in t_in
#define sys_out t_out
#define sys_string t_string
#define vcpu_pio t_pio
#include "monitor/string.c"
#include "tests/unit/monitor/test_segment_env.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static struct {
    uint16_t port;
    unsigned size;
    bool write;
    uint32_t val;
} log_pio[64];
static unsigned n_pio, stop_at = ~0u;
int vcpu_pio(struct vcpu *w, uint16_t port, unsigned size, bool is_write, uint32_t *val)
{
    if (n_pio == stop_at)
        return SYS_EXIT;
    log_pio[n_pio].port = port;
    log_pio[n_pio].size = size;
    log_pio[n_pio].write = is_write;
    if (is_write)
        log_pio[n_pio].val = *val;
    else
        *val = 0x30303030u + n_pio;
    n_pio++;
    return 0;
}

static void fresh_ports(void)
{
    n_pio = 0;
    stop_at = ~0u;
}
TestSuite(string, .init = fresh_ports, .fini = env_free);

static struct sys_op str(unsigned code, unsigned size, unsigned asize, unsigned flags)
{
    return (struct sys_op){.op = (uint8_t)code,
                           .opsize = (uint8_t)size,
                           .asize = (uint8_t)asize,
                           .seg = S_DS,
                           .len = 2,
                           .flags = (uint8_t)flags};
}
static void regs(uint64_t cx, uint64_t s, uint64_t d)
{
    v->c.gpr[R_RCX] = cx;
    v->c.gpr[R_RSI] = s;
    v->c.gpr[R_RDI] = d;
}
static void expect_regs(const char *what, uint64_t cx, uint64_t s, uint64_t d)
{
    cr_expect_eq(v->c.gpr[R_RCX], cx, "%s: rcx %lx, wanted %lx", what, v->c.gpr[R_RCX], cx);
    cr_expect_eq(v->c.gpr[R_RSI], s, "%s: rsi %lx, wanted %lx", what, v->c.gpr[R_RSI], s);
    cr_expect_eq(v->c.gpr[R_RDI], d, "%s: rdi %lx, wanted %lx", what, v->c.gpr[R_RDI], d);
}

/* Page not_present of the identity map of env_long: a 4 KiB table replaces the second 2 MiB page. */
static void unmap(uint64_t page)
{
    uint64_t pt = TABLES + 0x3000;
    for (unsigned i = 0; i < 512; i++)
        put(pt + 8 * i, 8, (0x200000 + i * 0x1000ull) | 7);
    put(pt + 8 * ((page >> 12) & 511), 8, 0);
    put(TABLES + 0x2008, 8, pt | 7);
}

/* ---- against a model ---- */

#define LO 0x210000ull
#define AREA 0x3000u
static uint8_t model_ram[AREA];
static uint64_t m_acc, m_cx, m_si, m_di;
static uint32_t m_flags;

static uint64_t get_m(uint64_t at, unsigned n)
{
    uint64_t x = 0;
    memcpy(&x, model_ram + (at - LO), n);
    return x;
}
/* Flags of a - b, n bytes, from the definition. */
static uint32_t sub_flags(uint64_t a, uint64_t b, unsigned n)
{
    unsigned bits = 8 * n;
    uint64_t mask = n == 8 ? ~0ull : (1ull << bits) - 1, r = (a - b) & mask;
    uint32_t f = a < b ? EFLAGS_CF : 0;
    f |= r == 0 ? EFLAGS_ZF : 0;
    f |= r >> (bits - 1) & 1 ? EFLAGS_SF : 0;
    f |= ((a ^ b) & (a ^ r)) >> (bits - 1) & 1 ? EFLAGS_OF : 0;
    f |= (a ^ b ^ r) & 0x10 ? EFLAGS_AF : 0;
    return f | (__builtin_popcount((unsigned)(r & 0xff)) & 1 ? 0 : EFLAGS_PF);
}
static void model_step(unsigned code, unsigned n)
{
    uint64_t mask = n == 8 ? ~0ull : (1ull << 8 * n) - 1, x;
    switch (code) {
    case SYS_OP_MOVS:
        x = get_m(m_si, n);
        memcpy(model_ram + (m_di - LO), &x, n);
        break;
    case SYS_OP_STOS: memcpy(model_ram + (m_di - LO), &m_acc, n); break;
    case SYS_OP_LODS:
        x = get_m(m_si, n);
        m_acc = n == 4 ? x : (m_acc & ~mask) | x;
        break;
    case SYS_OP_CMPS: m_flags = sub_flags(get_m(m_si, n), get_m(m_di, n), n); break;
    case SYS_OP_SCAS: m_flags = sub_flags(m_acc & mask, get_m(m_di, n), n); break;
    }
}
static void model_run(unsigned code, unsigned n, bool down, unsigned flags)
{
    int64_t d = down ? -(int64_t)n : (int64_t)n;
    while (!flags || m_cx) {
        model_step(code, n);
        if (uses_si(code))
            m_si += (uint64_t)d;
        if (uses_di(code))
            m_di += (uint64_t)d;
        if (!flags)
            break;
        m_cx--;
        bool compare = code == SYS_OP_CMPS || code == SYS_OP_SCAS;
        if (compare && !(m_flags & EFLAGS_ZF) == !(flags & SYS_F_REPNE))
            break;
    }
}

static void one_case(unsigned seed)
{
    static const unsigned codes[] = {SYS_OP_MOVS, SYS_OP_STOS, SYS_OP_LODS, SYS_OP_CMPS, SYS_OP_SCAS};
    static const unsigned reps[] = {0, SYS_F_REP, SYS_F_REPNE};
    unsigned code = codes[rand() % 5], n = 1u << rand() % 4, flags = reps[rand() % 3];
    bool down = rand() & 1;
    uint8_t *ram = gpmem_ptr(v->mem, LO);
    uint64_t span = AREA / 2 - 64, base = down ? LO + AREA - 64 : LO + 16;
    for (unsigned i = 0; i < AREA; i++) /* few different bytes: comparisons run for a while */
        model_ram[i] = ram[i] = rand() % 64 ? 7 : (uint8_t)rand();
    uint64_t off = (uint64_t)rand() % span;
    m_si = down ? base - off : base + off;
    m_di = rand() & 1 ? m_si + (uint64_t)(rand() % 33) - 16 : base + (down ? -1ull : 1ull) * ((uint64_t)rand() % span);
    m_cx = (uint64_t)rand() % (span / n);
    m_acc = v->c.gpr[R_RAX] = rand() & 1 ? 0x0707070707070707ull : (uint64_t)rand() * 0x100000001ull;
    v->c.df_flag = down;
    v->c.flags = m_flags = (uint32_t)rand() & EFLAGS_ARITH;
    regs(m_cx, m_si, m_di);
    model_run(code, n, down, flags);
    cr_assert_eq(sys_string(v, str(code, n, 8, flags)), SYS_NEXT);
    expect_regs("model", m_cx, m_si, m_di);
    cr_assert_eq(v->c.flags, m_flags, "seed %u: op %u size %u rep %u down %d: flags %x, wanted %x", seed, code, n,
                 flags, down, v->c.flags, m_flags);
    cr_assert_eq(v->c.gpr[R_RAX], m_acc, "seed %u op %u size %u", seed, code, n);
    cr_assert_eq(memcmp(ram, model_ram, AREA), 0, "seed %u: op %u size %u rep %u down %d", seed, code, n, flags, down);
}

Test(string, random_cases_equal_the_model)
{
    env_long(0);
    unmap(0x3ff000);
    for (unsigned seed = 1; seed <= 3000; seed++) {
        srand(seed);
        one_case(seed);
    }
}

/* ---- counts and registers ---- */

Test(string, count_zero_touches_nothing)
{
    env_long(0);
    regs(0, 0x123456789abcdef0ull, 0x8000000000000000ull);
    v->c.flags = EFLAGS_CF;
    cr_expect_eq(sys_string(v, str(SYS_OP_CMPS, 1, 8, SYS_F_REP)), SYS_NEXT);
    expect_regs("rcx 0", 0, 0x123456789abcdef0ull, 0x8000000000000000ull);
    cr_expect_eq(v->c.flags, EFLAGS_CF);
}

Test(string, addresses_of_32_bits_clear_upper_halves)
{
    env_long(0);
    put(0x30000, 4, 0x11223344);
    regs(0xaaaaaaaa00000003ull, 0xbbbbbbbb00030000ull, 0xcccccccc00031000ull);
    cr_expect_eq(sys_string(v, str(SYS_OP_MOVS, 1, 4, SYS_F_REP)), SYS_NEXT);
    expect_regs("asize 4", 0, 0x30003, 0x31003);
    cr_expect_eq(get(0x31000, 4), 0x223344);
}

Test(string, addresses_of_16_bits_wrap_and_keep_upper_halves)
{
    env_real();
    seg_load_real(v, S_DS, 0x3000);
    seg_load_real(v, S_ES, 0x4000);
    put(0x3fffe, 2, 0x2211);
    put(0x30000, 2, 0x4433);
    regs(0x77770004, 0x5555fffe, 0x66660010);
    cr_expect_eq(sys_string(v, str(SYS_OP_MOVS, 1, 2, SYS_F_REP)), SYS_NEXT);
    expect_regs("asize 2", 0x77770000, 0x55550002, 0x66660014);
    cr_expect_eq(get(0x40010, 4), 0x44332211);
}

Test(string, element_that_crosses_64_kib_faults_in_real_mode)
{
    env_real();
    seg_load_real(v, S_DS, 0x3000);
    seg_load_real(v, S_ES, 0x4000);
    regs(5, 0xfffd, 0);
    expect_fault("lodsw at ffff", sys_string(v, str(SYS_OP_LODS, 2, 2, SYS_F_REP)), EXC_GP, 0);
    expect_regs("one word done", 4, 0xffff, 0);
}

/* ---- faults ---- */

Test(string, page_fault_in_the_middle_leaves_exact_registers)
{
    env_long(0);
    unmap(0x212000);
    regs(0x3000, 0x300000, 0x210ff8);
    int rc = sys_string(v, str(SYS_OP_MOVS, 4, 8, SYS_F_REP));
    cr_expect_eq(rc, SYS_FAULT);
    cr_expect_eq(v->fault.vector, EXC_PF);
    cr_expect_eq(v->fault.cr2, 0x212000);
    cr_expect_eq(v->fault.error, PF_W);
    expect_regs("movsd", 0x3000 - 0x402, 0x300000 + 0x1008, 0x212000);
}

Test(string, element_across_a_missing_page_is_not_written)
{
    env_long(0);
    unmap(0x212000);
    put(0x211ff8, 8, 0);
    v->c.gpr[R_RAX] = ~0ull;
    regs(2, 0, 0x211ff4);
    cr_expect_eq(sys_string(v, str(SYS_OP_STOS, 8, 8, SYS_F_REP)), SYS_FAULT);
    cr_expect_eq(v->fault.cr2, 0x212000);
    expect_regs("first one done, second not", 1, 0, 0x211ffc);
    cr_expect_eq(get(0x211ffc, 4), 0, "untouched");
}

Test(string, fault_in_a_comparison_restores_flags)
{
    env_long(0);
    unmap(0x212000);
    memset(gpmem_ptr(v->mem, 0x211000), 1, 0x1000);
    memset(gpmem_ptr(v->mem, 0x300000), 1, 0x1000);
    v->c.flags = EFLAGS_CF | EFLAGS_OF | EFLAGS_SF;
    regs(100, 0x300000, 0x211ff0);
    cr_expect_eq(sys_string(v, str(SYS_OP_CMPS, 1, 8, SYS_F_REP)), SYS_FAULT);
    expect_regs("cmpsb", 84, 0x300010, 0x212000);
    cr_expect_eq(v->c.flags, EFLAGS_CF | EFLAGS_OF | EFLAGS_SF);
}

Test(string, source_fault_comes_before_destination_fault)
{
    env_long(0);
    unmap(0x212000);
    regs(1, 0x212000, 0x212800);
    cr_expect_eq(sys_string(v, str(SYS_OP_MOVS, 1, 8, SYS_F_REP)), SYS_FAULT);
    cr_expect_eq(v->fault.error, 0, "a read");
    regs(1, 0x211ffe, 0x212ffe); /* both cross into or out of the missing page */
    cr_expect_eq(sys_string(v, str(SYS_OP_MOVS, 4, 8, SYS_F_REP)), SYS_FAULT);
    cr_expect_eq(v->fault.error, 0, "a read");
}

Test(string, misaligned_source_beats_a_missing_destination)
{
    env_long(3);
    unmap(0x212000);
    v->c.cr0 |= CR0_AM;
    v->c.eflags_sys |= EFLAGS_AC;
    cpu_update_key(&v->c);
    regs(1, 0x210001, 0x212000);
    expect_fault("movsw", sys_string(v, str(SYS_OP_MOVS, 2, 8, 0)), EXC_AC, 0);
}

Test(string, compare_reads_the_destination_first)
{
    env_long(0);
    unmap(0x212000);
    regs(1, 0x212000, 0x212800);
    cr_expect_eq(sys_string(v, str(SYS_OP_CMPS, 1, 8, SYS_F_REP)), SYS_FAULT);
    cr_expect_eq(v->fault.cr2, 0x212800);
}

/* Against the host: a fault of the first iteration shows which upper halves it has cleared. */
Test(string, fault_with_32_bit_addresses_finds_the_hosts_upper_halves)
{
    uint64_t cx = 0xaaaaaaaa00000000ull, si_ = 0xbbbbbbbb00030000ull, di_ = 0xcccccccc00212000ull;
    env_long(0);
    unmap(0x212000);
    regs(cx | 3, si_, di_);
    __asm__ volatile("addr32 rep movsb" : "+c"(cx), "+S"(si_), "+D"(di_) : : "memory");
    cr_expect_eq(sys_string(v, str(SYS_OP_MOVS, 1, 4, SYS_F_REP)), SYS_FAULT);
    expect_regs("movsb", cx | 3, si_, di_);
}

Test(string, segment_limit_stops_a_run_at_the_exact_element)
{
    env_prot(0);
    v->c.seg[S_ES].limit = 0x30fff;
    v->c.seg[S_ES].attr &= ~SEG_G;
    cpu_seg_cache(&v->c.seg[S_ES]);
    v->c.gpr[R_RAX] = 0x55;
    put(0x30ffe, 4, 0);
    regs(0x100, 0, 0x30ff0);
    expect_fault("stosb", sys_string(v, str(SYS_OP_STOS, 1, 4, SYS_F_REP)), EXC_GP, 0);
    expect_regs("stosb", 0xf0, 0, 0x31000);
    cr_expect_eq(get(0x30ffe, 4), 0x5555);
}

Test(string, source_segment_override_and_ss_fault)
{
    struct sys_op op = str(SYS_OP_LODS, 1, 4, 0);
    env_prot(0);
    op.seg = S_FS;
    v->c.seg[S_FS].base = 0x100;
    put(0x30100, 1, 0x77);
    regs(0, 0x30000, 0);
    cr_expect_eq(sys_string(v, op), SYS_NEXT);
    cr_expect_eq((uint8_t)v->c.gpr[R_RAX], 0x77);
    op.seg = S_SS;
    v->c.seg[S_SS].limit = 0x100;
    expect_fault("lods ss:", sys_string(v, op), EXC_SS, 0);
}

/* ---- interruption ---- */

Test(string, pending_event_stops_after_a_run)
{
    env_long(0);
    v->event_pending = EV_KICK;
    regs(0x4000, 0, 0x210000);
    cr_expect_eq(sys_string(v, str(SYS_OP_STOS, 1, 8, SYS_F_REP)), SYS_RESTART);
    expect_regs("one page", 0x3000, 0, 0x211000);
    v->event_pending = EV_INTR; /* with IF = 0 nothing can be delivered */
    cr_expect_eq(sys_string(v, str(SYS_OP_STOS, 1, 8, SYS_F_REP)), SYS_NEXT);
}

Test(string, trap_flag_stops_after_each_iteration)
{
    env_long(0);
    v->c.eflags_sys |= EFLAGS_TF;
    regs(2, 0, 0x210000);
    cr_expect_eq(sys_string(v, str(SYS_OP_STOS, 4, 8, SYS_F_REP)), SYS_RESTART);
    expect_regs("first", 1, 0, 0x210004);
    cr_expect_eq(sys_string(v, str(SYS_OP_STOS, 4, 8, SYS_F_REP)), SYS_NEXT);
}

Test(string, interruption_shows_the_flags_before_the_comparison)
{
    env_long(0);
    v->c.eflags_sys |= EFLAGS_TF;
    v->c.flags = EFLAGS_CF | EFLAGS_SF;
    put(0x30000, 2, 0x5555);
    put(0x31000, 2, 0x5555);
    regs(2, 0x30000, 0x31000);
    cr_expect_eq(sys_string(v, str(SYS_OP_CMPS, 1, 8, SYS_F_REP)), SYS_RESTART);
    cr_expect_eq(v->c.flags, EFLAGS_CF | EFLAGS_SF);
    cr_expect_eq(sys_string(v, str(SYS_OP_CMPS, 1, 8, SYS_F_REP)), SYS_NEXT);
    cr_expect_eq(v->c.flags, EFLAGS_ZF | EFLAGS_PF);
}

/* ---- ports ---- */

Test(string, ins_writes_what_the_port_gives)
{
    env_prot(0);
    v->c.gpr[R_RDX] = 0x1f0;
    regs(3, 0, 0x30000);
    cr_expect_eq(sys_string(v, str(SYS_OP_INS, 2, 4, SYS_F_REP)), SYS_NEXT);
    expect_regs("insw", 0, 0, 0x30006);
    cr_expect_eq(get(0x30000, 8) & 0xffffffffffff, 0x303230313030);
    cr_expect_eq(n_pio, 3);
    cr_expect(log_pio[0].port == 0x1f0 && log_pio[0].size == 2 && !log_pio[0].write);
}

Test(string, ports_are_checked_even_if_the_count_is_0)
{
    env_prot(3);
    v->c.gpr[R_RDX] = 0xfff0;
    regs(0, 0x30000, 0x30000);
    expect_fault("rep outsb", sys_string(v, str(SYS_OP_OUTS, 1, 4, SYS_F_REP)), EXC_GP, 0);
    expect_fault("rep insb", sys_string(v, str(SYS_OP_INS, 1, 4, SYS_F_REP)), EXC_GP, 0);
}

Test(string, ins_checks_memory_before_it_reads_the_port)
{
    env_long(0);
    unmap(0x212000);
    regs(8, 0, 0x211ffe);
    cr_expect_eq(sys_string(v, str(SYS_OP_INS, 1, 8, SYS_F_REP)), SYS_FAULT);
    cr_expect_eq(n_pio, 2);
    expect_regs("insb", 6, 0, 0x212000);
}

Test(string, port_that_the_embedder_must_serve_stops_between_iterations)
{
    env_prot(0);
    stop_at = 2;
    put(0x30000, 4, 0x64636261);
    regs(4, 0x30000, 0);
    cr_expect_eq(sys_string(v, str(SYS_OP_OUTS, 1, 4, SYS_F_REP)), SYS_EXIT);
    expect_regs("outsb", 2, 0x30002, 0);
    cr_expect_eq(log_pio[1].val, 0x62);
}

Test(string, in_and_out_use_immediate_or_dx)
{
    struct sys_op op = str(SYS_OP_IN, 1, 4, SYS_F_IMM);
    env_prot(0);
    v->op_imm = 0x71;
    v->c.gpr[R_RAX] = 0x11111111;
    cr_expect_eq(sys_in(v, op), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RAX], 0x11111130);
    cr_expect_eq(log_pio[0].port, 0x71);
    op = str(SYS_OP_OUT, 4, 4, 0);
    v->c.gpr[R_RDX] = 0xcf8;
    cr_expect_eq(sys_out(v, op), SYS_NEXT);
    cr_expect(log_pio[1].port == 0xcf8 && log_pio[1].size == 4 && log_pio[1].val == 0x11111130);
}

static int io(uint16_t port, unsigned size)
{
    v->fault.vector = 0;
    return sys_io_allowed(v, port, size);
}
Test(string, io_bitmap_decides_below_iopl)
{
    env_prot(3);
    expect_fault("TSS without bitmap", io(0x80, 1), EXC_GP, 0);
    v->c.seg[S_TR].limit = 0x90;
    put(TSS + 0x66, 2, 0x68);
    memset(gpmem_ptr(v->mem, TSS + 0x68), 0, 0x29);
    put(TSS + 0x68 + 8, 1, 0x80); /* port 0x47 */
    cr_expect_eq(io(0x46, 1), 0);
    expect_fault("47", io(0x47, 1), EXC_GP, 0);
    expect_fault("44-47", io(0x44, 4), EXC_GP, 0);
    cr_expect_eq(io(0x43, 4), 0);
    cr_expect_eq(io(0x138, 1), 0, "its two bytes are the last in the segment");
    expect_fault("140", io(0x140, 1), EXC_GP, 0);
    v->c.eflags_sys |= EFLAGS_IOPL;
    cr_expect_eq(io(0x47, 1), 0, "IOPL 3");
    env_vm86(3);
    expect_fault("VM86 always asks the bitmap", io(0x80, 1), EXC_GP, 0);
    env_real();
    cr_expect_eq(io(0x47, 1), 0);
}

Test(string, io_breakpoint_is_noted)
{
    env_prot(0);
    v->c.cr4 = CR4_DE;
    v->c.dr[1] = 0x60;
    v->c.dr[7] = 0x400 | 1u << 3 | 2u << 20;
    v->op_imm = 0x60;
    cr_expect_eq(sys_in(v, str(SYS_OP_IN, 1, 4, SYS_F_IMM)), SYS_NEXT);
    cr_expect_eq(v->dr6_pending, 2);
}

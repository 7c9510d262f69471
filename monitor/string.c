/* monitor/string.c - string instructions and port I/O (SDM 1 7.3.9, 19.5; 2B, REP). nofpu.
 *
 * A string instruction is cut into runs: as many elements as lie in one page of each operand, inside its segment and before
 * its index register wraps. A run of plain RAM is carried out by the host's own string instruction of the same size and
 * direction on host pointers, so that overlapping operands come out exactly as element by element: guest RAM is mapped once,
 * hence aliases of a guest page are one host page. Whatever is not plain RAM goes through mem.c one element at a time.
 * After every run the registers are those between two iterations. A fault in iteration k therefore finds k iterations
 * done; flags of CMPS and SCAS are then those before the instruction (SDM 2B, REP; measured on silicon too). An event stops
 * the instruction after a run with SYS_RESTART.
 */
#include "monitor/sysfn_int.h"
#include "monitor/vm_int.h"

struct str {
    struct vcpu *v;
    struct sys_op op;
    unsigned size;
    uint64_t mask; /* of the address size */
    bool down, eq;
    bool stop; /* the comparison ended the repetition */
    bool compared;
    uint32_t flags; /* of the last comparison */
    uint16_t port;
};
/* One operand of a run. */
struct run {
    uint64_t lin;  /* of the first element */
    uint64_t max;  /* elements that may be touched from there */
    uint8_t *host; /* NULL: not plain RAM */
};

static inline bool repeats(struct sys_op op) { return op.flags & (SYS_F_REP | SYS_F_REPNE); }
static inline bool uses_si(unsigned op)
{
    return op == SYS_OP_MOVS || op == SYS_OP_LODS || op == SYS_OP_CMPS || op == SYS_OP_OUTS;
}
static inline bool uses_di(unsigned op) { return op != SYS_OP_LODS && op != SYS_OP_OUTS; }
static inline uint64_t min64(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* ---- the host's string instructions ---- */

/* One asm statement per element size; DF is clear again afterwards, as C code has it. */
#define BY_SIZE(INSN, pre)                                                                                             \
    switch (size) {                                                                                                    \
    case 1: INSN(pre, "b"); break;                                                                                     \
    case 2: INSN(pre, "w"); break;                                                                                     \
    case 4: INSN(pre, "l"); break;                                                                                     \
    default: INSN(pre, "q"); break;                                                                                    \
    }

#define MOVS(pre, x) __asm__ volatile(pre " rep movs" x "; cld" : "+D"(d), "+S"(s), "+c"(n) : : "memory", "cc")
static void host_movs(uint8_t *d, const uint8_t *s, uint64_t n, unsigned size, bool down)
{
    if (down)
        BY_SIZE(MOVS, "std;")
    else
        BY_SIZE(MOVS, "")
}

#define STOS(pre, x) __asm__ volatile(pre " rep stos" x "; cld" : "+D"(d), "+c"(n) : "a"(val) : "memory", "cc")
static void host_stos(uint8_t *d, uint64_t val, uint64_t n, unsigned size, bool down)
{
    if (down)
        BY_SIZE(STOS, "std;")
    else
        BY_SIZE(STOS, "")
}

/* LAHF's byte and SETO's as EFLAGS. */
static uint32_t flags_of(uint64_t ax) { return (uint32_t)(ax >> 8 & (EFLAGS_ARITH & 0xff)) | (ax & 1 ? EFLAGS_OF : 0); }

/* Compares up to n elements, stopping after one that ends the repetition. Returns how many were compared (n >= 1). */
#define CMPS(pre, x)                                                                                                   \
    __asm__ volatile(pre " cmps" x "; lahf; seto %%al; cld"                                                            \
                     : "+D"(d), "+S"(s), "+c"(left), "+a"(ax)                                                          \
                     :                                                                                                 \
                     : "memory", "c"                                                                                   \
                                 "c")
static uint64_t host_cmps(const struct str *t, const uint8_t *s, const uint8_t *d, uint64_t n, uint32_t *flags)
{
    uint64_t ax = 0, left = n;
    unsigned size = t->size;
    if (t->down && t->eq)
        BY_SIZE(CMPS, "std; repe")
    else if (t->down)
        BY_SIZE(CMPS, "std; repne")
    else if (t->eq)
        BY_SIZE(CMPS, "repe")
    else
        BY_SIZE(CMPS, "repne")
    *flags = flags_of(ax);
    return n - left;
}

#define SCAS(pre, x)                                                                                                   \
    __asm__ volatile(pre " scas" x "; lahf; seto %%al; cld" : "+D"(d), "+c"(left), "+a"(ax) : : "memory", "cc")
static uint64_t host_scas(const struct str *t, uint64_t acc, const uint8_t *d, uint64_t n, uint32_t *flags)
{
    uint64_t ax = acc, left = n;
    unsigned size = t->size;
    if (t->down && t->eq)
        BY_SIZE(SCAS, "std; repe")
    else if (t->down)
        BY_SIZE(SCAS, "std; repne")
    else if (t->eq)
        BY_SIZE(SCAS, "repe")
    else
        BY_SIZE(SCAS, "repne")
    *flags = flags_of(ax);
    return n - left;
}

/* ---- operands ---- */

/* Elements that fit before the page ends or the index wraps; 0: the first one already crosses. */
static uint64_t run_max(const struct str *s, uint64_t off, uint64_t lin)
{
    unsigned in_page = lin & 0xfff;
    if (in_page + s->size > PAGE_SIZE || off > s->mask - (s->size - 1))
        return 0;
    if (s->down)
        return min64(in_page, off) / s->size + 1;
    uint64_t room = (s->mask - off) / s->size;
    return min64((PAGE_SIZE - in_page) / s->size, room == ~0ull ? room : room + 1);
}

/* Finds out how far one operand reaches at once, at most want elements. Faults are those of its first element. */
static int run_open(struct str *s, unsigned seg, uint64_t off, unsigned how, uint64_t want, struct run *r)
{
    struct vcpu *v = s->v;
    uint64_t lin;
    *r = (struct run){.max = 1};
    int err = mem_linear(v, seg, off, s->size, how, &r->lin);
    if (err)
        return err;
    uint64_t n = min64(run_max(s, off, r->lin), want);
    if (!n || (v->c.key & CPU_KEY_AC))
        return mem_probe(v, r->lin, s->size, how);
    /* All of the run inside the segment? Otherwise element by element up to the fault. */
    uint64_t low = s->down ? off - (n - 1) * s->size : off;
    if (n > 1 && mem_linear(v, seg, low, (unsigned)n * s->size, how, &lin))
        n = 1;
    r->host = mem_direct(v, r->lin, how, &err);
    /* A page of code that is cleared for its next owner, say: a look-up for each element costs 1 ms. */
    if (!r->host && !err && how == MEM_W && n > 1)
        r->host = mem_direct_over_code(v, r->lin, s->down ? (unsigned)(n - 1) * s->size : 0, (unsigned)n * s->size);
    if (r->host)
        r->max = n;
    return err;
}

static uint64_t si(const struct str *s) { return s->v->c.gpr[R_RSI] & s->mask; }
static uint64_t di(const struct str *s) { return s->v->c.gpr[R_RDI] & s->mask; }
static int open_src(struct str *s, uint64_t want, struct run *r)
{
    return run_open(s, s->op.seg, si(s), MEM_R, want, r);
}
static int open_dst(struct str *s, unsigned how, uint64_t want, struct run *r)
{
    return run_open(s, S_ES, di(s), how, want, r);
}
static uint64_t acc(const struct str *s) { return gpr_read(&s->v->c, R_RAX, s->size, s->op.flags); }

/* ---- one run of each instruction: 0 and *done >= 1, or SYS_FAULT, SYS_EXIT with *done = 0 ---- */

static int run_movs(struct str *s, uint64_t want, uint64_t *done)
{
    struct run a, b;
    uint64_t val;
    int err = open_src(s, want, &a);
    if (!err)
        err = open_dst(s, MEM_W, want, &b);
    if (err)
        return err;
    *done = min64(a.max, b.max);
    if (a.host && b.host) {
        host_movs(b.host, a.host, *done, s->size, s->down);
        return 0;
    }
    *done = 1;
    err = mem_read_u(s->v, a.lin, s->size, MEM_R, &val);
    return err ? err : mem_write_u(s->v, b.lin, s->size, MEM_W, val);
}

static int run_stos(struct str *s, uint64_t want, uint64_t *done)
{
    struct run b;
    int err = open_dst(s, MEM_W, want, &b);
    if (err)
        return err;
    *done = b.max;
    if (!b.host)
        return mem_write_u(s->v, b.lin, s->size, MEM_W, acc(s));
    host_stos(b.host, acc(s), b.max, s->size, s->down);
    return 0;
}

/* Only the last element stays, but every page is touched. */
static int run_lods(struct str *s, uint64_t want, uint64_t *done)
{
    struct run a;
    uint64_t val = 0;
    int err = open_src(s, want, &a);
    if (err)
        return err;
    *done = a.max;
    if (!a.host) {
        err = mem_read_u(s->v, a.lin, s->size, MEM_R, &val);
        if (err)
            return err;
    } else {
        uint8_t *last = s->down ? a.host - (a.max - 1) * s->size : a.host + (a.max - 1) * s->size;
        host_movs((uint8_t *)&val, last, 1, s->size, false);
    }
    gpr_write(&s->v->c, R_RAX, s->size, s->op.flags, val);
    return 0;
}

/* The repetition goes on while ZF says so; a single CMPS or SCAS has n = 1 anyway. */
static void compared(struct str *s, uint32_t flags)
{
    s->flags = flags;
    s->compared = true;
    s->stop = !(flags & EFLAGS_ZF) == s->eq;
}

static int run_cmps(struct str *s, uint64_t want, uint64_t *done)
{
    struct run a, b;
    uint64_t x, y;
    uint32_t flags;
    int err = open_dst(s, MEM_R, want, &b); /* first (measured) */
    if (!err)
        err = open_src(s, want, &a);
    if (err)
        return err;
    if (a.host && b.host)
        *done = host_cmps(s, a.host, b.host, min64(a.max, b.max), &flags);
    else {
        *done = 1;
        err = mem_read_u(s->v, b.lin, s->size, MEM_R, &y);
        if (!err)
            err = mem_read_u(s->v, a.lin, s->size, MEM_R, &x);
        if (err)
            return err;
        host_cmps(s, (uint8_t *)&x, (uint8_t *)&y, 1, &flags);
    }
    compared(s, flags);
    return 0;
}

static int run_scas(struct str *s, uint64_t want, uint64_t *done)
{
    struct run b;
    uint64_t y;
    uint32_t flags;
    int err = open_dst(s, MEM_R, want, &b);
    if (err)
        return err;
    if (b.host)
        *done = host_scas(s, acc(s), b.host, b.max, &flags);
    else {
        *done = 1;
        err = mem_read_u(s->v, b.lin, s->size, MEM_R, &y);
        if (err)
            return err;
        host_scas(s, acc(s), (uint8_t *)&y, 1, &flags);
    }
    compared(s, flags);
    return 0;
}

/* ---- ports ---- */

int sys_io_allowed(struct vcpu *v, uint16_t port, unsigned size)
{
    const struct cpu *c = &v->c;
    const struct seg *tr = &c->seg[S_TR];
    uint64_t base, bits;
    if (!cpu_protected(c) || (!cpu_vm86(c) && c->cpl <= cpu_iopl(c)))
        return 0;
    unsigned type = tr->attr & SEG_TYPE;
    if ((type != DT_TSS && type != DT_TSS_BUSY) || (tr->attr & SEG_UNUSABLE) || tr->limit < 0x67)
        return fault_gp0(v);
    int err = mem_read_u(v, lin_wrap(c, tr->base + 0x66), 2, MEM_R | MEM_SUPER, &base);
    if (err)
        return err;
    /* Always two bytes: a port range may cross into the second. */
    uint64_t at = base + port / 8;
    if (at + 1 > tr->limit)
        return fault_gp0(v);
    err = mem_read_u(v, lin_wrap(c, tr->base + at), 2, MEM_R | MEM_SUPER, &bits);
    if (err)
        return err;
    return bits >> (port & 7) & ((1u << size) - 1) ? fault_gp0(v) : 0;
}

/* I/O breakpoints (R/W = 2, only with CR4.DE): a trap after the instruction. */
static void check_io_watch(struct vcpu *v, uint16_t port, unsigned size)
{
    static const uint8_t len[4] = {1, 2, 8, 4};
    const struct cpu *c = &v->c;
    if (!(c->dr[7] & 0xff) || !(c->cr4 & CR4_DE))
        return;
    for (unsigned i = 0; i < 4; i++) {
        if (!(c->dr[7] >> (2 * i) & 3) || (c->dr[7] >> (16 + 4 * i) & 3) != 2)
            continue;
        unsigned n = len[c->dr[7] >> (18 + 4 * i) & 3];
        uint64_t first = c->dr[i] & ~(uint64_t)(n - 1);
        if (port < first + n && first < (uint64_t)port + size)
            v->dr6_pending |= 1u << i;
    }
}

static int pio(struct vcpu *v, uint16_t port, unsigned size, bool write, uint32_t *val)
{
    int err = vcpu_pio(v, port, size, write, val);
    if (!err)
        check_io_watch(v, port, size);
    return err;
}

static uint16_t op_port(const struct vcpu *v, struct sys_op op)
{
    return op.flags & SYS_F_IMM ? (uint8_t)v->op_imm : (uint16_t)v->c.gpr[R_RDX];
}

int sys_in(struct vcpu *v, struct sys_op op)
{
    uint16_t port = op_port(v, op);
    uint32_t val = 0;
    int err = sys_io_allowed(v, port, op.opsize);
    if (!err)
        err = pio(v, port, op.opsize, false, &val);
    if (err)
        return err;
    gpr_write(&v->c, R_RAX, op.opsize, op.flags, val);
    return SYS_NEXT;
}

int sys_out(struct vcpu *v, struct sys_op op)
{
    uint16_t port = op_port(v, op);
    uint32_t val = (uint32_t)gpr_read(&v->c, R_RAX, op.opsize, op.flags);
    int err = sys_io_allowed(v, port, op.opsize);
    return err ? err : pio(v, port, op.opsize, true, &val);
}

/* The destination is checked before the device is read: a fault must not lose data. */
static int run_ins(struct str *s, uint64_t want, uint64_t *done)
{
    uint64_t lin;
    uint32_t val = 0;
    *done = 1;
    int err = mem_linear(s->v, S_ES, di(s), s->size, MEM_W, &lin);
    if (!err)
        err = mem_probe(s->v, lin, s->size, MEM_W);
    if (!err)
        err = pio(s->v, s->port, s->size, false, &val);
    return err ? err : mem_write_u(s->v, lin, s->size, MEM_W, val);
}

static int run_outs(struct str *s, uint64_t want, uint64_t *done)
{
    uint64_t lin, val;
    *done = 1;
    int err = mem_linear(s->v, s->op.seg, si(s), s->size, MEM_R, &lin);
    if (!err)
        err = mem_read_u(s->v, lin, s->size, MEM_R, &val);
    if (err)
        return err;
    uint32_t out = (uint32_t)val;
    return pio(s->v, s->port, s->size, true, &out);
}

/* ---- repetition ---- */

static int run_one(struct str *s, uint64_t want, uint64_t *done)
{
    switch (s->op.op) {
    case SYS_OP_MOVS: return run_movs(s, want, done);
    case SYS_OP_STOS: return run_stos(s, want, done);
    case SYS_OP_LODS: return run_lods(s, want, done);
    case SYS_OP_CMPS: return run_cmps(s, want, done);
    case SYS_OP_SCAS: return run_scas(s, want, done);
    case SYS_OP_INS: return run_ins(s, want, done);
    }
    return run_outs(s, want, done);
}

static void advance(const struct str *s, uint64_t done)
{
    struct cpu *c = &s->v->c;
    unsigned op = s->op.op, asize = s->op.asize;
    uint64_t delta = s->down ? 0 - done * s->size : done * s->size;
    if (uses_si(op))
        gpr_write(c, R_RSI, asize, 0, c->gpr[R_RSI] + delta);
    if (uses_di(op))
        gpr_write(c, R_RDI, asize, 0, c->gpr[R_RDI] + delta);
    if (repeats(s->op))
        gpr_write(c, R_RCX, asize, 0, c->gpr[R_RCX] - done);
}

/* REP with 32-bit addresses in 64-bit code: some upper halves become zero before the first iteration, so that a count of 0 or a
 * fault shows it. Which ones differs between processors and instructions. What a process would see is what the host does, so
 * the host is asked; nothing is accessed. */
static void zero_upper_halves(struct cpu *c, struct sys_op op)
{
    uint64_t cx = c->gpr[R_RCX] & ~0xffffffffull, s = c->gpr[R_RSI], d = c->gpr[R_RDI], a = c->gpr[R_RAX];
    if (!cpu_code64(c) || op.asize != 4 || !repeats(op))
        return;
#define ZERO(x) __asm__ volatile("addr32 " x : "+c"(cx), "+S"(s), "+D"(d), "+a"(a) : : "memory", "cc")
    switch (op.op) {
    case SYS_OP_MOVS: ZERO("rep movsb"); break;
    case SYS_OP_INS:
    case SYS_OP_STOS: ZERO("rep stosb"); break;
    case SYS_OP_CMPS: ZERO("repe cmpsb"); break;
    case SYS_OP_SCAS: ZERO("repe scasb"); break;
    default: ZERO("rep lodsb"); break;
    }
    c->gpr[R_RCX] = cx | (uint32_t)c->gpr[R_RCX];
    c->gpr[R_RSI] = s;
    c->gpr[R_RDI] = d;
}

/* Between two runs: does something have to happen before the next? (TF and data breakpoints: after each iteration.) */
static bool must_stop(const struct vcpu *v)
{
    return vcpu_deliverable(v) || v->dr6_pending || (v->c.eflags_sys & EFLAGS_TF);
}

int sys_string(struct vcpu *v, struct sys_op op)
{
    struct cpu *c = &v->c;
    struct str s = {.v = v, .op = op, .size = op.opsize, .down = c->df_flag, .eq = !(op.flags & SYS_F_REPNE)};
    s.mask = addr_mask(op.asize);
    s.port = (uint16_t)c->gpr[R_RDX];
    uint64_t left = repeats(op) ? c->gpr[R_RCX] & s.mask : 1, done = 0;
    int err = 0;
    if (op.op == SYS_OP_INS || op.op == SYS_OP_OUTS)
        err = sys_io_allowed(v, s.port, s.size); /* even if the count is 0 (measured) */
    if (!err)
        zero_upper_halves(c, op);
    while (left && !err) {
        err = run_one(&s, c->eflags_sys & EFLAGS_TF ? 1 : left, &done);
        if (err)
            break;
        advance(&s, done);
        left -= done;
        bool end = !left || (s.stop && repeats(op));
        if (end && s.compared)
            c->flags = s.flags; /* not before: an interruption shows the old ones (measured) */
        if (end || must_stop(v))
            return end ? SYS_NEXT : SYS_RESTART;
    }
    return err;
}

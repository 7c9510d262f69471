/* translator/xl_ctl.c - control transfers within a segment, and the exits of a block.
 *
 * Direct exits are jumps that first go to a stub (leaves the TC, names the jump) and are later patched to the target block, or,
 * where the target's page may be remapped, to a stub that asks the jump cache.
 * Indirect transfers put the target into T (RDX for 64-bit code, R8 otherwise) and look into the jump cache inline:
 *     rcx = PEXT(T, index bits); rcx = tag[rcx] + T; jrcxz hit; jmp miss
 * hit: jmp pc[PEXT(T, index bits)]
 * The target's indirect entry brings RCX (and RDX) back. [ij_pc, ij_end) may be restarted at any point: T is not changed.
 */
#include "codecache/jumpcache.h"
#include "translator/xl_int.h"

static unsigned target_reg(const struct xl *x) { return x->m64 ? R_RDX : R_R8; }

static void jmp_table(struct emit *e, uint64_t table) /* jmp [rcx*8 + table] */
{
    em8(e, 0xff);
    em_modrm_mem(e, 4, NO_REG, R_RCX, 3, (int32_t)table);
}

/* Out of line: is the target of a direct jump to another page in the jump cache? */
static uint32_t emit_jc_stub(struct xl *x, uint64_t target, uint64_t stub, unsigned entry)
{
    struct emit *c = x->cold;
    const struct xl_jc_layout *jc = &x->l->jc[xl_user(x)];
    unsigned t = target_reg(x), i = jc_index(target);
    uint32_t pc = (uint32_t)em_pc(c);
    bool rcx = entry == CCF_ENTRY, rdx = x->m64 && entry != CCF_ENTRY_BOTH; /* are not in their slots yet */
    if (rcx)
        em_st64(c, R_RCX, xl_slot(x, R_RCX));
    if (rdx)
        em_st64(c, R_RDX, xl_slot(x, R_RDX));
    em_movi(c, t, target);
    em_ld64(c, R_RCX, jc->tag + 8 * i);
    em_lea(c, 1, R_RCX, R_RCX, (int)t, 0, 0);
    uint8_t *hit = em_jrcxz(c);
    if (rcx)
        em_ld64(c, R_RCX, xl_slot(x, R_RCX));
    if (rdx)
        em_ld64(c, R_RDX, xl_slot(x, R_RDX));
    em_jmp(c, stub);
    em_here8(c, hit);
    xl_count_rcx(x, c, x->l->count.jc_direct);
    em8(c, 0xff);
    em_modrm_abs(c, 4, jc->pc + 8 * i, 0);
    return pc;
}

/* Before an exit: all registers are brought back but RCX, or RCX and RDX, which the target may want to use as scratch again. */
static void unspill_for_exit(struct xl *x)
{
    unsigned keep = 0;
    if (x->m64 && !(x->in->key & (CPU_KEY_STEP | CPU_KEY_CAREFUL)) && (x->spilled & BIT(R_RCX)))
        keep = BIT(R_RCX) | BIT(R_RDX);
    xl_unspill(x, x->spilled & ~keep);
}

/* Records the exit whose jump is about to be emitted at em_pc(hot); returns where it goes at first. */
static uint64_t new_exit(struct xl *x, uint64_t target, unsigned rel_at)
{
    struct xl_result *r = x->r;
    struct emit *c = x->cold;
    CHECK(r->d.n_exits < 2);
    struct ccf_exit *e = &r->d.exit[r->d.n_exits++];
    *e = (struct ccf_exit){.target = target, .jmp_pc = (uint32_t)em_pc(x->hot), .rel_at = (uint8_t)rel_at};
    uint64_t to = target + x->in->cs_base, here = x->in->rip + x->in->cs_base;
    /* An instruction in the last bytes of a page may run into the next one. */
    e->cross_page = (to ^ here) >> PAGE_SHIFT != 0 || (to & 0xfff) > PAGE_SIZE - 15;
    e->stub_pc = (uint32_t)em_pc(c);
    e->entry = (uint8_t)xl_bring_back(x, c);
    em_sti32(c, x->l->link_pc, e->stub_pc);
    e->name_pc = (uint32_t)em_pc(c) - 4;
    em_jmp(c, x->g->exit_link);
    if (e->cross_page) {
        e->jc_pc = emit_jc_stub(x, target, e->stub_pc, e->entry);
        e->jc_end = (uint32_t)em_pc(c);
    }
    return e->stub_pc;
}

void xl_exit_to(struct xl *x, uint64_t target)
{
    unspill_for_exit(x);
    uint64_t stub = new_exit(x, target, 1);
    em_jmp(x->hot, stub);
}

/* No branch may go there: #GP(0) at the branch (SDM 2A JMP, Jcc, CALL). AMD's go to a non-canonical address and fault there. */
static bool forbidden(const struct xl *x, uint64_t target)
{
    return x->m64 ? !x86_is_canonical(target) && !x->cpu.amd : target > x->in->cs_limit;
}

static uint64_t branch_target(struct xl *x, const struct xl_insn *n)
{
    uint64_t t = xl_next_rip(x, n) + (uint64_t)n->op[0].imm.value.s;
    if (x->m64)
        return t;
    return n->i.operand_width == 16 ? t & 0xffff : t & 0xffffffffu;
}

/* T holds the target. */
static void indirect_tail(struct xl *x)
{
    struct emit *e = x->hot, *c = x->cold;
    const struct xl_jc_layout *jc = &x->l->jc[xl_user(x)];
    unsigned t = target_reg(x);
    unsigned keep = BIT(R_RCX) | (x->m64 ? BIT(R_RDX) : 0);
    if (x->in->key & (CPU_KEY_STEP | CPU_KEY_CAREFUL)) { /* these run one at a time */
        em_st64(e, t, xl_cpu(x, offsetof(struct cpu, rip)));
        xl_unspill(x, x->spilled);
        em_sti32(e, x->l->link_pc, (uint32_t)em_pc(e));
        em_jmp(e, x->g->exit_indirect);
        return;
    }
    xl_unspill(x, x->spilled & ~keep);
    xl_spill(x, R_RCX);
    x->r->d.ij_pc = (uint32_t)em_pc(e);
    em_pext_abs(e, R_RCX, t, x->l->const_jc);
    em_ldm(e, 1, R_RCX, NO_REG, R_RCX, 3, (int32_t)jc->tag);
    em_lea(e, 1, R_RCX, R_RCX, (int)t, 0, 0);
    uint8_t *hit = em_jrcxz(e);
    x->r->d.ij_miss_pc = (uint32_t)em_pc(c);
    em_jmp(e, em_pc(c));
    em_here8(e, hit);
    em_pext_abs(e, R_RCX, t, x->l->const_jc);
    jmp_table(e, jc->pc);
    x->r->d.ij_end = (uint32_t)em_pc(e);
    em_st64(c, t, xl_cpu(x, offsetof(struct cpu, rip)));
    em_sti32(c, x->l->link_pc, x->r->d.ij_pc);
    em_ld64(c, R_RCX, xl_slot(x, R_RCX));
    if (x->m64)
        em_ld64(c, R_RDX, xl_slot(x, R_RDX));
    em_jmp(c, x->g->exit_indirect);
    x->spilled = 0;
}

/* T = target of an indirect jump or call. */
static void load_target(struct xl *x, struct xl_insn *n, unsigned size)
{
    unsigned t = target_reg(x);
    if (n->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER) {
        unsigned r = (unsigned)xl_gpr(n->op[0].reg.value);
        xl_unspill(x, BIT(r));
        if (x->m64)
            xl_spill(x, R_RDX);
        if (size == 2)
            em_movzx16_rr(x->hot, t, r);
        else if (t != r)
            em_mov_rr(x->hot, size == 8, t, r);
        return;
    }
    struct xl_ea ea;
    xl_ea_of(x, n, &ea);
    struct xl_site s = xl_site(x, n, &ea, size, XL_READ, x->m64 ? 0 : BIT(t), 0);
    if (x->m64)
        xl_spill(x, R_RDX);
    xl_add_point(x, em_pc(x->hot), n->off);
    xl_load(x, t, &s, size);
    if (size == 2)
        em_movzx16_rr(x->hot, t, t);
}

static void emit_ret(struct xl *x, struct xl_insn *n)
{
    unsigned size = xl_stack_bytes(n), t = target_reg(x);
    unsigned more = n->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (unsigned)n->op[0].imm.value.u : 0;
    struct xl_ea ea;
    xl_ea_stack(x, 0, &ea);
    struct xl_site s = xl_site(x, n, &ea, size, XL_READ, x->m64 ? 0 : BIT(t), 0);
    if (x->m64)
        xl_spill(x, R_RDX);
    xl_add_point(x, em_pc(x->hot), n->off);
    xl_load(x, t, &s, size);
    if (size == 2)
        em_movzx16_rr(x->hot, t, t);
    if (!x->m64 && !(x->in->key & CPU_KEY_SS32)) { /* a 16-bit stack pointer is moved through R8 */
        em_mov_rr(x->hot, 1, R_R9, t);
        xl_adjust_sp(x, (int32_t)(size + more));
        em_mov_rr(x->hot, 1, t, R_R9);
    } else {
        xl_adjust_sp(x, (int32_t)(size + more));
    }
    x->r->d.rsp_undo = (int32_t)(size + more);
    xl_site_done(x, n);
    indirect_tail(x);
}

static void emit_call_ind(struct xl *x, struct xl_insn *n)
{
    unsigned size = xl_stack_bytes(n), t = target_reg(x);
    load_target(x, n, n->i.operand_width / 8u);
    if (!x->m64) { /* keep T away from a 16-bit stack pointer's scratch */
        em_mov_rr(x->hot, 1, R_R14, t);
        xl_push(x, n, NO_REG, xl_next_rip(x, n), size, BIT(R_R14) | BIT(R_R8));
        em_mov_rr(x->hot, 1, t, R_R14);
    } else {
        xl_push(x, n, NO_REG, xl_next_rip(x, n), size, BIT(R_RDX));
    }
    x->r->d.rsp_undo = -(int32_t)size;
    xl_site_done(x, n);
    indirect_tail(x);
}

static uint8_t *short_jcc(struct emit *e, unsigned cc)
{
    em8(e, 0x70 | cc), em8(e, 0);
    return e->p - 1;
}

/* The taken way of LOOP; a forbidden target leaves the count as it was. */
static void loop_taken(struct xl *x, struct xl_insn *n, unsigned asize)
{
    struct emit *e = x->hot;
    uint64_t target = branch_target(x, n);
    if (!forbidden(x, target)) {
        xl_exit_to(x, target);
        return;
    }
    if (n->i.opcode != 0xe3 && asize == 2) {
        em_lea(e, 0, R_R8, R_RCX, NO_REG, 0, 1);
        em_mov16_rr(e, R_RCX, R_R8);
    } else if (n->i.opcode != 0xe3) {
        em_lea(e, asize == 8, R_RCX, R_RCX, NO_REG, 0, 1);
    }
    em_jmp(e, xl_fault_stub(x, n, SYS_OP_GP0));
}

static void loop_way(struct xl *x, struct xl_insn *n, unsigned asize, bool taken)
{
    if (taken)
        loop_taken(x, n, asize);
    else
        xl_exit_to(x, xl_next_rip(x, n));
}

/* LOOP, LOOPE, LOOPNE (E0-E2), JCXZ (E3): the count register has the address size. */
static void emit_loop(struct xl *x, struct xl_insn *n)
{
    struct emit *e = x->hot;
    unsigned asize = n->i.address_width / 8u, op = n->i.opcode;
    xl_unspill(x, x->spilled | BIT(R_RCX));
    if (op != 0xe3) {
        if (asize == 2) {
            em_lea(e, 0, R_R8, R_RCX, NO_REG, 0, -1);
            em_mov16_rr(e, R_RCX, R_R8);
        } else {
            em_lea(e, asize == 8, R_RCX, R_RCX, NO_REG, 0, -1);
        }
    }
    if (asize == 2) {
        em_mov_rr(e, 1, R_R9, R_RCX);
        em_movzx16_rr(e, R_RCX, R_RCX);
    } else if (asize == 4) {
        em8(e, 0x67);
    }
    uint8_t *zero = em_jrcxz(e), *flag = NULL;
    if (asize == 2)
        em_mov_rr(e, 1, R_RCX, R_R9);
    if (op == 0xe0 || op == 0xe1)
        flag = short_jcc(e, op == 0xe0 ? 4 : 5); /* LOOPNE leaves on ZF, LOOPE on not ZF */
    loop_way(x, n, asize, op != 0xe3);
    em_here8(e, zero);
    if (asize == 2)
        em_mov_rr(e, 1, R_RCX, R_R9);
    if (flag)
        em_here8(e, flag);
    loop_way(x, n, asize, op == 0xe3);
}

static void emit_jcc(struct xl *x, struct xl_insn *n)
{
    uint64_t target = branch_target(x, n), stub;
    if (forbidden(x, target)) {
        xl_unspill(x, x->spilled);
        stub = xl_fault_stub(x, n, SYS_OP_GP0);
    } else {
        unspill_for_exit(x);
        stub = new_exit(x, target, 2);
    }
    em_jcc(x->hot, n->i.opcode & 15, stub);
    xl_exit_to(x, xl_next_rip(x, n));
}

static void jump_to(struct xl *x, struct xl_insn *n)
{
    uint64_t target = branch_target(x, n);
    if (!forbidden(x, target)) {
        xl_exit_to(x, target);
        return;
    }
    xl_unspill(x, x->spilled);
    em_jmp(x->hot, xl_fault_stub(x, n, SYS_OP_GP0));
}

static void emit_call(struct xl *x, struct xl_insn *n)
{
    unsigned size = xl_stack_bytes(n);
    xl_push(x, n, NO_REG, xl_next_rip(x, n), size, 0);
    xl_site_done(x, n);
    /* The return address is on the stack all the same when the target is forbidden (seen on the CPU). */
    if (forbidden(x, branch_target(x, n)))
        xl_adjust_sp(x, (int32_t)size);
    jump_to(x, n);
}

void xl_emit_ctl(struct xl *x, struct xl_insn *n)
{
    switch (n->act) {
    case XL_ACT_JCC: emit_jcc(x, n); break;
    case XL_ACT_LOOP: emit_loop(x, n); break;
    case XL_ACT_JMP: jump_to(x, n); break;
    case XL_ACT_CALL: emit_call(x, n); break;
    case XL_ACT_RET: emit_ret(x, n); break;
    case XL_ACT_JMP_IND:
        load_target(x, n, n->i.operand_width / 8u);
        indirect_tail(x);
        break;
    default: emit_call_ind(x, n); break;
    }
    x->stop = true;
}

/* tests/diff/gen_operand.c - gives each instruction operands that let it do something: initial register values, displacements,
 * and memory contents (patches) are chosen after the fact so that addresses, selectors, return addresses and images fit. */
#include "tests/diff/gen_int.h"
#include <string.h>

#define NO_LIN (~0ull) /* address not known */

/* Number of the general register behind any of its parts, or -1. */
static int gpr_of(ZydisRegister reg)
{
    if (reg == ZYDIS_REGISTER_NONE || reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP)
        return -1;
    ZydisRegisterClass k = ZydisRegisterGetClass(reg);
    if (k < ZYDIS_REGCLASS_GPR8 || k > ZYDIS_REGCLASS_GPR64)
        return -1;
    return ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg));
}

static int vec_of(ZydisRegister reg)
{
    ZydisRegisterClass k = ZydisRegisterGetClass(reg);
    return k == ZYDIS_REGCLASS_XMM || k == ZYDIS_REGCLASS_YMM || k == ZYDIS_REGCLASS_ZMM ? ZydisRegisterGetId(reg) : -1;
}

static unsigned seg_of(ZydisRegister reg)
{
    return reg >= ZYDIS_REGISTER_ES && reg <= ZYDIS_REGISTER_GS ? (unsigned)(reg - ZYDIS_REGISTER_ES) : DT_DS;
}

static bool is_clobbered(const struct gen *g, int reg) { return reg >= 0 && (g->clobbered >> reg & 1); }
static bool is_free(const struct gen *g, int reg) { return reg >= 0 && !((g->pinned | g->clobbered) >> reg & 1); }

static void pin(struct gen *g, int reg)
{
    if (reg >= 0)
        g->pinned |= (uint16_t)(1u << reg);
}

static uint64_t width_mask(unsigned bits) { return bits >= 64 ? ~0ull : (1ull << bits) - 1; }

/* Sets the low bits of a register's initial value. */
static void set_low(struct gen *g, int reg, uint64_t v, unsigned bits)
{
    uint64_t *p = &g->c->regs.gpr[reg];
    *p = (*p & ~width_mask(bits)) | (v & width_mask(bits));
    pin(g, reg);
}

bool gen_address_lost(const struct gen *g, const struct cat_insn *in)
{
    for (unsigned i = 0; i < in->d.operand_count; i++) {
        const ZydisDecodedOperand *o = &in->op[i];
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || o->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
            continue;
        if (is_clobbered(g, gpr_of(o->mem.base)) || is_clobbered(g, gpr_of(o->mem.index)))
            return true;
    }
    return false;
}

static void put_disp(struct cat_insn *in, uint8_t *code, uint64_t v)
{
    unsigned n = in->d.raw.disp.size / 8u;
    memcpy(code + in->d.raw.disp.offset, &v, n);
    memcpy(in->bytes + in->d.raw.disp.offset, &v, n);
}

static int64_t sext(uint64_t v, unsigned bits) { return (int64_t)(v << (64 - bits)) >> (64 - bits); }

/* A vector index: small elements, so that gathers stay near their target. */
static void small_index(struct gen *g, const struct cat_insn *in, ZydisRegister reg)
{
    const struct dt_xsave *x = dt_xsave();
    int v = vec_of(reg);
    const char *name = ZydisMnemonicGetString(in->d.mnemonic);
    bool quad = strstr(name, "gatherq") || strstr(name, "scatterq") || strstr(name, "qps") || strstr(name, "qpd");
    if (v < 0 || (g->vec_clobbered >> v & 1))
        return;
    for (unsigned i = 0; i < 16; i++) {
        uint32_t e = quad && (i & 1) ? 0 : dice_below(&g->r, 64);
        uint8_t *f = g->c->fpu;
        if (v >= 16)
            memcpy(f + x->off[7] + 64 * (v - 16) + 4 * i, &e, 4);
        else if (i < 4)
            memcpy(f + 160 + 16 * v + 4 * i, &e, 4);
        else if (i < 8 && x->off[2])
            memcpy(f + x->off[2] + 16 * v + 4 * (i - 4), &e, 4);
        else if (i >= 8 && x->off[6])
            memcpy(f + x->off[6] + 32 * v + 4 * (i - 8), &e, 4);
    }
}

/* Makes a memory operand hit a target by way of its base register or displacement. Returns the linear address that the
 * operand has if no register changes before, or NO_LIN. off: place of the instruction in code[]. */
static uint64_t aim(struct gen *g, struct cat_insn *in, const ZydisDecodedOperand *o, unsigned off)
{
    unsigned aw = in->d.address_width, bytes = o->size / 8u ? o->size / 8u : 8;
    int base = gpr_of(o->mem.base), index = gpr_of(o->mem.index);
    bool rip = o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP;
    bool vsib = vec_of(o->mem.index) >= 0;
    uint64_t seg = gen_seg_base(g, seg_of(o->mem.segment)), want = gen_target(g, bytes) - seg, sum = 0;
    if (is_clobbered(g, base) || is_clobbered(g, index))
        return NO_LIN;
    if (vsib)
        small_index(g, in, o->mem.index);
    if (is_free(g, index) && index != base && dice_chance(&g->r, 85))
        set_low(g, index, dice_chance(&g->r, 80) ? dice_below(&g->r, 64) : 0ull - dice_below(&g->r, 64), aw);
    if (index >= 0)
        sum += g->c->regs.gpr[index] * (o->mem.scale ? o->mem.scale : 1);
    pin(g, index);
    uint64_t disp = (uint64_t)o->mem.disp.value;
    if (rip) {
        uint64_t next = g->c->regs.rip + off + in->d.length;
        put_disp(in, g->c->code + off, want - next);
        return seg + ((next + (uint64_t)sext(want - next, 32)) & width_mask(aw));
    }
    if (base >= 0 && base != index && is_free(g, base) && base != 4) {
        set_low(g, base, want - sum - disp, aw);
    } else if (in->d.raw.disp.size >= 16) {
        uint64_t b = base >= 0 ? g->c->regs.gpr[base] : 0;
        unsigned bits = in->d.raw.disp.size;
        put_disp(in, g->c->code + off, want - sum - b);
        disp = (uint64_t)sext(want - sum - b, bits);
    }
    pin(g, base);
    uint64_t ea = ((base >= 0 ? g->c->regs.gpr[base] : 0) + sum + disp) & width_mask(aw);
    ea += seg;
    return g->mode == DT_64 ? ea : ea & 0xffffffffu;
}

/* -- what is found at the address -- */

static uint64_t code_lin(const struct gen *g, unsigned off) { return DT_CODE_BASE + g->c->code_off + off; }

/* IP of a place not yet known: behind the instruction by a few bytes, which is often a later instruction. */
static uint64_t later_ip(struct gen *g, const struct cat_insn *in, unsigned off, uint16_t cs)
{
    unsigned skip = g->c->ring0 || dice_chance(&g->r, 75) ? 0 : dice_below(&g->r, 12);
    return code_lin(g, off) + in->d.length + skip - dt_sel_base(cs);
}

static void patch_far_pointer(struct gen *g, const struct cat_insn *in, unsigned off, uint64_t lin, unsigned ip_bytes,
                              bool code)
{
    uint8_t buf[10];
    uint16_t sel = code ? gen_code_selector(g) : gen_selector(g);
    uint64_t ip = code ? later_ip(g, in, off, sel) : gen_value(g);
    memcpy(buf, &ip, 8);
    memcpy(buf + ip_bytes, &sel, 2);
    gen_patch(g, lin, buf, ip_bytes + 2);
}

static void patch_fpu_image(struct gen *g, const struct cat_insn *in, uint64_t lin)
{
    uint32_t mxcsr = gen_mxcsr(g);
    gen_patch(g, lin + 24, &mxcsr, 4);
    if (in->d.mnemonic == ZYDIS_MNEMONIC_FXRSTOR || in->d.mnemonic == ZYDIS_MNEMONIC_FXRSTOR64)
        return;
    uint64_t header[8] = {dt_xsave()->xcr0 & dice_u64(&g->r)};
    if (dice_chance(&g->r, 20))
        header[1] = dt_xsave()->xcr0 | 1ull << 63; /* compacted */
    if (dice_chance(&g->r, 5))
        header[1 + dice_below(&g->r, 7)] |= 1ull << dice_below(&g->r, 64);
    gen_patch(g, lin + 512, header, 64);
}

static void memory_contents(struct gen *g, const struct cat_insn *in, unsigned off, uint64_t lin,
                            const ZydisDecodedOperand *o)
{
    uint8_t buf[64];
    unsigned n = o->size / 8u <= sizeof buf ? o->size / 8u : 0;
    switch (in->d.mnemonic) {
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS: patch_far_pointer(g, in, off, lin, in->d.operand_width / 8u, false); return;
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
        if (in->d.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
            patch_far_pointer(g, in, off, lin, in->d.operand_width / 8u, true);
        else {
            uint64_t ip = later_ip(g, in, off, g->c->regs.sel[DT_CS]);
            gen_patch(g, lin, &ip, in->d.operand_width / 8u);
        }
        return;
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR: {
        uint32_t v = gen_mxcsr(g);
        gen_patch(g, lin, &v, 4);
        return;
    }
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64: patch_fpu_image(g, in, lin); return;
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_ARPL:
    case ZYDIS_MNEMONIC_MOV:
        if (in->d.mnemonic != ZYDIS_MNEMONIC_MOV ||
            ZydisRegisterGetClass(in->op[0].reg.value) == ZYDIS_REGCLASS_SEGMENT) {
            uint16_t sel = gen_selector(g);
            gen_patch(g, lin, &sel, 2);
            return;
        }
        break;
    default: break;
    }
    if (n && dice_chance(&g->r, 50)) {
        gen_fill(&g->r, buf, n);
        gen_patch(g, lin, buf, n);
    }
}

/* Return addresses and popped selectors on an untouched stack. */
static void stack_contents(struct gen *g, const struct cat_insn *in, unsigned off)
{
    uint64_t slot[5], w = in->d.operand_width / 8u;
    uint16_t cs = gen_code_selector(g);
    unsigned n = 1;
    bool far_ret = in->d.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
    if (g->stack_moved || dice_chance(&g->r, 15))
        return;
    if (in->d.mnemonic == ZYDIS_MNEMONIC_POP && in->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
        ZydisRegisterGetClass(in->op[0].reg.value) == ZYDIS_REGCLASS_SEGMENT)
        slot[0] = gen_selector(g);
    else if (in->d.mnemonic == ZYDIS_MNEMONIC_RET && !far_ret)
        slot[0] = later_ip(g, in, off, g->c->regs.sel[DT_CS]);
    else if (in->d.mnemonic == ZYDIS_MNEMONIC_RET || in->d.meta.category == ZYDIS_CATEGORY_RET) {
        slot[0] = later_ip(g, in, off, cs);
        slot[1] = cs;
        slot[2] = 0x202 | (dice_u64(&g->r) & (GEN_ARITH | 0x3400)) |
                  (dice_chance(&g->r, 10) ? dice_u64(&g->r) & 0x3f7000 : 0);
        slot[3] = g->c->regs.gpr[4];
        slot[4] = dice_chance(&g->r, 70) ? g->c->regs.sel[DT_SS] : gen_selector(g);
        n = in->d.mnemonic == ZYDIS_MNEMONIC_RET ? 2 : 5;
    } else
        return;
    uint64_t sp = g->c->regs.gpr[4];
    if (g->mode != DT_64 && !(g->c->regs.sel[DT_SS] & 4 ? dt_ldt[g->c->regs.sel[DT_SS] >> 3].db : 1))
        sp &= 0xffff;
    uint8_t buf[40];
    for (unsigned i = 0; i < n; i++)
        memcpy(buf + i * w, &slot[i], w);
    gen_patch(g, gen_seg_base(g, DT_SS) + sp, buf, (unsigned)(n * w));
}

/* -- registers with a meaning of their own -- */

static void selector_operand(struct gen *g, const struct cat_insn *in)
{
    bool to_seg =
        in->d.mnemonic == ZYDIS_MNEMONIC_MOV && ZydisRegisterGetClass(in->op[0].reg.value) == ZYDIS_REGCLASS_SEGMENT;
    bool query = in->d.mnemonic == ZYDIS_MNEMONIC_LAR || in->d.mnemonic == ZYDIS_MNEMONIC_LSL ||
                 in->d.mnemonic == ZYDIS_MNEMONIC_VERR || in->d.mnemonic == ZYDIS_MNEMONIC_VERW ||
                 in->d.mnemonic == ZYDIS_MNEMONIC_ARPL;
    if (!to_seg && !query)
        return;
    unsigned src = in->d.mnemonic == ZYDIS_MNEMONIC_VERR || in->d.mnemonic == ZYDIS_MNEMONIC_VERW ? 0 : 1;
    int reg = in->op[src].type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr_of(in->op[src].reg.value) : -1;
    if (is_free(g, reg) && reg != 4)
        set_low(g, reg, gen_selector(g), 16);
}

static void special_registers(struct gen *g, const struct cat_insn *in, unsigned off)
{
    const uint64_t rep = ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
    if ((in->d.attributes & rep) && is_free(g, 1)) {
        if (dice_chance(&g->r, 90))
            set_low(g, 1, dice_below(&g->r, 40), 64);
        pin(g, 1);
    }
    selector_operand(g, in);
    switch (in->d.mnemonic) {
    case ZYDIS_MNEMONIC_XGETBV:
        if (is_free(g, 1))
            set_low(g, 1, dice_chance(&g->r, 70) ? 0 : 2 + dice_below(&g->r, 100), 64);
        break;
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV: /* most random quotients overflow */
        if (is_free(g, 2) && dice_chance(&g->r, 60))
            set_low(g, 2, dice_chance(&g->r, 50) ? 0 : dice_below(&g->r, 8), 64);
        break;
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
        if (in->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            int reg = gpr_of(in->op[0].reg.value);
            if (is_free(g, reg) && reg != 4)
                set_low(g, reg, later_ip(g, in, off, g->c->regs.sel[DT_CS]), 64);
        } else if (in->op[0].type == ZYDIS_OPERAND_TYPE_POINTER) {
            uint16_t sel = gen_code_selector(g);
            uint64_t ip = later_ip(g, in, off, sel);
            unsigned n = in->d.raw.imm[0].size / 8u;
            memcpy(g->c->code + off + in->d.raw.imm[0].offset, &ip, n);
            memcpy(g->c->code + off + in->d.raw.imm[1].offset, &sel, 2);
        }
        break;
    default: break;
    }
    if (g->mode != DT_64)
        for (unsigned i = 0; i < 8; i++)
            g->c->regs.gpr[i] &= 0xffffffffu;
}

void gen_operands(struct gen *g, struct cat_insn *in, unsigned off)
{
    special_registers(g, in, off);
    stack_contents(g, in, off);
    bool aimed = false;
    for (unsigned i = 0; i < in->d.operand_count; i++) {
        const ZydisDecodedOperand *o = &in->op[i];
        bool is_stack = o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
                        gpr_of(o->mem.base) == 4;
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || is_stack ||
            (aimed && o->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT))
            continue;
        uint64_t lin = aim(g, in, o, off);
        aimed = true;
        if (lin != NO_LIN && o->mem.type != ZYDIS_MEMOP_TYPE_AGEN)
            memory_contents(g, in, off, lin, o);
    }
    for (unsigned i = 0; i < in->d.operand_count; i++) {
        const ZydisDecodedOperand *o = &in->op[i];
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        int reg = gpr_of(o->reg.value), vec = vec_of(o->reg.value);
        bool written = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
        if (reg >= 0)
            *(written ? &g->clobbered : &g->pinned) |= (uint16_t)(1u << reg);
        if (reg == 4 && written)
            g->stack_moved = true;
        if (vec >= 0 && written)
            g->vec_clobbered |= 1u << vec;
    }
}

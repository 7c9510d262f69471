/* monitor/vsib.c - gathers and scatters carried out element by element, and which bytes a masked instruction touches
 * (SDM 2C, VGATHER*, VPSCATTER*; 2A 2.6 for fault suppression). Runs after fpu_leave; decodes with Zydis.
 *
 * Elements are done from the lowest up. A fault at one of them leaves the lower ones done: loaded or stored, their mask bits
 * cleared, so that the instruction can simply be started again (SDM 2C, VPGATHERDD, description).
 */
#include "monitor/cpumodel.h"
#include "monitor/fpu.h"
#include "monitor/sysfn_int.h"
#include <Zydis/Zydis.h>
#include <string.h>

struct insn {
    ZydisDecodedInstruction i;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};

static bool decode(const struct vcpu *v, const void *bytes, unsigned len, struct insn *n)
{
    ZydisDecoder d;
    if (cpu_code64(&v->c))
        ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    else if (v->c.seg[S_CS].attr & SEG_DB)
        ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    else
        ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, bytes, len, &n->i, n->op));
}

static const ZydisDecodedOperand *memory_operand(const struct insn *n)
{
    for (unsigned k = 0; k < n->i.operand_count_visible; k++)
        if (n->op[k].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return &n->op[k];
    return NULL;
}

static bool is_mask_reg(const ZydisDecodedOperand *o)
{
    return o->type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_MASK;
}

/* The first vector register among the operands: a gather's destination, a scatter's or another store's source. */
static const ZydisDecodedOperand *vector_operand(const struct insn *n)
{
    for (unsigned k = 0; k < n->i.operand_count_visible; k++)
        if (n->op[k].type == ZYDIS_OPERAND_TYPE_REGISTER && !is_mask_reg(&n->op[k]))
            return &n->op[k];
    return &n->op[0];
}

static unsigned reg_id(ZydisRegister r) { return (unsigned)ZydisRegisterGetId(r) & 31; }

/* ---- registers in the image ---- */

#define VEC 64
static void vec_get(struct vcpu *v, unsigned r, uint8_t b[VEC])
{
    const uint8_t *p;
    memset(b, 0, VEC);
    if (r >= 16) {
        if ((p = fpu_image_part(v, FPU_PART_ZMM_HIGH, r - 16)))
            memcpy(b, p, VEC);
        return;
    }
    memcpy(b, fpu_image_part(v, FPU_PART_XMM, r), 16);
    if ((p = fpu_image_part(v, FPU_PART_YMM, r)))
        memcpy(b + 16, p, 16);
    if ((p = fpu_image_part(v, FPU_PART_ZMM, r)))
        memcpy(b + 32, p, 32);
}

static void vec_put(struct vcpu *v, unsigned r, const uint8_t b[VEC])
{
    uint8_t *p;
    if (r >= 16) {
        if ((p = fpu_image_part(v, FPU_PART_ZMM_HIGH, r - 16)))
            memcpy(p, b, VEC);
        return;
    }
    memcpy(fpu_image_part(v, FPU_PART_XMM, r), b, 16);
    if ((p = fpu_image_part(v, FPU_PART_YMM, r)))
        memcpy(p, b + 16, 16);
    if ((p = fpu_image_part(v, FPU_PART_ZMM, r)))
        memcpy(p, b + 32, 32);
}

static uint64_t k_get(struct vcpu *v, unsigned k)
{
    uint64_t val = 0;
    const uint8_t *p = fpu_image_part(v, FPU_PART_K, k & 7);
    if (p)
        memcpy(&val, p, 8);
    return val;
}
static void k_put(struct vcpu *v, unsigned k, uint64_t val)
{
    uint8_t *p = fpu_image_part(v, FPU_PART_K, k & 7);
    if (p)
        memcpy(p, &val, 8);
}

/* ---- gathers and scatters ---- */

struct vsib {
    const ZydisDecodedOperand *mem;
    unsigned is, es, count, width; /* bytes of an index, of an element; elements; bytes of the vector length */
    bool scatter, evex;
    unsigned data, mask; /* registers */
    unsigned seg;
    uint64_t base, amask;
    uint8_t index[VEC], val[VEC], vmask[VEC];
    uint64_t todo; /* bit j: element j is still to be done */
    bool begun;    /* at least one element is done */
};

static bool element_sizes(ZydisMnemonic m, struct vsib *s)
{
    static const struct {
        uint16_t m;
        uint8_t is, es, scatter;
    } list[] = {
        {ZYDIS_MNEMONIC_VGATHERDPS, 4, 4, 0},  {ZYDIS_MNEMONIC_VGATHERDPD, 4, 8, 0},
        {ZYDIS_MNEMONIC_VGATHERQPS, 8, 4, 0},  {ZYDIS_MNEMONIC_VGATHERQPD, 8, 8, 0},
        {ZYDIS_MNEMONIC_VPGATHERDD, 4, 4, 0},  {ZYDIS_MNEMONIC_VPGATHERDQ, 4, 8, 0},
        {ZYDIS_MNEMONIC_VPGATHERQD, 8, 4, 0},  {ZYDIS_MNEMONIC_VPGATHERQQ, 8, 8, 0},
        {ZYDIS_MNEMONIC_VSCATTERDPS, 4, 4, 1}, {ZYDIS_MNEMONIC_VSCATTERDPD, 4, 8, 1},
        {ZYDIS_MNEMONIC_VSCATTERQPS, 8, 4, 1}, {ZYDIS_MNEMONIC_VSCATTERQPD, 8, 8, 1},
        {ZYDIS_MNEMONIC_VPSCATTERDD, 4, 4, 1}, {ZYDIS_MNEMONIC_VPSCATTERDQ, 4, 8, 1},
        {ZYDIS_MNEMONIC_VPSCATTERQD, 8, 4, 1}, {ZYDIS_MNEMONIC_VPSCATTERQQ, 8, 8, 1},
    };
    for (unsigned k = 0; k < sizeof(list) / sizeof(list[0]); k++)
        if (list[k].m == m) {
            s->is = list[k].is;
            s->es = list[k].es;
            s->scatter = list[k].scatter;
            return true;
        }
    return false;
}

static unsigned segment_of(ZydisRegister r)
{
    switch (r) {
    case ZYDIS_REGISTER_ES: return S_ES;
    case ZYDIS_REGISTER_CS: return S_CS;
    case ZYDIS_REGISTER_SS: return S_SS;
    case ZYDIS_REGISTER_FS: return S_FS;
    case ZYDIS_REGISTER_GS: return S_GS;
    default: return S_DS;
    }
}

static void open_mask(struct vcpu *v, const struct insn *n, struct vsib *s)
{
    uint64_t all = s->count == 64 ? ~0ull : (1ull << s->count) - 1;
    if (s->evex) {
        s->mask = reg_id(n->i.avx.mask.reg);
        s->todo = k_get(v, s->mask) & all;
        return;
    }
    s->mask = reg_id(n->op[2].reg.value);
    vec_get(v, s->mask, s->vmask);
    for (unsigned j = 0; j < s->count; j++)
        if (s->vmask[j * s->es + s->es - 1] & 0x80)
            s->todo |= 1ull << j;
}

static bool open_vsib(struct vcpu *v, const struct insn *n, struct vsib *s)
{
    memset(s, 0, sizeof(*s));
    s->mem = memory_operand(n);
    if (!s->mem || s->mem->mem.type != ZYDIS_MEMOP_TYPE_VSIB || !element_sizes(n->i.mnemonic, s))
        return false;
    s->evex = n->i.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
    s->width = n->i.avx.vector_length / 8;
    s->count = s->width / (s->is > s->es ? s->is : s->es);
    s->data = reg_id(vector_operand(n)->reg.value);
    s->seg = segment_of(s->mem->mem.segment);
    s->amask = addr_mask(n->i.address_width / 8u);
    s->base = (uint64_t)s->mem->mem.disp.value;
    if (s->mem->mem.base != ZYDIS_REGISTER_NONE)
        s->base += v->c.gpr[reg_id(s->mem->mem.base) & 15];
    vec_get(v, reg_id(s->mem->mem.index), s->index);
    vec_get(v, s->data, s->val);
    open_mask(v, n, s);
    return true;
}

static uint64_t element_offset(const struct vsib *s, unsigned j)
{
    int64_t idx;
    if (s->is == 4) {
        int32_t x;
        memcpy(&x, s->index + 4 * j, 4);
        idx = x;
    } else
        memcpy(&idx, s->index + 8 * j, 8);
    return (s->base + (uint64_t)idx * s->mem->mem.scale) & s->amask;
}

/* Elements are never checked for alignment (measured). */
static int one_element(struct vcpu *v, struct vsib *s, unsigned j)
{
    unsigned how = (s->scatter ? MEM_W : MEM_R) | MEM_UNALIGNED;
    uint8_t *p = s->val + j * s->es;
    uint64_t lin;
    int err = mem_linear(v, s->seg, element_offset(s, j), s->es, how, &lin);
    if (err)
        return err;
    return s->scatter ? mem_write(v, lin, p, s->es, how) : mem_read(v, lin, p, s->es, how);
}

/* Puts back what has been done so far. whole: all elements were, and the destination's rest becomes zero. Otherwise a fault
 * comes, and what the manual leaves open is as measured: above the vector length the destination is zero once an element has
 * been loaded, and a VEX mask always; the elements of that mask below become all ones or all zeros. */
static void commit(struct vcpu *v, struct vsib *s, bool whole)
{
    unsigned used = s->count * s->es, width = s->width;
    if (!s->scatter && (whole || s->begun)) {
        unsigned keep = whole ? used : width;
        memset(s->val + keep, 0, VEC - keep);
        vec_put(v, s->data, s->val);
    }
    if (s->evex) {
        uint64_t keep = s->count == 64 ? 0 : ~0ull << s->count;
        k_put(v, s->mask, whole ? 0 : (k_get(v, s->mask) & keep) | s->todo);
        return;
    }
    for (unsigned j = 0; j < width / s->es; j++) {
        bool on = j < s->count ? s->todo >> j & 1 : s->vmask[j * s->es + s->es - 1] & 0x80;
        memset(s->vmask + j * s->es, on && !whole ? 0xff : 0, s->es);
    }
    memset(s->vmask + width, 0, VEC - width);
    vec_put(v, s->mask, s->vmask);
}

int sys_vsib(struct vcpu *v, struct sys_op op)
{
    struct insn n;
    struct vsib s;
    fpu_leave(v);
    if (!decode(v, (const void *)(uintptr_t)v->op_imm, op.len, &n) || !open_vsib(v, &n, &s))
        return sys_fault(v, EXC_UD);
    while (s.todo) {
        unsigned j = (unsigned)__builtin_ctzll(s.todo);
        int err = one_element(v, &s, j);
        if (err) {
            commit(v, &s, false);
            /* A trap that elements before have earned comes in lieu of the fault (SDM 2C VPGATHERDD; seen with TF). */
            bool trap = s.begun && (v->dr6_pending || (v->c.eflags_sys & EFLAGS_TF));
            return err == SYS_FAULT && trap ? SYS_RESTART : err;
        }
        s.todo &= s.todo - 1;
        s.begun = true;
    }
    commit(v, &s, true);
    return SYS_NEXT;
}

/* ---- what a masked instruction touches ---- */

static uint64_t low_bits(unsigned n) { return n >= 64 ? ~0ull : (1ull << n) - 1; }

/* Exception types whose instructions suppress faults of masked-off elements (SDM 2A tables 2-43 to 2-60). */
static bool suppresses_faults(const struct insn *n)
{
    switch (n->i.mnemonic) { /* type E4NF, which the decoder takes for E4 */
    case ZYDIS_MNEMONIC_VDBPSADBW:
    case ZYDIS_MNEMONIC_VGF2P8AFFINEQB:
    case ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB:
    case ZYDIS_MNEMONIC_VCVTNE2PS2BF16: return false;
    default: break;
    }
    switch (n->i.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_E1:
    case ZYDIS_EXCEPTION_CLASS_E2:
    case ZYDIS_EXCEPTION_CLASS_E3:
    case ZYDIS_EXCEPTION_CLASS_E4:
    case ZYDIS_EXCEPTION_CLASS_E5:
    case ZYDIS_EXCEPTION_CLASS_E6:
    case ZYDIS_EXCEPTION_CLASS_E10:
    case ZYDIS_EXCEPTION_CLASS_E11: return true;
    default: return false;
    }
}

static bool is_packed_end(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_VEXPANDPS:
    case ZYDIS_MNEMONIC_VEXPANDPD:
    case ZYDIS_MNEMONIC_VPEXPANDB:
    case ZYDIS_MNEMONIC_VPEXPANDW:
    case ZYDIS_MNEMONIC_VPEXPANDD:
    case ZYDIS_MNEMONIC_VPEXPANDQ:
    case ZYDIS_MNEMONIC_VCOMPRESSPS:
    case ZYDIS_MNEMONIC_VCOMPRESSPD:
    case ZYDIS_MNEMONIC_VPCOMPRESSB:
    case ZYDIS_MNEMONIC_VPCOMPRESSW:
    case ZYDIS_MNEMONIC_VPCOMPRESSD:
    case ZYDIS_MNEMONIC_VPCOMPRESSQ: return true;
    default: return false;
    }
}

/* One element, mask bit 0. Their exception types are shared with packed instructions. */
static bool is_scalar(const struct insn *n, const ZydisDecodedOperand *mem)
{
    switch (n->i.mnemonic) {
    case ZYDIS_MNEMONIC_VMOVSH:
    case ZYDIS_MNEMONIC_VMOVSS:
    case ZYDIS_MNEMONIC_VMOVSD:
    case ZYDIS_MNEMONIC_VFPCLASSSH:
    case ZYDIS_MNEMONIC_VFPCLASSSS:
    case ZYDIS_MNEMONIC_VFPCLASSSD: return true;
    default: break;
    }
    return (n->i.meta.exception_class == ZYDIS_EXCEPTION_CLASS_E3 ||
            n->i.meta.exception_class == ZYDIS_EXCEPTION_CLASS_E10) &&
           n->i.avx.broadcast.mode == ZYDIS_BROADCAST_MODE_INVALID && mem->element_count == 1;
}

/* Bits of the element that one mask bit stands for, seen from the full vector length: the wider of source and destination. */
static unsigned mask_granule(const struct insn *n, const ZydisDecodedOperand *mem)
{
    switch (n->i.mnemonic) {
    case ZYDIS_MNEMONIC_VFMULCPH: /* complex numbers: pairs of 16 bits */
    case ZYDIS_MNEMONIC_VFCMULCPH:
    case ZYDIS_MNEMONIC_VFMADDCPH:
    case ZYDIS_MNEMONIC_VFCMADDCPH: return 32;
    default: break;
    }
    if (mem == &n->op[0])
        return vector_operand(n)->element_size;
    if (is_mask_reg(&n->op[0]))
        return mem->element_size;
    if (n->i.avx.broadcast.is_static || n->op[0].element_size > mem->element_size)
        return n->op[0].element_size;
    return mem->element_size;
}

static uint64_t evex_bytes(struct vcpu *v, const struct insn *n, const ZydisDecodedOperand *mem, unsigned size)
{
    unsigned es, granule = mask_granule(n, mem) / 8, count = granule ? n->i.avx.vector_length / 8 / granule : 0;
    uint64_t k = k_get(v, reg_id(n->i.avx.mask.reg)), bytes = 0;
    if (is_scalar(n, mem))
        return k & 1 ? low_bits(size) : 0;
    if (!count)
        return low_bits(size);
    k &= low_bits(count);
    if (is_packed_end(n->i.mnemonic))
        return low_bits((unsigned)__builtin_popcountll(k) * granule);
    /* Elements in memory: each once, or repeated over the vector by a broadcast. */
    bool bcast = n->i.avx.broadcast.mode != ZYDIS_BROADCAST_MODE_INVALID;
    if (bcast)
        es = n->i.avx.broadcast.is_static && granule < size ? granule : size;
    else
        es = size / count;
    for (; k && es; k &= k - 1)
        bytes |= low_bits(es) << (unsigned)__builtin_ctzll(k) * es % size;
    return bytes;
}

/* VMASKMOV, VPMASKMOV: sign bits of a vector. */
static uint64_t vex_bytes(struct vcpu *v, const struct insn *n, unsigned size)
{
    unsigned es = n->i.mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD || n->i.mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ ? 8 : 4;
    uint8_t mask[VEC];
    uint64_t bytes = 0;
    vec_get(v, reg_id(n->op[1].reg.value), mask);
    for (unsigned j = 0; j < size / es; j++)
        if (mask[j * es + es - 1] & 0x80)
            bytes |= low_bits(es) << j * es;
    return bytes;
}

bool sys_masked_bytes(struct vcpu *v, const void *insn, unsigned len, uint64_t *bytes)
{
    struct insn n;
    fpu_leave(v);
    const ZydisDecodedOperand *mem = decode(v, insn, len, &n) ? memory_operand(&n) : NULL;
    if (!mem)
        return false;
    unsigned size = mem->size / 8;
    *bytes = low_bits(size);
    switch (n.i.mnemonic) {
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ: *bytes = vex_bytes(v, &n, size); return true;
    default: break;
    }
    if (n.i.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && n.i.avx.mask.mode != ZYDIS_MASK_MODE_INVALID &&
        n.i.avx.mask.mode != ZYDIS_MASK_MODE_DISABLED && suppresses_faults(&n))
        *bytes = evex_bytes(v, &n, mem, size);
    return true;
}

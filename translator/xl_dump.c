/* translator/xl_dump.c - a TU and its CCF side by side, for -d in_asm,out_asm, `ringdown translate` and crash reports. */
#include "translator/xl_int.h"
#include <inttypes.h>
#include <string.h>

static ZydisMachineMode guest_mode(uint32_t key)
{
    if (key & CPU_KEY_CODE64)
        return ZYDIS_MACHINE_MODE_LONG_64;
    if (key & CPU_KEY_CODE32)
        return ZYDIS_MACHINE_MODE_LEGACY_32;
    return key & CPU_KEY_REAL ? ZYDIS_MACHINE_MODE_REAL_16 : ZYDIS_MACHINE_MODE_LEGACY_16;
}

static unsigned format(ZydisMachineMode mode, const uint8_t *p, unsigned have, uint64_t pc, char *text, size_t size)
{
    ZydisDecoder d;
    ZydisFormatter f;
    ZydisDecodedInstruction i;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    ZydisStackWidth w = mode == ZYDIS_MACHINE_MODE_LONG_64     ? ZYDIS_STACK_WIDTH_64
                        : mode == ZYDIS_MACHINE_MODE_LEGACY_32 ? ZYDIS_STACK_WIDTH_32
                                                               : ZYDIS_STACK_WIDTH_16;
    ZydisDecoderInit(&d, mode, w);
    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(&d, p, have, &i, op)) ||
        ZYAN_FAILED(ZydisFormatterFormatInstruction(&f, &i, op, i.operand_count_visible, text, size, pc, ZYAN_NULL))) {
        snprintf(text, size, "(bad)");
        return 1;
    }
    return i.length;
}

static void dump_code(FILE *f, const char *prefix, const uint8_t *p, uint32_t bytes, uint64_t pc)
{
    char text[160];
    for (uint32_t at = 0; at < bytes;) {
        unsigned n = format(ZYDIS_MACHINE_MODE_LONG_64, p + at, bytes - at, pc + at, text, sizeof text);
        fprintf(f, "%s%08" PRIx64 "  %s\n", prefix, pc + at, text);
        at += n;
    }
}

void xl_dump(FILE *f, const struct xl_input *in, const struct xl_result *r, const uint8_t *hot, const uint8_t *cold)
{
    char text[160];
    fprintf(f, "TU %016" PRIx64 " key %05x: %u instructions, %u bytes -> CCF %08x: %u + %u bytes\n", in->rip, in->key,
            r->d.n_insns, r->d.tu_bytes, r->d.hot_pc, r->d.hot_bytes, r->d.cold_bytes);
    for (unsigned k = 0; k < r->d.n_insns; k++) {
        const struct xl_insn_info *i = &r->insn[k];
        uint8_t raw[16] = {0};
        for (unsigned b = 0; b < i->len && b < sizeof raw; b++)
            raw[b] = i->guest_off + b < in->code_bytes ? in->code[i->guest_off + b]
                     : in->next                        ? in->next[i->guest_off + b - in->code_bytes]
                                                       : 0;
        format(guest_mode(in->key), raw, i->len, in->rip + i->guest_off, text, sizeof text);
        fprintf(f, "  %016" PRIx64 "  %-9s %s\n", in->rip + i->guest_off, xl_class_name(i->cls), text);
        uint32_t end = k + 1 < r->d.n_insns ? r->insn[k + 1].hot_off : r->d.hot_bytes;
        dump_code(f, "                                        ", hot + i->hot_off, end - i->hot_off,
                  r->d.hot_pc + i->hot_off);
    }
    if (r->d.cold_bytes) {
        fprintf(f, "  out of line:\n");
        dump_code(f, "                                        ", cold, r->d.cold_bytes, r->d.cold_pc);
    }
}

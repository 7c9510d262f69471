/* tests/diff/report.c - disassembly and state of a case, coverage by mnemonic. */
#include "tests/diff/report.h"
#include "tests/diff/compare.h"

static void print_regs(FILE *f, const struct dt_case *c)
{
    static const char *const name[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                       "r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15"};
    const struct dt_regs *s = &c->regs;
    for (unsigned i = 0; i < (c->mode == DT_64 ? 16 : 8); i++)
        fprintf(f, "%s%s=%016llx", i % 4 ? " " : "\n  ", name[i], (unsigned long long)s->gpr[i]);
    fprintf(f, "\n  rip=%llx rflags=%llx es=%x cs=%x ss=%x ds=%x fs=%x gs=%x fsbase=%llx gsbase=%llx\n",
            (unsigned long long)s->rip, (unsigned long long)s->rflags, s->sel[0], s->sel[1], s->sel[2], s->sel[3],
            s->sel[4], s->sel[5], (unsigned long long)s->fsbase, (unsigned long long)s->gsbase);
    fprintf(f, "  fcw=%x fsw=%x ftw=%x mxcsr=%x\n", c->fpu[0] | c->fpu[1] << 8, c->fpu[2] | c->fpu[3] << 8, c->fpu[4],
            (unsigned)(c->fpu[24] | c->fpu[25] << 8 | c->fpu[26] << 16));
}

static void print_insns(FILE *f, const struct catalog *cat, const struct dt_case *c)
{
    ZydisFormatter fmt;
    ZydisFormatterInit(&fmt, ZYDIS_FORMATTER_STYLE_INTEL);
    for (unsigned i = 0; i < c->n_insns; i++) {
        const uint8_t *p = c->code + c->insn[i].off;
        char text[128] = "?";
        struct cat_insn in;
        if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(cat_decoder(cat), p, c->insn[i].len, &in.d, in.op)))
            ZydisFormatterFormatInstruction(&fmt, &in.d, in.op, in.d.operand_count_visible, text, sizeof text,
                                            c->regs.rip + c->insn[i].off, NULL);
        fprintf(f, "  %8llx ", (unsigned long long)(c->regs.rip + c->insn[i].off));
        for (unsigned k = 0; k < 12 || k < c->insn[i].len; k++)
            fprintf(f, k < c->insn[i].len ? "%02x" : "  ", p[k]);
        fprintf(f, " %s\n", text);
    }
}

void report_case(FILE *f, const struct catalog *cat, const struct dt_case *c)
{
    print_regs(f, c);
    print_insns(f, cat, c);
    for (unsigned i = 0; i < c->n_patches; i++) {
        fprintf(f, "  memory %llx:", (unsigned long long)DT_DATA_BASE + c->patch[i].off);
        for (unsigned k = 0; k < c->patch[i].len; k++)
            fprintf(f, " %02x", c->patch[i].bytes[k]);
        fprintf(f, "\n");
    }
}

void coverage_add(struct coverage *v, const struct dt_case *c, const struct dt_result *r)
{
    int at = dt_stopped_at(c, r);
    for (int i = 0; i < c->n_insns; i++) {
        v->generated[c->insn[i].mnemonic]++;
        v->reached[c->insn[i].mnemonic] += at < 0 ? i == 0 : i <= at;
        v->completed[c->insn[i].mnemonic] += i < at;
    }
    if (r->vector < 32)
        v->vectors[r->vector]++;
}

unsigned coverage_missing(const struct coverage *v, const struct catalog *cat)
{
    unsigned n = 0;
    for (unsigned m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
        n += cat_has(cat, m) && !v->reached[m];
    return n;
}

void coverage_print(FILE *f, const struct coverage *v, const struct catalog *cat)
{
    fprintf(f, "vectors:");
    for (unsigned i = 0; i < 32; i++)
        if (v->vectors[i])
            fprintf(f, " %u:%llu", i, (unsigned long long)v->vectors[i]);
    fprintf(f, "\nnever reached:");
    for (unsigned m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
        if (cat_has(cat, m) && !v->reached[m])
            fprintf(f, " %s", ZydisMnemonicGetString((ZydisMnemonic)m));
    fprintf(f, "\nmnemonic, completed, reached, generated:\n");
    for (unsigned m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
        if (v->reached[m])
            fprintf(f, "%-20s %8llu %8llu %8llu\n", ZydisMnemonicGetString((ZydisMnemonic)m),
                    (unsigned long long)v->completed[m], (unsigned long long)v->reached[m],
                    (unsigned long long)v->generated[m]);
}

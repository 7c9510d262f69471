/* tests/diff/main.c - the differential test: the same cases on the CPU and in the VM (or on the CPU twice), compared.
 *
 * Usage:  diff_test [--mode 64|32|16] [--cases N | --forever] [--seed S] [--case N] [--self] [engine settings]
 * Exit:   0 no mismatch, 1 mismatch, 2 usage, 77 this host cannot run it.
 */
#include "tests/diff/compare.h"
#include "tests/diff/gen.h"
#include "tests/diff/record.h"
#include "tests/diff/report.h"
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXIT_SKIP 77
struct options {
    enum dt_mode mode;
    uint64_t cases, first;
    bool forever, self, single, sabotage, seed_given;
    unsigned max_mismatches;
    const char *coverage_file, *record_file, *against_file;
    struct gen_options gen;
    struct dt_vm_config vm;
};
struct run {
    struct options o;
    struct catalog *cat;
    struct dt_backend a, b;
    struct dt_record *record;
    struct coverage cov;
    uint64_t done, unusable;
    unsigned mismatches;
};
static volatile sig_atomic_t stop;
static void on_stop(int sig) { stop = 1; }

static const struct dt_result *run_one(struct dt_backend *b, const struct dt_case *c)
{
    b->start(b->self, c, 1);
    return b->finish(b->self);
}

static bool differs(struct run *r, const struct dt_case *c)
{
    static struct dt_result keep;
    keep = *run_one(&r->a, c);
    if (!dt_usable(c, &keep))
        return false;
    return !dt_compare(c, &keep, run_one(&r->b, c), NULL);
}

static struct dt_case cut(const struct dt_case *c, unsigned n)
{
    struct dt_case s = *c;
    unsigned end = c->insn[n - 1].off + c->insn[n - 1].len;
    s.n_insns = (uint8_t)n;
    s.code_len = (uint16_t)(end < c->code_len ? end + 1 : c->code_len);
    if (end < c->code_len)
        s.code[end] = 0xcc;
    if (n < c->n_insns)
        s.undef_end = c->insn[n].undef_before;
    return s;
}

/* The shortest prefix that still differs, then every instruction that can be turned into NOPs without losing that. */
static struct dt_case shrink(struct run *r, const struct dt_case *c)
{
    struct dt_case s = *c;
    for (unsigned n = 1; n < c->n_insns; n++) {
        struct dt_case t = cut(c, n);
        if (differs(r, &t)) {
            s = t;
            break;
        }
    }
    for (unsigned i = 0; i + 1 < s.n_insns; i++) {
        struct dt_case t = s;
        if (t.insn[i].off + t.insn[i].len > t.code_len)
            continue;
        memset(t.code + t.insn[i].off, 0x90, t.insn[i].len);
        if (differs(r, &t))
            s = t;
    }
    return s;
}

static void report_mismatch(struct run *r, const struct dt_case *c, const struct dt_result *a,
                            const struct dt_result *b)
{
    static const char *const mode[] = {"64", "32", "16"};
    printf("MISMATCH: --mode %s --seed %llu --case %llu%s   (%s, %s)\n", mode[c->mode],
           (unsigned long long)r->o.gen.seed, (unsigned long long)c->number, c->ring0 ? " --world window" : "",
           r->a.name, r->b.name);
    report_case(stdout, r->cat, c);
    dt_compare(c, a, b, stdout);
    if (r->o.against_file) { /* no shorter case was recorded */
        fflush(stdout);
        return;
    }
    struct dt_case s = shrink(r, c);
    static struct dt_result ra;
    ra = *run_one(&r->a, &s);
    if (s.n_insns == c->n_insns && !memcmp(s.code, c->code, sizeof s.code)) {
        printf(differs(r, c) ? "  (cannot be shortened)\n" : "  (does not happen again when the case is run alone)\n");
    } else {
        printf(" shortened to:\n");
        report_case(stdout, r->cat, &s);
        dt_compare(&s, &ra, run_one(&r->b, &s), stdout);
    }
    fflush(stdout);
}

/* One bit of a component that is compared; in use it is then. */
static void falsify_fpu(struct dice *d, uint64_t comps, struct dt_result *r)
{
    const struct dt_xsave *x = dt_xsave();
    unsigned i = 0;
    do
        i = dice_below(d, 8);
    while (!((comps & x->xcr0) >> i & 1));
    uint32_t off = i == 0   ? 32 + 16 * dice_below(d, 8) + dice_below(d, 10) /* ST */
                   : i == 1 ? 160 + dice_below(d, 256)
                            : x->off[i] + dice_below(d, x->size[i]);
    r->fpu[off] ^= (uint8_t)(1u << dice_below(d, 8));
}

static void falsify_memory(struct dice *d, bool exact, struct dt_result *r)
{
    unsigned page;
    do
        page = dice_below(d, DT_DATA_PAGES);
    while (DT_DATA_KINDS[page] == '.');
    unsigned first = exact ? dice_below(d, DT_PAGE) : 0, n = exact ? 1 : DT_PAGE;
    for (unsigned i = 0; i < n; i++)
        r->mem[page * DT_PAGE + first + i] ^= (uint8_t)(1u << dice_below(d, 8));
}

/* Changes what must be equal: but for memory one bit. Of selectors not the RPL: that of a null one does not count. False if nothing
 * of the kind drawn is compared. */
static bool falsify(struct dice *d, const struct dt_case *c, struct dt_result *r)
{
    if (dt_may_have_left(c, r))
        return false;
    struct dt_compared seen = dt_compared(c, r);
    uint64_t comps = seen.comps & r->fpu[512];
    unsigned bit = dice_below(d, 32);
    switch (dice_below(d, 7)) {
    case 0: r->regs.gpr[dice_below(d, 8)] ^= 1u << bit; break;
    case 1: r->regs.rip ^= 1u << bit; break;
    case 2: r->regs.sel[dice_below(d, DT_SEGS)] ^= (uint16_t)(4u << bit % 14); break;
    case 3: r->vector ^= 1u << bit % 5; break;
    case 4: r->regs.rflags ^= 1u << bit; return seen.flags >> bit & 1;
    case 5:
        if (!(comps & dt_xsave()->xcr0))
            return false;
        falsify_fpu(d, comps, r);
        break;
    default:
        if (!seen.memory)
            return false;
        falsify_memory(d, seen.memory_exact, r);
    }
    return true;
}

/* The comparison itself under test. */
static void check_sabotage(struct run *r, const struct dt_case *cases, unsigned n)
{
    static struct dt_result b[DT_BATCH];
    struct dice d = {r->done};
    const struct dt_result *a = r->a.finish(r->a.self);
    memcpy(b, r->b.finish(r->b.self), n * sizeof *b);
    for (unsigned i = 0; i < n; i++, r->done++) {
        if (!dt_usable(&cases[i], &a[i]) || !dt_usable(&cases[i], &b[i]))
            continue;
        bool odd = i & 1;
        if (odd && !falsify(&d, &cases[i], &b[i]))
            continue;
        if (dt_compare(&cases[i], &a[i], &b[i], NULL) == odd) {
            printf("case %llu: %s\n", (unsigned long long)cases[i].number,
                   odd ? "falsified, not noticed" : "false alarm");
            r->mismatches++;
        }
    }
}

static void record_batch(struct run *r, const struct dt_case *cases, unsigned n)
{
    const struct dt_result *a = r->a.finish(r->a.self);
    for (unsigned i = 0; i < n; i++, r->done++) {
        dt_record_put(r->record, &cases[i], &a[i]);
        r->unusable += !dt_usable(&cases[i], &a[i]);
    }
}

/* What was recorded may say nothing where the second run does. */
static bool usable(const struct run *r, const struct dt_case *c, const struct dt_result *a, const struct dt_result *b)
{
    return dt_usable(c, a) && (!r->o.against_file || dt_usable(c, b));
}

static void check_batch(struct run *r, const struct dt_case *cases, unsigned n)
{
    static struct dt_result keep_a[DT_BATCH], keep_b[DT_BATCH];
    const struct dt_result *a = r->a.finish(r->a.self), *b = r->b.finish(r->b.self);
    bool bad = false;
    for (unsigned i = 0; i < n; i++) {
        r->done++;
        if (!usable(r, &cases[i], &a[i], &b[i])) {
            r->unusable++;
            continue;
        }
        coverage_add(&r->cov, &cases[i], &a[i]);
        bad |= !dt_compare(&cases[i], &a[i], &b[i], NULL);
    }
    if (!bad)
        return;
    memcpy(keep_a, a, n * sizeof *a);
    memcpy(keep_b, b, n * sizeof *b);
    for (unsigned i = 0; i < n; i++)
        if (usable(r, &cases[i], &keep_a[i], &keep_b[i]) && !dt_compare(&cases[i], &keep_a[i], &keep_b[i], NULL)) {
            r->mismatches++;
            report_mismatch(r, &cases[i], &keep_a[i], &keep_b[i]);
            if (r->mismatches >= r->o.max_mismatches)
                return;
        }
}

static void run_all(struct run *r)
{
    static struct dt_case cases[DT_BATCH];
    const struct options *o = &r->o;
    uint64_t next = o->first, end = o->forever ? UINT64_MAX : o->first + o->cases;
    while (next < end && !stop && r->mismatches < o->max_mismatches) {
        unsigned n = 0;
        for (; n < DT_BATCH && next < end; n++)
            gen_case(r->cat, &o->gen, o->mode, next++, &cases[n]);
        r->a.start(r->a.self, cases, n);
        if (r->record) {
            record_batch(r, cases, n);
            continue;
        }
        r->b.start(r->b.self, cases, n);
        if (o->sabotage)
            check_sabotage(r, cases, n);
        else
            check_batch(r, cases, n);
    }
}

static const char usage[] =
    "usage: diff_test [options]\n"
    "  --mode 64|32|16    code of the cases (64)\n"
    "  --cases N          how many (10000)\n"
    "  --world window     the VM runs the cases at CPL 0, which reaches memory through the kernel window\n"
    "  --forever          until SIGINT or SIGTERM\n"
    "  --seed S           a number, or \"time\" (1)\n"
    "  --case N           this one only, printed in full\n"
    "  --mnemonic NAME    first instruction of every case\n"
    "  --length N         at most N instructions a case (16)\n"
    "  --mismatches N     stop after N of them (10)\n"
    "  --self             the CPU against itself: checks the harness\n"
    "  --sabotage         as --self, but every second result is falsified: succeeds if each is noticed\n"
    "  --record FILE      the CPU's results into a file\n"
    "  --against FILE     the CPU against such a file, with the same mode and seed, from the same first case\n"
    "  --coverage FILE    write the counts by mnemonic\n"
    "  --max-insns N --no-chain --evict-random N --force-exit N --tc BYTES    settings of the engine\n";

enum {
    O_MODE = 1,
    O_CASES,
    O_FOREVER,
    O_WORLD,
    O_SEED,
    O_CASE,
    O_MNEMONIC,
    O_LENGTH,
    O_MISMATCHES,
    O_SELF,
    O_SABOTAGE,
    O_COVERAGE,
    O_RECORD,
    O_AGAINST,
    O_MAX_INSNS,
    O_NO_CHAIN,
    O_EVICT,
    O_FORCE,
    O_TC
};
static const struct option longs[] = {{"mode", 1, NULL, O_MODE},
                                      {"cases", 1, NULL, O_CASES},
                                      {"forever", 0, NULL, O_FOREVER},
                                      {"seed", 1, NULL, O_SEED},
                                      {"world", 1, NULL, O_WORLD},
                                      {"case", 1, NULL, O_CASE},
                                      {"mnemonic", 1, NULL, O_MNEMONIC},
                                      {"length", 1, NULL, O_LENGTH},
                                      {"mismatches", 1, NULL, O_MISMATCHES},
                                      {"self", 0, NULL, O_SELF},
                                      {"sabotage", 0, NULL, O_SABOTAGE},
                                      {"coverage", 1, NULL, O_COVERAGE},
                                      {"record", 1, NULL, O_RECORD},
                                      {"against", 1, NULL, O_AGAINST},
                                      {"max-insns", 1, NULL, O_MAX_INSNS},
                                      {"no-chain", 0, NULL, O_NO_CHAIN},
                                      {"evict-random", 1, NULL, O_EVICT},
                                      {"force-exit", 1, NULL, O_FORCE},
                                      {"tc", 1, NULL, O_TC},
                                      {NULL, 0, NULL, 0}};

static int mnemonic_by_name(const char *name)
{
    for (unsigned m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
        if (!strcmp(name, ZydisMnemonicGetString((ZydisMnemonic)m)))
            return (int)m;
    return -1;
}

static bool set_option(struct options *o, int opt, const char *arg)
{
    char *end = NULL;
    unsigned long long v = arg ? strtoull(arg, &end, 0) : 0;
    bool number = arg && *arg && !*end;
    switch (opt) {
    case O_MODE: o->mode = v == 64 ? DT_64 : v == 32 ? DT_32 : DT_16; return v == 64 || v == 32 || v == 16;
    case O_CASES: o->cases = v; return number;
    case O_WORLD: o->gen.ring0 = o->vm.ring0 = !strcmp(arg, "window"); return o->vm.ring0 || !strcmp(arg, "user");
    case O_FOREVER: o->forever = true; return true;
    case O_SEED:
        o->gen.seed = number ? v : (uint64_t)time(NULL), o->seed_given = true;
        return number || !strcmp(arg, "time");
    case O_CASE: o->first = v, o->cases = 1, o->single = true; return number;
    case O_MNEMONIC: o->gen.pick = mnemonic_by_name(arg); return o->gen.pick >= 0;
    case O_LENGTH: o->gen.max_insns = (unsigned)v; return number && v >= 1 && v <= DT_MAX_INSNS;
    case O_MISMATCHES: o->max_mismatches = (unsigned)v; return number && v;
    case O_SELF: o->self = true; return true;
    case O_SABOTAGE: o->self = o->sabotage = true; return true;
    case O_COVERAGE: o->coverage_file = arg; return true;
    case O_RECORD: o->record_file = arg; return true;
    case O_AGAINST: o->against_file = arg; return true;
    case O_MAX_INSNS: o->vm.max_insns = (unsigned)v; return number;
    case O_NO_CHAIN: o->vm.no_chain = 1; return true;
    case O_EVICT: o->vm.evict_random = (unsigned)v; return number;
    case O_FORCE: o->vm.force_exit = (unsigned)v; return number;
    case O_TC: o->vm.tc_bytes = v; return number;
    default: return false;
    }
}

/* ./check repeats the same cases, so that its result is the tree's and not the day's; RD_LONG=1 takes new ones, ten times as
 * many, and RD_SEED=N those of that seed. */
static void from_environment(struct options *o)
{
    const char *seed = getenv("RD_SEED"), *long_run = getenv("RD_LONG");
    bool is_long = long_run && *long_run && strcmp(long_run, "0");
    if (is_long) {
        o->cases *= 10;
        o->gen.seed = (uint64_t)time(NULL);
    }
    if (seed && *seed)
        o->gen.seed = strtoull(seed, NULL, 0);
}

static int parse(struct options *o, int argc, char **argv)
{
    *o = (struct options){
        .cases = 10000, .max_mismatches = 10, .gen = {.seed = 1, .pick = -1, .max_insns = DT_MAX_INSNS}};
    int opt;
    while ((opt = getopt_long(argc, argv, "", longs, NULL)) != -1)
        if (!set_option(o, opt, optarg)) {
            fputs(usage, stderr);
            return -1;
        }
    if (!o->seed_given && !o->single)
        from_environment(o);
    o->vm.seed = o->gen.seed;
    if (optind < argc)
        fputs(usage, stderr);
    return optind < argc ? -1 : 0;
}

static void print_result(const struct run *r, const struct dt_result *a)
{
    printf("%s: vector %u error %x cr2 %llx rip %llx rflags %llx\n", r->a.name, a->vector, a->error,
           (unsigned long long)a->cr2, (unsigned long long)a->regs.rip, (unsigned long long)a->regs.rflags);
}

static void show_single(struct run *r)
{
    struct dt_case c;
    gen_case(r->cat, &r->o.gen, r->o.mode, r->o.first, &c);
    report_case(stdout, r->cat, &c);
    print_result(r, run_one(&r->a, &c));
}

static int open_backends(struct run *r)
{
    static uint8_t golden[DT_DATA_BYTES];
    gen_golden(r->o.gen.seed, golden);
    if (dt_native_open(&r->a, golden))
        return EXIT_SKIP;
    if (r->o.record_file)
        return (r->record = dt_record_create(r->o.record_file, r->o.mode, r->o.gen.seed, golden)) ? 0 : 1;
    if (r->o.against_file)
        return dt_recorded_open(&r->b, r->o.against_file, r->o.mode, r->o.gen.seed, golden) ? 1 : 0;
    if (r->o.self)
        return dt_native_open(&r->b, golden) ? EXIT_SKIP : 0;
    return dt_vm_open(&r->b, golden, &r->o.vm) ? 1 : 0;
}

static int finish(struct run *r, double seconds)
{
    printf("diff: mode %s seed %llu: %llu cases, %u mismatches, %llu without result, %u mnemonics never reached, %.0f "
           "cases/s\n",
           r->o.mode == DT_64   ? "64"
           : r->o.mode == DT_32 ? "32"
                                : "16",
           (unsigned long long)r->o.gen.seed, (unsigned long long)r->done, r->mismatches,
           (unsigned long long)r->unusable, coverage_missing(&r->cov, r->cat),
           (double)r->done / (seconds > 0 ? seconds : 1));
    if (r->o.coverage_file) {
        FILE *f = fopen(r->o.coverage_file, "w");
        if (!f) {
            perror(r->o.coverage_file);
            return 1;
        }
        coverage_print(f, &r->cov, r->cat);
        fclose(f);
    }
    return r->mismatches != 0;
}

int main(int argc, char **argv)
{
    static struct run r;
    if (parse(&r.o, argc, argv))
        return 2;
    struct sigaction sa = {.sa_handler = on_stop};
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    r.cat = cat_open(r.o.mode);
    int err = open_backends(&r);
    if (err)
        return err;
    struct timespec t0, t1;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    if (r.o.single)
        show_single(&r);
    run_all(&r);
    clock_gettime(CLOCK_MONOTONIC, &t1);
    err = finish(&r, (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) * 1e-9);
    r.a.close(r.a.self);
    if (r.record)
        err |= dt_record_close(r.record) != 0;
    else
        r.b.close(r.b.self);
    cat_close(r.cat);
    return err;
}

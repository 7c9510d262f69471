/* monitor/translate.c - ringdown translate: calls a function of a file inside a VM and prints every block that gets translated.
 *
 * The VM is bare: the function runs at CPL 0 with interrupts off, flat segments, and a stack. Page 1 of guest memory holds one
 * HLT per exception vector and one more as the function's return address, so that every way of ending is a halt.
 *
 *   guest memory   0x1000 traps, IDT, GDT   0x10000-0x1ffff stack   0x20000-0xfffff page tables   0x100000- the file's parts
 * 64-bit code is mapped where the file wants it; 32-bit code runs without paging, 16-bit code in real mode with the image at
 * CS:0, so these have to lie in memory as they are.
 */
#define _GNU_SOURCE
#include "monitor/translate.h"
#include "base/err.h"
#include "base/log.h"
#include "base/props.h"
#include "base/stat.h"
#include "monitor/cpumodel.h"
#include "monitor/engine.h"
#include "monitor/objfile.h"
#include "monitor/vcpu.h"
#include "shadowmmu/gpmem.h"
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define TRAPS 0x1000u /* HLT of vector n at TRAPS + n; the return address is TRAP_RETURN */
#define VECTORS 32u
#define TRAP_RETURN (TRAPS + VECTORS)
#define GDT 0x2000u
#define IDT 0x3000u
#define STACK_TOP 0x20000u
#define STACK_BYTES 0x10000u
#define TABLES 0x20000u
#define IMAGE 0x100000u
#define FLAT_LIMIT 0x80000000u
#define SEL_CODE 8u
#define SEL_DATA 16u
#define MAX_ARGS 16
#define SLICE_MS 50
#define DEFAULT_LIMIT_S 10u

struct job {
    const char *file, *entry;
    unsigned mode, n_args, limit_s;
    uint64_t base, arg[MAX_ARGS], max_insns;
    bool window;
    /* -- */
    struct objfile obj;
    struct vm *vm;
    struct vcpu *v;
    uint64_t start, phys_next, table_next, trap_base;
    char *listing;
    size_t listing_bytes, printed;
    FILE *capture;
};

static int fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int fail(const char *fmt, ...)
{
    va_list ap;
    fflush(stdout); /* the reason comes last */
    va_start(ap, fmt);
    fprintf(stderr, "ringdown translate: ");
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return 1;
}

/* ---- usage ---- */

static void usage(FILE *f)
{
    fprintf(
        f, "usage: ringdown translate FILE [--entry SYMBOL|ADDRESS] [--args N,...] [--mode 16|32|64] [--base ADDRESS]\n"
           "                [--max-insns N] [--window on|off] [--limit SECONDS]\n"
           "Calls a function of FILE (an ELF object or executable, or raw code) in a VM and prints each guest block "
           "that is\n"
           "translated (TU) with the class of every instruction, and the code that it became (CCF).\n");
}

static bool parse_args(struct job *j, const char *list)
{
    char word[32];
    for (const char *p = list; *p;) {
        size_t n = strcspn(p, ",");
        bool minus = *p == '-';
        if (j->n_args == MAX_ARGS || n >= sizeof word || n <= (size_t)minus)
            return false;
        memcpy(word, p, n);
        word[n] = 0;
        if (parse_u64(word + minus, &j->arg[j->n_args]))
            return false;
        if (minus)
            j->arg[j->n_args] = -j->arg[j->n_args];
        j->n_args++;
        p += n + (p[n] == ',');
    }
    return true;
}

enum opt { OPT_ENTRY = 1, OPT_ARGS, OPT_MODE, OPT_BASE, OPT_MAX_INSNS, OPT_WINDOW, OPT_LIMIT, OPT_HELP };

static bool set_option(struct job *j, int opt, const char *val)
{
    uint64_t x;
    switch (opt) {
    case OPT_ENTRY: j->entry = val; return *val;
    case OPT_ARGS: return parse_args(j, val);
    case OPT_MODE:
        if (parse_u64(val, &x) || (x != 16 && x != 32 && x != 64))
            return false;
        j->mode = (unsigned)x;
        return true;
    case OPT_BASE: return !parse_u64(val, &j->base) && j->base && !(j->base & 15);
    case OPT_MAX_INSNS: return !parse_u64(val, &j->max_insns) && j->max_insns <= 64;
    case OPT_WINDOW: return !parse_bool(val, &j->window);
    case OPT_LIMIT:
        if (parse_u64(val, &x) || !x || x > 3600)
            return false;
        j->limit_s = (unsigned)x;
        return true;
    }
    return false;
}

/* 0 = go on, 1 = help was asked for, 2 = wrong. */
static int parse(struct job *j, int argc, char **argv)
{
    static const struct option options[] = {{"entry", required_argument, NULL, OPT_ENTRY},
                                            {"args", required_argument, NULL, OPT_ARGS},
                                            {"mode", required_argument, NULL, OPT_MODE},
                                            {"base", required_argument, NULL, OPT_BASE},
                                            {"max-insns", required_argument, NULL, OPT_MAX_INSNS},
                                            {"window", required_argument, NULL, OPT_WINDOW},
                                            {"limit", required_argument, NULL, OPT_LIMIT},
                                            {"help", no_argument, NULL, OPT_HELP},
                                            {0}};
    int opt, index = 0;
    opterr = 0;
    optind = 1;
    while ((opt = getopt_long(argc, argv, "h", options, &index)) != -1) {
        if (opt == OPT_HELP || opt == 'h')
            return 1;
        if (opt == '?') {
            fail("%s: unknown option, or its value is missing (--help lists the options)", argv[optind - 1]);
            return 2;
        }
        if (!set_option(j, opt, optarg)) {
            fail("--%s: '%s' is not a value of it", options[index].name, optarg);
            return 2;
        }
    }
    if (optind + 1 != argc) {
        fail("%s (--help explains)", optind == argc ? "FILE is missing" : "more than one FILE");
        return 2;
    }
    j->file = argv[optind];
    return 0;
}

/* ---- the guest ---- */

static int put(struct job *j, uint64_t gpa, const void *data, size_t bytes)
{
    return gpmem_write(vm_memory(j->vm), gpa, data, bytes);
}

static int push(struct job *j, struct cpu *c, uint64_t val, unsigned bytes)
{
    c->gpr[R_RSP] -= bytes;
    return put(j, (j->mode == 16 ? STACK_TOP - STACK_BYTES : 0) + c->gpr[R_RSP], &val, bytes);
}

static int put_traps(struct job *j)
{
    uint8_t hlt[VECTORS + 1];
    memset(hlt, 0xf4, sizeof hlt);
    return put(j, TRAPS, hlt, sizeof hlt);
}

static struct seg make_seg(uint16_t sel, uint64_t base, uint32_t limit, uint32_t attr)
{
    struct seg s = {.sel = sel, .base = base, .limit = limit, .attr = attr | SEG_P | SEG_S | SEG_A | SEG_RW};
    cpu_seg_cache(&s);
    return s;
}

static int put_tables(struct job *j, struct cpu *c)
{
    bool wide = j->mode == 64;
    uint64_t gdt[3] = {0, wide ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull, 0x00cf93000000ffffull};
    int rc = put(j, GDT, gdt, sizeof gdt);
    for (unsigned i = 0; i < VECTORS && !rc; i++) {
        uint64_t gate[2] = {(TRAPS + i) | SEL_CODE << 16 | 0x8e00ull << 32, 0};
        rc = put(j, IDT + i * (wide ? 16 : 8), gate, wide ? 16 : 8);
    }
    c->gdtr = (struct dtable){.base = GDT, .limit = sizeof gdt - 1};
    c->idtr = (struct dtable){.base = IDT, .limit = VECTORS * (wide ? 16 : 8) - 1};
    c->seg[S_CS] = make_seg(SEL_CODE, 0, 0xffffffff, SEG_CODE | SEG_G | (wide ? SEG_L : SEG_DB));
    for (unsigned s = 0; s < S_COUNT; s++)
        if (s == S_ES || s == S_SS || s == S_DS || s == S_FS || s == S_GS)
            c->seg[s] = make_seg(SEL_DATA, 0, 0xffffffff, SEG_DB | SEG_G);
    return rc;
}

/* Maps one page of linear addresses. -RD_E_RANGE: no room for more tables. */
static int map_page(struct job *j, uint64_t lin, uint64_t gpa)
{
    uint64_t table = TABLES;
    for (unsigned shift = 39; shift > 12; shift -= 9) {
        uint64_t *entry = (uint64_t *)gpmem_ptr(vm_memory(j->vm), table) + (lin >> shift & 511);
        if (!(*entry & PTE_P)) {
            if (j->table_next == IMAGE)
                return -RD_E_RANGE;
            *entry = j->table_next | PTE_P | PTE_W;
            j->table_next += PAGE_SIZE;
        }
        table = *entry & ~0xfffull;
    }
    uint64_t *entry = (uint64_t *)gpmem_ptr(vm_memory(j->vm), table) + (lin >> 12 & 511);
    if (!(*entry & PTE_P))
        *entry = gpa | PTE_P | PTE_W;
    return 0;
}

/* 64-bit parts go to physical memory one after the other; two parts may share a page. */
static int map_part(struct job *j, const struct objfile_part *p)
{
    for (uint64_t lin = p->addr & PAGE_MASK; lin < p->addr + p->bytes; lin += PAGE_SIZE) {
        uint64_t gpa;
        if (lin < IMAGE || !x86_is_canonical(lin))
            return -RD_E_RANGE;
        if (vcpu_translate(j->v, lin, &gpa)) {
            int rc = map_page(j, lin, j->phys_next);
            if (rc)
                return rc;
            j->phys_next += PAGE_SIZE;
        }
    }
    return 0;
}

static int copy_part(struct job *j, const struct objfile_part *p)
{
    for (uint64_t done = 0, gpa; done < p->bytes;) {
        uint64_t n = PAGE_SIZE - ((p->addr + done) & ~PAGE_MASK);
        if (n > p->bytes - done)
            n = p->bytes - done;
        if (vcpu_translate(j->v, p->addr + done, &gpa) || put(j, gpa, p->data + done, n))
            return -RD_E_RANGE;
        done += n;
    }
    return 0;
}

static int load_parts(struct job *j)
{
    for (unsigned i = 0; i < j->obj.n_parts; i++) {
        const struct objfile_part *p = &j->obj.part[i];
        int rc = j->mode == 64 ? map_part(j, p) : 0;
        if (!rc)
            rc = copy_part(j, p);
        if (rc)
            return fail("'%s': the part at 0x%" PRIx64 " cannot be placed (addresses from 0x%x up are free)", j->file,
                        p->addr, j->mode == 16 ? 0u : IMAGE);
    }
    return 0;
}

/* Memory that holds the parts where they have to lie. 0: they cannot. */
static uint64_t memory_needed(const struct job *j)
{
    uint64_t end = IMAGE;
    for (unsigned i = 0; i < j->obj.n_parts; i++) {
        const struct objfile_part *p = &j->obj.part[i];
        if (j->mode == 64) {
            end += p->bytes + 2 * PAGE_SIZE;
            continue;
        }
        uint64_t first = j->mode == 16 ? STACK_TOP : IMAGE;
        if (p->addr < first || p->addr > FLAT_LIMIT || p->bytes > FLAT_LIMIT - p->addr)
            return 0;
        if (p->addr + p->bytes > end)
            end = p->addr + p->bytes;
    }
    return (end + PAGE_SIZE - 1) & PAGE_MASK;
}

static int enter_long(struct job *j, struct cpu *c)
{
    j->table_next = TABLES + PAGE_SIZE;
    j->phys_next = IMAGE;
    c->cr3 = TABLES;
    c->cr4 |= CR4_PAE;
    c->efer |= EFER_LME | EFER_LMA;
    c->cr0 |= CR0_PG | CR0_PE | CR0_WP;
    int rc = 0;
    for (uint64_t lin = 0; lin < TABLES && !rc; lin += PAGE_SIZE)
        rc = map_page(j, lin, lin);
    return rc;
}

/* Real mode: vectors at 0, the traps and the image in segments of their own; a near return ends at an HLT behind the image. */
static int enter_real(struct job *j, struct cpu *c)
{
    const struct objfile_part *last = &j->obj.part[0];
    for (unsigned i = 0; i < j->obj.n_parts; i++)
        if (j->obj.part[i].addr > last->addr)
            last = &j->obj.part[i];
    uint64_t base = j->obj.part[0].addr & ~15ull, end = last->addr + last->bytes;
    uint8_t hlt = 0xf4;
    if (end >= base + 0x10000 || base + 0x10000 > 0x110000 || (base & 15) || j->start - base > 0xffff)
        return -RD_E_RANGE;
    int rc = put(j, end, &hlt, 1);
    for (uint32_t i = 0; i < VECTORS && !rc; i++)
        rc = put(j, 4 * i, &(uint32_t){(TRAPS >> 4) << 16 | i}, 4);
    c->idtr = (struct dtable){.base = 0, .limit = 0x3ff};
    for (unsigned s = 0; s < S_COUNT; s++)
        if (s == S_ES || s == S_DS || s == S_FS || s == S_GS)
            c->seg[s] = make_seg((uint16_t)(base >> 4), base, 0xffff, 0);
    c->seg[S_CS] = make_seg((uint16_t)(base >> 4), base, 0xffff, SEG_CODE);
    c->seg[S_SS] = make_seg((STACK_TOP - STACK_BYTES) >> 4, STACK_TOP - STACK_BYTES, 0xffff, 0);
    c->rip = j->start - base;
    j->trap_base = end - base;
    return rc;
}

/* SysV ABI: registers first in 64-bit code; 32- and 16-bit C passes everything on the stack, the first argument on top. 16-bit
 * code in an ELF file comes from a compiler that writes 32-bit code with prefixes (gcc -m16): its words are 4 bytes. */
static int put_arguments(struct job *j, struct cpu *c)
{
    static const uint8_t regs[] = {R_RDI, R_RSI, R_RDX, R_RCX, R_R8, R_R9};
    unsigned word = j->mode == 16 && j->obj.is_elf ? 4 : j->mode / 8, in_regs = j->mode == 64 ? sizeof regs : 0;
    unsigned on_stack = j->n_args > in_regs ? j->n_args - in_regs : 0;
    int rc = 0;
    c->gpr[R_RSP] = j->mode == 16 ? STACK_BYTES - 256 : STACK_TOP - 256;
    if (j->mode != 16) /* the stack is aligned to 16 bytes before the call */
        c->gpr[R_RSP] -= on_stack * word % 16 ? 16 - on_stack * word % 16 : 0;
    for (unsigned i = j->n_args; i-- > 0 && !rc;)
        if (i < in_regs)
            c->gpr[regs[i]] = j->arg[i];
        else
            rc = push(j, c, j->arg[i], word);
    return rc ? rc : push(j, c, j->mode == 16 ? j->trap_base : TRAP_RETURN, word);
}

static void offer_vectors(struct job *j, struct cpu *c)
{
    const struct cpumodel *m = vm_cpumodel(j->vm);
    c->cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
    if (m->xcr0) {
        c->cr4 |= CR4_OSXSAVE;
        c->xcr0 = m->xcr0;
    }
}

/* What FNINIT leaves, and MXCSR's default: C code counts on masked exceptions, which a reset does not give. */
static int init_fpu(struct job *j)
{
    size_t n = vcpu_fpu_bytes(j->v);
    uint8_t *image = calloc(1, n);
    int rc = image ? vcpu_get_fpu(j->v, image, n) : -RD_E_NOMEM;
    if (!rc) {
        memcpy(image, &(uint16_t){0x37f}, 2);
        image[4] = 0; /* every register empty */
        memcpy(image + 24, &(uint32_t){0x1f80}, 4);
        image[512] |= 3; /* XSTATE_BV: both are in the image */
        rc = vcpu_set_fpu(j->v, image, n);
    }
    free(image);
    return rc;
}

static int prepare(struct job *j)
{
    struct vm_config cfg = {.max_insns = (unsigned)j->max_insns, .no_window = !j->window};
    struct cpu c;
    uint64_t bytes = memory_needed(j);
    if (!bytes)
        return fail("'%s': %u-bit code has to lie between 0x%x and 0x%x (--base moves objects and raw code)", j->file,
                    j->mode, j->mode == 16 ? STACK_TOP : IMAGE, FLAT_LIMIT);
    int rc = vm_create(&j->vm, &cfg, NULL, NULL);
    if (!rc)
        rc = vm_add_memory(j->vm, 0, bytes < 2 * IMAGE ? 2 * IMAGE : bytes, false);
    if (rc)
        return fail("cannot create the virtual machine: %s", err_text(rc));
    j->v = vm_vcpu(j->vm, 0);
    vcpu_get_state(j->v, &c);
    memset(c.gpr, 0, sizeof c.gpr);
    cpu_set_eflags(&c, EFLAGS_R1);
    c.rip = j->start;
    c.cr0 = CR0_ET | CR0_NE | (j->mode == 16 ? 0 : CR0_PE);
    offer_vectors(j, &c);
    rc = put_traps(j);
    if (!rc)
        rc = j->mode == 16 ? enter_real(j, &c) : put_tables(j, &c);
    if (!rc && j->mode == 64)
        rc = enter_long(j, &c);
    if (!rc)
        rc = put_arguments(j, &c);
    if (!rc)
        rc = vcpu_set_state(j->v, &c);
    if (!rc)
        rc = init_fpu(j);
    if (rc)
        return fail("'%s' does not fit into the virtual machine: %s", j->file, err_text(rc));
    return load_parts(j);
}

/* ---- the listing ---- */

static void print_name(const struct job *j, uint64_t addr)
{
    const struct objfile_symbol *s = objfile_at(&j->obj, addr);
    if (s && s->addr == addr)
        printf("%s:\n", s->name);
    else if (s)
        printf("%s+0x%" PRIx64 ":\n", s->name, addr - s->addr);
}

/* Prints what has been captured; blocks of our own scaffolding are left out. */
static void print_listing(struct job *j)
{
    static bool ours;
    fflush(j->capture);
    for (char *p = j->listing + j->printed, *end; (end = strchr(p, '\n')); p = end + 1) {
        uint64_t rip;
        if (sscanf(p, "TU %" SCNx64, &rip) == 1) {
            uint64_t addr = j->mode == 16 ? rip + j->v->c.seg[S_CS].base : rip;
            ours = !objfile_holds(&j->obj, addr, 1);
            if (!ours) {
                putchar('\n');
                print_name(j, addr);
            }
        }
        if (!ours)
            printf("%.*s\n", (int)(end - p), p);
    }
    j->printed = j->listing_bytes;
}

/* ---- running ---- */

static timer_t start_ticks(void)
{
    timer_t t;
    struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = vcpu_kick_signal()};
    struct itimerspec every = {{0, SLICE_MS * 1000000}, {0, SLICE_MS * 1000000}};
    ev._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    if (timer_create(CLOCK_MONOTONIC, &ev, &t) || timer_settime(t, 0, &every, NULL))
        return NULL;
    return t;
}

/* The HLT that the CPU has stopped behind. */
static int ended(struct job *j)
{
    const struct cpu *c = &j->v->c;
    uint64_t at = c->seg[S_CS].base + c->rip - 1;
    uint64_t ret = j->mode == 16 ? (j->obj.part[0].addr & ~15ull) + j->trap_base : TRAP_RETURN;
    if (at == ret) {
        bool word = j->mode == 16 && !j->obj.is_elf;
        uint64_t val = j->mode == 64 ? c->gpr[R_RAX] : word ? (uint16_t)c->gpr[R_RAX] : (uint32_t)c->gpr[R_RAX];
        printf("\ndirect jumps chained: %" PRIu64 "\nreturned %d (%s = 0x%" PRIx64 ")\n", vm_stats(j->vm)->chain_links,
               word ? (int16_t)val : (int32_t)val,
               j->mode == 64 ? "rax"
               : word        ? "ax"
                             : "eax",
               val);
        return 0;
    }
    if (at >= TRAPS && at < TRAPS + VECTORS) {
        unsigned vector = (unsigned)(at - TRAPS);
        return fail("the function raised exception %u%s", vector,
                    vector == EXC_PF   ? " (it used memory that is not there)"
                    : vector == EXC_UD ? " (undefined instruction)"
                                       : "");
    }
    return fail("the function halted at 0x%" PRIx64, at);
}

static int run(struct job *j)
{
    timer_t tick = start_ticks();
    struct timespec now, begin;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (;;) {
        enum vm_exit_reason r = vcpu_run(j->v);
        print_listing(j);
        const struct vcpu_exit *e = vcpu_exit_info(j->v);
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (r == VM_EXIT_KICK && now.tv_sec - begin.tv_sec < j->limit_s)
            continue;
        if (tick)
            timer_delete(tick);
        switch (r) {
        case VM_EXIT_HLT: return ended(j);
        case VM_EXIT_KICK: return fail("the function did not return within %u s (--limit)", j->limit_s);
        case VM_EXIT_IO: return fail("the function used port 0x%x, where nothing is", e->port);
        case VM_EXIT_MMIO: return fail("the function used address 0x%" PRIx64 ", where nothing is", e->addr);
        case VM_EXIT_SHUTDOWN: return fail("the function made the CPU shut down (triple fault)");
        default: return fail("%s", e->text);
        }
    }
}

static int find_start(struct job *j)
{
    const struct objfile_symbol *s = j->entry ? objfile_find(&j->obj, j->entry) : NULL;
    j->start = s ? s->addr : j->obj.entry;
    if (j->entry && !s && parse_u64(j->entry, &j->start))
        return fail("--entry: '%s' is neither a symbol of '%s' nor an address", j->entry, j->file);
    if (!objfile_holds(&j->obj, j->start, 1))
        return fail("--entry: there is no code at 0x%" PRIx64 " in '%s'", j->start, j->file);
    return 0;
}

static int translate_file(struct job *j)
{
    char err[512];
    if (objfile_load(&j->obj, j->file, j->mode, j->base, err, sizeof err))
        return fail("%s", err);
    j->mode = j->obj.mode;
    j->capture = open_memstream(&j->listing, &j->listing_bytes);
    int status = j->capture ? find_start(j) : fail("out of memory");
    if (!status)
        status = prepare(j);
    if (!status) {
        log_to(j->capture);
        log_mask |= 1u << LOG_IN_ASM | 1u << LOG_OUT_ASM;
        status = run(j);
        log_to(NULL);
    }
    if (j->vm)
        vm_destroy(j->vm);
    if (j->capture)
        fclose(j->capture);
    free(j->listing);
    objfile_free(&j->obj);
    return fflush(stdout) ? 1 : status;
}

int translate_main(int argc, char **argv)
{
    struct job j = {.limit_s = DEFAULT_LIMIT_S, .window = true};
    int status = parse(&j, argc, argv);
    if (status == 1) {
        usage(stdout);
        return 0;
    }
    return status ? status : translate_file(&j);
}

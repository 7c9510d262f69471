/* tests/diff/dcase.h - one differential case, its result, and the address space both backends build for it.
 *
 * Role:   the contract between the generator, the two backends (native child process, VM) and the comparison. A case is
 *         fully determined by (seed, mode, number): nothing in it comes from the machine but the XSAVE layout.
 * Layout: everything a case can reach lies below 4 GiB, so that the same pages serve 64-, 32- and 16-bit code; 64-bit code
 *         has a second view of the data far up. One backing object (a memfd, or guest RAM) holds data then code pages.
 */
#ifndef TESTS_DIFF_DCASE_H
#define TESTS_DIFF_DCASE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DT_PAGE 4096u
#define DT_DATA_BASE 0x30000000ull
#define DT_DATA_PAGES 16u
#define DT_CODE_BASE 0x20000000ull
#define DT_CODE_PAGES 2u
#define DT_HIGH_BASE 0x500000000000ull /* second view of the data window, for 64-bit addresses */
#define DT_TOP_PAGE 0xfffff000ull      /* third view of the last data page: the end of the 4 GiB space */
#define DT_DATA_BYTES (DT_DATA_PAGES * DT_PAGE)
#define DT_CODE_BYTES (DT_CODE_PAGES * DT_PAGE)
#define DT_BACKING_BYTES (DT_DATA_BYTES + DT_CODE_BYTES)
/* One letter a page: W read/write, R read-only, . nothing. A 16-bit segment covers the window exactly. */
#define DT_DATA_KINDS "WWWWR.WWR......W"

#define DT_FPU_MAX 4096u /* XSAVE standard format, components x87 .. ZMM_Hi16 */
#define DT_MAX_INSNS 16u
#define DT_MAX_CODE 256u
#define DT_MAX_PATCHES 8u

enum dt_mode { DT_64, DT_32, DT_16, DT_MODES };
/* Segment numbers in encoding order, as arch/x86_arch.h has them. */
enum { DT_ES, DT_CS, DT_SS, DT_DS, DT_FS, DT_GS, DT_SEGS };

/* Mapping of the backing object into the linear address space of a case. */
struct dt_map {
    uint64_t lin;
    uint32_t page; /* first page of the backing object */
    uint32_t count;
    char kind; /* W, R or X (read and execute) */
};
/* The mappings, ended by count == 0. */
const struct dt_map *dt_maps(void);

struct dt_regs {
    uint64_t gpr[16];
    uint64_t rip; /* offset in CS */
    uint64_t rflags;
    uint64_t fsbase, gsbase; /* 64-bit mode only on input; compared in every mode */
    uint16_t sel[DT_SEGS];
    uint16_t pad[2];
};
/* Bytes written over the golden data image before the case runs. */
struct dt_patch {
    uint32_t off, len; /* offset in the data window */
    uint8_t bytes[64];
};
struct dt_insn {
    uint8_t off, len;      /* inside code[] */
    uint16_t mnemonic;     /* ZydisMnemonic */
    uint32_t undef_before; /* arithmetic flags that are undefined when this instruction starts */
};
struct dt_case {
    uint64_t number;
    uint8_t mode, n_insns, n_patches;
    bool
        ring0; /* in the VM at CPL 0, through the kernel window; only of instructions to which that makes no difference */
    uint16_t code_off, code_len; /* code[] goes to DT_CODE_BASE + code_off, cut at the end of the code pages */
    uint32_t undef_end;
    struct dt_insn insn[DT_MAX_INSNS];
    struct dt_regs regs;
    struct dt_patch patch[DT_MAX_PATCHES];
    uint8_t code[DT_MAX_CODE];
    uint8_t fpu[DT_FPU_MAX] __attribute__((aligned(64)));
};

/* Vectors that are not the CPU's. */
#define DT_VEC_TIMEOUT 0x100u /* did not end; the case says nothing */
#define DT_VEC_SYSCALL 0x101u /* entered the host kernel; the case says nothing */
#define DT_VEC_DIED 0x102u    /* the backend broke: always a mismatch */
struct dt_result {
    uint32_t vector, error;
    uint64_t cr2;
    struct dt_regs regs;
    uint8_t fpu[DT_FPU_MAX] __attribute__((aligned(64)));
    uint8_t mem[DT_DATA_BYTES];
};

/* The XSAVE components that are compared, as bits of XCR0. */
#define DT_COMP_X87 1u
#define DT_COMP_SSE 2u
#define DT_COMP_AVX 4u
#define DT_COMP_K 0x20u
#define DT_COMP_ZMM_HIGH 0x40u
#define DT_COMP_ZMM16 0x80u
#define DT_COMPS_ALL 0xe7u
/* Offsets of the XSAVE components on this CPU (CPUID leaf 0Dh); 0 = not enabled in XCR0. */
struct dt_xsave {
    uint64_t xcr0; /* enabled, of the ones compared here: x87 SSE AVX AVX-512 */
    uint32_t bytes;
    uint32_t off[8], size[8];
};
const struct dt_xsave *dt_xsave(void);

/* Segment descriptors of the cases. */
struct dt_desc {
    uint32_t base, limit; /* limit in bytes or pages, see gran */
    uint8_t contents;     /* 0 data, 1 expand-down, 2 code, 3 conforming code */
    uint8_t db, gran, present;
    uint8_t read_exec_only; /* data: read-only; code: execute-only */
};
#define DT_LDT_COUNT 24u
extern const struct dt_desc dt_ldt[DT_LDT_COUNT];
#define DT_SEL_LDT(n) ((uint16_t)((n) << 3 | 7))
#define DT_SEL_CODE64 0x33u /* Linux's own selectors */
#define DT_SEL_CODE32 0x23u
#define DT_SEL_DATA 0x2bu
uint64_t dt_desc_bits(const struct dt_desc *d);
/* Segment base of a selector as a case may have it at its start. */
uint64_t dt_sel_base(uint16_t sel);
/* Effective limit in bytes; expand-down ones as stored. */
uint32_t dt_sel_limit(uint16_t sel);

/* A backend runs a batch: start may return before the work is done, finish waits. */
struct dt_backend {
    const char *name;
    void *self;
    void (*start)(void *self, const struct dt_case *cases, unsigned n);
    const struct dt_result *(*finish)(void *self); /* valid until the next start */
    void (*close)(void *self);
};
#define DT_BATCH 64u

struct dt_vm_config {
    uint64_t tc_bytes, seed;
    unsigned max_insns, evict_random, force_exit, no_chain;
    bool ring0;
};
/* golden: DT_DATA_BYTES, the data window's contents before each case's patches. 0, or -1 with a line on stderr. */
int dt_native_open(struct dt_backend *b, const uint8_t *golden);
int dt_vm_open(struct dt_backend *b, const uint8_t *golden, const struct dt_vm_config *cfg);
#endif

/* tests/unit/translator/xl_env.h - what a translation needs around it, in miniature: a vCPU block, soft TLBs and jump caches in the
 * low 2 GiB, glue, executable memory, and helpers in C that the tests can direct. No monitor.
 *
 * env_open(); env_translate(...) or env_run(...); the host code can be looked at (env_host*) or run. env_close() at the end.
 */
#ifndef TESTS_UNIT_TRANSLATOR_XL_ENV_H
#define TESTS_UNIT_TRANSLATOR_XL_ENV_H
#include "translator/xl_int.h"

#define ENV_TLB 65536u /* any number of index bits that generated code may use */
/* In the low 2 GiB; layout as generated code wants it. */
struct env_low {
    struct cpu c;
    uint64_t host_sp, ea, op, op_imm, site, link_pc, event_pending, exit_code, jump_target, gs_base, gs_base_neg;
    uint64_t keep, stack_r[2], stack_w[2], stack_from[8], const_stack, const_window; /* the page of the stack: none */
    uint64_t const_page, const_sign, const_jc, const_63, const_31, const_15;
    uint64_t tag_r[ENV_TLB], tag_w[ENV_TLB], addend[ENV_TLB]; /* empty: every access misses */
    uint64_t jc_tag[4096], jc_pc[4096];
    uint8_t data[3 * 4096]; /* guest memory, seen at its own address */
};
enum { ENV_LINK = 100, ENV_INDIRECT, ENV_DISPATCH, ENV_HOSTFAULT, ENV_CALLOUT, ENV_FAULT };

extern struct env_low *env;
extern struct xl *env_xl;
extern struct xl_result env_result;
/* Called on each soft TLB miss: 0 = go on with the operand at its own address. */
extern int (*env_on_miss)(uint64_t ret_pc);

void env_open(const struct xl_cpu *cpu);
void env_close(void);
struct xl_cpu env_everything(void);
/* Translates guest code at rip 0x1000. Returns the status. */
enum xl_status env_translate(uint32_t key, const void *code, unsigned bytes);
enum xl_status env_translate_in(struct xl_input *in);
/* Enters the last translation with env->c as state; returns an ENV_ code. Flags and registers are then in env->c. */
uint64_t env_run(void);
uint64_t env_run_at(uint32_t pc); /* ... at another of its entries */
/* The state at a recovery point, as the monitor restores it: registers back from their spill slots. False: no such point. */
bool env_recover(uint64_t ret_pc, unsigned *guest_off);

/* The n-th host instruction with this mnemonic in the hot code; false if there is none. */
struct env_host {
    ZydisDecodedInstruction i;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    const uint8_t *bytes;
};
bool env_host(ZydisMnemonic m, unsigned n, struct env_host *h);
/* Class and system operation of the k-th guest instruction. */
enum xl_class env_class(unsigned k);
bool env_is_ud(uint32_t key, const void *code, unsigned bytes);
/* The sys_op that the last callout passed. */
struct sys_op env_op(void);
#define ENV_KEY64 (CPU_KEY_CODE64 | CPU_KEY_OSFXSR | CPU_KEY_OSXSAVE | CPU_KEY_AVX | CPU_KEY_AVX512)
#define ENV_KEY32 ((ENV_KEY64 & ~CPU_KEY_CODE64) | CPU_KEY_CODE32 | CPU_KEY_SS32 | CPU_KEY_FLAT)
#define ENV_KEY16 ((ENV_KEY64 & ~CPU_KEY_CODE64) | CPU_KEY_CODE16 | CPU_KEY_FLAT)
#endif

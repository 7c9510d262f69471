/* Flags and their privileges, time, bases, INVLPG, HLT, hypercalls, dispatch. Own copy of sysmisc.c, so that INVLPG shows. */
#define sys_cli t_cli
#define sys_sti t_sti
#define sys_pushf t_pushf
#define sys_popf t_popf
#define sys_invlpg t_invlpg
#define sys_invpcid t_invpcid
#define sys_cache t_cache
#define sys_hlt t_hlt
#define sys_rdtsc t_rdtsc
#define sys_rdpmc t_rdpmc
#define sys_rdpid t_rdpid
#define sys_cpuid_insn t_cpuid_insn
#define sys_rdmsr_insn t_rdmsr_insn
#define sys_wrmsr_insn t_wrmsr_insn
#define sys_segbase t_segbase
#define sys_swapgs t_swapgs
#define sys_hypercall t_hypercall
#define vcpu_mmu_invlpg t_misc_invlpg
#include "monitor/sysmisc.c"
#include "tests/unit/monitor/test_segment_env.h"
#include <criterion/criterion.h>

static uint64_t invalidated;
void vcpu_mmu_invlpg(struct vcpu *w, uint64_t lin) { invalidated = lin; }

TestSuite(sysreg_misc, .fini = env_free);
#define GP0(e) expect_fault(#e, e, EXC_GP, 0)
#define OP(size) mk_op(size, 1)

static uint32_t eflags(void) { return cpu_get_eflags(&v->c); }
static void set_iopl(unsigned n) { v->c.eflags_sys = (v->c.eflags_sys & ~EFLAGS_IOPL) | n << EFLAGS_IOPL_SHIFT; }
static uint64_t top(unsigned n) { return get(v->c.seg[S_SS].base + v->c.gpr[R_RSP], n); }
static int popf(unsigned size, uint64_t img)
{
    uint64_t sp = v->c.gpr[R_RSP] - size;
    put(v->c.seg[S_SS].base + sp, size, img);
    v->c.gpr[R_RSP] = sp;
    return sys_popf(v, OP(size));
}

Test(sysreg_misc, sti_casts_a_shadow_only_when_if_was_clear)
{
    env_prot(0);
    cr_expect_eq(sys_sti(v, OP(4)), SYS_NEXT);
    cr_expect_eq(v->c.if_flag, 1);
    cr_expect_eq(v->c.shadow, 1);
    v->c.shadow = 0;
    cr_expect_eq(sys_sti(v, OP(4)), SYS_NEXT);
    cr_expect_eq(v->c.shadow, 0);
    cr_expect_eq(sys_cli(v, OP(4)), SYS_NEXT);
    cr_expect_eq(v->c.if_flag, 0);
}

Test(sysreg_misc, cli_and_sti_need_iopl_or_pvi)
{
    env_prot(3);
    GP0(sys_cli(v, OP(4)));
    set_iopl(3);
    cr_expect_eq(sys_sti(v, OP(4)), SYS_NEXT);
    set_iopl(0);
    v->c.cr4 = CR4_PVI;
    cr_expect_eq(sys_sti(v, OP(4)), SYS_NEXT);
    cr_expect_neq(eflags() & EFLAGS_VIF, 0);
    cr_expect_eq(sys_cli(v, OP(4)), SYS_NEXT);
    cr_expect_eq(eflags() & EFLAGS_VIF, 0);
    cr_expect_eq(v->c.if_flag, 1, "the real one stays");
    v->c.eflags_sys |= EFLAGS_VIP;
    GP0(sys_sti(v, OP(4)));
    env_prot(1);
    v->c.cr4 = CR4_PVI;
    GP0(sys_cli(v, OP(4)));
}

Test(sysreg_misc, cli_and_sti_in_virtual_8086_mode)
{
    env_vm86(0);
    GP0(sys_cli(v, OP(2)));
    v->c.cr4 = CR4_VME;
    cr_expect_eq(sys_sti(v, OP(2)), SYS_NEXT);
    cr_expect_neq(eflags() & EFLAGS_VIF, 0);
    cr_expect_eq(v->c.if_flag, 0);
    env_vm86(3);
    cr_expect_eq(sys_sti(v, OP(2)), SYS_NEXT);
    cr_expect_eq(v->c.if_flag, 1);
}

Test(sysreg_misc, pushf_hides_vm_and_rf)
{
    env_prot(0);
    cpu_set_eflags(&v->c, 0x003d4ad7u & ~EFLAGS_VM);
    cr_expect_eq(sys_pushf(v, OP(4)), SYS_NEXT);
    cr_expect_eq(top(4), 0x003c4ad7u);
    cr_expect_eq(sys_pushf(v, OP(2)), SYS_NEXT);
    cr_expect_eq(top(2), 0x4ad7u);
}

Test(sysreg_misc, pushf_in_virtual_8086_mode)
{
    env_vm86(0);
    GP0(sys_pushf(v, OP(2)));
    v->c.cr4 = CR4_VME;
    GP0(sys_pushf(v, OP(4)));
    v->c.eflags_sys |= EFLAGS_VIF;
    cr_expect_eq(sys_pushf(v, OP(2)), SYS_NEXT);
    cr_expect_eq(top(2), 0x3202u, "VIF as IF, IOPL 3");
    env_vm86(3);
    cr_expect_eq(sys_pushf(v, OP(4)), SYS_NEXT);
    cr_expect_eq(top(4), 0x3002u);
}

#define EVERY 0x003f7fd5u
Test(sysreg_misc, popf_changes_what_the_privilege_allows)
{
    env_prot(0);
    cr_expect_eq(popf(4, EVERY), SYS_NEXT);
    cr_expect_eq(eflags(), 0x00247fd7u, "all but VM RF VIF VIP");
    cr_expect_neq(v->c.key & CPU_KEY_STEP, 0);
    cr_expect_eq(popf(2, 0), SYS_NEXT);
    cr_expect_eq(eflags(), 0x00240002u, "16 bits keep the upper half");
    env_prot(3);
    v->c.if_flag = 1;
    cr_expect_eq(popf(4, 0), SYS_NEXT);
    cr_expect_eq(eflags(), 0x202, "IF stays in ring 3");
    cr_expect_eq(popf(4, EVERY), SYS_NEXT);
    cr_expect_eq(eflags(), 0x00244fd7u, "no IOPL");
    set_iopl(3);
    cr_expect_eq(popf(4, 0), SYS_NEXT);
    cr_expect_eq(eflags(), 0x3002, "with IOPL 3 IF goes, IOPL stays");
}

Test(sysreg_misc, popf_in_virtual_8086_mode)
{
    env_vm86(0);
    GP0(popf(2, 0));
    v->c.cr4 = CR4_VME;
    GP0(popf(4, 0));
    uint64_t sp = v->c.gpr[R_RSP] - 2;
    GP0(popf(2, EFLAGS_TF));
    cr_expect_eq(v->c.gpr[R_RSP], sp, "SP where the fault found it");
    cr_expect_eq(popf(2, EFLAGS_IF | EFLAGS_CF), SYS_NEXT);
    cr_expect_eq(eflags(), EFLAGS_VM | EFLAGS_VIF | EFLAGS_CF | 2);
    v->c.eflags_sys |= EFLAGS_VIP;
    GP0(popf(2, EFLAGS_IF));
    cr_expect_eq(popf(2, 0), SYS_NEXT);
    cr_expect_eq(eflags(), EFLAGS_VM | EFLAGS_VIP | 2);
    env_vm86(3);
    cr_expect_eq(popf(4, EVERY & ~EFLAGS_TF), SYS_NEXT);
    cr_expect_eq(eflags(), (0x00247ed7u | EFLAGS_VM));
}

Test(sysreg_misc, invlpg_takes_base_and_ignores_what_is_not_canonical)
{
    struct sys_op op = OP(8);
    env_long(0);
    v->c.seg[S_GS].base = 0x10000;
    op.seg = S_GS;
    v->ea = 0x2345;
    cr_expect_eq(sys_invlpg(v, op), SYS_NEXT);
    cr_expect_eq(invalidated, 0x12345);
    v->ea = 0x0000800000000000ull;
    cr_expect_eq(sys_invlpg(v, op), SYS_NEXT);
    cr_expect_eq(invalidated, 0x12345);
    env_prot(3);
    GP0(sys_invlpg(v, op));
}

Test(sysreg_misc, hlt_leaves_after_the_instruction)
{
    env_prot(0);
    v->c.shadow = 1;
    cr_expect_eq(sys_hlt(v, OP(4)), SYS_EXIT);
    cr_expect_eq(v->c.rip, CODE + 1);
    cr_expect(v->halted && v->exit.reason == VM_EXIT_HLT && v->c.shadow == 0);
    v->c.cpl = 3;
    GP0(sys_hlt(v, OP(4)));
}

Test(sysreg_misc, hlt_with_an_interrupt_pending_does_not_leave_to_sleep)
{
    env_prot(0);
    v->c.if_flag = 1;
    v->event_pending = EV_INTR;
    cr_expect_eq(sys_hlt(v, OP(4)), SYS_JUMP);
    cr_expect(v->halted && v->c.rip == CODE + 1);
    v->event_pending = 0;
    v->c.eflags_sys |= EFLAGS_TF;
    cr_expect_eq(sys_hlt(v, OP(4)), SYS_JUMP);
    cr_expect(!v->halted);
}

Test(sysreg_misc, rdtsc_adds_the_offset_and_obeys_tsd)
{
    struct sys_op op = OP(4);
    env_prot(3);
    op.op = SYS_OP_RDTSC;
    v->c.tsc_offset = 1ull << 60;
    cr_expect_eq(sys_rdtsc(v, op), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RDX] >> 28, 1);
    v->c.cr4 = CR4_TSD;
    GP0(sys_rdtsc(v, op));
    op.op = SYS_OP_RDTSCP;
    expect_fault("rdtscp not offered", sys_rdtsc(v, op), EXC_UD, 0);
    env_model.has[CPU_FEAT_RDTSCP / 64] |= 1ull << (CPU_FEAT_RDTSCP % 64);
    v->c.cpl = 0;
    v->c.tsc_aux = 7;
    cr_expect_eq(sys_rdtsc(v, op), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RCX], 7);
}

Test(sysreg_misc, segment_bases)
{
    struct sys_op op = {.op = SYS_OP_WRGSBASE, .opsize = 8, .rm = R_RCX};
    env_long(3);
    expect_fault("without CR4.FSGSBASE", sys_segbase(v, op), EXC_UD, 0);
    v->c.cr4 |= CR4_FSGSBASE;
    v->c.gpr[R_RCX] = 0x0000800000000000ull;
    GP0(sys_segbase(v, op));
    op.opsize = 4;
    v->c.gpr[R_RCX] = 0xffffffff80000000ull;
    cr_expect_eq(sys_segbase(v, op), SYS_NEXT);
    cr_expect_eq(v->c.seg[S_GS].base, 0x80000000);
    op.op = SYS_OP_RDGSBASE;
    v->c.seg[S_GS].base = 0xffff888812345678ull;
    cr_expect_eq(sys_segbase(v, op), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RCX], 0x12345678);
    env_compat(3);
    v->c.cr4 |= CR4_FSGSBASE;
    expect_fault("compatibility mode", sys_segbase(v, op), EXC_UD, 0);
}

Test(sysreg_misc, swapgs_exchanges)
{
    env_long(0);
    v->c.kernel_gs_base = 5;
    v->c.seg[S_GS].base = 6;
    cr_expect_eq(sys_swapgs(v, OP(8)), SYS_NEXT);
    cr_expect(v->c.kernel_gs_base == 6 && v->c.seg[S_GS].base == 5);
    v->c.cpl = 3;
    GP0(sys_swapgs(v, OP(8)));
    env_prot(0);
    expect_fault("protected mode", sys_swapgs(v, OP(4)), EXC_UD, 0);
}

static int call(void *opaque, uint64_t nr, const uint64_t a[4], uint64_t *ret)
{
    *ret = nr == 5 ? a[0] + a[1] * 10 + a[2] * 100 + a[3] * 1000 : 0;
    return nr != 5;
}
Test(sysreg_misc, hypercalls_follow_kvm)
{
    static const struct vm_ops ops = {.hypercall = call};
    env_long(0);
    expect_fault("nobody home", sys_hypercall(v, OP(8)), EXC_UD, 0);
    v->ops = &ops;
    v->c.gpr[R_RAX] = 5;
    v->c.gpr[R_RBX] = 1, v->c.gpr[R_RCX] = 2, v->c.gpr[R_RDX] = 3, v->c.gpr[R_RSI] = 4;
    cr_expect_eq(sys_hypercall(v, OP(8)), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RAX], 4321);
    cr_expect_eq(sys_hypercall(v, OP(8)), SYS_NEXT);
    cr_expect_eq((int64_t)v->c.gpr[R_RAX], -1000);
    v->c.cpl = 3;
    cr_expect_eq(sys_hypercall(v, OP(8)), SYS_NEXT);
    cr_expect_eq((int64_t)v->c.gpr[R_RAX], -1);
}

Test(sysreg_misc, cpuid_and_msr_instructions_use_edx_eax)
{
    env_long(0);
    v->c.gpr[R_RCX] = MSR_KERNEL_GS_BASE;
    v->c.gpr[R_RAX] = 0xaaaaaaaa00001000ull;
    v->c.gpr[R_RDX] = 0xbbbbbbbbffff8000ull;
    cr_expect_eq(sys_wrmsr_insn(v, OP(8)), SYS_NEXT);
    cr_expect_eq(v->c.kernel_gs_base, 0xffff800000001000ull);
    cr_expect_eq(sys_rdmsr_insn(v, OP(8)), SYS_NEXT);
    cr_expect(v->c.gpr[R_RAX] == 0x1000 && v->c.gpr[R_RDX] == 0xffff8000);
    v->c.cpl = 3;
    GP0(sys_rdmsr_insn(v, OP(8)));
    v->c.gpr[R_RAX] = ~0ull;
    cr_expect_eq(sys_cpuid_insn(v, OP(8)), SYS_NEXT);
    cr_expect_eq(v->c.gpr[R_RAX] >> 32, 0);
}

Test(sysreg_misc, dispatch_knows_every_number_and_refuses_others)
{
    struct sys_op op = OP(4);
    env_prot(3);
    op.op = SYS_OP_MWAIT;
    expect_fault("MWAIT", sys_exec(v, op), EXC_UD, 0);
    op.op = SYS_OP_NM;
    expect_fault("NM", sys_exec(v, op), EXC_NM, 0);
    op.op = 255;
    expect_fault("255", sys_exec(v, op), EXC_UD, 0);
}

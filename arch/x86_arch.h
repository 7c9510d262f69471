/* arch/x86_arch.h - x86 architectural constants, named as in the Intel SDM.
 *
 * Role:    every bit and number of the architecture that more than one module needs. No state, no code but bit tests.
 * Sources: Intel SDM vol. 3A (2.5 control registers, 3.4.5 descriptors, 4 paging, 6.15 exceptions), vol. 4 (MSRs);
 *          AMD APM vol. 2 for EFER.NXE/SCE/FFXSR.
 */
#ifndef ARCH_X86_ARCH_H
#define ARCH_X86_ARCH_H
#include <stdint.h>

/* General registers, encoding order (SDM 2A 2.2.1). */
enum { R_RAX, R_RCX, R_RDX, R_RBX, R_RSP, R_RBP, R_RSI, R_RDI, R_R8, R_R9, R_R10, R_R11, R_R12, R_R13, R_R14, R_R15 };
/* Segment registers, encoding order; the two system ones follow so that one table holds all. */
enum { S_ES, S_CS, S_SS, S_DS, S_FS, S_GS, S_LDTR, S_TR, S_COUNT };

/* EFLAGS (SDM 1 3.4.3) */
#define EFLAGS_CF 0x00000001u
#define EFLAGS_R1 0x00000002u /* reads as one */
#define EFLAGS_PF 0x00000004u
#define EFLAGS_AF 0x00000010u
#define EFLAGS_ZF 0x00000040u
#define EFLAGS_SF 0x00000080u
#define EFLAGS_TF 0x00000100u
#define EFLAGS_IF 0x00000200u
#define EFLAGS_DF 0x00000400u
#define EFLAGS_OF 0x00000800u
#define EFLAGS_IOPL 0x00003000u
#define EFLAGS_IOPL_SHIFT 12
#define EFLAGS_NT 0x00004000u
#define EFLAGS_RF 0x00010000u
#define EFLAGS_VM 0x00020000u
#define EFLAGS_AC 0x00040000u
#define EFLAGS_VIF 0x00080000u
#define EFLAGS_VIP 0x00100000u
#define EFLAGS_ID 0x00200000u
#define EFLAGS_ARITH (EFLAGS_CF | EFLAGS_PF | EFLAGS_AF | EFLAGS_ZF | EFLAGS_SF | EFLAGS_OF)
#define EFLAGS_ALL 0x003f7fd5u /* every defined bit, without the constant R1 */

/* CR0, CR4, EFER, XCR0 */
#define CR0_PE 0x00000001u
#define CR0_MP 0x00000002u
#define CR0_EM 0x00000004u
#define CR0_TS 0x00000008u
#define CR0_ET 0x00000010u
#define CR0_NE 0x00000020u
#define CR0_WP 0x00010000u
#define CR0_AM 0x00040000u
#define CR0_NW 0x20000000u
#define CR0_CD 0x40000000u
#define CR0_PG 0x80000000u
#define CR4_VME 0x00000001u
#define CR4_PVI 0x00000002u
#define CR4_TSD 0x00000004u
#define CR4_DE 0x00000008u
#define CR4_PSE 0x00000010u
#define CR4_PAE 0x00000020u
#define CR4_MCE 0x00000040u
#define CR4_PGE 0x00000080u
#define CR4_PCE 0x00000100u
#define CR4_OSFXSR 0x00000200u
#define CR4_OSXMMEXCPT 0x00000400u
#define CR4_UMIP 0x00000800u
#define CR4_LA57 0x00001000u
#define CR4_FSGSBASE 0x00010000u
#define CR4_PCIDE 0x00020000u
#define CR4_OSXSAVE 0x00040000u
#define CR4_SMEP 0x00100000u
#define CR4_SMAP 0x00200000u
#define CR4_PKE 0x00400000u
#define EFER_SCE 0x00000001u
#define EFER_LME 0x00000100u
#define EFER_LMA 0x00000400u
#define EFER_NXE 0x00000800u
#define XCR0_X87 0x01u
#define XCR0_SSE 0x02u
#define XCR0_AVX 0x04u
#define XCR0_AVX512 0xe0u

/* Exception vectors (SDM 3A table 6-1) */
enum {
    EXC_DE = 0,
    EXC_DB = 1,
    EXC_NMI = 2,
    EXC_BP = 3,
    EXC_OF = 4,
    EXC_BR = 5,
    EXC_UD = 6,
    EXC_NM = 7,
    EXC_DF = 8,
    EXC_TS = 10,
    EXC_NP = 11,
    EXC_SS = 12,
    EXC_GP = 13,
    EXC_PF = 14,
    EXC_MF = 16,
    EXC_AC = 17,
    EXC_MC = 18,
    EXC_XM = 19
};
/* Page-fault error code (SDM 3A 4.7) */
#define PF_P 0x01u
#define PF_W 0x02u
#define PF_U 0x04u
#define PF_RSVD 0x08u
#define PF_I 0x10u

/* Paging-structure entries (SDM 3A 4.3-4.5) */
#define PTE_P 0x001ull
#define PTE_W 0x002ull
#define PTE_U 0x004ull
#define PTE_PWT 0x008ull
#define PTE_PCD 0x010ull
#define PTE_A 0x020ull
#define PTE_D 0x040ull
#define PTE_PS 0x080ull
#define PTE_G 0x100ull
#define PTE_NX 0x8000000000000000ull

/* Segment attributes as struct seg keeps them: bytes 5 and 6 of the descriptor, the limit nibble cleared. */
#define SEG_TYPE 0x000fu
#define SEG_A 0x0001u    /* accessed */
#define SEG_RW 0x0002u   /* data: writable; code: readable */
#define SEG_EC 0x0004u   /* data: expand-down; code: conforming */
#define SEG_CODE 0x0008u /* with S set */
#define SEG_S 0x0010u    /* code or data, not system */
#define SEG_DPL 0x0060u
#define SEG_DPL_SHIFT 5
#define SEG_P 0x0080u
#define SEG_AVL 0x1000u
#define SEG_L 0x2000u
#define SEG_DB 0x4000u
#define SEG_G 0x8000u
#define SEG_UNUSABLE 0x10000u /* a null selector was loaded (not an architectural bit) */
/* System descriptor types (SDM 3A table 3-2) */
enum {
    DT_TSS16 = 1,
    DT_LDT = 2,
    DT_TSS16_BUSY = 3,
    DT_CALL16 = 4,
    DT_TASK_GATE = 5,
    DT_INT16 = 6,
    DT_TRAP16 = 7,
    DT_TSS = 9,
    DT_TSS_BUSY = 11,
    DT_CALL = 12,
    DT_INT = 14,
    DT_TRAP = 15
};

/* MSRs (SDM vol. 4; AMD64 APM vol. 2 app. A) */
#define MSR_TSC 0x10u
#define MSR_APIC_BASE 0x1bu
#define MSR_TSC_ADJUST 0x3bu
#define MSR_BIOS_SIGN_ID 0x8bu
#define MSR_MTRRCAP 0xfeu
#define MSR_ARCH_CAPABILITIES 0x10au
#define MSR_SYSENTER_CS 0x174u
#define MSR_SYSENTER_ESP 0x175u
#define MSR_SYSENTER_EIP 0x176u
#define MSR_MCG_CAP 0x179u
#define MSR_MCG_STATUS 0x17au
#define MSR_MISC_ENABLE 0x1a0u
#define MSR_MTRR_BASE0 0x200u
#define MSR_MTRR_FIX64K_00000 0x250u
#define MSR_MTRR_FIX16K_80000 0x258u
#define MSR_MTRR_FIX16K_A0000 0x259u
#define MSR_MTRR_FIX4K_C0000 0x268u
#define MSR_PAT 0x277u
#define MSR_MTRR_DEF_TYPE 0x2ffu
#define MTRR_TYPE_UC 0u
#define MTRR_TYPE_WB 6u
#define MTRR_VALID 0x800u        /* in a mask register */
#define MTRR_ENABLE 0x800u       /* in DEF_TYPE */
#define MTRR_FIXED_ENABLE 0x400u /* in DEF_TYPE */
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC_FIRST 0x800u
#define MSR_X2APIC_LAST 0x8ffu
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SFMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u

#define PAGE_SHIFT 12
#define PAGE_SIZE 4096u
#define PAGE_MASK (~0xfffull)

static inline int x86_is_canonical(uint64_t va) { return (int64_t)(va << 16) >> 16 == (int64_t)va; }
#endif

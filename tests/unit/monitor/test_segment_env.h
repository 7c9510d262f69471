/* tests/unit/monitor/test_segment_env.h - a bare vCPU with 4 MiB of RAM, descriptor tables and a TSS, in the mode asked for.
 *
 * Memory is the real thing (gpmem, ptwalk, mem.c), identity mapped. Every env_*() call starts afresh. */
#ifndef TEST_SEGMENT_ENV_H
#define TEST_SEGMENT_ENV_H
#include "monitor/cpumodel.h"
#include "monitor/engine.h"
#include "monitor/sys_int.h"

extern struct vcpu *v;
extern struct cpumodel env_model;

/* Where things are. */
enum {
    GDT = 0x1000,
    IDT = 0x2000,
    TSS = 0x3000,
    TSS2 = 0x3800,
    LDT = 0x4000,
    STACK0 = 0x10000,
    STACK1 = 0x14000,
    STACK3 = 0x18000,
    CODE = 0x20000,
    TABLES = 0x40000
};
/* Selectors of the ready-made GDT; RPL to be added. */
enum {
    SEL_C0 = 0x08,
    SEL_D0 = 0x10,
    SEL_C3 = 0x18,
    SEL_D3 = 0x20,
    SEL_TSS = 0x28,
    SEL_C1 = 0x38,
    SEL_D1 = 0x40,
    SEL_CONF0 = 0x48,
    SEL_C16 = 0x50,
    SEL_S16 = 0x58,
    SEL_TSS2 = 0x60,
    SEL_LDT = 0x70,
    SEL_C64 = 0x80,
    SEL_C64U = 0x88,
    SEL_FREE = 0x90,
    SEL_GATE = 0xa0,
    GDT_BYTES = 0xc0
};
/* Descriptor attributes: present code or data with DPL in bits 5-6, 32 bits, not yet accessed. */
#define A_CODE (SEG_P | SEG_S | SEG_CODE | SEG_RW | SEG_DB | SEG_G)
#define A_CONF (A_CODE | SEG_EC)
#define A_DATA (SEG_P | SEG_S | SEG_RW | SEG_DB | SEG_G)
#define A_DPL(n) ((n) << SEG_DPL_SHIFT)

void env_real(void);
void env_vm86(unsigned iopl);
void env_prot(unsigned cpl);
/* 64-bit mode, or compatibility mode at that CPL. */
void env_long(unsigned cpl);
void env_compat(unsigned cpl);
void env_free(void);

/* limit as in struct seg (bytes); bits 0-11 are dropped when attr has SEG_G. */
void set_desc(uint64_t lin, uint64_t base, uint32_t limit, uint32_t attr);
void set_gdt(unsigned sel, uint64_t base, uint32_t limit, uint32_t attr);
uint32_t gdt_attr(unsigned sel);
/* Call gate in the GDT, or gate of the IDT (16 bytes in long mode): type = DT_*. low is the parameter count or IST. */
void set_call_gate(unsigned sel, unsigned type, unsigned dpl, unsigned target, uint64_t off, unsigned low);
void set_idt(unsigned vector, unsigned type, unsigned dpl, unsigned target, uint64_t off, unsigned low);
void put(uint64_t lin, unsigned n, uint64_t val);
uint64_t get(uint64_t lin, unsigned n);
/* Expects elements of n bytes from lin upwards. */
void expect_stack(const char *what, uint64_t lin, unsigned n, const uint64_t *val, unsigned count);
#define EXPECT_STACK(lin, n, ...)                                                                                      \
    do {                                                                                                               \
        const uint64_t want_[] = {__VA_ARGS__};                                                                        \
        expect_stack(__func__, lin, n, want_, sizeof want_ / sizeof want_[0]);                                         \
    } while (0)
/* rc must be SYS_FAULT with this vector and error code. */
void expect_fault(const char *what, int rc, unsigned vector, uint32_t error);
/* An operation: memory operand at DS:ea, or immediate. */
struct sys_op mk_op(unsigned opsize, unsigned len);
int far_imm(bool call, unsigned opsize, unsigned sel, uint64_t off);
int far_mem(bool call, unsigned opsize, unsigned sel, uint64_t off);
int do_iret(unsigned opsize);
int do_retf(unsigned opsize, unsigned release);
int do_int(unsigned vector);
int deliver_fault(unsigned vector, bool has_error, uint32_t error);
#endif

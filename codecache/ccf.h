/* codecache/ccf.h - what the code cache needs to know of a compiled code fragment; the translator fills it in. */
#ifndef CODECACHE_CCF_H
#define CODECACHE_CCF_H
#include <stdbool.h>
#include <stdint.h>

/* The ways into a block: all registers hold guest values, or RCX's is in its spill slot, or RCX's and RDX's are. */
enum { CCF_ENTRY, CCF_ENTRY_RCX, CCF_ENTRY_BOTH, CCF_ENTRIES };
/* A direct exit: a jump whose rel32 can be linked to another block. */
struct ccf_exit {
    uint64_t target;  /* guest RIP */
    uint32_t jmp_pc;  /* host pc of the jump instruction; in place of a linked fall-through, of the target */
    uint32_t stub_pc; /* where it goes unlinked */
    uint32_t name_pc; /* four bytes that the stub hands over when it leaves: the code cache writes which exit it is */
    uint32_t jc_pc;   /* look-up through the jump cache: where it goes when linked across pages that may be remapped */
    uint32_t jc_end;  /* end of that stub */
    uint8_t rel_at;   /* offset of rel32 in the jump: 1 (jmp) or 2 (jcc) */
    uint8_t entry;    /* CCF_ENTRY*: what it finds its registers in, and so where it enters the target */
    bool cross_page;  /* target is on another guest page than the block, or may run into one */
};
#define CCF_STRING                                                                                                     \
    0x10u /* in ccf_point.spilled: inside a string instruction on host addresses (see translator/xl_string.c) */
/* Where guest state can be recovered: host pc of a faulting instruction or return address of a call to glue. */
struct ccf_point {
    uint32_t pc;
    uint16_t guest_off; /* instruction = rip + guest_off */
    uint16_t spilled;   /* registers whose guest value is in cpu.spill[]; with CCF_STRING: that hold host addresses */
};
struct ccf_desc {
    unsigned tu_bytes, n_insns;
    uint32_t hot_pc, hot_bytes, cold_pc, cold_bytes;
    int32_t entry[CCF_ENTRIES]; /* where they are, from hot_pc */
    uint8_t in_place;           /* 0, or 1 + the CCF_ENTRY* of the exit whose jump it replaces */
    uint32_t start_pc;          /* of the hot code: hot_pc, or the indirect entry in front of it */
    uint32_t entry_indirect_pc; /* entry for the jump cache: scratch registers still spilled */
    uint32_t
        fall_exit; /* index of the exit whose jump ends the hot code, or 2: a block made for it may start in its place */
    struct ccf_exit exit[2];
    unsigned n_exits, n_points;
    uint32_t ij_pc, ij_end,
        ij_miss_pc;    /* inline indirect look-up: [ij_pc, ij_end) may be redirected to ij_miss_pc; 0 = none */
    int32_t rsp_undo;  /* what a branch that ends the block added to the stack pointer */
    uint8_t hot_skip;  /* bytes at CCF_ENTRY that look whether the FPU state is there; 0: the block has no use for it */
    uint16_t last_off; /* guest offset of the last instruction */
};
#endif

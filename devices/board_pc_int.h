/* devices/board_pc_int.h - shared by board_pc.c (table, wires), board_pc_fw.c (what firmware leaves) and board_pc_ops.c (engine). */
#ifndef DEVICES_BOARD_PC_INT_H
#define DEVICES_BOARD_PC_INT_H
#include "devices/board_pc.h"

enum board_need {
    PART_ALWAYS,
    PART_HPET,
    PART_KVM,
    PART_COM1,
    PART_COM2,
    PART_COM3,
    PART_COM4,
    PART_DEBUGEXIT,
    PART_DEBUGCON,
};
#define BOARD_PART_PORTS 3
struct board_part {
    const char *name;
    size_t state;              /* offset in struct board_pc */
    const struct dev_ops *dev; /* NULL: nothing to reset or to save */
    enum board_need needs;
    int8_t irq[2]; /* ISA IRQs it drives, -1 = none */
    struct {
        uint16_t base, len;
        const struct bus_ops *ops;
    } port[BOARD_PART_PORTS];
    const char *where; /* of a chip that registers itself: for people */
};
extern const struct board_part board_parts[];
extern const unsigned board_parts_count;
bool board_has(const struct board_pc *b, const struct board_part *p);

/* fw_cfg items and CMOS contents, which stay over resets. */
int board_fw_init(struct board_pc *b);
/* The LAPIC's output. */
void board_set_intr(void *board, int n, bool level);
/* Follows the engine's TSC offset; every engine callback begins with it. */
void board_sync_tsc(struct board_pc *b);
#endif

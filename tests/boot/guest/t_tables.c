/* tests/boot/guest/t_tables.c - the tests of boot-test. */
#include "bt.h"

BT_TABLE(bt_cpu);
BT_TABLE(bt_fpu);
BT_TABLE(bt_mem);
BT_TABLE(bt_proc);
BT_TABLE(bt_ptrace);
BT_TABLE(bt_signal);
BT_TABLE(bt_time);
BT_TABLE(bt_io);
const struct bt_test *const bt_tables[] = {bt_cpu, bt_signal, bt_fpu, bt_mem, bt_proc, bt_ptrace, bt_time, bt_io, NULL};

/* tests/user/guest/u_tables.c - the tests of user-test. */
#include "ut.h"

BT_TABLE(u_signal);
BT_TABLE(u_mem);
BT_TABLE(u_jit);
BT_TABLE(u_thread);
BT_TABLE(u_fpu);
BT_TABLE(u_control);
BT_TABLE(u_cpu);
BT_TABLE(u_tls);
BT_TABLE(u_trace);
BT_TABLE(u_odd);
const struct bt_test *const bt_tables[] = {u_signal, u_mem, u_jit,   u_thread, u_fpu, u_control,
                                           u_cpu,    u_tls, u_trace, u_odd,    NULL};

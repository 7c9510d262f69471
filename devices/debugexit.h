/* devices/debugexit.h - isa-debug-exit: a write ends the program with status (value << 1) | 1. */
#ifndef DEVICES_DEBUGEXIT_H
#define DEVICES_DEBUGEXIT_H
#include "devices/bus.h"

struct debugexit {
    void (*exit_fn)(void *opaque, int status); /* asks the run loop to end; may return */
    void *opaque;
};
extern const struct bus_ops debugexit_ops; /* iobase (default 501), iosize (2) */
#endif

/* monitor/selscan.h - does a page of 32-bit code hold instructions that would show, or take, the host's selectors?
 *
 * Role:    user code that runs directly in compatibility mode has the host's descriptor tables. Loads and stores of segment
 *          registers, far transfers and the instructions that look at descriptors (LAR, LSL, VERR, VERW, SGDT ...) are not
 *          privileged, so nothing stops them: pages with such instructions must not be executable there. Code is decoded as
 *          it lies, one instruction after the other; code that jumps into the middle of its instructions is not seen through.
 * nofpu.   Pure functions of the bytes.
 */
#ifndef MONITOR_SELSCAN_H
#define MONITOR_SELSCAN_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length of the 32-bit instruction at p, of which n bytes can be read; 0: it does not end within them. What no CPU decodes has some
 * length. *selectors: it is one of those above (also when they are too few to tell). */
unsigned selscan_insn(const uint8_t *p, size_t n, bool *selectors);
/* Looks at the instructions that begin in bytes [from, to) of code, which is n bytes long. Some instruction begins at `start` <=
 * from; if that is a guess, give it a run-up: decoders fall into step within a few instructions. */
bool selscan_range(const uint8_t *code, size_t n, size_t start, size_t from, size_t to);
#endif

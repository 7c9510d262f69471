/* tests/diff/catalog.h - every instruction encoding that Zydis knows, found by walking the opcode space of a mode.
 *
 * Role:   templates (prefix, map, opcode, fixed ModRM parts) grouped by mnemonic, and their instantiation into bytes with
 *         everything else random: registers, addressing form, displacement, immediate, mask, rounding, extra prefixes.
 * Owner:  one catalogue per mode, built once by cat_open and never freed before cat_close.
 */
#ifndef TESTS_DIFF_CATALOG_H
#define TESTS_DIFF_CATALOG_H
#include "tests/diff/dcase.h"
#include "tests/diff/dice.h"
#include <Zydis/Zydis.h>

struct catalog;
struct cat_insn {
    ZydisDecodedInstruction d;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    uint8_t bytes[ZYDIS_MAX_INSTRUCTION_LENGTH + 1];
};

struct catalog *cat_open(enum dt_mode mode);
void cat_close(struct catalog *c);
const ZydisDecoder *cat_decoder(const struct catalog *c);
/* Mnemonics that have templates, that is, are neither unknown in this mode nor excluded. */
bool cat_has(const struct catalog *c, unsigned mnemonic);
/* Why a mnemonic is excluded, or NULL. */
const char *cat_excluded(unsigned mnemonic);
/* A random instruction. pick: -1 = by the usual mixture, else a mnemonic. False if none came out after some tries. */
bool cat_random(const struct catalog *c, struct dice *r, int pick, struct cat_insn *out);
#endif

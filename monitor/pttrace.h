/* monitor/pttrace.h - traced page tables: what a shadow that mirrors the guest's tables must hear of. Only for -accel trap.
 *
 * Role:     the window is a TLB and needs no traces (docs/WINDOW.md). A classical monitor keeps its shadow equal to the guest's
 *           tables: the pages of tables that a translation was taken from are write-protected, each write faults, is carried out,
 *           and takes what came from the entry out of the shadow. This is that monitor, to be compared with.
 * Owner:    pttrace_create by whoever creates the vCPU; with v->pttrace == NULL the others do nothing.
 * nofpu, safe in the handler of a window fault.
 */
#ifndef MONITOR_PTTRACE_H
#define MONITOR_PTTRACE_H
#include "shadowmmu/ptwalk.h"
#include <stdbool.h>
#include <stdint.h>

struct vcpu;
struct pttrace;
int pttrace_create(struct pttrace **out); /* 0 or -RD_E_NOMEM */
void pttrace_destroy(struct pttrace *t);
/* lin was translated by these tables and is about to enter the window or a soft TLB. */
void pttrace_note(struct vcpu *v, uint64_t lin, const struct pt_result *r);
/* A traced page is about to be written to. */
void pttrace_written(struct vcpu *v, uint64_t gpa, unsigned bytes);
/* Translations are gone, all or those that are not global: their tables need no trace. */
void pttrace_flush(struct vcpu *v, bool global_too);
#endif

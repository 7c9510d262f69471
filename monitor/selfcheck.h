/* monitor/selfcheck.h - -check: the engine's own structures, verified while a guest runs. docs/WINDOW.md says what is an error.
 *
 * Role:    tells the shadow audit (shadowmmu/audit.h) of everything that is entered and flushed, walks all shadow structures at
 *          the guest's flushes and at random, compares the window with what the host really has mapped, and calls cc_verify.
 * Threads: the vCPU's. Signals, nofpu: all but selfcheck_run, selfcheck_report and create/destroy. Nothing costs anything but a
 *          test of vcpu.audit when the checks are off.
 */
#ifndef MONITOR_SELFCHECK_H
#define MONITOR_SELFCHECK_H
#include "monitor/vcpu.h"
#include "shadowmmu/audit.h"

int selfcheck_create(struct vcpu *v);
void selfcheck_destroy(struct vcpu *v);

/* Callers test v->audit first. */
void selfcheck_entered(struct vcpu *v, enum audit_where where, const struct audit_entry *e);
void selfcheck_flushed(struct vcpu *v, enum audit_flush what, uint64_t lin);
/* A CR3 load: this PCID is current now, with what was parked of it or, if not keep, flushed. */
void selfcheck_switched(struct vcpu *v, uint16_t pcid, bool keep);
/* INVPCID of a context that is not current, or of all (AUDIT_PCIDS). */
void selfcheck_flushed_pcid(struct vcpu *v, uint16_t pcid);
/* Shall this world's pages be compared with the tables? */
bool selfcheck_wants_world(struct vcpu *v);
void selfcheck_world_page(struct vcpu *v, const struct audit_entry *e);
/* -check sabotage=N: true for the Nth INVLPG of a page that is in a shadow structure. */
bool selfcheck_sabotages(struct vcpu *v, uint64_t lin);

/* Between two blocks: is there something to do, or to report? Then fpu_leave and selfcheck_run. */
bool selfcheck_due(struct vcpu *v);
/* False: a violation; the report has been written and v->exit filled. */
bool selfcheck_run(struct vcpu *v);
#endif

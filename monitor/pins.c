/* monitor/pins.c - the CPU's interrupt pins. nofpu: chips drive them from within callbacks. */
#include "monitor/vm_int.h"

void vcpu_set_intr(struct vcpu *v, bool level)
{
    v->intr_line = level;
    if (level)
        vcpu_set_event(v, EV_INTR);
    else
        vcpu_clear_event(v, EV_INTR);
}

void vcpu_inject_nmi(struct vcpu *v)
{
    v->nmi_pending = true;
    vcpu_set_event(v, EV_NMI);
}

void vcpu_intr_pin(void *vcpu, int n, bool level) { vcpu_set_intr(vcpu, level); }

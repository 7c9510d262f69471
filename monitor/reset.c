/* monitor/reset.c - the state after RESET (SDM 3A table 9-1). nofpu. */
#include "monitor/cpumodel.h"
#include "monitor/msr.h"
#include "monitor/sysinsn.h"

static void data_segment(struct seg *s)
{
    *s = (struct seg){.limit = 0xffff, .attr = SEG_P | SEG_S | SEG_RW | SEG_A};
    cpu_seg_cache(s);
}

void sys_reset(struct vcpu *v)
{
    struct cpu *c = &v->c;
    uint32_t id[4] = {0, 0, 0, 0};
    *c = (struct cpu){0};
    for (unsigned i = S_ES; i <= S_GS; i++)
        data_segment(&c->seg[i]);
    c->seg[S_CS] = (struct seg){
        .sel = 0xf000, .base = 0xffff0000, .limit = 0xffff, .attr = SEG_P | SEG_S | SEG_CODE | SEG_RW | SEG_A};
    cpu_seg_cache(&c->seg[S_CS]);
    c->seg[S_LDTR] = (struct seg){.limit = 0xffff, .attr = SEG_P | DT_LDT};
    c->seg[S_TR] = (struct seg){.limit = 0xffff, .attr = SEG_P | DT_TSS_BUSY};
    c->gdtr.limit = c->idtr.limit = 0xffff;
    c->rip = 0xfff0;
    c->cr0 = CR0_CD | CR0_NW | CR0_ET;
    c->dr[6] = 0xffff0ff0;
    c->dr[7] = 0x400;
    c->xcr0 = XCR0_X87;
    c->pat = 0x0007040600070406ull;
    msr_reset(v, false);
    if (v->cpu)
        cpumodel_leaf(v->cpu, 1, 0, id);
    c->gpr[R_RDX] = id[0]; /* family, model, stepping */
    cpu_update_key(c);
}

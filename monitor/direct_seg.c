/* monitor/direct_seg.c - segments of user code that runs directly: the host's descriptors in place of the guest's.
 *
 * 64-bit code has null selectors, or its data selector in DS and ES; bases of FS and GS are registers. 32-bit code has flat CS, SS, DS, ES,
 * for which the host's own do, and FS and GS with any base, which get a descriptor of the world's LDT. Everything else is translated.
 * Loads that raise an exception on the host are carried out by the engine, from the guest's tables. Those that do not (the number
 * exists on the host too) are found at the next event, because the selector has changed; 32-bit code does not get so far unless it
 * hides from selscan.
 */
#include "monitor/direct_int.h"
#include "monitor/sys_int.h"

static const uint8_t data_seg[4] = {S_DS, S_ES, S_FS, S_GS};

static bool is_null(const struct seg *g) { return !(g->sel & ~3u); }
static bool is_whole(const struct seg *g) { return g->nlim_w == -0x100000000ll && !(g->base >> 32); }

/* Has the world a descriptor for it? */
static bool can_have(const struct vcpu *v, const struct seg *g)
{
    return is_null(g) || (is_whole(g) && (!g->base || uw_has_ldt(v->priv->direct->pool)));
}

bool direct_segments_allowed(const struct vcpu *v)
{
    const struct cpu *c = &v->c;
    const uint32_t flat32 = CPU_KEY_CODE32 | CPU_KEY_SS32 | CPU_KEY_FLAT;
    const struct seg *cs = &c->seg[S_CS], *fs = &c->seg[S_FS], *gs = &c->seg[S_GS];
    if (!is_null(&c->seg[S_LDTR])) /* LAR, LSL, VERR and VERW would look at the world's */
        return false;
    if (c->key & CPU_KEY_CODE64) {
        for (unsigned i = 0; i < 2; i++)
            if (!is_null(&c->seg[data_seg[i]]) && c->seg[data_seg[i]].sel != UW_DATA)
                return false;
        return is_null(fs) && is_null(gs);
    }
    /* AMD's have a SYSCALL for 32-bit code, which destroys a register on its way through the host. */
    return (c->key & flat32) == flat32 && cs->base == 0 && cs->limit == 0xffffffffu && can_have(v, fs) &&
           can_have(v, gs) && !v->cpu->amd;
}

static int data_in(struct vcpu *v, struct space *s, unsigned seg, uint16_t *sel, bool *wrapped)
{
    const struct seg *g = &v->c.seg[seg];
    bool w = false;
    int err = 0;
    if (is_null(g))
        *sel = 0;
    else if (g->base == 0)
        *sel = UW_DATA;
    else
        err = uw_ldt(s->world, (uint32_t)g->base, sel, &w);
    *wrapped |= w;
    return err;
}

int direct_segments_in(struct vcpu *v, struct space *s, struct uw_state *u)
{
    bool wrapped;
    int err;
    u->cs = v->c.key & CPU_KEY_CODE64 ? UW_CS64 : UW_CS32;
    u->fs_base = v->c.seg[S_FS].base;
    u->gs_base = v->c.seg[S_GS].base;
    u->fs = u->gs = 0;
    if (u->cs == UW_CS64) {
        u->ds = is_null(&v->c.seg[S_DS]) ? 0 : UW_DATA;
        u->es = is_null(&v->c.seg[S_ES]) ? 0 : UW_DATA;
        return 0;
    }
    u->ds = u->es = UW_DATA;
    do { /* the world's table starts anew when it is full: then what was given out is void */
        wrapped = false;
        err = data_in(v, s, S_FS, &u->fs, &wrapped);
        err = err ? err : data_in(v, s, S_GS, &u->gs, &wrapped);
    } while (wrapped && !err);
    return err;
}

/* The guest's descriptor for a data selector that user code has loaded itself. */
static int adopt_data(struct vcpu *v, unsigned seg, uint16_t sel, const struct uw_state *given)
{
    const uint16_t had[4] = {given->ds, given->es, given->fs, given->gs};
    for (unsigned i = 0; i < 4; i++)
        if (had[i] == sel && (sel & ~3u)) { /* copied from another register */
            v->c.seg[seg] = v->c.seg[data_seg[i]];
            return 0;
        }
    return seg_load(v, seg, sel);
}

/* A far transfer to a code segment of the host's that has the number of one of the guest's. */
static int adopt_code(struct vcpu *v, uint16_t sel)
{
    struct desc d;
    int rc = desc_read(v, sel, EXC_GP, 0, &d);
    if (rc)
        return rc;
    if (!desc_is_code(&d) || !(d.attr & SEG_P) || desc_dpl(&d) != 3)
        return sys_fault_err(v, EXC_GP, sel & ~3u);
    seg_set(&v->c, S_CS, sel, &d);
    return 0;
}

int direct_segments_out(struct vcpu *v, struct space *s, const struct uw_state *given, const struct uw_state *u)
{
    const uint16_t had[4] = {given->ds, given->es, given->fs, given->gs};
    uint16_t have[4] = {u->ds, u->es, u->fs, u->gs};
    int rc = 0;
    bool same = u->cs == given->cs;
    for (unsigned i = 0; i < 4; i++) {
        if (!(have[i] & ~3u)) /* null selectors are all alike */
            have[i] = 0;
        same = same && had[i] == have[i];
    }
    if (same)
        return 0;
    v->stats->uw_selectors++;
    for (unsigned i = 0; i < 4 && !rc; i++)
        if (had[i] != have[i])
            rc = adopt_data(v, data_seg[i], have[i], given);
    if (!rc && u->cs != given->cs)
        rc = adopt_code(v, u->cs);
    if (rc) { /* the guest has no such segment; its fault comes late */
        s->refused = true;
        v->stats->uw_refused++;
    }
    cpu_update_key(&v->c); /* the caller needs to know which mode this is */
    return rc;
}

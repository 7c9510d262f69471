/* monitor/direct_warm.c - worlds between two spaces: what they have mapped is kept for the next one.
 *
 * Emptying a world and entering the same pages anew is most of what a short-lived process costs: the children of a process have nearly all
 * pages in common with each other. Until somebody takes it such a world does not run, and nobody keeps it coherent: direct_adopt
 * looks at each page.
 */
#include "monitor/direct_int.h"
#include <string.h>

#define ENOUGH 4u /* so many, and one that is of no use to a space is emptied for it; fewer, and it gets a new one */

static void pass(struct space *to, const struct space *from)
{
    to->world = from->world;
    memcpy(to->chunk, from->chunk, sizeof to->chunk);
}

/* Takes it off the list. */
static struct space take_off(struct direct *d, unsigned k)
{
    struct space s = d->warm[k];
    d->n_warm--;
    memmove(&d->warm[k], &d->warm[k + 1], (d->n_warm - k) * sizeof d->warm[0]);
    return s;
}

static void put_away(struct direct *d, unsigned k)
{
    struct space s = take_off(d, k);
    uw_put(s.world);
    direct_forget(&s);
}

void direct_warm_clear(struct direct *d)
{
    while (d->n_warm)
        put_away(d, d->n_warm - 1);
}

void direct_warm_put(struct direct *d, struct space *s)
{
    /* A thread that only pretends to have stopped must not keep what the guest's kernel is about to give to others. */
    if (uw_renew(s->world)) {
        uw_put(s->world);
        s->world = NULL;
        direct_forget(s);
        return;
    }
    if (d->n_warm == WARM)
        put_away(d, 0);
    d->warm[d->n_warm].narrow = s->narrow;
    pass(&d->warm[d->n_warm++], s);
    s->world = NULL;
    memset(s->chunk, 0, sizeof s->chunk);
}

/* The youngest that has the page at rip, as its processor would fetch it; d->n_warm: none. */
static unsigned find(struct vcpu *v, const struct space *s)
{
    const struct direct *d = v->priv->direct;
    struct pt_result r;
    uint32_t err;
    /* Executable pages of 32-bit code are looked through before they are mapped (DIR-2): what they hold may have changed. */
    if (s->narrow || !(v->c.key & CPU_KEY_CODE64) ||
        pt_walk(v->mem, &v->c, v->c.rip, PT_EXEC | PT_USER | PT_PROBE, &r, &err))
        return d->n_warm;
    for (unsigned k = d->n_warm; k-- > 0;)
        if (!d->warm[k].narrow && direct_has_frame(&d->warm[k], v->c.rip, r.gpa))
            return k;
    return d->n_warm;
}

bool direct_warm_take(struct vcpu *v, struct space *s, bool any)
{
    struct direct *d = v->priv->direct;
    while (d->n_warm) {
        unsigned k = find(v, s);
        bool fits = k < d->n_warm;
        if (!fits && !any && d->n_warm < ENOUGH)
            return false;
        k = fits ? k : 0;
        if (uw_renew(d->warm[k].world)) {
            put_away(d, k);
            continue;
        }
        struct space from = take_off(d, k);
        pass(s, &from);
        s->giant = false;
        s->n_invalid = 0;
        if (fits)
            direct_adopt(v, s);
        else
            direct_unmap_all(s);
        v->stats->uw_adopted += fits;
        return true;
    }
    return false;
}

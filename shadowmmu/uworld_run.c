/* shadowmmu/uworld_run.c - the world switch: guest registers through the shared signal frame, hand-off, events. */
#define _GNU_SOURCE
#include "shadowmmu/uworld_int.h"
#include "arch/x86_arch.h"
#include "base/clock.h"
#include "base/err.h"
#include <errno.h>
#include <linux/audit.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* What rt_sigreturn takes from the frame (FIX_EFLAGS), and what it keeps from before. */
#define FLAGS_FRAME (EFLAGS_ARITH | EFLAGS_DF | EFLAGS_TF | EFLAGS_RF | EFLAGS_AC)
#define FLAGS_KEPT EFLAGS_ID
/* A kicked guest thread that stays silent for so long has blocked the signal: only hostile code can. */
#define KICK_LIMIT_NS 3000000000ull
#define VSYSCALL_PAGE 0xffffffffff600000ull
#define NR_URETPROBE 335

/* ---- waiting ---- */

void uw_futex_wait(void *word, uint32_t val)
{
    struct timespec slice = {0, 100000000};
    syscall(SYS_futex, word, FUTEX_WAIT, val, &slice, NULL, 0);
}
void uw_futex_wake(void *word) { syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0); }

static bool back(const struct uworld *w) { return w->mb->turn == UW_TURN_MONITOR; }

static bool wait_asleep(struct uworld *w)
{
    uint64_t kicked_at = 0;
    while (!back(w)) {
        /* The guest's exchange of turn and our store of event_wait are both full barriers: one side sees the other's. */
        atomic_store(&w->hdr->event_wait, 1);
        if (!back(w))
            uw_futex_wait(&w->mb->turn, UW_TURN_GUEST);
        atomic_store(&w->hdr->event_wait, 0);
        if (back(w))
            return true;
        if (!uw_alive(w))
            return false;
        if (!atomic_load(&w->kick))
            continue;
        uint64_t now = clock_now_ns();
        kicked_at = kicked_at ? kicked_at : now;
        if (now - kicked_at > KICK_LIMIT_NS) {
            uw_kill(w);
            return false;
        }
    }
    return true;
}

static bool wait_spinning(const struct uworld *w, uint64_t ticks)
{
    for (uint64_t end = uw_tsc() + ticks; uw_tsc() < end; __builtin_ia32_pause())
        if (back(w))
            return true;
    return false;
}

bool uw_switch(struct uworld *w)
{
    uint64_t spin = uw_cpu_spin(w);
    w->mb->frame = 0;
    w->hdr->spin_guest = (uint32_t)spin;
    w->hdr->stop = 0;
    atomic_store(&w->mb->turn, UW_TURN_GUEST);
    if (w->mb->asleep)
        uw_futex_wake(&w->mb->turn);
    if (spin && wait_spinning(w, spin)) {
        w->pool->counts.events_spun++;
        return true;
    }
    w->pool->counts.events_slept++;
    return wait_asleep(w);
}

void uw_kick(struct uworld *w)
{
    atomic_store(&w->kick, 1);
    if (atomic_load(&w->running))
        syscall(SYS_tgkill, w->pid, w->pid, UW_SIG_KICK);
}

/* ---- registers ---- */

struct uw_frame *uw_frame_of(const struct uworld *w)
{
    return (struct uw_frame *)((uint8_t *)w->mb + (w->pool->frame_addr - w->pool->cfg.base - UW_RW));
}

static uint16_t data_selector(const struct uworld *w, uint16_t sel)
{
    bool ldt = (sel & 7) == 7 && sel >> 3 < w->n_ldt;
    return ldt || sel == UW_DATA ? sel : 0;
}
/* WRFSBASE in the stub must not fault. */
static uint64_t canonical(uint64_t base) { return (uint64_t)bits_sign_extend(base, 48) == base ? base : 0; }
static uint64_t segment_base(const struct uworld *w, uint16_t sel, uint64_t base)
{
    return sel & 4 ? w->ldt_base[sel >> 3] : canonical(base);
}

static void put_segments(struct uworld *w, const struct uw_state *s)
{
    const uint16_t sel[4] = {data_selector(w, s->ds), data_selector(w, s->es), data_selector(w, s->fs),
                             data_selector(w, s->gs)};
    struct uw_mailbox *mb = w->mb;
    mb->load_selectors = memcmp(sel, w->sel, sizeof sel) != 0;
    memcpy(mb->sel, sel, sizeof sel);
    memcpy(w->sel, sel, sizeof sel);
    mb->fs_base = segment_base(w, sel[2], s->fs_base);
    mb->gs_base = segment_base(w, sel[3], s->gs_base);
}

static void put_state(struct uworld *w, const struct uw_state *s)
{
    struct uw_sigcontext *c = &uw_frame_of(w)->sc;
    const uint64_t *g = s->gpr;
    c->ax = g[R_RAX], c->cx = g[R_RCX], c->dx = g[R_RDX], c->bx = g[R_RBX];
    c->sp = g[R_RSP], c->bp = g[R_RBP], c->si = g[R_RSI], c->di = g[R_RDI];
    c->r8 = g[R_R8], c->r9 = g[R_R9], c->r10 = g[R_R10], c->r11 = g[R_R11];
    c->r12 = g[R_R12], c->r13 = g[R_R13], c->r14 = g[R_R14], c->r15 = g[R_R15];
    c->ip = s->rip;
    c->flags = (s->rflags & FLAGS_FRAME) | EFLAGS_R1 | EFLAGS_IF;
    c->cs = s->cs == UW_CS32 ? UW_CS32 : UW_CS64;
    c->ss = UW_DATA;
    w->mb->flags = (s->rflags & FLAGS_KEPT) | EFLAGS_R1 | EFLAGS_IF;
    put_segments(w, s);
}

static void get_state(struct uworld *w, const struct uw_frame *f, struct uw_state *s)
{
    const struct uw_sigcontext *c = &f->sc;
    uint64_t *g = s->gpr;
    g[R_RAX] = c->ax, g[R_RCX] = c->cx, g[R_RDX] = c->dx, g[R_RBX] = c->bx;
    g[R_RSP] = c->sp, g[R_RBP] = c->bp, g[R_RSI] = c->si, g[R_RDI] = c->di;
    g[R_R8] = c->r8, g[R_R9] = c->r9, g[R_R10] = c->r10, g[R_R11] = c->r11;
    g[R_R12] = c->r12, g[R_R13] = c->r13, g[R_R14] = c->r14, g[R_R15] = c->r15;
    s->rip = c->ip;
    s->rflags = (c->flags & (FLAGS_FRAME | FLAGS_KEPT | EFLAGS_NT)) | EFLAGS_R1 | EFLAGS_IF;
    s->cs = c->cs;
    const struct uw_mailbox *mb = w->mb;
    memcpy(w->sel, mb->sel, sizeof w->sel);
    s->ds = w->sel[0], s->es = w->sel[1], s->fs = w->sel[2], s->gs = w->sel[3];
    s->fs_base = canonical(mb->fs_base);
    s->gs_base = canonical(mb->gs_base);
}

/* ---- events ---- */

static void exception(struct uw_event *ev, unsigned vector, uint64_t error, uint64_t cr2)
{
    *ev = (struct uw_event){.kind = UW_EXCEPTION, .vector = vector & 31, .error = (uint32_t)error, .cr2 = cr2};
}

/* SYSENTER and 32-bit SYSCALL return to the kernel's own page wherever they were executed; nothing is left of where. */
static bool is_landing_pad(const struct uworld *w, const struct uw_frame *f)
{
    return f->sc.cs == UW_CS32 && f->addr >> 32;
}

static void system_call(struct uworld *w, const struct uw_frame *f, struct uw_state *s, struct uw_event *ev)
{
    *ev = (struct uw_event){.insn_len = 2};
    if ((f->addr & ~0xfffull) == VSYSCALL_PAGE) {
        /* The host emulates this page: it has returned from the call. Undo that; to the guest it is an instruction fetch. */
        s->rip = f->addr;
        s->gpr[R_RSP] -= 8;
        exception(ev, EXC_PF, PF_U | PF_I | PF_P, f->addr);
    } else if (is_landing_pad(w, f)) {
        ev->kind = UW_SYSENTER;
        /* The kernel took the stack pointer from EBP and EBP from the stack (as its own 32-bit entry code pushed it). */
        s->gpr[R_RBP] = s->gpr[R_RSP];
    } else {
        ev->kind = f->arch == AUDIT_ARCH_X86_64 ? UW_SYSCALL : UW_INT80;
        s->rip -= 2;
    }
}

/* The host's kernel fetches EBP from the stack before anything else; if it cannot, it returns -EFAULT to the landing pad, which
 * lies in page 0 (uworld_zygote.c, move_vdso), where nothing is mapped. */
static bool is_failed_sysenter(const struct uw_sigcontext *c)
{
    return c->trapno == EXC_PF && c->cs == UW_CS32 && c->ip < 0x2000 && c->cr2 == c->ip && (int32_t)c->ax == -EFAULT;
}

/* INT 80h on a host without 32-bit system calls is a #GP that names the gate. */
#define ERR_INT80 (0x80u << 3 | 2)

static void decode_event(struct uworld *w, const struct uw_frame *f, struct uw_state *s, struct uw_event *ev)
{
    const struct uw_sigcontext *c = &f->sc;
    int sig = f->signo;
    if (sig == SIGSYS)
        system_call(w, f, s, ev);
    else if (sig == UW_SIG_KICK)
        *ev = (struct uw_event){.kind = UW_KICK};
    else if (sig == SIGSEGV && (c->ip & ~0xfffull) == VSYSCALL_PAGE) /* the host's emulation did not like the stack */
        exception(ev, EXC_PF, PF_U | PF_I | PF_P, c->ip);
    else if (sig == SIGILL && f->code == SI_KERNEL && !w->pool->dispatches) {
        /* Without Syscall User Dispatch this call passes all filters; executed here it is answered with the signal alone. */
        *ev = (struct uw_event){.kind = UW_SYSCALL, .insn_len = 2};
        s->gpr[R_RAX] = NR_URETPROBE;
        s->rip -= 2;
    } else if (f->code <= 0 && f->code != SI_USER) /* sent, not raised: nobody of ours does */
        *ev = (struct uw_event){.kind = UW_KICK};
    else if (is_failed_sysenter(c)) {
        *ev = (struct uw_event){.kind = UW_SYSENTER, .insn_len = 2, .lost = true};
        s->gpr[R_RBP] = s->gpr[R_RSP];
    } else if (c->trapno == EXC_PF)
        exception(ev, EXC_PF, c->err, c->cr2);
    else if (c->trapno == EXC_GP && c->err == ERR_INT80)
        *ev = (struct uw_event){.kind = UW_INT80, .insn_len = 2};
    else
        exception(ev, (unsigned)c->trapno, c->err, 0);
}

/* The first event of a guest program in a world that was another one's. That one's thread could not run any more, but a signal that came
 * while it slept in the stub, or single-stepping that it had left on there, puts its own registers into the frame: nobody else's code
 * is where that happens. Then the new one's state, whose FPU image is here and nowhere else, is put back. */
static bool is_new(struct uworld *w, bool alive)
{
    w->renewed = false;
    if (alive && !uw_conflicts(w->pool, uw_frame_of(w)->sc.ip, 1))
        return true;
    uw_kill(w);
    memcpy(uw_frame_of(w), w->pool->given, w->pool->frame_bytes);
    return false;
}

int uw_run(struct uworld *w, struct uw_state *s, struct uw_event *ev)
{
    int err = uw_flush(w);
    if (err)
        return err;
    atomic_store(&w->running, 1);
    if (atomic_exchange(&w->kick, 0)) {
        atomic_store(&w->running, 0);
        *ev = (struct uw_event){.kind = UW_KICK};
        return 0;
    }
    w->pool->counts.runs++;
    put_state(w, s);
    if (w->renewed)
        memcpy(w->pool->given, uw_frame_of(w), w->pool->frame_bytes);
    uw_cpu_before(w);
    uint64_t since = uw_tsc();
    bool alive = uw_switch(w);
    uw_cpu_after(w, uw_tsc() - since);
    atomic_store(&w->running, 0);
    atomic_store(&w->kick, 0);
    /* A frame elsewhere: the guest has got at rt_sigreturn and moved its signal stack. */
    if (alive && w->mb->frame != w->pool->frame_addr) {
        uw_kill(w);
        alive = false;
    }
    if (w->renewed && !is_new(w, alive))
        return -RD_E_HOST;
    if (!alive) {
        *ev = (struct uw_event){.kind = UW_DEAD};
        return 0;
    }
    struct uw_frame f;
    memcpy(&f, uw_frame_of(w), sizeof f); /* once: the guest may be writing to it */
    get_state(w, &f, s);
    decode_event(w, &f, s, ev);
    return 0;
}

/* ---- FPU state ---- */

#define XSAVE_LEGACY 464 /* bytes of the FXSAVE area that belong to the processor; the rest is the kernel's */
#define XSAVE_HEADER 512
#define XSAVE_EXTENDED 576
#define OFF_MXCSR 24

/* Copies the parts of an image that hold state, with reserved bits cleared. */
static size_t copy_xsave(const struct uw_pool *p, uint8_t *to, const uint8_t *from, size_t bytes)
{
    uint64_t bv = 0;
    uint32_t mxcsr;
    memcpy(to, from, bytes < XSAVE_LEGACY ? bytes : XSAVE_LEGACY);
    if (bytes >= OFF_MXCSR + 4) {
        memcpy(&mxcsr, from + OFF_MXCSR, sizeof mxcsr);
        mxcsr &= p->mxcsr_mask;
        memcpy(to + OFF_MXCSR, &mxcsr, sizeof mxcsr);
    }
    if (bytes < XSAVE_EXTENDED || p->xstate_bytes < XSAVE_EXTENDED)
        return bytes < XSAVE_LEGACY ? bytes : XSAVE_LEGACY;
    memcpy(&bv, from + XSAVE_HEADER, sizeof bv);
    bv &= p->xfeatures;
    memset(to + XSAVE_HEADER, 0, XSAVE_EXTENDED - XSAVE_HEADER);
    memcpy(to + XSAVE_HEADER, &bv, sizeof bv);
    size_t end = bytes < p->xstate_bytes ? bytes : p->xstate_bytes;
    /* Components in their initial state have no bytes that mean anything: most programs use a quarter of the area. */
    for (unsigned i = 2; i < UW_COMPONENTS; i++)
        if ((bv >> i & 1) && p->xoffset[i] + p->xsize[i] <= end)
            memcpy(to + p->xoffset[i], from + p->xoffset[i], p->xsize[i]);
    return end;
}

/* Where the kernel puts it: the frame's pointer is the guest's to change, the place is not. */
static uint8_t *fpu_image(const struct uworld *w)
{
    const struct uw_frame *fresh = (const struct uw_frame *)w->pool->fresh;
    return (uint8_t *)uw_frame_of(w) + (fresh->sc.fpstate - w->pool->frame_addr);
}
size_t uw_fpu_save(struct uworld *w, void *image, size_t bytes)
{
    return copy_xsave(w->pool, image, fpu_image(w), bytes);
}
size_t uw_fpu_load(struct uworld *w, const void *image, size_t bytes)
{
    return copy_xsave(w->pool, fpu_image(w), image, bytes);
}
uint64_t uw_fpu_features(const struct uw_pool *p) { return p->xfeatures; }

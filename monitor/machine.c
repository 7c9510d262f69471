/* monitor/machine.c - the run loop of the machine, and how a run ends.
 *
 *   vcpu_run -> KICK      timers that are due, descriptors that are ready (evloop_run)
 *               HLT       sleep until one of them is (evloop_wait), then look again whether the CPU wakes
 *               SHUTDOWN  triple fault: reset, or the end
 *               INTERNAL  the end
 *   -> requests: of the guest (noted by the board's events), of the user (prompt, signals)
 */
#define _GNU_SOURCE
#include "monitor/machine.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "devices/term.h"
#include "monitor/machine_int.h"
#include "arch/sysop.h"
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int machine_fail(const struct machine *m, const char *fmt, ...)
{
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    for (char *p = line; *p; p++) /* names may hold anything; the message stays one line */
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    fprintf(stderr, "%s: %s\n", m->c->prog, line);
    return 1;
}

/* ---- requests ---- */

void machine_quit(struct machine *m, int status)
{
    if (!m->quit) {
        m->quit_status = status;
        m->quit = true;
    }
    if (m->loop)
        evloop_wake(m->loop);
}

void machine_request_reset(struct machine *m)
{
    m->user_reset = true;
    evloop_wake(m->loop);
}

void machine_power_button(struct machine *m) { board_pc_power_button(&m->board); }
void machine_nmi(struct machine *m) { board_pc_nmi(&m->board); }

static void pause_guest(struct machine *m, const char *why)
{
    if (m->paused)
        return;
    board_pc_pause(&m->board);
    vtime_pause(m->loop);
    m->paused = true;
    m->paused_why = why;
    vcpu_kick(m->v);
}

void machine_stop(struct machine *m) { pause_guest(m, NULL); }

void machine_continue(struct machine *m)
{
    if (!m->paused || m->ended)
        return;
    m->paused = false;
    vtime_resume(m->loop);
    board_pc_resume(&m->board);
}

bool machine_is_running(const struct machine *m) { return !m->paused; }

const char *machine_status(const struct machine *m)
{
    return !m->paused ? "running" : m->paused_why ? m->paused_why : "paused";
}

struct vcpu *machine_vcpu(struct machine *m) { return m->v; }
struct board_pc *machine_board(struct machine *m) { return &m->board; }

/* ---- signals that end the program ---- */

static struct machine *signalled;

/* Leaves the rest to the loop: what was interrupted may hold any lock, the heap's for one, which dprintf needs. */
static void on_signal(int sig)
{
    static volatile sig_atomic_t before;
    int saved = errno;
    if (before++) { /* the loop does not come to serve the first */
        term_restore();
        signal(sig, SIG_DFL);
        raise(sig);
    }
    if (signalled) {
        signalled->quit_signal = sig;
        machine_quit(signalled, 0);
    }
    errno = saved;
}

/* Like QEMU: these end the program in order, with status 0. */
static void catch_signals(struct machine *m)
{
    static const int list[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction old, sa = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_RESTART};
    sigfillset(&sa.sa_mask);
    /* A limit on the size of files holds for guest memory too: an error that is told, not an end. */
    signal(SIGXFSZ, SIG_IGN);
    signalled = m;
    for (unsigned i = 0; i < sizeof list / sizeof list[0]; i++)
        if (!sigaction(list[i], NULL, &old) && old.sa_handler == SIG_DFL) /* ignored, as under nohup, stays so */
            sigaction(list[i], &sa, NULL);
}

/* ---- ends ---- */

static void end(struct machine *m, int status)
{
    m->ended = true;
    m->status = status;
}

/* The guest has brought itself to an end. */
static void guest_ended(struct machine *m, int status)
{
    if (m->c->no_shutdown && !status)
        pause_guest(m, "paused (shutdown)");
    else
        end(m, status);
}

/* -d cpu_reset */
static void log_cpu(const struct machine *m, const char *why)
{
    if (!log_on(CPU_RESET))
        return;
    LOGF(CPU_RESET, "%s", why);
    vcpu_dump_state(m->v, log_stream());
}

static void reset(struct machine *m)
{
    int status = machine_start(m);
    if (status)
        end(m, status);
}

static void triple_fault(struct machine *m)
{
    const char *why = vcpu_exit_info(m->v)->text;
    log_cpu(m, "triple fault");
    if (m->c->no_reboot) {
        machine_fail(m, "the guest's CPU has shut down (triple fault)%s%s", *why ? ": " : "", why);
        end(m, 1);
        return;
    }
    if (!m->told_triple_fault)
        fprintf(stderr, "%s: triple fault: resetting the guest\n", m->c->prog);
    m->told_triple_fault = true;
    reset(m);
}

static void guest_reset(struct machine *m)
{
    bool unclean = board_pc_reset_is_unclean(&m->board);
    if (!m->c->no_reboot) {
        reset(m);
        return;
    }
    if (unclean)
        machine_fail(m, "the guest has reset itself without shutting down: its kernel has panicked or was told to");
    guest_ended(m, unclean ? 1 : 0);
}

/* QEMU's order: what ends wins over what goes on. */
static void serve_requests(struct machine *m)
{
    if (m->quit) {
        end(m, m->quit_status);
        return;
    }
    bool off = m->guest_off, by_guest = m->guest_reset, by_user = m->user_reset;
    m->guest_off = m->guest_reset = m->user_reset = false;
    if (off)
        guest_ended(m, 0);
    else if (by_guest || by_user) {
        log_cpu(m, by_guest ? "reset by the guest" : "reset by the user");
        if (by_guest)
            guest_reset(m);
        else
            reset(m);
    }
}

/* ---- running ---- */

/* Sleeps, and serves what ended the sleep. */
static void wait_for_events(struct machine *m)
{
    struct acct *a = &vm_stats(m->vm)->acct;
    struct acct_span span = acct_begin(a, ACCT_idle);
    bool ready = evloop_sleep(m->loop, -1);
    acct_end(a, &span, ACCT_idle);
    uint32_t before = acct_enter(a, ACCT_device);
    evloop_serve(m->loop, ready);
    acct_enter(a, before);
}

static void serve_events(struct machine *m)
{
    struct acct *a = &vm_stats(m->vm)->acct;
    uint32_t before = acct_enter(a, ACCT_device);
    evloop_run(m->loop);
    acct_enter(a, before);
}

static void run_once(struct machine *m)
{
    enum vm_exit_reason r = vcpu_run(m->v);
    switch (r) {
    case VM_EXIT_KICK: serve_events(m); break;
    case VM_EXIT_HLT: wait_for_events(m); break;
    case VM_EXIT_SHUTDOWN: triple_fault(m); break;
    case VM_EXIT_INTERNAL: end(m, machine_fail(m, "%s", vcpu_exit_info(m->v)->text)); break;
    default: end(m, machine_fail(m, "the engine stopped for a reason nobody asked for (%d)", r)); break;
    }
    if (!m->ended && !m->paused)
        board_pc_tick(&m->board);
}

static int run(struct machine *m)
{
    /* The engine knows its thread from the first vcpu_run on: make that one come back at once, so that no timer that fires before
     * it is lost. */
    vcpu_kick(m->v);
    acct_setup_done(&vm_stats(m->vm)->acct, ACCT_loop);
    for (;;) {
        serve_requests(m);
        if (m->ended)
            return m->status;
        if (m->paused)
            wait_for_events(m);
        else
            run_once(m);
    }
}

static const char *op_name(unsigned kind)
{
    static const char *const names[] = {
#define SYSOP(name, comment) #name,
#include "arch/sysop.def"
#undef SYSOP
    };
    return kind < sizeof names / sizeof names[0] ? names[kind] : NULL;
}

static int write_stats(struct machine *m)
{
    vm_account_stop(m->vm);
    if (!m->stats)
        return 0;
    vm_measure_shadow(m->vm);
    int rc = stat_write_json(vm_stats(m->vm), m->stats, op_name);
    rc |= fclose(m->stats);
    m->stats = NULL;
    return rc ? machine_fail(m, "-stats: cannot write '%s'", m->c->stats_file) : 0;
}

/* Which engine runs, and why: said when the user has not named it, or when what was named is not all here. */
static void announce(const struct machine *m)
{
    const char *asked = m->c->engine.asked, *no_window, *no_direct;
    bool other = asked && (!strcmp(asked, "kvm") || !strcmp(asked, "hvf"));
    const char *world = vm_has_window(m->vm, &no_window) ? "kernel window" : "soft path";
    const char *user = vm_has_direct(m->vm, &no_direct) ? "user code direct" : "user code translated";
    if (asked && !other && !no_window && !no_direct)
        return;
    fprintf(stderr, "%s: engine: binary translation, %s%s%s, %s%s%s (%s%s)\n", m->c->prog, world, no_window ? ": " : "",
            no_window ? no_window : "", user, no_direct ? ": " : "", no_direct ? no_direct : "",
            other   ? "in place of "
            : asked ? "-accel "
                    : "the default; needs no hardware virtualisation",
            asked ? asked : "");
}

int machine_main(const struct cmdline *c)
{
    struct machine *m = calloc(1, sizeof *m);
    if (!m) {
        fprintf(stderr, "%s: out of memory\n", c->prog);
        return 1;
    }
    m->c = c;
    m->start_ns = clock_now_ns();
    catch_signals(m);
    int status = machine_make(m);
    if (!status) {
        announce(m);
        if (c->start_stopped)
            pause_guest(m, "paused (prelaunch)");
        status = run(m);
        int bad = write_stats(m);
        status = status ? status : bad;
    }
    if (m->quit_signal) {
        fprintf(stderr, "%s: terminating on signal %d\n", m->c->prog, (int)m->quit_signal);
        status = m->quit_status;
    }
    signalled = NULL;
    machine_unmake(m);
    free(m);
    return status;
}

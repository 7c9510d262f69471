#define _GNU_SOURCE
#include "devices/term.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

static struct termios saved, raw;
static volatile sig_atomic_t active; /* raw mode is wanted; saved and raw are valid */
static int tty_fd = -1;
static bool hooked;

/* A terminal that is not our controlling one has no foreground for us (ENOTTY), and never stops us. */
static bool in_foreground(void)
{
    pid_t group = tcgetpgrp(tty_fd);
    return group < 0 || group == getpgrp();
}

static void apply(const struct termios *t)
{
    if (in_foreground()) /* else SIGTTOU would stop us */
        while (tcsetattr(tty_fd, TCSANOW, t) && errno == EINTR)
            ;
}

void term_restore(void)
{
    if (!active)
        return;
    int err = errno;
    active = 0;
    apply(&saved);
    errno = err;
}

static void on_fatal(int sig)
{
    term_restore();
    signal(sig, SIG_DFL);
    raise(sig); /* blocked until the handler returns, then fatal */
}

static void hook(int sig, void (*fn)(int))
{
    struct sigaction old,
        sa = {.sa_handler = fn, .sa_flags = SA_ONSTACK | SA_RESTART}; /* the stack pointer may be a guest's */
    sigfillset(&sa.sa_mask);
    if (!sigaction(sig, NULL, &old) && old.sa_handler == SIG_DFL)
        sigaction(sig, &sa, NULL);
}

static void on_continue(int sig)
{
    int err = errno;
    if (active)
        apply(&raw);
    errno = err;
}

static void on_stop(int sig)
{
    int err = errno;
    sigset_t set, old;
    if (active)
        apply(&saved);
    signal(sig, SIG_DFL);
    raise(sig);
    sigemptyset(&set);
    sigaddset(&set, sig);
    pthread_sigmask(SIG_UNBLOCK, &set, &old); /* stops here */
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    hook(sig, on_stop);
    on_continue(SIGCONT);
    errno = err;
}

static void install_hooks(void)
{
    static const int fatal[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGABRT, SIGXCPU};
    if (hooked)
        return;
    hooked = true;
    atexit(term_restore);
    for (unsigned i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
        hook(fatal[i], on_fatal);
    hook(SIGTSTP, on_stop);
    hook(SIGCONT, on_continue);
}

void term_raw(int fd, bool keep_signals)
{
    if (active || tcgetattr(fd, &saved))
        return;
    raw = saved;
    raw.c_iflag &= (tcflag_t) ~(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    raw.c_oflag |= OPOST; /* other programs' output to the terminal stays readable */
    raw.c_lflag &= (tcflag_t) ~(ECHO | ECHONL | ICANON | IEXTEN | (keep_signals ? 0 : ISIG));
    raw.c_cflag = (raw.c_cflag & (tcflag_t) ~(CSIZE | PARENB)) | CS8;
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    tty_fd = fd;
    active = 1;
    install_hooks();
    apply(&raw);
}

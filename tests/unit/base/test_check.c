#include "base/check.h"
#include "base/err.h"
#include <criterion/criterion.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void report(void)
{
    fputs("report runs\n", stderr);
    CHECK(!"a check that fails inside the report");
}

/* Runs fn in a child, gives back how it ended and what it wrote to stderr. */
static int run_child(void (*fn)(void), char *text, size_t bytes)
{
    int fds[2], status = 0;
    cr_assert_eq(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[1], 2);
        fn();
        _exit(0);
    }
    close(fds[1]);
    size_t used = 0;
    ssize_t n;
    while (used < bytes - 1 && (n = read(fds[0], text + used, bytes - 1 - used)) > 0)
        used += (size_t)n;
    text[used] = 0;
    close(fds[0]);
    waitpid(pid, &status, 0);
    return status;
}

static void fail_with_report(void)
{
    check_note_seed(77);
    check_report_hook = report;
    CHECK(1 + 1 == 3);
}
static void pass(void) { CHECK(1 + 1 == 2); }

Test(check, failure_names_expression_place_and_seed_then_aborts)
{
    char text[2000];
    int status = run_child(fail_with_report, text, sizeof text);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    cr_assert(strstr(text, "1 + 1 == 3 at "));
    cr_assert(strstr(text, "test_check.c:"));
    cr_assert(strstr(text, "seed of this run: 77"));
}

Test(check, report_hook_runs_once_even_if_it_fails_itself)
{
    char text[2000];
    int status = run_child(fail_with_report, text, sizeof text);
    cr_assert(WIFSIGNALED(status));
    char *first = strstr(text, "report runs");
    cr_assert(first);
    cr_assert_null(strstr(first + 1, "report runs"));
}

Test(check, true_condition_says_nothing)
{
    char text[200];
    cr_assert_eq(run_child(pass, text, sizeof text), 0);
    cr_assert_str_empty(text);
}

Test(err, text_ignores_the_sign)
{
    cr_assert_str_eq(err_text(-RD_E_NOMEM), "out of memory");
    cr_assert_str_eq(err_text(RD_E_NOMEM), "out of memory");
    cr_assert_str_eq(err_text(0), "no error");
}

Test(err, number_without_a_text_is_unknown)
{
    cr_assert_str_eq(err_text(9999), "unknown error");
    cr_assert_str_eq(err_text(INT_MIN), "unknown error");
}

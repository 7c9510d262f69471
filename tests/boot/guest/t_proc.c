/* tests/boot/guest/t_proc.c - processes and threads: fork storms, exec, wait, futexes, thread-local storage. */
#include "bt.h"
#include <pthread.h>
#include <sched.h>
#include <time.h>

static void fork_storm(void)
{
    for (int i = 0; i < 300; i++) {
        pid_t child = fork();
        REQUIRE(child >= 0);
        if (child == 0)
            _exit(0);
        bt_wait(child);
    }
    /* All at once. */
    pid_t child[64];
    for (int i = 0; i < 64; i++) {
        child[i] = fork();
        REQUIRE(child[i] >= 0);
        if (child[i] == 0) {
            usleep(1000);
            _exit(i);
        }
    }
    for (int i = 0; i < 64; i++) {
        int status;
        REQUIRE(waitpid(child[i], &status, 0) == child[i] && WIFEXITED(status) && WEXITSTATUS(status) == i);
    }
}

/* A tree: every process makes two more, five levels deep; the leaves are counted. */
static void tree(volatile uint32_t *leaves, int depth)
{
    if (depth == 0) {
        __atomic_add_fetch(leaves, 1, __ATOMIC_SEQ_CST);
        return;
    }
    pid_t child[2];
    for (int i = 0; i < 2; i++) {
        child[i] = fork();
        REQUIRE(child[i] >= 0);
        if (child[i] == 0) {
            tree(leaves, depth - 1);
            _exit(0);
        }
    }
    for (int i = 0; i < 2; i++)
        bt_wait(child[i]);
}
static void fork_tree(void)
{
    uint32_t *leaves = bt_shared(4096);
    tree(leaves, 6);
    REQUIRE_MSG(*leaves == 64, "%u leaves", *leaves);
}

static void exec_self(void)
{
    for (int i = 0; i < 30; i++) {
        pid_t child = fork();
        if (child == 0) {
            execl("/proc/self/exe", "boot-test", "none-of-this-name", NULL);
            _exit(9);
        }
        bt_wait(child);
    }
}

static void vfork_exec(void)
{
    for (int i = 0; i < 50; i++) {
        pid_t child = vfork();
        if (child == 0)
            _exit(0);
        bt_wait(child);
    }
}

enum { THREADS = 8, TURNS = 2000 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static unsigned counter, turn;
static __thread unsigned mine = 17;
static void *counting(void *arg)
{
    mine += (unsigned)(uintptr_t)arg;
    for (int i = 0; i < TURNS; i++) {
        pthread_mutex_lock(&lock);
        unsigned v = counter;
        if (i % 100 == 0)
            sched_yield();
        counter = v + 1;
        pthread_mutex_unlock(&lock);
    }
    return (void *)(uintptr_t)mine;
}
static void threads(void)
{
    pthread_t t[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        REQUIRE(pthread_create(&t[i], NULL, counting, (void *)i) == 0);
    for (uintptr_t i = 0; i < THREADS; i++) {
        void *result;
        REQUIRE(pthread_join(t[i], &result) == 0 && (uintptr_t)result == 17 + i);
    }
    REQUIRE_MSG(counter == THREADS * TURNS && mine == 17, "%u", counter);
}

static void *taking_turns(void *arg)
{
    for (unsigned i = 0; i < 100; i++) {
        pthread_mutex_lock(&lock);
        while (turn % 4 != (uintptr_t)arg)
            pthread_cond_wait(&cond, &lock);
        turn++;
        pthread_cond_broadcast(&cond);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}
static void conditions(void)
{
    pthread_t t[4];
    for (uintptr_t i = 0; i < 4; i++)
        REQUIRE(pthread_create(&t[i], NULL, taking_turns, (void *)i) == 0);
    for (int i = 0; i < 4; i++)
        REQUIRE(pthread_join(t[i], NULL) == 0);
    REQUIRE(turn == 400);
}

/* Many threads come and go: stacks are mapped, unmapped and used again. */
static void *nothing(void *arg) { return arg; }
static void thread_storm(void)
{
    for (int i = 0; i < 300; i++) {
        pthread_t t;
        REQUIRE(pthread_create(&t, NULL, nothing, NULL) == 0 && pthread_join(t, NULL) == 0);
    }
}

static void cpu_time(void)
{
    /* The kernel's accounting: a busy child costs CPU time, a sleeping one does not. */
    struct timespec a, b;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    volatile unsigned work = 0;
    for (uint64_t end = bt_now_ns() + 300000000; bt_now_ns() < end;)
        work++;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    int64_t busy = (b.tv_sec - a.tv_sec) * 1000000000ll + b.tv_nsec - a.tv_nsec;
    usleep(300000);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    int64_t idle = (a.tv_sec - b.tv_sec) * 1000000000ll + a.tv_nsec - b.tv_nsec;
    REQUIRE_MSG(busy > 100000000 && idle < 100000000, "busy %lld ns, idle %lld ns", (long long)busy, (long long)idle);
}

const struct bt_test bt_proc[] = {
    {"fork-storm", fork_storm},     {"fork-tree", fork_tree}, {"exec", exec_self},
    {"vfork", vfork_exec},          {"threads", threads},     {"thread-conditions", conditions},
    {"thread-storm", thread_storm}, {"cpu-time", cpu_time},   {NULL, NULL},
};

/* tests/user/guest/u_thread.c - threads: futexes, robust mutexes, barriers, thread-local storage, FPU state of each, raw clone. */
#include "ut.h"
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <time.h>

static long futex(void *word, int op, uint32_t value, const struct timespec *t, void *word2, uint32_t v3)
{
    return syscall(SYS_futex, word, op, value, t, word2, v3);
}

enum { N = 6, ROUNDS = 1500 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned shared_count;
static void *contend(void *arg)
{
    for (int i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&lock);
        unsigned v = shared_count;
        if (i % 50 == 0)
            sched_yield();
        shared_count = v + 1;
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}
static void contention(void)
{
    pthread_t t[N];
    for (int i = 0; i < N; i++)
        REQUIRE(pthread_create(&t[i], NULL, contend, NULL) == 0);
    for (int i = 0; i < N; i++)
        REQUIRE(pthread_join(t[i], NULL) == 0);
    REQUIRE_MSG(shared_count == N * ROUNDS, "%u", shared_count);
}

/* The owner dies, as a thread and as a process: the next one hears of it. */
static pthread_mutex_t *robust;
static void *die_owning(void *arg)
{
    pthread_mutex_lock(robust);
    return NULL;
}
static void robust_mutex(void)
{
    pthread_mutexattr_t a;
    robust = bt_shared(UT_PAGE);
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    REQUIRE(pthread_mutex_init(robust, &a) == 0);
    for (int i = 0; i < 20; i++) {
        if (i % 2) {
            pthread_t t;
            REQUIRE(pthread_create(&t, NULL, die_owning, NULL) == 0 && pthread_join(t, NULL) == 0);
        } else {
            pid_t child = fork();
            if (child == 0) {
                pthread_mutex_lock(robust);
                _exit(0);
            }
            bt_wait(child);
        }
        REQUIRE(pthread_mutex_lock(robust) == EOWNERDEAD);
        REQUIRE(pthread_mutex_consistent(robust) == 0 && pthread_mutex_unlock(robust) == 0);
        REQUIRE(pthread_mutex_lock(robust) == 0 && pthread_mutex_unlock(robust) == 0);
    }
}

/* Between processes: wait, wake, time-out, wrong value, requeue. */
static void futex_calls(void)
{
    uint32_t *w = bt_shared(UT_PAGE);
    struct timespec soon = {0, 2000000};
    REQUIRE(futex(w, FUTEX_WAIT, 1, NULL, NULL, 0) == -1 && errno == EAGAIN);
    REQUIRE(futex(w, FUTEX_WAIT, 0, &soon, NULL, 0) == -1 && errno == ETIMEDOUT);
    REQUIRE(futex((char *)w + 1, FUTEX_WAIT, 0, NULL, NULL, 0) == -1 && errno == EINVAL);
    pid_t child[3];
    for (int i = 0; i < 3; i++)
        if ((child[i] = fork()) == 0) {
            __atomic_add_fetch(&w[2], 1, __ATOMIC_SEQ_CST);
            while (w[0] == 0)
                futex(w, FUTEX_WAIT, 0, NULL, NULL, 0);
            while (w[1] == 0)
                futex(w + 1, FUTEX_WAIT, 0, NULL, NULL, 0);
            _exit(0);
        }
    while (__atomic_load_n(&w[2], __ATOMIC_SEQ_CST) != 3)
        usleep(1000);
    usleep(20000);
    long moved = futex(w, FUTEX_REQUEUE, 1, (void *)2, w + 1, 0);
    REQUIRE_MSG(moved == 3 || moved == 1, "requeue said %ld", moved);
    w[0] = w[1] = 1;
    futex(w, FUTEX_WAKE, 99, NULL, NULL, 0);
    futex(w + 1, FUTEX_WAKE, 99, NULL, NULL, 0);
    for (int i = 0; i < 3; i++)
        bt_wait(child[i]);
}

static pthread_barrier_t barrier;
static volatile unsigned phase[4];
static void *in_phases(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg;
    for (unsigned i = 1; i <= 100; i++) {
        phase[me] = i;
        pthread_barrier_wait(&barrier);
        for (unsigned k = 0; k < 4; k++)
            if (phase[k] != i)
                return (void *)1;
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}
static void barriers(void)
{
    pthread_t t[4];
    pthread_barrier_init(&barrier, NULL, 4);
    for (uintptr_t i = 0; i < 4; i++)
        REQUIRE(pthread_create(&t[i], NULL, in_phases, (void *)i) == 0);
    for (int i = 0; i < 4; i++) {
        void *r;
        REQUIRE(pthread_join(t[i], &r) == 0 && !r);
    }
}

/* Each thread's FPU registers and thread-local variables through thousands of switches. */
static __thread uint64_t tls_words[8] = {1, 2, 3, 4, 5, 6, 7, 8};
static void *keeps_registers(void *arg)
{
    static __thread uint8_t in[UT_XSAVE_BYTES] __attribute__((aligned(64)));
    static __thread uint8_t want[UT_XSAVE_BYTES] __attribute__((aligned(64)));
    static __thread uint8_t got[UT_XSAVE_BYTES] __attribute__((aligned(64)));
    static const uint32_t usual = 0x1f80;
    uint32_t seed = (uint32_t)(uintptr_t)arg;
    for (unsigned i = 0; i < 8; i++)
        tls_words[i] *= seed;
    for (unsigned n = 0; n < 40; n++) {
        uint32_t spins = 200000;
        void *a = in, *b = want, *c = got;
        ut_fill_image(in, seed * 1000 + n);
        __asm__ volatile("xrstor (%0); xsave (%1)" ::"r"(a), "r"(b), "a"(0xe7), "d"(0) : "memory");
        __asm__ volatile("xrstor (%0); 1: dec %2; jnz 1b; xsave (%1); fninit; ldmxcsr %3"
                         : "+r"(a), "+r"(c), "+r"(spins)
                         : "m"(usual), "a"(0xe7), "d"(0)
                         : "memory", "cc");
        int at = ut_image_differs(want, got);
        REQUIRE_MSG(at < 0, "thread %u, round %u: byte %d of the XSAVE image differs", seed, n, at);
        sched_yield();
        for (unsigned i = 0; i < 8; i++)
            REQUIRE(tls_words[i] == (uint64_t)(i + 1) * seed);
    }
    return NULL;
}
static void state_of_each(void)
{
    if (!ut_xfeatures())
        bt_skip("no XSAVE");
    pthread_t t[4];
    for (uintptr_t i = 0; i < 4; i++)
        REQUIRE(pthread_create(&t[i], NULL, keeps_registers, (void *)(i + 2)) == 0);
    for (int i = 0; i < 4; i++)
        REQUIRE(pthread_join(t[i], NULL) == 0);
    REQUIRE(tls_words[7] == 8);
}

/* Signals sent to one thread reach that one, also while it computes. */
static volatile bool stop;
static volatile unsigned got_signals[3];
static __thread unsigned my_number;
static void on_usr1(int sig) { got_signals[my_number]++; }
static void *computes(void *arg)
{
    my_number = (unsigned)(uintptr_t)arg;
    volatile unsigned long work = 0;
    got_signals[my_number] = 1;
    while (!stop)
        work++;
    return NULL;
}
static void signals_to_threads(void)
{
    pthread_t t[3];
    signal(SIGUSR1, on_usr1);
    for (uintptr_t i = 0; i < 3; i++)
        REQUIRE(pthread_create(&t[i], NULL, computes, (void *)i) == 0);
    for (int i = 0; i < 3; i++)
        while (!got_signals[i])
            usleep(1000);
    for (unsigned n = 2; n < 12; n++)
        for (int i = 0; i < 3; i++) {
            REQUIRE(pthread_kill(t[i], SIGUSR1) == 0);
            while (got_signals[i] != n)
                usleep(100);
        }
    stop = true;
    for (int i = 0; i < 3; i++)
        REQUIRE(pthread_join(t[i], NULL) == 0);
}

/* A thread without the C library: clone with a stack, the kernel clears a word and wakes at its end. */
static volatile uint32_t raw_word, raw_done;
static int raw_main(void *arg)
{
    raw_word = (uint32_t)(uintptr_t)arg;
    return 0;
}
static void raw_clone(void)
{
    uint8_t *stack = ut_anon(16 * UT_PAGE, PROT_READ | PROT_WRITE);
    for (uint32_t i = 1; i <= 100; i++) {
        raw_done = 1;
        int flags =
            CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID;
        /* No TLS of its own: it touches no errno. */
        REQUIRE(clone(raw_main, stack + 16 * UT_PAGE, flags, (void *)(uintptr_t)i, NULL, NULL, &raw_done) > 0);
        while (raw_done)
            futex((void *)&raw_done, FUTEX_WAIT, 1, NULL, NULL, 0);
        REQUIRE(raw_word == i);
    }
}

static sem_t *ping, *pong;
static void semaphores(void)
{
    ping = bt_shared(UT_PAGE);
    pong = ping + 1;
    REQUIRE(sem_init(ping, 1, 0) == 0 && sem_init(pong, 1, 0) == 0);
    pid_t child = fork();
    for (int i = 0; i < 400; i++)
        if (child == 0) {
            sem_wait(ping);
            sem_post(pong);
        } else {
            sem_post(ping);
            REQUIRE(sem_wait(pong) == 0);
        }
    if (child == 0)
        _exit(0);
    bt_wait(child);
}

/* A thread calls exec: the others are gone, the program starts anew. */
static void *does_exec(void *arg)
{
    execl("/proc/self/exe", "user-test", "none-of-this-name", NULL);
    return NULL;
}
static void exec_from_thread(void)
{
    for (int i = 0; i < 5; i++) {
        pid_t child = fork();
        if (child == 0) {
            pthread_t t[2];
            pthread_create(&t[0], NULL, computes, (void *)0);
            pthread_create(&t[1], NULL, does_exec, NULL);
            pthread_join(t[0], NULL);
            _exit(9);
        }
        bt_wait(child);
    }
}

const struct bt_test u_thread[] = {
    {"u-thread-contention", contention}, {"u-thread-robust", robust_mutex},
    {"u-thread-futex", futex_calls},     {"u-thread-barrier", barriers},
    {"u-thread-state", state_of_each},   {"u-thread-signals", signals_to_threads},
    {"u-thread-raw-clone", raw_clone},   {"u-thread-semaphores", semaphores},
    {"u-thread-exec", exec_from_thread}, {NULL, NULL},
};

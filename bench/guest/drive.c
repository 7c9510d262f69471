/* bench/guest/drive.c - times the work of compute.c and the translation of new code. */
#include "compute.h"
#include "harness.h"
#include <stddef.h>
#ifdef BENCH_NATIVE
#include <stdlib.h>
#include <sys/mman.h>
#endif

#define CODE_INSNS 2500u
#define CODE_BYTES (64u << 10)

static uint8_t *area;

/* Runs w once; its result and what it took. */
static uint64_t run(const struct work *w, uint64_t n, uint64_t *took, bool sample)
{
    if (w->prepare)
        call_high((uint64_t)w->prepare + HIGH, n, 0);
    if (sample)
        harness_begin(w->name);
    uint64_t start = ticks(), result = call_high((uint64_t)w->run + HIGH, n, 0);
    *took = ticks() - start;
    if (sample)
        harness_end(w->name);
    return result;
}

static void measure(const struct work *w)
{
    uint64_t took[MAX_SAMPLES], n = w->n;
    if (harness_outside && !(w->flags & (WORK_SCALES | WORK_LONG)))
        return; /* too short to be timed by two lines */
    /* The runner takes the CPU time between this line and the report. */
    if (w->flags & WORK_LONG)
        OUT("START %s\n", w->name);
    uint64_t result = run(w, n, took, false);
    if (w->flags & WORK_LONG) {
        harness_report_n(w->name, result, n, took, 1);
        return;
    }
    run(w, n, took, false); /* warm: this one tells how long it takes */
    if (w->flags & WORK_SCALES && (took[0] > SAMPLE_TICKS || harness_outside))
        n = n * sample_ticks() / took[0] + 1;
    for (unsigned i = 0; i < harness_samples; i++)
        run(w, n, took + i, true);
    harness_report(w->name, result, n, took);
}

static uint64_t run_code(uint8_t *code, uint64_t *data, uint64_t *took)
{
    uint64_t begun = ticks();
    uint64_t value = call_high((uint64_t)gencode_call + HIGH, (uint64_t)code + HIGH, (uint64_t)data + HIGH);
    *took = ticks() - begun;
    return value;
}

/* Every sample is code at an address that never held code; its second run, which finds the translations, is subtracted. */
static void measure_translation(void)
{
    uint64_t took[MAX_SAMPLES], result = 0, insns = 0, used;
    uint64_t *data = (uint64_t *)(area + WORK_AREA_BYTES - 4096);
    for (unsigned i = 0; i < harness_samples; i++) {
        uint8_t *code = area + i * CODE_BYTES;
        for (unsigned k = 0; k < 512; k++)
            data[k] = k;
        insns = gencode(code, CODE_INSNS, 1000 + i, &used);
        uint64_t first, second, value = run_code(code, data, &first);
        value ^= run_code(code, data, &second);
        if (i == 0)
            result = value;
        took[i] = first > second ? first - second : 0;
    }
    harness_report("translate", result, insns, took);
}

void bench_main(void)
{
#ifdef BENCH_NATIVE
    area = mmap(NULL, WORK_AREA_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
                -1, 0);
    if (area == MAP_FAILED) {
        perror("bench: mmap");
        exit(1);
    }
#else
    area = (uint8_t *)(32ul << 20);
#endif
    call_high((uint64_t)compute_init + HIGH, (uint64_t)area + HIGH, 0);
    for (const struct work *w = compute_works; w->name; w++)
        if (harness_wanted(w->name))
            measure(w);
    if (harness_wanted("translate") && !harness_outside)
        measure_translation();
}

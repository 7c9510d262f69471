/* monitor/bench.h - ringdown bench ...: the benchmark runner of the source tree (bench/run), with this very program under measurement. */
#ifndef MONITOR_BENCH_H
#define MONITOR_BENCH_H
/* argv[0] is "bench". Does not return if there is a runner; else 1, and one line on stderr says why. */
int bench_main(int argc, char **argv);
#endif

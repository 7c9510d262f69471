/* monitor/main.c - the program: ringdown [OPTION...] runs a machine; ringdown translate FILE ... shows translations; ringdown bench ... measures. */
#include "monitor/bench.h"
#include "monitor/cmdline.h"
#include "monitor/hostlayout.h"
#include "monitor/machine.h"
#include "monitor/translate.h"
#include <string.h>

int main(int argc, char **argv)
{
    struct cmdline c;
    if (argc > 1 && !strcmp(argv[1], "bench"))
        return bench_main(argc - 1, argv + 1);
    hostlayout_settle(argv);
    if (argc > 1 && !strcmp(argv[1], "translate"))
        return translate_main(argc - 1, argv + 1);
    int status = cmdline_parse(&c, argc, argv, stderr);
    if (!status && c.action != CMDLINE_RUN) {
        cmdline_print_info(&c, stdout);
        status = fflush(stdout) ? 1 : 0;
    } else if (!status)
        status = machine_main(&c);
    cmdline_free(&c);
    return status;
}

/* monitor/translate.h - ringdown translate FILE: shows guest code and its translation side by side while a function of it runs. */
#ifndef MONITOR_TRANSLATE_H
#define MONITOR_TRANSLATE_H
/* argv[0] is "translate". Returns the exit status: 0, 1 (file or run failed), 2 (usage); one line on stderr says why. */
int translate_main(int argc, char **argv);
#endif

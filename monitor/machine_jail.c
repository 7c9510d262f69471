/* monitor/machine_jail.c - -sandbox on: what must be open before, and the door that shuts. */
#define _GNU_SOURCE
#include "base/err.h"
#include "monitor/jail.h"
#include "monitor/machine_int.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int machine_open_file(void *machine, const char *name)
{
    struct machine *m = machine;
    for (unsigned i = 0; i < m->n_files; i++)
        if (!strcmp(m->file[i].name, name))
            return lseek(m->file[i].fd, 0, SEEK_SET) ? -1 : fcntl(m->file[i].fd, F_DUPFD_CLOEXEC, 0);
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || !m->c->confine || m->n_files == MACHINE_MAX_FILES)
        return fd;
    struct machine_file f = {strdup(name), fcntl(fd, F_DUPFD_CLOEXEC, 0)};
    if (!f.name || f.fd < 0) {
        free(f.name);
        close(fd);
        errno = ENOMEM;
        return -1;
    }
    m->file[m->n_files++] = f;
    return fd;
}

int machine_confine(struct machine *m)
{
    if (!m->c->confine || !jail_enter())
        return 0;
    return machine_fail(m, "-sandbox on: this host's kernel has no seccomp filters");
}

void machine_close_files(struct machine *m)
{
    for (unsigned i = 0; i < m->n_files; i++) {
        close(m->file[i].fd);
        free(m->file[i].name);
    }
    m->n_files = 0;
}

/* monitor/boot_file.c - kernel and initrd files: opened once, sizes believed only as far as the bytes really come. */
#include "monitor/boot_int.h"
#include "shadowmmu/gpmem.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int boot_file_open(struct boot *b, const char *what, const char *name, uint64_t *bytes)
{
    /* O_NONBLOCK: a FIFO without a writer must give an error line, not a hang. */
    int fd =
        b->cfg->open_file ? b->cfg->open_file(b->cfg->opaque, name) : open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return boot_fail(b, errno == ENOENT ? RD_E_NOENT : RD_E_IO, "cannot open %s '%s': %s", what, name,
                         strerror(errno));
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return boot_fail(b, RD_E_INVAL, "%s '%s' is not a regular file", what, name);
    }
    if (st.st_size == 0) {
        close(fd);
        return boot_fail(b, RD_E_FORMAT, "%s '%s' is empty", what, name);
    }
    *bytes = (uint64_t)st.st_size;
    return fd;
}

/* Reads exactly n bytes. Returns 0, or an errno value (EPIPE: the file ended early). */
static int read_all(int fd, uint8_t *buf, size_t n)
{
    while (n) {
        ssize_t got = read(fd, buf, n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got ? errno : EPIPE;
        buf += got;
        n -= (size_t)got;
    }
    return 0;
}

static int read_failed(struct boot *b, const char *name, int why)
{
    return boot_fail(b, RD_E_IO, "cannot read '%s': %s", name, why == EPIPE ? "it became shorter" : strerror(why));
}

int boot_file_read(struct boot *b, const char *what, const char *name, struct boot_file *out)
{
    uint64_t bytes, ram = boot_ram_bytes(b);
    int fd = boot_file_open(b, what, name, &bytes);
    if (fd < 0)
        return fd;
    int r = 0;
    uint8_t *data = NULL;
    if (bytes >= ram)
        r = boot_fail(b, RD_E_RANGE, "%s '%s' (%llu KiB) is larger than the guest's memory (%llu KiB)", what, name,
                      (unsigned long long)bytes >> 10, (unsigned long long)ram >> 10);
    else if (!(data = malloc(bytes)))
        r = boot_fail(b, RD_E_NOMEM, "no memory to read %s '%s'", what, name);
    else {
        int why = read_all(fd, data, bytes);
        if (why)
            r = read_failed(b, name, why);
    }
    close(fd);
    if (r) {
        free(data);
        return r;
    }
    *out = (struct boot_file){.name = name, .data = data, .bytes = bytes};
    return 0;
}

int boot_file_copy(struct boot *b, const char *name, int fd, uint64_t gpa, uint64_t bytes)
{
    enum { CHUNK = 1 << 16 };
    uint8_t *buf = malloc(CHUNK);
    int r = buf ? 0 : boot_fail(b, RD_E_NOMEM, "no memory to read '%s'", name);
    while (!r && bytes) {
        size_t n = bytes < CHUNK ? (size_t)bytes : CHUNK;
        int why = read_all(fd, buf, n);
        r = why ? read_failed(b, name, why) : boot_write(b, gpa, buf, n);
        gpa += n;
        bytes -= n;
    }
    free(buf);
    close(fd);
    return r;
}

/* tests/boot/mkcpio.c - writes a cpio archive ("newc") from a list, so that device nodes need neither root nor mknod.
 *
 * usage: mkcpio < LIST > ARCHIVE. One entry a line, fields separated by blanks, # starts a comment:
 *   dir PATH MODE | file PATH MODE SOURCE | link PATH TARGET | node PATH MODE c|b MAJOR MINOR
 * Paths are relative to the archive's root, without a leading slash. Owner is root, times are 0: the same input gives the
 * same bytes.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct entry {
    const char *path;
    uint32_t mode, nlink, major, minor;
    const void *data;
    size_t bytes;
};

static unsigned inode = 1;

static _Noreturn void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("mkcpio: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

static void put(const void *data, size_t bytes)
{
    if (bytes && fwrite(data, 1, bytes, stdout) != bytes)
        die("cannot write: %s", strerror(errno));
}

static void pad(size_t written) { put("\0\0\0", -written & 3); }

/* Header: magic and 13 numbers of 8 hexadecimal digits, then name and contents, each padded to 4 bytes. */
static void put_entry(const struct entry *e)
{
    char head[111];
    size_t name = strlen(e->path) + 1;
    int n = snprintf(head, sizeof head, "070701%08x%08x%08x%08x%08x%08x%08zx%08x%08x%08x%08x%08zx%08x", inode++,
                     e->mode, 0, 0, e->nlink, 0, e->bytes, 0, 0, e->major, e->minor, name, 0);
    put(head, (size_t)n);
    put(e->path, name);
    pad((size_t)n + name);
    put(e->data, e->bytes);
    pad(e->bytes);
}

static void *read_file(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    if (!f || fstat(fileno(f), &st) || !S_ISREG(st.st_mode))
        die("cannot read '%s'", path);
    *bytes = (size_t)st.st_size;
    void *data = malloc(*bytes + 1);
    if (!data || fread(data, 1, *bytes, f) != *bytes)
        die("cannot read '%s'", path);
    fclose(f);
    return data;
}

static void do_line(char *line, unsigned number)
{
    char *field[8] = {0};
    unsigned n = 0;
    for (char *p = strtok(line, " \t\n"); p && n < 8; p = strtok(NULL, " \t\n"))
        field[n++] = p;
    if (n == 0 || field[0][0] == '#')
        return;
    struct entry e = {.path = field[1], .nlink = 1};
    void *owned = NULL;
    if (!strcmp(field[0], "dir") && n == 3) {
        e.mode = S_IFDIR | (uint32_t)strtoul(field[2], NULL, 8);
        e.nlink = 2;
    } else if (!strcmp(field[0], "file") && n == 4) {
        e.mode = S_IFREG | (uint32_t)strtoul(field[2], NULL, 8);
        e.data = owned = read_file(field[3], &e.bytes);
    } else if (!strcmp(field[0], "link") && n == 3) {
        e.mode = S_IFLNK | 0777;
        e.data = field[2];
        e.bytes = strlen(field[2]);
    } else if (!strcmp(field[0], "node") && n == 6) {
        e.mode = (field[3][0] == 'b' ? S_IFBLK : S_IFCHR) | (uint32_t)strtoul(field[2], NULL, 8);
        e.major = (uint32_t)strtoul(field[4], NULL, 10);
        e.minor = (uint32_t)strtoul(field[5], NULL, 10);
    } else {
        die("line %u: not understood: %s", number, field[0]);
    }
    put_entry(&e);
    free(owned);
}

int main(void)
{
    char line[4096];
    unsigned number = 0;
    while (fgets(line, sizeof line, stdin))
        do_line(line, ++number);
    inode = 0;
    put_entry(&(struct entry){.path = "TRAILER!!!", .nlink = 1});
    if (fflush(stdout))
        die("cannot write: %s", strerror(errno));
    return 0;
}

/* bench/linux/init.c - /init of the benchmark initramfs: says INIT, runs /bin/work with its own arguments, powers off.
 *
 * The kernel passes what follows "--" on its command line. Results go to the second serial port: kernel messages have the
 * first one to themselves.
 */
#include <fcntl.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static void open_port(void)
{
    int fd = open("/dev/ttyS1", O_RDWR | O_NOCTTY);
    if (fd < 0)
        return;
    struct termios t;
    if (tcgetattr(fd, &t) == 0) {
        cfmakeraw(&t);
        t.c_cflag |= CLOCAL;
        cfsetspeed(&t, B115200);
        tcsetattr(fd, TCSANOW, &t);
    }
    for (int i = 0; i < 3; i++)
        dup2(fd, i);
    if (fd > 2)
        close(fd);
}

static int exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

static int is_uml(void)
{
    char text[256] = "";
    int fd = open("/proc/cpuinfo", O_RDONLY);
    if (fd >= 0 && read(fd, text, sizeof text - 1) < 0)
        return 0;
    close(fd);
    return strstr(text, "User Mode Linux") != NULL;
}

/* ifconfig lo up */
static void loopback_up(void)
{
    struct ifreq r = {.ifr_name = "lo"};
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    if (s < 0)
        return;
    if (ioctl(s, SIOCGIFFLAGS, &r) == 0) {
        r.ifr_flags |= IFF_UP | IFF_RUNNING;
        ioctl(s, SIOCSIFFLAGS, &r);
    }
    close(s);
}

int main(int argc, char **argv)
{
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    open_port();
    if (write(1, "INIT\n", 5) != 5)
        return 1;
    tcdrain(1);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sys", "/sys", "sysfs", 0, NULL);
    mount("tmp", "/tmp", "tmpfs", 0, NULL);
    loopback_up();
    pid_t child = fork();
    if (child == 0) {
        char *args[32] = {"work", "dir=/tmp", "busybox=/bin/busybox"};
        int n = 3;
        for (int i = 1; i < argc && n < 31; i++)
            args[n++] = argv[i];
        execv("/bin/work", args);
        _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (status == 0 && write(1, "DONE\n", 5) != 5)
        return 1;
    tcdrain(1);
    sync();
    /* Without ACPI there is nobody to cut the power; machines are started with -no-reboot. */
    reboot(exists("/sys/firmware/acpi") || is_uml() ? RB_POWER_OFF : RB_AUTOBOOT);
    pause();
    return 0;
}

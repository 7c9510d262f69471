"""Bochs: disks that it can boot (it loads no kernels itself), its configuration, and a terminal for its display.

Its time stamp counter counts instructions, so nothing in it can time itself: programs get the word "outside", print BEGIN and
END around each sample, and the runner takes the CPU time that Bochs used between the two lines. Its own clock runs by
instructions too (clock: sync=none).
"""
import os
import pty
import shutil
import struct
import subprocess
import sys

SECTOR, HEADS, SPT = 512, 16, 63
TABLE = 0x190            # in bench/bochs/loader.S
PIECES = 7
INFO = 0x9000            # multiboot information, its command line behind it
BOOT_PARAMS, CMDLINE = 0x90000, 0x91000
INITRD_END = 0x0ff00000
ROMS = "/usr/share/bochs"
CPU = "corei7_skylake_x"
FD = 9                   # the serial port's output


def missing(program):
    """Why Bochs cannot be used here, or None."""
    if not shutil.which(program):
        return "%s is not there (Debian: bochs bochs-term bochsbios vgabios)" % program
    for name in ("BIOS-bochs-latest", "VGABIOS-lgpl-latest"):
        if not os.path.exists(os.path.join(ROMS, name)):
            return "%s is not there (Debian: bochsbios vgabios)" % os.path.join(ROMS, name)
    p = subprocess.run([program, "--help", "features"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return None if "Bochs" in p.stdout + p.stderr else "it does not start"


def version(program):
    p = subprocess.run([program, "--help"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return next((line.strip() for line in (p.stdout + p.stderr).splitlines() if "Emulator" in line), "")


def disk(loader, entry, registers, pieces):
    """The bytes of a disk. registers: EAX, EBX, ESI; pieces: (physical address, bytes)."""
    if len(pieces) > PIECES:
        raise ValueError("more pieces than the loader has room for")
    table, body, at = struct.pack("<IIII", entry, *registers), [], 1
    for address, data in pieces:
        sectors = -(-len(data) // SECTOR)
        table += struct.pack("<III", at, sectors, address)
        body.append(data + bytes(sectors * SECTOR - len(data)))
        at += sectors
    sector = bytearray(loader)
    if len(sector) != SECTOR or sector[TABLE - 4:TABLE] != bytes(4):
        raise ValueError("not the loader that is expected")
    sector[TABLE:TABLE + len(table)] = table
    whole = bytes(sector) + b"".join(body)
    cylinder = HEADS * SPT * SECTOR
    return whole + bytes(-len(whole) % cylinder)


def elf_pieces(elf):
    """Entry and loaded pieces of a 32-bit ELF file; what is not in the file is zero in a fresh machine."""
    if elf[:5] != b"\x7fELF\x01":
        raise ValueError("not a 32-bit ELF file")
    entry, phoff = struct.unpack_from("<II", elf, 24)
    size, count = struct.unpack_from("<HH", elf, 42)
    pieces = []
    for i in range(count):
        kind, offset, _, address, filesz = struct.unpack_from("<IIIII", elf, phoff + i * size)
        if kind == 1 and filesz:
            pieces.append((address, elf[offset:offset + filesz]))
    return entry, pieces


def multiboot_disk(loader, elf, words, mib):
    entry, pieces = elf_pieces(elf)
    info = bytearray(88)
    struct.pack_into("<III", info, 0, 1 | 4, 639, (mib - 1) * 1024)
    struct.pack_into("<I", info, 16, INFO + len(info))
    return disk(loader, entry, (0x2badb002, INFO, 0), [(INFO, bytes(info) + words.encode() + b"\0")] + pieces)


def linux_disk(loader, kernel, initrd, words, mib):
    """By the 32-bit boot protocol (Documentation/arch/x86/boot.rst): boot_params from the kernel's own header."""
    setup = (kernel[0x1f1] or 4) + 1
    params = bytearray(4096)
    end = 0x202 + kernel[0x201]
    params[0x1f1:end] = kernel[0x1f1:end]
    at = (min(INITRD_END, (mib - 2) << 20) - len(initrd)) & ~0xfff
    params[0x210] = 0xff                                     # type of loader: none of the known ones
    struct.pack_into("<II", params, 0x218, at, len(initrd))
    struct.pack_into("<I", params, 0x228, CMDLINE)
    ranges = [(0, 0x9f000, 1), (0x9f000, 0x61000, 2), (0x100000, (mib << 20) - 0x100000 - 0x10000, 1)]
    params[0x1e8] = len(ranges)
    for i, r in enumerate(ranges):
        struct.pack_into("<QQI", params, 0x2d0 + 20 * i, *r)
    start, = struct.unpack_from("<I", kernel, 0x214)
    return disk(loader, start, (0, 0, BOOT_PARAMS),
                [(BOOT_PARAMS, bytes(params)), (CMDLINE, words.encode() + b"\0"), (start, kernel[setup * SECTOR:]), (at, initrd)])


def configuration(image, mib, log, port):
    """port: which serial port the results come out of, 1 or 2."""
    cylinders = os.path.getsize(image) // (HEADS * SPT * SECTOR)
    return "\n".join([
        "config_interface: textconfig", "display_library: term", "log: " + log,
        "panic: action=fatal", "error: action=report", "info: action=report", "debug: action=ignore",
        "cpu: model=%s, count=1, ips=50000000, reset_on_triple_fault=0" % CPU, "megs: %d" % mib, "clock: sync=none",
        "romimage: file=%s/BIOS-bochs-latest" % ROMS, "vgaromimage: file=%s/VGABIOS-lgpl-latest" % ROMS,
        "ata0-master: type=disk, mode=flat, path=%s, cylinders=%d, heads=%d, spt=%d" % (image, cylinders, HEADS, SPT),
        "boot: disk", "com%d: enabled=1, mode=file, dev=/dev/fd/%d" % (port, FD), "mouse: enabled=0",
        "sound: driver=dummy", "speaker: enabled=1, mode=none", "plugin_ctrl: sb16=0, es1370=0, e1000=0, ne2k=0", ""])


def command(program, tmp, image, mib, port=1):
    """How to start a machine with the bytes of that disk; tmp is a folder of the caller's."""
    path = os.path.join(tmp, "bochs.img")
    with open(path, "wb") as f:
        f.write(image)
    rc = os.path.join(tmp, "bochsrc")
    with open(rc, "w", encoding="ascii") as f:
        f.write(configuration(path, mib, os.path.join(tmp, "bochs.log"), port))
    commands = os.path.join(tmp, "bochs.commands")
    with open(commands, "w", encoding="ascii") as f:
        f.write("continue\n")  # Debian's is built with the debugger, which wants to be told
    return [sys.executable, os.path.abspath(__file__), shutil.which(program) or program, "-q", "-unlock", "-f", rc, "-rc", commands]


def main():
    """bochs.py PROGRAM ARGUMENT...: runs it on a terminal of its own, which nobody looks at; FD is this process's standard output."""
    master, slave = pty.openpty()
    if os.fork() == 0:
        os.close(slave)
        for fd in (0, 1, 2):  # whoever reads our output is to see its end
            os.close(fd)
        try:
            while os.read(master, 65536):
                pass
        except OSError:  # the last one that had it open has ended
            pass
        os._exit(0)
    os.dup2(1, FD)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)
    os.close(master)
    os.close(slave)
    os.environ.update(TERM="vt100", LINES="50", COLUMNS="132")
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()

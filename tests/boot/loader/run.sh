#!/bin/bash
# tests/boot/loader/run.sh - boots a kernel that Ringdown's loader has put into memory, under QEMU and without firmware.
#
# usage: run.sh IMAGE-PROGRAM RAM-MIB 32|64|auto KERNEL INITRD|- COMMAND-LINE [QEMU-OPTION...]
# The exit status is QEMU's; the guest's first serial port is standard output.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
image=$1 ram=$2 entry=$3 kernel=$4 initrd=$5 line=$6
shift 6
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
values=$("$image" "$ram" "$work/ram" "$entry" "$kernel" "$initrd" "$line")
# shellcheck disable=SC2086
nasm -f bin $values -o "$work/rom" "$here/rom.asm"
timeout "${RD_TIMEOUT:-60}" qemu-system-x86_64 -accel tcg -cpu max -m "$ram" -display none -monitor none -serial stdio -no-reboot \
    -object "memory-backend-file,id=ram,size=${ram}M,mem-path=$work/ram,share=on" -machine memory-backend=ram -bios "$work/rom" \
    "$@" </dev/null

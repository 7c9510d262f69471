#!/bin/sh
# Builds the coverage-guided form of the fuzz target: tests/fuzz/libfuzzer.sh OUTPUT, then run OUTPUT [CORPUS_DIR].
# Not part of the CMake build: clang does not know all of gcc's options for code that must not touch the FPU, and what they are
# for (the guest's FPU contents) is not what this program looks at.
set -e
out=$(realpath "${1:?usage: libfuzzer.sh OUTPUT}")
cd "$(dirname "$0")/../.."
command -v clang >/dev/null || { echo "libfuzzer.sh: needs clang" >&2; exit 2; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# (clang has no __SANITIZE_ADDRESS__.)
flags="-O1 -g -D__SANITIZE_ADDRESS__=1 -std=gnu11 -I. -DRD_VERSION=\"fuzz\" -w -fno-strict-aliasing -fno-pie -mxsave -mxsaveopt -mfsgsbase
       -fno-sanitize-recover=all -fsanitize=address,undefined"
# An archive, so that only what the engine needs is linked: the monitor folder also holds the machine and the command line.
for src in base/*.c translator/*.[cS] codecache/*.[cS] shadowmmu/*.c monitor/*.[cS]; do
    case $src in *'*'* | monitor/main.c) continue ;; esac
    # shellcheck disable=SC2086
    clang $flags -fsanitize=fuzzer-no-link -c "$src" -o "$tmp/$(echo "$src" | tr / _).o"
done
ar rc "$tmp/engine.a" "$tmp"/*.o
# shellcheck disable=SC2086
clang $flags -fsanitize=fuzzer -no-pie tests/fuzz/machine.c tests/fuzz/fuzz_target.c "$tmp/engine.a" -lZydis -lpthread -lm -o "$out"

#!/bin/bash
# tests/user/guest_build.sh - a package build in the guest: this host's compiler, assembler, linker and headers, as files in the
# initramfs, compile folders of this project, and "stb": the C library of Debian's package libstb-dev. Every object and the program must
# be the host's own, byte for byte.
#
# usage: guest_build.sh FOLDERS RUN_USER-OPTION... [-- ENGINE-OPTION...]      FOLDERS: "base stb", say
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
folders=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
mkdir -p "$tree/src"
for folder in base arch translator codecache shadowmmu devices; do
    mkdir -p "$tree/src/$folder"
    cp "$root/$folder"/*.[ch] "$root/$folder"/*.def "$tree/src/$folder/" 2>/dev/null
done
# The package has headers that are programs when a macro says so; some want more than that.
if [[ " $folders " = *" stb "* ]]; then
    stb=$("$here/../boot/fetch" macro-amd64 | sed -n 's/^macro-amd64 //p')/root
    stb=$stb/usr/include/stb
    [ -e "$stb/stb_image.h" ] || { echo "guest_build: skipped: cannot fetch libstb-dev"; exit 77; }
    mkdir "$tree/src/stb"
    cp "$stb"/*.h "$tree/src/stb/"
    for name in stb stb_c_lexer stb_divide stb_ds stb_dxt stb_easy_font stb_herringbone_wang_tile stb_hexwave stb_image \
        stb_image_resize stb_image_write stb_include stb_perlin stb_rect_pack stb_sprintf stb_truetype stb_vorbis; do
        printf '#define %s_IMPLEMENTATION\n#include "%s.h"\n' "${name^^}" "$name" >"$tree/src/stb/$name.c"
    done
fi
# In one place on both sides: its name gets into no file, but the order of files does.
{
    echo 'set -e'
    for folder in $folders; do
        for file in "$tree/src/$folder"/*.c; do
            name=$folder/$(basename "$file" .c)
            echo "gcc -std=gnu11 -O2 -g0 -w -fno-strict-aliasing -I. -o $name.o -c $name.c"
        done
        echo "gcc -std=gnu11 -O1 -g0 -w -I. -o $name.s -S $name.c"
        # Each of these has its own copy of a few helpers.
        echo "ld -r -z muldefs -o $folder.o $folder/*.o"
        echo "\${AR:-ar} rcD lib$folder.a $folder/*.o"
    done
    cat <<'END'
cat >main.c <<'C'
#include <stdio.h>
#include <math.h>
int main(void) { printf("%.6f\n", sin(1.0)); return 0; }
C
gcc -O2 -o main main.c -lm
./main >main.out
END
} >"$tree/src/compile"
lines=$(for folder in $folders; do cat "$tree/src/$folder"/*.[ch]; done | wc -l)
(cd "$tree/src" && sh ./compile) || { echo "guest_build: the host cannot build it"; exit 1; }
(cd "$tree/src" && find . -type f \( -name '*.o' -o -name '*.a' -o -name '*.s' -o -name main -o -name main.out \) -exec md5sum {} + | sort -k2) >"$work/sums"
(cd "$tree/src" && sed 's/^[^ ]* *//' "$work/sums" | xargs rm -f)

# The compiler: its programs with their libraries, its own files, headers and start files of the C library.
multi=$(gcc -print-multiarch)
programs=("$(command -v gcc)" "$(gcc -print-prog-name=cc1)" "$(gcc -print-prog-name=collect2)" "$(gcc -print-prog-name=as)"
          "$(gcc -print-prog-name=ld)" "$(command -v ar)")
lto=$(gcc -print-prog-name=lto-wrapper)
plugin=$(gcc -print-file-name=liblto_plugin.so)
list=$work/list
{
    for program in "${programs[@]}" "$lto" "$plugin"; do
        command -v "$program" 2>/dev/null || echo "$program"
        ldd "$(command -v "$program" || echo "$program")" 2>/dev/null | grep -o '/[^ ]*'
    done
    gcclib=$(dirname "$(gcc -print-libgcc-file-name)")
    find "$gcclib" -maxdepth 1 -type f \( -name 'crt*' -o -name 'libgcc*' \)
    find "$gcclib/include" -type f
    for name in crt1.o crti.o crtn.o Scrt1.o libc.so libc.so.6 libc_nonshared.a libm.so libm.so.6 libmvec.so libmvec.so.1 libgcc_s.so.1; do
        gcc -print-file-name="$name"
    done
    echo "/lib/$multi/libmvec.so.1"
    dpkg -L libc6-dev linux-libc-dev libzydis-dev libzycore-dev 2>/dev/null | grep '^/usr/include' | while read -r f; do
        [ -d "$f" ] || echo "$f"
    done
    echo /lib64/ld-linux-x86-64.so.2
} | grep '^/' | xargs -d '\n' realpath -ms | sort -u >"$list"
ln -s /usr/bin "$tree/bin" 2>/dev/null
# Names as the compiler asks for them; links are followed (-h).
tar -chf "$work/tree.tar" --ignore-failed-read -C / -T <(sed 's|^/||' "$list") -C "$tree" src 2>"$work/log"
echo "guest_build: $lines lines, $(wc -l <"$work/sums") files to make, $(($(stat -c %s "$work/tree.tar") >> 20)) MiB to carry"
"$here/run_user.sh" amd64 --program churn --memory 1G --file "usr/share/tree.tar=$work/tree.tar" --file "usr/share/sums=$work/sums" \
    --script "$here/guest/build-script" "$@"

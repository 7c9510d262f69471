# bench/linux/job.sh - what a configure script does: many short processes, here-documents, pipes, substitutions.
# usage: job.sh ROUNDS DIRECTORY, with root of the benchmarks' programs as current directory
rounds=$1 tools=$2
root=$PWD
mkdir -p "$tools" || exit 1
for name in sed grep cat tr rm expr mv cmp cut sort head wc; do
    ln -sf "$root/busybox" "$tools/$name"
done
cd "$tools" || exit 1
i=0 yes=0 no=0
: >confdefs.h
while [ "$i" -lt "$rounds" ]; do
    i=$((i + 1))
    ./cat >conftest.c <<END
/* round $i */
#include <header_$i.h>
int function_$i(void) { return $i; }
END
    if ./grep "function_$i" conftest.c >/dev/null 2>&1; then yes=$(./expr $yes + 1); else no=$(./expr $no + 1); fi
    name=$(echo "header_$i.h" | ./sed 's,[^a-z0-9_],_,g' | ./tr a-z A-Z)
    echo "#define HAVE_$name 1" >>confdefs.h
    ./cmp -s conftest.c confdefs.h || ./rm -f conftest.c
done
./sort -r confdefs.h | ./head -n 40 | ./cut -c 9- | ./sed 's/ 1$//'
echo "yes $yes, no $no, lines $(./wc -l <confdefs.h)"

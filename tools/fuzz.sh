#!/usr/bin/env bash
# `make fuzz`: runs every libFuzzer target of build/fuzz, one after the other, for
# FUZZ_SECONDS each. What it learns stays in build/fuzz/corpus/TARGET, what it finds
# in build/fuzz/crashes. Usage: tools/fuzz.sh [TARGET...]
set -uo pipefail
cd "$(dirname "$0")/.."

seconds=${FUZZ_SECONDS:-30}
found=0
export ASAN_OPTIONS=${ASAN_OPTIONS:-allocator_may_return_null=1:max_allocation_size_mb=2048}
mkdir -p build/fuzz/crashes

while read -r target _ paths; do
    case $target in "" | "#"*) continue ;; esac
    [ $# -eq 0 ] || [[ " $* " == *" $target "* ]] || continue
    learned=build/fuzz/corpus/$target
    seeds=build/fuzz/seeds/$target
    mkdir -p "$learned" "$seeds"
    # Flat, by path: files of one name come from several folders.
    for path in $paths; do
        find "tests/$path" -type f ! -name '*.py' | while read -r file; do
            cp "$file" "$seeds/${file//\//_}"
        done
    done
    log=build/fuzz/$target.log
    if build/fuzz/tests/"fuzz_$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 \
        -malloc_limit_mb=3072 -max_len=200000 -artifact_prefix=build/fuzz/crashes/"$target"- \
        -print_final_stats=1 "$learned" "$seeds" </dev/null >"$log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        echo "fuzz: $target: nothing found in $runs runs ($log)"
    else
        found=1
        tail -n 40 "$log"
        echo "fuzz: $target: FOUND something, see $log and build/fuzz/crashes"
    fi
done <tests/fuzz/corpus.txt
exit "$found"

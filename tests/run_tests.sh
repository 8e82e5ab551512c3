#!/usr/bin/env bash
# `make test`: every test of the project. Release build with all tests, then the
# unit tests, the malformed files and a round trip under ASan and UBSan, then the
# thread tests under TSan. The last line is "N passed, N failed".
set -uo pipefail
cd "$(dirname "$0")/.."

jobs=${JOBS:-$(nproc)}
passed=0
failed=0
summary=()
log_dir=build/test-logs
mkdir -p "$log_dir"

# A step without ctest: counts as one test.
step() { # NAME COMMAND...
    local name=$1 start=$SECONDS
    shift
    if "$@" >"$log_dir/$name.log" 2>&1; then
        passed=$((passed + 1))
        summary+=("$(printf '%-16s ok      (%d s)' "$name" $((SECONDS - start)))")
        echo "== $name: ok"
        return 0
    fi
    cat "$log_dir/$name.log"
    failed=$((failed + 1))
    summary+=("$(printf '%-16s FAILED  (%d s)' "$name" $((SECONDS - start)))")
    echo "== $name: FAILED"
    return 1
}

# ctest in a build folder: counts each of its tests.
suite() { # NAME CTEST-ARGUMENTS...
    local name=$1 start=$SECONDS total bad skipped
    shift
    echo "== $name"
    ctest "$@" --no-tests=error --output-on-failure --parallel "$jobs" 2>&1 |
        tee "$log_dir/$name.log"
    local status=${PIPESTATUS[0]}
    total=$(sed -n 's/.* tests failed out of \([0-9]*\)$/\1/p' "$log_dir/$name.log")
    bad=$(sed -n 's/.* tests passed, \([0-9]*\) tests failed out of .*/\1/p' "$log_dir/$name.log")
    skipped=$(grep -c '\*\*\*Skipped' "$log_dir/$name.log")
    total=${total:-0}
    bad=${bad:-0}
    # ctest itself failed before it ran anything.
    if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
        bad=1
        total=$((total + 1))
    fi
    passed=$((passed + total - bad - skipped))
    failed=$((failed + bad))
    summary+=("$(printf '%-16s %d passed, %d failed, %d skipped (%d s)' "$name" \
        $((total - bad - skipped)) "$bad" "$skipped" $((SECONDS - start)))")
}

build() { # PRESET FOLDER [TARGET...]
    local preset=$1 folder=$2
    shift 2
    cmake --preset "$preset" --log-level=WARNING && cmake --build "$folder" --parallel "$jobs" \
        ${1:+--target "$@"}
}

# Tests that need the model say so and are skipped where it cannot be had.
tools/fetch_model.sh >"$log_dir/model.log" 2>&1 ||
    echo "== no demonstration model (see $log_dir/model.log): some tests will be skipped"

step venv tools/venv.sh tests/python/requirements.txt
if step build-release build release build; then
    suite release --test-dir build
fi

if step build-asan build asan build/asan; then
    # Not detect_stack_use_after_return: gcc 12 does not align its fake stack to the
    # 64 bytes that its own AVX-512 code then relies on.
    export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1
    export UBSAN_OPTIONS=print_stacktrace=1
    suite asan --test-dir build/asan -L 'unit|roundtrip|fuzz'
fi

# Only what runs threads: names of targets and tests are the same.
thread_tests() {
    ctest --test-dir build/tsan -N -L threads | sed -n 's/^ *Test *#[0-9]*: //p'
}
if step configure-tsan cmake --preset tsan --log-level=WARNING; then
    mapfile -t targets < <(thread_tests)
    # TSan wants the memory layout that address randomisation can spoil.
    wrap=()
    setarch "$(uname -m)" -R true 2>/dev/null && wrap=(setarch "$(uname -m)" -R)
    if step build-tsan build tsan build/tsan "${targets[@]}"; then
        export TSAN_OPTIONS="halt_on_error=1 suppressions=$PWD/tests/tsan.supp"
        if [ ${#wrap[@]} -gt 0 ]; then
            ctest() { "${wrap[@]}" "$(type -P ctest)" "$@"; }
        fi
        suite tsan --test-dir build/tsan -L threads
    fi
fi

echo
echo "summary (logs in $log_dir, $SECONDS s in all)"
printf '  %s\n' "${summary[@]}"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

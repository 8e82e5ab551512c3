#!/usr/bin/env bash
# kill -9 at random times, again and again: what is left is never accepted as whole, in
# neither form, and the same command goes on from it until the artifact is, byte for
# byte, that of a run which nobody disturbed. With calibration likewise.
# Usage: test_kill.sh PROGRAM [KILLS]
set -euo pipefail
novaq=$1
kills=${2:-${KILLS:-12}}
here=$(cd "$(dirname "$0")" && pwd)

# 12 matrices, 6 MB of binary32, and a vector that fills a chunk file of its own.
python3 - <<'END'
import array, json, random, struct
random.seed(1)
rows, cols, count = 256, 512, 12
header, at = {}, 0
for i in range(count):
    header[f"layer.{i}.weight"] = {
        "dtype": "F32", "shape": [rows, cols], "data_offsets": [at, at + rows * cols * 4]}
    at += rows * cols * 4
    if i == 3:
        big = 17 << 20
        header["table"] = {"dtype": "U8", "shape": [big], "data_offsets": [at, at + big]}
        at += big
text = json.dumps(header).encode()
with open("model.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text)
    for i in range(count):
        array.array("f", (random.gauss(0, 0.02) for _ in range(rows * cols))).tofile(f)
        if i == 3:
            f.write(bytes(big))
END

# Replaces the shell it runs in, so that $! is the program itself.
compress() { # OUTPUT [OPTION...]
    case $1 in
    text-*)
        exec "$novaq" compress --input "$here/../fixtures/model/a.gguf" --output "$1" --target-bits 3 \
            --calibration self --calibration-tokens 512 --quiet "${@:2}"
        ;;
    *)
        exec "$novaq" compress --input model.safetensors --output "$1" --scheme k16d2l3 \
            --calibration none --quiet "${@:2}"
        ;;
    esac
}

now() { date +%s%N; }

# Waits until the run PID has finished a tensor of FORM, or is over.
finished_tensor() { # PID FORM
    while kill -0 "$1" 2>/dev/null; do
        if grep -qs '"layer":' "$2/.journal.partial" "..$2.journal.partial"; then
            return
        fi
        sleep 0.01
    done
}

killed=0
resumed=0
for form in plain-dir plain.bin text-dir text-one.bin; do
    start=$(now)
    (compress "$form") >/dev/null
    total=$(($(now) - start))
    "$novaq" verify "$form" --quiet >/dev/null
    mv "$form" "whole-$form"
    hits=0
    share=$(((kills + 3) / 4))
    for ((i = 0; i < share; i++)); do
        # Anywhere in a whole run; what was done before makes later ones shorter. The
        # last time there is something to go on from.
        pause=$(python3 -c "import random; print($total / 1e9 * random.uniform(0.02, 0.7))")
        compress "$form" >/dev/null 2>&1 &
        pid=$!
        if [ $((i + 1)) -lt "$share" ]; then
            sleep "$pause"
        else
            finished_tensor "$pid" "$form"
        fi
        kill -9 "$pid" 2>/dev/null || true
        status=0
        wait "$pid" 2>/dev/null || status=$?
        case $status in
        137) hits=$((hits + 1)) ;;
        0) ;; # it was faster
        *)
            echo "$form: a run that was to be killed ended with status $status"
            exit 1
            ;;
        esac
        if "$novaq" verify "$form" --quiet >verify.log 2>&1; then
            # The end was there before the kill: then it must be the whole. Between the
            # end and tidying up, the journal is left, which the next run takes away.
            if ls -A . "$form" | grep -q '\.journal\.partial$'; then
                (compress "$form") >/dev/null
            fi
            diff -r "$form" "whole-$form"
            if ls -A . "$form" | grep partial; then
                exit 1
            fi
            rm -rf "$form"
        fi
    done
    killed=$((killed + hits))
    (compress "$form" --json) >log.json
    if grep -q '"resumed": {' log.json; then
        resumed=$((resumed + 1))
    fi
    diff -r "$form" "whole-$form"
    "$novaq" verify "$form" --quiet >/dev/null
    if ls -A . "$form" | grep -q partial; then
        echo "partial files were left behind"
        ls -A . "$form"
        exit 1
    fi
done
[ "$killed" -ge $((kills / 4)) ] || { echo "only $killed kills hit a run at work"; exit 1; }
[ "$resumed" -ge 2 ] || { echo "only $resumed of 4 runs had anything to go on from"; exit 1; }
echo "$killed killed runs: none was accepted, the next went on ($resumed of 4 at the end), same bytes"

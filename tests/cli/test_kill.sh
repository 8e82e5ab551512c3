#!/usr/bin/env bash
# kill -9 in the middle of compress leaves nothing that verify accepts as whole,
# in neither form, and the next run cleans up and finishes with the same bytes as
# a run that nobody disturbed. Usage: test_kill.sh PROGRAM
set -euo pipefail
novaq=$1
rounds=${ROUNDS:-8}

# 12 matrices, 6 MB of binary32: large enough to be hit while at work.
python3 - <<'END'
import array, json, random, struct
random.seed(1)
rows, cols, count = 256, 512, 12
header, at = {}, 0
for i in range(count):
    header[f"layer.{i}.weight"] = {
        "dtype": "F32", "shape": [rows, cols], "data_offsets": [at, at + rows * cols * 4]}
    at += rows * cols * 4
text = json.dumps(header).encode()
with open("model.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text)
    for i in range(count):
        array.array("f", (random.gauss(0, 0.02) for _ in range(rows * cols))).tofile(f)
END

# Replaces the shell it runs in, so that $! is the program itself.
compress() { # OUTPUT
    exec "$novaq" compress --input model.safetensors --output "$1" --scheme k16d2l3 --quiet
}

(compress whole-dir) >/dev/null
(compress whole.bin) >/dev/null
"$novaq" verify whole-dir --quiet >/dev/null
"$novaq" verify whole.bin --quiet >/dev/null
# Time of an undisturbed run, to spread the kills over it.
start=$(date +%s%N)
(compress timed-dir) >/dev/null
total=$(($(date +%s%N) - start))

killed=0
for ((i = 0; i < rounds; i++)); do
    for form in killed-dir killed.bin; do
        rm -rf "$form"
        compress "$form" >/dev/null 2>&1 &
        pid=$!
        sleep "$(python3 -c "print($total / 1e9 * ($i + 0.5) / $rounds)")"
        if kill -9 "$pid" 2>/dev/null; then
            wait "$pid" 2>/dev/null || true
            if "$novaq" verify "$form" --quiet >verify.log 2>&1; then
                # The kill came after the last rename: then it must be the whole.
                diff -r "$form" "whole${form#killed}"
            else
                killed=$((killed + 1))
            fi
        fi
    done
done
[ "$killed" -ge $((rounds / 2)) ] || { echo "only $killed kills hit a run at work"; exit 1; }

# What the last killed runs left does not stand in the way.
for form in killed-dir killed.bin; do
    rm -rf "$form"
    compress "$form" >/dev/null 2>&1 &
    pid=$!
    sleep "$(python3 -c "print($total / 1e9 / 2)")"
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    (compress "$form") >/dev/null
    diff -r "$form" "whole${form#killed}"
done
if ls -A . killed-dir | grep -q partial; then
    echo "partial files were left behind"
    ls -A . killed-dir
    exit 1
fi
echo "$killed killed runs: none was accepted, the next run was whole"

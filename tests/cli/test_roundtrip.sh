#!/usr/bin/env bash
# A whole life of an artifact, on a small model made here: compress, validate,
# verify, stats, info, export, and the exit codes when a byte is wrong. Also:
# same bytes for every thread count and instruction set. Runs under ASan too.
# Usage: test_roundtrip.sh PROGRAM
set -euo pipefail
novaq=$1
export SOURCE_DATE_EPOCH=1700000000

fail() {
    echo "FAILED: $*" >&2
    exit 1
}
expect() { # STATUS COMMAND...
    local want=$1 got=0
    shift
    "$@" >output 2>message || got=$?
    [ "$got" -eq "$want" ] || fail "exit $got instead of $want: $* ($(cat message))"
}
json() { # FILE EXPRESSION: prints what the expression over `r` gives
    python3 -c 'import json, sys; r = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$@"
}

# A SafeTensors file of no known architecture: two matrices, a rank-3 tensor, a
# vector, a scalar, an integer tensor.
python3 - <<'END'
import json, random, struct
random.seed(1)
def floats(n, sigma):
    return struct.pack(f"<{n}f", *(random.gauss(0, sigma) for _ in range(n)))
tensors = {
    "a.weight": ("F32", [96, 128], floats(96 * 128, 0.02)),
    "b.weight": ("F32", [64, 80], floats(64 * 80, 1.5)),
    "c.conv": ("F32", [16, 8, 9], floats(16 * 8 * 9, 0.3)),
    "norm": ("F32", [128], floats(128, 1.0)),
    "scale": ("F32", [], floats(1, 1.0)),
    "steps": ("I64", [3], struct.pack("<3q", 1, -2, 3)),
}
header, at = {}, 0
for name, (dtype, shape, data) in tensors.items():
    header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
    at += len(data)
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
with open("model.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))
END

"$novaq" compress --input model.safetensors --output dir --target-bits 4 --quiet --json >report \
    2>message
[ ! -s message ] || fail "--json writes to standard error: $(cat message)"
[ "$(json report 'len(r["warnings"])')" -eq 1 ] || fail "no warning: $(cat report)"
python3 - <<'END'
import json
r = json.load(open("report"))
assert 0 < r["relative_error"] < 0.05 and 0.97 < r["global_cosine_similarity"] < 1, r
END
for check in validate verify; do
    expect 0 "$novaq" $check dir
done
expect 0 "$novaq" stats dir --json
bytes=$(json output 'r["bytes"]')
on_disk=$(find dir -type f -printf '%s\n' | awk '{s += $1} END {print s}')
[ "$bytes" -eq "$on_disk" ] || fail "stats says $bytes bytes, the disk $on_disk"
[ "$(json output 'len(r["layers"])')" -eq 6 ] || fail "not six layers"
expect 0 "$novaq" info dir --json

"$novaq" compress --input model.safetensors --output one.bin --target-bits 2 --quiet >report \
    2>message
grep -q '^novaq: warning: compressed without knowledge' message || fail "no warning as text"
[ "$(wc -l <message)" -eq 1 ] || fail "not one warning: $(cat message)"
grep -q '^relative error *0[.]' report || fail "no relative error: $(cat report)"
expect 0 "$novaq" verify one.bin
"$novaq" local model.safetensors --bits 1.5 --subspaces 4 --output seed.bin --quiet >report
expect 0 "$novaq" verify seed.bin

# What is not code survives unchanged, what is code is close to the source.
"$novaq" export dir --to safetensors --output exported --dtype f32 --quiet >report
python3 - <<'END'
import json, struct
def load(path):
    blob = open(path, "rb").read()
    n = struct.unpack("<Q", blob[:8])[0]
    header = json.loads(blob[8 : 8 + n])
    header.pop("__metadata__", None)
    return {k: (v, blob[8 + n :][slice(*v["data_offsets"])]) for k, v in header.items()}
a, b = load("model.safetensors"), load("exported/model.safetensors")
assert set(a) == set(b), (sorted(a), sorted(b))
for name, (info, data) in a.items():
    other, got = b[name]
    assert info["shape"] == other["shape"], name
    if len(info["shape"]) < 2:
        assert (info["dtype"], data) == (other["dtype"], got), name
        continue
    x = struct.unpack(f"<{len(data) // 4}f", data)
    y = struct.unpack(f"<{len(got) // 4}f", got)
    error = sum((p - q) ** 2 for p, q in zip(x, y)) / sum(p * p for p in x)
    assert error < 0.05, (name, error)
    print(f"{name}: relative error {error:.4f}")
END

# The same bytes whatever runs it.
for variant in "1 avx512" "2 avx512" "7 avx2" "3 scalar"; do
    read -r threads isa <<<"$variant"
    NOVAQ_CPU=$isa "$novaq" compress --input model.safetensors --output "again-$isa-$threads" \
        --target-bits 4 --threads "$threads" --quiet >report
    diff -r dir "again-$isa-$threads" || fail "$threads threads, $isa: other bytes"
done

# Wrong bytes, missing files, wrong words.
cp -r dir flipped
chunk=$(find flipped -name 'chunk-*' | sort | head -n 1)
python3 - "$chunk" <<'END'
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(100)
    byte = f.read(1)[0]
    f.seek(100)
    f.write(bytes([byte ^ 4]))
END
expect 3 "$novaq" verify flipped
cp -r dir shorter
truncate -s -1 "$(find shorter -name 'chunk-*' | sort | head -n 1)"
expect 3 "$novaq" validate shorter
expect 1 "$novaq" stats no-such-file
expect 2 "$novaq" compress --output x
expect 2 "$novaq" compress --input model.safetensors --output x --target-bits 99
expect 2 "$novaq" nonsense
[ ! -e x ] || fail "a refused command left something behind"
expect 1 "$novaq" run dir -p hello
grep -qi 'architecture\|unknown\|tokenizer' message || fail "run does not say why: $(cat message)"
echo "round trip complete"

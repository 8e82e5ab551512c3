#!/usr/bin/env bash
# novaq bench on random content of a tiny shape: formats, lists, what is kept, what
# is refused; then bench/speed.py beside a stand-in for llama-bench.
# Usage: test_bench.sh PROGRAM
set -euo pipefail
novaq=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONDONTWRITEBYTECODE=1
unset LLAMA_BENCH NOVAQ_CPU

fail() {
    echo "FAILED: $*" >&2
    exit 1
}
refused() { # WANTED-STATUS SAYS ARGUMENT...
    local wanted=$1 says=$2 status=0
    shift 2
    "$novaq" bench "$@" >output 2>message || status=$?
    [ "$status" -eq "$wanted" ] || fail "exit $status, not $wanted: bench $*"
    grep -qe "$says" message || fail "bench $*: does not say '$says': $(cat message)"
    [ ! -s output ] || fail "bench $*: printed $(cat output)"
}
mkdir temp
export TMPDIR=$PWD/temp
tiny=(--synthetic tiny -p 4,8 -n 3 -r 2 --quiet)

# ---- formats -------------------------------------------------------------------
"$novaq" bench "${tiny[@]}" --bits 1.5 -t 1,2 >table
head -1 table | grep -qx '| model | size | params | bits/weight | threads | kernel | test | t/s |' ||
    fail "head of the table: $(head -1 table)"
[ "$(grep -c '^| tiny k8d2l2 random | 0.27 MB | 1.31 M | 1.6' table)" -eq 6 ] || fail "$(cat table)"
grep -Eq '\| 2 \| (scalar|avx2|avx512|neon)[a-z0-9+]* \| tg3 \| [0-9.]+ ± [0-9.]+ \|$' table ||
    fail "no tg3 with two threads: $(cat table)"

"$novaq" bench "${tiny[@]}" -d 0,16 --format csv >csv
"$novaq" bench "${tiny[@]}" -d 0,16 --json >json
"$novaq" bench "${tiny[@]}" -d 0,16 --format json >json2
python3 - <<'END'
import csv, json
rows = list(csv.DictReader(open("csv")))
names = ["pp4", "pp8", "tg3", "pp4 @ d16", "pp8 @ d16", "tg3 @ d16"]
assert [r["test"] for r in rows] == names, rows
assert all(float(r["tokens_per_second"]) > 0 and float(r["stddev"]) >= 0 for r in rows)
assert rows[0]["model"] == "tiny k16d2l2 random" and rows[0]["repetitions"] == "2"
assert rows[0]["kv_type"] == "f16"
for name in ("json", "json2"):
    o = json.load(open(name))
    assert [t["test"] for t in o["tests"]] == names
    assert [(t["prompt"], t["generate"], t["depth"]) for t in o["tests"]][3:] == \
        [(4, 0, 16), (8, 0, 16), (0, 3, 16)]
    assert all(len(t["samples"]) == 2 for t in o["tests"])
    assert 0 < o["load_ms"] < 1e4 and o["peak_memory"] > 1e6 and o["parameters"] == 1312000
    assert str(o["bytes"]) == rows[0]["bytes"] and o["kernel"] == rows[0]["kernel"]
END
[ -z "$(ls temp)" ] || fail "left behind: $(ls temp)"

# ---- what is kept, and a model of the user's own ----------------------------------
"$novaq" bench "${tiny[@]}" --scheme k16d1l2 --tensor-type 'embd=q8' --output kept >table
"$novaq" verify kept --quiet >/dev/null
"$novaq" bench kept -p 4 -n 0 -r 1 --quiet >table
grep -q 'tiny k16d1l2 random.*pp4' table || fail "the kept artifact: $(cat table)"
SOURCE_DATE_EPOCH=1 "$novaq" bench "${tiny[@]}" --seed 7 --keep one.novaq >/dev/null
SOURCE_DATE_EPOCH=1 "$novaq" bench "${tiny[@]}" --seed 7 --keep two.novaq >/dev/null
cmp one.novaq two.novaq || fail "the same seed, other bytes"
"$novaq" bench --model "$root/tests/fixtures/model/a.gguf" -p 4 -n 2 -r 1 --quiet >table
[ "$(wc -l <table)" -eq 4 ] || fail "a GGUF file: $(cat table)"

# ---- the codec is still there --------------------------------------------------------
"$novaq" bench --encoder --schemes k4d2l2 --threads 1 --json --quiet | grep -q k4d2l2 ||
    fail "bench --encoder"
"$novaq" bench --codec --schemes k4d2l1 --json --quiet | grep -q k4d2l1 || fail "bench --codec"

# ---- kernels: a row for each scheme, shape and variant that this machine has -------------
"$novaq" bench --kernels --schemes k16d2l2,q8,q8_0,bf16,f16,f32 --threads 1 --json >kernels
NOVAQ_CPU=avx2 "$novaq" bench --kernels --schemes k16d2l2 --threads 2 --json >masked
"$novaq" bench --kernels --schemes q8_0 --threads 1 >table
[ "$(grep -c '^ *q8_0 ' table)" -ge 3 ] || fail "no table of kernels: $(cat table)"
python3 - <<'END'
import json, re
text = open("/proc/cpuinfo").read()
flags = set(re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.M).group(1).split())
levels = [("avx2", "avx2 fma f16c"), ("avx512", "avx512f avx512bw avx512vl avx512dq"),
          ("avx512vnni", "avx512_vnni"), ("avx512vbmi", "avx512vbmi")]
have = []
for name, needs in levels if "sse2" in flags else [("neon", "asimd"), ("dotprod", "asimddp")]:
    if not flags.issuperset(needs.split()):
        break
    have.append(name)
have = have or ["scalar"]
floats = [name for name in have if name in ("scalar", "avx2", "avx512", "neon")]
bytes_of = {"k16d2l2": 0.25, "q8": 1, "q8_0": 34 / 32, "bf16": 2, "f16": 2, "f32": 4}

def check(o, threads, wanted):
    assert o["threads"] == threads and o["read_bytes_per_second"] > 1e8
    rows = [(r["scheme"], r["cols"], r["kernel"]) for r in o["kernels"]]
    assert rows == wanted, rows
    for r in o["kernels"]:
        each = bytes_of[r["scheme"]]
        assert r["rows"] * r["cols"] * each > 0.9 * 2**28, r # larger than caches
        assert r["weights_per_second"] > 1e7 and r["cached_weights_per_second_per_core"] > 1e7, r
        assert abs(r["bytes_per_second"] / r["weights_per_second"] / each - 1) < 1e-6, r
        share = r["bytes_per_second"] / o["read_bytes_per_second"]
        assert abs(r["bandwidth_share"] / share - 1) < 1e-6, r
    shares = [r["bandwidth_share"] for r in o["kernels"]
              if r["scheme"] == "k16d2l2" and r["cols"] == 4096]
    assert 0 < o["gemv_2bit_bandwidth_share"] == max(shares), shares

check(json.load(open("kernels")), 1,
      [(s, c, k) for s in bytes_of for c in (2048, 4096, 11008)
       for k in (floats if s == "f32" else have)])
if have[0] != "neon":
    check(json.load(open("masked")), 2, [("k16d2l2", c, have[0]) for c in (2048, 4096, 11008)])
END

# ---- memory: the file, the cache of keys and values, and 64 MB ----------------------------
"$novaq" bench --synthetic smollm2-135m --bits 2 -p 1 -n 0 -r 1 --output small.novaq --quiet >table
"$novaq" bench --synthetic smollm2-135m --scheme f16 -p 1 -n 0 -r 1 --output half.novaq --quiet >table
"$novaq" bench small.novaq -p 512 -n 2 -r 1 -t 2 --json --quiet >small.json
"$novaq" bench half.novaq -p 64 -n 2 -r 1 -t 2 --json --quiet >half.json
python3 - <<'END'
import json, os
for name, positions in (("small", 512), ("half", 64)):
    cache = 30 * 2 * 3 * 64 * 2 * positions # blocks, keys and values, heads, components, float16
    o = json.load(open(name + ".json"))
    size = os.path.getsize(name + ".novaq")
    assert 0 < o["load_ms"] < 2000, o["load_ms"]
    assert o["bytes"] <= size, (o["bytes"], size)
    over = o["peak_memory"] - size - cache
    assert over <= 64e6, f"{name}: {over / 1e6:.1f} MB more than file and cache"
    assert o["peak_memory"] > size / 2, o["peak_memory"] # mapped weights count
END
rm -f small.novaq half.novaq

# ---- shapes -----------------------------------------------------------------------------
"$novaq" bench --synthetic list >table 2>message || fail "--synthetic list: exit $?"
[ ! -s message ] || fail "--synthetic list: $(cat message)"
for shape in tiny llama-1b llama-2-7b smollm2-135m qwen2.5-7b; do
    grep -q "^ *$shape " table || fail "--synthetic list has no $shape: $(cat table)"
done
"$novaq" bench --synthetic list --json >json
python3 - <<'END'
import json
shapes = {s["name"]: s for s in json.load(open("json"))["shapes"]}
one = shapes["llama-1b"]
assert (one["embedding_length"], one["block_count"], one["tied"]) == (2048, 22, True), one
assert len(shapes) >= 15 and all(s["vocab_size"] > 0 for s in shapes.values())
END
"$novaq" bench kept --kv q8 -p 4 -n 0 -r 1 --json --quiet >json
grep -q '"kv_type": "q8"' json || fail "--kv: $(cat json)"

# ---- refusals --------------------------------------------------------------------------
refused 2 'llama-2-7b' --synthetic giant --quiet
refused 2 '2.5' --synthetic tiny --bits 2.5 --quiet
refused 2 'unknown scheme' --synthetic tiny --scheme k99x --quiet
refused 2 'contradict' --synthetic tiny --scheme k16d2l2 --bits 2 --quiet
refused 2 'give one' kept --synthetic tiny
refused 2 'two models' kept --model kept
refused 2 'no model' -p 8
refused 2 'for --synthetic' kept --bits 2
refused 2 'whole numbers' kept -p 8,x
refused 2 'whole numbers' kept -n 8,,9
refused 2 'whole numbers' kept -t 99999
refused 2 'neither' kept -p 0 -n 0 --quiet
refused 2 'context' kept -p 600 --quiet
refused 2 'not allowed' kept --format xml
refused 2 'one number of threads' --codec -t 1,2
refused 2 'leave --n-prompt out' --codec -p 8
refused 2 'leave kept out' --encoder kept
refused 2 'for --codec' kept --schemes k16d2l2
refused 2 "'f16' has no coding error" --codec --schemes k16d2l2,f16
refused 2 'unknown scheme' --codec --schemes q8_0
refused 2 "'f32' has no symbols" --encoder --schemes f32
refused 2 "'raw' is any bytes" --kernels --schemes raw
refused 1 'missing' missing --quiet
[ -z "$(ls temp)" ] || fail "left behind: $(ls temp)"

# ---- beside llama.cpp --------------------------------------------------------------------
cat >llama-bench <<'END'
#!/usr/bin/env bash
head -c 4 "$2" | grep -q GGUF || exit 1
echo 'model_n_params,n_prompt,n_gen,avg_ts'
echo '1312000,4,0,10.5'
echo '1312000,0,3,2.5'
END
chmod +x llama-bench
speed() {
    python3 "$root/bench/speed.py" --novaq "$novaq" --shape tiny --prompt 4 --generate 3 \
        --output "$PWD/speed" "$@"
}
LLAMA_BENCH=$PWD/llama-bench speed --rounds 3 --types F16,Q2_K,IQ2_XXS >table 2>message ||
    fail "speed.py: $(cat message)"
cmp table speed.md || fail "not the table"
grep -q '^| llama.cpp F16 |.*| 10.5 (10.5 to 10.5) | 2.5 (2.5 to 2.5) |$' table || fail "$(cat table)"
grep -q '^| tg3 | 1 bits | F16 | .* | 10 | reached |$' table || fail "no ratio: $(cat table)"
[ "$(grep -c ',3$' speed.csv)" -eq 14 ] || fail "lines: $(cat speed.csv)"
speed --rounds 1 --alone --bits 2 --work models >table 2>message
[ -f models/tiny-2/manifest.json ] || fail "--work keeps nothing"
if grep -q llama.cpp table; then fail "peers although alone: $(cat table)"; fi
if PATH=/usr/bin:/bin speed >table 2>message; then fail "no llama-bench, no complaint"; fi
grep -q 'cmake --build llama --target llama-bench' message || fail "does not say how: $(cat message)"
[ -z "$(ls temp)" ] || fail "left behind: $(ls temp)"
echo "bench complete"

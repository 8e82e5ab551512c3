#!/usr/bin/env bash
# bench/quality.py on a tiny model, in a copy of its folder: lines, means, table,
# what a second run measures, what is refused. Usage: test_quality.sh PROGRAM
set -euo pipefail
novaq=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
model=$root/tests/fixtures/model
export PYTHONDONTWRITEBYTECODE=1
unset NOVAQ_MODEL NOVAQ_TEXT NOVAQ_CHUNKS NOVAQ_CALIBRATION

fail() {
    echo "FAILED: $*" >&2
    exit 1
}
mkdir -p bench docs build
cp "$root"/bench/{quality.py,quality.gp,quote.py,peers.csv} bench
printf 'before\n<!-- quality:begin -->\nold\n<!-- quality:end -->\nafter\n' >README.md
echo nothing >docs/METHOD.md

quality() {
    python3 bench/quality.py --novaq "$novaq" --model "$model/a.gguf" --text "$model/text.txt" \
        --n-ctx 16 --chunks 3 "$@"
}
lines() { grep -c "^$1," bench/quality.csv || true; }

quality --calibration none k16d2l3 4.05 --seed 5 6 >table 2>message
[ "$(lines source)" -eq 1 ] && [ "$(lines k16d2l3)" -eq 2 ] && [ "$(lines 4.05)" -eq 1 ] ||
    fail "wrong lines: $(cat bench/quality.csv)"
grep -q 'left out' message || fail "the peers' figures stand beside those of another text"
cmp table bench/quality.md || fail "not the table"
[ "$(grep -c '^| `--' table)" -eq 2 ] || fail "not two rows: $(cat table)"
if grep -q 'best peer' table; then fail "peers in the table"; fi
grep -q '^after$' README.md && grep -q 'k16d2l3' README.md || fail "not quoted: $(cat README.md)"
[ ! -e build/bench/quality.kld ] || fail "the base file was left behind"
if command -v gnuplot >/dev/null; then
    python3 -c 'import xml.dom.minidom as m; m.parse("docs/quality.svg")'
fi
python3 - <<'END'
import csv
lines = open("bench/quality.csv").read().splitlines()
rows = list(csv.DictReader(lines[1:]))
for r in rows[1:]:
    assert float(r["mean_kld"]) > 0 and float(r["perplexity"]) > 1, r
    assert 1 < float(r["bits_per_weight_linear"]) < 7 and 0 < float(r["same_top"]) < 1, r
two = [float(r["perplexity"]) for r in rows if r["target"] == "k16d2l3"]
table = open("bench/quality.md").read()
assert f"{sum(two) / 2:.2f} ({min(two):.2f} to {max(two):.2f})" in table, (two, table)
assert len({r["bytes"] for r in rows if r["target"] == "source"}) == 1
END

# Only what is missing is measured; --force measures what is named.
cp bench/quality.csv before
quality --calibration none k16d2l3 4.05 --seed 5 6 >table 2>message
cmp before bench/quality.csv || fail "a second run changed lines"
if grep -q 'seed 5' message; then fail "measured again: $(cat message)"; fi
grep -v '^k16d2l3,6' before >bench/quality.csv
quality --calibration none k16d2l3 4.05 --seed 5 6 >table 2>message
grep -q 'k16d2l3, seed 6' message || fail "not measured: $(cat message)"
if grep -q 'seed 5' message; then fail "measured again: $(cat message)"; fi
sort before >a && sort bench/quality.csv >b && cmp a b || fail "another figure the second time"
quality --calibration none 4.05 --force --seed 5 >table 2>message
[ "$(grep -c 'seed 5' message)" -eq 1 ] || fail "not forced: $(cat message)"

python3 bench/quality.py --report >again 2>message
cmp again bench/quality.md || fail "--report writes another table"
quality --calibration none 90kB all:3 >table 2>message
grep -q -- '--target-size 90kB' table || fail "no whole file: $(cat table)"
[ "$(awk -F, '$1 == "90kB" {print ($5 <= 90000)}' bench/quality.csv)" = 1 ] ||
    fail "larger than asked: $(cat bench/quality.csv)"

if quality --calibration self 4.05 >table 2>message; then fail "two protocols in one file"; fi
grep -q 'measured otherwise' message || fail "$(cat message)"
if quality --calibration none nonsense >table 2>message; then fail "a target that is none"; fi
grep -q "'nonsense' is no target" message || fail "$(cat message)"
if quality --calibration none --seed 5 4.05 >table 2>message; then fail "a target for a seed"; fi
grep -q "'4.05' is no seed; targets come before --seed" message || fail "$(cat message)"
quality --calibration none --seed 5 -- 4.05 >table 2>message || fail "$(cat message)"
if quality --calibration "$model/text.txt" 4 >table 2>message; then fail "calibrated on the text"; fi
echo "the quality report keeps, adds and quotes what it measures"

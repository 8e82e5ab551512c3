#!/usr/bin/env bash
# refine on a tiny model: better predictions, lines of JSON, Ctrl-C and going on to the
# same bytes, --refine of compress, what is refused. Usage: test_refine.sh PROGRAM
set -euo pipefail
novaq=$1
model=$(cd "$(dirname "$0")/../fixtures/model" && pwd)/a.gguf

fail() {
    echo "FAILED: $*" >&2
    exit 1
}
refuses() {
    local want=$1 pattern=$2 got=0
    shift 2
    "$novaq" "$@" >output 2>message </dev/null || got=$?
    [ "$got" -eq "$want" ] || fail "exit $got instead of $want: $* ($(cat message))"
    grep -qe "$pattern" message || fail "'$pattern' is not in: $(cat message)"
}

for i in $(seq 400); do
    echo "line $i of a small text that is read again and again, $((i * 7 % 31)) times."
done >text.txt
"$novaq" compress --input "$model" --output made.novaq --scheme k16d2l2 --calibration text.txt -q >output
refine=("$novaq" refine made.novaq --teacher "$model" --calibration text.txt --sequence 64
    --batch 4 --lr 0.01 --codebook-columns 32)

# ---- better, and the lines tell so ---------------------------------------------------
"${refine[@]}" --steps 30 --output one.novaq --json-lines >lines 2>message
python3 - <<'END'
import json
lines = [json.loads(line) for line in open("lines")]
steps = [line["refine"] for line in lines if "refine" in line]
report = lines[-1]["report"]
assert steps[0]["event"] == "begin" and steps[0]["memory_bytes"] > 0, steps[0]
assert [s["step"] for s in steps[1:]] == list(range(31)), steps
assert report["held_out_kl"]["after"] < 0.95 * report["held_out_kl"]["before"], report
assert report["best_step"] > 0 and report["summary"]["total_layers"] > 0, report
END
"$novaq" verify one.novaq -q >output || fail "$(cat output)"
for artifact in made one; do
    "$novaq" eval $artifact.novaq --against "$model" -f text.txt -c 64 --chunks 20 --json -q |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["mean_kld"])' >$artifact.kl
done
python3 -c 'assert float(open("one.kl").read()) < 0.95 * float(open("made.kl").read())'

# ---- Ctrl-C, and on to the same bytes --------------------------------------------------
"${refine[@]}" --steps 400 --output whole.novaq -q >output
"${refine[@]}" --steps 400 --output parts.novaq --json-lines >lines 2>message &
pid=$!
for _ in $(seq 200); do
    [ "$(wc -l <lines)" -gt 12 ] && break
    sleep 0.05
done
kill -INT $pid || fail "the run ended before it could be interrupted: $(cat message)"
got=0
wait $pid || got=$?
[ "$got" -eq 130 ] || fail "exit $got after Ctrl-C: $(cat message)"
[ ! -e parts.novaq ] || fail "an interrupted run left an artifact"
[ -s parts.novaq.refine ] || fail "an interrupted run left no checkpoint"
"${refine[@]}" --steps 400 --output parts.novaq --json -q >report
python3 -c 'import json; assert json.load(open("report"))["resumed_at"] > 0'
cmp whole.novaq parts.novaq || fail "an interrupted run ends with other bytes"
[ ! -e parts.novaq.refine ] || fail "a checkpoint stays behind"

# ---- several texts, two rates for one ----------------------------------------------------
split -n l/2 text.txt part.
"${refine[@]:0:5}" --calibration part.aa --calibration part.ab --sequence 64 --steps 1 \
    --output several.novaq --json -q >report
python3 - <<'END'
import json
report = json.load(open("report"))
assert report["seconds"] > 0 and report["warnings"] == [], report
for kind in ("scale_rate", "gain_rate"):
    assert abs(report[kind] - 2 * report["rate"]) < 1e-9, report
END
refuses 2 'contradict' "${refine[@]:1:4}" --calibration self --calibration text.txt --output x.novaq

# ---- with compress ------------------------------------------------------------------------
"$novaq" compress --input "$model" --output both --scheme k16d2l2 --calibration text.txt \
    --refine=3 --json -q >report
python3 -c 'import json; assert json.load(open("report"))["refinement"]["steps"] == 3'
"$novaq" verify both -q >output || fail "$(cat output)"
[ -z "$(find . -maxdepth 1 -name "both.?*" ! -name both.origin.json)" ] || fail "what was refined stays behind"
"$novaq" compress --input "$model" --output told --scheme k16d2l2 --calibration text.txt \
    --refine=2 --json-lines -q >told.json
[ "$(grep -c '^{"refine":' told.json)" -eq 4 ] || fail "$(cat told.json)"

# ---- refusals --------------------------------------------------------------------------------
refuses 2 'give --output' refine made.novaq --teacher "$model"
refuses 2 'give the artifact' refine --output x
mv made.novaq.origin.json aside.json
refuses 2 'name the teacher' refine made.novaq --output x.novaq --calibration text.txt
refuses 2 'not an artifact' refine "$model" --teacher "$model" --output x.novaq
refuses 2 'both artifact and output' refine made.novaq --teacher "$model" --output made.novaq
mkdir -p taken/x
refuses 2 'not part of an artifact' refine made.novaq --teacher no-such.gguf --output taken
refuses 1 'no-such' refine made.novaq --teacher no-such.gguf --output x.novaq --calibration text.txt
refuses 1 'no-text' refine made.novaq --teacher "$model" --output x.novaq --calibration no-text
[ ! -e x.novaq ] || fail "a refusal wrote an artifact"

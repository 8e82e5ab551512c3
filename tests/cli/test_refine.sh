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

# A program of gnuplot's name keeps what it is told to draw, and has it drawn by the real
# one where there is that.
mkdir pictures
real=$(command -v gnuplot || true)
cat >pictures/gnuplot <<END
#!/bin/sh
cat >$PWD/script
[ -z "$real" ] || exec "$real" "\$@" <$PWD/script
echo picture
END
chmod +x pictures/gnuplot
[ -n "$real" ] || echo "gnuplot is not installed: no picture was drawn"
export PATH="$PWD/pictures:$PATH"
# What the script draws is what the lines of the same run say; FIRST: the step it began at.
cat >check_script.py <<'END'
import json, re, sys
first = int(sys.argv[1])
script = open("script").read()
blocks = dict(re.findall(r"^\$(\w+) << END\n(.*?)^END$", script, re.M | re.S))
rows = {k: [[float(x) for x in r.split()] for r in v.splitlines()] for k, v in blocks.items()}
lines = [json.loads(line) for line in open("lines")]
steps = [line["refine"] for line in lines if line.get("refine", {}).get("event") == "step"]
told = [s for s in steps if "kl" in s]
held = [s for s in steps if "held_out_kl" in s]
last, planned = told[-1]["step"], told[-1]["steps"]
assert [r[0] for r in rows["steps"]] == list(range(first + 1, last + 1)), rows["steps"]
window = min(25, max(5, planned // 24))
for i, got in enumerate(rows["steps"]):
    part = [s["kl"] for s in told[max(0, i + 1 - window):i + 1]]
    assert abs(got[1] - told[i]["kl"]) < 1e-6, (got, told[i])
    assert abs(got[2] - sum(part) / len(part)) < 1e-6, (i, got)
for got, want in zip(rows["held"], held):
    assert got[0] == want["step"] and abs(got[1] - want["held_out_kl"]) < 1e-6, (got, want)
    assert abs(got[2] / want["held_out_perplexity"] - 1) < 1e-6, (got, want)
assert len(rows["held"]) == len(held) > 0, rows["held"]
best = rows["best"][0]
assert best[0] == steps[-1]["best_step"], best
assert abs(best[1] - steps[-1]["best_held_out_kl"]) < 1e-6, best
for words in (f"best: step {best[0]:.0f},", f"Refinement, {last} of {planned} steps",
              f"set xrange [0:{last}]", "perplexity"):
    assert words in script, words
assert ("earlier call" in script) == (first > 0)
assert "novaq" not in script and ".png" not in script, "a name reached gnuplot"
END

# ---- better, and the lines tell so ---------------------------------------------------
"${refine[@]}" --steps 30 --output one.novaq --json-lines --plot one.png >lines 2>message
python3 check_script.py 0
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
"${refine[@]}" --steps 400 --output parts.novaq --json-lines --plot parts.png >lines 2>message &
pid=$!
for _ in $(seq 1200); do
    [ "$(wc -l <lines)" -gt 12 ] && break
    sleep 0.05
done
kill -INT $pid || fail "the run ended before it could be interrupted: $(cat message)"
got=0
wait $pid || got=$?
[ "$got" -eq 130 ] || fail "exit $got after Ctrl-C: $(cat message)"
[ ! -e parts.novaq ] || fail "an interrupted run left an artifact"
[ -s parts.novaq.refine ] || fail "an interrupted run left no checkpoint"
python3 check_script.py 0 # drawn all the same
[ -s parts.png ] || fail "an interrupted run left no picture"
"${refine[@]}" --steps 400 --output parts.novaq --json-lines --plot parts.svg -q >lines
python3 - <<'END'
import json
resumed = json.loads(open("lines").readlines()[-1])["report"]["resumed_at"]
assert resumed > 0
open("resumed", "w").write(str(resumed))
END
python3 check_script.py "$(cat resumed)"
cmp whole.novaq parts.novaq || fail "an interrupted run ends with other bytes"
[ ! -e parts.novaq.refine ] || fail "a checkpoint stays behind"

if [ -n "$real" ]; then
    for picture in one parts; do
        [ "$(head -c 4 $picture.png | od -An -c | tr -d ' ')" = '211PNG' ] || fail "not a PNG"
        [ "$(stat -c %s $picture.png)" -gt 10000 ] || fail "an empty picture"
    done
    for words in '<svg' 'Refinement, 400 of 400 steps' 'text held out' 'best: step' \
        'an earlier call' 'perplexity'; do
        grep -q "$words" parts.svg || fail "no '$words' in the picture"
    done
    if grep -qe "$PWD" -e parts -e novaq parts.svg; then fail "a name in the picture"; fi
fi
if compgen -G '*.[ps][nv]g.*' >/dev/null; then fail "a temporary picture was left behind"; fi

# ---- pictures that cannot be drawn are refused before the work ---------------------------
refuses 2 'neither in .png nor in .svg' "${refine[@]:1}" --output x.novaq --plot x.gif
refuses 1 'nowhere/x.png: No such' "${refine[@]:1}" --output x.novaq --plot nowhere/x.png
got=0
env PATH="$PWD/empty" "${refine[@]}" --output x.novaq --plot x.png >output 2>message || got=$?
[ "$got" -eq 1 ] && grep -q 'needs gnuplot.*gnuplot-nox' message || fail "$got: $(cat message)"
[ ! -e x.novaq ] && [ ! -e x.png ] || fail "gnuplot was missed too late"

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

# ---- predictions of the teacher in a file -------------------------------------------------
cached=("${refine[@]}" --steps 12 --teacher-cache cache)
"${cached[@]}" --output cached.novaq 2>message >output
grep -q '64 predictions of each token go to cache' message || fail "$(cat message)"
"${cached[@]}" --output again.novaq 2>message >output
grep -q 'it is not run' message || fail "$(cat message)"
cmp cached.novaq again.novaq || fail "predictions that were kept teach something else"
"${cached[@]}" --teacher-top 1000000 --output all.novaq --json 2>message >report
grep -q 'made anew' message || fail "$(cat message)"
"${refine[@]}" --steps 12 --output beside.novaq --json -q >beside.json
python3 - <<'END'
import json
kept, beside = json.load(open("report")), json.load(open("beside.json"))
cache = kept["teacher_cache"]
assert not cache["reused"] and cache["rest"] == 0 and cache["top"] > 64, cache
assert any("made anew" in w for w in kept["warnings"]), kept
for when in ("before", "after"):
    a, b = kept["held_out_kl"][when], beside["held_out_kl"][when]
    assert abs(a - b) < 0.03 * b, (when, a, b)
assert kept["memory_bytes"] < beside["memory_bytes"], (kept, beside)
END
refuses 2 'not overwritten' "${refine[@]:1}" --steps 1 --teacher-cache text.txt --output x.novaq
refuses 2 'lambda must be 0' "${cached[@]:1}" --lambda 1 --output x.novaq
refuses 2 'give both' "${refine[@]:1}" --teacher-top 5 --output x.novaq

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

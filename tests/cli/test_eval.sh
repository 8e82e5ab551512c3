#!/usr/bin/env bash
# eval on the tiny models of tests/fixtures: base files, ablation, what is refused,
# and that Ctrl-C leaves nothing behind. Usage: test_eval.sh PROGRAM
set -euo pipefail
novaq=$1
model=$(cd "$(dirname "$0")/../fixtures/model" && pwd)
llama=$model/../eval/llama.kld

fail() {
    echo "FAILED: $*" >&2
    exit 1
}
# refuses STATUS PATTERN ARGUMENT...: eval's exit status, one line on standard error.
refuses() {
    local want=$1 pattern=$2 got=0
    shift 2
    "$novaq" eval "$@" >output 2>message </dev/null || got=$?
    [ "$got" -eq "$want" ] || fail "exit $got instead of $want: $* ($(cat message))"
    [ ! -s output ] || fail "a refusal wrote to standard output: $*"
    [ "$(wc -l <message)" -eq 1 ] || fail "not one line: $* ($(cat message))"
    grep -qe "$pattern" message || fail "'$pattern' is not in: $(cat message)"
}

# ---- base files --------------------------------------------------------------
"$novaq" eval "$model/a.gguf" -f "$model/text.txt" -c 16 --save-all-logits base.kld -q >output
[ "$(stat -c %s base.kld)" -eq "$(stat -c %s "$llama")" ] || fail "not llama-perplexity's size"
cmp -n 596 base.kld "$llama" || fail "not llama-perplexity's header and tokens"
for base in base.kld "$llama"; do
    "$novaq" eval "$model/aq.gguf" --kl-divergence-base "$base" --kl-divergence -q >output
    grep -q '^KL divergence mean  *0[.]0006' output || fail "$base: $(cat output)"
    grep -q '^KL divergence 1 %' output || fail "no 1 %: $(cat output)"
    grep -q '^same top token  *95[.]24 %' output || fail "$base: $(cat output)"
done
"$novaq" eval "$model/aq.gguf" --kl-divergence --kl-divergence-base base.kld --chunks 2 --json -q |
    python3 -c 'import json, sys; r = json.load(sys.stdin); assert r["chunks"] == 2 and "kld_01" in r'
head -c 10000 base.kld >short.kld
refuses 1 'short.kld: 10000 bytes' "$model/aq.gguf" --kl-divergence --kl-divergence-base short.kld
refuses 1 'no base of' "$model/aq.gguf" --kl-divergence --kl-divergence-base "$model/text.txt"
cp "$model/text.txt" keep.txt
refuses 2 'keep.txt: exists' "$model/a.gguf" -f "$model/text.txt" -c 16 --kl-divergence-base keep.txt
cmp keep.txt "$model/text.txt" || fail "a text was overwritten"
refuses 2 'give --kl-divergence-base' m --kl-divergence
refuses 2 'leave --perplexity out' m --kl-divergence --kl-divergence-base f -f t
refuses 2 'leave --n-ctx out' m --kl-divergence --kl-divergence-base f -c 16
refuses 2 'leave --against out' m --kl-divergence --kl-divergence-base f --against s
refuses 2 'give --perplexity' m --kl-divergence-base f
refuses 2 '--seed is for --ablation' m -f t --seed 1
refuses 2 '--target-bits is for --ablation' m -f t --target-bits 2

# ---- ablation ----------------------------------------------------------------
mkdir place
export TMPDIR=$PWD/place
ablate() {
    "$novaq" eval "$model/a.gguf" --ablation -f "$model/text.txt" -c 16 -q --calibration none "$@"
}
ablate >output
for row in source full no-normalization no-residual no-rotation no-sliding paper; do
    grep -q "^$row  *[0-9]" output || fail "no row $row: $(cat output)"
done
[ "$(wc -l <output)" -eq 8 ] || fail "not 7 rows and a head: $(cat output)"
ablate --variants no-rotation --target-bits 2 --seed 7 --json |
    python3 -c 'import json, sys
r = json.load(sys.stdin)
assert [x["variant"] for x in r["rows"]] == ["source", "full", "no-rotation"], r
assert r["seed"] == 7 and r["scheme"] == "planned", r'
# The row without distillation: the same artifact before it was refined, and nobody else is.
seq -f 'line %.0f of another text' 300 >other.txt
"$novaq" eval "$model/a.gguf" --ablation -f "$model/text.txt" -c 16 -q --calibration other.txt \
    --refine=4 --variants paper >output
for row in source full no-distillation paper; do
    grep -q "^$row  *[0-9]" output || fail "no row $row: $(cat output)"
done
grep -q '^full .* nothing$' output && grep -q '^no-distillation .* not refined$' output &&
    grep -q '^paper .*, not refined$' output || fail "what is refined: $(cat output)"
[ "$(tail -n 1 output | cut -d' ' -f1-4)" = 'Only "full" is refined' ] || fail "$(cat output)"
"$novaq" eval "$model/a.gguf" --ablation -f "$model/text.txt" -c 16 -q --calibration other.txt \
    --refine=4 --variants full --json |
    python3 -c 'import json, sys
r = json.load(sys.stdin)
full, before = r["rows"][1:]
assert full["variant"] == "full" and full["refined"] is True, full
assert before["variant"] == "no-distillation" and before["refined"] is False, before
assert full["mean_kld"] != before["mean_kld"] and r["refinement"]["steps"] == 4, r'
ablate --variants full >output
if grep -q refined output; then fail "nothing was refined: $(cat output)"; fi

refuses 2 '--refine is for --ablation' m -f t --refine=3
refuses 2 'no text' m --ablation
refuses 2 'leave --against out' m --ablation -f t --against s
refuses 2 'leave --kl-divergence-base out' m --ablation -f t --kl-divergence-base f
refuses 2 'contradict' m --ablation -f t --scheme q8 --target-bits 2
refuses 2 "no variant 'x'" m --ablation -f t --variants x
refuses 2 'proves nothing' m --ablation -f t --calibration t
[ -z "$(ls -A place)" ] || fail "left in TMPDIR: $(ls -A place)"

# Ctrl-C at any moment. A background job ignores SIGINT, SIGTERM means the same.
interrupted=0
for pause in 0 0.02 0.05 0.1 0.2 0.3; do
    "$novaq" eval "$model/a.gguf" --ablation -f "$model/text.txt" -c 16 -q \
        --calibration none >output 2>&1 &
    pid=$!
    sleep "$pause"
    kill -TERM "$pid" 2>/dev/null || true
    status=0
    wait "$pid" || status=$?
    case $status in
    0 | 143) ;; # done, or killed before it had begun
    130) interrupted=$((interrupted + 1)) ;;
    *) fail "exit $status after $pause s: $(cat output)" ;;
    esac
    [ -z "$(ls -A place)" ] || fail "left in TMPDIR after $pause s: $(ls -AR place)"
done
echo "base files and ablation as expected, $interrupted runs interrupted"

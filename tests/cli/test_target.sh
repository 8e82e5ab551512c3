#!/usr/bin/env bash
# Sizes that were asked for, and schemes that were asked for: --target-size is
# kept by what lies on the disk, in both forms; --tensor-type and --keep-embedding
# are honoured for every scheme and every kind of tensor, and the result runs;
# --dry-run tells what compress then does.
# Usage: test_target.sh PROGRAM
set -euo pipefail
novaq=$1
models=$(cd "$(dirname "$0")/../fixtures/model" && pwd)
export SOURCE_DATE_EPOCH=1700000000

fail() {
    echo "FAILED: $*" >&2
    exit 1
}
bytes_of() { find "$1" -type f -printf '%s\n' | awk '{s += $1} END {print s + 0}'; }
json() { # FILE EXPRESSION: prints what the expression over `r` gives
    python3 -c 'import json, sys; r = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$@"
}

# ---- sizes ---------------------------------------------------------------------
# within MODEL TARGET BYTES ARGUMENT...: never above the target, and not far below.
within() {
    local model=$1 target=$2 bytes=$3
    shift 3
    rm -rf out
    "$novaq" compress --input "$models/$model" --output out --target-size "$target" --quiet \
        "$@" >output 2>message || fail "$model $target $*: $(cat message)"
    local got
    got=$(bytes_of out)
    [ "$got" -le "$bytes" ] || fail "$model $target $*: $got bytes"
    [ "$got" -ge $((bytes * 85 / 100)) ] || fail "$model $target $*: only $got bytes"
    "$novaq" verify out --quiet >output || fail "$model $target $*: does not verify"
    echo "$model --target-size $target $*: $got bytes"
}
for form in "" --single-file; do
    for target in 52K 66000 80KB; do
        case $target in
            52K) bytes=53248 ;;
            80KB) bytes=80000 ;;
            *) bytes=$target ;;
        esac
        # shellcheck disable=SC2086 # nothing, if nothing
        within a.gguf $target $bytes --calibration none $form
    done
    # shellcheck disable=SC2086
    within a-hf 70kB 70000 --calibration none $form
    # shellcheck disable=SC2086
    within a.gguf 75kB 75000 --calibration self $form
    # shellcheck disable=SC2086
    within a.gguf 125kB 125000 --calibration none --keep-embedding $form
    # shellcheck disable=SC2086
    within a.gguf 95kB 95000 --calibration none --tensor-type embd=q8 --normalize paper $form
done

status=0
"$novaq" compress --input "$models/a.gguf" --output no --target-size 9000 --quiet 2>message ||
    status=$?
[ "$status" -eq 2 ] || fail "exit $status for an impossible size"
grep -q 'target size 9000 cannot be reached: the smallest codes make about' message ||
    fail "an impossible size: $(cat message)"
[ ! -e no ] || fail "an impossible size left something behind"
"$novaq" compress --input "$models/a.gguf" --output rich --target-size 10MB --quiet \
    --calibration none >output 2>message
grep -q 'target size of 10000000 bytes not used up' message || fail "no warning: $(cat message)"
[ "$(bytes_of rich)" -le 110000 ] || fail "more than 8 bits a weight"

# ---- schemes -------------------------------------------------------------------
tensors="token_embd.weight output.weight blk.0.attn_q.weight blk.1.ffn_down.weight"
for scheme in q8 f16 bf16 f32 raw k16d2l3 k8d1l2 k4d8l1 pq16x8d4 k256d8l1; do
    types=()
    for tensor in $tensors; do
        types+=(--tensor-type "^${tensor//./\\.}\$=$scheme")
    done
    rm -rf out
    "$novaq" compress --input "$models/a.gguf" --output out "${types[@]}" --target-bits 4 \
        --calibration none --quiet >output 2>message || fail "$scheme: $(cat message)"
    "$novaq" stats out --json >stats
    for tensor in $tensors; do
        got=$(json stats "r['layers']['$tensor']['scheme']")
        [ "$got" = "$scheme" ] || fail "$tensor: $got instead of $scheme"
    done
    "$novaq" eval out --perplexity "$models/text.txt" --n-ctx 16 --chunks 2 --quiet --json >eval ||
        fail "$scheme does not run"
    json eval "1 / (1 < r['perplexity'] < 1e6)" >/dev/null || fail "$scheme: $(cat eval)"
done
# The first match wins, and overrides beat --keep-embedding and --scheme.
"$novaq" compress --input "$models/a.gguf" --output mixed --keep-embedding --scheme k8d2l2 \
    --tensor-type 'token_embd=q8' --tensor-type 'attn_[qk]=k16d1l1' --tensor-type 'attn_=f16' \
    --calibration none --quiet >output
"$novaq" stats mixed --json >stats
for pair in token_embd=q8 output=raw blk.0.attn_q=k16d1l1 blk.1.attn_k=k16d1l1 blk.0.attn_v=f16 \
    blk.1.ffn_up=k8d2l2 blk.0.attn_norm=raw; do
    case $pair in *_norm=*) continue ;; esac
    got=$(json stats "r['layers']['${pair%=*}.weight']['scheme']")
    [ "$got" = "${pair#*=}" ] || fail "${pair%=*}: $got instead of ${pair#*=}"
done

# ---- plans ---------------------------------------------------------------------
plan=(compress --input "$models/a.gguf" --target-bits 2.5 --calibration none --quiet)
"$novaq" "${plan[@]}" --dry-run --json >plan
"$novaq" "${plan[@]}" --output planned --json >report
"$novaq" stats planned --json >stats
python3 - <<'END'
import json
plan, report, stats = (json.load(open(name)) for name in ("plan", "report", "stats"))
assert plan["warnings"] == [], plan["warnings"]
for name, layer in plan["layers"].items():
    assert layer["scheme"] == stats["layers"][name]["scheme"], name
    if layer["chosen_by"] == "statistics":
        assert layer["sensitivity"] > 0 and layer["expected_relative_error"] > 0, name
    else:
        assert layer["chosen_by"] == "rule" and "sensitivity" not in layer, name
planned = [l for l in plan["layers"].values() if l["chosen_by"] != "rule"]
assert sum(l["bytes"] for l in planned) == plan["budget_used"] <= plan["budget_bytes"]
damage = lambda e: e / (1 - e)  # error over what is left of the signal
cost = sum(l["sensitivity"] * damage(l["expected_relative_error"]) for l in planned)
assert abs(cost / plan["expected_cost"] - 1) < 1e-6
schemes = plan["schemes"].values()
assert sum(s["tensors"] for s in schemes) == len(plan["layers"])
assert sum(s["parameters"] for s in schemes) == plan["parameters"]
assert sum(s["bytes"] for s in schemes) == plan["tensor_bytes"]
assert 2.25 < plan["bits_per_weight_quantized"] <= 2.5
assert report["bytes"] <= plan["bytes"] <= 1.1 * report["bytes"], (plan["bytes"], report["bytes"])
END
"$novaq" "${plan[@]}" --dry-run >output
grep -q '^name .* rel. error  *sensitivity$' output || fail "no sensitivities: $(cat output)"
grep -q '^scheme  *tensors  *parameters  *bytes  *bits$' output || fail "no schemes: $(cat output)"
grep -q '^expected cost ' output || fail "no cost: $(cat output)"
echo "targets complete"

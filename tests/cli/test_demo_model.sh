#!/usr/bin/env bash
# The runtime on the demonstration model: perplexity as llama-perplexity has it,
# the same text for every number of threads. Skipped when the model is not here
# (tools/fetch_model.sh fetches it, and `make test` calls that).
# Usage: test_demo_model.sh PROGRAM
set -euo pipefail
novaq=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
model=${NOVAQ_BUILD:-$root/build}/model/SmolLM2-135M-Instruct.Q4_1.gguf
if [ ! -f "$model" ]; then
    echo "skipped: no $model"
    exit 77
fi

# llama-perplexity (llama.cpp of August 2026) on this model and text, -c 512
# --chunks 4: 25.1175. It rounds activations to 8 bits, novaq does not.
"$novaq" eval "$model" --perplexity "$root/examples/texts/time-machine.txt" --chunks 4 --json \
    --quiet >report
python3 - <<'END'
import json
r = json.load(open("report"))
assert abs(r["perplexity"] / 25.1175 - 1) < 0.001, r
assert (r["chunks"], r["tokens"]) == (4, 1020), r
print("perplexity", r["perplexity"])
END

for threads in 1 2 5; do
    "$novaq" run "$model" -p "The capital of France is" -n 12 --seed 7 --threads "$threads" \
        --quiet >"text-$threads"
    cmp text-1 "text-$threads"
done
"$novaq" run "$model" -p "The capital of France is" -n 8 --temperature 0 --quiet >greedy
grep -q Paris greedy

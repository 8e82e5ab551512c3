#!/usr/bin/env bash
# Measures the codec on Gaussian data and build/novaq on a real model. Writes
# bench/codec.md, bench/results.md, bench/results.csv and, between their markers,
# docs/METHOD.md. About 25 minutes on two cores.
# Usage: bench/results.sh [MODEL]   (default: the demonstration model)
# NOVAQ_TEXT=FILE and NOVAQ_CHUNKS=N choose the text and how much of it.
set -euo pipefail
cd "$(dirname "$0")/.."

novaq=build/novaq
model=${1:-$(tools/fetch_model.sh)}
text=${NOVAQ_TEXT:-examples/texts/time-machine.txt}
chunks=${NOVAQ_CHUNKS:-10}
work=build/bench
mkdir -p "$work"
rm -f "$work"/*.json

# One artifact: compress, measure, keep the reports, drop the artifact.
row() { # NAME COMPRESS-OPTIONS...
    local name=$1 out=$work/artifact
    shift
    echo "bench: $name" >&2
    rm -rf "$out"
    "$novaq" compress --input "$model" --output "$out" --quiet --json "$@" >/dev/null
    "$novaq" stats "$out" --json >"$work/$name.stats.json"
    "$novaq" eval "$out" --perplexity "$text" --chunks "$chunks" --against "$model" --quiet \
        --json >"$work/$name.eval.json"
    rm -rf "$out"
}

"$novaq" bench --codec --json --quiet >"$work/codec.json"
"$novaq" stats "$model" --json >"$work/source.stats.json"
"$novaq" eval "$model" --perplexity "$text" --chunks "$chunks" --quiet --json \
    >"$work/source.eval.json"
row "planner-4" --target-bits 4
row "planner-3" --target-bits 3
row "planner-2" --target-bits 2
row "planner-1.5" --target-bits 1.5
row "k16d1l2-linear" --scheme k16d1l2 --keep-embedding
row "paper-16x8" --target-bits 1.5 --level1-centroids 16 --level2-centroids 8

python3 bench/results.py "$work" "$(basename "$model")" "$(basename "$text")" "$chunks"
python3 bench/quote.py bench/results.md docs/METHOD.md settings
python3 bench/quote.py bench/codec.md docs/METHOD.md
if command -v gnuplot >/dev/null; then
    gnuplot bench/results.gp
fi

#!/usr/bin/env bash
# `make demo`: a real model, compressed to 4 bits per weight, measured against
# the original and run. Needs the network once, for the model.
# BITS=2 tools/demo.sh shows another size.
set -euo pipefail
cd "$(dirname "$0")/.."

novaq=build/novaq
bits=${BITS:-4}
text=examples/texts/time-machine.txt
out=build/demo/smollm2-${bits}bit
chunks=16

say() { printf '\n== %s\n' "$*"; }
# Prints a format string filled from a JSON report.
show() { # REPORT FORMAT
    python3 -c 'import json, sys; print(sys.argv[2].format(**json.load(open(sys.argv[1]))))' "$@"
}

say "fetching SmolLM2-135M-Instruct"
model=$(tools/fetch_model.sh)
echo "$model ($(stat -c %s "$model") bytes)"
mkdir -p build/demo
rm -rf "$out"

say "compressing to $bits bits per weight"
started=$SECONDS
# Fewer tokens than by default keep the demonstration short.
"$novaq" compress --input "$model" --output "$out" --target-bits "$bits" --calibration-tokens 4096
echo "took $((SECONDS - started)) s"
"$novaq" verify "$out" --quiet >build/demo/verify.txt
echo "verified: every hash holds, every layer decodes"

say "size"
"$novaq" stats "$out" --json >build/demo/stats.json
show build/demo/stats.json '{bytes} bytes on disk, {bits_per_weight:.3f} bits/weight over all tensors
{ratio_fp16:.2f} times smaller than FP16, {ratio_fp32:.2f} times smaller than FP32'

say "quality, on $chunks windows of $text"
"$novaq" eval "$model" --perplexity "$text" --chunks "$chunks" --json >build/demo/original.json
show build/demo/original.json 'original:   perplexity {perplexity:.3f} +- {perplexity_stderr:.3f}'
"$novaq" eval "$out" --perplexity "$text" --chunks "$chunks" --against "$model" --json \
    >build/demo/compressed.json
show build/demo/compressed.json 'compressed: perplexity {perplexity:.3f} +- {perplexity_stderr:.3f}
KL divergence from the original {mean_kld:.4f} nat, same likeliest token {same_top}'

prompt="The three most important inventions in history are"
for which in "$model" "$out"; do
    say "$(basename "$which") continues: $prompt"
    "$novaq" run "$which" -p "$prompt" -n 48 --temperature 0 --quiet
done

say "done in $SECONDS s; the artifact is $out"

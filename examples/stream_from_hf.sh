#!/usr/bin/env bash
# A model of the Hugging Face Hub, compressed while it arrives, looked at, checked and
# run: a complete demonstration. Nothing of the original is stored on the disk. Call it
# again after an interruption and it goes on where it stopped.
# Usage: stream_from_hf.sh [REPO] [BITS] [PROMPT]
# Environment: NOVAQ (the program), OUTPUT (folder of the result), HF_TOKEN (for private
# and gated models), HF_ENDPOINT (another hub), CALIBRATION (self, none or a text file)
set -euo pipefail

novaq=${NOVAQ:-novaq}
repo=${1:-HuggingFaceTB/SmolLM2-135M-Instruct}
bits=${2:-4}
prompt=${3:-The capital of France is}
output=${OUTPUT:-./$(basename "$repo")-novaq}

say() { printf '\n== %s\n' "$*"; }

say "what $repo is: only headers and configuration are fetched"
"$novaq" info "hf://$repo" | sed -n 1,20p

say "the plan: which scheme each tensor gets, and the size"
"$novaq" compress --input "hf://$repo" --target-bits "$bits" --calibration none --dry-run |
    tail -n 12

say "compress, streaming; a line for each tensor goes to $output.jsonl"
mkdir -p "$(dirname "$output")"
"$novaq" compress --input "hf://$repo" --output "$output" --target-bits "$bits" \
    --calibration "${CALIBRATION:-auto}" --json-lines >"$output.jsonl"
grep -c '^{"tensor"' "$output.jsonl" | sed 's/$/ tensors/'

say "every byte checked"
"$novaq" verify "$output" --quiet

say "size and error"
"$novaq" stats "$output" | tail -n 9
if command -v gnuplot >/dev/null; then
    "$novaq" stats "$output" --plot "$output.png" >/dev/null
    echo "picture          $output.png"
fi

say "$prompt ..."
"$novaq" run "$output" --prompt "$prompt" --max-tokens 32 --temperature 0
echo

#!/usr/bin/env bash
# Compresses a model and continues a prompt with the result.
# Usage: compress_and_run.sh MODEL BITS [PROMPT]
set -euo pipefail

[ $# -ge 2 ] || {
    echo "usage: compress_and_run.sh MODEL BITS [PROMPT]" >&2
    exit 2
}
novaq=${NOVAQ:-novaq}
model=$1
bits=$2
prompt=${3:-Once upon a time}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$novaq" compress --input "$model" --output "$folder/small" --target-bits "$bits"
"$novaq" stats "$folder/small"
"$novaq" run "$folder/small" --prompt "$prompt" --max-tokens 64

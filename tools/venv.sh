#!/usr/bin/env bash
# Makes build/venv, and installs the packages of a requirements file into it.
# Idempotent: does nothing when that file was installed before, unchanged.
# Usage: tools/venv.sh [REQUIREMENTS]   (prints the path of the interpreter)
set -euo pipefail
cd "$(dirname "$0")/.."

venv=build/venv
python="$PWD/$venv/bin/python"
if ! "$python" -m pip --version >/dev/null 2>&1; then
    mkdir -p build
    rm -rf "$venv"
    if ! python3 -m venv "$venv" >build/venv.log 2>&1; then
        cat build/venv.log >&2
        echo "venv: python3 cannot make a virtual environment; install python3-venv" >&2
        exit 1
    fi
fi
if [ $# -eq 1 ]; then
    stamp="$venv/installed-$(basename "$1")"
    if ! cmp -s "$1" "$stamp"; then
        echo "venv: installing $(grep -vc '^ *#' "$1") packages of $1" >&2
        "$python" -m pip install --quiet --disable-pip-version-check -r "$1" >&2
        cp "$1" "$stamp"
    fi
fi
echo "$python"

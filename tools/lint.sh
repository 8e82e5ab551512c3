#!/usr/bin/env bash
# `make lint`: formatting, clang-tidy, layering, style. All findings, then one
# verdict.
set -uo pipefail
cd "$(dirname "$0")/.."

failed=0
step() { # NAME COMMAND...
    local name=$1
    shift
    if "$@"; then
        echo "lint: $name ok"
    else
        echo "lint: $name FAILED"
        failed=1
    fi
}

format() {
    git ls-files -co --exclude-standard -- '*.c' '*.h' | xargs -r clang-format --dry-run -Werror
}

# One clang-tidy per file of the compilation database, JOBS at a time.
tidy() {
    cmake --preset release --log-level=WARNING >/dev/null || return 1
    python3 - <<'END' | xargs -r -0 -n 1 -P "${JOBS:-2}" clang-tidy -p build --quiet 2>/dev/null |
import json, os
root = os.getcwd() + "/"
files = {e["file"] for e in json.load(open("build/compile_commands.json"))}
for f in sorted(files):
    if f.startswith((root + "src/", root + "cli/", root + "examples/")):
        print(f[len(root):], end="\0")
END
        tee build/clang-tidy.log
    [ "${PIPESTATUS[1]}" -eq 0 ]
}

step format format
step layers python3 tools/check_layers.py
step style python3 tools/check_style.py
step headers tools/check_headers.sh
step clang-tidy tidy
if [ "$failed" -eq 0 ]; then
    echo "lint: clean"
else
    echo "lint: not clean"
fi
exit "$failed"

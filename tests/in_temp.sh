#!/usr/bin/env bash
# Runs a test command inside a fresh temporary folder, which is its working
# directory and its TMPDIR, and removes the folder afterwards.
set -uo pipefail
folder=$(mktemp -d "${TMPDIR:-/tmp}/novaq-test.XXXXXX")
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
cd "$folder" || exit 1
TMPDIR=$folder "$@"

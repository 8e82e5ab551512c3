#!/usr/bin/env bash
# Builds the kernels for AArch64 and runs neon_check.c, under qemu-user where this
# machine is another one. Exit status 77 (skipped) only where there is no compiler
# for it. Debian packages: gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

run=()
if [ "$(uname -m)" = aarch64 ]; then
  cc=${CC:-cc}
else
  cc=aarch64-linux-gnu-gcc
  if ! command -v "$cc" >/dev/null; then
    echo "skipped: $cc is not installed (Debian: gcc-aarch64-linux-gnu qemu-user)"
    exit 77
  fi
  qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static || true)
  if [ -z "$qemu" ]; then
    echo "qemu-aarch64 is missing beside $cc (Debian: qemu-user)" >&2
    exit 1
  fi
  run=("$qemu")
fi

cd "$root"
"$cc" -std=c11 -D_GNU_SOURCE -O3 -static -ffp-contract=off -fno-math-errno \
  -Wall -Wextra -Wshadow -Wconversion -Wvla -Wstrict-prototypes -Wmissing-prototypes -Werror \
  -Iinclude -Isrc tests/tools/neon_check.c src/kern/*.c src/base/cpu.c src/base/half.c src/base/rng.c \
  -lm -o "$work/neon_check"
"${run[@]}" "$work/neon_check"

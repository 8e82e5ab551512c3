#!/usr/bin/env bash
# Installs the Debian packages novaq needs, if any is missing. Quick and silent
# when all are there. Usage: tools/deps.sh [--test | --lint | --fuzz] (adds what
# the tests of NEON, of a registry and of pictures need, that and the lint tools, or
# what libFuzzer needs)
set -euo pipefail

packages=(
    cmake ninja-build gcc libc6-dev pkg-config
    libcurl4-openssl-dev libjansson-dev libpcre2-dev libutf8proc-dev
    libopenblas-dev libssl-dev zlib1g-dev
    libcmocka-dev python3 python3-venv b3sum
    ca-certificates unzip
)
# The NEON kernels are compiled and run on other machines, too.
neon=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)
[ "$(uname -m)" != aarch64 ] || neon=()
# A real registry for ollama:// and the program that --plot calls.
tests=(docker-registry gnuplot-nox)
case "${1:-}" in
--test) packages+=("${neon[@]}" "${tests[@]}") ;;
--lint) packages+=("${neon[@]}" "${tests[@]}" clang-format clang-tidy) ;;
--fuzz) packages+=(clang-14 libclang-rt-14-dev llvm-14) ;;
"") ;;
*)
    echo "usage: tools/deps.sh [--test | --lint | --fuzz]" >&2
    exit 2
    ;;
esac

if ! command -v dpkg-query >/dev/null; then
    echo "deps: not a Debian system; make sure the equivalents of these are installed:" >&2
    echo "  ${packages[*]}" >&2
    exit 0
fi

# One query for all; a package dpkg never heard of is simply absent from the list.
installed=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Provides}\n' 2>/dev/null |
    sed -n 's/^ii *//p' | tr -d ',' | tr ' ' '\n' | sort -u)
missing=()
for package in "${packages[@]}"; do
    grep -qxF -- "$package" <<<"$installed" || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo)
    # Without a terminal sudo must not need a password.
    if ! command -v sudo >/dev/null || { [ ! -t 0 ] && ! sudo -n true 2>/dev/null; }; then
        echo "deps: missing packages; as root, run:" >&2
        echo "  apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
fi

echo "deps: installing ${missing[*]}" >&2
install=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends)
# The package lists may be absent or stale: try, refresh, try again.
if ! "${as_root[@]}" "${install[@]}" "${missing[@]}" >/dev/null 2>&1; then
    "${as_root[@]}" apt-get -q update
    "${as_root[@]}" "${install[@]}" "${missing[@]}"
fi

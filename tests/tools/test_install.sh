#!/usr/bin/env bash
# An installation is complete: the program runs, the example of docs/API.md
# compiles with pkg-config alone against the shared and the static library, only
# novaq_ symbols are exported, man page and completions are there.
# Usage: test_install.sh BUILD_FOLDER (working directory: a temporary folder)
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
prefix=$PWD/prefix

DESTDIR='' cmake --install "$1" --prefix "$prefix" >install.log
version=$("$prefix/bin/novaq" --version)
case $version in
*0.1.0*) ;;
*)
    echo "unexpected version: $version"
    exit 1
    ;;
esac

libdir=$(dirname "$(find "$prefix" -name libnovaq.so)")
# The .pc file names the configured prefix; this installation lies elsewhere.
mkdir pc
sed -e "s|^libdir=.*|libdir=$libdir|" -e "s|^includedir=.*|includedir=$prefix/include|" \
    "$libdir/pkgconfig/novaq.pc" >pc/novaq.pc
export PKG_CONFIG_PATH=$PWD/pc

runs() { # PROGRAM: refuses to run without arguments, and names a missing file
    local status=0
    "$1" 2>message || status=$?
    [ "$status" -eq 2 ] && grep -q usage message
    status=0
    "$1" no-such-model no-such-text 2>message || status=$?
    [ "$status" -eq 1 ] && grep -q no-such message
}

warnings="-std=c11 -Wall -Wextra -Wconversion -Werror"
# shellcheck disable=SC2046,SC2086
gcc $warnings "$root/examples/perplexity.c" $(pkg-config --cflags --libs novaq) -o shared
LD_LIBRARY_PATH=$libdir runs ./shared
# shellcheck disable=SC2046,SC2086
gcc $warnings "$root/examples/perplexity.c" $(pkg-config --cflags novaq) "$libdir/libnovaq.a" \
    $(pkg-config --libs jansson libcrypto libpcre2-8 libutf8proc openblas zlib libcurl) \
    -lm -lpthread -o static
runs ./static

nm -D --defined-only "$libdir/libnovaq.so" | awk '{print $3}' | grep -v '^novaq_' >alien || true
if [ -s alien ]; then
    echo "libnovaq.so exports more than its API:"
    cat alien
    exit 1
fi

for file in share/man/man1/novaq.1 share/bash-completion/completions/novaq \
    share/zsh/site-functions/_novaq share/fish/vendor_completions.d/novaq.fish include/novaq.h; do
    if [ ! -s "$prefix/$file" ]; then
        echo "not installed: $file"
        exit 1
    fi
done
echo "installation complete"

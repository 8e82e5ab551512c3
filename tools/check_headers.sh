#!/usr/bin/env bash
# Every header compiles alone and twice in one unit: the public one as strict
# C11 and, where g++ is installed, as C++; the internal ones as C11.
set -euo pipefail
cd "$(dirname "$0")/.."

cc=${CC:-gcc}
warnings=(-Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Werror)
libraries=$(pkg-config --cflags jansson libcrypto libcurl libpcre2-8 libutf8proc openblas zlib)
count=0
failed=0

alone() { # HEADER COMPILER...
    local header=$1
    shift
    count=$((count + 1))
    if ! printf '#include "%s"\n#include "%s"\nextern int after;\nint after;\n' "$header" "$header" |
        "$@" -fsyntax-only -; then
        echo "headers: $header does not compile alone with: $*" >&2
        failed=$((failed + 1))
    fi
}

for header in include/*.h; do
    alone "${header#include/}" "$cc" -std=c11 -pedantic-errors "${warnings[@]}" -Iinclude -x c
    if command -v g++ >/dev/null; then
        alone "${header#include/}" g++ -std=c++11 -pedantic-errors -Wall -Wextra -Werror -Iinclude -x c++
    fi
done
for header in src/*/*.h cli/*.h; do
    [ -f "$header" ] || continue
    # A file that says so is a body, included several times on purpose.
    grep -q '^ \* Included more than once' "$header" && continue
    # shellcheck disable=SC2086
    alone "${header#src/}" "$cc" -std=c11 -D_GNU_SOURCE "${warnings[@]}" $libraries \
        -Iinclude -Isrc -I. -Icli -x c
done
echo "headers: $count compiled alone, $failed failed"
[ "$failed" -eq 0 ]

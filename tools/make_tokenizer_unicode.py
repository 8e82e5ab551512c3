#!/usr/bin/env python3
"""Writes src/model/tokenizer_unicode.c from what Hugging Face `tokenizers` does.

The library uses three Unicode versions at once: its regex engine (16 in
tokenizers 0.23), Rust's char::is_numeric in Digits (17), its Punctuation and its
NFC tables (9).
Every code point is probed, so that novaq's libraries, whatever their version,
can be corrected to the same answers. Needs tokenizers and a Python whose
unicodedata is version 14 (the oldest that the supported PCRE2 knows).

usage: make_tokenizer_unicode.py > src/model/tokenizer_unicode.c
"""
import sys
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

BASE = "14.0.0"
CODES = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
KINDS = [("Lu", "UP"), ("Ll", "LO"), ("Lm", "LM"), ("Lo", "OL"), ("N", "NU"), ("M", "MA"),
         ("P", "PU"), ("S", "SY")]


def members(prop):
    split = pre_tokenizers.Split(Regex(r"\p{%s}" % prop), "removed")
    return {c for c in CODES if not split.pre_tokenize_str(chr(c))}


def ranges(codes):
    out = []
    for c in sorted(codes):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def corrections():
    """Code points whose class depends on the Unicode version: assigned after
    BASE, or unassigned in the regex engine's version."""
    new = {c for c in CODES if unicodedata.category(chr(c)) == "Cn"}
    rows = []
    known = set()
    for prop, kind in KINDS:
        fresh = members(prop) & new
        known |= fresh
        rows += [(a, b, kind) for a, b in ranges(fresh)]
    # U+180E: a space for PCRE2's \s, not for Unicode since 6.3.
    rows += [(a, b, "NO") for a, b in ranges((new - known) | {0x180E})]
    return sorted(rows)


def numerics():
    digits = pre_tokenizers.Digits(individual_digits=True)
    return [(a, b) for a, b in ranges(
        c for c in CODES if len(digits.pre_tokenize_str("a" + chr(c) + "a")) == 3)]


def punctuation():
    punct = pre_tokenizers.Punctuation("removed")
    return ranges(c for c in CODES if not punct.pre_tokenize_str(chr(c)))


def inert():
    """Marks that the library's older NFC tables take for plain starters."""
    nfc = normalizers.NFC()
    found = {0x11930}  # composes with U+11935 in Unicode 13, unknown to version 9
    for c in CODES:
        ch = chr(c)
        for s in (ch, "a" + ch + "\u0323", "a" + ch + "\u0301", "a\u0345" + ch,
                  "\u0313" + ch, ch + "\u0301", ch + "\u093c"):
            if nfc.normalize_str(s) != unicodedata.normalize("NFC", s):
                found.add(c)
    return ranges(found)


def table(rows):
    line = "   "
    for row in rows:
        cell = " {" + ", ".join(r if isinstance(r, str) else hex(r) for r in row) + "},"
        if len(line) + len(cell) > 100:
            print(line)
            line = "   "
        line += cell
    print(line)


def main():
    if unicodedata.unidata_version != BASE:
        sys.exit(f"needs a Python with Unicode {BASE}, this one has {unicodedata.unidata_version}")
    print(HEAD)
    print("/* clang-format off */")
    print("static const class_range corrections[] = {")
    table(corrections())
    print("};\n\nstatic const code_range numerics[] = {")
    table(numerics())
    print("};\n\nstatic const code_range punctuation[] = {")
    table(punctuation())
    print("};\n\nstatic const code_range inert[] = {")
    table(inert())
    print("};\n/* clang-format on */\n")
    print(TAIL)


HEAD = """\
/* tokenizer_unicode.c - Unicode as Hugging Face `tokenizers` sees it.
 *
 * Owns: the corrections that make any version of PCRE2 and utf8proc agree with
 * the reference: its regex engine follows Unicode 16, its Digits splitter 17,
 * its NFC 9 and its Punctuation splitter something older still. Tables written by
 * tools/make_tokenizer_unicode.py, which probes the reference code point by code
 * point; edit that, not this.
 */
#include "model/tokenizer_impl.h"

typedef struct code_range {
    uint32_t first, last; /* inclusive */
} code_range;

typedef struct class_range {
    uint32_t first, last;
    uint8_t kind;
} class_range;

enum { NO, UP, LO, LM, OL, NU, MA, PU, SY };
"""

TAIL = """\
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Stand-ins by kind, of 2 (never needed but for NO), 3 and 4 UTF-8 bytes: code
 * points of the same class that every supported library knows. */
static const uint32_t stand_ins[][2] = {
    {0xFFFE, 0x1FFFE}, {0xA640, 0x10400}, {0xA641, 0x10428}, {0x3005, 0x16B40}, {0xA000, 0x20000},
    {0x3007, 0x104A0}, {0x0900, 0x11000}, {0x2010, 0x10100}, {0x2200, 0x1F300}};

uint32_t nq_unicode_stand_in(uint32_t cp) {
    size_t lo = 0;
    size_t hi = COUNT(corrections);
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (corrections[mid].last < cp) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    if (lo == COUNT(corrections) || cp < corrections[lo].first) {
        return cp;
    }
    if (cp < 0x800) {
        return 0x81;
    }
    return stand_ins[corrections[lo].kind][cp >= 0x10000];
}

static bool contains(const code_range *t, size_t count, uint32_t cp) {
    size_t lo = 0;
    size_t hi = count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (t[mid].last < cp) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < count && cp >= t[lo].first;
}

bool nq_unicode_is_numeric(uint32_t cp) {
    if (cp < 0x80) {
        return cp >= '0' && cp <= '9';
    }
    return contains(numerics, COUNT(numerics), cp);
}

bool nq_unicode_is_punctuation(uint32_t cp) {
    return contains(punctuation, COUNT(punctuation), cp);
}

bool nq_unicode_is_inert(uint32_t cp) {
    return cp >= 0x7FD && (contains(inert, COUNT(inert), cp) || nq_unicode_stand_in(cp) != cp);
}

unsigned nq_utf8_next(const uint8_t *s, size_t len, uint32_t *cp) {
    uint8_t b = s[0];
    *cp = b;
    if (b < 0x80) {
        return 1;
    }
    unsigned n = b >= 0xF0 ? 4 : b >= 0xE0 ? 3 : 2;
    if (b < 0xC2 || b > 0xF4 || len < n) {
        return 0;
    }
    uint32_t v = b & (0x7FU >> n);
    for (unsigned i = 1; i < n; i++) {
        if ((s[i] & 0xC0U) != 0x80U) {
            return 0;
        }
        v = v << 6 | (s[i] & 0x3FU);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (v < least[n] || v > 0x10FFFF || (v >= 0xD800 && v < 0xE000)) {
        return 0;
    }
    *cp = v;
    return n;
}

unsigned nq_utf8_put(uint8_t *dst, uint32_t cp) {
    if (cp < 0x80) {
        dst[0] = (uint8_t)cp;
        return 1;
    }
    unsigned n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (unsigned i = n - 1; i > 0; i--) {
        dst[i] = (uint8_t)(0x80U | (cp & 0x3FU));
        cp >>= 6;
    }
    dst[0] = (uint8_t)((0xF00U >> n & 0xFFU) | cp);
    return n;
}"""

if __name__ == "__main__":
    main()

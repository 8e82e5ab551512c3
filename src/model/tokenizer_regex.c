/* tokenizer_regex.c - patterns of the reference's regex engine, run by PCRE2.
 *
 * Owns: the subset of Oniguruma's Ruby syntax that PCRE2 reads and matches the
 * same way. Refuses: the rest, naming it: what the two spell differently (\h, \v,
 * nested and intersected classes, possessive and reluctant intervals), what
 * depends on a version of Unicode beyond the general categories (\d, \w, \b,
 * scripts), look-behind, back references, and case folding of letter pairs that
 * have a ligature.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "model/tokenizer_impl.h"

#define PATTERN_MAX 4096

typedef struct scan {
    const char *pattern;
    size_t at, len;
    unsigned depth;
    uint64_t folds; /* bit: the group at that depth ignores case */
    nq_literals *lit;
    novaq_error *err;
} scan;

static novaq_status refuse(const scan *s, const char *what) {
    return nq_fail(s->err, NOVAQ_E_UNSUPPORTED,
                   "tokenizer: pre_tokenizer pattern: %s at byte %zu of %.120s", what, s->at,
                   s->pattern);
}

static bool starts(const scan *s, const char *text) {
    return strncmp(s->pattern + s->at, text, strlen(text)) == 0;
}

static novaq_status add_literal(scan *s, uint32_t first, uint32_t last) {
    if (last < 0x80) {
        return NOVAQ_OK;
    }
    nq_literals *l = s->lit;
    NQ_TRY(nq_grow(&l->ranges, l->count, l->count + 1, sizeof *l->ranges, s->err));
    l->ranges[l->count][0] = first;
    l->ranges[l->count][1] = last;
    l->count++;
    return NOVAQ_OK;
}

/* \p{...}: general categories that the reference and PCRE2, helped by the
 * stand-ins of tokenizer_unicode.c, agree on. */
static novaq_status property(scan *s) {
    static const char *const names[] = {"{L}",  "{Lu}", "{Ll}", "{Lt}", "{Lm}",
                                        "{Lo}", "{M}",  "{N}",  "{P}",  "{S}"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (starts(s, names[i])) {
            s->at += strlen(names[i]);
            return NOVAQ_OK;
        }
    }
    return refuse(s, "a Unicode property other than L, Lu, Ll, Lt, Lm, Lo, M, N, P and S");
}

/* After a backslash. *cp: the one character it stands for, UINT32_MAX for a set. */
static novaq_status escape(scan *s, uint32_t *cp) {
    char c = s->pattern[s->at];
    *cp = UINT32_MAX;
    if (c == '\0') {
        return refuse(s, "a trailing backslash");
    }
    s->at++;
    if (c == 'p' || c == 'P') {
        return property(s);
    }
    if (c == 's' || c == 'S') {
        return NOVAQ_OK;
    }
    if (c == 'r' || c == 'n' || c == 't' || c == 'f') {
        *cp = c == 'r' ? '\r' : c == 'n' ? '\n' : c == 't' ? '\t' : '\f';
        return NOVAQ_OK;
    }
    bool sign = c > 0x20 && c < 0x7F && !(c >= '0' && c <= '9') && !(c >= 'A' && c <= 'Z') &&
                !(c >= 'a' && c <= 'z');
    *cp = (unsigned char)c;
    return sign ? NOVAQ_OK : refuse(s, "an escape whose meaning is not known");
}

static novaq_status character(scan *s, uint32_t *cp) {
    unsigned n = nq_utf8_next((const uint8_t *)s->pattern + s->at, s->len - s->at, cp);
    s->at += n;
    return n > 0 ? NOVAQ_OK : refuse(s, "bytes that are not UTF-8");
}

static novaq_status member(scan *s, uint32_t *cp) {
    if (starts(s, "[")) {
        return refuse(s, "a class within a class");
    }
    if (starts(s, "&&")) {
        return refuse(s, "an intersection of classes");
    }
    if (starts(s, "\\")) {
        s->at++;
        return escape(s, cp);
    }
    return character(s, cp);
}

/* After "[". */
static novaq_status class(scan *s) {
    s->at += starts(s, "^");
    if (starts(s, "]")) {
        return refuse(s, "an empty class");
    }
    while (!starts(s, "]")) {
        uint32_t first = 0;
        if (s->at >= s->len) {
            return refuse(s, "an unfinished class");
        }
        NQ_TRY(member(s, &first));
        uint32_t last = first;
        if (starts(s, "-") && s->pattern[s->at + 1] != ']' && s->at + 1 < s->len) {
            s->at++;
            NQ_TRY(member(s, &last));
            if (first == UINT32_MAX || last == UINT32_MAX || last < first) {
                return refuse(s, "a range without two ends");
            }
        }
        if (first != UINT32_MAX) {
            NQ_TRY(add_literal(s, first, last));
        }
    }
    s->at++;
    return NOVAQ_OK;
}

/* At "{": {n}, {n,} or {n,m}, and not followed by what changes its meaning. */
static novaq_status interval(scan *s) {
    size_t digits[2] = {0, 0};
    size_t i = s->at + 1;
    unsigned part = 0;
    for (; i < s->len && s->pattern[i] != '}'; i++) {
        if (s->pattern[i] == ',' && part == 0) {
            part = 1;
        } else if (s->pattern[i] >= '0' && s->pattern[i] <= '9' && digits[part] < 4) {
            digits[part]++;
        } else {
            return refuse(s, "a brace that begins no interval");
        }
    }
    if (i >= s->len || digits[0] == 0) {
        return refuse(s, "a brace that begins no interval");
    }
    s->at = i + 1;
    if (starts(s, "+") || starts(s, "?") || starts(s, "*") || starts(s, "{")) {
        return refuse(s, "an interval that is quantified again");
    }
    return NOVAQ_OK;
}

/* After "(". */
static novaq_status open_group(scan *s) {
    bool folds = (s->folds >> s->depth & 1) != 0;
    if (starts(s, "?")) {
        static const char *const kinds[] = {"?:", "?=", "?!", "?i:"};
        size_t i = 0;
        while (i < 4 && !starts(s, kinds[i])) {
            i++;
        }
        if (i == 4) {
            return refuse(s, "a group other than (...), (?:...), (?i:...), (?=...) and (?!...)");
        }
        s->at += strlen(kinds[i]);
        folds = folds || i == 3;
    }
    if (s->depth == 32) {
        return refuse(s, "too many groups within each other");
    }
    s->depth++;
    s->folds = (s->folds & ~((uint64_t)1 << s->depth)) | (uint64_t)folds << s->depth;
    return NOVAQ_OK;
}

/* Letters that ignore case: only ASCII, and no pair that folds to one character. */
static novaq_status folded(const scan *s, uint32_t cp) {
    static const char *const pairs[] = {"ff", "fi", "fl", "ss", "st"};
    if (cp >= 0x80 || starts(s, "i")) {
        return refuse(s, "case folding of other than plain letters");
    }
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        if (starts(s, pairs[i])) {
            return refuse(s, "case folding of letters that have a ligature");
        }
    }
    return NOVAQ_OK;
}

static novaq_status one(scan *s) {
    uint32_t cp = 0;
    switch (s->pattern[s->at]) {
    case '[': s->at++; return class(s);
    case '(': s->at++; return open_group(s);
    case ')':
        if (s->depth == 0) {
            return refuse(s, "a parenthesis too many");
        }
        s->depth--;
        s->at++;
        return NOVAQ_OK;
    case '{': return interval(s);
    case '\\':
        s->at++;
        NQ_TRY(escape(s, &cp));
        return cp == UINT32_MAX ? NOVAQ_OK : add_literal(s, cp, cp);
    default: break;
    }
    if ((s->folds >> s->depth & 1) != 0) {
        NQ_TRY(folded(s, (unsigned char)s->pattern[s->at]));
    }
    NQ_TRY(character(s, &cp));
    return add_literal(s, cp, cp);
}

static novaq_status check(const char *pattern, nq_literals *lit, novaq_error *err) {
    scan s = {.pattern = pattern, .len = strlen(pattern), .lit = lit, .err = err};
    if (s.len > PATTERN_MAX) {
        return refuse(&s, "too long a pattern");
    }
    while (s.at < s.len) {
        NQ_TRY(one(&s));
    }
    return s.depth == 0 ? NOVAQ_OK : refuse(&s, "an unfinished group");
}

novaq_status nq_regex_compile(pcre2_code **out, nq_literals *lit, const char *pattern, bool literal,
                              novaq_error *err) {
    int code = 0;
    PCRE2_SIZE at = 0;
    *out = NULL;
    if (literal) {
        size_t len = strlen(pattern);
        scan s = {.pattern = pattern, .len = len, .lit = lit, .err = err};
        while (s.at < len) {
            uint32_t cp = 0;
            NQ_TRY(character(&s, &cp));
            NQ_TRY(add_literal(&s, cp, cp));
        }
    } else {
        NQ_TRY(check(pattern, lit, err));
    }
    /* A match of it can only begin where a run of white space does; said so, it
     * does not take time quadratic in the run. */
    if (!literal && strcmp(pattern, "\\s+$") == 0) {
        pattern = "(?<!\\s)\\s+$";
    }
    pcre2_compile_context *cc = pcre2_compile_context_create(NULL);
    if (cc == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "no memory for the pre-tokenizer");
    }
    (void)pcre2_set_newline(cc, PCRE2_NEWLINE_LF);
    *out = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                         PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE), &code,
                         &at, cc);
    pcre2_compile_context_free(cc);
    if (*out == NULL) {
        PCRE2_UCHAR why[128] = {0};
        (void)pcre2_get_error_message(code, why, sizeof why);
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "tokenizer: PCRE2 cannot compile a pre_tokenizer pattern (offset %zu: %s): "
                       "%.120s",
                       at, why, pattern);
    }
    /* Where there is no JIT the interpreter gives the same matches. */
    (void)pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE);
    return NOVAQ_OK;
}

/* template_lex.c - the text of a template as tokens.
 *
 * Owns: white space control (-, +, trim_blocks, lstrip_blocks), comments, raw
 * blocks, string escapes. Refuses: bytes that are not UTF-8, U+0000. */
#include <string.h>

#include "model/template_impl.h"
#include "model/utf8.h"

typedef struct lexer {
    nq_tarena *arena;
    const char *s; /* normalized source */
    size_t n, at;
    uint32_t line;
    bool line_start; /* the last token ended with a line feed */
    nq_ttoken *tokens;
    size_t count, cap;
    novaq_error *err;
} lexer;

static novaq_status bad(const lexer *x, const char *what) {
    return nq_fail(x->err, NOVAQ_E_FORMAT, "chat template, line %u: %s", x->line, what);
}

static novaq_status push(lexer *x, int kind, const char *p, size_t n) {
    if (x->count == x->cap) {
        nq_ttoken *more = NULL;
        size_t cap = x->cap == 0 ? 64 : 2 * x->cap;
        NQ_TRY(nq_tarena_get(&more, x->arena, cap, sizeof *more, x->err));
        if (x->count > 0) {
            memcpy(more, x->tokens, x->count * sizeof *more);
        }
        x->tokens = more;
        x->cap = cap;
    }
    x->tokens[x->count++] = (nq_ttoken){.kind = kind, .line = x->line, .str = {p, n}};
    return NOVAQ_OK;
}

/* Steps over n bytes, counting lines. */
static void advance(lexer *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        x->line += x->s[x->at + i] == '\n';
    }
    x->at += n;
    if (n > 0) {
        x->line_start = x->s[x->at - 1] == '\n';
    }
}

/* Bytes of white space at position at. */
static size_t spaces(const lexer *x, size_t at) {
    const char *p = x->s + at;
    const char *end = x->s + x->n;
    while (p < end) {
        const char *q = p;
        if (!nq_tu_space(nq_tu_next(&q, end))) {
            break;
        }
        p = q;
    }
    return (size_t)(p - (x->s + at));
}

static bool looking_at(const lexer *x, size_t at, const char *what) {
    size_t n = strlen(what);
    return at <= x->n && x->n - at >= n && memcmp(x->s + at, what, n) == 0;
}

/* Length of a word tag's inside from `at` (after "{%"): sign, spaces, word,
 * spaces; 0 when it is something else. *sign is '-', '+' or 0. */
static size_t word_tag(const lexer *x, size_t at, const char *word, char *sign) {
    size_t p = at;
    *sign = p < x->n && (x->s[p] == '-' || x->s[p] == '+') ? x->s[p] : '\0';
    p += *sign != '\0';
    p += spaces(x, p);
    if (!looking_at(x, p, word)) {
        return 0;
    }
    p += strlen(word);
    p += spaces(x, p);
    return p - at;
}

/* What a "-%}" or, after blocks, "%}" swallows behind itself. */
static size_t swallowed(const lexer *x, size_t at, char sign, bool trim) {
    if (sign == '-') {
        return spaces(x, at);
    }
    return sign == '\0' && trim && at < x->n && x->s[at] == '\n' ? 1 : 0;
}

/* Emits the data s[from..to), cut as the tag that follows it demands. */
static novaq_status data(lexer *x, size_t from, size_t to, char sign, bool variable) {
    nq_tstr text = {x->s + from, to - from};
    if (sign == '-') {
        text = nq_tu_strip(text, 2, NULL);
    } else if (sign != '+' && !variable) {
        size_t cut = text.n;
        while (cut > 0 && text.p[cut - 1] != '\n') {
            cut--;
        }
        nq_tstr rest = {text.p + cut, text.n - cut};
        if ((cut > 0 || x->line_start) && nq_tu_strip(rest, 1, NULL).n == 0) {
            text.n = cut;
        }
    }
    return text.n > 0 ? push(x, NQ_TT_DATA, text.p, text.n) : NOVAQ_OK;
}

/* From the tag end "%}" with an optional sign; fails when it is not there. */
static novaq_status close_tag(lexer *x, const char *mark, bool trim, bool plus) {
    char sign = '\0';
    if (x->at < x->n && (x->s[x->at] == '-' || (plus && x->s[x->at] == '+'))) {
        sign = x->s[x->at];
        advance(x, 1);
    }
    if (!looking_at(x, x->at, mark)) {
        return bad(x, "a tag is not closed");
    }
    advance(x, 2);
    advance(x, swallowed(x, x->at, sign, trim));
    return NOVAQ_OK;
}

static novaq_status comment(lexer *x) {
    size_t at = x->at + 2;
    while (!looking_at(x, at, "#}")) {
        if (++at >= x->n) {
            return bad(x, "a comment is not closed");
        }
    }
    char before = at > x->at + 2 ? x->s[at - 1] : '\0';
    advance(x, at - x->at - (before == '-' || before == '+' ? 1 : 0));
    return close_tag(x, "#}", true, true);
}

/* {% raw %} ... {% endraw %}; *is tells whether there is one here. */
static novaq_status raw(lexer *x, bool *is) {
    char sign = '\0';
    size_t inside = word_tag(x, x->at + 2, "raw", &sign);
    size_t end = x->at + 2 + inside;
    *is = inside > 0 && (looking_at(x, end, "%}") || looking_at(x, end, "-%}"));
    if (!*is) {
        return NOVAQ_OK;
    }
    advance(x, 2 + inside);
    NQ_TRY(close_tag(x, "%}", false, false));
    for (size_t at = x->at; at < x->n; at++) {
        size_t n = looking_at(x, at, "{%") ? word_tag(x, at + 2, "endraw", &sign) : 0;
        size_t stop = at + 2 + n;
        if (n > 0 && (looking_at(x, stop, "%}") || looking_at(x, stop, "-%}") ||
                      looking_at(x, stop, "+%}"))) {
            NQ_TRY(data(x, x->at, at, sign, false));
            advance(x, stop - x->at);
            return close_tag(x, "%}", true, true);
        }
    }
    return bad(x, "a raw block is not closed");
}

/* ---- inside tags ---------------------------------------------------------- */

static int hex_value(char ch) {
    return ch >= '0' && ch <= '9'   ? ch - '0'
           : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
           : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10
                                    : -1;
}

/* \xHH, \uHHHH, \UHHHHHHHH, \OOO: *used bytes after the backslash. */
static bool numeric_escape(uint32_t *cp, size_t *used, const char *p, size_t n) {
    size_t digits = *p == 'x' ? 2 : *p == 'u' ? 4 : *p == 'U' ? 8 : 0;
    uint64_t v = 0;
    *used = 1;
    if (digits == 0) {
        for (*used = 0; *used < 3 && *used < n && p[*used] >= '0' && p[*used] <= '7'; ++*used) {
            v = 8 * v + (uint64_t)(p[*used] - '0');
        }
    }
    for (size_t i = 0; i < digits; i++, ++*used) {
        int h = *used < n ? hex_value(p[*used]) : -1;
        if (h < 0) {
            return false;
        }
        v = 16 * v + (uint64_t)h;
    }
    *cp = (uint32_t)v;
    return v > 0 && v <= 0x10FFFF && (v < 0xD800 || v > 0xDFFF);
}

static novaq_status escape(lexer *x, nq_buf *b, size_t *at, size_t end) {
    static const char from[] = "abfnrtv\\'\"";
    static const char to[] = "\a\b\f\n\r\t\v\\'\"";
    const char *p = x->s + *at;
    const char *known = *p != '\0' ? strchr(from, *p) : NULL;
    uint32_t cp = 0;
    size_t used = 1;
    if (known != NULL) {
        ++*at;
        return nq_buf_append(b, to + (known - from), 1, x->err);
    }
    if (*p == '\n') {
        ++*at;
        return NOVAQ_OK;
    }
    if (*p == 'x' || *p == 'u' || *p == 'U' || (*p >= '0' && *p <= '7')) {
        if (!numeric_escape(&cp, &used, p, end - *at)) {
            return bad(x, "a string has an escape that is no character");
        }
        *at += used;
        return nq_tu_put(b, cp, x->err);
    }
    return *p == 'N' ? bad(x, "a string has an escape that is no character")
                     : nq_buf_append(b, "\\", 1, x->err);
}

static novaq_status string(lexer *x) {
    char quote = x->s[x->at];
    size_t end = x->at + 1;
    bool plain = true;
    while (end < x->n && x->s[end] != quote) {
        plain = plain && x->s[end] != '\\';
        end += x->s[end] == '\\' ? 2 : 1;
    }
    if (end >= x->n) {
        return bad(x, "a string is not closed");
    }
    const char *p = x->s + x->at + 1;
    size_t n = end - x->at - 1;
    if (!plain) {
        nq_buf b = nq_buf_init(x->n + 16);
        novaq_status st = NOVAQ_OK;
        for (size_t at = x->at + 1; st == NOVAQ_OK && at < end;) {
            if (x->s[at] == '\\') {
                at++;
                st = escape(x, &b, &at, end);
            } else {
                st = nq_buf_append(&b, x->s + at++, 1, x->err);
            }
        }
        char *copy = NULL;
        n = b.len;
        if (st == NOVAQ_OK) {
            st = nq_tarena_get(&copy, x->arena, n + 1, 1, x->err);
        }
        if (st == NOVAQ_OK && n > 0) {
            memcpy(copy, b.data, n);
        }
        p = copy;
        nq_buf_free(&b);
        NQ_TRY(st);
    }
    NQ_TRY(push(x, NQ_TT_STR, p, n));
    advance(x, end + 1 - x->at);
    return NOVAQ_OK;
}

static bool digit(const lexer *x, size_t at) {
    return at < x->n && x->s[at] >= '0' && x->s[at] <= '9';
}

static size_t digits(const lexer *x, size_t at) {
    size_t p = at;
    while (digit(x, p) || (p > at && p < x->n && x->s[p] == '_' && digit(x, p + 1))) {
        p++;
    }
    return p - at;
}

static novaq_status number(lexer *x) {
    size_t p = x->at + digits(x, x->at);
    bool after_dot = x->at > 0 && x->s[x->at - 1] == '.';
    int kind = NQ_TT_INT;
    if (!after_dot && p < x->n && x->s[p] == '.' && digit(x, p + 1)) {
        kind = NQ_TT_FLOAT;
        p += 1 + digits(x, p + 1);
    }
    if (!after_dot && p < x->n && (x->s[p] == 'e' || x->s[p] == 'E')) {
        size_t q = p + 1;
        q += q < x->n && (x->s[q] == '+' || x->s[q] == '-');
        if (digit(x, q)) {
            kind = NQ_TT_FLOAT;
            p = q + digits(x, q);
        }
    }
    NQ_TRY(push(x, kind, x->s + x->at, p - x->at));
    advance(x, p - x->at);
    return NOVAQ_OK;
}

static bool name_byte(char ch, bool first) {
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '_' ||
           (unsigned char)ch >= 0x80 || (!first && ch >= '0' && ch <= '9');
}

static novaq_status operator_token(lexer *x) {
    static const struct {
        char text[3];
        int kind;
    } pairs[] = {{"**", NQ_TT_POW}, {"//", NQ_TT_FLOORDIV}, {"==", NQ_TT_EQ},
                 {"!=", NQ_TT_NE},  {">=", NQ_TT_GE},       {"<=", NQ_TT_LE}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        if (looking_at(x, x->at, pairs[i].text)) {
            NQ_TRY(push(x, pairs[i].kind, x->s + x->at, 2));
            advance(x, 2);
            return NOVAQ_OK;
        }
    }
    if (strchr("+-/*%~[](){}><=.:|,;", x->s[x->at]) == NULL) {
        return bad(x, "a character that means nothing here");
    }
    NQ_TRY(push(x, x->s[x->at], x->s + x->at, 1));
    advance(x, 1);
    return NOVAQ_OK;
}

static novaq_status inside_token(lexer *x) {
    char ch = x->s[x->at];
    if (ch == '\'' || ch == '"') {
        return string(x);
    }
    if (digit(x, x->at)) {
        return number(x);
    }
    if (name_byte(ch, true)) {
        size_t n = 1;
        while (x->at + n < x->n && name_byte(x->s[x->at + n], false)) {
            n++;
        }
        NQ_TRY(push(x, NQ_TT_NAME, x->s + x->at, n));
        advance(x, n);
        return NOVAQ_OK;
    }
    return operator_token(x);
}

/* Everything up to the end of a tag; brackets hide its mark. */
static novaq_status inside(lexer *x, bool variable) {
    const char *mark = variable ? "}}" : "%}";
    long depth = 0;
    for (;;) {
        advance(x, spaces(x, x->at));
        if (x->at >= x->n) {
            return bad(x, "a tag is not closed");
        }
        char ch = x->s[x->at];
        bool sign = ch == '-' || (ch == '+' && !variable);
        if (depth == 0 &&
            (looking_at(x, x->at, mark) || (sign && looking_at(x, x->at + 1, mark)))) {
            NQ_TRY(push(x, variable ? NQ_TT_VAR_END : NQ_TT_BLOCK_END, mark, 2));
            return close_tag(x, mark, !variable, !variable);
        }
        depth += ch == '(' || ch == '[' || ch == '{';
        if (ch == ')' || ch == ']' || ch == '}') {
            depth--;
        }
        if (depth < 0) {
            return bad(x, "a bracket closes nothing");
        }
        NQ_TRY(inside_token(x));
    }
}

/* ---- the whole text ------------------------------------------------------- */

static novaq_status tag(lexer *x, size_t from) {
    char kind = x->s[x->at + 1];
    char sign = x->at + 2 < x->n ? x->s[x->at + 2] : '\0';
    sign = sign == '-' || sign == '+' ? sign : '\0';
    size_t at = x->at;
    x->at = from;
    NQ_TRY(data(x, from, at, sign, kind == '{'));
    advance(x, at - from);
    if (kind == '#') {
        return comment(x);
    }
    if (kind == '%') {
        bool is = false;
        NQ_TRY(raw(x, &is));
        if (is) {
            return NOVAQ_OK;
        }
    }
    NQ_TRY(push(x, kind == '{' ? NQ_TT_VAR_BEGIN : NQ_TT_BLOCK_BEGIN, x->s + x->at, 2));
    advance(x, sign != '\0' ? 3 : 2);
    return inside(x, kind == '{');
}

/* Line ends become line feeds; the last one is dropped. */
static novaq_status normalize(lexer *x, const char *text, size_t len) {
    char *s = NULL;
    size_t n = 0;
    NQ_TRY(nq_tarena_get(&s, x->arena, len + 1, 1, x->err));
    for (size_t i = 0; i < len;) {
        int w = nq_utf8_whole((const uint8_t *)text + i, len - i);
        if (w <= 0 || text[i] == '\0') {
            return nq_fail(x->err, NOVAQ_E_FORMAT, "chat template: not UTF-8 text at byte %zu", i);
        }
        if (text[i] == '\r') {
            i += i + 1 < len && text[i + 1] == '\n' ? 2 : 1;
            s[n++] = '\n';
        } else {
            memcpy(s + n, text + i, (size_t)w);
            n += (size_t)w;
            i += (size_t)w;
        }
    }
    n -= n > 0 && s[n - 1] == '\n';
    s[n] = '\0';
    x->s = s;
    x->n = n;
    return NOVAQ_OK;
}

novaq_status nq_tlex(nq_ttoken **tokens, nq_tarena *a, const char *text, size_t len,
                     novaq_error *err) {
    lexer x = {.arena = a, .line = 1, .line_start = true, .err = err};
    NQ_TRY(normalize(&x, text, len));
    while (x.at < x.n) {
        size_t from = x.at;
        size_t at = from;
        while (at + 1 < x.n && (x.s[at] != '{' || strchr("{%#", x.s[at + 1]) == NULL)) {
            at++;
        }
        if (at + 1 >= x.n) {
            NQ_TRY(push(&x, NQ_TT_DATA, x.s + from, x.n - from));
            break;
        }
        x.at = at;
        NQ_TRY(tag(&x, from));
    }
    NQ_TRY(push(&x, NQ_TT_END, x.s + x.n, 0));
    *tokens = x.tokens;
    return NOVAQ_OK;
}

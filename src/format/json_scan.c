/* json_scan.c - see json_scan.h. */
#include "format/json_scan.h"

#include <string.h>

#include "base/mem.h"

#define DEPTH_MAX 127 /* as deep as the reference reader of SafeTensors goes */

novaq_status nq_scan_fail(const nq_scan *s, novaq_error *err, const char *what) {
    return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: %s", s->file,
                   (unsigned long long)(s->base + s->pos), what);
}

novaq_status nq_scan_init(nq_scan *s, const char *file, char *text, uint64_t len, uint64_t base,
                          novaq_error *err) {
    *s = (nq_scan){.text = text, .len = len, .base = base, .file = file};
    uint64_t good = nq_utf8_prefix(text, len);
    if (good != len) {
        s->pos = good;
        return nq_scan_fail(s, err, "the header is not UTF-8");
    }
    return NOVAQ_OK;
}

void nq_scan_free(nq_scan *s) {
    nq_free(s->keys);
    *s = (nq_scan){.file = ""};
}

static char at(const nq_scan *s, uint64_t pos) { return pos < s->len ? s->text[pos] : '\0'; }

char nq_scan_peek(nq_scan *s) {
    for (;;) {
        char c = at(s, s->pos);
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r') {
            return c;
        }
        s->pos++;
    }
}

static novaq_status expect(nq_scan *s, char c, const char *what, novaq_error *err) {
    if (nq_scan_peek(s) != c) {
        return nq_scan_fail(s, err, what);
    }
    s->pos++;
    return NOVAQ_OK;
}

/* ---- objects and arrays --------------------------------------------------- */

static novaq_status open_level(nq_scan *s, nq_scan_level *l, char c, const char *what,
                               novaq_error *err) {
    *l = (nq_scan_level){.first_key = s->key_count};
    NQ_TRY(expect(s, c, what, err));
    if (++s->depth > DEPTH_MAX) {
        return nq_scan_fail(s, err, "JSON nested too deeply");
    }
    return NOVAQ_OK;
}

novaq_status nq_scan_open_object(nq_scan *s, nq_scan_level *l, novaq_error *err) {
    return open_level(s, l, '{', "a JSON object is expected here", err);
}

novaq_status nq_scan_open_array(nq_scan *s, nq_scan_level *l, novaq_error *err) {
    return open_level(s, l, '[', "a JSON array is expected here", err);
}

static novaq_status push_key(nq_scan *s, const char *key, novaq_error *err) {
    if (s->key_count == s->key_cap) {
        size_t cap = s->key_cap == 0 ? 64 : s->key_cap * 2;
        NQ_TRY(nq_grow(&s->keys, s->key_count, cap, sizeof *s->keys, err));
        s->key_cap = cap;
    }
    s->keys[s->key_count++] = (nq_name){key, 0};
    return NOVAQ_OK;
}

static novaq_status close_object(nq_scan *s, const nq_scan_level *l, novaq_error *err) {
    nq_name *mine = s->keys == NULL ? NULL : s->keys + l->first_key;
    size_t count = s->key_count - l->first_key;
    nq_names_sort(mine, count);
    const char *twice = nq_names_duplicate(mine, count);
    if (twice != NULL) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: object before offset %llu: \"%.200s\" twice",
                       s->file, (unsigned long long)(s->base + s->pos), twice);
    }
    s->key_count = l->first_key;
    s->depth--;
    return NOVAQ_OK;
}

novaq_status nq_scan_next_key(nq_scan *s, nq_scan_level *l, const char **key, novaq_error *err) {
    *key = NULL;
    if (nq_scan_peek(s) == '}') {
        s->pos++;
        return close_object(s, l, err);
    }
    if (l->started) {
        NQ_TRY(expect(s, ',', "',' or '}' is expected here", err));
    }
    l->started = true;
    NQ_TRY(nq_scan_string(s, key, err));
    novaq_status st = push_key(s, *key, err);
    if (st == NOVAQ_OK) {
        st = expect(s, ':', "':' is expected here", err);
    }
    return st;
}

novaq_status nq_scan_next_item(nq_scan *s, nq_scan_level *l, bool *more, novaq_error *err) {
    *more = false;
    if (nq_scan_peek(s) == ']') {
        s->pos++;
        s->depth--;
        return NOVAQ_OK;
    }
    if (l->started) {
        NQ_TRY(expect(s, ',', "',' or ']' is expected here", err));
        if (nq_scan_peek(s) == ']') {
            return nq_scan_fail(s, err, "a value is expected after ','");
        }
    }
    l->started = true;
    *more = true;
    return NOVAQ_OK;
}

/* ---- strings -------------------------------------------------------------- */

static novaq_status hex4(nq_scan *s, uint32_t *out, novaq_error *err) {
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) {
        char c = at(s, s->pos);
        uint32_t digit;
        if (c >= '0' && c <= '9') {
            digit = (uint32_t)(c - '0');
        } else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')) {
            digit = (uint32_t)((c | 0x20) - 'a') + 10;
        } else {
            return nq_scan_fail(s, err, "bad \\u escape");
        }
        v = v << 4 | digit;
        s->pos++;
    }
    *out = v;
    return NOVAQ_OK;
}

/* At most as many bytes as the escape took: 3 for 6, or 4 for 12. */
static char *put_utf8(char *w, uint32_t c) {
    if (c < 0x80) {
        *w++ = (char)c;
    } else if (c < 0x800) {
        *w++ = (char)(0xC0U | c >> 6);
        *w++ = (char)(0x80U | (c & 0x3FU));
    } else if (c < 0x10000) {
        *w++ = (char)(0xE0U | c >> 12);
        *w++ = (char)(0x80U | ((c >> 6) & 0x3FU));
        *w++ = (char)(0x80U | (c & 0x3FU));
    } else {
        *w++ = (char)(0xF0U | c >> 18);
        *w++ = (char)(0x80U | ((c >> 12) & 0x3FU));
        *w++ = (char)(0x80U | ((c >> 6) & 0x3FU));
        *w++ = (char)(0x80U | (c & 0x3FU));
    }
    return w;
}

static novaq_status unicode_escape(nq_scan *s, char **w, novaq_error *err) {
    uint32_t c = 0;
    NQ_TRY(hex4(s, &c, err));
    if (c >= 0xD800 && c <= 0xDBFF && at(s, s->pos) == '\\' && at(s, s->pos + 1) == 'u') {
        s->pos += 2;
        uint32_t low = 0;
        NQ_TRY(hex4(s, &low, err));
        if (low < 0xDC00 || low > 0xDFFF) {
            return nq_scan_fail(s, err, "lone surrogate in a string");
        }
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    }
    if (c >= 0xD800 && c <= 0xDFFF) {
        return nq_scan_fail(s, err, "lone surrogate in a string");
    }
    if (c == 0) {
        return nq_scan_fail(s, err, "NUL in a string");
    }
    *w = put_utf8(*w, c);
    return NOVAQ_OK;
}

/* s->pos is behind the backslash. */
static novaq_status escape(nq_scan *s, char **w, novaq_error *err) {
    static const char from[] = "\"\\/bfnrt";
    static const char to[] = "\"\\/\b\f\n\r\t";
    char c = at(s, s->pos);
    if (c == 'u') {
        s->pos++;
        return unicode_escape(s, w, err);
    }
    const char *hit = c == '\0' ? NULL : strchr(from, c);
    if (hit == NULL) {
        return nq_scan_fail(s, err, "bad escape in a string");
    }
    s->pos++;
    *(*w)++ = to[hit - from];
    return NOVAQ_OK;
}

novaq_status nq_scan_string(nq_scan *s, const char **out, novaq_error *err) {
    NQ_TRY(expect(s, '"', "a string is expected here", err));
    char *start = s->text + s->pos;
    char *w = start;
    for (;;) {
        if (s->pos >= s->len) {
            return nq_scan_fail(s, err, "unterminated string");
        }
        char c = s->text[s->pos];
        if ((unsigned char)c < 0x20) {
            return nq_scan_fail(s, err, "control character in a string");
        }
        s->pos++;
        if (c == '"') {
            break;
        }
        if (c == '\\') {
            NQ_TRY(escape(s, &w, err));
        } else {
            *w++ = c;
        }
    }
    *w = '\0'; /* at the closing quote or before it */
    *out = start;
    return NOVAQ_OK;
}

/* ---- other values --------------------------------------------------------- */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

novaq_status nq_scan_u64(nq_scan *s, uint64_t *out, novaq_error *err) {
    static const char what[] = "a non-negative integer is expected here";
    *out = 0;
    if (!is_digit(nq_scan_peek(s))) {
        return nq_scan_fail(s, err, what);
    }
    uint64_t start = s->pos;
    uint64_t v = 0;
    while (is_digit(at(s, s->pos))) {
        uint64_t digit = (uint64_t)(at(s, s->pos) - '0');
        if (!nq_mul_u64(v, 10, &v) || !nq_add_u64(v, digit, &v)) {
            return nq_scan_fail(s, err, "the number does not fit 64 bits");
        }
        s->pos++;
    }
    char next = at(s, s->pos);
    bool padded = s->text[start] == '0' && s->pos - start > 1;
    if (padded || next == '.' || next == 'e' || next == 'E') {
        return nq_scan_fail(s, err, what);
    }
    *out = v;
    return NOVAQ_OK;
}

static bool skip_digits(nq_scan *s) {
    uint64_t start = s->pos;
    while (is_digit(at(s, s->pos))) {
        s->pos++;
    }
    return s->pos > start;
}

static novaq_status skip_number(nq_scan *s, novaq_error *err) {
    if (at(s, s->pos) == '-') {
        s->pos++;
    }
    bool ok = true;
    if (at(s, s->pos) == '0') {
        s->pos++;
    } else {
        ok = skip_digits(s);
    }
    if (ok && at(s, s->pos) == '.') {
        s->pos++;
        ok = skip_digits(s);
    }
    if (ok && (at(s, s->pos) == 'e' || at(s, s->pos) == 'E')) {
        s->pos++;
        if (at(s, s->pos) == '+' || at(s, s->pos) == '-') {
            s->pos++;
        }
        ok = skip_digits(s);
    }
    return ok ? NOVAQ_OK : nq_scan_fail(s, err, "bad number");
}

static novaq_status skip_word(nq_scan *s, novaq_error *err) {
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t n = strlen(words[i]);
        if (s->len - s->pos >= n && memcmp(s->text + s->pos, words[i], n) == 0) {
            s->pos += n;
            return NOVAQ_OK;
        }
    }
    return nq_scan_fail(s, err, "a JSON value is expected here");
}

/* Recursion is bounded by DEPTH_MAX. */
novaq_status nq_scan_skip(nq_scan *s, novaq_error *err) {
    nq_scan_level l;
    const char *text = NULL;
    bool more = true;
    switch (nq_scan_peek(s)) {
    case '{':
        NQ_TRY(nq_scan_open_object(s, &l, err));
        for (;;) {
            NQ_TRY(nq_scan_next_key(s, &l, &text, err));
            if (text == NULL) {
                return NOVAQ_OK;
            }
            NQ_TRY(nq_scan_skip(s, err));
        }
    case '[':
        NQ_TRY(nq_scan_open_array(s, &l, err));
        for (;;) {
            NQ_TRY(nq_scan_next_item(s, &l, &more, err));
            if (!more) {
                return NOVAQ_OK;
            }
            NQ_TRY(nq_scan_skip(s, err));
        }
    case '"': return nq_scan_string(s, &text, err);
    case '-': return skip_number(s, err);
    default: return is_digit(at(s, s->pos)) ? skip_number(s, err) : skip_word(s, err);
    }
}

novaq_status nq_scan_end(nq_scan *s, novaq_error *err) {
    /* peek() also gives 0 for a NUL byte inside the text. */
    (void)nq_scan_peek(s);
    return s->pos == s->len ? NOVAQ_OK : nq_scan_fail(s, err, "bytes after the JSON value");
}

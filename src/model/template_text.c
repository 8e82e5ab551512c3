/* template_text.c - strings as Python's str sees them: characters, white space,
 * case, lines. Refuses: Python's special cases of case mapping beyond the German
 * sharp s. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "model/template_impl.h"

uint32_t nq_tu_next(const char **p, const char *end) {
    const unsigned char *s = (const unsigned char *)*p;
    unsigned need = s[0] < 0x80 ? 1 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    if ((size_t)(end - *p) < need) {
        *p = end;
        return 0xFFFD;
    }
    uint32_t cp = need == 1 ? s[0] : s[0] & (0x7FU >> need);
    for (unsigned i = 1; i < need; i++) {
        cp = cp << 6 | (s[i] & 0x3FU);
    }
    *p += need;
    return cp;
}

size_t nq_tu_count(nq_tstr s) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        n += ((unsigned char)s.p[i] & 0xC0) != 0x80;
    }
    return n;
}

bool nq_tu_space(uint32_t cp) {
    return (cp >= 0x09 && cp <= 0x0D) || (cp >= 0x1C && cp <= 0x20) || cp == 0x85 || cp == 0xA0 ||
           cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

novaq_status nq_tu_put(nq_buf *b, uint32_t cp, novaq_error *err) {
    utf8proc_uint8_t bytes[4];
    utf8proc_ssize_t n = utf8proc_encode_char((utf8proc_int32_t)cp, bytes);
    return nq_buf_append(b, bytes, (size_t)n, err);
}

size_t nq_tu_offset(nq_tstr s, size_t i) {
    size_t at = 0;
    while (at < s.n && (i > 0 || ((unsigned char)s.p[at] & 0xC0) == 0x80)) {
        i -= ((unsigned char)s.p[at] & 0xC0) != 0x80;
        at++;
        while (at < s.n && ((unsigned char)s.p[at] & 0xC0) == 0x80) {
            at++;
        }
    }
    return at;
}

static bool stripped(uint32_t cp, const nq_tstr *chars) {
    if (chars == NULL) {
        return nq_tu_space(cp);
    }
    for (const char *p = chars->p, *end = chars->p + chars->n; p < end;) {
        if (nq_tu_next(&p, end) == cp) {
            return true;
        }
    }
    return false;
}

nq_tstr nq_tu_strip(nq_tstr s, int side, const nq_tstr *chars) {
    const char *p = s.p;
    const char *end = s.p + s.n;
    while ((side & 1) != 0 && p < end) {
        const char *q = p;
        if (!stripped(nq_tu_next(&q, end), chars)) {
            break;
        }
        p = q;
    }
    while ((side & 2) != 0 && p < end) {
        const char *q = end - 1;
        while (q > p && ((unsigned char)*q & 0xC0) == 0x80) {
            q--;
        }
        const char *r = q;
        if (!stripped(nq_tu_next(&r, end), chars)) {
            break;
        }
        end = q;
    }
    return (nq_tstr){p, (size_t)(end - p)};
}

size_t nq_tu_find(nq_tstr s, nq_tstr needle, size_t from) {
    if (from > s.n || s.n - from < needle.n) {
        return SIZE_MAX;
    }
    if (needle.n == 0) {
        return from;
    }
    const char *p = memmem(s.p + from, s.n - from, needle.p, needle.n);
    return p == NULL ? SIZE_MAX : (size_t)(p - s.p);
}

static novaq_status put_case(nq_buf *b, uint32_t cp, char how, novaq_error *err) {
    if (how == 'l') {
        return nq_tu_put(b, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp), err);
    }
    if (cp == 0xDF) { /* the one common character whose upper case is longer */
        return nq_buf_puts(b, how == 'u' ? "SS" : "Ss", err);
    }
    utf8proc_int32_t up = how == 'u' ? utf8proc_toupper((utf8proc_int32_t)cp)
                                     : utf8proc_totitle((utf8proc_int32_t)cp);
    return nq_tu_put(b, (uint32_t)up, err);
}

static bool letter(uint32_t cp) {
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)cp);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT;
}

/* how: "upper", "lower", "capitalize" (first letter only), "method title" (after
 * anything without case), "title" (after white space and opening brackets). */
novaq_status nq_tu_case(nq_tctx *c, nq_tstr *out, nq_tstr s, const char *how) {
    nq_buf b = nq_tbuf(c);
    novaq_status st = nq_tcharge(c, s.n);
    bool start = true;
    for (const char *p = s.p, *end = s.p + s.n; st == NOVAQ_OK && p < end;) {
        uint32_t cp = nq_tu_next(&p, end);
        switch (how[0]) {
        case 'u': st = put_case(&b, cp, 'u', c->err); break;
        case 'l': st = put_case(&b, cp, 'l', c->err); break;
        case 'c':
            st = put_case(&b, cp, start ? 't' : 'l', c->err);
            start = false;
            break;
        case 'm':
            st = put_case(&b, cp, start ? 't' : 'l', c->err);
            start = !letter(cp);
            break;
        default:
            st = put_case(&b, cp, start ? 'u' : 'l', c->err);
            start = nq_tu_space(cp) || (cp < 0x80 && cp != 0 && strchr("-({[<", (int)cp) != NULL);
        }
    }
    if (st != NOVAQ_OK) {
        nq_buf_free(&b);
        return st;
    }
    return nq_tbuf_take(c, out, &b);
}

novaq_status nq_tu_replace(nq_tctx *c, nq_tstr *out, nq_tstr s, nq_tstr old, nq_tstr with,
                           int64_t count) {
    nq_buf b = nq_tbuf(c);
    novaq_status st = nq_tcharge(c, s.n);
    size_t from = 0;
    for (; st == NOVAQ_OK && count != 0; count--) {
        size_t at = nq_tu_find(s, old, from);
        if (at == SIZE_MAX) {
            break;
        }
        st = nq_buf_append(&b, s.p + from, at - from, c->err);
        st = st != NOVAQ_OK ? st : nq_buf_append(&b, with.p, with.n, c->err);
        from = at + old.n;
        if (st == NOVAQ_OK && old.n == 0) { /* between all characters */
            size_t n = nq_tu_offset((nq_tstr){s.p + at, s.n - at}, 1);
            st = nq_buf_append(&b, s.p + at, n, c->err);
            from = at + n;
            if (n == 0) {
                break;
            }
        }
    }
    if (st == NOVAQ_OK) {
        st = nq_buf_append(&b, s.p + from, s.n - from, c->err);
    }
    if (st != NOVAQ_OK) {
        nq_buf_free(&b);
        return st;
    }
    return nq_tbuf_take(c, out, &b);
}

static bool line_end(uint32_t cp) {
    return (cp >= 0x0A && cp <= 0x0D) || (cp >= 0x1C && cp <= 0x1E) || cp == 0x85 || cp == 0x2028 ||
           cp == 0x2029;
}

novaq_status nq_tu_lines(nq_tctx *c, nq_tlist **out, nq_tstr s) {
    NQ_TRY(nq_tcharge(c, s.n));
    NQ_TRY(nq_tlist_new(c, out));
    const char *start = s.p;
    const char *end = s.p + s.n;
    for (const char *p = s.p; p < end;) {
        const char *q = p;
        uint32_t cp = nq_tu_next(&q, end);
        if (line_end(cp)) {
            NQ_TRY(nq_tlist_push(c, *out, nq_tv_str((nq_tstr){start, (size_t)(p - start)})));
            q += cp == '\r' && q < end && *q == '\n';
            start = q;
        }
        p = q;
    }
    if (start < end) {
        NQ_TRY(nq_tlist_push(c, *out, nq_tv_str((nq_tstr){start, (size_t)(end - start)})));
    }
    return NOVAQ_OK;
}

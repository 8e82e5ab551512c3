/* tokenizer_special.c - finding tokens that are written out in a text.
 *
 * Owns: leftmost-longest matching over a sorted list, narrowed byte by byte, and
 * the white space that a token may take with it.
 * Refuses: tokens longer than NQ_TOK_SPECIAL_MAX, which could make it slow.
 */
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer_impl.h"

typedef struct entry {
    nq_span text;
    uint32_t id;
} entry;

static int by_bytes(const void *a, const void *b) {
    const entry *x = a;
    const entry *y = b;
    size_t n = x->text.len < y->text.len ? x->text.len : y->text.len;
    int c = memcmp(x->text.data, y->text.data, n);
    if (c != 0 || x->text.len != y->text.len) {
        return c != 0 ? c : (x->text.len > y->text.len) - (x->text.len < y->text.len);
    }
    return (x->id > y->id) - (x->id < y->id); /* the first added counts */
}

static bool is_added(const nq_vocab *v, size_t i, int32_t unk) {
    uint8_t type = v->types[i];
    return type == NQ_TOK_USER || type == NQ_TOK_CONTROL ||
           (type == NQ_TOK_UNKNOWN && (int64_t)i == unk);
}

static novaq_status gather(entry *list, size_t *count, const nq_vocab *v, const uint8_t *flags,
                           bool normalized, int32_t unk, novaq_error *err) {
    for (size_t i = 0; i < v->count; i++) {
        if (!is_added(v, i, unk) || v->text[i].len == 0 ||
            ((flags[i] & NQ_ADDED_NORMALIZED) != 0) != normalized) {
            continue;
        }
        if (v->text[i].len > NQ_TOK_SPECIAL_MAX) {
            return nq_fail(err, NOVAQ_E_UNSUPPORTED, "tokenizer: special token %zu has %u bytes", i,
                           (unsigned)v->text[i].len);
        }
        list[(*count)++] = (entry){v->text[i], (uint32_t)i};
    }
    return NOVAQ_OK;
}

/* The texts as they are after normalization. */
static novaq_status normalize(nq_specials *s, entry *list, size_t count, const nq_norm *norm,
                              novaq_error *err) {
    nq_buf all = nq_buf_init(NQ_TOK_TEXT_MAX);
    size_t *ends = NULL;
    novaq_status st = nq_alloc(&ends, (uint64_t)count + 1, sizeof *ends, err);
    for (size_t i = 0; st == NOVAQ_OK && i < count; i++) {
        st = nq_norm_run(&all, norm, list[i].text.data, list[i].text.len, err);
        ends[i + 1] = all.len;
    }
    for (size_t i = 0; st == NOVAQ_OK && i < count; i++) {
        list[i].text = (nq_span){all.data + ends[i], (uint32_t)(ends[i + 1] - ends[i])};
    }
    s->storage = all.data; /* also freed with the set after a failure */
    nq_free(ends);
    return st;
}

novaq_status nq_specials_init(nq_specials *s, const nq_vocab *v, const uint8_t *flags,
                              const nq_norm *norm, bool normalized, int32_t unk, novaq_error *err) {
    *s = (nq_specials){0};
    entry *list = NULL;
    NQ_TRY(nq_alloc(&list, v->count, sizeof *list, err));
    size_t count = 0;
    novaq_status st = gather(list, &count, v, flags, normalized, unk, err);
    if (st == NOVAQ_OK && normalized && !nq_norm_is_identity(norm)) {
        st = normalize(s, list, count, norm, err);
    }
    st = st == NOVAQ_OK ? nq_alloc(&s->text, count, sizeof *s->text, err) : st;
    st = st == NOVAQ_OK ? nq_alloc(&s->ids, count, sizeof *s->ids, err) : st;
    if (st == NOVAQ_OK) {
        qsort(list, count, sizeof *list, by_bytes);
        for (size_t i = 0; i < count; i++) {
            if (list[i].text.len > 0) { /* normalization may leave nothing */
                s->text[s->count] = list[i].text;
                s->ids[s->count++] = list[i].id;
                s->starts[list[i].text.data[0]] = true;
            }
        }
    }
    nq_free(list);
    return st;
}

void nq_specials_free(nq_specials *s) {
    nq_free(s->text);
    nq_free(s->ids);
    nq_free(s->storage);
    *s = (nq_specials){0};
}

/* The first of s->text[lo..hi), which agree up to `depth` bytes, whose byte at
 * depth is at least b. */
static size_t lower_bound(const nq_specials *s, size_t lo, size_t hi, uint32_t depth, unsigned b) {
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (s->text[mid].len <= depth || s->text[mid].data[depth] < b) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static size_t longest(const nq_specials *s, const uint8_t *text, size_t len, uint32_t *id) {
    size_t lo = 0;
    size_t hi = s->count;
    size_t found = 0; /* bytes */
    for (uint32_t depth = 0; depth < len && lo < hi; depth++) {
        lo = lower_bound(s, lo, hi, depth, text[depth]);
        hi = lower_bound(s, lo, hi, depth, text[depth] + 1U);
        /* A token that ends here sorts before those that go on. */
        if (lo < hi && s->text[lo].len == depth + 1) {
            *id = s->ids[lo];
            found = depth + 1;
        }
    }
    return found;
}

bool nq_specials_next(const nq_specials *s, const uint8_t *text, size_t from, size_t len,
                      size_t *at, size_t *end, uint32_t *id) {
    for (size_t i = from; s->count > 0 && i < len; i++) {
        size_t n = s->starts[text[i]] ? longest(s, text + i, len - i, id) : 0;
        if (n > 0) {
            *at = i;
            *end = i + n;
            return true;
        }
    }
    return false;
}

/* White_Space of Unicode. */
static bool is_space(uint32_t cp) {
    return (cp >= 9 && cp <= 13) || cp == 0x20 || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F ||
           cp == 0x205F || cp == 0x3000;
}

size_t nq_space_after(const uint8_t *text, size_t len) {
    size_t n = 0;
    while (n < len) {
        uint32_t cp = 0;
        unsigned k = nq_utf8_next(text + n, len - n, &cp);
        if (k == 0 || !is_space(cp)) {
            break;
        }
        n += k;
    }
    return n;
}

size_t nq_space_before(const uint8_t *text, size_t len) {
    size_t at = len;
    while (at > 0) {
        size_t start = at - 1;
        while (start > 0 && at - start < 4 && (text[start] & 0xC0U) == 0x80U) {
            start--;
        }
        uint32_t cp = 0;
        if (nq_utf8_next(text + start, at - start, &cp) != at - start || !is_space(cp)) {
            break;
        }
        at = start;
    }
    return len - at;
}

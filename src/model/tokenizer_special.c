/* tokenizer_special.c - finding tokens that are written out in a text.
 *
 * Owns: leftmost-longest matching over a sorted list, narrowed byte by byte.
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
    return c != 0 ? c : (x->text.len > y->text.len) - (x->text.len < y->text.len);
}

static novaq_status gather(entry *list, size_t *count, const nq_vocab *v, bool control,
                           novaq_error *err) {
    for (size_t i = 0; i < v->count; i++) {
        bool wanted = v->types[i] == NQ_TOK_USER || (control && v->types[i] == NQ_TOK_CONTROL);
        if (!wanted || v->text[i].len == 0) {
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

novaq_status nq_specials_init(nq_specials *s, const nq_vocab *v, bool control, novaq_error *err) {
    *s = (nq_specials){0};
    entry *list = NULL;
    NQ_TRY(nq_alloc(&list, v->count, sizeof *list, err));
    size_t count = 0;
    novaq_status st = gather(list, &count, v, control, err);
    st = st == NOVAQ_OK ? nq_alloc(&s->text, count, sizeof *s->text, err) : st;
    st = st == NOVAQ_OK ? nq_alloc(&s->ids, count, sizeof *s->ids, err) : st;
    if (st == NOVAQ_OK) {
        qsort(list, count, sizeof *list, by_bytes);
        for (size_t i = 0; i < count; i++) {
            s->text[i] = list[i].text;
            s->ids[i] = list[i].id;
            s->starts[list[i].text.data[0]] = true;
        }
        s->count = count;
    }
    nq_free(list);
    return st;
}

void nq_specials_free(nq_specials *s) {
    nq_free(s->text);
    nq_free(s->ids);
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

static bool longest(const nq_specials *s, const uint8_t *text, size_t len, uint32_t *id) {
    size_t lo = 0;
    size_t hi = s->count;
    bool found = false;
    for (uint32_t depth = 0; depth < len && lo < hi; depth++) {
        lo = lower_bound(s, lo, hi, depth, text[depth]);
        hi = lower_bound(s, lo, hi, depth, text[depth] + 1U);
        /* A token that ends here sorts before those that go on. */
        if (lo < hi && s->text[lo].len == depth + 1) {
            *id = s->ids[lo];
            found = true;
        }
    }
    return found;
}

bool nq_specials_next(const nq_specials *s, const uint8_t *text, size_t from, size_t len,
                      size_t *at, uint32_t *id) {
    for (size_t i = from; s->count > 0 && i < len; i++) {
        if (s->starts[text[i]] && longest(s, text + i, len - i, id)) {
            *at = i;
            return true;
        }
    }
    return false;
}

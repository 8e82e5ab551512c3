/* tokenizer_nfc.c - Unicode normalization form C, over utf8proc's tables.
 *
 * Owns: decomposition, canonical ordering by a stable merge sort (a hostile run
 * of combining marks stays O(n log n)) and the reference's older idea of which
 * marks exist. Refuses: changing bytes that are not UTF-8.
 */
#include <string.h>
#include <utf8proc.h>

#include "model/tokenizer_impl.h"

#define DECOMPOSED_MAX 32 /* the longest canonical decomposition has 4 */

/* Code points not yet composed: they begin at a boundary. */
typedef struct run {
    utf8proc_int32_t *cps;
    utf8proc_int32_t *spare; /* for merging, as long as cps */
    size_t len, cap;
} run;

static int combining(utf8proc_int32_t cp) { return utf8proc_get_property(cp)->combining_class; }

static void merge_halves(utf8proc_int32_t *a, size_t mid, size_t len, utf8proc_int32_t *spare) {
    memcpy(spare, a, len * sizeof *a);
    size_t i = 0;
    size_t j = mid;
    for (size_t k = 0; k < len; k++) {
        bool left = j == len || (i < mid && combining(spare[i]) <= combining(spare[j]));
        a[k] = left ? spare[i++] : spare[j++];
    }
}

static void sort_marks(utf8proc_int32_t *a, size_t len, utf8proc_int32_t *spare) {
    for (size_t width = 1; width < len; width *= 2) {
        for (size_t i = 0; i + width < len; i += 2 * width) {
            size_t n = len - i < 2 * width ? len - i : 2 * width;
            merge_halves(a + i, width, n, spare);
        }
    }
}

/* Orders and composes the pending code points and writes them out. */
static novaq_status flush(nq_buf *dst, run *r, novaq_error *err) {
    if (r->len == 0) {
        return NOVAQ_OK;
    }
    for (size_t i = 0; i < r->len;) {
        size_t end = i;
        while (end < r->len && combining(r->cps[end]) != 0) {
            end++;
        }
        sort_marks(r->cps + i, end - i, r->spare);
        i = end + 1;
    }
    utf8proc_ssize_t n = utf8proc_normalize_utf32(r->cps, (utf8proc_ssize_t)r->len,
                                                  UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    if (n < 0) {
        return nq_fail(err, NOVAQ_E_FORMAT, "NFC: %s", utf8proc_errmsg(n));
    }
    for (utf8proc_ssize_t i = 0; i < n; i++) {
        uint8_t bytes[4];
        unsigned k = nq_utf8_put(bytes, (uint32_t)r->cps[i]);
        NQ_TRY(nq_buf_append(dst, bytes, k, err));
    }
    r->len = 0;
    return NOVAQ_OK;
}

static novaq_status decompose(run *r, uint32_t cp, novaq_error *err) {
    if (r->cap - r->len < DECOMPOSED_MAX) {
        size_t cap = r->cap * 2 + 256;
        NQ_TRY(nq_grow(&r->cps, r->len, cap, sizeof *r->cps, err));
        NQ_TRY(nq_grow(&r->spare, 0, cap, sizeof *r->spare, err));
        r->cap = cap;
    }
    int boundary = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, r->cps + r->len,
                                                 DECOMPOSED_MAX, UTF8PROC_DECOMPOSE, &boundary);
    if (n < 0 || n > DECOMPOSED_MAX) {
        return nq_fail(err, NOVAQ_E_FORMAT, "NFC: cannot decompose U+%04X", (unsigned)cp);
    }
    r->len += (size_t)n;
    return NOVAQ_OK;
}

novaq_status nq_nfc(nq_buf *dst, const uint8_t *text, size_t len, novaq_error *err) {
    run r = {0};
    novaq_status st = NOVAQ_OK;
    for (size_t i = 0; st == NOVAQ_OK && i < len;) {
        uint32_t cp = 0;
        unsigned n = nq_utf8_next(text + i, len - i, &cp);
        bool copied = n == 0 || nq_unicode_is_inert(cp);
        n += n == 0;
        if (r.len == 0 && cp < 0x80 && (i + 1 == len || text[i + 1] < 0x80)) {
            st = nq_buf_append(dst, text + i, 1, err);
        } else if (copied) {
            st = flush(dst, &r, err);
            st = st == NOVAQ_OK ? nq_buf_append(dst, text + i, n, err) : st;
        } else {
            /* Nothing composes with ASCII before it, so work goes in short runs. */
            st = cp < 0x80 && r.len > 0 ? flush(dst, &r, err) : NOVAQ_OK;
            st = st == NOVAQ_OK ? decompose(&r, cp, err) : st;
        }
        i += n;
    }
    st = st == NOVAQ_OK ? flush(dst, &r, err) : st;
    nq_free(r.cps);
    nq_free(r.spare);
    return st;
}

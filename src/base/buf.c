/* buf.c - see buf.h. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

nq_buf nq_buf_init(size_t max) { return (nq_buf){.max = max}; }

static novaq_status reserve(nq_buf *b, size_t extra, novaq_error *err) {
    if (extra > b->max || b->len > b->max - extra) {
        return nq_fail(err, NOVAQ_E_MEMORY, "buffer limit of %zu bytes reached", b->max);
    }
    size_t need = b->len + extra + 1;
    if (need <= b->cap) {
        return NOVAQ_OK;
    }
    size_t cap = b->cap < 128 ? 256 : b->cap * 2;
    if (cap < need) {
        cap = need;
    }
    NQ_TRY(nq_grow(&b->data, b->len, cap, 1, err));
    b->cap = cap;
    return NOVAQ_OK;
}

novaq_status nq_buf_append(nq_buf *b, const void *data, size_t len, novaq_error *err) {
    NQ_TRY(reserve(b, len, err));
    if (len > 0) {
        memcpy(b->data + b->len, data, len);
    }
    b->len += len;
    b->data[b->len] = 0;
    return NOVAQ_OK;
}

novaq_status nq_buf_puts(nq_buf *b, const char *s, novaq_error *err) {
    return nq_buf_append(b, s, strlen(s), err);
}

novaq_status nq_buf_printf(nq_buf *b, novaq_error *err, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    novaq_status st =
        n < 0 ? nq_fail(err, NOVAQ_E_ARG, "unprintable text") : reserve(b, (size_t)n, err);
    if (st == NOVAQ_OK) {
        (void)vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    return st;
}

novaq_status nq_buf_zeros(nq_buf *b, size_t len, novaq_error *err) {
    NQ_TRY(reserve(b, len, err));
    memset(b->data + b->len, 0, len + 1);
    b->len += len;
    return NOVAQ_OK;
}

novaq_status nq_buf_take(nq_buf *b, char **out, size_t *len, novaq_error *err) {
    *out = NULL;
    NQ_TRY(reserve(b, 0, err));
    b->data[b->len] = 0;
    *out = (char *)b->data;
    if (len != NULL) {
        *len = b->len;
    }
    *b = nq_buf_init(b->max);
    return NOVAQ_OK;
}

void nq_buf_free(nq_buf *b) {
    nq_free(b->data);
    *b = nq_buf_init(b->max);
}

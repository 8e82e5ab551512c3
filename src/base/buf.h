/* buf.h - a growable byte buffer that is born with a maximum.
 *
 * Owns: nothing else than its bytes. Every buffer that input can grow has a
 * limit, so that a hostile length cannot exhaust memory.
 */
#ifndef NQ_BASE_BUF_H
#define NQ_BASE_BUF_H

#include "base/mem.h"

typedef struct nq_buf {
    uint8_t *data; /* len bytes, followed by a NUL that len does not count */
    size_t len;
    size_t cap;
    size_t max;
} nq_buf;

/* An empty buffer that never exceeds max bytes; allocates nothing yet. */
nq_buf nq_buf_init(size_t max);
NOVAQ_CHECK novaq_status nq_buf_append(nq_buf *b, const void *data, size_t len, novaq_error *err);
NOVAQ_CHECK novaq_status nq_buf_puts(nq_buf *b, const char *s, novaq_error *err);
NOVAQ_CHECK novaq_status nq_buf_printf(nq_buf *b, novaq_error *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Appends len zero bytes. */
NOVAQ_CHECK novaq_status nq_buf_zeros(nq_buf *b, size_t len, novaq_error *err);
/* The bytes become the caller's (nq_free); b is empty again. Never NULL. */
NOVAQ_CHECK novaq_status nq_buf_take(nq_buf *b, char **out, size_t *len, novaq_error *err);
void nq_buf_free(nq_buf *b);

#endif

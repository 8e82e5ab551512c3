/* sha256.h - SHA-256, streaming, over OpenSSL.
 *
 * Owns: the digest context. Refuses: other digests.
 */
#ifndef NQ_BASE_SHA256_H
#define NQ_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define NQ_SHA256_BYTES 32
#define NQ_SHA256_HEX   64

typedef struct nq_sha256 nq_sha256;

NOVAQ_CHECK novaq_status nq_sha256_open(nq_sha256 **out, novaq_error *err);
/* A failure inside OpenSSL is kept and reported by nq_sha256_finish(). */
void nq_sha256_update(nq_sha256 *h, const void *data, size_t len);
/* 64 lower-case digits and a NUL; the context starts afresh. */
NOVAQ_CHECK novaq_status nq_sha256_finish(char hex[NQ_SHA256_HEX + 1], nq_sha256 *h,
                                          novaq_error *err);
/* Releases *h and nulls it. NULL is fine. */
void nq_sha256_close(nq_sha256 **h);

/* The digest of one block of memory. */
NOVAQ_CHECK novaq_status nq_sha256_of(char hex[NQ_SHA256_HEX + 1], const void *data, size_t len,
                                      novaq_error *err);

#endif

/* digest.h - a source that hashes the bytes that go by.
 *
 * Owns: the SHA-256 of what is read in order, and reading the small gaps that readers
 * leave. Refuses: hashing what comes out of order, reading large gaps.
 */
#ifndef NQ_IO_DIGEST_H
#define NQ_IO_DIGEST_H

#include "io/source.h"

/* Takes over *inner (and nulls it) whatever happens. sha256: 64 lower-case digits that
 * its content is promised to have. nq_source_verified() of files.h gives the verdict. */
NOVAQ_CHECK novaq_status nq_digest_open(nq_source **out, nq_source **inner, const char *sha256,
                                        novaq_error *err);

#endif

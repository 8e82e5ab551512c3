/* source.h - a readable sequence of bytes, wherever it lives.
 *
 * Owns: the interface that files, http and everything built on them share.
 * Refuses: knowing formats.
 */
#ifndef NQ_IO_SOURCE_H
#define NQ_IO_SOURCE_H

#include <stdbool.h>

#include "base/status.h"

typedef struct nq_source nq_source;

typedef struct nq_source_vtable {
    novaq_status (*read_at)(nq_source *s, uint64_t offset, void *dst, uint64_t len,
                            novaq_error *err);
    void (*close)(nq_source *s);
    /* May be NULL. */
    void (*expect)(nq_source *s, uint64_t offset, uint64_t len);
} nq_source_vtable;

struct nq_source {
    const nq_source_vtable *vt;
    char *name;    /* for messages: path or URL; owned */
    uint64_t size; /* bytes */
    bool remote;   /* reading costs a round trip */
};

/* Opens a regular file for reading (pread; safe for concurrent read_at). */
NOVAQ_CHECK novaq_status nq_source_open_file(nq_source **out, const char *path, novaq_error *err);
/* Whether s reads the very file that `path` leads to now; false where s is no file that
 * nq_source_open_file() opened. */
bool nq_source_is_file(const nq_source *s, const char *path);
/* Exactly len bytes at offset, or an error; never short. Thread-safe. */
NOVAQ_CHECK novaq_status nq_source_read(nq_source *s, uint64_t offset, void *dst, uint64_t len,
                                        novaq_error *err);
/* Says that bytes [offset, offset+len) will be read next, mostly in order, so that one
 * request can bring them all. A hint: other reads stay correct. */
void nq_source_expect(nq_source *s, uint64_t offset, uint64_t len);
void nq_source_close(nq_source **s);

#endif

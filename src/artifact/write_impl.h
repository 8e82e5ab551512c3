/* write_impl.h - what write*.c share: the inside of nq_writer.
 *
 * States: while `replaying`, the files and the journal are those of an
 * interrupted run and are only read; layers are recalled one by one.
 * nq_write_settle() ends that: it drops what was not recalled, and from then on
 * the writer appends. */
#ifndef NQ_ARTIFACT_WRITE_IMPL_H
#define NQ_ARTIFACT_WRITE_IMPL_H

#include "artifact/journal.h"
#include "artifact/manifest.h"
#include "artifact/write.h"

#define NQ_JOURNAL_VERSION 1

struct nq_writer {
    char *path;
    char *data_path;  /* single-file form: of the hidden data file */
    bool made_dir;    /* path did not exist */
    bool failed;      /* an add failed half-way: nothing can be finished */
    bool finished;    /* the artifact is there, whatever fails after it */
    nq_outfile *last; /* manifest.json or the single file; holds the lock */
    nq_outfile *out;  /* chunk or data file at work, or NULL */
    bool open_chunk;
    uint64_t at; /* bytes of the open chunk */
    nq_sha256 *sha;
    nq_blake3 blake;
    nq_blake3 span; /* of the layer at work */
    nq_contents c;  /* names and diagnostics owned here */
    size_t layer_cap;
    size_t chunk_cap;
    char **made;             /* chunk files that were not there before; chunk_count entries */
    json_t *source, *origin; /* for finish, or NULL */

    bool resumable;
    nq_journal journal;
    bool replaying;
    size_t kept;          /* records that were recalled, with those before them */
    json_t *notes;        /* object */
    nq_stored_layer next; /* what nq_writer_next() showed; strings in the journal */
    size_t next_record;   /* its record */
    char *origin_now;     /* where it is not the journal's */
    nq_map map;           /* the file of the chunk at work, or the data file */
    bool map_final;       /* under its final name */
    uint64_t map_base;    /* where in it the chunk begins */
    uint64_t map_dropped; /* before it nothing of the map is kept in memory */
};

/* ---- write.c: chunks */
NOVAQ_CHECK novaq_status nq_write_chunk_begin(nq_writer *w, novaq_error *err);
NOVAQ_CHECK novaq_status nq_write_chunk_end(nq_writer *w, novaq_error *err);
/* A layer whose pieces are placed is among the contents from now on. */
NOVAQ_CHECK novaq_status nq_write_keep(nq_writer *w, const nq_stored_layer *s, novaq_error *err);
/* Hashes bytes that are in the file already, or come to be. */
void nq_write_hash(nq_writer *w, const void *data, uint64_t len);
/* Whether a layer of `bytes` begins another chunk. */
static inline bool nq_write_turns(const nq_writer *w, uint64_t bytes) {
    return w->open_chunk && w->at >= NQ_CHUNK_TARGET && bytes > 0;
}

/* ---- write_target.c: files */
void nq_write_remove(const nq_writer *w, const char *name);
/* Removes a chunk file, unless the manifest that is there names it: what an artifact
 * needs stays until the next one has appeared. */
void nq_write_remove_chunk(const nq_writer *w, const char *name);
/* "DIR/chunk-00003.bin", what the partial file of a chunk is named after. */
NOVAQ_CHECK novaq_status nq_write_chunk_path(char **out, const nq_writer *w, size_t index,
                                             novaq_error *err);
/* Removes chunk files, finished and partial, that neither this run nor an
 * artifact that is there needs. */
void nq_write_sweep(const nq_writer *w);

/* ---- write_resume.c: the journal */
/* Reads the journal and decides what of it counts. The lock is held. */
NOVAQ_CHECK novaq_status nq_write_resume_open(nq_writer *w, nq_resumption *how,
                                              const nq_writer_key *key, bool restart,
                                              novaq_error *err);
/* Ends the replay. */
NOVAQ_CHECK novaq_status nq_write_settle(nq_writer *w, novaq_error *err);
NOVAQ_CHECK novaq_status nq_write_record_layer(nq_writer *w, const nq_stored_layer *s,
                                               const json_t *note, novaq_error *err);
NOVAQ_CHECK novaq_status nq_write_record_chunk(nq_writer *w, const nq_chunk *k, bool made,
                                               novaq_error *err);
/* Says that the manifest with this hash is about to appear. */
NOVAQ_CHECK novaq_status nq_write_record_done(nq_writer *w, const char *manifest, size_t len,
                                              novaq_error *err);

#endif

/* write.h - writing an artifact.
 *
 * Owns: chunking, hashing, the manifest and its summary, atomic appearance:
 * chunks first (temp + fsync + rename), manifest last; the journal by which an
 * interrupted run is continued. Refuses: leaving anything that verify would
 * accept before finish() has returned.
 */
#ifndef NQ_ARTIFACT_WRITE_H
#define NQ_ARTIFACT_WRITE_H

#include "artifact/artifact.h"

typedef struct nq_writer nq_writer;

/* single_file 0: path becomes a directory (created; an existing novaq artifact
 * there is replaced only at finish; a directory holding anything else is
 * refused). 1: path becomes one file. What an interrupted run left is removed.
 */
NOVAQ_CHECK novaq_status nq_writer_open(nq_writer **out, const char *path, int single_file,
                                        novaq_error *err);

/* Whether a writer could open now, with the same refusals; what an interrupted run left
 * stays as it is. */
NOVAQ_CHECK novaq_status nq_writer_probe(const char *path, int single_file, novaq_error *err);

/* ---- resuming --------------------------------------------------------------------- */

/* What a run's results depend on, as hashes or any other text. */
typedef struct nq_writer_key {
    const char *recipe;  /* the options that decide bytes, and the tool */
    const char *tensors; /* names, types and shapes of the source's tensors */
    const char *origin;  /* where the bytes come from, and what tells that they are
                            the same */
} nq_writer_key;

typedef enum nq_resumption {
    NQ_RESUME_NONE,    /* there was nothing to go on from */
    NQ_RESUME_OTHER,   /* what there was belongs to other options or another source:
                          dropped */
    NQ_RESUME_SAME,    /* it goes on */
    NQ_RESUME_DOUBTFUL /* it goes on, but the source may hold other bytes now */
} nq_resumption;

/* As nq_writer_open(), with a journal. restart: what an interrupted run left is
 * removed, whatever it is. */
NOVAQ_CHECK novaq_status nq_writer_open_resumable(nq_writer **out, nq_resumption *how,
                                                  const char *path, int single_file,
                                                  const nq_writer_key *key, bool restart,
                                                  novaq_error *err);
/* Records something that was found out, under a key, once, before any layer. */
NOVAQ_CHECK novaq_status nq_writer_note(nq_writer *w, const char *key, const json_t *value,
                                        novaq_error *err);
/* What was recorded, or NULL. Borrowed until the next call that changes the
 * writer. */
const json_t *nq_writer_noted(const nq_writer *w, const char *key);
/* The layer of this name, if it is the next that a run before has finished: all
 * but its data, and the note it was added with. NULL otherwise. Borrowed like a
 * note. */
const nq_layer *nq_writer_next(nq_writer *w, const char *name, const json_t **note);
/* Takes over the layer that nq_writer_next() gave, in place of nq_writer_add().
 * *layer: with its data, until the next call. *found false: its bytes are not
 * what they were; it and all after it are forgotten. */
NOVAQ_CHECK novaq_status nq_writer_recall(nq_layer *layer, bool *found, nq_writer *w,
                                          const char *name, novaq_error *err);
/* Forgets the layers not recalled, and, before the first layer, the notes as
 * well. */
NOVAQ_CHECK novaq_status nq_writer_forget(nq_writer *w, novaq_error *err);
/* Bytes of the finished layers that are there to be recalled. */
uint64_t nq_writer_recallable(const nq_writer *w);

/* ---- writing ---------------------------------------------------------------------- */

/* Appends a layer; every byte is copied or written before it returns. Layers
 * appear in the order of the calls. name, shape, role, scheme, q or data, error
 * and diagnostics of *layer are used; stored_bytes is computed. */
NOVAQ_CHECK novaq_status nq_writer_add(nq_writer *w, const nq_layer *layer, novaq_error *err);
/* The same, with a note (object or NULL) for the journal. */
NOVAQ_CHECK novaq_status nq_writer_add_noted(nq_writer *w, const nq_layer *layer,
                                             const json_t *note, novaq_error *err);
/* Before finish: the manifest's "source" object, and what goes to
 * NAME.origin.json beside the artifact; either may be NULL. */
void nq_writer_set_source(nq_writer *w, const json_t *source, const json_t *origin);
/* Writes chunks, then the manifest. model: description object (its member
 * "tokenizer", when an object, goes to a deflated piece). config: object for
 * quantization.config. *report (may be NULL) receives the summary object.
 * Consumes *w, unless it fails before the artifact is there and there is a journal:
 * then nq_writer_abort() or _leave() is left to do. */
NOVAQ_CHECK novaq_status nq_writer_finish(nq_writer **w, const char *source_locator,
                                          const json_t *config, const json_t *model,
                                          json_t **report, novaq_error *err);
/* Removes what was written so far. NULL is fine. */
void nq_writer_abort(nq_writer **w);
/* Keeps it, for a later run to go on from; true when there was something to
 * keep. Without a journal as nq_writer_abort(). NULL is fine. */
bool nq_writer_leave(nq_writer **w);

/* Sizes that a finished artifact with these layers would have, for a plan:
 * pieces only, alignment included. */
uint64_t nq_layer_stored_bytes(const nq_layer *layer);

#endif

/* write.h - writing an artifact.
 *
 * Owns: chunking, hashing, the manifest and its summary, atomic appearance:
 * chunks first (temp + fsync + rename), manifest last. Refuses: leaving
 * anything that verify would accept before finish() has returned.
 */
#ifndef NQ_ARTIFACT_WRITE_H
#define NQ_ARTIFACT_WRITE_H

#include "artifact/artifact.h"

typedef struct nq_writer nq_writer;

/* single_file 0: path becomes a directory (created; an existing novaq artifact
 * there is replaced only at finish; a directory holding anything else is
 * refused). 1: path becomes one file. */
NOVAQ_CHECK novaq_status nq_writer_open(nq_writer **out, const char *path, int single_file,
                                        novaq_error *err);
/* Appends a layer; every byte is copied or written before it returns. Layers
 * appear in the order of the calls. name, shape, role, scheme, q or data, error
 * and diagnostics of *layer are used; stored_bytes is computed. */
NOVAQ_CHECK novaq_status nq_writer_add(nq_writer *w, const nq_layer *layer, novaq_error *err);
/* Writes chunks, then the manifest. model: description object (its member
 * "tokenizer", when an object, goes to a deflated piece). config: object for
 * quantization.config. *report (may be NULL) receives the summary object.
 * Consumes *w whatever happens. */
NOVAQ_CHECK novaq_status nq_writer_finish(nq_writer **w, const char *source_locator,
                                          const json_t *config, const json_t *model,
                                          json_t **report, novaq_error *err);
/* Removes what was written so far. NULL is fine. */
void nq_writer_abort(nq_writer **w);

/* Sizes that a finished artifact with these layers would have, for a plan:
 * pieces only, alignment included. */
uint64_t nq_layer_stored_bytes(const nq_layer *layer);

#endif

/* intake.h - the tensors of a source as they go by, once.
 *
 * Owns: what identifies the source by content (a BLAKE3 of every tensor's bytes, taken
 * while they are read), what tells that it is still the one an interrupted run read, in
 * which order tensors are fetched ahead, and letting go of them. Refuses: keeping them.
 */
#ifndef NQ_COMPRESS_INTAKE_H
#define NQ_COMPRESS_INTAKE_H

#include "base/blake3.h"
#include "base/json.h"
#include "format/tensors.h"

typedef char nq_hash_text[NQ_BLAKE3_HEX + 1];

typedef struct nq_intake {
    nq_tensors *ts;      /* borrowed */
    nq_hash_text *bytes; /* (count) of each tensor's bytes; "" until they were read */
    uint64_t ahead;      /* bytes that may be fetched ahead */
} nq_intake;

/* memory: bytes the whole work may take, 0 = as little as goes. */
NOVAQ_CHECK novaq_status nq_intake_open(nq_intake *s, nq_tensors *ts, uint64_t memory,
                                        novaq_error *err);
void nq_intake_close(nq_intake *s);

/* All elements of t as float32; all its bytes. They are not read again afterwards. */
NOVAQ_CHECK novaq_status nq_intake_read_f32(float *dst, nq_intake *s, const nq_tensor_info *t,
                                            novaq_error *err);
NOVAQ_CHECK novaq_status nq_intake_read(void *dst, nq_intake *s, const nq_tensor_info *t,
                                        novaq_error *err);
/* The hash of t's bytes, "" if it was not read yet. */
const char *nq_intake_hash(const nq_intake *s, const nq_tensor_info *t);
/* Takes it over from another run, which makes reading t unnecessary. */
void nq_intake_known(nq_intake *s, const nq_tensor_info *t, const char *hash);
/* Reads t for its hash alone. */
NOVAQ_CHECK novaq_status nq_intake_pass(nq_intake *s, const nq_tensor_info *t, novaq_error *err);
/* These tensors will be read in this order, mostly. */
NOVAQ_CHECK novaq_status nq_intake_ahead(nq_intake *s, const nq_tensor_info *const *order,
                                         size_t count, novaq_error *err);

/* All tensors are read now, in their order: those of a remote source are fetched ahead
 * within `memory` (0: as little as goes). */
NOVAQ_CHECK novaq_status nq_intake_all(nq_tensors *ts, uint64_t memory, novaq_error *err);

/* The manifest's "source": format, tensors, bytes, blake3 (of name, type, shape and hash
 * of every tensor in the order of their names). Once all tensors were read. */
NOVAQ_CHECK novaq_status nq_intake_source(json_t **out, const nq_intake *s, novaq_error *err);

/* *report: {"tensors", "bytes"} of what a source has besides the model of text that is
 * read, as "left_out"; nothing where there is none. */
void nq_intake_left_out(json_t *report, const nq_tensors *ts);

/* Hash of names, types, shapes and of `more`. */
NOVAQ_CHECK novaq_status nq_intake_outline(nq_hash_text out, nq_tensors *ts, const json_t *more,
                                           novaq_error *err);
/* Hash of what tells that bytes are the same as before without reading them: SHA-256 where
 * the place promises one, else size and entity tag or date, else size, time and inode.
 * *sure: false where none of these is known of some file. */
NOVAQ_CHECK novaq_status nq_intake_origin_key(nq_hash_text out, bool *sure, const json_t *origin,
                                              nq_tensors *ts, novaq_error *err);
/* Bytes that came over the network. */
uint64_t nq_intake_received(nq_tensors *ts);
/* Whether the source is somewhere else, and so slow to read. */
bool nq_intake_is_remote(nq_tensors *ts);
/* Bytes of all tensors. */
uint64_t nq_intake_bytes(const nq_tensors *ts);

#endif

/* calibration.h - the text a model is calibrated on.
 *
 * Owns: token sequences: windows of a file, or text that the model itself samples
 * (all sequences advance together, Gumbel maximum, randomness by hash, so that
 * the same seed gives the same text for any number of threads on one machine).
 * Refuses: looking at the model's inputs (flow.h does).
 */
#ifndef NQ_COMPRESS_CALIBRATION_H
#define NQ_COMPRESS_CALIBRATION_H

#include "base/blake3.h"
#include "base/pool.h"
#include "format/tensors.h"

/* More would tell nothing new. */
#define NQ_CALIBRATION_TOKENS_MAX (1U << 22)

typedef struct nq_calibration {
    int32_t *tokens; /* (sequences, length) */
    uint32_t sequences, length;
} nq_calibration;

/* calibration: "none", "self", "auto" or a text file. With "none", and with "auto"
 * when the model cannot be run or is large, out->sequences is 0, and *why
 * (nq_free) says why, or is NULL for "none"; with the others that is an error.
 * wanted: tokens in all, 0 = default; a file must hold a window at least. The model is
 * read through ts, which nq_model_tensors_open() opened, or opened by path where that is
 * NULL. */
NOVAQ_CHECK novaq_status nq_calibration_open(nq_calibration *out, char **why, const char *path,
                                             nq_tensors *ts, const char *calibration,
                                             uint32_t wanted, uint64_t seed, nq_pool *pool,
                                             novaq_progress_fn progress, void *progress_ctx,
                                             novaq_error *err);
void nq_calibration_close(nq_calibration *c);
/* Hash of the text file that `calibration` names, "" where it names none. Texts are read
 * more than once, for this and for their tokens: what is no regular file is refused. */
NOVAQ_CHECK novaq_status nq_calibration_hash(char hex[NQ_BLAKE3_HEX + 1], const char *calibration,
                                             novaq_error *err);
/* Too many parameters for "auto". */
bool nq_calibration_is_large(const nq_tensors *ts);

#endif

/* size.h - how large an artifact will be, before it is written.
 *
 * Owns: the size of a recipe's artifact in either form, from the real layout and
 * the real manifest text with figures of the greatest length in place of those
 * that only coding will tell: never too low, and within a per cent for any model
 * worth compressing. Refuses: guessing the tokenizer; it is deflated as the writer
 * does it.
 */
#ifndef NQ_COMPRESS_SIZE_H
#define NQ_COMPRESS_SIZE_H

#include "format/tensors.h"

struct nq_recipe;

typedef struct nq_sizer nq_sizer;

/* Describes the model and deflates its tokenizer, once. */
NOVAQ_CHECK novaq_status nq_sizer_open(nq_sizer **out, const nq_tensors *ts, novaq_error *err);
void nq_sizer_close(nq_sizer **s);

/* Bytes on disk, every file counted, of r's artifact in the form its options ask
 * for, refined if they say so. An upper bound. */
NOVAQ_CHECK novaq_status nq_artifact_size(uint64_t *bytes, const nq_sizer *s,
                                          const struct nq_recipe *r, novaq_error *err);

#endif

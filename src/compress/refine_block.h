/* refine_block.h - a coded block learns from the original one, before it is written.
 *
 * Owns: bringing the streams of a flow and the matrices of one block to
 * refine/blockwise.h, and how fast is learnt. Refuses: writing.
 */
#ifndef NQ_COMPRESS_REFINE_BLOCK_H
#define NQ_COMPRESS_REFINE_BLOCK_H

#include "compress/flow.h"
#include "compress/job.h"

/* A matrix of the block. */
typedef struct nq_block_item {
    const char *name;   /* of its tensor */
    nq_encoded *made;   /* what it was coded to, or NULL: */
    const float *dense; /* (rows, cols) it stays as it is */
} nq_block_item;

/* The flow has gone through the block, and kept its inputs. *better: the pieces of the
 * coded items have changed, and with them the block is nearer to the original one on
 * sequences that were not learnt from. Fewer than two sequences teach nothing. */
NOVAQ_CHECK novaq_status nq_refine_block(bool *better, nq_flow *f, nq_compress_job *j,
                                         uint32_t block, const nq_block_item *items, unsigned count,
                                         novaq_error *err);

#endif

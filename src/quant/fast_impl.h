/* fast_impl.h - what fast.c and fast_prepare.c share.
 *
 * Owns: the prepared matrix and the basis of its activations. Refuses: use outside
 * fast*.c.
 */
#ifndef NQ_QUANT_FAST_IMPL_H
#define NQ_QUANT_FAST_IMPL_H

#include "quant/fast.h"

/* What activations are multiplied by before they are mixed: the signs of the
 * rotation and what undoes the column scales. */
typedef struct nq_fast_basis {
    nq_rotation rotation;
    uint64_t cols;
    const int8_t *col_exponent; /* borrowed; the identity of the scales */
    float *factor;              /* (cols) */
} nq_fast_basis;

struct nq_fast {
    const nq_qmat *q;
    const nq_gemv_kern *kern;
    const nq_fast_basis *basis; /* NULL: activations as they are */
    nq_codes codes;             /* lane != 0 */
    unsigned lane;              /* 16 or 8; 0: rows are decoded to bytes first */
    nq_fields fields;           /* tables != NULL: rows are unpacked first, for one token */
    unsigned d;
    uint64_t plane;       /* bytes of a plane of activations */
    uint64_t row_bytes;   /* of a token: planes * plane, a multiple of 64 */
    uint64_t padded_cols; /* whole units of columns */
    int32_t bias;         /* of the weight bytes */
    int32_t limit;        /* of |x| */
    float scale;          /* 2^exponent, times the codebook scale where there is one */
    float *column_scale;  /* (cols) codebook scales of groups, or NULL */
    void *owned[3];       /* tables, pairs, tail */
};

#endif

/* tensor_out.h - tensors on their way into another program's file format.
 *
 * Owns: the description of a tensor to be written, converting its rows to the
 * wanted element type and streaming them, a block of rows at a time. Refuses:
 * file layout (write_gguf.h, write_safetensors.h) and knowing where the rows
 * come from.
 */
#ifndef NQ_ARTIFACT_TENSOR_OUT_H
#define NQ_ARTIFACT_TENSOR_OUT_H

#include "base/dtype.h"
#include "base/pool.h"
#include "io/fs.h"

#define NQ_OUT_RANK 8

struct nq_tensor_out;

/* Rows [row0, row0+count) of the tensor into dst: float (count, cols), or, when
 * t->raw, elements of t->dtype. Called from several threads at once. */
typedef novaq_status (*nq_rows_fn)(const struct nq_tensor_out *t, void *dst, uint64_t row0,
                                   uint64_t count, novaq_error *err);

typedef struct nq_tensor_out {
    const char *name;
    nq_dtype dtype; /* F32, F16 or BF16; any plain type when raw */
    bool raw;       /* read() delivers elements of dtype, not floats */
    uint32_t rank;
    uint64_t shape[NQ_OUT_RANK]; /* row-major, outermost first */
    uint64_t rows, cols;         /* rows * cols = product of shape */
    uint64_t row_multiple;       /* blocks hold a multiple of this many rows; 0 = 1 */
    nq_rows_fn read;
    void *ctx; /* for read() */
} nq_tensor_out;

/* Progress over all tensors of one file. */
typedef struct nq_out_progress {
    novaq_progress_fn fn; /* may be NULL */
    void *ctx;
    uint64_t done, total; /* bytes of tensor data */
} nq_out_progress;

/* Bytes of the tensor as written; NOVAQ_E_ARG when shape, rows and cols
 * disagree or the size overflows. */
NOVAQ_CHECK novaq_status nq_tensor_out_bytes(uint64_t *bytes, const nq_tensor_out *t,
                                             novaq_error *err);
/* Appends the tensor's bytes to f. A finite value that the element type cannot
 * hold is NOVAQ_E_NUMERIC, naming the tensor. */
NOVAQ_CHECK novaq_status nq_tensor_out_write(nq_outfile *f, const nq_tensor_out *t, nq_pool *pool,
                                             nq_out_progress *progress, novaq_error *err);

#endif

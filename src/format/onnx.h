/* onnx.h - the weights of an ONNX model.
 *
 * Owns: initializers and weight constants of a graph and its subgraphs, in every
 * way a TensorProto stores numbers, external files included; the orientation and
 * the names that a SafeTensors file of the same model has, where the graph proves
 * them: a matrix that a product multiplies from the right lies as [in, out] and is
 * presented as [out, in]; a matrix the exporter folded ("onnx::MatMul_27") gets
 * the name of the module whose node uses it. Refuses: guessing either, weights
 * that are quantized already, sparse tensors, executing anything, external data
 * outside the model's folder.
 */
#ifndef NQ_FORMAT_ONNX_H
#define NQ_FORMAT_ONNX_H

#include "format/tensors.h"

/* A run of elements of a typed field (float_data, int32_data ...). */
typedef struct nq_onnx_piece {
    uint64_t offset; /* of its first element in the file */
    uint64_t first;  /* index of that element in the tensor */
    uint32_t stride; /* bytes from one to the next; 0: varints */
    uint32_t tagged; /* varints that each follow a tag */
} nq_onnx_piece;

/* How stored numbers become a tensor whose bytes do not just lie in the file. */
typedef struct nq_onnx_view {
    size_t piece; /* first in nq_onnx.pieces */
    size_t pieces;
    bool transposed; /* stored as [shape[1], shape[0]] */
    uint64_t end;    /* of the pieces, in the file; they begin at the tensor's offset */
} nq_onnx_view;

typedef struct nq_onnx_text { /* strings that stay where they are */
    char **blocks;
    size_t count;
    size_t used; /* of the last block */
} nq_onnx_text;

typedef struct nq_onnx {
    nq_tensor_info *tensors; /* in file order; .view: 1 + index in views, or 0 */
    size_t count;
    nq_onnx_view *views;
    nq_onnx_piece *pieces;
    nq_onnx_text text; /* what names point into */
} nq_onnx;

/* Opens a file of external data that lies beside the model. *out stays the
 * callee's; *file is its number in nq_tensor_info.file. */
typedef novaq_status (*nq_onnx_open_fn)(void *ctx, nq_source **out, uint32_t *file,
                                        const char *location, novaq_error *err);

/* Whether src is plausibly a ModelProto: an ir_version first, a graph later. Fails
 * when src cannot be read, not over what is in it. */
NOVAQ_CHECK novaq_status nq_onnx_is_model(bool *yes, nq_source *src, novaq_error *err);

/* *out is empty on failure. The model itself is file 0. */
NOVAQ_CHECK novaq_status nq_onnx_parse(nq_onnx *out, nq_source *src, nq_onnx_open_fn open,
                                       void *ctx, novaq_error *err);
void nq_onnx_free(nq_onnx *o);

/* Bytes [offset, offset + len) of a tensor with a view, as presented, and all of
 * it as float32. src: the file it is in. Thread-safe; the bounds are the
 * caller's. A mebibyte or two of memory besides dst, whatever the size. */
NOVAQ_CHECK novaq_status nq_onnx_read(void *dst, const nq_onnx *o, nq_source *src,
                                      const nq_tensor_info *t, uint64_t offset, uint64_t len,
                                      novaq_error *err);
NOVAQ_CHECK novaq_status nq_onnx_read_f32(float *dst, const nq_onnx *o, nq_source *src,
                                          const nq_tensor_info *t, novaq_error *err);

/* Refuses locations of external data that are absolute or lead up. */
NOVAQ_CHECK novaq_status nq_onnx_external_name(const char *location, novaq_error *err);
/* The path of external data named by a model at `path`, symbolic links resolved.
 * Refuses absolute locations, "..", and files that really lie neither in the
 * model's folder nor beside the file that `path` links to (as in the cache of
 * Hugging Face, where both are links into one folder). */
NOVAQ_CHECK novaq_status nq_onnx_external_path(char **out, const char *path, const char *location,
                                               novaq_error *err);

#endif

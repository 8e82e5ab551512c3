/* tensors_impl.h - the inside of nq_tensors, shared by the files that open and
 * read one. Private to format/. */
#ifndef NQ_FORMAT_TENSORS_IMPL_H
#define NQ_FORMAT_TENSORS_IMPL_H

#include "format/gguf_parse.h"
#include "format/names.h"
#include "format/onnx.h"
#include "format/safetensors.h"
#include "format/torch.h"

typedef struct nq_shard {
    nq_source *src;
    nq_safetensors st; /* one of them is filled */
    nq_gguf gguf;
    nq_torch torch;
} nq_shard;

struct nq_tensors {
    nq_format format;
    char *path; /* as given by the caller */
    char *dir;
    nq_shard *shards;
    uint32_t shard_count;
    nq_tensor_info *tensors; /* sorted by (file, offset) */
    size_t count;
    size_t cap;
    nq_name *by_name; /* index: in tensors */
    uint64_t *turned; /* (count, 2) strides of transposed tensors, or NULL */
    nq_onnx onnx;     /* of an ONNX model */
};

/* Fills ts, whose path is set, from a model at `path`. On failure ts is left
 * partly filled, for nq_tensors_close(). */
NOVAQ_CHECK novaq_status nq_tensors_load(nq_tensors *ts, const char *path, novaq_error *err);

/* The same for an ONNX model, whose file is shard 0 already. */
NOVAQ_CHECK novaq_status nq_tensors_load_onnx(nq_tensors *ts, novaq_error *err);
/* The ONNX model of a directory, NULL when there is none; *out: nq_free(). */
NOVAQ_CHECK novaq_status nq_tensors_locate_onnx(char **out, const char *dir, novaq_error *err);

/* The model file that a directory stands for; *out: nq_free(). */
NOVAQ_CHECK novaq_status nq_tensors_locate(char **out, const char *dir, novaq_error *err);

/* Adds the tensors of the last shard, all or those that keep() wants. */
typedef bool (*nq_keep_fn)(void *ctx, const char *name);
NOVAQ_CHECK novaq_status nq_tensors_add(nq_tensors *ts, const nq_tensor_info *list, size_t count,
                                        nq_keep_fn keep, void *ctx, novaq_error *err);
/* Room for one more shard, over src, which it owns from now on. */
NOVAQ_CHECK novaq_status nq_tensors_add_shard(nq_tensors *ts, nq_source *src, novaq_error *err);

#endif

/* tensors_impl.h - the inside of nq_tensors, shared by the files that open and
 * read one. Private to format/. */
#ifndef NQ_FORMAT_TENSORS_IMPL_H
#define NQ_FORMAT_TENSORS_IMPL_H

#include "format/gguf_parse.h"
#include "format/names.h"
#include "format/onnx.h"
#include "format/safetensors.h"
#include "format/tensors_ahead.h"
#include "format/torch.h"

typedef struct nq_shard {
    nq_source *src;
    bool promised;     /* a SHA-256 of its content */
    nq_safetensors st; /* one of them is filled */
    nq_gguf gguf;
    nq_torch torch;
} nq_shard;

struct nq_tensors {
    nq_format format;
    nq_files *files; /* NULL: one source that was open already */
    char *path;      /* as given by the caller */
    char *model;     /* name of the first file within the place */
    char *folder;    /* of config.json within the place: "", "sub" */
    char *dir;       /* the same in the file system, or NULL */
    nq_shard *shards;
    uint32_t shard_count;
    nq_tensor_info *tensors; /* sorted by (file, offset) */
    size_t count;
    size_t cap;
    nq_name *by_name; /* index: in tensors */
    char *names;      /* of the tensors, where they were given others; or NULL */
    size_t left_out;  /* tensors that were not kept */
    uint64_t left_out_bytes;
    uint64_t *turned; /* (count, 2) strides of transposed tensors, or NULL */
    nq_onnx onnx;     /* of an ONNX model */
    nq_ahead *ahead;  /* NULL: everything is read when it is asked for */
    bool held;        /* ahead keeps everything */
    nq_ahead_tick tick;
};

/* Fills ts, whose path and files are set. On failure ts is left partly filled, for
 * nq_tensors_close(). */
NOVAQ_CHECK novaq_status nq_tensors_load(nq_tensors *ts, novaq_error *err);
/* A single file that is open already; *src is taken over (and nulled) whatever happens. */
NOVAQ_CHECK novaq_status nq_tensors_open_source(nq_tensors **out, nq_source **src,
                                                novaq_error *err);

/* The same for an ONNX model, whose file is shard 0 already; in: where to parse it. */
NOVAQ_CHECK novaq_status nq_tensors_load_onnx(nq_tensors *ts, nq_source *in, novaq_error *err);

/* tensors_locate.c: sets ts->model and ts->folder, from what the place holds. */
NOVAQ_CHECK novaq_status nq_tensors_locate(nq_tensors *ts, novaq_error *err);
NOVAQ_CHECK novaq_status nq_tensors_is_artifact(const char *path, novaq_error *err);

/* The name of a file beside the first one, within the place; nq_free(). */
NOVAQ_CHECK novaq_status nq_tensors_sibling(char **out, const nq_tensors *ts, const char *name,
                                            novaq_error *err);

/* Adds the tensors of the last shard, all or those that keep() wants. */
typedef bool (*nq_keep_fn)(void *ctx, const char *name);
NOVAQ_CHECK novaq_status nq_tensors_add(nq_tensors *ts, const nq_tensor_info *list, size_t count,
                                        nq_keep_fn keep, void *ctx, novaq_error *err);
/* One more shard: a file of the place by its name there. */
NOVAQ_CHECK novaq_status nq_tensors_open_shard(nq_tensors *ts, const char *name, novaq_error *err);

#endif

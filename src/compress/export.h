/* export.h - what the files of novaq_export() share.
 *
 * Owns: the plan of an export: which tensors, under which names, in which order
 * of rows. Refuses: use outside export*.c.
 */
#ifndef NQ_COMPRESS_EXPORT_H
#define NQ_COMPRESS_EXPORT_H

#include "artifact/tensor_out.h"
#include "artifact/write_gguf.h"
#include "model/hyper.h"
#include "model/weights.h"

/* Where the rows of one written tensor come from. */
typedef struct nq_export_source {
    nq_weights *w;
    const nq_weight *t;
    uint32_t head_dim;   /* rows of each head are reordered; 0 = as they are */
    bool to_interleaved; /* from pairs (i, i + head_dim/2) to (2i, 2i+1); else back */
    const float *values; /* instead of w: a vector made here */
} nq_export_source;

typedef struct nq_export_plan {
    nq_weights *w;
    const json_t *model; /* description, borrowed */
    bool known;          /* a runnable architecture: h is valid, names are mapped */
    novaq_error why;     /* if not known */
    nq_hyper h;
    nq_spelling target;
    nq_dtype dtype;                /* of matrices */
    nq_tensor_out *out;            /* (count) */
    nq_export_source *source;      /* (count), each the ctx of out[i] */
    char (*names)[NQ_TENSOR_NAME]; /* (count), for names that change */
    float *rope_factors;           /* (rope_dim/2) or NULL */
    size_t count;
} nq_export_plan;

/* export_plan.c: fills *p for target and dtype; w and model are borrowed.
 * path is for messages. Release with nq_export_plan_free(), whatever the result. */
NOVAQ_CHECK novaq_status nq_export_plan_make(nq_export_plan *p, nq_weights *w, const char *path,
                                             nq_spelling target, nq_dtype dtype, novaq_error *err);
void nq_export_plan_free(nq_export_plan *p);

/* export_gguf.c: general.*, <arch>.*, tokenizer.* of a known architecture. */
NOVAQ_CHECK novaq_status nq_export_gguf_keys(nq_gguf_keys *k, const nq_export_plan *p,
                                             novaq_error *err);

/* export_hf.c: config.json and its like as an object of file name -> content;
 * empty for an unknown architecture. */
NOVAQ_CHECK novaq_status nq_export_hf_files(json_t **files, const nq_export_plan *p,
                                            novaq_error *err);

#endif

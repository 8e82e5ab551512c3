/* kv.h - the insides of the key/value cache, for attention.c.
 *
 * Owns: the memory of keys and values, their layout, and the scratch of attention.
 * Refuses: arithmetic on them; see attention.h for what others may use.
 *
 * Layout: rows of `pitch` elements, (layer, sequence, head, position); one head's
 * positions follow each other, so that a query reads a stream. int8 rows have a
 * float scale each, in the same order.
 */
#ifndef NQ_MODEL_KV_H
#define NQ_MODEL_KV_H

#include "kern/attn.h"
#include "model/attention.h"

/* Keys that a query meets between two corrections of its running maximum; also the
 * length of the pieces that a long context is cut into when one token is generated. */
#define NQ_KV_BLOCK 256U
/* Rows of queries, tokens times heads that share keys, of one task. */
#define NQ_KV_ROWS 128U

/* Scratch of one worker. */
typedef struct nq_kv_work {
    float *q;      /* (rows, pitch) queries, scaled */
    float *o;      /* (rows, pitch) weighted sums */
    float *scores; /* (rows, NQ_KV_BLOCK) */
    float *panel;  /* (pitch, NQ_ATTN_PANEL) turned keys */
    float *most;   /* (rows) running maximum of the scores */
    float *sum;    /* (rows) sum of their exponentials */
} nq_kv_work;

struct nq_kv {
    nq_kv_shape s;
    nq_pool *pool;
    const nq_attn_kern *kern;
    uint32_t pitch;  /* elements of a stored row: head_dim, padded */
    uint32_t group;  /* query heads that share a key head */
    uint32_t tokens; /* new tokens of one task */
    uint32_t rows;   /* tokens * group */
    uint32_t spans;  /* pieces of NQ_KV_BLOCK positions in n_ctx */
    uint8_t *keys;
    uint8_t *values;
    float *key_scales; /* NQ_KV_Q8, else NULL */
    float *value_scales;
    float *scratch; /* (workers, scratch_floats) */
    uint64_t scratch_floats;
    float *parts;     /* (sequences, heads, spans, pitch) sums of pieces */
    float *part_most; /* (sequences, heads, spans) */
    float *part_sum;  /* (sequences, heads, spans) */
};

static inline nq_attn_type nq_kv_rows_type(const nq_kv *kv) {
    return kv->s.type == NQ_KV_F32   ? NQ_ATTN_F32
           : kv->s.type == NQ_KV_F16 ? NQ_ATTN_F16
                                     : NQ_ATTN_I8;
}

static inline uint32_t nq_kv_element(nq_kv_type t) {
    return t == NQ_KV_F32 ? 4 : t == NQ_KV_F16 ? 2 : 1;
}

/* Row number of a position. */
static inline uint64_t nq_kv_row(const nq_kv *kv, uint32_t layer, uint32_t sequence, uint32_t head,
                                 uint32_t position) {
    uint64_t index = ((uint64_t)layer * kv->s.sequences + sequence) * kv->s.heads_kv + head;
    return index * kv->s.n_ctx + position;
}

nq_kv_work nq_kv_work_of(const nq_kv *kv, unsigned worker);
/* Stores one head's key and value (head_dim each) as row number `row`; padded is
 * scratch of pitch floats whose end is zero. */
void nq_kv_store(nq_kv *kv, uint64_t row, const float *k, const float *v, float *padded);

#endif

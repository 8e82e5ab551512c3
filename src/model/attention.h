/* attention.h - the key/value cache and attention over it.
 *
 * Owns: storing keys and values (float32, float16, or int8 with one scale per
 * head and position), masks (causal, sliding window), soft-capped scores,
 * grouped queries, the division of the work over the pool. Refuses: projections
 * and norms of queries and keys, see forward.c.
 *
 * Results do not depend on the number of threads. What a cache loses: float16, 2^-11
 * of each number (beyond 65504 it becomes that); int8, half a scale, the largest
 * magnitude of that head at that position / 254.
 */
#ifndef NQ_MODEL_ATTENTION_H
#define NQ_MODEL_ATTENTION_H

#include "base/pool.h"
#include "model/rope.h"

typedef enum nq_kv_type { NQ_KV_F32, NQ_KV_F16, NQ_KV_Q8 } nq_kv_type;

typedef struct nq_kv_shape {
    uint32_t layers;    /* layers the cache holds */
    uint32_t sequences; /* independent sequences */
    uint32_t n_ctx;     /* positions of each */
    uint32_t heads;     /* query heads; a multiple of heads_kv */
    uint32_t heads_kv;
    uint32_t head_dim;
    uint32_t block; /* most new tokens of a sequence in one call */
    nq_kv_type type;
} nq_kv_shape;

typedef struct nq_kv nq_kv; /* cache and scratch of attention */

/* Bytes of keys and values, without scratch; UINT64_MAX when that overflows. */
uint64_t nq_kv_bytes(const nq_kv_shape *s);
/* pool is borrowed; NULL is one thread. Nothing is allocated after this. Memory
 * of positions never used is never touched (mapped lazily by the system). */
NOVAQ_CHECK novaq_status nq_kv_open(nq_kv **out, const nq_kv_shape *s, nq_pool *pool,
                                    novaq_error *err);
void nq_kv_close(nq_kv **kv);

typedef struct nq_attention {
    uint32_t layer;     /* of the cache */
    uint32_t sequences; /* in use */
    uint32_t count;     /* new tokens of each sequence, at positions position.. */
    uint32_t position;
    uint32_t window;     /* keys a query sees, itself included; 0 = all before it */
    float scale;         /* of scores, usually 1/sqrt(head_dim) */
    float softcap;       /* scores become softcap * tanh(score / softcap); 0 = none */
    const nq_rope *rope; /* or NULL: heads are not turned */
    float *q;       /* (sequences*count, heads, head_dim): turned in place; rows q_stride apart */
    float *k;       /* (sequences*count, heads_kv, head_dim): turned in place; kv_stride apart */
    const float *v; /* (sequences*count, heads_kv, head_dim): kv_stride apart */
    uint64_t q_stride;  /* floats from one token's row to the next */
    uint64_t kv_stride; /* the same for k and v */
    float *out;         /* (sequences*count, heads, head_dim), contiguous */
} nq_attention;

/* Turns q and k, stores k and v, attends. */
void nq_attention_run(nq_kv *kv, const nq_attention *a);

#endif

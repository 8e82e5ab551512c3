/* net_impl.h - the inside of nq_net, shared by its files.
 *
 * Owns: the trainable form of a model's parts and the buffers of a pass. Refuses: use
 * outside net*.c.
 *
 * Rows are tokens of all sequences, sequence by sequence. Buffers named d* hold the
 * gradient of the loss by what the name says behind it.
 */
#ifndef NQ_REFINE_NET_IMPL_H
#define NQ_REFINE_NET_IMPL_H

#include "refine/net.h"

/* Rows of one task of the element-wise passes. */
#define NQ_NET_TASK 32
/* Queries of one tile of attention. */
#define NQ_NET_TILE 64

/* A vector of parameters; value NULL: there is none. */
typedef struct nq_tvector {
    float *value; /* (n) */
    float *grad;  /* (n); NULL where frozen */
    uint64_t n;
} nq_tvector;

typedef struct nq_tnorm {
    nq_tvector gain, bias;
} nq_tnorm;

/* A block; matrices that are not bound are NULL. */
typedef struct nq_tblock {
    const nq_block *b;
    nq_tnorm attn_norm, ffn_norm, attn_post, ffn_post, q_norm, k_norm;
    nq_tvector qkv_bias; /* fused: the three below are parts of it */
    nq_tvector q_bias, k_bias, v_bias, out_bias, gate_bias, up_bias, down_bias;
    nq_tmatrix *q, *k, *v, *qkv, *out, *gate, *up, *gate_up, *down, *router;
    nq_tmatrix **experts; /* (3, experts): gates, ups, downs; owned */
} nq_tblock;

/* The inside of the block at work: what its way back reads. The first seven lie in a
 * slot: number 0 for all blocks that are computed again, one for each of the others. */
typedef struct nq_inside {
    float *qkv;   /* (rows, wide + 2 kv) fused, or the three behind each other; turned */
    float *raw;   /* the same before the norms of heads; without such norms not there */
    float *att;   /* (rows, wide) */
    float *o;     /* (rows, dim) attention's output, where a norm follows */
    float *h;     /* (rows, dim) residual stream between the halves */
    float *f;     /* (rows, dim) feed-forward's output, where a norm follows */
    float *gu;    /* (rows, 2 ff) gate and up, fused or behind each other */
    float *n1;    /* (rows, dim) normed input */
    float *n2;    /* (rows, dim) normed h */
    float *act;   /* (rows, ff) */
    float *dn;    /* (rows, dim) */
    float *dout;  /* (rows, dim) where a norm follows an output */
    float *dqkv;  /* as qkv */
    float *dkeys; /* (rows, wide) of each query head alone */
    float *dvals; /* (rows, wide) */
    float *datt;  /* (rows, wide) */
    float *dgu;   /* as gu */
    float *dact;  /* (rows, ff) */
    float *tiles; /* (threads, 3, NQ_NET_TILE, length): scores, weights, their gradients */
    float *parts; /* (tasks, 2, widest): gradients of vectors, task by task */
} nq_inside;

/* What choosing experts needs; all NULL without. */
typedef struct nq_choice {
    float *scores;     /* (rows, experts): probabilities */
    float *dscores;    /* (rows, experts) */
    uint32_t *chosen;  /* (rows, used) */
    float *weights;    /* (rows, used) */
    float *dweights;   /* (rows, used) */
    uint32_t *members; /* (rows) places (row * used + i) in these lists of the expert at work */
    uint32_t count;    /* of them */
    float *in;         /* (rows, dim) their inputs, */
    float *out;        /* (rows, dim) outputs */
    float *din;        /* (rows, dim) */
    float *dout;       /* (rows, dim) */
} nq_choice;

struct nq_net {
    const nq_model *m;
    nq_net_options opt;
    nq_tmatrix *matrices; /* (matrix_count): those without parameters too */
    size_t matrix_count;
    nq_tmatrix *embed, *head; /* head is embed when tied */
    nq_tnorm output_norm;
    nq_tblock *blocks;
    nq_param *params;
    size_t param_count, param_room;
    float **vectors; /* owned values and gradients */
    size_t vector_count;
    nq_tmatrix_work *work;
    nq_rope rope[NQ_LAYER_KINDS];
    uint32_t sequences, length, rows; /* of the pass at work */
    float *stream;  /* (blocks + 1 or 2, rows, dim): the inputs of blocks and the output */
    float *output;  /* (rows, dim) of the last pass, part of stream; NULL: none */
    float *dx;      /* (rows, dim) */
    uint32_t chunk; /* rows of logits at a time */
    float *normed;  /* (chunk, dim) */
    float *logits;  /* (chunk, vocab); of a frozen net only once a pass has asked for it */
    float *dlogits; /* (chunk, vocab) */
    float *slots;   /* (1 + kept, slot_floats) */
    uint64_t slot_floats;
    float *gates;  /* (rows, 2 ff) of experts, in place of a slot's */
    uint32_t kept; /* the last so many blocks have a slot each */
    nq_inside in;
    nq_choice choice;
};

/* Where queries, keys and values lie. */
typedef struct nq_heads {
    float *q, *k, *v;
    uint64_t q_stride, kv_stride; /* floats from one row to the next */
} nq_heads;

/* Vectors to be normed: count of width each in every row, rows stride apart. */
typedef struct nq_spans {
    uint64_t rows, count, width, stride;
} nq_spans;

static inline uint64_t nq_net_wide(const nq_net *n) {
    return (uint64_t)n->m->hyper.heads * n->m->hyper.head_dim;
}
static inline uint64_t nq_net_kv(const nq_net *n) {
    return (uint64_t)n->m->hyper.heads_kv * n->m->hyper.head_dim;
}
/* The blocks it has, up to but without the second. */
static inline uint32_t nq_net_first(const nq_net *n) { return n->opt.single ? n->opt.block : 0; }
static inline uint32_t nq_net_end(const nq_net *n) {
    return n->opt.single ? n->opt.block + 1 : n->m->hyper.blocks;
}
static inline nq_spans nq_net_stream(const nq_net *n) {
    return (nq_spans){n->rows, 1, n->m->hyper.dim, n->m->hyper.dim};
}
static inline uint64_t nq_net_tasks(uint64_t rows) {
    return (rows + NQ_NET_TASK - 1) / NQ_NET_TASK;
}
static inline uint64_t nq_net_task_rows(uint64_t rows, uint64_t task) {
    uint64_t left = rows - task * NQ_NET_TASK;
    return left < NQ_NET_TASK ? left : NQ_NET_TASK;
}

/* ---- net.c: the slot of a block; and in's pointers into it ------------------------------- */
static inline uint32_t nq_net_slot_of(const nq_net *n, uint32_t block) {
    uint32_t again = n->m->hyper.blocks - n->kept;
    return block < again ? 0 : block - again + 1;
}
void nq_net_use_slot(nq_net *n, uint32_t slot);

/* ---- net_norm.c: norms and what is done to each element ------------------------------
 * out may be x. */
void nq_net_norm(nq_net *n, float *out, const float *x, const nq_tnorm *norm, nq_spans s);
/* dx = (add: +=) the gradient by x, from dy; dx may be dy. Gains and biases += theirs. */
void nq_net_norm_backward(nq_net *n, float *dx, bool add, const float *dy, const float *x,
                          const nq_tnorm *norm, nq_spans s);
/* x (rows, bias.n), rows stride apart, += bias, if there is one. */
void nq_net_add_bias(nq_net *n, float *x, const nq_tvector *bias, uint64_t stride);
/* The bias's gradient += the sum of dy's rows. */
void nq_net_bias_backward(nq_net *n, const nq_tvector *bias, const float *dy, uint64_t stride);
/* y += x, (rows, dim). */
void nq_net_add(nq_net *n, float *y, const float *x);
/* x (count) = cap * tanh(x / cap); and dx *= its derivative where x has become y. */
void nq_net_softcap(nq_net *n, float *x, uint64_t count, float cap);
void nq_net_softcap_backward(nq_net *n, float *dx, const float *y, uint64_t count, float cap);

/* ---- net_attention.c ----------------------------------------------------------------- */
nq_heads nq_net_heads(const nq_net *n, const nq_tblock *t, float *qkv);
/* in.qkv holds products: biases, norms, turns, in.att. */
void nq_net_attention(nq_net *n, const nq_tblock *t);
/* From in.datt to in.dqkv by the products; norms' and biases' gradients. */
void nq_net_attention_backward(nq_net *n, const nq_tblock *t);

/* ---- net_ffn.c: f (rows, dim) from in.n2 ----------------------------------------------
 * f NULL: only the inside is wanted, for the way back. */
NOVAQ_CHECK novaq_status nq_net_ffn(float *f, nq_net *n, const nq_tblock *t, novaq_error *err);
/* in.dn += the gradient by in.n2, from df. */
NOVAQ_CHECK novaq_status nq_net_ffn_backward(nq_net *n, const nq_tblock *t, const float *df,
                                             novaq_error *err);
/* Where gate and up lie in a buffer for `rows` rows, which are stride apart; gate NULL:
 * there is none. */
typedef struct nq_gates {
    float *gate, *up;
    uint64_t stride;
} nq_gates;
/* How a block has them: fused in one matrix; with a gate. */
typedef struct nq_gating {
    bool fused, gated;
} nq_gating;
nq_gates nq_net_gates(const nq_net *n, float *gu, nq_gating g, uint64_t rows);
/* How block t has them. */
nq_gating nq_net_gating(const nq_tblock *t);
/* in.act (rows, ff) from in.gu; and back, from in.dact into in.dgu. */
void nq_net_activate(nq_net *n, nq_gating g, uint64_t rows);
void nq_net_activate_backward(nq_net *n, nq_gating g, uint64_t rows);

/* ---- net_moe.c: the same of a block with experts -------------------------------------- */
NOVAQ_CHECK novaq_status nq_net_moe(float *f, nq_net *n, const nq_tblock *t, novaq_error *err);
NOVAQ_CHECK novaq_status nq_net_moe_backward(nq_net *n, const nq_tblock *t, const float *df,
                                             novaq_error *err);

/* ---- net_block.c: dx (n, cols) = the gradient by x of y = m x, and m's gradients ------- */
NOVAQ_CHECK novaq_status nq_net_back_matrix(float *dx, bool add, nq_net *n, nq_tmatrix *m,
                                            const float *dy, const float *x, uint64_t rows,
                                            novaq_error *err);
/* y (rows, dim) of x; y NULL: only the inside, for the way back. */
NOVAQ_CHECK novaq_status nq_net_forward_block(float *y, nq_net *n, const nq_tblock *t,
                                              const float *x, novaq_error *err);
/* dx (rows, dim): from the gradient by the block's output to that by its input x. kept: the
 * inside lies in the slot in use. */
NOVAQ_CHECK novaq_status nq_net_back_block(float *dx, nq_net *n, const nq_tblock *t, const float *x,
                                           bool kept, novaq_error *err);

#endif

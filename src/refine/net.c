/* net.c - see net.h: opening, parameters, memory.
 *
 * Teacher and student share nothing they change: gains and biases are copied here,
 * what matrices learn is copied by matrix.c. Sizes come from hyperparameters that
 * model/hyper.c bounds (2^24 rows of 2^23 elements, 2^12 blocks), so that products of
 * them fit 64 bits. */
#include <string.h>

#include "base/mem.h"
#include "refine/net_impl.h"

/* Tokens of a net. */
#define MAX_ROWS ((uint64_t)1 << 24)
/* Vectors a block may have: 6 norms with gain and bias, 7 biases or a fused one. */
#define BLOCK_VECTORS  20
#define MATRIX_PARAMS  4
#define BLOCK_MATRICES 10 /* and the experts */
/* Of a nq_tmatrix_work: decoded rows, their gradient, partial sums, packed numbers. */
#define WORK_FLOATS ((uint64_t)14 << 20)

/* ---- vectors ------------------------------------------------------------------------ */

/* What a vector is in the model. */
typedef struct vector_spec {
    nq_param_kind kind;
    nq_tensor_id id;
    unsigned block;
    float offset;
} vector_spec;

static const nq_weight *tensor_of(const nq_model *m, nq_tensor_id id, unsigned block) {
    const nq_hyper *h = &m->hyper;
    char name[NQ_TENSOR_NAME];
    for (unsigned i = 0; nq_arch_tensor_name(name, h->arch, h->spelling, id, block, 0, i) != NULL;
         i++) {
        const nq_weight *t = nq_weights_find(m->weights, name);
        if (t != NULL) {
            return t;
        }
    }
    return NULL;
}

static novaq_status copy_of(float **out, nq_net *n, const float *value, uint64_t count,
                            novaq_error *err) {
    NQ_TRY(nq_alloc(out, count, sizeof **out, err));
    n->vectors[n->vector_count++] = *out;
    if (value != NULL) {
        memcpy(*out, value, count * sizeof **out);
    }
    return NOVAQ_OK;
}

/* A copy of value (count); out stays empty without one. */
static novaq_status add_vector(nq_tvector *out, nq_net *n, vector_spec s, const float *value,
                               uint64_t count, novaq_error *err) {
    if (value == NULL) {
        return NOVAQ_OK;
    }
    out->n = count;
    NQ_TRY(copy_of(&out->value, n, value, count, err));
    if (n->opt.frozen) {
        return NOVAQ_OK;
    }
    const nq_weight *t = tensor_of(n->m, s.id, s.block);
    if (t == NULL) {
        return nq_fail(err, NOVAQ_E_FORMAT, "a vector of block %u has no tensor", s.block);
    }
    NQ_TRY(copy_of(&out->grad, n, NULL, count, err));
    n->params[n->param_count++] = (nq_param){.name = t->name,
                                             .kind = s.kind,
                                             .value = out->value,
                                             .grad = out->grad,
                                             .count = count,
                                             .offset = s.offset};
    return NOVAQ_OK;
}

static novaq_status add_norm(nq_tnorm *out, nq_net *n, const nq_norm *norm, nq_tensor_id gain,
                             nq_tensor_id bias, unsigned block, uint64_t width, novaq_error *err) {
    const nq_hyper *h = &n->m->hyper;
    bool less_one = h->arch->gains_from_one && h->spelling == NQ_SPELL_HF;
    vector_spec g = {NQ_PARAM_GAIN, gain, block, less_one ? 1.0F : 0.0F};
    vector_spec b = {NQ_PARAM_BIAS, bias, block, 0.0F};
    NQ_TRY(add_vector(&out->gain, n, g, norm->gain, width, err));
    return add_vector(&out->bias, n, b, norm->bias, width, err);
}

static nq_tvector part_of(const nq_tvector *v, uint64_t at, uint64_t count) {
    return (nq_tvector){v->value + at, v->grad == NULL ? NULL : v->grad + at, count};
}

static novaq_status add_bias(nq_tvector *out, nq_net *n, const float *value, nq_tensor_id id,
                             unsigned block, uint64_t count, novaq_error *err) {
    return add_vector(out, n, (vector_spec){NQ_PARAM_BIAS, id, block, 0.0F}, value, count, err);
}

static novaq_status add_qkv_biases(nq_tblock *t, nq_net *n, unsigned i, novaq_error *err) {
    const nq_block *b = t->b;
    uint64_t wide = nq_net_wide(n);
    uint64_t kv = nq_net_kv(n);
    bool fused = b->q_bias != NULL && tensor_of(n->m, NQ_T_ATTN_QKV_BIAS, i) != NULL;
    if (fused) {
        NQ_TRY(add_bias(&t->qkv_bias, n, b->q_bias, NQ_T_ATTN_QKV_BIAS, i, wide + 2 * kv, err));
        t->q_bias = part_of(&t->qkv_bias, 0, wide);
        t->k_bias = part_of(&t->qkv_bias, wide, kv);
        t->v_bias = part_of(&t->qkv_bias, wide + kv, kv);
        return NOVAQ_OK;
    }
    NQ_TRY(add_bias(&t->q_bias, n, b->q_bias, NQ_T_ATTN_Q_BIAS, i, wide, err));
    NQ_TRY(add_bias(&t->k_bias, n, b->k_bias, NQ_T_ATTN_K_BIAS, i, kv, err));
    return add_bias(&t->v_bias, n, b->v_bias, NQ_T_ATTN_V_BIAS, i, kv, err);
}

/* T_COUNT: a norm that never has a bias. */
static novaq_status add_block_vectors(nq_tblock *t, nq_net *n, unsigned i, novaq_error *err) {
    const nq_block *b = t->b;
    uint64_t dim = n->m->hyper.dim;
    uint64_t head = n->m->hyper.head_dim;
    uint64_t ff = n->m->hyper.ff;
    NQ_TRY(add_norm(&t->attn_norm, n, &b->attn_norm, NQ_T_ATTN_NORM, NQ_T_ATTN_NORM_BIAS, i, dim,
                    err));
    NQ_TRY(add_qkv_biases(t, n, i, err));
    NQ_TRY(add_norm(&t->q_norm, n, &b->q_norm, NQ_T_ATTN_Q_NORM, NQ_T_COUNT, i, head, err));
    NQ_TRY(add_norm(&t->k_norm, n, &b->k_norm, NQ_T_ATTN_K_NORM, NQ_T_COUNT, i, head, err));
    NQ_TRY(add_bias(&t->out_bias, n, b->out_bias, NQ_T_ATTN_OUT_BIAS, i, dim, err));
    NQ_TRY(add_norm(&t->attn_post, n, &b->attn_post_norm, NQ_T_ATTN_POST_NORM, NQ_T_COUNT, i, dim,
                    err));
    NQ_TRY(add_norm(&t->ffn_norm, n, &b->ffn_norm, NQ_T_FFN_NORM, NQ_T_FFN_NORM_BIAS, i, dim, err));
    NQ_TRY(add_bias(&t->gate_bias, n, b->gate_bias, NQ_T_FFN_GATE_BIAS, i, ff, err));
    NQ_TRY(add_bias(&t->up_bias, n, b->up_bias, NQ_T_FFN_UP_BIAS, i, ff, err));
    NQ_TRY(add_bias(&t->down_bias, n, b->down_bias, NQ_T_FFN_DOWN_BIAS, i, dim, err));
    return add_norm(&t->ffn_post, n, &b->ffn_post_norm, NQ_T_FFN_POST_NORM, NQ_T_COUNT, i, dim,
                    err);
}

/* ---- matrices -------------------------------------------------------------------------- */

/* *out stays NULL where l is not bound. */
static novaq_status add_matrix(nq_tmatrix **out, nq_net *n, const nq_linear *l, novaq_error *err) {
    if (l->w == NULL) {
        return NOVAQ_OK;
    }
    nq_tmatrix *m = &n->matrices[n->matrix_count];
    NQ_TRY(nq_tmatrix_open(m, l, n->opt.group_cols, n->opt.frozen, err));
    n->matrix_count++;
    *out = m;
    if (!n->opt.frozen) {
        n->param_count += nq_tmatrix_params(n->params + n->param_count, m);
    }
    return NOVAQ_OK;
}

static novaq_status add_block_matrices(nq_tblock *t, nq_net *n, novaq_error *err) {
    const nq_block *b = t->b;
    uint64_t experts = b->experts.gate == NULL ? 0 : 3 * (uint64_t)n->m->hyper.experts;
    struct {
        nq_tmatrix **to;
        const nq_linear *from;
    } const list[] = {{&t->q, &b->q},       {&t->k, &b->k},
                      {&t->v, &b->v},       {&t->qkv, &b->qkv},
                      {&t->out, &b->out},   {&t->gate, &b->gate},
                      {&t->up, &b->up},     {&t->gate_up, &b->gate_up},
                      {&t->down, &b->down}, {&t->router, &b->experts.router}};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        NQ_TRY(add_matrix(list[i].to, n, list[i].from, err));
    }
    if (experts > 0) {
        NQ_TRY(nq_alloc(&t->experts, experts, sizeof *t->experts, err));
    }
    for (uint64_t e = 0; e < experts; e++) {
        NQ_TRY(add_matrix(&t->experts[e], n, &b->experts.gate[e], err)); /* ups, downs behind */
    }
    return NOVAQ_OK;
}

/* The largest of all matrices. */
typedef struct extent {
    uint64_t elements, rows, cols;
} extent;

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

static extent measure(const nq_net *n) {
    extent e = {0};
    for (size_t i = 0; i < n->matrix_count; i++) {
        const nq_tmatrix *m = &n->matrices[i];
        e.elements = larger(e.elements, m->rows * m->cols);
        e.rows = larger(e.rows, m->rows);
        e.cols = larger(e.cols, m->cols);
    }
    return e;
}

/* ---- buffers ------------------------------------------------------------------------------ */

typedef struct buffer {
    float **at;
    uint64_t count; /* floats; 0: not needed */
} buffer;

#define BUFFERS 32

static bool any_norm(const nq_model *m, bool heads) {
    bool any = false;
    for (uint32_t i = 0; i < m->hyper.blocks; i++) {
        const nq_block *b = &m->blocks[i];
        any = any || (heads ? b->q_norm.gain != NULL || b->k_norm.gain != NULL
                            : b->attn_post_norm.gain != NULL || b->ffn_post_norm.gain != NULL);
    }
    return any;
}

/* A head that is no float32 copy is decoded for each chunk anew, so chunks should have hundreds of
 * rows. How many there are decides in which order gradients are summed: by the shape alone. */
static uint32_t chunk_rows(const nq_net *n, uint64_t rows) {
    uint64_t most = larger(NQ_NET_CHUNK_FLOATS / n->m->hyper.vocab, NQ_NET_CHUNK_ROWS);
    uint64_t chunks = (rows + most - 1) / most;
    return (uint32_t)((rows + chunks - 1) / chunks);
}

/* Parts of a slot, in floats. */
typedef struct slot_sizes {
    uint64_t qkv, raw, att, o, h, f, gu;
} slot_sizes;

static slot_sizes slot_of(const nq_net *n) {
    const nq_hyper *h = &n->m->hyper;
    uint64_t rows = (uint64_t)n->opt.sequences * n->opt.length;
    uint64_t qkv = rows * (nq_net_wide(n) + 2 * nq_net_kv(n));
    uint64_t post = any_norm(n->m, false) ? rows * h->dim : 0;
    return (slot_sizes){.qkv = qkv,
                        .raw = any_norm(n->m, true) ? qkv : 0,
                        .att = rows * nq_net_wide(n),
                        .o = post,
                        .h = rows * h->dim,
                        .f = post,
                        .gu = 2 * rows * h->ff};
}

/* Sets what depends on the options alone. Gates of experts are never kept: slots share
 * those of number 0. */
static void plan(nq_net *n) {
    const nq_hyper *h = &n->m->hyper;
    slot_sizes s = slot_of(n);
    n->slot_floats = s.qkv + s.raw + s.att + s.o + s.h + s.f + (h->experts > 0 ? 0 : s.gu);
    uint64_t room =
        n->opt.frozen || n->opt.single ? 0 : n->opt.keep / (n->slot_floats * sizeof(float));
    n->kept = room < h->blocks ? (uint32_t)room : h->blocks;
    n->chunk = chunk_rows(n, (uint64_t)n->opt.sequences * n->opt.length);
}

void nq_net_use_slot(nq_net *n, uint32_t slot) {
    nq_inside *in = &n->in;
    slot_sizes s = slot_of(n);
    float *at = n->slots + slot * n->slot_floats;
    in->qkv = at;
    in->raw = s.raw > 0 ? at + s.qkv : NULL;
    in->att = at + s.qkv + s.raw;
    in->o = in->att + s.att;
    in->h = in->o + s.o;
    in->f = in->h + s.h;
    in->gu = n->m->hyper.experts > 0 ? n->gates : in->f + s.f;
}

/* All buffers of n, planned; how many. */
static unsigned lay_out(buffer *list, nq_net *n) {
    const nq_hyper *h = &n->m->hyper;
    nq_inside *in = &n->in;
    nq_choice *c = &n->choice;
    slot_sizes s = slot_of(n);
    uint64_t rows = (uint64_t)n->opt.sequences * n->opt.length;
    uint64_t stream = rows * h->dim;
    uint64_t back = n->opt.frozen ? 0 : 1;  /* needed by gradients only */
    uint64_t whole = n->opt.single ? 0 : 1; /* needed by passes only */
    uint64_t moe = h->experts > 0 ? 1 : 0;
    uint64_t widest = larger(larger(h->dim, h->ff), nq_net_wide(n));
    const buffer all[] = {
        {&n->stream, whole * (back != 0 ? (uint64_t)h->blocks + 1 : 2) * stream},
        {&n->normed, whole * n->chunk * h->dim},
        {&n->logits, whole * back * n->chunk * h->vocab},
        {&n->dlogits, whole * back * n->chunk * h->vocab},
        {&n->dx, back * stream},
        {&n->slots, (1 + (uint64_t)n->kept) * n->slot_floats},
        {&n->gates, moe * s.gu},
        {&in->n1, stream},
        {&in->n2, stream},
        {&in->act, rows * h->ff},
        {&in->dn, back * stream},
        {&in->dout, back * s.o},
        {&in->dqkv, back * s.qkv},
        {&in->dkeys, back * s.att},
        {&in->dvals, back * s.att},
        {&in->datt, back * s.att},
        {&in->dgu, back * s.gu},
        {&in->dact, back * rows * h->ff},
        {&in->tiles, nq_pool_threads(n->m->pool) * 3 * NQ_NET_TILE * (uint64_t)n->opt.length},
        {&in->parts, back * nq_net_tasks(rows) * 2 * widest},
        {&c->scores, moe * rows * h->experts},
        {&c->dscores, moe * back * rows * h->experts},
        {&c->weights, moe * rows * h->experts_used},
        {&c->dweights, moe * back * rows * h->experts_used},
        {&c->in, moe * stream},
        {&c->out, moe * stream},
        {&c->din, moe * back * stream},
        {&c->dout, moe * back * stream},
    };
    unsigned count = sizeof all / sizeof all[0];
    _Static_assert(sizeof all / sizeof all[0] <= BUFFERS, "room for all");
    memcpy(list, all, sizeof all);
    return count;
}

static novaq_status open_buffers(nq_net *n, novaq_error *err) {
    buffer list[BUFFERS];
    uint64_t rows = (uint64_t)n->opt.sequences * n->opt.length;
    const nq_hyper *h = &n->m->hyper;
    unsigned count = lay_out(list, n);
    for (unsigned i = 0; i < count; i++) {
        if (list[i].count > 0) {
            NQ_TRY(nq_alloc_raw(list[i].at, list[i].count, sizeof(float), err));
        }
    }
    if (h->experts > 0) {
        NQ_TRY(nq_alloc_raw(&n->choice.chosen, rows * h->experts_used, sizeof(uint32_t), err));
        NQ_TRY(nq_alloc_raw(&n->choice.members, rows, sizeof(uint32_t), err));
    }
    return NOVAQ_OK;
}

/* ---- opening ------------------------------------------------------------------------------ */

static novaq_status check_options(const nq_model *m, const nq_net_options *o, novaq_error *err) {
    if (o->sequences == 0 || o->length == 0 || (uint64_t)o->sequences * o->length > MAX_ROWS) {
        return nq_fail(err, NOVAQ_E_ARG, "%u sequences of %u tokens are not a batch", o->sequences,
                       o->length);
    }
    if (o->single && o->block >= m->hyper.blocks) {
        return nq_fail(err, NOVAQ_E_ARG, "block %u of %u", o->block, m->hyper.blocks);
    }
    if (m->positions != NULL && o->length > m->hyper.context) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "sequences of %u tokens: the model has learned %u positions", o->length,
                       m->hyper.context);
    }
    return NOVAQ_OK;
}

/* The matrices before the first block and behind the last. */
static novaq_status add_ends(nq_net *n, nq_model *m, novaq_error *err) {
    NQ_TRY(add_matrix(&n->embed, n, &m->embed, err));
    n->head = n->embed;
    return m->hyper.tied ? NOVAQ_OK : add_matrix(&n->head, n, &m->head, err);
}

static novaq_status open_parts(nq_net *n, nq_model *m, novaq_error *err) {
    const nq_hyper *h = &m->hyper;
    uint64_t blocks = nq_net_end(n) - nq_net_first(n);
    uint64_t vectors = blocks * BLOCK_VECTORS + 2;
    uint64_t matrices = blocks * (BLOCK_MATRICES + 3 * (uint64_t)h->experts) + 2;
    uint64_t rows = (uint64_t)n->opt.sequences * n->opt.length;
    NQ_TRY(nq_alloc(&n->matrices, matrices, sizeof *n->matrices, err));
    NQ_TRY(nq_alloc(&n->vectors, 2 * vectors, sizeof *n->vectors, err));
    NQ_TRY(nq_alloc(&n->params, vectors + matrices * MATRIX_PARAMS, sizeof *n->params, err));
    NQ_TRY(nq_alloc(&n->blocks, h->blocks, sizeof *n->blocks, err));
    if (!n->opt.single) {
        NQ_TRY(add_ends(n, m, err));
    }
    for (uint32_t i = nq_net_first(n); i < nq_net_end(n); i++) {
        n->blocks[i].b = &m->blocks[i];
        NQ_TRY(add_block_matrices(&n->blocks[i], n, err));
        NQ_TRY(add_block_vectors(&n->blocks[i], n, i, err));
    }
    if (!n->opt.single) {
        NQ_TRY(add_norm(&n->output_norm, n, &m->output_norm, NQ_T_OUTPUT_NORM,
                        NQ_T_OUTPUT_NORM_BIAS, 0, h->dim, err));
    }
    extent e = measure(n);
    for (unsigned kind = 0; kind < NQ_LAYER_KINDS; kind++) {
        if (m->rope[kind].dim > 0) {
            NQ_TRY(nq_rope_open(&n->rope[kind], &m->rope[kind], n->opt.length, err));
        }
    }
    NQ_TRY(nq_tmatrix_work_open(&n->work, m->pool, e.elements, e.rows, e.cols, rows, err));
    return n->opt.halves ? nq_tmatrix_work_halves(n->work, err) : NOVAQ_OK;
}

novaq_status nq_net_open(nq_net **out, nq_model *m, const nq_net_options *opt, novaq_error *err) {
    *out = NULL;
    nq_net *n = NULL;
    NQ_TRY(check_options(m, opt, err));
    NQ_TRY(nq_alloc(&n, 1, sizeof *n, err));
    n->m = m;
    n->opt = *opt;
    plan(n);
    novaq_status st = open_parts(n, m, err);
    if (st == NOVAQ_OK) {
        st = open_buffers(n, err);
    }
    if (st != NOVAQ_OK) {
        nq_net_close(&n);
        return st;
    }
    *out = n;
    return NOVAQ_OK;
}

void nq_net_close(nq_net **pn) {
    nq_net *n = *pn;
    buffer list[BUFFERS];
    *pn = NULL;
    if (n == NULL) {
        return;
    }
    unsigned count = lay_out(list, n);
    for (unsigned i = 0; i < count; i++) {
        nq_free(*list[i].at);
    }
    nq_free(n->choice.chosen);
    nq_free(n->choice.members);
    for (size_t i = 0; i < n->matrix_count; i++) {
        nq_tmatrix_close(&n->matrices[i]);
    }
    nq_free(n->matrices);
    for (size_t i = 0; i < n->vector_count; i++) {
        nq_free(n->vectors[i]);
    }
    nq_free(n->vectors);
    for (uint32_t i = 0; n->blocks != NULL && i < n->m->hyper.blocks; i++) {
        nq_free(n->blocks[i].experts);
    }
    nq_free(n->blocks);
    nq_free(n->params);
    for (unsigned kind = 0; kind < NQ_LAYER_KINDS; kind++) {
        nq_rope_close(&n->rope[kind]);
    }
    nq_tmatrix_work_close(&n->work);
    nq_free(n);
}

/* ---- what there is ----------------------------------------------------------------------- */

size_t nq_net_param_count(const nq_net *n) { return n->param_count; }

nq_param *nq_net_param(nq_net *n, size_t i) { return &n->params[i]; }

void nq_net_zero_gradients(nq_net *n) {
    for (size_t i = 0; i < n->param_count; i++) {
        memset(n->params[i].grad, 0, n->params[i].count * sizeof(float));
    }
}

size_t nq_net_matrix_count(const nq_net *n) { return n->matrix_count; }

nq_tmatrix *nq_net_matrix(nq_net *n, size_t i) { return &n->matrices[i]; }

/* ---- memory ------------------------------------------------------------------------------- */

/* What matrix.c keeps of a matrix: floats of its rows, columns and codebooks, and the
 * gradients of what is learnt of these. */
static uint64_t matrix_floats(const nq_linear *l, const nq_net_options *opt) {
    const nq_qmat *q = l->w == NULL || l->dense != NULL ? NULL : l->w->q;
    if (q == NULL) {
        return 0;
    }
    uint64_t groups = opt->group_cols > 0 ? (q->cols + opt->group_cols - 1) / opt->group_cols : 0;
    uint64_t books = larger(groups, q->groups) * nq_scheme_codebook_bytes(&q->scheme);
    uint64_t kept = 3 * nq_linear_rows(l) + 2 * q->cols + books;
    return kept + (opt->frozen ? 0 : 2 * nq_linear_rows(l) + q->cols + books);
}

/* What all matrices of the model and their vectors take. */
static uint64_t parts_floats(const nq_net *n) {
    const nq_model *m = n->m;
    const nq_net_options *opt = &n->opt;
    const nq_hyper *h = &m->hyper;
    uint64_t sum = matrix_floats(&m->embed, opt) + (h->tied ? 0 : matrix_floats(&m->head, opt));
    sum = opt->single ? 0 : sum;
    for (uint32_t i = nq_net_first(n); i < nq_net_end(n); i++) {
        const nq_block *b = &m->blocks[i];
        sum += 2 * (8 * (uint64_t)h->dim + 2 * (uint64_t)h->ff);
        for (unsigned stage = 0; stage < NQ_STAGES; stage++) {
            const nq_linear *l[NQ_GROUP_MAX];
            unsigned count = nq_block_linears(l, b, stage);
            for (unsigned k = 0; k < count; k++) {
                sum += matrix_floats(l[k], opt);
            }
        }
        for (uint64_t e = 0; b->experts.gate != NULL && e < 3 * (uint64_t)h->experts; e++) {
            sum += matrix_floats(&b->experts.gate[e], opt);
        }
    }
    return sum;
}

uint64_t nq_net_bytes(const nq_model *m, const nq_net_options *opt) {
    nq_net n = {.m = m, .opt = *opt};
    buffer list[BUFFERS];
    uint64_t rows = (uint64_t)opt->sequences * opt->length;
    uint64_t floats = parts_floats(&n) + WORK_FLOATS + 2 * rows * nq_stage_widest(m);
    plan(&n);
    unsigned count = lay_out(list, &n);
    for (unsigned i = 0; i < count; i++) {
        floats += list[i].count;
    }
    return floats * sizeof(float);
}

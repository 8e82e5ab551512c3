/* model.c - see model.h: binding tensors to their places. */
#include "model/model.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"

/* Rows that one conversion task reads, except of a tensor whose rows lie all over its
 * place in the file. */
#define CONVERT_ROWS 128

typedef struct binder {
    nq_model *m;
    const char *path;
    uint64_t budget; /* bytes of float32 copies still allowed */
    bool *used;      /* (tensors) which found their place */
    novaq_error *err;
} binder;

typedef struct convert {
    nq_weights *weights;
    const nq_weight *t;
    float *dst;
    novaq_error *errors; /* (workers): code 0 while all went well */
} convert;

static uint64_t task_rows(const nq_weight *t) {
    return t->src != NULL && t->src->strides != NULL ? t->rows : CONVERT_ROWS;
}

static void convert_task(void *ctx, uint64_t task, unsigned worker) {
    const convert *c = ctx;
    uint64_t step = task_rows(c->t);
    uint64_t row0 = task * step;
    uint64_t count = c->t->rows - row0 < step ? c->t->rows - row0 : step;
    novaq_error local = {0};
    if (nq_weights_read_rows(c->dst + row0 * c->t->cols, c->weights, c->t, row0, count, &local) !=
        NOVAQ_OK) {
        c->errors[worker] = local;
    }
}

static novaq_status convert_all(convert *c, nq_pool *pool, novaq_error *err) {
    uint64_t tasks = (c->t->rows + task_rows(c->t) - 1) / task_rows(c->t);
    novaq_status st = nq_alloc(&c->errors, nq_pool_threads(pool), sizeof *c->errors, err);
    if (st == NOVAQ_OK) {
        nq_pool_run(pool, convert_task, c, tasks);
    }
    for (unsigned i = 0; st == NOVAQ_OK && i < nq_pool_threads(pool); i++) {
        if (c->errors[i].code != NOVAQ_OK) {
            st = nq_fail(err, c->errors[i].code, "%s", c->errors[i].msg);
        }
    }
    nq_free(c->errors);
    return st;
}

/* A float32 copy of t, owned by the model. */
static novaq_status make_dense(const float **out, binder *b, const nq_weight *t) {
    nq_model *m = b->m;
    float *copy = NULL;
    *out = NULL;
    NQ_TRY(nq_grow(&m->owned, m->owned_count, m->owned_count + 1, sizeof *m->owned, b->err));
    NQ_TRY(nq_alloc_raw(&copy, t->elements, sizeof *copy, b->err));
    m->owned[m->owned_count++] = copy;
    convert c = {.weights = m->weights, .t = t, .dst = copy};
    NQ_TRY(convert_all(&c, m->pool, b->err));
    *out = copy;
    return NOVAQ_OK;
}

/* Where a tensor is looked for: its id in the table, of which block and expert. */
typedef struct place {
    nq_tensor_id id;
    unsigned block, expert;
} spot;

/* NULL when the model does not have it. name receives what it is called, or the first
 * of the names it might have. */
static const nq_weight *look_up(char *name, const binder *b, spot p) {
    const nq_hyper *h = &b->m->hyper;
    char other[NQ_TENSOR_NAME];
    name[0] = '\0';
    for (unsigned i = 0;
         nq_arch_tensor_name(other, h->arch, h->spelling, p.id, p.block, p.expert, i) != NULL;
         i++) {
        const nq_weight *t = nq_weights_find(b->m->weights, other);
        if (t != NULL || i == 0) {
            memcpy(name, other, sizeof other);
        }
        if (t != NULL) {
            return t;
        }
    }
    return NULL;
}

static bool has(const binder *b, spot p) {
    char name[NQ_TENSOR_NAME];
    return look_up(name, b, p) != NULL;
}

/* shape (rank): what the hyperparameters say. */
static novaq_status find(const nq_weight **out, binder *b, spot p, uint32_t rank,
                         const uint64_t *shape) {
    char name[NQ_TENSOR_NAME];
    const nq_weight *t = look_up(name, b, p);
    *out = t;
    if (t == NULL) {
        return nq_fail(b->err, NOVAQ_E_FORMAT, "%s: tensor %s is missing", b->path, name);
    }
    if (t->rank != rank || memcmp(t->shape, shape, rank * sizeof *shape) != 0 ||
        t->cols != shape[rank - 1]) {
        return nq_fail(b->err, NOVAQ_E_FORMAT,
                       "%s: tensor %s is not of the shape the hyperparameters say "
                       "(%llu x %llu)",
                       b->path, name, (unsigned long long)(rank == 1 ? 1 : shape[rank - 2]),
                       (unsigned long long)shape[rank - 1]);
    }
    if (!nq_dtype_get(t->dtype)->is_float) {
        return nq_fail(b->err, NOVAQ_E_UNSUPPORTED, "%s: tensor %s holds %s, not weights", b->path,
                       name, nq_dtype_get(t->dtype)->name);
    }
    b->used[t - nq_weights_at(b->m->weights, 0)] = true;
    return NOVAQ_OK;
}

/* ---- vectors --------------------------------------------------------------------- */

static novaq_status bind_vector(const float **out, binder *b, nq_tensor_id id, unsigned block,
                                uint64_t n) {
    const nq_weight *t = NULL;
    NQ_TRY(find(&t, b, (spot){.id = id, .block = block}, 1, &n));
    return make_dense(out, b, t);
}

/* A vector that the architecture needs or may have; *out stays NULL without. */
static novaq_status bind_optional(const float **out, binder *b, nq_tensor_id id, unsigned block,
                                  uint64_t n) {
    const nq_hyper *h = &b->m->hyper;
    bool needed = (h->needs & nq_tensor_bit(id)) != 0;
    bool allowed = (h->arch->may & nq_tensor_bit(id)) != 0;
    if (!needed && !(allowed && has(b, (spot){.id = id, .block = block}))) {
        return NOVAQ_OK;
    }
    return bind_vector(out, b, id, block, n);
}

/* Gains of norms; some models are stored less one. */
static void make_gain(const float *gain, const binder *b, uint64_t n) {
    const nq_hyper *h = &b->m->hyper;
    if (gain != NULL && h->arch->gains_from_one && h->spelling == NQ_SPELL_HF) {
        float *own = b->m->owned[b->m->owned_count - 1]; /* the copy just made */
        for (uint64_t i = 0; i < n; i++) {
            own[i] += 1.0F;
        }
    }
}

static novaq_status bind_norm(nq_norm *out, binder *b, nq_tensor_id gain, nq_tensor_id bias,
                              unsigned block) {
    uint64_t dim = b->m->hyper.dim;
    NQ_TRY(bind_vector(&out->gain, b, gain, block, dim));
    make_gain(out->gain, b, dim);
    return bind_optional(&out->bias, b, bias, block, dim);
}

/* A norm that only some architectures have. */
static novaq_status bind_extra_norm(nq_norm *out, binder *b, nq_tensor_id gain, unsigned block,
                                    uint64_t n) {
    NQ_TRY(bind_optional(&out->gain, b, gain, block, n));
    make_gain(out->gain, b, n);
    return NOVAQ_OK;
}

/* ---- matrices -------------------------------------------------------------------- */

/* The whole tensor as l, copied while the budget lasts unless it is coded or of a type
 * that products read where it lies. */
static novaq_status bind_weight(nq_linear *l, binder *b, const nq_weight *t) {
    *l = (nq_linear){.weights = b->m->weights, .w = t};
    uint64_t bytes = t->elements * sizeof(float);
    nq_dtype type;
    const void *stored = nq_weight_in_place(&type, t, 0);
    if (stored != NULL && type == NQ_F32) {
        l->dense = stored;
    } else if (t->q == NULL && bytes <= b->budget && stored == NULL) {
        b->budget -= bytes;
        NQ_TRY(make_dense(&l->dense, b, t));
    }
    return NOVAQ_OK;
}

static novaq_status bind_matrix(nq_linear *l, binder *b, spot p, uint64_t rows, uint64_t cols) {
    const nq_weight *t = NULL;
    uint64_t shape[2] = {rows, cols};
    NQ_TRY(find(&t, b, p, 2, shape));
    return bind_weight(l, b, t);
}

static novaq_status bind_qkv(binder *b, unsigned i) {
    const nq_hyper *h = &b->m->hyper;
    nq_block *k = &b->m->blocks[i];
    uint64_t wide = (uint64_t)h->heads * h->head_dim;
    uint64_t kv = (uint64_t)h->heads_kv * h->head_dim;
    spot fused = {.id = NQ_T_ATTN_QKV, .block = i};
    if (has(b, fused)) {
        NQ_TRY(bind_matrix(&k->qkv, b, fused, wide + 2 * kv, h->dim));
    } else {
        NQ_TRY(bind_matrix(&k->q, b, (spot){.id = NQ_T_ATTN_Q, .block = i}, wide, h->dim));
        NQ_TRY(bind_matrix(&k->k, b, (spot){.id = NQ_T_ATTN_K, .block = i}, kv, h->dim));
        NQ_TRY(bind_matrix(&k->v, b, (spot){.id = NQ_T_ATTN_V, .block = i}, kv, h->dim));
    }
    if (has(b, (spot){.id = NQ_T_ATTN_QKV_BIAS, .block = i}) &&
        ((h->needs | h->arch->may) & nq_tensor_bit(NQ_T_ATTN_Q_BIAS)) != 0) {
        NQ_TRY(bind_vector(&k->q_bias, b, NQ_T_ATTN_QKV_BIAS, i, wide + 2 * kv));
        k->k_bias = k->q_bias + wide;
        k->v_bias = k->k_bias + kv;
        return NOVAQ_OK;
    }
    NQ_TRY(bind_optional(&k->q_bias, b, NQ_T_ATTN_Q_BIAS, i, wide));
    NQ_TRY(bind_optional(&k->k_bias, b, NQ_T_ATTN_K_BIAS, i, kv));
    return bind_optional(&k->v_bias, b, NQ_T_ATTN_V_BIAS, i, kv);
}

static novaq_status bind_attention(binder *b, unsigned i) {
    const nq_hyper *h = &b->m->hyper;
    nq_block *k = &b->m->blocks[i];
    spot out = {.id = NQ_T_ATTN_OUT, .block = i};
    k->kind = nq_hyper_is_local(h, i) ? NQ_LOCAL : NQ_GLOBAL;
    k->window = k->kind == NQ_LOCAL ? h->window : 0;
    NQ_TRY(bind_norm(&k->attn_norm, b, NQ_T_ATTN_NORM, NQ_T_ATTN_NORM_BIAS, i));
    NQ_TRY(bind_qkv(b, i));
    NQ_TRY(bind_extra_norm(&k->q_norm, b, NQ_T_ATTN_Q_NORM, i, h->head_dim));
    NQ_TRY(bind_extra_norm(&k->k_norm, b, NQ_T_ATTN_K_NORM, i, h->head_dim));
    NQ_TRY(bind_matrix(&k->out, b, out, h->dim, (uint64_t)h->heads * h->head_dim));
    NQ_TRY(bind_optional(&k->out_bias, b, NQ_T_ATTN_OUT_BIAS, i, h->dim));
    return bind_extra_norm(&k->attn_post_norm, b, NQ_T_ATTN_POST_NORM, i, h->dim);
}

static novaq_status bind_dense_ffn(binder *b, unsigned i) {
    const nq_hyper *h = &b->m->hyper;
    nq_block *k = &b->m->blocks[i];
    spot fused = {.id = NQ_T_FFN_GATE_UP, .block = i};
    if (h->arch->gated && has(b, fused)) {
        NQ_TRY(bind_matrix(&k->gate_up, b, fused, 2 * (uint64_t)h->ff, h->dim));
    } else {
        spot gate = {.id = NQ_T_FFN_GATE, .block = i};
        if (h->arch->gated) {
            NQ_TRY(bind_matrix(&k->gate, b, gate, h->ff, h->dim));
        }
        NQ_TRY(bind_matrix(&k->up, b, (spot){.id = NQ_T_FFN_UP, .block = i}, h->ff, h->dim));
        NQ_TRY(bind_optional(&k->gate_bias, b, NQ_T_FFN_GATE_BIAS, i, h->ff));
        NQ_TRY(bind_optional(&k->up_bias, b, NQ_T_FFN_UP_BIAS, i, h->ff));
    }
    NQ_TRY(bind_matrix(&k->down, b, (spot){.id = NQ_T_FFN_DOWN, .block = i}, h->dim, h->ff));
    return bind_optional(&k->down_bias, b, NQ_T_FFN_DOWN_BIAS, i, h->dim);
}

/* ---- experts ------------------------------------------------------------------------ */

/* Rows [row0, row0+rows) of a tensor that holds the matrices of many experts. */
static nq_linear view(const nq_linear *all, uint64_t row0, uint64_t rows) {
    nq_linear l = *all;
    l.row0 = row0;
    l.rows = rows;
    l.dense = all->dense == NULL ? NULL : all->dense + row0 * all->w->cols;
    return l;
}

/* list (experts) of (rows, cols) matrices, as one tensor of rank 3. stride: rows from one
 * expert to the next, first: of them the first. */
static void bind_together(nq_linear *list, const binder *b, const nq_linear *all, uint64_t stride,
                          uint64_t first, uint64_t rows) {
    for (uint32_t e = 0; e < b->m->hyper.experts; e++) {
        list[e] = view(all, e * stride + first, rows);
    }
}

static novaq_status bind_whole(nq_linear *all, binder *b, spot p, uint64_t rows, uint64_t cols) {
    const nq_weight *t = NULL;
    uint64_t shape[3] = {b->m->hyper.experts, rows, cols};
    NQ_TRY(find(&t, b, p, 3, shape));
    return bind_weight(all, b, t);
}

/* One tensor for all experts, or one for each. */
static novaq_status bind_list(nq_linear *list, binder *b, nq_tensor_id whole, nq_tensor_id each,
                              unsigned block, uint64_t rows, uint64_t cols) {
    nq_linear all;
    spot p = {.id = whole, .block = block};
    if (has(b, p)) {
        NQ_TRY(bind_whole(&all, b, p, rows, cols));
        bind_together(list, b, &all, rows, 0, rows);
        return NOVAQ_OK;
    }
    for (uint32_t e = 0; e < b->m->hyper.experts; e++) {
        spot one = {.id = each, .block = block, .expert = e};
        NQ_TRY(bind_matrix(&list[e], b, one, rows, cols));
    }
    return NOVAQ_OK;
}

static novaq_status bind_experts(binder *b, unsigned i) {
    const nq_hyper *h = &b->m->hyper;
    nq_experts *x = &b->m->blocks[i].experts;
    spot fused = {.id = NQ_T_EXPERTS_GATE_UP, .block = i};
    NQ_TRY(nq_alloc(&x->gate, 3 * (uint64_t)h->experts, sizeof *x->gate, b->err));
    x->up = x->gate + h->experts;
    x->down = x->up + h->experts;
    NQ_TRY(bind_matrix(&x->router, b, (spot){.id = NQ_T_ROUTER, .block = i}, h->experts, h->dim));
    if (has(b, fused)) {
        nq_linear all;
        NQ_TRY(bind_whole(&all, b, fused, 2 * (uint64_t)h->ff, h->dim));
        bind_together(x->gate, b, &all, 2 * (uint64_t)h->ff, 0, h->ff);
        bind_together(x->up, b, &all, 2 * (uint64_t)h->ff, h->ff, h->ff);
    } else {
        NQ_TRY(bind_list(x->gate, b, NQ_T_EXPERTS_GATE, NQ_T_EXPERT_GATE, i, h->ff, h->dim));
        NQ_TRY(bind_list(x->up, b, NQ_T_EXPERTS_UP, NQ_T_EXPERT_UP, i, h->ff, h->dim));
    }
    return bind_list(x->down, b, NQ_T_EXPERTS_DOWN, NQ_T_EXPERT_DOWN, i, h->dim, h->ff);
}

static novaq_status bind_block(binder *b, unsigned i) {
    const nq_hyper *h = &b->m->hyper;
    nq_block *k = &b->m->blocks[i];
    NQ_TRY(bind_attention(b, i));
    NQ_TRY(bind_norm(&k->ffn_norm, b, NQ_T_FFN_NORM, NQ_T_FFN_NORM_BIAS, i));
    NQ_TRY(h->experts > 0 ? bind_experts(b, i) : bind_dense_ffn(b, i));
    return bind_extra_norm(&k->ffn_post_norm, b, NQ_T_FFN_POST_NORM, i, h->dim);
}

/* ---- rotary tables ------------------------------------------------------------------ */

/* Divisors of the angles that come as a tensor (GGUF); *out stays where there is none. */
static novaq_status bind_divisors(const float **out, binder *b, const char *name) {
    const nq_hyper *h = &b->m->hyper;
    const nq_weight *t = nq_weights_find(b->m->weights, name);
    uint32_t n = h->rope[NQ_GLOBAL].dim / 2;
    if (t == NULL || n == 0) {
        return NOVAQ_OK;
    }
    if (t->elements != n || t->rank != 1 || !nq_dtype_get(t->dtype)->is_float) {
        return nq_fail(b->err, NOVAQ_E_FORMAT, "%s: %s holds %llu numbers, not %u", b->path, name,
                       (unsigned long long)t->elements, n);
    }
    NQ_TRY(make_dense(out, b, t));
    for (uint32_t i = 0; i < n; i++) {
        if (!((*out)[i] > 0.0F) || isinf((*out)[i])) {
            return nq_fail(b->err, NOVAQ_E_NUMERIC, "%s: %s is not positive", b->path, name);
        }
    }
    return NOVAQ_OK;
}

static novaq_status bind_rope(binder *b) {
    nq_model *m = b->m;
    nq_rope_spec *p = m->rope;
    memcpy(p, m->hyper.rope, sizeof m->rope);
    if (p[NQ_GLOBAL].scaling != NQ_ROPE_LONG) {
        return bind_divisors(&p[NQ_GLOBAL].divisors, b, "rope_freqs.weight");
    }
    p->divisors = m->hyper.divisors > 0 ? m->hyper.long_divisors : NULL;
    p->short_divisors = m->hyper.divisors > 0 ? m->hyper.short_divisors : NULL;
    NQ_TRY(bind_divisors(&p->divisors, b, "rope_factors_long.weight"));
    NQ_TRY(bind_divisors(&p->short_divisors, b, "rope_factors_short.weight"));
    if (p->divisors == NULL || p->short_divisors == NULL) {
        return nq_fail(b->err, NOVAQ_E_FORMAT, "%s: longrope without its factors", b->path);
    }
    if (p[NQ_LOCAL].scaling == NQ_ROPE_LONG) {
        p[NQ_LOCAL] = p[NQ_GLOBAL];
    }
    return NOVAQ_OK;
}

/* ---- all of it ------------------------------------------------------------------------ */

static bool is_head(const nq_hyper *h, const char *name) {
    char head[NQ_TENSOR_NAME];
    return nq_arch_tensor_name(head, h->arch, h->spelling, NQ_T_HEAD, 0, 0, 0) != NULL &&
           strcmp(name, head) == 0;
}

/* A tensor that nobody asked for may be a bias or a second norm: a model that
 * has one is not what its name says, and running it would give wrong numbers. */
static novaq_status refuse_leftovers(const binder *b) {
    const nq_model *m = b->m;
    for (size_t i = 0; i < nq_weights_count(m->weights); i++) {
        const char *name = nq_weights_at(m->weights, i)->name;
        if (b->used[i] || nq_arch_ignores(name) || (m->hyper.tied && is_head(&m->hyper, name))) {
            continue;
        }
        return nq_fail(b->err, NOVAQ_E_UNSUPPORTED,
                       "%s: tensor %s is not one the runtime knows in architecture '%s'; the model "
                       "can be compressed but not run",
                       b->path, name, m->hyper.arch->name);
    }
    return NOVAQ_OK;
}

static uint64_t max_scratch(const nq_weights *w) {
    uint64_t most = 64;
    for (size_t i = 0; i < nq_weights_count(w); i++) {
        const nq_weight *t = nq_weights_at(w, i);
        uint64_t need = t->q == NULL ? 0 : nq_qmat_scratch(t->q);
        most = need > most ? need : most;
    }
    return most;
}

static novaq_status bind_all(binder *b) {
    nq_model *m = b->m;
    const nq_hyper *h = &m->hyper;
    m->scratch_bytes = max_scratch(m->weights);
    if (h->blocks > nq_weights_count(m->weights)) {
        return nq_fail(b->err, NOVAQ_E_FORMAT, "%s: %u blocks but only %zu tensors", b->path,
                       h->blocks, nq_weights_count(m->weights));
    }
    NQ_TRY(nq_alloc(&m->blocks, h->blocks, sizeof *m->blocks, b->err));
    NQ_TRY(bind_matrix(&m->embed, b, (spot){.id = NQ_T_EMBED}, h->vocab, h->dim));
    if ((h->needs & nq_tensor_bit(NQ_T_POSITIONS)) != 0) {
        const nq_weight *t = NULL;
        NQ_TRY(find(&t, b, (spot){.id = NQ_T_POSITIONS}, 2, (uint64_t[]){h->context, h->dim}));
        NQ_TRY(make_dense(&m->positions, b, t));
    }
    if (h->tied) {
        m->head = m->embed;
    } else {
        NQ_TRY(bind_matrix(&m->head, b, (spot){.id = NQ_T_HEAD}, h->vocab, h->dim));
    }
    NQ_TRY(bind_norm(&m->output_norm, b, NQ_T_OUTPUT_NORM, NQ_T_OUTPUT_NORM_BIAS, 0));
    NQ_TRY(bind_rope(b));
    for (unsigned i = 0; i < h->blocks; i++) {
        NQ_TRY(bind_block(b, i));
    }
    return refuse_leftovers(b);
}

/* Weights that are far away are read more than once: they stay in memory as they are
 * stored, at the cost of copies. Whoever opened the tensors decides for himself. */
static novaq_status keep_remote(nq_weights *w, uint64_t *budget, novaq_error *err) {
    nq_tensors *ts = nq_weights_tensors(w);
    if (ts == NULL || nq_tensors_dir(ts) != NULL) {
        return NOVAQ_OK;
    }
    uint64_t stored = nq_tensors_file_bytes(ts);
    *budget = *budget > stored ? *budget - stored : 0;
    return nq_tensors_hold(ts, err);
}

/* ts: NULL, or path is its. */
static novaq_status open_model(nq_model **out, const char *path, nq_tensors *ts, nq_pool *pool,
                               uint64_t budget, novaq_error *err) {
    *out = NULL;
    nq_model *m = NULL;
    NQ_TRY(nq_alloc(&m, 1, sizeof *m, err));
    m->pool = pool;
    openblas_set_num_threads(1); /* the pool is ours: same results for any thread count */
    novaq_status st = ts == NULL ? nq_weights_open(&m->weights, path, err)
                                 : nq_weights_open_over(&m->weights, ts, err);
    if (st == NOVAQ_OK) {
        st = nq_hyper_read(&m->hyper, nq_weights_model(m->weights), path, err);
    }
    if (st == NOVAQ_OK && ts == NULL) {
        st = keep_remote(m->weights, &budget, err);
    }
    if (st == NOVAQ_OK) {
        binder b = {.m = m, .path = path, .budget = budget, .err = err};
        st = nq_alloc(&b.used, nq_weights_count(m->weights), sizeof *b.used, err);
        if (st == NOVAQ_OK) {
            st = bind_all(&b);
        }
        nq_free(b.used);
    }
    if (st != NOVAQ_OK) {
        nq_model_close(&m);
        return st;
    }
    *out = m;
    return NOVAQ_OK;
}

/* Copies change no result, so that this may depend on the machine. */
novaq_status nq_model_open(nq_model **out, const char *path, nq_pool *pool, novaq_error *err) {
    return open_model(out, path, NULL, pool, nq_physical_memory() / 2, err);
}

novaq_status nq_model_open_lean(nq_model **out, const char *path, nq_pool *pool, novaq_error *err) {
    return open_model(out, path, NULL, pool, 0, err);
}

novaq_status nq_model_open_over(nq_model **out, nq_tensors *ts, nq_pool *pool, novaq_error *err) {
    return open_model(out, nq_tensors_path(ts), ts, pool, nq_physical_memory() / 2, err);
}

novaq_status nq_model_open_lean_over(nq_model **out, nq_tensors *ts, nq_pool *pool,
                                     novaq_error *err) {
    return open_model(out, nq_tensors_path(ts), ts, pool, 0, err);
}

void nq_model_close(nq_model **pm) {
    nq_model *m = *pm;
    *pm = NULL;
    if (m == NULL) {
        return;
    }
    for (size_t i = 0; i < m->owned_count; i++) {
        nq_free(m->owned[i]);
    }
    nq_free(m->owned);
    for (uint32_t i = 0; m->blocks != NULL && i < m->hyper.blocks; i++) {
        nq_free(m->blocks[i].experts.gate);
    }
    nq_free(m->blocks);
    nq_fast_set_close(&m->fast);
    nq_weights_close(&m->weights);
    nq_free(m);
}

static novaq_status each_of_block(nq_model *m, nq_block *k, nq_linear_fn fn, void *ctx,
                                  novaq_error *err) {
    nq_linear *places[] = {&k->q,    &k->k,  &k->v,       &k->qkv,  &k->out,
                           &k->gate, &k->up, &k->gate_up, &k->down, &k->experts.router};
    for (size_t p = 0; p < sizeof places / sizeof places[0]; p++) {
        if (places[p]->w != NULL) {
            NQ_TRY(fn(ctx, places[p], err));
        }
    }
    for (uint64_t e = 0; k->experts.gate != NULL && e < 3 * (uint64_t)m->hyper.experts; e++) {
        NQ_TRY(fn(ctx, &k->experts.gate[e], err)); /* up and down lie behind gate */
    }
    return NOVAQ_OK;
}

novaq_status nq_model_each_linear(nq_model *m, nq_linear_fn fn, void *ctx, novaq_error *err) {
    NQ_TRY(fn(ctx, &m->embed, err));
    if (!m->hyper.tied) {
        NQ_TRY(fn(ctx, &m->head, err));
    }
    for (uint32_t i = 0; i < m->hyper.blocks; i++) {
        NQ_TRY(each_of_block(m, &m->blocks[i], fn, ctx, err));
    }
    return NOVAQ_OK;
}

typedef struct search {
    const char *name;
    nq_linear *found;
} search;

static novaq_status match(void *ctx, nq_linear *l, novaq_error *err) {
    search *s = ctx;
    (void)err;
    if (s->found == NULL && l->rows == 0 && strcmp(l->w->name, s->name) == 0) {
        s->found = l;
    }
    return NOVAQ_OK;
}

nq_linear *nq_model_linear(nq_model *m, const char *name) {
    search s = {.name = name};
    return nq_model_each_linear(m, match, &s, NULL) == NOVAQ_OK ? s.found : NULL;
}

/* gate and up lie behind each other. */
const nq_weight *nq_block_expert(const nq_model *m, const nq_block *b, uint64_t i) {
    uint64_t count = nq_block_has_experts(b) ? 2 * (uint64_t)m->hyper.experts : 0;
    const nq_weight *last = NULL;
    for (uint64_t e = 0; e < count; e++) {
        const nq_weight *t = b->experts.gate[e].w;
        if (t != last && i-- == 0) {
            return t;
        }
        last = t;
    }
    return NULL;
}

void nq_model_swap(nq_model *m, nq_linear *place, nq_linear *with) {
    nq_linear old = *place;
    *place = *with;
    *with = old;
    if (place == &m->embed && m->hyper.tied) {
        m->head = m->embed;
    }
}

/* model.c - see model.h: binding tensors to their places. */
#include "model/model.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"

/* Rows that one conversion task reads. */
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

static void convert_task(void *ctx, uint64_t task, unsigned worker) {
    const convert *c = ctx;
    uint64_t row0 = task * CONVERT_ROWS;
    uint64_t count = c->t->rows - row0 < CONVERT_ROWS ? c->t->rows - row0 : CONVERT_ROWS;
    novaq_error local = {0};
    if (nq_weights_read_rows(c->dst + row0 * c->t->cols, c->weights, c->t, row0, count, &local) !=
        NOVAQ_OK) {
        c->errors[worker] = local;
    }
}

static novaq_status convert_all(convert *c, nq_pool *pool, novaq_error *err) {
    uint64_t tasks = (c->t->rows + CONVERT_ROWS - 1) / CONVERT_ROWS;
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

static novaq_status find(const nq_weight **out, binder *b, nq_tensor_id id, unsigned block,
                         uint64_t rows, uint64_t cols) {
    char name[NQ_TENSOR_NAME];
    nq_arch_tensor_name(name, b->m->hyper.spelling, id, block);
    const nq_weight *t = nq_weights_find(b->m->weights, name);
    *out = t;
    if (t == NULL) {
        return nq_fail(b->err, NOVAQ_E_FORMAT, "%s: tensor %s is missing", b->path, name);
    }
    bool is_vector = rows == 0;
    if (t->rank != (is_vector ? 1U : 2U) || t->cols != cols || (!is_vector && t->rows != rows)) {
        return nq_fail(b->err, NOVAQ_E_FORMAT,
                       "%s: tensor %s is not of the shape the hyperparameters say "
                       "(%llu x %llu)",
                       b->path, name, (unsigned long long)(is_vector ? 1 : rows),
                       (unsigned long long)cols);
    }
    if (!nq_dtype_get(t->dtype)->is_float) {
        return nq_fail(b->err, NOVAQ_E_UNSUPPORTED, "%s: tensor %s holds %s, not weights", b->path,
                       name, nq_dtype_get(t->dtype)->name);
    }
    b->used[t - nq_weights_at(b->m->weights, 0)] = true;
    return NOVAQ_OK;
}

static novaq_status bind_vector(const float **out, binder *b, nq_tensor_id id, unsigned block) {
    const nq_weight *t = NULL;
    NQ_TRY(find(&t, b, id, block, 0, b->m->hyper.dim));
    return make_dense(out, b, t);
}

static novaq_status bind_matrix(nq_linear *l, binder *b, nq_tensor_id id, unsigned block,
                                uint64_t rows, uint64_t cols) {
    NQ_TRY(find(&l->w, b, id, block, rows, cols));
    l->weights = b->m->weights;
    uint64_t bytes = rows * cols * sizeof(float);
    if (l->w->q == NULL && bytes <= b->budget) {
        b->budget -= bytes;
        NQ_TRY(make_dense(&l->dense, b, l->w));
    }
    return NOVAQ_OK;
}

static novaq_status bind_block(binder *b, unsigned i) {
    const nq_hyper *h = &b->m->hyper;
    nq_block *k = &b->m->blocks[i];
    uint64_t wide = (uint64_t)h->heads * h->head_dim;
    uint64_t kv = (uint64_t)h->heads_kv * h->head_dim;
    NQ_TRY(bind_vector(&k->attn_norm, b, NQ_T_ATTN_NORM, i));
    NQ_TRY(bind_vector(&k->ffn_norm, b, NQ_T_FFN_NORM, i));
    NQ_TRY(bind_matrix(&k->q, b, NQ_T_ATTN_Q, i, wide, h->dim));
    NQ_TRY(bind_matrix(&k->k, b, NQ_T_ATTN_K, i, kv, h->dim));
    NQ_TRY(bind_matrix(&k->v, b, NQ_T_ATTN_V, i, kv, h->dim));
    NQ_TRY(bind_matrix(&k->out, b, NQ_T_ATTN_OUT, i, h->dim, wide));
    NQ_TRY(bind_matrix(&k->gate, b, NQ_T_FFN_GATE, i, h->ff, h->dim));
    NQ_TRY(bind_matrix(&k->up, b, NQ_T_FFN_UP, i, h->ff, h->dim));
    return bind_matrix(&k->down, b, NQ_T_FFN_DOWN, i, h->dim, h->ff);
}

/* Llama 3.1 in GGUF: the scaling of the angles comes as a tensor. */
static novaq_status bind_rope(binder *b) {
    const nq_hyper *h = &b->m->hyper;
    const nq_weight *t = nq_weights_find(b->m->weights, "rope_freqs.weight");
    if (t == NULL) {
        return NOVAQ_OK;
    }
    if (t->elements != h->rope_dim / 2) {
        return nq_fail(b->err, NOVAQ_E_FORMAT, "%s: rope_freqs.weight holds %llu numbers, not %u",
                       b->path, (unsigned long long)t->elements, h->rope_dim / 2);
    }
    NQ_TRY(make_dense(&b->m->rope_freqs, b, t));
    for (uint32_t i = 0; i < h->rope_dim / 2; i++) {
        if (!(b->m->rope_freqs[i] > 0.0F) || isinf(b->m->rope_freqs[i])) {
            return nq_fail(b->err, NOVAQ_E_NUMERIC, "%s: rope_freqs.weight is not positive",
                           b->path);
        }
    }
    return NOVAQ_OK;
}

/* A tensor nobody asked for (a bias, a gate) means that the model computes
 * something this runtime would leave out. */
static novaq_status refuse_leftovers(const binder *b) {
    const nq_model *m = b->m;
    char head[NQ_TENSOR_NAME];
    nq_arch_tensor_name(head, m->hyper.spelling, NQ_T_HEAD, 0);
    for (size_t i = 0; i < nq_weights_count(m->weights); i++) {
        const char *name = nq_weights_at(m->weights, i)->name;
        if (b->used[i] || nq_arch_ignores(name) || (m->hyper.tied && strcmp(name, head) == 0)) {
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
    NQ_TRY(bind_matrix(&m->embed, b, NQ_T_EMBED, 0, h->vocab, h->dim));
    if (h->tied) {
        m->head = m->embed;
    } else {
        NQ_TRY(bind_matrix(&m->head, b, NQ_T_HEAD, 0, h->vocab, h->dim));
    }
    NQ_TRY(bind_vector(&m->output_norm, b, NQ_T_OUTPUT_NORM, 0));
    NQ_TRY(bind_rope(b));
    for (unsigned i = 0; i < h->blocks; i++) {
        NQ_TRY(bind_block(b, i));
    }
    return refuse_leftovers(b);
}

static novaq_status open_model(nq_model **out, const char *path, nq_pool *pool, uint64_t budget,
                               novaq_error *err) {
    *out = NULL;
    nq_model *m = NULL;
    NQ_TRY(nq_alloc(&m, 1, sizeof *m, err));
    m->pool = pool;
    openblas_set_num_threads(1); /* the pool is ours: same results for any thread count */
    novaq_status st = nq_weights_open(&m->weights, path, err);
    if (st == NOVAQ_OK) {
        st = nq_hyper_read(&m->hyper, nq_weights_model(m->weights), path, err);
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
    return open_model(out, path, pool, nq_physical_memory() / 2, err);
}

novaq_status nq_model_open_lean(nq_model **out, const char *path, nq_pool *pool, novaq_error *err) {
    return open_model(out, path, pool, 0, err);
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
    nq_free(m->blocks);
    nq_weights_close(&m->weights);
    nq_free(m);
}

static nq_linear *match(nq_linear *l, const char *name) {
    return l->w != NULL && strcmp(l->w->name, name) == 0 ? l : NULL;
}

nq_linear *nq_model_linear(nq_model *m, const char *name) {
    nq_linear *found = match(&m->embed, name);
    if (found == NULL) {
        found = match(&m->head, name);
    }
    for (uint32_t i = 0; found == NULL && i < m->hyper.blocks; i++) {
        nq_block *k = &m->blocks[i];
        nq_linear *places[] = {&k->q, &k->k, &k->v, &k->out, &k->gate, &k->up, &k->down};
        for (size_t p = 0; found == NULL && p < sizeof places / sizeof places[0]; p++) {
            found = match(places[p], name);
        }
    }
    return found;
}

void nq_model_swap(nq_model *m, nq_linear *place, nq_linear *with) {
    nq_linear old = *place;
    *place = *with;
    *with = old;
    if (place == &m->embed && m->hyper.tied) {
        m->head = m->embed;
    }
}

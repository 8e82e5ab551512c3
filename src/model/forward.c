/* forward.c - see model.h: the forward pass.
 *
 *   h = x + post(Wo attention(rope(norm(Wq n)), rope(norm(Wk n)), Wv n)),  n = norm(x)
 *   x = h + post(Wdown (act(Wgate r) * Wup r)),                           r = norm(h)
 *
 * where an architecture has these norms; biases follow their products. A feed holds
 * `sequences` rows of `count` tokens; all linear layers see them as one matrix,
 * attention sees each sequence alone. */
#include <string.h>

#include "base/mem.h"
#include "model/run_impl.h"
#include "model/vec.h"

/* Logits that one task caps. */
#define CAP_TASK 4096

/* ---- opening ------------------------------------------------------------ */

novaq_status nq_run_floats(float **out, uint64_t a, uint64_t b, novaq_error *err) {
    uint64_t n = 0;
    if (!nq_mul_u64(a, b, &n)) {
        return nq_fail(err, NOVAQ_E_MEMORY, "%llu x %llu activations are too many",
                       (unsigned long long)a, (unsigned long long)b);
    }
    return nq_alloc_raw(out, n, sizeof(float), err);
}

/* Floats a token takes between gate and up products and the activation. */
static uint64_t up_width(const nq_model *m) {
    uint64_t width = m->hyper.ff;
    for (uint32_t i = 0; i < m->hyper.blocks; i++) {
        width = m->blocks[i].gate_up.w != NULL ? 2 * (uint64_t)m->hyper.ff : width;
    }
    return width;
}

static uint64_t wide_of(const nq_hyper *h) { return (uint64_t)h->heads * h->head_dim; }
static uint64_t kv_of(const nq_hyper *h) { return (uint64_t)h->heads_kv * h->head_dim; }

static novaq_status alloc_state(nq_run *r, novaq_error *err) {
    const nq_hyper *h = &r->m->hyper;
    uint64_t rows = (uint64_t)r->sequences * r->block;
    uint64_t wide = wide_of(h);
    unsigned threads = nq_pool_threads(r->m->pool);
    NQ_TRY(nq_run_floats(&r->x, rows, h->dim, err));
    NQ_TRY(nq_run_floats(&r->h, rows, h->dim, err));
    NQ_TRY(nq_run_floats(&r->qkv, rows, wide + 2 * kv_of(h), err));
    NQ_TRY(nq_run_floats(&r->att, rows, wide, err));
    NQ_TRY(nq_run_floats(&r->gate, rows, h->ff, err));
    NQ_TRY(nq_run_floats(&r->up, rows, up_width(r->m), err));
    if (h->experts > 0) {
        NQ_TRY(nq_moe_open(&r->moe, h, rows, err));
    }
    NQ_TRY(nq_alloc_raw(&r->scratch, threads, r->m->scratch_bytes, err));
    NQ_TRY(nq_alloc(&r->status, threads, sizeof *r->status, err));
    NQ_TRY(nq_alloc(&r->errors, threads, sizeof *r->errors, err));
    uint64_t widest = h->dim > h->ff ? h->dim : h->ff;
    widest = wide > widest ? wide : widest;
    NQ_TRY(nq_linear_work_open(&r->work, r->m->pool, widest, r->m->scratch_bytes, rows, err));
    return r->m->fast_row_bytes == 0
               ? NOVAQ_OK
               : nq_linear_work_fast(r->work, r->m->fast_row_bytes, r->m->fast_scratch, err);
}

static novaq_status open_cache(nq_run *r, nq_kv_type type, novaq_error *err) {
    const nq_hyper *h = &r->m->hyper;
    nq_kv_shape shape = {.layers = r->cached,
                         .sequences = r->sequences,
                         .n_ctx = r->n_ctx,
                         .heads = h->heads,
                         .heads_kv = h->heads_kv,
                         .head_dim = h->head_dim,
                         .block = r->block,
                         .type = type};
    for (unsigned kind = 0; kind < NQ_LAYER_KINDS; kind++) {
        if (r->m->rope[kind].dim > 0) {
            NQ_TRY(nq_rope_open(&r->rope[kind], &r->m->rope[kind], r->n_ctx, err));
        }
    }
    return nq_kv_open(&r->kv, &shape, r->m->pool, err);
}

static novaq_status open_run(nq_run **out, const nq_model *m, const nq_run_options *o,
                             uint32_t cached, novaq_error *err) {
    *out = NULL;
    nq_run *r = NULL;
    if (o->sequences == 0 || o->n_ctx == 0 || o->block == 0 ||
        (uint64_t)o->sequences * o->block > 1U << 24) {
        return nq_fail(err, NOVAQ_E_ARG, "a run of %u sequences of %u tokens in blocks of %u",
                       o->sequences, o->n_ctx, o->block);
    }
    if (m->positions != NULL && o->n_ctx > m->hyper.context) {
        return nq_fail(err, NOVAQ_E_ARG, "a context of %u: the model has learned %u positions",
                       o->n_ctx, m->hyper.context);
    }
    NQ_TRY(nq_alloc(&r, 1, sizeof *r, err));
    r->m = m;
    r->sequences = o->sequences;
    r->n_ctx = o->n_ctx;
    r->block = o->block < o->n_ctx ? o->block : o->n_ctx;
    r->cached = cached;
    novaq_status st = alloc_state(r, err);
    if (st == NOVAQ_OK) {
        st = open_cache(r, o->kv, err);
    }
    if (st != NOVAQ_OK) {
        nq_run_close(&r);
        return st;
    }
    *out = r;
    return NOVAQ_OK;
}

novaq_status nq_run_open_with(nq_run **out, const nq_model *m, const nq_run_options *o,
                              novaq_error *err) {
    return open_run(out, m, o, m->hyper.blocks, err);
}

novaq_status nq_run_open(nq_run **out, const nq_model *m, uint32_t sequences, uint32_t n_ctx,
                         uint32_t block, novaq_error *err) {
    nq_run_options o = {.sequences = sequences, .n_ctx = n_ctx, .block = block, .kv = NQ_KV_F32};
    return nq_run_open_with(out, m, &o, err);
}

novaq_status nq_run_open_staged(nq_run **out, const nq_model *m, uint32_t sequences, uint32_t n_ctx,
                                novaq_error *err) {
    nq_run_options o = {.sequences = sequences, .n_ctx = n_ctx, .block = n_ctx, .kv = NQ_KV_F32};
    return open_run(out, m, &o, 1, err);
}

void nq_run_close(nq_run **pr) {
    nq_run *r = *pr;
    *pr = NULL;
    if (r == NULL) {
        return;
    }
    float *owned[] = {r->x, r->h, r->qkv, r->att, r->gate, r->up};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) {
        nq_free(owned[i]);
    }
    for (unsigned kind = 0; kind < NQ_LAYER_KINDS; kind++) {
        nq_rope_close(&r->rope[kind]);
    }
    nq_moe_close(&r->moe);
    nq_kv_close(&r->kv);
    nq_free(r->scratch);
    nq_free(r->status);
    nq_free(r->errors);
    nq_linear_work_close(&r->work);
    nq_free(r);
}

void nq_run_reset(nq_run *r) {
    r->position = 0;
    r->fed = 0;
    r->rows = 0;
    r->count = 0;
}

void nq_run_rewind(nq_run *r, uint32_t position) {
    if (position == 0) {
        nq_run_reset(r);
    } else if (position < r->position) {
        r->position = position;
    }
}

uint32_t nq_run_position(const nq_run *r) { return r->position; }

void nq_run_observe(nq_run *r, nq_observe_fn fn, void *ctx) {
    r->observe = fn;
    r->observe_ctx = ctx;
}

/* ---- element by element ---------------------------------------------------- */

void nq_run_rows(nq_run *r, nq_task_fn fn) { nq_pool_run(r->m->pool, fn, r, nq_row_tasks(r)); }

void nq_run_norm(float *out, const float *x, const nq_norm *n, uint64_t width, const nq_hyper *h) {
    if (h->arch->norm == NQ_NORM_LAYER) {
        nq_vec_layernorm(out, x, n->gain, n->bias, width, h->norm_eps);
    } else {
        nq_vec_rmsnorm(out, x, n->gain, width, h->norm_eps);
    }
}

void nq_run_activate(float *out, const float *gate, const float *up, uint64_t n,
                     const nq_hyper *h) {
    if (h->arch->activation == NQ_ACT_SILU) {
        nq_vec_silu(out, gate, up, n);
    } else {
        nq_vec_gelu_tanh(out, gate, up, n);
    }
}

static novaq_status look_up_row(float *dst, const nq_run *r, uint64_t token, unsigned worker) {
    const nq_linear *e = &r->m->embed;
    uint32_t dim = r->m->hyper.dim;
    if (e->dense != NULL) {
        memcpy(dst, e->dense + token * dim, dim * sizeof(float));
    } else if (e->w->q != NULL) {
        nq_qmat_decode_plain(dst, e->w->q, token, 1, r->scratch + worker * r->m->scratch_bytes);
    } else {
        return nq_weights_read_rows(dst, e->weights, e->w, token, 1, &r->errors[worker]);
    }
    return NOVAQ_OK;
}

static void embed_task(void *ctx, uint64_t task, unsigned worker) {
    nq_run *r = ctx;
    const nq_hyper *h = &r->m->hyper;
    for (uint32_t i = 0; i < nq_rows_from(r, task) && r->status[worker] == NOVAQ_OK; i++) {
        uint64_t row = task * NQ_ROW_TASK + i;
        float *x = r->x + row * h->dim;
        r->status[worker] = look_up_row(x, r, (uint64_t)r->tokens[row], worker);
        if (r->status[worker] == NOVAQ_OK && h->arch->scaled_embedding) {
            nq_vec_scale(x, (float)h->embedding_scale, h->dim);
        }
        if (r->status[worker] == NOVAQ_OK && r->m->positions != NULL) {
            uint64_t p = r->position + row % r->count;
            nq_vec_add(x, r->m->positions + p * h->dim, h->dim);
        }
    }
}

novaq_status nq_run_look_up(nq_run *r, novaq_error *err) {
    unsigned threads = nq_pool_threads(r->m->pool);
    memset(r->status, 0, threads * sizeof *r->status);
    nq_run_rows(r, embed_task);
    for (unsigned i = 0; i < threads; i++) {
        if (r->status[i] != NOVAQ_OK) {
            return nq_fail(err, r->status[i], "%s", r->errors[i].msg);
        }
    }
    return NOVAQ_OK;
}

static void attn_norm_task(void *ctx, uint64_t task, unsigned worker) {
    nq_run *r = ctx;
    const nq_hyper *h = &r->m->hyper;
    (void)worker;
    for (uint32_t i = 0; i < nq_rows_from(r, task); i++) {
        uint64_t at = (task * NQ_ROW_TASK + i) * h->dim;
        nq_run_norm(r->h + at, r->x + at, &r->layer->attn_norm, h->dim, h);
    }
}

void nq_run_enter_block(nq_run *r) { nq_run_rows(r, attn_norm_task); }

/* ---- attention ---------------------------------------------------------------- */

/* Where queries, keys and values of the block at work lie. */
typedef struct heads {
    float *q, *k, *v;
    uint64_t q_stride, kv_stride; /* floats from one token's row to the next */
} heads;

static heads heads_of(const nq_run *r) {
    uint64_t wide = wide_of(&r->m->hyper);
    uint64_t kv = kv_of(&r->m->hyper);
    if (r->layer->qkv.w != NULL) {
        uint64_t all = wide + 2 * kv;
        return (heads){r->qkv, r->qkv + wide, r->qkv + wide + kv, all, all};
    }
    float *k = r->qkv + r->rows * wide;
    return (heads){r->qkv, k, k + r->rows * kv, wide, kv};
}

static void add_bias(float *x, const float *bias, uint64_t n) {
    if (bias != NULL) {
        nq_vec_add(x, bias, n);
    }
}

static void norm_heads(float *x, const nq_norm *n, uint32_t count, const nq_hyper *h) {
    for (uint32_t i = 0; n->gain != NULL && i < count; i++) {
        float *head = x + (uint64_t)i * h->head_dim;
        nq_run_norm(head, head, n, h->head_dim, h);
    }
}

static void heads_task(void *ctx, uint64_t task, unsigned worker) {
    nq_run *r = ctx;
    const nq_hyper *h = &r->m->hyper;
    const nq_block *b = r->layer;
    heads a = heads_of(r);
    (void)worker;
    for (uint32_t i = 0; i < nq_rows_from(r, task); i++) {
        uint64_t row = task * NQ_ROW_TASK + i;
        add_bias(a.q + row * a.q_stride, b->q_bias, wide_of(h));
        add_bias(a.k + row * a.kv_stride, b->k_bias, kv_of(h));
        add_bias(a.v + row * a.kv_stride, b->v_bias, kv_of(h));
        norm_heads(a.q + row * a.q_stride, &b->q_norm, h->heads, h);
        norm_heads(a.k + row * a.kv_stride, &b->k_norm, h->heads_kv, h);
    }
}

static void attend(nq_run *r) {
    const nq_hyper *h = &r->m->hyper;
    const nq_block *b = r->layer;
    heads a = heads_of(r);
    if (b->q_bias != NULL || b->k_bias != NULL || b->v_bias != NULL || b->q_norm.gain != NULL ||
        b->k_norm.gain != NULL) {
        nq_run_rows(r, heads_task);
    }
    nq_attention call = {.layer = r->layer_index % r->cached,
                         .sequences = r->fed,
                         .count = r->count,
                         .position = r->position,
                         .window = b->window,
                         .scale = (float)h->attention_scale,
                         .softcap = (float)h->attention_softcap,
                         .rope = r->m->rope[b->kind].dim > 0 ? &r->rope[b->kind] : NULL,
                         .q = a.q,
                         .k = a.k,
                         .v = a.v,
                         .q_stride = a.q_stride,
                         .kv_stride = a.kv_stride,
                         .out = r->att};
    nq_attention_run(r->kv, &call);
}

/* ---- what follows the products -------------------------------------------------- */

/* x += post(h + bias), one token. */
static void add_output(const nq_run *r, uint64_t row, const float *bias, const nq_norm *post) {
    const nq_hyper *h = &r->m->hyper;
    float *out = r->h + row * h->dim;
    add_bias(out, bias, h->dim);
    if (post->gain != NULL) {
        nq_run_norm(out, out, post, h->dim, h);
    }
    nq_vec_add(r->x + row * h->dim, out, h->dim);
}

static void attn_out_task(void *ctx, uint64_t task, unsigned worker) {
    nq_run *r = ctx;
    const nq_hyper *h = &r->m->hyper;
    (void)worker;
    for (uint32_t i = 0; i < nq_rows_from(r, task); i++) {
        uint64_t row = task * NQ_ROW_TASK + i;
        add_output(r, row, r->layer->out_bias, &r->layer->attn_post_norm);
        nq_run_norm(r->h + row * h->dim, r->x + row * h->dim, &r->layer->ffn_norm, h->dim, h);
    }
}

static void activate_task(void *ctx, uint64_t task, unsigned worker) {
    nq_run *r = ctx;
    const nq_hyper *h = &r->m->hyper;
    const nq_block *b = r->layer;
    uint64_t ff = h->ff;
    (void)worker;
    for (uint32_t i = 0; i < nq_rows_from(r, task); i++) {
        uint64_t row = task * NQ_ROW_TASK + i;
        float *out = r->gate + row * ff;
        if (b->gate_up.w != NULL) {
            const float *both = r->up + row * 2 * ff;
            nq_run_activate(out, both, both + ff, ff, h);
            continue;
        }
        float *up = r->up + row * ff;
        add_bias(up, b->up_bias, ff);
        if (b->gate.w == NULL) {
            nq_run_activate(out, up, NULL, ff, h);
            continue;
        }
        add_bias(out, b->gate_bias, ff);
        nq_run_activate(out, out, up, ff, h);
    }
}

static void ffn_out_task(void *ctx, uint64_t task, unsigned worker) {
    nq_run *r = ctx;
    (void)worker;
    for (uint32_t i = 0; i < nq_rows_from(r, task); i++) {
        add_output(r, task * NQ_ROW_TASK + i, r->layer->down_bias, &r->layer->ffn_post_norm);
    }
}

/* ---- stages ----------------------------------------------------------------------- */

unsigned nq_block_linears(const nq_linear **l, const nq_block *b, unsigned stage) {
    const nq_linear *all[NQ_STAGES][4] = {
        {&b->qkv, &b->q, &b->k, &b->v}, {&b->out}, {&b->gate_up, &b->gate, &b->up}, {&b->down}};
    unsigned count = 0;
    for (unsigned i = 0; i < 4; i++) {
        if (all[stage][i] != NULL && all[stage][i]->w != NULL) {
            l[count++] = all[stage][i];
        }
    }
    return count;
}

float *nq_run_stage_input(const nq_run *r, unsigned stage) {
    float *const input[NQ_STAGES] = {r->h, r->att, r->h, r->gate};
    return stage == 3 && nq_block_has_experts(r->layer) ? r->h : input[stage];
}

/* Where the products of a stage go. */
static void stage_outputs(float **y, const nq_run *r, unsigned stage) {
    heads a = heads_of(r);
    bool paired = r->layer->gate.w != NULL;
    y[0] = r->h;
    if (stage == 0) {
        y[0] = a.q;
        y[1] = a.k;
        y[2] = a.v;
    } else if (stage == 2) {
        y[0] = paired ? r->gate : r->up;
        y[1] = r->up;
    }
}

/* While one token's results are added, normalized and rounded by one thread, the others
 * begin to fetch what comes next. */
static void expect_after(const nq_run *r, unsigned stage) {
    const nq_linear *l[NQ_GROUP_MAX] = {&r->m->head};
    bool last = stage + 1 == NQ_STAGES;
    unsigned count = 1;
    if (r->rows > 1) {
        return;
    }
    if (!last) {
        count = nq_block_linears(l, r->layer, stage + 1);
    } else if (r->layer_index + 1 < r->m->hyper.blocks) {
        count = nq_block_linears(l, r->layer + 1, 0);
    }
    nq_linear_expect(l, count, r->work);
}

/* Whoever watches sees the input first. */
novaq_status nq_run_do_stage(nq_run *r, unsigned stage, const nq_linear *const *l, unsigned count,
                             novaq_error *err) {
    float *y[NQ_GROUP_MAX] = {NULL};
    const float *x = nq_run_stage_input(r, stage);
    bool experts = nq_block_has_experts(r->layer);
    if (count > 0 && r->observe != NULL) {
        NQ_TRY(r->observe(r->observe_ctx, l, count, x, r->rows, err));
    }
    if (count > 0) {
        stage_outputs(y, r, stage);
        NQ_TRY(nq_linear_apply(y, l, count, x, r->rows, r->work, err));
    }
    expect_after(r, stage);
    switch (stage) {
    case 0: attend(r); break;
    case 1: nq_run_rows(r, attn_out_task); break;
    case 2:
        if (experts) {
            NQ_TRY(nq_moe_run(r, err));
        }
        nq_run_rows(r, experts ? ffn_out_task : activate_task);
        break;
    default:
        if (!experts) {
            nq_run_rows(r, ffn_out_task);
        }
        break;
    }
    return NOVAQ_OK;
}

static novaq_status run_block(nq_run *r, novaq_error *err) {
    nq_run_enter_block(r);
    for (unsigned stage = 0; stage < NQ_STAGES; stage++) {
        const nq_linear *l[NQ_GROUP_MAX];
        unsigned count = nq_block_linears(l, r->layer, stage);
        NQ_TRY(nq_run_do_stage(r, stage, l, count, err));
    }
    return NOVAQ_OK;
}

/* ---- feeding ---------------------------------------------------------------------- */

novaq_status nq_run_check(const nq_run *r, const int32_t *tokens, uint32_t sequences,
                          uint32_t count, novaq_error *err) {
    if (sequences == 0 || sequences > r->sequences || count == 0 || count > r->block ||
        count > r->n_ctx - r->position || (r->fed != 0 && sequences != r->fed)) {
        return nq_fail(err, NOVAQ_E_ARG, "%u x %u tokens at position %u do not fit %u x %u",
                       sequences, count, r->position, r->sequences, r->n_ctx);
    }
    for (uint64_t i = 0; i < (uint64_t)sequences * count; i++) {
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= r->m->hyper.vocab) {
            return nq_fail(err, NOVAQ_E_ARG, "token %d is outside the vocabulary of %u", tokens[i],
                           r->m->hyper.vocab);
        }
    }
    return NOVAQ_OK;
}

novaq_status nq_run_feed(nq_run *r, const int32_t *tokens, uint32_t sequences, uint32_t count,
                         novaq_error *err) {
    NQ_TRY(nq_run_check(r, tokens, sequences, count, err));
    r->tokens = tokens;
    r->fed = sequences;
    r->count = count;
    r->rows = sequences * count;
    NQ_TRY(nq_run_look_up(r, err));
    for (uint32_t i = 0; i < r->m->hyper.blocks; i++) {
        r->layer = &r->m->blocks[i];
        r->layer_index = i;
        NQ_TRY(run_block(r, err));
    }
    r->position += count;
    r->tokens = NULL;
    return NOVAQ_OK;
}

/* ---- output ------------------------------------------------------------------------ */

typedef struct cap_job {
    float *logits;
    uint64_t n;
    float cap;
} cap_job;

static void cap_task(void *ctx, uint64_t task, unsigned worker) {
    const cap_job *c = ctx;
    uint64_t at = task * CAP_TASK;
    (void)worker;
    nq_vec_softcap(c->logits + at, c->n - at < CAP_TASK ? c->n - at : CAP_TASK, c->cap);
}

novaq_status nq_run_apply_head(float *logits, nq_run *r, const float *h, uint32_t rows,
                               novaq_error *err) {
    const nq_hyper *hyper = &r->m->hyper;
    NQ_TRY(nq_linear_apply((float *[]){logits}, (const nq_linear *[]){&r->m->head}, 1, h, rows,
                           r->work, err));
    if (hyper->logit_softcap > 0) {
        cap_job c = {.logits = logits,
                     .n = (uint64_t)rows * hyper->vocab,
                     .cap = (float)hyper->logit_softcap};
        nq_pool_run(r->m->pool, cap_task, &c, (c.n + CAP_TASK - 1) / CAP_TASK);
    }
    return NOVAQ_OK;
}

/* x is kept: logits of other rows may be asked for next. h is free after the last
 * block. */
novaq_status nq_run_logits(float *logits, nq_run *r, const uint32_t *rows, uint32_t n,
                           novaq_error *err) {
    const nq_hyper *h = &r->m->hyper;
    if (n > r->rows) {
        return nq_fail(err, NOVAQ_E_ARG, "logits of %u rows asked, %u fed", n, r->rows);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (rows[i] >= r->rows) {
            return nq_fail(err, NOVAQ_E_ARG, "row %u of %u", rows[i], r->rows);
        }
        nq_run_norm(r->h + (uint64_t)i * h->dim, r->x + (uint64_t)rows[i] * h->dim,
                    &r->m->output_norm, h->dim, h);
    }
    return nq_run_apply_head(logits, r, r->h, n, err);
}

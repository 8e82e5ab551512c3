/* calibrated.c - see job.h: block by block, in the order the model computes.
 *
 * For each stage of each block: the second moments of what its matrices read (in
 * the model coded so far), all of them coded under that metric, written, and the
 * calibration tokens moved on, through the original matrices and through the
 * coded ones. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "compress/flow.h"
#include "compress/job.h"
#include "compress/metric_choice.h"

/* How much the rows of a tied embedding, looked up as they are, weigh beside what
 * the same matrix does as the output head: share of the identity in its metric. */
#define TIED_IDENTITY 0.3
#define DECODE_ROWS   64
/* Damping of the correction for what earlier blocks lost: a regression on some
 * thousands of tokens, which with little damping follows their noise. Measured:
 * docs/METHOD.md. */
#define CORRECTION_RIDGE 1.0

typedef struct group {
    unsigned count;
    const nq_linear *linear[NQ_GROUP_MAX]; /* of the source */
    nq_recipe_tensor *tensor[NQ_GROUP_MAX];
    float *original[NQ_GROUP_MAX]; /* (rows, cols) source weights */
    float *coded[NQ_GROUP_MAX];    /* the same after coding; NULL: not coded */
} group;

/* Reads the source weights of all matrices, coded or not. */
static novaq_status open_group(group *g, nq_compress_job *j, novaq_error *err) {
    for (unsigned i = 0; i < g->count; i++) {
        nq_recipe_tensor *t = nq_recipe_find(&j->recipe, g->linear[i]->w->name);
        if (t == NULL) {
            return nq_fail(err, NOVAQ_E_FORMAT, "%s: not among the tensors of the source",
                           g->linear[i]->w->name);
        }
        g->tensor[i] = t;
        NQ_TRY(nq_job_progress(j, t->src->name, err));
        if (t->coded) {
            NQ_TRY(nq_job_read(&g->original[i], j, t, err));
        }
        if (g->original[i] == NULL) {
            NQ_TRY(nq_alloc_raw(&g->original[i], t->src->elements, sizeof(float), err));
            NQ_TRY(nq_tensors_read_f32(g->original[i], j->ts, t->src, err));
        }
    }
    return NOVAQ_OK;
}

static void close_group(group *g) {
    for (unsigned i = 0; i < g->count; i++) {
        nq_free(g->original[i]);
        nq_free(g->coded[i]);
    }
}

/* ---- decoding ----------------------------------------------------------------- */

typedef struct decode_job {
    const nq_qmat *q;
    float *out;
    uint8_t *scratch; /* (threads, bytes) */
    uint64_t bytes;
} decode_job;

static void decode_task(void *ctx, uint64_t task, unsigned worker) {
    const decode_job *d = ctx;
    uint64_t r0 = task * DECODE_ROWS;
    uint64_t n = d->q->rows - r0 < DECODE_ROWS ? d->q->rows - r0 : DECODE_ROWS;
    nq_qmat_decode_plain(d->out + r0 * d->q->cols, d->q, r0, n, d->scratch + worker * d->bytes);
}

static novaq_status decode(float *out, const nq_qmat *q, nq_pool *pool, novaq_error *err) {
    decode_job d = {.q = q, .out = out, .bytes = (nq_qmat_scratch(q) + 63) / 64 * 64};
    NQ_TRY(nq_alloc_raw(&d.scratch, nq_pool_threads(pool), d.bytes, err));
    nq_pool_run(pool, decode_task, &d, (q->rows + DECODE_ROWS - 1) / DECODE_ROWS);
    nq_free(d.scratch);
    return NOVAQ_OK;
}

/* ---- coding a group -------------------------------------------------------------- */

nq_metric_options nq_metric_choice(const nq_recipe *r, unsigned order_block) {
    const novaq_compress_options *o = r->opt;
    bool rotate = r->encode.normalize == NQ_NORMALIZE_ROTATE;
    uint32_t block = o->rotation_block > 0 ? o->rotation_block : UINT32_MAX;
    const char *order = o->column_order != NULL ? o->column_order : "natural";
    return (nq_metric_options){.seed = o->seed,
                               .rotation_block = rotate ? block : 0,
                               .column_scales = rotate ? r->column_scales : 0,
                               .damping = o->damping,
                               .ridge = CORRECTION_RIDGE,
                               .by_energy = strcmp(order, "energy") == 0,
                               .order_block = order_block};
}

static unsigned common_multiple(unsigned a, unsigned b) {
    unsigned multiple = a;
    while (multiple % b != 0) {
        multiple += a;
    }
    return multiple;
}

static unsigned subvector(const nq_recipe_tensor *t) {
    return t != NULL && t->coded ? t->scheme.d : 1;
}

/* Columns that stay together in the coding order: whole subvectors of every matrix
 * of the group, the least common multiple of their lengths. */
static unsigned order_block(const group *g) {
    unsigned all = 1;
    for (unsigned i = 0; i < g->count; i++) {
        all = common_multiple(all, subvector(g->tensor[i]));
    }
    return all;
}

/* Codes the coded tensors of g, writes them, keeps what they decode to. */
static novaq_status encode_and_write(group *g, nq_compress_job *j, const nq_encode_options *opt,
                                     const float *residual, novaq_error *err) {
    nq_encode_item items[NQ_GROUP_MAX];
    nq_encoded out[NQ_GROUP_MAX];
    unsigned at[NQ_GROUP_MAX];
    unsigned n = 0;
    novaq_status st = NOVAQ_OK;
    for (unsigned i = 0; st == NOVAQ_OK && i < g->count; i++) {
        nq_recipe_tensor *t = g->tensor[i];
        if (!t->coded) {
            continue;
        }
        st = nq_alloc_raw(&g->coded[i], t->src->elements, sizeof(float), err);
        if (st == NOVAQ_OK) {
            memcpy(g->coded[i], g->original[i], t->src->elements * sizeof(float));
        }
        items[n] = (nq_encode_item){.name = t->src->name,
                                    .scheme = t->scheme,
                                    .w = g->coded[i],
                                    .rows = t->rows,
                                    .residual = residual};
        at[n++] = i;
    }
    if (st != NOVAQ_OK || n == 0) {
        return st;
    }
    st = nq_encode_group(out, items, n, g->tensor[at[0]]->cols, opt, j->pool, err);
    for (unsigned k = 0; k < n; k++) {
        nq_recipe_tensor *t = g->tensor[at[k]];
        if (st == NOVAQ_OK) {
            st = nq_job_write(j, t, &out[k], err);
        }
        if (st == NOVAQ_OK) {
            st = decode(g->coded[at[k]], &out[k].q, j->pool, err);
        }
        nq_encoded_close(&out[k]);
    }
    return st;
}

/* Opens the metric; inputs that give none (no numbers among them) are worth a
 * warning only. */
static novaq_status open_metric(nq_metric *metric, bool *usable, const char *name, unsigned block,
                                nq_compress_job *j, const nq_moments *moments, novaq_error *err) {
    nq_metric_options how = nq_metric_choice(&j->recipe, block);
    *usable = false;
    if (moments == NULL) {
        return NOVAQ_OK;
    }
    novaq_error why = {0};
    novaq_status st = nq_metric_open(metric, moments, &how, j->pool, &why);
    *usable = st == NOVAQ_OK;
    j->scarce += *usable && moments->samples < moments->cols ? 1 : 0;
    if (st == NOVAQ_E_NUMERIC) {
        return nq_recipe_warn(&j->recipe, err, "%s: coded without knowledge of its inputs: %s",
                              name, why.msg);
    }
    return st == NOVAQ_OK ? st : nq_fail(err, st, "%s: %s", name, why.msg);
}

/* Matrices without a usable metric are coded for themselves, never refused. */
static novaq_status code_group(group *g, nq_compress_job *j, const nq_moments *moments,
                               const float *residual, novaq_error *err) {
    nq_encode_options opt = j->recipe.encode;
    nq_metric metric = {0};
    bool usable = false;
    novaq_status st =
        open_metric(&metric, &usable, g->linear[0]->w->name, order_block(g), j, moments, err);
    opt.metric = usable ? &metric : NULL;
    float *turned = NULL;
    if (st == NOVAQ_OK && opt.metric != NULL && residual != NULL) {
        uint64_t n = g->tensor[0]->rows * metric.cols;
        st = nq_alloc_raw(&turned, n, sizeof(float), err);
        if (st == NOVAQ_OK) {
            memcpy(turned, residual, n * sizeof(float));
            nq_metric_input(turned, &metric, g->tensor[0]->rows, j->pool);
        }
    }
    if (st == NOVAQ_OK) {
        st = encode_and_write(g, j, &opt, turned, err);
    }
    nq_free(turned);
    nq_metric_close(&metric);
    return st;
}

/* Tensors that stay floats are written, too. */
static novaq_status store_rest(group *g, nq_compress_job *j, novaq_error *err) {
    for (unsigned i = 0; i < g->count; i++) {
        if (!j->written[g->tensor[i] - j->recipe.tensors]) {
            NQ_TRY(nq_job_store(j, g->tensor[i], err));
        }
    }
    return NOVAQ_OK;
}

/* ---- the model ------------------------------------------------------------------- */

/* The matrices of g for a product: those of the source, or what became of them. */
static void bind(nq_linear *own, const nq_linear **l, const group *g, bool coded) {
    for (unsigned i = 0; i < g->count; i++) {
        own[i] = *g->linear[i];
        own[i].dense = coded && g->coded[i] != NULL ? g->coded[i] : g->original[i];
        l[i] = &own[i];
    }
}

static bool any_coded(const group *g) {
    bool any = false;
    for (unsigned i = 0; i < g->count; i++) {
        any = any || g->tensor[i]->coded;
    }
    return any;
}

/* One tensor of matrices of experts under the metric of all that reads its input. */
static novaq_status code_expert(nq_flow *f, nq_compress_job *j, const nq_weight *t,
                                const nq_metric *metric, novaq_error *err) {
    nq_linear whole = {.weights = nq_flow_model(f)->weights, .w = t};
    nq_encode_options opt = j->recipe.encode;
    group g = {.count = 1, .linear = {&whole}};
    opt.metric = metric;
    novaq_status st = open_group(&g, j, err);
    if (st == NOVAQ_OK) {
        st = encode_and_write(&g, j, &opt, NULL, err);
    }
    if (st == NOVAQ_OK) {
        st = store_rest(&g, j, err);
    }
    close_group(&g);
    return st;
}

static unsigned expert_order(const nq_compress_job *j, const nq_model *m, const nq_block *block) {
    unsigned all = 1;
    const nq_weight *t = NULL;
    for (uint64_t i = 0; (t = nq_block_expert(m, block, i)) != NULL; i++) {
        all = common_multiple(all, subvector(nq_recipe_find(&j->recipe, t->name)));
    }
    return all;
}

/* Gate and up matrices of all experts share one metric, that of all tokens: which of
 * them an expert will see once the matrices before the router are coded is not what it
 * saw before. Down matrices are coded for themselves, with the rest of the tensors, and
 * the coded stream goes through the experts of the source. */
static novaq_status do_experts(nq_flow *f, nq_compress_job *j, const nq_block *block,
                               novaq_error *err) {
    nq_model *m = nq_flow_model(f);
    nq_moments moments;
    const float *residual;
    nq_metric metric = {0};
    bool usable = false;
    const nq_weight *t = nq_block_expert(m, block, 0);
    if (t == NULL) {
        return NOVAQ_OK;
    }
    nq_flow_moments(&moments, &residual, f, 2);
    unsigned order = expert_order(j, m, block);
    novaq_status st = open_metric(&metric, &usable, t->name, order, j, &moments, err);
    for (uint64_t i = 0; st == NOVAQ_OK && t != NULL; t = nq_block_expert(m, block, ++i)) {
        st = code_expert(f, j, t, usable ? &metric : NULL, err);
    }
    nq_metric_close(&metric);
    return st;
}

static novaq_status do_stage(nq_flow *f, nq_compress_job *j, const nq_block *block, unsigned stage,
                             novaq_error *err) {
    group g = {0};
    nq_moments moments;
    const float *residual;
    g.count = nq_block_linears(g.linear, block, stage);
    novaq_status st = stage == 2 ? do_experts(f, j, block, err) : NOVAQ_OK;
    if (st == NOVAQ_OK) {
        st = open_group(&g, j, err);
    }
    if (st == NOVAQ_OK && any_coded(&g)) {
        nq_flow_moments(&moments, &residual, f, stage);
        st = code_group(&g, j, &moments, residual, err);
    }
    if (st == NOVAQ_OK) {
        st = store_rest(&g, j, err);
    }
    if (st == NOVAQ_OK) {
        nq_linear own[2][NQ_GROUP_MAX];
        const nq_linear *original[NQ_GROUP_MAX];
        const nq_linear *coded[NQ_GROUP_MAX];
        bind(own[0], original, &g, false);
        bind(own[1], coded, &g, true);
        st = nq_flow_advance(f, stage, original, coded, err);
    }
    close_group(&g);
    return st;
}

/* The metric of a matrix that is head and embedding at once: as the head it counts
 * by what it reads; as the embedding all its columns count the same. */
static void mix_identity(float *h, uint64_t n, double share) {
    double mean = 0;
    for (uint64_t c = 0; c < n; c++) {
        mean += (double)h[c * n + c] / (double)n;
    }
    for (uint64_t i = 0; i < n * n; i++) {
        h[i] *= (float)(1 - share);
    }
    for (uint64_t c = 0; c < n; c++) {
        h[c * n + c] += (float)(share * mean);
    }
}

static novaq_status code_single(nq_flow *f, nq_compress_job *j, const nq_linear *l,
                                const nq_moments *moments, bool is_embedding, novaq_error *err) {
    group g = {.count = 1, .linear = {l}};
    novaq_status st = open_group(&g, j, err);
    if (st == NOVAQ_OK && any_coded(&g)) {
        st = code_group(&g, j, moments, NULL, err);
    }
    if (st == NOVAQ_OK) {
        st = store_rest(&g, j, err);
    }
    if (st == NOVAQ_OK && is_embedding && g.coded[0] != NULL) {
        nq_linear own;
        const nq_linear *coded = NULL;
        bind(&own, &coded, &g, true);
        st = nq_flow_embed_coded(f, coded, err);
    }
    close_group(&g);
    return st;
}

/* Head last, when it is known what it reads. A tied embedding is coded then, too;
 * one of its own at the start, so that what it loses can still be made good. */
static novaq_status do_head(nq_flow *f, nq_compress_job *j, novaq_error *err) {
    nq_model *m = nq_flow_model(f);
    nq_moments moments;
    nq_flow_head_moments(&moments, f);
    if (!m->hyper.tied) {
        return code_single(f, j, &m->head, &moments, false, err);
    }
    float *h = NULL;
    uint64_t n = moments.cols;
    NQ_TRY(nq_alloc_raw(&h, n * n, sizeof(float), err));
    memcpy(h, moments.h, n * n * sizeof(float));
    mix_identity(h, n, TIED_IDENTITY);
    moments.h = h;
    moments.cross = NULL;
    novaq_status st = code_single(f, j, &m->embed, &moments, false, err);
    nq_free(h);
    return st;
}

static novaq_status run_flow(nq_flow *f, nq_compress_job *j, novaq_error *err) {
    nq_model *m = nq_flow_model(f);
    if (!m->hyper.tied) {
        NQ_TRY(code_single(f, j, &m->embed, NULL, true, err));
    }
    for (uint32_t b = 0; b < m->hyper.blocks; b++) {
        NQ_TRY(nq_flow_enter(f, b, err));
        for (unsigned stage = 0; stage < NQ_STAGES; stage++) {
            NQ_TRY(do_stage(f, j, &m->blocks[b], stage, err));
        }
    }
    return do_head(f, j, err);
}

novaq_status nq_job_calibrated(nq_compress_job *j, novaq_error *err) {
    const novaq_compress_options *o = j->recipe.opt;
    nq_flow_options opt = {.path = o->input,
                           .two_streams = o->propagate != 0,
                           .memory = o->max_memory > 0 ? o->max_memory : nq_physical_memory() / 2,
                           .pool = j->pool,
                           .tick = nq_job_tick,
                           .tick_ctx = j};
    nq_flow *f = NULL;
    NQ_TRY(nq_flow_open(&f, &j->calibration, &opt, err));
    novaq_status st = run_flow(f, j, err);
    nq_flow_close(&f);
    if (st == NOVAQ_OK && j->scarce > 0) {
        uint64_t tokens = (uint64_t)j->calibration.sequences * j->calibration.length;
        st = nq_recipe_warn(&j->recipe, err,
                            "%llu groups of matrices have more input columns than the %llu tokens "
                            "they were calibrated on; give more text or --calibration-tokens",
                            (unsigned long long)j->scarce, (unsigned long long)tokens);
    }
    return st;
}

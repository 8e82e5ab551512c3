/* calibrated.c - see job.h: block by block, in the order the model computes.
 *
 * For each stage of each block: the second moments of what its matrices read (in
 * the model coded so far), all of them coded under that metric, written, and the
 * calibration tokens moved on, through the original matrices and through the
 * coded ones. Where blocks are refined, writing waits for the end of the block. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "compress/flow.h"
#include "compress/job.h"
#include "compress/metric_choice.h"
#include "compress/refine_block.h"

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
    float *coded[NQ_GROUP_MAX];    /* the same after coding; NULL: not coded (yet) */
    nq_encoded *held;              /* (NQ_GROUP_MAX) kept here, not written yet; or NULL */
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
        if (g->held != NULL) {
            nq_encoded_close(&g->held[i]);
        }
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

/* What an interrupted run coded of g is taken over: decoded, not coded again. The first
 * tensors of a group are written first. *all: nothing is left to code. */
static novaq_status recall_group(group *g, bool *all, nq_compress_job *j, novaq_error *err) {
    *all = true;
    for (unsigned i = 0; *all && i < g->count; i++) {
        nq_layer layer;
        bool found = !g->tensor[i]->coded;
        if (found) {
            continue;
        }
        if (g->held == NULL) {
            NQ_TRY(nq_job_recall(&layer, &found, j, g->tensor[i], err));
        } else {
            found = g->held[i].symbols != NULL;
            layer = (nq_layer){.q = g->held[i].q, .elements = g->tensor[i]->src->elements};
        }
        if (found) {
            NQ_TRY(nq_alloc_raw(&g->coded[i], layer.elements, sizeof(float), err));
            NQ_TRY(decode(g->coded[i], &layer.q, j->pool, err));
        }
        *all = found;
    }
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

/* Codes what is to be coded of g and not done yet, writes or holds it, keeps what it
 * decodes to. */
static novaq_status encode_and_write(group *g, nq_compress_job *j, const nq_encode_options *opt,
                                     const float *residual, novaq_error *err) {
    nq_encode_item items[NQ_GROUP_MAX];
    nq_encoded out[NQ_GROUP_MAX];
    unsigned at[NQ_GROUP_MAX];
    unsigned n = 0;
    novaq_status st = NOVAQ_OK;
    for (unsigned i = 0; st == NOVAQ_OK && i < g->count; i++) {
        nq_recipe_tensor *t = g->tensor[i];
        if (!t->coded || g->coded[i] != NULL) {
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
        if (st == NOVAQ_OK && g->held == NULL) {
            st = nq_job_write(j, t, &out[k], err);
        }
        if (st == NOVAQ_OK) {
            st = decode(g->coded[at[k]], &out[k].q, j->pool, err);
        }
        if (st == NOVAQ_OK && g->held != NULL) {
            g->held[at[k]] = out[k];
        } else {
            nq_encoded_close(&out[k]);
        }
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

static unsigned expert_order(const nq_compress_job *j, const nq_model *m, const nq_block *block) {
    unsigned all = 1;
    const nq_weight *t = NULL;
    for (uint64_t i = 0; (t = nq_block_expert(m, block, i)) != NULL; i++) {
        all = common_multiple(all, subvector(nq_recipe_find(&j->recipe, t->name)));
    }
    return all;
}

/* The metric of all that reads the input of the experts, made when it is needed. */
typedef struct expert_metric {
    nq_metric metric;
    bool made, usable;
} expert_metric;

static novaq_status make_metric(expert_metric *e, nq_flow *f, nq_compress_job *j,
                                const nq_block *block, const char *name, novaq_error *err) {
    nq_moments moments;
    const float *residual;
    if (e->made) {
        return NOVAQ_OK;
    }
    nq_flow_moments(&moments, &residual, f, 2);
    e->made = true;
    return open_metric(&e->metric, &e->usable, name, expert_order(j, nq_flow_model(f), block), j,
                       &moments, err);
}

/* One tensor of matrices of experts. */
static novaq_status code_expert(nq_flow *f, nq_compress_job *j, const nq_block *block,
                                const nq_weight *t, expert_metric *e, novaq_error *err) {
    nq_linear whole = {.weights = nq_flow_model(f)->weights, .w = t};
    nq_encode_options opt = j->recipe.encode;
    group g = {.count = 1, .linear = {&whole}};
    bool all = false;
    novaq_status st = open_group(&g, j, err);
    if (st == NOVAQ_OK) {
        st = recall_group(&g, &all, j, err);
    }
    if (st == NOVAQ_OK && !all) {
        st = make_metric(e, f, j, block, t->name, err);
    }
    if (st == NOVAQ_OK && !all) {
        opt.metric = e->usable ? &e->metric : NULL;
        st = encode_and_write(&g, j, &opt, NULL, err);
    }
    if (st == NOVAQ_OK) {
        st = store_rest(&g, j, err);
    }
    close_group(&g);
    return st;
}

/* Gate and up matrices of all experts share one metric, that of all tokens: which of
 * them an expert will see once the matrices before the router are coded is not what it
 * saw before. Down matrices are coded for themselves, with the rest of the tensors, and
 * the coded stream goes through the experts of the source. */
static novaq_status do_experts(nq_flow *f, nq_compress_job *j, const nq_block *block,
                               novaq_error *err) {
    expert_metric e = {0};
    novaq_status st = NOVAQ_OK;
    const nq_weight *t = NULL;
    for (uint64_t i = 0; st == NOVAQ_OK; i++) {
        t = nq_block_expert(nq_flow_model(f), block, i);
        if (t == NULL) {
            break;
        }
        st = code_expert(f, j, block, t, &e, err);
    }
    nq_metric_close(&e.metric);
    return st;
}

/* From the inputs of a stage to those of the next; g is to be closed, also on failure. */
static novaq_status run_stage(group *g, nq_flow *f, nq_compress_job *j, const nq_block *block,
                              unsigned stage, novaq_error *err) {
    nq_moments moments;
    const float *residual;
    bool all = false;
    g->count = nq_block_linears(g->linear, block, stage);
    if (stage == 2) {
        NQ_TRY(do_experts(f, j, block, err));
    }
    NQ_TRY(open_group(g, j, err));
    NQ_TRY(recall_group(g, &all, j, err));
    if (!all) {
        nq_flow_moments(&moments, &residual, f, stage);
        NQ_TRY(code_group(g, j, &moments, residual, err));
    }
    if (g->held == NULL) {
        NQ_TRY(store_rest(g, j, err));
    }
    nq_linear own[2][NQ_GROUP_MAX];
    const nq_linear *original[NQ_GROUP_MAX];
    const nq_linear *coded[NQ_GROUP_MAX];
    bind(own[0], original, g, false);
    bind(own[1], coded, g, true);
    return nq_flow_advance(f, stage, original, coded, err);
}

static novaq_status do_block(nq_flow *f, nq_compress_job *j, uint32_t b, novaq_error *err) {
    novaq_status st = nq_flow_enter(f, b, err);
    for (unsigned stage = 0; st == NOVAQ_OK && stage < NQ_STAGES; stage++) {
        group g = {0};
        st = run_stage(&g, f, j, &nq_flow_model(f)->blocks[b], stage, err);
        close_group(&g);
    }
    return st;
}

/* ---- blocks that are refined -------------------------------------------------------- */

static novaq_status copy_piece(void *out, const void *from, uint64_t bytes, novaq_error *err) {
    void **to = out;
    if (from == NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_alloc_raw(to, bytes, 1, err));
    memcpy(*to, from, bytes);
    return NOVAQ_OK;
}

/* The pieces of q, which are borrowed, as e's own. */
static novaq_status copy_pieces(nq_encoded *e, const nq_qmat *q, novaq_error *err) {
    e->q = *q;
    uint64_t groups = q->groups * sizeof(uint16_t);
    uint64_t rows = q->rows * sizeof(uint16_t);
    NQ_TRY(copy_piece(&e->symbols, q->symbols, nq_qmat_symbol_bytes(q), err));
    NQ_TRY(copy_piece(&e->codebooks, q->codebooks, nq_qmat_codebook_bytes(q), err));
    NQ_TRY(copy_piece(&e->codebook_scale, q->codebook_scale, groups, err));
    NQ_TRY(copy_piece(&e->row_scale, q->row_scale, rows, err));
    NQ_TRY(copy_piece(&e->row_mean, q->row_mean, rows, err));
    NQ_TRY(copy_piece(&e->col_exponent, q->col_exponent, q->cols, err));
    e->q.symbols = e->symbols;
    e->q.codebooks = e->codebooks;
    e->q.codebook_scale = e->codebook_scale;
    e->q.row_scale = e->row_scale;
    e->q.row_mean = e->row_mean;
    e->q.col_exponent = e->col_exponent;
    return NOVAQ_OK;
}

/* What an interrupted run wrote of the block. Unless that is all of it (*all), it is
 * done again, which gives the same once more. */
static novaq_status recall_block(group *g, bool *all, nq_compress_job *j, const nq_block *block,
                                 novaq_error *err) {
    *all = true;
    for (unsigned stage = 0; *all && stage < NQ_STAGES; stage++) {
        g[stage].count = nq_block_linears(g[stage].linear, block, stage);
        for (unsigned i = 0; *all && i < g[stage].count; i++) {
            nq_recipe_tensor *t = nq_recipe_find(&j->recipe, g[stage].linear[i]->w->name);
            nq_layer layer;
            if (t != NULL) {
                NQ_TRY(nq_job_recall(&layer, all, j, t, err));
            }
            if (t != NULL && *all && t->coded) {
                NQ_TRY(copy_pieces(&g[stage].held[i], &layer.q, err));
            }
        }
    }
    for (unsigned i = 0; !*all && i < NQ_STAGES * NQ_GROUP_MAX; i++) {
        nq_encoded_close(&g[i / NQ_GROUP_MAX].held[i % NQ_GROUP_MAX]);
    }
    return NOVAQ_OK;
}

/* The coded stream through what the block has become. */
static novaq_status run_again(nq_flow *f, nq_compress_job *j, const group *g, novaq_error *err) {
    NQ_TRY(nq_flow_again(f, err));
    for (unsigned stage = 0; stage < NQ_STAGES; stage++) {
        nq_linear own[NQ_GROUP_MAX];
        const nq_linear *coded[NQ_GROUP_MAX];
        for (unsigned i = 0; i < g[stage].count; i++) {
            if (g[stage].coded[i] != NULL) {
                NQ_TRY(decode(g[stage].coded[i], &g[stage].held[i].q, j->pool, err));
            }
        }
        bind(own, coded, &g[stage], true);
        NQ_TRY(nq_flow_advance_coded(f, stage, coded, err));
    }
    return NOVAQ_OK;
}

static novaq_status write_block(nq_compress_job *j, const group *g, novaq_error *err) {
    for (unsigned stage = 0; stage < NQ_STAGES; stage++) {
        for (unsigned i = 0; i < g[stage].count; i++) {
            nq_recipe_tensor *t = g[stage].tensor[i];
            if (j->written[t - j->recipe.tensors]) {
                continue;
            }
            NQ_TRY(t->coded ? nq_job_write(j, t, &g[stage].held[i], err) : nq_job_store(j, t, err));
        }
    }
    return NOVAQ_OK;
}

static novaq_status refine_and_write(nq_flow *f, nq_compress_job *j, uint32_t b, const group *g,
                                     novaq_error *err) {
    nq_block_item items[NQ_STAGES * NQ_GROUP_MAX];
    unsigned n = 0;
    bool better = false;
    for (unsigned stage = 0; stage < NQ_STAGES; stage++) {
        for (unsigned i = 0; i < g[stage].count; i++) {
            bool coded = g[stage].coded[i] != NULL;
            items[n++] = (nq_block_item){.name = g[stage].tensor[i]->src->name,
                                         .made = coded ? &g[stage].held[i] : NULL,
                                         .dense = coded ? NULL : g[stage].original[i]};
        }
    }
    NQ_TRY(nq_refine_block(&better, f, j, b, items, n, err));
    if (better) {
        NQ_TRY(run_again(f, j, g, err));
    }
    j->teacher = better ? nq_flow_model(f)->weights : NULL;
    novaq_status st = write_block(j, g, err);
    j->teacher = NULL;
    return st;
}

/* All matrices of the block are coded, then refined together, then written. */
static novaq_status do_refined_block(nq_flow *f, nq_compress_job *j, uint32_t b, novaq_error *err) {
    const nq_block *block = &nq_flow_model(f)->blocks[b];
    nq_encoded held[NQ_STAGES][NQ_GROUP_MAX] = {0};
    group g[NQ_STAGES] = {0};
    bool all = false;
    for (unsigned stage = 0; stage < NQ_STAGES; stage++) {
        g[stage].held = held[stage];
    }
    novaq_status st = recall_block(g, &all, j, block, err);
    if (st == NOVAQ_OK) {
        st = nq_flow_enter(f, b, err);
    }
    for (unsigned stage = 0; st == NOVAQ_OK && stage < NQ_STAGES; stage++) {
        st = run_stage(&g[stage], f, j, block, stage, err);
    }
    if (st == NOVAQ_OK && !all) {
        st = refine_and_write(f, j, b, g, err);
    }
    for (unsigned stage = 0; stage < NQ_STAGES; stage++) {
        close_group(&g[stage]);
    }
    return st;
}

/* ---- head, embedding, all of it ------------------------------------------------------ */

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
    bool all = false;
    novaq_status st = open_group(&g, j, err);
    if (st == NOVAQ_OK) {
        st = recall_group(&g, &all, j, err);
    }
    if (st == NOVAQ_OK && !all) {
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

/* The tensors of a block that will be read, in that order. */
static size_t list_block(const nq_tensor_info **order, const nq_model *m, const nq_block *block) {
    size_t n = 0;
    for (unsigned stage = 0; stage < NQ_STAGES; stage++) {
        const nq_linear *l[NQ_GROUP_MAX];
        const nq_weight *t = NULL;
        unsigned count = nq_block_linears(l, block, stage);
        for (uint64_t i = 0; stage == 2 && (t = nq_block_expert(m, block, i)) != NULL; i++) {
            order[n++] = t->src;
        }
        for (unsigned i = 0; i < count; i++) {
            order[n++] = l[i]->w->src;
        }
    }
    return n;
}

/* What the flow will read is fetched ahead, block by block, every tensor once; the
 * embedding is there already. */
static novaq_status fetch_blocks(nq_flow *f, nq_compress_job *j, novaq_error *err) {
    const nq_model *m = nq_flow_model(f);
    const nq_tensor_info **order = NULL;
    size_t n = 0;
    uint64_t most = 2 + (uint64_t)m->hyper.blocks * NQ_STAGES * NQ_GROUP_MAX;
    most += (uint64_t)m->hyper.blocks * 2 * m->hyper.experts;
    NQ_TRY(nq_alloc(&order, most, sizeof *order, err));
    for (uint32_t b = 0; b < m->hyper.blocks; b++) {
        n += list_block(order + n, m, &m->blocks[b]);
    }
    if (!m->hyper.tied) {
        order[n++] = m->head.w->src;
    }
    novaq_status st = nq_intake_ahead(&j->intake, order, n, err);
    nq_free(order);
    return st;
}

static bool refines(const nq_compress_job *j) { return j->recipe.opt->refine_blocks > 0; }

static novaq_status run_flow(nq_flow *f, nq_compress_job *j, novaq_error *err) {
    nq_model *m = nq_flow_model(f);
    if (!j->held) {
        NQ_TRY(fetch_blocks(f, j, err));
    }
    if (!m->hyper.tied) {
        NQ_TRY(code_single(f, j, &m->embed, NULL, true, err));
    }
    for (uint32_t b = 0; b < m->hyper.blocks; b++) {
        bool refine = refines(j) && !nq_block_has_experts(&m->blocks[b]);
        j->unlearnt += refine ? 0 : 1;
        NQ_TRY(refine ? do_refined_block(f, j, b, err) : do_block(f, j, b, err));
    }
    return do_head(f, j, err);
}

static novaq_status read_embedding(void *ctx, float *dst, const nq_weight *t, novaq_error *err) {
    nq_compress_job *j = ctx;
    j->embedding = t->src;
    j->embedding_values = dst;
    return nq_intake_read_f32(dst, &j->intake, t->src, err);
}

novaq_status nq_job_calibrated(nq_compress_job *j, novaq_error *err) {
    const novaq_compress_options *o = j->recipe.opt;
    bool far = nq_intake_is_remote(j->ts) && !j->held;
    nq_flow_options opt = {.ts = j->ts,
                           .two_streams = o->propagate != 0,
                           .keep_inputs = refines(j),
                           .memory = o->max_memory > 0 ? o->max_memory : nq_physical_memory() / 2,
                           .pool = j->pool,
                           .tick = nq_job_tick,
                           .tick_ctx = j,
                           .embedding = far ? read_embedding : NULL};
    nq_flow *f = NULL;
    novaq_status st = nq_flow_open(&f, &j->calibration, &opt, err);
    if (st == NOVAQ_OK) {
        st = run_flow(f, j, err);
    }
    nq_flow_close(&f);
    j->embedding = NULL;
    if (st == NOVAQ_OK && refines(j) && j->unlearnt > 0) {
        st = nq_recipe_warn(&j->recipe, err,
                            "%u blocks have experts: they stay as they were coded, without the "
                            "steps for each block",
                            j->unlearnt);
    }
    if (st == NOVAQ_OK && j->scarce > 0) {
        uint64_t tokens = (uint64_t)j->calibration.sequences * j->calibration.length;
        st = nq_recipe_warn(&j->recipe, err,
                            "%llu groups of matrices have more input columns than the %llu tokens "
                            "they were calibrated on; give more text or --calibration-tokens",
                            (unsigned long long)j->scarce, (unsigned long long)tokens);
    }
    return st;
}

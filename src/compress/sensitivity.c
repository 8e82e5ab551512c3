/* sensitivity.c - see sensitivity.h. */
#include "compress/sensitivity.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "compress/flow.h"
#include "compress/metric_choice.h"
#include "model/vec.h"

#define MOMENT_TOKENS 4096 /* that the Hessians are made from */
#define PROBE_TOKENS  512  /* on which divergence is measured */
#define SCORED        256  /* positions of them that are scored */
#define BLOCKS        8    /* measured at most; between them the logarithm is interpolated */
/* Relative squared error of the disturbance: what 3 bits leave. */
#define DISTURBANCE 0.02
#define TILE_ROWS   64

typedef struct prober {
    nq_compress_job *j;
    nq_model *m; /* whole, in memory */
    nq_flow *flow;
    nq_run *run;
    nq_calibration text; /* a part of the job's; borrowed */
    uint32_t sequences;  /* probed, the first of the text */
    uint32_t rows;       /* their tokens */
    uint32_t scored;     /* rows of logits */
    float *x, *in, *h;   /* (rows, dim), (rows, widest), (scored, dim) */
    float *base;         /* (scored, vocab) log-probabilities of the original */
    float *logits;       /* (scored, vocab) */
    float *row_kl;       /* (scored) */
    double *kl;          /* (blocks, MATRICES) of the measured blocks */
    double kl_embed, kl_head;
    uint32_t block; /* at work, for progress */
    const char *item;
} prober;

#define MATRICES 7 /* of a block */

static novaq_status tick(void *ctx, novaq_error *err) {
    const prober *p = ctx;
    novaq_progress now = {.phase = "sensitivity",
                          .item = p->item != NULL ? p->item : "",
                          .done = p->block,
                          .total = p->m->hyper.blocks,
                          .unit = "blocks",
                          .value = NAN,
                          .received = nq_intake_received(p->j->ts)};
    return nq_recipe_tell(&p->j->recipe, &now, err);
}

/* ---- divergence ----------------------------------------------------------------- */

static void log_softmax_row(float *row, float *scratch, uint32_t vocab) {
    float shift = (float)nq_vec_logsumexp(row, scratch, vocab);
    for (uint32_t v = 0; v < vocab; v++) {
        row[v] -= shift;
    }
}

static void base_task(void *ctx, uint64_t row, unsigned worker) {
    (void)worker;
    const prober *p = ctx;
    uint32_t vocab = p->m->hyper.vocab;
    log_softmax_row(p->base + row * vocab, p->logits + row * vocab, vocab);
}

/* KL(p || q) of one row; q is overwritten. */
static void kl_task(void *ctx, uint64_t row, unsigned worker) {
    (void)worker;
    const prober *p = ctx;
    uint32_t vocab = p->m->hyper.vocab;
    const float *base = p->base + row * vocab;
    float *q = p->logits + row * vocab;
    float top = nq_vec_max(q, vocab);
    double sum = 0;
    double kl = 0;
    for (uint32_t v = 0; v < vocab; v++) {
        float e = q[v] - top;
        sum += (double)expf(e);
        kl += (double)(expf(base[v]) * (base[v] - e));
    }
    p->row_kl[row] = (float)(kl + log(sum));
}

/* Logits of the probed rows' scored positions from the residual stream p->x. */
static novaq_status score(float *logits, prober *p, novaq_error *err) {
    uint32_t dim = p->m->hyper.dim;
    uint32_t step = p->rows / p->scored;
    for (uint32_t i = 0; i < p->scored; i++) {
        uint64_t row = (uint64_t)i * step + step - 1;
        nq_run_output(p->h + (uint64_t)i * dim, p->run, p->x + row * dim, 1);
    }
    return nq_run_head(logits, p->run, p->h, p->scored, err);
}

static novaq_status divergence(double *kl, prober *p, novaq_error *err) {
    NQ_TRY(score(p->logits, p, err));
    nq_pool_run(p->j->pool, kl_task, p, p->scored);
    *kl = 0;
    for (uint32_t i = 0; i < p->scored; i++) {
        *kl += (double)p->row_kl[i] / (double)p->scored;
    }
    return NOVAQ_OK;
}

/* p->x through blocks [first, all), matrix `changed` (or NULL) in place of `own`. */
static novaq_status run_from(prober *p, uint32_t first, const nq_linear *own,
                             const nq_linear *changed, novaq_error *err) {
    uint32_t length = p->text.length;
    for (uint32_t b = first; b < p->m->hyper.blocks; b++) {
        NQ_TRY(tick(p, err));
        NQ_TRY(nq_run_enter(p->in, p->run, b, p->x, p->sequences, length, err));
        for (unsigned stage = 0; stage < NQ_STAGES; stage++) {
            const nq_linear *l[NQ_GROUP_MAX];
            unsigned count = nq_block_linears(l, &p->m->blocks[b], stage);
            for (unsigned i = 0; i < count; i++) {
                l[i] = l[i] == own ? changed : l[i];
            }
            NQ_TRY(
                nq_run_stage(p->in, p->x, p->run, b, stage, l, p->in, p->sequences, length, err));
        }
    }
    return NOVAQ_OK;
}

/* ---- disturbances ----------------------------------------------------------------- */

typedef struct noise_job {
    float *w;                /* (rows, cols) is disturbed in place */
    const nq_metric *metric; /* or NULL: white */
    uint64_t rows, cols, seed, stream;
    float *scratch; /* (threads, TILE_ROWS, cols) */
} noise_job;

/* c_j, or its inverse; 1 without column scales. */
static float column_factor(const nq_metric *m, uint64_t c, bool inverse) {
    if (m == NULL || m->col_exponent == NULL) {
        return 1.0F;
    }
    return nq_col_factor((int8_t)(inverse ? m->col_exponent[c] : -m->col_exponent[c]));
}

/* White noise with a share of the power of the row in the coded basis, times the
 * pivots of the metric's factor. */
static void noise_row(float *e, const noise_job *n, uint64_t row) {
    const float *w = n->w + row * n->cols;
    double power = 0;
    for (uint64_t c = 0; c < n->cols; c++) {
        double scaled = (double)(w[c] * column_factor(n->metric, c, false));
        power += scaled * scaled;
    }
    double size = sqrt(DISTURBANCE * power / (double)n->cols);
    for (uint64_t c = 0; c < n->cols; c++) {
        double g = nq_normal(n->seed, n->stream, row * n->cols + c);
        double pivot = n->metric != NULL ? (double)n->metric->r[c * n->cols + c] : 1;
        e[c] = (float)(size * g * pivot);
    }
}

/* Coding leaves (w - q) u white, u the unit factor of the metric: w - q = e u^-1. */
static void noise_task(void *ctx, uint64_t task, unsigned worker) {
    const noise_job *n = ctx;
    const nq_metric *m = n->metric;
    uint64_t r0 = task * TILE_ROWS;
    uint64_t rows = n->rows - r0 < TILE_ROWS ? n->rows - r0 : TILE_ROWS;
    float *e = n->scratch + (uint64_t)worker * TILE_ROWS * n->cols;
    for (uint64_t r = 0; r < rows; r++) {
        noise_row(e + r * n->cols, n, r0 + r);
    }
    if (m != NULL) {
        cblas_strsm(CblasRowMajor, CblasRight, CblasUpper, CblasNoTrans, CblasNonUnit, (int)rows,
                    (int)n->cols, 1.0F, m->r, (int)n->cols, e, (int)n->cols);
        nq_rotate_inverse(e, &m->rotation, rows, n->cols);
    }
    for (uint64_t i = 0; i < rows * n->cols; i++) {
        n->w[r0 * n->cols + i] += column_factor(m, i % n->cols, true) * e[i];
    }
}

/* *out (nq_free): a disturbed copy of the matrix. */
static novaq_status disturb(float **out, const nq_linear *l, const nq_metric *m, const prober *p,
                            novaq_error *err) {
    nq_pool *pool = p->j->pool;
    noise_job n = {.metric = m,
                   .rows = l->w->rows,
                   .cols = l->w->cols,
                   .seed = p->j->recipe.opt->seed,
                   .stream = nq_stream(l->w->name)};
    novaq_status st = nq_alloc_raw(&n.w, n.rows * n.cols, sizeof(float), err);
    if (st == NOVAQ_OK) {
        st = nq_alloc_raw(&n.scratch, nq_pool_threads(pool) * TILE_ROWS * n.cols, sizeof(float),
                          err);
    }
    if (st == NOVAQ_OK && l->dense != NULL) {
        memcpy(n.w, l->dense, n.rows * n.cols * sizeof(float));
    } else if (st == NOVAQ_OK) {
        st = nq_weights_read_rows(n.w, l->weights, l->w, 0, n.rows, err);
    }
    if (st == NOVAQ_OK) {
        nq_pool_run(pool, noise_task, &n, (n.rows + TILE_ROWS - 1) / TILE_ROWS);
    }
    nq_free(n.scratch);
    *out = n.w; /* the caller's, whatever the status */
    return st;
}

/* ---- measuring ---------------------------------------------------------------------- */

/* Every matrix of one stage of a block by itself; start (rows, dim) is the residual
 * stream at the entry of the block. */
static novaq_status probe_stage(prober *p, uint32_t block, unsigned stage, const float *start,
                                double *kl, novaq_error *err) {
    const nq_linear *l[NQ_GROUP_MAX];
    unsigned count = nq_block_linears(l, &p->m->blocks[block], stage);
    nq_moments moments;
    const float *residual;
    nq_metric metric = {0};
    nq_metric_options how = nq_metric_choice(&p->j->recipe, 1);
    how.by_energy = false;
    bool shaped = p->j->recipe.encode.feedback;
    novaq_status st = NOVAQ_OK;
    if (shaped) {
        nq_flow_moments(&moments, &residual, p->flow, stage);
        st = nq_metric_open(&metric, &moments, &how, p->j->pool, err);
        shaped = st == NOVAQ_OK;
        st = st == NOVAQ_E_NUMERIC ? NOVAQ_OK : st; /* coding then does without, too */
    }
    for (unsigned i = 0; st == NOVAQ_OK && i < count; i++) {
        nq_linear changed = *l[i];
        float *noisy = NULL;
        p->item = l[i]->w->name;
        st = tick(p, err);
        if (st == NOVAQ_OK) {
            st = disturb(&noisy, l[i], shaped ? &metric : NULL, p, err);
        }
        if (st == NOVAQ_OK) {
            changed.dense = noisy;
            memcpy(p->x, start, (uint64_t)p->rows * p->m->hyper.dim * sizeof(float));
            st = run_from(p, block, l[i], &changed, err);
        }
        if (st == NOVAQ_OK) {
            st = divergence(&kl[i], p, err);
        }
        nq_free(noisy);
    }
    nq_metric_close(&metric);
    return st;
}

/* Block b of the flow, measured or only passed. */
static novaq_status pass_block(prober *p, uint32_t b, bool measured, novaq_error *err) {
    uint64_t bytes = (uint64_t)p->rows * p->m->hyper.dim * sizeof(float);
    float *start = NULL;
    double *kl = p->kl + (uint64_t)b * MATRICES;
    NQ_TRY(nq_alloc_raw(&start, bytes, 1, err));
    memcpy(start, nq_flow_stream(p->flow), bytes);
    novaq_status st = nq_flow_enter(p->flow, b, err);
    for (unsigned stage = 0; st == NOVAQ_OK && stage < NQ_STAGES; stage++) {
        const nq_linear *l[NQ_GROUP_MAX];
        unsigned count = nq_block_linears(l, &p->m->blocks[b], stage);
        if (measured) {
            st = probe_stage(p, b, stage, start, kl, err);
        }
        if (st == NOVAQ_OK) {
            st = nq_flow_advance(p->flow, stage, l, l, err);
        }
        kl += count;
    }
    nq_free(start);
    return st;
}

/* The embedding, and the head where it is the same matrix, or the head alone. */
static novaq_status probe_single(double *kl, prober *p, nq_linear *place, novaq_error *err) {
    nq_linear changed = *place;
    float *noisy = NULL;
    p->item = place->w->name;
    novaq_status st = disturb(&noisy, place, NULL, p, err);
    if (st != NOVAQ_OK) {
        nq_free(noisy);
        return st;
    }
    changed.dense = noisy;
    nq_model_swap(p->m, place, &changed);
    st = nq_run_embed(p->x, p->run, p->text.tokens, p->sequences, p->text.length, err);
    if (st == NOVAQ_OK) {
        st = run_from(p, 0, NULL, NULL, err);
    }
    if (st == NOVAQ_OK) {
        st = divergence(kl, p, err);
    }
    nq_model_swap(p->m, place, &changed);
    nq_free(noisy);
    return st;
}

static bool is_measured(uint32_t b, uint32_t blocks) {
    uint32_t picks = blocks < BLOCKS ? blocks : BLOCKS;
    for (uint32_t i = 0; i < picks; i++) {
        if (b == (picks > 1 ? i * (blocks - 1) / (picks - 1) : 0)) {
            return true;
        }
    }
    return false;
}

static novaq_status measure_all(prober *p, novaq_error *err) {
    uint32_t blocks = p->m->hyper.blocks;
    NQ_TRY(nq_run_embed(p->x, p->run, p->text.tokens, p->sequences, p->text.length, err));
    NQ_TRY(run_from(p, 0, NULL, NULL, err));
    NQ_TRY(score(p->base, p, err));
    nq_pool_run(p->j->pool, base_task, p, p->scored);
    for (uint32_t b = 0; b < blocks; b++) {
        p->block = b;
        NQ_TRY(pass_block(p, b, is_measured(b, blocks), err));
    }
    NQ_TRY(probe_single(&p->kl_embed, p, &p->m->embed, err));
    return p->m->hyper.tied ? NOVAQ_OK : probe_single(&p->kl_head, p, &p->m->head, err);
}

/* ---- results --------------------------------------------------------------------------- */

static void put(nq_sensitivity *s, const nq_compress_job *j, const nq_linear *l, double kl) {
    const nq_recipe_tensor *t = nq_recipe_find(&j->recipe, l->w->name);
    if (t != NULL) {
        double weight = kl / DISTURBANCE;
        s[t - j->recipe.tensors] =
            (nq_sensitivity){.known = isfinite(weight) && weight > 0, .weight = weight};
    }
}

/* exp of the line between the logarithms at the measured blocks around b. */
static double interpolate(const prober *p, uint32_t b, unsigned matrix) {
    uint32_t blocks = p->m->hyper.blocks;
    uint32_t lo = b;
    uint32_t hi = b;
    while (!is_measured(lo, blocks)) {
        lo--; /* block 0 is measured, and so is the last */
    }
    while (!is_measured(hi, blocks)) {
        hi++;
    }
    double a = log(p->kl[(uint64_t)lo * MATRICES + matrix]);
    double c = log(p->kl[(uint64_t)hi * MATRICES + matrix]);
    double t = hi > lo ? (double)(b - lo) / (double)(hi - lo) : 0;
    return exp(a + t * (c - a));
}

static void report(nq_sensitivity *s, const prober *p) {
    for (uint32_t b = 0; b < p->m->hyper.blocks; b++) {
        unsigned at = 0;
        for (unsigned stage = 0; stage < NQ_STAGES; stage++) {
            const nq_linear *l[NQ_GROUP_MAX];
            unsigned count = nq_block_linears(l, &p->m->blocks[b], stage);
            for (unsigned i = 0; i < count; i++, at++) {
                put(s, p->j, l[i], interpolate(p, b, at));
            }
        }
    }
    put(s, p->j, &p->m->embed, p->kl_embed);
    if (!p->m->hyper.tied) {
        put(s, p->j, &p->m->head, p->kl_head);
    }
}

static novaq_status open_prober(prober *p, novaq_error *err) {
    const novaq_compress_options *o = p->j->recipe.opt;
    const nq_calibration *all = &p->j->calibration;
    uint32_t most = MOMENT_TOKENS / all->length;
    p->text = *all;
    p->text.sequences = most < 1 ? 1 : most < all->sequences ? most : all->sequences;
    p->sequences = PROBE_TOKENS / all->length;
    p->sequences = p->sequences < 1                   ? 1
                   : p->sequences < p->text.sequences ? p->sequences
                                                      : p->text.sequences;
    p->rows = p->sequences * all->length;
    p->scored = p->rows < SCORED ? p->rows : SCORED;
    nq_flow_options opt = {.ts = p->j->ts,
                           .memory = o->max_memory > 0 ? o->max_memory : nq_physical_memory() / 2,
                           .pool = p->j->pool,
                           .tick = tick,
                           .tick_ctx = p};
    /* Every measurement runs through most of the model: copies in memory pay. */
    NQ_TRY(o->max_memory > 0 ? nq_model_open_lean_over(&p->m, p->j->ts, p->j->pool, err)
                             : nq_model_open_over(&p->m, p->j->ts, p->j->pool, err));
    NQ_TRY(nq_flow_open(&p->flow, &p->text, &opt, err));
    NQ_TRY(nq_run_open_staged(&p->run, p->m, p->sequences, all->length, err));
    const nq_hyper *h = &p->m->hyper;
    uint64_t widest = nq_stage_widest(p->m);
    NQ_TRY(nq_alloc_raw(&p->x, (uint64_t)p->rows * h->dim, sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&p->in, (uint64_t)p->rows * widest, sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&p->h, (uint64_t)p->scored * h->dim, sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&p->base, (uint64_t)p->scored * h->vocab, sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&p->logits, (uint64_t)p->scored * h->vocab, sizeof(float), err));
    NQ_TRY(nq_alloc(&p->row_kl, p->scored, sizeof(float), err));
    return nq_alloc(&p->kl, (uint64_t)h->blocks * MATRICES, sizeof(double), err);
}

novaq_status nq_sensitivity_measure(nq_sensitivity *s, nq_compress_job *j, novaq_error *err) {
    prober p = {.j = j};
    memset(s, 0, j->recipe.count * sizeof *s);
    novaq_status st = open_prober(&p, err);
    if (st == NOVAQ_OK) {
        st = measure_all(&p, err);
    }
    if (st == NOVAQ_OK) {
        report(s, &p);
    }
    nq_run_close(&p.run);
    nq_flow_close(&p.flow);
    nq_model_close(&p.m);
    nq_free(p.x);
    nq_free(p.in);
    nq_free(p.h);
    nq_free(p.base);
    nq_free(p.logits);
    nq_free(p.row_kl);
    nq_free(p.kl);
    return st;
}

/* flow.c - see flow.h. */
#include "compress/flow.h"

#include <cblas.h>
#include <string.h>

#include "base/mem.h"
#include "io/fs.h"

/* Tokens that go through a stage at once. */
#define BATCH_TOKENS 2048
/* Rows of a moment matrix that one task makes, and tokens of one of its steps. */
#define TILE_COLS  96
#define STEP_ROWS  1024
#define NQ_STREAMS 2

struct nq_flow {
    const nq_calibration *text;
    nq_pool *pool;
    nq_model *m;                 /* of the source */
    nq_model *model[NQ_STREAMS]; /* what each stream goes through: m, or a borrowed one */
    nq_run *run[NQ_STREAMS];     /* of each model; with one model the first alone */
    unsigned streams;            /* 2, or 1: the coded stream is the original one */
    uint32_t block;
    uint32_t batch;            /* sequences of one batch */
    uint64_t tokens;           /* in all */
    uint64_t widest;           /* columns of the widest stage */
    nq_scratch x[NQ_STREAMS];  /* (tokens, dim) residual stream: original, coded */
    nq_scratch before;         /* (tokens, dim) the coded stream at the block's input, if kept */
    nq_scratch in[NQ_STREAMS]; /* (tokens, cols of the stage) input of the next products */
    float *h;                  /* (widest, widest) */
    float *cross;              /* (widest, widest) with two streams */
    float *residual;           /* (dim, widest) with two streams */
    float *embedding;          /* (vocab, dim) or NULL */
    float *scratch;            /* (threads, STEP_ROWS, TILE_COLS) */
    novaq_status (*tick)(void *ctx, novaq_error *err);
    void *tick_ctx;
};

static float *stream(const nq_scratch *s) { return s->data; }

/* The coded stream; with one stream, the only one. */
static unsigned coded_stream(const nq_flow *f) { return f->streams - 1; }

static nq_run *run_of(const nq_flow *f, unsigned s) {
    return f->model[s] != f->m ? f->run[s] : f->run[0];
}

static novaq_status tick(const nq_flow *f, novaq_error *err) {
    return f->tick != NULL ? f->tick(f->tick_ctx, err) : NOVAQ_OK;
}

static uint32_t batches(const nq_flow *f) { return (f->text->sequences + f->batch - 1) / f->batch; }

static uint32_t batch_sequences(const nq_flow *f, uint32_t b) {
    uint32_t left = f->text->sequences - b * f->batch;
    return left < f->batch ? left : f->batch;
}

/* ---- opening ---------------------------------------------------------------------- */

static novaq_status embed_stream(nq_flow *f, unsigned s, novaq_error *err) {
    uint32_t length = f->text->length;
    for (uint32_t b = 0; b < batches(f); b++) {
        uint64_t first = (uint64_t)b * f->batch * length;
        NQ_TRY(tick(f, err));
        NQ_TRY(nq_run_embed(stream(&f->x[s]) + first * f->m->hyper.dim, run_of(f, s),
                            f->text->tokens + first, batch_sequences(f, b), length, err));
    }
    return NOVAQ_OK;
}

static novaq_status alloc_all(nq_flow *f, const nq_flow_options *opt, novaq_error *err) {
    uint64_t dim = f->m->hyper.dim;
    f->widest = nq_stage_widest(f->m);
    uint64_t floats = f->tokens * (dim + f->widest); /* both below 2^32 */
    bool on_disk = floats * sizeof(float) * f->streams > opt->memory;
    for (unsigned s = 0; s < f->streams; s++) {
        NQ_TRY(nq_scratch_open(&f->x[s], f->tokens * dim * sizeof(float), on_disk, err));
        NQ_TRY(nq_scratch_open(&f->in[s], f->tokens * f->widest * sizeof(float), on_disk, err));
    }
    if (opt->keep_inputs) {
        NQ_TRY(nq_scratch_open(&f->before, f->tokens * dim * sizeof(float), on_disk, err));
    }
    NQ_TRY(nq_alloc(&f->h, f->widest * f->widest, sizeof(float), err));
    if (f->streams > 1) {
        NQ_TRY(nq_alloc(&f->cross, f->widest * f->widest, sizeof(float), err));
        NQ_TRY(nq_alloc(&f->residual, dim * f->widest, sizeof(float), err));
    }
    uint64_t step = (uint64_t)STEP_ROWS * TILE_COLS;
    return nq_alloc_raw(&f->scratch, nq_pool_threads(f->pool) * step, sizeof(float), err);
}

static novaq_status open_runs(nq_flow *f, const nq_flow_options *opt, novaq_error *err) {
    const nq_hyper *h = &f->m->hyper;
    f->model[0] = f->model[1] = f->m;
    NQ_TRY(nq_run_open_staged(&f->run[0], f->m, f->batch, f->text->length, err));
    if (opt->coded == NULL || f->streams < 2) {
        return NOVAQ_OK;
    }
    const nq_hyper *c = &opt->coded->hyper;
    if (c->dim != h->dim || c->blocks != h->blocks || c->vocab != h->vocab || c->ff != h->ff ||
        c->heads != h->heads || c->head_dim != h->head_dim || c->experts != h->experts) {
        return nq_fail(err, NOVAQ_E_ARG, "the artifact and its source have other shapes");
    }
    f->model[1] = opt->coded;
    return nq_run_open_staged(&f->run[1], opt->coded, f->batch, f->text->length, err);
}

static novaq_status open_flow(nq_flow *f, const nq_flow_options *opt, novaq_error *err) {
    NQ_TRY(opt->ts != NULL ? nq_model_open_lean_over(&f->m, opt->ts, f->pool, err)
                           : nq_model_open_lean(&f->m, opt->path, f->pool, err));
    if (opt->embedding != NULL) {
        nq_linear *e = &f->m->embed;
        NQ_TRY(nq_alloc_raw(&f->embedding, e->w->elements, sizeof(float), err));
        NQ_TRY(opt->embedding(opt->tick_ctx, f->embedding, e->w, err));
        e->dense = f->embedding;
    }
    uint32_t length = f->text->length;
    f->tokens = (uint64_t)f->text->sequences * length;
    f->batch = BATCH_TOKENS > length ? BATCH_TOKENS / length : 1;
    f->batch = f->batch < f->text->sequences ? f->batch : f->text->sequences;
    NQ_TRY(open_runs(f, opt, err));
    NQ_TRY(alloc_all(f, opt, err));
    for (unsigned s = 0; s < f->streams; s++) {
        NQ_TRY(embed_stream(f, s, err));
    }
    return NOVAQ_OK;
}

novaq_status nq_flow_open(nq_flow **out, const nq_calibration *calibration,
                          const nq_flow_options *opt, novaq_error *err) {
    nq_flow *f = NULL;
    *out = NULL;
    NQ_TRY(nq_alloc(&f, 1, sizeof *f, err));
    f->text = calibration;
    f->pool = opt->pool;
    f->streams = opt->two_streams ? 2 : 1;
    f->tick = opt->tick;
    f->tick_ctx = opt->tick_ctx;
    novaq_status st = open_flow(f, opt, err);
    if (st != NOVAQ_OK) {
        nq_flow_close(&f);
    }
    *out = f;
    return st;
}

void nq_flow_close(nq_flow **pf) {
    nq_flow *f = *pf;
    *pf = NULL;
    if (f == NULL) {
        return;
    }
    for (unsigned s = 0; s < NQ_STREAMS; s++) {
        nq_scratch_close(&f->x[s]);
        nq_scratch_close(&f->in[s]);
    }
    nq_scratch_close(&f->before);
    nq_free(f->h);
    nq_free(f->cross);
    nq_free(f->residual);
    nq_free(f->scratch);
    nq_free(f->embedding);
    for (unsigned s = 0; s < NQ_STREAMS; s++) {
        nq_run_close(&f->run[s]);
    }
    nq_model_close(&f->m);
    nq_free(f);
}

nq_model *nq_flow_model(nq_flow *f) { return f->m; }

const float *nq_flow_stream(const nq_flow *f) { return stream(&f->x[0]); }

novaq_status nq_flow_embed_coded(nq_flow *f, const nq_linear *coded, novaq_error *err) {
    if (f->streams < 2) {
        return NOVAQ_OK;
    }
    nq_linear own = f->m->embed;
    f->m->embed = *coded;
    novaq_status st = embed_stream(f, coded_stream(f), err);
    f->m->embed = own;
    return st;
}

/* ---- running ------------------------------------------------------------------------ */

static novaq_status enter_stream(nq_flow *f, unsigned s, novaq_error *err) {
    uint64_t dim = f->m->hyper.dim;
    for (uint32_t b = 0; b < batches(f); b++) {
        uint64_t at = (uint64_t)b * f->batch * f->text->length * dim;
        NQ_TRY(nq_run_enter(stream(&f->in[s]) + at, run_of(f, s), f->block, stream(&f->x[s]) + at,
                            batch_sequences(f, b), f->text->length, err));
    }
    return NOVAQ_OK;
}

novaq_status nq_flow_enter(nq_flow *f, uint32_t block, novaq_error *err) {
    f->block = block;
    if (f->before.data != NULL) {
        memcpy(f->before.data, f->x[coded_stream(f)].data,
               f->tokens * f->m->hyper.dim * sizeof(float));
    }
    for (unsigned s = 0; s < f->streams; s++) {
        NQ_TRY(enter_stream(f, s, err));
    }
    return NOVAQ_OK;
}

const float *nq_flow_inputs(const nq_flow *f) { return stream(&f->before); }

/* The inputs of the next stage take the place of those of this one; where they are
 * wider, batches go from the last to the first, so that none is overwritten before
 * it has been read. */
static novaq_status advance_stream(nq_flow *f, unsigned s, unsigned stage,
                                   const nq_linear *const *l, novaq_error *err) {
    uint64_t dim = f->m->hyper.dim;
    uint64_t cols = nq_stage_cols(f->m, stage);
    uint64_t after = stage + 1 < NQ_STAGES ? nq_stage_cols(f->m, stage + 1) : 0;
    uint32_t count = batches(f);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t b = after > cols ? count - 1 - i : i;
        NQ_TRY(tick(f, err));
        uint64_t token = (uint64_t)b * f->batch * f->text->length;
        float *in = stream(&f->in[s]);
        NQ_TRY(nq_run_stage(after > 0 ? in + token * after : NULL, stream(&f->x[s]) + token * dim,
                            run_of(f, s), f->block, stage, l, in + token * cols,
                            batch_sequences(f, b), f->text->length, err));
    }
    return NOVAQ_OK;
}

novaq_status nq_flow_advance(nq_flow *f, unsigned stage, const nq_linear *const *original,
                             const nq_linear *const *coded, novaq_error *err) {
    NQ_TRY(advance_stream(f, 0, stage, original, err));
    return f->streams > 1 ? nq_flow_advance_coded(f, stage, coded, err) : NOVAQ_OK;
}

novaq_status nq_flow_advance_coded(nq_flow *f, unsigned stage, const nq_linear *const *coded,
                                   novaq_error *err) {
    return f->streams > 1 ? advance_stream(f, coded_stream(f), stage, coded, err) : NOVAQ_OK;
}

novaq_status nq_flow_again(nq_flow *f, novaq_error *err) {
    if (f->streams < 2) {
        return NOVAQ_OK;
    }
    unsigned s = coded_stream(f);
    memcpy(f->x[s].data, f->before.data, f->tokens * f->m->hyper.dim * sizeof(float));
    return enter_stream(f, s, err);
}

/* ---- moments --------------------------------------------------------------------------- */

/* out (rows, cols) = mean over the tokens of (a0 - a)^T b, or of a^T b without a0,
 * a (tokens, rows), b (tokens, cols). symmetric: a is b, the upper triangle is made. */
typedef struct moment_job {
    const nq_flow *f;
    const float *a0, *a, *b;
    uint64_t rows, cols;
    float *out;
    bool symmetric;
} moment_job;

static void moment_task(void *ctx, uint64_t task, unsigned worker) {
    const moment_job *j = ctx;
    uint64_t i0 = task * TILE_COLS;
    uint64_t n = j->rows - i0 < TILE_COLS ? j->rows - i0 : TILE_COLS;
    uint64_t c0 = j->symmetric ? i0 : 0;
    float *left = j->f->scratch + (uint64_t)worker * STEP_ROWS * TILE_COLS;
    float share = 1.0F / (float)j->f->tokens;
    for (uint64_t t = 0; t < j->f->tokens; t += STEP_ROWS) {
        uint64_t steps = j->f->tokens - t < STEP_ROWS ? j->f->tokens - t : STEP_ROWS;
        for (uint64_t k = 0; k < steps; k++) {
            const float *a = j->a + (t + k) * j->rows + i0;
            for (uint64_t c = 0; c < n; c++) {
                float base = j->a0 != NULL ? j->a0[(t + k) * j->rows + i0 + c] - a[c] : a[c];
                left[k * n + c] = base;
            }
        }
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)n, (int)(j->cols - c0),
                    (int)steps, share, left, (int)n, j->b + t * j->cols + c0, (int)j->cols,
                    t == 0 ? 0.0F : 1.0F, j->out + i0 * j->cols + c0, (int)j->cols);
    }
}

static void make_moment(moment_job *j) {
    nq_pool_run(j->f->pool, moment_task, j, (j->rows + TILE_COLS - 1) / TILE_COLS);
    for (uint64_t i = 0; j->symmetric && i < j->rows; i++) {
        for (uint64_t k = 0; k < i; k++) {
            j->out[i * j->cols + k] = j->out[k * j->cols + i];
        }
    }
}

static void input_moments(nq_moments *m, nq_flow *f, uint64_t cols) {
    const float *seen = stream(&f->in[coded_stream(f)]);
    moment_job h = {.f = f, .a = seen, .b = seen, .rows = cols, .cols = cols, .out = f->h};
    h.symmetric = true;
    make_moment(&h);
    *m = (nq_moments){.cols = cols, .samples = f->tokens, .h = f->h};
    if (f->streams > 1) {
        moment_job cross = h;
        cross.a0 = stream(&f->in[0]);
        cross.out = f->cross;
        cross.symmetric = false;
        make_moment(&cross);
        m->cross = f->cross;
    }
}

void nq_flow_moments(nq_moments *m, const float **residual, nq_flow *f, unsigned stage) {
    uint64_t cols = nq_stage_cols(f->m, stage);
    input_moments(m, f, cols);
    *residual = NULL;
    if (f->streams > 1 && nq_stage_adds(stage)) {
        moment_job r = {.f = f,
                        .a0 = stream(&f->x[0]),
                        .a = stream(&f->x[1]),
                        .b = stream(&f->in[1]),
                        .rows = f->m->hyper.dim,
                        .cols = cols,
                        .out = f->residual};
        make_moment(&r);
        *residual = f->residual;
    }
}

void nq_flow_head_moments(nq_moments *m, nq_flow *f) {
    uint64_t dim = f->m->hyper.dim;
    for (unsigned s = 0; s < f->streams; s++) {
        for (uint32_t b = 0; b < batches(f); b++) {
            uint64_t token = (uint64_t)b * f->batch * f->text->length;
            nq_run_output(stream(&f->in[s]) + token * dim, run_of(f, s),
                          stream(&f->x[s]) + token * dim, batch_sequences(f, b) * f->text->length);
        }
    }
    input_moments(m, f, dim);
}

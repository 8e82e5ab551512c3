/* reassign.c - see reassign.h. */
#include "compress/reassign.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "compress/flow.h"
#include "compress/recipe.h"
#include "io/fs.h"
#include "quant/reencode.h"
#include "refine/loss.h"
#include "refine/save.h"

/* Tokens that inputs are known from. */
#define TOKENS 32768U
/* As calibrated compress has them unless told otherwise. */
#define DAMPING 0.03
#define RIDGE   1.0
/* Of coordinate descent: more find little. */
#define SWEEPS 2
/* The share of the divergence a gain must be: well above what rounding makes of it. */
#define MARGIN 5e-4
/* Rows of logits at once, unless fewer fill the room of a net's. */
#define HEAD_ROWS 512U

/* What is tried for a stage, in this order, until something is kept. All of the way to the
 * source's weights undoes what refinement learnt: measured, docs/METHOD.md. */
#define TRIALS 3U
static const struct trial {
    const char *name;
    bool anew;  /* from nothing, with feedback; else from the symbols that are there */
    float step; /* of the way */
} TRIAL[TRIALS] = {
    {"adjusted", false, 0.4F}, {"anew", true, 0.4F}, {"adjusted little", false, 0.2F}};

/* A layer with the symbols it has now. */
typedef struct place {
    nq_qmat q;
    const nq_qmat *before; /* the same before it learnt; NULL: that was something else */
    uint8_t *symbols;      /* owned; NULL: as they were */
    nq_subspace_stats use;
} place;

typedef struct work {
    const nq_reassign_options *o;
    nq_model *student;
    nq_artifact *base; /* before it learnt */
    nq_flow *flow;
    nq_calibration text; /* what flows */
    nq_net *net, *teacher;
    place *places; /* (layers of the artifact) */
    uint32_t held; /* windows held out */
    uint64_t rows; /* their tokens */
    const int32_t *tokens;
    float *x;      /* (rows, dim) the student's stream before the block at work */
    float *y;      /* (rows, dim) */
    float *truth;  /* (rows, dim) the teacher's, after its last block */
    uint32_t head; /* rows of logits at once */
    float *logits; /* (3, head, vocab): student, teacher, scratch */
    double *sums;  /* (2, head) */
    double kl;     /* on the windows held out, as things stand */
    uint64_t step; /* stages done, for progress */
    uint64_t stages, kept, symbols, changed;
    double before; /* of all */
    json_t *blocks;
} work;

/* The matrices of a stage. */
typedef struct group {
    unsigned count;
    const nq_linear *source[NQ_GROUP_MAX], *own[NQ_GROUP_MAX];
    float *original[NQ_GROUP_MAX]; /* (rows, cols) */
    float *coded[NQ_GROUP_MAX];    /* (rows, cols); NULL: not coded */
    place *at[NQ_GROUP_MAX];       /* NULL: keeps what it has */
    nq_metric metric[NQ_GROUP_MAX];
    float *residual[NQ_GROUP_MAX]; /* (rows, cols) in the matrix's basis, or NULL */
    nq_reencoded made[NQ_GROUP_MAX];
    double error[2]; /* relative, of the outputs, mean over matrices: before, after */
} group;

static novaq_status tick(void *ctx, novaq_error *err) {
    const work *w = ctx;
    novaq_progress p = {.phase = "reassign",
                        .item = "",
                        .done = w->step,
                        .total = (uint64_t)w->student->hyper.blocks * NQ_STAGES,
                        .unit = "stages",
                        .value = NAN};
    return nq_report_step(w->o->progress, w->o->progress_ctx, &p, err);
}

/* ---- divergence ---------------------------------------------------------------------- */

/* Of rows [row0, row0 + n) of y. */
static novaq_status compare(nq_loss_sums *sums, work *w, uint64_t row0, uint32_t n,
                            novaq_error *err) {
    const nq_hyper *h = &w->student->hyper;
    float *teacher = w->logits + (uint64_t)w->head * h->vocab;
    NQ_TRY(nq_net_head(w->logits, w->net, w->y + row0 * h->dim, n, err));
    NQ_TRY(nq_net_head(teacher, w->teacher, w->truth + row0 * h->dim, n, err));
    nq_loss_rows rows = {
        .student = w->logits, .teacher = teacher, .n = n, .vocab = h->vocab, .temperature = 1.0F};
    nq_loss_kl(sums, NULL, &rows, w->sums, teacher + (uint64_t)w->head * h->vocab, w->o->pool);
    return NOVAQ_OK;
}

/* *kl: mean over the windows held out, from the input of `block` on. */
static novaq_status measure(double *kl, work *w, uint32_t block, novaq_error *err) {
    const nq_hyper *h = &w->student->hyper;
    nq_loss_sums sums = {0};
    memcpy(w->y, w->x, w->rows * h->dim * sizeof(float));
    for (uint32_t b = block; b < h->blocks; b++) {
        NQ_TRY(tick(w, err));
        NQ_TRY(nq_net_block(w->y, w->net, b, w->y, w->held, w->o->data.length, err));
    }
    for (uint64_t row = 0; row < w->rows; row += w->head) {
        uint64_t left = w->rows - row;
        NQ_TRY(tick(w, err));
        NQ_TRY(compare(&sums, w, row, left < w->head ? (uint32_t)left : w->head, err));
    }
    *kl = sums.kl / (double)sums.rows;
    *kl = isfinite(*kl) ? *kl : INFINITY;
    return NOVAQ_OK;
}

/* ---- a stage's matrices ------------------------------------------------------------------ */

static novaq_status decode(float *out, const nq_qmat *q, novaq_error *err) {
    uint8_t *scratch = NULL;
    NQ_TRY(nq_alloc_raw(&scratch, nq_qmat_scratch(q), 1, err));
    nq_qmat_decode_plain(out, q, 0, q->rows, scratch);
    nq_free(scratch);
    return NOVAQ_OK;
}

static place *place_of(const work *w, const nq_linear *l) {
    const nq_artifact *a = nq_weights_artifact(w->student->weights);
    for (size_t i = 0; l->w->layer != NULL && i < nq_artifact_count(a); i++) {
        if (nq_artifact_at(a, i) == l->w->layer) {
            return &w->places[i];
        }
    }
    return NULL;
}

static novaq_status open_matrix(group *g, unsigned i, const work *w, novaq_error *err) {
    const nq_weight *s = g->source[i]->w;
    const nq_weight *c = g->own[i]->w;
    if (strcmp(s->name, c->name) != 0 || s->rows != c->rows || s->cols != c->cols) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: is not what the artifact was made from", s->name);
    }
    NQ_TRY(nq_alloc_raw(&g->original[i], s->elements, sizeof(float), err));
    NQ_TRY(nq_weights_read_rows(g->original[i], g->source[i]->weights, s, 0, s->rows, err));
    if (c->q == NULL) {
        return NOVAQ_OK;
    }
    place *p = place_of(w, g->own[i]);
    g->at[i] = p != NULL && c->q->scheme.kind == NQ_SCHEME_CODE ? p : NULL;
    NQ_TRY(nq_alloc_raw(&g->coded[i], c->elements, sizeof(float), err));
    return decode(g->coded[i], g->at[i] != NULL ? &p->q : c->q, err);
}

static novaq_status open_group(group *g, work *w, uint32_t b, unsigned stage, novaq_error *err) {
    const nq_model *source = nq_flow_model(w->flow);
    g->count = nq_block_linears(g->source, &source->blocks[b], stage);
    if (nq_block_linears(g->own, &w->student->blocks[b], stage) != g->count) {
        return nq_fail(err, NOVAQ_E_ARG, "block %u has other matrices than the teacher's", b);
    }
    for (unsigned i = 0; i < g->count; i++) {
        NQ_TRY(tick(w, err));
        NQ_TRY(open_matrix(g, i, w, err));
    }
    return NOVAQ_OK;
}

static void drop_made(group *g) {
    for (unsigned i = 0; i < g->count; i++) {
        nq_free(g->made[i].symbols);
        g->made[i] = (nq_reencoded){0};
    }
}

static void close_group(group *g) {
    drop_made(g);
    for (unsigned i = 0; i < g->count; i++) {
        nq_free(g->original[i]);
        nq_free(g->coded[i]);
        nq_free(g->residual[i]);
        nq_metric_close(&g->metric[i]);
    }
}

/* What the stage's inputs say of each matrix, in its own basis. */
static novaq_status open_metrics(group *g, work *w, unsigned stage, novaq_error *err) {
    nq_moments moments;
    const float *residual = NULL;
    bool any = false;
    for (unsigned i = 0; i < g->count; i++) {
        any = any || g->at[i] != NULL;
    }
    if (!any) {
        return NOVAQ_OK;
    }
    nq_flow_moments(&moments, &residual, w->flow, stage);
    for (unsigned i = 0; i < g->count; i++) {
        if (g->at[i] == NULL) {
            continue;
        }
        const nq_qmat *q = &g->at[i]->q;
        nq_metric_options how = {.damping = DAMPING, .ridge = RIDGE, .basis = q};
        NQ_TRY(tick(w, err));
        novaq_error why = {0};
        novaq_status st = nq_metric_open(&g->metric[i], &moments, &how, w->o->pool, &why);
        if (st == NOVAQ_E_NUMERIC) {
            g->at[i] = NULL; /* its inputs tell nothing: it stays as it is */
            continue;
        }
        if (st != NOVAQ_OK) {
            return nq_fail(err, st, "%s: %s", g->own[i]->w->name, why.msg);
        }
        if (residual != NULL) {
            NQ_TRY(nq_alloc_raw(&g->residual[i], q->rows * q->cols, sizeof(float), err));
            memcpy(g->residual[i], residual, q->rows * q->cols * sizeof(float));
            nq_metric_input(g->residual[i], &g->metric[i], q->rows, w->o->pool);
        }
    }
    return NOVAQ_OK;
}

/* *changed: subvectors with other symbols. */
static novaq_status recode(uint64_t *changed, group *g, work *w, const struct trial *how,
                           novaq_error *err) {
    unsigned coded = 0;
    *changed = 0;
    g->error[0] = g->error[1] = 0;
    for (unsigned i = 0; i < g->count; i++) {
        if (g->at[i] == NULL) {
            continue;
        }
        const nq_qmat *q = &g->at[i]->q;
        nq_reencode_options opt = {.metric = &g->metric[i],
                                   .residual = g->residual[i],
                                   .correct_share = 1,
                                   .before = g->at[i]->before,
                                   .step = how->step,
                                   .anew = how->anew,
                                   .sweeps = how->anew ? 0 : SWEEPS};
        float *target = NULL;
        NQ_TRY(tick(w, err));
        NQ_TRY(nq_alloc_raw(&target, q->rows * q->cols, sizeof(float), err));
        memcpy(target, g->original[i], q->rows * q->cols * sizeof(float));
        novaq_status st = nq_reencode(&g->made[i], q, target, &opt, w->o->pool, err);
        nq_free(target);
        NQ_TRY(st);
        *changed += g->made[i].changed;
        g->error[0] += g->made[i].before;
        g->error[1] += g->made[i].after;
        coded++;
    }
    g->error[0] /= coded > 0 ? coded : 1;
    g->error[1] /= coded > 0 ? coded : 1;
    return NOVAQ_OK;
}

/* What was made takes the place of what is there, and back. */
static void exchange(group *g) {
    for (unsigned i = 0; i < g->count; i++) {
        if (g->at[i] == NULL || g->made[i].symbols == NULL) {
            continue;
        }
        const uint8_t *there = g->at[i]->q.symbols;
        g->at[i]->q.symbols = g->made[i].symbols;
        g->made[i].symbols = (uint8_t *)(uintptr_t)there;
    }
}

/* What has been exchanged stays. */
static novaq_status settle(group *g, novaq_error *err) {
    for (unsigned i = 0; i < g->count; i++) {
        place *p = g->at[i];
        if (p == NULL || g->made[i].symbols == NULL) {
            continue;
        }
        nq_free(p->symbols); /* what was there, or NULL: then that was mapped */
        p->symbols = (uint8_t *)(uintptr_t)p->q.symbols;
        p->use = g->made[i].symbol_use;
        g->made[i].symbols = NULL;
    }
    for (unsigned i = 0; i < g->count; i++) {
        if (g->at[i] != NULL) {
            NQ_TRY(decode(g->coded[i], &g->at[i]->q, err));
        }
    }
    return NOVAQ_OK;
}

/* ---- trying ---------------------------------------------------------------------------------- */

static uint64_t symbols_of(const group *g) {
    uint64_t n = 0;
    for (unsigned i = 0; i < g->count; i++) {
        n += g->made[i].count;
    }
    return n;
}

static json_t *kl_pair(double before, double after) {
    return json_pack("{s:f, s:f}", "before", before, "after", after);
}

static void tell(const work *w, const group *g, uint32_t b, double before, unsigned kept,
                 const double *tried, uint64_t changed) {
    json_t *list = json_array();
    json_t *results = json_object();
    for (unsigned i = 0; i < g->count; i++) {
        if (g->at[i] != NULL) {
            json_array_append_new(list, json_string(g->own[i]->w->name));
        }
    }
    for (unsigned t = 0; t < TRIALS; t++) {
        if (isfinite(tried[t])) {
            json_object_set_new(results, TRIAL[t].name, json_real(tried[t]));
        }
    }
    json_t *line =
        json_pack("{s:s, s:i, s:i, s:o, s:s, s:o, s:o, s:I}", "event", "reassign", "block", (int)b,
                  "blocks", (int)w->student->hyper.blocks, "matrices", list, "kept",
                  kept < TRIALS ? TRIAL[kept].name : "old", "held_out_kl", kl_pair(before, w->kl),
                  "tried", results, "changed", (json_int_t)changed);
    if (line != NULL && kept != TRIALS) {
        json_object_set_new(line, "output_error", kl_pair(g->error[0], g->error[1]));
    }
    if (line != NULL && w->o->tell != NULL) {
        w->o->tell(w->o->tell_ctx, line);
    }
    json_decref(line);
}

/* The first trial that brings the divergence down is kept. */
static novaq_status try_stage(group *g, work *w, uint32_t b, novaq_error *err) {
    double tried[TRIALS] = {NAN, NAN, NAN};
    double before = w->kl;
    unsigned kept = TRIALS;
    uint64_t changed = 0;
    for (unsigned t = 0; t < TRIALS && kept == TRIALS; t++) {
        NQ_TRY(recode(&changed, g, w, &TRIAL[t], err));
        w->symbols += t == 0 ? symbols_of(g) : 0;
        if (changed == 0) {
            drop_made(g);
            continue;
        }
        exchange(g);
        novaq_status st = measure(&tried[t], w, b, err);
        if (st == NOVAQ_OK && tried[t] < w->kl * (1 - MARGIN)) {
            kept = t;
            w->kl = tried[t];
            w->changed += changed;
            st = settle(g, err);
        } else {
            exchange(g);
            drop_made(g);
            changed = 0;
        }
        NQ_TRY(st);
    }
    w->stages++;
    w->kept += kept != TRIALS;
    tell(w, g, b, before, kept, tried, changed);
    return NOVAQ_OK;
}

/* ---- through the model -------------------------------------------------------------------------
 */

/* Both streams through the stage, as it now is. */
static novaq_status advance(const group *g, work *w, unsigned stage, novaq_error *err) {
    nq_linear linear[2][NQ_GROUP_MAX];
    const nq_linear *l[2][NQ_GROUP_MAX];
    for (unsigned i = 0; i < g->count; i++) {
        linear[0][i] = *g->source[i];
        linear[0][i].dense = g->original[i];
        linear[1][i] = *g->own[i];
        linear[1][i].dense = g->coded[i] != NULL ? g->coded[i] : g->own[i]->dense;
        l[0][i] = &linear[0][i];
        l[1][i] = &linear[1][i];
    }
    return nq_flow_advance(w->flow, stage, l[0], l[1], err);
}

static novaq_status do_stage(work *w, uint32_t b, unsigned stage, novaq_error *err) {
    group g = {0};
    bool any = false;
    novaq_status st = open_group(&g, w, b, stage, err);
    for (unsigned i = 0; i < g.count; i++) {
        any = any || g.at[i] != NULL;
    }
    if (st == NOVAQ_OK && any) {
        st = open_metrics(&g, w, stage, err);
    }
    if (st == NOVAQ_OK && any) {
        st = try_stage(&g, w, b, err);
    }
    if (st == NOVAQ_OK) {
        st = advance(&g, w, stage, err);
    }
    close_group(&g);
    w->step++;
    return st;
}

static novaq_status do_block(work *w, uint32_t b, novaq_error *err) {
    double before = w->kl;
    uint64_t stages = w->stages;
    uint64_t kept = w->kept;
    NQ_TRY(nq_flow_enter(w->flow, b, err));
    for (unsigned stage = 0; stage < NQ_STAGES; stage++) {
        NQ_TRY(do_stage(w, b, stage, err));
    }
    NQ_TRY(nq_net_block(w->x, w->net, b, w->x, w->held, w->o->data.length, err));
    json_t *block = json_pack("{s:i, s:I, s:I, s:o}", "block", (int)b, "stages",
                              (json_int_t)(w->stages - stages), "kept",
                              (json_int_t)(w->kept - kept), "held_out_kl", kl_pair(before, w->kl));
    return json_array_append_new(w->blocks, block) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_MEMORY, "cannot build the report");
}

/* ---- opening
 * -------------------------------------------------------------------------------------- */

/* Windows that are learnt from, spread over the text. */
static novaq_status choose_text(work *w, novaq_error *err) {
    const nq_refine_data *d = &w->o->data;
    uint32_t wanted = TOKENS / d->length > 0 ? TOKENS / d->length : 1;
    uint32_t n = wanted < d->train ? wanted : d->train;
    NQ_TRY(nq_alloc_raw(&w->text.tokens, (uint64_t)n * d->length, sizeof *w->text.tokens, err));
    w->text.sequences = n;
    w->text.length = d->length;
    for (uint64_t i = 0; i < n; i++) {
        memcpy(w->text.tokens + i * d->length, d->tokens + i * d->train / n * d->length,
               d->length * sizeof *d->tokens);
    }
    w->held = d->sequences - d->train;
    w->rows = (uint64_t)w->held * d->length;
    w->tokens = d->tokens + (uint64_t)d->train * d->length;
    return NOVAQ_OK;
}

static bool same_symbols(const nq_layer *a, const nq_layer *b) {
    return a != NULL && a->scheme.kind == NQ_SCHEME_CODE && b->scheme.kind == NQ_SCHEME_CODE &&
           a->q.rows == b->q.rows && a->q.cols == b->q.cols &&
           nq_qmat_symbol_bytes(&a->q) == nq_qmat_symbol_bytes(&b->q) &&
           memcmp(a->q.symbols, b->q.symbols, nq_qmat_symbol_bytes(&b->q)) == 0;
}

static novaq_status open_places(work *w, novaq_error *err) {
    const nq_artifact *a = nq_weights_artifact(w->student->weights);
    NQ_TRY(nq_alloc(&w->places, nq_artifact_count(a) + 1, sizeof *w->places, err));
    for (size_t i = 0; i < nq_artifact_count(a); i++) {
        const nq_layer *l = nq_artifact_at(a, i);
        const nq_layer *was = nq_artifact_find(w->base, l->name);
        w->places[i].q = l->q;
        w->places[i].before = same_symbols(was, l) ? &was->q : NULL;
        for (size_t k = 0; k < nq_net_matrix_count(w->net); k++) {
            nq_tmatrix *m = nq_net_matrix(w->net, k);
            m->q = m->q == &l->q ? &w->places[i].q : m->q;
        }
    }
    return NOVAQ_OK;
}

static novaq_status open_nets(work *w, novaq_error *err) {
    const nq_hyper *h = &w->student->hyper;
    nq_net_options how = {
        .sequences = w->held, .length = w->o->data.length, .frozen = true, .halves = !w->o->exact};
    w->head = w->rows < HEAD_ROWS ? (uint32_t)w->rows : HEAD_ROWS;
    while (w->head > NQ_NET_CHUNK_ROWS && (uint64_t)w->head * h->vocab > NQ_NET_CHUNK_FLOATS) {
        w->head /= 2;
    }
    NQ_TRY(nq_net_open(&w->net, w->student, &how, err));
    NQ_TRY(nq_net_open(&w->teacher, w->o->model, &how, err));
    NQ_TRY(nq_alloc_raw(&w->logits, 3 * (uint64_t)w->head * h->vocab, sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&w->sums, 2 * (uint64_t)w->head, sizeof(double), err));
    NQ_TRY(nq_alloc_raw(&w->x, w->rows * h->dim, sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&w->y, w->rows * h->dim, sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&w->truth, w->rows * h->dim, sizeof(float), err));
    return open_places(w, err);
}

/* Between the blocks of a pass it is asked whether to go on. */
static novaq_status on_block(void *ctx, uint32_t block, const float *h, float *dh,
                             novaq_error *err) {
    (void)block;
    (void)h;
    (void)dh;
    return tick(ctx, err);
}

/* The windows held out through the teacher, once, and into the student. */
static novaq_status see_held_out(work *w, novaq_error *err) {
    const nq_hyper *h = &w->student->hyper;
    uint32_t length = w->o->data.length;
    nq_run *run = NULL;
    nq_net_pass pass = {.tokens = w->tokens,
                        .sequences = w->held,
                        .length = length,
                        .hidden = on_block,
                        .hidden_ctx = w};
    NQ_TRY(nq_net_run(w->teacher, &pass, err));
    memcpy(w->truth, nq_net_output(w->teacher), w->rows * h->dim * sizeof(float));
    NQ_TRY(nq_run_open_staged(&run, w->student, w->held, length, err));
    novaq_status st = nq_run_embed(w->x, run, w->tokens, w->held, length, err);
    nq_run_close(&run);
    return st;
}

static novaq_status open_work(work *w, novaq_error *err) {
    const nq_reassign_options *o = w->o;
    nq_flow_options flow = {.ts = o->source,
                            .path = o->teacher,
                            .two_streams = true,
                            .memory = nq_physical_memory() / 4,
                            .pool = o->pool,
                            .tick = tick,
                            .tick_ctx = w};
    w->blocks = json_array();
    NQ_TRY(nq_artifact_open(&w->base, o->before, err));
    NQ_TRY(nq_model_open(&w->student, o->artifact, o->pool, err));
    NQ_TRY(tick(w, err));
    flow.coded = w->student;
    NQ_TRY(choose_text(w, err));
    NQ_TRY(nq_flow_open(&w->flow, &w->text, &flow, err));
    NQ_TRY(open_nets(w, err));
    return see_held_out(w, err);
}

static void close_work(work *w) {
    const nq_artifact *a = w->student != NULL ? nq_weights_artifact(w->student->weights) : NULL;
    for (size_t i = 0; w->places != NULL && i < nq_artifact_count(a); i++) {
        nq_free(w->places[i].symbols);
    }
    nq_net_close(&w->net);
    nq_net_close(&w->teacher);
    nq_flow_close(&w->flow);
    nq_model_close(&w->student);
    nq_artifact_close(&w->base);
    nq_calibration_close(&w->text);
    nq_free(w->places);
    nq_free(w->logits);
    nq_free(w->sums);
    nq_free(w->x);
    nq_free(w->y);
    nq_free(w->truth);
    json_decref(w->blocks);
}

/* ---- writing
 * -------------------------------------------------------------------------------------- */

static novaq_status write_artifact(work *w, novaq_error *err) {
    const nq_artifact *a = nq_weights_artifact(w->student->weights);
    nq_new_symbols *symbols = NULL;
    json_t *result = json_pack("{s:I, s:I, s:I, s:I, s:o, s:O}", "stages", (json_int_t)w->stages,
                               "kept", (json_int_t)w->kept, "symbols", (json_int_t)w->symbols,
                               "changed", (json_int_t)w->changed, "held_out_kl",
                               kl_pair(w->before, w->kl), "blocks", w->blocks);
    if (json_object_set_new(w->o->record, "reassigned", result) != 0) {
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot build the manifest");
    }
    NQ_TRY(nq_alloc(&symbols, nq_artifact_count(a) + 1, sizeof *symbols, err));
    for (size_t i = 0; i < nq_artifact_count(a); i++) {
        symbols[i] = (nq_new_symbols){w->places[i].symbols, &w->places[i].use};
    }
    nq_refine_save save = {.weights = w->student->weights,
                           .symbols = symbols,
                           .source = w->o->model->weights,
                           .pool = w->o->pool,
                           .record = w->o->record,
                           .output = w->o->output,
                           .single_file = 1,
                           .progress = w->o->progress,
                           .progress_ctx = w->o->progress_ctx};
    novaq_status st = nq_refine_write(NULL, &save, err);
    nq_free(symbols);
    return st;
}

static novaq_status go(work *w, novaq_error *err) {
    NQ_TRY(open_work(w, err));
    NQ_TRY(measure(&w->kl, w, 0, err));
    w->before = w->kl;
    for (uint32_t b = 0; b < w->student->hyper.blocks; b++) {
        NQ_TRY(do_block(w, b, err));
    }
    return write_artifact(w, err);
}

novaq_status nq_reassign(const nq_reassign_options *opt, novaq_error *err) {
    work w = {.o = opt};
    novaq_status st = go(&w, err);
    close_work(&w);
    return st;
}

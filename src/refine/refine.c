/* refine.c - see refine.h. */
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "refine/checkpoint.h"
#include "refine/round.h"

#define HELD_OUT_MAX    8
#define ROLL_BACKS_MAX  6
#define CHECKPOINT_SECS 60.0
#define MEAN_KEEPS      0.9F /* of itself, a step */
#define LATE            0.34 /* share of the rate below which a run may end early */

/* Of a window in the order of an epoch. */
typedef struct place {
    uint64_t key;
    uint32_t window;
} place;

typedef struct run {
    nq_net *student;
    const nq_teacher_from *from;
    nq_teacher *teacher;
    const nq_weights *weights;
    const nq_hyper *hyper;
    nq_pool *pool;
    const nq_refine_data *data;
    const nq_refine_options *opt;
    nq_refine_state s;
    nq_refine_result *result;
    uint32_t every;
    int32_t *batch;     /* (batch, length) tokens of the pass at work */
    int32_t *next;      /* (batch * length) the tokens that follow; measuring only */
    uint32_t *windows;  /* (batch) of the pass */
    uint32_t sequences; /* of the pass */
    double *scratch;    /* (rows) */
    float *hidden;      /* (blocks, rows, dim) of the teacher; NULL without lambda */
    nq_loss_sums sums;  /* of the pass */
    double hidden_sum;  /* of the pass, over tokens and blocks */
    bool learning;      /* the pass has gradients */
    uint32_t *order;    /* (train) windows of the epoch at work */
    uint64_t epoch;     /* of order; UINT64_MAX: none yet */
    nq_refine_event event;
    double began, written; /* seconds: of this run, of the last checkpoint */
    novaq_error warning;   /* of the last checkpoint, where it could not be written */
    uint32_t first;        /* step this run began at */
} run;

uint32_t nq_refine_held_out(uint32_t sequences) {
    uint32_t n = sequences / 12;
    return n < 1 ? 1 : n > HELD_OUT_MAX ? HELD_OUT_MAX : n;
}

uint64_t nq_refine_bytes(nq_net *student, const nq_hyper *hyper, const nq_teacher_from *teacher,
                         const nq_refine_data *data, const nq_refine_options *opt) {
    uint64_t rows = (uint64_t)opt->batch * data->length;
    uint64_t values = 0;
    for (size_t i = 0; i < nq_net_param_count(student); i++) {
        values += nq_net_param(student, i)->count;
    }
    uint64_t hidden = opt->lambda > 0 ? rows * hyper->dim * hyper->blocks : 0;
    uint64_t floats = NQ_REFINE_STATE_ARRAYS * values + hidden;
    return floats * sizeof(float) + rows * (sizeof(double) + 2 * sizeof(int32_t)) +
           (uint64_t)data->train * (sizeof(uint32_t) + sizeof(place)) +
           opt->batch * sizeof(uint32_t) +
           nq_teacher_bytes(teacher, data, hyper->vocab, opt->batch);
}

static uint64_t pass_rows(const run *r) { return (uint64_t)r->sequences * r->data->length; }

/* ---- one pass ----------------------------------------------------------------------- */

static novaq_status ask(run *r, bool within, novaq_error *err) {
    return r->opt->fn != NULL ? r->opt->fn(r->opt->ctx, &r->event, within, err) : NOVAQ_OK;
}

static novaq_status on_tick(void *ctx, novaq_error *err) { return ask(ctx, true, err); }

static novaq_status on_logits(void *ctx, uint32_t row0, uint32_t n, const float *logits,
                              float *dlogits, novaq_error *err) {
    run *r = ctx;
    NQ_TRY(ask(r, true, err));
    nq_teacher_rows rows = {.student = logits,
                            .row0 = row0,
                            .n = n,
                            .next = r->learning ? NULL : r->next + row0,
                            .plain = !r->learning,
                            .temperature = r->opt->temperature,
                            .weight = 1.0F / (float)pass_rows(r)};
    return nq_teacher_compare(&r->sums, dlogits, r->teacher, &rows, err);
}

static novaq_status on_teacher(void *ctx, uint32_t block, const float *h, float *dh,
                               novaq_error *err) {
    run *r = ctx;
    (void)dh;
    (void)err;
    uint64_t n = pass_rows(r) * r->hyper->dim;
    memcpy(r->hidden + block * n, h, n * sizeof(float));
    return NOVAQ_OK;
}

static novaq_status on_student(void *ctx, uint32_t block, const float *h, float *dh,
                               novaq_error *err) {
    run *r = ctx;
    (void)err;
    const float *t = r->hidden + block * pass_rows(r) * r->hyper->dim;
    float weight = r->opt->lambda / (float)pass_rows(r);
    r->hidden_sum +=
        nq_loss_cosine(dh, t, h, pass_rows(r), r->hyper->dim, weight, r->scratch, r->pool);
    return NOVAQ_OK;
}

/* The windows in r->batch through teacher and student. */
static novaq_status run_pass(run *r, bool learning, novaq_error *err) {
    nq_net_pass pass = {.tokens = r->batch,
                        .sequences = r->sequences,
                        .length = r->data->length,
                        .hidden_ctx = r,
                        .tick = on_tick,
                        .tick_ctx = r};
    bool hidden = learning && r->hidden != NULL;
    r->learning = learning;
    pass.hidden = hidden ? on_teacher : NULL;
    NQ_TRY(nq_teacher_see(r->teacher, &pass, r->windows, err));
    pass.hidden = hidden ? on_student : NULL;
    pass.logits = on_logits;
    pass.logits_ctx = r;
    pass.gradients = learning;
    return nq_net_run(r->student, &pass, err);
}

/* ---- windows --------------------------------------------------------------------------- */

static int by_key(const void *a, const void *b) {
    const place *x = a;
    const place *y = b;
    if (x->key != y->key) {
        return x->key < y->key ? -1 : 1;
    }
    return x->window < y->window ? -1 : x->window > y->window;
}

/* r->order = all windows in the order of the epoch. */
static novaq_status shuffle(run *r, uint64_t epoch, novaq_error *err) {
    if (epoch == r->epoch) {
        return NOVAQ_OK;
    }
    place *p = NULL;
    NQ_TRY(nq_alloc_raw(&p, r->data->train, sizeof *p, err));
    for (uint32_t i = 0; i < r->data->train; i++) {
        p[i] = (place){nq_hash3(r->opt->seed, 7000 + epoch, i), i};
    }
    qsort(p, r->data->train, sizeof *p, by_key);
    for (uint32_t i = 0; i < r->data->train; i++) {
        r->order[i] = p[i].window;
    }
    nq_free(p);
    r->epoch = epoch;
    return NOVAQ_OK;
}

static void put_window(run *r, uint32_t slot, uint32_t window) {
    uint32_t length = r->data->length;
    const int32_t *from = r->data->tokens + (uint64_t)window * length;
    int32_t *to = r->batch + (uint64_t)slot * length;
    r->windows[slot] = window;
    memcpy(to, from, length * sizeof *to);
    for (uint32_t i = 0; i < length; i++) {
        r->next[(uint64_t)slot * length + i] = i + 1 < length ? from[i + 1] : -1;
    }
}

static novaq_status fill_batch(run *r, uint32_t step, novaq_error *err) {
    r->sequences = r->opt->batch;
    for (uint32_t i = 0; i < r->opt->batch; i++) {
        uint64_t k = (uint64_t)step * r->opt->batch + i;
        NQ_TRY(shuffle(r, k / r->data->train, err));
        put_window(r, i, r->order[k % r->data->train]);
    }
    return NOVAQ_OK;
}

/* ---- measuring ---------------------------------------------------------------------------- */

/* *kl and *nll: means over the held-out windows with the present values. */
static novaq_status measure(double *kl, double *nll, run *r, novaq_error *err) {
    r->sums = (nq_loss_sums){0};
    for (uint32_t w = r->data->train; w < r->data->sequences; w += r->sequences) {
        uint32_t left = r->data->sequences - w;
        r->sequences = left < r->opt->batch ? left : r->opt->batch;
        for (uint32_t i = 0; i < r->sequences; i++) {
            put_window(r, i, w + i);
        }
        NQ_TRY(run_pass(r, false, err));
    }
    *kl = r->sums.kl / (double)r->sums.rows;
    *nll = r->sums.nll / (double)(r->sums.scored > 0 ? r->sums.scored : 1);
    if (!isfinite(*kl)) {
        *kl = INFINITY;
    }
    return NOVAQ_OK;
}

static void set_measured(run *r, double kl, double nll) {
    r->event.measured = true;
    r->event.held_kl = kl;
    r->event.held_perplexity = exp(nll);
    r->event.best_step = r->s.n.best_step;
    r->event.best_kl = r->s.n.best_kl;
}

/* Of what came in. */
static novaq_status measure_first(run *r, novaq_error *err) {
    nq_refine_numbers *n = &r->s.n;
    double kl = 0;
    double nll = 0;
    NQ_TRY(measure(&kl, &nll, r, err));
    if (!isfinite(kl)) {
        return nq_fail(err, NOVAQ_E_NUMERIC,
                       "the model's predictions are not finite numbers on the held-out text; "
                       "verify the artifact");
    }
    n->base_kl = n->best_kl = n->last_good = kl;
    n->base_nll = n->best_nll = nll;
    nq_adam_gather(r->s.best, &r->s.adam);
    nq_adam_gather(r->s.good, &r->s.adam);
    nq_adam_gather(r->s.mean, &r->s.adam);
    set_measured(r, kl, nll);
    return NOVAQ_OK;
}

/* Goes back to the values of the last good measurement, to go on more carefully. */
static void roll_back(run *r) {
    nq_refine_state *s = &r->s;
    nq_adam_scatter(&s->adam, s->good);
    memcpy(s->mean, s->good, s->adam.total * sizeof(float));
    memset(s->adam.moment[0], 0, s->adam.total * sizeof(float));
    memset(s->adam.moment[1], 0, s->adam.total * sizeof(float));
    s->adam.taken = 0;
    s->adam.step = s->n.good_step;
    s->adam.usual = 0;
    s->adam.share /= 2;
    s->n.usual_loss = 0;
    s->n.rolled_back++;
    r->event.rolled_back = true;
}

/* Of `values` (adam.total) as they would be stored; the student's own are in s.keep. */
static novaq_status measure_rounded(double *kl, double *nll, run *r, const float *values,
                                    novaq_error *err) {
    nq_adam_scatter(&r->s.adam, values);
    nq_round_net(r->student, r->weights);
    novaq_status st = measure(kl, nll, r, err);
    nq_adam_scatter(&r->s.adam, r->s.keep);
    return st;
}

static void choose(nq_refine_state *s, const float *values, double kl, double nll) {
    if (kl < s->n.best_kl) {
        memcpy(s->best, values, s->adam.total * sizeof(float));
        s->n.best_kl = kl;
        s->n.best_nll = nll;
        s->n.best_step = s->adam.step;
        s->n.stale = 0;
    }
}

/* The values of this step, and the mean of those before: Adam's steps go to and fro around
 * where the mean is. */
static novaq_status measure_step(run *r, novaq_error *err) {
    nq_refine_state *s = &r->s;
    double kl = 0;
    double nll = 0;
    double mean_kl = 0;
    double mean_nll = 0;
    nq_adam_gather(s->keep, &s->adam);
    NQ_TRY(measure_rounded(&kl, &nll, r, s->keep, err));
    NQ_TRY(measure_rounded(&mean_kl, &mean_nll, r, s->mean, err));
    /* What large steps blur comes out once they get smaller: no reason to end before. */
    bool late = nq_adam_schedule(&r->opt->adam, s->adam.step) < LATE;
    s->n.stale = late ? s->n.stale + 1 : 0;
    choose(s, s->keep, kl, nll);
    choose(s, s->mean, mean_kl, mean_nll);
    bool raw = kl <= mean_kl;
    set_measured(r, raw ? kl : mean_kl, raw ? nll : mean_nll);
    if (kl > 1.5 * s->n.last_good + 0.01) {
        roll_back(r);
    } else {
        nq_adam_gather(s->good, &s->adam);
        s->n.good_step = s->adam.step;
        s->n.last_good = kl;
    }
    return NOVAQ_OK;
}

/* ---- steps ------------------------------------------------------------------------------------
 */

static bool diverged(const run *r, double loss) {
    double usual = r->s.n.usual_loss;
    return !isfinite(loss) || (usual > 0 && loss > 4 * usual + 0.02);
}

static void add_to_mean(nq_refine_state *s) {
    nq_adam_gather(s->keep, &s->adam);
    for (uint64_t i = 0; i < s->adam.total; i++) {
        s->mean[i] = MEAN_KEEPS * s->mean[i] + (1 - MEAN_KEEPS) * s->keep[i];
    }
}

static novaq_status one_step(run *r, novaq_error *err) {
    nq_refine_state *s = &r->s;
    r->event = (nq_refine_event){.steps = r->opt->adam.steps,
                                 .step = s->adam.step,
                                 .seconds = r->event.seconds,
                                 .eta = r->event.eta,
                                 .best_kl = s->n.best_kl,
                                 .best_step = s->n.best_step,
                                 .kl = r->event.kl,
                                 .hidden = r->event.hidden};
    NQ_TRY(fill_batch(r, s->adam.step, err));
    r->sums = (nq_loss_sums){0};
    r->hidden_sum = 0;
    nq_net_zero_gradients(r->student);
    NQ_TRY(run_pass(r, true, err));
    double loss = r->sums.kl / (double)r->sums.rows;
    r->event.rate = nq_adam_schedule(&r->opt->adam, s->adam.step) * s->adam.share;
    if (diverged(r, loss) || !nq_adam_step(&s->adam)) {
        roll_back(r);
    } else {
        double usual = s->n.usual_loss;
        add_to_mean(s);
        s->n.usual_loss = usual > 0 ? 0.9 * usual + 0.1 * loss : loss;
    }
    r->event.step = s->adam.step;
    r->event.kl = loss;
    double blocks = (double)r->hyper->blocks * (double)pass_rows(r);
    r->event.hidden = r->hidden != NULL ? r->hidden_sum / blocks : (double)NAN;
    return NOVAQ_OK;
}

static void set_times(run *r) {
    uint32_t done = r->s.adam.step > r->first ? r->s.adam.step - r->first : 0;
    r->event.seconds = nq_seconds() - r->began;
    r->event.eta =
        done > 0 ? r->event.seconds / done * (r->opt->adam.steps - r->s.adam.step) : (double)NAN;
}

/* A run without a checkpoint is still a run. */
static void save_point(run *r, bool force) {
    if (r->opt->checkpoint == NULL || (!force && nq_seconds() - r->written < CHECKPOINT_SECS)) {
        return;
    }
    r->written = nq_seconds();
    r->warning = (novaq_error){0};
    if (nq_checkpoint_write(r->opt->checkpoint, &r->s, r->opt->identity, &r->warning) != NOVAQ_OK) {
        bool first = r->result->checkpoints_failed++ == 0; /* the others are only counted */
        r->event.warning = first ? r->warning.msg : NULL;
    }
}

static bool finished(const run *r) {
    const nq_refine_numbers *n = &r->s.n;
    return r->s.adam.step >= r->opt->adam.steps || n->rolled_back >= ROLL_BACKS_MAX ||
           n->stale >= r->opt->patience;
}

/* One step, and what is due after it. */
static novaq_status next_step(run *r, novaq_error *err) {
    nq_refine_numbers *n = &r->s.n;
    if (n->due == 0) {
        NQ_TRY(one_step(r, err));
        uint32_t step = r->s.adam.step;
        bool due = step % r->every == 0 || step == r->opt->adam.steps;
        n->due = due && !r->event.rolled_back;
    }
    if (n->due != 0) {
        NQ_TRY(measure_step(r, err));
        n->due = 0;
    }
    set_times(r);
    save_point(r, false);
    return ask(r, false, err);
}

/* ---- a run --------------------------------------------------------------------------------------
 */

static novaq_status open_run(run *r, novaq_error *err) {
    uint64_t rows = (uint64_t)r->opt->batch * r->data->length;
    if (r->data->train == 0 || r->data->train >= r->data->sequences || r->opt->batch == 0) {
        return nq_fail(err, NOVAQ_E_ARG, "too little text to learn from and to measure on");
    }
    NQ_TRY(nq_alloc(&r->batch, rows, sizeof *r->batch, err));
    NQ_TRY(nq_alloc(&r->next, rows, sizeof *r->next, err));
    NQ_TRY(nq_alloc(&r->windows, r->opt->batch, sizeof *r->windows, err));
    NQ_TRY(nq_alloc(&r->scratch, rows, sizeof *r->scratch, err));
    NQ_TRY(nq_alloc(&r->order, r->data->train, sizeof *r->order, err));
    NQ_TRY(nq_teacher_open(&r->teacher, r->from, r->data, r->hyper->vocab, r->pool, err));
    if (r->opt->lambda > 0) {
        if (r->from->predictions != NULL) {
            return nq_fail(err, NOVAQ_E_ARG,
                           "the teacher's residual streams are not among its predictions");
        }
        uint64_t floats = rows * r->hyper->dim * r->hyper->blocks;
        NQ_TRY(nq_alloc_raw(&r->hidden, floats, sizeof(float), err));
    }
    NQ_TRY(nq_refine_state_open(&r->s, nq_net_param(r->student, 0), nq_net_param_count(r->student),
                                &r->opt->adam, err));
    nq_round_units(r->s.adam.unit, r->student, r->weights);
    return NOVAQ_OK;
}

static void close_run(run *r) {
    nq_refine_state_close(&r->s);
    nq_free(r->batch);
    nq_free(r->next);
    nq_free(r->scratch);
    nq_free(r->order);
    nq_free(r->hidden);
    nq_free(r->windows);
    nq_teacher_close(&r->teacher);
}

static novaq_status begin(run *r, novaq_error *err) {
    bool found = false;
    r->began = r->written = nq_seconds();
    r->event = (nq_refine_event){
        .steps = r->opt->adam.steps, .kl = (double)NAN, .hidden = (double)NAN, .eta = (double)NAN};
    if (r->opt->checkpoint != NULL) {
        NQ_TRY(nq_checkpoint_read(&found, r->opt->checkpoint, &r->s, r->opt->identity, err));
    }
    r->first = found ? r->s.adam.step : 0;
    r->result->resumed = r->first;
    if (!found) {
        NQ_TRY(measure_first(r, err));
    } else {
        r->event.step = r->s.adam.step;
        r->event.best_step = r->s.n.best_step;
        r->event.best_kl = r->s.n.best_kl;
    }
    return ask(r, false, err);
}

static novaq_status go(run *r, novaq_error *err) {
    NQ_TRY(begin(r, err));
    novaq_status st = NOVAQ_OK;
    while (st == NOVAQ_OK && (r->s.n.due != 0 || !finished(r))) {
        st = next_step(r, err);
    }
    save_point(r, true);
    bool lost = st != NOVAQ_OK && r->warning.code != NOVAQ_OK;
    return lost ? nq_fail_context(err, st, "without a checkpoint (%s)", r->warning.msg) : st;
}

/* A tenth of the run, 10 to 25 steps, but no more than a quarter of it. */
static uint32_t every_of(const nq_refine_options *opt) {
    uint32_t steps = opt->adam.steps;
    if (opt->every > 0) {
        return opt->every;
    }
    uint32_t every = steps / 10 < 10 ? 10 : steps / 10;
    every = every > 25 ? 25 : every;
    every = every > steps / 4 ? steps / 4 : every;
    return every > 0 ? every : 1;
}

novaq_status nq_refine_run(nq_refine_result *out, nq_net *student, const nq_weights *weights,
                           const nq_teacher_from *teacher, const nq_hyper *hyper, nq_pool *pool,
                           const nq_refine_data *data, const nq_refine_options *opt,
                           novaq_error *err) {
    *out = (nq_refine_result){0};
    run r = {.student = student,
             .from = teacher,
             .weights = weights,
             .hyper = hyper,
             .pool = pool,
             .data = data,
             .opt = opt,
             .result = out,
             .epoch = UINT64_MAX,
             .every = every_of(opt)};
    novaq_status st = open_run(&r, err);
    if (st == NOVAQ_OK) {
        st = go(&r, err);
    }
    if (st == NOVAQ_OK) {
        nq_adam_scatter(&r.s.adam, r.s.best);
        out->steps = r.s.adam.step;
        out->best_step = r.s.n.best_step;
        out->rolled_back = r.s.n.rolled_back;
        out->base_kl = r.s.n.base_kl;
        out->best_kl = r.s.n.best_kl;
        out->base_perplexity = exp(r.s.n.base_nll);
        out->best_perplexity = exp(r.s.n.best_nll);
    }
    close_run(&r);
    return st;
}

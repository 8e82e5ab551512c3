/* blockwise.c - see blockwise.h. */
#include "refine/blockwise.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "base/rng.h"
#include "refine/loss.h"

#define HELD_OUT     8 /* one of so many sequences */
#define MEASUREMENTS 4
/* Tokens of next to no length would count without end. */
#define LEAST_SQUARE 1e-12

typedef struct run {
    nq_net *net;
    uint32_t block;
    const nq_blockwise_data *data;
    const nq_blockwise_options *opt;
    nq_adam adam;
    nq_store_kind *kinds; /* (parameters) */
    float *best, *keep;   /* (adam.total) values */
    float *x, *out, *dy;  /* (batch, length, dim); out: the block's; x: a batch of inputs */
    float *target;        /* (batch, length, dim) */
    uint32_t *order;      /* (train) sequences of the epoch at work */
    double base;          /* error of what came in, the unit of the loss */
} run;

uint32_t nq_blockwise_held_out(uint32_t sequences) {
    return sequences < HELD_OUT ? 1 : sequences / HELD_OUT;
}

/* ---- values ------------------------------------------------------------------------- */

/* nq_round_net() knows nothing of vectors that are not in an artifact yet. */
static void round_values(const run *r) {
    nq_round_net(r->net, NULL);
    for (size_t i = 0; i < nq_net_param_count(r->net); i++) {
        const nq_param *p = nq_net_param(r->net, i);
        for (uint64_t e = 0; r->kinds[i] != NQ_STORE_NONE && e < p->count; e++) {
            p->value[e] = nq_store_round(r->kinds[i], p->value[e] - p->offset) + p->offset;
        }
    }
}

static void set_units(const run *r) {
    float *unit = r->adam.unit;
    nq_round_units(unit, r->net, NULL);
    for (size_t i = 0; i < nq_net_param_count(r->net); i++) {
        const nq_param *p = nq_net_param(r->net, i);
        if (r->kinds[i] != NQ_STORE_NONE) {
            nq_round_vector_units(unit, p);
        }
        unit += p->count;
    }
}

/* ---- passes ---------------------------------------------------------------------------- */

static novaq_status tick(const run *r, novaq_error *err) {
    return r->opt->tick != NULL ? r->opt->tick(r->opt->tick_ctx, err) : NOVAQ_OK;
}

static uint64_t sequence_floats(const run *r) { return (uint64_t)r->data->length * r->data->dim; }

static void put_sequence(run *r, uint32_t slot, uint32_t sequence) {
    uint64_t n = sequence_floats(r);
    memcpy(r->x + slot * n, r->data->x + sequence * n, n * sizeof(float));
    memcpy(r->target + slot * n, r->data->y + sequence * n, n * sizeof(float));
}

/* What follows a block norms every token, so a token's error counts by its length. Sum
 * over the tokens of the batch; r->dy = weight times the gradient, unless weight is 0. */
static double batch_error(run *r, uint32_t sequences, double weight) {
    uint64_t dim = r->data->dim;
    double sum = 0;
    for (uint64_t row = 0; row < (uint64_t)sequences * r->data->length; row++) {
        const float *t = r->target + row * dim;
        double square = 0;
        for (uint64_t c = 0; c < dim; c++) {
            square += (double)t[c] * (double)t[c];
        }
        double share = 1 / (square + LEAST_SQUARE);
        float *d = weight > 0 ? r->dy + row * dim : NULL;
        sum += share * nq_loss_square(d, t, r->out + row * dim, dim, (float)(weight * share));
    }
    return sum;
}

static novaq_status forward(double *error, run *r, uint32_t sequences, double weight,
                            novaq_error *err) {
    NQ_TRY(tick(r, err));
    NQ_TRY(nq_net_block(r->out, r->net, r->block, r->x, sequences, r->data->length, err));
    *error = batch_error(r, sequences, weight);
    return NOVAQ_OK;
}

/* *error: mean over the tokens held out, infinite where it is no number. */
static novaq_status measure(double *error, run *r, novaq_error *err) {
    const nq_blockwise_data *d = r->data;
    double sum = 0;
    for (uint32_t s = d->train; s < d->sequences; s += r->opt->batch) {
        uint32_t n = d->sequences - s < r->opt->batch ? d->sequences - s : r->opt->batch;
        double part = 0;
        for (uint32_t i = 0; i < n; i++) {
            put_sequence(r, i, s + i);
        }
        NQ_TRY(forward(&part, r, n, 0, err));
        sum += part;
    }
    *error = sum / ((double)(d->sequences - d->train) * d->length);
    *error = isfinite(*error) ? *error : (double)INFINITY;
    return NOVAQ_OK;
}

/* ---- steps ------------------------------------------------------------------------------- */

static void shuffle(run *r, uint64_t epoch) {
    uint32_t n = r->data->train;
    for (uint32_t i = 0; i < n; i++) {
        r->order[i] = i;
    }
    for (uint32_t i = n; i-- > 1;) {
        uint32_t k = (uint32_t)(nq_hash3(r->opt->seed, 9000 + epoch, i) % (i + 1));
        uint32_t other = r->order[k];
        r->order[k] = r->order[i];
        r->order[i] = other;
    }
}

static void fill_batch(run *r) {
    for (uint32_t i = 0; i < r->opt->batch; i++) {
        uint64_t at = (uint64_t)r->adam.step * r->opt->batch + i;
        if (at % r->data->train == 0) {
            shuffle(r, at / r->data->train);
        }
        put_sequence(r, i, r->order[at % r->data->train]);
    }
}

/* *fine: false where no numbers came out, and nothing was changed. */
static novaq_status one_step(bool *fine, run *r, novaq_error *err) {
    double rows = (double)r->opt->batch * r->data->length;
    double error = 0;
    fill_batch(r);
    nq_net_zero_gradients(r->net);
    NQ_TRY(forward(&error, r, r->opt->batch, 1 / (rows * r->base), err));
    *fine = isfinite(error);
    if (*fine) {
        NQ_TRY(nq_net_block_learn(NULL, r->net, r->block, r->x, r->dy, r->opt->batch,
                                  r->data->length, err));
        *fine = nq_adam_step(&r->adam);
    }
    return NOVAQ_OK;
}

/* Measures the present values as stored, and keeps them where none were better. */
static novaq_status try_values(nq_blockwise_result *out, run *r, novaq_error *err) {
    double error = 0;
    nq_adam_gather(r->keep, &r->adam);
    round_values(r);
    NQ_TRY(measure(&error, r, err));
    if (error < out->after) {
        out->after = error;
        out->step = r->adam.step;
        memcpy(r->best, r->keep, r->adam.total * sizeof(float));
    }
    nq_adam_scatter(&r->adam, r->keep);
    return NOVAQ_OK;
}

static novaq_status learn(nq_blockwise_result *out, run *r, novaq_error *err) {
    uint32_t steps = r->opt->adam.steps;
    uint32_t every = r->opt->every;
    bool fine = true;
    if (every == 0) {
        every = (steps + MEASUREMENTS - 1) / MEASUREMENTS;
    }
    while (fine && r->adam.step < steps) {
        NQ_TRY(one_step(&fine, r, err));
        if (fine && (r->adam.step % every == 0 || r->adam.step == steps)) {
            NQ_TRY(try_values(out, r, err));
        }
    }
    return NOVAQ_OK;
}

/* ---- a run --------------------------------------------------------------------------------- */

static novaq_status open_run(run *r, novaq_error *err) {
    const nq_blockwise_data *d = r->data;
    size_t count = nq_net_param_count(r->net);
    if (d->train == 0 || d->train >= d->sequences || r->opt->batch == 0) {
        return nq_fail(err, NOVAQ_E_ARG, "too few sequences to learn from and to measure on");
    }
    uint64_t floats = r->opt->batch * sequence_floats(r);
    NQ_TRY(nq_alloc_raw(&r->x, floats, sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&r->out, floats, sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&r->dy, floats, sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&r->target, floats, sizeof(float), err));
    NQ_TRY(nq_alloc(&r->order, d->train, sizeof *r->order, err));
    NQ_TRY(nq_alloc(&r->kinds, count, sizeof *r->kinds, err));
    NQ_TRY(nq_adam_open(&r->adam, nq_net_param(r->net, 0), count, &r->opt->adam, err));
    NQ_TRY(nq_alloc_raw(&r->best, r->adam.total, sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&r->keep, r->adam.total, sizeof(float), err));
    for (size_t i = 0; i < count; i++) {
        const nq_param *p = nq_net_param(r->net, i);
        r->kinds[i] = nq_param_is_vector(p) ? r->opt->store(r->opt->store_ctx, p) : NQ_STORE_NONE;
    }
    set_units(r);
    return NOVAQ_OK;
}

static void close_run(run *r) {
    nq_adam_close(&r->adam);
    nq_free(r->x);
    nq_free(r->out);
    nq_free(r->dy);
    nq_free(r->target);
    nq_free(r->order);
    nq_free(r->kinds);
    nq_free(r->best);
    nq_free(r->keep);
}

novaq_status nq_blockwise_run(nq_blockwise_result *out, nq_net *net, uint32_t block,
                              const nq_blockwise_data *data, const nq_blockwise_options *opt,
                              novaq_error *err) {
    run r = {.net = net, .block = block, .data = data, .opt = opt};
    *out = (nq_blockwise_result){0};
    novaq_status st = open_run(&r, err);
    if (st == NOVAQ_OK) {
        nq_adam_gather(r.best, &r.adam);
        st = measure(&out->before, &r, err);
    }
    out->after = r.base = out->before;
    /* Nothing is left to learn, or nothing that could be measured. */
    if (st == NOVAQ_OK && out->before > 0 && isfinite(out->before)) {
        st = learn(out, &r, err);
    }
    if (st == NOVAQ_OK) {
        nq_adam_scatter(&r.adam, r.best);
    }
    close_run(&r);
    return st;
}

/* ---- pieces ------------------------------------------------------------------------------- */

static novaq_status take_books(nq_encoded *e, const nq_tmatrix *m, novaq_error *err) {
    uint64_t book = nq_scheme_codebook_bytes(&m->q->scheme);
    int8_t *entries = NULL;
    uint16_t *scales = NULL;
    NQ_TRY(nq_alloc(&entries, m->groups * book, 1, err));
    novaq_status st = nq_alloc(&scales, m->groups, sizeof *scales, err);
    if (st != NOVAQ_OK) {
        nq_free(entries);
        return st;
    }
    for (uint32_t g = 0; g < m->groups; g++) {
        nq_round_group(entries + g * book, &scales[g], m, g);
    }
    nq_free(e->codebooks);
    nq_free(e->codebook_scale);
    e->q.codebooks = e->codebooks = entries;
    e->q.codebook_scale = e->codebook_scale = scales;
    e->q.groups = m->groups;
    e->q.group_cols = m->groups == 1 ? e->q.cols : m->group_cols;
    return NOVAQ_OK;
}

novaq_status nq_blockwise_take(nq_encoded *e, const nq_tmatrix *m, novaq_error *err) {
    for (uint64_t i = 0; i < m->rows; i++) {
        e->row_scale[i] = nq_round_row(m, i);
        if (m->row_mean != NULL) {
            e->row_mean[i] = nq_f32_to_f16(nq_store_round(NQ_STORE_F16, m->row_mean[i]));
        }
    }
    return m->grad_codebooks != NULL ? take_books(e, m, err) : NOVAQ_OK;
}

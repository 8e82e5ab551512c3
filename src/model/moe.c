/* moe.c - feed-forward layers of which each token chooses a few.
 *
 * Owns: the router's choice (softmax over all experts, the largest of them, made to
 * add up to 1 where the model says so) and the sum of the chosen experts' outputs.
 * Experts go one after the other, each over all tokens that chose it, so that the
 * order of the sums does not depend on the number of threads. */
#include <string.h>

#include "base/mem.h"
#include "model/run_impl.h"
#include "model/vec.h"

novaq_status nq_moe_open(nq_moe *m, const nq_hyper *h, uint64_t rows, novaq_error *err) {
    NQ_TRY(nq_run_floats(&m->scores, rows, h->experts, err));
    NQ_TRY(nq_run_floats(&m->weights, rows, h->experts_used, err));
    NQ_TRY(nq_run_floats(&m->shares, rows, 1, err));
    NQ_TRY(nq_run_floats(&m->in, rows, h->dim, err));
    NQ_TRY(nq_run_floats(&m->out, rows, h->dim, err));
    NQ_TRY(nq_run_floats(&m->sum, rows, h->dim, err));
    NQ_TRY(nq_alloc_raw(&m->chosen, rows * h->experts_used, sizeof *m->chosen, err));
    return nq_alloc_raw(&m->members, rows, sizeof *m->members, err);
}

void nq_moe_close(nq_moe *m) {
    nq_free(m->scores);
    nq_free(m->weights);
    nq_free(m->shares);
    nq_free(m->in);
    nq_free(m->out);
    nq_free(m->sum);
    nq_free(m->chosen);
    nq_free(m->members);
    *m = (nq_moe){0};
}

/* The index of the largest score not yet taken, the first of equals; taken ones are
 * negative, and so is nothing else: scores are probabilities. */
static uint32_t take_best(float *scores, uint32_t n, float *share) {
    uint32_t best = 0;
    for (uint32_t e = 1; e < n; e++) {
        best = scores[e] > scores[best] ? e : best;
    }
    *share = scores[best];
    scores[best] = -1.0F;
    return best;
}

static void choose(float *scores, uint32_t *chosen, float *weights, const nq_hyper *h) {
    double sum = 0;
    nq_vec_softmax(scores, h->experts);
    for (uint32_t i = 0; i < h->experts_used; i++) {
        chosen[i] = take_best(scores, h->experts, &weights[i]);
        sum += (double)weights[i];
    }
    if (h->experts_normed && sum > 0) {
        nq_vec_scale(weights, (float)(1.0 / sum), h->experts_used);
    }
}

static void choose_task(void *ctx, uint64_t task, unsigned worker) {
    nq_run *r = ctx;
    const nq_hyper *h = &r->m->hyper;
    (void)worker;
    for (uint32_t i = 0; i < nq_rows_from(r, task); i++) {
        uint64_t row = task * NQ_ROW_TASK + i;
        choose(r->moe.scores + row * h->experts, r->moe.chosen + row * h->experts_used,
               r->moe.weights + row * h->experts_used, h);
        memset(r->moe.sum + row * h->dim, 0, h->dim * sizeof(float));
    }
}

/* Tokens that chose expert e, in order. */
static void collect(nq_run *r, uint32_t e) {
    const nq_hyper *h = &r->m->hyper;
    nq_moe *m = &r->moe;
    m->count = 0;
    for (uint32_t row = 0; row < r->rows; row++) {
        for (uint32_t i = 0; i < h->experts_used; i++) {
            uint64_t at = (uint64_t)row * h->experts_used + i;
            if (m->chosen[at] == e) {
                m->members[m->count] = row;
                m->shares[m->count++] = m->weights[at];
                break;
            }
        }
    }
}

static uint32_t members_from(const nq_moe *m, uint64_t task) {
    uint64_t left = m->count - task * NQ_ROW_TASK;
    return left < NQ_ROW_TASK ? (uint32_t)left : NQ_ROW_TASK;
}

static void gather_task(void *ctx, uint64_t task, unsigned worker) {
    nq_run *r = ctx;
    uint64_t dim = r->m->hyper.dim;
    (void)worker;
    for (uint32_t i = 0; i < members_from(&r->moe, task); i++) {
        uint64_t at = task * NQ_ROW_TASK + i;
        memcpy(r->moe.in + at * dim, r->h + r->moe.members[at] * dim, dim * sizeof(float));
    }
}

static void activate_task(void *ctx, uint64_t task, unsigned worker) {
    nq_run *r = ctx;
    uint64_t ff = r->m->hyper.ff;
    uint64_t at = task * NQ_ROW_TASK * ff;
    (void)worker;
    nq_run_activate(r->gate + at, r->gate + at, r->up + at, members_from(&r->moe, task) * ff,
                    &r->m->hyper);
}

static void scatter_task(void *ctx, uint64_t task, unsigned worker) {
    nq_run *r = ctx;
    nq_moe *m = &r->moe;
    uint64_t dim = r->m->hyper.dim;
    (void)worker;
    for (uint32_t i = 0; i < members_from(m, task); i++) {
        uint64_t at = task * NQ_ROW_TASK + i;
        nq_vec_add_scaled(m->sum + m->members[at] * dim, m->out + at * dim, m->shares[at], dim);
    }
}

static novaq_status run_expert(nq_run *r, uint32_t e, novaq_error *err) {
    const nq_experts *x = &r->layer->experts;
    nq_moe *m = &r->moe;
    nq_pool *pool = r->m->pool;
    uint64_t tasks = (m->count + NQ_ROW_TASK - 1) / NQ_ROW_TASK;
    nq_pool_run(pool, gather_task, r, tasks);
    NQ_TRY(nq_linear_apply((float *[]){r->gate, r->up},
                           (const nq_linear *[]){&x->gate[e], &x->up[e]}, 2, m->in, m->count,
                           r->work, err));
    nq_pool_run(pool, activate_task, r, tasks);
    NQ_TRY(nq_linear_apply((float *[]){m->out}, (const nq_linear *[]){&x->down[e]}, 1, r->gate,
                           m->count, r->work, err));
    nq_pool_run(pool, scatter_task, r, tasks);
    return NOVAQ_OK;
}

novaq_status nq_moe_run(nq_run *r, novaq_error *err) {
    const nq_hyper *h = &r->m->hyper;
    nq_moe *m = &r->moe;
    NQ_TRY(nq_linear_apply((float *[]){m->scores}, (const nq_linear *[]){&r->layer->experts.router},
                           1, r->h, r->rows, r->work, err));
    nq_run_rows(r, choose_task);
    for (uint32_t e = 0; e < h->experts; e++) {
        collect(r, e);
        if (m->count > 0) {
            NQ_TRY(run_expert(r, e, err));
        }
    }
    memcpy(r->h, m->sum, (uint64_t)r->rows * h->dim * sizeof(float));
    return NOVAQ_OK;
}

/* net_moe.c - see net_impl.h: feed-forward layers of which each token chooses a few.
 *
 * As model/moe.c has it: softmax over all experts, the largest of them, made to add up to
 * 1 where the model says so. The choice itself has no derivative; the weights have. Going
 * back, each expert is run again on the tokens that chose it; experts go one after the
 * other, so that the order of the sums does not depend on the number of threads. */
#include <string.h>

#include "model/vec.h"
#include "refine/net_impl.h"

#define GATING ((nq_gating){.fused = false, .gated = true})

/* ---- choosing -------------------------------------------------------------------- */

/* The largest probability not chosen yet, the first of equals. */
static uint32_t best_left(const float *scores, uint32_t n, const uint32_t *chosen, uint32_t taken) {
    uint32_t best = n;
    for (uint32_t e = 0; e < n; e++) {
        bool free_yet = true;
        for (uint32_t i = 0; i < taken; i++) {
            free_yet = free_yet && chosen[i] != e;
        }
        if (free_yet && (best == n || scores[e] > scores[best])) {
            best = e;
        }
    }
    return best;
}

static void choose_task(void *ctx, uint64_t task, unsigned worker) {
    nq_net *n = ctx;
    const nq_hyper *h = &n->m->hyper;
    (void)worker;
    for (uint64_t r = 0; r < nq_net_task_rows(n->rows, task); r++) {
        uint64_t row = task * NQ_NET_TASK + r;
        float *scores = n->choice.scores + row * h->experts;
        float *weights = n->choice.weights + row * h->experts_used;
        uint32_t *chosen = n->choice.chosen + row * h->experts_used;
        double sum = 0;
        nq_vec_softmax(scores, h->experts);
        for (uint32_t i = 0; i < h->experts_used; i++) {
            chosen[i] = best_left(scores, h->experts, chosen, i);
            weights[i] = scores[chosen[i]];
            sum += (double)weights[i];
        }
        if (h->experts_normed && sum > 0) {
            nq_vec_scale(weights, (float)(1.0 / sum), h->experts_used);
        }
    }
}

/* From the weights' gradients to those by the router's outputs: through the sum to 1,
 * w = p / S: dp = (dw - sum w dw) / S; through softmax: ds = p (dp - sum p dp). */
static void unchoose_task(void *ctx, uint64_t task, unsigned worker) {
    nq_net *n = ctx;
    const nq_hyper *h = &n->m->hyper;
    uint32_t used = h->experts_used;
    (void)worker;
    for (uint64_t r = 0; r < nq_net_task_rows(n->rows, task); r++) {
        uint64_t row = task * NQ_NET_TASK + r;
        const float *p = n->choice.scores + row * h->experts;
        const float *w = n->choice.weights + row * used;
        const uint32_t *chosen = n->choice.chosen + row * used;
        const float *dw = n->choice.dweights + row * used;
        float *ds = n->choice.dscores + row * h->experts;
        double sum = 0;
        for (uint32_t i = 0; i < used; i++) {
            sum += (double)p[chosen[i]];
        }
        bool normed = h->experts_normed && sum > 0;
        double mean = normed ? nq_vec_dot(w, dw, used) : 0.0;
        memset(ds, 0, h->experts * sizeof *ds);
        for (uint32_t i = 0; i < used; i++) {
            ds[chosen[i]] = (float)(((double)dw[i] - mean) / (normed ? sum : 1.0));
        }
        float all = (float)nq_vec_dot(p, ds, h->experts);
        for (uint32_t e = 0; e < h->experts; e++) {
            ds[e] = p[e] * (ds[e] - all);
        }
    }
}

/* ---- one expert ---------------------------------------------------------------------- */

typedef struct expert_job {
    nq_net *n;
    float *sum;      /* (rows, dim) forward: of all experts; back: by their inputs */
    const float *df; /* (rows, dim) */
} expert_job;

/* Places of tokens that chose expert e, in order. */
static void collect(nq_net *n, uint32_t e) {
    nq_choice *c = &n->choice;
    uint64_t places = (uint64_t)n->rows * n->m->hyper.experts_used;
    c->count = 0;
    for (uint64_t at = 0; at < places; at++) {
        if (c->chosen[at] == e) {
            c->members[c->count++] = (uint32_t)at;
        }
    }
}

static uint64_t row_of(const nq_net *n, uint64_t member) {
    return n->choice.members[member] / n->m->hyper.experts_used;
}

static void gather_task(void *ctx, uint64_t task, unsigned worker) {
    const expert_job *j = ctx;
    nq_net *n = j->n;
    uint64_t dim = n->m->hyper.dim;
    (void)worker;
    for (uint64_t i = 0; i < nq_net_task_rows(n->choice.count, task); i++) {
        uint64_t at = task * NQ_NET_TASK + i;
        memcpy(n->choice.in + at * dim, n->in.n2 + row_of(n, at) * dim, dim * sizeof(float));
    }
}

static void scatter_task(void *ctx, uint64_t task, unsigned worker) {
    const expert_job *j = ctx;
    nq_choice *c = &j->n->choice;
    uint64_t dim = j->n->m->hyper.dim;
    (void)worker;
    for (uint64_t i = 0; i < nq_net_task_rows(c->count, task); i++) {
        uint64_t at = task * NQ_NET_TASK + i;
        nq_vec_add_scaled(j->sum + row_of(j->n, at) * dim, c->out + at * dim,
                          c->weights[c->members[at]], dim);
    }
}

/* The gradients by a member's weight and by its output. */
static void spread_task(void *ctx, uint64_t task, unsigned worker) {
    const expert_job *j = ctx;
    nq_choice *c = &j->n->choice;
    uint64_t dim = j->n->m->hyper.dim;
    (void)worker;
    for (uint64_t i = 0; i < nq_net_task_rows(c->count, task); i++) {
        uint64_t at = task * NQ_NET_TASK + i;
        const float *df = j->df + row_of(j->n, at) * dim;
        c->dweights[c->members[at]] = (float)nq_vec_dot(df, c->out + at * dim, dim);
        memcpy(c->dout + at * dim, df, dim * sizeof *df);
        nq_vec_scale(c->dout + at * dim, c->weights[c->members[at]], dim);
    }
}

static void add_input_task(void *ctx, uint64_t task, unsigned worker) {
    const expert_job *j = ctx;
    nq_choice *c = &j->n->choice;
    uint64_t dim = j->n->m->hyper.dim;
    (void)worker;
    for (uint64_t i = 0; i < nq_net_task_rows(c->count, task); i++) {
        uint64_t at = task * NQ_NET_TASK + i;
        nq_vec_add(j->sum + row_of(j->n, at) * dim, c->din + at * dim, dim);
    }
}

/* choice.out of choice.members. */
static novaq_status run_expert(const expert_job *j, const nq_tblock *t, uint32_t e,
                               novaq_error *err) {
    nq_net *n = j->n;
    nq_choice *c = &n->choice;
    uint32_t experts = n->m->hyper.experts;
    nq_gates a = nq_net_gates(n, n->in.gu, GATING, c->count);
    expert_job own = *j;
    nq_pool_run(n->m->pool, gather_task, &own, nq_net_tasks(c->count));
    NQ_TRY(nq_tmatrix_forward(a.gate, t->experts[e], c->in, c->count, n->work, err));
    NQ_TRY(nq_tmatrix_forward(a.up, t->experts[experts + e], c->in, c->count, n->work, err));
    nq_net_activate(n, GATING, c->count);
    return nq_tmatrix_forward(c->out, t->experts[2 * experts + e], n->in.act, c->count, n->work,
                              err);
}

static novaq_status back_expert(const expert_job *j, const nq_tblock *t, uint32_t e,
                                novaq_error *err) {
    nq_net *n = j->n;
    nq_choice *c = &n->choice;
    uint32_t experts = n->m->hyper.experts;
    nq_gates d = nq_net_gates(n, n->in.dgu, GATING, c->count);
    expert_job own = *j;
    NQ_TRY(run_expert(j, t, e, err));
    nq_pool_run(n->m->pool, spread_task, &own, nq_net_tasks(c->count));
    NQ_TRY(nq_net_back_matrix(n->in.dact, false, n, t->experts[2 * experts + e], c->dout, n->in.act,
                              c->count, err));
    nq_net_activate_backward(n, GATING, c->count);
    NQ_TRY(
        nq_net_back_matrix(c->din, false, n, t->experts[experts + e], d.up, c->in, c->count, err));
    NQ_TRY(nq_net_back_matrix(c->din, true, n, t->experts[e], d.gate, c->in, c->count, err));
    nq_pool_run(n->m->pool, add_input_task, &own, nq_net_tasks(c->count));
    return NOVAQ_OK;
}

/* ---- the layer -------------------------------------------------------------------------- */

novaq_status nq_net_moe(float *f, nq_net *n, const nq_tblock *t, novaq_error *err) {
    const nq_hyper *h = &n->m->hyper;
    expert_job j = {.n = n, .sum = f};
    NQ_TRY(nq_tmatrix_forward(n->choice.scores, t->router, n->in.n2, n->rows, n->work, err));
    nq_pool_run(n->m->pool, choose_task, n, nq_net_tasks(n->rows));
    if (f == NULL) {
        return NOVAQ_OK;
    }
    memset(f, 0, (uint64_t)n->rows * h->dim * sizeof *f);
    for (uint32_t e = 0; e < h->experts; e++) {
        collect(n, e);
        if (n->choice.count > 0) {
            NQ_TRY(run_expert(&j, t, e, err));
            nq_pool_run(n->m->pool, scatter_task, &j, nq_net_tasks(n->choice.count));
        }
    }
    nq_net_add_bias(n, f, &t->down_bias, h->dim);
    return NOVAQ_OK;
}

novaq_status nq_net_moe_backward(nq_net *n, const nq_tblock *t, const float *df, novaq_error *err) {
    const nq_hyper *h = &n->m->hyper;
    expert_job j = {.n = n, .sum = n->in.dn, .df = df};
    nq_net_bias_backward(n, &t->down_bias, df, h->dim);
    memset(n->in.dn, 0, (uint64_t)n->rows * h->dim * sizeof *n->in.dn);
    for (uint32_t e = 0; e < h->experts; e++) {
        collect(n, e);
        if (n->choice.count > 0) {
            NQ_TRY(back_expert(&j, t, e, err));
        }
    }
    nq_pool_run(n->m->pool, unchoose_task, n, nq_net_tasks(n->rows));
    return nq_net_back_matrix(n->in.dn, true, n, t->router, n->choice.dscores, n->in.n2, n->rows,
                              err);
}

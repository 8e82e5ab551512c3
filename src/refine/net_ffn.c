/* net_ffn.c - see net_impl.h: feed-forward layers, gated and plain. */
#include "base/cpu.h"
#include "model/vec.h"
#include "refine/net_impl.h"

/* Elements of one piece: compilers vectorise each pass over it, but not their fusion. */
#define PIECE 256

nq_gates nq_net_gates(const nq_net *n, float *gu, nq_gating g, uint64_t rows) {
    uint64_t ff = n->m->hyper.ff;
    if (g.fused) {
        return (nq_gates){gu, gu + ff, 2 * ff};
    }
    return g.gated ? (nq_gates){gu, gu + rows * ff, ff} : (nq_gates){NULL, gu, ff};
}

nq_gating nq_net_gating(const nq_tblock *t) {
    return (nq_gating){.fused = t->gate_up != NULL, .gated = t->gate_up != NULL || t->gate != NULL};
}

/* ---- activation ------------------------------------------------------------------- */

typedef struct act_job {
    const nq_net *n;
    nq_gates a; /* before the activation */
    nq_gates d; /* their gradients */
    float *act; /* (rows, ff), or its gradient */
    uint64_t rows;
} act_job;

static void activate_task(void *ctx, uint64_t task, unsigned worker) {
    const act_job *j = ctx;
    uint64_t ff = j->n->m->hyper.ff;
    bool silu = j->n->m->hyper.arch->activation == NQ_ACT_SILU;
    (void)worker;
    for (uint64_t i = 0; i < nq_net_task_rows(j->rows, task); i++) {
        uint64_t row = task * NQ_NET_TASK + i;
        const float *up = j->a.up + row * j->a.stride;
        const float *x = j->a.gate == NULL ? up : j->a.gate + row * j->a.stride;
        const float *by = j->a.gate == NULL ? NULL : up;
        if (silu) {
            nq_vec_silu(j->act + row * ff, x, by, ff);
        } else {
            nq_vec_gelu_tanh(j->act + row * ff, x, by, ff);
        }
    }
}

void nq_net_activate(nq_net *n, nq_gating g, uint64_t rows) {
    act_job j = {.n = n, .a = nq_net_gates(n, n->in.gu, g, rows), .act = n->in.act, .rows = rows};
    nq_pool_run(n->m->pool, activate_task, &j, nq_net_tasks(rows));
}

/* Both activations are x / (1 + exp(-z)): z = x, or z = a x + b x^3 (GELU by tanh, see
 * vec.c). u = -z, slope = dz/dx. */
NQ_CPU_CLONES static void exponents(float *restrict u, float *restrict slope,
                                    const float *restrict x, bool silu, uint64_t n) {
    const float a = silu ? 1.0F : 1.5957691216F;
    const float b = silu ? 0.0F : 0.0713548163F;
    for (uint64_t i = 0; i < n; i++) {
        float square = b * x[i] * x[i];
        u[i] = -x[i] * (a + square);
        slope[i] = a + 3.0F * square;
    }
}

/* With s = 1 / (1 + u), u = exp(-z): u becomes the activation x s, slope its derivative
 * s (1 + x (1 - s) dz/dx). */
NQ_CPU_CLONES static void derive(float *restrict u, float *restrict slope, const float *restrict x,
                                 uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        float s = 1.0F / (1.0F + u[i]);
        slope[i] = s * (1.0F + x[i] * (1.0F - s) * slope[i]);
        u[i] = x[i] * s;
    }
}

NQ_CPU_CLONES static void back_gated(float *restrict dgate, float *restrict dup,
                                     const float *restrict dact, const float *restrict up,
                                     const float *restrict y, const float *restrict slope,
                                     uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        dup[i] = dact[i] * y[i];
        dgate[i] = dact[i] * up[i] * slope[i];
    }
}

static void back_row(const act_job *j, uint64_t row) {
    uint64_t ff = j->n->m->hyper.ff;
    bool silu = j->n->m->hyper.arch->activation == NQ_ACT_SILU;
    float u[PIECE];
    float slope[PIECE];
    for (uint64_t at = 0; at < ff; at += PIECE) {
        uint64_t len = ff - at < PIECE ? ff - at : PIECE;
        uint64_t in = row * j->a.stride + at;
        const float *dact = j->act + row * ff + at;
        const float *x = (j->a.gate == NULL ? j->a.up : j->a.gate) + in;
        exponents(u, slope, x, silu, len);
        nq_vec_exp(u, len, 0.0F);
        derive(u, slope, x, len);
        if (j->a.gate != NULL) {
            back_gated(j->d.gate + in, j->d.up + in, dact, j->a.up + in, u, slope, len);
            continue;
        }
        for (uint64_t i = 0; i < len; i++) {
            j->d.up[in + i] = dact[i] * slope[i];
        }
    }
}

static void back_task(void *ctx, uint64_t task, unsigned worker) {
    const act_job *j = ctx;
    (void)worker;
    for (uint64_t i = 0; i < nq_net_task_rows(j->rows, task); i++) {
        back_row(j, task * NQ_NET_TASK + i);
    }
}

void nq_net_activate_backward(nq_net *n, nq_gating g, uint64_t rows) {
    act_job j = {.n = n,
                 .a = nq_net_gates(n, n->in.gu, g, rows),
                 .d = nq_net_gates(n, n->in.dgu, g, rows),
                 .act = n->in.dact,
                 .rows = rows};
    nq_pool_run(n->m->pool, back_task, &j, nq_net_tasks(rows));
}

/* ---- the layer -------------------------------------------------------------------------- */

novaq_status nq_net_ffn(float *f, nq_net *n, const nq_tblock *t, novaq_error *err) {
    nq_inside *in = &n->in;
    nq_gating g = nq_net_gating(t);
    nq_gates a = nq_net_gates(n, in->gu, g, n->rows);
    if (g.fused) {
        NQ_TRY(nq_tmatrix_forward(in->gu, t->gate_up, in->n2, n->rows, n->work, err));
    } else {
        if (g.gated) {
            NQ_TRY(nq_tmatrix_forward(a.gate, t->gate, in->n2, n->rows, n->work, err));
            nq_net_add_bias(n, a.gate, &t->gate_bias, a.stride);
        }
        NQ_TRY(nq_tmatrix_forward(a.up, t->up, in->n2, n->rows, n->work, err));
        nq_net_add_bias(n, a.up, &t->up_bias, a.stride);
    }
    nq_net_activate(n, g, n->rows);
    if (f != NULL) {
        NQ_TRY(nq_tmatrix_forward(f, t->down, in->act, n->rows, n->work, err));
        nq_net_add_bias(n, f, &t->down_bias, n->m->hyper.dim);
    }
    return NOVAQ_OK;
}

novaq_status nq_net_ffn_backward(nq_net *n, const nq_tblock *t, const float *df, novaq_error *err) {
    nq_inside *in = &n->in;
    nq_gating g = nq_net_gating(t);
    nq_gates d = nq_net_gates(n, in->dgu, g, n->rows);
    nq_net_bias_backward(n, &t->down_bias, df, n->m->hyper.dim);
    NQ_TRY(nq_net_back_matrix(in->dact, false, n, t->down, df, in->act, n->rows, err));
    nq_net_activate_backward(n, g, n->rows);
    if (g.fused) {
        return nq_net_back_matrix(in->dn, false, n, t->gate_up, in->dgu, in->n2, n->rows, err);
    }
    nq_net_bias_backward(n, &t->up_bias, d.up, d.stride);
    NQ_TRY(nq_net_back_matrix(in->dn, false, n, t->up, d.up, in->n2, n->rows, err));
    if (g.gated) {
        nq_net_bias_backward(n, &t->gate_bias, d.gate, d.stride);
        NQ_TRY(nq_net_back_matrix(in->dn, true, n, t->gate, d.gate, in->n2, n->rows, err));
    }
    return NOVAQ_OK;
}

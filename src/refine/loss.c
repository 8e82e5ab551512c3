/* loss.c - see loss.h. */
#include "refine/loss.h"

#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "model/vec.h"

typedef struct kl_job {
    const nq_loss_rows *rows;
    float *out; /* (n, vocab): gradients, or scratch */
    bool gradient;
    double *kl, *nll; /* (n) */
} kl_job;

NQ_CPU_CLONES static void subtract(float *out, const float *a, const float *b, float by,
                                   uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        out[i] = (a[i] - b[i]) * by;
    }
}

NQ_CPU_CLONES static void times(float *out, const float *a, float by, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        out[i] = a[i] * by;
    }
}

/* out = by_a * a - by_b * b; out may be a. */
NQ_CPU_CLONES static void mix(float *out, const float *a, float by_a, const float *b, float by_b,
                              uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        out[i] = by_a * a[i] - by_b * b[i];
    }
}

/* -log of the probability of the token that came. out: scratch. */
static double surprise(float *out, const float *logits, int32_t token, uint64_t n) {
    if (token < 0 || (uint64_t)token >= n) {
        return 0;
    }
    return nq_vec_logsumexp(logits, out, n) - (double)logits[token];
}

/* sum p_T (t - s) - log Z_T + log Z_S, where exponentials are taken of what lies above
 * each maximum. */
static void kl_task(void *ctx, uint64_t row, unsigned worker) {
    const kl_job *j = ctx;
    const nq_loss_rows *r = j->rows;
    (void)worker;
    const float *s = r->student + row * r->vocab;
    float *t = r->teacher + row * r->vocab;
    float *out = j->out + row * r->vocab;
    float by = 1.0F / r->temperature;
    j->nll[row] = r->next != NULL ? surprise(out, s, r->next[row], r->vocab) : 0;
    subtract(out, t, s, by, r->vocab);
    times(t, t, by, r->vocab);
    float max_t = nq_vec_max(t, r->vocab);
    nq_vec_exp(t, r->vocab, max_t);
    double zt = nq_vec_sum(t, r->vocab);
    double cross = nq_vec_dot(t, out, r->vocab) / zt;
    times(out, s, by, r->vocab);
    float max_s = nq_vec_max(out, r->vocab);
    nq_vec_exp(out, r->vocab, max_s);
    double zs = nq_vec_sum(out, r->vocab);
    double scale = (double)r->temperature * (double)r->temperature;
    j->kl[row] = scale * (cross - ((double)max_t + log(zt)) + ((double)max_s + log(zs)));
    if (j->gradient) {
        double w = (double)r->weight * (double)r->temperature;
        mix(out, out, (float)(w / zs), t, (float)(w / zt), r->vocab);
    }
}

/* In the order of the rows. scratch: (2, n) as the tasks left it. */
static void add_up(nq_loss_sums *sums, const double *scratch, const int32_t *next, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        sums->kl += scratch[i];
        sums->nll += scratch[n + i];
        sums->scored += next != NULL && next[i] >= 0;
    }
    sums->rows += n;
}

void nq_loss_kl(nq_loss_sums *sums, float *dlogits, const nq_loss_rows *rows, double *scratch,
                float *scratch_rows, nq_pool *pool) {
    kl_job j = {.rows = rows,
                .out = dlogits != NULL ? dlogits : scratch_rows,
                .gradient = dlogits != NULL,
                .kl = scratch,
                .nll = scratch + rows->n};
    nq_pool_run(pool, kl_task, &j, rows->n);
    add_up(sums, scratch, rows->next, rows->n);
}

/* ---- the largest predictions alone ---------------------------------------------------- */

/* A rest below it counts as this much, so that neither its logarithm nor what gradients are
 * divided by leaves what floats can hold. */
#define REST_LEAST 1e-30

typedef struct top_job {
    const nq_loss_top *rows;
    float *out; /* (n, vocab): gradients, or scratch */
    bool gradient;
    double *kl, *nll; /* (n) */
} top_job;

/* Exponentials of a row of the student, above its maximum, in two parts. */
typedef struct parts {
    double max, kept, rest;
} parts;

/* out (vocab) = exponentials of what is not kept, 0 for the others; kept (k) = those. */
static parts split(float *out, float *kept, const float *s, const uint32_t *ids, float by,
                   const nq_loss_top *r) {
    times(out, s, by, r->vocab);
    float max = nq_vec_max(out, r->vocab);
    nq_vec_exp(out, r->vocab, max);
    for (uint64_t i = 0; i < r->k; i++) {
        kept[i] = out[ids[i]];
        out[ids[i]] = 0;
    }
    double rest = nq_vec_sum(out, r->vocab);
    rest = rest < REST_LEAST ? REST_LEAST : rest; /* one that is no number stays */
    return (parts){(double)max, nq_vec_sum(kept, r->k), rest};
}

/* The teacher's logarithms t (k), at temperature 1 / by, become exponentials above their
 * maximum; their sum, and that of the rest with them. */
static parts exponentials(float *t, float by, float rest, uint64_t k) {
    times(t, t, by, k);
    float max = nq_vec_max(t, k);
    nq_vec_exp(t, k, max);
    return (parts){(double)max, nq_vec_sum(t, k), (double)rest * exp(-(double)max)};
}

static void top_gradient(float *out, const float *t, const float *kept, const uint32_t *ids,
                         uint64_t k, double by_rest, double by_s, double by_t, uint64_t vocab) {
    times(out, out, (float)by_rest, vocab);
    for (uint64_t i = 0; i < k; i++) {
        out[ids[i]] = (float)(by_s * (double)kept[i] - by_t * (double)t[i]);
    }
}

static void top_task(void *ctx, uint64_t row, unsigned worker) {
    const top_job *j = ctx;
    const nq_loss_top *r = j->rows;
    (void)worker;
    const float *s = r->student + row * r->vocab;
    const uint32_t *ids = r->ids + row * r->k;
    float *t = r->logs + row * r->k;
    float *kept = r->kept + row * r->k;
    float *out = j->out + row * r->vocab;
    float by = 1.0F / r->temperature;
    j->nll[row] = r->next != NULL ? surprise(out, s, r->next[row], r->vocab) : 0;
    double cross = 0; /* sum over the kept of exponentials times t - s, still logarithms */
    for (uint64_t i = 0; i < r->k; i++) {
        kept[i] = (t[i] - s[ids[i]]) * by;
    }
    parts p = exponentials(t, by, r->rest[row], r->k);
    cross = nq_vec_dot(t, kept, r->k);
    parts q = split(out, kept, s, ids, by, r);
    bool others = r->k < r->vocab;
    double zp = p.kept + (others ? p.rest : 0);
    double zq = q.kept + (others ? q.rest : 0);
    double rest = others ? p.rest / zp : 0;
    /* log p - log q = (t - s) - shift for the kept. */
    double shift = p.max + log(zp) - q.max - log(zq);
    double kl = (cross - p.kept * shift) / zp;
    kl += rest > 0 ? rest * (log(rest) - log(q.rest / zq)) : 0;
    j->kl[row] = (double)r->temperature * (double)r->temperature * kl;
    if (j->gradient) {
        double w = (double)r->weight * (double)r->temperature;
        top_gradient(out, t, kept, ids, r->k, w / zq * (1 - rest * zq / q.rest), w / zq, w / zp,
                     r->vocab);
    }
}

void nq_loss_kl_top(nq_loss_sums *sums, float *dlogits, const nq_loss_top *rows, double *scratch,
                    float *scratch_rows, nq_pool *pool) {
    top_job j = {.rows = rows,
                 .out = dlogits != NULL ? dlogits : scratch_rows,
                 .gradient = dlogits != NULL,
                 .kl = scratch,
                 .nll = scratch + rows->n};
    nq_pool_run(pool, top_task, &j, rows->n);
    add_up(sums, scratch, rows->next, rows->n);
}

typedef struct cosine_job {
    float *dstudent;
    const float *teacher, *student;
    uint64_t dim;
    float weight;
    double *loss;
} cosine_job;

static void cosine_task(void *ctx, uint64_t row, unsigned worker) {
    const cosine_job *j = ctx;
    (void)worker;
    const float *t = j->teacher + row * j->dim;
    const float *s = j->student + row * j->dim;
    double tt = nq_vec_dot(t, t, j->dim);
    double ss = nq_vec_dot(s, s, j->dim);
    double ts = nq_vec_dot(t, s, j->dim);
    j->loss[row] = 0;
    if (!(tt > 0) || !(ss > 0)) {
        return;
    }
    double norm = sqrt(tt) * sqrt(ss);
    j->loss[row] = 1 - ts / norm;
    float *d = j->dstudent != NULL ? j->dstudent + row * j->dim : NULL;
    float a = (float)((double)j->weight * ts / (norm * ss));
    float b = (float)((double)j->weight / norm);
    for (uint64_t i = 0; d != NULL && i < j->dim; i++) {
        d[i] += a * s[i] - b * t[i];
    }
}

double nq_loss_cosine(float *dstudent, const float *teacher, const float *student, uint64_t n,
                      uint64_t dim, float weight, double *scratch, nq_pool *pool) {
    cosine_job j = {.dstudent = dstudent,
                    .teacher = teacher,
                    .student = student,
                    .dim = dim,
                    .weight = weight,
                    .loss = scratch};
    double sum = 0;
    nq_pool_run(pool, cosine_task, &j, n);
    for (uint64_t i = 0; i < n; i++) {
        sum += scratch[i];
    }
    return sum;
}

double nq_loss_square(float *dstudent, const float *teacher, const float *student, uint64_t count,
                      float weight) {
    double sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        float d = student[i] - teacher[i];
        sum += (double)d * (double)d;
        if (dstudent != NULL) {
            dstudent[i] = 2 * weight * d;
        }
    }
    return sum;
}

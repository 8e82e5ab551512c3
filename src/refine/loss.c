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

void nq_loss_kl(nq_loss_sums *sums, float *dlogits, const nq_loss_rows *rows, double *scratch,
                float *scratch_rows, nq_pool *pool) {
    kl_job j = {.rows = rows,
                .out = dlogits != NULL ? dlogits : scratch_rows,
                .gradient = dlogits != NULL,
                .kl = scratch,
                .nll = scratch + rows->n};
    nq_pool_run(pool, kl_task, &j, rows->n);
    for (uint64_t i = 0; i < rows->n; i++) {
        sums->kl += j.kl[i];
        sums->nll += j.nll[i];
        sums->scored += rows->next != NULL && rows->next[i] >= 0;
    }
    sums->rows += rows->n;
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

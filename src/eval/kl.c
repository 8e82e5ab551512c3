/* kl.c - see eval.h: comparing two distributions, and the statistics of many
 * positions. Figures and percentiles are defined as llama-perplexity
 * --kl-divergence defines them; against a model instead of a file without its
 * 16-bit rounding of the base. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "eval/eval.h"
#include "model/vec.h"

nq_position nq_score_position(const float *q, const float *p, float *scratch, uint32_t vocab,
                              int32_t next) {
    nq_position out = {0};
    double lq = nq_vec_logsumexp(q, scratch, vocab);
    out.nll = lq - (double)q[next];
    if (p == NULL) {
        return out;
    }
    double lp = nq_vec_logsumexp(p, scratch, vocab);
    float shift_p = (float)lp;
    float shift_q = (float)lq;
    out.nll_base = lp - (double)p[next];
    memcpy(scratch, p, vocab * sizeof *p);
    nq_vec_exp(scratch, vocab, shift_p);
    for (uint32_t i = 0; i < vocab; i++) {
        scratch[i] *= (p[i] - shift_p) - (q[i] - shift_q);
    }
    out.kld = nq_vec_sum(scratch, vocab);
    out.same_top = nq_vec_argmax(p, vocab) == nq_vec_argmax(q, vocab) ? 1.0 : 0.0;
    return out;
}

#define STORED_MIN (-16.0F)

nq_position nq_score_stored(const float *q, const float *logp, float *scratch, uint32_t vocab,
                            int32_t next) {
    nq_position out = {0};
    double lq = nq_vec_logsumexp(q, scratch, vocab);
    float shift_q = (float)lq;
    out.nll = lq - (double)q[next];
    out.nll_base = -(double)logp[next];
    for (uint32_t i = 0; i < vocab; i++) {
        scratch[i] = logp[i] > STORED_MIN ? logp[i] : -1000.0F; /* e^-1000 is 0 */
    }
    nq_vec_exp(scratch, vocab, 0);
    for (uint32_t i = 0; i < vocab; i++) {
        scratch[i] *= logp[i] - (q[i] - shift_q);
    }
    out.kld = nq_vec_sum(scratch, vocab);
    out.same_top = nq_vec_argmax(logp, vocab) == nq_vec_argmax(q, vocab) ? 1.0 : 0.0;
    return out;
}

nq_mean nq_mean_of(double sum, double sum2, uint64_t n) {
    nq_mean m = {0};
    if (n == 0) {
        return m;
    }
    m.mean = sum / (double)n;
    double variance = sum2 / (double)n - m.mean * m.mean;
    if (variance > 0 && n > 1) {
        m.stderror = sqrt(variance / (double)(n - 1));
    }
    return m;
}

typedef struct sums {
    double nll, nll2, base, base2, cross;
    double kld, kld2, dp, dp2, dp4, same;
} sums;

static void add_position(sums *s, const nq_position *p) {
    double dp = exp(-p->nll) - exp(-p->nll_base);
    s->nll += p->nll;
    s->nll2 += p->nll * p->nll;
    s->base += p->nll_base;
    s->base2 += p->nll_base * p->nll_base;
    s->cross += p->nll * p->nll_base;
    s->kld += p->kld;
    s->kld2 += p->kld * p->kld;
    s->dp += dp;
    s->dp2 += dp * dp;
    s->dp4 += dp * dp * dp * dp;
    s->same += p->same_top;
}

static int ascending(const void *a, const void *b) {
    const double *x = a;
    const double *y = b;
    return *x < *y ? -1 : *x > *y ? 1 : 0;
}

/* Linear interpolation between the ranks around fraction * (n - 1). */
static double percentile(const double *sorted, uint64_t n, double fraction) {
    double at = fraction * (double)(n - 1);
    uint64_t low = (uint64_t)at;
    uint64_t high = low + 1 < n ? low + 1 : low;
    double part = at - (double)low;
    return (1.0 - part) * sorted[low] + part * sorted[high];
}

static novaq_status put(json_t *o, const char *key, double value, novaq_error *err) {
    if (json_object_set_new(o, key, json_real(value)) != 0) {
        return nq_fail(err, NOVAQ_E_NUMERIC, "%s is no number", key);
    }
    return NOVAQ_OK;
}

typedef struct quantile {
    const char *key;
    double fraction;
} quantile;

static novaq_status put_quantiles(json_t *o, double *values, uint64_t n, const quantile *q,
                                  novaq_error *err) {
    qsort(values, n, sizeof *values, ascending);
    for (; q->key != NULL; q++) {
        NQ_TRY(put(o, q->key, percentile(values, n, q->fraction), err));
    }
    return NOVAQ_OK;
}

static novaq_status put_percentiles(json_t *o, const nq_position *p, uint64_t n, novaq_error *err) {
    static const quantile of_kld[] = {{"kld_max", 1},     {"kld_999", 0.999}, {"kld_99", 0.99},
                                      {"kld_95", 0.95},   {"kld_90", 0.9},    {"kld_median", 0.5},
                                      {"kld_10", 0.1},    {"kld_05", 0.05},   {"kld_01", 0.01},
                                      {"kld_001", 0.001}, {"kld_min", 0},     {NULL, 0}};
    static const quantile of_dp[] = {
        {"dp_max", 1},   {"dp_99", 0.99}, {"dp_95", 0.95}, {"dp_75", 0.75}, {"dp_median", 0.5},
        {"dp_25", 0.25}, {"dp_05", 0.05}, {"dp_01", 0.01}, {"dp_min", 0},   {NULL, 0}};
    double *values = NULL;
    NQ_TRY(nq_alloc_raw(&values, n, sizeof *values, err));
    for (uint64_t i = 0; i < n; i++) {
        values[i] = p[i].kld;
    }
    novaq_status st = put_quantiles(o, values, n, of_kld, err);
    for (uint64_t i = 0; i < n; i++) {
        values[i] = exp(-p[i].nll) - exp(-p[i].nll_base);
    }
    if (st == NOVAQ_OK) {
        st = put_quantiles(o, values, n, of_dp, err);
    }
    nq_free(values);
    return st;
}

static novaq_status put_base(json_t *o, const sums *s, const nq_position *p, uint64_t n,
                             novaq_error *err) {
    nq_mean a = nq_mean_of(s->nll, s->nll2, n);
    nq_mean b = nq_mean_of(s->base, s->base2, n);
    nq_mean kld = nq_mean_of(s->kld, s->kld2, n);
    nq_mean dp = nq_mean_of(s->dp, s->dp2, n);
    nq_mean mse = nq_mean_of(s->dp2, s->dp4, n);
    double rms = sqrt(mse.mean);
    double same = s->same / (double)n;
    double cov = n < 2 ? 0 : (s->cross / (double)n - a.mean * b.mean) / (double)(n - 1);
    double var = a.stderror * a.stderror + b.stderror * b.stderror - 2.0 * cov;
    NQ_TRY(put(o, "perplexity_against", exp(b.mean), err));
    NQ_TRY(put(o, "perplexity_against_stderr", exp(b.mean) * b.stderror, err));
    NQ_TRY(put(o, "perplexity_correlation",
               a.stderror > 0 && b.stderror > 0 ? cov / (a.stderror * b.stderror) : 0, err));
    NQ_TRY(put(o, "ln_ratio", a.mean - b.mean, err));
    NQ_TRY(put(o, "ln_ratio_stderr", var > 0 ? sqrt(var) : 0, err));
    NQ_TRY(put(o, "mean_kld", kld.mean, err));
    NQ_TRY(put(o, "mean_kld_stderr", kld.stderror, err));
    NQ_TRY(put_percentiles(o, p, n, err));
    NQ_TRY(put(o, "same_top", same, err));
    NQ_TRY(put(o, "same_top_stderr", n < 2 ? 0 : sqrt(same * (1.0 - same) / (double)(n - 1)), err));
    NQ_TRY(put(o, "mean_dp", dp.mean, err));
    NQ_TRY(put(o, "mean_dp_stderr", dp.stderror, err));
    NQ_TRY(put(o, "rms_dp", rms, err));
    return put(o, "rms_dp_stderr", rms > 0 ? 0.5 / rms * mse.stderror : 0, err);
}

novaq_status nq_summarize(json_t *report, const nq_position *p, uint64_t n, int with_base,
                          novaq_error *err) {
    sums s = {0};
    for (uint64_t i = 0; i < n; i++) {
        add_position(&s, &p[i]);
    }
    nq_mean nll = nq_mean_of(s.nll, s.nll2, n);
    NQ_TRY(put(report, "perplexity", exp(nll.mean), err));
    NQ_TRY(put(report, "perplexity_stderr", exp(nll.mean) * nll.stderror, err));
    return with_base ? put_base(report, &s, p, n, err) : NOVAQ_OK;
}

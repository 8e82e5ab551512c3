/* sampler.c - see sampler.h. */
#include "model/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/rng.h"
#include "model/vec.h"

typedef struct candidate {
    float logit;
    float p;
    int32_t token;
} candidate;

struct nq_sampler {
    nq_sampling set;
    uint32_t vocab;
    uint64_t step;
    uint64_t stream;
    candidate *list; /* (vocab) */
    int32_t recent[NQ_REPEAT_WINDOW];
    uint32_t accepted; /* tokens ever accepted; the last window of them count */
};

static novaq_status check(const nq_sampling *s, novaq_error *err) {
    if (!(s->temperature >= 0.0F && s->temperature <= 1e4F)) {
        return nq_fail(err, NOVAQ_E_ARG, "temperature %g: must be 0 or more",
                       (double)s->temperature);
    }
    if (!(s->top_p > 0.0F && s->top_p <= 1.0F)) {
        return nq_fail(err, NOVAQ_E_ARG, "top-p %g: must be above 0 and at most 1",
                       (double)s->top_p);
    }
    if (!(s->min_p >= 0.0F && s->min_p <= 1.0F)) {
        return nq_fail(err, NOVAQ_E_ARG, "min-p %g: must be 0 to 1", (double)s->min_p);
    }
    if (!(s->repeat_penalty > 0.0F && s->repeat_penalty <= 100.0F)) {
        return nq_fail(err, NOVAQ_E_ARG, "repeat penalty %g: must be above 0",
                       (double)s->repeat_penalty);
    }
    return NOVAQ_OK;
}

novaq_status nq_sampler_open(nq_sampler **out, const nq_sampling *set, uint32_t vocab,
                             novaq_error *err) {
    *out = NULL;
    nq_sampler *s = NULL;
    NQ_TRY(check(set, err));
    NQ_TRY(nq_alloc(&s, 1, sizeof *s, err));
    s->set = *set;
    s->vocab = vocab;
    s->stream = nq_stream("sampler");
    novaq_status st = nq_alloc(&s->list, vocab, sizeof *s->list, err);
    if (st != NOVAQ_OK) {
        nq_sampler_close(&s);
    }
    *out = s;
    return st;
}

void nq_sampler_close(nq_sampler **ps) {
    nq_sampler *s = *ps;
    *ps = NULL;
    if (s != NULL) {
        nq_free(s->list);
        nq_free(s);
    }
}

void nq_sampler_accept(nq_sampler *s, int32_t token) {
    s->recent[s->accepted++ % NQ_REPEAT_WINDOW] = token;
}

/* Each token of the window is made less likely once, however often it came. */
static void penalize(const nq_sampler *s, float *logits) {
    uint32_t n = s->accepted < NQ_REPEAT_WINDOW ? s->accepted : NQ_REPEAT_WINDOW;
    for (uint32_t i = 0; i < n; i++) {
        int32_t token = s->recent[i];
        bool seen = token < 0 || (uint32_t)token >= s->vocab;
        for (uint32_t k = 0; k < i && !seen; k++) {
            seen = s->recent[k] == token;
        }
        if (!seen) {
            logits[token] = logits[token] > 0 ? logits[token] / s->set.repeat_penalty
                                              : logits[token] * s->set.repeat_penalty;
        }
    }
}

/* The better candidate: higher logit, then lower id, so that ties are decided. */
static bool better(const candidate *a, const candidate *b) {
    return a->logit > b->logit || (a->logit == b->logit && a->token < b->token);
}

static int by_rank(const void *a, const void *b) {
    return better(a, b) ? -1 : better(b, a) ? 1 : 0;
}

/* Moves list[i] down a heap whose root is the worst of n candidates. */
static void sift(candidate *list, uint32_t n, uint32_t i) {
    for (;;) {
        uint32_t worst = i;
        for (uint32_t c = 2 * i + 1; c <= 2 * i + 2 && c < n; c++) {
            if (better(&list[worst], &list[c])) {
                worst = c;
            }
        }
        if (worst == i) {
            return;
        }
        candidate t = list[i];
        list[i] = list[worst];
        list[worst] = t;
        i = worst;
    }
}

/* The k best of the logits, best first. */
static void select_best(nq_sampler *s, const float *logits, uint32_t k) {
    candidate *list = s->list;
    for (uint32_t i = 0; i < s->vocab; i++) {
        candidate c = {.logit = logits[i], .token = (int32_t)i};
        if (i < k) {
            list[i] = c;
            for (uint32_t j = k / 2; i + 1 == k && j-- > 0;) {
                sift(list, k, j);
            }
        } else if (better(&c, &list[0])) {
            list[0] = c;
            sift(list, k, 0);
        }
    }
    qsort(list, k, sizeof *list, by_rank);
}

/* Probabilities at temperature t of the n candidates, best first. */
static void probabilities(candidate *list, uint32_t n, double t) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        list[i].p = (float)exp((double)(list[i].logit - list[0].logit) / t);
        sum += (double)list[i].p;
    }
    for (uint32_t i = 0; i < n; i++) {
        list[i].p = (float)((double)list[i].p / sum);
    }
}

/* How many candidates remain after top-p and min-p. */
static uint32_t truncate_tail(const nq_sampler *s, uint32_t n) {
    double sum = 0;
    uint32_t keep = 0;
    while (keep < n && (keep == 0 || sum < (double)s->set.top_p || s->set.top_p >= 1.0F)) {
        if (keep > 0 && s->list[keep].p < s->set.min_p * s->list[0].p) {
            break;
        }
        sum += (double)s->list[keep++].p;
    }
    return keep;
}

novaq_status nq_sampler_draw(int32_t *token, nq_sampler *s, float *logits, novaq_error *err) {
    *token = -1;
    for (uint32_t i = 0; i < s->vocab; i++) {
        if (!isfinite(logits[i])) {
            return nq_fail(err, NOVAQ_E_NUMERIC, "the model computed a logit that is no number");
        }
    }
    if (s->set.repeat_penalty != 1.0F) {
        penalize(s, logits);
    }
    uint64_t step = s->step++;
    if (s->set.temperature == 0.0F) {
        *token = (int32_t)nq_vec_argmax(logits, s->vocab);
        return NOVAQ_OK;
    }
    uint32_t n = s->set.top_k == 0 || s->set.top_k > s->vocab ? s->vocab : s->set.top_k;
    select_best(s, logits, n);
    probabilities(s->list, n, 1.0);
    n = truncate_tail(s, n);
    probabilities(s->list, n, (double)s->set.temperature);
    double u = nq_uniform(s->set.seed, s->stream, step);
    uint32_t pick = 0;
    for (double sum = (double)s->list[0].p; pick + 1 < n && u >= sum; pick++) {
        sum += (double)s->list[pick + 1].p;
    }
    *token = s->list[pick].token;
    return NOVAQ_OK;
}

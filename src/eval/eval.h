/* eval.h - measuring a model on a text.
 *
 * Owns: the protocol of llama-perplexity: the tokenised text is cut into
 * windows of n_ctx tokens, the first replaced by BOS where the model wants one;
 * positions n_ctx/2 to n_ctx-2 of each window predict their next token; the
 * standard error is that of the mean negative log-likelihood. Refuses: clocks.
 */
#ifndef NQ_EVAL_EVAL_H
#define NQ_EVAL_EVAL_H

#include "eval/kl_base.h"
#include "model/model.h"

typedef struct nq_windows {
    const int32_t *tokens; /* (at least chunks * n_ctx), borrowed */
    uint32_t n_ctx;        /* 4 or more */
    uint32_t chunks;
    int32_t bos; /* replaces the first token of a window; -1: none */
} nq_windows;

/* One scored position. All but nll need a base model; 0 without. */
typedef struct nq_position {
    double nll;      /* -log p(next), nats */
    double nll_base; /* -log p_base(next) */
    double kld;      /* KL(p_base || p) over the vocabulary */
    double same_top; /* 1 when both rank the same token first */
} nq_position;

/* Positions scored in each window. */
uint32_t nq_windows_scored(const nq_windows *w);

/* What is scored, against what, and what is kept of it. */
typedef struct nq_scoring {
    const nq_model *model;
    const nq_model *base;   /* the reference, of the same vocabulary; or NULL */
    const nq_kl_base *file; /* the reference's predictions for these windows; or NULL */
    nq_outfile *save;       /* receives the rows of the model's own predictions; or NULL */
    const nq_windows *w;
    novaq_progress_fn progress; /* may be NULL */
    void *progress_ctx;
} nq_scoring;

/* Scores every window: out (chunks * nq_windows_scored()). At most one of base
 * and file. */
NOVAQ_CHECK novaq_status nq_score(nq_position *out, const nq_scoring *what, novaq_error *err);

/* One position: logits q and base p (p may be NULL) of the given vocabulary;
 * scratch holds vocab floats. */
nq_position nq_score_position(const float *q, const float *p, float *scratch, uint32_t vocab,
                              int32_t next);
/* The same against stored log-probabilities, by llama-perplexity's formula: they
 * are not normalised again, and what is less likely than e^-16 does not count. */
nq_position nq_score_stored(const float *q, const float *logp, float *scratch, uint32_t vocab,
                            int32_t next);

typedef struct nq_mean {
    double mean;
    double stderror; /* of the mean */
} nq_mean;
/* From sums of n values and of their squares, as llama-perplexity does. */
nq_mean nq_mean_of(double sum, double sum2, uint64_t n);

/* Adds perplexity and perplexity_stderr; with_base also the KL statistics. */
NOVAQ_CHECK novaq_status nq_summarize(json_t *report, const nq_position *p, uint64_t n,
                                      int with_base, novaq_error *err);

/* Mean KL that each coded matrix of `model` causes alone, when it takes its
 * place in `base`, over the second half of the first window of at most
 * NQ_LAYER_TOKENS tokens. base is left as it was. */
#define NQ_LAYER_TOKENS 256
NOVAQ_CHECK novaq_status nq_layer_kld(json_t **out, nq_model *base, nq_model *model,
                                      const nq_windows *w, novaq_progress_fn progress,
                                      void *progress_ctx, novaq_error *err);

#endif

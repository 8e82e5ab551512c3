/* sampler.h - choosing the next token from logits.
 *
 * Owns: repeat penalty, top-k, top-p, min-p, temperature, in that order, and a
 * draw that is a hash of (seed, step): the same seed gives the same text on any
 * number of threads. Refuses: logits that are not numbers.
 */
#ifndef NQ_MODEL_SAMPLER_H
#define NQ_MODEL_SAMPLER_H

#include <stdint.h>

#include "base/status.h"

/* Tokens that the repeat penalty looks back on. */
#define NQ_REPEAT_WINDOW 64

typedef struct nq_sampling {
    float temperature;    /* 0: the most likely token */
    uint32_t top_k;       /* 0: off */
    float top_p;          /* 1: off */
    float min_p;          /* 0: off */
    float repeat_penalty; /* 1: off */
    uint64_t seed;
} nq_sampling;

typedef struct nq_sampler nq_sampler;

/* NOVAQ_E_ARG when a setting is out of range. */
NOVAQ_CHECK novaq_status nq_sampler_open(nq_sampler **out, const nq_sampling *s, uint32_t vocab,
                                         novaq_error *err);
void nq_sampler_close(nq_sampler **s);
/* Remembers a token for the repeat penalty (prompt and generated alike). */
void nq_sampler_accept(nq_sampler *s, int32_t token);
/* Draws from logits (vocab), which it may change. */
NOVAQ_CHECK novaq_status nq_sampler_draw(int32_t *token, nq_sampler *s, float *logits,
                                         novaq_error *err);

#endif

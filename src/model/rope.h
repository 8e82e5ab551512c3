/* rope.h - rotary position embedding: the table of angles and turning heads by it.
 *
 * Owns: the scalings of the angles (linear; Llama 3.1; YaRN, Peng et al. 2023,
 * arXiv 2309.00071 sections 3.1-3.4; longrope, Ding et al. 2024, arXiv 2402.13753)
 * and the turn itself. Refuses: reading them from files, see hyper.h.
 */
#ifndef NQ_MODEL_ROPE_H
#define NQ_MODEL_ROPE_H

#include <stdbool.h>

#include "base/status.h"

typedef enum nq_rope_scaling {
    NQ_ROPE_PLAIN,
    NQ_ROPE_LINEAR,
    NQ_ROPE_LLAMA3,
    NQ_ROPE_YARN,
    NQ_ROPE_LONG
} nq_rope_scaling;

/* How one kind of layer turns its heads. */
typedef struct nq_rope_spec {
    uint32_t dim; /* leading components of a head that turn, even */
    bool half;    /* pairs (i, i + dim/2) instead of (2i, 2i+1) */
    double theta;
    nq_rope_scaling scaling;
    double factor;               /* LINEAR, LLAMA3, YARN, LONG: context grows by this, >= 1 */
    double low_freq_factor;      /* LLAMA3 */
    double high_freq_factor;     /* LLAMA3 */
    double old_context;          /* LLAMA3, YARN, LONG: original context length */
    double beta_fast;            /* YARN, 32 by default */
    double beta_slow;            /* YARN, 1 by default */
    double attention_factor;     /* YARN, LONG: of cosines and sines; 0 = by the scaling */
    const float *divisors;       /* (dim/2) divisors of the angles, or NULL; borrowed. LONG: of the
                                    long regime */
    const float *short_divisors; /* LONG: (dim/2) used while n_ctx <= old_context */
} nq_rope_spec;

typedef struct nq_rope {
    uint32_t dim;
    uint32_t n_ctx;
    bool half;
    float *cosine; /* (n_ctx, dim/2) */
    float *sine;   /* (n_ctx, dim/2) */
} nq_rope;

/* Angle per position of pair i, scaling and divisors applied. n_ctx decides the
 * regime of LONG. */
double nq_rope_angle(const nq_rope_spec *s, uint32_t i, uint32_t n_ctx);
/* The factor of cosines and sines. */
double nq_rope_magnitude(const nq_rope_spec *s);
NOVAQ_CHECK novaq_status nq_rope_open(nq_rope *out, const nq_rope_spec *s, uint32_t n_ctx,
                                      novaq_error *err);
void nq_rope_close(nq_rope *r);
/* Turns one head (dim leading components) to position p < n_ctx, in place. */
void nq_rope_turn(const nq_rope *r, float *head, uint32_t p);

#endif

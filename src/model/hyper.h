/* hyper.h - the hyperparameters of a runnable model, checked.
 *
 * Owns: reading the "hyperparameters" object of a description (describe.h),
 * which is untrusted, into plain numbers inside hard bounds. Refuses: defaults;
 * a missing number is an error.
 */
#ifndef NQ_MODEL_HYPER_H
#define NQ_MODEL_HYPER_H

#include "base/json.h"
#include "model/arch.h"

typedef enum nq_rope_scaling { NQ_ROPE_PLAIN, NQ_ROPE_LINEAR, NQ_ROPE_LLAMA3 } nq_rope_scaling;

typedef struct nq_hyper {
    const nq_arch *arch;
    nq_spelling spelling;
    uint32_t blocks;
    uint32_t context; /* longest context the model was made for */
    uint32_t dim;     /* width of the residual stream */
    uint32_t ff;      /* width of the feed-forward layer */
    uint32_t heads;
    uint32_t heads_kv; /* divides heads */
    uint32_t head_dim; /* even */
    uint32_t rope_dim; /* even, at most head_dim */
    uint32_t vocab;
    bool rope_half; /* pairs (i, i + rope_dim/2) instead of (2i, 2i+1) */
    bool tied;      /* the head is the embedding */
    double rms_eps;
    double rope_theta;
    nq_rope_scaling scaling;
    double scale_factor;      /* LINEAR, LLAMA3 */
    double low_freq_factor;   /* LLAMA3 */
    double high_freq_factor;  /* LLAMA3 */
    double scale_old_context; /* LLAMA3 */
} nq_hyper;

/* name: the model's path, for messages. NOVAQ_E_UNSUPPORTED names an
 * architecture or feature the runtime does not run. */
NOVAQ_CHECK novaq_status nq_hyper_read(nq_hyper *out, const json_t *model, const char *name,
                                       novaq_error *err);
/* Angle per position of rotary pair i of rope_dim/2, scaling applied. */
double nq_rope_frequency(const nq_hyper *h, uint32_t i);

#endif

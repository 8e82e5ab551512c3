/* refine.h - a student learns from its teacher.
 *
 * Owns: the loop of refinement: batches, teacher and student in step, measuring on
 * windows held out, choosing the best, taking back what went wrong, checkpoints.
 * Refuses: opening models and texts (compress/refine_run.c), writing artifacts (save.h).
 *
 * What is measured are values as they would be stored (round.h), those of the step and the
 * running mean of them; the better ones are chosen, and the result is never worse on the
 * held-out windows than what came in. However a run ends once it has begun, it leaves a
 * checkpoint, also when it is done: what is left to do then may fail. Same inputs and options,
 * same values, for any number of threads on one machine and however often a run was
 * interrupted.
 */
#ifndef NQ_REFINE_REFINE_H
#define NQ_REFINE_REFINE_H

#include "base/sha256.h"
#include "refine/adam.h"
#include "refine/teacher.h"

typedef struct nq_refine_event {
    uint32_t step, steps; /* done, in all */
    double kl;            /* of the last batch, nats a token; NaN before the first */
    double hidden;        /* 1 - cos, mean over tokens and blocks; NaN when not computed */
    double rate;          /* share of the full rate */
    bool measured;        /* whether this step was measured: */
    double held_kl, held_perplexity;
    uint32_t best_step;
    double best_kl;
    double seconds, eta; /* since this run began; until the end, NaN when not known */
    bool rolled_back;    /* what came since the last measurement was given up */
    const char *warning; /* of what failed without ending the run, or NULL */
} nq_refine_event;

/* Between and within steps (`within`: only to ask whether to go on). A status other
 * than OK ends the run with it. */
typedef novaq_status (*nq_refine_fn)(void *ctx, const nq_refine_event *e, bool within,
                                     novaq_error *err);

typedef struct nq_refine_options {
    nq_adam_options adam; /* its steps: of the whole run */
    uint32_t batch;       /* sequences a step */
    float temperature;
    float lambda; /* of 1 - cos of residual streams, mean over tokens, sum over blocks */
    uint64_t seed;
    uint32_t every;                   /* steps from one measurement to the next; 0: by steps */
    uint32_t patience;                /* measurements without a gain that end the run, once the
                                         rate has come down to a third */
    const char *checkpoint;           /* path, or NULL: none */
    char identity[NQ_SHA256_HEX + 1]; /* of everything the result depends on */
    nq_refine_fn fn;
    void *ctx;
} nq_refine_options;

typedef struct nq_refine_result {
    uint32_t steps, best_step; /* 0: nothing was better than what came in */
    uint32_t rolled_back;
    uint32_t resumed; /* the step a checkpoint was read at; 0: none */
    uint32_t checkpoints_failed;
    double base_kl, base_perplexity, best_kl, best_perplexity;
} nq_refine_result;

/* Windows held out of so many: a twelfth, 1 to 8. */
uint32_t nq_refine_held_out(uint32_t sequences);
/* Bytes a run takes beside the models' and the nets' own, at most. */
uint64_t nq_refine_bytes(nq_net *student, const nq_hyper *hyper, const nq_teacher_from *teacher,
                         const nq_refine_data *data, const nq_refine_options *opt);

/* The student's values become the best found, not yet rounded: saving rounds them, and
 * rounding twice is not rounding once. `weights` are the student's artifact;
 * teacher has the same vocabulary, and with a file lambda is 0. The checkpoint stays. */
NOVAQ_CHECK novaq_status nq_refine_run(nq_refine_result *out, nq_net *student,
                                       const nq_weights *weights, const nq_teacher_from *teacher,
                                       const nq_hyper *hyper, nq_pool *pool,
                                       const nq_refine_data *data, const nq_refine_options *opt,
                                       novaq_error *err);

#endif

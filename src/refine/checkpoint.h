/* checkpoint.h - the state of a refinement, in memory and on disk.
 *
 * Owns: every number a run depends on from one step to the next, and a file of them:
 * "NQREFINE", version, the run's identity, the numbers as this machine has them, their
 * SHA-256. Refuses: files of another run, another machine's or damaged ones: such a
 * file is as good as none.
 */
#ifndef NQ_REFINE_CHECKPOINT_H
#define NQ_REFINE_CHECKPOINT_H

#include "refine/refine.h"

/* Written to disk as it is. */
typedef struct nq_refine_numbers {
    uint32_t step, taken, best_step, good_step, stale, rolled_back;
    uint32_t due, spare;          /* the step is still to be measured */
    double usual, share;          /* of the optimiser */
    double usual_loss, last_good; /* running mean; held-out divergence of `good` */
    double base_kl, base_nll, best_kl, best_nll;
} nq_refine_numbers;

typedef struct nq_refine_state {
    nq_refine_numbers n;
    nq_adam adam;
    float *best; /* (adam.total) values with the least divergence, before rounding */
    float *good; /* (adam.total) values to go back to */
    float *mean; /* (adam.total) running mean of the values over the steps */
    float *keep; /* (adam.total) scratch */
} nq_refine_state;

NOVAQ_CHECK novaq_status nq_refine_state_open(nq_refine_state *s, nq_param *params, size_t count,
                                              const nq_adam_options *opt, novaq_error *err);
void nq_refine_state_close(nq_refine_state *s);
/* Arrays of adam.total floats that a state and the writing of its checkpoint take. */
#define NQ_REFINE_STATE_ARRAYS 14

typedef enum nq_checkpoint_file {
    NQ_CHECKPOINT_NONE,  /* there is no file */
    NQ_CHECKPOINT_ALIEN, /* it is no checkpoint, or cannot be read */
    NQ_CHECKPOINT_OTHER, /* of another run, or of another version */
    NQ_CHECKPOINT_SAME   /* of this identity, if it is not damaged */
} nq_checkpoint_file;
/* What is at `path`, by its beginning. identity NULL: none is the same. */
nq_checkpoint_file nq_checkpoint_look(const char *path, const char *identity);
/* Removes a checkpoint, whose ever it is; anything else stays. */
void nq_checkpoint_remove(const char *path);

NOVAQ_CHECK novaq_status nq_checkpoint_write(const char *path, nq_refine_state *s,
                                             const char *identity, novaq_error *err);
/* *found: whether there was a checkpoint of this identity; if not, s is as it was. */
NOVAQ_CHECK novaq_status nq_checkpoint_read(bool *found, const char *path, nq_refine_state *s,
                                            const char *identity, novaq_error *err);

#endif

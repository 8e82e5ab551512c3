/* adam.h - steps along gradients.
 *
 * Owns: Adam (Kingma & Ba 2014) over a list of parameters, each measured in a unit of
 * its own so that one rate fits all; warm-up and cosine decay; the limit on gradients
 * that are far larger than usual. Refuses: deciding what is good; its whole state is
 * plain arrays that can be saved and put back.
 */
#ifndef NQ_REFINE_ADAM_H
#define NQ_REFINE_ADAM_H

#include <stdbool.h>

#include "refine/param.h"

typedef struct nq_adam_options {
    double rate[NQ_PARAM_KINDS]; /* at the height of the schedule; 0: such are not learnt */
    uint32_t steps;              /* of the whole schedule */
    uint32_t warmup;             /* steps of rising rate */
    double last;                 /* share of the rate that is left at the end */
    double beta1, beta2;
    double clip; /* gradients are at most so many times as long as usual; 0: no limit */
} nq_adam_options;

#define NQ_ADAM_OPTIONS_INIT                                                                       \
    { {3e-3, 3e-3, 3e-3, 0, 3e-3, 3e-3}, 100, 5, 0.05, 0.9, 0.95, 4 }

typedef struct nq_adam {
    nq_adam_options opt;
    nq_param *params; /* (count), borrowed */
    size_t count;
    uint64_t total;   /* values in all */
    float *unit;      /* (total) what a change of 1 is, constant; to be filled in */
    float *moment[2]; /* (total) means of gradients and of their squares, per unit */
    uint32_t step;    /* done */
    uint32_t taken;   /* by the moments: fewer after they were forgotten */
    double usual;     /* length of gradients, a running mean; 0 at first */
    double share;     /* of the rate, 1 at first */
    double norm;      /* of the last gradient */
} nq_adam;

/* params (count) must outlive *out. unit is 1 everywhere. */
NOVAQ_CHECK novaq_status nq_adam_open(nq_adam *out, nq_param *params, size_t count,
                                      const nq_adam_options *opt, novaq_error *err);
void nq_adam_close(nq_adam *a);
/* Share of the rate of kind's that step `step` (from 0) takes by the schedule. */
double nq_adam_schedule(const nq_adam_options *opt, uint32_t step);
/* Length of the gradients per unit; NaN or infinity when one is. */
double nq_adam_norm(const nq_adam *a);
/* One step down. The gradients are used up (not zeroed). false, and nothing is changed,
 * when they hold no finite numbers. */
bool nq_adam_step(nq_adam *a);
/* The parameters' values to one array (total), and back. */
void nq_adam_gather(float *out, const nq_adam *a);
void nq_adam_scatter(const nq_adam *a, const float *from);

#endif

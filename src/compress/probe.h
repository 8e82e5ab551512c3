/* probe.h - what inputs the matrices of a model see.
 *
 * Owns: running the source model on a little text (its own samples, or a file)
 * and keeping, per matrix, the mean square of every input column and some sample
 * inputs. First positions count in the energies (models park huge activations
 * there, and what reads them must stay exact: 25.6 to 22.9 in perplexity at 4
 * bits), but are no samples. Refuses: models the runtime cannot run (an empty
 * probe is a valid one), Hessians.
 */
#ifndef NQ_COMPRESS_PROBE_H
#define NQ_COMPRESS_PROBE_H

#include "base/pool.h"
#include "format/tensors.h"

typedef struct nq_probe nq_probe;

typedef struct nq_probe_inputs {
    const double *energy; /* (cols) mean of x_j^2 */
    const float *samples; /* (count, cols) */
    uint64_t count;
    uint64_t cols;
} nq_probe_inputs;

/* calibration: "none", "self", "auto" or a text file. With "auto" a model that
 * cannot be run, or is large, gives an empty probe; with the others that is an
 * error. *why (nq_free) says why the probe is empty, else NULL. progress may be
 * NULL. The same for any thread count on one machine. */
NOVAQ_CHECK novaq_status nq_probe_open(nq_probe **out, char **why, const char *path, nq_tensors *ts,
                                       const char *calibration, uint64_t seed, nq_pool *pool,
                                       novaq_progress_fn progress, void *progress_ctx,
                                       novaq_error *err);
void nq_probe_close(nq_probe **p);
/* What the matrix of that tensor saw; false when nothing is known. */
bool nq_probe_find(nq_probe_inputs *out, const nq_probe *p, const char *tensor);

#endif

/* sensitivity.h - what an error in each matrix does to the model's predictions.
 *
 * Owns: measuring, for the planner: a matrix is disturbed as coding with error
 * feedback would disturb it (white noise times the inverse of the unit factor of
 * its Hessian), everything else left as it is, and the divergence KL(p || q) of
 * the predictions on calibration text is taken. It grows with the square of the
 * disturbance, so that one size of it tells about all ("linearity", Malinovskii et
 * al. 2024). Blocks in between those measured are interpolated.
 * Refuses: choosing schemes.
 */
#ifndef NQ_COMPRESS_SENSITIVITY_H
#define NQ_COMPRESS_SENSITIVITY_H

#include "compress/job.h"

/* s (j->recipe.count): nats of divergence per unit of relative squared error of the
 * code; unknown for tensors that are none of the model's matrices. Needs a
 * calibration text. */
NOVAQ_CHECK novaq_status nq_sensitivity_measure(nq_sensitivity *s, nq_compress_job *j,
                                                novaq_error *err);

#endif

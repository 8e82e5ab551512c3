/* telemetry.h - how far a refined tensor is from the source's.
 *
 * Owns: sums of errors of a layer as it is about to be written, and of each subspace in
 * the coded basis. Refuses: writing.
 */
#ifndef NQ_REFINE_TELEMETRY_H
#define NQ_REFINE_TELEMETRY_H

#include "base/pool.h"
#include "model/weights.h"

/* layer's error becomes that against `source`, and *diagnostics (a new object, or NULL
 * where the layer has none) what it had, brought up to date. Where the source has no
 * such tensor, or is not at hand (NULL), the error is unknown from now on, and what is no
 * longer true is left out. */
NOVAQ_CHECK novaq_status nq_refine_telemetry(json_t **diagnostics, nq_layer *layer,
                                             nq_weights *source, nq_pool *pool, novaq_error *err);

#endif

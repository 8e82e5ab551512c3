/* write_safetensors.h - a SafeTensors file from a list of tensors.
 *
 * Owns: the header and the order of the data (wide elements first, so that
 * every tensor is aligned to its element). Refuses: what the tensors mean.
 */
#ifndef NQ_ARTIFACT_WRITE_SAFETENSORS_H
#define NQ_ARTIFACT_WRITE_SAFETENSORS_H

#include "artifact/tensor_out.h"
#include "base/json.h"

/* Writes header and data to f; the caller commits. metadata: object of strings
 * for "__metadata__", or NULL. NOVAQ_E_UNSUPPORTED when a type has no
 * SafeTensors name. progress->total is set here. */
NOVAQ_CHECK novaq_status nq_write_safetensors(nq_outfile *f, const nq_tensor_out *tensors,
                                              size_t count, const json_t *metadata, nq_pool *pool,
                                              nq_out_progress *progress, novaq_error *err);

#endif

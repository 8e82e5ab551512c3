/* safetensors.h - the header of a SafeTensors file.
 *
 * Owns: parsing and checking it, for an untrusted file: every byte of the data
 * belongs to exactly one tensor. Refuses: what the reference reader refuses,
 * and besides: duplicate keys, NULs, more than NQ_MAX_RANK dimensions
 * (NOVAQ_E_UNSUPPORTED), types without a whole number of bytes (likewise).
 */
#ifndef NQ_FORMAT_SAFETENSORS_H
#define NQ_FORMAT_SAFETENSORS_H

#include "format/tensors.h"

#define NQ_SAFETENSORS_HEADER_MAX 100000000U /* bytes, the reference's limit */

typedef struct nq_safetensors {
    char *header;            /* owned; names point into it */
    nq_tensor_info *tensors; /* sorted by offset; offsets are in the file */
    size_t count;
    bool is_artifact; /* __metadata__ has "novaq_manifest" */
} nq_safetensors;

/* *out is empty on failure. */
NOVAQ_CHECK novaq_status nq_safetensors_parse(nq_safetensors *out, nq_source *src,
                                              novaq_error *err);
void nq_safetensors_free(nq_safetensors *st);

#endif

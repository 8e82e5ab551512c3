/* write_gguf.h - a GGUF file (version 3) from keys and a list of tensors.
 *
 * Owns: the encoding of keys, the tensor table, alignment. Refuses: knowing
 * which keys a model needs (compress/export_gguf.c does).
 */
#ifndef NQ_ARTIFACT_WRITE_GGUF_H
#define NQ_ARTIFACT_WRITE_GGUF_H

#include "artifact/tensor_out.h"
#include "base/json.h"

typedef struct nq_gguf_keys {
    nq_buf bytes; /* encoded key-value pairs */
    uint64_t count;
} nq_gguf_keys;

nq_gguf_keys nq_gguf_keys_init(void);
void nq_gguf_keys_free(nq_gguf_keys *k);
NOVAQ_CHECK novaq_status nq_gguf_put_u32(nq_gguf_keys *k, const char *key, uint32_t v,
                                         novaq_error *err);
NOVAQ_CHECK novaq_status nq_gguf_put_f32(nq_gguf_keys *k, const char *key, float v,
                                         novaq_error *err);
NOVAQ_CHECK novaq_status nq_gguf_put_bool(nq_gguf_keys *k, const char *key, bool v,
                                          novaq_error *err);
NOVAQ_CHECK novaq_status nq_gguf_put_string(nq_gguf_keys *k, const char *key, const char *v,
                                            novaq_error *err);
/* Arrays from JSON arrays of strings, integers, numbers; anything else in them
 * is NOVAQ_E_FORMAT naming the key. */
NOVAQ_CHECK novaq_status nq_gguf_put_strings(nq_gguf_keys *k, const char *key, const json_t *v,
                                             novaq_error *err);
NOVAQ_CHECK novaq_status nq_gguf_put_i32s(nq_gguf_keys *k, const char *key, const json_t *v,
                                          novaq_error *err);
NOVAQ_CHECK novaq_status nq_gguf_put_f32s(nq_gguf_keys *k, const char *key, const json_t *v,
                                          novaq_error *err);

/* Writes the file to f; the caller commits. NOVAQ_E_UNSUPPORTED for more than
 * four dimensions or a type without a ggml number. progress->total is set
 * here. */
NOVAQ_CHECK novaq_status nq_write_gguf(nq_outfile *f, const nq_gguf_keys *keys,
                                       const nq_tensor_out *tensors, size_t count, nq_pool *pool,
                                       nq_out_progress *progress, novaq_error *err);

#endif

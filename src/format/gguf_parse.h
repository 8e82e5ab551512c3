/* gguf_parse.h - the header of one GGUF file, parsed.
 *
 * Owns: keys, tensor table and the header bytes they point into. Private to
 * format/; the rest sees gguf.h and tensors.h. Refuses: reading tensor data.
 */
#ifndef NQ_FORMAT_GGUF_PARSE_H
#define NQ_FORMAT_GGUF_PARSE_H

#include "format/tensors.h"

#define NQ_GGUF_HEADER_MAX ((uint64_t)1 << 28) /* bytes; real ones take up to 30 MB */
#define NQ_GGUF_NAME_MAX   64                  /* bytes of a tensor name, as specified */

typedef struct nq_gguf {
    uint32_t version;     /* 1, 2 or 3 */
    uint64_t alignment;   /* of tensor data, a power of two */
    uint64_t data_offset; /* of the first tensor, in the file */
    nq_gguf_kv *kvs;      /* in file order */
    size_t kv_count;
    nq_tensor_info *tensors; /* in file order, which is offset order */
    size_t tensor_count;
    uint8_t *header;         /* what keys, values and names point into */
    nq_gguf_string *strings; /* what nq_gguf_kv.strings points into */
} nq_gguf;

/* *out is empty on failure. */
NOVAQ_CHECK novaq_status nq_gguf_parse(nq_gguf *out, nq_source *src, novaq_error *err);
void nq_gguf_free(nq_gguf *g);

#endif

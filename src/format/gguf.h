/* gguf.h - metadata of a GGUF file (versions 1, 2, 3).
 *
 * Owns: parsing the header of an untrusted file into a table of typed keys.
 * Refuses: nested arrays, counts beyond the file, duplicate keys, offsets that
 * are not the running padded total (the rule of ggml's gguf.cpp).
 */
#ifndef NQ_FORMAT_GGUF_H
#define NQ_FORMAT_GGUF_H

#include <stdbool.h>

#include "base/status.h"

typedef enum nq_gguf_type { /* numbers as on disk */
                            NQ_GGUF_U8 = 0,
                            NQ_GGUF_I8 = 1,
                            NQ_GGUF_U16 = 2,
                            NQ_GGUF_I16 = 3,
                            NQ_GGUF_U32 = 4,
                            NQ_GGUF_I32 = 5,
                            NQ_GGUF_F32 = 6,
                            NQ_GGUF_BOOL = 7,
                            NQ_GGUF_STRING = 8,
                            NQ_GGUF_ARRAY = 9,
                            NQ_GGUF_U64 = 10,
                            NQ_GGUF_I64 = 11,
                            NQ_GGUF_F64 = 12
} nq_gguf_type;

typedef struct nq_gguf_string {
    const char *data; /* borrowed, not NUL-terminated */
    uint64_t len;
} nq_gguf_string;

typedef struct nq_gguf_kv {
    const char *key;               /* NUL-terminated, no NUL inside */
    nq_gguf_type type;             /* NQ_GGUF_ARRAY for arrays */
    nq_gguf_type elem;             /* element type of an array */
    uint64_t count;                /* elements of an array, else 1 */
    const uint8_t *values;         /* packed little-endian scalars (possibly unaligned) */
    const nq_gguf_string *strings; /* count strings, for STRING or arrays of it */
} nq_gguf_kv;

/* NULL when the key is absent. */
const nq_gguf_kv *nq_gguf_find(const nq_gguf_kv *kvs, size_t count, const char *key);
/* Scalar at index i as a number; false when not numeric or out of range. */
bool nq_gguf_number(double *out, const nq_gguf_kv *kv, uint64_t i);
bool nq_gguf_integer(int64_t *out, const nq_gguf_kv *kv, uint64_t i);
/* String at index i, borrowed; false when not a string. */
bool nq_gguf_text(nq_gguf_string *out, const nq_gguf_kv *kv, uint64_t i);

#endif

/* write_gguf.c - see write_gguf.h.
 *
 * "GGUF", u32 3, u64 tensors, u64 keys; keys {string, u32 type, value}; tensors
 * {string, u32 dimensions, u64 ne[] innermost first, u32 type, u64 offset};
 * padding to 32; data, every tensor padded to 32. */
#include "artifact/write_gguf.h"

#include <string.h>

#include "base/mem.h"

#define ALIGNMENT 32
#define MAX_DIMS  4
#define KEYS_MAX  ((size_t)1 << 30)

/* Numbers of gguf_type on disk (format/gguf.h, which this layer cannot see). */
enum { TYPE_U32 = 4, TYPE_I32 = 5, TYPE_F32 = 6, TYPE_BOOL = 7, TYPE_STRING = 8, TYPE_ARRAY = 9 };

nq_gguf_keys nq_gguf_keys_init(void) { return (nq_gguf_keys){.bytes = nq_buf_init(KEYS_MAX)}; }

void nq_gguf_keys_free(nq_gguf_keys *k) { nq_buf_free(&k->bytes); }

static novaq_status put_u32(nq_buf *b, uint32_t v, novaq_error *err) {
    uint8_t bytes[4];
    for (unsigned i = 0; i < 4; i++) {
        bytes[i] = (uint8_t)(v >> (8 * i));
    }
    return nq_buf_append(b, bytes, sizeof bytes, err);
}

static novaq_status put_u64(nq_buf *b, uint64_t v, novaq_error *err) {
    NQ_TRY(put_u32(b, (uint32_t)v, err));
    return put_u32(b, (uint32_t)(v >> 32), err);
}

static novaq_status put_f32(nq_buf *b, float v, novaq_error *err) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return put_u32(b, bits, err);
}

static novaq_status put_text(nq_buf *b, const char *s, size_t len, novaq_error *err) {
    NQ_TRY(put_u64(b, len, err));
    return nq_buf_append(b, s, len, err);
}

static novaq_status begin(nq_gguf_keys *k, const char *key, uint32_t type, novaq_error *err) {
    NQ_TRY(put_text(&k->bytes, key, strlen(key), err));
    k->count++;
    return put_u32(&k->bytes, type, err);
}

novaq_status nq_gguf_put_u32(nq_gguf_keys *k, const char *key, uint32_t v, novaq_error *err) {
    NQ_TRY(begin(k, key, TYPE_U32, err));
    return put_u32(&k->bytes, v, err);
}

novaq_status nq_gguf_put_f32(nq_gguf_keys *k, const char *key, float v, novaq_error *err) {
    NQ_TRY(begin(k, key, TYPE_F32, err));
    return put_f32(&k->bytes, v, err);
}

novaq_status nq_gguf_put_bool(nq_gguf_keys *k, const char *key, bool v, novaq_error *err) {
    NQ_TRY(begin(k, key, TYPE_BOOL, err));
    return nq_buf_append(&k->bytes, v ? "\1" : "\0", 1, err);
}

novaq_status nq_gguf_put_string(nq_gguf_keys *k, const char *key, const char *v, novaq_error *err) {
    NQ_TRY(begin(k, key, TYPE_STRING, err));
    return put_text(&k->bytes, v, strlen(v), err);
}

/* One element; false (with nothing said) when it is not of the type. */
static bool put_element(nq_buf *b, uint32_t type, const json_t *e, novaq_status *st,
                        novaq_error *err) {
    *st = NOVAQ_OK;
    if (type == TYPE_STRING && json_is_string(e)) {
        *st = put_text(b, json_string_value(e), json_string_length(e), err);
        return true;
    }
    if (type == TYPE_I32 && json_is_integer(e) && json_integer_value(e) >= INT32_MIN &&
        json_integer_value(e) <= INT32_MAX) {
        *st = put_u32(b, (uint32_t)(int32_t)json_integer_value(e), err);
        return true;
    }
    if (type == TYPE_F32 && json_is_number(e)) {
        *st = put_f32(b, (float)json_number_value(e), err);
        return true;
    }
    return false;
}

static novaq_status put_array(nq_gguf_keys *k, const char *key, uint32_t type, const json_t *v,
                              novaq_error *err) {
    NQ_TRY(begin(k, key, TYPE_ARRAY, err));
    NQ_TRY(put_u32(&k->bytes, type, err));
    NQ_TRY(put_u64(&k->bytes, json_array_size(v), err));
    for (size_t i = 0; i < json_array_size(v); i++) {
        novaq_status st = NOVAQ_OK;
        if (!put_element(&k->bytes, type, json_array_get(v, i), &st, err)) {
            return nq_fail(err, NOVAQ_E_FORMAT, "%s: element %zu has the wrong type", key, i);
        }
        NQ_TRY(st);
    }
    return NOVAQ_OK;
}

novaq_status nq_gguf_put_strings(nq_gguf_keys *k, const char *key, const json_t *v,
                                 novaq_error *err) {
    return put_array(k, key, TYPE_STRING, v, err);
}

novaq_status nq_gguf_put_i32s(nq_gguf_keys *k, const char *key, const json_t *v, novaq_error *err) {
    return put_array(k, key, TYPE_I32, v, err);
}

novaq_status nq_gguf_put_f32s(nq_gguf_keys *k, const char *key, const json_t *v, novaq_error *err) {
    return put_array(k, key, TYPE_F32, v, err);
}

/* ---- tensors ------------------------------------------------------------- */

static uint64_t padding(uint64_t size) { return (ALIGNMENT - size % ALIGNMENT) % ALIGNMENT; }

/* One row of the tensor table. A scalar is written as one dimension of 1. */
static novaq_status put_info(nq_buf *b, const nq_tensor_out *t, uint64_t offset, novaq_error *err) {
    int type = nq_dtype_get(t->dtype)->ggml;
    if (t->rank > MAX_DIMS) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: %u dimensions, GGUF holds %d; export to safetensors", t->name, t->rank,
                       MAX_DIMS);
    }
    if (type < 0) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s: GGUF has no type %s; export to safetensors",
                       t->name, nq_dtype_get(t->dtype)->name);
    }
    NQ_TRY(put_text(b, t->name, strlen(t->name), err));
    NQ_TRY(put_u32(b, t->rank == 0 ? 1 : t->rank, err));
    for (uint32_t i = t->rank; i > 0; i--) {
        NQ_TRY(put_u64(b, t->shape[i - 1], err));
    }
    if (t->rank == 0) {
        NQ_TRY(put_u64(b, 1, err));
    }
    NQ_TRY(put_u32(b, (uint32_t)type, err));
    return put_u64(b, offset, err);
}

static novaq_status put_infos(nq_buf *b, const nq_tensor_out *tensors, size_t count,
                              uint64_t *total, novaq_error *err) {
    uint64_t offset = 0; /* padded */
    *total = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t bytes = 0;
        NQ_TRY(nq_tensor_out_bytes(&bytes, &tensors[i], err));
        NQ_TRY(put_info(b, &tensors[i], offset, err));
        if (!nq_add_u64(offset, bytes, &offset) || !nq_add_u64(offset, padding(offset), &offset)) {
            return nq_fail(err, NOVAQ_E_ARG, "%s: the file would be too large", tensors[i].name);
        }
        *total += bytes;
    }
    return NOVAQ_OK;
}

static novaq_status put_header(nq_buf *b, const nq_gguf_keys *keys, const nq_tensor_out *tensors,
                               size_t count, uint64_t *total, novaq_error *err) {
    NQ_TRY(nq_buf_puts(b, "GGUF", err));
    NQ_TRY(put_u32(b, 3, err));
    NQ_TRY(put_u64(b, count, err));
    NQ_TRY(put_u64(b, keys->count, err));
    NQ_TRY(nq_buf_append(b, keys->bytes.data, keys->bytes.len, err));
    NQ_TRY(put_infos(b, tensors, count, total, err));
    return nq_buf_zeros(b, (size_t)padding(b->len), err);
}

novaq_status nq_write_gguf(nq_outfile *f, const nq_gguf_keys *keys, const nq_tensor_out *tensors,
                           size_t count, nq_pool *pool, nq_out_progress *progress,
                           novaq_error *err) {
    static const uint8_t zeros[ALIGNMENT] = {0};
    nq_buf b = nq_buf_init(2 * KEYS_MAX);
    novaq_status st = put_header(&b, keys, tensors, count, &progress->total, err);
    if (st == NOVAQ_OK) {
        st = nq_outfile_write(f, b.data, b.len, err);
    }
    nq_buf_free(&b);
    for (size_t i = 0; st == NOVAQ_OK && i < count; i++) {
        st = nq_tensor_out_write(f, &tensors[i], pool, progress, err);
        if (st == NOVAQ_OK) {
            st = nq_outfile_write(f, zeros, padding(nq_outfile_size(f)), err);
        }
    }
    return st;
}

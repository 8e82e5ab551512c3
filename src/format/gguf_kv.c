/* gguf_kv.c - reading typed values of GGUF keys; see gguf.h. */
#include "format/gguf.h"

#include <string.h>

const nq_gguf_kv *nq_gguf_find(const nq_gguf_kv *kvs, size_t count, const char *key) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(kvs[i].key, key) == 0) {
            return &kvs[i];
        }
    }
    return NULL;
}

/* The type of element i, or NQ_GGUF_ARRAY when there is no such element. */
static nq_gguf_type element_type(const nq_gguf_kv *kv, uint64_t i) {
    return kv == NULL || i >= kv->count ? NQ_GGUF_ARRAY : kv->elem;
}

static uint64_t load(const nq_gguf_kv *kv, uint64_t i, unsigned bytes) {
    const uint8_t *p = kv->values + i * bytes;
    uint64_t v = 0;
    for (unsigned b = 0; b < bytes; b++) {
        v |= (uint64_t)p[b] << (8 * b);
    }
    return v;
}

bool nq_gguf_integer(int64_t *out, const nq_gguf_kv *kv, uint64_t i) {
    *out = 0;
    switch (element_type(kv, i)) {
    case NQ_GGUF_U8: *out = (int64_t)load(kv, i, 1); return true;
    case NQ_GGUF_I8: *out = (int8_t)load(kv, i, 1); return true;
    case NQ_GGUF_U16: *out = (int64_t)load(kv, i, 2); return true;
    case NQ_GGUF_I16: *out = (int16_t)load(kv, i, 2); return true;
    case NQ_GGUF_U32: *out = (int64_t)load(kv, i, 4); return true;
    case NQ_GGUF_I32: *out = (int32_t)load(kv, i, 4); return true;
    case NQ_GGUF_BOOL: *out = load(kv, i, 1) != 0; return true;
    case NQ_GGUF_I64: *out = (int64_t)load(kv, i, 8); return true;
    case NQ_GGUF_U64: {
        uint64_t v = load(kv, i, 8);
        *out = v > INT64_MAX ? 0 : (int64_t)v;
        return v <= INT64_MAX;
    }
    case NQ_GGUF_F32:
    case NQ_GGUF_F64:
    case NQ_GGUF_STRING:
    case NQ_GGUF_ARRAY: return false;
    }
    return false;
}

bool nq_gguf_number(double *out, const nq_gguf_kv *kv, uint64_t i) {
    *out = 0;
    nq_gguf_type type = element_type(kv, i);
    if (type == NQ_GGUF_F32) {
        uint32_t bits = (uint32_t)load(kv, i, 4);
        float f;
        memcpy(&f, &bits, sizeof f);
        *out = (double)f;
        return true;
    }
    if (type == NQ_GGUF_F64) {
        uint64_t bits = load(kv, i, 8);
        memcpy(out, &bits, sizeof *out);
        return true;
    }
    if (type == NQ_GGUF_U64) {
        *out = (double)load(kv, i, 8);
        return true;
    }
    int64_t v = 0;
    bool ok = nq_gguf_integer(&v, kv, i);
    *out = (double)v;
    return ok;
}

bool nq_gguf_text(nq_gguf_string *out, const nq_gguf_kv *kv, uint64_t i) {
    *out = (nq_gguf_string){NULL, 0};
    if (element_type(kv, i) != NQ_GGUF_STRING) {
        return false;
    }
    *out = kv->strings[i];
    return true;
}

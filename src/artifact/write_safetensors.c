/* write_safetensors.c - see write_safetensors.h.
 *
 * u64 header length, the header (JSON: name -> {dtype, shape, data_offsets},
 * padded with blanks to a multiple of 64), then the data without gaps. */
#include "artifact/write_safetensors.h"

#include "base/mem.h"

#define HEADER_ALIGN 64
#define HEADER_MAX   ((size_t)100 << 20) /* what readers accept */

static uint32_t element_bytes(const nq_tensor_out *t) { return nq_dtype_get(t->dtype)->bytes; }

/* order[]: indices by falling element size, otherwise as given. */
static novaq_status sort_tensors(size_t **order, const nq_tensor_out *tensors, size_t count,
                                 novaq_error *err) {
    NQ_TRY(nq_alloc(order, count, sizeof **order, err));
    size_t n = 0;
    for (uint32_t size = 8; size > 0; size /= 2) {
        for (size_t i = 0; i < count; i++) {
            if (element_bytes(&tensors[i]) == size) {
                (*order)[n++] = i;
            }
        }
    }
    if (n != count) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "a tensor's type cannot be written");
    }
    return NOVAQ_OK;
}

static novaq_status set_new(json_t *object, const char *key, json_t *value, novaq_error *err) {
    if (json_object_set_new(object, key, value) != 0) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: the name is not valid UTF-8", key);
    }
    return NOVAQ_OK;
}

static novaq_status add_entry(json_t *header, const nq_tensor_out *t, uint64_t begin, uint64_t end,
                              novaq_error *err) {
    const char *dtype = nq_dtype_get(t->dtype)->safetensors;
    if (dtype == NULL) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s: SafeTensors has no type %s", t->name,
                       nq_dtype_get(t->dtype)->name);
    }
    if (json_object_get(header, t->name) != NULL) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: two tensors have this name", t->name);
    }
    json_t *shape = json_array();
    for (uint32_t i = 0; i < t->rank; i++) {
        if (json_array_append_new(shape, json_integer((json_int_t)t->shape[i])) != 0) {
            json_decref(shape);
            return nq_fail(err, NOVAQ_E_MEMORY, "cannot build a header");
        }
    }
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", shape,
                              "data_offsets", (json_int_t)begin, (json_int_t)end);
    return set_new(header, t->name, entry, err);
}

static novaq_status fill_header(json_t *header, const nq_tensor_out *tensors, const size_t *order,
                                size_t count, uint64_t *total, novaq_error *err) {
    uint64_t at = 0;
    for (size_t i = 0; i < count; i++) {
        const nq_tensor_out *t = &tensors[order[i]];
        uint64_t bytes = 0;
        uint64_t end = 0;
        NQ_TRY(nq_tensor_out_bytes(&bytes, t, err));
        if (!nq_add_u64(at, bytes, &end) || end > INT64_MAX) {
            return nq_fail(err, NOVAQ_E_ARG, "%s: the file would be too large", t->name);
        }
        NQ_TRY(add_entry(header, t, at, end, err));
        at = end;
    }
    *total = at;
    return NOVAQ_OK;
}

static novaq_status write_header(nq_outfile *f, const json_t *header, novaq_error *err) {
    char *text = NULL;
    nq_buf b = nq_buf_init(HEADER_MAX + HEADER_ALIGN);
    novaq_status st = nq_json_dump(&text, header, 0, err);
    if (st == NOVAQ_OK) {
        st = nq_buf_zeros(&b, 8, err); /* the length goes here */
    }
    if (st == NOVAQ_OK) {
        st = nq_buf_puts(&b, text, err);
    }
    while (st == NOVAQ_OK && b.len % HEADER_ALIGN != 0) {
        st = nq_buf_puts(&b, " ", err);
    }
    if (st == NOVAQ_OK) {
        uint64_t len = b.len - 8;
        for (unsigned i = 0; i < 8; i++) {
            b.data[i] = (uint8_t)(len >> (8 * i));
        }
        st = nq_outfile_write(f, b.data, b.len, err);
    }
    nq_buf_free(&b);
    nq_free(text);
    return st;
}

novaq_status nq_write_safetensors(nq_outfile *f, const nq_tensor_out *tensors, size_t count,
                                  const json_t *metadata, nq_pool *pool, nq_out_progress *progress,
                                  novaq_error *err) {
    size_t *order = NULL;
    json_t *header = json_object();
    novaq_status st = header != NULL ? NOVAQ_OK : nq_fail(err, NOVAQ_E_MEMORY, "out of memory");
    if (st == NOVAQ_OK && metadata != NULL) {
        st = set_new(header, "__metadata__", json_deep_copy(metadata), err);
    }
    if (st == NOVAQ_OK) {
        st = sort_tensors(&order, tensors, count, err);
    }
    if (st == NOVAQ_OK) {
        st = fill_header(header, tensors, order, count, &progress->total, err);
    }
    if (st == NOVAQ_OK) {
        st = write_header(f, header, err);
    }
    for (size_t i = 0; st == NOVAQ_OK && i < count; i++) {
        st = nq_tensor_out_write(f, &tensors[order[i]], pool, progress, err);
    }
    nq_free(order);
    json_decref(header);
    return st;
}

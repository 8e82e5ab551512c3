/* fuzz_onnx.c - any bytes as an ONNX model: graphs, every tensor in parts and
 * whole. The way around recognition is taken too, since most mutants would not
 * get past it. */
#include "fuzz.h"

#include "format/onnx.h"
#include "format/tensors.h"

/* Bytes read of one input: a varint of one byte may stand for eight. */
#define FUZZ_BYTES ((uint64_t)1 << 20)

static novaq_status no_file(void *ctx, nq_source **out, uint32_t *file, const char *location,
                            novaq_error *err) {
    *out = ctx; /* as if the data lay in the model's own file */
    *file = 0;
    return location[0] == '!' ? nq_fail(err, NOVAQ_E_IO, "%s: not here", location) : NOVAQ_OK;
}

/* A few parts of a tensor are what the whole has there. */
static void read_parts(const nq_onnx *o, nq_source *src, const nq_tensor_info *t) {
    uint8_t *whole = NULL;
    uint8_t *part = NULL;
    float *values = NULL;
    novaq_error err = {0};
    FUZZ_CHECK(nq_alloc_raw(&whole, t->bytes, 1, &err) == NOVAQ_OK);
    FUZZ_CHECK(nq_alloc_raw(&part, t->bytes, 1, &err) == NOVAQ_OK);
    FUZZ_CHECK(nq_alloc_raw(&values, t->elements, sizeof *values, &err) == NOVAQ_OK);
    FUZZ_CHECK(nq_onnx_read(whole, o, src, t, 0, t->bytes, &err) == NOVAQ_OK);
    FUZZ_CHECK(nq_onnx_read_f32(values, o, src, t, &err) == NOVAQ_OK);
    for (uint64_t k = 1; k < 4 && t->bytes > 0; k++) {
        uint64_t at = t->bytes / (k + 1);
        uint64_t len = (t->bytes - at) / k;
        FUZZ_CHECK(nq_onnx_read(part, o, src, t, at, len, &err) == NOVAQ_OK);
        FUZZ_CHECK(memcmp(part, whole + at, len) == 0);
    }
    nq_free(whole);
    nq_free(part);
    nq_free(values);
}

static void look(const nq_onnx *o, nq_source *src) {
    uint64_t left = FUZZ_BYTES;
    for (size_t i = 0; i < o->count; i++) {
        const nq_tensor_info *t = &o->tensors[i];
        FUZZ_CHECK(t->name != NULL && t->name[0] != '\0' && t->file == 0);
        FUZZ_CHECK(t->rank <= NQ_MAX_RANK && t->bytes / 8 <= src->size);
        FUZZ_CHECK(t->view != 0 || t->bytes == 0 ||
                   (t->offset <= src->size && t->bytes <= src->size - t->offset));
        if (t->view != 0 && t->bytes <= left) {
            left -= t->bytes;
            read_parts(o, src, t);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[FUZZ_PATH];
    int fd = -1;
    novaq_error err = {0};
    nq_source *src = NULL;
    nq_onnx o;
    bool yes = false;
    nq_tensors *ts = NULL;
    fuzz_file(path, &fd, data, size);
    FUZZ_CHECK(nq_source_open_file(&src, path, &err) == NOVAQ_OK);
    FUZZ_CHECK(nq_onnx_is_model(&yes, src, &err) == NOVAQ_OK);
    novaq_status st = nq_onnx_parse(&o, src, no_file, src, &err);
    fuzz_check_error(st, &err);
    if (st == NOVAQ_OK) {
        look(&o, src);
        nq_onnx_free(&o);
    }
    st = nq_tensors_open(&ts, path, &err);
    fuzz_check_error(st, &err);
    nq_tensors_close(&ts);
    nq_source_close(&src);
    (void)close(fd);
    return 0;
}

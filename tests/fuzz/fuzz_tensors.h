/* fuzz_tensors.h - the body of fuzz_gguf.c and fuzz_safetensors.c: open, look at
 * every tensor, read what is not too large, describe the model.
 */
#ifndef NQ_TESTS_FUZZ_TENSORS_H
#define NQ_TESTS_FUZZ_TENSORS_H

#include "fuzz.h"

#include "format/tensors.h"
#include "model/describe.h"

/* Floats read from one input: a few bytes of Q1 claim many. */
#define FUZZ_ELEMENTS ((uint64_t)1 << 18)

static void fuzz_read_tensors(nq_tensors *ts) {
    uint64_t left = FUZZ_ELEMENTS;
    for (size_t i = 0; i < nq_tensors_count(ts); i++) {
        const nq_tensor_info *t = nq_tensors_at(ts, i);
        const nq_tensor_info *found = nq_tensors_find(ts, t->name);
        FUZZ_CHECK(found == t);
        FUZZ_CHECK(t->rank <= NQ_MAX_RANK);
        FUZZ_CHECK(t->bytes <= nq_tensors_file_bytes(ts));
        uint64_t product = 1;
        for (uint32_t k = 0; k < t->rank; k++) {
            FUZZ_CHECK(t->elements == 0 || nq_mul_u64(product, t->shape[k], &product));
        }
        FUZZ_CHECK(t->elements == 0 || t->elements == product);
        if (t->elements > left) {
            continue;
        }
        left -= t->elements;
        novaq_error err = {0};
        float *values = NULL;
        FUZZ_CHECK(nq_alloc_raw(&values, t->elements, sizeof *values, &err) == NOVAQ_OK);
        novaq_status st = nq_tensors_read_f32(values, ts, t, &err);
        FUZZ_CHECK(st == NOVAQ_OK); /* every bound was checked when the file was opened */
        nq_free(values);
    }
}

static void fuzz_describe(const nq_tensors *ts) {
    novaq_error err = {0};
    json_t *model = NULL;
    novaq_status st = nq_describe(&model, ts, &err);
    fuzz_check_error(st, &err);
    FUZZ_CHECK((st == NOVAQ_OK) == (model != NULL));
    char *text = NULL;
    if (st == NOVAQ_OK) { /* an artifact stores the description as JSON */
        FUZZ_CHECK(nq_json_dump(&text, model, 0, &err) == NOVAQ_OK);
    }
    nq_free(text);
    json_decref(model);
}

static void fuzz_tensors(const uint8_t *data, size_t size) {
    char path[FUZZ_PATH];
    int fd = -1;
    novaq_error err = {0};
    nq_tensors *ts = NULL;
    fuzz_file(path, &fd, data, size);
    novaq_status st = nq_tensors_open(&ts, path, &err);
    fuzz_check_error(st, &err);
    FUZZ_CHECK((st == NOVAQ_OK) == (ts != NULL));
    if (ts != NULL) {
        fuzz_read_tensors(ts);
        fuzz_describe(ts);
    }
    nq_tensors_close(&ts);
    (void)close(fd);
}

#endif

/* intake.c - see intake.h. */
#include "compress/intake.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "format/dequant.h"
#include "io/fs.h"

#define READ_CHUNK  ((uint64_t)4 << 20)
#define AHEAD_LEAST ((uint64_t)16 << 20)
#define AHEAD_MOST  ((uint64_t)32 << 20)

uint64_t nq_intake_received(nq_tensors *ts) { return nq_files_received(nq_tensors_files(ts)); }

bool nq_intake_is_remote(nq_tensors *ts) {
    return nq_is_remote(nq_files_locator(nq_tensors_files(ts))) &&
           nq_files_dir(nq_tensors_files(ts)) == NULL;
}

uint64_t nq_intake_bytes(const nq_tensors *ts) {
    uint64_t sum = 0;
    for (size_t i = 0; i < nq_tensors_count(ts); i++) {
        sum += nq_tensors_at(ts, i)->bytes;
    }
    return sum;
}

/* Half of what the largest tensor takes as floats: what is at work takes one and a half
 * times as much. Within `memory` where that is given. */
static uint64_t choose_ahead(const nq_tensors *ts, uint64_t memory) {
    uint64_t largest = 0;
    for (size_t i = 0; i < nq_tensors_count(ts); i++) {
        uint64_t n = nq_tensors_at(ts, i)->elements;
        largest = n > largest ? n : largest;
    }
    uint64_t most = largest * 2 < AHEAD_MOST ? largest * 2 : AHEAD_MOST;
    uint64_t work = largest * 6;
    if (memory > 0 && memory < work + most) {
        most = memory > work ? memory - work : 1;
    }
    return memory == 0 && most < AHEAD_LEAST ? AHEAD_LEAST : most;
}

novaq_status nq_intake_open(nq_intake *s, nq_tensors *ts, uint64_t memory, novaq_error *err) {
    *s = (nq_intake){.ts = ts, .ahead = choose_ahead(ts, memory)};
    return nq_alloc(&s->bytes, nq_tensors_count(ts) + 1, sizeof *s->bytes, err);
}

void nq_intake_close(nq_intake *s) {
    nq_free(s->bytes);
    *s = (nq_intake){0};
}

static char *hash_of(const nq_intake *s, const nq_tensor_info *t) {
    return s->bytes[t - nq_tensors_at(s->ts, 0)];
}

const char *nq_intake_hash(const nq_intake *s, const nq_tensor_info *t) { return hash_of(s, t); }

void nq_intake_known(nq_intake *s, const nq_tensor_info *t, const char *hash) {
    if (strlen(hash) == NQ_BLAKE3_HEX) {
        memcpy(hash_of(s, t), hash, sizeof(nq_hash_text));
    }
    nq_tensors_release(s->ts, t);
}

/* ---- reading ------------------------------------------------------------------------ */

/* What is read of t at a time. With strides, or rearranged by its reader, any part of it
 * may lie all over its storage: at once, then. */
static uint64_t step_of(const nq_tensor_info *t) {
    uint64_t block = nq_dtype_get(t->dtype)->bytes;
    uint64_t step = t->strides != NULL || t->view != 0 ? t->bytes : READ_CHUNK / block * block;
    return step < t->bytes ? step : t->bytes;
}

/* As floats to dst, or nowhere. */
static novaq_status read_parts(float *dst, nq_intake *s, const nq_tensor_info *t,
                               novaq_error *err) {
    const nq_dtype_info *d = nq_dtype_get(t->dtype);
    uint64_t step = step_of(t);
    nq_blake3 h;
    uint8_t *raw = NULL;
    nq_blake3_init(&h);
    NQ_TRY(nq_alloc_raw(&raw, step, 1, err));
    novaq_status st = NOVAQ_OK;
    for (uint64_t at = 0; st == NOVAQ_OK && at < t->bytes; at += step) {
        uint64_t len = t->bytes - at < step ? t->bytes - at : step;
        st = nq_tensors_read(raw, s->ts, t, at, len, err);
        if (st == NOVAQ_OK) {
            nq_blake3_update(&h, raw, (size_t)len);
        }
        if (st == NOVAQ_OK && dst != NULL) {
            uint64_t n = len / d->bytes * d->block;
            nq_dequantize(dst, t->dtype, raw, n);
            dst += n;
        }
    }
    nq_free(raw);
    if (st == NOVAQ_OK) {
        nq_blake3_finish(hash_of(s, t), &h);
        nq_tensors_release(s->ts, t);
    }
    return st;
}

novaq_status nq_intake_read_f32(float *dst, nq_intake *s, const nq_tensor_info *t,
                                novaq_error *err) {
    return read_parts(dst, s, t, err);
}

novaq_status nq_intake_pass(nq_intake *s, const nq_tensor_info *t, novaq_error *err) {
    return read_parts(NULL, s, t, err);
}

novaq_status nq_intake_read(void *dst, nq_intake *s, const nq_tensor_info *t, novaq_error *err) {
    NQ_TRY(nq_tensors_read(dst, s->ts, t, 0, t->bytes, err));
    nq_blake3_of(hash_of(s, t), dst, (size_t)t->bytes);
    nq_tensors_release(s->ts, t);
    return NOVAQ_OK;
}

/* What lies on this machine the system reads ahead itself. */
novaq_status nq_intake_ahead(nq_intake *s, const nq_tensor_info *const *order, size_t count,
                             novaq_error *err) {
    return nq_intake_is_remote(s->ts) ? nq_tensors_ahead(s->ts, order, count, s->ahead, err)
                                      : NOVAQ_OK;
}

novaq_status nq_intake_all(nq_tensors *ts, uint64_t memory, novaq_error *err) {
    if (!nq_intake_is_remote(ts)) {
        return NOVAQ_OK;
    }
    const nq_tensor_info **order = NULL;
    size_t count = nq_tensors_count(ts);
    NQ_TRY(nq_alloc(&order, count + 1, sizeof *order, err));
    for (size_t i = 0; i < count; i++) {
        order[i] = nq_tensors_at(ts, i);
    }
    novaq_status st = nq_tensors_ahead(ts, order, count, choose_ahead(ts, memory), err);
    nq_free(order);
    return st;
}

/* ---- identity ------------------------------------------------------------------------ */

/* Text with its end, so that no two lists of texts hash alike. */
static void add_text(nq_blake3 *h, const char *s) { nq_blake3_update(h, s, strlen(s) + 1); }

static void add_number(nq_blake3 *h, uint64_t v) {
    uint8_t bytes[8];
    for (unsigned i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(v >> (8 * i));
    }
    nq_blake3_update(h, bytes, sizeof bytes);
}

static void add_outline(nq_blake3 *h, const nq_tensor_info *t) {
    add_text(h, t->name);
    add_text(h, nq_dtype_get(t->dtype)->name);
    add_number(h, t->rank);
    for (uint32_t i = 0; i < t->rank; i++) {
        add_number(h, t->shape[i]);
    }
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(const nq_tensor_info *const *)a)->name,
                  (*(const nq_tensor_info *const *)b)->name);
}

/* *list (count; nq_free): all tensors in the order of their names. */
static novaq_status sorted(const nq_tensor_info ***list, const nq_tensors *ts, novaq_error *err) {
    size_t count = nq_tensors_count(ts);
    NQ_TRY(nq_alloc(list, count + 1, sizeof **list, err));
    for (size_t i = 0; i < count; i++) {
        (*list)[i] = nq_tensors_at(ts, i);
    }
    qsort(*list, count, sizeof **list, by_name);
    return NOVAQ_OK;
}

static const char *format_name(nq_format f) {
    switch (f) {
    case NQ_FORMAT_SAFETENSORS: return "safetensors";
    case NQ_FORMAT_GGUF: return "gguf";
    case NQ_FORMAT_ONNX: return "onnx";
    case NQ_FORMAT_PYTORCH: break;
    }
    return "pytorch";
}

novaq_status nq_intake_source(json_t **out, const nq_intake *s, novaq_error *err) {
    const nq_tensor_info **list = NULL;
    size_t count = nq_tensors_count(s->ts);
    nq_hash_text hash;
    nq_blake3 h;
    *out = NULL;
    NQ_TRY(sorted(&list, s->ts, err));
    nq_blake3_init(&h);
    for (size_t i = 0; i < count; i++) {
        add_outline(&h, list[i]);
        add_text(&h, hash_of(s, list[i]));
    }
    nq_blake3_finish(hash, &h);
    nq_free(list);
    *out = json_pack("{s:s, s:I, s:I, s:s}", "format", format_name(nq_tensors_format(s->ts)),
                     "tensors", (json_int_t)count, "bytes", (json_int_t)nq_intake_bytes(s->ts),
                     "blake3", hash);
    return *out != NULL ? NOVAQ_OK : nq_fail(err, NOVAQ_E_MEMORY, "cannot describe the source");
}

void nq_intake_left_out(json_t *report, const nq_tensors *ts) {
    uint64_t bytes = 0;
    size_t count = nq_tensors_left_out(ts, &bytes);
    if (count > 0) {
        json_object_set_new(
            report, "left_out",
            json_pack("{s:I, s:I}", "tensors", (json_int_t)count, "bytes", (json_int_t)bytes));
    }
}

novaq_status nq_intake_outline(nq_hash_text out, nq_tensors *ts, const json_t *more,
                               novaq_error *err) {
    char *text = NULL;
    nq_blake3 h;
    nq_blake3_init(&h);
    NQ_TRY(nq_json_dump(&text, more, 0, err));
    add_text(&h, text);
    nq_free(text);
    add_number(&h, (uint64_t)nq_tensors_format(ts));
    for (size_t i = 0; i < nq_tensors_count(ts); i++) {
        add_outline(&h, nq_tensors_at(ts, i));
        add_number(&h, nq_tensors_at(ts, i)->bytes);
    }
    nq_blake3_finish(out, &h);
    return NOVAQ_OK;
}

static void add_file_state(nq_blake3 *h, const char *path) {
    struct stat st;
    if (stat(path, &st) == 0) {
        add_number(h, (uint64_t)st.st_size);
        add_number(h, (uint64_t)st.st_mtim.tv_sec);
        add_number(h, (uint64_t)st.st_mtim.tv_nsec);
        add_number(h, (uint64_t)st.st_ino);
        add_number(h, (uint64_t)st.st_dev);
    }
}

/* One file: false when nothing but its name and size is known of it. */
static bool add_file(nq_blake3 *h, const char *name, const json_t *about) {
    const char *sha256 = json_string_value(json_object_get(about, "sha256"));
    bool known = sha256 != NULL;
    add_text(h, name);
    add_text(h, known ? sha256 : "");
    if (known) {
        return true;
    }
    add_number(h, (uint64_t)json_integer_value(json_object_get(about, "size")));
    const char *const keys[] = {"etag", "modified", "query_blake3"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const char *value = json_string_value(json_object_get(about, keys[i]));
        add_text(h, value != NULL ? value : "");
        known = known || (i < 2 && value != NULL);
    }
    return known;
}

novaq_status nq_intake_origin_key(nq_hash_text out, bool *sure, const json_t *origin,
                                  nq_tensors *ts, novaq_error *err) {
    const char *dir = nq_files_dir(nq_tensors_files(ts));
    const char *locator = json_string_value(json_object_get(origin, "locator"));
    const char *name;
    json_t *about;
    bool all = true;
    nq_blake3 h;
    nq_blake3_init(&h);
    json_object_foreach(json_object_get(origin, "files"), name, about) {
        bool known = add_file(&h, name, about);
        if (!known && dir != NULL) {
            char *path = NULL;
            NQ_TRY(nq_path_join(&path, dir, name, err));
            add_file_state(&h, path);
            nq_free(path);
        }
        all = all && known;
    }
    /* A place that tells nothing of its files is at least the same place. */
    if (!all || json_object_size(json_object_get(origin, "files")) == 0) {
        add_text(&h, locator != NULL ? locator : nq_tensors_path(ts));
        add_file_state(&h, nq_tensors_path(ts));
    }
    *sure = all || dir != NULL;
    nq_blake3_finish(out, &h);
    return NOVAQ_OK;
}

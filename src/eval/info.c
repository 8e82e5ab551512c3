/* info.c - novaq_info(): what a model is. */
#include <string.h>

#include "base/mem.h"
#include "eval/size.h"

static novaq_status put(json_t *o, const char *key, json_t *value, novaq_error *err) {
    return json_object_set_new(o, key, value) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_MEMORY, "cannot report \"%s\"", key);
}

/* A member of the description, as it is. */
static novaq_status copy(json_t *o, const json_t *model, const char *key, novaq_error *err) {
    const json_t *v = json_object_get(model, key);
    return v == NULL ? NOVAQ_OK : put(o, key, json_deep_copy(v), err);
}

/* The tokenizer without its tables: those become counts. */
static novaq_status put_tokenizer(json_t *o, const json_t *model, novaq_error *err) {
    json_t *tokenizer = json_object_get(model, "tokenizer");
    const char *key = NULL;
    json_t *value = NULL;
    if (!json_is_object(tokenizer)) {
        return NOVAQ_OK;
    }
    json_t *summary = json_object();
    NQ_TRY(put(o, "tokenizer", summary, err));
    json_object_foreach(tokenizer, key, value) {
        bool table = json_is_array(value) && strcmp(key, "eot_ids") != 0;
        json_t *v =
            table ? json_integer((json_int_t)json_array_size(value)) : json_deep_copy(value);
        NQ_TRY(put(summary, key, v, err));
    }
    return NOVAQ_OK;
}

static json_t *tensor_json(const nq_weight *t) {
    char name[NQ_SCHEME_NAME];
    json_t *o =
        json_pack("{s:s, s:o, s:s, s:s, s:I, s:f}", "name", t->name, "shape", nq_shape_json(t),
                  "dtype", nq_dtype_get(t->dtype)->name, "role", nq_role_name(t->role), "bytes",
                  (json_int_t)nq_stored_bytes(t), "bits_per_weight", nq_stored_bits(t));
    if (o == NULL || t->layer == NULL) {
        return o;
    }
    json_t *scheme = json_string(nq_scheme_name(name, &t->layer->scheme));
    if (json_object_set_new(o, "scheme", scheme) != 0 || nq_error_put(o, t) != 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static novaq_status put_tensors(json_t *o, const nq_weights *w, novaq_error *err) {
    json_t *list = json_array();
    NQ_TRY(put(o, "tensors", list, err));
    for (size_t i = 0; i < nq_weights_count(w); i++) {
        if (json_array_append_new(list, tensor_json(nq_weights_at(w, i))) != 0) {
            return nq_fail(err, NOVAQ_E_FORMAT, "cannot report tensor %zu: its name is not UTF-8",
                           i);
        }
    }
    return NOVAQ_OK;
}

static novaq_status describe(json_t *o, const nq_weights *w, novaq_error *err) {
    const json_t *model = nq_weights_model(w);
    bool artifact = nq_weights_artifact(w) != NULL;
    nq_size size = nq_size_of(w);
    NQ_TRY(put(o, "kind", json_string(artifact ? "artifact" : "source"), err));
    NQ_TRY(copy(o, model, "architecture", err));
    NQ_TRY(copy(o, model, "name", err));
    NQ_TRY(copy(o, model, "source_format", err));
    NQ_TRY(put(o, "runnable", json_boolean(json_object_get(model, "unsupported") == NULL), err));
    NQ_TRY(copy(o, model, "unsupported", err));
    NQ_TRY(copy(o, model, "hyperparameters", err));
    NQ_TRY(put_tokenizer(o, model, err));
    NQ_TRY(put(o, "chat_template", json_boolean(json_object_get(model, "chat_template") != NULL),
               err));
    NQ_TRY(nq_size_put(o, &size, err));
    return put_tensors(o, w, err);
}

novaq_status novaq_info(char **report, const char *path, novaq_error *err) {
    nq_weights *w = NULL;
    if (report != NULL) {
        *report = NULL;
    }
    if (path == NULL) {
        return nq_fail(err, NOVAQ_E_ARG, "novaq_info: no path");
    }
    NQ_TRY(nq_weights_open(&w, path, err));
    json_t *o = json_object();
    novaq_status st = describe(o, w, err);
    if (st == NOVAQ_OK && report != NULL) {
        st = nq_json_dump(report, o, 2, err);
    }
    json_decref(o);
    nq_weights_close(&w);
    return st;
}

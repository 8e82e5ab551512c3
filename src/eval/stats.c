/* stats.c - novaq_stats(): what a model weighs, tensor by tensor, and what its
 * compression lost. All sizes are bytes on disk. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "eval/size.h"

uint64_t nq_stored_bytes(const nq_weight *t) {
    return t->layer != NULL ? t->layer->stored_bytes : t->src->bytes;
}

static double bits_each(uint64_t bytes, uint64_t elements) {
    return elements == 0 ? 0.0 : 8.0 * (double)bytes / (double)elements;
}

double nq_stored_bits(const nq_weight *t) { return bits_each(nq_stored_bytes(t), t->elements); }

nq_size nq_size_of(const nq_weights *w) {
    nq_size s = {0};
    uint64_t linear_bytes = 0;
    uint64_t linear_elements = 0;
    const nq_artifact *a = nq_weights_artifact(w);
    for (size_t i = 0; i < nq_weights_count(w); i++) {
        const nq_weight *t = nq_weights_at(w, i);
        s.parameters += t->elements;
        if (t->role == NQ_ROLE_LINEAR) {
            linear_bytes += nq_stored_bytes(t);
            linear_elements += t->elements;
        }
    }
    s.bytes = a != NULL ? nq_artifact_bytes(a) : nq_tensors_file_bytes(nq_weights_tensors(w));
    s.bits_per_weight = bits_each(s.bytes, s.parameters);
    s.bits_per_weight_linear = bits_each(linear_bytes, linear_elements);
    s.ratio_fp16 = s.bytes == 0 ? 0.0 : 2.0 * (double)s.parameters / (double)s.bytes;
    s.ratio_fp32 = 2.0 * s.ratio_fp16;
    return s;
}

novaq_status nq_size_put(json_t *report, const nq_size *s, novaq_error *err) {
    json_t *o = json_pack("{s:I, s:I, s:f, s:f, s:f, s:f}", "bytes", (json_int_t)s->bytes,
                          "parameters", (json_int_t)s->parameters, "bits_per_weight",
                          s->bits_per_weight, "bits_per_weight_linear", s->bits_per_weight_linear,
                          "ratio_fp16", s->ratio_fp16, "ratio_fp32", s->ratio_fp32);
    int failed = o == NULL || json_object_update(report, o) != 0;
    json_decref(o);
    return failed ? nq_fail(err, NOVAQ_E_MEMORY, "cannot report sizes") : NOVAQ_OK;
}

json_t *nq_shape_json(const nq_weight *t) {
    json_t *shape = json_array();
    for (uint32_t i = 0; i < t->rank; i++) {
        if (json_array_append_new(shape, json_integer((json_int_t)t->shape[i])) != 0) {
            json_decref(shape);
            return NULL;
        }
    }
    return shape;
}

static int put_real(json_t *o, const char *key, double v) {
    return isfinite(v) ? json_object_set_new(o, key, json_real(v)) : 0; /* else left out */
}

static double cosine(const nq_layer_error *e) {
    return e->sq_error == 0.0 ? 1.0 : e->dot / sqrt(e->sq_source * e->sq_decoded);
}

static double relative(const nq_layer_error *e) {
    return e->sq_error == 0.0 ? 0.0 : e->sq_error / e->sq_source;
}

int nq_error_put(json_t *o, const nq_weight *t) {
    const nq_layer_error *e = &t->layer->error;
    if (t->layer->error_unknown) {
        return 0;
    }
    return put_real(o, "mse", e->sq_error / (double)t->elements) |
           put_real(o, "cosine_similarity", cosine(e)) | put_real(o, "relative_error", relative(e));
}

static void add_error(nq_layer_error *sum, const nq_layer_error *e) {
    sum->sq_error += e->sq_error;
    sum->sq_source += e->sq_source;
    sum->sq_decoded += e->sq_decoded;
    sum->dot += e->dot;
}

/* The same over the artifact. The relative error counts what is quantized only:
 * exact tensors of large norm (embeddings kept) would hide it. */
static novaq_status put_global_error(json_t *report, const nq_weights *w, novaq_error *err) {
    nq_layer_error all = {0};
    nq_layer_error quantized = {0};
    double elements = 0;
    bool unknown = false;
    if (nq_weights_artifact(w) == NULL) {
        return NOVAQ_OK;
    }
    for (size_t i = 0; i < nq_weights_count(w); i++) {
        const nq_weight *t = nq_weights_at(w, i);
        elements += (double)t->elements;
        unknown = unknown || t->layer->error_unknown;
        add_error(&all, &t->layer->error);
        if (t->q != NULL) {
            add_error(&quantized, &t->layer->error);
        }
    }
    if (unknown) {
        return NOVAQ_OK;
    }
    int failed = put_real(report, "global_mse", all.sq_error / elements) |
                 put_real(report, "global_cosine_similarity", cosine(&all)) |
                 put_real(report, "relative_error", relative(&quantized));
    return failed ? nq_fail(err, NOVAQ_E_MEMORY, "cannot report errors") : NOVAQ_OK;
}

static json_t *layer_json(const nq_weight *t) {
    char name[NQ_SCHEME_NAME];
    uint64_t bytes = nq_stored_bytes(t);
    const char *dtype = nq_dtype_get(t->dtype)->name;
    json_t *o = json_pack("{s:o, s:s, s:s}", "shape", nq_shape_json(t), "role",
                          nq_role_name(t->role), "dtype", dtype);
    int failed = o == NULL;
    if (!failed && t->layer != NULL) {
        failed |=
            json_object_set_new(o, "scheme", json_string(nq_scheme_name(name, &t->layer->scheme)));
    }
    failed = failed || put_real(o, "bits_per_weight", nq_stored_bits(t)) != 0 ||
             json_object_set_new(o, "bytes", json_integer((json_int_t)bytes)) != 0;
    if (!failed && t->layer != NULL) {
        failed = nq_error_put(o, t) != 0;
        if (!failed && t->layer->diagnostics != NULL) {
            failed =
                json_object_set_new(o, "diagnostics", json_deep_copy(t->layer->diagnostics)) != 0;
        }
    }
    if (failed) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static novaq_status put_layers(json_t *report, const nq_weights *w, novaq_error *err) {
    json_t *layers = json_object();
    if (json_object_set_new(report, "layers", layers) != 0) {
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot report layers");
    }
    for (size_t i = 0; i < nq_weights_count(w); i++) {
        const nq_weight *t = nq_weights_at(w, i);
        if (json_object_set_new(layers, t->name, layer_json(t)) != 0) {
            return nq_fail(err, NOVAQ_E_FORMAT, "cannot report tensor %zu: its name is not UTF-8",
                           i);
        }
    }
    return NOVAQ_OK;
}

novaq_status novaq_stats(char **report, const char *path, novaq_error *err) {
    nq_weights *w = NULL;
    if (report != NULL) {
        *report = NULL;
    }
    if (path == NULL) {
        return nq_fail(err, NOVAQ_E_ARG, "novaq_stats: no path");
    }
    NQ_TRY(nq_weights_open(&w, path, err));
    json_t *o = json_object();
    nq_size size = nq_size_of(w);
    novaq_status st = nq_size_put(o, &size, err);
    if (st == NOVAQ_OK) {
        st = put_global_error(o, w, err);
    }
    if (st == NOVAQ_OK) {
        st = put_layers(o, w, err);
    }
    if (st == NOVAQ_OK && report != NULL) {
        st = nq_json_dump(report, o, 2, err);
    }
    json_decref(o);
    nq_weights_close(&w);
    return st;
}

/* compress.c - the pipeline: tensor by tensor from source to artifact.
 *
 * Owns: novaq_compress() and novaq_plan(). At any time at most one tensor is in
 * memory as floats, beside its codes. Refuses: running the model (eval/ does).
 */
#include <math.h>
#include <string.h>

#include "artifact/write.h"
#include "base/half.h"
#include "base/mem.h"
#include "compress/probe.h"
#include "compress/recipe.h"

typedef struct compress_job {
    nq_recipe recipe;
    nq_tensors *ts;
    nq_pool *pool;
    nq_writer *writer;
    nq_probe *probe;      /* or NULL */
    uint64_t coded_bytes; /* of the coded tensors, as stored */
} compress_job;

static void layer_head(nq_layer *layer, const nq_recipe_tensor *t) {
    *layer = (nq_layer){.name = t->src->name,
                        .rank = t->src->rank,
                        .elements = t->src->elements,
                        .role = t->role,
                        .source_dtype = t->src->dtype,
                        .scheme = t->scheme};
    memcpy(layer->shape, t->src->shape, sizeof layer->shape);
}

/* ---- tensors that are not coded -------------------------------------------------- */

static novaq_status store_raw(compress_job *j, const nq_recipe_tensor *t, novaq_error *err) {
    uint8_t *data = NULL;
    NQ_TRY(nq_alloc_raw(&data, t->src->bytes, 1, err));
    nq_layer layer;
    layer_head(&layer, t);
    layer.scheme = (nq_scheme){.kind = NQ_SCHEME_RAW, .d = 1};
    layer.data = data;
    layer.data_bytes = t->src->bytes;
    novaq_status st = nq_tensors_read(data, j->ts, t->src, 0, t->src->bytes, err);
    if (st == NOVAQ_OK) {
        st = nq_writer_add(j->writer, &layer, err);
    }
    nq_free(data);
    return st;
}

static void add_float_error(nq_layer_error *e, double w, double q) {
    e->sq_error += (w - q) * (w - q);
    e->sq_source += w * w;
    e->sq_decoded += q * q;
    e->dot += w * q;
}

/* f32, f16, bf16: converted by value. Finite values that would become infinite
 * are refused. */
static novaq_status store_float(compress_job *j, const nq_recipe_tensor *t, novaq_error *err) {
    uint64_t n = t->src->elements;
    uint64_t width = t->scheme.kind == NQ_SCHEME_F32 ? 4 : 2;
    float *w = NULL;
    NQ_TRY(nq_alloc_raw(&w, n, sizeof(float), err));
    nq_layer layer;
    layer_head(&layer, t);
    layer.data_bytes = n * width;
    layer.data = (const uint8_t *)w;
    novaq_status st = nq_tensors_read_f32(w, j->ts, t->src, err);
    bool wide = t->src->dtype == NQ_F64;
    /* The 16-bit result overwrites the front of the float array. */
    uint8_t *bytes = (uint8_t *)w;
    for (uint64_t i = 0; st == NOVAQ_OK && i < n; i++) {
        float q = w[i];
        if (t->scheme.kind != NQ_SCHEME_F32) {
            bool half = t->scheme.kind == NQ_SCHEME_F16;
            float v = w[i];
            uint16_t h = half ? nq_f32_to_f16(v) : nq_f32_to_bf16(v);
            q = half ? nq_f16_to_f32(h) : nq_bf16_to_f32(h);
            if ((isfinite(v) && !isfinite(q)) || (wide && !isfinite(v))) {
                st = nq_fail(err, NOVAQ_E_NUMERIC, "%s: value %g does not fit %s; use f32 or bf16",
                             t->src->name, (double)v, half ? "f16" : "bf16");
            }
            if (isfinite(v)) {
                add_float_error(&layer.error, (double)v, (double)q);
            }
            memcpy(bytes + i * 2, &h, 2);
        } else if (wide && !isfinite(q)) {
            st = nq_fail(err, NOVAQ_E_NUMERIC, "%s: a value does not fit f32; keep it raw",
                         t->src->name);
        } else if (isfinite(q)) {
            add_float_error(&layer.error, (double)q, (double)q);
        }
    }
    if (st == NOVAQ_OK) {
        st = nq_writer_add(j->writer, &layer, err);
    }
    nq_free(w);
    return st;
}

/* ---- coded tensors ------------------------------------------------------------------ */

static json_t *diagnostics(const nq_encoded *e, const nq_matrix_stats *s, bool code) {
    json_t *d = json_pack("{s:{s:f, s:f, s:f, s:f, s:f}}", "statistics", "mean", s->mean,
                          "variance", s->variance, "kurtosis", s->kurtosis, "anisotropy",
                          s->anisotropy, "sparsity", s->sparsity);
    if (d == NULL || !code) {
        return d;
    }
    const nq_subspace_stats *u = &e->subspaces;
    json_t *entropy = json_array();
    json_t *used = json_array();
    for (unsigned f = 0; f < e->q.scheme.fields; f++) {
        json_array_append_new(entropy, json_real(u->entropy[f]));
        json_array_append_new(used, json_integer((json_int_t)u->used[f]));
    }
    json_object_set_new(d, "subspaces",
                        json_pack("{s:I, s:i, s:f, s:f, s:f, s:I, s:f, s:o, s:o}", "count",
                                  (json_int_t)u->count, "dim", (int)e->q.scheme.d, "mse_min",
                                  u->mse_min, "mse_mean", u->mse_mean, "mse_max", u->mse_max,
                                  "worst", (json_int_t)u->worst, "cosine_min", u->cosine_min,
                                  "symbol_entropy", entropy, "symbols_used", used));
    return d;
}

static novaq_status write_encoded(compress_job *j, const nq_recipe_tensor *t, const nq_encoded *e,
                                  novaq_error *err) {
    nq_layer layer;
    layer_head(&layer, t);
    layer.q = e->q;
    layer.error = (nq_layer_error){e->sq_error, e->sq_source, e->sq_decoded, e->dot};
    json_t *d = diagnostics(e, &t->stats, t->scheme.kind == NQ_SCHEME_CODE);
    if (d == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot build telemetry");
    }
    layer.diagnostics = d;
    novaq_status st = nq_writer_add(j->writer, &layer, err);
    j->coded_bytes += nq_layer_stored_bytes(&layer);
    json_decref(d);
    return st;
}

static novaq_status warn_nonfinite(compress_job *j, const nq_recipe_tensor *t, novaq_error *err) {
    char *text = NULL;
    NQ_TRY(nq_asprintf(&text, err, "%s: %llu NaN or infinite values; kept as in the source",
                       t->src->name, (unsigned long long)t->stats.nonfinite));
    json_array_append_new(j->recipe.warnings, json_string(text));
    nq_free(text);
    return NOVAQ_OK;
}

static novaq_status store_coded(compress_job *j, nq_recipe_tensor *t, novaq_error *err) {
    float *w = NULL;
    NQ_TRY(nq_alloc_raw(&w, t->src->elements, sizeof(float), err));
    novaq_status st = nq_tensors_read_f32(w, j->ts, t->src, err);
    if (st == NOVAQ_OK && !t->have_stats) {
        st = nq_matrix_stats_compute(&t->stats, w, t->rows, t->cols, j->pool, err);
        t->have_stats = st == NOVAQ_OK;
    }
    if (st == NOVAQ_OK && t->stats.nonfinite > 0) {
        nq_free(w);
        NQ_TRY(warn_nonfinite(j, t, err));
        return store_raw(j, t, err);
    }
    nq_encode_options opt = j->recipe.encode;
    opt.scheme = t->scheme;
    nq_probe_inputs seen;
    if (nq_probe_find(&seen, j->probe, t->src->name) && seen.cols == t->cols) {
        opt.col_energy = seen.energy;
        opt.probe = seen.samples;
        opt.probe_rows = seen.count;
    }
    nq_encoded e = {0};
    if (st == NOVAQ_OK) {
        st = nq_encode(&e, w, t->rows, t->cols, &opt, t->src->name, j->pool, err);
    }
    nq_free(w);
    if (st == NOVAQ_OK) {
        st = write_encoded(j, t, &e, err);
    }
    nq_encoded_close(&e);
    return st;
}

static novaq_status store_tensor(compress_job *j, nq_recipe_tensor *t, novaq_error *err) {
    if (t->coded) {
        return store_coded(j, t, err);
    }
    if (t->have_stats && t->stats.nonfinite > 0) {
        NQ_TRY(warn_nonfinite(j, t, err));
    }
    return t->scheme.kind == NQ_SCHEME_RAW ? store_raw(j, t, err) : store_float(j, t, err);
}

static novaq_status store_all(compress_job *j, novaq_error *err) {
    uint64_t total = 0;
    uint64_t done = 0;
    for (size_t i = 0; i < j->recipe.count; i++) {
        total += j->recipe.tensors[i].src->bytes;
    }
    for (size_t i = 0; i < j->recipe.count; i++) {
        nq_recipe_tensor *t = &j->recipe.tensors[i];
        NQ_TRY(nq_report_progress(j->recipe.opt, "compress", t->src->name, done, total, err));
        NQ_TRY(store_tensor(j, t, err));
        done += t->src->bytes;
    }
    return nq_report_progress(j->recipe.opt, "compress", "", done, total, err);
}

/* ---- the two entry points ----------------------------------------------------------- */

static novaq_status dump_report(char **report, json_t *value, novaq_error *err) {
    novaq_status st = report != NULL ? nq_json_dump(report, value, 2, err) : NOVAQ_OK;
    json_decref(value);
    return st;
}

/* Looks at the inputs of the matrices before coding them; an empty look is worth
 * a hint, not an error. */
static novaq_status open_probe(compress_job *j, novaq_error *err) {
    const novaq_compress_options *o = j->recipe.opt;
    char *why = NULL;
    NQ_TRY(nq_probe_open(&j->probe, &why, o->input, j->ts, o->calibration, o->seed, j->pool,
                         o->progress, o->progress_ctx, err));
    if (why != NULL) {
        json_array_append_new(j->recipe.warnings,
                              json_sprintf("compressed without knowledge of its inputs: %s", why));
        nq_free(why);
    }
    return NOVAQ_OK;
}

static novaq_status write_artifact(char **report, compress_job *j, novaq_error *err) {
    const novaq_compress_options *o = j->recipe.opt;
    json_t *config = NULL;
    json_t *model = NULL;
    json_t *summary = NULL;
    novaq_status st = nq_describe(&model, j->ts, err);
    if (st == NOVAQ_OK) {
        st = nq_recipe_config(&config, &j->recipe, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_writer_open(&j->writer, o->output, o->single_file, err);
    }
    if (st == NOVAQ_OK) {
        st = open_probe(j, err);
    }
    if (st == NOVAQ_OK) {
        st = store_all(j, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_writer_finish(&j->writer, o->input, config, model, &summary, err);
    }
    nq_writer_abort(&j->writer);
    json_decref(config);
    json_decref(model);
    if (st == NOVAQ_OK) {
        json_object_set_new(summary, "output", json_string(o->output));
        double coded = (double)j->recipe.coded_elements;
        json_object_set(summary, "warnings", j->recipe.warnings);
        json_object_set(summary, "bytes", json_object_get(summary, "total_bytes"));
        json_object_set(summary, "parameters", json_object_get(summary, "total_parameters"));
        json_object_set_new(summary, "bits_per_weight_quantized",
                            json_real(coded > 0 ? 8.0 * (double)j->coded_bytes / coded : 0));
        st = dump_report(report, summary, err);
    }
    return st;
}

static novaq_status check_paths(const novaq_compress_options *o, int writing, novaq_error *err) {
    if (o == NULL || o->input == NULL || o->input[0] == '\0') {
        return nq_fail(err, NOVAQ_E_ARG, "no input given");
    }
    if (writing && (o->output == NULL || o->output[0] == '\0')) {
        return nq_fail(err, NOVAQ_E_ARG, "no output given");
    }
    return NOVAQ_OK;
}

static novaq_status open_job(compress_job *j, const novaq_compress_options *o, novaq_error *err) {
    *j = (compress_job){0};
    NQ_TRY(nq_tensors_open(&j->ts, o->input, err));
    NQ_TRY(nq_pool_open(&j->pool, o->threads, err));
    return nq_recipe_make(&j->recipe, j->ts, o, j->pool, err);
}

static void close_job(compress_job *j) {
    nq_recipe_close(&j->recipe);
    nq_probe_close(&j->probe);
    nq_pool_close(&j->pool);
    nq_tensors_close(&j->ts);
}

novaq_status novaq_compress(char **report, const novaq_compress_options *opt, novaq_error *err) {
    if (report != NULL) {
        *report = NULL;
    }
    NQ_TRY(check_paths(opt, 1, err));
    compress_job j;
    novaq_status st = open_job(&j, opt, err);
    if (st == NOVAQ_OK) {
        st = write_artifact(report, &j, err);
    }
    close_job(&j);
    return st;
}

static json_t *plan_layers(const nq_recipe *r, uint64_t *bytes, uint64_t *parameters) {
    json_t *layers = json_object();
    for (size_t i = 0; i < r->count; i++) {
        const nq_recipe_tensor *t = &r->tensors[i];
        char name[NQ_SCHEME_NAME];
        json_t *shape = json_array();
        for (uint32_t d = 0; d < t->src->rank; d++) {
            json_array_append_new(shape, json_integer((json_int_t)t->src->shape[d]));
        }
        double bits = t->src->elements > 0 ? 8.0 * (double)t->bytes / (double)t->src->elements : 0;
        json_object_set_new(layers, t->src->name,
                            json_pack("{s:o, s:s, s:s, s:s, s:f, s:I, s:f}", "shape", shape, "role",
                                      nq_role_name(t->role), "source_dtype",
                                      nq_dtype_get(t->src->dtype)->name, "scheme",
                                      nq_scheme_name(name, &t->scheme), "bits_per_weight", bits,
                                      "bytes", (json_int_t)t->bytes, "expected_relative_error",
                                      t->coded ? t->expected_error : 0.0));
        *bytes += t->bytes;
        *parameters += t->src->elements;
    }
    return layers;
}

/* What an artifact holds besides tensors: the deflated tokenizer (vocabularies
 * shrink to about a third) and the manifest. */
#define MANIFEST_BYTES            2048
#define MANIFEST_BYTES_PER_TENSOR 900
static novaq_status estimate_overhead(uint64_t *bytes, const compress_job *j, novaq_error *err) {
    json_t *model = NULL;
    char *text = NULL;
    NQ_TRY(nq_describe(&model, j->ts, err));
    json_t *tokenizer = json_object_get(model, "tokenizer");
    novaq_status st = NOVAQ_OK;
    *bytes = MANIFEST_BYTES + MANIFEST_BYTES_PER_TENSOR * (uint64_t)j->recipe.count;
    if (json_is_object(tokenizer)) {
        st = nq_json_dump(&text, tokenizer, 0, err);
        *bytes += st == NOVAQ_OK ? strlen(text) / 3 : 0;
    }
    nq_free(text);
    json_decref(model);
    return st;
}

novaq_status novaq_plan(char **report, const novaq_compress_options *opt, novaq_error *err) {
    *report = NULL;
    NQ_TRY(check_paths(opt, 0, err));
    compress_job j;
    novaq_status st = open_job(&j, opt, err);
    if (st == NOVAQ_OK) {
        uint64_t bytes = 0;
        uint64_t parameters = 0;
        json_t *layers = plan_layers(&j.recipe, &bytes, &parameters);
        double coded = j.recipe.coded_elements > 0
                           ? 8.0 * (double)j.recipe.coded_bytes / (double)j.recipe.coded_elements
                           : 0;
        uint64_t other = 0;
        st = estimate_overhead(&other, &j, err);
        uint64_t total = bytes + other;
        double whole = (double)total;
        json_t *plan = json_pack(
            "{s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:O, s:o}", "bytes", (json_int_t)total,
            "tensor_bytes", (json_int_t)bytes, "parameters", (json_int_t)parameters,
            "quantized_parameters", (json_int_t)j.recipe.coded_elements, "bits_per_weight",
            parameters > 0 ? 8.0 * whole / (double)parameters : 0.0, "bits_per_weight_quantized",
            coded, "ratio_fp16", 2.0 * (double)parameters / whole, "ratio_fp32",
            4.0 * (double)parameters / whole, "warnings", j.recipe.warnings, "layers", layers);
        if (st == NOVAQ_OK && plan == NULL) {
            st = nq_fail(err, NOVAQ_E_MEMORY, "cannot build the plan");
        }
        st = st == NOVAQ_OK ? nq_json_dump(report, plan, 2, err) : st;
        json_decref(plan);
    }
    close_job(&j);
    return st;
}

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
#include "compress/job.h"
#include "compress/sensitivity.h"

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

static novaq_status store_raw(nq_compress_job *j, const nq_recipe_tensor *t, novaq_error *err) {
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
static novaq_status store_float(nq_compress_job *j, const nq_recipe_tensor *t, novaq_error *err) {
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
    if (d != NULL && isfinite(e->output_error)) {
        json_object_set_new(d, "relative_output_error", json_real(e->output_error));
    }
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

novaq_status nq_job_progress(nq_compress_job *j, const char *item, novaq_error *err) {
    j->item = item;
    return nq_report_progress(j->recipe.opt, "compress", item, j->done, j->total, err);
}

novaq_status nq_job_tick(void *ctx, novaq_error *err) {
    nq_compress_job *j = ctx;
    return nq_job_progress(j, j->item != NULL ? j->item : "", err);
}

static void mark_written(nq_compress_job *j, const nq_recipe_tensor *t) {
    j->written[t - j->recipe.tensors] = true;
    j->done += t->src->bytes;
}

novaq_status nq_job_write(nq_compress_job *j, nq_recipe_tensor *t, const nq_encoded *e,
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
    mark_written(j, t);
    return st;
}

novaq_status nq_job_read(float **w, nq_compress_job *j, nq_recipe_tensor *t, novaq_error *err) {
    *w = NULL;
    NQ_TRY(nq_alloc_raw(w, t->src->elements, sizeof(float), err));
    novaq_status st = nq_tensors_read_f32(*w, j->ts, t->src, err);
    if (st == NOVAQ_OK && !t->have_stats) {
        st = nq_matrix_stats_compute(&t->stats, *w, t->rows, t->cols, j->pool, err);
        t->have_stats = st == NOVAQ_OK;
    }
    bool bad = st == NOVAQ_OK && t->stats.nonfinite > 0;
    if (bad) {
        t->coded = false;
        t->scheme = (nq_scheme){.kind = NQ_SCHEME_RAW, .d = 1};
    }
    if (bad || st != NOVAQ_OK) {
        nq_free(*w);
        *w = NULL;
    }
    return st;
}

static novaq_status store_coded(nq_compress_job *j, nq_recipe_tensor *t, float *w,
                                novaq_error *err) {
    nq_encoded e = {0};
    NQ_TRY(nq_encode(&e, w, t->rows, t->cols, &t->scheme, &j->recipe.encode, t->src->name, j->pool,
                     err));
    novaq_status st = nq_job_write(j, t, &e, err);
    nq_encoded_close(&e);
    return st;
}

novaq_status nq_job_store(nq_compress_job *j, nq_recipe_tensor *t, novaq_error *err) {
    float *w = NULL;
    if (t->coded) {
        NQ_TRY(nq_job_read(&w, j, t, err));
    }
    if (!t->coded && t->have_stats && t->stats.nonfinite > 0) {
        NQ_TRY(nq_recipe_warn(&j->recipe, err,
                              "%s: %llu NaN or infinite values; kept as in the source",
                              t->src->name, (unsigned long long)t->stats.nonfinite));
    }
    if (w != NULL) {
        novaq_status st = store_coded(j, t, w, err);
        nq_free(w);
        return st;
    }
    NQ_TRY(t->scheme.kind == NQ_SCHEME_RAW ? store_raw(j, t, err) : store_float(j, t, err));
    mark_written(j, t);
    return NOVAQ_OK;
}

/* With calibration the matrices of the blocks come first, in the order the model
 * computes; all else as the source has it. */
static novaq_status store_all(nq_compress_job *j, novaq_error *err) {
    NQ_TRY(nq_alloc(&j->written, j->recipe.count + 1, sizeof *j->written, err));
    for (size_t i = 0; i < j->recipe.count; i++) {
        j->total += j->recipe.tensors[i].src->bytes;
    }
    if (j->calibration.sequences > 0) {
        NQ_TRY(nq_job_calibrated(j, err));
    }
    for (size_t i = 0; i < j->recipe.count; i++) {
        if (!j->written[i]) {
            NQ_TRY(nq_job_progress(j, j->recipe.tensors[i].src->name, err));
            NQ_TRY(nq_job_store(j, &j->recipe.tensors[i], err));
        }
    }
    return nq_job_progress(j, "", err);
}

/* ---- the two entry points ----------------------------------------------------------- */

static novaq_status dump_report(char **report, json_t *value, novaq_error *err) {
    novaq_status st = report != NULL ? nq_json_dump(report, value, 2, err) : NOVAQ_OK;
    json_decref(value);
    return st;
}

/* Text to calibrate on; none is worth a hint, not an error. */
static novaq_status open_calibration(nq_compress_job *j, novaq_error *err) {
    const novaq_compress_options *o = j->recipe.opt;
    char *why = NULL;
    NQ_TRY(nq_calibration_open(&j->calibration, &why, o->input, j->ts, o->calibration,
                               o->calibration_tokens, o->seed, j->pool, o->progress,
                               o->progress_ctx, err));
    if (why != NULL) {
        novaq_status st =
            nq_recipe_warn(&j->recipe, err, "compressed without knowledge of its inputs: %s", why);
        nq_free(why);
        return st;
    }
    uint64_t got = (uint64_t)j->calibration.sequences * j->calibration.length;
    if (got > 0 && got < o->calibration_tokens) {
        return nq_recipe_warn(&j->recipe, err, "%s: holds %llu of the %u tokens asked for",
                              o->calibration, (unsigned long long)got, o->calibration_tokens);
    }
    return NOVAQ_OK;
}

/* Plans again with what an error in each matrix really costs. */
static novaq_status replan(nq_compress_job *j, novaq_error *err) {
    bool planned = false;
    for (size_t i = 0; i < j->recipe.count; i++) {
        planned = planned || j->recipe.tensors[i].planned;
    }
    if (!planned || j->recipe.opt->paper || j->calibration.sequences == 0) {
        return NOVAQ_OK;
    }
    nq_sensitivity *s = NULL;
    NQ_TRY(nq_alloc(&s, j->recipe.count, sizeof *s, err));
    novaq_status st = nq_sensitivity_measure(s, j, err);
    if (st == NOVAQ_OK) {
        st = nq_recipe_replan(&j->recipe, s, err);
    }
    nq_free(s);
    return st;
}

static novaq_status write_artifact(char **report, nq_compress_job *j, novaq_error *err) {
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
        st = open_calibration(j, err);
    }
    if (st == NOVAQ_OK) {
        st = replan(j, err);
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

static novaq_status open_job(nq_compress_job *j, const novaq_compress_options *o,
                             novaq_error *err) {
    *j = (nq_compress_job){0};
    NQ_TRY(nq_model_tensors_open(&j->ts, o->input, err));
    NQ_TRY(nq_pool_open(&j->pool, o->threads, err));
    NQ_TRY(nq_recipe_make(&j->recipe, j->ts, o, j->pool, err));
    j->recipe.encode.correct_share = o->propagate != 0 ? 1 : 0;
    return NOVAQ_OK;
}

static void close_job(nq_compress_job *j) {
    nq_recipe_close(&j->recipe);
    nq_calibration_close(&j->calibration);
    nq_free(j->written);
    nq_pool_close(&j->pool);
    nq_tensors_close(&j->ts);
}

novaq_status novaq_compress(char **report, const novaq_compress_options *opt, novaq_error *err) {
    if (report != NULL) {
        *report = NULL;
    }
    NQ_TRY(check_paths(opt, 1, err));
    nq_compress_job j;
    novaq_status st = open_job(&j, opt, err);
    if (st == NOVAQ_OK) {
        st = write_artifact(report, &j, err);
    }
    close_job(&j);
    return st;
}

novaq_status novaq_plan(char **report, const novaq_compress_options *opt, novaq_error *err) {
    *report = NULL;
    NQ_TRY(check_paths(opt, 0, err));
    nq_compress_job j;
    json_t *plan = NULL;
    novaq_status st = open_job(&j, opt, err);
    if (st == NOVAQ_OK) {
        st = open_calibration(&j, err);
    }
    if (st == NOVAQ_OK) {
        st = replan(&j, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_recipe_report(&plan, &j.recipe, j.ts, err);
    }
    if (st == NOVAQ_OK) {
        st = dump_report(report, plan, err);
    }
    close_job(&j);
    return st;
}

/* store.c - see job.h: from tensors of the source to layers of the artifact. At any time
 * at most one tensor is in memory as floats, beside its codes. */
#include <math.h>
#include <string.h>
#include <time.h>

#include "artifact/manifest.h"
#include "base/half.h"
#include "base/mem.h"
#include "compress/job.h"
#include "refine/telemetry.h"

static void layer_head(nq_layer *layer, const nq_recipe_tensor *t) {
    *layer = (nq_layer){.name = t->src->name,
                        .rank = t->src->rank,
                        .elements = t->src->elements,
                        .role = t->role,
                        .source_dtype = t->src->dtype,
                        .scheme = t->scheme};
    memcpy(layer->shape, t->src->shape, sizeof layer->shape);
}

/* ---- finished tensors ------------------------------------------------------------------ */

static double seconds_since(struct timespec *then) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    double s = (double)(now.tv_sec - then->tv_sec) + 1e-9 * (double)(now.tv_nsec - then->tv_nsec);
    bool first = then->tv_sec == 0 && then->tv_nsec == 0;
    *then = now;
    return first ? 0 : s;
}

/* One line of telemetry: what the manifest will say of the layer, and how long it took. */
static novaq_status tell(nq_compress_job *j, const nq_layer *layer, bool resumed,
                         novaq_error *err) {
    const novaq_compress_options *o = j->recipe.opt;
    nq_stored_layer s = {.layer = *layer};
    json_t *about = NULL;
    char *text = NULL;
    double seconds = seconds_since(&j->finished);
    if (o->tensor == NULL) {
        return NOVAQ_OK;
    }
    s.layer.q.scheme = layer->scheme;
    NQ_TRY(nq_layer_pieces(&s, nq_layer_optional(layer), err));
    NQ_TRY(nq_manifest_layer(&about, &s, err));
    (void)json_object_del(about, "pieces");
    (void)json_object_del(about, "error_sums");
    json_t *line =
        json_pack("{s:s, s:I, s:f, s:b}", "name", layer->name, "bytes",
                  (json_int_t)s.layer.stored_bytes, "seconds", seconds, "resumed", resumed);
    novaq_status st = line != NULL && json_object_update(line, about) == 0
                          ? nq_json_dump(&text, line, 0, err)
                          : nq_fail(err, NOVAQ_E_MEMORY, "cannot build telemetry");
    if (st == NOVAQ_OK) {
        o->tensor(o->tensor_ctx, text);
    }
    nq_free(text);
    json_decref(line);
    json_decref(about);
    return st;
}

static novaq_status finished(nq_compress_job *j, const nq_recipe_tensor *t, const nq_layer *layer,
                             bool resumed, novaq_error *err) {
    j->written[t - j->recipe.tensors] = true;
    j->tensors++;
    j->done += t->src->bytes;
    if (t->coded) {
        j->coded_bytes += nq_layer_stored_bytes(layer);
    }
    return tell(j, layer, resumed, err);
}

/* Writes a layer; the journal remembers what the source's tensor was. */
static novaq_status add_layer(nq_compress_job *j, const nq_recipe_tensor *t, const nq_layer *layer,
                              novaq_error *err) {
    json_int_t nonfinite = t->have_stats ? (json_int_t)t->stats.nonfinite : 0;
    json_t *note = json_pack("{s:s, s:I}", "blake3", nq_intake_hash(&j->intake, t->src),
                             "nonfinite", nonfinite);
    novaq_status st = note != NULL ? nq_writer_add_noted(j->writer, layer, note, err)
                                   : nq_fail(err, NOVAQ_E_MEMORY, "cannot build a note");
    json_decref(note);
    return st == NOVAQ_OK ? finished(j, t, layer, false, err) : st;
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
    novaq_status st = nq_intake_read(data, &j->intake, t->src, err);
    if (st == NOVAQ_OK) {
        st = add_layer(j, t, &layer, err);
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
    novaq_status st = nq_intake_read_f32(w, &j->intake, t->src, err);
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
        st = add_layer(j, t, &layer, err);
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
    novaq_status st = NOVAQ_OK;
    json_t *fresh = NULL;
    if (j->teacher != NULL) {
        st = nq_refine_telemetry(&fresh, &layer, j->teacher, j->pool, err);
        layer.diagnostics = fresh;
    }
    if (st == NOVAQ_OK) {
        st = add_layer(j, t, &layer, err);
    }
    json_decref(d);
    json_decref(fresh);
    return st;
}

/* A tensor that cannot be coded, though the recipe said so. */
static void keep_raw(nq_compress_job *j, nq_recipe_tensor *t) {
    j->recipe.coded_elements -= t->coded ? t->src->elements : 0;
    t->coded = false;
    t->scheme = (nq_scheme){.kind = NQ_SCHEME_RAW, .d = 1};
}

novaq_status nq_job_read(float **w, nq_compress_job *j, nq_recipe_tensor *t, novaq_error *err) {
    *w = NULL;
    NQ_TRY(nq_alloc_raw(w, t->src->elements, sizeof(float), err));
    novaq_status st = NOVAQ_OK;
    if (t->src == j->embedding) {
        memcpy(*w, j->embedding_values, t->src->elements * sizeof(float));
    } else {
        st = nq_intake_read_f32(*w, &j->intake, t->src, err);
    }
    if (st == NOVAQ_OK && !t->have_stats) {
        st = nq_matrix_stats_compute(&t->stats, *w, t->rows, t->cols, j->pool, err);
        t->have_stats = st == NOVAQ_OK;
    }
    bool bad = st == NOVAQ_OK && t->stats.nonfinite > 0;
    if (bad) {
        keep_raw(j, t);
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

static novaq_status warn_of_nonfinite(nq_compress_job *j, const nq_recipe_tensor *t, uint64_t n,
                                      novaq_error *err) {
    return nq_recipe_warn(&j->recipe, err, "%s: %llu NaN or infinite values; kept as in the source",
                          t->src->name, (unsigned long long)n);
}

novaq_status nq_job_store(nq_compress_job *j, nq_recipe_tensor *t, novaq_error *err) {
    nq_layer layer;
    bool found = false;
    float *w = NULL;
    NQ_TRY(nq_job_recall(&layer, &found, j, t, err));
    if (found) {
        return NOVAQ_OK;
    }
    if (t->coded) {
        NQ_TRY(nq_job_read(&w, j, t, err));
    }
    if (!t->coded && t->have_stats && t->stats.nonfinite > 0) {
        NQ_TRY(warn_of_nonfinite(j, t, t->stats.nonfinite, err));
    }
    if (w != NULL) {
        novaq_status st = store_coded(j, t, w, err);
        nq_free(w);
        return st;
    }
    return t->scheme.kind == NQ_SCHEME_RAW ? store_raw(j, t, err) : store_float(j, t, err);
}

/* ---- recalling ------------------------------------------------------------------------- */

/* Whether the layer of an interrupted run is of the recipe's tensor: a journal's text is
 * not to be trusted more than its data. */
static bool is_of(const nq_layer *l, const nq_recipe_tensor *t) {
    const nq_tensor_info *s = t->src;
    bool matrix = l->scheme.kind == NQ_SCHEME_CODE || l->scheme.kind == NQ_SCHEME_Q8;
    bool same = l->rank == s->rank && l->elements == s->elements && l->role == t->role &&
                l->source_dtype == s->dtype;
    for (uint32_t i = 0; same && i < s->rank; i++) {
        same = l->shape[i] == s->shape[i];
    }
    return same && (!matrix || (l->q.rows == t->rows && l->q.cols == t->cols));
}

/* It is what this run would write: coded by the same scheme, or kept because of what it
 * holds. */
static bool is_wanted(const nq_layer *l, const nq_recipe_tensor *t, uint64_t nonfinite) {
    char a[NQ_SCHEME_NAME];
    char b[NQ_SCHEME_NAME];
    if (t->coded && nonfinite > 0) {
        return l->scheme.kind == NQ_SCHEME_RAW;
    }
    return strcmp(nq_scheme_name(a, &l->scheme), nq_scheme_name(b, &t->scheme)) == 0;
}

static uint64_t member(const json_t *note, const char *key) {
    json_int_t v = json_integer_value(json_object_get(note, key));
    return v > 0 ? (uint64_t)v : 0;
}

novaq_status nq_job_recall(nq_layer *layer, bool *found, nq_compress_job *j, nq_recipe_tensor *t,
                           novaq_error *err) {
    const json_t *note = NULL;
    const nq_layer *next = nq_writer_next(j->writer, t->src->name, &note);
    const char *text = json_string_value(json_object_get(note, "blake3"));
    uint64_t nonfinite = member(note, "nonfinite");
    nq_hash_text hash = "";
    *found = false;
    if (next == NULL || text == NULL || strlen(text) != NQ_BLAKE3_HEX || !is_of(next, t) ||
        !is_wanted(next, t, nonfinite)) {
        return NOVAQ_OK;
    }
    memcpy(hash, text, sizeof hash);
    if (j->doubtful) {
        NQ_TRY(nq_intake_pass(&j->intake, t->src, err));
        if (strcmp(nq_intake_hash(&j->intake, t->src), hash) != 0) {
            return NOVAQ_OK;
        }
    }
    NQ_TRY(nq_writer_recall(layer, found, j->writer, t->src->name, err));
    if (!*found) {
        return NOVAQ_OK;
    }
    nq_intake_known(&j->intake, t->src, hash);
    if (t->coded && nonfinite > 0) {
        keep_raw(j, t);
        NQ_TRY(warn_of_nonfinite(j, t, nonfinite, err));
    }
    j->resumed++;
    j->resumed_bytes += t->src->bytes;
    return finished(j, t, layer, true, err);
}

/* ---- all of them ------------------------------------------------------------------------ */

novaq_status nq_job_progress(nq_compress_job *j, const char *item, novaq_error *err) {
    novaq_progress now = {.phase = "compress",
                          .item = item,
                          .done = j->done,
                          .total = j->total,
                          .unit = "B",
                          .value = NAN,
                          .received = nq_intake_received(j->ts),
                          .items = j->tensors,
                          .items_total = j->recipe.count};
    return nq_recipe_tell(&j->recipe, &now, err);
}

novaq_status nq_job_tick(void *ctx, novaq_error *err) {
    nq_compress_job *j = ctx;
    return nq_recipe_tick(&j->recipe, err);
}

/* From the first tensor that has to be read on, those after it are fetched ahead. */
static novaq_status fetch_rest(nq_compress_job *j, size_t first, novaq_error *err) {
    const nq_tensor_info **order = NULL;
    size_t count = 0;
    NQ_TRY(nq_alloc(&order, j->recipe.count + 1, sizeof *order, err));
    for (size_t i = first; i < j->recipe.count; i++) {
        if (!j->written[i]) {
            order[count++] = j->recipe.tensors[i].src;
        }
    }
    novaq_status st = nq_intake_ahead(&j->intake, order, count, err);
    nq_free(order);
    return st;
}

novaq_status nq_job_store_rest(nq_compress_job *j, novaq_error *err) {
    bool fetching = false;
    for (size_t i = 0; i < j->recipe.count; i++) {
        nq_recipe_tensor *t = &j->recipe.tensors[i];
        nq_layer layer;
        bool found = j->written[i];
        if (!found) {
            NQ_TRY(nq_job_progress(j, t->src->name, err));
        }
        if (!found && !j->doubtful) {
            NQ_TRY(nq_job_recall(&layer, &found, j, t, err));
        }
        if (!found && !fetching && !j->held) {
            NQ_TRY(fetch_rest(j, i, err));
            fetching = true;
        }
        if (!found) {
            NQ_TRY(nq_job_store(j, t, err));
        }
    }
    return nq_job_progress(j, "", err);
}

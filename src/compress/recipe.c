/* recipe.c - see recipe.h. */
#include "compress/recipe.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "base/mem.h"
#include "compress/tensor_rules.h"

/* Smaller matrices stay as they are: codebook and scales would eat the gain. */
#define CODED_MIN_ELEMENTS 256
#define CODED_MIN_COLS     4
/* The embedding, and the head it often is as well, is the output itself: an error
 * there costs about twice what it costs in a linear layer of average size. */
#define EMBEDDING_WEIGHT 2.0

novaq_status nq_report_progress(const novaq_compress_options *opt, const char *phase,
                                const char *item, uint64_t done, uint64_t total, novaq_error *err) {
    if (opt->progress == NULL) {
        return NOVAQ_OK;
    }
    novaq_progress p = {
        .phase = phase, .item = item, .done = done, .total = total, .unit = "B", .value = NAN};
    if (opt->progress(opt->progress_ctx, &p) != 0) {
        return nq_fail(err, NOVAQ_E_INTERRUPTED, "interrupted; nothing was left behind");
    }
    return NOVAQ_OK;
}

static novaq_status check_ranges(const novaq_compress_options *o, novaq_error *err) {
    if (!(o->target_bits >= 0.19 && o->target_bits <= 8)) {
        return nq_fail(err, NOVAQ_E_ARG, "target bits must lie in 0.19-8, not %g", o->target_bits);
    }
    if (o->level1_centroids == 1 || o->level1_centroids > 256 || o->level2_centroids > 256) {
        return nq_fail(err, NOVAQ_E_ARG, "centroids must lie in 2-256");
    }
    if (o->min_subspace_dim < 1 || o->max_subspace_dim > NQ_MAX_D ||
        o->min_subspace_dim > o->max_subspace_dim || o->subspaces > NQ_MAX_D) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "subspace dimensions must satisfy 1 <= min (%u) <= max (%u) <= %d",
                       o->min_subspace_dim, o->max_subspace_dim, NQ_MAX_D);
    }
    if (o->max_iterations < 1 || o->max_iterations > 1000 || !(o->tolerance > 0)) {
        return nq_fail(err, NOVAQ_E_ARG, "iterations must lie in 1-1000 and tolerance above 0");
    }
    if (!(o->outlier_percentile >= 0 && o->outlier_percentile <= 1)) {
        return nq_fail(err, NOVAQ_E_ARG, "outlier percentile must lie in 0-1");
    }
    if (o->segment_rows < 16 || o->segment_rows > 1U << 20) {
        return nq_fail(err, NOVAQ_E_ARG, "segment rows must lie in 16-1048576");
    }
    return NOVAQ_OK;
}

static novaq_status encode_options(nq_encode_options *e, const novaq_compress_options *o,
                                   novaq_error *err) {
    static const char *const names[] = {"none", "row", "rotate", "paper"};
    const char *wanted = o->normalize != NULL ? o->normalize : "rotate";
    *e = (nq_encode_options){.outlier_percentile = o->outlier_percentile,
                             .segment_rows = o->segment_rows,
                             .seed = o->seed,
                             .max_iterations = o->max_iterations,
                             .tolerance = o->tolerance};
    for (int i = 0; i < 4; i++) {
        if (strcmp(wanted, names[i]) == 0) {
            e->normalize = (nq_normalize)i;
            return NOVAQ_OK;
        }
    }
    return nq_fail(err, NOVAQ_E_ARG, "unknown normalization '%s': use rotate, row, paper or none",
                   wanted);
}

/* Role, matrix view, and whether the codec applies at all. */
static void classify(nq_recipe_tensor *t, const nq_tensor_info *src) {
    *t = (nq_recipe_tensor){.src = src, .role = nq_tensor_role(src->name, src->rank)};
    t->scheme = (nq_scheme){.kind = NQ_SCHEME_RAW, .d = 1};
    if (!nq_dtype_get(src->dtype)->is_float) {
        t->role = NQ_ROLE_OTHER; /* a table of indices is no layer */
    }
    if (src->rank < 2 || !nq_dtype_get(src->dtype)->is_float ||
        src->elements < CODED_MIN_ELEMENTS) {
        return;
    }
    nq_matrix_view(&t->rows, &t->cols, src->rank, src->shape);
    t->coded = t->cols >= CODED_MIN_COLS && t->rows > 0;
}

static bool is_coded_kind(const nq_scheme *s) {
    return s->kind == NQ_SCHEME_CODE || s->kind == NQ_SCHEME_Q8;
}

/* Adds a line to the report's warnings. */
static novaq_status warn(nq_recipe *r, novaq_error *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static novaq_status warn(nq_recipe *r, novaq_error *err, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    json_t *text = json_vsprintf(fmt, ap);
    va_end(ap);
    if (text == NULL || json_array_append_new(r->warnings, text) != 0) {
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot record a warning");
    }
    return NOVAQ_OK;
}

/* Overrides in order of strength: --tensor-type, --keep-embedding, --scheme.
 * *decided: the planner has no say. */
static novaq_status override_scheme(nq_recipe_tensor *t, bool *decided, nq_recipe *r,
                                    nq_rules *rules, novaq_error *err) {
    const novaq_compress_options *o = r->opt;
    const nq_scheme *rule = nq_rules_match(rules, t->src->name);
    *decided = true;
    if (rule != NULL && is_coded_kind(rule) && !t->coded) {
        /* A pattern such as ".*" also meets vectors and indices: they stay. */
        if (t->src->rank >= 2) {
            NQ_TRY(warn(r, err, "%s: too small or no floats: kept as in the source, not coded",
                        t->src->name));
        }
    } else if (rule != NULL && rule->kind != NQ_SCHEME_RAW &&
               !nq_dtype_get(t->src->dtype)->is_float) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: holds %s, which no float type keeps exactly",
                       t->src->name, nq_dtype_get(t->src->dtype)->name);
    } else if (rule != NULL) {
        t->scheme = *rule;
        t->coded = is_coded_kind(rule);
    } else if (o->keep_embedding && (t->role == NQ_ROLE_EMBEDDING || t->role == NQ_ROLE_HEAD)) {
        t->coded = false;
    } else if (o->scheme != NULL && t->coded) {
        NQ_TRY(nq_scheme_parse(&t->scheme, o->scheme, err));
        t->coded = is_coded_kind(&t->scheme);
    } else {
        *decided = !t->coded;
    }
    return NOVAQ_OK;
}

/* ---- planning ---------------------------------------------------------------- */

/* Sensitivity of a tensor: its size, times what an error costs per parameter.
 * Among linear layers that falls with the square root of the size, relative to
 * their mean size: errors per parameter alone would weigh as the size, errors per
 * layer (linearity, Malinovskii et al. 2024, "HIGGS") the same for all. Measured in
 * docs/METHOD.md. Layer statistics modulate it: outlying input columns (anisotropy)
 * mean directions the layer relies on; heavy tails (kurtosis) cost more where no
 * rotation evens them out; exact zeros carry nothing. */
static double sensitivity(const nq_recipe_tensor *t, nq_normalize normalize, double mean_size) {
    double n = (double)t->src->elements;
    bool whole_model = t->role == NQ_ROLE_EMBEDDING || t->role == NQ_ROLE_HEAD;
    double s = whole_model || !(mean_size > 0) ? EMBEDDING_WEIGHT * n : n * sqrt(mean_size / n);
    double spread = t->stats.anisotropy < 4 ? t->stats.anisotropy : 4;
    s *= (1 + 0.1 * spread) * (1 - 0.5 * t->stats.sparsity);
    if (normalize != NQ_NORMALIZE_ROTATE && t->stats.kurtosis > 3) {
        double excess = t->stats.kurtosis - 3 < 20 ? t->stats.kurtosis - 3 : 20;
        s *= 1 + 0.05 * excess;
    }
    return s > 0 ? s : 1e-9;
}

/* Mean element count of the linear layers the planner decides on; 0 if none. */
static double mean_linear_size(const nq_recipe *r, const bool *decided) {
    double sum = 0;
    double count = 0;
    for (size_t i = 0; i < r->count; i++) {
        if (!decided[i] && r->tensors[i].role == NQ_ROLE_LINEAR) {
            sum += (double)r->tensors[i].src->elements;
            count += 1;
        }
    }
    return count > 0 ? sum / count : 0;
}

static novaq_status gather_stats(nq_recipe *r, nq_tensors *ts, nq_pool *pool, novaq_error *err) {
    uint64_t total = 0;
    uint64_t done = 0;
    for (size_t i = 0; i < r->count; i++) {
        total += r->tensors[i].coded ? r->tensors[i].src->bytes : 0;
    }
    for (size_t i = 0; i < r->count; i++) {
        nq_recipe_tensor *t = &r->tensors[i];
        if (!t->coded) {
            continue;
        }
        NQ_TRY(nq_report_progress(r->opt, "analyse", t->src->name, done, total, err));
        float *w = NULL;
        NQ_TRY(nq_alloc_raw(&w, t->src->elements, sizeof(float), err));
        novaq_status st = nq_tensors_read_f32(w, ts, t->src, err);
        if (st == NOVAQ_OK) {
            st = nq_matrix_stats_compute(&t->stats, w, t->rows, t->cols, pool, err);
        }
        nq_free(w);
        NQ_TRY(st);
        t->have_stats = true;
        done += t->src->bytes;
    }
    return NOVAQ_OK;
}

/* The paper's parameters in effect. `subspaces` = N makes subvectors of N columns;
 * unless centroids are given, K1 and K2 then share round(bits * N) bits two to
 * one: N = 4 at 1.5 bits is K1 = 16, K2 = 4, the example of the paper's section
 * 3.2. */
static novaq_status paper_parameters(nq_recipe *r, novaq_error *err) {
    const novaq_compress_options *o = r->opt;
    r->k1 = o->level1_centroids != 0 ? o->level1_centroids : 16;
    r->k2 = o->level2_centroids != 0 ? o->level2_centroids : 8;
    r->d_min = o->subspaces != 0 ? o->subspaces : o->min_subspace_dim;
    r->d_max = o->subspaces != 0 ? o->subspaces : o->max_subspace_dim;
    if (o->subspaces == 0 || o->level1_centroids != 0 || o->level2_centroids != 0) {
        return NOVAQ_OK;
    }
    unsigned total = (unsigned)rint(o->target_bits * o->subspaces);
    if (total < 1 || total > 16) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "%u subspaces at %g bits need %u bits a symbol; two centroid indices hold "
                       "1-16: choose --subspaces between %g and %g, or give the centroids",
                       o->subspaces, o->target_bits, total, ceil(0.5 / o->target_bits),
                       floor(16 / o->target_bits));
    }
    unsigned first = (2 * total + 2) / 3;
    first = first > 8 ? 8 : first;
    r->k1 = 1U << first;
    r->k2 = 1U << (total - first);
    return NOVAQ_OK;
}

/* Bytes a coded tensor takes besides symbols, codebook and row scales. Whether its
 * inputs will be known is not certain yet; linear layers are counted as if. */
static uint64_t extra_bytes(const nq_recipe *r, const nq_recipe_tensor *t) {
    const char *calibration = r->opt->calibration;
    bool watched = calibration != NULL && strcmp(calibration, "none") != 0;
    uint64_t means = r->encode.normalize == NQ_NORMALIZE_PAPER ? 2 * t->rows : 0;
    return means + (watched && t->role == NQ_ROLE_LINEAR ? t->cols : 0);
}

/* Says so when the target was not met, or could not be used up. */
static novaq_status compare_budget(nq_recipe *r, uint64_t elements, novaq_error *err) {
    double got = 8.0 * (double)r->budget_used / (double)elements;
    if (r->budget_used > r->budget) {
        return warn(r, err,
                    "target of %g bits per weight not met: the smallest codes allowed, scales and "
                    "codebooks included, take %.4g",
                    r->opt->target_bits, got);
    }
    if (got < 0.9 * r->opt->target_bits) {
        return warn(r, err,
                    "target of %g bits per weight not used up: the largest codes allowed take %.4g",
                    r->opt->target_bits, got);
    }
    return NOVAQ_OK;
}

static novaq_status plan(nq_recipe *r, const bool *decided, novaq_error *err) {
    const novaq_compress_options *o = r->opt;
    nq_scheme *ladder = NULL;
    size_t rungs = 0;
    nq_plan_item *items = NULL;
    size_t n = 0;
    novaq_status st = o->paper
                          ? nq_ladder_paper(&ladder, &rungs, r->k1, r->k2, r->d_min, r->d_max, err)
                          : nq_ladder_default(&ladder, &rungs, err);
    if (st == NOVAQ_OK) {
        st = nq_alloc(&items, r->count + 1, sizeof *items, err);
    }
    uint64_t elements = 0;
    double mean_size = mean_linear_size(r, decided);
    for (size_t i = 0; st == NOVAQ_OK && i < r->count; i++) {
        const nq_recipe_tensor *t = &r->tensors[i];
        if (!decided[i]) {
            elements += t->src->elements;
            items[n++] =
                (nq_plan_item){.rows = t->rows,
                               .cols = t->cols,
                               .extra = extra_bytes(r, t),
                               .sensitivity = sensitivity(t, r->encode.normalize, mean_size)};
        }
    }
    if (st == NOVAQ_OK && n > 0) {
        r->budget = (uint64_t)(o->target_bits * (double)elements / 8);
        st = nq_plan_choose(items, n, ladder, rungs, r->budget, err);
    }
    n = 0;
    for (size_t i = 0; st == NOVAQ_OK && i < r->count; i++) {
        if (!decided[i]) {
            r->tensors[i].scheme = items[n].scheme;
            r->tensors[i].coded = is_coded_kind(&items[n].scheme);
            r->budget_used += items[n].bytes;
            n++;
        }
    }
    nq_free(ladder);
    nq_free(items);
    return st == NOVAQ_OK && elements > 0 ? compare_budget(r, elements, err) : st;
}

static void total_up(nq_recipe *r) {
    for (size_t i = 0; i < r->count; i++) {
        nq_recipe_tensor *t = &r->tensors[i];
        if (t->coded) {
            t->bytes = nq_plan_bytes(&t->scheme, t->rows, t->cols, extra_bytes(r, t));
            t->expected_error = nq_plan_error(&t->scheme);
            r->coded_elements += t->src->elements;
            r->coded_bytes += t->bytes;
        } else if (t->scheme.kind == NQ_SCHEME_RAW) {
            t->bytes = t->src->bytes;
        } else {
            t->bytes = nq_scheme_row_bytes(&t->scheme, t->src->elements);
        }
    }
}

static novaq_status decide_all(nq_recipe *r, nq_tensors *ts, nq_rules *rules, nq_pool *pool,
                               novaq_error *err) {
    bool *decided = NULL;
    NQ_TRY(nq_alloc(&decided, r->count + 1, sizeof *decided, err));
    bool open = false;
    novaq_status st = NOVAQ_OK;
    for (size_t i = 0; st == NOVAQ_OK && i < r->count; i++) {
        classify(&r->tensors[i], nq_tensors_at(ts, i));
        st = override_scheme(&r->tensors[i], &decided[i], r, rules, err);
        open = open || !decided[i];
    }
    if (st == NOVAQ_OK && open) {
        st = gather_stats(r, ts, pool, err);
    }
    for (size_t i = 0; st == NOVAQ_OK && i < r->count; i++) {
        /* NaN and infinity are kept bit for bit, and reported. */
        if (r->tensors[i].have_stats && r->tensors[i].stats.nonfinite > 0) {
            r->tensors[i].coded = false;
            r->tensors[i].scheme = (nq_scheme){.kind = NQ_SCHEME_RAW, .d = 1};
            decided[i] = true;
        }
    }
    if (st == NOVAQ_OK) {
        st = plan(r, decided, err);
    }
    nq_free(decided);
    return st;
}

novaq_status nq_recipe_make(nq_recipe *out, nq_tensors *ts, const novaq_compress_options *opt,
                            nq_pool *pool, novaq_error *err) {
    *out = (nq_recipe){.opt = opt, .count = nq_tensors_count(ts)};
    NQ_TRY(check_ranges(opt, err));
    NQ_TRY(encode_options(&out->encode, opt, err));
    NQ_TRY(paper_parameters(out, err));
    nq_rules *rules = NULL;
    NQ_TRY(nq_rules_open(&rules, opt->tensor_types, opt->tensor_type_count, err));
    novaq_status st = nq_alloc(&out->tensors, out->count + 1, sizeof *out->tensors, err);
    out->warnings = json_array();
    if (st == NOVAQ_OK) {
        st = decide_all(out, ts, rules, pool, err);
    }
    for (size_t i = 0; st == NOVAQ_OK && i < opt->tensor_type_count; i++) {
        if (!nq_rules_used(rules, i)) {
            st = warn(out, err, "--tensor-type '%s' matches no tensor", opt->tensor_types[i]);
        }
    }
    nq_rules_close(&rules);
    if (st != NOVAQ_OK) {
        nq_recipe_close(out);
        return st;
    }
    total_up(out);
    return NOVAQ_OK;
}

void nq_recipe_close(nq_recipe *r) {
    nq_free(r->tensors);
    json_decref(r->warnings);
    r->warnings = NULL;
    r->tensors = NULL;
    r->count = 0;
}

novaq_status nq_recipe_config(json_t **out, const nq_recipe *r, novaq_error *err) {
    const novaq_compress_options *o = r->opt;
    json_t *rules = json_array();
    for (size_t i = 0; i < o->tensor_type_count; i++) {
        json_array_append_new(rules, json_string(o->tensor_types[i]));
    }
    *out = json_pack(
        "{s:f, s:b, s:i, s:i, s:i, s:i, s:i, s:f, s:I, s:f, s:s, s:s?, s:o, s:i, s:s, s:b}",
        "target_bits", o->target_bits, "paper", o->paper, "level1_centroids", (int)r->k1,
        "level2_centroids", (int)r->k2, "min_subspace_dim", (int)r->d_min, "max_subspace_dim",
        (int)r->d_max, "max_iterations", (int)o->max_iterations, "tolerance", o->tolerance, "seed",
        (json_int_t)o->seed, "outlier_percentile", o->outlier_percentile, "normalize",
        o->normalize != NULL ? o->normalize : "rotate", "scheme", o->scheme, "tensor_types", rules,
        "segment_rows", (int)o->segment_rows, "calibration",
        o->calibration != NULL ? o->calibration : "none", "keep_embedding", o->keep_embedding);
    if (*out == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot build the configuration record");
    }
    if (o->subspaces != 0) {
        (void)json_object_set_new(*out, "subspaces", json_integer((json_int_t)o->subspaces));
    }
    return NOVAQ_OK;
}

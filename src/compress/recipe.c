/* recipe.c - see recipe.h. */
#include "compress/recipe.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "base/mem.h"
#include "compress/calibration.h"
#include "compress/intake.h"
#include "compress/tensor_rules.h"
#include "format/dequant.h"

/* Smaller matrices stay as they are: codebook and scales would eat the gain. */
#define CODED_MIN_ELEMENTS 256
#define CODED_MIN_COLS     4
#define REFINE_BLOCKS_MAX  100000U
#define SWEEPS_MAX         16
#define KEEP_UNASKED       ((uint64_t)64 << 20)
/* Exponent of the column scales where errors are not fed forward; where they are, no
 * scales at all are better. Measured in docs/METHOD.md. */
#define UNFED_COLUMN_SCALES 0.5

novaq_status nq_report_step(novaq_progress_fn fn, void *ctx, const novaq_progress *now,
                            novaq_error *err) {
    if (fn != NULL && fn(ctx, now) != 0) {
        return nq_fail(err, NOVAQ_E_INTERRUPTED, "interrupted");
    }
    return NOVAQ_OK;
}

novaq_status nq_recipe_tell(nq_recipe *r, const novaq_progress *now, novaq_error *err) {
    r->told = *now;
    return nq_report_step(r->opt->progress, r->opt->progress_ctx, now, err);
}

novaq_status nq_recipe_progress(nq_recipe *r, const char *phase, const char *item, uint64_t done,
                                uint64_t total, novaq_error *err) {
    novaq_progress now = {.phase = phase,
                          .item = item,
                          .done = done,
                          .total = total,
                          .unit = "B",
                          .value = NAN,
                          .received = nq_intake_received(r->ts)};
    return nq_recipe_tell(r, &now, err);
}

/* Another phase would begin rate and remaining time anew. */
novaq_status nq_recipe_tick(nq_recipe *r, novaq_error *err) {
    if (r->told.phase == NULL) {
        return nq_recipe_progress(r, "read", "", 0, 0, err);
    }
    novaq_progress now = r->told;
    now.received = nq_intake_received(r->ts);
    now.done = r->fetching ? now.received : now.done;
    return nq_recipe_tell(r, &now, err);
}

novaq_status nq_recipe_hold(nq_recipe *r, novaq_error *err) {
    NQ_TRY(
        nq_recipe_progress(r, "fetch", "", nq_intake_received(r->ts), nq_intake_bytes(r->ts), err));
    r->fetching = true;
    novaq_status st = nq_tensors_hold(r->ts, err);
    r->fetching = false;
    r->held = st == NOVAQ_OK;
    return st;
}

/* What calibrated coding and the normalization's pieces may be told. */
static novaq_status check_calibration(const novaq_compress_options *o, novaq_error *err) {
    unsigned b = o->rotation_block;
    if (b != 0 && (b < 16 || b > 512 || (b & (b - 1)) != 0)) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "rotation block %u: give a power of two from 16 to 512, or 0 for 512", b);
    }
    if (o->calibration_tokens > NQ_CALIBRATION_TOKENS_MAX) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "%u calibration tokens: give at most %u, or 0 for the default",
                       o->calibration_tokens, NQ_CALIBRATION_TOKENS_MAX);
    }
    if (o->sweeps > SWEEPS_MAX) {
        return nq_fail(err, NOVAQ_E_ARG, "%u sweeps: give at most %d", o->sweeps, SWEEPS_MAX);
    }
    if (o->refine_blocks > REFINE_BLOCKS_MAX) {
        return nq_fail(err, NOVAQ_E_ARG, "%u steps of each block: give at most %u",
                       o->refine_blocks, REFINE_BLOCKS_MAX);
    }
    if (!(o->damping >= 1e-6 && o->damping <= 10)) {
        return nq_fail(err, NOVAQ_E_ARG, "damping must lie in 0.000001-10, not %g", o->damping);
    }
    if (!(o->column_scales <= 2)) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "the exponent of the column scales must lie in 0-2, not %g",
                       o->column_scales);
    }
    if (o->column_order != NULL && strcmp(o->column_order, "natural") != 0 &&
        strcmp(o->column_order, "energy") != 0) {
        return nq_fail(err, NOVAQ_E_ARG, "unknown column order '%s': use natural or energy",
                       o->column_order);
    }
    return NOVAQ_OK;
}

static novaq_status check_target_size(const novaq_compress_options *o, novaq_error *err) {
    if (o->target_size != 0 && o->scheme != NULL) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "a target size leaves the schemes to the planner: leave out the scheme %s, "
                       "or give it to some tensors only",
                       o->scheme);
    }
    if (o->target_size != 0 && o->subspaces != 0) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "a subvector length fixes the size: leave out the subspaces or the target "
                       "size");
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
    NQ_TRY(check_calibration(o, err));
    return check_target_size(o, err);
}

/* Pieces that another normalization does not have. */
static novaq_status check_normalization(const novaq_compress_options *o, nq_normalize normalize,
                                        novaq_error *err) {
    if (o->rotation_block != 0 && normalize != NQ_NORMALIZE_ROTATE) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "a rotation block of %u without a rotation: leave it out, or normalize by "
                       "'rotate', not '%s'",
                       o->rotation_block, o->normalize);
    }
    if (o->column_scales > 0 && normalize != NQ_NORMALIZE_ROTATE) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "column scales of exponent %g without a rotation: leave them out, or "
                       "normalize by 'rotate', not '%s'",
                       o->column_scales, o->normalize);
    }
    if (o->row_means != 0 && normalize == NQ_NORMALIZE_PAPER) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "normalizing by 'paper' stores the row means anyway: leave the option out, "
                       "or normalize by 'rotate' or 'row'");
    }
    if (o->row_means != 0 && normalize == NQ_NORMALIZE_NONE) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "row means belong to rows: normalize by 'rotate' or 'row', not 'none'");
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
                             .tolerance = o->tolerance,
                             .rotation_block = o->rotation_block,
                             .row_means = o->row_means != 0,
                             .feedback = o->feedback != 0,
                             .sweeps = o->sweeps};
    for (int i = 0; i < 4; i++) {
        if (strcmp(wanted, names[i]) == 0) {
            e->normalize = (nq_normalize)i;
            return check_normalization(o, e->normalize, err);
        }
    }
    return nq_fail(err, NOVAQ_E_ARG, "unknown normalization '%s': use rotate, row, paper or none",
                   wanted);
}

/* Role, matrix view, and whether the codec applies at all. Tables that are only looked
 * up, masks and routers (role OTHER) stay as they are. */
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
    t->coded = t->cols >= CODED_MIN_COLS && t->rows > 0 && t->role != NQ_ROLE_OTHER;
}

static bool is_coded_kind(const nq_scheme *s) {
    return s->kind == NQ_SCHEME_CODE || s->kind == NQ_SCHEME_Q8;
}

novaq_status nq_recipe_warn(nq_recipe *r, novaq_error *err, const char *fmt, ...) {
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
 * What none of them decides is left to the planner. */
static novaq_status override_scheme(nq_recipe_tensor *t, nq_recipe *r, nq_rules *rules,
                                    novaq_error *err) {
    const novaq_compress_options *o = r->opt;
    const nq_scheme *rule = nq_rules_match(rules, t->src->name);
    t->planned = false;
    if (rule != NULL && is_coded_kind(rule) && !t->coded) {
        /* A pattern such as ".*" also meets vectors and indices: they stay. */
        if (t->src->rank >= 2) {
            NQ_TRY(
                nq_recipe_warn(r, err,
                               "%s: too small, no floats, or no matrix that multiplies: kept as in "
                               "the source, not coded",
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
        t->planned = t->coded;
    }
    return NOVAQ_OK;
}

/* ---- statistics -------------------------------------------------------------- */

/* Bytes of a remote source that may stay in memory between its statistics and its coding:
 * calibration will need them there anyway; without, memory is to stay small. */
static uint64_t keep_limit(const nq_recipe *r, const nq_tensors *ts) {
    const char *mode = r->opt->calibration;
    bool runs =
        nq_recipe_calibrated(r) &&
        (strcmp(mode, "self") == 0 || (strcmp(mode, "auto") == 0 && !nq_calibration_is_large(ts)));
    uint64_t usual = runs ? nq_physical_memory() / 2 : KEEP_UNASKED;
    return r->opt->max_memory > 0 ? r->opt->max_memory : usual;
}

/* Rows that the planner looks at of a matrix. */
#define SAMPLE_ROWS 128

/* How much of a matrix its statistics are taken from: its first rows, where these lie
 * together and are what is asked for. */
static uint64_t sample_rows(const nq_recipe_tensor *t, bool whole) {
    bool together = t->src->strides == NULL && t->src->view == 0;
    uint64_t block = nq_dtype_get(t->src->dtype)->block;
    bool cut = !whole && together && t->rows > SAMPLE_ROWS && t->cols % block == 0;
    return cut ? SAMPLE_ROWS : t->rows;
}

static novaq_status read_sample(float *w, nq_tensors *ts, const nq_recipe_tensor *t, uint64_t rows,
                                novaq_error *err) {
    if (rows == t->rows) {
        return nq_tensors_read_f32(w, ts, t->src, err);
    }
    const nq_dtype_info *d = nq_dtype_get(t->src->dtype);
    uint64_t bytes = rows * t->cols / d->block * d->bytes;
    uint8_t *raw = NULL;
    NQ_TRY(nq_alloc_raw(&raw, bytes, 1, err));
    novaq_status st = nq_tensors_read(raw, ts, t->src, 0, bytes, err);
    if (st == NOVAQ_OK) {
        nq_dequantize(w, t->src->dtype, raw, rows * t->cols);
    }
    nq_free(raw);
    return st;
}

static novaq_status stats_of(nq_recipe_tensor *t, nq_tensors *ts, bool whole, nq_pool *pool,
                             novaq_error *err) {
    uint64_t rows = sample_rows(t, whole);
    float *w = NULL;
    NQ_TRY(nq_alloc_raw(&w, rows * t->cols, sizeof(float), err));
    novaq_status st = read_sample(w, ts, t, rows, err);
    if (st == NOVAQ_OK) {
        st = nq_matrix_stats_compute(&t->stats, w, rows, t->cols, pool, err);
    }
    nq_free(w);
    t->have_stats = st == NOVAQ_OK && rows == t->rows;
    return st;
}

/* whole: the statistics must hold for all of each matrix. Otherwise a sample does, so that
 * a source that streams in is not fetched twice. */
static novaq_status gather_stats(nq_recipe *r, bool whole, nq_pool *pool, novaq_error *err) {
    nq_tensors *ts = r->ts;
    uint64_t total = 0;
    uint64_t done = 0;
    for (size_t i = 0; i < r->count; i++) {
        total += r->tensors[i].coded ? r->tensors[i].src->bytes : 0;
    }
    if (nq_intake_is_remote(ts) && nq_intake_bytes(ts) <= keep_limit(r, ts)) {
        NQ_TRY(nq_recipe_hold(r, err));
    }
    if (whole && !r->held) {
        NQ_TRY(nq_intake_all(ts, r->opt->max_memory, err));
    }
    for (size_t i = 0; i < r->count; i++) {
        nq_recipe_tensor *t = &r->tensors[i];
        if (t->coded) {
            NQ_TRY(nq_recipe_progress(r, "analyse", t->src->name, done, total, err));
            NQ_TRY(stats_of(t, ts, whole, pool, err));
            done += t->src->bytes;
        }
        if (whole) {
            nq_tensors_release(ts, t->src);
        }
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

novaq_status nq_recipe_decide(nq_recipe *r, nq_pool *pool, novaq_error *err) {
    /* A size can only be promised when it is known what must stay as it is. */
    bool open = r->opt->target_size != 0;
    for (size_t i = 0; i < r->count; i++) {
        open = open || r->tensors[i].planned;
    }
    if (open) {
        NQ_TRY(gather_stats(r, r->opt->target_size != 0, pool, err));
    }
    for (size_t i = 0; i < r->count; i++) {
        /* NaN and infinity are kept bit for bit, and reported. */
        if (r->tensors[i].have_stats && r->tensors[i].stats.nonfinite > 0) {
            r->tensors[i].coded = false;
            r->tensors[i].scheme = (nq_scheme){.kind = NQ_SCHEME_RAW, .d = 1};
            r->tensors[i].planned = false;
        }
    }
    if (r->opt->target_size != 0) {
        NQ_TRY(nq_sizer_open(&r->sizer, r->ts, err));
    }
    nq_recipe_guess_sensitivities(r);
    return nq_recipe_allocate(r, err);
}

/* What rules and other options say of each tensor. */
static novaq_status settle(nq_recipe *r, nq_rules *rules, novaq_error *err) {
    for (size_t i = 0; i < r->count; i++) {
        classify(&r->tensors[i], nq_tensors_at(r->ts, i));
        NQ_TRY(override_scheme(&r->tensors[i], r, rules, err));
    }
    for (size_t i = 0; i < r->opt->tensor_type_count; i++) {
        if (!nq_rules_used(rules, i)) {
            NQ_TRY(nq_recipe_warn(r, err, "--tensor-type '%s' matches no tensor",
                                  r->opt->tensor_types[i]));
        }
    }
    return NOVAQ_OK;
}

novaq_status nq_recipe_make(nq_recipe *out, nq_tensors *ts, const novaq_compress_options *opt,
                            novaq_error *err) {
    *out = (nq_recipe){.opt = opt, .ts = ts, .count = nq_tensors_count(ts)};
    NQ_TRY(check_ranges(opt, err));
    NQ_TRY(nq_calibration_hash(out->text, opt->calibration, err));
    NQ_TRY(encode_options(&out->encode, opt, err));
    bool rotated = out->encode.normalize == NQ_NORMALIZE_ROTATE;
    out->column_scales = !rotated                  ? 0
                         : opt->column_scales >= 0 ? opt->column_scales
                         : opt->feedback != 0      ? 0
                                                   : UNFED_COLUMN_SCALES;
    NQ_TRY(paper_parameters(out, err));
    nq_rules *rules = NULL;
    NQ_TRY(nq_rules_open(&rules, opt->tensor_types, opt->tensor_type_count, err));
    novaq_status st = nq_alloc(&out->tensors, out->count + 1, sizeof *out->tensors, err);
    out->warnings = json_array();
    if (st == NOVAQ_OK) {
        st = settle(out, rules, err);
    }
    nq_rules_close(&rules);
    if (st != NOVAQ_OK) {
        nq_recipe_close(out);
    }
    return st;
}

nq_recipe_tensor *nq_recipe_find(const nq_recipe *r, const char *name) {
    for (size_t i = 0; i < r->count; i++) {
        if (strcmp(r->tensors[i].src->name, name) == 0) {
            return &r->tensors[i];
        }
    }
    return NULL;
}

bool nq_recipe_calibrated(const nq_recipe *r) {
    return r->opt->calibration != NULL && strcmp(r->opt->calibration, "none") != 0;
}

void nq_recipe_close(nq_recipe *r) {
    nq_free(r->tensors);
    json_decref(r->warnings);
    nq_sizer_close(&r->sizer);
    r->warnings = NULL;
    r->tensors = NULL;
    r->count = 0;
}

/* The members that came with calibrated coding. */
static bool add_calibration_config(json_t *config, const nq_recipe *r) {
    const novaq_compress_options *o = r->opt;
    json_t *more =
        json_pack("{s:i, s:b, s:b, s:i, s:f, s:s, s:f, s:b, s:i}", "calibration_tokens",
                  (int)o->calibration_tokens, "feedback", o->feedback, "propagate", o->propagate,
                  "sweeps", (int)o->sweeps, "damping", o->damping, "column_order",
                  o->column_order != NULL ? o->column_order : "natural", "column_scales",
                  r->column_scales, "row_means", o->row_means, "rotation_block",
                  o->rotation_block != 0 ? (int)o->rotation_block : 512);
    bool ok = more != NULL && json_object_update(config, more) == 0;
    if (ok && r->text[0] != '\0') { /* the same wherever it lies */
        ok = json_object_set_new(config, "calibration", json_string("file")) == 0 &&
             json_object_set_new(config, "calibration_blake3", json_string(r->text)) == 0;
    }
    if (ok && o->refine_blocks > 0 && !r->all_experts) {
        json_t *steps = json_integer((json_int_t)o->refine_blocks);
        ok = json_object_set_new(config, "refine_blocks", steps) == 0;
    }
    json_decref(more);
    return ok;
}

novaq_status nq_recipe_config(json_t **out, const nq_recipe *r, novaq_error *err) {
    const novaq_compress_options *o = r->opt;
    json_t *rules = json_array();
    for (size_t i = 0; i < o->tensor_type_count; i++) {
        json_array_append_new(rules, json_string(o->tensor_types[i]));
    }
    /* Of the two targets the one that decided; the other is null. */
    bool sized = o->target_size != 0;
    *out = json_pack(
        "{s:o, s:o, s:b, s:i, s:i, s:i, s:i, s:i, s:f, s:I, s:f, s:s, s:s?, s:o, s:i, s:s, s:b}",
        "target_bits", sized ? json_null() : json_real(o->target_bits), "target_size",
        sized ? json_integer((json_int_t)o->target_size) : json_null(), "paper", o->paper,
        "level1_centroids", (int)r->k1, "level2_centroids", (int)r->k2, "min_subspace_dim",
        (int)r->d_min, "max_subspace_dim", (int)r->d_max, "max_iterations", (int)o->max_iterations,
        "tolerance", o->tolerance, "seed", (json_int_t)o->seed, "outlier_percentile",
        o->outlier_percentile, "normalize", o->normalize != NULL ? o->normalize : "rotate",
        "scheme", o->scheme, "tensor_types", rules, "segment_rows", (int)o->segment_rows,
        "calibration", o->calibration != NULL ? o->calibration : "none", "keep_embedding",
        o->keep_embedding);
    if (*out == NULL || !add_calibration_config(*out, r)) {
        json_decref(*out);
        *out = NULL;
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot build the configuration record");
    }
    if (o->subspaces != 0) {
        (void)json_object_set_new(*out, "subspaces", json_integer((json_int_t)o->subspaces));
    }
    return NOVAQ_OK;
}

/* ablation.c - novaq_ablation(): what each part of the codec is worth on a model.
 *
 * The source's predictions are kept once, as a base file; then each variant is
 * compressed, measured against them and removed again. Every tensor keeps the
 * scheme that the full variant gave it, so that one thing changes at a time;
 * variants that change the scheme itself keep the rate, but for the one without a
 * second level. Refinement takes longer than all the rest: only the full variant is refined,
 * where that is asked for, and the same artifact before it is the row to compare all others
 * with. Owns: the list of variants and the folder they live in.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/mem.h"
#include "compress/refine_made.h"
#include "io/fs.h"
#include "quant/scheme.h"

/* ---- the variants ---------------------------------------------------------- */

typedef nq_scheme (*scheme_fn)(const nq_scheme *s);

typedef struct variant {
    const char *name;
    const char *changed; /* for the table */
    /* Takes its part away; false when it was not there. */
    bool (*apply)(novaq_compress_options *o);
    scheme_fn scheme; /* NULL: as in the full variant */
} variant;

static bool is_calibrated(const novaq_compress_options *o) {
    return o->calibration != NULL && strcmp(o->calibration, "none") != 0;
}

static bool normalizes_by(const novaq_compress_options *o, const char *how) {
    return strcmp(o->normalize != NULL ? o->normalize : "rotate", how) == 0;
}

static bool any(novaq_compress_options *o) {
    (void)o;
    return true;
}

/* Another normalization, without the pieces that only the one asked for has. */
static void renormalize(novaq_compress_options *o, const char *how) {
    o->normalize = how;
    o->rotation_block = 0;
    o->column_scales = 0;
    o->row_means = strcmp(how, "row") == 0 ? o->row_means : 0;
}

static bool no_distillation(novaq_compress_options *o) {
    bool there = o->refine != 0;
    o->refine = 0;
    return there;
}

static bool no_normalization(novaq_compress_options *o) {
    bool there = !normalizes_by(o, "none");
    renormalize(o, "none");
    return there;
}

static bool no_rotation(novaq_compress_options *o) {
    bool there = normalizes_by(o, "rotate");
    renormalize(o, "row");
    return there;
}

static bool no_feedback(novaq_compress_options *o) {
    bool there = is_calibrated(o) && o->feedback;
    o->feedback = 0;
    return there;
}

static bool no_propagation(novaq_compress_options *o) {
    bool there = is_calibrated(o) && o->propagate;
    o->propagate = 0;
    return there;
}

/* Column scales do what feedback does better; what they are worth shows without it. */
static bool no_feedback_nor_scales(novaq_compress_options *o) {
    bool there = no_feedback(o) && normalizes_by(o, "rotate") && o->column_scales != 0;
    o->column_scales = 0;
    return there;
}

static bool no_calibration(novaq_compress_options *o) {
    bool there = is_calibrated(o);
    o->calibration = "none";
    return there;
}

static bool paper(novaq_compress_options *o) {
    o->calibration = "none";
    renormalize(o, "paper");
    return true;
}

static bool is_sliding(const nq_scheme *s) {
    return s->kind == NQ_SCHEME_CODE && s->fields == 1 && s->levels > 1;
}

static nq_scheme one_level(const nq_scheme *s) {
    return s->kind == NQ_SCHEME_CODE ? nq_scheme_sliding(s->k[0], s->d, 1) : *s;
}

/* The paper's two codebooks at the rate of a sliding scheme: subvectors are
 * joined until their symbols' bits can be divided between two fields. */
static nq_scheme two_fields(const nq_scheme *s) {
    if (!is_sliding(s)) {
        return *s;
    }
    unsigned bits = nq_scheme_field_bits(s, 0);
    unsigned join = bits >= 3 ? 2 : 8 / bits;
    if (s->d * join > NQ_MAX_D) {
        join = 2;
    }
    unsigned first = bits * join < 8 ? (bits * join + 1) / 2 : 4;
    first = bits == 3 ? 4 : first; /* 16 + 4 entries, as in the paper */
    return s->d * join > NQ_MAX_D
               ? *s
               : nq_scheme_pq(1U << first, 1U << (bits * join - first), s->d * join);
}

static const variant variants[] = {
    {"full", "nothing", any, NULL},
    {"no-distillation", "not refined", no_distillation, NULL},
    {"no-normalization", "normalize none", no_normalization, NULL},
    {"no-residual", "one level: no residual codebook", any, one_level},
    {"no-rotation", "normalize row", no_rotation, NULL},
    {"no-feedback", "no error feedback", no_feedback, NULL},
    {"no-feedback-no-scales", "no error feedback, no column scales", no_feedback_nor_scales, NULL},
    {"no-propagation", "inputs of the source's blocks", no_propagation, NULL},
    {"no-calibration", "calibration none", no_calibration, NULL},
    {"no-sliding", "two-level product code, same rate", any, two_fields},
    {"paper", "that code, normalize paper, calibration none", paper, two_fields},
};
#define VARIANTS (sizeof variants / sizeof variants[0])
#define FULL     (&variants[0])
#define UNTAUGHT (&variants[1]) /* the full one before it was refined */

/* ---- one variant ----------------------------------------------------------- */

typedef struct ablation {
    const novaq_ablation_options *opt;
    novaq_compress_options compress; /* as asked */
    char *folder;                    /* ours alone; NULL until made */
    char *base;                      /* the source's predictions */
    char *artifact;
    char *refined;      /* the full variant, where it is refined */
    json_t *refinement; /* of it, as novaq_refine() reports; NULL: none */
    json_t *schemes;    /* name of each tensor: scheme in the full variant */
    json_t *rows;
    const char *at; /* variant at work */
} ablation;

/* Progress of what is called, with the variant's name in front. */
static int pass_on(void *ctx, const novaq_progress *p) {
    const ablation *a = ctx;
    char phase[96];
    novaq_progress named = *p;
    (void)snprintf(phase, sizeof phase, "%s: %s", a->at, p->phase);
    named.phase = phase;
    return a->opt->progress == NULL ? 0 : a->opt->progress(a->opt->progress_ctx, &named);
}

static novaq_status parse_report(json_t **out, char *report, novaq_error *err) {
    novaq_status st = nq_json_parse_object(out, "report", report, strlen(report), err);
    novaq_free(report);
    return st;
}

/* Copies the keys that both have. */
static novaq_status copy_keys(json_t *to, const json_t *from, const char *const *keys,
                              novaq_error *err) {
    for (; *keys != NULL; keys++) {
        json_t *v = json_object_get(from, *keys);
        if (v != NULL && json_object_set(to, *keys, v) != 0) {
            return nq_fail(err, NOVAQ_E_MEMORY, "cannot report \"%s\"", *keys);
        }
    }
    return NOVAQ_OK;
}

/* Perplexity and divergence of `model`; text: the source, whose predictions
 * become the base; NULL: a variant, against the base. */
static novaq_status measure(json_t *row, ablation *a, const char *model, const char *text,
                            novaq_error *err) {
    static const char *const keys[] = {
        "perplexity", "perplexity_stderr", "mean_kld", "mean_kld_stderr",
        "kld_99",     "same_top",          NULL};
    novaq_eval_options o = NOVAQ_EVAL_OPTIONS_INIT;
    char *report = NULL;
    json_t *figures = NULL;
    o.model = model;
    o.text_file = text;
    o.n_ctx = a->opt->n_ctx;
    o.chunks = text != NULL ? a->opt->chunks : 0;
    o.threads = a->opt->threads;
    o.progress = pass_on;
    o.progress_ctx = a;
    o.kl_base = a->base;
    o.kl_divergence = text == NULL;
    NQ_TRY(novaq_eval(&report, &o, err));
    NQ_TRY(parse_report(&figures, report, err));
    novaq_status st = copy_keys(row, figures, keys, err);
    json_decref(figures);
    return st;
}

static novaq_status open_stats(json_t **stats, const char *path, novaq_error *err) {
    char *report = NULL;
    NQ_TRY(novaq_stats(&report, path, err));
    return parse_report(stats, report, err);
}

static novaq_status weigh(json_t *row, const char *path, novaq_error *err) {
    static const char *const keys[] = {"bits_per_weight_linear", "bits_per_weight", "bytes", NULL};
    json_t *stats = NULL;
    NQ_TRY(open_stats(&stats, path, err));
    novaq_status st = copy_keys(row, stats, keys, err);
    json_decref(stats);
    return st;
}

/* Of the full variant, for all others. */
static novaq_status keep_schemes(ablation *a, novaq_error *err) {
    const char *name = NULL;
    json_t *layer = NULL;
    json_t *stats = NULL;
    NQ_TRY(open_stats(&stats, a->artifact, err));
    novaq_status st = NOVAQ_OK;
    a->schemes = json_object();
    json_object_foreach(json_object_get(stats, "layers"), name, layer) {
        if (json_object_set(a->schemes, name, json_object_get(layer, "scheme")) != 0) {
            st = nq_fail(err, NOVAQ_E_MEMORY, "cannot keep the scheme of %s", name);
        }
    }
    json_decref(stats);
    return st;
}

static void free_pins(char **pins, size_t count) {
    for (size_t i = 0; i < count; i++) {
        nq_free(pins[i]);
    }
    nq_free(pins);
}

/* One rule for each tensor. *changed: some tensor has another scheme than in the
 * full variant. */
static novaq_status make_pins(char ***pins, size_t *count, bool *changed, const ablation *a,
                              scheme_fn other, novaq_error *err) {
    const char *name = NULL;
    json_t *value = NULL;
    *count = 0;
    *changed = false;
    NQ_TRY(nq_alloc(pins, json_object_size(a->schemes) + 1, sizeof **pins, err));
    json_object_foreach(a->schemes, name, value) {
        char text[NQ_SCHEME_NAME];
        const char *was = json_string_value(value);
        nq_scheme s;
        NQ_TRY(nq_scheme_parse(&s, was != NULL ? was : "", err));
        if (other != NULL) {
            s = other(&s);
        }
        *changed = *changed || strcmp(nq_scheme_name(text, &s), was) != 0;
        NQ_TRY(nq_asprintf(&(*pins)[*count], err, "^\\Q%s\\E$=%s", name, text));
        (*count)++;
    }
    return NOVAQ_OK;
}

static void place(ablation *a, novaq_compress_options *o, const char *output) {
    o->input = a->opt->model;
    o->output = output;
    o->single_file = 1;
    o->threads = a->opt->threads;
    o->progress = pass_on;
    o->progress_ctx = a;
}

static novaq_status compress(ablation *a, novaq_compress_options *o, novaq_error *err) {
    place(a, o, a->artifact);
    o->refine = 0;
    return novaq_compress(NULL, o, err);
}

/* The full variant, and what it was before. */
static novaq_status compress_and_refine(ablation *a, novaq_compress_options *o, novaq_error *err) {
    char *report = NULL;
    json_t *summary = NULL;
    place(a, o, a->refined);
    NQ_TRY(nq_compress_unrefined(a->artifact, o, err));
    NQ_TRY(nq_refine_made(&report, o, a->artifact, err));
    NQ_TRY(parse_report(&summary, report, err));
    a->refinement = json_incref(json_object_get(summary, "refinement"));
    json_decref(summary);
    return NOVAQ_OK;
}

/* Rules for every tensor, so that nothing is left to plan. */
static novaq_status compress_pinned(bool *other, ablation *a, const variant *v,
                                    novaq_compress_options *o, novaq_error *err) {
    char **pins = NULL;
    size_t count = 0;
    novaq_status st = make_pins(&pins, &count, other, a, v->scheme, err);
    if (st == NOVAQ_OK && (*other || v->scheme == NULL)) {
        o->tensor_types = (const char *const *)pins;
        o->tensor_type_count = count;
        o->scheme = NULL;
        o->paper = 0;
        o->keep_embedding = 0;
        o->target_size = 0;
        st = compress(a, o, err);
    }
    free_pins(pins, count);
    return st;
}

/* One scheme was asked for: another takes its place. */
static novaq_status compress_uniform(bool *other, ablation *a, const variant *v,
                                     novaq_compress_options *o, novaq_error *err) {
    char was[NQ_SCHEME_NAME];
    char name[NQ_SCHEME_NAME];
    nq_scheme s;
    NQ_TRY(nq_scheme_parse(&s, o->scheme, err));
    (void)nq_scheme_name(was, &s);
    if (v->scheme != NULL) {
        s = v->scheme(&s);
    }
    o->scheme = nq_scheme_name(name, &s);
    *other = strcmp(was, name) != 0;
    return *other || v->scheme == NULL ? compress(a, o, err) : NOVAQ_OK;
}

/* *there: the variant differs from the full one, and was made. */
static novaq_status make_variant(bool *there, ablation *a, const variant *v, novaq_error *err) {
    novaq_compress_options o = a->compress;
    bool other = false;
    *there = v->apply(&o);
    if (!*there) {
        return NOVAQ_OK;
    }
    if (v == FULL) {
        NQ_TRY((o.refine != 0 ? compress_and_refine : compress)(a, &o, err));
        return keep_schemes(a, err);
    }
    if (v == UNTAUGHT) { /* is there already */
        return NOVAQ_OK;
    }
    bool uniform = o.scheme != NULL && o.tensor_type_count == 0 && !o.paper && o.target_size == 0;
    novaq_status st =
        uniform ? compress_uniform(&other, a, v, &o, err) : compress_pinned(&other, a, v, &o, err);
    *there = v->scheme == NULL || other;
    return st;
}

/* ---- the table ------------------------------------------------------------- */

static novaq_status new_row(json_t **row, ablation *a, const char *name, const char *changed,
                            novaq_error *err) {
    *row = json_pack("{s:s, s:s}", "variant", name, "changed", changed);
    a->at = name;
    return *row == NULL || json_array_append_new(a->rows, *row) != 0
               ? nq_fail(err, NOVAQ_E_MEMORY, "cannot report \"%s\"", name)
               : NOVAQ_OK;
}

/* Where one row is refined, each says whether it is. */
static novaq_status new_variant_row(json_t **row, ablation *a, const variant *v, novaq_error *err) {
    bool taught = a->compress.refine != 0;
    char changed[96];
    (void)snprintf(changed, sizeof changed, "%s%s", v->changed,
                   taught && v != FULL && v != UNTAUGHT ? ", not refined" : "");
    NQ_TRY(new_row(row, a, v->name, changed, err));
    return !taught || json_object_set_new(*row, "refined", json_boolean(v == FULL)) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_MEMORY, "cannot report \"%s\"", v->name);
}

/* These end the table; anything else is a result: that variant is no codec. */
static bool is_fatal(novaq_status st) {
    return st == NOVAQ_E_INTERRUPTED || st == NOVAQ_E_MEMORY || st == NOVAQ_E_IO ||
           st == NOVAQ_E_NOSPACE;
}

static novaq_status add_variant(ablation *a, const variant *v, novaq_error *err) {
    json_t *row = NULL;
    novaq_error why = {.code = NOVAQ_OK};
    bool there = false;
    NQ_TRY(new_variant_row(&row, a, v, err));
    novaq_status st = make_variant(&there, a, v, &why);
    if (st == NOVAQ_OK && !there) {
        (void)json_array_remove(a->rows, json_array_size(a->rows) - 1);
        return NOVAQ_OK;
    }
    const char *artifact = v == FULL && a->refinement != NULL ? a->refined : a->artifact;
    if (st == NOVAQ_OK) {
        st = weigh(row, artifact, &why);
    }
    if (st == NOVAQ_OK) {
        st = measure(row, a, artifact, NULL, &why);
    }
    (void)unlink(artifact);
    if (st == NOVAQ_OK) {
        return NOVAQ_OK;
    }
    /* Without the full variant there is nothing to compare with. */
    if (v == FULL || is_fatal(st)) {
        return nq_fail(err, st, "%s: %s", v->name, why.msg);
    }
    return json_object_set_new(row, "failed", json_string(why.msg)) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_MEMORY, "cannot report a failure");
}

/* Is the name one of "a,b,c"? NULL lists all. */
static bool is_wanted(const char *list, const char *name) {
    size_t n = strlen(name);
    for (const char *p = list; p != NULL && *p != '\0';) {
        size_t len = strcspn(p, ",");
        if (len == n && strncmp(p, name, n) == 0) {
            return true;
        }
        p += len + (p[len] == ',');
    }
    return list == NULL;
}

/* The names of all variants, separated by commas. */
static void list_variants(char *out, size_t size) {
    size_t len = 0;
    for (size_t i = 0; i < VARIANTS && len < size; i++) {
        int n = snprintf(out + len, size - len, "%s%s", i > 0 ? ", " : "", variants[i].name);
        len += n > 0 ? (size_t)n : 0;
    }
}

static novaq_status check_wanted(const char *list, novaq_error *err) {
    for (const char *p = list; p != NULL && *p != '\0';) {
        size_t len = strcspn(p, ",");
        bool known = false;
        for (size_t i = 0; i < VARIANTS; i++) {
            known = known ||
                    (strlen(variants[i].name) == len && strncmp(p, variants[i].name, len) == 0);
        }
        if (!known) {
            char names[400];
            list_variants(names, sizeof names);
            return nq_fail(err, NOVAQ_E_ARG, "no variant '%.*s': use %s",
                           (int)(len < 40 ? len : 40), p, names);
        }
        p += len + (p[len] == ',');
    }
    return NOVAQ_OK;
}

static novaq_status fill_table(ablation *a, novaq_error *err) {
    const novaq_ablation_options *o = a->opt;
    json_t *row = NULL;
    NQ_TRY(new_row(&row, a, "source", "full precision", err));
    NQ_TRY(weigh(row, o->model, err));
    NQ_TRY(measure(row, a, o->model, o->text_file, err));
    for (const variant *v = variants; v < variants + VARIANTS; v++) {
        if (v == FULL || v == UNTAUGHT || is_wanted(o->variants, v->name)) {
            NQ_TRY(add_variant(a, v, err));
        }
    }
    return NOVAQ_OK;
}

/* ---- the folder ------------------------------------------------------------ */

static novaq_status make_folder(ablation *a, novaq_error *err) {
    const char *in = a->opt->folder;
    in = in != NULL && in[0] != '\0' ? in : "/tmp";
    NQ_TRY(nq_temp_folder(&a->folder, in, "novaq-ablation.XXXXXX", err));
    NQ_TRY(nq_path_join(&a->base, a->folder, "base.kld", err));
    NQ_TRY(nq_path_join(&a->refined, a->folder, "refined.novaq", err));
    return nq_path_join(&a->artifact, a->folder, "variant.novaq", err);
}

static void remove_folder(ablation *a) {
    nq_temp_folder_remove(&a->folder);
    nq_free(a->base);
    nq_free(a->artifact);
    nq_free(a->refined);
}

/* ---- the call -------------------------------------------------------------- */

static novaq_status check_options(const novaq_ablation_options *o, novaq_error *err) {
    if (o == NULL || o->struct_size < sizeof *o || o->model == NULL || o->text_file == NULL) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "novaq_ablation: no model or text, or options uninitialised");
    }
    if (o->compress != NULL && o->compress->struct_size < sizeof *o->compress) {
        return nq_fail(err, NOVAQ_E_ARG, "novaq_ablation: options of compress uninitialised");
    }
    if (o->compress != NULL && o->compress->calibration != NULL &&
        strcmp(o->compress->calibration, o->text_file) == 0) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "%s: calibrating on the text that is measured proves nothing; give another",
                       o->text_file);
    }
    return check_wanted(o->variants, err);
}

static novaq_status make_report(char **report, const ablation *a, novaq_error *err) {
    const novaq_ablation_options *o = a->opt;
    const novaq_compress_options *c = &a->compress;
    json_t *all =
        json_pack("{s:s, s:s, s:I, s:I, s:s, s:f, s:s, s:I, s:O}", "model", o->model, "text",
                  o->text_file, "n_ctx", (json_int_t)o->n_ctx, "chunks", (json_int_t)o->chunks,
                  "scheme", c->scheme != NULL ? c->scheme : "planned", "target_bits",
                  c->target_bits, "calibration", c->calibration != NULL ? c->calibration : "none",
                  "seed", (json_int_t)c->seed, "rows", a->rows);
    if (all == NULL) {
        return nq_fail(err, NOVAQ_E_FORMAT, "cannot report: a path is not UTF-8");
    }
    novaq_status st = NOVAQ_OK;
    if (a->refinement != NULL && json_object_set(all, "refinement", a->refinement) != 0) {
        st = nq_fail(err, NOVAQ_E_MEMORY, "cannot report the refinement");
    }
    if (st == NOVAQ_OK && report != NULL) {
        st = nq_json_dump(report, all, 2, err);
    }
    json_decref(all);
    return st;
}

novaq_status novaq_ablation(char **report, const novaq_ablation_options *opt, novaq_error *err) {
    if (report != NULL) {
        *report = NULL;
    }
    NQ_TRY(check_options(opt, err));
    const novaq_compress_options standard = NOVAQ_COMPRESS_OPTIONS_INIT;
    ablation a = {.opt = opt,
                  .compress = opt->compress != NULL ? *opt->compress : standard,
                  .rows = json_array(),
                  .at = ""};
    novaq_status st = make_folder(&a, err);
    if (st == NOVAQ_OK) {
        st = fill_table(&a, err);
    }
    if (st == NOVAQ_OK) {
        st = make_report(report, &a, err);
    }
    remove_folder(&a);
    json_decref(a.schemes);
    json_decref(a.refinement);
    json_decref(a.rows);
    return st;
}

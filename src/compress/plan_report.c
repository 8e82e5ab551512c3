/* plan_report.c - a recipe as JSON, for --dry-run. See recipe.h. */
#include "compress/recipe.h"

static json_t *shape_of(const nq_tensor_info *t) {
    json_t *shape = json_array();
    for (uint32_t d = 0; d < t->rank; d++) {
        (void)json_array_append_new(shape, json_integer((json_int_t)t->shape[d]));
    }
    return shape;
}

static const char *chosen_by(const nq_recipe_tensor *t) {
    return !t->planned ? "rule" : t->measured ? "measured" : "statistics";
}

static json_t *layer_of(const nq_recipe_tensor *t) {
    char name[NQ_SCHEME_NAME];
    double bits = t->src->elements > 0 ? 8.0 * (double)t->bytes / (double)t->src->elements : 0;
    json_t *o = json_pack(
        "{s:o, s:s, s:s, s:s, s:f, s:I, s:f, s:s}", "shape", shape_of(t->src), "role",
        nq_role_name(t->role), "source_dtype", nq_dtype_get(t->src->dtype)->name, "scheme",
        nq_scheme_name(name, &t->scheme), "bits_per_weight", bits, "bytes", (json_int_t)t->bytes,
        "expected_relative_error", t->coded ? t->expected_error : 0.0, "chosen_by", chosen_by(t));
    if (o != NULL && t->planned) {
        (void)json_object_set_new(o, "sensitivity", json_real(t->sensitivity));
        (void)json_object_set_new(o, "expected_cost",
                                  json_real(t->sensitivity * nq_plan_damage(&t->scheme)));
    }
    return o;
}

static void add_integer(json_t *o, const char *key, uint64_t more) {
    json_int_t before = json_integer_value(json_object_get(o, key));
    (void)json_object_set_new(o, key, json_integer(before + (json_int_t)more));
}

/* Adds a tensor to its scheme's row: {"tensors", "parameters", "bytes"}. */
static void count_scheme(json_t *schemes, const nq_recipe_tensor *t) {
    char name[NQ_SCHEME_NAME];
    (void)nq_scheme_name(name, &t->scheme);
    json_t *row = json_object_get(schemes, name);
    if (row == NULL) {
        row = json_object();
        (void)json_object_set_new(schemes, name, row);
    }
    add_integer(row, "tensors", 1);
    add_integer(row, "parameters", t->src->elements);
    add_integer(row, "bytes", t->bytes);
}

typedef struct sums {
    uint64_t bytes, parameters;
    double cost;
    json_t *layers, *schemes;
} sums;

static sums sum_up(const nq_recipe *r) {
    sums s = {.layers = json_object(), .schemes = json_object()};
    for (size_t i = 0; i < r->count; i++) {
        const nq_recipe_tensor *t = &r->tensors[i];
        (void)json_object_set_new(s.layers, t->src->name, layer_of(t));
        count_scheme(s.schemes, t);
        s.bytes += t->bytes;
        s.parameters += t->src->elements;
        s.cost += t->planned ? t->sensitivity * nq_plan_damage(&t->scheme) : 0;
    }
    return s;
}

static novaq_status whole_size(uint64_t *bytes, const nq_recipe *r, const nq_tensors *ts,
                               novaq_error *err) {
    if (r->sizer != NULL) {
        return nq_artifact_size(bytes, r->sizer, r, err);
    }
    nq_sizer *sizer = NULL;
    NQ_TRY(nq_sizer_open(&sizer, ts, err));
    novaq_status st = nq_artifact_size(bytes, sizer, r, err);
    nq_sizer_close(&sizer);
    return st;
}

novaq_status nq_recipe_report(json_t **out, const nq_recipe *r, const nq_tensors *ts,
                              novaq_error *err) {
    uint64_t total = 0;
    *out = NULL;
    NQ_TRY(whole_size(&total, r, ts, err));
    sums s = sum_up(r);
    double whole = (double)total;
    double parameters = (double)s.parameters;
    double coded =
        r->coded_elements > 0 ? 8.0 * (double)r->coded_bytes / (double)r->coded_elements : 0;
    *out =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:O, s:o, s:o}", "bytes",
                  (json_int_t)total, "tensor_bytes", (json_int_t)s.bytes, "parameters",
                  (json_int_t)s.parameters, "quantized_parameters", (json_int_t)r->coded_elements,
                  "budget_bytes", (json_int_t)r->budget, "budget_used", (json_int_t)r->budget_used,
                  "bits_per_weight", parameters > 0 ? 8.0 * whole / parameters : 0.0,
                  "bits_per_weight_quantized", coded, "ratio_fp16", 2.0 * parameters / whole,
                  "ratio_fp32", 4.0 * parameters / whole, "expected_cost", s.cost, "warnings",
                  r->warnings, "schemes", s.schemes, "layers", s.layers);
    return *out != NULL ? NOVAQ_OK : nq_fail(err, NOVAQ_E_MEMORY, "cannot build the plan");
}

/* test_sensitivity.c - measured sensitivities: every matrix has one, they rank
 * matrices as they must, blocks in between are interpolated, and neither threads
 * nor memory change a plan. */
#include "model_util.h"

#include <math.h>

#include "base/half.h"
#include "compress/sensitivity.h"
#include "novaq.h"

#define TENSORS_MAX 128

typedef struct measurement {
    novaq_compress_options o;
    nq_compress_job job;
    nq_sensitivity s[TENSORS_MAX];
} measurement;

static novaq_error err;

/* One window of moments and divergence, planned at three bits. */
static novaq_compress_options options(const char *model, const char *text) {
    novaq_compress_options o = NOVAQ_COMPRESS_OPTIONS_INIT;
    o.input = model;
    o.target_bits = 3;
    o.calibration = text;
    o.calibration_tokens = 512;
    o.threads = 1;
    return o;
}

static void measure(measurement *m, const novaq_compress_options *o) {
    nq_compress_job *j = &m->job;
    char *why = NULL;
    *m = (measurement){.o = *o};
    assert_int_equal(nq_tensors_open(&j->ts, o->input, &err), NOVAQ_OK);
    assert_int_equal(nq_pool_open(&j->pool, o->threads, &err), NOVAQ_OK);
    assert_int_equal(nq_recipe_make(&j->recipe, j->ts, &m->o, &err), NOVAQ_OK);
    assert_int_equal(nq_recipe_decide(&j->recipe, j->pool, &err), NOVAQ_OK);
    assert_int_equal(nq_calibration_open(&j->calibration, &why, o->input, j->ts, o->calibration,
                                         o->calibration_tokens, o->seed, j->pool, NULL, NULL, &err),
                     NOVAQ_OK);
    assert_null(why);
    assert_true(j->recipe.count <= TENSORS_MAX);
    if (nq_sensitivity_measure(m->s, j, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
}

static void close_measurement(measurement *m) {
    nq_recipe_close(&m->job.recipe);
    nq_calibration_close(&m->job.calibration);
    nq_pool_close(&m->job.pool);
    nq_tensors_close(&m->job.ts);
}

static const nq_sensitivity *sensitivity_of(const measurement *m, const char *name) {
    for (size_t i = 0; i < m->job.recipe.count; i++) {
        if (strcmp(m->job.recipe.tensors[i].src->name, name) == 0) {
            return &m->s[i];
        }
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

static double weight_of(const measurement *m, const char *name) {
    const nq_sensitivity *s = sensitivity_of(m, name);
    if (!s->known) {
        fail_msg("%s: not measured", name);
    }
    return s->weight;
}

/* ---- what is measured --------------------------------------------------------------- */

/* All matrices of the model, and nothing else. */
static void all_matrices_are_known(void **state) {
    static const char *const models[] = {TINY("a.gguf"), TINY("b.gguf"), TINY("a-hf")};
    static const size_t matrices[] = {2 * 7 + 2, 2 * 7 + 1, 2 * 7 + 2};
    (void)state;
    char *dir = scratch_dir();
    char *text = text_file(dir, 60);
    for (size_t i = 0; i < 3; i++) {
        measurement m;
        novaq_compress_options o = options(models[i], text);
        size_t known = 0;
        measure(&m, &o);
        for (size_t t = 0; t < m.job.recipe.count; t++) {
            bool matrix = m.job.recipe.tensors[t].src->rank == 2;
            assert_int_equal(m.s[t].known, matrix);
            assert_true(!matrix || (isfinite(m.s[t].weight) && m.s[t].weight > 0));
            known += m.s[t].known;
        }
        assert_int_equal(known, matrices[i]);
        close_measurement(&m);
    }
    remove_dir(dir);
    nq_free(text);
    nq_free(dir);
}

/* ---- importance ---------------------------------------------------------------------- */

/* Model a with one f16 tensor times `factor`. */
static char *scaled_model(const char *dir, const char *tensor, float factor) {
    nq_tensors *ts = NULL;
    char *path = NULL;
    char *data = NULL;
    size_t len = 0;
    assert_int_equal(nq_read_file(&data, &len, TINY("a.gguf"), (size_t)1 << 24, NULL), NOVAQ_OK);
    assert_int_equal(nq_tensors_open(&ts, TINY("a.gguf"), NULL), NOVAQ_OK);
    const nq_tensor_info *t = nq_tensors_find(ts, tensor);
    assert_non_null(t);
    assert_int_equal(t->dtype, NQ_F16);
    for (uint64_t i = 0; i < t->elements; i++) {
        uint16_t h;
        memcpy(&h, data + t->offset + 2 * i, 2);
        h = nq_f32_to_f16(factor * nq_f16_to_f32(h));
        memcpy(data + t->offset + 2 * i, &h, 2);
    }
    assert_int_equal(nq_path_join(&path, dir, "scaled.gguf", NULL), NOVAQ_OK);
    assert_int_equal(nq_write_file(path, data, len, NULL), NOVAQ_OK);
    nq_tensors_close(&ts);
    nq_free(data);
    return path;
}

/* The same relative error does more where the output is larger, and nothing where
 * there is none. */
static void importance_is_seen(void **state) {
    static const char *const down = "blk.1.ffn_down.weight";
    static const float factors[] = {0, 0.25F, 1, 4};
    (void)state;
    char *dir = scratch_dir();
    char *text = text_file(dir, 60);
    double weights[4];
    double others[4];
    for (size_t i = 0; i < 4; i++) {
        measurement m;
        char *model = scaled_model(dir, down, factors[i]);
        novaq_compress_options o = options(model, text);
        measure(&m, &o);
        const nq_sensitivity *s = sensitivity_of(&m, down);
        const nq_sensitivity *up = sensitivity_of(&m, "blk.1.ffn_up.weight");
        weights[i] = s->known ? s->weight : 0;
        others[i] = weight_of(&m, "blk.1.attn_output.weight");
        /* What only this matrix reads counts where it does. */
        assert_int_equal(up->known && up->weight > 0.1 * others[i], i > 0);
        close_measurement(&m);
        nq_free(model);
    }
    if (!(weights[0] < 1e-3 * weights[2] && 4 * weights[1] < weights[2] &&
          2 * weights[2] < weights[3])) {
        fail_msg("times 0: %g, 0.25: %g, 1: %g, 4: %g", weights[0], weights[1], weights[2],
                 weights[3]);
    }
    /* Its rank beside another matrix of the block turns round. */
    assert_true(weights[1] < 0.5 * others[1] && weights[3] > 2 * others[3]);
    remove_dir(dir);
    nq_free(text);
    nq_free(dir);
}

/* ---- blocks in between ------------------------------------------------------------------ */

#define DEEP 12

/* Appends a tensor to the header and the data of a safetensors file. */
static void append_tensor(json_t *header, char *data, size_t *len, const char *name,
                          const json_t *like, const char *from) {
    const json_t *offsets = json_object_get(like, "data_offsets");
    size_t start = (size_t)json_integer_value(json_array_get(offsets, 0));
    size_t bytes = (size_t)json_integer_value(json_array_get(offsets, 1)) - start;
    json_t *t = json_deep_copy(like);
    memcpy(data + *len, from + start, bytes);
    json_t *at = json_pack("[I, I]", (json_int_t)*len, (json_int_t)(*len + bytes));
    assert_int_equal(json_object_set_new(t, "data_offsets", at), 0);
    assert_int_equal(json_object_set_new(header, name, t), 0);
    *len += bytes;
}

/* The weights of model a-hf with its first block DEEP times over. */
static void write_deep(const char *path) {
    char *old = NULL;
    char *text = NULL;
    size_t len = 0;
    size_t total = 0;
    uint64_t head = 0;
    json_t *was = NULL;
    const char *name = NULL;
    json_t *t = NULL;
    json_t *header = json_object();
    assert_int_equal(
        nq_read_file(&old, &len, TINY("a-hf/model.safetensors"), (size_t)1 << 24, NULL), NOVAQ_OK);
    memcpy(&head, old, 8);
    assert_int_equal(nq_json_parse(&was, "header", old + 8, (size_t)head, NULL), NOVAQ_OK);
    char *data = NULL;
    assert_int_equal(nq_alloc(&data, len * DEEP, 1, NULL), NOVAQ_OK);
    json_object_foreach(was, name, t) {
        bool first = strncmp(name, "model.layers.0.", 15) == 0;
        bool kept = !first && strncmp(name, "model.layers.", 13) != 0 && name[0] != '_';
        for (int b = 0; b < (first ? DEEP : kept ? 1 : 0); b++) {
            char copy[96];
            (void)snprintf(copy, sizeof copy, "model.layers.%d.%s", b, first ? name + 15 : "");
            append_tensor(header, data, &total, first ? copy : name, t, old + 8 + head);
        }
    }
    assert_int_equal(nq_json_dump(&text, header, 0, NULL), NOVAQ_OK);
    head = strlen(text);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(&head, 8, 1, f), 1);
    assert_int_equal(fwrite(text, head, 1, f), 1);
    assert_int_equal(fwrite(data, total, 1, f), 1);
    assert_int_equal(fclose(f), 0);
    json_decref(header);
    json_decref(was);
    nq_free(text);
    nq_free(data);
    nq_free(old);
}

static char *deep_model(void) {
    char *dir = altered_model("num_hidden_layers", "12");
    char *weights = NULL;
    assert_int_equal(nq_path_join(&weights, dir, "model.safetensors", NULL), NOVAQ_OK);
    assert_int_equal(unlink(weights), 0); /* a link to the fixture */
    write_deep(weights);
    nq_free(weights);
    return dir;
}

/* Of twelve blocks eight are measured, first and last among them; between two of
 * them the logarithm is on a line. */
static void blocks_between_are_interpolated(void **state) {
    static const char *const matrices[] = {
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
    static const bool between[DEEP] = {[2] = true, [5] = true, [8] = true, [10] = true};
    (void)state;
    char *model = deep_model();
    char *text = text_file(model, 60);
    measurement m;
    novaq_compress_options o = options(model, text);
    measure(&m, &o);
    for (size_t i = 0; i < 7; i++) {
        double l[DEEP];
        for (int b = 0; b < DEEP; b++) {
            char name[96];
            (void)snprintf(name, sizeof name, "model.layers.%d.%s.weight", b, matrices[i]);
            l[b] = log(weight_of(&m, name));
        }
        for (int b = 1; b < DEEP - 1; b++) {
            double off = fabs(l[b] - 0.5 * (l[b - 1] + l[b + 1]));
            if (between[b] != (off < 1e-9)) {
                fail_msg("%s: block %d is off the line by %g", matrices[i], b, off);
            }
        }
    }
    close_measurement(&m);
    remove_dir(model);
    nq_free(text);
    nq_free(model);
}

/* ---- plans ------------------------------------------------------------------------------- */

static char *plan(const novaq_compress_options *o) {
    char *report = NULL;
    if (novaq_plan(&report, o, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return report;
}

/* Neither threads nor memory change a figure of it. */
static void same_plan(void **state) {
    static const char *const models[] = {TINY("a.gguf"), TINY("b-hf"), TINY("aq.gguf")};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        novaq_compress_options o = options(models[i], "self");
        char *want = plan(&o);
        for (unsigned threads = 2; threads <= 4; threads++) {
            o.threads = threads < 4 ? threads : 1;
            o.max_memory = threads > 2 ? 1 : 0;
            char *got = plan(&o);
            assert_string_equal(got, want);
            novaq_free(got);
        }
        novaq_free(want);
    }
}

/* What a plan says of where its figures come from. */
static void plan_says_so(void **state) {
    (void)state;
    static const char *const rules[] = {"attn_k=q8"};
    novaq_compress_options o = options(TINY("a.gguf"), "self");
    o.tensor_types = rules;
    o.tensor_type_count = 1;
    for (int measured = 0; measured < 2; measured++) {
        o.calibration = measured ? "self" : "none";
        char *text = plan(&o);
        json_t *report = NULL;
        const char *name = NULL;
        json_t *layer = NULL;
        size_t planned = 0;
        assert_int_equal(nq_json_parse(&report, "plan", text, strlen(text), NULL), NOVAQ_OK);
        json_object_foreach(json_object_get(report, "layers"), name, layer) {
            const char *by = json_string_value(json_object_get(layer, "chosen_by"));
            bool rule = strstr(name, "attn_k") != NULL || strstr(name, "norm") != NULL;
            assert_string_equal(by, rule ? "rule" : measured ? "measured" : "statistics");
            planned += !rule;
        }
        assert_int_equal(planned, 2 * 6 + 2);
        json_decref(report);
        novaq_free(text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_matrices_are_known),
        cmocka_unit_test(importance_is_seen),
        cmocka_unit_test(blocks_between_are_interpolated),
        cmocka_unit_test(same_plan),
        cmocka_unit_test(plan_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

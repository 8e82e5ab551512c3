/* describe_hf_text.c - the text model within a Hugging Face repository of a model that
 * sees images, too.
 *
 * Owns: which part of such a config.json and which of the tensors are the text model's,
 * and what they are called where there is nothing but text; transformers' defaults of
 * Gemma3TextConfig, whose published files leave most of it out. Refuses: models of
 * images other than Gemma 3; they stay as they are. */
#include <stdio.h>
#include <string.h>

#include "model/describe_parts.h"

#define NESTING "gemma3"      /* model_type of the whole */
#define TEXT    "gemma3_text" /* and of its text_config */

/* ---- tensors ---------------------------------------------------------------------- */

/* What follows prefix in name, or NULL. */
static const char *after(const char *name, const char *prefix) {
    size_t n = strlen(prefix);
    return strncmp(name, prefix, n) == 0 ? name + n : NULL;
}

/* The name within the text model's part; *outer: what stands before that in a model of
 * text alone. NULL: name is not within. */
static const char *within(const char **outer, const char *name) {
    const char *rest = after(name, "model.language_model."); /* transformers 4.52 and later */
    *outer = rest != NULL ? "model." : "";
    return rest != NULL ? rest : after(name, "language_model.");
}

static bool is_of_images(const char *name) {
    const char *inner = after(name, "model.");
    inner = inner != NULL ? inner : name;
    return after(inner, "vision_tower.") != NULL || after(inner, "multi_modal_projector.") != NULL;
}

/* As nq_pick_fn. */
static bool pick_text(char *out, const char *name) {
    const char *outer = "";
    const char *rest = within(&outer, name);
    if (is_of_images(name)) {
        return false;
    }
    rest = rest != NULL ? rest : name;
    (void)snprintf(out, strlen(name) + 1, "%s%s", outer, rest);
    return true;
}

bool nq_hf_may_nest(const nq_tensors *ts) {
    for (size_t i = 0; i < nq_tensors_count(ts); i++) {
        const char *name = nq_tensors_at(ts, i)->name;
        const char *outer;
        if (within(&outer, name) != NULL || is_of_images(name)) {
            return true;
        }
    }
    return false;
}

/* Whether config is of images and text, of which we know the text. */
static bool is_nested(const json_t *config) {
    const char *type = json_string_value(json_object_get(config, "model_type"));
    const json_t *part = json_object_get(config, "text_config");
    const char *inner = json_string_value(json_object_get(part, "model_type"));
    return type != NULL && strcmp(type, NESTING) == 0 && json_is_object(part) &&
           (inner == NULL || strcmp(inner, TEXT) == 0);
}

novaq_status nq_hf_pick_text(nq_tensors *ts, const json_t *config, novaq_error *err) {
    return is_nested(config) ? nq_tensors_pick(ts, pick_text, err) : NOVAQ_OK;
}

/* ---- config.json -------------------------------------------------------------------- */

/* What is missing of a text model's own config.json; the rest has the same default for
 * all architectures. */
static json_t *missing(void) {
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b}", "vocab_size",
                     262208, "hidden_size", 2304, "intermediate_size", 9216, "num_hidden_layers",
                     26, "num_attention_heads", 8, "num_key_value_heads", 4, "head_dim", 256,
                     "max_position_embeddings", 131072, "query_pre_attn_scalar", 256,
                     "sliding_window", 4096, "tie_word_embeddings", 1);
}

/* The text model's part with what the whole says about it. */
static json_t *nested(const json_t *config) {
    const json_t *part = json_object_get(config, "text_config");
    const json_t *tied = json_object_get(config, "tie_word_embeddings");
    const json_t *quantized = json_object_get(config, "quantization_config");
    json_t *text = json_deep_copy(part);
    (void)json_object_set_new(text, "model_type", json_string(TEXT));
    if (json_is_boolean(tied)) {
        (void)json_object_set_new(text, "tie_word_embeddings", json_boolean(json_is_true(tied)));
    }
    if (json_is_object(quantized)) {
        (void)json_object_set_new(text, "quantization_config", json_deep_copy(quantized));
    }
    return text;
}

novaq_status nq_hf_text_config(json_t **out, const json_t *config, novaq_error *err) {
    *out = is_nested(config) ? nested(config) : json_deep_copy(config);
    const char *type = json_string_value(json_object_get(*out, "model_type"));
    if (type != NULL && strcmp(type, TEXT) == 0) {
        json_t *defaults = missing();
        (void)json_object_update_missing(*out, defaults);
        json_decref(defaults);
    }
    return *out != NULL ? NOVAQ_OK : nq_fail(err, NOVAQ_E_MEMORY, "cannot describe a model");
}

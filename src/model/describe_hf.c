/* describe_hf.c - a model's description from the files beside its weights, as Hugging
 * Face has them: config.json, tokenizer.json, tokenizer_config.json,
 * chat_template.jinja or chat_template.json. */
#include <string.h>

#include "base/mem.h"
#include "io/fs.h"
#include "model/arch.h"
#include "model/describe_parts.h"

#define MAX_CONFIG    ((size_t)16 << 20)
#define MAX_TOKENIZER ((size_t)256 << 20)

typedef struct hf {
    const nq_tensors *ts;
    json_t *model;
    json_t *why;
    novaq_error *err;
} hf;

/* The file's text, or NULL when there is none. */
static novaq_status read_text(char **text, size_t *len, const nq_tensors *ts, const char *file,
                              size_t max, novaq_error *err) {
    char *name = NULL;
    *text = NULL;
    if (nq_tensors_files(ts) == NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_tensors_beside(&name, ts, file, err));
    novaq_status st = nq_files_text(text, len, nq_tensors_files(ts), name, max, err);
    nq_free(name);
    return st;
}

static novaq_status read_json(json_t **out, const nq_tensors *ts, const char *file, size_t max,
                              novaq_error *err) {
    char *text = NULL;
    size_t len = 0;
    *out = NULL;
    NQ_TRY(read_text(&text, &len, ts, file, max, err));
    novaq_status st = NOVAQ_OK;
    if (text != NULL) {
        st = nq_json_parse_object(out, file, text, len, err);
    }
    nq_free(text);
    return st;
}

/* From tokenizer.json, or tokenizer.model where there is none; *found stays false
 * without either. */
static novaq_status read_tokenizer(json_t **tokenizer, char **reason, bool *found,
                                   const nq_tensors *ts, const json_t *config, novaq_error *err) {
    json_t *file = NULL;
    char *data = NULL;
    size_t len = 0;
    novaq_status st = read_json(&file, ts, "tokenizer.json", MAX_TOKENIZER, err);
    *found = file != NULL;
    if (st == NOVAQ_OK && file != NULL) {
        st = nq_describe_tokenizer_hf(tokenizer, reason, file, config, err);
    } else if (st == NOVAQ_OK) {
        st = read_text(&data, &len, ts, "tokenizer.model", MAX_TOKENIZER, err);
        *found = data != NULL;
        if (st == NOVAQ_OK && data != NULL) {
            st = nq_describe_tokenizer_spm(tokenizer, reason, data, len, config, err);
        }
    }
    nq_free(data);
    json_decref(file);
    return st;
}

static novaq_status describe_tokenizer(const hf *h, const json_t *config) {
    json_t *tokenizer = NULL;
    char *reason = NULL;
    bool found = false;
    novaq_status st = read_tokenizer(&tokenizer, &reason, &found, h->ts, config, h->err);
    if (st == NOVAQ_OK && tokenizer != NULL) {
        st = nq_describe_set(h->model, "tokenizer", tokenizer, h->err);
    } else if (st == NOVAQ_OK) {
        st = nq_describe_why(h->why, h->err, "tokenizer: %s",
                             reason != NULL ? reason
                             : found        ? "not described by the file"
                                            : "there is no tokenizer.json or tokenizer.model");
    }
    nq_free(reason);
    return st;
}

/* "chat_template": one string, or a list of {name, template} with a default. */
static const char *find_template(const json_t *config) {
    const json_t *t = json_object_get(config, "chat_template");
    for (size_t i = 0; i < json_array_size(t); i++) {
        const json_t *entry = json_array_get(t, i);
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name != NULL && strcmp(name, "default") == 0) {
            return json_string_value(json_object_get(entry, "template"));
        }
    }
    return json_string_value(t);
}

static novaq_status describe_template(const hf *h, const json_t *config) {
    char *text = NULL;
    size_t len = 0;
    NQ_TRY(read_text(&text, &len, h->ts, "chat_template.jinja", MAX_CONFIG, h->err));
    json_t *s = NULL;
    if (text != NULL) {
        s = json_stringn(text, len);
    } else if (find_template(config) != NULL) {
        s = json_string(find_template(config));
    } else { /* where models of images and text once had it */
        json_t *file = NULL;
        NQ_TRY(read_json(&file, h->ts, "chat_template.json", MAX_CONFIG, h->err));
        s = find_template(file) != NULL ? json_string(find_template(file)) : NULL;
        json_decref(file);
    }
    nq_free(text);
    return s == NULL ? NOVAQ_OK : nq_describe_set(h->model, "chat_template", s, h->err);
}

/* *text[0..len): the last part of a path or address without the '/' at its end. */
static void last_part(const char **text, size_t *len) {
    size_t n = *len;
    while (n > 0 && (*text)[n - 1] == '/') {
        n--;
    }
    size_t start = n;
    while (start > 0 && (*text)[start - 1] != '/') {
        start--;
    }
    *text += start;
    *len = n - start;
}

/* What the model's place is called: a folder, or a repository. NULL: nothing that would
 * be the model's own. */
static json_t *name_of(const nq_tensors *ts) {
    if (nq_tensors_dir(ts) != NULL) {
        return json_string(nq_path_base(nq_tensors_dir(ts)));
    }
    const nq_files *files = nq_tensors_files(ts);
    const char *s = files == NULL ? NULL : strstr(nq_files_locator(files), "://");
    if (s == NULL) {
        return NULL;
    }
    bool web = strncmp(nq_files_locator(files), "http", 4) == 0;
    const char *chosen = nq_files_chosen(files);
    s += 3;
    if (!web) { /* ORG/NAME@COMMIT/FILE */
        s += strcspn(s, "/");
        s += s[0] == '/' ? 1 : 0;
        return json_stringn(s, strcspn(s, "@/"));
    }
    size_t host = strcspn(s, "/");
    size_t len = strlen(s);
    if (chosen != NULL) { /* the folder that it is in */
        while (len > 0 && s[len - 1] != '/') {
            len--;
        }
    }
    if (len <= host + 1) {
        return NULL;
    }
    last_part(&s, &len);
    return json_stringn(s, len);
}

novaq_status nq_describe_hf(json_t *model, json_t *why, const nq_tensors *ts, novaq_error *err) {
    hf h = {.ts = ts, .model = model, .why = why, .err = err};
    json_t *config = NULL;
    json_t *tokenizer_config = NULL;
    NQ_TRY(read_json(&config, ts, "config.json", MAX_CONFIG, err));
    if (config == NULL) {
        return nq_describe_why(why, err, "there is no config.json beside the weights");
    }
    json_t *name = name_of(ts);
    novaq_status st = name == NULL ? NOVAQ_OK : nq_describe_set(model, "name", name, err);
    if (st == NOVAQ_OK) {
        st = nq_describe_hf_config(model, why, config, ts, err);
    }
    if (st == NOVAQ_OK) {
        st = read_json(&tokenizer_config, ts, "tokenizer_config.json", MAX_TOKENIZER, err);
    }
    if (st == NOVAQ_OK) {
        st = describe_tokenizer(&h, tokenizer_config);
    }
    if (st == NOVAQ_OK) {
        st = describe_template(&h, tokenizer_config);
    }
    json_decref(tokenizer_config);
    json_decref(config);
    return st;
}

/* Only GPT-2 stores matrices the other way round, and only its tensors are called so:
 * most models cost no look at config.json here. */
static bool may_be_transposed(const nq_tensors *ts) {
    for (size_t i = 0; i < nq_tensors_count(ts); i++) {
        if (nq_arch_transposed("gpt2", nq_tensors_at(ts, i)->name)) {
            return true;
        }
    }
    return false;
}

static novaq_status turn_matrices(nq_tensors *ts, const json_t *config, novaq_error *err) {
    const char *type = json_string_value(json_object_get(config, "model_type"));
    novaq_status st = NOVAQ_OK;
    for (size_t i = 0; st == NOVAQ_OK && type != NULL && i < nq_tensors_count(ts); i++) {
        if (nq_arch_transposed(type, nq_tensors_at(ts, i)->name)) {
            st = nq_tensors_transpose(ts, i, err);
        }
    }
    return st;
}

/* What config.json says about tensors. */
static novaq_status settle(nq_tensors *ts, novaq_error *err) {
    json_t *config = NULL;
    if (nq_tensors_format(ts) == NQ_FORMAT_GGUF || !(may_be_transposed(ts) || nq_hf_may_nest(ts))) {
        return NOVAQ_OK;
    }
    NQ_TRY(read_json(&config, ts, "config.json", MAX_CONFIG, err));
    novaq_status st = nq_hf_pick_text(ts, config, err);
    if (st == NOVAQ_OK) {
        st = turn_matrices(ts, config, err);
    }
    json_decref(config);
    return st;
}

static novaq_status settled(nq_tensors **ts, novaq_error *err) {
    novaq_status st = settle(*ts, err);
    if (st != NOVAQ_OK) {
        nq_tensors_close(ts);
    }
    return st;
}

novaq_status nq_model_tensors_open(nq_tensors **out, const char *path, novaq_error *err) {
    NQ_TRY(nq_tensors_open(out, path, err));
    return settled(out, err);
}

novaq_status nq_model_tensors_open_files(nq_tensors **out, nq_files **files, novaq_error *err) {
    NQ_TRY(nq_tensors_open_files(out, files, err));
    return settled(out, err);
}

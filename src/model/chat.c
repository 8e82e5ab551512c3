/* chat.c - conversations as the text a model was trained on.
 *
 * Owns: the variables a chat template sees, as Hugging Face `transformers` passes
 * them: messages, tools, documents, add_generation_prompt, the special tokens, and
 * what the caller adds. Refuses: a template of its own; a model without one needs
 * the caller's. */
#include <string.h>

#include "base/mem.h"
#include "model/api_model.h"
#include "model/template.h"

/* Bytes of text a conversation may become. */
#define MAX_TEXT ((size_t)64 << 20)

/* name = text of the token, if the tokenizer names one as key. */
static novaq_status put_token(json_t *variables, const char *name, const novaq_model *m,
                              const json_t *tokenizer, const char *key, novaq_error *err) {
    const json_t *id = json_object_get(tokenizer, key);
    char *text = NULL;
    size_t len = 0;
    if (!json_is_integer(id) || json_integer_value(id) < 0 ||
        (uint64_t)json_integer_value(id) >= nq_tokenizer_vocab(m->tokenizer)) {
        return NOVAQ_OK;
    }
    int32_t token = (int32_t)json_integer_value(id);
    NQ_TRY(nq_tokenizer_decode(&text, &len, m->tokenizer, &token, 1, 0, err));
    json_t *s = json_stringn(text, len);
    nq_free(text);
    /* A token that is no text is none for a template. */
    return s == NULL || json_object_set_new(variables, name, s) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_MEMORY, "cannot pass a token to the chat template");
}

static novaq_status put_json(json_t *variables, const char *name, const char *text,
                             novaq_error *err) {
    json_t *v = NULL;
    if (text == NULL) {
        v = json_null();
    } else {
        NQ_TRY(nq_json_parse(&v, name, text, strlen(text), err));
    }
    return json_object_set_new(variables, name, v) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_MEMORY, "cannot pass %s to the chat template", name);
}

static novaq_status put_further(json_t *variables, const char *text, novaq_error *err) {
    json_t *more = NULL;
    if (text == NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_json_parse_object(&more, "variables", text, strlen(text), err));
    int failed = json_object_update(variables, more);
    json_decref(more);
    return failed == 0 ? NOVAQ_OK
                       : nq_fail(err, NOVAQ_E_MEMORY, "cannot pass variables to the template");
}

static novaq_status fill(json_t *v, const novaq_model *m, const novaq_chat_options *o,
                         novaq_error *err) {
    static const char *const tokens[][2] = {{"bos_token", "bos_id"},
                                            {"eos_token", "eos_id"},
                                            {"unk_token", "unk_id"},
                                            {"pad_token", "pad_id"}};
    const json_t *tokenizer = json_object_get(nq_weights_model(m->model->weights), "tokenizer");
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        NQ_TRY(put_token(v, tokens[i][0], m, tokenizer, tokens[i][1], err));
    }
    NQ_TRY(put_json(v, "messages", o->messages, err));
    if (!json_is_array(json_object_get(v, "messages"))) {
        return nq_fail(err, NOVAQ_E_ARG, "messages must be a JSON array of {role, content}");
    }
    NQ_TRY(put_json(v, "tools", o->tools, err));
    NQ_TRY(put_json(v, "documents", NULL, err));
    NQ_TRY(put_json(v, "add_generation_prompt", o->no_generation_prompt ? "false" : "true", err));
    return put_further(v, o->variables, err);
}

novaq_status novaq_chat_render(char **text, size_t *len, const novaq_model *m,
                               const novaq_chat_options *opt, novaq_error *err) {
    static const nq_template_limits limits = {
        .steps = 40000000, .memory = (size_t)512 << 20, .output = MAX_TEXT};
    nq_template *t = NULL;
    struct tm now;
    *text = NULL;
    *len = 0;
    if (m == NULL || opt == NULL || opt->struct_size < sizeof *opt || opt->messages == NULL) {
        return nq_fail(err, NOVAQ_E_ARG, "novaq_chat_render: no messages, or options not set");
    }
    const char *source = opt->chat_template;
    if (source == NULL) {
        source = json_string_value(
            json_object_get(nq_weights_model(m->model->weights), "chat_template"));
    }
    if (source == NULL) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "this model has no chat template; give one with --chat-template FILE, or "
                       "continue plain text with novaq run");
    }
    time_t when = (time_t)opt->now;
    json_t *v = json_object();
    novaq_status st =
        v == NULL ? nq_fail(err, NOVAQ_E_MEMORY, "cannot pass variables to the chat template")
                  : fill(v, m, opt, err);
    if (st == NOVAQ_OK) {
        st = nq_template_open(&t, source, strlen(source), err);
    }
    if (st == NOVAQ_OK) {
        bool dated = opt->now != 0 && gmtime_r(&when, &now) != NULL;
        st = nq_template_render(text, len, t, v, dated ? &now : NULL, &limits, err);
    }
    nq_template_close(&t);
    json_decref(v);
    return st;
}

novaq_status nq_prompt_ids(int32_t **ids, size_t *count, const novaq_model *m,
                           const novaq_generate_options *opt, novaq_error *err) {
    char *text = NULL;
    size_t len = 0;
    *ids = NULL;
    *count = 0;
    if (opt->chat == NULL) {
        return nq_tokenizer_encode(ids, count, m->tokenizer, opt->prompt, strlen(opt->prompt), 1,
                                   opt->parse_special, err);
    }
    NQ_TRY(novaq_chat_render(&text, &len, m, opt->chat, err));
    novaq_status st = nq_tokenizer_encode(ids, count, m->tokenizer, text, len, 0, 1, err);
    nq_free(text);
    return st;
}

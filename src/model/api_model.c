/* api_model.c - the public functions that open a model and turn text into tokens
 * and back; see chat.c and session.c for the others. */
#include "model/api_model.h"

#include "base/mem.h"

novaq_status novaq_model_open(novaq_model **out, const char *path, const novaq_model_options *opt,
                              novaq_error *err) {
    *out = NULL;
    novaq_model *m = NULL;
    const json_t *tokenizer = NULL;
    if (path == NULL || (opt != NULL && opt->struct_size < sizeof *opt)) {
        return nq_fail(err, NOVAQ_E_ARG, "novaq_model_open: no path, or options not initialised");
    }
    NQ_TRY(nq_alloc(&m, 1, sizeof *m, err));
    novaq_status st = nq_pool_open(&m->pool, opt == NULL ? 0 : opt->threads, err);
    if (st == NOVAQ_OK) {
        st = nq_model_open(&m->model, path, m->pool, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_model_prepare_fast(m->model, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_json_get_object(&tokenizer, nq_weights_model(m->model->weights), "tokenizer", path,
                                err);
    }
    if (st == NOVAQ_OK) {
        st = nq_tokenizer_open(&m->tokenizer, tokenizer, err);
    }
    if (st != NOVAQ_OK) {
        novaq_model_close(&m);
        return st;
    }
    *out = m;
    return NOVAQ_OK;
}

void novaq_model_close(novaq_model **pm) {
    if (pm == NULL || *pm == NULL) {
        return;
    }
    novaq_model *m = *pm;
    *pm = NULL;
    nq_tokenizer_close(&m->tokenizer);
    nq_model_close(&m->model);
    nq_pool_close(&m->pool);
    nq_free(m);
}

novaq_status novaq_tokenize(int32_t **ids, size_t *count, const novaq_model *m, const char *text,
                            size_t len, int add_special, int parse_special, novaq_error *err) {
    return nq_tokenizer_encode(ids, count, m->tokenizer, text, len, add_special, parse_special,
                               err);
}

novaq_status novaq_detokenize(char **text, size_t *len, const novaq_model *m, const int32_t *ids,
                              size_t count, int skip_special, novaq_error *err) {
    return nq_tokenizer_decode(text, len, m->tokenizer, ids, count, skip_special, err);
}

/* api_model.h - what is behind a novaq_model, for the files that implement the
 * public functions on it.
 *
 * Owns: the struct. Refuses: use outside api_model.c, chat.c and session.c.
 */
#ifndef NQ_MODEL_API_MODEL_H
#define NQ_MODEL_API_MODEL_H

#include "model/model.h"
#include "model/tokenizer.h"

struct novaq_model {
    nq_pool *pool;
    nq_model *model;
    nq_tokenizer *tokenizer;
};

/* *ids (nq_free): the tokens of opt->prompt, or of opt->chat through the template. */
NOVAQ_CHECK novaq_status nq_prompt_ids(int32_t **ids, size_t *count, const novaq_model *m,
                                       const novaq_generate_options *opt, novaq_error *err);

#endif

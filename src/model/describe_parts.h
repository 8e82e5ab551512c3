/* describe_parts.h - what the files of describe share.
 *
 * Owns: the signatures of the two mappings behind nq_describe(), and of what finds the
 * text within a model of images and text. Refuses: use outside describe*.c.
 */
#ifndef NQ_MODEL_DESCRIBE_PARTS_H
#define NQ_MODEL_DESCRIBE_PARTS_H

#include "model/describe.h"

/* Fill `model` (architecture, name, hyperparameters, tokenizer, chat_template)
 * and append to `why` (array of strings) what keeps it from running. */
NOVAQ_CHECK novaq_status nq_describe_gguf(json_t *model, json_t *why, const nq_tensors *ts,
                                          novaq_error *err);
NOVAQ_CHECK novaq_status nq_describe_hf(json_t *model, json_t *why, const nq_tensors *ts,
                                        novaq_error *err);

/* describe_hf_config.c: "architecture" and "hyperparameters" from config.json. */
NOVAQ_CHECK novaq_status nq_describe_hf_config(json_t *model, json_t *why, const json_t *config,
                                               const nq_tensors *ts, novaq_error *err);

/* describe_hf_text.c: the text model within a repository of images and text. Whether names
 * of tensors look like one; keeps, if config says so, the text model's tensors alone, as
 * they are called without images. */
bool nq_hf_may_nest(const nq_tensors *ts);
NOVAQ_CHECK novaq_status nq_hf_pick_text(nq_tensors *ts, const json_t *config, novaq_error *err);
/* *out: a new reference; the text model's config.json, which is `config` where there is
 * nothing else. */
NOVAQ_CHECK novaq_status nq_hf_text_config(json_t **out, const json_t *config, novaq_error *err);

/* Appends printf-formatted text (invalid UTF-8 replaced by a fixed phrase). */
NOVAQ_CHECK novaq_status nq_describe_why(json_t *why, novaq_error *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Sets key to value (reference stolen); NOVAQ_E_MEMORY when that fails. */
NOVAQ_CHECK novaq_status nq_describe_set(json_t *object, const char *key, json_t *value,
                                         novaq_error *err);

#endif

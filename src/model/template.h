/* template.h - chat templates: messages to the text a model was trained on.
 *
 * Owns: the subset of Jinja that published chat templates are written in, as
 * Hugging Face `transformers` runs them (trim_blocks, lstrip_blocks, an immutable
 * sandbox, loop controls). Templates come with the weights and are not trusted:
 * depth, steps, memory and output are bounded, nothing outside the variables can
 * be reached. Refuses: include, import, extends, block, recursive loops, files,
 * the clock.
 *
 * A compiled template is read-only; threads may render it at the same time.
 */
#ifndef NQ_MODEL_TEMPLATE_H
#define NQ_MODEL_TEMPLATE_H

#include <time.h>

#include "base/json.h"

typedef struct nq_template nq_template;

typedef struct nq_template_limits {
    uint64_t steps; /* evaluations; long strings and lists count for more */
    size_t memory;  /* bytes of values */
    size_t output;  /* bytes of text */
} nq_template_limits;

/* text is copied. NOVAQ_E_FORMAT names the line of what is not Jinja,
 * NOVAQ_E_UNSUPPORTED that of what is, but not in the subset. */
NOVAQ_CHECK novaq_status nq_template_open(nq_template **out, const char *text, size_t len,
                                          novaq_error *err);
/* Releases *t and nulls it. NULL is fine. */
void nq_template_close(nq_template **t);
/* variables: an object. now: what strftime_now() formats; NULL leaves it
 * undefined. limits: NULL for generous ones. *text (nq_free) is NUL-terminated
 * UTF-8. NOVAQ_E_ARG carries the text of raise_exception(). */
NOVAQ_CHECK novaq_status nq_template_render(char **text, size_t *len, const nq_template *t,
                                            const json_t *variables, const struct tm *now,
                                            const nq_template_limits *limits, novaq_error *err);

#endif

/* tensor_rules.h - "REGEX=SCHEME" overrides by tensor name.
 *
 * Owns: compiling the patterns (PCRE2, searched anywhere in the name) and the
 * first match. Refuses: silently ignoring a rule it cannot parse.
 */
#ifndef NQ_COMPRESS_TENSOR_RULES_H
#define NQ_COMPRESS_TENSOR_RULES_H

#include "quant/scheme.h"

typedef struct nq_rules nq_rules;

NOVAQ_CHECK novaq_status nq_rules_open(nq_rules **out, const char *const *specs, size_t count,
                                       novaq_error *err);
void nq_rules_close(nq_rules **r);
/* The scheme of the first rule that matches, or NULL; remembers that it did. */
const nq_scheme *nq_rules_match(nq_rules *r, const char *name);
/* Whether rule i has matched any name so far. */
bool nq_rules_used(const nq_rules *r, size_t i);

#endif

/* json.h - strict JSON for untrusted files, over jansson.
 *
 * Owns: the limits (size, depth, no duplicate keys, no NULs) and typed getters
 * that report what is missing. Refuses: being lenient.
 */
#ifndef NQ_BASE_JSON_H
#define NQ_BASE_JSON_H

#include <jansson.h>

#include "base/status.h"

/* Parses text[0..len) strictly: one value, duplicate keys refused, depth at
 * most 64. *out is the caller's (json_decref). name is for messages. Integers of more
 * than 64 bits are real numbers. */
NOVAQ_CHECK novaq_status nq_json_parse(json_t **out, const char *name, const char *text, size_t len,
                                       novaq_error *err);
/* As nq_json_parse(), and the value must be an object. */
NOVAQ_CHECK novaq_status nq_json_parse_object(json_t **out, const char *name, const char *text,
                                              size_t len, novaq_error *err);
/* Serialises in insertion order; indent 0 = compact. *text: nq_free(). */
NOVAQ_CHECK novaq_status nq_json_dump(char **text, const json_t *value, unsigned indent,
                                      novaq_error *err);

/* Object members of a type, or NOVAQ_E_FORMAT naming `where` and the key.
 * Strings are borrowed from obj. */
NOVAQ_CHECK novaq_status nq_json_get_object(const json_t **out, const json_t *obj, const char *key,
                                            const char *where, novaq_error *err);
NOVAQ_CHECK novaq_status nq_json_get_array(const json_t **out, const json_t *obj, const char *key,
                                           const char *where, novaq_error *err);
NOVAQ_CHECK novaq_status nq_json_get_string(const char **out, const json_t *obj, const char *key,
                                            const char *where, novaq_error *err);
NOVAQ_CHECK novaq_status nq_json_get_u64(uint64_t *out, const json_t *obj, const char *key,
                                         const char *where, novaq_error *err);
NOVAQ_CHECK novaq_status nq_json_get_f64(double *out, const json_t *obj, const char *key,
                                         const char *where, novaq_error *err);

#endif

/* json.c - see json.h. */
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define NQ_JSON_DEPTH 64

/* jansson's own limit is 2048 levels of recursion; count brackets first so
 * that a hostile file costs no stack. */
static int too_deep(const char *text, size_t len) {
    int depth = 0;
    int in_string = 0;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = 0;
            }
        } else if (c == '"') {
            in_string = 1;
        } else if (c == '[' || c == '{') {
            if (++depth > NQ_JSON_DEPTH) {
                return 1;
            }
        } else if (c == ']' || c == '}') {
            depth--;
        }
    }
    return 0;
}

novaq_status nq_json_parse(json_t **out, const char *name, const char *text, size_t len,
                           novaq_error *err) {
    *out = NULL;
    if (too_deep(text, len)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: JSON nested deeper than %d", name, NQ_JSON_DEPTH);
    }
    json_error_t je;
    *out = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
    if (*out == NULL) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: line %d: bad JSON: %s", name, je.line, je.text);
    }
    return NOVAQ_OK;
}

novaq_status nq_json_parse_object(json_t **out, const char *name, const char *text, size_t len,
                                  novaq_error *err) {
    NQ_TRY(nq_json_parse(out, name, text, len, err));
    if (!json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: not a JSON object", name);
    }
    return NOVAQ_OK;
}

novaq_status nq_json_dump(char **text, const json_t *value, unsigned indent, novaq_error *err) {
    *text = NULL;
    size_t flags = JSON_PRESERVE_ORDER | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9);
    flags |= indent == 0 ? JSON_COMPACT : JSON_INDENT(indent);
    char *s = json_dumps(value, flags);
    if (s == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot serialise JSON");
    }
    novaq_status st = nq_strdup(text, s, err);
    free(s);
    return st;
}

static const json_t *member(const json_t *obj, const char *key) {
    return json_object_get(obj, key);
}

static novaq_status missing(const char *key, const char *where, const char *type,
                            novaq_error *err) {
    return nq_fail(err, NOVAQ_E_FORMAT, "%s: \"%s\" is missing or not %s", where, key, type);
}

novaq_status nq_json_get_object(const json_t **out, const json_t *obj, const char *key,
                                const char *where, novaq_error *err) {
    *out = member(obj, key);
    return json_is_object(*out) ? NOVAQ_OK : missing(key, where, "an object", err);
}

novaq_status nq_json_get_array(const json_t **out, const json_t *obj, const char *key,
                               const char *where, novaq_error *err) {
    *out = member(obj, key);
    return json_is_array(*out) ? NOVAQ_OK : missing(key, where, "an array", err);
}

novaq_status nq_json_get_string(const char **out, const json_t *obj, const char *key,
                                const char *where, novaq_error *err) {
    *out = json_string_value(member(obj, key));
    return *out != NULL ? NOVAQ_OK : missing(key, where, "a string", err);
}

novaq_status nq_json_get_u64(uint64_t *out, const json_t *obj, const char *key, const char *where,
                             novaq_error *err) {
    const json_t *v = member(obj, key);
    *out = 0;
    if (!json_is_integer(v) || json_integer_value(v) < 0) {
        return missing(key, where, "a non-negative integer", err);
    }
    *out = (uint64_t)json_integer_value(v);
    return NOVAQ_OK;
}

novaq_status nq_json_get_f64(double *out, const json_t *obj, const char *key, const char *where,
                             novaq_error *err) {
    const json_t *v = member(obj, key);
    *out = 0;
    if (!json_is_number(v)) {
        return missing(key, where, "a number", err);
    }
    *out = json_number_value(v);
    return NOVAQ_OK;
}

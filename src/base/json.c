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

/* Digits from text[i] on. */
static size_t digits_at(const char *text, size_t len, size_t i) {
    size_t n = 0;
    while (i + n < len && text[i + n] >= '0' && text[i + n] <= '9') {
        n++;
    }
    return n;
}

/* Whether the integer of n digits does not fit 64 bits, or fits them only with a minus. */
static bool too_big(const char *digits, size_t n) {
    static const char most[] = "9223372036854775807";
    size_t fits = sizeof most - 1;
    return n > fits || (n == fits && memcmp(digits, most, n) > 0);
}

/* A copy of text in which integers of more than 64 bits are real numbers ("model_max_length"
 * of many tokenizer_config.json is 10^30): jansson refuses them. out: 2 * len bytes. */
static size_t widen_integers(char *out, const char *text, size_t len) {
    size_t n = 0;
    bool in_string = false;
    for (size_t i = 0; i < len;) {
        size_t digits = in_string ? 0 : digits_at(text, len, i);
        if (digits > 0) {
            char next = i + digits < len ? text[i + digits] : '\0';
            bool integer = next != '.' && next != 'e' && next != 'E' &&
                           (i == 0 || strchr(".eE+", text[i - 1]) == NULL);
            memcpy(out + n, text + i, digits);
            n += digits;
            if (integer && too_big(text + i, digits)) {
                memcpy(out + n, ".0", 2);
                n += 2;
            }
            i += digits;
            continue;
        }
        if (in_string && text[i] == '\\' && i + 1 < len) {
            out[n++] = text[i++];
        } else if (text[i] == '"') {
            in_string = !in_string;
        }
        out[n++] = text[i++];
    }
    return n;
}

static novaq_status parse_widened(json_t **out, const char *text, size_t len, json_error_t *je,
                                  novaq_error *err) {
    char *wide = NULL;
    NQ_TRY(nq_alloc_raw(&wide, len, 2, err));
    size_t n = widen_integers(wide, text, len);
    *out = json_loadb(wide, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, je);
    nq_free(wide);
    return NOVAQ_OK;
}

novaq_status nq_json_parse(json_t **out, const char *name, const char *text, size_t len,
                           novaq_error *err) {
    *out = NULL;
    if (too_deep(text, len)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: JSON nested deeper than %d", name, NQ_JSON_DEPTH);
    }
    json_error_t je;
    *out = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
    if (*out == NULL && json_error_code(&je) == json_error_numeric_overflow) {
        NQ_TRY(parse_widened(out, text, len, &je, err));
    }
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

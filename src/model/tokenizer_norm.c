/* tokenizer_norm.c - what happens to text before it is cut up.
 *
 * Owns: NFC, Prepend and plain Replace, alone or one after the other. Refuses:
 * every other normalizer, by name.
 */
#include <string.h>

#include "model/tokenizer_impl.h"

#define STEPS_MAX 8

typedef enum step_type { STEP_NFC, STEP_PREPEND, STEP_REPLACE } step_type;

typedef struct step {
    step_type type;
    char *from; /* Replace */
    char *to;   /* Prepend, Replace */
} step;

struct nq_norm {
    step steps[STEPS_MAX];
    unsigned count;
};

static const char where[] = "tokenizer: normalizer";

static novaq_status add(nq_norm *n, step_type type, const char *from, const char *to,
                        novaq_error *err) {
    if (n->count == STEPS_MAX) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s of more than %d steps", where, STEPS_MAX);
    }
    step *s = &n->steps[n->count++];
    s->type = type;
    if (from != NULL) {
        NQ_TRY(nq_strdup(&s->from, from, err));
    }
    return to != NULL ? nq_strdup(&s->to, to, err) : NOVAQ_OK;
}

static novaq_status read_step(nq_norm *n, const json_t *part, novaq_error *err) {
    const char *type = json_string_value(json_object_get(part, "type"));
    if (type == NULL) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s without a type", where);
    }
    if (strcmp(type, "NFC") == 0) {
        return add(n, STEP_NFC, NULL, NULL, err);
    }
    if (strcmp(type, "Prepend") == 0) {
        const char *text = NULL;
        NQ_TRY(nq_json_get_string(&text, part, "prepend", where, err));
        return add(n, STEP_PREPEND, NULL, text, err);
    }
    if (strcmp(type, "Replace") == 0) {
        const char *from =
            json_string_value(json_object_get(json_object_get(part, "pattern"), "String"));
        const char *to = NULL;
        NQ_TRY(nq_json_get_string(&to, part, "content", where, err));
        if (from == NULL || from[0] == '\0') {
            return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s \"Replace\" of a pattern", where);
        }
        return add(n, STEP_REPLACE, from, to, err);
    }
    return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s \"%.64s\" is not supported", where, type);
}

static novaq_status read_desc(nq_norm *n, const json_t *desc, novaq_error *err) {
    if (desc == NULL || json_is_null(desc)) {
        return NOVAQ_OK;
    }
    const char *name = json_string_value(desc);
    if (name != NULL) {
        if (strcmp(name, "nfc") == 0) {
            return add(n, STEP_NFC, NULL, NULL, err);
        }
        return strcmp(name, "none") == 0
                   ? NOVAQ_OK
                   : nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s \"%.64s\" is not known", where, name);
    }
    const char *type = json_string_value(json_object_get(desc, "type"));
    if (type == NULL || strcmp(type, "Sequence") != 0) {
        return read_step(n, desc, err);
    }
    const json_t *list = NULL;
    NQ_TRY(nq_json_get_array(&list, desc, "normalizers", where, err));
    for (size_t i = 0; i < json_array_size(list); i++) {
        NQ_TRY(read_step(n, json_array_get(list, i), err));
    }
    return NOVAQ_OK;
}

novaq_status nq_norm_open(nq_norm **out, const json_t *desc, novaq_error *err) {
    *out = NULL;
    nq_norm *n = NULL;
    NQ_TRY(nq_alloc(&n, 1, sizeof *n, err));
    novaq_status st = read_desc(n, desc, err);
    if (st != NOVAQ_OK) {
        nq_norm_close(&n);
    }
    *out = n;
    return st;
}

void nq_norm_close(nq_norm **n) {
    if (*n == NULL) {
        return;
    }
    for (unsigned i = 0; i < (*n)->count; i++) {
        nq_free((*n)->steps[i].from);
        nq_free((*n)->steps[i].to);
    }
    nq_free(*n);
    *n = NULL;
}

bool nq_norm_is_identity(const nq_norm *n) { return n->count == 0; }

static novaq_status replace(nq_buf *dst, const step *s, const uint8_t *text, size_t len,
                            novaq_error *err) {
    size_t nf = strlen(s->from);
    size_t nt = strlen(s->to);
    while (len > 0) {
        const uint8_t *hit = memmem(text, len, s->from, nf);
        size_t plain = hit == NULL ? len : (size_t)(hit - text);
        NQ_TRY(nq_buf_append(dst, text, plain, err));
        if (hit == NULL) {
            break;
        }
        NQ_TRY(nq_buf_append(dst, s->to, nt, err));
        text += plain + nf;
        len -= plain + nf;
    }
    return NOVAQ_OK;
}

static novaq_status run_step(nq_buf *dst, const step *s, const uint8_t *text, size_t len,
                             novaq_error *err) {
    if (len == 0) {
        return NOVAQ_OK; /* Prepend, too, leaves nothing as it is */
    }
    switch (s->type) {
    case STEP_NFC: return nq_nfc(dst, text, len, err);
    case STEP_REPLACE: return replace(dst, s, text, len, err);
    case STEP_PREPEND: break;
    }
    NQ_TRY(nq_buf_append(dst, s->to, strlen(s->to), err));
    return nq_buf_append(dst, text, len, err);
}

novaq_status nq_norm_run(nq_buf *dst, const nq_norm *n, const uint8_t *text, size_t len,
                         novaq_error *err) {
    if (n->count == 0) {
        return nq_buf_append(dst, text, len, err);
    }
    nq_buf tmp[2] = {nq_buf_init(dst->max), nq_buf_init(dst->max)};
    novaq_status st = NOVAQ_OK;
    for (unsigned i = 0; st == NOVAQ_OK && i < n->count; i++) {
        nq_buf *to = i + 1 == n->count ? dst : &tmp[i & 1];
        if (to != dst) {
            to->len = 0;
        }
        st = run_step(to, &n->steps[i], text, len, err);
        text = to->data;
        len = to->len;
    }
    nq_buf_free(&tmp[0]);
    nq_buf_free(&tmp[1]);
    return st;
}

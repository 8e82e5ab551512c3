/* tensor_rules.c - see tensor_rules.h. */
#include "compress/tensor_rules.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "base/mem.h"

typedef struct rule {
    pcre2_code *pattern;
    nq_scheme scheme;
    bool used;
} rule;

struct nq_rules {
    rule *rules;
    size_t count;
};

static novaq_status compile(rule *r, const char *spec, novaq_error *err) {
    const char *eq = strrchr(spec, '=');
    if (eq == NULL || eq == spec) {
        return nq_fail(err, NOVAQ_E_ARG, "tensor type '%s' is not REGEX=SCHEME", spec);
    }
    NQ_TRY(nq_scheme_parse(&r->scheme, eq + 1, err));
    int code;
    PCRE2_SIZE at;
    r->pattern = pcre2_compile((PCRE2_SPTR)spec, (PCRE2_SIZE)(eq - spec), 0, &code, &at, NULL);
    if (r->pattern == NULL) {
        PCRE2_UCHAR text[128];
        (void)pcre2_get_error_message(code, text, sizeof text);
        return nq_fail(err, NOVAQ_E_ARG, "tensor type '%s': bad pattern at %zu: %s", spec, at,
                       (const char *)text);
    }
    return NOVAQ_OK;
}

novaq_status nq_rules_open(nq_rules **out, const char *const *specs, size_t count,
                           novaq_error *err) {
    *out = NULL;
    nq_rules *r = NULL;
    NQ_TRY(nq_alloc(&r, 1, sizeof *r, err));
    novaq_status st = nq_alloc(&r->rules, count + 1, sizeof *r->rules, err);
    for (size_t i = 0; st == NOVAQ_OK && i < count; i++) {
        st = compile(&r->rules[i], specs[i], err);
        r->count = i + 1;
    }
    if (st != NOVAQ_OK) {
        nq_rules_close(&r);
    }
    *out = r;
    return st;
}

void nq_rules_close(nq_rules **r) {
    if (*r == NULL) {
        return;
    }
    for (size_t i = 0; i < (*r)->count; i++) {
        pcre2_code_free((*r)->rules[i].pattern);
    }
    nq_free((*r)->rules);
    nq_free(*r);
    *r = NULL;
}

const nq_scheme *nq_rules_match(nq_rules *r, const char *name) {
    const nq_scheme *found = NULL;
    for (size_t i = 0; i < r->count && found == NULL; i++) {
        pcre2_match_data *md = pcre2_match_data_create_from_pattern(r->rules[i].pattern, NULL);
        if (md != NULL &&
            pcre2_match(r->rules[i].pattern, (PCRE2_SPTR)name, strlen(name), 0, 0, md, NULL) >= 0) {
            found = &r->rules[i].scheme;
            r->rules[i].used = true;
        }
        pcre2_match_data_free(md);
    }
    return found;
}

bool nq_rules_used(const nq_rules *r, size_t i) { return r->rules[i].used; }

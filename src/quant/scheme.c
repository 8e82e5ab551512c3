/* scheme.c - see scheme.h. */
#include "quant/scheme.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    nq_scheme_kind kind;
    double bits;
} plain_schemes[] = {
    {"q8", NQ_SCHEME_Q8, 8},      {"f32", NQ_SCHEME_F32, 32}, {"f16", NQ_SCHEME_F16, 16},
    {"bf16", NQ_SCHEME_BF16, 16}, {"raw", NQ_SCHEME_RAW, 0},
};
#define PLAIN_COUNT (sizeof plain_schemes / sizeof plain_schemes[0])

nq_scheme nq_scheme_sliding(unsigned k, unsigned d, unsigned levels) {
    nq_scheme s = {.kind = NQ_SCHEME_CODE, .d = d, .fields = 1, .k = {k, 0}, .levels = levels};
    for (unsigned l = 0; l < levels && l < NQ_MAX_LEVELS; l++) {
        s.lag[l] = l;
    }
    return s;
}

nq_scheme nq_scheme_pq(unsigned k1, unsigned k2, unsigned d) {
    nq_scheme s = {.kind = NQ_SCHEME_CODE, .d = d, .fields = 1, .k = {k1, 0}, .levels = 1};
    if (k2 > 1) {
        s.fields = 2;
        s.k[1] = k2;
        s.levels = 2;
        s.field[1] = 1;
    }
    return s;
}

/* Reads "<letter><number>" at *p; advances. */
static bool read_part(const char **p, char letter, unsigned *value) {
    if (**p != letter || (*p)[1] < '1' || (*p)[1] > '9') {
        return false;
    }
    char *end;
    unsigned long v = strtoul(*p + 1, &end, 10);
    if (v > 256) {
        return false;
    }
    *value = (unsigned)v;
    *p = end;
    return true;
}

static bool parse_sliding(nq_scheme *out, const char *p) {
    unsigned k = 0;
    unsigned d = 0;
    unsigned levels = 1;
    if (!read_part(&p, 'k', &k) || !read_part(&p, 'd', &d)) {
        return false;
    }
    if (*p == 'l' && !read_part(&p, 'l', &levels)) {
        return false;
    }
    bool fits = k >= 2 && d <= NQ_MAX_D && levels <= NQ_MAX_LEVELS && (levels == 1 || k <= 16);
    *out = nq_scheme_sliding(k, d, levels);
    return *p == '\0' && fits;
}

static bool parse_pq(nq_scheme *out, const char *p) {
    unsigned k1 = 0;
    unsigned k2 = 1;
    unsigned d = 0;
    if (*p != 'p' || !read_part(&(const char *){p + 1}, 'q', &k1)) {
        return false;
    }
    p++;
    (void)read_part(&p, 'q', &k1);
    if (*p == 'x' && !read_part(&p, 'x', &k2)) {
        return false;
    }
    if (!read_part(&p, 'd', &d)) {
        return false;
    }
    *out = nq_scheme_pq(k1, k2, d);
    return *p == '\0' && k1 >= 2 && d <= NQ_MAX_D;
}

novaq_status nq_scheme_parse(nq_scheme *out, const char *name, novaq_error *err) {
    for (size_t i = 0; i < PLAIN_COUNT; i++) {
        if (strcmp(name, plain_schemes[i].name) == 0) {
            *out = (nq_scheme){.kind = plain_schemes[i].kind, .d = 1};
            return NOVAQ_OK;
        }
    }
    if (parse_sliding(out, name) || parse_pq(out, name)) {
        return NOVAQ_OK;
    }
    return nq_fail(err, NOVAQ_E_ARG,
                   "unknown scheme '%s': use kKdDlL (K 2-16 with 2-3 levels, K 2-256 with one, "
                   "D 1-64), pqK1xK2dD (K 2-256), q8, f16, bf16, f32 or raw",
                   name);
}

const char *nq_scheme_name(char *buf, const nq_scheme *s) {
    if (s->kind != NQ_SCHEME_CODE) {
        for (size_t i = 0; i < PLAIN_COUNT; i++) {
            if (plain_schemes[i].kind == s->kind) {
                (void)snprintf(buf, NQ_SCHEME_NAME, "%s", plain_schemes[i].name);
            }
        }
    } else if (s->fields == 2) {
        (void)snprintf(buf, NQ_SCHEME_NAME, "pq%ux%ud%u", s->k[0], s->k[1], s->d);
    } else {
        (void)snprintf(buf, NQ_SCHEME_NAME, "k%ud%ul%u", s->k[0], s->d, s->levels);
    }
    return buf;
}

unsigned nq_scheme_field_bits(const nq_scheme *s, unsigned f) {
    unsigned bits = 0;
    while ((1U << bits) < s->k[f]) {
        bits++;
    }
    return bits;
}

double nq_scheme_bits(const nq_scheme *s) {
    if (s->kind != NQ_SCHEME_CODE) {
        for (size_t i = 0; i < PLAIN_COUNT; i++) {
            if (plain_schemes[i].kind == s->kind) {
                return plain_schemes[i].bits;
            }
        }
    }
    unsigned bits = 0;
    for (unsigned f = 0; f < s->fields; f++) {
        bits += nq_scheme_field_bits(s, f);
    }
    return (double)bits / s->d;
}

unsigned nq_scheme_max_lag(const nq_scheme *s) {
    unsigned lag = 0;
    for (unsigned l = 0; l < s->levels; l++) {
        lag = s->lag[l] > lag ? s->lag[l] : lag;
    }
    return lag;
}

uint64_t nq_scheme_codebook_bytes(const nq_scheme *s) {
    uint64_t entries = 0;
    for (unsigned l = 0; l < s->levels; l++) {
        entries += s->k[s->field[l]];
    }
    return entries * s->d;
}

uint64_t nq_scheme_row_symbols(const nq_scheme *s, uint64_t cols) {
    uint64_t symbols = cols / s->d + (cols % s->d != 0);
    return (symbols + 7) / 8 * 8;
}

uint64_t nq_scheme_row_bytes(const nq_scheme *s, uint64_t cols) {
    switch (s->kind) {
    case NQ_SCHEME_Q8: return cols;
    case NQ_SCHEME_F16:
    case NQ_SCHEME_BF16: return cols * 2;
    case NQ_SCHEME_F32: return cols * 4;
    case NQ_SCHEME_RAW: return 0;
    case NQ_SCHEME_CODE: break;
    }
    uint64_t bits = 0;
    for (unsigned f = 0; f < s->fields; f++) {
        bits += nq_scheme_field_bits(s, f);
    }
    return nq_scheme_row_symbols(s, cols) / 8 * bits;
}

/* round.c - see round.h. */
#include "refine/round.h"

#include <math.h>

#include "base/half.h"
#include "quant/codebook.h"
#include "quant/trellis.h"

#define F16_MAX 65504.0F
/* Units are at least such a share of their neighbours'. */
#define LEAST 0.05F
/* Squared relative error of a matrix at which rates of learning are as given, about that of
 * two bits; the share of others, at least and at most. */
#define USUAL_ERROR 0.09
#define SHARE_LEAST 0.05
#define SHARE_MOST  3.0

static const float *group_of(const nq_tmatrix *m, uint32_t group) {
    return m->codebooks + group * nq_scheme_codebook_bytes(&m->q->scheme);
}

void nq_round_group(int8_t *entries, uint16_t *scale, const nq_tmatrix *m, uint32_t group) {
    const nq_scheme *s = &m->q->scheme;
    const float *values = group_of(m, group);
    float peak = 0;
    for (unsigned l = 0; l < s->levels; l++) {
        peak += nq_level_peak(values, s, l);
    }
    /* Half a step a level is lost to rounding up; binary16 rounds the step. */
    *scale = nq_f32_to_f16(peak > 0 ? peak / (127.0F - (float)s->levels) : 1.0F);
    float step = nq_f16_to_f32(*scale);
    if (!(step > 0)) {
        step = 1.0F;
        *scale = nq_f32_to_f16(step);
    }
    for (uint64_t i = 0; i < nq_scheme_codebook_bytes(s); i++) {
        float q = rintf(values[i] / step);
        entries[i] = (int8_t)(q > 127 ? 127 : q < -127 ? -127 : q);
    }
}

uint16_t nq_round_row(const nq_tmatrix *m, uint64_t row) {
    float v = ldexpf(m->row_scale[row] * expf(m->log_scale[row]), -m->q->exponent);
    v = v > F16_MAX ? F16_MAX : v < -F16_MAX ? -F16_MAX : v;
    return nq_f32_to_f16(v);
}

/* ---- gains and biases --------------------------------------------------------------- */

nq_store_kind nq_store_of(const nq_weights *weights, const nq_param *p) {
    const nq_weight *w = weights != NULL ? nq_weights_find(weights, p->name) : NULL;
    if (w == NULL || w->layer == NULL || w->elements != p->count) {
        return NQ_STORE_NONE;
    }
    switch (w->layer->scheme.kind) {
    case NQ_SCHEME_F32: return NQ_STORE_F32;
    case NQ_SCHEME_F16: return NQ_STORE_F16;
    case NQ_SCHEME_BF16: return NQ_STORE_BF16;
    case NQ_SCHEME_RAW: break;
    default: return NQ_STORE_NONE;
    }
    switch (w->layer->source_dtype) {
    case NQ_F32: return NQ_STORE_F32;
    case NQ_F16: return NQ_STORE_F16;
    case NQ_BF16: return NQ_STORE_BF16;
    default: return NQ_STORE_NONE;
    }
}

float nq_store_round(nq_store_kind kind, float v) {
    if (kind == NQ_STORE_F16) {
        v = v > F16_MAX ? F16_MAX : v < -F16_MAX ? -F16_MAX : v;
        return nq_f16_to_f32(nq_f32_to_f16(v));
    }
    return kind == NQ_STORE_BF16 ? nq_bf16_to_f32(nq_f32_to_bf16(v)) : v;
}

/* ---- all of a net --------------------------------------------------------------------- */

static void round_matrix(nq_tmatrix *m) {
    if (m->q == NULL) {
        return;
    }
    for (uint32_t g = 0; m->grad_codebooks != NULL && g < m->groups; g++) {
        uint64_t book = nq_scheme_codebook_bytes(&m->q->scheme);
        float *values = m->codebooks + g * book;
        int8_t entries[NQ_MAX_LEVELS * 256 * NQ_MAX_D];
        uint16_t scale = 0;
        nq_round_group(entries, &scale, m, g);
        for (uint64_t i = 0; i < book; i++) {
            values[i] = nq_f16_to_f32(scale) * (float)entries[i];
        }
    }
    for (uint64_t i = 0; i < m->rows; i++) {
        float stored = ldexpf(nq_f16_to_f32(nq_round_row(m, i)), m->q->exponent);
        /* A row of zeros stays one; the logarithm of 0 would, too. */
        m->log_scale[i] = m->row_scale[i] != 0.0F ? logf(stored / m->row_scale[i]) : 0.0F;
        if (m->row_mean != NULL) {
            m->row_mean[i] = nq_store_round(NQ_STORE_F16, m->row_mean[i]);
        }
    }
}

void nq_round_net(nq_net *net, const nq_weights *weights) {
    for (size_t i = 0; i < nq_net_matrix_count(net); i++) {
        round_matrix(nq_net_matrix(net, i));
    }
    for (size_t i = 0; i < nq_net_param_count(net); i++) {
        nq_param *p = nq_net_param(net, i);
        nq_store_kind kind = nq_param_is_vector(p) ? nq_store_of(weights, p) : NQ_STORE_NONE;
        for (uint64_t e = 0; kind != NQ_STORE_NONE && e < p->count; e++) {
            p->value[e] = nq_store_round(kind, p->value[e] - p->offset) + p->offset;
        }
    }
}

/* ---- units ------------------------------------------------------------------------------ */

/* The size of what a group's entries add up to. */
static float group_size(const nq_tmatrix *m, uint32_t group) {
    const nq_scheme *s = &m->q->scheme;
    const float *values = group_of(m, group);
    double sum = 0;
    for (unsigned l = 0; l < s->levels; l++) {
        uint64_t from = nq_level_offset(s, l);
        uint64_t to = nq_level_offset(s, l + 1);
        for (uint64_t i = from; i < to; i++) {
            sum += (double)values[i] * (double)values[i] / (double)(to - from);
        }
    }
    return (float)sqrt(sum);
}

/* What is coded finely is right but for little, and is to be changed by little. 1 where the
 * error is not known. */
static float share_of(const nq_tmatrix *m) {
    const nq_layer *l = m->source.w != NULL ? m->source.w->layer : NULL;
    if (l == NULL || !(l->error.sq_source > 0) || !(l->error.sq_error > 0)) {
        return 1;
    }
    double share = l->error.sq_error / l->error.sq_source / USUAL_ERROR;
    return (float)(share < SHARE_LEAST ? SHARE_LEAST : share > SHARE_MOST ? SHARE_MOST : share);
}

/* Gains and biases serve many matrices. */
static float mean_share(nq_net *net) {
    double sum = 0;
    double count = 0;
    for (size_t i = 0; i < nq_net_matrix_count(net); i++) {
        const nq_tmatrix *m = nq_net_matrix(net, i);
        if (m->q != NULL) {
            sum += (double)share_of(m);
            count++;
        }
    }
    return count > 0 ? (float)(sum / count) : 1;
}

static void book_units(float *unit, const nq_tmatrix *m) {
    uint64_t book = nq_scheme_codebook_bytes(&m->q->scheme);
    float mean = 0;
    for (uint32_t g = 0; g < m->groups; g++) {
        mean += group_size(m, g) / (float)m->groups;
    }
    for (uint32_t g = 0; g < m->groups; g++) {
        float size = group_size(m, g);
        size = size > LEAST * mean ? size : LEAST * mean;
        for (uint64_t i = 0; i < book; i++) {
            unit[g * book + i] = size;
        }
    }
}

void nq_round_vector_units(float *unit, const nq_param *p) {
    double sum = 0;
    for (uint64_t e = 0; e < p->count; e++) {
        sum += (double)p->value[e] * (double)p->value[e];
    }
    float least = LEAST * (float)sqrt(sum / (double)(p->count > 0 ? p->count : 1));
    for (uint64_t e = 0; e < p->count; e++) {
        float a = fabsf(p->value[e]);
        unit[e] = a > least ? a : least;
    }
}

static const nq_tmatrix *matrix_of(nq_net *net, const nq_param *p) {
    for (size_t i = 0; i < nq_net_matrix_count(net); i++) {
        const nq_tmatrix *m = nq_net_matrix(net, i);
        if (m->codebooks == p->value || m->log_scale == p->value || m->row_mean == p->value) {
            return m;
        }
    }
    return NULL;
}

void nq_round_units(float *unit, nq_net *net, const nq_weights *weights) {
    float mean = mean_share(net);
    for (size_t i = 0; i < nq_net_param_count(net); i++) {
        const nq_param *p = nq_net_param(net, i);
        const nq_tmatrix *m = matrix_of(net, p);
        for (uint64_t e = 0; e < p->count; e++) {
            unit[e] = p->kind == NQ_PARAM_LOG_SCALE ? 1.0F : 0.0F;
        }
        if (p->kind == NQ_PARAM_CODEBOOK && m != NULL) {
            book_units(unit, m);
        } else if (p->kind == NQ_PARAM_ROW_MEAN && m != NULL) {
            for (uint64_t e = 0; e < p->count; e++) {
                unit[e] = fabsf(m->row_scale[e]);
            }
        } else if (nq_param_is_vector(p) && nq_store_of(weights, p) != NQ_STORE_NONE) {
            nq_round_vector_units(unit, p);
        }
        float share = m != NULL ? share_of(m) : mean;
        for (uint64_t e = 0; e < p->count; e++) {
            unit[e] *= share;
        }
        unit += p->count;
    }
}

/* adam.c - see adam.h. */
#include "refine/adam.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

#define EPSILON 1e-8
#define USUAL   0.9 /* memory of the running mean of lengths */

novaq_status nq_adam_open(nq_adam *out, nq_param *params, size_t count, const nq_adam_options *opt,
                          novaq_error *err) {
    *out = (nq_adam){.opt = *opt, .params = params, .count = count, .share = 1};
    for (size_t i = 0; i < count; i++) {
        out->total += params[i].count;
    }
    novaq_status st = nq_alloc(&out->unit, out->total, sizeof(float), err);
    for (unsigned k = 0; st == NOVAQ_OK && k < 2; k++) {
        st = nq_alloc(&out->moment[k], out->total, sizeof(float), err);
    }
    if (st != NOVAQ_OK) {
        nq_adam_close(out);
        return st;
    }
    for (uint64_t i = 0; i < out->total; i++) {
        out->unit[i] = 1;
    }
    return NOVAQ_OK;
}

void nq_adam_close(nq_adam *a) {
    nq_free(a->unit);
    nq_free(a->moment[0]);
    nq_free(a->moment[1]);
    *a = (nq_adam){0};
}

double nq_adam_schedule(const nq_adam_options *opt, uint32_t step) {
    double rise = opt->warmup > 0 ? ((double)step + 1) / (double)opt->warmup : 1;
    double way = opt->steps > 0 ? (double)step / (double)opt->steps : 1;
    way = way < 1 ? way : 1;
    double fall = 0.5 * (1 + cos(way * 3.14159265358979323846)) * (1 - opt->last) + opt->last;
    return (rise < 1 ? rise : 1) * fall;
}

static bool learnt(const nq_adam *a, const nq_param *p) { return a->opt.rate[p->kind] > 0; }

double nq_adam_norm(const nq_adam *a) {
    double sum = 0;
    uint64_t at = 0;
    for (size_t i = 0; i < a->count; i++) {
        const nq_param *p = &a->params[i];
        for (uint64_t e = 0; learnt(a, p) && e < p->count; e++) {
            double g = (double)p->grad[e] * (double)a->unit[at + e];
            sum += g * g;
        }
        at += p->count;
    }
    return sqrt(sum);
}

/* What gradients are multiplied by, from their length and the usual one. */
static double limit(nq_adam *a) {
    double most = a->opt.clip * a->usual;
    double by = a->opt.clip > 0 && a->usual > 0 && a->norm > most ? most / a->norm : 1;
    double length = a->norm * by;
    a->usual = a->usual > 0 ? USUAL * a->usual + (1 - USUAL) * length : length;
    return by;
}

static void step_param(nq_adam *a, nq_param *p, uint64_t at, double by, double rate) {
    double b1 = a->opt.beta1;
    double b2 = a->opt.beta2;
    float *m = a->moment[0] + at;
    float *v = a->moment[1] + at;
    const float *unit = a->unit + at;
    double full1 = 1 - pow(b1, (double)a->taken);
    double full2 = 1 - pow(b2, (double)a->taken);
    for (uint64_t e = 0; e < p->count; e++) {
        double g = (double)p->grad[e] * (double)unit[e] * by;
        m[e] = (float)(b1 * (double)m[e] + (1 - b1) * g);
        v[e] = (float)(b2 * (double)v[e] + (1 - b2) * g * g);
        double way = (double)m[e] / full1 / (sqrt((double)v[e] / full2) + EPSILON);
        p->value[e] = (float)((double)p->value[e] - rate * way * (double)unit[e]);
    }
}

bool nq_adam_step(nq_adam *a) {
    a->norm = nq_adam_norm(a);
    if (!isfinite(a->norm)) {
        return false;
    }
    double by = limit(a);
    double share = nq_adam_schedule(&a->opt, a->step) * a->share;
    uint64_t at = 0;
    a->step++;
    a->taken++;
    for (size_t i = 0; i < a->count; i++) {
        nq_param *p = &a->params[i];
        if (learnt(a, p)) {
            step_param(a, p, at, by, a->opt.rate[p->kind] * share);
        }
        at += p->count;
    }
    return true;
}

void nq_adam_gather(float *out, const nq_adam *a) {
    for (size_t i = 0; i < a->count; i++) {
        const nq_param *p = &a->params[i];
        memcpy(out, p->value, p->count * sizeof *out);
        out += p->count;
    }
}

void nq_adam_scatter(const nq_adam *a, const float *from) {
    for (size_t i = 0; i < a->count; i++) {
        const nq_param *p = &a->params[i];
        memcpy(p->value, from, p->count * sizeof *from);
        from += p->count;
    }
}

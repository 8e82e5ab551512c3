/* feedback.c - see feedback.h. Inside, everything lies column by column: (cols,
 * len) with the rows of the segment innermost, in coding order, so that feeding
 * an error forward is a sum of contiguous vectors. */
#include "quant/feedback.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

/* Columns within which errors are fed forward at once; beyond, in one product. */
#define SPAN 48
/* Bounds of one refit of a row's scale. */
#define FACTOR_MIN 0.5F
#define FACTOR_MAX 2.0F

typedef struct coder {
    const nq_feedback *f;
    nq_trellis *trellis;   /* (groups) */
    uint64_t row0, len, n; /* rows of the segment; columns */
    unsigned d;
    float *w;        /* (n, len) target; divided by the factors found so far */
    float *e;        /* (n, len) w - decoded */
    float *g;        /* (n, len) what is fed back: e r while coding first, then e h */
    float *p;        /* (n, len) w h; the fit of the scales needs it */
    float *x;        /* (len, d) chain */
    float *q;        /* (len, d) its reconstruction */
    float *ratio;    /* (len) */
    float *sums;     /* (2, len) */
    uint8_t *chain;  /* (fields, len) symbols */
    uint8_t *search; /* scratch of the path search */
} coder;

static uint64_t span_columns(unsigned d) { return d >= SPAN ? d : SPAN / d * d; }

static uint32_t groups(const nq_feedback *f) { return f->groups > 1 ? f->groups : 1; }

/* That of the columns at position k. */
static nq_trellis *trellis_at(const coder *c, uint64_t k) {
    const uint32_t *order = c->f->metric->order;
    uint64_t col = order != NULL ? order[k] : k;
    return c->trellis + (groups(c->f) > 1 ? col / c->f->group_cols : 0);
}

static uint64_t segment_rows(const nq_feedback *f) {
    return f->rows < f->segment_rows ? f->rows : f->segment_rows;
}

static uint64_t aligned(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

uint64_t nq_feedback_scratch(const nq_feedback *f) {
    uint64_t len = segment_rows(f);
    const nq_scheme *s = &f->trellis->scheme;
    uint64_t planes = aligned(f->metric->cols * len * sizeof(float));
    uint64_t chains = aligned(len * s->d * sizeof(float));
    return 4 * planes + 2 * chains + 3 * aligned(len * sizeof(float)) + aligned(len * s->fields) +
           aligned(nq_trellis_scratch(f->trellis, len));
}

static void *take(uint8_t **at, uint64_t bytes) {
    void *p = *at;
    *at += aligned(bytes);
    return p;
}

static void open_coder(coder *c, const nq_feedback *f, uint64_t segment, unsigned worker,
                       uint8_t *at) {
    uint64_t most = segment_rows(f);
    c->f = f;
    c->trellis = &f->trellis[(uint64_t)worker * groups(f)];
    c->row0 = segment * f->segment_rows;
    c->len = f->rows - c->row0 < most ? f->rows - c->row0 : most;
    c->n = f->metric->cols;
    c->d = c->trellis->scheme.d;
    uint64_t plane = c->n * most * sizeof(float);
    c->w = take(&at, plane);
    c->e = take(&at, plane);
    c->g = take(&at, plane);
    c->p = take(&at, plane);
    c->x = take(&at, most * c->d * sizeof(float));
    c->q = take(&at, most * c->d * sizeof(float));
    c->ratio = take(&at, most * sizeof(float));
    c->sums = take(&at, 2 * most * sizeof(float));
    c->chain = take(&at, most * c->trellis->scheme.fields);
    c->search = at;
    for (uint64_t k = 0; k < c->n; k++) {
        uint64_t col = f->metric->order != NULL ? f->metric->order[k] : k;
        for (uint64_t t = 0; t < c->len; t++) {
            c->w[k * c->len + t] = f->w[(c->row0 + t) * c->n + col];
        }
    }
    for (uint64_t t = 0; t < c->len; t++) {
        f->factor[c->row0 + t] = 1.0F;
    }
}

/* Weight of row t-1 over that of row t, errors in the weights' own units. */
static void fill_ratio(coder *c) {
    const float *weight = c->f->weight + c->row0;
    const float *factor = c->f->factor + c->row0;
    c->ratio[0] = 1.0F;
    for (uint64_t t = 1; t < c->len; t++) {
        float change = factor[t - 1] / factor[t];
        c->ratio[t] = weight[t - 1] / weight[t] * change * change;
    }
}

/* a (d, d) upper with aT a = the symmetric m (width, width) scaled to mean diagonal
 * 1; zero beyond width. */
static void metric_root(float *a, const double *m, unsigned width, unsigned d) {
    double trace = 0;
    for (unsigned i = 0; i < width; i++) {
        trace += m[i * width + i];
    }
    double scale = trace > 0 ? (double)width / trace : 1;
    memset(a, 0, (size_t)d * d * sizeof(float));
    for (unsigned i = 0; i < width; i++) {
        for (unsigned k = i; k < width; k++) {
            double s = m[i * width + k] * scale;
            for (unsigned l = 0; l < i; l++) {
                s -= (double)a[l * d + i] * (double)a[l * d + k];
            }
            if (k == i) {
                a[i * d + i] = (float)sqrt(s > 1e-6 ? s : 1e-6);
            } else {
                a[i * d + k] = (float)(s / (double)a[i * d + i]);
            }
        }
    }
}

/* The d x d block of r rT (first coding) or of h (sweeps) at position k. */
static void set_metric(coder *c, uint64_t k, unsigned width, bool first) {
    double m[NQ_MAX_D * NQ_MAX_D];
    float a[NQ_MAX_D * NQ_MAX_D];
    if (c->d == 1) {
        return; /* a scale changes no choice */
    }
    const float *src = (first ? c->f->metric->r : c->f->metric->h) + k * c->n + k;
    for (unsigned i = 0; i < width; i++) {
        for (unsigned j = 0; j < width; j++) {
            double s = (double)src[i * c->n + j];
            if (first) {
                s = 0;
                for (unsigned l = i > j ? i : j; l < width; l++) {
                    s += (double)src[i * c->n + l] * (double)src[j * c->n + l];
                }
            }
            m[i * width + j] = s;
        }
    }
    metric_root(a, m, width, c->d);
    nq_trellis_metric(trellis_at(c, k), a);
}

/* g[to] += coefficient * e[from], over the rows of the segment. */
static void add_scaled(float *to, const float *from, float coefficient, uint64_t len) {
    for (uint64_t t = 0; t < len; t++) {
        to[t] += coefficient * from[t];
    }
}

/* x = w + g r_JJ^-1 for the block at k: y r_JJ = g, forward substitution. */
static void first_target(coder *c, uint64_t k, unsigned width) {
    const float *r = c->f->metric->r + k * c->n + k;
    for (unsigned v = 0; v < width; v++) {
        float *g = c->g + (k + v) * c->len;
        for (unsigned u = 0; u < v; u++) { /* g of the columns before holds y already */
            add_scaled(g, c->g + (k + u) * c->len, -r[u * c->n + v], c->len);
        }
        float inverse = 1.0F / r[v * c->n + v];
        const float *w = c->w + (k + v) * c->len;
        for (uint64_t t = 0; t < c->len; t++) {
            g[t] *= inverse;
            c->x[t * c->d + v] = w[t] + g[t];
        }
    }
}

/* Inverse of the symmetric positive (width, width) block of h at k. */
static void invert_block(double *inverse, const coder *c, uint64_t k, unsigned width) {
    double a[NQ_MAX_D * NQ_MAX_D];
    const float *h = c->f->metric->h + k * c->n + k;
    for (unsigned i = 0; i < width; i++) {
        for (unsigned j = 0; j < width; j++) {
            a[i * width + j] = (double)h[i * c->n + j];
            inverse[i * width + j] = i == j ? 1 : 0;
        }
    }
    for (unsigned i = 0; i < width; i++) { /* Gauss-Jordan; damping keeps the pivots positive */
        double pivot = 1 / a[i * width + i];
        for (unsigned j = 0; j < width; j++) {
            a[i * width + j] *= pivot;
            inverse[i * width + j] *= pivot;
        }
        for (unsigned r = 0; r < width; r++) {
            double s = a[r * width + i];
            for (unsigned j = 0; r != i && j < width; j++) {
                a[r * width + j] -= s * a[i * width + j];
                inverse[r * width + j] -= s * inverse[i * width + j];
            }
        }
    }
}

/* x = w - e + g h_JJ^-1: the present reconstruction moved to where the errors of
 * all other blocks are best made good. */
static void sweep_target(coder *c, uint64_t k, unsigned width) {
    double inverse[NQ_MAX_D * NQ_MAX_D];
    invert_block(inverse, c, k, width);
    for (unsigned v = 0; v < width; v++) {
        const float *w = c->w + (k + v) * c->len;
        const float *e = c->e + (k + v) * c->len;
        for (uint64_t t = 0; t < c->len; t++) {
            float s = w[t] - e[t];
            for (unsigned u = 0; u < width; u++) {
                s += c->g[(k + u) * c->len + t] * (float)inverse[u * width + v];
            }
            c->x[t * c->d + v] = s;
        }
    }
}

/* Where the symbols of field `field` of the block at k lie, from the segment's first row. */
static uint8_t *symbols_at(const coder *c, uint64_t k, unsigned field) {
    unsigned fields = c->trellis->scheme.fields;
    const uint32_t *order = c->f->metric->order;
    uint64_t sub = (order != NULL ? order[k] : k) / c->d;
    return c->f->symbols + (c->row0 * fields + field) * c->f->stride + sub;
}

/* Codes x for the block at k; e becomes the new error and, when delta is not NULL,
 * delta (width, len) what it changed by. */
static void code_block(coder *c, uint64_t k, unsigned width, float *delta) {
    const nq_trellis *trellis = trellis_at(c, k);
    const nq_scheme *s = &trellis->scheme;
    for (unsigned v = width; v < c->d; v++) {
        for (uint64_t t = 0; t < c->len; t++) {
            c->x[t * c->d + v] = 0;
        }
    }
    nq_trellis_encode(c->chain, trellis, c->x, c->len, c->ratio, c->search);
    nq_trellis_decode(c->q, trellis, c->chain, c->len);
    for (unsigned v = 0; v < width; v++) {
        const float *w = c->w + (k + v) * c->len;
        float *e = c->e + (k + v) * c->len;
        for (uint64_t t = 0; t < c->len; t++) {
            float now = w[t] - c->q[t * c->d + v];
            if (delta != NULL) {
                delta[v * c->len + t] = now - e[t];
            }
            e[t] = now;
        }
    }
    for (unsigned field = 0; field < s->fields; field++) {
        uint8_t *dst = symbols_at(c, k, field);
        for (uint64_t t = 0; t < c->len; t++) {
            dst[t * s->fields * c->f->stride] = c->chain[field * c->len + t];
        }
    }
}

static unsigned width_at(const coder *c, uint64_t k) {
    return c->n - k < c->d ? (unsigned)(c->n - k) : c->d;
}

/* g[b..n) += m[a..b, b..n)T delta[a..b): what columns a to b did, to all that follow. */
static void feed_forward(coder *c, const float *m, const float *delta, uint64_t a, uint64_t b) {
    if (b < c->n) {
        int len = (int)c->len;
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)(c->n - b), len, (int)(b - a),
                    1.0F, m + a * c->n + b, (int)c->n, delta, len, 1.0F, c->g + b * c->len, len);
    }
}

static void first_pass(coder *c) {
    uint64_t span = span_columns(c->d);
    const float *r = c->f->metric->r;
    memset(c->g, 0, c->n * c->len * sizeof(float));
    for (uint64_t a = 0; a < c->n; a += span) {
        uint64_t b = a + span < c->n ? a + span : c->n;
        for (uint64_t k = a; k < b; k += c->d) {
            unsigned width = width_at(c, k);
            for (unsigned v = 0; c->f->feed && v < width; v++) {
                for (uint64_t from = a; from < k; from++) {
                    add_scaled(c->g + (k + v) * c->len, c->e + from * c->len,
                               r[from * c->n + k + v], c->len);
                }
            }
            first_target(c, k, width);
            set_metric(c, k, width, c->f->feed);
            code_block(c, k, width, NULL);
        }
        if (c->f->feed) {
            feed_forward(c, r, c->e + a * c->len, a, b);
        }
    }
}

/* e of the symbols that are there. */
static void take_present(coder *c) {
    unsigned fields = c->trellis->scheme.fields;
    for (uint64_t k = 0; k < c->n; k += c->d) {
        for (unsigned field = 0; field < fields; field++) {
            const uint8_t *src = symbols_at(c, k, field);
            for (uint64_t t = 0; t < c->len; t++) {
                c->chain[field * c->len + t] = src[t * fields * c->f->stride];
            }
        }
        nq_trellis_decode(c->q, trellis_at(c, k), c->chain, c->len);
        for (unsigned v = 0; v < width_at(c, k); v++) {
            uint64_t at = (k + v) * c->len;
            for (uint64_t t = 0; t < c->len; t++) {
                c->e[at + t] = c->w[at + t] - c->q[t * c->d + v];
            }
        }
    }
}

/* out = h in, both (n, len). */
static void times_h(coder *c, float *out, const float *in) {
    int n = (int)c->n;
    int len = (int)c->len;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, len, n, 1.0F, c->f->metric->h, n, in,
                len, 0.0F, out, len);
}

/* The factor a that makes |w - a q|_H least, row by row: <w, q> / <q, q>; what was
 * w becomes w / a, and e and g what then is left. */
static void fit_scales(coder *c) {
    float *wq = c->sums;
    float *qq = c->sums + c->len;
    memset(c->sums, 0, 2 * c->len * sizeof(float));
    for (uint64_t i = 0; i < c->n; i++) {
        for (uint64_t t = 0; t < c->len; t++) {
            uint64_t at = i * c->len + t;
            float q = c->w[at] - c->e[at];
            wq[t] += c->p[at] * q;
            qq[t] += (c->p[at] - c->g[at]) * q;
        }
    }
    for (uint64_t t = 0; t < c->len; t++) {
        float a = qq[t] > 0 && wq[t] > 0 ? wq[t] / qq[t] : 1.0F;
        a = a < FACTOR_MIN ? FACTOR_MIN : a > FACTOR_MAX ? FACTOR_MAX : a;
        c->f->factor[c->row0 + t] *= a;
        wq[t] = 1.0F / a;
    }
    for (uint64_t i = 0; i < c->n; i++) {
        for (uint64_t t = 0; t < c->len; t++) {
            uint64_t at = i * c->len + t;
            float q = c->w[at] - c->e[at];
            float hq = c->p[at] - c->g[at];
            c->w[at] *= wq[t];
            c->p[at] *= wq[t];
            c->e[at] = c->w[at] - q;
            c->g[at] = c->p[at] - hq;
        }
    }
}

/* Coordinate descent over the blocks; g = e h on entry. */
static void sweep(coder *c) {
    uint64_t span = span_columns(c->d);
    const float *h = c->f->metric->h;
    float *delta = c->p; /* free until the next fit, which makes it anew */
    fill_ratio(c);
    for (uint64_t a = 0; a < c->n; a += span) {
        uint64_t b = a + span < c->n ? a + span : c->n;
        for (uint64_t k = a; k < b; k += c->d) {
            unsigned width = width_at(c, k);
            float *change = delta + (k - a) * c->len;
            sweep_target(c, k, width);
            set_metric(c, k, width, false);
            code_block(c, k, width, change);
            for (uint64_t to = k + width; to < b; to++) {
                for (unsigned v = 0; v < width; v++) {
                    add_scaled(c->g + to * c->len, change + v * c->len, h[(k + v) * c->n + to],
                               c->len);
                }
            }
        }
        feed_forward(c, h, delta, a, b);
    }
}

/* What the outputs lose, and their size, as the row scales now stand. */
static void measure_output(const coder *c, double *output) {
    for (uint64_t t = 0; t < c->len; t++) {
        double error = 0;
        double size = 0;
        for (uint64_t i = 0; i < c->n; i++) {
            uint64_t at = i * c->len + t;
            error += (double)c->e[at] * (double)c->g[at];
            size += (double)c->w[at] * (double)c->p[at];
        }
        double factor = (double)c->f->factor[c->row0 + t];
        double weight = (double)c->f->weight[c->row0 + t] * factor * factor;
        output[0] += weight * error;
        output[1] += weight * size;
    }
}

void nq_feedback_segment(const nq_feedback *f, uint64_t segment, unsigned worker, void *scratch) {
    coder c;
    open_coder(&c, f, segment, worker, scratch);
    fill_ratio(&c);
    if (f->present) {
        take_present(&c);
    } else {
        first_pass(&c);
    }
    for (unsigned s = 0;; s++) {
        times_h(&c, c.g, c.e);
        times_h(&c, c.p, c.w);
        if (s == 0 && f->present && f->before != NULL) {
            measure_output(&c, f->before + segment * 2);
        }
        if (f->fit_scales) {
            fit_scales(&c);
        }
        if (s >= f->sweeps) {
            break;
        }
        sweep(&c);
    }
    measure_output(&c, f->output + segment * 2);
}

/* planner.c - see planner.h. */
#include "quant/planner.h"

#include <float.h>
#include <string.h>

#include "base/mem.h"
#include "quant/gaussian_table.h"
#include "quant/qmat.h"

typedef struct point {
    uint64_t bytes;
    double error; /* sensitivity included */
    size_t rung;
} point;

/* The rungs an item may stand on: its convex hull, cheapest first. */
typedef struct item_hull {
    point *points;
    size_t count;
    size_t at;
    bool stuck; /* its next rung does not fit the budget */
} item_hull;

uint64_t nq_plan_bytes(const nq_scheme *s, uint64_t rows, uint64_t cols, uint64_t extra) {
    uint64_t symbols = rows * nq_scheme_row_bytes(s, cols);
    if (s->kind != NQ_SCHEME_CODE && s->kind != NQ_SCHEME_Q8) {
        return symbols;
    }
    uint64_t codebook = s->kind == NQ_SCHEME_CODE ? nq_scheme_codebook_bytes(s) + 2 : 0;
    return symbols + codebook + rows * 2 + extra;
}

/* 4^-bits by plain arithmetic: exponents are multiples of 1/d. */
static double quarter_power(double bits) {
    double whole = 1;
    while (bits >= 1) {
        whole /= 4;
        bits -= 1;
    }
    /* 4^-f for f in [0,1): e^(-f ln 4) by its series. */
    double x = -bits * 1.3862943611198906;
    double term = 1;
    double sum = 1;
    for (int i = 1; i < 20; i++) {
        term *= x / i;
        sum += term;
    }
    return whole * sum;
}

double nq_plan_error(const nq_scheme *s) {
    char name[NQ_SCHEME_NAME];
    double mse;
    if (s->kind == NQ_SCHEME_CODE) {
        if (nq_gaussian_mse(&mse, nq_scheme_name(name, s))) {
            return mse;
        }
        /* Trained product codes of moderate dimension sit 25-60 % above the
         * rate-distortion bound (bench/ prints the table); one constant will do
         * for ordering schemes of one family. */
        double bits = 0;
        for (unsigned f = 0; f < s->fields; f++) {
            unsigned log = 0;
            while ((2U << log) <= s->k[f]) {
                log++;
            }
            bits += log + (double)(s->k[f] - (1U << log)) / (double)(1U << log);
        }
        return 1.5 * quarter_power(bits / s->d);
    }
    return s->kind == NQ_SCHEME_Q8 ? 7e-5 : s->kind == NQ_SCHEME_BF16 ? 1e-6 : 1e-8;
}

novaq_status nq_ladder_default(nq_scheme **out, size_t *count, novaq_error *err) {
    static const struct {
        unsigned k, d, levels;
    } sliding[] = {{4, 8, 1},  {8, 8, 1}, {16, 8, 1}, {8, 4, 3}, {16, 4, 3},
                   {16, 3, 3}, {8, 2, 3}, {16, 2, 3}, {8, 1, 3}, {16, 1, 3}};
    static const unsigned second[] = {2, 4, 8};
    size_t ns = sizeof sliding / sizeof sliding[0];
    size_t np = sizeof second / sizeof second[0];
    NQ_TRY(nq_alloc(out, ns + np + 1, sizeof **out, err));
    for (size_t i = 0; i < ns; i++) {
        (*out)[i] = nq_scheme_sliding(sliding[i].k, sliding[i].d, sliding[i].levels);
    }
    for (size_t i = 0; i < np; i++) {
        (*out)[ns + i] = nq_scheme_pq(16, second[i], 1);
    }
    (*out)[ns + np] = (nq_scheme){.kind = NQ_SCHEME_Q8, .d = 1};
    *count = ns + np + 1;
    return NOVAQ_OK;
}

novaq_status nq_ladder_paper(nq_scheme **out, size_t *count, unsigned k1, unsigned k2,
                             unsigned d_min, unsigned d_max, novaq_error *err) {
    *count = d_max - d_min + 1;
    NQ_TRY(nq_alloc(out, *count, sizeof **out, err));
    for (unsigned i = 0; i < *count; i++) {
        (*out)[i] = nq_scheme_pq(k1, k2, d_max - i);
    }
    return NOVAQ_OK;
}

/* Sorts by bytes, then error (insertion: ladders are short). */
static void sort_points(point *p, size_t n) {
    for (size_t i = 1; i < n; i++) {
        point x = p[i];
        size_t j = i;
        while (j > 0 && (p[j - 1].bytes > x.bytes ||
                         (p[j - 1].bytes == x.bytes && p[j - 1].error > x.error))) {
            p[j] = p[j - 1];
            j--;
        }
        p[j] = x;
    }
}

static double slope(const point *a, const point *b) {
    return (a->error - b->error) / (double)(b->bytes - a->bytes);
}

/* Keeps the lower convex hull of sorted points; returns how many remain. */
static size_t convex_hull(point *p, size_t n) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (kept > 0 && (p[i].bytes == p[kept - 1].bytes || p[i].error >= p[kept - 1].error)) {
            continue;
        }
        while (kept >= 2 && slope(&p[kept - 2], &p[kept - 1]) <= slope(&p[kept - 1], &p[i])) {
            kept--;
        }
        p[kept++] = p[i];
    }
    return kept;
}

static novaq_status build_hull(item_hull *h, const nq_plan_item *item, const nq_scheme *ladder,
                               size_t n, novaq_error *err) {
    NQ_TRY(nq_alloc(&h->points, n, sizeof *h->points, err));
    for (size_t r = 0; r < n; r++) {
        h->points[r] =
            (point){.bytes = nq_plan_bytes(&ladder[r], item->rows, item->cols, item->extra),
                    .error = item->sensitivity * nq_plan_error(&ladder[r]),
                    .rung = r};
    }
    sort_points(h->points, n);
    h->count = convex_hull(h->points, n);
    return NOVAQ_OK;
}

/* Climbs rung by rung, each time where an added byte helps most. */
static void climb(item_hull *hulls, size_t count, uint64_t total, uint64_t budget) {
    for (;;) {
        size_t best = count;
        double steepest = 0;
        for (size_t i = 0; i < count; i++) {
            item_hull *h = &hulls[i];
            if (h->stuck || h->at + 1 >= h->count) {
                continue;
            }
            double s = slope(&h->points[h->at], &h->points[h->at + 1]);
            if (s > steepest) {
                steepest = s;
                best = i;
            }
        }
        if (best == count) {
            return;
        }
        item_hull *h = &hulls[best];
        uint64_t more = h->points[h->at + 1].bytes - h->points[h->at].bytes;
        if (total + more > budget) {
            h->stuck = true;
        } else {
            total += more;
            h->at++;
        }
    }
}

novaq_status nq_plan_choose(nq_plan_item *items, size_t count, const nq_scheme *ladder,
                            size_t ladder_count, uint64_t budget, novaq_error *err) {
    item_hull *hulls = NULL;
    NQ_TRY(nq_alloc(&hulls, count, sizeof *hulls, err));
    uint64_t total = 0;
    novaq_status st = NOVAQ_OK;
    for (size_t i = 0; st == NOVAQ_OK && i < count; i++) {
        st = build_hull(&hulls[i], &items[i], ladder, ladder_count, err);
        total += st == NOVAQ_OK ? hulls[i].points[0].bytes : 0;
    }
    if (st == NOVAQ_OK) {
        climb(hulls, count, total, budget);
    }
    for (size_t i = 0; i < count; i++) {
        if (st == NOVAQ_OK) {
            const point *p = &hulls[i].points[hulls[i].at];
            items[i].scheme = ladder[p->rung];
            items[i].bytes = p->bytes;
            items[i].error = nq_plan_error(&ladder[p->rung]);
        }
        nq_free(hulls[i].points);
    }
    nq_free(hulls);
    return st;
}

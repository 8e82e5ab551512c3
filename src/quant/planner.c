/* planner.c - see planner.h. */
#include "quant/planner.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/mem.h"
#include "quant/gaussian_table.h"
#include "quant/qmat.h"

typedef struct point {
    uint64_t bytes;
    double error; /* sensitivity included */
    size_t rung;
} point;

/* The rungs an item may stand on, cheapest first, and where it stands. */
typedef struct item_rungs {
    point *points; /* each dearer than the one before, and better */
    size_t count;
    size_t at;
} item_rungs;

/* One edge of an item's convex hull. */
typedef struct hull_step {
    double slope;  /* error saved per byte */
    uint64_t more; /* bytes */
    size_t item;
    size_t to; /* index among the item's points */
} hull_step;

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

double nq_plan_damage(const nq_scheme *s) {
    double e = nq_plan_error(s);
    e = e < 0.99 ? e : 0.99;
    return e / (1 - e);
}

novaq_status nq_ladder_default(nq_scheme **out, size_t *count, novaq_error *err) {
    static const struct {
        unsigned k, d, levels;
    } sliding[] = {{4, 8, 1},  {8, 8, 1}, {16, 8, 1}, {8, 4, 2}, {16, 4, 3},
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

/* Of sorted points keeps those that nothing at most as dear equals or betters. */
static size_t drop_dominated(point *p, size_t n) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (kept == 0 || p[i].error < p[kept - 1].error) {
            p[kept++] = p[i];
        }
    }
    return kept;
}

/* Indices of the lower convex hull of undominated points; returns how many. */
static size_t convex_hull(size_t *hull, const point *p, size_t n) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        while (kept >= 2 &&
               slope(&p[hull[kept - 2]], &p[hull[kept - 1]]) <= slope(&p[hull[kept - 1]], &p[i])) {
            kept--;
        }
        hull[kept++] = i;
    }
    return kept;
}

static novaq_status find_rungs(item_rungs *r, const nq_plan_item *item, const nq_scheme *ladder,
                               size_t n, novaq_error *err) {
    NQ_TRY(nq_alloc(&r->points, n, sizeof *r->points, err));
    for (size_t i = 0; i < n; i++) {
        r->points[i] =
            (point){.bytes = nq_plan_bytes(&ladder[i], item->rows, item->cols, item->extra),
                    .error = item->sensitivity * nq_plan_damage(&ladder[i]),
                    .rung = i};
    }
    sort_points(r->points, n);
    r->count = drop_dominated(r->points, n);
    return NOVAQ_OK;
}

/* Steepest first; ties in the order of the items, so that plans are reproducible. */
static int compare_steps(const void *a, const void *b) {
    const hull_step *x = a;
    const hull_step *y = b;
    if (x->slope != y->slope) {
        return x->slope > y->slope ? -1 : 1;
    }
    if (x->item != y->item) {
        return x->item < y->item ? -1 : 1;
    }
    return x->to < y->to ? -1 : 1;
}

/* All hull edges of all items, steepest first: an item's own edges flatten as it
 * climbs, so they stay in their order. */
static novaq_status list_steps(hull_step **out, size_t *count, const item_rungs *rungs, size_t n,
                               size_t most, novaq_error *err) {
    size_t *hull = NULL;
    *count = 0;
    NQ_TRY(nq_alloc(&hull, most, sizeof *hull, err));
    novaq_status st = nq_alloc(out, n * most + 1, sizeof **out, err);
    for (size_t i = 0; st == NOVAQ_OK && i < n; i++) {
        const point *p = rungs[i].points;
        size_t corners = convex_hull(hull, p, rungs[i].count);
        for (size_t k = 1; k < corners; k++) {
            const point *from = &p[hull[k - 1]];
            const point *to = &p[hull[k]];
            (*out)[(*count)++] = (hull_step){.slope = slope(from, to),
                                             .more = to->bytes - from->bytes,
                                             .item = i,
                                             .to = hull[k]};
        }
    }
    nq_free(hull);
    if (st == NOVAQ_OK) {
        qsort(*out, *count, sizeof **out, compare_steps);
    }
    return st;
}

/* Along the edges until one does not fit: so far the choice is the best for the
 * bytes it takes. Returns the bytes left over. */
static uint64_t climb(item_rungs *rungs, const hull_step *steps, size_t count, uint64_t left) {
    for (size_t i = 0; i < count && steps[i].more <= left; i++) {
        rungs[steps[i].item].at = steps[i].to;
        left -= steps[i].more;
    }
    return left;
}

/* The upgrade of an item that saves most per byte among those that fit, hull or
 * not; its own place if none does. */
static size_t best_upgrade(const item_rungs *r, uint64_t left) {
    size_t best = r->at;
    double steepest = 0;
    for (size_t k = r->at + 1; k < r->count; k++) {
        double s = slope(&r->points[r->at], &r->points[k]);
        if (r->points[k].bytes - r->points[r->at].bytes <= left && s > steepest) {
            steepest = s;
            best = k;
        }
    }
    return best;
}

/* What the climb left over goes to whatever still fits. upgrade: n indices, each
 * item's best one, looked for again only when it moved or ceased to fit. */
static void fill_up(item_rungs *rungs, size_t *upgrade, size_t n, uint64_t left) {
    for (size_t i = 0; i < n; i++) {
        upgrade[i] = best_upgrade(&rungs[i], left);
    }
    for (;;) {
        size_t best = n;
        double steepest = 0;
        for (size_t i = 0; i < n; i++) {
            const item_rungs *r = &rungs[i];
            if (r->points[upgrade[i]].bytes - r->points[r->at].bytes > left) {
                upgrade[i] = best_upgrade(r, left);
            }
            if (upgrade[i] != r->at) {
                double s = slope(&r->points[r->at], &r->points[upgrade[i]]);
                best = s > steepest ? i : best;
                steepest = s > steepest ? s : steepest;
            }
        }
        if (best == n) {
            return;
        }
        item_rungs *r = &rungs[best];
        left -= r->points[upgrade[best]].bytes - r->points[r->at].bytes;
        r->at = upgrade[best];
        upgrade[best] = best_upgrade(r, left);
    }
}

static novaq_status spend(item_rungs *rungs, size_t n, size_t most, uint64_t left,
                          novaq_error *err) {
    hull_step *steps = NULL;
    size_t *upgrade = NULL;
    size_t count = 0;
    NQ_TRY(nq_alloc(&upgrade, n + 1, sizeof *upgrade, err));
    novaq_status st = list_steps(&steps, &count, rungs, n, most, err);
    if (st == NOVAQ_OK) {
        fill_up(rungs, upgrade, n, climb(rungs, steps, count, left));
    }
    nq_free(steps);
    nq_free(upgrade);
    return st;
}

novaq_status nq_plan_choose(nq_plan_item *items, size_t count, const nq_scheme *ladder,
                            size_t ladder_count, uint64_t budget, novaq_error *err) {
    item_rungs *rungs = NULL;
    NQ_TRY(nq_alloc(&rungs, count + 1, sizeof *rungs, err));
    uint64_t least = 0;
    novaq_status st = NOVAQ_OK;
    for (size_t i = 0; st == NOVAQ_OK && i < count; i++) {
        st = find_rungs(&rungs[i], &items[i], ladder, ladder_count, err);
        least += st == NOVAQ_OK ? rungs[i].points[0].bytes : 0;
    }
    if (st == NOVAQ_OK && least < budget) {
        st = spend(rungs, count, ladder_count, budget - least, err);
    }
    for (size_t i = 0; i < count; i++) {
        if (st == NOVAQ_OK) {
            const point *p = &rungs[i].points[rungs[i].at];
            items[i].scheme = ladder[p->rung];
            items[i].bytes = p->bytes;
            items[i].error = nq_plan_error(&ladder[p->rung]);
        }
        nq_free(rungs[i].points);
    }
    nq_free(rungs);
    return st;
}

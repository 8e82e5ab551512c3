/* bench_codec.c - the codec's error on unit Gaussian data, scheme by scheme.
 *
 * Owns: novaq_bench_codec(), the table of DESIGN 2.2 measured on fresh data (a
 * seed that no training used). Refuses: timing.
 */
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"
#include "eval/bench.h"
#include "quant/codebook.h"
#include "quant/planner.h"
#include "quant/trellis.h"

#define ROWS      256
#define TEST_SEED 3

static const char default_schemes[] =
    "pq16x16d4,k16d2l1,k16d2l2,k16d2l3,pq256x256d8,pq16x4d4,k8d2l2,k8d2l3,k16d4l1,k16d4l2,"
    "k16d4l3,k8d1l2,k8d1l3,k16d1l1,k16d1l2,k16d1l3,pq16x8d4,q8";

typedef struct measurement {
    nq_scheme scheme;
    double mse;
    novaq_status status;
    novaq_error err;
} measurement;

/* q8 on rows of unit Gaussian data: step = peak / 127 per row. */
static double q8_error(const float *x, uint64_t n) {
    double sq = 0;
    for (uint64_t row = 0; row + ROWS <= n; row += ROWS) {
        double peak = 0;
        for (uint64_t i = 0; i < ROWS; i++) {
            double a = x[row + i] < 0 ? -(double)x[row + i] : (double)x[row + i];
            peak = a > peak ? a : peak;
        }
        double step = peak / 127;
        for (uint64_t i = 0; i < ROWS; i++) {
            double v = (double)x[row + i];
            double q = step * (double)(int)(v / step + (v < 0 ? -0.5 : 0.5));
            sq += (v - q) * (v - q);
        }
    }
    return sq / (double)n;
}

static novaq_status measure(measurement *m) {
    char name[NQ_SCHEME_NAME];
    uint64_t chains = m->scheme.fields == 2 && m->scheme.k[0] * m->scheme.k[1] > 4096 ? 64 : 512;
    uint64_t n = chains * ROWS * m->scheme.d;
    float *x = NULL;
    NQ_TRY(nq_alloc(&x, n, sizeof(float), &m->err));
    nq_gaussian_fill(x, n, TEST_SEED, nq_stream(nq_scheme_name(name, &m->scheme)));
    novaq_status st = NOVAQ_OK;
    if (m->scheme.kind == NQ_SCHEME_Q8) {
        m->mse = q8_error(x, n);
    } else {
        nq_codebook cb = {0};
        nq_chains c = {.x = x, .count = chains, .len = ROWS};
        st = nq_codebook_gaussian(&cb, &m->scheme, &m->err);
        if (st == NOVAQ_OK) {
            st = nq_codebook_mse(&m->mse, &cb, &c, &m->err);
        }
        nq_codebook_close(&cb);
    }
    nq_free(x);
    return st;
}

static novaq_status has_error(const nq_scheme *s, novaq_error *err) {
    char name[NQ_SCHEME_NAME];
    return s->kind == NQ_SCHEME_CODE || s->kind == NQ_SCHEME_Q8
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_ARG, "scheme '%s' has no coding error to measure",
                         nq_scheme_name(name, s));
}

static void measure_task(void *ctx, uint64_t task, unsigned worker) {
    (void)worker;
    measurement *m = (measurement *)ctx + task;
    m->status = measure(m);
}

novaq_status nq_bench_schemes(nq_scheme *out, size_t *count, const char *list, const char *stored,
                              novaq_error *err) {
    *count = 0;
    while (*list != '\0') {
        size_t len = strcspn(list, ",");
        char name[NQ_SCHEME_NAME];
        if (len >= sizeof name || *count == NQ_BENCH_SCHEMES) {
            return nq_fail(err, NOVAQ_E_ARG, "scheme list: at most %d names of %d characters",
                           NQ_BENCH_SCHEMES, NQ_SCHEME_NAME - 1);
        }
        memcpy(name, list, len);
        name[len] = '\0';
        nq_scheme *s = &out[*count];
        if (stored != NULL && strcmp(name, stored) == 0) {
            *s = (nq_scheme){.kind = NQ_SCHEME_RAW, .d = 1};
        } else {
            NQ_TRY(nq_scheme_parse(s, name, err));
            if (s->kind == NQ_SCHEME_RAW) {
                return nq_fail(err, NOVAQ_E_ARG, "scheme '%s' is any bytes; none to measure", name);
            }
        }
        (*count)++;
        list += len + (list[len] == ',');
    }
    return NOVAQ_OK;
}

static novaq_status report_table(char **report, const measurement *m, size_t count,
                                 novaq_error *err) {
    json_t *rows = json_array();
    for (size_t i = 0; i < count; i++) {
        char name[NQ_SCHEME_NAME];
        double bits = nq_scheme_bits(&m[i].scheme);
        double bound = pow(4, -bits);
        json_array_append_new(rows, json_pack("{s:s, s:f, s:f, s:f}", "scheme",
                                              nq_scheme_name(name, &m[i].scheme), "bits", bits,
                                              "mse", m[i].mse, "rate_distortion_bound", bound));
    }
    json_t *out = json_pack("{s:s, s:o}", "data", "unit Gaussian", "schemes", rows);
    novaq_status st = out != NULL ? nq_json_dump(report, out, 2, err)
                                  : nq_fail(err, NOVAQ_E_MEMORY, "cannot build the table");
    json_decref(out);
    return st;
}

novaq_status novaq_bench_codec(char **report, const char *schemes, unsigned threads,
                               novaq_error *err) {
    *report = NULL;
    measurement *m = NULL;
    nq_pool *pool = NULL;
    size_t count = 0;
    nq_scheme list[NQ_BENCH_SCHEMES];
    NQ_TRY(nq_bench_schemes(list, &count, schemes != NULL ? schemes : default_schemes, NULL, err));
    NQ_TRY(nq_alloc(&m, NQ_BENCH_SCHEMES, sizeof *m, err));
    novaq_status st = NOVAQ_OK;
    for (size_t i = 0; st == NOVAQ_OK && i < count; i++) {
        m[i].scheme = list[i];
        st = has_error(&list[i], err);
    }
    if (st == NOVAQ_OK) {
        st = nq_pool_open(&pool, threads, err);
    }
    if (st == NOVAQ_OK) {
        nq_pool_run(pool, measure_task, m, count);
        for (size_t i = 0; st == NOVAQ_OK && i < count; i++) {
            if (m[i].status != NOVAQ_OK) {
                st = nq_fail(err, m[i].status, "%s", m[i].err.msg);
            }
        }
    }
    if (st == NOVAQ_OK) {
        st = report_table(report, m, count, err);
    }
    nq_pool_close(&pool);
    nq_free(m);
    return st;
}

/* bench_encoder.c - how fast symbols are chosen.
 *
 * Owns: novaq_bench_encoder(): weights per second and core of each scheme with each
 * kernel variant this machine can run, on unit Gaussian data. Processor time counts,
 * variants take turns and the best of several rounds wins, so that other programs
 * disturb little. Refuses: training codebooks of its own, comparing machines.
 */
#include <string.h>
#include <time.h>

#include "base/cpu.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"
#include "eval/bench.h"
#include "quant/codebook.h"
#include "quant/trellis.h"

#define LEN       256 /* rows of a chain: a segment's default */
#define CHAINS    32
#define ROUNDS    7
#define DATA_SEED 4

static const char default_schemes[] = "k16d2l2,k16d2l3,k8d2l3,k16d1l2,k16d1l3,k8d1l3";

/* One scheme being timed; every worker codes all chains into its own symbols. */
typedef struct bench_job {
    nq_trellis trellis;
    const nq_kern *kern;
    float *x; /* (CHAINS, LEN, d) */
    const float *rows[CHAINS];
    uint8_t *symbols; /* (threads, CHAINS, fields, LEN) */
    uint8_t *scratch; /* (threads, scratch_bytes) */
    uint64_t scratch_bytes;
    double *seconds; /* (threads) processor time of the last round */
} bench_job;

static unsigned variants(const nq_kern *out[NQ_CPU_LEVELS]) {
    unsigned levels[NQ_CPU_LEVELS];
    unsigned have = nq_cpu_levels(levels);
    unsigned n = 0;
    for (unsigned i = 0; i < have; i++) {
        const nq_kern *kern = nq_kern_for(levels[i]);
        if (n == 0 || out[n - 1] != kern) { /* a level may add nothing here */
            out[n++] = kern;
        }
    }
    return n;
}

static uint64_t symbol_bytes(const bench_job *j) {
    return (uint64_t)CHAINS * LEN * j->trellis.scheme.fields;
}

static double seconds_used(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void code_all(void *ctx, uint64_t task, unsigned worker) {
    (void)worker;
    bench_job *j = ctx;
    uint8_t *symbols[CHAINS];
    double start = seconds_used();
    for (unsigned c = 0; c < CHAINS; c++) {
        symbols[c] =
            j->symbols + task * symbol_bytes(j) + (uint64_t)c * LEN * j->trellis.scheme.fields;
    }
    nq_trellis_encode_with(j->kern, symbols, &j->trellis, j->rows, LEN, NULL, CHAINS,
                           j->scratch + task * j->scratch_bytes);
    j->seconds[task] = seconds_used() - start;
}

static void job_close(bench_job *j) {
    nq_trellis_close(&j->trellis);
    nq_free(j->x);
    nq_free(j->symbols);
    nq_free(j->scratch);
    nq_free(j->seconds);
}

static novaq_status job_open(bench_job *j, const nq_scheme *s, unsigned threads, novaq_error *err) {
    nq_codebook cb = {0};
    char name[NQ_SCHEME_NAME];
    uint64_t n = (uint64_t)CHAINS * LEN * s->d;
    *j = (bench_job){0};
    NQ_TRY(nq_codebook_gaussian(&cb, s, err));
    novaq_status st = nq_trellis_open(&j->trellis, s, cb.values, err);
    nq_codebook_close(&cb);
    if (st == NOVAQ_OK) {
        j->scratch_bytes = nq_trellis_scratch(&j->trellis, LEN);
        st = nq_alloc(&j->x, n, sizeof(float), err);
    }
    st = st != NOVAQ_OK ? st : nq_alloc(&j->symbols, threads, symbol_bytes(j), err);
    st = st != NOVAQ_OK ? st : nq_alloc(&j->scratch, threads, j->scratch_bytes, err);
    st = st != NOVAQ_OK ? st : nq_alloc(&j->seconds, threads, sizeof(double), err);
    if (st != NOVAQ_OK) {
        job_close(j);
        return st;
    }
    nq_gaussian_fill(j->x, n, DATA_SEED, nq_stream(nq_scheme_name(name, s)));
    for (unsigned c = 0; c < CHAINS; c++) {
        j->rows[c] = j->x + (uint64_t)c * LEN * s->d;
    }
    return NOVAQ_OK;
}

/* Mean squared error per weight of what worker 0 coded. */
static novaq_status coded_mse(double *mse, const bench_job *j, novaq_error *err) {
    const nq_scheme *s = &j->trellis.scheme;
    uint64_t n = (uint64_t)LEN * s->d;
    float *out = NULL;
    double sum = 0;
    NQ_TRY(nq_alloc(&out, n, sizeof(float), err));
    for (unsigned c = 0; c < CHAINS; c++) {
        nq_trellis_decode(out, &j->trellis, j->symbols + (uint64_t)c * LEN * s->fields, LEN);
        for (uint64_t i = 0; i < n; i++) {
            double e = (double)j->rows[c][i] - (double)out[i];
            sum += e * e;
        }
    }
    nq_free(out);
    *mse = sum / (double)(CHAINS * n);
    return NOVAQ_OK;
}

/* best (variants): least seconds of coding everything once, mean of the workers. */
static void time_variants(double *best, bench_job *j, const nq_kern *const *kerns, unsigned n,
                          nq_pool *pool) {
    unsigned threads = nq_pool_threads(pool);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < n; i++) {
            double sum = 0;
            j->kern = kerns[i];
            nq_pool_run(pool, code_all, j, threads);
            for (unsigned t = 0; t < threads; t++) {
                sum += j->seconds[t];
            }
            best[i] = round == 0 || sum / threads < best[i] ? sum / threads : best[i];
        }
    }
}

static novaq_status measure_scheme(json_t *rows, const nq_scheme *s, nq_pool *pool,
                                   novaq_error *err) {
    const nq_kern *kerns[NQ_CPU_LEVELS];
    double best[NQ_CPU_LEVELS];
    unsigned n = variants(kerns);
    bench_job j;
    double mse = 0;
    char name[NQ_SCHEME_NAME];
    if (s->kind != NQ_SCHEME_CODE) {
        return nq_fail(err, NOVAQ_E_ARG, "scheme '%s' has no symbols to choose",
                       nq_scheme_name(name, s));
    }
    NQ_TRY(job_open(&j, s, nq_pool_threads(pool), err));
    time_variants(best, &j, kerns, n, pool);
    novaq_status st = coded_mse(&mse, &j, err);
    for (unsigned i = 0; i < n; i++) {
        double weights = (double)CHAINS * LEN * s->d;
        json_array_append_new(rows,
                              json_pack("{s:s, s:s, s:f, s:f}", "scheme", nq_scheme_name(name, s),
                                        "kernel", kerns[i]->name, "weights_per_second_per_core",
                                        weights / best[i], "mse", mse));
    }
    job_close(&j);
    return st;
}

novaq_status novaq_bench_encoder(char **report, const char *schemes, unsigned threads,
                                 novaq_error *err) {
    *report = NULL;
    nq_scheme list[NQ_BENCH_SCHEMES];
    size_t count = 0;
    nq_pool *pool = NULL;
    NQ_TRY(nq_bench_schemes(list, &count, schemes != NULL ? schemes : default_schemes, NULL, err));
    NQ_TRY(nq_pool_open(&pool, threads, err));
    json_t *rows = json_array();
    novaq_status st = NOVAQ_OK;
    for (size_t i = 0; st == NOVAQ_OK && i < count; i++) {
        st = measure_scheme(rows, &list[i], pool, err);
    }
    json_t *out = json_pack("{s:s, s:i, s:i, s:o}", "data", "unit Gaussian", "rows", LEN, "threads",
                            (int)nq_pool_threads(pool), "schemes", rows);
    if (st == NOVAQ_OK) {
        st = out != NULL ? nq_json_dump(report, out, 2, err)
                         : nq_fail(err, NOVAQ_E_MEMORY, "cannot build the table");
    }
    json_decref(out);
    nq_pool_close(&pool);
    return st;
}

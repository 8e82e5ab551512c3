/* bench_kernels.c - how fast weights are multiplied.
 *
 * Owns: novaq_bench_kernels(): for each scheme, shape and kernel variant this machine
 * can run, weights per second of y = W x with one x, from memory (more weights than
 * any cache holds) on all threads beside the speed at which the same memory can be
 * read at all (which takes its turns, too), and from cache. Codes and q8 are multiplied as
 * integers, plain weights and GGUF's Q8_0 as floats, as model/linear.c has them. Variants take
 * turns, the best of several rounds wins. Refuses: whole models, see bench_run.c.
 */
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/half.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"
#include "eval/bench.h"
#include "kern/kern.h"
#include "quant/codebook.h"
#include "quant/fast.h"

#define MEMORY_BYTES  ((uint64_t)256 << 20) /* of weights, read from memory */
#define CACHE_BYTES   ((uint64_t)192 << 10) /* of each thread, read from its cache */
#define CACHE_TURNS   64
#define ROW_BYTES_MIN 64
#define TILE_BYTES    ((uint64_t)64 << 10)
#define ROUNDS        5
#define LANES         8

/* How Q8_0 is asked for; in here its scheme is raw, as it is in an artifact. */
static const char q8_0[] = "q8_0";
static const char default_schemes[] =
    "k16d4l1,k8d2l2,k8d2l3,k16d2l1,k16d2l2,k16d2l3,k8d1l2,k16d1l2,k16d1l3,pq16x16d4,q8,"
    "q8_0,bf16,f16,f32";
static const uint64_t shape_cols[] = {2048, 4096, 11008};

/* What multiplies. */
typedef struct variant {
    const char *name;
    const nq_gemv_kern *gemv;
    const nq_kern *floats; /* for f32 */
} variant;

/* One matrix being timed. */
typedef struct work {
    variant v;
    nq_qmat q;
    uint64_t row_bytes; /* of weights */
    const nq_fast *f;   /* NULL for plain weights */
    nq_fast_input in;   /* of f */
    float *x;           /* (cols) of plain weights */
    float *y;           /* (rows) */
    uint8_t *scratch;   /* (threads, scratch_bytes) */
    uint64_t scratch_bytes;
    uint64_t tile_rows; /* of one task */
    uint64_t rows;      /* of the pass at work */
    uint64_t turns;     /* times a task is done again, from cache */
} work;

/* What all of them share. */
typedef struct bench {
    nq_pool *pool;
    uint8_t *symbols;    /* (MEMORY_BYTES) random, or plain weights */
    nq_scheme_kind fill; /* what they are good for */
    uint16_t *row_scale; /* (most rows) ones */
    uint64_t *sums;      /* (threads) what reading gave, so that it is done */
    json_t *rows;
    double read_speed; /* bytes per second, all threads */
    double share_2bit; /* of the 4096 x 4096 shape, two levels, best variant */
} bench;

static unsigned variants(variant out[NQ_CPU_LEVELS], nq_scheme_kind kind) {
    unsigned levels[NQ_CPU_LEVELS];
    unsigned have = nq_cpu_levels(levels);
    unsigned first = have > 1 ? 1 : 0; /* the reference only where there is nothing else */
    unsigned n = 0;
    for (unsigned i = first; i < have; i++) {
        variant v = {NULL, nq_gemv_for(levels[i]), nq_kern_for(levels[i])};
        v.name = kind == NQ_SCHEME_F32 ? v.floats->name : v.gemv->name;
        if (n == 0 || strcmp(v.name, out[n - 1].name) != 0) {
            out[n++] = v; /* float32 has fewer variants than the CPU has levels */
        }
    }
    return n;
}

static bool is_plain(nq_scheme_kind kind) { return kind != NQ_SCHEME_CODE && kind != NQ_SCHEME_Q8; }

static uint64_t bytes_of_row(const nq_scheme *s, uint64_t cols) {
    return s->kind == NQ_SCHEME_RAW ? cols / NQ_Q8_0_WEIGHTS * NQ_Q8_0_BYTES
                                    : nq_scheme_row_bytes(s, cols);
}

static const char *name_of(char buf[NQ_SCHEME_NAME], const nq_scheme *s) {
    return s->kind == NQ_SCHEME_RAW ? q8_0 : nq_scheme_name(buf, s);
}

/* ---- reading --------------------------------------------------------------- */

/* Sums of one tile; what is read next is asked for in one go, as that is the fastest
 * way to read that was found (plain loops get 10 to 40 % less). */
static void read_task(void *ctx, uint64_t task, unsigned worker) {
    const bench *b = ctx;
    const uint8_t *p = b->symbols + task * TILE_BYTES;
    uint64_t lane[LANES] = {0};
    for (uint64_t at = 0; at < TILE_BYTES; at += 4096) {
        for (uint64_t i = 0; i < 4096; i += 64) {
            __builtin_prefetch(p + at + 4096 + i);
        }
        for (uint64_t i = 0; i < 4096; i += 64) {
            uint64_t v[LANES];
            memcpy(v, p + at + i, sizeof v);
            for (unsigned l = 0; l < LANES; l++) {
                lane[l] ^= v[l];
            }
        }
    }
    for (unsigned l = 0; l < LANES; l++) {
        b->sums[(size_t)worker * LANES] ^= lane[l];
    }
}

static void measure_reading(bench *b) {
    double start = nq_seconds();
    nq_pool_run(b->pool, read_task, b, MEMORY_BYTES / TILE_BYTES);
    double speed = (double)MEMORY_BYTES / (nq_seconds() - start);
    b->read_speed = speed > b->read_speed ? speed : b->read_speed;
}

/* ---- products ---------------------------------------------------------------- */

static float plain_dot(const work *w, const uint8_t *row) {
    const void *p = row;
    switch (w->q.scheme.kind) {
    case NQ_SCHEME_F32: return w->v.floats->dot_f32(p, w->x, w->q.cols);
    case NQ_SCHEME_F16: return w->v.gemv->dot_f16(p, w->x, w->q.cols);
    case NQ_SCHEME_BF16: return w->v.gemv->dot_bf16(p, w->x, w->q.cols);
    case NQ_SCHEME_CODE:
    case NQ_SCHEME_Q8:
    case NQ_SCHEME_RAW: break;
    }
    return w->v.gemv->dot_q8_0(p, w->x, w->q.cols);
}

/* y of count rows, once. */
static void product(const work *w, uint64_t row0, uint64_t count, unsigned worker) {
    if (w->f != NULL) {
        nq_fast_apply(w->y + row0, w->q.rows, w->f, row0, count, &w->in, 1,
                      w->scratch + worker * w->scratch_bytes);
        return;
    }
    for (uint64_t r = row0; r < row0 + count; r++) {
        w->y[r] = plain_dot(w, w->q.symbols + r * w->row_bytes);
    }
}

static void product_task(void *ctx, uint64_t task, unsigned worker) {
    const work *w = ctx;
    uint64_t row0 = task * w->tile_rows;
    uint64_t count = w->rows - row0 < w->tile_rows ? w->rows - row0 : w->tile_rows;
    for (uint64_t i = 0; i < w->turns; i++) {
        product(w, row0, count, worker);
    }
}

/* Weights per second of one pass. */
static double pass(work *w, nq_pool *pool, uint64_t rows, uint64_t turns) {
    w->rows = rows;
    w->turns = turns;
    double start = nq_seconds();
    nq_pool_run(pool, product_task, w, (rows + w->tile_rows - 1) / w->tile_rows);
    return (double)rows * (double)w->q.cols * (double)turns / (nq_seconds() - start);
}

static void close_work(work *w) {
    nq_free(w->in.x);
    nq_free(w->in.scale);
    nq_free(w->in.sum);
    nq_free(w->in.total);
    nq_free(w->x);
    nq_free(w->y);
    nq_free(w->scratch);
}

static novaq_status make_input(work *w, novaq_error *err) {
    uint64_t cols = w->q.cols;
    float *x = NULL;
    float *temp = NULL;
    NQ_TRY(nq_alloc(&w->in.x, nq_fast_row_bytes(w->f), 1, err));
    NQ_TRY(nq_alloc(&w->in.scale, 1, sizeof(float), err));
    NQ_TRY(nq_alloc(&w->in.sum, 1, sizeof(int32_t), err));
    NQ_TRY(nq_alloc(&w->in.total, 1, sizeof(float), err));
    NQ_TRY(nq_alloc(&x, cols, sizeof(float), err));
    novaq_status st = nq_alloc(&temp, 2 * nq_fast_row_bytes(w->f), sizeof(float), err);
    if (st == NOVAQ_OK) {
        nq_gaussian_fill(x, cols, 1, nq_stream("bench kernels"));
        nq_fast_prepare(&w->in, 0, w->f, x, temp);
    }
    nq_free(x);
    nq_free(temp);
    return st;
}

/* set stays NULL for plain weights. */
static novaq_status open_work(work *w, nq_fast_set **set, const bench *b, const variant *v,
                              const nq_qmat *q, novaq_error *err) {
    *w = (work){.v = *v, .q = *q, .row_bytes = bytes_of_row(&q->scheme, q->cols)};
    w->tile_rows = TILE_BYTES / w->row_bytes / 8 * 8;
    w->tile_rows = w->tile_rows < 8 ? 8 : w->tile_rows;
    NQ_TRY(nq_alloc(&w->y, q->rows, sizeof(float), err));
    if (is_plain(q->scheme.kind)) {
        NQ_TRY(nq_alloc(&w->x, q->cols, sizeof(float), err));
        nq_gaussian_fill(w->x, q->cols, 1, nq_stream("bench kernels"));
        return NOVAQ_OK;
    }
    NQ_TRY(nq_fast_set_open(set, v->gemv, err));
    NQ_TRY(nq_fast_add(&w->f, *set, &w->q, err));
    if (w->f == NULL) {
        char buf[NQ_SCHEME_NAME];
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "scheme '%s' is not multiplied as integers",
                       name_of(buf, &q->scheme));
    }
    w->scratch_bytes = (nq_fast_scratch(w->f, w->tile_rows, 1) + 127) / 64 * 64;
    NQ_TRY(make_input(w, err));
    return nq_alloc(&w->scratch, nq_pool_threads(b->pool), w->scratch_bytes, err);
}

static novaq_status add_row(bench *b, const work *w, double memory, double cache,
                            novaq_error *err) {
    char buf[NQ_SCHEME_NAME];
    const nq_qmat *q = &w->q;
    const char *name = name_of(buf, &q->scheme);
    double bytes = (double)w->row_bytes / (double)q->cols;
    json_t *row = json_pack("{s:s, s:s, s:I, s:I, s:f, s:f, s:f}", "scheme", name, "kernel",
                            w->v.name, "rows", (json_int_t)q->rows, "cols", (json_int_t)q->cols,
                            "weights_per_second", memory, "bytes_per_second", memory * bytes,
                            "cached_weights_per_second_per_core", cache / nq_pool_threads(b->pool));
    if (row == NULL || json_array_append_new(b->rows, row) != 0) {
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot build the table");
    }
    return NOVAQ_OK;
}

/* Once everything is measured, reading too: the share of each row, and the best of the
 * yardstick's. */
static novaq_status add_shares(bench *b, novaq_error *err) {
    for (size_t i = 0; i < json_array_size(b->rows); i++) {
        json_t *row = json_array_get(b->rows, i);
        const char *scheme = json_string_value(json_object_get(row, "scheme"));
        double speed = json_real_value(json_object_get(row, "bytes_per_second"));
        double share = speed / b->read_speed;
        if (json_object_set_new(row, "bandwidth_share", json_real(share)) != 0) {
            return nq_fail(err, NOVAQ_E_MEMORY, "cannot build the table");
        }
        bool yardstick = strcmp(scheme, "k16d2l2") == 0 &&
                         json_integer_value(json_object_get(row, "cols")) == 4096;
        b->share_2bit = yardstick && share > b->share_2bit ? share : b->share_2bit;
    }
    return NOVAQ_OK;
}

/* All variants of one matrix, in turns. */
static novaq_status measure_matrix(bench *b, const nq_qmat *q, novaq_error *err) {
    variant v[NQ_CPU_LEVELS];
    nq_fast_set *sets[NQ_CPU_LEVELS] = {NULL};
    work w[NQ_CPU_LEVELS] = {{.f = NULL}};
    double memory[NQ_CPU_LEVELS] = {0};
    double cache[NQ_CPU_LEVELS] = {0};
    unsigned n = variants(v, q->scheme.kind);
    unsigned threads = nq_pool_threads(b->pool);
    novaq_status st = NOVAQ_OK;
    for (unsigned i = 0; st == NOVAQ_OK && i < n; i++) {
        st = open_work(&w[i], &sets[i], b, &v[i], q, err);
    }
    for (unsigned round = 0; st == NOVAQ_OK && round < ROUNDS; round++) {
        measure_reading(b);
        for (unsigned i = 0; i < n; i++) {
            uint64_t cached =
                CACHE_BYTES / w[i].row_bytes / w[i].tile_rows * w[i].tile_rows * threads;
            cached = cached == 0 ? w[i].tile_rows * threads : cached;
            double m = pass(&w[i], b->pool, q->rows, 1);
            double c = pass(&w[i], b->pool, cached, CACHE_TURNS);
            memory[i] = m > memory[i] ? m : memory[i];
            cache[i] = c > cache[i] ? c : cache[i];
        }
    }
    for (unsigned i = 0; st == NOVAQ_OK && i < n; i++) {
        st = add_row(b, &w[i], memory[i], cache[i], err);
    }
    for (unsigned i = 0; i < n; i++) {
        close_work(&w[i]);
        nq_fast_set_close(&sets[i]);
    }
    return st;
}

/* Random bytes; where they are floats, numbers of a size from 1/2 to 1, as infinities
 * and the smallest numbers may take another time. */
static void fill_weights(bench *b, nq_scheme_kind kind) {
    static const struct {
        uint64_t keep, set;
    } exponent[] = {[NQ_SCHEME_F32] = {0x807fffff807fffff, 0x3f0000003f000000},
                    [NQ_SCHEME_F16] = {0x83ff83ff83ff83ff, 0x3800380038003800},
                    [NQ_SCHEME_BF16] = {0x807f807f807f807f, 0x3f003f003f003f00}};
    bool floats = kind == NQ_SCHEME_F32 || kind == NQ_SCHEME_F16 || kind == NQ_SCHEME_BF16;
    if (b->fill == kind) {
        return;
    }
    for (uint64_t i = 0; i < MEMORY_BYTES; i += 8) {
        uint64_t v = nq_hash3(7, 1, i);
        v = floats ? (v & exponent[kind].keep) | exponent[kind].set : v;
        memcpy(b->symbols + i, &v, sizeof v);
    }
    uint16_t scale = nq_f32_to_f16(1.0F / 128);
    for (uint64_t i = 0; kind == NQ_SCHEME_RAW && i < MEMORY_BYTES; i += NQ_Q8_0_BYTES) {
        memcpy(b->symbols + i, &scale, sizeof scale);
    }
    b->fill = kind;
}

static novaq_status measure_scheme(bench *b, const nq_scheme *s, novaq_error *err) {
    nq_codebook cb = {0};
    bool code = s->kind == NQ_SCHEME_CODE;
    if (code) {
        NQ_TRY(nq_codebook_gaussian(&cb, s, err));
    }
    fill_weights(b, is_plain(s->kind) ? s->kind : NQ_SCHEME_CODE);
    novaq_status st = NOVAQ_OK;
    for (size_t i = 0; st == NOVAQ_OK && i < sizeof shape_cols / sizeof shape_cols[0]; i++) {
        uint64_t cols = shape_cols[i];
        uint64_t row = bytes_of_row(s, cols);
        row = row < ROW_BYTES_MIN ? ROW_BYTES_MIN : row; /* no more rows than scales */
        nq_qmat q = {.scheme = *s,
                     .rows = MEMORY_BYTES / row / 256 * 256,
                     .cols = cols,
                     .segment_rows = 256,
                     .groups = 1,
                     .symbols = b->symbols,
                     .codebooks = cb.entries,
                     .codebook_scale = code ? &cb.scale : NULL,
                     .row_scale = b->row_scale};
        st = measure_matrix(b, &q, err);
    }
    nq_codebook_close(&cb);
    return st;
}

static novaq_status fill_memory(bench *b, novaq_error *err) {
    uint64_t most_rows = MEMORY_BYTES / ROW_BYTES_MIN;
    NQ_TRY(nq_alloc(&b->symbols, MEMORY_BYTES + 4096, 1, err));
    NQ_TRY(nq_alloc(&b->row_scale, most_rows, sizeof *b->row_scale, err));
    NQ_TRY(nq_alloc(&b->sums, (uint64_t)nq_pool_threads(b->pool) * LANES, sizeof *b->sums, err));
    b->fill = NQ_SCHEME_RAW;
    fill_weights(b, NQ_SCHEME_CODE);
    uint16_t one = nq_f32_to_f16(1.0F);
    for (uint64_t i = 0; i < most_rows; i++) {
        b->row_scale[i] = one;
    }
    b->rows = json_array();
    return NOVAQ_OK;
}

novaq_status novaq_bench_kernels(char **report, const char *schemes, unsigned threads,
                                 novaq_error *err) {
    *report = NULL;
    nq_scheme list[NQ_BENCH_SCHEMES];
    size_t count = 0;
    bench b = {0};
    const char *names = schemes != NULL ? schemes : default_schemes;
    NQ_TRY(nq_bench_schemes(list, &count, names, q8_0, err));
    NQ_TRY(nq_pool_open(&b.pool, threads, err));
    novaq_status st = fill_memory(&b, err);
    for (size_t i = 0; st == NOVAQ_OK && i < count; i++) {
        st = measure_scheme(&b, &list[i], err);
    }
    st = st == NOVAQ_OK ? add_shares(&b, err) : st;
    json_t *out = NULL;
    if (st == NOVAQ_OK) {
        out = json_pack("{s:i, s:f, s:O}", "threads", (int)nq_pool_threads(b.pool),
                        "read_bytes_per_second", b.read_speed, "kernels", b.rows);
        if (out != NULL && b.share_2bit > 0) {
            json_object_set_new(out, "gemv_2bit_bandwidth_share", json_real(b.share_2bit));
        }
        st = out != NULL ? nq_json_dump(report, out, 2, err)
                         : nq_fail(err, NOVAQ_E_MEMORY, "cannot build the table");
    }
    json_decref(out);
    json_decref(b.rows);
    nq_free(b.symbols);
    nq_free(b.row_scale);
    nq_free(b.sums);
    nq_pool_close(&b.pool);
    return st;
}

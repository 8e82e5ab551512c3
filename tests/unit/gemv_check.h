/* gemv_check.h - one table of integer products against the scalar reference, on
 * random symbols, tables and activations and on the largest there are. Needs no
 * test library, so that tests/tools/neon_check.c can run it on a bare emulator. */
#ifndef GEMV_CHECK_H
#define GEMV_CHECK_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "kern/gemv.h"

#define GEMV_ROWS   45
#define GEMV_TOKENS 9

/* A case: the scheme, units of a row, and how it is filled. */
typedef struct gemv_case {
    unsigned bits, d, levels;
    unsigned units;
    bool tail;
    bool grouped;
    bool extreme; /* the largest entries and activations there can be */
    uint32_t segment_rows;
} gemv_case;

typedef struct gemv_data {
    nq_codes c;
    uint8_t *symbols;
    uint8_t *tail;
    uint8_t *tables;
    uint8_t *pairs;
    int8_t *x;      /* (GEMV_TOKENS, row bytes) */
    int32_t bias;   /* in the tables */
    uint64_t bytes; /* of a row in plane order */
} gemv_data;

static uint64_t gemv_random(uint64_t stream, uint64_t i) { return nq_hash3(77, stream, i); }

static uint8_t *gemv_bytes(uint64_t n, uint64_t stream) {
    uint8_t *p = malloc(n);
    for (uint64_t i = 0; p != NULL && i < n; i++) {
        p[i] = (uint8_t)gemv_random(stream, i);
    }
    return p;
}

/* Entry of a level: sums of three stay within -128..127, or within what `narrow`
 * activations of 64 allow. */
static int gemv_entry(const gemv_case *k, uint64_t group, unsigned level, unsigned s, unsigned v) {
    static const int most[3] = {63, 40, 24};
    uint64_t h = gemv_random(100 + group, (level * 16 + s) * 8 + v);
    if (level >= k->levels) {
        return 0;
    }
    if (k->extreme) {
        return h % 2 == 0 ? most[level] : -most[level] - (level == 0 ? 1 : 0);
    }
    return (int)(h % (unsigned)(2 * most[level] + 1)) - most[level];
}

static void gemv_fill_tables(gemv_data *g, const gemv_case *k) {
    nq_codes *c = &g->c;
    unsigned count = c->bits != 2 ? c->levels : c->levels > 2 ? 2 : 1;
    unsigned symbols = 1U << c->bits;
    for (unsigned i = 0; i < count * c->d; i++) {
        for (uint64_t at = 0; at < c->table_plane; at++) {
            uint64_t group = k->grouped ? at / 16 : 0;
            unsigned table = i / c->d;
            unsigned v = i % c->d;
            unsigned index = (unsigned)(at % 16);
            int e = table == 0 ? g->bias : 0;
            if (c->bits != 2) {
                e += gemv_entry(k, group, table, index % symbols, v);
            } else if (table == 0) {
                e += gemv_entry(k, group, 0, index % 4, v) + gemv_entry(k, group, 1, index / 4, v);
            } else {
                e += gemv_entry(k, group, 2, index / 4, v);
            }
            g->tables[i * c->table_plane + at] = (uint8_t)e;
        }
    }
    for (unsigned v = 0; c->pairs != NULL && v < c->d; v++) {
        for (unsigned i = 0; i < 64; i++) {
            unsigned a = (i & 3U) | (i >> 4 & 1U) << 2;
            unsigned b = (i >> 2 & 3U) | (i >> 5 & 1U) << 2;
            g->pairs[v * 64 + i] =
                (uint8_t)(g->bias + gemv_entry(k, 0, 0, a, v) + gemv_entry(k, 0, 1, b, v));
            g->pairs[(c->d + v) * 64 + i] = (uint8_t)gemv_entry(k, 0, 2, b, v);
        }
    }
}

static void gemv_free(gemv_data *g) {
    free(g->symbols);
    free(g->tail);
    free(g->tables);
    free(g->pairs);
    free(g->x);
}

/* The matrix of a case, with the bias of a table's kind of bytes. */
static bool gemv_make(gemv_data *g, const gemv_case *k, bool signed_bytes, bool narrow) {
    memset(g, 0, sizeof *g);
    nq_codes *c = &g->c;
    uint64_t units = k->units + (k->tail ? 1U : 0U);
    *c = (nq_codes){.bits = k->bits, .d = k->d, .levels = k->levels, .units = k->units};
    c->segment_rows = k->segment_rows;
    c->row_bytes = k->units * k->bits * 4 + (k->tail ? k->bits : 0);
    c->x_plane = (units * nq_codes_lane(k->bits) + 63) / 64 * 64;
    c->table_plane = !k->grouped ? 64 : c->x_plane > 64 ? c->x_plane : 128;
    c->wide = narrow && k->extreme;
    g->bias = signed_bytes ? 0 : 128;
    g->bytes = nq_codes_row(c);
    g->symbols = gemv_bytes(GEMV_ROWS * c->row_bytes, 1);
    g->tail = k->tail ? gemv_bytes((uint64_t)GEMV_ROWS * NQ_TAIL_BYTES, 2) : NULL;
    g->tables = malloc((size_t)3 * c->d * c->table_plane);
    g->pairs = k->bits == 3 && !k->grouped ? malloc((size_t)2 * c->d * 64) : NULL;
    g->x = (int8_t *)gemv_bytes(GEMV_TOKENS * g->bytes, 3);
    if (g->symbols == NULL || g->tables == NULL || g->x == NULL) {
        return false;
    }
    c->symbols = g->symbols;
    c->bytes = GEMV_ROWS * c->row_bytes;
    c->tail = g->tail;
    c->tables = g->tables;
    c->pairs = g->pairs;
    for (uint64_t i = 0; i < GEMV_TOKENS * g->bytes; i++) {
        bool used = i % c->x_plane < units * nq_codes_lane(k->bits);
        int v = k->extreme ? (g->x[i] < 0 ? -127 : 127) : g->x[i] / 2;
        g->x[i] = (int8_t)(used ? v : 0);
    }
    gemv_fill_tables(g, k);
    return true;
}

static int32_t gemv_sum(const gemv_data *g, uint64_t token) {
    int32_t sum = 0;
    for (uint64_t i = 0; i < g->bytes; i++) {
        sum += g->x[token * g->bytes + i];
    }
    return sum * g->bias;
}

/* Products of rows from `row0` on, and of blocks of tokens, against want (tokens,
 * rows), both without bias. */
static unsigned gemv_compare(const nq_gemv_kern *kern, const gemv_data *g, const int32_t *want) {
    static int32_t y[GEMV_TOKENS * GEMV_ROWS];
    unsigned failed = 0;
    for (uint64_t row0 = 0; row0 < 4; row0++) {
        kern->gemv(y, &g->c, row0, GEMV_ROWS - row0, g->x);
        for (uint64_t r = row0; r < GEMV_ROWS; r++) {
            failed += y[r - row0] - gemv_sum(g, 0) != want[r];
        }
    }
    uint8_t *rows = malloc(GEMV_ROWS * g->bytes);
    if (rows == NULL) {
        return 1;
    }
    kern->decode(rows, &g->c, 0, 2);
    kern->decode(rows + 2 * g->bytes, &g->c, 2, GEMV_ROWS - 2);
    kern->gemm(y, GEMV_ROWS, rows, GEMV_ROWS, g->x, GEMV_TOKENS, g->bytes, g->c.wide);
    for (uint64_t t = 0; t < GEMV_TOKENS; t++) {
        for (uint64_t r = 0; r < GEMV_ROWS; r++) {
            failed += y[t * GEMV_ROWS + r] - gemv_sum(g, t) != want[t * GEMV_ROWS + r];
        }
    }
    free(rows);
    return failed;
}

static unsigned gemv_check_case(const nq_gemv_kern *kern, const gemv_case *k) {
    static int32_t want[GEMV_TOKENS * GEMV_ROWS];
    gemv_data ref;
    gemv_data own;
    unsigned failed = 1;
    bool made = gemv_make(&ref, k, false, false);
    made = gemv_make(&own, k, kern->signed_bytes, kern->narrow) && made;
    uint8_t *rows = malloc(GEMV_ROWS * ref.bytes);
    if (made && rows != NULL) {
        nq_gemv_scalar.decode(rows, &ref.c, 0, GEMV_ROWS);
        nq_gemv_scalar.gemm(want, GEMV_ROWS, rows, GEMV_ROWS, ref.x, GEMV_TOKENS, ref.bytes, false);
        for (uint64_t i = 0; i < (uint64_t)GEMV_TOKENS * GEMV_ROWS; i++) {
            want[i] -= gemv_sum(&ref, i / GEMV_ROWS);
        }
        failed = gemv_compare(&nq_gemv_scalar, &ref, want) + gemv_compare(kern, &own, want);
    }
    free(rows);
    gemv_free(&ref);
    gemv_free(&own);
    return failed;
}

/* All combinations; where each takes long, every fifth or seventh, which still meets every value
 * of every property, as none has a multiple of five or seven. */
#ifndef PRODUCT_STEP
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PRODUCT_STEP 7
#else
#define PRODUCT_STEP 1
#endif
#endif

/* Every scheme of the family; whole and partial steps, tails, groups, segments. */
static unsigned check_products(const nq_gemv_kern *kern) {
    static const unsigned widths[] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const unsigned units[] = {1, 3, 8, 21};
    unsigned failed = 0;
    for (unsigned i = 0; i < 3U * 8 * 3 * 4 * 8; i += PRODUCT_STEP) {
        gemv_case k = {.bits = 2 + i % 3,
                       .d = widths[i / 3 % 8],
                       .levels = 1 + i / 24 % 3,
                       .units = units[i / 72 % 4],
                       .tail = (i / 288 & 1U) != 0,
                       .grouped = (i / 288 & 2U) != 0,
                       .extreme = (i / 288 & 4U) != 0,
                       .segment_rows = (i + i / 24) % 2 == 0 ? 256 : 13};
        bool rare = k.d > 4 && k.d < 8; /* of no scheme on the ladder: fewer lengths */
        failed += rare && k.units > 8 ? 0 : gemv_check_case(kern, &k);
    }
    return failed;
}

/* Rows of bytes as files have them: every length around the vectors' widths, rows that are
 * no whole tile, and nothing read behind the last. */
static unsigned check_i8(const nq_gemv_kern *kern) {
    int8_t x[192] = {0};
    unsigned failed = 0;
    for (unsigned n = 1; n <= 130; n++) {
        unsigned rows = 1 + n % 9;
        int8_t *w = malloc((size_t)n * rows); /* exactly: a sanitizer sees one byte more */
        int32_t got[9];
        int32_t want[9];
        for (unsigned i = 0; w != NULL && i < n * rows; i++) {
            w[i] = n % 3 == 0 ? (int8_t)-128 : (int8_t)gemv_random(7, (uint64_t)i * 131 + n);
        }
        for (unsigned i = 0; i < n; i++) {
            x[i] = n % 3 == 0 ? (int8_t)(i % 2 == 0 ? 127 : -127) : (int8_t)gemv_random(8, i);
        }
        if (w != NULL) {
            nq_gemv_scalar.gemv_i8(want, w, rows, n, x);
            kern->gemv_i8(got, w, rows, n, x);
        }
        int32_t sum = 0;
        for (unsigned i = 0; i < n; i++) {
            sum += x[i];
        }
        for (unsigned r = 0; r < rows; r++) {
            failed += w == NULL || got[r] != want[r] - (kern->signed_bytes ? 128 * sum : 0);
        }
        free(w);
    }
    return failed;
}

/* One and two fields, every width of a subvector, entries whose sums wrap. */
static unsigned check_fields(const nq_gemv_kern *kern) {
    static uint8_t tables[2 * 9 * NQ_PLANE_ALIGN];
    static int8_t x[9 * 256];
    uint8_t symbols[2 * 256 + NQ_PLANE_ALIGN];
    unsigned failed = 0;
    for (unsigned i = 0; i < 2 * 9 * 13; i++) {
        nq_fields f = {.fields = 1 + i % 2,
                       .d = 1 + i / 2 % 9,
                       .stride = 8 + (uint64_t)(i / 18) * 16,
                       .tables = tables,
                       .x_plane = 256};
        memset(x, 0, sizeof x);
        for (unsigned v = 0; v < f.d; v++) {
            for (uint64_t j = 0; j < f.stride; j++) {
                x[v * f.x_plane + j] = (int8_t)(gemv_random(i, 9 * j + v) % 255 - 127);
            }
        }
        for (unsigned t = 0; t < sizeof tables; t++) {
            tables[t] = (uint8_t)gemv_random(i + 1, t / NQ_PLANE_ALIGN * 16 + t % 16);
        }
        for (unsigned j = 0; j < sizeof symbols; j++) {
            symbols[j] = (uint8_t)(gemv_random(i + 2, j) & 15U);
        }
        /* Where bytes are signed, the reference sums them as they are less 128, plus 128. */
        int32_t got = kern->dot_fields(&f, symbols, x);
        for (unsigned t = 0; kern->signed_bytes && t < f.d * NQ_PLANE_ALIGN; t++) {
            tables[t] = (uint8_t)(tables[t] + 128);
        }
        int32_t want = nq_gemv_scalar.dot_fields(&f, symbols, x);
        for (unsigned c = 0; kern->signed_bytes && c < sizeof x; c++) {
            want -= 128 * x[c];
        }
        failed += got != want;
    }
    return failed;
}

/* Dot products with Q8_0: scales of every kind, the whole range of bytes. */
static unsigned check_q8_0_dots(const nq_gemv_kern *kern) {
    enum { BLOCKS = 9 };
    uint8_t blocks[BLOCKS * NQ_Q8_0_BYTES];
    float x[BLOCKS * NQ_Q8_0_WEIGHTS];
    unsigned failed = 0;
    for (unsigned i = 0; i < sizeof blocks; i++) {
        unsigned at = i % NQ_Q8_0_BYTES;
        unsigned random = (unsigned)gemv_random(6, i);
        blocks[i] = (uint8_t)(at == 1 ? (random & 0x83U) | (4U + i % 5) << 2 : random);
    }
    blocks[NQ_Q8_0_BYTES + 0] = 1; /* the smallest subnormal number */
    blocks[NQ_Q8_0_BYTES + 1] = 0;
    for (unsigned i = 0; i < BLOCKS * NQ_Q8_0_WEIGHTS; i++) {
        x[i] = (float)nq_normal(6, 9, i);
    }
    for (unsigned n = 0; n <= BLOCKS * NQ_Q8_0_WEIGHTS; n += NQ_Q8_0_WEIGHTS) {
        float want = nq_gemv_scalar.dot_q8_0(blocks, x, n);
        failed += !(fabsf(kern->dot_q8_0(blocks, x, n) - want) <= 1e-5F * (1.0F + fabsf(want)));
    }
    return failed;
}

/* Dot products of half floats, every length around the vectors' widths. */
static unsigned check_half_dots(const nq_gemv_kern *kern) {
    uint16_t a[100];
    float x[100];
    unsigned failed = 0;
    for (unsigned i = 0; i < 100; i++) {
        a[i] = (uint16_t)((gemv_random(5, i) & 0x83FFU) | (12U + i % 5) << 10);
        x[i] = (float)nq_normal(5, 9, i);
    }
    a[3] = 0x0001; /* the smallest subnormal number */
    for (unsigned n = 0; n <= 100; n++) {
        float f16 = nq_gemv_scalar.dot_f16(a, x, n);
        float bf16 = nq_gemv_scalar.dot_bf16(a, x, n);
        failed += !(fabsf(kern->dot_f16(a, x, n) - f16) <= 1e-5F * (1.0F + fabsf(f16)));
        failed +=
            !(fabsf(kern->dot_bf16(a, x, n) - bf16) <= 1e-5F * (1e-12F + fabsf(bf16)) + 1e-20F);
    }
    return failed;
}

#endif

/* kern_check.h - one kernel table against the scalar reference, on random and edge
 * fills. Every check returns how many comparisons failed and needs no test
 * library, so that tests/tools/neon_check.c can run it on a bare emulator. */
#ifndef KERN_CHECK_H
#define KERN_CHECK_H

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/rng.h"
#include "kern/kern.h"

#define CHECK_ROUNDS 40
#define CHECK_CHAINS 5
#define CHECK_LEN    256

/* Fill 0: random; 1: all equal (ties everywhere); 2: large and small mixed; 3: zero. */
static float fill_value(int kind, uint64_t stream, uint64_t i) {
    if (kind == 1) {
        return 0.25F;
    }
    if (kind == 3) {
        return 0.0F;
    }
    float x = (float)nq_normal(5, stream, i);
    return kind == 2 ? x * ldexpf(1.0F, (int)(nq_hash3(6, stream, i) % 40) - 20) : x;
}

/* Tables of k symbols in lanes: norms of random sums, one value for all in kind 1. */
typedef struct check_tables {
    float dual[3 * 8 * 16];
    float forward[4096];
    float back[4096];
} check_tables;

static void check_fill_tables(check_tables *c, nq_path *path, unsigned k, int kind,
                              uint64_t round) {
    unsigned n = path->lanes;
    unsigned nhi = path->levels == 3 ? n : 1;
    memset(c->dual, 0, sizeof c->dual);
    for (unsigned i = 0; i < path->levels * path->d * n; i++) {
        c->dual[i] = i % n < k ? fill_value(kind, round + 1000, i) : 0.0F;
    }
    for (unsigned b = 0; b < n; b++) {
        for (unsigned hi = 0; hi < nhi; hi++) {
            for (unsigned lo = 0; lo < n; lo++) {
                unsigned at = (b * n + hi) * n + lo;
                float norm = b < k && lo < k && (hi < k || nhi == 1)
                                 ? fabsf(fill_value(kind, round + 2000, at))
                                 : NQ_PATH_FAR;
                c->forward[nhi == 1 ? lo * n + b : (b * n + lo) * n + hi] = norm;
                c->back[(hi * n + b) * n + lo] = norm;
            }
        }
    }
    path->dual = c->dual;
    path->forward = c->forward;
    path->back = c->back;
}

/* Weights of neighbouring rows: alike, or up to 1e4 apart either way. */
static float check_ratio(uint64_t round, uint64_t t) {
    float u = (float)nq_uniform(7, round, t);
    return round % 3 == 0 ? 0.8F + 0.4F * u : powf(10.0F, 8.0F * u - 4.0F);
}

static unsigned check_paths_of(const nq_kern *kern, nq_path *path, unsigned k, int kind,
                               uint64_t round) {
    static check_tables tables;
    static float x[CHECK_CHAINS][CHECK_LEN * 8];
    static float ratio[CHECK_LEN];
    static float history[2][CHECK_CHAINS][CHECK_LEN * 256];
    static uint8_t symbols[2][CHECK_CHAINS][CHECK_LEN];
    static const uint64_t lens[] = {1, 2, 3, 17, CHECK_LEN};
    uint64_t len = lens[nq_hash3(8, 1, round) % 5];
    unsigned chains = 1 + (unsigned)(nq_hash3(8, 2, round) % CHECK_CHAINS);
    nq_path_chain c[2][CHECK_CHAINS];
    check_fill_tables(&tables, path, k, kind, round);
    for (uint64_t t = 0; t < len; t++) {
        ratio[t] = check_ratio(round, t);
    }
    for (unsigned i = 0; i < chains; i++) {
        for (uint64_t t = 0; t < len * path->d; t++) {
            float outlier = nq_hash3(9, round, t) % 50 == 0 ? 1e6F : 1.0F;
            x[i][t] = outlier * fill_value(kind, round * CHECK_CHAINS + i, t);
        }
        for (unsigned w = 0; w < 2; w++) {
            c[w][i] = (nq_path_chain){.symbols = symbols[w][i],
                                      .x = x[i],
                                      .ratio = i % 2 == 0 ? ratio : NULL,
                                      .history = history[w][i]};
        }
    }
    nq_kern_scalar.shortest_path(path, c[0], chains, len);
    kern->shortest_path(path, c[1], chains, len);
    unsigned failed = 0;
    size_t states = path->levels == 3 ? (size_t)path->lanes * path->lanes : path->lanes;
    for (unsigned i = 0; i < chains; i++) {
        failed += memcmp(symbols[0][i], symbols[1][i], len) != 0;
        failed += memcmp(history[0][i], history[1][i], len * states * sizeof(float)) != 0;
        for (uint64_t t = 0; t < len; t++) {
            failed += symbols[0][i][t] >= k;
        }
    }
    return failed;
}

static unsigned check_paths(const nq_kern *kern) {
    unsigned failed = 0;
    uint64_t round = 0;
    for (unsigned k = 2; k <= 16; k++) {
        for (unsigned levels = 2; levels <= 3; levels++) {
            for (unsigned d = 1; d <= 8; d++, round++) {
                nq_path path = {.lanes = k <= 4 ? 4 : k <= 8 ? 8 : 16, .levels = levels, .d = d};
                failed += check_paths_of(kern, &path, k, (int)(round % 5 % 4), round);
            }
        }
    }
    return failed;
}

static unsigned check_nearest_pair(const nq_kern *kern) {
    static float pa[256], pb[256], pair[65536];
    unsigned failed = 0;
    for (uint64_t round = 0; round < CHECK_ROUNDS; round++) {
        unsigned ka = round % 8 == 0 ? 1 : 2 + (unsigned)(nq_hash3(1, 1, round) % 60);
        unsigned kb = 1 + (unsigned)(nq_hash3(1, 2, round) % 60);
        ka = round == 5 ? 256 : ka;
        kb = round == 5 ? 256 : kb;
        for (unsigned i = 0; i < ka * kb; i++) {
            pa[i % ka] = fill_value((int)(round % 4), round, i % ka);
            pb[i % kb] = fill_value((int)(round % 4), round + 50, i % kb);
            pair[i] = fill_value((int)(round % 4), round + 99, i);
        }
        unsigned want[2], got[2];
        nq_kern_scalar.nearest_pair(want, pa, pb, pair, ka, kb);
        kern->nearest_pair(got, pa, pb, pair, ka, kb);
        failed += memcmp(got, want, sizeof want) != 0;
        /* The reference itself against the definition. */
        float least = pa[want[0]] + pair[want[0] * kb + want[1]] + pb[want[1]];
        for (unsigned i = 0; i < ka * kb; i++) {
            float t = pa[i / kb] + pair[i] + pb[i % kb];
            failed += t < least || (t == least && i < want[0] * kb + want[1]);
        }
    }
    return failed;
}

static unsigned check_hadamard(const nq_kern *kern) {
    float x[512], want[512], got[512];
    unsigned failed = 0;
    for (uint32_t size = 2; size <= 512; size *= 2) {
        for (int kind = 0; kind < 4; kind++) {
            for (uint32_t i = 0; i < size; i++) {
                x[i] = fill_value(kind, size, i);
            }
            memcpy(want, x, size * sizeof(float));
            memcpy(got, x, size * sizeof(float));
            nq_kern_scalar.hadamard(want, size, 0.125F);
            kern->hadamard(got, size, 0.125F);
            failed += memcmp(got, want, size * sizeof(float)) != 0;
        }
    }
    return failed;
}

/* Planes of every width, alone and above bits that are there already. */
static unsigned check_unpack(const nq_kern *kern, uint64_t round) {
    static const unsigned planes[][2] = {{1, 0}, {2, 0}, {4, 0}, {8, 0}, {1, 1}, {1, 2},
                                         {1, 4}, {1, 6}, {1, 7}, {2, 4}, {2, 6}, {4, 4}};
    uint8_t bytes[40 * 7], want[32 * 7 + 1], got[32 * 7 + 1];
    unsigned width = planes[round % 12][0];
    unsigned shift = planes[round % 12][1];
    uint64_t units = round % 8;
    uint64_t unit_bytes = 4 * width + round % 5;
    for (uint64_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)nq_hash3(round, 1, i);
    }
    for (uint64_t i = 0; i < sizeof want; i++) {
        want[i] = (uint8_t)(nq_hash3(round, 3, i) & ((1U << shift) - 1U));
        got[i] = want[i];
    }
    nq_kern_scalar.unpack(want, bytes, units, unit_bytes, width, shift);
    kern->unpack(got, bytes, units, unit_bytes, width, shift);
    return memcmp(got, want, sizeof want) != 0;
}

static unsigned check_lut(const nq_kern *kern, uint64_t round) {
    uint8_t symbols[224];
    int8_t table[256], want[224], got[224];
    unsigned k = 16 + (unsigned)(round % 16) * 16;
    uint64_t count = nq_hash3(round, 4, 0) % (sizeof symbols + 1);
    for (uint64_t i = 0; i < sizeof symbols; i++) {
        symbols[i] = (uint8_t)(nq_hash3(round, 5, i) % k);
    }
    for (uint64_t i = 0; i < k; i++) {
        table[i] = (int8_t)nq_hash3(round, 2, i);
    }
    memset(want, 3, sizeof want);
    memset(got, 3, sizeof got);
    int add = (int)(round / 16 % 2);
    nq_kern_scalar.lut(want, symbols, table, k, count, add);
    kern->lut(got, symbols, table, k, count, add);
    return memcmp(got, want, sizeof want) != 0;
}

static unsigned check_lookups(const nq_kern *kern) {
    unsigned failed = 0;
    for (uint64_t round = 0; round < 4 * CHECK_ROUNDS; round++) {
        failed += check_unpack(kern, round) + check_lut(kern, round);
    }
    return failed;
}

/* Rounding differs from variant to variant; the value may not. */
static unsigned check_dot_products(const nq_kern *kern) {
    static int8_t a[700];
    static float f[700], x[700];
    unsigned failed = 0;
    for (uint64_t i = 0; i < 700; i++) {
        a[i] = (int8_t)(nq_hash3(3, 1, i) % 255 - 127);
        f[i] = (float)nq_normal(3, 2, i);
        x[i] = (float)nq_normal(3, 3, i);
    }
    for (uint64_t len = 0; len < 700; len += 13) {
        double exact_i8 = 0;
        double exact_f32 = 0;
        double size = 1;
        for (uint64_t i = 0; i < len; i++) {
            exact_i8 += (double)a[i] * (double)x[i];
            exact_f32 += (double)f[i] * (double)x[i];
            size += fabs((double)a[i] * (double)x[i]);
        }
        failed += !(fabs((double)kern->dot_i8(a, x, len) - exact_i8) < 1e-5 * size);
        failed += !(fabs((double)kern->dot_f32(f, x, len) - exact_f32) < 1e-5 * size);
    }
    return failed;
}

#endif

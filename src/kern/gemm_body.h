/* gemm_body.h - blocks of tokens against decoded rows, on top of gemv_body.h.
 *
 * Included more than once: by every variant.
 *
 * Owns: the blocking: G_TOKENS x G_ROWS sums in registers, pieces of K_BYTES
 * columns so that the operands of a tile stay in the first cache. Refuses:
 * decoding and scales. The including file defines G_ROWS, G_TOKENS and v_flip(v), which
 * makes signed bytes what a_dot() multiplies.
 */
#ifndef NQ_KERN_GEMM_BODY_H
#define NQ_KERN_GEMM_BODY_H

#define K_BYTES 2048

/* Operands of one call, and the columns [k0, k1) at work. */
typedef struct gemm {
    int32_t *y;
    uint64_t ldy;
    const uint8_t *w;
    uint64_t rows;
    const int8_t *x;
    uint64_t tokens;
    uint64_t n;
    uint64_t k0;
    uint64_t k1;
} gemm;

INLINE void tile(const gemm *g, uint64_t row, uint64_t token, unsigned rows, unsigned tokens,
                 bool wide) {
    ACC acc[G_TOKENS][G_ROWS];
    for (unsigned t = 0; t < tokens; t++) {
        for (unsigned r = 0; r < rows; r++) {
            acc[t][r] = a_zero();
        }
    }
    const uint8_t *w = g->w + row * g->n;
    const int8_t *x = g->x + token * g->n;
    for (uint64_t k = g->k0; k < g->k1; k += V_BYTES) {
        V wv[G_ROWS];
#pragma GCC unroll 8
        for (unsigned r = 0; r < rows; r++) {
            wv[r] = v_load(w + r * g->n + k);
        }
#pragma GCC unroll 8
        for (unsigned t = 0; t < tokens; t++) {
            V xv = v_load((const uint8_t *)x + t * g->n + k);
#pragma GCC unroll 8
            for (unsigned r = 0; r < rows; r++) {
                acc[t][r] = wide ? a_dot_wide(acc[t][r], wv[r], xv) : a_dot(acc[t][r], wv[r], xv);
            }
        }
    }
    for (unsigned t = 0; t < tokens; t++) {
        int32_t sums[G_ROWS];
        int32_t *y = g->y + (token + t) * g->ldy + row;
        a_sums(sums, acc[t], rows);
        for (unsigned r = 0; r < rows; r++) {
            y[r] = g->k0 == 0 ? sums[r] : y[r] + sums[r];
        }
    }
}

/* All rows against `tokens` tokens. */
INLINE void rows_of(const gemm *g, uint64_t token, unsigned tokens, bool wide) {
    uint64_t r = 0;
    for (; r + G_ROWS <= g->rows; r += G_ROWS) {
        tile(g, r, token, G_ROWS, tokens, wide);
    }
    for (; r < g->rows; r++) {
        tile(g, r, token, 1, tokens, wide);
    }
}

INLINE void gemm_all(gemm *g, bool wide) {
    for (g->k0 = 0; g->k0 < g->n; g->k0 = g->k1) {
        g->k1 = g->n - g->k0 < K_BYTES ? g->n : g->k0 + K_BYTES;
        uint64_t t = 0;
        for (; t + G_TOKENS <= g->tokens; t += G_TOKENS) {
            rows_of(g, t, G_TOKENS, wide);
        }
        for (; t < g->tokens; t++) {
            rows_of(g, t, 1, wide);
        }
    }
}

NO_INLINE void gemm_narrow(gemm *g) { gemm_all(g, false); }
NO_INLINE void gemm_wide(gemm *g) { gemm_all(g, true); }

/* Sums of one row that do not wait for each other. */
#define APART 4

INLINE int32_t sum_apart(const ACC *acc) {
    int32_t sums[APART];
    a_sums(sums, acc, APART);
    return sums[0] + sums[1] + sums[2] + sums[3];
}

/* A row as it lies in a file. One row after the other, because memory is fastest read in
 * the order of its addresses. */
INLINE int32_t i8_row(const uint8_t *w, uint64_t n, const int8_t *x) {
    ACC acc[APART];
    for (unsigned i = 0; i < APART; i++) {
        acc[i] = a_zero();
    }
    uint64_t k = 0;
    for (; k + APART * V_BYTES <= n; k += APART * V_BYTES) {
#pragma GCC unroll 4
        for (unsigned i = 0; i < APART; i++) {
            uint64_t at = k + (uint64_t)i * V_BYTES;
            acc[i] = a_dot_wide(acc[i], v_flip(v_load(w + at)), v_load((const uint8_t *)x + at));
        }
    }
    for (; k + V_BYTES <= n; k += V_BYTES) {
        acc[0] = a_dot_wide(acc[0], v_flip(v_load(w + k)), v_load((const uint8_t *)x + k));
    }
    if (k < n) {
        uint8_t rest[V_BYTES] = {0}; /* meets zeros */
        memcpy(rest, w + k, n - k);
        acc[1] = a_dot_wide(acc[1], v_flip(v_load(rest)), v_load((const uint8_t *)x + k));
    }
    return sum_apart(acc);
}

static void gemv_i8(int32_t *y, const int8_t *w, uint64_t rows, uint64_t n, const int8_t *x) {
    for (uint64_t r = 0; r < rows; r++) {
        y[r] = i8_row((const uint8_t *)w + r * n, n, x);
    }
}

static void gemm_bytes(int32_t *y, uint64_t ldy, const uint8_t *w, uint64_t rows, const int8_t *x,
                       uint64_t tokens, uint64_t n, bool wide) {
    gemm g = {y, ldy, w, rows, x, tokens, n, 0, 0};
    (wide ? gemm_wide : gemm_narrow)(&g);
}

#endif

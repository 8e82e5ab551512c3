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

/* Up to G_ROWS rows as they lie in a file. */
INLINE void i8_rows(int32_t *y, const uint8_t *w, uint64_t n, const int8_t *x, unsigned rows) {
    ACC acc[G_ROWS];
    uint64_t whole = n / V_BYTES * V_BYTES;
    for (unsigned r = 0; r < rows; r++) {
        acc[r] = a_zero();
    }
    for (uint64_t k = 0; k < whole; k += V_BYTES) {
        V xv = v_load((const uint8_t *)x + k);
#pragma GCC unroll 8
        for (unsigned r = 0; r < rows; r++) {
            acc[r] = a_dot_wide(acc[r], v_flip(v_load(w + r * n + k)), xv);
        }
    }
    for (unsigned r = 0; r < rows && whole < n; r++) {
        uint8_t rest[V_BYTES] = {0}; /* meets zeros */
        memcpy(rest, w + r * n + whole, n - whole);
        acc[r] = a_dot_wide(acc[r], v_flip(v_load(rest)), v_load((const uint8_t *)x + whole));
    }
    a_sums(y, acc, rows);
}

static void gemv_i8(int32_t *y, const int8_t *w, uint64_t rows, uint64_t n, const int8_t *x) {
    const uint8_t *bytes = (const uint8_t *)w;
    uint64_t r = 0;
    for (; r + G_ROWS <= rows; r += G_ROWS) {
        i8_rows(y + r, bytes + r * n, n, x, G_ROWS);
    }
    for (; r < rows; r++) {
        i8_rows(y + r, bytes + r * n, n, x, 1);
    }
}

static void gemm_bytes(int32_t *y, uint64_t ldy, const uint8_t *w, uint64_t rows, const int8_t *x,
                       uint64_t tokens, uint64_t n, bool wide) {
    gemm g = {y, ldy, w, rows, x, tokens, n, 0, 0};
    (wide ? gemm_wide : gemm_narrow)(&g);
}

#endif

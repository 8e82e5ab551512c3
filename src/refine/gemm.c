/* gemm.c - products of floats over the pool.
 *
 * Owns: cutting C into tiles by its shape alone; each tile is one call of a BLAS that
 * runs on the calling thread (model/model.c pins it to one). Refuses: splitting sums, so
 * that their order does not depend on the number of threads.
 */
#include <cblas.h>

#include "refine/matrix_impl.h"

/* Rows and columns of C in a tile, and tiles that keep some threads busy. */
#define TILE_M     512
#define TILE_N     NQ_GEMM16_N
#define TILE_N_MIN 48
#define ENOUGH     8

typedef struct gemm {
    bool ta, tb, add;
    uint64_t m, n, k, lda, ldb, ldc;
    nq_gemm16_fn halves; /* or NULL: floats */
    uint64_t tile_m;
    uint64_t tile_n, across; /* columns of a tile, tiles in a row of them */
    const float *a, *b;
    float *c;
} gemm;

static void tile_task(void *ctx, uint64_t task, unsigned worker) {
    const gemm *g = ctx;
    (void)worker;
    uint64_t i = task / g->across * g->tile_m;
    uint64_t j = task % g->across * g->tile_n;
    uint64_t m = g->m - i < g->tile_m ? g->m - i : g->tile_m;
    uint64_t n = g->n - j < g->tile_n ? g->n - j : g->tile_n;
    const float *a = g->a + (g->ta ? i : i * g->lda);
    const float *b = g->b + (g->tb ? j * g->ldb : j);
    if (g->halves != NULL) {
        nq_gemm16_tile t = {.ta = g->ta,
                            .tb = g->tb,
                            .add = g->add,
                            .m = m,
                            .n = n,
                            .k = g->k,
                            .lda = g->lda,
                            .ldb = g->ldb,
                            .ldc = g->ldc,
                            .a = a,
                            .b = b,
                            .c = g->c + i * g->ldc + j};
        g->halves(&t);
        return;
    }
    cblas_sgemm(CblasRowMajor, g->ta ? CblasTrans : CblasNoTrans, g->tb ? CblasTrans : CblasNoTrans,
                (int)m, (int)n, (int)g->k, 1.0F, a, (int)g->lda, b, (int)g->ldb,
                g->add ? 1.0F : 0.0F, g->c + i * g->ldc + j, (int)g->ldc);
}

void nq_gemm_with(nq_gemm16_fn halves, nq_pool *pool, bool ta, bool tb, uint64_t m, uint64_t n,
                  uint64_t k, const float *a, uint64_t lda, const float *b, uint64_t ldb, bool add,
                  float *c, uint64_t ldc) {
    gemm g = {.ta = ta,
              .tb = tb,
              .add = add,
              .m = m,
              .n = n,
              .k = k,
              .a = a,
              .b = b,
              .c = c,
              .lda = lda,
              .ldb = ldb,
              .ldc = ldc};
    g.halves = halves;
    g.tile_m = halves != NULL ? NQ_GEMM16_M : TILE_M;
    uint64_t down = (m + g.tile_m - 1) / g.tile_m;
    g.tile_n = TILE_N;
    while (g.tile_n > TILE_N_MIN && down * ((n + g.tile_n - 1) / g.tile_n) < ENOUGH) {
        g.tile_n /= 2;
    }
    g.across = (n + g.tile_n - 1) / g.tile_n;
    if (m > 0 && n > 0) {
        nq_pool_run(pool, tile_task, &g, down * g.across);
    }
}

void nq_gemm(nq_pool *pool, bool ta, bool tb, uint64_t m, uint64_t n, uint64_t k, const float *a,
             uint64_t lda, const float *b, uint64_t ldb, bool add, float *c, uint64_t ldc) {
    nq_gemm_with(NULL, pool, ta, tb, m, n, k, a, lda, b, ldb, add, c, ldc);
}

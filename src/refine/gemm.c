/* gemm.c - products of floats over the pool.
 *
 * Owns: cutting C into tiles by its shape alone. A tile of floats is one call of a BLAS that
 * runs on the calling thread (model/model.c pins it to one); for tiles of bfloat16 all of A
 * and B, or as much as fits the memory for it, is packed first, each number once. Refuses:
 * splitting sums, so that their order does not depend on the number of threads.
 */
#include <cblas.h>

#include "refine/matrix_impl.h"

/* Rows and columns of C in a tile, and tiles that keep some threads busy. */
#define TILE_M     512
#define TILE_N     384
#define TILE_N_MIN NQ_GEMM16_LINES
#define ENOUGH     8
/* Of bfloat16: rows of a tile, lines that one task packs, and most lines packed at once of
 * A and of B: NQ_GEMM16_K numbers of each fit the memory. */
#define TILE16_M 256
#define PACK     384
#define SLAB     ((uint64_t)16320)

_Static_assert(2 * SLAB * (NQ_GEMM16_K / 2) <= NQ_HALVES_WORDS, "memory for all lines");
_Static_assert(SLAB % NQ_GEMM16_LINES == 0, "whole panels of all lines");
_Static_assert(PACK % NQ_GEMM16_LINES == 0, "whole panels in a task");
_Static_assert(TILE_N % NQ_GEMM16_B == 0, "whole panels of B in a tile");
_Static_assert(TILE16_M % NQ_GEMM16_A == 0, "whole panels of A in a tile");

typedef struct gemm {
    bool ta, tb, add;
    uint64_t m, n, k, lda, ldb, ldc;
    const float *a, *b;
    float *c;
    uint64_t tile_m, tile_n, across; /* of a tile; tiles in a row of them */
    const nq_gemm16 *kernel;         /* NULL: floats */
    uint32_t *packed_a, *packed_b;
    uint64_t pairs; /* of a packed line */
} gemm;

static uint64_t parts(uint64_t n, uint64_t size) { return (n + size - 1) / size; }

static void tile_task(void *ctx, uint64_t task, unsigned worker) {
    const gemm *g = ctx;
    (void)worker;
    uint64_t i = task / g->across * g->tile_m;
    uint64_t j = task % g->across * g->tile_n;
    uint64_t m = smaller(g->m - i, g->tile_m);
    uint64_t n = smaller(g->n - j, g->tile_n);
    float *c = g->c + i * g->ldc + j;
    if (g->kernel != NULL) {
        nq_gemm16_tile t = {.add = g->add,
                            .m = m,
                            .n = n,
                            .k = g->k,
                            .ldc = g->ldc,
                            .a = g->packed_a + i * g->pairs,
                            .b = g->packed_b + j * g->pairs,
                            .c = c};
        g->kernel->tile(&t);
        return;
    }
    cblas_sgemm(CblasRowMajor, g->ta ? CblasTrans : CblasNoTrans, g->tb ? CblasTrans : CblasNoTrans,
                (int)m, (int)n, (int)g->k, 1.0F, g->a + (g->ta ? i : i * g->lda), (int)g->lda,
                g->b + (g->tb ? j * g->ldb : j), (int)g->ldb, g->add ? 1.0F : 0.0F, c, (int)g->ldc);
}

static void run_tiles(gemm *g, nq_pool *pool) {
    uint64_t down = parts(g->m, g->tile_m);
    g->tile_n = TILE_N;
    while (g->tile_n > TILE_N_MIN && down * parts(g->n, g->tile_n) < ENOUGH) {
        g->tile_n /= 2;
    }
    g->across = parts(g->n, g->tile_n);
    nq_pool_run(pool, tile_task, g, down * g->across);
}

/* Tasks are PACK lines of A, then of B, by NQ_GEMM16_K numbers. */
static void pack_task(void *ctx, uint64_t task, unsigned worker) {
    const gemm *g = ctx;
    (void)worker;
    uint64_t pieces = parts(g->k, NQ_GEMM16_K);
    uint64_t k0 = task % pieces * NQ_GEMM16_K;
    uint64_t span = task / pieces;
    bool b = span >= parts(g->m, PACK);
    uint64_t line = (b ? span - parts(g->m, PACK) : span) * PACK;
    nq_gemm16_lines l = {.b = b,
                         .along = b ? g->tb : !g->ta,
                         .count = smaller((b ? g->n : g->m) - line, PACK),
                         .k = smaller(g->k - k0, NQ_GEMM16_K),
                         .pairs = g->pairs,
                         .ld = b ? g->ldb : g->lda};
    l.x = (b ? g->b : g->a) + (l.along ? line * l.ld + k0 : k0 * l.ld + line);
    l.to = (b ? g->packed_b : g->packed_a) + line * g->pairs +
           k0 / 2 * (b ? NQ_GEMM16_B : NQ_GEMM16_A);
    g->kernel->pack(&l);
}

/* g's m and n are at most SLAB: as many of k at a time as there is memory for. */
static void run_slab(gemm g, nq_pool *pool) {
    uint64_t k = g.k;
    uint64_t lines = parts(g.m, NQ_GEMM16_LINES) * NQ_GEMM16_LINES;
    uint64_t all = lines + parts(g.n, NQ_GEMM16_LINES) * NQ_GEMM16_LINES;
    uint64_t step = 2 * NQ_HALVES_WORDS / all / NQ_GEMM16_K * NQ_GEMM16_K;
    uint64_t k0 = 0;
    do {
        g.k = smaller(k - k0, step);
        g.pairs = (g.k + 1) / 2;
        g.packed_b = g.packed_a + lines * g.pairs;
        nq_pool_run(pool, pack_task, &g,
                    (parts(g.m, PACK) + parts(g.n, PACK)) * parts(g.k, NQ_GEMM16_K));
        run_tiles(&g, pool);
        g.a += g.k * (g.ta ? g.lda : 1);
        g.b += g.k * (g.tb ? 1 : g.ldb);
        g.add = true;
        k0 += g.k;
    } while (k0 < k);
}

static void run_halves(const gemm *g, nq_pool *pool) {
    for (uint64_t i = 0; i < g->m; i += SLAB) {
        for (uint64_t j = 0; j < g->n; j += SLAB) {
            gemm s = *g;
            s.m = smaller(g->m - i, SLAB);
            s.n = smaller(g->n - j, SLAB);
            s.a += g->ta ? i : i * g->lda;
            s.b += g->tb ? j * g->ldb : j;
            s.c += i * g->ldc + j;
            run_slab(s, pool);
        }
    }
}

void nq_gemm_with(const nq_halves *halves, nq_pool *pool, bool ta, bool tb, uint64_t m, uint64_t n,
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
              .ldc = ldc,
              .tile_m = TILE_M};
    if (m == 0 || n == 0) {
        return;
    }
    if (halves == NULL || halves->kernel == NULL) {
        run_tiles(&g, pool);
        return;
    }
    g.tile_m = TILE16_M;
    g.kernel = halves->kernel;
    g.packed_a = halves->memory;
    run_halves(&g, pool);
}

void nq_gemm(nq_pool *pool, bool ta, bool tb, uint64_t m, uint64_t n, uint64_t k, const float *a,
             uint64_t lda, const float *b, uint64_t ldb, bool add, float *c, uint64_t ldc) {
    nq_gemm_with(NULL, pool, ta, tb, m, n, k, a, lda, b, ldb, add, c, ldc);
}

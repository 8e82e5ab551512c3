/* kern_path.h - the shortest path of kern.h for one register width.
 *
 * Included more than once: by kern_<isa>.c, each time after defining
 *   PATH_NAME     the function this inclusion makes: void NAME(path, chains, n, len)
 *   PATH_NEAREST  (optional) a nearest_pair to make as well
 *   PATH_LANES    nq_path.lanes it is for: 4, 8 or 16
 *   PATH_W        lanes of a register; divides PATH_LANES
 *   PATH_BLOCK    newest symbols worked on together (as many as registers allow)
 *   V             the register type
 *   V_LOAD, V_STORE, V_SET1, V_ADD, V_SUB, V_MUL, V_MIN
 *   V_LESSER      V_MIN of values that are +0 or above: the order of their bits is
 *                 theirs, and integer minima run beside the additions
 *   V_LEAST       the smallest lane, in all lanes
 *   V_LANE0       lane 0
 *   V_EQUAL       bit i set where lane i of both is equal
 *   V_TRANSPOSE   V[PATH_W] in place, a PATH_W x PATH_W block
 * and undefining them itself. No fused operations: see kern_body.h, whose results
 * are the reference. The include guard is lifted at the end.
 */
#ifndef NQ_KERN_KERN_PATH_H
#define NQ_KERN_KERN_PATH_H

#define PATH_CAT2(a, b) a##b
#define PATH_CAT(a, b)  PATH_CAT2(a, b)
#define PATH_FN(name)   PATH_CAT(PATH_NAME, name)
#define PATH_REGS       (PATH_LANES / PATH_W)
#define PATH_UNROLL     _Pragma("GCC unroll 16")

typedef struct PATH_FN(_chain) {
    V least; /* smallest cost of the row before, in all lanes */
    float cost[PATH_LANES * PATH_LANES] __attribute__((aligned(64)));
} PATH_FN(_chain);

/* p[r] = sum over components of x * dual (d, lanes). */
static inline __attribute__((always_inline)) void PATH_FN(_products)(V *p, const float *x,
                                                                     const float *dual,
                                                                     unsigned d) {
    V first = V_SET1(x[0]);
    PATH_UNROLL
    for (unsigned r = 0; r < PATH_REGS; r++) {
        p[r] = V_MUL(first, V_LOAD(dual + r * PATH_W));
    }
    for (unsigned c = 1; c < d; c++) {
        V xc = V_SET1(x[c]);
        PATH_UNROLL
        for (unsigned r = 0; r < PATH_REGS; r++) {
            p[r] = V_ADD(p[r], V_MUL(xc, V_LOAD(dual + c * PATH_LANES + r * PATH_W)));
        }
    }
}

/* The same with the smallest at 0. */
static inline __attribute__((always_inline)) void PATH_FN(_from_zero)(V *p, const float *x,
                                                                      const float *dual,
                                                                      unsigned d) {
    PATH_FN(_products)(p, x, dual, d);
    V least = p[0];
    PATH_UNROLL
    for (unsigned r = 1; r < PATH_REGS; r++) {
        least = V_MIN(p[r], least);
    }
    least = V_LEAST(least);
    PATH_UNROLL
    for (unsigned r = 0; r < PATH_REGS; r++) {
        p[r] = V_SUB(p[r], least);
    }
}

/* in (hi, lo) of this row to history, and turned over to (lo, hi) in turned. */
static inline __attribute__((always_inline)) void PATH_FN(_in3)(float *turned, float *history,
                                                                const PATH_FN(_chain) * s,
                                                                const float *x, float ratio,
                                                                const nq_path *path) {
    V p1[PATH_REGS];
    V p2[PATH_REGS];
    float newest[PATH_LANES] __attribute__((aligned(64)));
    PATH_FN(_from_zero)(p1, x, path->dual + path->d * PATH_LANES, path->d);
    PATH_FN(_from_zero)(p2, x, path->dual + (size_t)2 * path->d * PATH_LANES, path->d);
    PATH_UNROLL
    for (unsigned r = 0; r < PATH_REGS; r++) {
        V_STORE(newest + r * PATH_W, p1[r]);
    }
    V scale = V_SET1(ratio);
    for (unsigned hi = 0; hi < PATH_LANES; hi += PATH_W) {
        PATH_UNROLL
        for (unsigned r = 0; r < PATH_REGS; r++) {
            V block[PATH_W];
            PATH_UNROLL
            for (unsigned i = 0; i < PATH_W; i++) {
                size_t at = (size_t)(hi + i) * PATH_LANES + r * PATH_W;
                V c = V_MUL(V_SUB(V_LOAD(s->cost + at), s->least), scale);
                block[i] = V_ADD(V_ADD(c, p2[r]), V_SET1(newest[hi + i]));
                V_STORE(history + at, block[i]);
            }
            V_TRANSPOSE(block);
            PATH_UNROLL
            for (unsigned i = 0; i < PATH_W; i++) {
                V_STORE(turned + (size_t)(r * PATH_W + i) * PATH_LANES + hi, block[i]);
            }
        }
    }
}

static inline __attribute__((always_inline)) void PATH_FN(_row3)(PATH_FN(_chain) * s,
                                                                 float *history, const float *x,
                                                                 float ratio, const nq_path *path) {
    float turned[PATH_LANES * PATH_LANES] __attribute__((aligned(64)));
    PATH_FN(_in3)(turned, history, s, x, ratio, path);
    V p0[PATH_REGS];
    float newest[PATH_LANES] __attribute__((aligned(64)));
    PATH_FN(_products)(p0, x, path->dual, path->d);
    PATH_UNROLL
    for (unsigned r = 0; r < PATH_REGS; r++) {
        V_STORE(newest + r * PATH_W, p0[r]);
    }
    V least = V_SET1(FLT_MAX);
    for (unsigned r = 0; r < PATH_REGS; r++) {
        V in[PATH_LANES];
        PATH_UNROLL
        for (unsigned lo = 0; lo < PATH_LANES; lo++) {
            in[lo] = V_LOAD(turned + (size_t)lo * PATH_LANES + r * PATH_W);
        }
        for (unsigned b = 0; b < PATH_LANES; b += PATH_BLOCK) {
            const float *pair = path->forward + (size_t)b * PATH_LANES * PATH_LANES + r * PATH_W;
            V best[PATH_BLOCK];
            PATH_UNROLL
            for (unsigned i = 0; i < PATH_BLOCK; i++) {
                best[i] = V_ADD(in[0], V_LOAD(pair + (size_t)i * PATH_LANES * PATH_LANES));
            }
            PATH_UNROLL
            for (unsigned lo = 1; lo < PATH_LANES; lo++) {
                PATH_UNROLL
                for (unsigned i = 0; i < PATH_BLOCK; i++) {
                    const float *at = pair + ((size_t)i * PATH_LANES + lo) * PATH_LANES;
                    best[i] = V_LESSER(V_ADD(in[lo], V_LOAD(at)), best[i]);
                }
            }
            PATH_UNROLL
            for (unsigned i = 0; i < PATH_BLOCK; i++) {
                best[i] = V_ADD(best[i], V_SET1(newest[b + i]));
                V_STORE(s->cost + (size_t)(b + i) * PATH_LANES + r * PATH_W, best[i]);
                least = V_MIN(best[i], least);
            }
        }
    }
    s->least = V_LEAST(least);
}

static inline __attribute__((always_inline)) void PATH_FN(_row2)(PATH_FN(_chain) * s,
                                                                 float *history, const float *x,
                                                                 float ratio, const nq_path *path) {
    V p0[PATH_REGS];
    V p1[PATH_REGS];
    PATH_FN(_products)(p0, x, path->dual, path->d);
    PATH_FN(_from_zero)(p1, x, path->dual + path->d * PATH_LANES, path->d);
    V scale = V_SET1(ratio);
    PATH_UNROLL
    for (unsigned r = 0; r < PATH_REGS; r++) {
        V c = V_MUL(V_SUB(V_LOAD(s->cost + r * PATH_W), s->least), scale);
        V_STORE(history + r * PATH_W, V_ADD(c, p1[r]));
    }
    V least = V_SET1(FLT_MAX);
    PATH_UNROLL
    for (unsigned r = 0; r < PATH_REGS; r++) {
        V best[4]; /* four short chains of minima */
        PATH_UNROLL
        for (unsigned lo = 0; lo < PATH_LANES; lo++) {
            const float *pair = path->forward + (size_t)lo * PATH_LANES + r * PATH_W;
            V t = V_ADD(V_SET1(history[lo]), V_LOAD(pair));
            best[lo % 4] = lo < 4 ? t : V_LESSER(t, best[lo % 4]);
        }
        V c = V_ADD(V_LESSER(V_LESSER(best[0], best[1]), V_LESSER(best[2], best[3])), p0[r]);
        V_STORE(s->cost + r * PATH_W, c);
        least = V_MIN(c, least);
    }
    s->least = V_LEAST(least);
}

/* The first of LANES sums that is the smallest. */
static inline __attribute__((always_inline)) unsigned PATH_FN(_first)(const float *a,
                                                                      const float *b) {
    V sum[PATH_REGS];
    V least;
    PATH_UNROLL
    for (unsigned r = 0; r < PATH_REGS; r++) {
        sum[r] = V_ADD(V_LOAD(a + r * PATH_W), V_LOAD(b + r * PATH_W));
        least = r == 0 ? sum[0] : V_LESSER(sum[r], least);
    }
    least = V_LEAST(least);
    unsigned equal = 0;
    PATH_UNROLL
    for (unsigned r = 0; r < PATH_REGS; r++) {
        equal |= V_EQUAL(sum[r], least) << (r * PATH_W);
    }
    return equal == 0 ? 0U : (unsigned)__builtin_ctz(equal);
}

static inline __attribute__((always_inline)) void PATH_FN(_trace)(const nq_path *path,
                                                                  const nq_path_chain *chains,
                                                                  unsigned n, uint64_t len,
                                                                  PATH_FN(_chain) * s,
                                                                  unsigned levels) {
    unsigned hi[2];
    unsigned b[2];
    size_t row = levels == 3 ? PATH_LANES * PATH_LANES : PATH_LANES;
    for (unsigned c = 0; c < n; c++) {
        body_path_end(&hi[c], &b[c], s[c].cost, PATH_LANES, levels);
    }
    for (uint64_t t = len; t-- > 0;) {
        for (unsigned c = 0; c < n; c++) {
            size_t state = levels == 3 ? (size_t)hi[c] * PATH_LANES + b[c] : b[c];
            unsigned lo = PATH_FN(_first)(chains[c].history + t * row + (size_t)hi[c] * PATH_LANES,
                                          path->back + state * PATH_LANES);
            chains[c].symbols[t] = (uint8_t)b[c];
            b[c] = levels == 3 ? hi[c] : lo;
            hi[c] = levels == 3 ? lo : 0;
        }
    }
}

static inline __attribute__((always_inline)) void PATH_FN(_run)(const nq_path *path,
                                                                const nq_path_chain *chains,
                                                                unsigned n, uint64_t len,
                                                                unsigned levels) {
    PATH_FN(_chain) s[2];
    size_t row = levels == 3 ? PATH_LANES * PATH_LANES : PATH_LANES;
    for (unsigned c = 0; c < n; c++) {
        s[c].least = V_SET1(0.0F);
        body_path_start(s[c].cost, PATH_LANES, levels);
    }
    for (uint64_t t = 0; t < len; t++) {
        for (unsigned c = 0; c < n; c++) {
            const float *x = chains[c].x + t * path->d;
            float ratio = chains[c].ratio == NULL || t == 0 ? 1.0F : chains[c].ratio[t];
            float *history = chains[c].history + t * row;
            if (levels == 3) {
                PATH_FN(_row3)(&s[c], history, x, ratio, path);
            } else {
                PATH_FN(_row2)(&s[c], history, x, ratio, path);
            }
        }
    }
    PATH_FN(_trace)(path, chains, n, len, s, levels);
}

static void PATH_NAME(const nq_path *path, const nq_path_chain *chains, unsigned n, uint64_t len) {
    for (; n >= 2; n -= 2, chains += 2) {
        if (path->levels == 3) {
            PATH_FN(_run)(path, chains, 2, len, 3);
        } else {
            PATH_FN(_run)(path, chains, 2, len, 2);
        }
    }
    if (n == 1) {
        if (path->levels == 3) {
            PATH_FN(_run)(path, chains, 1, len, 3);
        } else {
            PATH_FN(_run)(path, chains, 1, len, 2);
        }
    }
}

#ifdef PATH_NEAREST
/* nearest_pair: columns in registers, the rest one by one. */
static void PATH_NEAREST(unsigned *best, const float *pa, const float *pb, const float *pair,
                         unsigned ka, unsigned kb) {
    float cost[256] __attribute__((aligned(64)));
    unsigned whole = kb / PATH_W * PATH_W;
    V lanes = V_SET1(FLT_MAX);
    for (unsigned b = 0; b < whole; b += PATH_W) {
        V second = V_LOAD(pb + b);
        V m = V_ADD(V_ADD(V_SET1(pa[0]), V_LOAD(pair + b)), second);
        for (unsigned a = 1; a < ka; a++) {
            const float *row = pair + (size_t)a * kb + b;
            m = V_MIN(V_ADD(V_ADD(V_SET1(pa[a]), V_LOAD(row)), second), m);
        }
        V_STORE(cost + b, m);
        lanes = V_MIN(m, lanes);
    }
    lanes = V_LEAST(lanes);
    float least = V_LANE0(lanes);
    for (unsigned b = whole; b < kb; b++) {
        cost[b] = body_nearest_column(pa, pb[b], pair + b, ka, kb);
        least = cost[b] < least ? cost[b] : least;
    }
    best[0] = ka;
    best[1] = 0;
    lanes = V_SET1(least);
    for (unsigned b = 0; b < whole; b += PATH_W) {
        for (unsigned hits = V_EQUAL(V_LOAD(cost + b), lanes); hits != 0; hits &= hits - 1) {
            unsigned at = b + (unsigned)__builtin_ctz(hits);
            body_nearest_offer(best, at, least, pa, pb[at], pair, ka, kb);
        }
    }
    for (unsigned b = whole; b < kb; b++) {
        if (cost[b] == least) {
            body_nearest_offer(best, b, least, pa, pb[b], pair, ka, kb);
        }
    }
    best[0] = best[0] < ka ? best[0] : 0; /* nothing equals a NaN */
}
#undef PATH_NEAREST
#endif

#undef PATH_CAT2
#undef PATH_CAT
#undef PATH_FN
#undef PATH_REGS
#undef PATH_UNROLL
#undef PATH_NAME
#undef PATH_LANES
#undef PATH_W
#undef PATH_BLOCK
#undef V
#undef V_LOAD
#undef V_STORE
#undef V_SET1
#undef V_ADD
#undef V_SUB
#undef V_MUL
#undef V_MIN
#undef V_LESSER
#undef V_LEAST
#undef V_EQUAL
#undef V_LANE0
#undef V_TRANSPOSE
#undef NQ_KERN_KERN_PATH_H

#endif

/* test_attention.c - attention over the cache against a reference in double: every
 * cache type, grouped queries, widths, windows, soft-capped scores, several
 * sequences, feeds in pieces; and its kernels against definitions. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "attn_check.h"
#include "base/cpu.h"
#include "base/mem.h"
#include "model/attention.h"

/* ---- kernels ------------------------------------------------------------------ */

static unsigned variants(const nq_attn_kern *out[NQ_CPU_LEVELS]) {
    unsigned levels[NQ_CPU_LEVELS];
    unsigned have = nq_cpu_levels(levels);
    unsigned n = 0;
    for (unsigned i = 0; i < have; i++) {
        const nq_attn_kern *kern = nq_attn_for(levels[i]);
        if (n == 0 || out[n - 1] != kern) { /* a level may add nothing here */
            out[n++] = kern;
        }
    }
    return n;
}

static void expect_none(unsigned (*check)(const nq_attn_kern *)) {
    const nq_attn_kern *v[NQ_CPU_LEVELS];
    unsigned n = variants(v);
    for (unsigned i = 0; i < n; i++) {
        unsigned failed = check(v[i]);
        if (failed != 0) {
            print_error("%s: %u comparisons failed\n", v[i]->name, failed);
        }
        assert_int_equal(failed, 0);
    }
}

static void products_agree(void **state) {
    (void)state;
    expect_none(check_attn_products);
}

static void turned_keys_agree(void **state) {
    (void)state;
    expect_none(check_attn_turn);
}

static void softmax_pieces_agree(void **state) {
    (void)state;
    expect_none(check_attn_softmax);
}

static void storage_agrees(void **state) {
    (void)state;
    expect_none(check_attn_storage);
}

/* ---- the reference -------------------------------------------------------------- */

typedef struct shape {
    nq_kv_shape kv;
    uint32_t window;
    float softcap;
    bool turn;
    bool gaps; /* rows of q, k and v lie apart */
} shape;

/* Everything of one run: inputs (tokens of all sequences, their positions in order)
 * and what came out. */
typedef struct scene {
    shape s;
    uint32_t tokens; /* of a sequence */
    nq_rope rope;
    float *q; /* (sequences, tokens, heads, head_dim) */
    float *k; /* (sequences, tokens, heads_kv, head_dim) */
    float *v;
    float *out; /* as q */
} scene;

static void *fresh(uint64_t n, uint64_t size) {
    void *p = NULL;
    assert_int_equal(nq_alloc(&p, n, size, NULL), NOVAQ_OK);
    return p;
}

static void scene_open(scene *c, const shape *s, uint32_t tokens) {
    uint64_t rows = (uint64_t)s->kv.sequences * tokens;
    uint64_t wide = (uint64_t)s->kv.heads * s->kv.head_dim;
    uint64_t narrow = (uint64_t)s->kv.heads_kv * s->kv.head_dim;
    *c = (scene){.s = *s, .tokens = tokens};
    c->q = fresh(rows * wide, sizeof(float));
    c->out = fresh(rows * wide, sizeof(float));
    c->k = fresh(rows * narrow, sizeof(float));
    c->v = fresh(rows * narrow, sizeof(float));
    for (uint64_t i = 0; i < rows * wide; i++) {
        c->q[i] = (float)nq_normal(31, 1, i);
    }
    for (uint64_t i = 0; i < rows * narrow; i++) {
        c->k[i] = (float)nq_normal(31, 2, i) * (i % 50 == 0 ? 4.0F : 1.0F);
        c->v[i] = (float)nq_normal(31, 3, i);
    }
    nq_rope_spec spec = {.dim = s->kv.head_dim / 2 * 2, .half = true, .theta = 10000.0};
    assert_int_equal(nq_rope_open(&c->rope, &spec, s->kv.n_ctx, NULL), NOVAQ_OK);
}

static void scene_close(scene *c) {
    nq_rope_close(&c->rope);
    nq_free(c->q);
    nq_free(c->k);
    nq_free(c->v);
    nq_free(c->out);
}

/* Copies rows position..position+count-1 of all sequences, `width` floats each, to
 * rows `stride` apart. */
static float *gathered(const scene *c, const float *from, uint64_t width, uint64_t stride,
                       uint32_t position, uint32_t count) {
    float *to = fresh(c->s.kv.sequences * (uint64_t)count * stride, sizeof(float));
    for (uint64_t r = 0; r < (uint64_t)c->s.kv.sequences * count; r++) {
        uint64_t row = r / count * c->tokens + position + r % count;
        memcpy(to + r * stride, from + row * width, width * sizeof(float));
    }
    return to;
}

static void feed(scene *c, nq_kv *kv, uint32_t position, uint32_t count) {
    const nq_kv_shape *s = &c->s.kv;
    uint64_t wide = (uint64_t)s->heads * s->head_dim;
    uint64_t narrow = (uint64_t)s->heads_kv * s->head_dim;
    nq_attention a = {.layer = s->layers - 1,
                      .sequences = s->sequences,
                      .count = count,
                      .position = position,
                      .window = c->s.window,
                      .scale = 1.0F / sqrtf((float)s->head_dim),
                      .softcap = c->s.softcap,
                      .rope = c->s.turn ? &c->rope : NULL,
                      .q_stride = wide + (c->s.gaps ? 24 : 0),
                      .kv_stride = narrow + (c->s.gaps ? 40 : 0)};
    float *k = gathered(c, c->k, narrow, a.kv_stride, position, count);
    float *v = gathered(c, c->v, narrow, a.kv_stride, position, count);
    float *q = gathered(c, c->q, wide, a.q_stride, position, count);
    float *out = fresh((uint64_t)s->sequences * count * wide, sizeof(float));
    a.k = k;
    a.v = v;
    a.q = q;
    a.out = out;
    nq_attention_run(kv, &a);
    for (uint64_t r = 0; r < (uint64_t)s->sequences * count; r++) {
        uint64_t row = r / count * c->tokens + position + r % count;
        memcpy(c->out + row * wide, out + r * wide, wide * sizeof(float));
    }
    nq_free(k);
    nq_free(v);
    nq_free(q);
    nq_free(out);
}

/* Feeds all tokens, `first` at once, then `step` at a time. */
static void run_scene(scene *c, uint32_t first, uint32_t step, unsigned threads) {
    nq_pool *pool = NULL;
    nq_kv *kv = NULL;
    if (threads > 0) {
        assert_int_equal(nq_pool_open(&pool, threads, NULL), NOVAQ_OK);
    }
    assert_int_equal(nq_kv_open(&kv, &c->s.kv, pool, NULL), NOVAQ_OK);
    for (uint32_t at = 0; at < c->tokens;) {
        uint32_t count = at == 0 ? first : step;
        count = c->tokens - at < count ? c->tokens - at : count;
        feed(c, kv, at, count);
        at += count;
    }
    nq_kv_close(&kv);
    nq_pool_close(&pool);
}

/* What a cache of this type keeps of x. */
static void keep(float *x, uint32_t n, nq_kv_type type) {
    float most = 0;
    for (uint32_t i = 0; i < n; i++) {
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (type == NQ_KV_F16) {
            x[i] = nq_f16_to_f32(nq_f32_to_f16(x[i]));
        } else if (type == NQ_KV_Q8 && most > 0) {
            x[i] = rintf(x[i] * (127.0F / most)) * (most / 127.0F);
        }
    }
}

/* Keys and values as stored, (sequences, tokens, heads_kv, head_dim). */
static void stored(const scene *c, float *k, float *v, nq_kv_type type) {
    const nq_kv_shape *s = &c->s.kv;
    uint64_t heads = (uint64_t)s->sequences * c->tokens * s->heads_kv;
    memcpy(k, c->k, heads * s->head_dim * sizeof(float));
    memcpy(v, c->v, heads * s->head_dim * sizeof(float));
    for (uint64_t h = 0; h < heads; h++) {
        if (c->s.turn) {
            nq_rope_turn(&c->rope, k + h * s->head_dim, (uint32_t)(h / s->heads_kv % c->tokens));
        }
        keep(k + h * s->head_dim, s->head_dim, type);
        keep(v + h * s->head_dim, s->head_dim, type);
    }
}

/* One head at one position, all keys at once, in double. */
static void exact_head(double *out, const scene *c, const float *k, const float *v,
                       uint32_t sequence, uint32_t position, uint32_t head) {
    const nq_kv_shape *s = &c->s.kv;
    uint32_t dim = s->head_dim;
    float q[512];
    double w[4096];
    uint64_t row = (uint64_t)sequence * c->tokens + position;
    memcpy(q, c->q + (row * s->heads + head) * dim, dim * sizeof(float));
    if (c->s.turn) {
        nq_rope_turn(&c->rope, q, position);
    }
    double sum = 0;
    uint32_t first = c->s.window == 0 || position < c->s.window ? 0 : position - c->s.window + 1;
    uint64_t group = head / (s->heads / s->heads_kv);
    memset(out, 0, dim * sizeof *out);
    for (uint32_t j = first; j <= position; j++) {
        uint64_t at = (((uint64_t)sequence * c->tokens + j) * s->heads_kv + group) * dim;
        double score = 0;
        for (uint32_t i = 0; i < dim; i++) {
            score += (double)q[i] * (double)k[at + i];
        }
        score /= sqrt((double)dim);
        if (c->s.softcap > 0) {
            score = (double)c->s.softcap * tanh(score / (double)c->s.softcap);
        }
        w[j] = exp(score);
        sum += w[j];
    }
    for (uint32_t j = first; j <= position; j++) {
        uint64_t at = (((uint64_t)sequence * c->tokens + j) * s->heads_kv + group) * dim;
        for (uint32_t i = 0; i < dim; i++) {
            out[i] += w[j] / sum * (double)v[at + i];
        }
    }
}

/* The largest difference from the reference that keeps keys and values as `type`. */
static double largest_error(const scene *c, nq_kv_type type) {
    const nq_kv_shape *s = &c->s.kv;
    uint64_t n = (uint64_t)s->sequences * c->tokens * s->heads_kv * s->head_dim;
    float *k = fresh(n, sizeof(float));
    float *v = fresh(n, sizeof(float));
    double exact[512];
    double worst = 0;
    stored(c, k, v, type);
    for (uint32_t sequence = 0; sequence < s->sequences; sequence++) {
        /* The reference is slow: the first positions, then some, the last among them. */
        for (uint32_t position = 0; position < c->tokens; position++) {
            if (position > 70 && (c->tokens - 1 - position) % 11 != 0) {
                continue;
            }
            for (uint32_t head = 0; head < s->heads; head++) {
                uint64_t row = (uint64_t)sequence * c->tokens + position;
                uint64_t at = (row * s->heads + head) * s->head_dim;
                exact_head(exact, c, k, v, sequence, position, head);
                for (uint32_t i = 0; i < s->head_dim; i++) {
                    double error = fabs((double)c->out[at + i] - exact[i]);
                    worst = error <= worst ? worst : error; /* keeps a NaN */
                }
            }
        }
    }
    nq_free(k);
    nq_free(v);
    return worst;
}

/* Against what is kept, rounding of floats only; against what was given, what each
 * type documents (values of size 1 to 4). */
static void expect_close(const scene *c, const char *what) {
    static const double lost[] = {1e-5, 4e-3, 6e-2};
    double error = largest_error(c, c->s.kv.type);
    double total = largest_error(c, NQ_KV_F32);
    if (!(error < 1e-5) || !(total < lost[c->s.kv.type])) {
        print_error("%s: off by %g, %g in all (type %d, %u/%u heads of %u)\n", what, error, total,
                    (int)c->s.kv.type, c->s.kv.heads, c->s.kv.heads_kv, c->s.kv.head_dim);
    }
    assert_true(error < 1e-5);
    assert_true(total < lost[c->s.kv.type]);
}

static shape shape_of(uint32_t heads, uint32_t heads_kv, uint32_t dim, nq_kv_type type) {
    return (shape){.kv = {.layers = 2,
                          .sequences = 1,
                          .n_ctx = 128,
                          .heads = heads,
                          .heads_kv = heads_kv,
                          .head_dim = dim,
                          .block = 128,
                          .type = type},
                   .turn = true};
}

/* ---- shapes ----------------------------------------------------------------------- */

static const nq_kv_type types[] = {NQ_KV_F32, NQ_KV_F16, NQ_KV_Q8};

static void widths_and_groups(void **state) {
    (void)state;
    static const uint32_t dims[] = {32, 40, 64, 80, 96, 104, 128, 192, 256, 2};
    static const uint32_t groups[] = {1, 3, 8, 20};
    for (size_t t = 0; t < 3; t++) {
        for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++) {
            uint32_t group = groups[(d + t) % 4];
            shape s = shape_of(2 * group, 2, dims[d], types[t]);
            scene c;
            scene_open(&c, &s, 37);
            run_scene(&c, 37, 1, 0);
            expect_close(&c, "at once");
            run_scene(&c, 1, 1, 0);
            expect_close(&c, "one by one");
            scene_close(&c);
        }
    }
}

static void pieces_and_sequences(void **state) {
    (void)state;
    for (size_t t = 0; t < 3; t++) {
        shape s = shape_of(6, 2, 48, types[t]);
        s.kv.sequences = 3;
        s.gaps = true;
        s.turn = t != 1;
        scene c;
        scene_open(&c, &s, 101);
        for (uint32_t step = 1; step < 60; step = step * 2 + 1) {
            run_scene(&c, 17, step, 2);
            expect_close(&c, "in pieces");
        }
        scene_close(&c);
    }
}

static void windows_and_caps(void **state) {
    (void)state;
    static const uint32_t windows[] = {1, 7, 64, 300};
    for (size_t t = 0; t < 3; t++) {
        for (size_t i = 0; i < 4; i++) {
            shape s = shape_of(4, 1, 32, types[t]);
            s.kv.n_ctx = 700;
            s.kv.block = 256;
            s.window = windows[i];
            s.softcap = i % 2 == 0 ? 5.0F : 0.0F;
            scene c;
            scene_open(&c, &s, 700);
            run_scene(&c, 256, 222, 0);
            expect_close(&c, "window, in blocks");
            run_scene(&c, 256, 1, 0);
            expect_close(&c, "window, one by one");
            scene_close(&c);
        }
    }
}

static void long_context(void **state) {
    (void)state;
    for (size_t t = 0; t < 3; t++) {
        shape s = shape_of(8, 1, 32, types[t]);
        s.kv.n_ctx = 1500;
        s.kv.block = 1490;
        scene c;
        scene_open(&c, &s, 1500);
        run_scene(&c, 1490, 1, 2);
        expect_close(&c, "long");
        scene_close(&c);
    }
}

/* Scores far apart: a running maximum that grows late, and weights of zero. */
static void large_scores(void **state) {
    (void)state;
    for (size_t t = 0; t < 3; t++) {
        shape s = shape_of(4, 2, 64, types[t]);
        s.kv.n_ctx = 600;
        s.kv.block = 600;
        s.turn = false;
        scene c;
        scene_open(&c, &s, 600);
        for (uint32_t i = 0; i < 600 * 2 * 64; i++) {
            c.k[i] *= (float)(i / 128) / 100.0F; /* later keys are larger */
        }
        run_scene(&c, 580, 1, 0);
        assert_true(largest_error(&c, types[t]) < 3e-5); /* of scores up to 100 */
        scene_close(&c);
    }
}

/* ---- promises ----------------------------------------------------------------------- */

static void threads_do_not_matter(void **state) {
    (void)state;
    for (size_t t = 0; t < 3; t++) {
        shape s = shape_of(6, 2, 64, types[t]);
        s.kv.sequences = 2;
        s.kv.n_ctx = 1100;
        s.kv.block = 1095;
        s.window = t == 2 ? 600 : 0;
        uint64_t n = 2ULL * 1100 * 6 * 64;
        scene c;
        scene_open(&c, &s, 1100);
        run_scene(&c, 1095, 1, 1);
        float *one = fresh(n, sizeof(float));
        memcpy(one, c.out, n * sizeof(float));
        for (unsigned threads = 2; threads <= 3; threads++) {
            memset(c.out, 0, n * sizeof(float));
            run_scene(&c, 1095, 1, threads);
            assert_memory_equal(one, c.out, n * sizeof(float));
        }
        nq_free(one);
        scene_close(&c);
    }
}

static void sizes(void **state) {
    (void)state;
    nq_kv_shape s = shape_of(4, 2, 72, NQ_KV_F16).kv;
    assert_int_equal(nq_kv_bytes(&s), 2ULL * 1 * 2 * 128 * 2 * 80 * 2);
    s.type = NQ_KV_Q8;
    assert_int_equal(nq_kv_bytes(&s), 2ULL * 1 * 2 * 128 * 2 * (80 + 4));
    s.layers = s.sequences = s.n_ctx = UINT32_MAX;
    assert_true(nq_kv_bytes(&s) == UINT64_MAX);
    nq_kv *kv = NULL;
    assert_int_equal(nq_kv_open(&kv, &s, NULL, NULL), NOVAQ_E_MEMORY);
    assert_null(kv);
    s = shape_of(5, 2, 64, NQ_KV_F16).kv;
    assert_int_equal(nq_kv_open(&kv, &s, NULL, NULL), NOVAQ_E_ARG);
    assert_null(kv);
}

/* A context of gigabytes costs what is used of it. */
static void unused_positions_cost_nothing(void **state) {
    (void)state;
    shape s = shape_of(32, 4, 64, NQ_KV_F16);
    s.kv.layers = 22;
    s.kv.n_ctx = 131072;
    nq_kv *kv = NULL;
    assert_int_equal(nq_kv_open(&kv, &s.kv, NULL, NULL), NOVAQ_OK);
    assert_true(nq_kv_bytes(&s.kv) > 2ULL << 30);
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;
    if (f != NULL) {
        assert_int_equal(fscanf(f, "%*u %lu", &pages), 1);
        assert_int_equal(fclose(f), 0);
    }
    assert_true(pages < (512UL << 20) / 4096);
    nq_kv_close(&kv);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_agree),
        cmocka_unit_test(turned_keys_agree),
        cmocka_unit_test(softmax_pieces_agree),
        cmocka_unit_test(storage_agrees),
        cmocka_unit_test(widths_and_groups),
        cmocka_unit_test(pieces_and_sequences),
        cmocka_unit_test(windows_and_caps),
        cmocka_unit_test(long_context),
        cmocka_unit_test(large_scores),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(sizes),
        cmocka_unit_test(unused_positions_cost_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

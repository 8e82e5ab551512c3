/* test_kern.c - every kernel variant this machine can run against the scalar
 * reference, on random and edge fills. Encoding kernels must agree bit for bit:
 * artifacts depend on them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "base/rng.h"
#include "kern/kern.h"

#define ROUNDS 40

static unsigned variants(const nq_kern *out[4]) {
    static const unsigned masks[] = {NQ_CPU_AVX2, NQ_CPU_AVX2 | NQ_CPU_AVX512};
    unsigned have = nq_cpu_features();
    unsigned n = 0;
    for (size_t i = 0; i < sizeof masks / sizeof masks[0]; i++) {
        if ((have & masks[i]) == masks[i]) {
            out[n++] = nq_kern_for(masks[i]);
        }
    }
    return n;
}

/* Fill 0: random; 1: all equal (ties everywhere); 2: large and small mixed. */
static float fill_value(int kind, uint64_t stream, uint64_t i) {
    if (kind == 1) {
        return 0.25F;
    }
    float x = (float)nq_normal(5, stream, i);
    return kind == 2 ? x * ldexpf(1.0F, (int)(nq_hash3(6, stream, i) % 40) - 20) : x;
}

static void trellis_step_agrees(void **state) {
    (void)state;
    const nq_kern *v[4];
    unsigned n = variants(v);
    static float in[256], pair[4096], p0[16], want[256], got[256];
    uint8_t back_want[256], back_got[256];
    for (uint64_t round = 0; round < ROUNDS; round++) {
        unsigned k = (unsigned[]){16, 8, 4, 13}[round % 4];
        unsigned nhi = (round / 4) % 2 == 0 ? 1 : k;
        int kind = (int)(round % 3);
        for (unsigned i = 0; i < nhi * k; i++) {
            in[i] = i % 7 == 3 && kind == 2 ? 1e30F : fill_value(kind, round, i);
        }
        for (unsigned i = 0; i < nhi * k * k; i++) {
            pair[i] = fill_value(kind, round + 1000, i);
        }
        for (unsigned i = 0; i < k; i++) {
            p0[i] = fill_value(kind, round + 2000, i);
        }
        float least = nq_kern_scalar.trellis_step(want, back_want, in, pair, p0, nhi, k);
        for (unsigned i = 0; i < n; i++) {
            float m = v[i]->trellis_step(got, back_got, in, pair, p0, nhi, k);
            assert_memory_equal(&m, &least, sizeof m);
            assert_memory_equal(got, want, nhi * k * sizeof(float));
            assert_memory_equal(back_got, back_want, nhi * k);
        }
    }
}

static void nearest_pair_agrees(void **state) {
    (void)state;
    const nq_kern *v[4];
    unsigned n = variants(v);
    static float pa[256], pb[256], pair[4096];
    for (uint64_t round = 0; round < ROUNDS; round++) {
        unsigned ka = 2 + (unsigned)(nq_hash3(1, 1, round) % 60);
        unsigned kb = 1 + (unsigned)(nq_hash3(1, 2, round) % 60);
        for (unsigned i = 0; i < ka * kb; i++) {
            pa[i % ka] = fill_value((int)(round % 3), round, i % ka);
            pb[i % kb] = fill_value((int)(round % 3), round + 50, i % kb);
            pair[i] = fill_value((int)(round % 3), round + 99, i);
        }
        unsigned want[2], got[2];
        nq_kern_scalar.nearest_pair(want, pa, pb, pair, ka, kb);
        /* The reference itself against the definition. */
        for (unsigned a = 0; a < ka; a++) {
            for (unsigned b = 0; b < kb; b++) {
                assert_true(pa[a] + pair[a * kb + b] + pb[b] >=
                            pa[want[0]] + pair[want[0] * kb + want[1]] + pb[want[1]]);
            }
        }
        for (unsigned i = 0; i < n; i++) {
            v[i]->nearest_pair(got, pa, pb, pair, ka, kb);
            assert_memory_equal(got, want, sizeof want);
        }
    }
}

static void hadamard_agrees(void **state) {
    (void)state;
    const nq_kern *v[4];
    unsigned n = variants(v);
    float x[512], want[512], got[512];
    for (uint32_t size = 16; size <= 512; size *= 2) {
        for (uint32_t i = 0; i < size; i++) {
            x[i] = fill_value((int)(size % 3), size, i);
        }
        memcpy(want, x, sizeof want);
        nq_kern_scalar.hadamard(want, size, 0.125F);
        for (unsigned i = 0; i < n; i++) {
            memcpy(got, x, sizeof got);
            v[i]->hadamard(got, size, 0.125F);
            assert_memory_equal(got, want, size * sizeof(float));
        }
    }
}

static void lookups_agree(void **state) {
    (void)state;
    const nq_kern *v[4];
    unsigned n = variants(v);
    uint8_t bytes[16 * 7], want_symbols[32 * 7], got_symbols[32 * 7];
    int8_t table[16], want[224], got[224];
    for (uint64_t round = 0; round < ROUNDS; round++) {
        uint64_t units = round % 8;
        for (uint64_t i = 0; i < sizeof bytes; i++) {
            bytes[i] = (uint8_t)nq_hash3(round, 1, i);
        }
        for (uint64_t i = 0; i < 16; i++) {
            table[i] = (int8_t)(nq_hash3(round, 2, i) % 81 - 40);
        }
        nq_kern_scalar.unpack4(want_symbols, bytes, units);
        uint64_t count = units * 32 > 5 ? units * 32 - round % 5 : 0;
        memset(want, 3, sizeof want);
        nq_kern_scalar.lut16(want, want_symbols, table, count, (int)(round % 2));
        for (unsigned i = 0; i < n; i++) {
            v[i]->unpack4(got_symbols, bytes, units);
            assert_memory_equal(got_symbols, want_symbols, units * 32);
            memset(got, 3, sizeof got);
            v[i]->lut16(got, want_symbols, table, count, (int)(round % 2));
            assert_memory_equal(got, want, sizeof want);
        }
    }
}

static void dot_products_agree(void **state) {
    (void)state;
    const nq_kern *v[4];
    unsigned n = variants(v);
    static int8_t a[700];
    static float f[700], x[700];
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
        for (unsigned i = 0; i <= n; i++) {
            const nq_kern *k = i < n ? v[i] : &nq_kern_scalar;
            assert_true(fabs((double)k->dot_i8(a, x, len) - exact_i8) < 1e-5 * size);
            assert_true(fabs((double)k->dot_f32(f, x, len) - exact_f32) < 1e-5 * size);
        }
    }
}

int main(void) {
    const nq_kern *v[4];
    printf("variants beside scalar: %u\n", variants(v));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trellis_step_agrees), cmocka_unit_test(nearest_pair_agrees),
        cmocka_unit_test(hadamard_agrees),     cmocka_unit_test(lookups_agree),
        cmocka_unit_test(dot_products_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

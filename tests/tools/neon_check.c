/* neon_check.c - the AArch64 kernels against the scalar reference, for an emulator:
 * no test library, nothing to link but libc. Exit status 0 when all agree. */
#include <stdio.h>

#define PRODUCT_STEP 5 /* an emulator is slow */

#include "../unit/attn_check.h"
#include "../unit/gemv_check.h"
#include "../unit/kern_check.h"
#include "base/cpu.h"

static int report(const char *name, unsigned failed) {
    printf("%s: %s (%u comparisons failed)\n", name, failed == 0 ? "ok" : "FAILED", failed);
    return failed != 0;
}

static int check_attention(void) {
    const nq_attn_kern *kern = nq_attn_best();
    int bad = kern == &nq_attn_scalar;
    bad |= report("attention products", check_attn_products(kern));
    bad |= report("attention turned keys", check_attn_turn(kern));
    bad |= report("attention softmax", check_attn_softmax(kern));
    return bad | report("attention storage", check_attn_storage(kern));
}

/* Both tables: the emulator has what the second one needs. */
static int check_gemv(void) {
    const nq_gemv_kern *kerns[] = {&nq_gemv_neon, nq_gemv_for(nq_cpu_features())};
    int bad = 0;
    for (unsigned i = 0; i < 2; i++) {
        printf("products: %s\n", kerns[i]->name);
        bad |= report("products with coded weights", check_products(kerns[i]));
        bad |= report("rows of bytes", check_i8(kerns[i]));
        bad |= report("rows of one or two fields", check_fields(kerns[i]));
        bad |= report("dot products of half floats", check_half_dots(kerns[i]));
        bad |= report("dot products of Q8_0", check_q8_0_dots(kerns[i]));
    }
    return bad;
}

int main(void) {
    const nq_kern *kern = nq_kern_best();
    const struct {
        const char *name;
        unsigned (*check)(const nq_kern *);
    } checks[] = {
        {"shortest_path", check_paths},       {"nearest_pair", check_nearest_pair},
        {"hadamard", check_hadamard},         {"unpack, lut", check_lookups},
        {"dot products", check_dot_products},
    };
    int bad = kern == &nq_kern_scalar;
    printf("variant: %s\n", kern->name);
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        bad |= report(checks[i].name, checks[i].check(kern));
    }
    return bad | check_attention() | check_gemv();
}

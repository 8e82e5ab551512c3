/* neon_check.c - the AArch64 kernels against the scalar reference, for an emulator:
 * no test library, nothing to link but libc. Exit status 0 when all agree. */
#include <stdio.h>

#include "../unit/kern_check.h"
#include "base/cpu.h"

int main(void) {
    const nq_kern *kern = nq_kern_best();
    const struct {
        const char *name;
        unsigned (*check)(const nq_kern *);
    } checks[] = {
        {"shortest_path", check_paths},       {"nearest_pair", check_nearest_pair},
        {"hadamard", check_hadamard},         {"unpack4, lut16", check_lookups},
        {"dot products", check_dot_products},
    };
    int bad = kern == &nq_kern_scalar;
    printf("variant: %s\n", kern->name);
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        unsigned failed = checks[i].check(kern);
        printf("%s: %s (%u comparisons failed)\n", checks[i].name, failed == 0 ? "ok" : "FAILED",
               failed);
        bad |= failed != 0;
    }
    return bad;
}

/* rotate.c - see rotate.h. Plain C in a fixed order: the same bits everywhere. */
#include "quant/rotate.h"

#include "base/rng.h"
#include "kern/kern.h"

#define NQ_ROTATION_MAX 512
#define NQ_ROTATION_MIN 16

uint32_t nq_rotation_block(uint64_t cols) {
    uint32_t block = NQ_ROTATION_MAX;
    while (block >= NQ_ROTATION_MIN && cols % block != 0) {
        block /= 2;
    }
    return block >= NQ_ROTATION_MIN && cols > 0 ? block : 0;
}

float nq_rotation_sign(const nq_rotation *r, uint64_t cols, uint64_t j) {
    return (nq_hash3(r->seed, cols, j) & 1U) != 0 ? -1.0F : 1.0F;
}

/* 1/sqrt(block) as binary32, for the powers of two 16..512: written out so that
 * no math library decides a bit. */
static float inverse_root(uint32_t block) {
    switch (block) {
    case 16: return 0.25F;
    case 32: return 0.176776695F;
    case 64: return 0.125F;
    case 128: return 0.0883883476F;
    case 256: return 0.0625F;
    default: return 0.0441941738F;
    }
}

static void flip_signs(float *x, const nq_rotation *r, uint64_t count, uint64_t cols) {
    for (uint64_t j = 0; j < cols; j++) {
        if (nq_rotation_sign(r, cols, j) < 0) {
            for (uint64_t i = 0; i < count; i++) {
                x[i * cols + j] = -x[i * cols + j];
            }
        }
    }
}

void nq_rotate_mix(float *x, const nq_rotation *r, uint64_t count, uint64_t cols) {
    const nq_kern *kern = nq_kern_best();
    float scale = inverse_root(r->block);
    for (uint64_t i = 0; i < count; i++) {
        for (uint64_t b = 0; b < cols; b += r->block) {
            kern->hadamard(x + i * cols + b, r->block, scale);
        }
    }
}

void nq_rotate_forward(float *x, const nq_rotation *r, uint64_t count, uint64_t cols) {
    if (r->block != 0) {
        flip_signs(x, r, count, cols);
        nq_rotate_mix(x, r, count, cols);
    }
}

void nq_rotate_inverse(float *x, const nq_rotation *r, uint64_t count, uint64_t cols) {
    if (r->block != 0) {
        nq_rotate_mix(x, r, count, cols);
        flip_signs(x, r, count, cols);
    }
}

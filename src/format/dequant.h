/* dequant.h - any source element type to binary32.
 *
 * Owns: bit-exact dequantization of every type in base/dtype.h, as the Python
 * `gguf` package and ggml define them. Refuses: SIMD and approximation.
 */
#ifndef NQ_FORMAT_DEQUANT_H
#define NQ_FORMAT_DEQUANT_H

#include "base/dtype.h"

/* out[0..n) from packed blocks at src; n is a multiple of the type's block.
 * Integer types convert by value; NaN stays NaN. Thread-safe. */
void nq_dequantize(float *out, nq_dtype type, const void *src, uint64_t n);

#endif

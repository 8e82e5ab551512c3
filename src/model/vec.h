/* vec.h - the element-wise arithmetic of a transformer, on plain float arrays.
 *
 * Owns: loops with a fixed order of summation that compilers vectorise at the
 * baseline instruction set; the same bits for any thread count. Refuses:
 * allocation, shapes, errors.
 */
#ifndef NQ_MODEL_VEC_H
#define NQ_MODEL_VEC_H

#include <stdint.h>

/* x[i] = exp(x[i] - shift), within 2e-7 relative; below -87 gives 0. */
void nq_vec_exp(float *x, uint64_t n, float shift);
/* Largest element (n > 0); NaN elements are not seen. */
float nq_vec_max(const float *x, uint64_t n);
/* Index of the first largest element (n > 0). */
uint64_t nq_vec_argmax(const float *x, uint64_t n);
/* Sum, accumulated in double over fixed blocks. */
double nq_vec_sum(const float *x, uint64_t n);
double nq_vec_dot(const float *a, const float *b, uint64_t n);
/* x becomes exp(x) / sum exp(x). */
void nq_vec_softmax(float *x, uint64_t n);
/* log(sum exp(x)); scratch holds n floats. */
double nq_vec_logsumexp(const float *x, float *scratch, uint64_t n);
/* out = x / sqrt(mean(x^2) + eps) * gain. out may be x. */
void nq_vec_rmsnorm(float *out, const float *x, const float *gain, uint64_t n, double eps);
/* gate = silu(gate) * up. */
void nq_vec_swiglu(float *gate, const float *up, uint64_t n);
/* x += y. */
void nq_vec_add(float *x, const float *y, uint64_t n);

#endif

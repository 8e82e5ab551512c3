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
/* out = (x - mean) / sqrt(variance + eps) * gain + bias. out may be x; bias may be NULL. */
void nq_vec_layernorm(float *out, const float *x, const float *gain, const float *bias, uint64_t n,
                      double eps);
/* out = silu(gate) * up, silu(x) = x / (1 + exp(-x)); up NULL: no product. out may be
 * gate or up. */
void nq_vec_silu(float *out, const float *gate, const float *up, uint64_t n);
/* The same with the tanh approximation of GELU. */
void nq_vec_gelu_tanh(float *out, const float *gate, const float *up, uint64_t n);
/* x = cap * tanh(x / cap). */
void nq_vec_softcap(float *x, uint64_t n, float cap);
/* x *= by. */
void nq_vec_scale(float *x, float by, uint64_t n);
/* x += by * y. */
void nq_vec_add_scaled(float *x, const float *y, float by, uint64_t n);
/* x += y. */
void nq_vec_add(float *x, const float *y, uint64_t n);

#endif

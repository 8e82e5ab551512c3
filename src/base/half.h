/* half.h - IEEE binary16, bfloat16 and 8-bit floats against binary32, by bits.
 *
 * Owns: exact, ISA-independent conversions (round to nearest even), so that
 * artifacts do not depend on the CPU. Refuses: speed; kernels have their own.
 */
#ifndef NQ_BASE_HALF_H
#define NQ_BASE_HALF_H

#include <stdint.h>

float nq_f16_to_f32(uint16_t h);
uint16_t nq_f32_to_f16(float f); /* overflow gives infinity, NaN stays NaN */
float nq_bf16_to_f32(uint16_t h);
uint16_t nq_f32_to_bf16(float f);
float nq_f8_e4m3_to_f32(uint8_t b); /* OCP E4M3FN: no infinities, S.1111.111 is NaN */
float nq_f8_e5m2_to_f32(uint8_t b); /* OCP E5M2 */

#endif

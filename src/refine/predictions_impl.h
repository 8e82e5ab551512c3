/* predictions_impl.h - the format of predictions.h, for the file that writes it and the one
 * that reads it. Owns: offsets and sizes. Refuses: use outside predictions*.c.
 */
#ifndef NQ_REFINE_PREDICTIONS_IMPL_H
#define NQ_REFINE_PREDICTIONS_IMPL_H

#include "refine/predictions.h"

#define NQ_PREDICTIONS_MAGIC "NQTEACHR"
#define NQ_PREDICTIONS_HEAD  112
#define NQ_PREDICTIONS_TAIL  NQ_BLAKE3_HEX
/* The two sums a row begins with. */
#define NQ_PREDICTIONS_SUMS 8

static inline uint64_t nq_predictions_id_bytes(const nq_predictions_spec *s) {
    return s->vocab <= 65536 ? 2 : 4;
}
static inline uint64_t nq_predictions_row(const nq_predictions_spec *s) {
    return NQ_PREDICTIONS_SUMS + s->top * (nq_predictions_id_bytes(s) + sizeof(uint16_t));
}
static inline uint64_t nq_predictions_rows(const nq_predictions_spec *s) {
    return (uint64_t)s->windows * s->length;
}
void nq_predictions_header(uint8_t head[NQ_PREDICTIONS_HEAD], const nq_predictions_spec *s);

static inline void nq_put_u16(uint8_t *at, uint32_t v) {
    at[0] = (uint8_t)(v & 0xff);
    at[1] = (uint8_t)(v >> 8 & 0xff);
}
static inline void nq_put_u32(uint8_t *at, uint32_t v) {
    nq_put_u16(at, v);
    nq_put_u16(at + 2, v >> 16);
}
static inline uint32_t nq_take_u16(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8;
}
static inline uint32_t nq_take_u32(const uint8_t *at) {
    return nq_take_u16(at) | nq_take_u16(at + 2) << 16;
}

#endif

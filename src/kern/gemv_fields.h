/* gemv_fields.h - products with symbols of one or two fields of up to 16 entries, on top of
 * gemm_body.h.
 *
 * Included more than once: by every variant.
 *
 * Owns: looking up, adding the fields, multiplying and summing in registers. Refuses:
 * unpacking, which differs with every width of a field (kern/kern.h), and scales.
 */
#ifndef NQ_KERN_GEMV_FIELDS_H
#define NQ_KERN_GEMV_FIELDS_H

INLINE int32_t fields_sum(const nq_fields *f, const uint8_t *symbols, const int8_t *x, unsigned d,
                          bool two) {
    ACC acc[APART];
    for (unsigned i = 0; i < APART; i++) {
        acc[i] = a_zero();
    }
    for (uint64_t i = 0; i < f->stride; i += V_BYTES) {
        V first = v_load(symbols + i);
        V second = two ? v_load(symbols + f->stride + i) : v_zero();
#pragma GCC unroll 8
        for (unsigned v = 0; v < d; v++) {
            V w = v_lookup(v_load(f->tables + (size_t)v * NQ_PLANE_ALIGN), first);
            if (two) {
                w = v_add(w,
                          v_lookup(v_load(f->tables + (size_t)(d + v) * NQ_PLANE_ALIGN), second));
            }
            V xs = v_load((const uint8_t *)x + v * f->x_plane + i);
            acc[v % APART] = a_dot_wide(acc[v % APART], w, xs);
        }
    }
    return sum_apart(acc);
}

#define FIELDS(NAME, D)                                                                            \
    NO_INLINE int32_t NAME(const nq_fields *f, const uint8_t *symbols, const int8_t *x) {          \
        return f->fields > 1 ? fields_sum(f, symbols, x, D, true)                                  \
                             : fields_sum(f, symbols, x, D, false);                                \
    }

FIELDS(fields_any, f->d)
#ifndef SANITIZED
FIELDS(fields1, 1)
FIELDS(fields2, 2)
FIELDS(fields3, 3)
FIELDS(fields4, 4)
FIELDS(fields8, 8)
#endif

static int32_t dot_fields(const nq_fields *f, const uint8_t *symbols, const int8_t *x) {
#ifndef SANITIZED
    switch (f->d) {
    case 1: return fields1(f, symbols, x);
    case 2: return fields2(f, symbols, x);
    case 3: return fields3(f, symbols, x);
    case 4: return fields4(f, symbols, x);
    case 8: return fields8(f, symbols, x);
    default: break;
    }
#endif
    return fields_any(f, symbols, x);
}

#endif

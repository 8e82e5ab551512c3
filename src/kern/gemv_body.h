/* gemv_body.h - products with coded weights, written once for every vector width.
 *
 * Included more than once: by every variant.
 *
 * Owns: the order of the work: a few rows at a time down the columns, so that
 * tables, activations and the symbols of the rows above stay in registers; the
 * dispatch to copies specialised by scheme. Refuses: instructions: the including
 * file defines
 *   V, V_BYTES, ROWS (rows at a time), ACC
 *   v_load v_store v_zero v_low4 v_high4 v_and(v, byte) v_select(byte, a, b)
 *   v_shl(v, n) v_shr(v, n)   (bits may come over from neighbour bytes)
 *   v_lookup(table, index) v_add v_load3(&low, &high, p)
 *   a_zero a_dot(acc, w, x) a_dot_wide(acc, w, x) a_sums(y, acc, count)
 * and, with PAIRS defined, V_PAIR v_pair_load v_pair_lookup(table, index); NARROW where
 * a_dot_wide() is not a_dot().
 */
#ifndef NQ_KERN_GEMV_BODY_H
#define NQ_KERN_GEMV_BODY_H

#include <string.h>

#include "kern/gemv.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
/* A sanitizer needs minutes to compile what is unrolled, and less shows it all. */
#define SANITIZED
#undef ROWS
#define ROWS 2
#undef G_TOKENS
#define G_TOKENS 2
#endif

#define INLINE static inline __attribute__((always_inline))
/* Components of which all tables are kept at once. */
#define D_MAX 8

/* What the products of one scheme have in common; constants after inlining. */
typedef struct shape {
    unsigned kind; /* bits of a symbol: 4, 3, 2; or KIND_PAIRS */
    unsigned levels;
    unsigned d;
    bool wide;
} shape;

#define KIND_PAIRS 5 /* 3 bits by tables of pairs */

/* Of the rows above: for 4 and 3 bits their symbols, for 2 bits and pairs what
 * indexes came of them. */
typedef struct above {
    V one[4];
    V two[4];
    V low;  /* packed symbols: 2 bits, pairs */
    V high; /* packed third bits: pairs */
} above;

INLINE unsigned parts_of(unsigned kind) { return kind == 4 ? 2 : 4; }
INLINE unsigned step_units(unsigned kind) { return kind == 4 ? V_BYTES / 16 : V_BYTES / 8; }
INLINE unsigned step_bytes(unsigned kind) {
    return kind == 4 || kind == 2 ? V_BYTES : V_BYTES / 8 * 12;
}

INLINE above nothing_above(void) {
    above a;
    for (unsigned i = 0; i < 4; i++) {
        a.one[i] = v_zero();
        a.two[i] = v_zero();
    }
    a.low = v_zero();
    a.high = v_zero();
    return a;
}

/* ---- symbols of one step --------------------------------------------------- */

INLINE void symbols4(V *s, const uint8_t *p) {
    V c = v_load(p);
    s[0] = v_low4(c);
    s[1] = v_high4(c);
}

INLINE void symbols3(V *s, const uint8_t *p) {
    V low;
    V high;
    v_load3(&low, &high, p);
    s[0] = v_and(v_select(3, low, v_shl(high, 2)), 7);
    s[1] = v_and(v_select(3, v_shr(low, 2), high), 7);
    s[2] = v_and(v_select(3, v_shr(low, 4), v_shr(high, 2)), 7);
    s[3] = v_and(v_select(3, v_shr(low, 6), v_shr(high, 4)), 7);
}

/* Nibbles of this row's and the upper row's 2 bits: parts 0 and 2 in *even, 1 and
 * 3 in *odd. */
INLINE void nibbles(V *even, V *odd, V row, V up) {
    *even = v_select(0x33, row, v_shl(up, 2));
    *odd = v_select(0x33, v_shr(row, 2), up);
}

INLINE void symbols2(V *n, above *a, const uint8_t *p) {
    V row = v_load(p);
    V even;
    V odd;
    nibbles(&even, &odd, row, a->low);
    n[0] = v_low4(even);
    n[1] = v_low4(odd);
    n[2] = v_high4(even);
    n[3] = v_high4(odd);
    a->low = row;
}

#ifdef PAIRS
/* Bits 4 and 5 of an index are the third bits of this row's and the upper row's
 * symbol; bits above are not looked at. */
INLINE void symbols_pairs(V *n, above *a, const uint8_t *p) {
    V low;
    V high;
    V even;
    V odd;
    v_load3(&low, &high, p);
    nibbles(&even, &odd, low, a->low);
    V third = v_select(0x55, high, v_shl(a->high, 1));
    n[0] = v_select(0x0F, even, v_shl(third, 4));
    n[1] = v_select(0x0F, odd, v_shl(third, 2));
    n[2] = v_select(0x0F, v_shr(even, 4), third);
    n[3] = v_select(0x0F, v_shr(odd, 4), v_shr(third, 2));
    a->low = low;
    a->high = high;
}
#endif

/* Indexes of one step of a row, in s; *a is what the row below sees next. */
INLINE void next_symbols(V *s, above *a, const uint8_t *p, unsigned kind) {
    switch (kind) {
    case 4: symbols4(s, p); break;
    case 3: symbols3(s, p); break;
    case 2: symbols2(s, a, p); break;
    default:
#ifdef PAIRS
        symbols_pairs(s, a, p);
#endif
        break;
    }
}

INLINE void move_down(above *a, const V *s, unsigned kind, unsigned levels) {
    for (unsigned i = 0; i < parts_of(kind); i++) {
        if (levels > 2) {
            a->two[i] = a->one[i];
        }
        a->one[i] = s[i];
    }
}

/* ---- weights of one step --------------------------------------------------- */

typedef struct tables {
    V t[3][D_MAX];
} tables;

/* Tables that one step needs: by level, or for 2 bits and pairs two levels at once. */
INLINE unsigned table_count(shape s) {
    return s.kind == 4 || s.kind == 3 ? s.levels : s.levels > 2 ? 2 : 1;
}

INLINE void load_tables(tables *t, const nq_codes *c, uint64_t at, shape s) {
    for (unsigned l = 0; l < table_count(s); l++) {
        for (unsigned v = 0; v < s.d; v++) {
#ifdef PAIRS
            if (s.kind == KIND_PAIRS) {
                t->t[l][v] = v_load(c->pairs + (size_t)(l * s.d + v) * 64);
                continue;
            }
#endif
            t->t[l][v] = v_load(c->tables + (l * s.d + v) * c->table_plane + at);
        }
    }
}

INLINE V look(V table, V index, unsigned kind) {
#ifdef PAIRS
    if (kind == KIND_PAIRS) {
        return v_pair_lookup(table, index);
    }
#endif
    (void)kind;
    return v_lookup(table, index);
}

/* The weight bytes of part `part`, component v. */
INLINE V weights(const tables *t, const V *s, const above *a, unsigned part, unsigned v, shape h) {
    V w = look(t->t[0][v], s[part], h.kind);
    if (table_count(h) > 1) {
        w = v_add(w, look(t->t[1][v], a->one[part], h.kind));
    }
    if (table_count(h) > 2) {
        w = v_add(w, look(t->t[2][v], a->two[part], h.kind));
    }
    return w;
}

/* The rows above p that its levels look at. */
INLINE above look_above(const uint8_t *p, uint64_t stride, unsigned known, shape s) {
    above a = nothing_above();
    V row[4];
    for (unsigned i = known; i > 0; i--) {
        next_symbols(row, &a, p - i * stride, s.kind);
        move_down(&a, row, s.kind, s.levels);
    }
    return a;
}

/* ---- one step down `rows` rows ------------------------------------------------ */

/* Memory is fastest read in the order of its addresses, which going down the rows is
 * not: hardware then prefetches little and wrongly (8 of 24 GB/s). So every step
 * asks for as many bytes of a block to come as it works on, in their order. */
INLINE void fetch_ahead(uintptr_t ahead, unsigned r, unsigned kind) {
    unsigned at = r * step_bytes(kind);
    if (at % 64 == 0 || step_bytes(kind) > 64) {
        v_prefetch((const void *)(ahead + at));
    }
    if (step_bytes(kind) > 64) {
        v_prefetch((const void *)(ahead + at + 64));
    }
}

/* How far ahead: the next block, or where blocks are small the one after it. */
INLINE uint64_t fetch_distance(uint64_t row_bytes, unsigned rows) {
    uint64_t bytes = row_bytes * rows;
    return bytes < 4096 ? 2 * bytes : bytes;
}

INLINE void step(ACC *acc, const nq_codes *c, const uint8_t *p, uint64_t stride, unsigned known,
                 uint64_t table_at, const int8_t *x, uintptr_t ahead, unsigned rows, shape s) {
    tables t;
    load_tables(&t, c, table_at, s);
    above a = look_above(p, stride, known, s);
#pragma GCC unroll 8
    for (unsigned r = 0; r < rows; r++) {
        V row[4];
        next_symbols(row, &a, p + r * stride, s.kind);
        fetch_ahead(ahead, r, s.kind);
#pragma GCC unroll 4
        for (unsigned part = 0; part < parts_of(s.kind); part++) {
#pragma GCC unroll 4
            for (unsigned v = 0; v < s.d; v++) {
                V w = weights(&t, row, &a, part, v, s);
                V xs = v_load((const uint8_t *)x + (part * s.d + v) * c->x_plane);
                acc[r] = s.wide ? a_dot_wide(acc[r], w, xs) : a_dot(acc[r], w, xs);
            }
        }
        move_down(&a, row, s.kind, s.levels);
    }
}

/* What is left of the rows after whole steps, made a whole step: buffer rows are
 * step_bytes apart, the first `known` are the rows above. */
#define BUFFER_BYTES ((ROWS + 2) * (V_BYTES / 8 * 12))
static void gather_rest(uint8_t *buffer, const nq_codes *c, uint64_t row, unsigned known,
                        unsigned rows, unsigned kind) {
    unsigned units = step_units(kind);
    unsigned unit_bytes = step_bytes(kind) / units;
    uint64_t done = c->units / units * units;
    uint64_t left = (c->units - done) * unit_bytes;
    memset(buffer, 0, (size_t)(rows + known) * step_bytes(kind));
    for (unsigned i = 0; i < rows + known; i++) {
        uint64_t from = row - known + i;
        uint8_t *to = buffer + (size_t)i * step_bytes(kind);
        memcpy(to, c->symbols + from * c->row_bytes + done * unit_bytes, left);
        if (c->tail != NULL) {
            memcpy(to + left, c->tail + from * NQ_TAIL_BYTES, unit_bytes);
        }
    }
}

INLINE uint64_t table_step(const nq_codes *c) {
    return c->table_plane == NQ_PLANE_ALIGN ? 0 : V_BYTES;
}

INLINE uint64_t whole_steps(const nq_codes *c, unsigned kind) {
    return c->units / step_units(kind);
}

/* Where units are left after whole steps, a vector reaches into the next row: its
 * weights meet zeros. Only what ends in a partial unit, or at the end of all symbols,
 * must be gathered. */
INLINE bool must_gather(const nq_codes *c, uint64_t row, unsigned rows, unsigned kind) {
    return c->tail != NULL || (row + rows) * c->row_bytes + step_bytes(kind) > c->bytes;
}

INLINE bool has_rest(const nq_codes *c, unsigned kind) {
    return c->units % step_units(kind) != 0 || c->tail != NULL;
}

INLINE void block(int32_t *y, const nq_codes *c, uint64_t row, unsigned known, const int8_t *x,
                  unsigned rows, shape s) {
    ACC acc[ROWS];
    for (unsigned r = 0; r < rows; r++) {
        acc[r] = a_zero();
    }
    const uint8_t *p = c->symbols + row * c->row_bytes;
    uint64_t steps = whole_steps(c, s.kind);
    uint64_t stride = c->row_bytes;
    uint64_t all = steps + (has_rest(c, s.kind) ? 1 : 0);
    uint8_t buffer[BUFFER_BYTES];
    uintptr_t ahead = (uintptr_t)p + fetch_distance(c->row_bytes, rows);
    for (uint64_t i = 0; i < all; i++, p += step_bytes(s.kind)) {
        /* One loop, so that the step is compiled once. */
        if (i == steps && must_gather(c, row, rows, s.kind)) {
            gather_rest(buffer, c, row, known, rows, s.kind);
            stride = step_bytes(s.kind);
            p = buffer + known * stride;
        }
        step(acc, c, p, stride, known, i * table_step(c), x + i * V_BYTES, ahead, rows, s);
        ahead += rows * step_bytes(s.kind);
    }
    a_sums(y, acc, rows);
}

/* Rows of the segment above `row` that matter. */
INLINE unsigned known_above(const nq_codes *c, uint64_t row, unsigned levels) {
    uint64_t in_segment = row % c->segment_rows;
    return in_segment < levels - 1 ? (unsigned)in_segment : levels - 1;
}

/* ---- decoding ---------------------------------------------------------------- */

INLINE void decode_step(uint8_t *out, const nq_codes *c, const uint8_t *p, uint64_t stride,
                        unsigned known, uint64_t table_at, shape s) {
    tables t;
    load_tables(&t, c, table_at, s);
    above a = look_above(p, stride, known, s);
    V row[4];
    next_symbols(row, &a, p, s.kind);
    for (unsigned part = 0; part < parts_of(s.kind); part++) {
        for (unsigned v = 0; v < s.d; v++) {
            v_store(out + (part * s.d + v) * c->x_plane, weights(&t, row, &a, part, v, s));
        }
    }
}

INLINE void decode_row(uint8_t *out, const nq_codes *c, uint64_t row, shape s) {
    const uint8_t *p = c->symbols + row * c->row_bytes;
    unsigned known = known_above(c, row, s.levels);
    uint64_t steps = whole_steps(c, s.kind);
    uint64_t used = (steps + (has_rest(c, s.kind) ? 1 : 0)) * V_BYTES;
    for (uint64_t i = 0; i < steps; i++) {
        decode_step(out + i * V_BYTES, c, p + i * step_bytes(s.kind), c->row_bytes, known,
                    i * table_step(c), s);
    }
    if (has_rest(c, s.kind)) {
        uint8_t buffer[BUFFER_BYTES];
        gather_rest(buffer, c, row, known, 1, s.kind);
        decode_step(out + steps * V_BYTES, c, buffer + known * step_bytes(s.kind),
                    step_bytes(s.kind), known, steps * table_step(c), s);
    }
    for (unsigned i = 0; used < c->x_plane && i < parts_of(s.kind) * s.d; i++) {
        memset(out + i * c->x_plane + used, 0, c->x_plane - used);
    }
}

/* ---- dispatch ---------------------------------------------------------------- */

#define NO_INLINE static __attribute__((noinline))

/* Single rows: where a segment starts within a block, or a matrix ends. */
NO_INLINE void few_rows(int32_t *y, const nq_codes *c, uint64_t row0, uint64_t count,
                        const int8_t *x, unsigned kind) {
    shape s = {kind, c->levels, c->d, c->wide};
    for (uint64_t i = 0; i < count; i++) {
        block(y + i, c, row0 + i, known_above(c, row0 + i, s.levels), x, 1, s);
    }
}

/* Blocks of ROWS rows inside a segment. */
INLINE void product(int32_t *y, const nq_codes *c, uint64_t row0, uint64_t count, const int8_t *x,
                    shape s) {
    for (uint64_t i = 0; i < count;) {
        uint64_t row = row0 + i;
        uint64_t n = c->segment_rows - row % c->segment_rows;
        n = n < count - i ? n : count - i;
        if (n < ROWS) {
            few_rows(y + i, c, row, n, x, s.kind);
            i += n;
        } else {
            block(y + i, c, row, known_above(c, row, s.levels), x, ROWS, s);
            i += ROWS;
        }
    }
}

typedef void (*product_fn)(int32_t *y, const nq_codes *c, uint64_t row0, uint64_t count,
                           const int8_t *x);

#define PRODUCT(NAME, KIND, LEVELS, D, WIDE)                                                       \
    NO_INLINE void NAME(int32_t *y, const nq_codes *c, uint64_t row0, uint64_t count,              \
                        const int8_t *x) {                                                         \
        product(y, c, row0, count, x, (shape){KIND, LEVELS, D, WIDE});                             \
    }

/* What every kind has: the copy whose levels and components are variables, and
 * decoding. */
#define PRODUCTS_ANY(KIND)                                                                         \
    PRODUCT(k##KIND##any, KIND, c->levels, c->d, c->wide)                                          \
    NO_INLINE void decode##KIND(uint8_t *out, const nq_codes *c, uint64_t row0, uint64_t count) {  \
        for (uint64_t i = 0; i < count; i++) {                                                     \
            decode_row(out + i * nq_codes_row(c), c, row0 + i,                                     \
                       (shape){KIND, c->levels, c->d, c->wide});                                   \
        }                                                                                          \
    }

#ifdef SANITIZED
#define PRODUCTS(KIND)                                                                             \
    PRODUCTS_ANY(KIND)                                                                             \
    static product_fn choose##KIND(const nq_codes *c) {                                            \
        (void)c;                                                                                   \
        return k##KIND##any;                                                                       \
    }
#else
/* Where sums of two products must fit 16 bits, one component per subvector is wide, as a rule
 * (quant/fast_prepare.c, set_limit()): copies of it, too. */
#ifdef NARROW
#define WIDE_COPIES(KIND)                                                                          \
    PRODUCT(k##KIND##l1d1wide, KIND, 1, 1, true)                                                   \
    PRODUCT(k##KIND##l2d1wide, KIND, 2, 1, true)                                                   \
    PRODUCT(k##KIND##l3d1wide, KIND, 3, 1, true)
#define CHOOSE_WIDE(KIND, c)                                                                       \
    if ((c)->wide && (c)->d == 1) {                                                                \
        return (c)->levels == 1   ? k##KIND##l1d1wide                                              \
               : (c)->levels == 2 ? k##KIND##l2d1wide                                              \
                                  : k##KIND##l3d1wide;                                             \
    }
#else
#define WIDE_COPIES(KIND)
#define CHOOSE_WIDE(KIND, c)
#endif

/* Copies for the widths people use, with constants. */
#define PRODUCTS(KIND)                                                                             \
    PRODUCT(k##KIND##l1d1, KIND, 1, 1, false)                                                      \
    PRODUCT(k##KIND##l2d1, KIND, 2, 1, false)                                                      \
    PRODUCT(k##KIND##l3d1, KIND, 3, 1, false)                                                      \
    PRODUCT(k##KIND##l1d2, KIND, 1, 2, false)                                                      \
    PRODUCT(k##KIND##l2d2, KIND, 2, 2, false)                                                      \
    PRODUCT(k##KIND##l3d2, KIND, 3, 2, false)                                                      \
    PRODUCT(k##KIND##l1d3, KIND, 1, 3, false)                                                      \
    PRODUCT(k##KIND##l2d3, KIND, 2, 3, false)                                                      \
    PRODUCT(k##KIND##l3d3, KIND, 3, 3, false)                                                      \
    PRODUCT(k##KIND##l1d4, KIND, 1, 4, false)                                                      \
    PRODUCT(k##KIND##l2d4, KIND, 2, 4, false)                                                      \
    PRODUCT(k##KIND##l3d4, KIND, 3, 4, false)                                                      \
    WIDE_COPIES(KIND)                                                                              \
    PRODUCTS_ANY(KIND)                                                                             \
    static product_fn choose##KIND(const nq_codes *c) {                                            \
        static const product_fn fast[4][3] = {{k##KIND##l1d1, k##KIND##l2d1, k##KIND##l3d1},       \
                                              {k##KIND##l1d2, k##KIND##l2d2, k##KIND##l3d2},       \
                                              {k##KIND##l1d3, k##KIND##l2d3, k##KIND##l3d3},       \
                                              {k##KIND##l1d4, k##KIND##l2d4, k##KIND##l3d4}};      \
        CHOOSE_WIDE(KIND, c)                                                                       \
        bool plain = !c->wide && c->d <= 4;                                                        \
        return plain ? fast[c->d - 1][c->levels - 1] : k##KIND##any;                               \
    }
#endif

/* The entries of the table, for a file that made PRODUCTS of 4, 3 and 2. */
#define ENTRIES                                                                                    \
    static void gemv(int32_t *y, const nq_codes *c, uint64_t row0, uint64_t count,                 \
                     const int8_t *x) {                                                            \
        product_fn fn = c->bits == 4 ? choose4(c) : c->bits == 3 ? choose3(c) : choose2(c);        \
        fn(y, c, row0, count, x);                                                                  \
    }                                                                                              \
    static void decode(uint8_t *out, const nq_codes *c, uint64_t row0, uint64_t count) {           \
        (c->bits == 4 ? decode4 : c->bits == 3 ? decode3 : decode2)(out, c, row0, count);          \
    }

#endif

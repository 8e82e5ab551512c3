/* decode.c - quantized matrices back to numbers; see qmat.h for the formula and
 * docs/FORMAT.md for the order of the floating-point operations. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "kern/kern.h"
#include "quant/qmat.h"
#include "quant/trellis.h"

/* Entries of the longest codebook. */
#define TABLE 256
/* Symbols from which looking them up in vectors pays for the table it needs. */
#define LONG_RUN 64

/* Scratch: a ring of unpacked rows (history included), the int8 sums of one row
 * as d planes of symbols, and activations permuted to the same planes. */
typedef struct row_scratch {
    uint8_t *ring[NQ_MAX_LEVELS + 1]; /* (fields, stride) each */
    int8_t *sums;                     /* (d, stride) */
    float *planes;                    /* (d, stride) */
    int8_t *tables;                   /* (levels, d, TABLE) of the only group, see make_tables() */
    bool have_tables;
    unsigned table_size[NQ_MAX_LEVELS]; /* entries of a table of each level */
    nq_symbol_rows rows;
} row_scratch;

static uint64_t align64(uint64_t n) { return (n + 63) / 64 * 64; }

uint64_t nq_qmat_symbol_bytes(const nq_qmat *q) {
    return q->rows * nq_scheme_row_bytes(&q->scheme, q->cols);
}

uint64_t nq_qmat_codebook_bytes(const nq_qmat *q) {
    return q->scheme.kind == NQ_SCHEME_CODE ? q->groups * nq_scheme_codebook_bytes(&q->scheme) : 0;
}

uint64_t nq_qmat_scratch(const nq_qmat *q) {
    if (q->scheme.kind != NQ_SCHEME_CODE) {
        return 64;
    }
    uint64_t stride = nq_scheme_row_symbols(&q->scheme, q->cols);
    uint64_t ring = align64(stride * q->scheme.fields) * (NQ_MAX_LEVELS + 1);
    uint64_t tables = (uint64_t)q->scheme.levels * q->scheme.d * TABLE;
    return ring + align64(stride * q->scheme.d) + align64(stride * q->scheme.d * sizeof(float)) +
           tables + 64;
}

static row_scratch carve(const nq_qmat *q, void *scratch) {
    uint64_t stride = nq_scheme_row_symbols(&q->scheme, q->cols);
    uint8_t *p = (uint8_t *)align64((uint64_t)(uintptr_t)scratch);
    row_scratch rs;
    for (unsigned i = 0; i <= NQ_MAX_LEVELS; i++) {
        rs.ring[i] = p;
        p += align64(stride * q->scheme.fields);
    }
    rs.sums = (int8_t *)p;
    p += align64(stride * q->scheme.d);
    rs.planes = (float *)(void *)p;
    rs.tables = (int8_t *)p + align64(stride * q->scheme.d * sizeof(float));
    rs.have_tables = false;
    rs.rows = nq_symbol_rows_of(&q->scheme, q->cols);
    for (unsigned l = 0; l < q->scheme.levels; l++) {
        /* For all symbols of its bits; those beyond K mean 0, as a hostile file may hold
         * such symbols where K is no power of two. */
        unsigned all = 1U << rs.rows.bits[q->scheme.field[l]];
        rs.table_size[l] = all < 16 ? 16 : all;
    }
    return rs;
}

static uint8_t *ring_row(const row_scratch *rs, uint64_t row) {
    return rs->ring[row % (NQ_MAX_LEVELS + 1)];
}

static void unpack_row(const nq_qmat *q, const row_scratch *rs, uint64_t row) {
    nq_symbols_unpack_row(ring_row(rs, row), &rs->rows, q->symbols + row * rs->rows.bytes);
}

/* Unpacks the rows above `row` that its levels look at. */
static void unpack_history(const nq_qmat *q, const row_scratch *rs, uint64_t row) {
    uint64_t start = row - row % q->segment_rows;
    uint64_t lag = nq_scheme_max_lag(&q->scheme);
    uint64_t first = row - start < lag ? start : row - lag;
    for (uint64_t r = first; r < row; r++) {
        unpack_row(q, rs, r);
    }
}

/* Component v of k entries of d, plus `first`. */
static void fill_table(int8_t *table, unsigned size, const int8_t *entries, unsigned k, unsigned d,
                       unsigned v, int first) {
    memset(table, first, size);
    for (unsigned b = 0; b < k; b++) {
        table[b] = (int8_t)(entries[(size_t)b * d + v] + first);
    }
}

/* Tables of all levels, once for all rows, where rows are long and there is one group. `first` is
 * added to the newest level. */
static void make_tables(row_scratch *rs, const nq_qmat *q, int first) {
    const nq_scheme *s = &q->scheme;
    rs->have_tables = q->groups == 1 && nq_scheme_row_symbols(s, q->cols) >= LONG_RUN;
    for (unsigned l = 0; rs->have_tables && l < s->levels; l++) {
        for (unsigned v = 0; v < s->d; v++) {
            fill_table(rs->tables + ((size_t)l * s->d + v) * TABLE, rs->table_size[l],
                       q->codebooks + nq_level_offset(s, l), s->k[s->field[l]], s->d, v,
                       l == 0 ? first : 0);
        }
    }
}

/* One level of one row: which symbols [j0, j1) take which entries. */
typedef struct level_job {
    const nq_kern *kern;
    const int8_t *entries;  /* (K, d) of the group */
    const int8_t *tables;   /* (d, TABLE) of the same, or NULL */
    const uint8_t *symbols; /* of the row; NULL: above the segment, symbol 0 */
    unsigned level, k, d;
    unsigned size; /* of a table */
    int first;     /* what level 0 starts from */
    uint64_t j0, j1;
} level_job;

/* Sets (level 0) or adds component v of a level. */
static void add_component(int8_t *dst, const level_job *w, unsigned v) {
    if (w->symbols == NULL) {
        for (uint64_t j = w->j0; j < w->j1; j++) {
            dst[j] = (int8_t)((w->level > 0 ? dst[j] : w->first) + w->entries[v]);
        }
        return;
    }
    int8_t own[16];
    const int8_t *table = w->tables != NULL ? w->tables + (size_t)v * TABLE : own;
    if (w->tables == NULL && w->size == 16) {
        fill_table(own, w->size, w->entries, w->k, w->d, v, w->first);
    }
    if (w->tables != NULL || w->size == 16) {
        w->kern->lut(dst + w->j0, w->symbols + w->j0, table, w->size, w->j1 - w->j0, w->level > 0);
        return;
    }
    for (uint64_t j = w->j0; j < w->j1; j++) {
        unsigned b = w->symbols[j];
        int8_t e = b < w->k ? w->entries[(size_t)b * w->d + v] : 0;
        dst[j] = (int8_t)((w->level > 0 ? dst[j] : w->first) + e);
    }
}

/* sums (d, plane) = `first` plus the entries of one row, over all levels; the row's own
 * symbols and its history are in the ring. */
static void sum_levels(int8_t *sums, uint64_t plane, int first, const nq_qmat *q,
                       const row_scratch *rs, uint64_t row) {
    const nq_scheme *s = &q->scheme;
    uint64_t stride = nq_scheme_row_symbols(s, q->cols);
    uint64_t per_group = q->groups == 1 ? stride : q->group_cols / s->d;
    uint64_t in_segment = row % q->segment_rows;
    for (uint64_t g = 0; g < q->groups; g++) {
        const int8_t *book = q->codebooks + g * nq_scheme_codebook_bytes(s);
        uint64_t j0 = g * per_group;
        uint64_t j1 = g + 1 == q->groups ? stride : j0 + per_group;
        for (unsigned l = 0; l < s->levels; l++) {
            level_job w = {.kern = rs->rows.kern,
                           .entries = book + nq_level_offset(s, l),
                           .level = l,
                           .k = s->k[s->field[l]],
                           .d = s->d,
                           .size = rs->table_size[l],
                           .first = l == 0 ? first : 0,
                           .j0 = j0,
                           .j1 = j1};
            if (in_segment >= s->lag[l]) {
                w.symbols = ring_row(rs, row - s->lag[l]) + s->field[l] * stride;
            }
            if (rs->have_tables) {
                w.tables = rs->tables + (size_t)l * s->d * TABLE;
            }
            for (unsigned v = 0; v < s->d; v++) {
                add_component(sums + v * plane, &w, v);
            }
        }
    }
}

/* The same in rs->sums, without anything added. */
static void sum_row(const nq_qmat *q, const row_scratch *rs, uint64_t row) {
    sum_levels(rs->sums, nq_scheme_row_symbols(&q->scheme, q->cols), 0, q, rs, row);
}

static float row_factor(const nq_qmat *q, uint64_t row) {
    return ldexpf(nq_f16_to_f32(q->row_scale[row]), q->exponent);
}

static float group_scale(const nq_qmat *q, uint64_t col) {
    return nq_f16_to_f32(q->codebook_scale[q->groups == 1 ? 0 : col / q->group_cols]);
}

static void write_row(float *out, const nq_qmat *q, const row_scratch *rs, uint64_t row) {
    unsigned d = q->scheme.d;
    uint64_t stride = nq_scheme_row_symbols(&q->scheme, q->cols);
    float factor = row_factor(q, row);
    float mean = q->row_mean != NULL ? nq_f16_to_f32(q->row_mean[row]) : 0.0F;
    uint64_t j = 0;
    for (uint64_t c0 = 0; c0 < q->cols;) {
        uint64_t c1 = q->groups == 1 ? q->cols : c0 + q->group_cols;
        c1 = c1 < q->cols ? c1 : q->cols;
        float scale = factor * group_scale(q, c0);
        for (; c0 + d <= c1; c0 += d, j++) {
            for (unsigned v = 0; v < d; v++) {
                out[c0 + v] = scale * (float)rs->sums[v * stride + j];
            }
        }
        for (unsigned v = 0; c0 < c1; v++, c0++) { /* last subvector reaches past the row */
            out[c0] = scale * (float)rs->sums[v * stride + j];
        }
    }
    if (q->row_mean != NULL) {
        for (uint64_t c = 0; c < q->cols; c++) {
            out[c] += mean;
        }
    }
}

static void decode_q8(float *out, const nq_qmat *q, uint64_t row) {
    const int8_t *values = (const int8_t *)q->symbols + row * q->cols;
    float factor = row_factor(q, row);
    float mean = q->row_mean != NULL ? nq_f16_to_f32(q->row_mean[row]) : 0.0F;
    for (uint64_t c = 0; c < q->cols; c++) {
        out[c] = factor * (float)values[c];
        if (q->row_mean != NULL) {
            out[c] += mean;
        }
    }
}

void nq_qmat_decode(float *out, const nq_qmat *q, uint64_t row0, uint64_t count, void *scratch) {
    if (q->scheme.kind == NQ_SCHEME_Q8) {
        for (uint64_t i = 0; i < count; i++) {
            decode_q8(out + i * q->cols, q, row0 + i);
        }
        return;
    }
    row_scratch rs = carve(q, scratch);
    make_tables(&rs, q, 0);
    unpack_history(q, &rs, row0);
    for (uint64_t i = 0; i < count; i++) {
        unpack_row(q, &rs, row0 + i);
        sum_row(q, &rs, row0 + i);
        write_row(out + i * q->cols, q, &rs, row0 + i);
    }
}

float nq_col_factor(int8_t e) {
    /* Bits, not exp2f: no math library decides the result. -64 <= half <= 64. */
    int h = -(int)e;
    int odd = h & 1;
    int half = (h - odd) / 2;
    uint32_t bits = (uint32_t)(127 + half) << 23;
    float power = 0;
    memcpy(&power, &bits, sizeof power);
    return odd != 0 ? power * 1.41421354F : power;
}

static void undo_column_scales(float *x, const nq_qmat *q, uint64_t count) {
    for (uint64_t i = 0; q->col_exponent != NULL && i < count; i++) {
        for (uint64_t c = 0; c < q->cols; c++) {
            x[i * q->cols + c] *= nq_col_factor(q->col_exponent[c]);
        }
    }
}

void nq_qmat_input(float *x, const nq_qmat *q, uint64_t count) {
    undo_column_scales(x, q, count);
    nq_rotate_forward(x, &q->rotation, count, q->cols);
}

void nq_qmat_decode_plain(float *out, const nq_qmat *q, uint64_t row0, uint64_t count,
                          void *scratch) {
    nq_qmat_decode(out, q, row0, count, scratch);
    nq_rotate_inverse(out, &q->rotation, count, q->cols);
    undo_column_scales(out, q, count);
}

/* planes[v][j] = x[j*d + v], zero where padded; times the group's scale. */
static void permute_activations(const nq_qmat *q, const row_scratch *rs, const float *x) {
    unsigned d = q->scheme.d;
    uint64_t stride = nq_scheme_row_symbols(&q->scheme, q->cols);
    memset(rs->planes, 0, stride * d * sizeof(float));
    for (uint64_t c = 0; c < q->cols; c++) {
        rs->planes[c % d * stride + c / d] = x[c] * group_scale(q, c);
    }
}

void nq_qmat_gemv(float *y, const nq_qmat *q, uint64_t row0, uint64_t count, const float *xr,
                  void *scratch) {
    const nq_kern *kern = nq_kern_best();
    float total = 0;
    for (uint64_t c = 0; q->row_mean != NULL && c < q->cols; c++) {
        total += xr[c];
    }
    if (q->scheme.kind == NQ_SCHEME_Q8) {
        for (uint64_t i = 0; i < count; i++) {
            const int8_t *values = (const int8_t *)q->symbols + (row0 + i) * q->cols;
            y[i] = row_factor(q, row0 + i) * kern->dot_i8(values, xr, q->cols);
        }
    } else {
        uint64_t n = nq_scheme_row_symbols(&q->scheme, q->cols) * q->scheme.d;
        row_scratch rs = carve(q, scratch);
        permute_activations(q, &rs, xr);
        make_tables(&rs, q, 0);
        unpack_history(q, &rs, row0);
        for (uint64_t i = 0; i < count; i++) {
            unpack_row(q, &rs, row0 + i);
            sum_row(q, &rs, row0 + i);
            y[i] = row_factor(q, row0 + i) * kern->dot_i8(rs.sums, rs.planes, n);
        }
    }
    for (uint64_t i = 0; q->row_mean != NULL && i < count; i++) {
        y[i] += nq_f16_to_f32(q->row_mean[row0 + i]) * total;
    }
}

void nq_qmat_sums(uint8_t *out, uint64_t plane, int first, const nq_qmat *q, uint64_t row0,
                  uint64_t count, void *scratch) {
    if (q->scheme.kind == NQ_SCHEME_Q8) {
        for (uint64_t i = 0; i < count; i++) {
            const uint8_t *values = q->symbols + (row0 + i) * q->cols;
            for (uint64_t c = 0; c < q->cols; c++) {
                out[i * plane + c] = (uint8_t)(values[c] + first);
            }
        }
        return;
    }
    row_scratch rs = carve(q, scratch);
    make_tables(&rs, q, first);
    unpack_history(q, &rs, row0);
    for (uint64_t i = 0; i < count; i++) {
        unpack_row(q, &rs, row0 + i);
        sum_levels((int8_t *)out + i * q->scheme.d * plane, plane, first, q, &rs, row0 + i);
    }
}

static novaq_status check_code(const nq_qmat *q, const char *name, novaq_error *err) {
    const nq_scheme *s = &q->scheme;
    uint64_t lag = nq_scheme_max_lag(s);
    if (q->segment_rows == 0 || q->segment_rows > 1U << 24 || lag > NQ_MAX_LEVELS) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: bad segment_rows %u", name, q->segment_rows);
    }
    bool one = q->groups == 1;
    if (q->groups == 0 || (!one && (q->group_cols == 0 || q->group_cols % s->d != 0))) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: bad codebook groups", name);
    }
    uint64_t need = one ? 1 : q->cols / q->group_cols + (q->cols % q->group_cols != 0);
    if (q->groups != need) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: %u codebook groups where %llu are needed", name,
                       q->groups, (unsigned long long)need);
    }
    return NOVAQ_OK;
}

novaq_status nq_qmat_check(const nq_qmat *q, const char *name, novaq_error *err) {
    /* These limits keep rows * row_bytes far below 2^64 for every scheme. */
    if (q->rows == 0 || q->cols == 0 || q->rows > UINT32_MAX || q->cols > UINT32_MAX / 64) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: impossible matrix size", name);
    }
    if (q->exponent < -126 || q->exponent > 126) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: bad exponent %d", name, q->exponent);
    }
    uint32_t b = q->rotation.block;
    if (b != 0 && (b < 16 || b > 512 || (b & (b - 1)) != 0 || q->cols % b != 0)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: rotation block %u does not fit %llu columns", name,
                       b, (unsigned long long)q->cols);
    }
    return q->scheme.kind == NQ_SCHEME_CODE ? check_code(q, name, err) : NOVAQ_OK;
}

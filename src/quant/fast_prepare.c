/* fast_prepare.c - see fast.h: what is made of a matrix when a model is opened. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "quant/fast_impl.h"
#include "quant/trellis.h"

/* Beyond it 255 * 127 * columns might not fit int32. */
#define MAX_COLS 65536
#define UNIT     32

struct nq_fast_set {
    const nq_gemv_kern *kern;
    nq_fast **matrices;
    size_t count;
    nq_fast_basis **bases;
    size_t base_count;
};

novaq_status nq_fast_set_open(nq_fast_set **out, const nq_gemv_kern *kern, novaq_error *err) {
    *out = NULL;
    nq_fast_set *s = NULL;
    NQ_TRY(nq_alloc(&s, 1, sizeof *s, err));
    s->kern = kern;
    *out = s;
    return NOVAQ_OK;
}

static void free_matrix(nq_fast *f) {
    for (unsigned i = 0; f != NULL && i < sizeof f->owned / sizeof f->owned[0]; i++) {
        nq_free(f->owned[i]);
    }
    if (f != NULL) {
        nq_free(f->column_scale);
    }
    nq_free(f);
}

void nq_fast_set_close(nq_fast_set **ps) {
    nq_fast_set *s = *ps;
    *ps = NULL;
    if (s == NULL) {
        return;
    }
    for (size_t i = 0; i < s->count; i++) {
        free_matrix(s->matrices[i]);
    }
    for (size_t i = 0; i < s->base_count; i++) {
        nq_free(s->bases[i]->factor);
        nq_free(s->bases[i]);
    }
    nq_free(s->matrices);
    nq_free(s->bases);
    nq_free(s);
}

/* ---- bases ----------------------------------------------------------------------- */

static bool is_basis(const nq_fast_basis *b, const nq_qmat *q) {
    if (b->cols != q->cols || b->rotation.block != q->rotation.block ||
        (b->rotation.block != 0 && b->rotation.seed != q->rotation.seed) ||
        (b->col_exponent == NULL) != (q->col_exponent == NULL)) {
        return false;
    }
    return q->col_exponent == NULL || memcmp(b->col_exponent, q->col_exponent, q->cols) == 0;
}

static novaq_status add_basis(const nq_fast_basis **out, nq_fast_set *s, const nq_qmat *q,
                              novaq_error *err) {
    *out = NULL;
    if (q->rotation.block == 0 && q->col_exponent == NULL) {
        return NOVAQ_OK;
    }
    for (size_t i = 0; i < s->base_count; i++) {
        if (is_basis(s->bases[i], q)) {
            *out = s->bases[i];
            return NOVAQ_OK;
        }
    }
    nq_fast_basis *b = NULL;
    NQ_TRY(nq_grow(&s->bases, s->base_count, s->base_count + 1, sizeof(nq_fast_basis *), err));
    NQ_TRY(nq_alloc(&b, 1, sizeof *b, err));
    *b = (nq_fast_basis){.rotation = q->rotation, .cols = q->cols, .col_exponent = q->col_exponent};
    s->bases[s->base_count++] = b;
    NQ_TRY(nq_alloc(&b->factor, q->cols, sizeof *b->factor, err));
    for (uint64_t c = 0; c < q->cols; c++) {
        float sign = q->rotation.block != 0 ? nq_rotation_sign(&q->rotation, q->cols, c) : 1.0F;
        b->factor[c] = sign * (q->col_exponent != NULL ? nq_col_factor(q->col_exponent[c]) : 1.0F);
    }
    *out = b;
    return NOVAQ_OK;
}

/* ---- tables ------------------------------------------------------------------------ */

/* Bits of a symbol when the kernels have the scheme, else 0: one field of 4, 3 or 2
 * bits, level k at lag k, tables for whole lanes. */
static unsigned kernel_bits(const nq_qmat *q) {
    const nq_scheme *s = &q->scheme;
    if (s->kind != NQ_SCHEME_CODE || s->fields != 1 || s->d > 8) {
        return 0;
    }
    unsigned bits = nq_scheme_field_bits(s, 0);
    for (unsigned l = 0; l < s->levels; l++) {
        if (s->lag[l] != l) {
            return 0;
        }
    }
    uint64_t lane_cols = (uint64_t)(bits == 4 ? UNIT : 2 * UNIT) * s->d;
    bool whole = q->groups == 1 || q->group_cols % lane_cols == 0;
    return bits >= 2 && bits <= 4 && whole ? bits : 0;
}

/* Entry of level l, symbol s, component v in group g; symbols beyond K are 0, as
 * nq_qmat_decode() reads them. */
static int entry(const nq_qmat *q, uint64_t g, unsigned l, unsigned s, unsigned v) {
    if (l >= q->scheme.levels || s >= q->scheme.k[0]) {
        return 0;
    }
    const int8_t *book = q->codebooks + g * nq_scheme_codebook_bytes(&q->scheme);
    return book[nq_level_offset(&q->scheme, l) + (size_t)s * q->scheme.d + v];
}

/* The smallest and largest sum of levels anywhere in the matrix. */
static void range_of_sums(int *least, int *most, const nq_qmat *q) {
    unsigned symbols = 1U << nq_scheme_field_bits(&q->scheme, 0);
    *least = 0;
    *most = 0;
    for (uint64_t g = 0; g < q->groups; g++) {
        for (unsigned v = 0; v < q->scheme.d; v++) {
            int low = 0;
            int high = 0;
            for (unsigned l = 0; l < q->scheme.levels; l++) {
                int a = entry(q, g, l, 0, v);
                int b = a;
                for (unsigned s = 1; s < symbols; s++) {
                    int e = entry(q, g, l, s, v);
                    a = e < a ? e : a;
                    b = e > b ? e : b;
                }
                low += a;
                high += b;
            }
            *least = low < *least ? low : *least;
            *most = high > *most ? high : *most;
        }
    }
}

/* Byte `index` of table `table`, component v, in group g; see nq_codes. */
static uint8_t table_byte(const nq_fast *f, uint64_t g, unsigned table, unsigned v,
                          unsigned index) {
    const nq_qmat *q = f->q;
    int e = table == 0 ? f->bias : 0;
    if (f->codes.bits == 2) {
        e += table == 0 ? entry(q, g, 0, index & 3U, v) + entry(q, g, 1, index >> 2, v)
                        : entry(q, g, 2, index >> 2, v);
    } else {
        e += entry(q, g, table, index & ((1U << f->codes.bits) - 1U), v);
    }
    return (uint8_t)e;
}

static unsigned table_count(const nq_codes *c) {
    return c->bits != 2 ? c->levels : c->levels > 2 ? 2 : 1;
}

static novaq_status make_tables(nq_fast *f, novaq_error *err) {
    nq_codes *c = &f->codes;
    const nq_qmat *q = f->q;
    c->table_plane = NQ_PLANE_ALIGN;
    if (q->groups > 1) { /* never one table's size, that means one for all units */
        c->table_plane = c->x_plane > NQ_PLANE_ALIGN ? c->x_plane : 2 * NQ_PLANE_ALIGN;
    }
    uint8_t *t = NULL;
    unsigned tables = table_count(c) * c->d;
    NQ_TRY(nq_alloc(&t, tables, c->table_plane, err));
    f->owned[0] = t;
    c->tables = t;
    uint64_t lane_cols = (uint64_t)UNIT * c->d * 16 / nq_codes_lane(c->bits);
    for (unsigned i = 0; i < tables; i++) {
        for (uint64_t at = 0; at < c->table_plane; at++) {
            uint64_t g = q->groups == 1 ? 0 : at / 16 * lane_cols / q->group_cols;
            g = g < q->groups ? g : q->groups - 1;
            t[i * c->table_plane + at] = table_byte(f, g, i / c->d, i % c->d, at % 16);
        }
    }
    return NOVAQ_OK;
}

static novaq_status make_pairs(nq_fast *f, novaq_error *err) {
    nq_codes *c = &f->codes;
    uint8_t *p = NULL;
    if (c->bits != 3 || f->q->groups != 1) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_alloc(&p, (size_t)2 * c->d, 64, err));
    f->owned[1] = p;
    c->pairs = p;
    for (unsigned v = 0; v < c->d; v++) {
        for (unsigned i = 0; i < 64; i++) {
            unsigned a = (i & 3U) | (i >> 4 & 1U) << 2;
            unsigned b = (i >> 2 & 3U) | (i >> 5 & 1U) << 2;
            p[v * 64 + i] = (uint8_t)(f->bias + entry(f->q, 0, 0, a, v) + entry(f->q, 0, 1, b, v));
            p[(c->d + v) * 64 + i] = (uint8_t)entry(f->q, 0, 2, b, v);
        }
    }
    return NOVAQ_OK;
}

/* Last partial units as whole ones. */
static novaq_status make_tail(nq_fast *f, novaq_error *err) {
    const nq_qmat *q = f->q;
    nq_codes *c = &f->codes;
    uint64_t left = nq_scheme_row_symbols(&q->scheme, q->cols) - c->units * UNIT;
    if (left == 0) {
        return NOVAQ_OK;
    }
    uint8_t *tail = NULL;
    NQ_TRY(nq_alloc(&tail, q->rows, NQ_TAIL_BYTES, err));
    f->owned[2] = tail;
    c->tail = tail;
    nq_symbol_rows rest = nq_symbol_rows_of(&q->scheme, left * c->d);
    for (uint64_t r = 0; r < q->rows; r++) {
        uint8_t symbols[UNIT] = {0};
        const uint8_t *from = q->symbols + r * c->row_bytes + c->units * UNIT * c->bits / 8;
        nq_symbols_unpack_row(symbols, &rest, from);
        nq_symbols_pack(tail + r * NQ_TAIL_BYTES, &q->scheme, symbols, (uint64_t)UNIT * c->d);
    }
    return NOVAQ_OK;
}

/* ---- matrices ------------------------------------------------------------------------ */

/* How large activations may be. Where the kernel likes it narrow, coarser
 * activations buy speed for schemes whose own error is far larger; one component
 * per subvector means 3 bits and more, and there they keep 8 bits. */
static void set_limit(nq_fast *f, int range) {
    f->limit = 127;
    if (!f->kern->narrow || range <= 0) {
        return;
    }
    int fits = 32767 / (2 * range);
    if (fits < 127 && f->d > 1 && f->lane != 0) {
        f->limit = fits;
    }
    f->codes.wide = f->limit > fits;
}

static novaq_status prepare_codes(nq_fast *f, unsigned bits, novaq_error *err) {
    const nq_qmat *q = f->q;
    nq_codes *c = &f->codes;
    c->bits = bits;
    c->d = q->scheme.d;
    c->levels = q->scheme.levels;
    c->units = nq_scheme_row_symbols(&q->scheme, q->cols) / UNIT;
    c->row_bytes = nq_scheme_row_bytes(&q->scheme, q->cols);
    c->segment_rows = q->segment_rows;
    c->symbols = q->symbols;
    c->bytes = nq_qmat_symbol_bytes(q);
    uint64_t units = (nq_scheme_row_symbols(&q->scheme, q->cols) + UNIT - 1) / UNIT;
    f->lane = nq_codes_lane(bits);
    f->padded_cols = units * UNIT * c->d;
    c->x_plane = (units * f->lane + NQ_PLANE_ALIGN - 1) / NQ_PLANE_ALIGN * NQ_PLANE_ALIGN;
    f->plane = c->x_plane;
    f->row_bytes = nq_codes_row(c);
    NQ_TRY(make_tables(f, err));
    NQ_TRY(make_pairs(f, err));
    return make_tail(f, err);
}

/* Whether level l is field l of the row itself, of at most 16 entries, everywhere the same. */
static bool is_fields(const nq_qmat *q) {
    const nq_scheme *s = &q->scheme;
    bool is = s->kind == NQ_SCHEME_CODE && s->levels == s->fields && q->groups == 1;
    for (unsigned l = 0; is && l < s->levels; l++) {
        is = s->lag[l] == 0 && s->field[l] == l && s->k[l] <= 16;
    }
    return is;
}

static novaq_status make_fields(nq_fast *f, novaq_error *err) {
    const nq_scheme *s = &f->q->scheme;
    uint8_t *tables = NULL;
    NQ_TRY(nq_alloc(&tables, (uint64_t)s->fields * s->d, NQ_PLANE_ALIGN, err));
    f->owned[0] = tables;
    for (unsigned l = 0; l < s->levels; l++) {
        const int8_t *book = f->q->codebooks + nq_level_offset(s, l);
        for (unsigned i = 0; i < s->d * NQ_PLANE_ALIGN; i++) {
            unsigned b = i % 16;
            int e = b < s->k[l] ? book[b * s->d + i / NQ_PLANE_ALIGN] : 0;
            tables[l * s->d * NQ_PLANE_ALIGN + i] = (uint8_t)(e + (l == 0 ? f->bias : 0));
        }
    }
    f->fields = (nq_fields){.fields = s->fields,
                            .d = s->d,
                            .stride = nq_scheme_row_symbols(s, f->q->cols),
                            .tables = tables,
                            .x_plane = f->plane};
    return NOVAQ_OK;
}

/* Everything the kernels do not read: decoded to bytes first. */
static novaq_status prepare_bytes(nq_fast *f, novaq_error *err) {
    const nq_qmat *q = f->q;
    bool code = q->scheme.kind == NQ_SCHEME_CODE;
    uint64_t stride = code ? nq_scheme_row_symbols(&q->scheme, q->cols) : q->cols;
    f->plane = (stride + NQ_PLANE_ALIGN - 1) / NQ_PLANE_ALIGN * NQ_PLANE_ALIGN;
    f->row_bytes = f->plane * f->d;
    f->padded_cols = q->cols;
    f->bias = f->kern->signed_bytes ? 0 : 128;
    return is_fields(q) ? make_fields(f, err) : NOVAQ_OK;
}

static novaq_status column_scales(nq_fast *f, novaq_error *err) {
    const nq_qmat *q = f->q;
    f->scale = ldexpf(1.0F, q->exponent);
    if (q->scheme.kind != NQ_SCHEME_CODE) {
        return NOVAQ_OK;
    }
    if (q->groups == 1) {
        f->scale *= nq_f16_to_f32(q->codebook_scale[0]);
        return NOVAQ_OK;
    }
    NQ_TRY(nq_alloc(&f->column_scale, q->cols, sizeof *f->column_scale, err));
    for (uint64_t c = 0; c < q->cols; c++) {
        f->column_scale[c] = nq_f16_to_f32(q->codebook_scale[c / q->group_cols]);
    }
    return NOVAQ_OK;
}

static novaq_status prepare(nq_fast *f, novaq_error *err) {
    unsigned bits = kernel_bits(f->q);
    int least = -128;
    int most = 127;
    f->d = f->q->scheme.kind == NQ_SCHEME_CODE ? f->q->scheme.d : 1;
    NQ_TRY(column_scales(f, err));
    if (bits != 0) {
        range_of_sums(&least, &most, f->q);
    }
    /* A file may hold entries whose sums do not fit: they wrap, byte by byte. */
    bool fits = least >= -128 && most <= 127;
    if (bits == 0 || !fits) {
        set_limit(f, 255);
        return prepare_bytes(f, err);
    }
    f->bias = f->kern->signed_bytes ? 0 : -least;
    NQ_TRY(prepare_codes(f, bits, err));
    set_limit(f, most - least);
    return NOVAQ_OK;
}

novaq_status nq_fast_add(const nq_fast **out, nq_fast_set *set, const nq_qmat *q,
                         novaq_error *err) {
    *out = NULL;
    if (q->cols > MAX_COLS) {
        return NOVAQ_OK;
    }
    nq_fast *f = NULL;
    NQ_TRY(nq_grow(&set->matrices, set->count, set->count + 1, sizeof(nq_fast *), err));
    NQ_TRY(nq_alloc(&f, 1, sizeof *f, err));
    set->matrices[set->count++] = f;
    f->q = q;
    f->kern = set->kern;
    NQ_TRY(add_basis(&f->basis, set, q, err));
    NQ_TRY(prepare(f, err));
    *out = f;
    return NOVAQ_OK;
}

/* layout.c - see layout.h: pieces, shapes, names. */
#include "artifact/layout.h"

#include <stdio.h>
#include <string.h>

#include "base/hex.h"

const char *nq_piece_name(nq_piece_kind k) {
    static const char *const names[NQ_PIECE_KINDS] = {"symbols",   "codebooks", "codebook_scale",
                                                      "row_scale", "row_mean",  "col_exponent",
                                                      "data",      "zlib"};
    return names[k];
}

const char *nq_role_name(nq_role r) {
    switch (r) {
    case NQ_ROLE_LINEAR: return "linear";
    case NQ_ROLE_EMBEDDING: return "embedding";
    case NQ_ROLE_HEAD: return "head";
    case NQ_ROLE_OTHER: break;
    }
    return "other";
}

uint64_t nq_align_piece(uint64_t offset) {
    return (offset + (NQ_PIECE_ALIGN - 1)) / NQ_PIECE_ALIGN * NQ_PIECE_ALIGN;
}

static nq_piece *add_piece(nq_stored_layer *s, nq_piece_kind kind, const char *dtype,
                           uint64_t bytes) {
    nq_piece *p = &s->piece[s->pieces++];
    *p = (nq_piece){.kind = kind, .dtype = dtype, .bytes = bytes};
    return p;
}

static void add_vector(nq_stored_layer *s, nq_piece_kind kind, uint64_t count) {
    bool bytes = kind == NQ_PIECE_COL_EXPONENT;
    nq_piece *p = add_piece(s, kind, bytes ? "I8" : "F16", bytes ? count : count * 2);
    p->rank = 1;
    p->shape[0] = count;
}

static novaq_status check_shape(const nq_layer *l, novaq_error *err) {
    if (l->rank > NQ_LAYER_RANK) {
        return nq_fail(err, NOVAQ_E_FORMAT, "layer '%s': more than %d dimensions", l->name,
                       NQ_LAYER_RANK);
    }
    uint64_t n = 1;
    for (uint32_t i = 0; i < l->rank; i++) {
        /* Each dimension alone as well: [2^60, 0] must not pass as empty. */
        if (l->shape[i] > NQ_ELEMENTS_MAX || !nq_mul_u64(n, l->shape[i], &n) ||
            n > NQ_ELEMENTS_MAX) {
            return nq_fail(err, NOVAQ_E_FORMAT, "layer '%s': shape is too large", l->name);
        }
    }
    if (n != l->elements) {
        return nq_fail(err, NOVAQ_E_FORMAT, "layer '%s': shape has %llu elements, not %llu",
                       l->name, (unsigned long long)n, (unsigned long long)l->elements);
    }
    return NOVAQ_OK;
}

/* Element type of a layer kept as plain elements. */
static nq_dtype data_dtype(const nq_layer *l) {
    switch (l->scheme.kind) {
    case NQ_SCHEME_F32: return NQ_F32;
    case NQ_SCHEME_F16: return NQ_F16;
    case NQ_SCHEME_BF16: return NQ_BF16;
    default: return l->source_dtype;
    }
}

static novaq_status data_piece(nq_stored_layer *s, novaq_error *err) {
    const nq_layer *l = &s->layer;
    const nq_dtype_info *info = nq_dtype_get(data_dtype(l));
    uint64_t row = l->rank == 0 ? 1 : l->shape[l->rank - 1];
    uint64_t bytes = 0;
    if (l->elements > 0 && !nq_dtype_bytes(data_dtype(l), l->elements, row, &bytes)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "layer '%s': rows of %llu are not whole %s blocks",
                       l->name, (unsigned long long)row, info->name);
    }
    nq_piece *p = add_piece(s, NQ_PIECE_DATA, "U8", bytes);
    if (info->safetensors != NULL && info->block == 1) {
        p->dtype = info->safetensors;
        p->rank = l->rank;
        memcpy(p->shape, l->shape, sizeof p->shape);
    } else { /* ggml blocks have no SafeTensors type */
        p->rank = 1;
        p->shape[0] = bytes;
    }
    return NOVAQ_OK;
}

static novaq_status check_matrix(const nq_layer *l, novaq_error *err) {
    const nq_qmat *q = &l->q;
    uint64_t n = 0;
    if (q->rows == 0 || q->cols == 0 || !nq_mul_u64(q->rows, q->cols, &n) || n != l->elements) {
        return nq_fail(err, NOVAQ_E_FORMAT, "layer '%s': %llu rows x %llu columns do not fit shape",
                       l->name, (unsigned long long)q->rows, (unsigned long long)q->cols);
    }
    NQ_TRY(nq_qmat_check(q, l->name, err));
    /* What sizes are computed from, whatever nq_qmat_check() looks at. */
    if (q->scheme.kind == NQ_SCHEME_CODE && q->groups != 1 &&
        (q->groups == 0 || q->group_cols == 0 ||
         q->groups != q->cols / q->group_cols + (q->cols % q->group_cols != 0))) {
        return nq_fail(err, NOVAQ_E_FORMAT, "layer '%s': %u groups of %llu columns do not cover it",
                       l->name, q->groups, (unsigned long long)q->group_cols);
    }
    return NOVAQ_OK;
}

static novaq_status matrix_pieces(nq_stored_layer *s, unsigned optional, novaq_error *err) {
    const nq_qmat *q = &s->layer.q;
    NQ_TRY(check_matrix(&s->layer, err));
    bool q8 = q->scheme.kind == NQ_SCHEME_Q8;
    nq_piece *p = add_piece(s, NQ_PIECE_SYMBOLS, q8 ? "I8" : "U8", nq_qmat_symbol_bytes(q));
    p->rank = 2;
    p->shape[0] = q->rows;
    p->shape[1] = p->bytes / q->rows;
    if (!q8) {
        p = add_piece(s, NQ_PIECE_CODEBOOKS, "I8", nq_qmat_codebook_bytes(q));
        p->rank = 3;
        p->shape[0] = q->groups;
        p->shape[1] = p->bytes / q->groups / q->scheme.d;
        p->shape[2] = q->scheme.d;
        add_vector(s, NQ_PIECE_CODEBOOK_SCALE, q->groups);
    }
    add_vector(s, NQ_PIECE_ROW_SCALE, q->rows);
    if ((optional & 1U << NQ_PIECE_ROW_MEAN) != 0) {
        add_vector(s, NQ_PIECE_ROW_MEAN, q->rows);
    }
    if ((optional & 1U << NQ_PIECE_COL_EXPONENT) != 0) {
        add_vector(s, NQ_PIECE_COL_EXPONENT, q->cols);
    }
    return NOVAQ_OK;
}

unsigned nq_layer_optional(const nq_layer *l) {
    return (l->q.row_mean != NULL ? 1U << NQ_PIECE_ROW_MEAN : 0) |
           (l->q.col_exponent != NULL ? 1U << NQ_PIECE_COL_EXPONENT : 0);
}

novaq_status nq_layer_pieces(nq_stored_layer *s, unsigned optional, novaq_error *err) {
    s->pieces = 0;
    NQ_TRY(check_shape(&s->layer, err));
    bool coded = s->layer.scheme.kind == NQ_SCHEME_CODE || s->layer.scheme.kind == NQ_SCHEME_Q8;
    NQ_TRY(coded ? matrix_pieces(s, optional, err) : data_piece(s, err));
    s->layer.stored_bytes = 0;
    for (unsigned i = 0; i < s->pieces; i++) {
        s->layer.stored_bytes += s->piece[i].bytes;
    }
    return NOVAQ_OK;
}

void nq_layer_point(nq_layer *l, const nq_piece *p, const void *data) {
    switch (p->kind) {
    case NQ_PIECE_SYMBOLS: l->q.symbols = data; break;
    case NQ_PIECE_CODEBOOKS: l->q.codebooks = data; break;
    case NQ_PIECE_CODEBOOK_SCALE: l->q.codebook_scale = data; break;
    case NQ_PIECE_ROW_SCALE: l->q.row_scale = data; break;
    case NQ_PIECE_ROW_MEAN: l->q.row_mean = data; break;
    case NQ_PIECE_COL_EXPONENT: l->q.col_exponent = data; break;
    default:
        l->data = data;
        l->data_bytes = p->bytes;
        break;
    }
}

novaq_status nq_origin_path(char **out, const char *path, novaq_error *err) {
    size_t n = strlen(path);
    while (n > 0 && path[n - 1] == '/') {
        n--;
    }
    size_t base = n;
    while (base > 0 && path[base - 1] != '/') {
        base--;
    }
    bool named = strspn(path + base, "./") < n - base;
    *out = NULL;
    return named ? nq_asprintf(out, err, "%.*s%s", (int)n, path, NQ_ORIGIN_END) : NOVAQ_OK;
}

const char *nq_chunk_name(char *buf, size_t index, const char *sha256) {
    (void)snprintf(buf, NQ_CHUNK_NAME, "chunk-%05u-%.8s.bin", (unsigned)(index % NQ_CHUNK_MAX),
                   sha256);
    return buf;
}

bool nq_is_chunk_name(const char *name) {
    if (strlen(name) != 24 || strncmp(name, "chunk-", 6) != 0 || name[11] != '-' ||
        strcmp(name + 20, ".bin") != 0) {
        return false;
    }
    for (int i = 6; i < 11; i++) {
        if (name[i] < '0' || name[i] > '9') {
            return false;
        }
    }
    return nq_is_hex(name + 12, 8);
}

/* onnx_read.c - the numbers of a tensor whose bytes do not just lie in the file.
 *
 * Owns: decoding typed fields and turning matrices round, a tile at a time, so
 * that memory does not follow the size of the tensor.
 */
#include <string.h>

#include "base/mem.h"
#include "format/dequant.h"
#include "format/onnx_impl.h"

#define TILE ((uint64_t)1 << 17) /* elements, of at most 8 bytes */
#define RUN  ((uint64_t)1 << 12) /* elements of a run with gaps, read at a time */

/* ---- as stored -------------------------------------------------------------- */

/* The piece that holds an element. */
static size_t piece_of(const nq_onnx_piece *pieces, size_t count, uint64_t element) {
    size_t low = 0;
    size_t high = count - 1;
    while (low < high) {
        size_t mid = (low + high + 1) / 2;
        if (pieces[mid].first <= element) {
            low = mid;
        } else {
            high = mid - 1;
        }
    }
    return low;
}

/* skip: elements of the piece to pass over. */
static novaq_status read_fixed(uint8_t *dst, nq_source *src, const nq_onnx_piece *p, uint64_t skip,
                               uint64_t n, unsigned width, novaq_error *err) {
    uint64_t at = p->offset + skip * p->stride;
    if (p->stride == width) {
        return nq_source_read(src, at, dst, n * width, err);
    }
    uint8_t *raw = NULL;
    NQ_TRY(nq_alloc_raw(&raw, RUN, p->stride, err));
    novaq_status st = NOVAQ_OK;
    while (st == NOVAQ_OK && n > 0) {
        uint64_t now = n < RUN ? n : RUN;
        /* The last element has no gap behind it. */
        st = nq_source_read(src, at, raw, (now - 1) * p->stride + width, err);
        for (uint64_t i = 0; st == NOVAQ_OK && i < now; i++) {
            memcpy(dst + i * width, raw + i * p->stride, width);
        }
        dst += now * width;
        at += now * p->stride;
        n -= now;
    }
    nq_free(raw);
    return st;
}

static novaq_status read_varints(uint8_t *dst, nq_pb *pb, const nq_onnx_piece *p, uint64_t skip,
                                 uint64_t n, unsigned width, novaq_error *err) {
    nq_pb_range r = nq_pb_whole(pb);
    r.pos = p->offset;
    for (uint64_t i = 0; i < skip + n; i++) {
        uint64_t v = 0;
        if (p->tagged != 0) {
            NQ_TRY(nq_pb_varint(pb, &r, &v, err));
        }
        NQ_TRY(nq_pb_varint(pb, &r, &v, err));
        for (unsigned b = 0; i >= skip && b < width; b++) {
            *dst++ = (uint8_t)(v >> (8 * b));
        }
    }
    return NOVAQ_OK;
}

static novaq_status read_pieces(uint8_t *dst, nq_pb *pb, const nq_tensor_info *t,
                                const nq_onnx_piece *pieces, size_t count, uint64_t first,
                                uint64_t n, novaq_error *err) {
    unsigned width = nq_dtype_get(t->dtype)->bytes;
    for (size_t i = piece_of(pieces, count, first); n > 0; i++) {
        const nq_onnx_piece *p = &pieces[i];
        uint64_t end = i + 1 < count ? p[1].first : t->elements;
        uint64_t now = end - first < n ? end - first : n;
        uint64_t skip = first - p->first;
        NQ_TRY(p->stride > 0 ? read_fixed(dst, pb->src, p, skip, now, width, err)
                             : read_varints(dst, pb, p, skip, now, width, err));
        dst += now * width;
        first += now;
        n -= now;
    }
    return NOVAQ_OK;
}

novaq_status nq_onnx_read_stored(uint8_t *dst, nq_source *src, const nq_tensor_info *t,
                                 const nq_onnx_piece *pieces, size_t count, uint64_t first,
                                 uint64_t n, novaq_error *err) {
    if (count == 0 || n == 0) {
        uint64_t width = nq_dtype_get(t->dtype)->bytes;
        return n == 0 ? NOVAQ_OK
                      : nq_source_read(src, t->offset + first * width, dst, n * width, err);
    }
    nq_pb pb;
    novaq_status st = nq_pb_open(&pb, src, err);
    if (st == NOVAQ_OK) {
        st = read_pieces(dst, &pb, t, pieces, count, first, n, err);
    }
    nq_pb_close(&pb);
    return st;
}

/* ---- as presented ----------------------------------------------------------- */

typedef struct job {
    nq_source *src;
    const nq_tensor_info *t; /* presented: shape [rows, cols], stored [cols, rows] */
    const nq_onnx_piece *pieces;
    const nq_onnx_view *view;
    uint8_t *raw;   /* a tile as stored */
    float *floats;  /* the same as float32; NULL when bytes are wanted */
    unsigned width; /* bytes of a stored element */
} job;

static void turn(uint8_t *dst, uint64_t dst_pitch, const uint8_t *src, uint64_t src_pitch,
                 uint64_t rows, uint64_t cols, unsigned width) {
    for (uint64_t c0 = 0; c0 < cols; c0 += 16) {
        uint64_t c1 = cols - c0 < 16 ? cols : c0 + 16;
        for (uint64_t r = 0; r < rows; r++) {
            for (uint64_t c = c0; c < c1; c++) {
                uint8_t *to = dst + c * dst_pitch + r * width;
                const uint8_t *from = src + r * src_pitch + c * width;
                switch (width) { /* constants, so that each is one move */
                case 1: *to = *from; break;
                case 2: memcpy(to, from, 2); break;
                case 4: memcpy(to, from, 4); break;
                default: memcpy(to, from, 8); break;
                }
            }
        }
    }
}

/* Columns [c, c + cols) of stored rows [r, r + rows), turned round. dst: where
 * column c, row r goes; pitch: bytes from one column to the next. */
static novaq_status read_tile(const job *j, uint8_t *dst, uint64_t pitch, uint64_t r, uint64_t rows,
                              uint64_t c, uint64_t cols, bool whole, novaq_error *err) {
    uint64_t stored_cols = j->t->shape[0];
    uint64_t step = whole ? stored_cols : cols;
    for (uint64_t i = 0; i < (whole ? 1 : rows); i++) {
        uint64_t first = (r + i) * stored_cols + (whole ? 0 : c);
        NQ_TRY(nq_onnx_read_stored(j->raw + i * cols * j->width, j->src, j->t, j->pieces,
                                   j->view->pieces, first, whole ? rows * stored_cols : cols, err));
    }
    uint64_t skip = whole ? c : 0;
    if (j->floats == NULL) {
        turn(dst, pitch, j->raw + skip * j->width, step * j->width, rows, cols, j->width);
        return NOVAQ_OK;
    }
    nq_dequantize(j->floats, j->t->dtype, j->raw, rows * step);
    turn(dst, pitch, (const uint8_t *)(j->floats + skip), step * sizeof(float), rows, cols,
         sizeof(float));
    return NOVAQ_OK;
}

/* Presented rows [p, p + rows), of each the columns [k, k + cols). */
static novaq_status read_rect(const job *j, uint8_t *dst, uint64_t p, uint64_t rows, uint64_t k,
                              uint64_t cols, novaq_error *err) {
    uint64_t stored_cols = j->t->shape[0];
    uint64_t out_width = j->floats != NULL ? sizeof(float) : j->width;
    uint64_t pitch = cols * out_width;
    for (uint64_t p0 = 0; p0 < rows; p0 += TILE) {
        uint64_t wide = rows - p0 < TILE ? rows - p0 : TILE;
        /* Whole stored rows unless most of each would be thrown away. */
        bool whole = stored_cols <= TILE && (stored_cols / 8 <= wide || j->view->pieces > 0);
        uint64_t high = TILE / (whole ? stored_cols : wide);
        for (uint64_t k0 = 0; k0 < cols; k0 += high) {
            uint64_t now = cols - k0 < high ? cols - k0 : high;
            NQ_TRY(read_tile(j, dst + p0 * pitch + k0 * out_width, pitch, k + k0, now, p + p0, wide,
                             whole, err));
        }
    }
    return NOVAQ_OK;
}

/* Elements [first, first + n) of a turned matrix: the end of a row, whole rows,
 * the beginning of a row. */
static novaq_status read_turned(const job *j, uint8_t *dst, uint64_t first, uint64_t n,
                                novaq_error *err) {
    uint64_t cols = j->t->shape[1];
    uint64_t width = j->width;
    uint64_t p = first / cols;
    uint64_t k = first % cols;
    if (k != 0) {
        uint64_t now = cols - k < n ? cols - k : n;
        NQ_TRY(read_rect(j, dst, p, 1, k, now, err));
        dst += now * width;
        n -= now;
        p++;
    }
    uint64_t rows = n / cols;
    if (rows > 0) {
        NQ_TRY(read_rect(j, dst, p, rows, 0, cols, err));
        dst += rows * cols * width;
    }
    return n % cols == 0 ? NOVAQ_OK : read_rect(j, dst, p + rows, 1, 0, n % cols, err);
}

static job job_of(const nq_onnx *o, nq_source *src, const nq_tensor_info *t) {
    const nq_onnx_view *v = &o->views[t->view - 1];
    return (job){.src = src,
                 .t = t,
                 .pieces = o->pieces + v->piece,
                 .view = v,
                 .width = nq_dtype_get(t->dtype)->bytes};
}

static novaq_status read_elements(job *j, uint8_t *dst, uint64_t first, uint64_t n,
                                  novaq_error *err) {
    if (!j->view->transposed) {
        return nq_onnx_read_stored(dst, j->src, j->t, j->pieces, j->view->pieces, first, n, err);
    }
    NQ_TRY(nq_alloc_raw(&j->raw, TILE, j->width, err));
    novaq_status st = read_turned(j, dst, first, n, err);
    nq_free(j->raw);
    return st;
}

/* Bytes [skip, skip + n) of one element. */
static novaq_status read_part(job *j, uint8_t *dst, uint64_t element, uint64_t skip, uint64_t n,
                              novaq_error *err) {
    uint8_t one[8];
    NQ_TRY(read_elements(j, one, element, 1, err));
    memcpy(dst, one + skip, n);
    return NOVAQ_OK;
}

novaq_status nq_onnx_read(void *dst, const nq_onnx *o, nq_source *src, const nq_tensor_info *t,
                          uint64_t offset, uint64_t len, novaq_error *err) {
    job j = job_of(o, src, t);
    uint8_t *out = dst;
    uint64_t e = offset / j.width;
    uint64_t skip = offset % j.width;
    if (skip != 0 && len > 0) {
        uint64_t n = j.width - skip < len ? j.width - skip : len;
        NQ_TRY(read_part(&j, out, e++, skip, n, err));
        out += n;
        len -= n;
    }
    uint64_t n = len / j.width;
    if (n > 0) {
        NQ_TRY(read_elements(&j, out, e, n, err));
    }
    uint64_t rest = len % j.width;
    return rest == 0 ? NOVAQ_OK : read_part(&j, out + n * j.width, e + n, 0, rest, err);
}

static novaq_status read_plain_f32(float *dst, job *j, novaq_error *err) {
    for (uint64_t e = 0; e < j->t->elements; e += TILE) {
        uint64_t n = j->t->elements - e < TILE ? j->t->elements - e : TILE;
        NQ_TRY(nq_onnx_read_stored(j->raw, j->src, j->t, j->pieces, j->view->pieces, e, n, err));
        nq_dequantize(dst + e, j->t->dtype, j->raw, n);
    }
    return NOVAQ_OK;
}

novaq_status nq_onnx_read_f32(float *dst, const nq_onnx *o, nq_source *src, const nq_tensor_info *t,
                              novaq_error *err) {
    job j = job_of(o, src, t);
    if (t->elements == 0) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_alloc_raw(&j.raw, TILE, j.width, err));
    novaq_status st = nq_alloc_raw(&j.floats, TILE, sizeof(float), err);
    if (st == NOVAQ_OK) {
        st = j.view->transposed ? read_rect(&j, (uint8_t *)dst, 0, t->shape[0], 0, t->shape[1], err)
                                : read_plain_f32(dst, &j, err);
    }
    nq_free(j.floats);
    nq_free(j.raw);
    return st;
}

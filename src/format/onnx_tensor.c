/* onnx_tensor.c - one TensorProto: type, shape and where its numbers lie.
 *
 * Owns: checking that the numbers are there, are as many as the shape says and
 * fit their type. Refuses: two places for one tensor's data, segments, types
 * that are packed codes rather than numbers.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "format/onnx_impl.h"

#define ITEMS_MAX     ((size_t)1 << 19)
#define PIECES_MAX    ((size_t)1 << 21)
#define FILES_MAX     ((size_t)1 << 12)
#define VARINTS_APART 1024 /* elements between two known positions */

enum { /* fields of TensorProto */
       F_DIMS = 1,
       F_TYPE = 2,
       F_SEGMENT = 3,
       F_FLOAT = 4,
       F_INT32 = 5,
       F_STRING = 6,
       F_INT64 = 7,
       F_NAME = 8,
       F_RAW = 9,
       F_DOUBLE = 10,
       F_UINT64 = 11,
       F_EXTERNAL = 13,
       F_LOCATION = 14
};

typedef struct onnx_type {
    uint32_t number;
    uint32_t field; /* where it is when not raw; 0: not a type that novaq reads */
    nq_dtype dtype;
    int64_t low; /* of a value in int32_data */
    int64_t high;
    const char *name;
} onnx_type;

static const onnx_type types[] = {
    {1, F_FLOAT, NQ_F32, 0, 0, "FLOAT"},
    {2, F_INT32, NQ_U8, 0, UINT8_MAX, "UINT8"},
    {3, F_INT32, NQ_I8, INT8_MIN, INT8_MAX, "INT8"},
    {4, F_INT32, NQ_U16, 0, UINT16_MAX, "UINT16"},
    {5, F_INT32, NQ_I16, INT16_MIN, INT16_MAX, "INT16"},
    {6, F_INT32, NQ_I32, INT32_MIN, INT32_MAX, "INT32"},
    {7, F_INT64, NQ_I64, 0, 0, "INT64"},
    {8, 0, NQ_U8, 0, 0, "STRING"},
    {9, F_INT32, NQ_BOOL, 0, 1, "BOOL"},
    {10, F_INT32, NQ_F16, 0, UINT16_MAX, "FLOAT16"},
    {11, F_DOUBLE, NQ_F64, 0, 0, "DOUBLE"},
    {12, F_UINT64, NQ_U32, 0, 0, "UINT32"},
    {13, F_UINT64, NQ_U64, 0, 0, "UINT64"},
    {14, 0, NQ_U8, 0, 0, "COMPLEX64"},
    {15, 0, NQ_U8, 0, 0, "COMPLEX128"},
    {16, F_INT32, NQ_BF16, 0, UINT16_MAX, "BFLOAT16"},
    {17, F_INT32, NQ_F8_E4M3, 0, UINT8_MAX, "FLOAT8E4M3FN"},
    {18, 0, NQ_U8, 0, 0, "FLOAT8E4M3FNUZ"},
    {19, F_INT32, NQ_F8_E5M2, 0, UINT8_MAX, "FLOAT8E5M2"},
    {20, 0, NQ_U8, 0, 0, "FLOAT8E5M2FNUZ"},
    {21, 0, NQ_U8, 0, 0, "UINT4"},
    {22, 0, NQ_U8, 0, 0, "INT4"},
    {23, 0, NQ_U8, 0, 0, "FLOAT4E2M1"},
    {24, 0, NQ_U8, 0, 0, "FLOAT8E8M0"},
    {25, 0, NQ_U8, 0, 0, "UINT2"},
    {26, 0, NQ_U8, 0, 0, "INT2"},
};

typedef struct draft {
    nq_onnx_walk *w;
    nq_onnx_item item;
    const onnx_type *type;
    uint64_t number;   /* of the type */
    uint64_t seen;     /* bit per field number that may occur once */
    uint64_t location; /* data_location: 0 here, 1 external */
    uint64_t dims;     /* may exceed NQ_MAX_RANK */
    uint64_t stored;   /* elements met so far in a typed field */
    uint64_t next;     /* where an untagged run of tagged varints would go on */
    uint64_t data_at;  /* field of the data, for messages */
    uint32_t data;     /* number of the field that holds data, 0: none yet */
} draft;

static novaq_status bad(const draft *d, uint64_t at, const char *what, novaq_error *err) {
    return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: tensor \"%.200s\": %s",
                   d->w->pb.src->name, (unsigned long long)at,
                   d->item.info.name == NULL ? "" : d->item.info.name, what);
}

/* ---- shape and type --------------------------------------------------------- */

static novaq_status add_dim(draft *d, uint64_t at, uint64_t dim, novaq_error *err) {
    nq_tensor_info *t = &d->item.info;
    if (dim > INT64_MAX) {
        return bad(d, at, "a negative dimension", err);
    }
    if (!nq_mul_u64(t->elements, dim, &t->elements)) {
        return bad(d, at, "the product of the dimensions overflows", err);
    }
    if (d->dims < NQ_MAX_RANK) {
        t->shape[d->dims] = dim;
    }
    d->dims++;
    return NOVAQ_OK;
}

static novaq_status read_dims(draft *d, const nq_pb_field *f, novaq_error *err) {
    if (f->wire == NQ_PB_VARINT) {
        return add_dim(d, f->at, f->value, err);
    }
    NQ_TRY(nq_pb_expect(&d->w->pb, f, NQ_PB_BYTES, err));
    nq_pb_range r = f->data;
    while (r.pos < r.end) {
        uint64_t at = r.pos;
        uint64_t dim = 0;
        NQ_TRY(nq_pb_varint(&d->w->pb, &r, &dim, err));
        NQ_TRY(add_dim(d, at, dim, err));
    }
    return NOVAQ_OK;
}

/* Fields that occur once; protobuf would let the last one win. */
static novaq_status once(draft *d, const nq_pb_field *f, nq_pb_wire wire, novaq_error *err) {
    uint64_t bit = (uint64_t)1 << f->number;
    if ((d->seen & bit) != 0) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: a tensor has field %u twice",
                       d->w->pb.src->name, (unsigned long long)f->at, f->number);
    }
    d->seen |= bit;
    return nq_pb_expect(&d->w->pb, f, wire, err);
}

static novaq_status read_head_field(draft *d, const nq_pb_field *f, const char *name,
                                    novaq_error *err) {
    switch (f->number) {
    case F_DIMS: return read_dims(d, f, err);
    case F_TYPE:
        NQ_TRY(once(d, f, NQ_PB_VARINT, err));
        d->number = f->value;
        return NOVAQ_OK;
    case F_LOCATION:
        NQ_TRY(once(d, f, NQ_PB_VARINT, err));
        d->location = f->value;
        return f->value <= 1 ? NOVAQ_OK : bad(d, f->at, "an unknown data_location", err);
    case F_NAME:
        NQ_TRY(once(d, f, NQ_PB_BYTES, err));
        if (name != NULL) {
            return NOVAQ_OK; /* the node's output names it */
        }
        NQ_TRY(nq_pb_text(&d->w->pb, f, d->w->text, sizeof d->w->text, err));
        return nq_onnx_keep(&d->item.info.name, &d->w->out->text, d->w->text, err);
    default: return NOVAQ_OK;
    }
}

/* The first sweep: everything that says how to read the data. */
static novaq_status read_head(draft *d, const nq_pb_field *tensor, const char *name,
                              novaq_error *err) {
    nq_pb_range r = tensor->data;
    nq_pb_field f;
    bool more = false;
    for (;;) {
        NQ_TRY(nq_pb_next(&d->w->pb, &r, &f, &more, err));
        if (!more) {
            break;
        }
        NQ_TRY(read_head_field(d, &f, name, err));
    }
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (types[i].number == d->number) {
            d->type = &types[i];
        }
    }
    return NOVAQ_OK;
}

static novaq_status check_head(draft *d, novaq_error *err) {
    nq_tensor_info *t = &d->item.info;
    const char *file = d->w->pb.src->name;
    unsigned long long at = d->item.at;
    if (t->name == NULL || t->name[0] == '\0') {
        return bad(d, d->item.at, "has no name", err);
    }
    if (d->type == NULL) {
        return nq_fail(err, NOVAQ_E_FORMAT,
                       "%s: offset %llu: tensor \"%.200s\": unknown data type %llu", file, at,
                       t->name, (unsigned long long)d->number);
    }
    if (d->type->field == 0) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: offset %llu: tensor \"%.200s\": novaq does not read %s; take the "
                       "float export (fp32, fp16 or bf16) of the model",
                       file, at, t->name, d->type->name);
    }
    if (d->dims > NQ_MAX_RANK) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: offset %llu: tensor \"%.200s\" has %llu dimensions, novaq reads at "
                       "most %d",
                       file, at, t->name, (unsigned long long)d->dims, NQ_MAX_RANK);
    }
    t->dtype = d->type->dtype;
    t->rank = (uint32_t)d->dims;
    return nq_mul_u64(t->elements, nq_dtype_get(t->dtype)->bytes, &t->bytes)
               ? NOVAQ_OK
               : bad(d, d->item.at, "the size in bytes overflows", err);
}

/* ---- typed fields ----------------------------------------------------------- */

static novaq_status add_piece(draft *d, nq_onnx_piece p, novaq_error *err) {
    nq_onnx_walk *w = d->w;
    if (w->piece_count == PIECES_MAX) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: offset %llu: tensor \"%.200s\": data in too many pieces; save the "
                       "model with raw or external data",
                       w->pb.src->name, (unsigned long long)p.offset, d->item.info.name);
    }
    if (w->out->pieces == NULL || w->piece_count == w->piece_cap) {
        size_t cap = w->piece_cap == 0 ? 64 : w->piece_cap * 2;
        NQ_TRY(nq_grow(&w->out->pieces, w->piece_count, cap, sizeof *w->out->pieces, err));
        w->piece_cap = cap;
    }
    if (d->item.pieces == 0) {
        d->item.piece = w->piece_count;
    }
    w->out->pieces[w->piece_count++] = p;
    d->item.pieces++;
    return NOVAQ_OK;
}

static nq_onnx_piece *last_piece(const draft *d) {
    return d->item.pieces == 0 ? NULL : &d->w->out->pieces[d->w->piece_count - 1];
}

static novaq_status check_value(const draft *d, uint64_t at, uint64_t v, novaq_error *err) {
    bool fits = true;
    if (d->type->field == F_INT32) { /* cut to 32 bits, as every protobuf reader does */
        int64_t x = (int32_t)(uint32_t)(v & UINT32_MAX);
        fits = x >= d->type->low && x <= d->type->high;
    } else if (d->type->dtype == NQ_U32) {
        fits = v <= UINT32_MAX;
    }
    return fits ? NOVAQ_OK : bad(d, at, "a value does not fit the tensor's type", err);
}

/* A new position every VARINTS_APART elements, so that reading need not start
 * from the beginning. */
static novaq_status mark_varint(draft *d, uint64_t at, bool tagged, bool fresh, novaq_error *err) {
    const nq_onnx_piece *p = last_piece(d);
    if (!fresh && p != NULL && d->stored - p->first < VARINTS_APART) {
        return NOVAQ_OK;
    }
    return add_piece(d, (nq_onnx_piece){at, d->stored, 0, tagged ? 1 : 0}, err);
}

static novaq_status read_varints(draft *d, const nq_pb_field *f, novaq_error *err) {
    if (f->wire == NQ_PB_VARINT) {
        const nq_onnx_piece *p = last_piece(d);
        bool fresh = p == NULL || p->tagged == 0 || d->next != f->at;
        NQ_TRY(mark_varint(d, f->at, true, fresh, err));
        NQ_TRY(check_value(d, f->at, f->value, err));
        d->next = f->data.end;
        d->stored++;
        return NOVAQ_OK;
    }
    NQ_TRY(nq_pb_expect(&d->w->pb, f, NQ_PB_BYTES, err));
    nq_pb_range r = f->data;
    for (bool fresh = true; r.pos < r.end; fresh = false) {
        uint64_t at = r.pos;
        uint64_t v = 0;
        NQ_TRY(nq_pb_varint(&d->w->pb, &r, &v, err));
        NQ_TRY(check_value(d, at, v, err));
        NQ_TRY(mark_varint(d, at, false, fresh, err));
        d->stored++;
    }
    return NOVAQ_OK;
}

static novaq_status read_fixed(draft *d, const nq_pb_field *f, nq_pb_wire wire, novaq_error *err) {
    uint32_t size = wire == NQ_PB_FIXED32 ? 4 : 8;
    uint64_t len = f->data.end - f->data.pos;
    if (f->wire == wire) { /* one element with its tag: part of a run, usually */
        uint32_t stride = (uint32_t)(f->data.end - f->at);
        const nq_onnx_piece *p = last_piece(d);
        bool on = p != NULL && p->stride == stride &&
                  f->data.pos == p->offset + (d->stored - p->first) * stride;
        NQ_TRY(on ? NOVAQ_OK
                  : add_piece(d, (nq_onnx_piece){f->data.pos, d->stored, stride, 0}, err));
        d->stored++;
        return NOVAQ_OK;
    }
    NQ_TRY(nq_pb_expect(&d->w->pb, f, NQ_PB_BYTES, err));
    if (len % size != 0) {
        return bad(d, f->at, "packed numbers end in the middle of one", err);
    }
    if (len > 0) {
        NQ_TRY(add_piece(d, (nq_onnx_piece){f->data.pos, d->stored, size, 0}, err));
        d->stored += len / size;
    }
    return NOVAQ_OK;
}

/* ---- external data ---------------------------------------------------------- */

typedef struct external {
    const char *location;
    uint64_t offset;
    uint64_t length;
    bool has_offset;
    bool has_length;
} external;

static novaq_status read_number(const draft *d, uint64_t at, uint64_t *out, bool *has,
                                novaq_error *err) {
    const char *s = d->w->text;
    if (*has) {
        return bad(d, at, "external data with the same key twice", err);
    }
    *has = true;
    errno = 0;
    char *end = NULL;
    unsigned long long v = strtoull(s, &end, 10);
    if (s[0] < '0' || s[0] > '9' || *end != '\0' || errno != 0 || v > INT64_MAX) {
        return nq_fail(err, NOVAQ_E_FORMAT,
                       "%s: offset %llu: tensor \"%.200s\": external data: \"%.40s\" is not a "
                       "number of bytes",
                       d->w->pb.src->name, (unsigned long long)at, d->item.info.name, s);
    }
    *out = v;
    return NOVAQ_OK;
}

/* One StringStringEntryProto; keys that are not known do not matter. */
static novaq_status read_entry(draft *d, const nq_pb_field *entry, external *x, novaq_error *err) {
    nq_onnx_walk *w = d->w;
    nq_pb_range r = entry->data;
    nq_pb_field f;
    bool more = false;
    w->key[0] = '\0';
    w->text[0] = '\0';
    NQ_TRY(nq_pb_expect(&w->pb, entry, NQ_PB_BYTES, err));
    for (;;) {
        NQ_TRY(nq_pb_next(&w->pb, &r, &f, &more, err));
        if (!more) {
            break;
        }
        if (f.number == 1 && f.data.end - f.data.pos < sizeof w->key) {
            NQ_TRY(nq_pb_text(&w->pb, &f, w->key, sizeof w->key, err));
        } else if (f.number == 2) {
            NQ_TRY(nq_pb_text(&w->pb, &f, w->text, sizeof w->text, err));
        }
    }
    if (strcmp(w->key, "offset") == 0) {
        return read_number(d, entry->at, &x->offset, &x->has_offset, err);
    }
    if (strcmp(w->key, "length") == 0) {
        return read_number(d, entry->at, &x->length, &x->has_length, err);
    }
    if (strcmp(w->key, "location") != 0) {
        return NOVAQ_OK;
    }
    if (x->location != NULL) {
        return bad(d, entry->at, "external data with the same key twice", err);
    }
    return nq_onnx_keep(&x->location, &w->out->text, w->text, err);
}

static novaq_status open_location(draft *d, const char *location, const nq_onnx_file **out,
                                  novaq_error *err) {
    nq_onnx_walk *w = d->w;
    size_t low = 0;
    size_t high = w->file_count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        int order = strcmp(location, w->files[mid].location);
        if (order == 0) {
            *out = &w->files[mid];
            return NOVAQ_OK;
        }
        if (order < 0) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    if (w->file_count == FILES_MAX) {
        return bad(d, d->item.at, "the model's data are in too many files", err);
    }
    nq_onnx_file fresh = {.location = location};
    novaq_status st = w->open(w->open_ctx, &fresh.src, &fresh.file, location, err);
    if (st != NOVAQ_OK) {
        return nq_fail_context(err, st, "%s: offset %llu: tensor \"%.200s\"", w->pb.src->name,
                               (unsigned long long)d->item.at, d->item.info.name);
    }
    NQ_TRY(nq_grow(&w->files, w->file_count, w->file_count + 1, sizeof *w->files, err));
    memmove(&w->files[low + 1], &w->files[low], (w->file_count - low) * sizeof *w->files);
    w->files[low] = fresh;
    w->file_count++;
    *out = &w->files[low];
    return NOVAQ_OK;
}

static novaq_status place_external(draft *d, const external *x, novaq_error *err) {
    nq_tensor_info *t = &d->item.info;
    if (x->location == NULL || x->location[0] == '\0') {
        return bad(d, d->item.at, "external data without a location", err);
    }
    if (x->has_length && x->length != t->bytes) {
        return nq_fail(err, NOVAQ_E_FORMAT,
                       "%s: offset %llu: tensor \"%.200s\": type and shape take %llu bytes, its "
                       "external data %llu",
                       d->w->pb.src->name, (unsigned long long)d->item.at, t->name,
                       (unsigned long long)t->bytes, (unsigned long long)x->length);
    }
    const nq_onnx_file *file = NULL;
    novaq_status st = open_location(d, x->location, &file, err);
    if (st != NOVAQ_OK || file == NULL) {
        return st;
    }
    if (x->offset > file->src->size || t->bytes > file->src->size - x->offset) {
        return nq_fail(err, NOVAQ_E_FORMAT,
                       "%s: offset %llu: tensor \"%.200s\": %llu bytes at %llu of \"%.200s\", "
                       "which has %llu",
                       d->w->pb.src->name, (unsigned long long)d->item.at, t->name,
                       (unsigned long long)t->bytes, (unsigned long long)x->offset, x->location,
                       (unsigned long long)file->src->size);
    }
    t->file = file->file;
    t->offset = x->offset;
    return NOVAQ_OK;
}

/* ---- the data --------------------------------------------------------------- */

static novaq_status read_data_field(draft *d, const nq_pb_field *f, external *x, novaq_error *err) {
    switch (f->number) {
    case F_SEGMENT:
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: offset %llu: tensor \"%.200s\" is a segment of a larger one",
                       d->w->pb.src->name, (unsigned long long)f->at, d->item.info.name);
    case F_EXTERNAL:
        if (d->location != 1) {
            return bad(d, f->at, "names external data but is not stored there", err);
        }
        return read_entry(d, f, x, err);
    case F_FLOAT:
    case F_INT32:
    case F_STRING:
    case F_INT64:
    case F_RAW:
    case F_DOUBLE:
    case F_UINT64: break;
    default: return NOVAQ_OK;
    }
    if (f->wire == NQ_PB_BYTES && f->data.pos == f->data.end) {
        return NOVAQ_OK; /* empty: as good as absent */
    }
    if (d->location == 1) {
        return bad(d, f->at, "has data here and external data", err);
    }
    if (d->data != 0 && (d->data != f->number || d->data == F_RAW)) {
        return bad(d, f->at, "has its data twice", err);
    }
    d->data = f->number;
    d->data_at = f->at;
    d->item.end = f->data.end;
    if (f->number == F_RAW) {
        NQ_TRY(nq_pb_expect(&d->w->pb, f, NQ_PB_BYTES, err));
        d->item.info.offset = f->data.pos;
        d->stored = f->data.end - f->data.pos;
        return NOVAQ_OK;
    }
    if (f->number != d->type->field) {
        return bad(d, f->at, "has data of another type than its own", err);
    }
    return f->number == F_FLOAT    ? read_fixed(d, f, NQ_PB_FIXED32, err)
           : f->number == F_DOUBLE ? read_fixed(d, f, NQ_PB_FIXED64, err)
                                   : read_varints(d, f, err);
}

static novaq_status check_amount(const draft *d, novaq_error *err) {
    bool raw = d->data == F_RAW;
    uint64_t want = raw ? d->item.info.bytes : d->item.info.elements;
    if (d->stored == want) {
        return NOVAQ_OK;
    }
    return nq_fail(err, NOVAQ_E_FORMAT,
                   "%s: offset %llu: tensor \"%.200s\": type and shape take %llu %s, the data are "
                   "%llu",
                   d->w->pb.src->name, (unsigned long long)(d->data == 0 ? d->item.at : d->data_at),
                   d->item.info.name, (unsigned long long)want, raw ? "bytes" : "elements",
                   (unsigned long long)d->stored);
}

/* The second sweep. */
static novaq_status read_data(draft *d, const nq_pb_field *tensor, novaq_error *err) {
    nq_pb_range r = tensor->data;
    nq_pb_field f;
    bool more = false;
    external x = {.location = NULL};
    for (;;) {
        NQ_TRY(nq_pb_next(&d->w->pb, &r, &f, &more, err));
        if (!more) {
            break;
        }
        NQ_TRY(read_data_field(d, &f, &x, err));
    }
    if (d->location == 1) {
        return place_external(d, &x, err);
    }
    NQ_TRY(check_amount(d, err));
    if (d->item.pieces > 0) {
        const nq_onnx_piece *p = &d->w->out->pieces[d->item.piece];
        d->item.info.offset = p->offset;
        if (d->item.pieces == 1 && p->stride == nq_dtype_get(d->item.info.dtype)->bytes) {
            d->item.pieces = 0; /* packed floats lie as raw data do */
            d->w->piece_count--;
        }
    }
    return NOVAQ_OK;
}

novaq_status nq_onnx_add_tensor(nq_onnx_walk *w, const nq_pb_field *f, uint32_t scope,
                                const char *name, novaq_error *err) {
    draft d = {.w = w};
    d.item = (nq_onnx_item){.at = f->at, .scope = scope, .constant = name != NULL};
    d.item.info = (nq_tensor_info){.name = name, .elements = 1, .offset = f->data.pos};
    NQ_TRY(nq_pb_expect(&w->pb, f, NQ_PB_BYTES, err));
    NQ_TRY(read_head(&d, f, name, err));
    if (name != NULL) {
        bool is_float =
            d.type != NULL && d.type->field != 0 && nq_dtype_get(d.type->dtype)->is_float;
        if (!is_float || d.dims == 0 || d.item.info.elements <= 1) {
            return NOVAQ_OK; /* a number, a shape, an index: no weight */
        }
        NQ_TRY(nq_onnx_keep(&d.item.info.name, &w->out->text, name, err));
    }
    NQ_TRY(check_head(&d, err));
    NQ_TRY(read_data(&d, f, err));
    if (w->count == ITEMS_MAX) {
        return bad(&d, f->at, "the model claims too many tensors", err);
    }
    if (w->count == w->cap) {
        size_t cap = w->cap == 0 ? 64 : w->cap * 2;
        NQ_TRY(nq_grow(&w->items, w->count, cap, sizeof *w->items, err));
        w->cap = cap;
    }
    d.item.same = w->count;
    w->items[w->count++] = d.item;
    return NOVAQ_OK;
}

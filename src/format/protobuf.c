/* protobuf.c - see protobuf.h. */
#include "format/protobuf.h"

#include <string.h>

#include "base/mem.h"
#include "format/names.h"

#define WINDOW_MIN ((uint64_t)1 << 12) /* bytes read after a jump */
#define WINDOW_MAX ((uint64_t)1 << 16)

novaq_status nq_pb_fail(const nq_pb *pb, uint64_t at, novaq_error *err, const char *what) {
    return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: %s", pb->src->name,
                   (unsigned long long)at, what);
}

novaq_status nq_pb_open(nq_pb *pb, nq_source *src, novaq_error *err) {
    *pb = (nq_pb){.src = src, .ahead = WINDOW_MIN};
    return nq_alloc_raw(&pb->window, WINDOW_MAX, 1, err);
}

void nq_pb_close(nq_pb *pb) {
    nq_free(pb->window);
    pb->window = NULL;
}

nq_pb_range nq_pb_whole(const nq_pb *pb) { return (nq_pb_range){0, pb->src->size}; }

/* The byte at pos, which is known to be in the file. */
static novaq_status byte_at(nq_pb *pb, uint64_t pos, uint8_t *out, novaq_error *err) {
    if (pos < pb->at || pos - pb->at >= pb->len) {
        bool on = pb->len > 0 && pos - pb->at == pb->len;
        pb->ahead = !on ? WINDOW_MIN : pb->ahead < WINDOW_MAX ? pb->ahead * 2 : WINDOW_MAX;
        uint64_t left = pb->src->size - pos;
        uint64_t n = left < pb->ahead ? left : pb->ahead;
        pb->len = 0;
        NQ_TRY(nq_source_read(pb->src, pos, pb->window, n, err));
        pb->at = pos;
        pb->len = n;
    }
    *out = pb->window[pos - pb->at];
    return NOVAQ_OK;
}

novaq_status nq_pb_varint(nq_pb *pb, nq_pb_range *walk, uint64_t *out, novaq_error *err) {
    uint64_t start = walk->pos;
    uint64_t v = 0;
    for (unsigned shift = 0;; shift += 7) {
        if (walk->pos >= walk->end) {
            return nq_pb_fail(pb, start, err, "a number is cut off by the end of its message");
        }
        uint8_t b = 0;
        NQ_TRY(byte_at(pb, walk->pos, &b, err));
        walk->pos++;
        if (shift == 63 && b > 1) {
            return nq_pb_fail(pb, start, err, "a number has more than 64 bits");
        }
        v |= (uint64_t)(b & 0x7FU) << shift;
        if (b < 0x80) {
            *out = v;
            return NOVAQ_OK;
        }
    }
}

/* The length of a field's payload, checked against what is around it. */
static novaq_status payload(nq_pb *pb, nq_pb_range *walk, nq_pb_field *f, novaq_error *err) {
    uint64_t len = 0;
    switch (f->wire) {
    case NQ_PB_VARINT:
        f->data.pos = walk->pos;
        NQ_TRY(nq_pb_varint(pb, walk, &f->value, err));
        f->data.end = walk->pos;
        return NOVAQ_OK;
    case NQ_PB_FIXED64: len = 8; break;
    case NQ_PB_FIXED32: len = 4; break;
    case NQ_PB_BYTES: NQ_TRY(nq_pb_varint(pb, walk, &len, err)); break;
    }
    if (len > walk->end - walk->pos) {
        return nq_fail(err, NOVAQ_E_FORMAT,
                       "%s: offset %llu: field %u claims %llu bytes, %llu are left", pb->src->name,
                       (unsigned long long)f->at, f->number, (unsigned long long)len,
                       (unsigned long long)(walk->end - walk->pos));
    }
    f->data = (nq_pb_range){walk->pos, walk->pos + len};
    walk->pos += len;
    return NOVAQ_OK;
}

novaq_status nq_pb_next(nq_pb *pb, nq_pb_range *walk, nq_pb_field *f, bool *more,
                        novaq_error *err) {
    *f = (nq_pb_field){.at = walk->pos};
    *more = walk->pos < walk->end;
    if (!*more) {
        return NOVAQ_OK;
    }
    uint64_t tag = 0;
    NQ_TRY(nq_pb_varint(pb, walk, &tag, err));
    if (tag > UINT32_MAX || tag >> 3 == 0) {
        return nq_pb_fail(pb, f->at, err, "no field has this number: damaged, or not protobuf");
    }
    f->number = (uint32_t)(tag >> 3);
    unsigned wire = (unsigned)(tag & 7);
    if (wire == 3 || wire == 4) {
        return nq_pb_fail(pb, f->at, err, "a group, which ONNX does not use");
    }
    if (wire > 5) {
        return nq_pb_fail(pb, f->at, err, "no field has this type: damaged, or not protobuf");
    }
    f->wire = (nq_pb_wire)wire;
    return payload(pb, walk, f, err);
}

novaq_status nq_pb_expect(const nq_pb *pb, const nq_pb_field *f, nq_pb_wire wire,
                          novaq_error *err) {
    if (f->wire == wire) {
        return NOVAQ_OK;
    }
    return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: field %u has wire type %d, not %d",
                   pb->src->name, (unsigned long long)f->at, f->number, (int)f->wire, (int)wire);
}

novaq_status nq_pb_text(nq_pb *pb, const nq_pb_field *f, char *dst, size_t cap, novaq_error *err) {
    dst[0] = '\0';
    NQ_TRY(nq_pb_expect(pb, f, NQ_PB_BYTES, err));
    uint64_t len = f->data.end - f->data.pos;
    if (len >= cap) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: a name of %llu bytes, %zu at most",
                       pb->src->name, (unsigned long long)f->at, (unsigned long long)len, cap - 1);
    }
    for (uint64_t i = 0; i < len; i++) {
        uint8_t b = 0;
        NQ_TRY(byte_at(pb, f->data.pos + i, &b, err));
        dst[i] = (char)b;
    }
    dst[len] = '\0';
    if (memchr(dst, 0, len) != NULL) {
        return nq_pb_fail(pb, f->at, err, "a NUL inside a name");
    }
    return nq_utf8_prefix(dst, len) == len ? NOVAQ_OK
                                           : nq_pb_fail(pb, f->at, err, "a name that is not UTF-8");
}

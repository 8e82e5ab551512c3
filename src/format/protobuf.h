/* protobuf.h - the wire format of Protocol Buffers, walked where it lies.
 *
 * Owns: varints, tags and lengths of an untrusted file, read through a small
 * window, so that a payload of gigabytes is passed over without being read.
 * Every range lies within the one around it. Refuses: groups, lengths past the
 * end, varints of more than 64 bits, knowing any message.
 */
#ifndef NQ_FORMAT_PROTOBUF_H
#define NQ_FORMAT_PROTOBUF_H

#include <stdbool.h>

#include "io/source.h"

typedef struct nq_pb {
    nq_source *src; /* borrowed */
    uint8_t *window;
    uint64_t at;    /* file offset of window[0] */
    uint64_t len;   /* bytes in the window */
    uint64_t ahead; /* bytes to read next time: more while reading goes straight on */
} nq_pb;

/* What is left of a message: file offsets, pos <= end <= size of the file. */
typedef struct nq_pb_range {
    uint64_t pos;
    uint64_t end;
} nq_pb_range;

typedef enum nq_pb_wire { /* numbers as on disk */
                          NQ_PB_VARINT = 0,
                          NQ_PB_FIXED64 = 1,
                          NQ_PB_BYTES = 2,
                          NQ_PB_FIXED32 = 5
} nq_pb_wire;

typedef struct nq_pb_field {
    uint32_t number; /* 1 .. 2^29 - 1 */
    nq_pb_wire wire;
    uint64_t at;      /* file offset of the tag */
    uint64_t value;   /* of a varint */
    nq_pb_range data; /* the payload without tag and length */
} nq_pb_field;

/* Release with nq_pb_close() in any case. */
NOVAQ_CHECK novaq_status nq_pb_open(nq_pb *pb, nq_source *src, novaq_error *err);
void nq_pb_close(nq_pb *pb);
nq_pb_range nq_pb_whole(const nq_pb *pb);

/* The next field of *walk, which moves behind it; *more is false at the end. */
NOVAQ_CHECK novaq_status nq_pb_next(nq_pb *pb, nq_pb_range *walk, nq_pb_field *f, bool *more,
                                    novaq_error *err);
/* One varint at the start of *walk, which moves behind it. */
NOVAQ_CHECK novaq_status nq_pb_varint(nq_pb *pb, nq_pb_range *walk, uint64_t *out,
                                      novaq_error *err);
/* NOVAQ_E_FORMAT unless the field has this wire type. */
NOVAQ_CHECK novaq_status nq_pb_expect(const nq_pb *pb, const nq_pb_field *f, nq_pb_wire wire,
                                      novaq_error *err);
/* A string field into dst[0..cap), NUL-terminated; refuses longer ones, NUL
 * inside and what is not UTF-8. */
NOVAQ_CHECK novaq_status nq_pb_text(nq_pb *pb, const nq_pb_field *f, char *dst, size_t cap,
                                    novaq_error *err);
/* NOVAQ_E_FORMAT with file and offset. */
novaq_status nq_pb_fail(const nq_pb *pb, uint64_t at, novaq_error *err, const char *what);

#endif

/* onnx_util.h - what the tests of the ONNX reader share: messages of protobuf
 * written by hand, right and wrong. */
#ifndef NQ_TESTS_ONNX_UTIL_H
#define NQ_TESTS_ONNX_UTIL_H

#include "reader_util.h"

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, GROUP = 3, GROUP_END = 4, FIXED32 = 5 };

UNUSED static void put_varint(bytes *b, uint64_t v) {
    while (v >= 0x80) {
        put_int(b, (v & 0x7F) | 0x80, 1);
        v >>= 7;
    }
    put_int(b, v, 1);
}

UNUSED static void put_tag(bytes *b, unsigned field, unsigned wire) {
    put_varint(b, (uint64_t)field << 3 | wire);
}

UNUSED static void put_number(bytes *b, unsigned field, uint64_t v) {
    put_tag(b, field, VARINT);
    put_varint(b, v);
}

UNUSED static void put_data(bytes *b, unsigned field, const void *data, size_t len) {
    put_tag(b, field, BYTES);
    put_varint(b, len);
    put(b, data, len);
}

UNUSED static void put_str(bytes *b, unsigned field, const char *s) {
    put_data(b, field, s, strlen(s));
}

/* A message as a field; frees it. */
UNUSED static void put_message(bytes *b, unsigned field, bytes *message) {
    put_data(b, field, message->data, message->len);
    bytes_free(message);
}

/* The beginning of a TensorProto [a, b] (b < 0: [a]) of a type. */
UNUSED static void put_head(bytes *b, const char *name, unsigned type, int64_t rows, int64_t cols) {
    put_number(b, 1, (uint64_t)rows);
    if (cols >= 0) {
        put_number(b, 1, (uint64_t)cols);
    }
    put_number(b, 2, type);
    put_str(b, 8, name);
}

/* key and value of external_data */
UNUSED static void put_entry(bytes *b, const char *key, const char *value) {
    bytes e = {0};
    put_str(&e, 1, key);
    put_str(&e, 2, value);
    put_message(b, 13, &e);
}

/* A node; up to two inputs, one output. */
UNUSED static void put_node(bytes *graph, const char *op, const char *name, const char *input,
                            const char *weight) {
    bytes n = {0};
    put_str(&n, 1, input);
    put_str(&n, 1, weight);
    put_str(&n, 2, "out");
    put_str(&n, 3, name);
    put_str(&n, 4, op);
    put_message(graph, 1, &n);
}

/* ir_version, producer and the graph; frees it. */
UNUSED static void put_model(bytes *b, bytes *graph) {
    put_number(b, 1, 8);
    put_str(b, 2, "test");
    put_message(b, 7, graph);
}

/* A model with one initializer; frees it. */
UNUSED static void put_one(bytes *b, bytes *tensor) {
    bytes graph = {0};
    put_message(&graph, 5, tensor);
    put_model(b, &graph);
}

#endif

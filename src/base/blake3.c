/* blake3.c - see blake3.h. Numbers and names follow the BLAKE3 specification:
 * the input is cut into chunks of 1024 bytes, a chunk into 16 blocks of 64; the
 * chaining values of chunks are the leaves of a binary tree whose left subtrees
 * are complete. The last chunk is kept back until more input follows, because
 * the root is compressed differently. */
#include "base/blake3.h"

#include <string.h>

#include "base/hex.h"

enum { CHUNK = 1024, BLOCK = 64, LANES = 4 };
enum { CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8 };

static const uint32_t IV[8] = {0x6A09E667U, 0xBB67AE85U, 0x3C6EF372U, 0xA54FF53AU,
                               0x510E527FU, 0x9B05688CU, 0x1F83D9ABU, 0x5BE0CD19U};

/* Message word order of each of the seven rounds: the specification's
 * permutation applied 0 to 6 times. */
static const uint8_t ORDER[7][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
    {3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1},
    {10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
    {12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4},
    {9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
    {11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13},
};

/* One lane per chunk. */
typedef uint32_t lanes __attribute__((vector_size(4 * LANES)));

/* The quarter round and the seven rounds serve uint32_t and lanes alike. */
#define ROTR(x, n) (((x) >> (n)) | ((x) << (32 - (n))))
#define MIX(a, b, c, d, x, y)                                                                      \
    do {                                                                                           \
        (a) = (a) + (b) + (x);                                                                     \
        (d) = ROTR((d) ^ (a), 16);                                                                 \
        (c) = (c) + (d);                                                                           \
        (b) = ROTR((b) ^ (c), 12);                                                                 \
        (a) = (a) + (b) + (y);                                                                     \
        (d) = ROTR((d) ^ (a), 8);                                                                  \
        (c) = (c) + (d);                                                                           \
        (b) = ROTR((b) ^ (c), 7);                                                                  \
    } while (0)
#define ROUND(v, m, o)                                                                             \
    do {                                                                                           \
        MIX(v[0], v[4], v[8], v[12], m[(o)[0]], m[(o)[1]]);                                        \
        MIX(v[1], v[5], v[9], v[13], m[(o)[2]], m[(o)[3]]);                                        \
        MIX(v[2], v[6], v[10], v[14], m[(o)[4]], m[(o)[5]]);                                       \
        MIX(v[3], v[7], v[11], v[15], m[(o)[6]], m[(o)[7]]);                                       \
        MIX(v[0], v[5], v[10], v[15], m[(o)[8]], m[(o)[9]]);                                       \
        MIX(v[1], v[6], v[11], v[12], m[(o)[10]], m[(o)[11]]);                                     \
        MIX(v[2], v[7], v[8], v[13], m[(o)[12]], m[(o)[13]]);                                      \
        MIX(v[3], v[4], v[9], v[14], m[(o)[14]], m[(o)[15]]);                                      \
    } while (0)
/* Written out, not looped: the orders become constants and v stays in registers. */
#define ROUNDS(v, m)                                                                               \
    do {                                                                                           \
        ROUND(v, m, ORDER[0]);                                                                     \
        ROUND(v, m, ORDER[1]);                                                                     \
        ROUND(v, m, ORDER[2]);                                                                     \
        ROUND(v, m, ORDER[3]);                                                                     \
        ROUND(v, m, ORDER[4]);                                                                     \
        ROUND(v, m, ORDER[5]);                                                                     \
        ROUND(v, m, ORDER[6]);                                                                     \
    } while (0)

static uint32_t load32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* cv becomes the chaining value after one block. */
static void compress(uint32_t cv[8], const uint32_t m[16], uint64_t counter, uint32_t len,
                     uint32_t flags) {
    uint32_t v[16];
    memcpy(v, cv, 32);
    memcpy(v + 8, IV, 16);
    v[12] = (uint32_t)counter;
    v[13] = (uint32_t)(counter >> 32);
    v[14] = len;
    v[15] = flags;
    ROUNDS(v, m);
    for (int i = 0; i < 8; i++) {
        cv[i] = v[i] ^ v[i + 8];
    }
}

static void compress_block(uint32_t cv[8], const uint8_t block[BLOCK], uint64_t counter,
                           uint32_t len, uint32_t flags) {
    uint32_t m[16];
    for (int i = 0; i < 16; i++) {
        m[i] = load32(block + 4 * i);
    }
    compress(cv, m, counter, len, flags);
}

static void compress_parent(uint32_t out[8], const uint32_t left[8], const uint32_t right[8],
                            uint32_t flags) {
    uint32_t m[16];
    memcpy(m, left, 32);
    memcpy(m + 8, right, 32);
    memcpy(out, IV, 32);
    compress(out, m, 0, BLOCK, PARENT | flags);
}

/* One block of each of four consecutive chunks. */
static void compress_lanes(lanes cv[8], const uint8_t *block, uint64_t chunk, uint32_t flags) {
    lanes m[16];
    for (int i = 0; i < 16; i++) {
        const uint8_t *p = block + 4 * i;
        m[i] = (lanes){load32(p), load32(p + CHUNK), load32(p + 2 * CHUNK), load32(p + 3 * CHUNK)};
    }
    lanes v[16];
    for (int i = 0; i < 8; i++) {
        v[i] = cv[i];
    }
    for (int i = 0; i < 4; i++) {
        v[8 + i] = (lanes){IV[i], IV[i], IV[i], IV[i]};
    }
    uint32_t low[LANES];
    uint32_t high[LANES];
    for (uint64_t i = 0; i < LANES; i++) {
        low[i] = (uint32_t)(chunk + i);
        high[i] = (uint32_t)((chunk + i) >> 32);
    }
    v[12] = (lanes){low[0], low[1], low[2], low[3]};
    v[13] = (lanes){high[0], high[1], high[2], high[3]};
    v[14] = (lanes){BLOCK, BLOCK, BLOCK, BLOCK};
    v[15] = (lanes){flags, flags, flags, flags};
    ROUNDS(v, m);
    for (int i = 0; i < 8; i++) {
        cv[i] = v[i] ^ v[i + 8];
    }
}

/* Puts the chaining value of a finished chunk into the tree; h->chunks already
 * counts it. Each trailing zero bit of the count completes a subtree. */
static void push_chunk(nq_blake3 *h, const uint32_t cv[8]) {
    uint32_t node[8];
    memcpy(node, cv, 32);
    for (uint64_t n = h->chunks; (n & 1U) == 0; n >>= 1) {
        h->depth--;
        uint32_t merged[8];
        compress_parent(merged, h->stack[h->depth], node, 0);
        memcpy(node, merged, 32);
    }
    memcpy(h->stack[h->depth], node, 32);
    h->depth++;
}

/* Four whole chunks, known not to be the last ones. */
static void add_four(nq_blake3 *h, const uint8_t *data) {
    lanes cv[8];
    for (int i = 0; i < 8; i++) {
        cv[i] = (lanes){IV[i], IV[i], IV[i], IV[i]};
    }
    for (uint32_t b = 0; b < CHUNK / BLOCK; b++) {
        uint32_t flags = (b == 0 ? CHUNK_START : 0) | (b == CHUNK / BLOCK - 1 ? CHUNK_END : 0);
        compress_lanes(cv, data + (size_t)b * BLOCK, h->chunks, flags);
    }
    for (int lane = 0; lane < LANES; lane++) {
        uint32_t one[8];
        for (int i = 0; i < 8; i++) {
            one[i] = cv[i][lane];
        }
        h->chunks++;
        push_chunk(h, one);
    }
}

static void begin_chunk(nq_blake3 *h) {
    memcpy(h->cv, IV, 32);
    h->block_len = 0;
    h->blocks = 0;
}

void nq_blake3_init(nq_blake3 *h) {
    memset(h, 0, sizeof *h);
    begin_chunk(h);
}

static uint32_t start_flag(const nq_blake3 *h) { return h->blocks == 0 ? CHUNK_START : 0; }

/* The kept-back block is full and more input follows. */
static void flush_block(nq_blake3 *h) {
    if (h->blocks < CHUNK / BLOCK - 1) {
        compress_block(h->cv, h->block, h->chunks, BLOCK, start_flag(h));
        h->blocks++;
        h->block_len = 0;
        return;
    }
    compress_block(h->cv, h->block, h->chunks, BLOCK, CHUNK_END);
    h->chunks++;
    push_chunk(h, h->cv);
    begin_chunk(h);
}

void nq_blake3_update(nq_blake3 *h, const void *data, size_t len) {
    const uint8_t *p = data;
    while (len > 0) {
        if (h->block_len == BLOCK) {
            flush_block(h);
        }
        if (h->blocks == 0 && h->block_len == 0 && len > LANES * CHUNK) {
            add_four(h, p);
            p += LANES * CHUNK;
            len -= LANES * CHUNK;
            continue;
        }
        size_t n = BLOCK - h->block_len;
        n = n < len ? n : len;
        memcpy(h->block + h->block_len, p, n);
        h->block_len += (uint32_t)n;
        p += n;
        len -= n;
    }
}

void nq_blake3_finish(char hex[NQ_BLAKE3_HEX + 1], const nq_blake3 *h) {
    uint8_t block[BLOCK] = {0};
    memcpy(block, h->block, h->block_len);
    uint32_t node[8];
    memcpy(node, h->cv, 32);
    compress_block(node, block, h->chunks, h->block_len,
                   start_flag(h) | CHUNK_END | (h->depth == 0 ? ROOT : 0));
    for (uint32_t i = h->depth; i-- > 0;) {
        uint32_t merged[8];
        compress_parent(merged, h->stack[i], node, i == 0 ? ROOT : 0);
        memcpy(node, merged, 32);
    }
    uint8_t digest[NQ_BLAKE3_BYTES];
    for (size_t i = 0; i < NQ_BLAKE3_BYTES; i++) {
        digest[i] = (uint8_t)(node[i / 4] >> (8 * (i % 4)));
    }
    nq_hex(hex, digest, sizeof digest);
}

void nq_blake3_of(char hex[NQ_BLAKE3_HEX + 1], const void *data, size_t len) {
    nq_blake3 h;
    nq_blake3_init(&h);
    nq_blake3_update(&h, data, len);
    nq_blake3_finish(hex, &h);
}

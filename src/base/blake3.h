/* blake3.h - BLAKE3 (hash mode, 256-bit output), streaming.
 *
 * Owns: an implementation from the public specification, portable C that the
 * compiler turns into 128-bit vector code: four chunks at a time. Refuses: keyed
 * hashing, key derivation, extended output.
 */
#ifndef NQ_BASE_BLAKE3_H
#define NQ_BASE_BLAKE3_H

#include <stddef.h>
#include <stdint.h>

#define NQ_BLAKE3_BYTES 32
#define NQ_BLAKE3_HEX   64

/* A plain value: copying it forks the hash. Members are private. */
typedef struct nq_blake3 {
    uint32_t cv[8];        /* chaining value of the chunk at work */
    uint64_t chunks;       /* whole chunks already in the tree */
    uint8_t block[64];     /* last block of the chunk at work, kept back */
    uint32_t block_len;    /* bytes in block */
    uint32_t blocks;       /* blocks of this chunk already compressed, 0-15 */
    uint32_t depth;        /* subtrees on the stack */
    uint32_t stack[54][8]; /* chaining values of complete subtrees, largest first */
} nq_blake3;

void nq_blake3_init(nq_blake3 *h);
void nq_blake3_update(nq_blake3 *h, const void *data, size_t len);
/* Does not change h: more may be added afterwards. */
void nq_blake3_finish(char hex[NQ_BLAKE3_HEX + 1], const nq_blake3 *h);

/* The digest of one block of memory. */
void nq_blake3_of(char hex[NQ_BLAKE3_HEX + 1], const void *data, size_t len);

#endif

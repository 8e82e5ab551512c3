/* mutate.h - damaged copies of inputs, for the replay programs.
 *
 * Owns: a fixed sequence of mutations per (seed, number), the same on every
 * machine: bytes, words of 1 to 8 bytes set to what breaks sizes, cuts, repeats,
 * splices, and where the input is text also numbers and quoted strings. Refuses:
 * feedback from the target; libFuzzer has that.
 */
#ifndef NQ_TESTS_MUTATE_H
#define NQ_TESTS_MUTATE_H

#include <stddef.h>
#include <stdint.h>

typedef struct bytes {
    uint8_t *data;
    size_t size;
    size_t cap;
} bytes;

/* Turns *b, a copy of an input, into mutant `number` of `seed`. other: a second
 * input to splice from. Keeps b->size at most b->cap. */
void mutate(bytes *b, const bytes *other, uint64_t seed, uint64_t number);

#endif

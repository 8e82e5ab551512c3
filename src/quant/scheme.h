/* scheme.h - the codes a weight matrix can be stored in.
 *
 * Owns: the family of DESIGN 2.2, its names and its bit counts.
 *
 * A row is cut into subvectors of d columns; each stores one symbol of one or
 * two index fields. Level k adds codebook entry C_k[field of the symbol at row
 * i - lag_k]. "k16d2l3": one field of K = 16, d = 2, three levels with lags 0,
 * 1, 2 (sliding). "pq16x8d4": two fields, K1 = 16 and K2 = 8, d = 4, both at
 * lag 0 (the paper's two-level product quantization, section 3.2); "pq16d4" has
 * the first field only. "q8": int8 values, one scale a row.
 * "f32", "f16", "bf16": plain floats. "raw": the source's own bytes.
 */
#ifndef NQ_QUANT_SCHEME_H
#define NQ_QUANT_SCHEME_H

#include <stdbool.h>

#include "base/status.h"

#define NQ_MAX_LEVELS 3
#define NQ_MAX_FIELDS 2
#define NQ_MAX_D      64

typedef enum nq_scheme_kind {
    NQ_SCHEME_CODE, /* sliding or product quantization: symbols and codebooks */
    NQ_SCHEME_Q8,
    NQ_SCHEME_F32,
    NQ_SCHEME_F16,
    NQ_SCHEME_BF16,
    NQ_SCHEME_RAW
} nq_scheme_kind;

typedef struct nq_scheme {
    nq_scheme_kind kind;
    unsigned d;                    /* columns per subvector (CODE), else 1 */
    unsigned fields;               /* 1 or 2 (CODE) */
    unsigned k[NQ_MAX_FIELDS];     /* entries of each field's codebooks, 2-256 */
    unsigned levels;               /* 1-3 (CODE) */
    unsigned field[NQ_MAX_LEVELS]; /* field that level k reads */
    unsigned lag[NQ_MAX_LEVELS];   /* rows above that level k reads */
} nq_scheme;

/* NOVAQ_E_ARG, listing the valid forms, when the name is none. */
NOVAQ_CHECK novaq_status nq_scheme_parse(nq_scheme *out, const char *name, novaq_error *err);
/* Writes the canonical name; buf of NQ_SCHEME_NAME bytes. Returns buf. */
#define NQ_SCHEME_NAME 32
const char *nq_scheme_name(char *buf, const nq_scheme *s);
nq_scheme nq_scheme_sliding(unsigned k, unsigned d, unsigned levels);
nq_scheme nq_scheme_pq(unsigned k1, unsigned k2, unsigned d);

/* Bits of field f in storage: ceil(log2 k). */
unsigned nq_scheme_field_bits(const nq_scheme *s, unsigned f);
/* Nominal bits per weight: all fields / d; 8, 16 or 32 for the others. */
double nq_scheme_bits(const nq_scheme *s);
/* Largest lag. */
unsigned nq_scheme_max_lag(const nq_scheme *s);
/* Codebook entries of one group, all levels: sum of K_field(level) * d bytes. */
uint64_t nq_scheme_codebook_bytes(const nq_scheme *s);
/* Symbols per row as stored: ceil(cols/d) rounded up to a multiple of 8. */
uint64_t nq_scheme_row_symbols(const nq_scheme *s, uint64_t cols);
/* Bytes of one packed row of symbols (CODE) or of values (Q8, F16, F32). */
uint64_t nq_scheme_row_bytes(const nq_scheme *s, uint64_t cols);

#endif

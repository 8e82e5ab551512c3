/* encode_job.h - what the files of nq_encode_group() share.
 *
 * Owns: the state of one matrix between its phases: prepare (column scales,
 * rotation, correction, normalization, codebook), code (segments in parallel),
 * finish (scales, packing, telemetry). Refuses: use outside encode*.c.
 */
#ifndef NQ_QUANT_ENCODE_JOB_H
#define NQ_QUANT_ENCODE_JOB_H

#include "quant/encode.h"
#include "quant/feedback.h"
#include "quant/trellis.h"

typedef struct encode_job {
    nq_encoded *out;
    const nq_encode_options *opt;
    const nq_encode_item *item;
    nq_scheme scheme;
    nq_pool *pool;
    uint64_t rows, cols;
    const float *w;  /* (rows, cols) normalized, in the coded basis */
    float *target;   /* (rows, cols), owned: what w is when it is not the item's own array, which
                        then holds the coded basis of the original, not normalized */
    float *scale;    /* (rows) what was divided out; later the fitted scale */
    float *mean;     /* (rows) or NULL */
    float *weight;   /* (rows) scale^2, mean 1 */
    float *ratio;    /* (rows) weight[i-1] / weight[i]; later the divisor */
    float *factor;   /* (rows) fitted scale over divisor */
    uint64_t stride; /* stored symbols per row */
    uint64_t subs;   /* subvectors per row that hold data */
    uint64_t segments;
    uint8_t *plain; /* (rows, fields, stride) unpacked symbols */
    double *sums;   /* (segments, subs, 4): sq_error, sq_source, sq_decoded, dot */
    double *totals; /* (segments, 4): the same in the weights' own basis */
    double *output; /* (segments, 2): with a metric, see feedback.h */
    nq_codebook codebook;
    nq_trellis trellis;
    nq_trellis *clones; /* (threads) with a metric */
    nq_feedback feedback;
    bool fit; /* row scales are fitted after coding */
} encode_job;

/* One past the last row of a segment. */
uint64_t nq_encode_segment_end(const encode_job *j, uint64_t segment);

/* encode_finish.c. Scratch bytes of one worker for fitting and measuring. */
uint64_t nq_encode_finish_scratch(const encode_job *j);
/* Fits row scales where coding has not, stores scales, packs symbols, measures.
 * scratch: (threads, bytes). */
void nq_encode_finish(encode_job *j, uint8_t *scratch, uint64_t bytes);
/* q8 instead of symbols: round(w / step), step = peak / 127 per row. */
NOVAQ_CHECK novaq_status nq_encode_q8(encode_job *j, novaq_error *err);

#endif

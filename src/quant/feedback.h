/* feedback.h - coding a matrix column block by column block, errors fed forward.
 *
 * Owns: LDLQ (Chee et al. 2023, "QuIP"; the same recursion as GPTQ, Frantar et al.
 * 2022) with vectors of d columns: the error of each column block moves the target
 * of those that follow, in the metric tr(E H ET), and each block is coded by the
 * shortest path down its rows. The path runs along the rows and the feedback along
 * the columns, so the two do not interfere. Then, if asked for, further sweeps:
 * each block again, best for the present errors of all others (coordinate
 * descent). Row scales are fitted in closed form under H. Or the sweeps alone, from symbols
 * that are there already.
 * Refuses: choosing codebooks or first scales (encode.h).
 */
#ifndef NQ_QUANT_FEEDBACK_H
#define NQ_QUANT_FEEDBACK_H

#include "quant/metric.h"
#include "quant/trellis.h"

typedef struct nq_feedback {
    const nq_metric *metric;
    nq_trellis *trellis; /* (workers, groups) clones of one trellis, or of one for each group of
                            columns; their metric is changed */
    const float *w;      /* (rows, cols) normalized matrix in the coded basis */
    const float *weight; /* (rows) what a squared error in the normalized row counts */
    float *factor;       /* (rows) out: what the row scale is to be multiplied by */
    uint8_t *symbols;    /* (rows, fields, stride) out; with `present` in, too */
    double *output;      /* (segments, 2) out: tr(E H ET) and tr(W H WT), weighted */
    double *before;      /* the same as symbols came in, with `present`; or NULL */
    uint64_t rows, stride;
    uint32_t segment_rows;
    uint32_t groups;     /* that have codebooks of their own; 0: one */
    uint64_t group_cols; /* columns of each, a multiple of d; with more than one */
    bool present;        /* sweeps alone, from symbols that are there */
    bool feed;           /* false: every block for itself; scales are still fitted under H */
    bool fit_scales;     /* false: factor stays 1 */
    unsigned sweeps;
} nq_feedback;

/* Bytes of scratch of one worker. */
uint64_t nq_feedback_scratch(const nq_feedback *f);
/* Codes one segment of rows. Segments are independent; scratch is the worker's,
 * 64-byte aligned. */
void nq_feedback_segment(const nq_feedback *f, uint64_t segment, unsigned worker, void *scratch);

#endif

/* bench.h - what the measurements of the codec share. */
#ifndef NQ_EVAL_BENCH_H
#define NQ_EVAL_BENCH_H

#include "quant/scheme.h"

#define NQ_BENCH_SCHEMES 64

/* Comma-separated names to schemes; refuses what has no coding error. out
 * (NQ_BENCH_SCHEMES). */
NOVAQ_CHECK novaq_status nq_bench_schemes(nq_scheme *out, size_t *count, const char *list,
                                          novaq_error *err);

#endif

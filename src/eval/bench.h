/* bench.h - what the measurements of the codec share. */
#ifndef NQ_EVAL_BENCH_H
#define NQ_EVAL_BENCH_H

#include "quant/scheme.h"

#define NQ_BENCH_SCHEMES 64

/* Comma-separated names to schemes. stored: a name that stands for raw, which has no
 * measure by its own name; or NULL. out (NQ_BENCH_SCHEMES). */
NOVAQ_CHECK novaq_status nq_bench_schemes(nq_scheme *out, size_t *count, const char *list,
                                          const char *stored, novaq_error *err);

#endif

/* recipe.h - from options and tensor list to a scheme for every tensor.
 *
 * Owns: checking the options, deciding which tensors are coded, overrides
 * (--tensor-type, --keep-embedding, --scheme), the statistics pass and the call
 * of the planner. Refuses: writing anything.
 */
#ifndef NQ_COMPRESS_RECIPE_H
#define NQ_COMPRESS_RECIPE_H

#include "base/json.h"
#include "format/tensors.h"
#include "model/describe.h"
#include "quant/encode.h"
#include "quant/planner.h"
#include "quant/stats.h"

typedef struct nq_recipe_tensor {
    const nq_tensor_info *src;
    nq_role role;
    uint64_t rows, cols; /* matrix view; 0 x 0 when the tensor stays as it is */
    bool coded;          /* CODE or Q8; otherwise raw or a float type */
    nq_scheme scheme;
    bool have_stats;
    nq_matrix_stats stats;
    double expected_error; /* relative, from the planner */
    uint64_t bytes;        /* planned: pieces only */
} nq_recipe_tensor;

typedef struct nq_recipe {
    const novaq_compress_options *opt;
    nq_encode_options encode; /* scheme is set per tensor */
    nq_recipe_tensor *tensors;
    size_t count;
    uint64_t coded_elements;
    uint64_t coded_bytes;
    uint64_t budget;      /* bytes for the tensors the planner chose; 0 when it chose none */
    uint64_t budget_used; /* what they take */
    unsigned k1, k2;      /* the paper's parameters in effect */
    unsigned d_min, d_max;
    json_t *warnings; /* array of strings; owned */
} nq_recipe;

/* Reads every float tensor once for its statistics when the planner needs them.
 * Release with nq_recipe_close(). */
NOVAQ_CHECK novaq_status nq_recipe_make(nq_recipe *out, nq_tensors *ts,
                                        const novaq_compress_options *opt, nq_pool *pool,
                                        novaq_error *err);
void nq_recipe_close(nq_recipe *r);

/* The object for quantization.config: every option that decides bytes. */
NOVAQ_CHECK novaq_status nq_recipe_config(json_t **out, const nq_recipe *r, novaq_error *err);

/* Calls the progress callback; NOVAQ_E_INTERRUPTED when it says stop. */
NOVAQ_CHECK novaq_status nq_report_progress(const novaq_compress_options *opt, const char *phase,
                                            const char *item, uint64_t done, uint64_t total,
                                            novaq_error *err);

#endif

/* recipe.h - from options and tensor list to a scheme for every tensor.
 *
 * Owns: checking the options, deciding which tensors are coded, overrides
 * (--tensor-type, --keep-embedding, --scheme), the statistics pass, the budget
 * and the call of the planner: first from statistics, again once sensitivities
 * have been measured. Refuses: writing anything.
 */
#ifndef NQ_COMPRESS_RECIPE_H
#define NQ_COMPRESS_RECIPE_H

#include "base/json.h"
#include "compress/intake.h"
#include "compress/size.h"
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
    bool planned; /* the planner chose the scheme; otherwise an override or its shape did */
    bool have_stats;
    nq_matrix_stats stats;
    double sensitivity;    /* planned: cost of relative error 1, see nq_sensitivity */
    bool measured;         /* sensitivity was measured, not told from statistics */
    double expected_error; /* relative, from the planner */
    uint64_t bytes;        /* planned: pieces only */
} nq_recipe_tensor;

/* What relative squared error 1 in a tensor would cost, in one unit for all
 * tensors (nats of divergence, say), where that is known. */
typedef struct nq_sensitivity {
    bool known;
    double weight; /* finite, above 0 */
} nq_sensitivity;

typedef struct nq_recipe {
    const novaq_compress_options *opt;
    nq_tensors *ts;      /* borrowed */
    bool held;           /* a remote source is kept in memory since */
    bool fetching;       /* it is being brought there */
    novaq_progress told; /* last; phase NULL: nothing yet. Its strings live as long as ts */
    nq_hash_text text;   /* of the file that is calibrated on; "": none */
    nq_encode_options encode;
    double column_scales; /* exponent in effect */
    nq_recipe_tensor *tensors;
    size_t count;
    uint64_t coded_elements;
    uint64_t coded_bytes;
    uint64_t budget;      /* bytes for the tensors the planner chose; 0 when it chose none */
    uint64_t budget_used; /* what they take */
    nq_sizer *sizer;      /* with a target size, else NULL */
    unsigned k1, k2;      /* the paper's parameters in effect */
    unsigned d_min, d_max;
    json_t *warnings;      /* array of strings; owned */
    bool all_experts;      /* every block has experts: none is refined by itself */
    size_t budget_warning; /* one more than its index there; 0 if there is none */
} nq_recipe;

/* Checks the options, and settles what they decide; no tensor is read yet. Release with
 * nq_recipe_close(). */
NOVAQ_CHECK novaq_status nq_recipe_make(nq_recipe *out, nq_tensors *ts,
                                        const novaq_compress_options *opt, novaq_error *err);
/* Settles the rest. Reads every float tensor, or its beginning, once for its statistics
 * when the planner needs them. */
NOVAQ_CHECK novaq_status nq_recipe_decide(nq_recipe *r, nq_pool *pool, novaq_error *err);
/* plan.c: about the bytes that all tensors will take, rather too few, before that. */
NOVAQ_CHECK novaq_status nq_recipe_foresee(uint64_t *bytes, const nq_recipe *r, novaq_error *err);
/* Brings a remote source into memory, for work that reads its tensors more than once. */
NOVAQ_CHECK novaq_status nq_recipe_hold(nq_recipe *r, novaq_error *err);
void nq_recipe_close(nq_recipe *r);

/* Columns that share codebooks once they are refined, unless told otherwise. */
#define NQ_REFINED_COLS 64

/* The tensor of that name, or NULL. */
nq_recipe_tensor *nq_recipe_find(const nq_recipe *r, const char *name);

/* Plans again with measured sensitivities, s[r->count]; overrides stay. Where some
 * of the planner's tensors are not known, their statistics stand in, scaled by the
 * median ratio of the known ones. Before anything is written. */
NOVAQ_CHECK novaq_status nq_recipe_replan(nq_recipe *r, const nq_sensitivity *s, novaq_error *err);

/* plan.c: chooses schemes of the planned tensors from their sensitivities. */
NOVAQ_CHECK novaq_status nq_recipe_allocate(nq_recipe *r, novaq_error *err);
/* plan.c: fills in every planned tensor's sensitivity from its statistics. */
void nq_recipe_guess_sensitivities(nq_recipe *r);

/* Whether the inputs of matrices will be looked at (as far as options tell). */
bool nq_recipe_calibrated(const nq_recipe *r);

/* Adds a line to the report's warnings. */
NOVAQ_CHECK novaq_status nq_recipe_warn(nq_recipe *r, novaq_error *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* What --dry-run tells: scheme, bits, bytes, sensitivity and expected error of
 * every tensor, sums by scheme, the artifact's size. */
NOVAQ_CHECK novaq_status nq_recipe_report(json_t **out, const nq_recipe *r, const nq_tensors *ts,
                                          novaq_error *err);

/* The object for quantization.config: every option that decides bytes. */
NOVAQ_CHECK novaq_status nq_recipe_config(json_t **out, const nq_recipe *r, novaq_error *err);

/* Calls fn, unless NULL; NOVAQ_E_INTERRUPTED when it says stop. */
NOVAQ_CHECK novaq_status nq_report_step(novaq_progress_fn fn, void *ctx, const novaq_progress *now,
                                        novaq_error *err);
/* The same with the options' callback; remembers what was told. */
NOVAQ_CHECK novaq_status nq_recipe_tell(nq_recipe *r, const novaq_progress *now, novaq_error *err);
/* The same in bytes of the source. */
NOVAQ_CHECK novaq_status nq_recipe_progress(nq_recipe *r, const char *phase, const char *item,
                                            uint64_t done, uint64_t total, novaq_error *err);
/* What was told last, with what has come over the network since. */
NOVAQ_CHECK novaq_status nq_recipe_tick(nq_recipe *r, novaq_error *err);

#endif

/* plan.c - the budget and the allocation of recipe.h: what an error in each
 * tensor costs, how many bytes there are, and the planner called with both. */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "compress/recipe.h"

/* The embedding, and the head it often is as well, is the output itself: an error
 * there costs about twice what it costs in a linear layer of average size. */
#define EMBEDDING_WEIGHT 2.0
/* Attempts to come close to a target size; two or three do. */
#define SIZE_ROUNDS 16
/* Codebooks of k16d2l3 with their scale; what aligning two pieces may take. */
#define GROUP_BYTES 98
#define MATRIX_PAD  128

/* ---- sensitivities ------------------------------------------------------------ */

/* Sensitivity of a tensor: its size, times what an error costs per parameter.
 * Among linear layers that falls with the square root of the size, relative to
 * their mean size: errors per parameter alone would weigh as the size, errors per
 * layer (linearity, Malinovskii et al. 2024, "HIGGS") the same for all. Measured in
 * docs/METHOD.md. Layer statistics modulate it: outlying input columns (anisotropy)
 * mean directions the layer relies on; heavy tails (kurtosis) cost more where no
 * rotation evens them out; exact zeros carry nothing. */
static double guess(const nq_recipe_tensor *t, nq_normalize normalize, double mean_size) {
    double n = (double)t->src->elements;
    bool whole_model = t->role == NQ_ROLE_EMBEDDING || t->role == NQ_ROLE_HEAD;
    double s = whole_model || !(mean_size > 0) ? EMBEDDING_WEIGHT * n : n * sqrt(mean_size / n);
    double spread = t->stats.anisotropy < 4 ? t->stats.anisotropy : 4;
    s *= (1 + 0.1 * spread) * (1 - 0.5 * t->stats.sparsity);
    if (normalize != NQ_NORMALIZE_ROTATE && t->stats.kurtosis > 3) {
        double excess = t->stats.kurtosis - 3 < 20 ? t->stats.kurtosis - 3 : 20;
        s *= 1 + 0.05 * excess;
    }
    return s > 0 ? s : 1e-9;
}

/* Mean element count of the linear layers the planner decides on; 0 if none. */
static double mean_linear_size(const nq_recipe *r) {
    double sum = 0;
    double count = 0;
    for (size_t i = 0; i < r->count; i++) {
        if (r->tensors[i].planned && r->tensors[i].role == NQ_ROLE_LINEAR) {
            sum += (double)r->tensors[i].src->elements;
            count += 1;
        }
    }
    return count > 0 ? sum / count : 0;
}

void nq_recipe_guess_sensitivities(nq_recipe *r) {
    double mean_size = mean_linear_size(r);
    for (size_t i = 0; i < r->count; i++) {
        nq_recipe_tensor *t = &r->tensors[i];
        t->measured = false;
        t->sensitivity = t->planned ? guess(t, r->encode.normalize, mean_size) : 0;
    }
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool usable(const nq_sensitivity *s) {
    return s->known && isfinite(s->weight) && s->weight > 0;
}

/* Measured over guessed, the median of the planner's tensors; 1 if none is known. */
static novaq_status median_ratio(double *out, const nq_recipe *r, const nq_sensitivity *s,
                                 novaq_error *err) {
    double *ratios = NULL;
    size_t n = 0;
    NQ_TRY(nq_alloc(&ratios, r->count + 1, sizeof *ratios, err));
    for (size_t i = 0; i < r->count; i++) {
        if (r->tensors[i].planned && usable(&s[i])) {
            ratios[n++] = s[i].weight / r->tensors[i].sensitivity;
        }
    }
    qsort(ratios, n, sizeof *ratios, compare_doubles);
    *out = n > 0 ? 0.5 * (ratios[(n - 1) / 2] + ratios[n / 2]) : 1;
    nq_free(ratios);
    return NOVAQ_OK;
}

/* Measured sensitivities hold for one matrix disturbed alone, a little; where many are
 * coded coarsely they differ less than that. The geometric mean with the guess is
 * better than either: 62.9, 46.9 and 47.2 in perplexity at 2 bits for measured, mean
 * and equal rates (docs/METHOD.md). */
novaq_status nq_recipe_replan(nq_recipe *r, const nq_sensitivity *s, novaq_error *err) {
    double ratio = 1;
    nq_recipe_guess_sensitivities(r);
    NQ_TRY(median_ratio(&ratio, r, s, err));
    for (size_t i = 0; i < r->count; i++) {
        nq_recipe_tensor *t = &r->tensors[i];
        if (t->planned) {
            t->measured = usable(&s[i]);
            double guessed = t->sensitivity * ratio;
            t->sensitivity = t->measured ? sqrt(s[i].weight * guessed) : guessed;
        }
    }
    return nq_recipe_allocate(r, err);
}

/* ---- the budget ---------------------------------------------------------------- */

/* What refinement adds at most: codebooks of the usual schemes for each NQ_REFINED_COLS
 * columns of a matrix, and their alignment. Experts in one tensor share theirs. */
static uint64_t growth(const nq_recipe *r, const nq_recipe_tensor *t) {
    uint64_t groups = (t->cols + NQ_REFINED_COLS - 1) / NQ_REFINED_COLS;
    bool cut = r->opt->refine != 0 && t->src->rank == 2 && groups > 1;
    return cut ? (groups - 1) * GROUP_BYTES + MATRIX_PAD : 0;
}

/* Bytes a coded tensor takes besides symbols, codebook and row scales. Whether its
 * inputs will be known is not certain yet; linear layers are counted as if. */
static uint64_t extra_bytes(const nq_recipe *r, const nq_recipe_tensor *t) {
    bool means = r->encode.normalize == NQ_NORMALIZE_PAPER || r->opt->row_means != 0;
    bool scales = nq_recipe_calibrated(r) && r->column_scales > 0;
    return (means ? 2 * t->rows : 0) + (scales && t->role == NQ_ROLE_LINEAR ? t->cols : 0) +
           growth(r, t);
}

typedef struct allotment {
    nq_scheme *ladder;
    size_t rungs;
    nq_plan_item *items; /* the planned tensors, in order */
    size_t count;
    uint64_t elements; /* of them */
} allotment;

static void close_allotment(allotment *a) {
    nq_free(a->ladder);
    nq_free(a->items);
}

static novaq_status open_allotment(allotment *a, const nq_recipe *r, novaq_error *err) {
    *a = (allotment){0};
    NQ_TRY(r->opt->paper
               ? nq_ladder_paper(&a->ladder, &a->rungs, r->k1, r->k2, r->d_min, r->d_max, err)
               : nq_ladder_default(&a->ladder, &a->rungs, err));
    NQ_TRY(nq_alloc(&a->items, r->count + 1, sizeof *a->items, err));
    for (size_t i = 0; i < r->count; i++) {
        const nq_recipe_tensor *t = &r->tensors[i];
        if (t->planned) {
            a->elements += t->src->elements;
            a->items[a->count++] = (nq_plan_item){.rows = t->rows,
                                                  .cols = t->cols,
                                                  .extra = extra_bytes(r, t),
                                                  .sensitivity = t->sensitivity};
        }
    }
    return NOVAQ_OK;
}

/* With the scheme it has now. */
static uint64_t tensor_bytes(const nq_recipe *r, const nq_recipe_tensor *t) {
    if (t->coded) {
        return nq_plan_bytes(&t->scheme, t->rows, t->cols, extra_bytes(r, t));
    }
    return t->scheme.kind == NQ_SCHEME_RAW ? t->src->bytes
                                           : nq_scheme_row_bytes(&t->scheme, t->src->elements);
}

static void total_up(nq_recipe *r) {
    r->coded_elements = 0;
    r->coded_bytes = 0;
    for (size_t i = 0; i < r->count; i++) {
        nq_recipe_tensor *t = &r->tensors[i];
        t->bytes = tensor_bytes(r, t);
        if (t->coded) {
            t->expected_error = nq_plan_error(&t->scheme);
            r->coded_elements += t->src->elements;
            r->coded_bytes += t->bytes;
        }
    }
}

/* What the planned tensors take with the largest code each. */
static uint64_t most_bytes(const allotment *a) {
    uint64_t sum = 0;
    for (size_t i = 0; i < a->count; i++) {
        const nq_plan_item *it = &a->items[i];
        uint64_t most = 0;
        for (size_t k = 0; k < a->rungs; k++) {
            uint64_t bytes = nq_plan_bytes(&a->ladder[k], it->rows, it->cols, it->extra);
            most = bytes > most ? bytes : most;
        }
        sum += most;
    }
    return sum;
}

novaq_status nq_recipe_foresee(uint64_t *bytes, const nq_recipe *r, novaq_error *err) {
    uint64_t kept = 0;
    allotment a;
    for (size_t i = 0; i < r->count; i++) {
        kept += r->tensors[i].planned ? 0 : tensor_bytes(r, &r->tensors[i]);
    }
    novaq_status st = open_allotment(&a, r, err);
    if (st == NOVAQ_OK) {
        uint64_t size = r->opt->target_size;
        uint64_t budget = size > kept ? size - kept : 0;
        budget = size != 0 ? budget : (uint64_t)(r->opt->target_bits * (double)a.elements / 8);
        uint64_t most = most_bytes(&a);
        budget = budget < most ? budget : most;
        *bytes = kept + budget / 10 * 9; /* plans do not come quite as near to every budget */
    }
    close_allotment(&a);
    return st;
}

/* Plans for `budget` bytes and takes the result over into the recipe. */
static novaq_status apply(nq_recipe *r, allotment *a, uint64_t budget, novaq_error *err) {
    NQ_TRY(nq_plan_choose(a->items, a->count, a->ladder, a->rungs, budget, err));
    size_t n = 0;
    r->budget = a->count > 0 ? budget : 0;
    r->budget_used = 0;
    for (size_t i = 0; i < r->count; i++) {
        if (r->tensors[i].planned) {
            r->tensors[i].scheme = a->items[n].scheme;
            r->tensors[i].coded = true;
            r->budget_used += a->items[n].bytes;
            n++;
        }
    }
    total_up(r);
    return NOVAQ_OK;
}

/* As apply(); *size: what the whole artifact would take. */
static novaq_status try_budget(uint64_t *size, nq_recipe *r, allotment *a, uint64_t budget,
                               novaq_error *err) {
    NQ_TRY(apply(r, a, budget, err));
    return nq_artifact_size(size, r->sizer, r, err);
}

static novaq_status fail_size(const nq_recipe *r, const allotment *a, uint64_t least,
                              novaq_error *err) {
    uint64_t kept = 0;
    for (size_t i = 0; i < r->count; i++) {
        kept += r->tensors[i].planned ? 0 : r->tensors[i].bytes;
    }
    return nq_fail(err, NOVAQ_E_ARG,
                   "target size %llu cannot be reached: the smallest codes make about %llu bytes, "
                   "%llu of them in %zu tensors the planner may not touch; allow %llu or more, or "
                   "leave out what keeps tensors as they are",
                   (unsigned long long)r->opt->target_size, (unsigned long long)least,
                   (unsigned long long)kept, r->count - a->count, (unsigned long long)least);
}

/* The largest budget whose artifact stays within the target size. What surrounds
 * the planned tensors hardly depends on the plan, so a few corrections do; those
 * downwards grow, since sizes move in steps. */
static novaq_status allot_size(nq_recipe *r, allotment *a, novaq_error *err) {
    uint64_t target = r->opt->target_size;
    uint64_t size = 0;
    NQ_TRY(try_budget(&size, r, a, 0, err));
    if (size > target) {
        return fail_size(r, a, size, err);
    }
    uint64_t fits = 0;
    uint64_t exceeds = UINT64_MAX;
    uint64_t budget = r->budget_used + (target - size);
    unsigned misses = 0;
    for (int i = 0; i < SIZE_ROUNDS && budget > fits && budget < exceeds; i++) {
        NQ_TRY(try_budget(&size, r, a, budget, err));
        if (size <= target) {
            fits = budget;
            budget += target - size;
        } else {
            exceeds = r->budget_used < budget ? r->budget_used : budget;
            uint64_t cut = (size - target) << misses++;
            budget = exceeds - fits > cut ? exceeds - cut : fits + (exceeds - fits) / 2;
        }
    }
    return apply(r, a, fits, err);
}

/* ---- what became of it ----------------------------------------------------------- */

/* Says so when the target was not met, or could not be used up. */
static novaq_status compare_budget(nq_recipe *r, uint64_t elements, novaq_error *err) {
    double got = 8.0 * (double)r->budget_used / (double)elements;
    double asked = 8.0 * (double)r->budget / (double)elements;
    size_t before = json_array_size(r->warnings);
    if (r->opt->target_size == 0 && r->budget_used > r->budget) {
        NQ_TRY(nq_recipe_warn(r, err,
                              "target of %g bits per weight not met: the smallest codes allowed, "
                              "scales and codebooks included, take %.4g",
                              r->opt->target_bits, got));
    } else if (r->opt->target_size == 0 && got < 0.9 * asked) {
        NQ_TRY(nq_recipe_warn(r, err,
                              "target of %g bits per weight not used up: the largest codes allowed "
                              "take %.4g",
                              r->opt->target_bits, got));
    } else if (r->opt->target_size != 0 && got < 0.9 * asked) {
        NQ_TRY(nq_recipe_warn(r, err,
                              "target size of %llu bytes not used up: the largest codes allowed "
                              "take %.4g bits per weight",
                              (unsigned long long)r->opt->target_size, got));
    }
    r->budget_warning = json_array_size(r->warnings) > before ? before + 1 : 0;
    return NOVAQ_OK;
}

novaq_status nq_recipe_allocate(nq_recipe *r, novaq_error *err) {
    if (r->budget_warning != 0) {
        (void)json_array_remove(r->warnings, r->budget_warning - 1);
        r->budget_warning = 0;
    }
    allotment a;
    novaq_status st = open_allotment(&a, r, err);
    if (st == NOVAQ_OK && r->opt->target_size != 0) {
        st = allot_size(r, &a, err);
    } else if (st == NOVAQ_OK) {
        uint64_t budget = (uint64_t)(r->opt->target_bits * (double)a.elements / 8);
        st = apply(r, &a, budget, err);
    }
    if (st == NOVAQ_OK && a.elements > 0) {
        st = compare_budget(r, a.elements, err);
    }
    close_allotment(&a);
    return st;
}

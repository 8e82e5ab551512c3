/* layer_kl.c - see eval.h: what each layer's quantization costs alone. The
 * base's logits are computed once; then each coded matrix in turn takes its
 * place in the base. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "eval/eval.h"

typedef struct ablation {
    nq_model *base;
    nq_run *run;
    const int32_t *tokens; /* (n) */
    int32_t *copy;         /* (n) with BOS in place */
    uint32_t n;
    uint32_t scored;
    uint32_t *rows;       /* (scored) */
    float *reference;     /* (scored, vocab) */
    float *logits;        /* (scored, vocab) */
    float *scratch;       /* (threads, vocab) */
    nq_position *results; /* (scored) */
} ablation;

static novaq_status open_ablation(ablation *a, const nq_windows *w, novaq_error *err) {
    uint32_t vocab = a->base->hyper.vocab;
    a->n = w->n_ctx < NQ_LAYER_TOKENS ? w->n_ctx : NQ_LAYER_TOKENS;
    a->scored = a->n - 1 - a->n / 2;
    a->tokens = w->tokens;
    NQ_TRY(nq_run_open(&a->run, a->base, 1, a->n, a->n, err));
    NQ_TRY(nq_alloc(&a->copy, a->n, sizeof *a->copy, err));
    NQ_TRY(nq_alloc(&a->rows, a->scored, sizeof *a->rows, err));
    NQ_TRY(nq_alloc(&a->results, a->scored, sizeof *a->results, err));
    NQ_TRY(nq_alloc_raw(&a->reference, (uint64_t)a->scored * vocab, sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&a->logits, (uint64_t)a->scored * vocab, sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&a->scratch, (uint64_t)nq_pool_threads(a->base->pool) * vocab,
                        sizeof(float), err));
    memcpy(a->copy, w->tokens, a->n * sizeof *a->copy);
    if (w->bos >= 0) {
        a->copy[0] = w->bos;
    }
    for (uint32_t i = 0; i < a->scored; i++) {
        a->rows[i] = a->n / 2 + i;
    }
    return NOVAQ_OK;
}

static void close_ablation(ablation *a) {
    nq_run_close(&a->run);
    nq_free(a->copy);
    nq_free(a->rows);
    nq_free(a->results);
    nq_free(a->reference);
    nq_free(a->logits);
    nq_free(a->scratch);
}

static novaq_status run_base(float *logits, ablation *a, novaq_error *err) {
    nq_run_reset(a->run);
    NQ_TRY(nq_run_feed(a->run, a->copy, 1, a->n, err));
    return nq_run_logits(logits, a->run, a->rows, a->scored, err);
}

static void compare_task(void *ctx, uint64_t task, unsigned worker) {
    ablation *a = ctx;
    uint32_t vocab = a->base->hyper.vocab;
    a->results[task] = nq_score_position(a->logits + task * vocab, a->reference + task * vocab,
                                         a->scratch + (uint64_t)worker * vocab, vocab,
                                         a->tokens[a->rows[task] + 1]);
}

/* Mean KL with *with at `place` of the base. */
static novaq_status measure(double *kld, ablation *a, nq_linear *place, nq_linear with,
                            novaq_error *err) {
    nq_model_swap(a->base, place, &with);
    novaq_status st = run_base(a->logits, a, err);
    nq_model_swap(a->base, place, &with);
    NQ_TRY(st);
    nq_pool_run(a->base->pool, compare_task, a, a->scored);
    *kld = 0;
    for (uint32_t i = 0; i < a->scored; i++) {
        *kld += a->results[i].kld / a->scored;
    }
    return NOVAQ_OK;
}

static novaq_status report_progress(novaq_progress_fn progress, void *ctx, const char *item,
                                    size_t done, size_t total, double value, novaq_error *err) {
    novaq_progress p = {.phase = "layer KL",
                        .item = item,
                        .done = done,
                        .total = total,
                        .unit = "tensors",
                        .value = value};
    if (progress != NULL && progress(ctx, &p) != 0) {
        return nq_fail(err, NOVAQ_E_INTERRUPTED, "interrupted at %s", item);
    }
    return NOVAQ_OK;
}

static novaq_status measure_all(json_t *out, ablation *a, nq_model *model,
                                novaq_progress_fn progress, void *ctx, novaq_error *err) {
    size_t total = nq_weights_count(model->weights);
    NQ_TRY(run_base(a->reference, a, err));
    for (size_t i = 0; i < total; i++) {
        const nq_weight *t = nq_weights_at(model->weights, i);
        nq_linear *with = t->q == NULL ? NULL : nq_model_linear(model, t->name);
        nq_linear *place = with == NULL ? NULL : nq_model_linear(a->base, t->name);
        double kld = 0;
        if (place == NULL || place->w->rows != t->rows || place->w->cols != t->cols) {
            continue;
        }
        NQ_TRY(measure(&kld, a, place, *with, err));
        if (json_object_set_new(out, t->name, json_real(kld)) != 0) {
            return nq_fail(err, NOVAQ_E_NUMERIC, "%s: KL is no number", t->name);
        }
        NQ_TRY(report_progress(progress, ctx, t->name, i + 1, total, kld, err));
    }
    return NOVAQ_OK;
}

novaq_status nq_layer_kld(json_t **out, nq_model *base, nq_model *model, const nq_windows *w,
                          novaq_progress_fn progress, void *progress_ctx, novaq_error *err) {
    ablation a = {.base = base};
    json_t *o = json_object();
    *out = NULL;
    if (base->scratch_bytes < model->scratch_bytes) {
        base->scratch_bytes = model->scratch_bytes;
    }
    novaq_status st =
        o == NULL ? nq_fail(err, NOVAQ_E_MEMORY, "no memory") : open_ablation(&a, w, err);
    if (st == NOVAQ_OK) {
        st = measure_all(o, &a, model, progress, progress_ctx, err);
    }
    close_ablation(&a);
    if (st != NOVAQ_OK) {
        json_decref(o);
        return st;
    }
    *out = o;
    return NOVAQ_OK;
}

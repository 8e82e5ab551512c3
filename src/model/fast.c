/* fast.c - see model.h: preparing a model for integer products. */
#include "base/cpu.h"
#include "model/model.h"

static void widest(nq_model *m, const nq_fast *f) {
    uint64_t bytes = nq_fast_row_bytes(f);
    uint64_t scratch = nq_linear_fast_scratch(f);
    m->fast_row_bytes = bytes > m->fast_row_bytes ? bytes : m->fast_row_bytes;
    m->fast_scratch = scratch > m->fast_scratch ? scratch : m->fast_scratch;
}

/* Experts that are rows of one tensor come one after the other: it is prepared once. */
typedef struct preparing {
    nq_model *m;
    const nq_qmat *q; /* the matrix prepared last, and what that gave */
    const nq_fast *fast;
} preparing;

static novaq_status prepare(void *ctx, nq_linear *l, novaq_error *err) {
    preparing *p = ctx;
    if (l->w == NULL || l->w->q == NULL || l->dense != NULL || l->fast != NULL) {
        return NOVAQ_OK;
    }
    if (l == &p->m->embed && !p->m->hyper.tied) {
        return NOVAQ_OK; /* its rows are only looked up */
    }
    if (l->w->q != p->q) {
        NQ_TRY(nq_fast_add(&p->fast, p->m->fast, l->w->q, err));
        p->q = l->w->q;
    }
    l->fast = p->fast;
    if (l->fast != NULL) {
        widest(p->m, l->fast);
    }
    return NOVAQ_OK;
}

novaq_status nq_model_prepare_fast(nq_model *m, novaq_error *err) {
    NQ_TRY(nq_fast_set_open(&m->fast, nq_gemv_for(nq_cpu_features()), err));
    preparing p = {.m = m};
    NQ_TRY(nq_model_each_linear(m, prepare, &p, err));
    if (m->hyper.tied) {
        m->head = m->embed;
    }
    return NOVAQ_OK;
}

/* stages.c - see model.h: one block at a time, for work that replaces matrices as it
 * goes. */
#include <string.h>

#include "model/run_impl.h"

uint64_t nq_stage_cols(const nq_model *m, unsigned stage) {
    const nq_hyper *h = &m->hyper;
    switch (stage) {
    case 1: return (uint64_t)h->heads * h->head_dim;
    case 3: return h->experts > 0 ? h->dim : h->ff;
    default: return h->dim;
    }
}

uint64_t nq_stage_widest(const nq_model *m) {
    uint64_t widest = 0;
    for (unsigned stage = 0; stage < NQ_STAGES; stage++) {
        uint64_t cols = nq_stage_cols(m, stage);
        widest = cols > widest ? cols : widest;
    }
    return widest;
}

/* A feed of whole sequences from position 0, at `block`. */
static novaq_status enter(nq_run *r, uint32_t block, uint32_t sequences, uint32_t count,
                          novaq_error *err) {
    if (sequences == 0 || sequences > r->sequences || count == 0 || count > r->block ||
        block >= r->m->hyper.blocks) {
        return nq_fail(err, NOVAQ_E_ARG, "%u x %u tokens in block %u do not fit", sequences, count,
                       block);
    }
    r->position = 0;
    r->fed = sequences;
    r->count = count;
    r->rows = sequences * count;
    r->layer = &r->m->blocks[block];
    r->layer_index = block;
    return NOVAQ_OK;
}

novaq_status nq_run_embed(float *x, nq_run *r, const int32_t *tokens, uint32_t sequences,
                          uint32_t count, novaq_error *err) {
    nq_run_reset(r);
    NQ_TRY(nq_run_check(r, tokens, sequences, count, err));
    NQ_TRY(enter(r, 0, sequences, count, err));
    r->tokens = tokens;
    novaq_status st = nq_run_look_up(r, err);
    r->tokens = NULL;
    memcpy(x, r->x, (uint64_t)r->rows * r->m->hyper.dim * sizeof(float));
    return st;
}

novaq_status nq_run_enter(float *input, nq_run *r, uint32_t block, const float *x,
                          uint32_t sequences, uint32_t count, novaq_error *err) {
    NQ_TRY(enter(r, block, sequences, count, err));
    uint64_t bytes = (uint64_t)r->rows * r->m->hyper.dim * sizeof(float);
    memcpy(r->x, x, bytes);
    nq_run_enter_block(r);
    memcpy(input, r->h, bytes);
    return NOVAQ_OK;
}

novaq_status nq_run_stage(float *next, float *x, nq_run *r, uint32_t block, unsigned stage,
                          const nq_linear *const *l, const float *input, uint32_t sequences,
                          uint32_t count, novaq_error *err) {
    NQ_TRY(enter(r, block, sequences, count, err));
    const nq_linear *own[NQ_GROUP_MAX];
    unsigned matrices = nq_block_linears(own, r->layer, stage);
    uint64_t bytes = (uint64_t)r->rows * r->m->hyper.dim * sizeof(float);
    memcpy(r->x, x, bytes);
    memcpy(nq_run_stage_input(r, stage), input,
           r->rows * nq_stage_cols(r->m, stage) * sizeof(float));
    NQ_TRY(nq_run_do_stage(r, stage, l, matrices, err));
    memcpy(x, r->x, bytes);
    if (next != NULL && stage + 1 < NQ_STAGES) {
        memcpy(next, nq_run_stage_input(r, stage + 1),
               r->rows * nq_stage_cols(r->m, stage + 1) * sizeof(float));
    }
    return NOVAQ_OK;
}

void nq_run_output(float *h, nq_run *r, const float *x, uint32_t rows) {
    const nq_hyper *hyper = &r->m->hyper;
    for (uint32_t i = 0; i < rows; i++) {
        uint64_t at = (uint64_t)i * hyper->dim;
        nq_run_norm(h + at, x + at, &r->m->output_norm, hyper->dim, hyper);
    }
}

novaq_status nq_run_head(float *logits, nq_run *r, const float *h, uint32_t rows,
                         novaq_error *err) {
    return nq_run_apply_head(logits, r, h, rows, err);
}

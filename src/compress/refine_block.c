/* refine_block.c - see refine_block.h. */
#include "compress/refine_block.h"

#include "refine/blockwise.h"

/* Measured on a model of 135 million weights at 2 bits: more is unsteady, less slow. */
#define RATE       2e-3
#define SCALE_RATE 3e-3
/* Tokens of a step. */
#define STEP_TOKENS 1024
#define ITEMS_MAX   (NQ_STAGES * NQ_GROUP_MAX)

/* The coded matrices in their places, for a while. */
typedef struct exchange {
    nq_model *m;
    unsigned count;
    nq_weight weight[ITEMS_MAX];
    nq_linear linear[ITEMS_MAX]; /* outside: the source's */
    nq_linear *place[ITEMS_MAX];
} exchange;

static novaq_status swap_in(exchange *x, const nq_block_item *items, unsigned count,
                            novaq_error *err) {
    for (unsigned i = 0; i < count; i++) {
        nq_linear *place = nq_model_linear(x->m, items[i].name);
        if (place == NULL || i == ITEMS_MAX) {
            return nq_fail(err, NOVAQ_E_FORMAT, "%s: has no place in the block", items[i].name);
        }
        x->weight[i] = *place->w;
        x->weight[i].q = items[i].made != NULL ? &items[i].made->q : NULL;
        x->linear[i] = *place;
        x->linear[i].w = &x->weight[i];
        x->linear[i].dense = items[i].dense;
        x->place[i] = place;
        nq_model_swap(x->m, place, &x->linear[i]);
        x->count++;
    }
    return NOVAQ_OK;
}

static void swap_out(exchange *x) {
    for (unsigned i = 0; i < x->count; i++) {
        nq_model_swap(x->m, x->place[i], &x->linear[i]);
    }
}

/* Gains and biases serve both streams of the flow: they stay. */
static nq_store_kind keep_vectors(void *ctx, const nq_param *p) {
    (void)ctx;
    (void)p;
    return NQ_STORE_NONE;
}

static nq_blockwise_options choose(nq_compress_job *j, uint32_t batch) {
    nq_blockwise_options o = {.adam = NQ_ADAM_OPTIONS_INIT,
                              .batch = batch,
                              .seed = j->recipe.opt->seed,
                              .store = keep_vectors,
                              .tick = nq_job_tick,
                              .tick_ctx = j};
    o.adam.steps = j->recipe.opt->refine_blocks;
    o.adam.warmup = o.adam.steps / 10;
    o.adam.rate[NQ_PARAM_CODEBOOK] = RATE;
    o.adam.rate[NQ_PARAM_LOG_SCALE] = SCALE_RATE;
    o.adam.rate[NQ_PARAM_ROW_MEAN] = SCALE_RATE;
    o.adam.rate[NQ_PARAM_GAIN] = 0;
    o.adam.rate[NQ_PARAM_BIAS] = 0;
    return o;
}

static novaq_status take(nq_net *n, const nq_block_item *items, unsigned count, novaq_error *err) {
    for (size_t k = 0; k < nq_net_matrix_count(n); k++) {
        const nq_tmatrix *m = nq_net_matrix(n, k);
        for (unsigned i = 0; i < count; i++) {
            if (items[i].made != NULL && m->q == &items[i].made->q) {
                NQ_TRY(nq_blockwise_take(items[i].made, m, err));
            }
        }
    }
    return NOVAQ_OK;
}

static novaq_status learn(bool *better, nq_flow *f, nq_compress_job *j, uint32_t block,
                          const nq_block_item *items, unsigned count, novaq_error *err) {
    const nq_calibration *text = &j->calibration;
    uint32_t held = nq_blockwise_held_out(text->sequences);
    uint32_t batch = text->length < STEP_TOKENS ? STEP_TOKENS / text->length : 1;
    batch = batch < text->sequences ? batch : text->sequences;
    nq_blockwise_options opt = choose(j, batch);
    nq_net_options how = {
        .sequences = batch, .length = text->length, .halves = true, .single = true, .block = block};
    nq_blockwise_data data = {.x = nq_flow_inputs(f),
                              .y = nq_flow_stream(f),
                              .sequences = text->sequences,
                              .length = text->length,
                              .dim = nq_flow_model(f)->hyper.dim,
                              .train = text->sequences - held};
    nq_blockwise_result r = {0};
    nq_net *n = NULL;
    NQ_TRY(nq_net_open(&n, nq_flow_model(f), &how, err));
    novaq_status st = nq_blockwise_run(&r, n, block, &data, &opt, err);
    *better = st == NOVAQ_OK && r.step > 0;
    if (*better) {
        st = take(n, items, count, err);
    }
    nq_net_close(&n);
    return st;
}

novaq_status nq_refine_block(bool *better, nq_flow *f, nq_compress_job *j, uint32_t block,
                             const nq_block_item *items, unsigned count, novaq_error *err) {
    exchange x = {.m = nq_flow_model(f)};
    *better = false;
    if (j->calibration.sequences < 2) {
        return NOVAQ_OK;
    }
    novaq_status st = swap_in(&x, items, count, err);
    if (st == NOVAQ_OK) {
        st = learn(better, f, j, block, items, count, err);
    }
    swap_out(&x);
    return st;
}

/* net_pass.c - see net.h: passes over whole sequences. */
#include <string.h>

#include "base/mem.h"
#include "model/vec.h"
#include "refine/net_impl.h"

static novaq_status begin(nq_net *n, uint32_t sequences, uint32_t length, bool gradients,
                          novaq_error *err) {
    if (sequences == 0 || length == 0 || sequences > n->opt.sequences || length > n->opt.length) {
        return nq_fail(err, NOVAQ_E_ARG, "%u x %u tokens do not fit a net of %u x %u", sequences,
                       length, n->opt.sequences, n->opt.length);
    }
    if (gradients && n->opt.frozen) {
        return nq_fail(err, NOVAQ_E_ARG, "gradients of a frozen net");
    }
    n->sequences = sequences;
    n->length = length;
    n->rows = sequences * length;
    n->output = NULL;
    return NOVAQ_OK;
}

static uint64_t stream_floats(const nq_net *n) { return (uint64_t)n->rows * n->m->hyper.dim; }

/* The input of block i, or the output (i = blocks). A frozen net keeps two of them. */
static float *stream_at(const nq_net *n, uint32_t i) {
    return n->stream + (n->opt.frozen ? i % 2 : i) * stream_floats(n);
}

/* ---- embedding ------------------------------------------------------------------------- */

static novaq_status check_tokens(const nq_net *n, const int32_t *tokens, novaq_error *err) {
    for (uint32_t i = 0; i < n->rows; i++) {
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= n->m->hyper.vocab) {
            return nq_fail(err, NOVAQ_E_ARG, "token %d is outside the vocabulary of %u", tokens[i],
                           n->m->hyper.vocab);
        }
    }
    return NOVAQ_OK;
}

static novaq_status look_up(nq_net *n, const int32_t *tokens, novaq_error *err) {
    const nq_hyper *h = &n->m->hyper;
    float *x = stream_at(n, 0);
    NQ_TRY(check_tokens(n, tokens, err));
    NQ_TRY(nq_tmatrix_lookup(x, n->embed, tokens, n->rows, n->work, err));
    if (h->arch->scaled_embedding) {
        nq_vec_scale(x, (float)h->embedding_scale, stream_floats(n));
    }
    for (uint32_t row = 0; n->m->positions != NULL && row < n->rows; row++) {
        nq_vec_add(x + (uint64_t)row * h->dim,
                   n->m->positions + (uint64_t)(row % n->length) * h->dim, h->dim);
    }
    return NOVAQ_OK;
}

static novaq_status look_up_backward(nq_net *n, const int32_t *tokens, novaq_error *err) {
    const nq_hyper *h = &n->m->hyper;
    if (h->arch->scaled_embedding) {
        nq_vec_scale(n->dx, (float)h->embedding_scale, stream_floats(n));
    }
    return nq_tmatrix_lookup_backward(n->embed, n->dx, tokens, n->rows, n->work, err);
}

/* ---- head --------------------------------------------------------------------------------- */

static nq_spans head_spans(const nq_net *n, uint32_t rows) {
    return (nq_spans){rows, 1, n->m->hyper.dim, n->m->hyper.dim};
}

/* logits (rows, vocab) of a last block's output (rows, dim); n->normed is their input. */
static novaq_status apply_head(float *logits, nq_net *n, const float *output, uint32_t rows,
                               novaq_error *err) {
    const nq_hyper *h = &n->m->hyper;
    nq_net_norm(n, n->normed, output, &n->output_norm, head_spans(n, rows));
    NQ_TRY(nq_tmatrix_forward(logits, n->head, n->normed, rows, n->work, err));
    if (h->logit_softcap > 0) {
        nq_net_softcap(n, logits, (uint64_t)rows * h->vocab, (float)h->logit_softcap);
    }
    return NOVAQ_OK;
}

/* From n->dlogits to the rows of n->dx. in.dn is free between blocks. */
static novaq_status head_backward(nq_net *n, uint32_t row0, uint32_t rows, novaq_error *err) {
    const nq_hyper *h = &n->m->hyper;
    uint64_t at = (uint64_t)row0 * h->dim;
    if (h->logit_softcap > 0) {
        nq_net_softcap_backward(n, n->dlogits, n->logits, (uint64_t)rows * h->vocab,
                                (float)h->logit_softcap);
    }
    NQ_TRY(nq_net_back_matrix(n->in.dn, false, n, n->head, n->dlogits, n->normed, rows, err));
    nq_net_norm_backward(n, n->dx + at, false, n->in.dn, n->output + at, &n->output_norm,
                         head_spans(n, rows));
    return NOVAQ_OK;
}

static novaq_status run_head(nq_net *n, const nq_net_pass *p, novaq_error *err) {
    if (n->logits == NULL) {
        NQ_TRY(
            nq_alloc_raw(&n->logits, (uint64_t)n->chunk * n->m->hyper.vocab, sizeof(float), err));
    }
    for (uint32_t row0 = 0; row0 < n->rows; row0 += n->chunk) {
        uint32_t rows = n->rows - row0 < n->chunk ? n->rows - row0 : n->chunk;
        NQ_TRY(apply_head(n->logits, n, n->output + (uint64_t)row0 * n->m->hyper.dim, rows, err));
        NQ_TRY(
            p->logits(p->logits_ctx, row0, rows, n->logits, p->gradients ? n->dlogits : NULL, err));
        if (p->gradients) {
            NQ_TRY(head_backward(n, row0, rows, err));
        }
    }
    return NOVAQ_OK;
}

const float *nq_net_output(const nq_net *n) { return n->output; }

novaq_status nq_net_logits(float *logits, nq_net *n, uint32_t row0, uint32_t count,
                           novaq_error *err) {
    if (n->output == NULL || row0 > n->rows || count > n->rows - row0) {
        return nq_fail(err, NOVAQ_E_ARG, "logits of rows %u to %u: the last pass had %u", row0,
                       row0 + count, n->output == NULL ? 0 : n->rows);
    }
    return nq_net_head(logits, n, n->output + (uint64_t)row0 * n->m->hyper.dim, count, err);
}

novaq_status nq_net_head(float *logits, nq_net *n, const float *output, uint32_t count,
                         novaq_error *err) {
    for (uint32_t at = 0; at < count; at += n->chunk) {
        uint32_t rows = count - at < n->chunk ? count - at : n->chunk;
        NQ_TRY(apply_head(logits + (uint64_t)at * n->m->hyper.vocab, n,
                          output + (uint64_t)at * n->m->hyper.dim, rows, err));
    }
    return NOVAQ_OK;
}

/* ---- a pass ---------------------------------------------------------------------------------- */

static novaq_status ask(const nq_net_pass *p, novaq_error *err) {
    return p->tick != NULL ? p->tick(p->tick_ctx, err) : NOVAQ_OK;
}

static novaq_status forward(nq_net *n, const nq_net_pass *p, novaq_error *err) {
    uint32_t blocks = n->m->hyper.blocks;
    NQ_TRY(look_up(n, p->tokens, err));
    for (uint32_t i = 0; i < blocks; i++) {
        NQ_TRY(ask(p, err));
        nq_net_use_slot(n, p->gradients ? nq_net_slot_of(n, i) : 0);
        NQ_TRY(nq_net_forward_block(stream_at(n, i + 1), n, &n->blocks[i], stream_at(n, i), err));
        if (!p->gradients && p->hidden != NULL) {
            NQ_TRY(p->hidden(p->hidden_ctx, i, stream_at(n, i + 1), NULL, err));
        }
    }
    n->output = stream_at(n, blocks);
    return NOVAQ_OK;
}

static novaq_status backward(nq_net *n, const nq_net_pass *p, novaq_error *err) {
    for (uint32_t i = n->m->hyper.blocks; i-- > 0;) {
        NQ_TRY(ask(p, err));
        if (p->hidden != NULL) {
            NQ_TRY(p->hidden(p->hidden_ctx, i, stream_at(n, i + 1), n->dx, err));
        }
        uint32_t slot = nq_net_slot_of(n, i);
        nq_net_use_slot(n, slot);
        NQ_TRY(nq_net_back_block(n->dx, n, &n->blocks[i], stream_at(n, i), slot > 0, err));
    }
    return look_up_backward(n, p->tokens, err);
}

novaq_status nq_net_run(nq_net *n, const nq_net_pass *p, novaq_error *err) {
    if (n->opt.single) {
        return nq_fail(err, NOVAQ_E_ARG, "a pass through a net of one block");
    }
    NQ_TRY(begin(n, p->sequences, p->length, p->gradients, err));
    NQ_TRY(forward(n, p, err));
    if (p->gradients) {
        memset(n->dx, 0, stream_floats(n) * sizeof *n->dx);
    }
    if (p->logits != NULL) {
        NQ_TRY(run_head(n, p, err));
    }
    return p->gradients ? backward(n, p, err) : NOVAQ_OK;
}

/* ---- one block ----------------------------------------------------------------------------- */

static novaq_status begin_block(nq_net *n, uint32_t block, uint32_t sequences, uint32_t length,
                                bool gradients, novaq_error *err) {
    if (block < nq_net_first(n) || block >= nq_net_end(n)) {
        return nq_fail(err, NOVAQ_E_ARG, "block %u: the net has %u to %u", block, nq_net_first(n),
                       nq_net_end(n) - 1);
    }
    return begin(n, sequences, length, gradients, err);
}

novaq_status nq_net_block(float *y, nq_net *n, uint32_t block, const float *x, uint32_t sequences,
                          uint32_t length, novaq_error *err) {
    NQ_TRY(begin_block(n, block, sequences, length, false, err));
    nq_net_use_slot(n, 0);
    return nq_net_forward_block(y, n, &n->blocks[block], x, err);
}

static novaq_status block_back(float *dx, nq_net *n, uint32_t block, const float *x,
                               const float *dy, bool kept, novaq_error *err) {
    nq_net_use_slot(n, 0);
    memcpy(n->dx, dy, stream_floats(n) * sizeof *n->dx);
    NQ_TRY(nq_net_back_block(n->dx, n, &n->blocks[block], x, kept, err));
    if (dx != NULL) {
        memcpy(dx, n->dx, stream_floats(n) * sizeof *dx);
    }
    return NOVAQ_OK;
}

novaq_status nq_net_block_backward(float *dx, nq_net *n, uint32_t block, const float *x,
                                   const float *dy, uint32_t sequences, uint32_t length,
                                   novaq_error *err) {
    NQ_TRY(begin_block(n, block, sequences, length, true, err));
    return block_back(dx, n, block, x, dy, false, err);
}

novaq_status nq_net_block_learn(float *dx, nq_net *n, uint32_t block, const float *x,
                                const float *dy, uint32_t sequences, uint32_t length,
                                novaq_error *err) {
    NQ_TRY(begin_block(n, block, sequences, length, true, err));
    return block_back(dx, n, block, x, dy, true, err);
}

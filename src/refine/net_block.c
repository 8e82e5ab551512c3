/* net_block.c - see net_impl.h: one block, there and back.
 *
 *   h = x + post(Wo attention(Wq n1, Wk n1, Wv n1)),  n1 = norm(x)
 *   y = h + post(ffn(n2)),                            n2 = norm(h)
 */
#include <string.h>

#include "refine/net_impl.h"

novaq_status nq_net_back_matrix(float *dx, bool add, nq_net *n, nq_tmatrix *m, const float *dy,
                                const float *x, uint64_t rows, novaq_error *err) {
    if (!add) {
        memset(dx, 0, rows * m->cols * sizeof *dx);
    }
    return nq_tmatrix_backward(dx, m, dy, x, rows, n->opt.frozen, n->work, err);
}

static novaq_status project(nq_net *n, const nq_tblock *t, novaq_error *err) {
    const nq_inside *in = &n->in;
    nq_heads a = nq_net_heads(n, t, in->qkv);
    if (t->qkv != NULL) {
        return nq_tmatrix_forward(in->qkv, t->qkv, in->n1, n->rows, n->work, err);
    }
    NQ_TRY(nq_tmatrix_forward(a.q, t->q, in->n1, n->rows, n->work, err));
    NQ_TRY(nq_tmatrix_forward(a.k, t->k, in->n1, n->rows, n->work, err));
    return nq_tmatrix_forward(a.v, t->v, in->n1, n->rows, n->work, err);
}

/* in.dn = the gradient by n1. */
static novaq_status project_backward(nq_net *n, const nq_tblock *t, novaq_error *err) {
    const nq_inside *in = &n->in;
    nq_heads d = nq_net_heads(n, t, in->dqkv);
    if (t->qkv != NULL) {
        return nq_net_back_matrix(in->dn, false, n, t->qkv, in->dqkv, in->n1, n->rows, err);
    }
    NQ_TRY(nq_net_back_matrix(in->dn, false, n, t->q, d.q, in->n1, n->rows, err));
    NQ_TRY(nq_net_back_matrix(in->dn, true, n, t->k, d.k, in->n1, n->rows, err));
    return nq_net_back_matrix(in->dn, true, n, t->v, d.v, in->n1, n->rows, err);
}

static novaq_status forward_attention(nq_net *n, const nq_tblock *t, const float *x,
                                      novaq_error *err) {
    const nq_inside *in = &n->in;
    bool post = t->attn_post.gain.value != NULL;
    float *o = post ? in->o : in->h;
    nq_net_norm(n, in->n1, x, &t->attn_norm, nq_net_stream(n));
    NQ_TRY(project(n, t, err));
    nq_net_attention(n, t);
    NQ_TRY(nq_tmatrix_forward(o, t->out, in->att, n->rows, n->work, err));
    nq_net_add_bias(n, o, &t->out_bias, n->m->hyper.dim);
    if (post) {
        nq_net_norm(n, in->h, o, &t->attn_post, nq_net_stream(n));
    }
    nq_net_add(n, in->h, x);
    return NOVAQ_OK;
}

novaq_status nq_net_forward_block(float *y, nq_net *n, const nq_tblock *t, const float *x,
                                  novaq_error *err) {
    const nq_inside *in = &n->in;
    bool post = t->ffn_post.gain.value != NULL;
    float *f = post ? in->f : y;
    NQ_TRY(forward_attention(n, t, x, err));
    nq_net_norm(n, in->n2, in->h, &t->ffn_norm, nq_net_stream(n));
    NQ_TRY(t->router != NULL ? nq_net_moe(f, n, t, err) : nq_net_ffn(f, n, t, err));
    if (y == NULL) {
        return NOVAQ_OK;
    }
    if (post) {
        nq_net_norm(n, y, f, &t->ffn_post, nq_net_stream(n));
    }
    nq_net_add(n, y, in->h);
    return NOVAQ_OK;
}

/* The gradient by an output, before the norm that may follow it. */
static const float *before_post(nq_net *n, const float *dx, const float *out,
                                const nq_tnorm *post) {
    if (post->gain.value == NULL) {
        return dx;
    }
    nq_net_norm_backward(n, n->in.dout, false, dx, out, post, nq_net_stream(n));
    return n->in.dout;
}

/* What a kept inside lacks. */
static novaq_status revive(nq_net *n, const nq_tblock *t, const float *x, novaq_error *err) {
    nq_net_norm(n, n->in.n1, x, &t->attn_norm, nq_net_stream(n));
    nq_net_norm(n, n->in.n2, n->in.h, &t->ffn_norm, nq_net_stream(n));
    if (t->router != NULL) {
        return nq_net_moe(NULL, n, t, err);
    }
    nq_net_activate(n, nq_net_gating(t), n->rows);
    return NOVAQ_OK;
}

novaq_status nq_net_back_block(float *dx, nq_net *n, const nq_tblock *t, const float *x, bool kept,
                               novaq_error *err) {
    const nq_inside *in = &n->in;
    NQ_TRY(kept ? revive(n, t, x, err) : nq_net_forward_block(NULL, n, t, x, err));
    const float *df = before_post(n, dx, in->f, &t->ffn_post);
    NQ_TRY(t->router != NULL ? nq_net_moe_backward(n, t, df, err)
                             : nq_net_ffn_backward(n, t, df, err));
    nq_net_norm_backward(n, dx, true, in->dn, in->h, &t->ffn_norm, nq_net_stream(n));
    const float *dout = before_post(n, dx, in->o, &t->attn_post);
    nq_net_bias_backward(n, &t->out_bias, dout, n->m->hyper.dim);
    NQ_TRY(nq_net_back_matrix(in->datt, false, n, t->out, dout, in->att, n->rows, err));
    nq_net_attention_backward(n, t);
    NQ_TRY(project_backward(n, t, err));
    nq_net_norm_backward(n, dx, true, in->dn, x, &t->attn_norm, nq_net_stream(n));
    return NOVAQ_OK;
}

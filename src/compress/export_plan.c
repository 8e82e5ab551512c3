/* export_plan.c - names, types and order of rows of exported tensors. See
 * export.h.
 *
 * Rotary embedding turns pairs of rows within each head of the query and key
 * projections. GGUF files of the llama family pair neighbours (2i, 2i+1),
 * Hugging Face pairs halves (i, i + n/2); the rows are put into the order that
 * readers of the target format expect. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "compress/export.h"

#define ROPE_FREQS "rope_freqs.weight"

/* ---- reading rows -------------------------------------------------------- */

/* Row of the source head that becomes row r of the written head. */
static uint64_t head_row(uint64_t r, uint64_t n, bool to_interleaved) {
    uint64_t half = n / 2;
    if (to_interleaved) {
        return (r % 2) * half + r / 2;
    }
    return r < half ? 2 * r : 2 * (r - half) + 1;
}

static novaq_status read_reordered(const nq_export_source *s, float *dst, uint64_t row0,
                                   uint64_t count, novaq_error *err) {
    uint64_t n = s->head_dim;
    uint64_t cols = s->t->cols;
    float *head = NULL; /* (n, cols) */
    NQ_TRY(nq_alloc_raw(&head, n * cols, sizeof *head, err));
    novaq_status st = NOVAQ_OK;
    uint64_t loaded = UINT64_MAX;
    for (uint64_t i = 0; st == NOVAQ_OK && i < count; i++) {
        uint64_t row = row0 + i;
        if (row / n != loaded) {
            loaded = row / n;
            st = nq_weights_read_rows(head, s->w, s->t, loaded * n, n, err);
        }
        if (st == NOVAQ_OK) {
            const float *from = head + head_row(row % n, n, s->to_interleaved) * cols;
            memcpy(dst + i * cols, from, (size_t)cols * sizeof *dst);
        }
    }
    nq_free(head);
    return st;
}

/* Elements of a type that is not a weight's: the stored bytes themselves. */
static novaq_status read_raw(const nq_export_source *s, void *dst, uint64_t row0, uint64_t count,
                             novaq_error *err) {
    uint64_t element = nq_dtype_get(s->t->dtype)->bytes;
    uint64_t offset = row0 * s->t->cols * element;
    uint64_t bytes = count * s->t->cols * element;
    if (s->t->layer == NULL) {
        return nq_tensors_read(dst, nq_weights_tensors(s->w), s->t->src, offset, bytes, err);
    }
    if (offset > s->t->layer->data_bytes || bytes > s->t->layer->data_bytes - offset) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: stored data end too early", s->t->name);
    }
    memcpy(dst, s->t->layer->data + offset, (size_t)bytes);
    return NOVAQ_OK;
}

static novaq_status read_rows(const nq_tensor_out *t, void *dst, uint64_t row0, uint64_t count,
                              novaq_error *err) {
    const nq_export_source *s = t->ctx;
    if (s->values != NULL) {
        memcpy(dst, s->values + row0 * t->cols, (size_t)(count * t->cols) * sizeof *s->values);
        return NOVAQ_OK;
    }
    if (t->raw) {
        return read_raw(s, dst, row0, count, err);
    }
    if (s->head_dim > 0) {
        return read_reordered(s, dst, row0, count, err);
    }
    return nq_weights_read_rows(dst, s->w, s->t, row0, count, err);
}

/* ---- names --------------------------------------------------------------- */

/* The tensors of a plain llama, which is what both formats name alike. */
static const nq_tensor_id PLAIN[] = {NQ_T_EMBED,    NQ_T_OUTPUT_NORM, NQ_T_HEAD,   NQ_T_ATTN_NORM,
                                     NQ_T_ATTN_Q,   NQ_T_ATTN_K,      NQ_T_ATTN_V, NQ_T_ATTN_OUT,
                                     NQ_T_FFN_NORM, NQ_T_FFN_GATE,    NQ_T_FFN_UP, NQ_T_FFN_DOWN};

/* Finds which of them a name is; false when it is none. */
static bool identify(nq_tensor_id *id, unsigned *block, const char *name, const nq_hyper *h) {
    char candidate[NQ_TENSOR_NAME];
    *block = 0;
    int used = 0;
    const char *prefix = h->spelling == NQ_SPELL_GGUF ? "blk.%9u.%n" : "model.layers.%9u.%n";
    if (sscanf(name, prefix, block, &used) != 1) {
        *block = 0;
    }
    for (size_t i = 0; i < sizeof PLAIN / sizeof PLAIN[0]; i++) {
        *id = PLAIN[i];
        const char *is = nq_arch_tensor_name(candidate, h->arch, h->spelling, *id, *block, 0, 0);
        if (is != NULL && strcmp(is, name) == 0) {
            return true;
        }
    }
    return false;
}

/* What keeps a model from being written as the llama that both formats' readers
 * know; NULL when nothing does. */
static const char *not_plain(const nq_hyper *h) {
    nq_rope_scaling s = h->rope[NQ_GLOBAL].scaling;
    if (strcmp(h->arch->name, "llama") != 0) {
        return "architecture";
    }
    if (h->experts > 0) {
        return "experts";
    }
    if (h->window > 0) {
        return "sliding window";
    }
    if (h->biases) {
        return "biases";
    }
    return s == NQ_ROPE_PLAIN || s == NQ_ROPE_LINEAR || s == NQ_ROPE_LLAMA3 ? NULL : "rope scaling";
}

static bool is_raw(const nq_weight *t) {
    return !nq_dtype_get(t->dtype)->is_float &&
           (t->layer == NULL || t->layer->scheme.kind == NQ_SCHEME_RAW);
}

/* A tensor with its own name, type and shape. */
static void add_tensor(nq_export_plan *p, const nq_weight *t, const char *name) {
    nq_tensor_out *o = &p->out[p->count];
    p->source[p->count] = (nq_export_source){.w = p->w, .t = t};
    *o = (nq_tensor_out){.name = name,
                         .raw = is_raw(t),
                         .rank = t->rank,
                         .rows = t->rows,
                         .cols = t->cols,
                         .read = read_rows,
                         .ctx = &p->source[p->count]};
    o->dtype = o->raw ? t->dtype : t->rank < 2 ? NQ_F32 : p->dtype;
    memcpy(o->shape, t->shape, sizeof o->shape);
    p->count++;
}

/* Query and key rows of the tensor added last. */
static novaq_status reorder_heads(nq_export_plan *p, uint32_t heads, novaq_error *err) {
    nq_tensor_out *o = &p->out[p->count - 1];
    nq_export_source *s = &p->source[p->count - 1];
    if (p->h.rope[NQ_GLOBAL].dim != p->h.head_dim) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: rotary embedding covers %u of %u dimensions; its rows cannot be "
                       "reordered for the other format",
                       s->t->name, p->h.rope[NQ_GLOBAL].dim, p->h.head_dim);
    }
    if (s->t->rank != 2 || o->rows != (uint64_t)heads * p->h.head_dim) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: expected %u heads of %u rows", s->t->name, heads,
                       p->h.head_dim);
    }
    s->head_dim = p->h.head_dim;
    s->to_interleaved = p->target == NQ_SPELL_GGUF;
    o->row_multiple = s->head_dim;
    return NOVAQ_OK;
}

/* Tensors outside the table: rotary tables go where they mean something. */
static novaq_status add_unnamed(nq_export_plan *p, const nq_weight *t, novaq_error *err) {
    bool precomputed = nq_arch_ignores(t->name);
    if (precomputed &&
        (strcmp(t->name, ROPE_FREQS) != 0 || p->h.rope[NQ_GLOBAL].scaling != NQ_ROPE_PLAIN)) {
        return NOVAQ_OK; /* follows from the hyperparameters */
    }
    return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s: this tensor has no name in %s", t->name,
                   p->target == NQ_SPELL_GGUF ? "GGUF; export with --to safetensors"
                                              : "Hugging Face's spelling; export with --to gguf");
}

static novaq_status add_renamed(nq_export_plan *p, const nq_weight *t, novaq_error *err) {
    nq_tensor_id id;
    unsigned block;
    if (!identify(&id, &block, t->name, &p->h)) {
        return add_unnamed(p, t, err);
    }
    if (id == NQ_T_HEAD && p->h.tied) {
        return NOVAQ_OK; /* readers would take it for an untied head */
    }
    add_tensor(p, t,
               nq_arch_tensor_name(p->names[p->count], p->h.arch, p->target, id, block, 0, 0));
    bool half_wanted = p->target == NQ_SPELL_HF;
    if ((id == NQ_T_ATTN_Q || id == NQ_T_ATTN_K) && p->h.rope[NQ_GLOBAL].half != half_wanted) {
        return reorder_heads(p, id == NQ_T_ATTN_Q ? p->h.heads : p->h.heads_kv, err);
    }
    return NOVAQ_OK;
}

/* llama.cpp takes Llama 3's frequency scaling from a tensor of divisors. */
static novaq_status add_rope_factors(nq_export_plan *p, novaq_error *err) {
    const nq_rope_spec *spec = &p->h.rope[NQ_GLOBAL];
    uint32_t n = spec->dim / 2;
    nq_rope_spec plain = *spec;
    plain.scaling = NQ_ROPE_PLAIN;
    NQ_TRY(nq_alloc(&p->rope_factors, n, sizeof *p->rope_factors, err));
    for (uint32_t i = 0; i < n; i++) {
        p->rope_factors[i] = (float)(nq_rope_angle(&plain, i, 1) / nq_rope_angle(spec, i, 1));
    }
    p->source[p->count] = (nq_export_source){.values = p->rope_factors};
    p->out[p->count] = (nq_tensor_out){.name = ROPE_FREQS,
                                       .dtype = NQ_F32,
                                       .rank = 1,
                                       .shape = {n},
                                       .rows = 1,
                                       .cols = n,
                                       .read = read_rows,
                                       .ctx = &p->source[p->count]};
    p->count++;
    return NOVAQ_OK;
}

static novaq_status add_all(nq_export_plan *p, novaq_error *err) {
    bool rename = p->known && p->h.spelling != p->target;
    for (size_t i = 0; i < nq_weights_count(p->w); i++) {
        const nq_weight *t = nq_weights_at(p->w, i);
        if (rename) {
            NQ_TRY(add_renamed(p, t, err));
        } else {
            add_tensor(p, t, t->name);
        }
    }
    bool factors = p->known && p->target == NQ_SPELL_GGUF &&
                   p->h.rope[NQ_GLOBAL].scaling == NQ_ROPE_LLAMA3 &&
                   nq_weights_find(p->w, ROPE_FREQS) == NULL;
    return factors ? add_rope_factors(p, err) : NOVAQ_OK;
}

/* Other architectures are written as they are named and ordered in the source, without
 * configuration, or not at all. */
static novaq_status check_plain(nq_export_plan *p, const char *path, novaq_error *err) {
    const char *what = p->known ? not_plain(&p->h) : NULL;
    if (what == NULL) {
        return NOVAQ_OK;
    }
    if (p->target == NQ_SPELL_GGUF) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: its %s (%s) cannot be exported to GGUF yet; export with --to "
                       "safetensors",
                       path, what, p->h.arch->name);
    }
    if (p->h.spelling == NQ_SPELL_HF && strcmp(p->h.arch->name, "gpt2") == 0) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: %s stores its matrices by inputs; that cannot be exported yet", path,
                       p->h.arch->name);
    }
    p->known = false;
    return NOVAQ_OK;
}

novaq_status nq_export_plan_make(nq_export_plan *p, nq_weights *w, const char *path,
                                 nq_spelling target, nq_dtype dtype, novaq_error *err) {
    *p = (nq_export_plan){.w = w, .model = nq_weights_model(w), .target = target, .dtype = dtype};
    p->known = nq_hyper_read(&p->h, p->model, path, &p->why) == NOVAQ_OK;
    if (!p->known && target == NQ_SPELL_GGUF) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s; as GGUF it would not run either: export "
                       "with --to safetensors",
                       p->why.msg);
    }
    NQ_TRY(check_plain(p, path, err));
    size_t most = nq_weights_count(w) + 1;
    NQ_TRY(nq_alloc(&p->out, most, sizeof *p->out, err));
    NQ_TRY(nq_alloc(&p->source, most, sizeof *p->source, err));
    NQ_TRY(nq_alloc(&p->names, most, sizeof *p->names, err));
    return add_all(p, err);
}

void nq_export_plan_free(nq_export_plan *p) {
    nq_free(p->rope_factors);
    nq_free(p->names);
    nq_free(p->source);
    nq_free(p->out);
    *p = (nq_export_plan){0};
}

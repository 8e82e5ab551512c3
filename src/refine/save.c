/* save.c - see save.h. */
#include "refine/save.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "refine/round.h"
#include "refine/telemetry.h"

/* A layer at work and what replaces its pieces. */
typedef struct edit {
    nq_layer layer;
    int8_t *codebooks;
    uint16_t *codebook_scale, *row_scale, *row_mean;
    uint8_t *data;
    json_t *diagnostics;
    bool changed;
} edit;

static void close_edit(edit *e) {
    nq_free(e->codebooks);
    nq_free(e->codebook_scale);
    nq_free(e->row_scale);
    nq_free(e->row_mean);
    nq_free(e->data);
    json_decref(e->diagnostics);
}

/* ---- learnt values into pieces ------------------------------------------------------- */

static novaq_status copy_halves(uint16_t **out, const uint16_t *from, uint64_t n,
                                novaq_error *err) {
    if (*out != NULL || from == NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_alloc_raw(out, n, sizeof **out, err));
    memcpy(*out, from, n * sizeof **out);
    return NOVAQ_OK;
}

static novaq_status edit_books(edit *e, const nq_tmatrix *m, novaq_error *err) {
    uint64_t book = nq_scheme_codebook_bytes(&m->q->scheme);
    NQ_TRY(nq_alloc(&e->codebooks, m->groups * book, 1, err));
    NQ_TRY(nq_alloc(&e->codebook_scale, m->groups, sizeof *e->codebook_scale, err));
    for (uint32_t g = 0; g < m->groups; g++) {
        nq_round_group(e->codebooks + g * book, &e->codebook_scale[g], m, g);
    }
    nq_qmat *q = &e->layer.q;
    q->groups = m->groups;
    q->group_cols = m->groups == 1 ? q->cols : m->group_cols;
    q->codebooks = e->codebooks;
    q->codebook_scale = e->codebook_scale;
    return NOVAQ_OK;
}

/* A tensor may be several matrices, each some of its rows. */
static novaq_status edit_matrix(edit *e, const nq_tmatrix *m, novaq_error *err) {
    nq_qmat *q = &e->layer.q;
    uint64_t row0 = m->source.row0;
    NQ_TRY(copy_halves(&e->row_scale, q->row_scale, q->rows, err));
    NQ_TRY(copy_halves(&e->row_mean, q->row_mean, q->rows, err));
    for (uint64_t i = 0; i < m->rows; i++) {
        e->row_scale[row0 + i] = nq_round_row(m, i);
        if (m->row_mean != NULL) {
            e->row_mean[row0 + i] = nq_f32_to_f16(nq_store_round(NQ_STORE_F16, m->row_mean[i]));
        }
    }
    q->row_scale = e->row_scale;
    q->row_mean = e->row_mean;
    e->changed = true;
    return m->grad_codebooks != NULL ? edit_books(e, m, err) : NOVAQ_OK;
}

static void put_element(uint8_t *data, uint64_t i, nq_store_kind kind, float v) {
    if (kind == NQ_STORE_F32) {
        memcpy(data + i * 4, &v, 4);
        return;
    }
    v = nq_store_round(kind, v);
    uint16_t h = kind == NQ_STORE_F16 ? nq_f32_to_f16(v) : nq_f32_to_bf16(v);
    memcpy(data + i * 2, &h, 2);
}

static novaq_status edit_vector(edit *e, const nq_param *p, nq_store_kind kind, novaq_error *err) {
    uint64_t width = kind == NQ_STORE_F32 ? 4 : 2;
    if (e->data != NULL || e->layer.data_bytes != p->count * width) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: its size is not that of what was learnt", p->name);
    }
    NQ_TRY(nq_alloc(&e->data, p->count, width, err));
    for (uint64_t i = 0; i < p->count; i++) {
        put_element(e->data, i, kind, p->value[i] - p->offset);
    }
    e->changed = memcmp(e->data, e->layer.data, e->layer.data_bytes) != 0;
    e->layer.data = e->data;
    return NOVAQ_OK;
}

static novaq_status apply_net(edit *e, const nq_refine_save *s, const nq_layer *from,
                              novaq_error *err) {
    for (size_t i = 0; i < nq_net_matrix_count(s->net); i++) {
        const nq_tmatrix *m = nq_net_matrix(s->net, i);
        if (m->q == &from->q) {
            NQ_TRY(edit_matrix(e, m, err));
        }
    }
    for (size_t i = 0; i < nq_net_param_count(s->net); i++) {
        const nq_param *p = nq_net_param(s->net, i);
        nq_store_kind kind = nq_param_is_vector(p) ? nq_store_of(s->weights, p) : NQ_STORE_NONE;
        if (kind != NQ_STORE_NONE && strcmp(p->name, from->name) == 0) {
            NQ_TRY(edit_vector(e, p, kind, err));
        }
    }
    return NOVAQ_OK;
}

/* ---- new symbols ---------------------------------------------------------------------- */

static void edit_symbols(edit *e, const nq_new_symbols *n) {
    if (n->symbols != NULL) {
        e->layer.q.symbols = n->symbols;
        e->changed = true;
    }
}

/* What telemetry says of the symbols that were is no longer true. */
static void tell_symbols(edit *e, const nq_new_symbols *n) {
    json_t *subspaces = json_object_get(e->diagnostics, "subspaces");
    if (n->symbols == NULL || subspaces == NULL) {
        return;
    }
    json_t *entropy = json_array();
    json_t *used = json_array();
    for (unsigned f = 0; f < e->layer.q.scheme.fields; f++) {
        json_array_append_new(entropy, json_real(n->use->entropy[f]));
        json_array_append_new(used, json_integer((json_int_t)n->use->used[f]));
    }
    json_object_set_new(subspaces, "symbol_entropy", entropy);
    json_object_set_new(subspaces, "symbols_used", used);
}

/* ---- writing ------------------------------------------------------------------------------ */

static novaq_status write_layer(nq_writer *w, const nq_refine_save *s, const nq_layer *from,
                                const nq_new_symbols *symbols, novaq_error *err) {
    edit e = {.layer = *from};
    novaq_status st = s->net != NULL ? apply_net(&e, s, from, err) : NOVAQ_OK;
    edit_symbols(&e, symbols);
    if (st == NOVAQ_OK && e.changed) {
        st = nq_refine_telemetry(&e.diagnostics, &e.layer, s->source, s->pool, err);
        tell_symbols(&e, symbols);
        e.layer.diagnostics = e.diagnostics;
    }
    if (st == NOVAQ_OK) {
        st = nq_writer_add(w, &e.layer, err);
    }
    close_edit(&e);
    return st;
}

static novaq_status write_layers(nq_writer *w, const nq_refine_save *s, const nq_artifact *a,
                                 novaq_error *err) {
    size_t count = nq_artifact_count(a);
    for (size_t i = 0; i < count; i++) {
        const nq_layer *l = nq_artifact_at(a, i);
        novaq_progress p = {"save", l->name, i, count, "tensors", (double)NAN, 0, 0, 0};
        if (s->progress != NULL && s->progress(s->progress_ctx, &p) != 0) {
            return nq_fail(err, NOVAQ_E_INTERRUPTED, "interrupted");
        }
        nq_new_symbols symbols = s->symbols != NULL ? s->symbols[i] : (nq_new_symbols){0};
        NQ_TRY(write_layer(w, s, l, &symbols, err));
    }
    return NOVAQ_OK;
}

/* What the artifact says of itself, with the record of this refinement. */
static novaq_status make_config(json_t **config, const char **locator, const nq_refine_save *s,
                                const nq_artifact *a, novaq_error *err) {
    const json_t *quantization = NULL;
    const json_t *old = NULL;
    const json_t *root = nq_artifact_manifest(a);
    NQ_TRY(nq_json_get_string(locator, root, "source_locator", "manifest", err));
    NQ_TRY(nq_json_get_object(&quantization, root, "quantization", "manifest", err));
    NQ_TRY(nq_json_get_object(&old, quantization, "config", "quantization", err));
    *config = json_deep_copy(old);
    if (*config == NULL ||
        (s->record != NULL &&
         json_object_set(*config, "refinement", (json_t *)(uintptr_t)s->record) != 0)) {
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot build the manifest");
    }
    return NOVAQ_OK;
}

novaq_status nq_refine_write(json_t **summary, const nq_refine_save *s, novaq_error *err) {
    const nq_artifact *a = nq_weights_artifact(s->weights);
    json_t *config = NULL;
    json_t *model = NULL;
    nq_writer *w = NULL;
    const char *locator = NULL;
    novaq_status st = make_config(&config, &locator, s, a, err);
    if (st == NOVAQ_OK) {
        st = nq_artifact_model(&model, a, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_writer_open(&w, s->output, s->single_file, err);
    }
    if (st == NOVAQ_OK) {
        st = write_layers(w, s, a, err);
    }
    char *from = NULL;
    if (st == NOVAQ_OK) {
        st = nq_artifact_origin(&from, a, err);
    }
    if (st == NOVAQ_OK) {
        json_t *origin = from != NULL ? json_pack("{s:s}", "locator", from) : NULL;
        nq_writer_set_source(w, json_object_get(nq_artifact_manifest(a), "source"), origin);
        json_decref(origin);
        st = nq_writer_finish(&w, locator, config, model, summary, err);
    }
    nq_free(from);
    nq_writer_abort(&w);
    json_decref(config);
    json_decref(model);
    return st;
}

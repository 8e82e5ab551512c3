/* onnx.c - see onnx.h: recognising a model, and from a file to its tensors. */
#include "format/onnx.h"

#include <string.h>

#include "base/mem.h"
#include "format/onnx_impl.h"

#define TEXT_BLOCK     ((size_t)1 << 16)
#define IR_VERSION_MAX 1000 /* it counts releases of the format: 13 so far */
#define FIELDS_BEFORE  1000 /* of a model, before its graph */

/* ---- text ------------------------------------------------------------------- */

novaq_status nq_onnx_keep(const char **out, nq_onnx_text *text, const char *s, novaq_error *err) {
    size_t n = strlen(s) + 1;
    *out = NULL;
    if (text->count == 0 || n > TEXT_BLOCK - text->used) {
        char *block = NULL;
        NQ_TRY(nq_grow(&text->blocks, text->count, (uint64_t)text->count + 1, sizeof *text->blocks,
                       err));
        NQ_TRY(nq_alloc_raw(&block, n > TEXT_BLOCK ? n : TEXT_BLOCK, 1, err));
        text->blocks[text->count++] = block;
        text->used = 0;
    }
    char *p = text->blocks[text->count - 1] + text->used;
    memcpy(p, s, n);
    text->used = n > TEXT_BLOCK ? TEXT_BLOCK : text->used + n;
    *out = p;
    return NOVAQ_OK;
}

/* ---- recognising ------------------------------------------------------------ */

/* Walks the top level up to the graph, which it does not enter. */
static novaq_status has_graph(bool *yes, nq_pb *pb, novaq_error *err) {
    nq_pb_range r = nq_pb_whole(pb);
    nq_pb_field f;
    bool more = true;
    for (unsigned i = 0; i < FIELDS_BEFORE; i++) {
        NQ_TRY(nq_pb_next(pb, &r, &f, &more, err));
        bool version = more && f.number == 1 && f.wire == NQ_PB_VARINT;
        if (!more || (i == 0 && (!version || f.value == 0 || f.value > IR_VERSION_MAX))) {
            return NOVAQ_OK;
        }
        if (f.number == 7) {
            *yes = f.wire == NQ_PB_BYTES && f.data.end > f.data.pos;
            return NOVAQ_OK;
        }
    }
    return NOVAQ_OK;
}

novaq_status nq_onnx_is_model(bool *yes, nq_source *src, novaq_error *err) {
    nq_pb pb;
    *yes = false;
    NQ_TRY(nq_pb_open(&pb, src, err));
    novaq_status st = has_graph(yes, &pb, err);
    nq_pb_close(&pb);
    return st == NOVAQ_E_FORMAT ? NOVAQ_OK : st; /* not protobuf: not a model either */
}

/* ---- parsing ---------------------------------------------------------------- */

static novaq_status parse(nq_onnx_walk *w, novaq_error *err) {
    NQ_TRY(nq_onnx_walk_model(w, err));
    NQ_TRY(nq_onnx_index(w, err));
    w->second = true;
    NQ_TRY(nq_onnx_walk_model(w, err));
    return nq_onnx_present(w, err);
}

novaq_status nq_onnx_parse(nq_onnx *out, nq_source *src, nq_onnx_open_fn open, void *ctx,
                           novaq_error *err) {
    *out = (nq_onnx){.count = 0};
    nq_onnx_walk *w = NULL;
    NQ_TRY(nq_alloc(&w, 1, sizeof *w, err));
    w->out = out;
    w->open = open;
    w->open_ctx = ctx;
    novaq_status st = nq_pb_open(&w->pb, src, err);
    if (st == NOVAQ_OK) {
        st = parse(w, err);
    }
    nq_pb_close(&w->pb);
    nq_free(w->items);
    nq_free(w->aliases);
    nq_free(w->scopes);
    nq_free(w->files);
    nq_free(w->by_name);
    nq_free(w->by_alias);
    nq_free(w);
    if (st != NOVAQ_OK) {
        nq_onnx_free(out);
    }
    return st;
}

void nq_onnx_free(nq_onnx *o) {
    for (size_t i = 0; i < o->text.count; i++) {
        nq_free(o->text.blocks[i]);
    }
    nq_free(o->text.blocks);
    nq_free(o->tensors);
    nq_free(o->views);
    nq_free(o->pieces);
    *o = (nq_onnx){.count = 0};
}

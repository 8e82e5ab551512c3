/* size.c - see size.h. */
#include "compress/size.h"

#include <string.h>
#include <zlib.h>

#include "artifact/manifest.h"
#include "base/mem.h"
#include "compress/recipe.h"

/* A figure that prints in 14 characters, as most do at most; 16 is the limit. */
#define WIDE 1.23456789e-10
/* As long as the name of the source is. */
#define WIDE_LOCATOR                                                                               \
    NQ_SOURCE_PREFIX "0000000000000000000000000000000000000000000000000000000000000000"
/* What a coded layer's entry may hold besides what is laid out below: longer
 * figures than the stand-ins, a second field's; what calibration has to tell
 * (output error and the like). */
#define LAYER_ROOM      64
#define CALIBRATED_ROOM 128
/* The same for the summary, and for the record of a refinement. */
#define ARTIFACT_ROOM   128
#define REFINEMENT_ROOM 1024

struct nq_sizer {
    json_t *model; /* without the tokenizer's content */
    bool has_tokenizer;
    uint64_t tokenizer_bytes; /* deflated */
    uint64_t tokenizer_inflated;
};

/* As artifact/write.c does it, so that the size is the very one. */
static novaq_status measure_tokenizer(nq_sizer *s, const json_t *tokenizer, novaq_error *err) {
    char *text = NULL;
    uint8_t *packed = NULL;
    NQ_TRY(nq_json_dump(&text, tokenizer, 0, err));
    size_t len = strlen(text);
    uLongf size = compressBound((uLong)len);
    novaq_status st = nq_alloc_raw(&packed, size, 1, err);
    if (st == NOVAQ_OK && compress2(packed, &size, (const Bytef *)text, (uLong)len, 9) != Z_OK) {
        st = nq_fail(err, NOVAQ_E_MEMORY, "cannot deflate the tokenizer");
    }
    s->has_tokenizer = true;
    s->tokenizer_bytes = size;
    s->tokenizer_inflated = len;
    nq_free(packed);
    nq_free(text);
    return st;
}

novaq_status nq_sizer_open(nq_sizer **out, const nq_tensors *ts, novaq_error *err) {
    *out = NULL;
    nq_sizer *s = NULL;
    NQ_TRY(nq_alloc(&s, 1, sizeof *s, err));
    novaq_status st = nq_describe(&s->model, ts, err);
    const json_t *tokenizer = st == NOVAQ_OK ? json_object_get(s->model, "tokenizer") : NULL;
    if (json_is_object(tokenizer)) {
        st = measure_tokenizer(s, tokenizer, err);
    }
    if (st != NOVAQ_OK) {
        nq_sizer_close(&s);
        return st;
    }
    *out = s;
    return NOVAQ_OK;
}

void nq_sizer_close(nq_sizer **s) {
    if (*s != NULL) {
        json_decref((*s)->model);
        nq_free(*s);
        *s = NULL;
    }
}

/* ---- a manifest with stand-ins ----------------------------------------------- */

static void set_figures(json_t *o, const char *const *keys, size_t count) {
    for (size_t i = 0; i < count; i++) {
        (void)json_object_set_new(o, keys[i], json_real(WIDE));
    }
}

/* The telemetry of a coded layer, every figure wide. */
static json_t *wide_diagnostics(bool calibrated) {
    static const char *const statistics[] = {"mean", "variance", "kurtosis", "anisotropy",
                                             "sparsity"};
    static const char *const subspaces[] = {"count",       "dim",   "mse_min",    "mse_mean",
                                            "mse_max",     "worst", "cosine_min", "symbol_entropy",
                                            "symbols_used"};
    json_t *d = json_object();
    json_t *a = json_object();
    json_t *b = json_object();
    set_figures(a, statistics, sizeof statistics / sizeof statistics[0]);
    set_figures(b, subspaces, sizeof subspaces / sizeof subspaces[0]);
    char blanks[CALIBRATED_ROOM];
    memset(blanks, ' ', sizeof blanks);
    (void)json_object_set_new(d, "statistics", a);
    (void)json_object_set_new(d, "subspaces", b);
    (void)json_object_set_new(d, "room",
                              json_stringn(blanks, calibrated ? CALIBRATED_ROOM : LAYER_ROOM));
    return d;
}

typedef struct draft {
    nq_contents c;
    bool open;   /* the last chunk may take more */
    uint64_t at; /* bytes in it */
    size_t chunk_cap;
} draft;

static void end_chunk(draft *d) {
    nq_chunk *k = &d->c.chunks[d->c.chunk_count];
    k->bytes = nq_align_piece(d->at);
    k->offset = d->c.chunk_count == 0 ? 0 : k[-1].offset + k[-1].bytes;
    memset(k->sha256, '0', NQ_SHA256_HEX);
    memset(k->blake3, '0', NQ_BLAKE3_HEX);
    d->c.chunk_count++;
    d->open = false;
}

/* The writer's rule: a chunk that reached its size is closed before a layer. */
static novaq_status ready_chunk(draft *d, uint64_t bytes, novaq_error *err) {
    if (d->open && d->at >= NQ_CHUNK_TARGET && bytes > 0) {
        end_chunk(d);
    }
    if (d->open) {
        return NOVAQ_OK;
    }
    if (d->c.chunk_count == d->chunk_cap) {
        size_t cap = d->chunk_cap == 0 ? 16 : d->chunk_cap * 2;
        NQ_TRY(nq_grow(&d->c.chunks, d->chunk_cap, cap, sizeof *d->c.chunks, err));
        d->chunk_cap = cap;
    }
    d->open = true;
    d->at = 0;
    return NOVAQ_OK;
}

static void put_piece(draft *d, nq_piece *p) {
    p->chunk = (uint32_t)d->c.chunk_count;
    p->offset = nq_align_piece(d->at);
    d->at = p->offset + p->bytes;
}

static unsigned optional_pieces(const nq_recipe *r) {
    bool mean = r->encode.normalize == NQ_NORMALIZE_PAPER || r->opt->row_means != 0;
    return (mean ? 1U << NQ_PIECE_ROW_MEAN : 0) |
           (nq_recipe_calibrated(r) ? 1U << NQ_PIECE_COL_EXPONENT : 0);
}

/* As refinement cuts them (refine/matrix.h). */
static void cut_groups(nq_qmat *q, const nq_recipe_tensor *t) {
    uint64_t lane = (nq_scheme_field_bits(&q->scheme, 0) == 4 ? 32 : 64) * q->scheme.d;
    uint64_t cols = (NQ_REFINED_COLS + lane - 1) / lane * lane;
    if (t->src->rank == 2 && q->scheme.kind == NQ_SCHEME_CODE && cols < q->cols) {
        q->groups = (uint32_t)((q->cols + cols - 1) / cols);
        q->group_cols = cols;
    }
}

static void set_layer(nq_layer *l, const nq_recipe *r, const nq_recipe_tensor *t,
                      const json_t *diagnostics) {
    *l = (nq_layer){.name = t->src->name,
                    .rank = t->src->rank,
                    .elements = t->src->elements,
                    .role = t->role,
                    .source_dtype = t->src->dtype,
                    .scheme = t->scheme,
                    .error = {1.23456789e-20, 2.34567891e-10, 3.45678912e-10, 1.23456789e-10}};
    memcpy(l->shape, t->src->shape, sizeof l->shape);
    if (t->coded) {
        l->diagnostics = diagnostics;
        l->q = (nq_qmat){.scheme = t->scheme,
                         .rows = t->rows,
                         .cols = t->cols,
                         .segment_rows = r->opt->segment_rows,
                         .groups = 1,
                         .group_cols = t->cols,
                         .exponent = -24,
                         .rotation = {.seed = UINT64_MAX}};
        if (r->opt->refine != 0) {
            cut_groups(&l->q, t);
        }
    }
}

static novaq_status lay_out(draft *d, const nq_sizer *s, const nq_recipe *r,
                            const json_t *diagnostics, novaq_error *err) {
    for (size_t i = 0; i < r->count; i++) {
        nq_stored_layer *l = &d->c.layers[i];
        set_layer(&l->layer, r, &r->tensors[i], diagnostics);
        NQ_TRY(nq_layer_pieces(l, optional_pieces(r), err));
        NQ_TRY(ready_chunk(d, l->layer.stored_bytes, err));
        for (unsigned k = 0; k < l->pieces; k++) {
            put_piece(d, &l->piece[k]);
        }
    }
    if (s->has_tokenizer) {
        NQ_TRY(ready_chunk(d, s->tokenizer_bytes, err));
        d->c.tokenizer = (nq_piece){.kind = NQ_PIECE_TOKENIZER,
                                    .dtype = "U8",
                                    .rank = 1,
                                    .shape = {s->tokenizer_bytes},
                                    .bytes = s->tokenizer_bytes};
        put_piece(d, &d->c.tokenizer);
    }
    end_chunk(d);
    return NOVAQ_OK;
}

novaq_status nq_artifact_size(uint64_t *bytes, const nq_sizer *s, const nq_recipe *r,
                              novaq_error *err) {
    draft d = {.c = {.single_file = r->opt->single_file != 0,
                     .layer_count = r->count,
                     .has_tokenizer = s->has_tokenizer,
                     .tokenizer_inflated = s->tokenizer_inflated}};
    json_t *config = NULL;
    json_t *diagnostics = wide_diagnostics(nq_recipe_calibrated(r));
    json_t *source =
        json_pack("{s:s, s:I, s:I, s:s}", "format", "safetensors", "tensors", (json_int_t)INT64_MAX,
                  "bytes", (json_int_t)INT64_MAX, "blake3", WIDE_LOCATOR);
    nq_manifest_text m = {0};
    *bytes = 0;
    novaq_status st = nq_alloc(&d.c.layers, r->count + 1, sizeof *d.c.layers, err);
    if (st == NOVAQ_OK) {
        st = nq_recipe_config(&config, r, err);
    }
    if (st == NOVAQ_OK) {
        st = r->count > 0 ? lay_out(&d, s, r, diagnostics, err)
                          : nq_fail(err, NOVAQ_E_FORMAT, "a model without tensors");
    }
    if (st == NOVAQ_OK) {
        nq_manifest_head head = {WIDE_LOCATOR, source, config, s->model};
        st = nq_manifest_write(&m, &d.c, &head, err);
    }
    if (st == NOVAQ_OK) {
        const nq_chunk *last = &d.c.chunks[d.c.chunk_count - 1];
        *bytes =
            last->offset + last->bytes + (d.c.single_file ? m.head_len : m.len) + ARTIFACT_ROOM;
        *bytes += r->opt->refine != 0 ? REFINEMENT_ROOM : 0;
    }
    nq_manifest_text_free(&m);
    json_decref(config);
    json_decref(source);
    json_decref(diagnostics);
    nq_free(d.c.layers);
    nq_free(d.c.chunks);
    return st;
}

/* manifest_write.c - the writing half of manifest.h.
 *
 * Size figures count the manifest too, and the manifest contains them. So its
 * text is filled up with spaces to a multiple of 1024 bytes: the figures are
 * computed for that size and written into it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "artifact/manifest.h"

#define MANIFEST_STEP 1024U
#define ZEROS         "0000000000000000000000000000000000000000000000000000000000000000"

void nq_manifest_text_free(nq_manifest_text *m) {
    nq_free(m->text);
    nq_free(m->head);
    json_decref(m->summary);
    *m = (nq_manifest_text){0};
}

/* ---- JSON building: one sticky flag instead of a check per member ---------- */

typedef struct object {
    json_t *json;
    bool failed;
} object;

static object object_new(void) {
    json_t *o = json_object();
    return (object){.json = o, .failed = o == NULL};
}

static void put(object *o, const char *key, json_t *value) {
    if (o->failed) {
        json_decref(value);
    } else if (json_object_set_new(o->json, key, value) != 0) {
        o->failed = true;
    }
}

static void put_u64(object *o, const char *key, uint64_t v) {
    put(o, key, json_integer((json_int_t)v));
}

static void put_object(object *o, const char *key, object child) {
    o->failed = o->failed || child.failed;
    put(o, key, child.json);
}

/* Takes over o. */
static novaq_status append_object(nq_buf *b, object o, novaq_error *err) {
    char *text = NULL;
    novaq_status st = o.failed ? nq_fail(err, NOVAQ_E_MEMORY, "cannot build the manifest")
                               : nq_json_dump(&text, o.json, 0, err);
    if (st == NOVAQ_OK) {
        st = nq_buf_puts(b, text, err);
    }
    nq_free(text);
    json_decref(o.json);
    return st;
}

static double ratio(double a, double b) { return b > 0 ? a / b : 0; }

static double cosine(const nq_layer_error *e) {
    if (e->sq_source <= 0 || e->sq_decoded <= 0) {
        return e->sq_error <= 0 ? 1.0 : 0.0;
    }
    return e->dot / (sqrt(e->sq_source) * sqrt(e->sq_decoded));
}

static json_t *real_if(bool known, double v) { return known ? json_real(v) : json_null(); }

/* ---- layers and chunks ----------------------------------------------------- */

static json_t *shape_json(const nq_layer *l) {
    json_t *shape = json_array();
    for (uint32_t i = 0; i < l->rank; i++) {
        if (json_array_append_new(shape, json_integer((json_int_t)l->shape[i])) != 0) {
            json_decref(shape);
            return NULL;
        }
    }
    return shape;
}

static object piece_json(const nq_piece *p) {
    object o = object_new();
    put_u64(&o, "chunk", p->chunk);
    put_u64(&o, "offset", p->offset);
    put_u64(&o, "bytes", p->bytes);
    return o;
}

static void put_matrix(object *o, const nq_stored_layer *s) {
    const nq_qmat *q = &s->layer.q;
    bool mean = false;
    for (unsigned i = 0; i < s->pieces; i++) {
        mean = mean || s->piece[i].kind == NQ_PIECE_ROW_MEAN;
    }
    if (q->scheme.kind == NQ_SCHEME_CODE) {
        put_u64(o, "segment_rows", q->segment_rows);
        put_u64(o, "groups", q->groups);
        put_u64(o, "group_cols", q->groups == 1 ? q->cols : q->group_cols);
    }
    put(o, "exponent", json_integer(q->exponent));
    put(o, "normalization", json_string(mean ? "scale+mean" : "scale"));
    object r = object_new();
    put_u64(&r, "block", q->rotation.block);
    put(&r, "seed", json_sprintf("%llu", (unsigned long long)q->rotation.seed));
    put_object(o, "rotation", r);
}

static void put_error(object *o, const nq_layer *l) {
    const nq_layer_error *e = &l->error;
    bool known = !l->error_unknown;
    put(o, "mse", real_if(known, ratio(e->sq_error, (double)l->elements)));
    put(o, "cosine_similarity", real_if(known, cosine(e)));
    put(o, "relative_error", real_if(known, ratio(e->sq_error, e->sq_source)));
    put(o, "error_sums", json_pack("[ffff]", e->sq_error, e->sq_source, e->sq_decoded, e->dot));
}

static object layer_json(const nq_stored_layer *s) {
    const nq_layer *l = &s->layer;
    char name[NQ_SCHEME_NAME];
    bool coded = l->scheme.kind == NQ_SCHEME_CODE || l->scheme.kind == NQ_SCHEME_Q8;
    object o = object_new();
    put(&o, "shape", shape_json(l));
    if (coded) {
        put_u64(&o, "rows", l->q.rows);
        put_u64(&o, "cols", l->q.cols);
    }
    put(&o, "source_dtype", json_string(nq_dtype_get(l->source_dtype)->name));
    put(&o, "role", json_string(nq_role_name(l->role)));
    put(&o, "scheme", json_string(nq_scheme_name(name, &l->scheme)));
    put(&o, "bits_per_weight",
        json_real(ratio(8.0 * (double)l->stored_bytes, (double)l->elements)));
    if (coded) {
        put_matrix(&o, s);
    }
    object pieces = object_new();
    for (unsigned i = 0; i < s->pieces; i++) {
        put_object(&pieces, nq_piece_name(s->piece[i].kind), piece_json(&s->piece[i]));
    }
    put_object(&o, "pieces", pieces);
    put_error(&o, l);
    if (l->diagnostics != NULL) {
        put(&o, "diagnostics", json_deep_copy(l->diagnostics));
    }
    return o;
}

novaq_status nq_manifest_layer(json_t **out, const nq_stored_layer *s, novaq_error *err) {
    object o = layer_json(s);
    *out = o.json;
    if (o.failed) {
        json_decref(o.json);
        *out = NULL;
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot describe layer '%s'", s->layer.name);
    }
    return NOVAQ_OK;
}

static novaq_status append_string(nq_buf *b, const char *s, novaq_error *err) {
    json_t *v = json_string(s);
    if (v == NULL) {
        return nq_fail(err, NOVAQ_E_ARG, "\"%s\" is not valid UTF-8; a manifest cannot hold it", s);
    }
    char *text = NULL;
    novaq_status st = nq_json_dump(&text, v, 0, err);
    if (st == NOVAQ_OK) {
        st = nq_buf_puts(b, text, err);
    }
    nq_free(text);
    json_decref(v);
    return st;
}

static novaq_status append_chunks(nq_buf *b, const nq_contents *c, novaq_error *err) {
    NQ_TRY(nq_buf_puts(b, "\"chunks\":[", err));
    for (size_t i = 0; i < c->chunk_count; i++) {
        const nq_chunk *k = &c->chunks[i];
        char name[NQ_CHUNK_NAME];
        object o = object_new();
        put_u64(&o, "index", i);
        if (c->single_file) {
            put_u64(&o, "offset", k->offset);
        } else {
            put(&o, "file", json_string(nq_chunk_name(name, i, k->sha256)));
        }
        put_u64(&o, "bytes", k->bytes);
        put(&o, "sha256", json_string(k->sha256));
        put(&o, "blake3", json_string(k->blake3));
        NQ_TRY(nq_buf_puts(b, i == 0 ? "\n" : ",\n", err));
        NQ_TRY(append_object(b, o, err));
    }
    return nq_buf_puts(b, "],\n", err);
}

static novaq_status append_layers(nq_buf *b, const nq_contents *c, novaq_error *err) {
    NQ_TRY(nq_buf_puts(b, "\"layers\":{", err));
    for (size_t i = 0; i < c->layer_count; i++) {
        NQ_TRY(nq_buf_puts(b, i == 0 ? "\n" : ",\n", err));
        NQ_TRY(append_string(b, c->layers[i].layer.name, err));
        NQ_TRY(nq_buf_puts(b, ":", err));
        NQ_TRY(append_object(b, layer_json(&c->layers[i]), err));
    }
    return nq_buf_puts(b, "}}", err);
}

/* ---- head and tail: what does not depend on the manifest's size ------------ */

/* SOURCE_DATE_EPOCH or the epoch itself: the same input gives the same bytes. */
static novaq_status created_at(char out[32], novaq_error *err) {
    const char *env = getenv("SOURCE_DATE_EPOCH");
    long long seconds = 0;
    if (env != NULL && env[0] != '\0') {
        char *end = NULL;
        seconds = strtoll(env, &end, 10);
        if (*end != '\0' || seconds < 0 || seconds > 253402300799) { /* year 9999 */
            return nq_fail(err, NOVAQ_E_ARG, "SOURCE_DATE_EPOCH is not a number of seconds: %s",
                           env);
        }
    }
    time_t t = (time_t)seconds;
    struct tm tm;
    if (gmtime_r(&t, &tm) == NULL || strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) {
        return nq_fail(err, NOVAQ_E_ARG, "SOURCE_DATE_EPOCH is out of range: %s", env);
    }
    return NOVAQ_OK;
}

static novaq_status append_head(nq_buf *b, const nq_contents *c, const nq_manifest_head *head,
                                novaq_error *err) {
    char when[32];
    NQ_TRY(created_at(when, err));
    NQ_TRY(nq_buf_printf(b, err,
                         "{\"schema_version\":\"" NQ_SCHEMA_VERSION "\",\n"
                         "\"manifest_sha256\":\"" ZEROS "\",\n\"form\":\"%s\",\n"
                         "\"created_at\":\"%s\",\n\"generator\":\"novaq/" NOVAQ_VERSION "\",\n"
                         "\"source_locator\":",
                         c->single_file ? "single" : "directory", when));
    NQ_TRY(append_string(b, head->source_locator != NULL ? head->source_locator : "", err));
    if (head->source != NULL) {
        object source = {.json = json_deep_copy(head->source)};
        source.failed = source.json == NULL;
        NQ_TRY(nq_buf_puts(b, ",\n\"source\":", err));
        NQ_TRY(append_object(b, source, err));
    }
    NQ_TRY(nq_buf_puts(b, ",\n\"quantization\":{\"config\":", err));
    object o = {.json = head->config != NULL ? json_deep_copy(head->config) : json_object()};
    o.failed = o.json == NULL;
    NQ_TRY(append_object(b, o, err));
    return nq_buf_puts(b, ",\n\"summary\":", err);
}

static novaq_status append_model(nq_buf *b, const nq_contents *c, const json_t *model,
                                 novaq_error *err) {
    object o = {.json = model != NULL ? json_copy((json_t *)(uintptr_t)model) : json_object()};
    o.failed = o.json == NULL;
    if (c->has_tokenizer) {
        object t = piece_json(&c->tokenizer);
        put_u64(&t, "inflated_bytes", c->tokenizer_inflated);
        put(&t, "encoding", json_string("zlib"));
        put_object(&o, "tokenizer", t);
    }
    NQ_TRY(nq_buf_puts(b, "},\n\"model\":", err));
    NQ_TRY(append_object(b, o, err));
    return nq_buf_puts(b, ",\n", err);
}

static novaq_status append_tail(nq_buf *b, const nq_contents *c, const json_t *model,
                                novaq_error *err) {
    NQ_TRY(append_model(b, c, model, err));
    NQ_TRY(append_chunks(b, c, err));
    return append_layers(b, c, err);
}

/* ---- summary --------------------------------------------------------------- */

typedef struct totals {
    uint64_t parameters;
    uint64_t quantized;     /* parameters in code and q8 layers */
    uint64_t linear;        /* parameters of role linear */
    uint64_t linear_stored; /* bytes of their pieces */
    nq_layer_error error;
    nq_layer_error lossy; /* of code and q8 layers alone */
    bool unknown;         /* the error of some layer */
} totals;

static void add_error(nq_layer_error *sum, const nq_layer_error *e) {
    sum->sq_error += e->sq_error;
    sum->sq_source += e->sq_source;
    sum->sq_decoded += e->sq_decoded;
    sum->dot += e->dot;
}

static totals sum_up(const nq_contents *c) {
    totals t = {0};
    for (size_t i = 0; i < c->layer_count; i++) {
        const nq_layer *l = &c->layers[i].layer;
        t.parameters += l->elements;
        t.unknown = t.unknown || l->error_unknown;
        if (l->scheme.kind == NQ_SCHEME_CODE || l->scheme.kind == NQ_SCHEME_Q8) {
            t.quantized += l->elements;
            add_error(&t.lossy, &l->error);
        }
        if (l->role == NQ_ROLE_LINEAR) {
            t.linear += l->elements;
            t.linear_stored += l->stored_bytes;
        }
        add_error(&t.error, &l->error);
    }
    return t;
}

static object summary_json(const nq_contents *c, const totals *t, uint64_t total_bytes) {
    double bits = ratio(8.0 * (double)total_bytes, (double)t->parameters);
    object o = object_new();
    put_u64(&o, "total_layers", c->layer_count);
    put_u64(&o, "total_parameters", t->parameters);
    put_u64(&o, "quantized_parameters", t->quantized);
    put_u64(&o, "total_bytes", total_bytes);
    put(&o, "bits_per_weight", json_real(bits));
    put(&o, "bits_per_weight_linear",
        t->linear > 0 ? json_real(8.0 * (double)t->linear_stored / (double)t->linear)
                      : json_null());
    put(&o, "global_mse", real_if(!t->unknown, ratio(t->error.sq_error, (double)t->parameters)));
    put(&o, "global_cosine_similarity", real_if(!t->unknown, cosine(&t->error)));
    put(&o, "relative_error", real_if(!t->unknown, ratio(t->lossy.sq_error, t->lossy.sq_source)));
    put(&o, "compression_ratio", json_real(ratio(32.0, bits)));
    put(&o, "ratio_fp32", json_real(ratio(32.0, bits)));
    put(&o, "ratio_fp16", json_real(ratio(16.0, bits)));
    return o;
}

/* ---- the whole ------------------------------------------------------------- */

typedef struct draft {
    const nq_contents *c;
    totals sums;
    uint64_t data_bytes;  /* all chunks */
    nq_buf head;          /* text before the summary */
    nq_buf tail;          /* text after it */
    uint64_t text_bytes;  /* the manifest's size aimed at */
    uint64_t total_bytes; /* the figure written */
} draft;

/* The text for the draft's figures; text_bytes grows where it does not fit. */
static novaq_status compose(nq_manifest_text *out, draft *d, novaq_error *err) {
    nq_manifest_text_free(out);
    nq_buf b = nq_buf_init(NQ_MANIFEST_MAX);
    object o = summary_json(d->c, &d->sums, d->total_bytes);
    out->summary = json_incref(o.json);
    novaq_status st = nq_buf_append(&b, d->head.data, d->head.len, err);
    if (st == NOVAQ_OK) {
        st = append_object(&b, o, err);
    } else {
        json_decref(o.json);
    }
    if (st == NOVAQ_OK) {
        st = nq_buf_append(&b, d->tail.data, d->tail.len, err);
    }
    if (st == NOVAQ_OK) {
        while (d->text_bytes < b.len + 1) {
            d->text_bytes += MANIFEST_STEP;
        }
        size_t end = b.len;
        st = nq_buf_zeros(&b, (size_t)d->text_bytes - end, err);
        if (st == NOVAQ_OK) {
            memset(b.data + end, ' ', b.len - end);
            b.data[b.len - 1] = '\n';
            st = nq_buf_take(&b, &out->text, &out->len, err);
        }
    }
    nq_buf_free(&b);
    return st;
}

/* Puts the manifest's hash into its place. */
static novaq_status seal(nq_manifest_text *m, novaq_error *err) {
    char hex[NQ_SHA256_HEX + 1];
    size_t at = 0;
    NQ_TRY(nq_manifest_digest(hex, &at, "manifest", m->text, m->len, err));
    memcpy(m->text + at, hex, NQ_SHA256_HEX);
    return NOVAQ_OK;
}

/* Repeats until the figure written is the size that results. Ends: sizes only
 * grow, and only when a digit more crosses a multiple of 1024. */
static novaq_status settle(nq_manifest_text *out, draft *d, novaq_error *err) {
    for (;;) {
        NQ_TRY(compose(out, d, err));
        NQ_TRY(seal(out, err));
        uint64_t overhead = out->len;
        if (d->c->single_file) {
            NQ_TRY(nq_single_head(&out->head, &out->head_len, d->c, out->text, out->len, err));
            overhead = out->head_len;
        }
        if (d->total_bytes == d->data_bytes + overhead) {
            return NOVAQ_OK;
        }
        d->total_bytes = d->data_bytes + overhead;
    }
}

novaq_status nq_manifest_write(nq_manifest_text *out, const nq_contents *c,
                               const nq_manifest_head *head, novaq_error *err) {
    *out = (nq_manifest_text){0};
    const nq_chunk *last = &c->chunks[c->chunk_count - 1];
    draft d = {.c = c,
               .sums = sum_up(c),
               .data_bytes = last->offset + last->bytes,
               .head = nq_buf_init(NQ_MANIFEST_MAX),
               .tail = nq_buf_init(NQ_MANIFEST_MAX),
               .text_bytes = MANIFEST_STEP};
    novaq_status st = append_head(&d.head, c, head, err);
    if (st == NOVAQ_OK) {
        st = append_tail(&d.tail, c, head->model, err);
    }
    if (st == NOVAQ_OK) {
        st = settle(out, &d, err);
    }
    nq_buf_free(&d.head);
    nq_buf_free(&d.tail);
    if (st != NOVAQ_OK) {
        nq_manifest_text_free(out);
    }
    return st;
}

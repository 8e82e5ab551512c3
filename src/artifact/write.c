/* write.c - see write.h: layers into chunks, and the end.
 *
 * Chunks are written and hashed as layers arrive. In the directory form each
 * becomes its own file; in the single-file form they follow each other in a
 * hidden data file beside the target, which is copied behind the header once
 * that is known. */
#include <math.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "artifact/write_impl.h"

#define LAYERS_FIRST 64
#define COPY_BYTES   ((uint64_t)1 << 20)

/* ---- chunks ----------------------------------------------------------------------- */

novaq_status nq_write_chunk_begin(nq_writer *w, novaq_error *err) {
    if (w->c.chunk_count == NQ_CHUNK_MAX) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s: more than %u chunks", w->path, NQ_CHUNK_MAX);
    }
    if (w->c.chunk_count == w->chunk_cap) {
        size_t cap = w->chunk_cap == 0 ? 16 : w->chunk_cap * 2;
        NQ_TRY(nq_grow(&w->c.chunks, w->chunk_cap, cap, sizeof *w->c.chunks, err));
        NQ_TRY(nq_grow(&w->made, w->chunk_cap, cap, sizeof *w->made, err));
        w->chunk_cap = cap;
    }
    if (!w->c.single_file && !w->replaying) {
        char *path = NULL;
        NQ_TRY(nq_write_chunk_path(&path, w, w->c.chunk_count, err));
        novaq_status st = nq_outfile_open(&w->out, path, err);
        nq_free(path);
        NQ_TRY(st);
    }
    w->open_chunk = true;
    w->at = 0;
    nq_blake3_init(&w->blake);
    return NOVAQ_OK;
}

void nq_write_hash(nq_writer *w, const void *data, uint64_t len) {
    nq_sha256_update(w->sha, data, (size_t)len);
    nq_blake3_update(&w->blake, data, (size_t)len);
    w->at += len;
}

static novaq_status put(nq_writer *w, const void *data, uint64_t len, novaq_error *err) {
    NQ_TRY(nq_outfile_write(w->out, data, len, err));
    nq_write_hash(w, data, len);
    if (w->resumable) {
        nq_blake3_update(&w->span, data, (size_t)len);
    }
    return NOVAQ_OK;
}

static novaq_status pad(nq_writer *w, novaq_error *err) {
    static const uint8_t zeros[NQ_PIECE_ALIGN];
    return put(w, zeros, nq_align_piece(w->at) - w->at, err);
}

/* Gives the finished chunk file its name; remembers it if the name is new. The
 * journal is told before, so that a chunk under its own name is always one it
 * knows of. */
static novaq_status chunk_commit(nq_writer *w, const nq_chunk *k, novaq_error *err) {
    char name[NQ_CHUNK_NAME];
    char *path = NULL;
    NQ_TRY(nq_path_join(&path, w->path, nq_chunk_name(name, w->c.chunk_count, k->sha256), err));
    bool existed = nq_is_file(path);
    novaq_status st = w->resumable ? nq_write_record_chunk(w, k, !existed, err) : NOVAQ_OK;
    if (st == NOVAQ_OK) {
        st = nq_outfile_commit(&w->out, path, err);
    }
    if (!existed) {
        w->made[w->c.chunk_count] = path;
        return st;
    }
    nq_free(path);
    return st;
}

/* In the single-file form a finished chunk is on the disk for good, too. */
static novaq_status chunk_flush(nq_writer *w, const nq_chunk *k, novaq_error *err) {
    if (!w->c.single_file) {
        NQ_TRY(chunk_commit(w, k, err));
    } else if (w->resumable) {
        NQ_TRY(nq_outfile_sync(w->out, err));
    }
    return w->resumable ? nq_outfile_sync(w->journal.file, err) : NOVAQ_OK;
}

novaq_status nq_write_chunk_end(nq_writer *w, novaq_error *err) {
    NQ_TRY(pad(w, err));
    nq_chunk *k = &w->c.chunks[w->c.chunk_count];
    const nq_chunk *before = w->c.chunk_count == 0 ? NULL : k - 1;
    k->bytes = w->at;
    k->offset = before == NULL ? 0 : before->offset + before->bytes;
    NQ_TRY(nq_sha256_finish(k->sha256, w->sha, err));
    nq_blake3_finish(k->blake3, &w->blake);
    novaq_status st = chunk_flush(w, k, err);
    w->c.chunk_count++;
    w->open_chunk = false;
    return st;
}

/* Before a layer of `bytes`: a chunk is open and has not reached its size. An
 * empty layer never turns the chunk, which would then have to be empty. */
static novaq_status chunk_ready(nq_writer *w, uint64_t bytes, novaq_error *err) {
    if (nq_write_turns(w, bytes)) {
        NQ_TRY(nq_write_chunk_end(w, err));
    }
    return w->open_chunk ? NOVAQ_OK : nq_write_chunk_begin(w, err);
}

static novaq_status put_piece(nq_writer *w, nq_piece *p, const void *data, novaq_error *err) {
    NQ_TRY(pad(w, err));
    p->chunk = (uint32_t)w->c.chunk_count;
    p->offset = w->at;
    return put(w, data, p->bytes, err);
}

/* ---- layers ----------------------------------------------------------------------- */

static const void *piece_data(const nq_layer *l, nq_piece_kind kind) {
    switch (kind) {
    case NQ_PIECE_SYMBOLS: return l->q.symbols;
    case NQ_PIECE_CODEBOOKS: return l->q.codebooks;
    case NQ_PIECE_CODEBOOK_SCALE: return l->q.codebook_scale;
    case NQ_PIECE_ROW_SCALE: return l->q.row_scale;
    case NQ_PIECE_ROW_MEAN: return l->q.row_mean;
    case NQ_PIECE_COL_EXPONENT: return l->q.col_exponent;
    default: return l->data;
    }
}

static novaq_status check_new(const nq_writer *w, const nq_layer *l, novaq_error *err) {
    const nq_layer_error *e = &l->error;
    json_t *text = l->name != NULL ? json_string(l->name) : NULL;
    bool utf8 = text != NULL;
    json_decref(text);
    if (!utf8 || l->name[0] == '\0' || strlen(l->name) > 4096) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: a layer needs a name of 1 to 4096 bytes of UTF-8",
                       w->path);
    }
    if (!isfinite(e->sq_error) || !isfinite(e->sq_source) || !isfinite(e->sq_decoded) ||
        !isfinite(e->dot)) {
        return nq_fail(err, NOVAQ_E_NUMERIC, "layer '%s': its error is not a finite number",
                       l->name);
    }
    for (size_t i = 0; i < w->c.layer_count; i++) {
        if (strcmp(w->c.layers[i].layer.name, l->name) == 0) {
            return nq_fail(err, NOVAQ_E_ARG, "layer '%s' appears twice", l->name);
        }
    }
    return NOVAQ_OK;
}

static novaq_status check_data(const nq_stored_layer *s, novaq_error *err) {
    for (unsigned i = 0; i < s->pieces; i++) {
        const nq_piece *p = &s->piece[i];
        if (p->bytes > 0 && piece_data(&s->layer, p->kind) == NULL) {
            return nq_fail(err, NOVAQ_E_ARG, "layer '%s': no %s given", s->layer.name,
                           nq_piece_name(p->kind));
        }
        if (p->kind == NQ_PIECE_DATA && p->bytes != s->layer.data_bytes) {
            return nq_fail(err, NOVAQ_E_ARG, "layer '%s': %llu data bytes instead of %llu",
                           s->layer.name, (unsigned long long)s->layer.data_bytes,
                           (unsigned long long)p->bytes);
        }
    }
    return NOVAQ_OK;
}

/* The writer's own copy outlives the caller's buffers. */
novaq_status nq_write_keep(nq_writer *w, const nq_stored_layer *s, novaq_error *err) {
    if (w->c.layer_count == w->layer_cap) {
        size_t cap = w->layer_cap == 0 ? LAYERS_FIRST : w->layer_cap * 2;
        NQ_TRY(nq_grow(&w->c.layers, w->layer_cap, cap, sizeof *w->c.layers, err));
        w->layer_cap = cap;
    }
    nq_stored_layer *own = &w->c.layers[w->c.layer_count];
    char *name = NULL;
    NQ_TRY(nq_strdup(&name, s->layer.name, err));
    *own = *s;
    own->layer.name = name;
    own->layer.diagnostics = json_incref((json_t *)(uintptr_t)s->layer.diagnostics);
    own->layer.data = NULL;
    own->layer.q.symbols = NULL;
    own->layer.q.codebooks = NULL;
    own->layer.q.codebook_scale = NULL;
    own->layer.q.row_scale = NULL;
    own->layer.q.row_mean = NULL;
    own->layer.q.col_exponent = NULL;
    w->c.layer_count++;
    return NOVAQ_OK;
}

static novaq_status add(nq_writer *w, nq_stored_layer *s, const json_t *note, novaq_error *err) {
    NQ_TRY(chunk_ready(w, s->layer.stored_bytes, err));
    nq_blake3_init(&w->span);
    for (unsigned i = 0; i < s->pieces; i++) {
        NQ_TRY(put_piece(w, &s->piece[i], piece_data(&s->layer, s->piece[i].kind), err));
    }
    NQ_TRY(nq_write_keep(w, s, err));
    return w->resumable ? nq_write_record_layer(w, s, note, err) : NOVAQ_OK;
}

novaq_status nq_writer_add_noted(nq_writer *w, const nq_layer *layer, const json_t *note,
                                 novaq_error *err) {
    if (w->failed) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: writing failed before", w->path);
    }
    NQ_TRY(check_new(w, layer, err));
    nq_stored_layer s = {.layer = *layer};
    s.layer.q.scheme = layer->scheme;
    NQ_TRY(nq_layer_pieces(&s, nq_layer_optional(layer), err));
    NQ_TRY(check_data(&s, err));
    novaq_status st = nq_write_settle(w, err);
    if (st == NOVAQ_OK) {
        st = add(w, &s, note, err);
    }
    w->failed = st != NOVAQ_OK;
    return st;
}

novaq_status nq_writer_add(nq_writer *w, const nq_layer *layer, novaq_error *err) {
    return nq_writer_add_noted(w, layer, NULL, err);
}

uint64_t nq_layer_stored_bytes(const nq_layer *layer) {
    nq_stored_layer s = {.layer = *layer};
    s.layer.q.scheme = layer->scheme;
    uint64_t sum = 0;
    if (nq_layer_pieces(&s, nq_layer_optional(layer), NULL) == NOVAQ_OK) {
        for (unsigned i = 0; i < s.pieces; i++) {
            sum += nq_align_piece(s.piece[i].bytes);
        }
    }
    return sum;
}

/* ---- finishing -------------------------------------------------------------------- */

static novaq_status put_tokenizer(nq_writer *w, const json_t *tokenizer, novaq_error *err) {
    char *text = NULL;
    uint8_t *packed = NULL;
    NQ_TRY(nq_json_dump(&text, tokenizer, 0, err));
    size_t len = strlen(text);
    uLongf size = compressBound((uLong)len);
    novaq_status st = len > NQ_INFLATED_MAX
                          ? nq_fail(err, NOVAQ_E_UNSUPPORTED,
                                    "%s: tokenizer of %zu bytes: too large", w->path, len)
                          : nq_alloc_raw(&packed, size, 1, err);
    if (st == NOVAQ_OK && compress2(packed, &size, (const Bytef *)text, (uLong)len, 9) != Z_OK) {
        st = nq_fail(err, NOVAQ_E_MEMORY, "%s: cannot deflate the tokenizer", w->path);
    }
    if (st == NOVAQ_OK) {
        st = chunk_ready(w, size, err);
    }
    if (st == NOVAQ_OK) {
        nq_piece *p = &w->c.tokenizer;
        *p = (nq_piece){.kind = NQ_PIECE_TOKENIZER, .dtype = "U8", .rank = 1, .shape = {size}};
        p->bytes = size;
        st = put_piece(w, p, packed, err);
        w->c.has_tokenizer = true;
        w->c.tokenizer_inflated = len;
    }
    nq_free(packed);
    nq_free(text);
    return st;
}

/* Chunk files that the new manifest does not name, in a directory where all
 * chunk files are novaq's: those of the artifact that was replaced. */
static void remove_stale_chunks(const nq_writer *w) {
    char **names = NULL;
    size_t count = 0;
    if (nq_list_dir(&names, &count, w->path, NULL) != NOVAQ_OK) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        bool named = !nq_is_chunk_name(names[i]);
        for (size_t k = 0; !named && k < w->c.chunk_count; k++) {
            char name[NQ_CHUNK_NAME];
            named = strcmp(names[i], nq_chunk_name(name, k, w->c.chunks[k].sha256)) == 0;
        }
        if (!named) {
            nq_write_remove(w, names[i]);
        }
    }
    nq_free_names(names, count);
}

/* Once the manifest is in place nothing may be taken back. */
static void keep_chunks(nq_writer *w) {
    for (size_t i = 0; i < w->c.chunk_count; i++) {
        nq_free(w->made[i]);
        w->made[i] = NULL;
    }
    w->made_dir = false;
}

/* Where the model came from: beside the artifact, not part of it. After the artifact, and
 * with the name of what it tells of, so that it is never taken for that of another. */
static novaq_status put_origin(const nq_writer *w, novaq_error *err) {
    char *path = NULL;
    char *text = NULL;
    json_t *about = json_object_get(w->source, "blake3");
    NQ_TRY(nq_origin_path(&path, w->path, err));
    novaq_status st = NOVAQ_OK;
    if (w->origin != NULL && about != NULL && json_object_set(w->origin, "source", about) != 0) {
        st = nq_fail(err, NOVAQ_E_MEMORY, "%s: cannot tell of its source", w->path);
    }
    if (path != NULL && w->origin == NULL) {
        (void)unlink(path); /* of the artifact that was replaced */
    } else if (path != NULL && st == NOVAQ_OK) {
        novaq_error why = {0};
        st = nq_json_dump(&text, w->origin, 2, &why);
        if (st == NOVAQ_OK) {
            st = nq_write_file(path, text, strlen(text), &why);
        }
        if (st != NOVAQ_OK) {
            st = nq_fail(err, st, "%s; the artifact itself is whole", why.msg);
        }
    }
    nq_free(text);
    nq_free(path);
    return st;
}

static novaq_status finish_dir(nq_writer *w, const nq_manifest_text *m, novaq_error *err) {
    NQ_TRY(nq_outfile_write(w->last, m->text, m->len, err));
    if (w->resumable) {
        NQ_TRY(nq_write_record_done(w, m->text, m->len, err));
        /* Or a loss of power might leave the manifest without it. */
        NQ_TRY(nq_outfile_sync(w->journal.file, err));
    }
    NQ_TRY(nq_outfile_commit(&w->last, NULL, err));
    keep_chunks(w);
    remove_stale_chunks(w);
    return NOVAQ_OK;
}

static novaq_status copy_data(nq_writer *w, novaq_error *err) {
    uint8_t *block = NULL;
    uint64_t size = nq_outfile_size(w->out);
    NQ_TRY(nq_alloc_raw(&block, COPY_BYTES, 1, err));
    novaq_status st = NOVAQ_OK;
    for (uint64_t at = 0; st == NOVAQ_OK && at < size; at += COPY_BYTES) {
        uint64_t len = size - at < COPY_BYTES ? size - at : COPY_BYTES;
        st = nq_outfile_read(w->out, at, block, len, err);
        if (st == NOVAQ_OK) {
            st = nq_outfile_write(w->last, block, len, err);
        }
    }
    nq_free(block);
    return st;
}

static novaq_status finish_single(nq_writer *w, const nq_manifest_text *m, novaq_error *err) {
    NQ_TRY(nq_outfile_write(w->last, m->head, m->head_len, err));
    NQ_TRY(copy_data(w, err));
    return nq_outfile_commit(&w->last, NULL, err);
}

static bool has_parameters(const nq_contents *c) {
    for (size_t i = 0; i < c->layer_count; i++) {
        if (c->layers[i].layer.elements > 0) {
            return true;
        }
    }
    return false;
}

static novaq_status finish(nq_writer *w, const char *source_locator, const json_t *config,
                           const json_t *model, json_t **report, novaq_error *err) {
    if (w->failed || !has_parameters(&w->c)) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: %s", w->path,
                       w->failed ? "writing failed before" : "a model without parameters");
    }
    const json_t *tokenizer = json_object_get(model, "tokenizer");
    NQ_TRY(nq_write_settle(w, err));
    w->failed = true; /* unless all of it succeeds */
    if (json_is_object(tokenizer)) {
        NQ_TRY(put_tokenizer(w, tokenizer, err));
    }
    NQ_TRY(nq_write_chunk_end(w, err));
    nq_manifest_text m;
    nq_manifest_head head = {source_locator, w->source, config, model};
    NQ_TRY(nq_manifest_write(&m, &w->c, &head, err));
    novaq_status st = w->c.single_file ? finish_single(w, &m, err) : finish_dir(w, &m, err);
    if (st == NOVAQ_OK) {
        w->finished = true;
        st = put_origin(w, err);
    }
    if (st == NOVAQ_OK && report != NULL) {
        *report = json_incref(m.summary);
    }
    nq_manifest_text_free(&m);
    return st;
}

void nq_writer_set_source(nq_writer *w, const json_t *source, const json_t *origin) {
    json_decref(w->source);
    json_decref(w->origin);
    w->source = json_deep_copy(source);
    w->origin = json_deep_copy(origin);
}

novaq_status nq_writer_finish(nq_writer **w, const char *source_locator, const json_t *config,
                              const json_t *model, json_t **report, novaq_error *err) {
    if (report != NULL) {
        *report = NULL;
    }
    novaq_status st = finish(*w, source_locator, config, model, report, err);
    if ((*w)->finished || !(*w)->resumable) {
        nq_writer_abort(w); /* after success only the journal and the data file are left */
    }
    return st;
}

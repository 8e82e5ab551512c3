/* write_resume.c - see write.h: the journal of a writer, and going on from one.
 *
 * What an interrupted run finished is verified and hashed again as it is
 * recalled, in the order in which it was written, so that at any time the
 * writer is where an undisturbed run would be. Nothing of it is changed before
 * the first layer that is not recalled. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "artifact/write_impl.h"

#define DIGEST_KEY   "\"manifest_sha256\":\""
#define MANIFEST_TOP 512 /* bytes of a manifest that hold its own hash */

/* ---- records ---------------------------------------------------------------------- */

static const char *text_of(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : "";
}

static const json_t *record(const nq_writer *w, size_t i) { return w->journal.records[i].json; }

static json_t *head_record(const nq_writer *w, const nq_writer_key *key) {
    return json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:b}", "journal", NQ_JOURNAL_VERSION, "tool",
                     "novaq/" NOVAQ_VERSION, "form", w->c.single_file ? "single" : "directory",
                     "recipe", key->recipe, "tensors", key->tensors, "origin", key->origin,
                     "made_dir", w->made_dir);
}

/* Whether the journal's run is the one that key stands for. */
static bool head_fits(const nq_writer *w, const nq_writer_key *key) {
    const json_t *head = record(w, 0);
    return json_integer_value(json_object_get(head, "journal")) == NQ_JOURNAL_VERSION &&
           strcmp(text_of(head, "tool"), "novaq/" NOVAQ_VERSION) == 0 &&
           strcmp(text_of(head, "form"), w->c.single_file ? "single" : "directory") == 0 &&
           strcmp(text_of(head, "recipe"), key->recipe) == 0 &&
           strcmp(text_of(head, "tensors"), key->tensors) == 0;
}

/* Exact, where JSON numbers are written with nine digits. */
static json_t *exact_sums(const nq_layer_error *e) {
    return json_pack("[oooo]", json_sprintf("%a", e->sq_error), json_sprintf("%a", e->sq_source),
                     json_sprintf("%a", e->sq_decoded), json_sprintf("%a", e->dot));
}

static bool read_sum(double *out, const json_t *list, size_t i) {
    const char *s = json_string_value(json_array_get(list, i));
    char *end = NULL;
    *out = s != NULL ? strtod(s, &end) : 0;
    return s != NULL && end != s && *end == '\0' && isfinite(*out);
}

novaq_status nq_write_record_layer(nq_writer *w, const nq_stored_layer *s, const json_t *note,
                                   novaq_error *err) {
    char hex[NQ_BLAKE3_HEX + 1];
    json_t *about = NULL;
    nq_blake3_finish(hex, &w->span);
    NQ_TRY(nq_manifest_layer(&about, s, err));
    json_t *r = json_pack("{s:s, s:I, s:s, s:o, s:o}", "layer", s->layer.name, "bytes",
                          (json_int_t)s->layer.stored_bytes, "blake3", hex, "sums",
                          exact_sums(&s->layer.error), "about", about);
    if (r != NULL && note != NULL) {
        (void)json_object_set_new(r, "note", json_deep_copy(note));
    }
    return nq_journal_append(&w->journal, r, err);
}

novaq_status nq_write_record_chunk(nq_writer *w, const nq_chunk *k, bool made, novaq_error *err) {
    return nq_journal_append(&w->journal,
                             json_pack("{s:I, s:I, s:s, s:b}", "chunk",
                                       (json_int_t)w->c.chunk_count, "bytes", (json_int_t)k->bytes,
                                       "sha256", k->sha256, "made", made),
                             err);
}

novaq_status nq_write_record_done(nq_writer *w, const char *manifest, size_t len,
                                  novaq_error *err) {
    char hex[NQ_SHA256_HEX + 1];
    size_t at = 0;
    NQ_TRY(nq_manifest_digest(hex, &at, "manifest", manifest, len, err));
    return nq_journal_append(&w->journal, json_pack("{s:s}", "done", hex), err);
}

novaq_status nq_writer_note(nq_writer *w, const char *key, const json_t *value, novaq_error *err) {
    if (!w->resumable) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_write_settle(w, err));
    NQ_TRY(
        nq_journal_append(&w->journal, json_pack("{s:s, s:O}", "note", key, "value", value), err));
    return json_object_set(w->notes, key, (json_t *)(uintptr_t)value) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_MEMORY, "cannot keep a note");
}

const json_t *nq_writer_noted(const nq_writer *w, const char *key) {
    return json_object_get(w->notes, key);
}

/* ---- opening ---------------------------------------------------------------------- */

/* The manifest that stands there now is the one this journal ended with: the
 * run was killed after its end, and its chunks are the artifact's. */
static bool is_done(const nq_writer *w) {
    const char *hash = text_of(record(w, w->journal.count - 1), "done");
    char *path = NULL;
    nq_map m = {0};
    bool done = false;
    if (w->c.single_file || hash[0] == '\0' ||
        nq_path_join(&path, w->path, "manifest.json", NULL) != NOVAQ_OK) {
        return false;
    }
    if (nq_map_open(&m, path, NULL) == NOVAQ_OK) {
        size_t top = m.size < MANIFEST_TOP ? (size_t)m.size : MANIFEST_TOP;
        const char *at = memmem(m.data, top, DIGEST_KEY, sizeof DIGEST_KEY - 1);
        size_t left = at != NULL ? top - (size_t)(at - (const char *)m.data) : 0;
        done = left > sizeof DIGEST_KEY + NQ_SHA256_HEX &&
               memcmp(at + sizeof DIGEST_KEY - 1, hash, NQ_SHA256_HEX) == 0;
        nq_map_close(&m);
    }
    nq_free(path);
    return done;
}

/* Removes the chunk files that records from `first` on tell of. */
static void remove_chunks(const nq_writer *w, size_t first) {
    for (size_t i = first; i < w->journal.count; i++) {
        const json_t *index = json_object_get(record(w, i), "chunk");
        const char *sha256 = text_of(record(w, i), "sha256");
        char name[NQ_CHUNK_NAME];
        if (json_is_integer(index) && json_is_true(json_object_get(record(w, i), "made")) &&
            strlen(sha256) == NQ_SHA256_HEX) {
            (void)nq_chunk_name(name, (size_t)json_integer_value(index), sha256);
            if (nq_is_chunk_name(name)) {
                nq_write_remove_chunk(w, name);
            }
        }
    }
}

static novaq_status start_afresh(nq_writer *w, const nq_writer_key *key, novaq_error *err) {
    if (w->journal.count > 0 && !is_done(w)) {
        remove_chunks(w, 0);
    }
    nq_write_sweep(w);
    if (w->c.single_file) {
        NQ_TRY(nq_outfile_truncate(w->out, 0, err));
    }
    if (key == NULL) {
        nq_journal_remove(&w->journal);
        return NOVAQ_OK;
    }
    NQ_TRY(nq_journal_keep(&w->journal, 0, err));
    return nq_journal_append(&w->journal, head_record(w, key), err);
}

static novaq_status start_replay(nq_writer *w, nq_resumption *how, const nq_writer_key *key,
                                 novaq_error *err) {
    const char *origin = text_of(record(w, 0), "origin");
    w->kept = 1;
    for (size_t i = 1; i < w->journal.count; i++) {
        const json_t *value = json_object_get(record(w, i), "value");
        const char *name = text_of(record(w, i), "note");
        if (json_object_get(record(w, i), "origin") != NULL) {
            origin = text_of(record(w, i), "origin");
        }
        if (w->kept == i && value != NULL && name[0] != '\0') {
            (void)json_object_set(w->notes, name, (json_t *)(uintptr_t)value);
            w->kept = i + 1;
        }
    }
    w->made_dir = json_is_true(json_object_get(record(w, 0), "made_dir"));
    w->replaying = true;
    bool same = strcmp(origin, key->origin) == 0;
    *how = w->journal.count < 2 ? NQ_RESUME_NONE : same ? NQ_RESUME_SAME : NQ_RESUME_DOUBTFUL;
    return same ? NOVAQ_OK : nq_strdup(&w->origin_now, key->origin, err);
}

novaq_status nq_write_resume_open(nq_writer *w, nq_resumption *how, const nq_writer_key *key,
                                  bool restart, novaq_error *err) {
    char *path = NULL;
    w->notes = json_object();
    if (w->notes == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot keep notes");
    }
    if (w->c.single_file) { /* ".NAME.data" becomes ".NAME.journal" */
        int stem = (int)strlen(w->data_path) - 4;
        NQ_TRY(nq_asprintf(&path, err, "%.*sjournal", stem, w->data_path));
    } else {
        NQ_TRY(nq_path_join(&path, w->path, "journal", err));
    }
    novaq_status st = nq_journal_open(&w->journal, path, err);
    nq_free(path);
    NQ_TRY(st);
    bool usable = !restart && key != NULL && w->journal.count > 0 && head_fits(w, key);
    if (usable && !is_done(w)) {
        return start_replay(w, how, key, err);
    }
    *how = w->journal.count > 1 && !restart && !usable ? NQ_RESUME_OTHER : NQ_RESUME_NONE;
    return start_afresh(w, key, err);
}

/* ---- the end of the replay -------------------------------------------------------- */

/* Bytes of all chunks so far. */
static uint64_t written(const nq_writer *w) {
    const nq_chunk *last = w->c.chunk_count > 0 ? &w->c.chunks[w->c.chunk_count - 1] : NULL;
    return (last != NULL ? last->offset + last->bytes : 0) + (w->open_chunk ? w->at : 0);
}

/* The chunk at work becomes a partial file that can be added to. One that has
 * its final name already is copied: it may be an artifact's. */
static novaq_status adopt_chunk(nq_writer *w, novaq_error *err) {
    char *path = NULL;
    NQ_TRY(nq_write_chunk_path(&path, w, w->c.chunk_count, err));
    novaq_status st;
    if (w->map_final) {
        st = nq_outfile_open(&w->out, path, err);
        if (st == NOVAQ_OK) {
            st = nq_outfile_write(w->out, w->map.data, w->at, err);
        }
    } else {
        st = nq_outfile_resume(&w->out, path, err);
        if (st == NOVAQ_OK) {
            st = nq_outfile_truncate(w->out, w->at, err);
        }
    }
    nq_free(path);
    return st;
}

novaq_status nq_write_settle(nq_writer *w, novaq_error *err) {
    if (!w->replaying) {
        return NOVAQ_OK;
    }
    if (!w->c.single_file && w->open_chunk) {
        NQ_TRY(adopt_chunk(w, err));
    }
    nq_map_close(&w->map);
    w->map_final = false;
    if (w->c.single_file) {
        NQ_TRY(nq_outfile_truncate(w->out, written(w), err));
    }
    remove_chunks(w, w->kept);
    NQ_TRY(nq_journal_keep(&w->journal, w->kept, err));
    w->replaying = false;
    nq_write_sweep(w);
    return w->origin_now == NULL
               ? NOVAQ_OK
               : nq_journal_append(&w->journal, json_pack("{s:s}", "origin", w->origin_now), err);
}

novaq_status nq_writer_forget(nq_writer *w, novaq_error *err) {
    if (w->replaying && w->c.layer_count == 0) {
        json_object_clear(w->notes);
        w->kept = 1;
    }
    return nq_write_settle(w, err);
}

/* ---- recalling -------------------------------------------------------------------- */

static bool read_record(nq_stored_layer *s, const json_t *r) {
    const char *name = text_of(r, "layer");
    const json_t *sums = json_object_get(r, "sums");
    *s = (nq_stored_layer){0};
    return nq_manifest_read_layer(s, name, json_object_get(r, "about"), "journal", NULL) ==
               NOVAQ_OK &&
           read_sum(&s->layer.error.sq_error, sums, 0) &&
           read_sum(&s->layer.error.sq_source, sums, 1) &&
           read_sum(&s->layer.error.sq_decoded, sums, 2) && read_sum(&s->layer.error.dot, sums, 3);
}

const nq_layer *nq_writer_next(nq_writer *w, const char *name, const json_t **note) {
    *note = NULL;
    for (size_t i = w->kept; w->replaying && i < w->journal.count; i++) {
        const json_t *r = record(w, i);
        if (json_object_get(r, "layer") == NULL) {
            continue;
        }
        if (strcmp(text_of(r, "layer"), name) != 0 || !read_record(&w->next, r)) {
            return NULL;
        }
        w->next_record = i;
        *note = json_object_get(r, "note");
        return &w->next.layer;
    }
    return NULL;
}

uint64_t nq_writer_recallable(const nq_writer *w) {
    uint64_t sum = 0;
    for (size_t i = w->kept; w->replaying && i < w->journal.count; i++) {
        const json_t *bytes = json_object_get(record(w, i), "bytes");
        bool layer = json_object_get(record(w, i), "layer") != NULL;
        sum += layer && json_integer_value(bytes) > 0 ? (uint64_t)json_integer_value(bytes) : 0;
    }
    return sum;
}

/* The record of the chunk at work, before record `end`; `end` if there is none.
 */
static size_t find_chunk(const nq_writer *w, size_t end) {
    for (size_t i = w->kept; i < end; i++) {
        const json_t *index = json_object_get(record(w, i), "chunk");
        if (json_is_integer(index) && json_integer_value(index) == (json_int_t)w->c.chunk_count) {
            return i;
        }
    }
    return end;
}

/* Maps the file of the chunk at work; a missing one is as good as an empty one.
 */
static novaq_status map_chunk(nq_writer *w, novaq_error *err) {
    char *path = NULL;
    char name[NQ_CHUNK_NAME];
    if (w->c.single_file) {
        w->map_base = written(w);
        if (w->map.data != NULL) {
            return NOVAQ_OK;
        }
        const char *base = nq_path_base(w->data_path);
        int dir = (int)(base - w->data_path);
        NQ_TRY(nq_asprintf(&path, err, "%.*s.%s.partial", dir, w->data_path, base));
    } else {
        size_t i = find_chunk(w, w->journal.count);
        w->map_base = 0;
        w->map_final = false;
        w->map_dropped = 0;
        nq_map_close(&w->map);
        if (i < w->journal.count) {
            (void)nq_chunk_name(name, w->c.chunk_count, text_of(record(w, i), "sha256"));
            NQ_TRY(nq_path_join(&path, w->path, name, err));
            w->map_final = nq_is_chunk_name(name) && nq_is_file(path);
        }
        if (!w->map_final) {
            nq_free(path);
            path = NULL;
            NQ_TRY(
                nq_asprintf(&path, err, "%s/.chunk-%05zu.bin.partial", w->path, w->c.chunk_count));
        }
    }
    if (nq_map_open(&w->map, path, NULL) != NOVAQ_OK) {
        w->map = (nq_map){0};
        w->map_final = false;
    }
    nq_free(path);
    return NOVAQ_OK;
}

/* Bytes [begin, end) of the chunk at work; NULL when the file ends before. */
static const uint8_t *mapped(const nq_writer *w, uint64_t begin, uint64_t end) {
    bool there =
        w->map.data != NULL && w->map_base <= w->map.size && end <= w->map.size - w->map_base;
    return there ? w->map.data + w->map_base + begin : NULL;
}

static bool tail_is_zero(const nq_writer *w, uint64_t end) {
    const uint8_t *p = mapped(w, w->at, end);
    bool zero = p != NULL;
    for (uint64_t i = 0; zero && i < end - w->at; i++) {
        zero = p[i] == 0;
    }
    return zero;
}

/* A chunk whose record was written, but which did not get its name any more. */
static novaq_status name_chunk(const nq_writer *w, const char *path, novaq_error *err) {
    char *partial = NULL;
    nq_outfile *f = NULL;
    NQ_TRY(nq_write_chunk_path(&partial, w, w->c.chunk_count, err));
    novaq_status st = nq_outfile_resume(&f, partial, err);
    if (st == NOVAQ_OK) {
        st = nq_outfile_commit(&f, path, err);
    }
    nq_free(partial);
    return st;
}

/* The file of the chunk that ends at record i, which was `made` by the run
 * before. */
static novaq_status end_chunk_file(nq_writer *w, const nq_chunk *k, size_t i, novaq_error *err) {
    char name[NQ_CHUNK_NAME];
    char *path = NULL;
    NQ_TRY(nq_path_join(&path, w->path, nq_chunk_name(name, w->c.chunk_count, k->sha256), err));
    novaq_status st = w->map_final ? NOVAQ_OK : name_chunk(w, path, err);
    if (st == NOVAQ_OK && json_is_true(json_object_get(record(w, i), "made"))) {
        w->made[w->c.chunk_count] = path;
        path = NULL;
    }
    nq_free(path);
    w->kept = i + 1;
    return st;
}

/* Back to where the chunk at work had `used` bytes: its hashes begin again. */
static void reopen_chunk(nq_writer *w, uint64_t used) {
    w->at = 0;
    nq_blake3_init(&w->blake);
    nq_write_hash(w, w->map.data, used);
}

/* The chunk at work ends as it did before, in front of record `end`; *ended
 * false: it did not, or not whole. */
static novaq_status end_chunk(bool *ended, nq_writer *w, size_t end, novaq_error *err) {
    static const uint8_t zeros[NQ_PIECE_ALIGN];
    uint64_t size = nq_align_piece(w->at);
    size_t i = w->c.single_file ? 0 : find_chunk(w, end);
    *ended = false;
    if ((!w->c.single_file && (i == end || w->map.size != size)) || !tail_is_zero(w, size)) {
        return NOVAQ_OK;
    }
    nq_chunk *k = &w->c.chunks[w->c.chunk_count];
    uint64_t used = w->at;
    nq_write_hash(w, zeros, size - w->at);
    k->bytes = w->at;
    k->offset = w->c.chunk_count == 0 ? 0 : k[-1].offset + k[-1].bytes;
    NQ_TRY(nq_sha256_finish(k->sha256, w->sha, err));
    if (!w->c.single_file && strcmp(k->sha256, text_of(record(w, i), "sha256")) != 0) {
        reopen_chunk(w, used);
        return NOVAQ_OK;
    }
    nq_blake3_finish(k->blake3, &w->blake);
    if (!w->c.single_file) {
        NQ_TRY(end_chunk_file(w, k, i, err));
    }
    w->c.chunk_count++;
    w->open_chunk = false;
    *ended = true;
    return NOVAQ_OK;
}

/* The pieces lie where a writer that is here now would put them, and their
 * bytes are those that were written. */
static const uint8_t *intact(const nq_writer *w, const nq_stored_layer *s, const char *hash,
                             uint64_t *end) {
    uint64_t at = w->at;
    char hex[NQ_BLAKE3_HEX + 1];
    for (unsigned i = 0; i < s->pieces; i++) {
        const nq_piece *p = &s->piece[i];
        if (p->chunk != w->c.chunk_count || p->offset != nq_align_piece(at)) {
            return NULL;
        }
        at = p->offset + p->bytes;
    }
    const uint8_t *data = mapped(w, w->at, at);
    if (data != NULL) {
        nq_blake3_of(hex, data, (size_t)(at - w->at));
    }
    *end = at;
    return data != NULL && strcmp(hex, hash) == 0 ? data : NULL;
}

static void point_pieces(nq_layer *l, const nq_stored_layer *s, const uint8_t *chunk) {
    *l = s->layer;
    for (unsigned i = 0; i < s->pieces; i++) {
        nq_layer_point(l, &s->piece[i], chunk + s->piece[i].offset);
    }
}

novaq_status nq_writer_recall(nq_layer *layer, bool *found, nq_writer *w, const char *name,
                              novaq_error *err) {
    const json_t *note;
    bool whole = true;
    uint64_t end = 0;
    *found = false;
    if (nq_writer_next(w, name, &note) == NULL) {
        return NOVAQ_OK;
    }
    nq_stored_layer s = w->next;
    size_t r = w->next_record;
    if (nq_write_turns(w, s.layer.stored_bytes)) {
        NQ_TRY(end_chunk(&whole, w, r, err));
    }
    if (whole && !w->open_chunk) {
        NQ_TRY(nq_write_chunk_begin(w, err));
        NQ_TRY(map_chunk(w, err));
    }
    const uint8_t *data = whole ? intact(w, &s, text_of(record(w, r), "blake3"), &end) : NULL;
    if (data == NULL) {
        return nq_write_settle(w, err);
    }
    point_pieces(layer, &s, data - w->at);
    uint64_t begin = w->map_base + w->at;
    nq_write_hash(w, data, end - w->at);
    /* The caller may look at this layer; the one before it is done with. */
    nq_map_drop(&w->map, w->map_dropped, w->map_base + end);
    w->map_dropped = begin;
    NQ_TRY(nq_write_keep(w, &s, err));
    w->kept = r + 1;
    *found = true;
    return NOVAQ_OK;
}

/* test_resume.c - the writer's journal: whatever an interrupted run left, intact, torn,
 * damaged or foreign, the next run ends with the bytes of an undisturbed one. */
#include "journal_util.h"
#include "sample_artifact.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/blake3.h"
#include "base/mem.h"

static const nq_writer_key KEY = {"recipe", "tensors", "origin"};
static const char *const FORMS[] = {"dir", "one.bin"};

/* ---- folders as values ---------------------------------------------------------------- */

static void hash_file(nq_blake3 *h, const char *path) {
    char *data = NULL;
    size_t len = 0;
    assert_int_equal(nq_read_file(&data, &len, path, (size_t)1 << 28, NULL), NOVAQ_OK);
    nq_blake3_update(h, data, len);
    nq_free(data);
}

/* Names and bytes of a file, or of the files of a folder. */
static void digest(char hex[NQ_BLAKE3_HEX + 1], const char *path) {
    nq_blake3 h;
    nq_blake3_init(&h);
    if (nq_is_dir(path)) {
        char **names = NULL;
        size_t count = 0;
        assert_int_equal(nq_list_dir(&names, &count, path, NULL), NOVAQ_OK);
        for (size_t i = 0; i < count; i++) {
            char *child = NULL;
            assert_int_equal(nq_path_join(&child, path, names[i], NULL), NOVAQ_OK);
            nq_blake3_update(&h, names[i], strlen(names[i]) + 1);
            hash_file(&h, child);
            nq_free(child);
        }
        nq_free_names(names, count);
    } else {
        hash_file(&h, path);
    }
    nq_blake3_finish(hex, &h);
}

static void copy_file(const char *from, const char *to) {
    char *data = NULL;
    size_t len = 0;
    assert_int_equal(nq_read_file(&data, &len, from, (size_t)1 << 28, NULL), NOVAQ_OK);
    put_file(to, data, len);
    nq_free(data);
}

/* The files of one folder into another, which is emptied before. */
static void copy_folder(const char *from, const char *to) {
    char **names = NULL;
    size_t count = 0;
    remove_tree(to);
    assert_int_equal(nq_make_dir(to, NULL), NOVAQ_OK);
    assert_int_equal(nq_list_dir(&names, &count, from, NULL), NOVAQ_OK);
    for (size_t i = 0; i < count; i++) {
        char *a = NULL;
        char *b = NULL;
        assert_int_equal(nq_path_join(&a, from, names[i], NULL), NOVAQ_OK);
        assert_int_equal(nq_path_join(&b, to, names[i], NULL), NOVAQ_OK);
        if (nq_is_dir(a)) {
            copy_folder(a, b);
        } else {
            copy_file(a, b);
        }
        nq_free(a);
        nq_free(b);
    }
    nq_free_names(names, count);
}

/* ---- runs -------------------------------------------------------------------------------- */

typedef struct run {
    const nq_layer *layers;
    size_t count;
    const json_t *config, *model;
    int single;
    size_t recalled; /* of the last run */
    nq_resumption how;
} run;

static nq_writer *open_run(run *r, const char *path, const nq_writer_key *key, bool restart) {
    novaq_error err = {0};
    nq_writer *w = NULL;
    must(nq_writer_open_resumable(&w, &r->how, path, r->single, key, restart, &err), &err);
    return w;
}

/* Layers [0, until), recalled where that is possible. */
static void put_layers(run *r, nq_writer *w, size_t until) {
    novaq_error err = {0};
    r->recalled = 0;
    for (size_t i = 0; i < until; i++) {
        const nq_layer *want = &r->layers[i];
        nq_layer got;
        bool found = false;
        must(nq_writer_recall(&got, &found, w, want->name, &err), &err);
        if (found) {
            assert_int_equal(got.elements, want->elements);
            assert_memory_equal(&got.error, &want->error, sizeof got.error);
            if (want->data_bytes > 0) {
                assert_memory_equal(got.data, want->data, want->data_bytes);
            }
            assert_true(r->recalled == i); /* never again after a gap */
            r->recalled++;
        } else {
            json_t *note = json_pack("{s:s}", "of", want->name);
            must(nq_writer_add_noted(w, want, note, &err), &err);
            json_decref(note);
        }
    }
}

static void finish_run(const run *r, nq_writer *w) {
    novaq_error err = {0};
    must(nq_writer_finish(&w, "tests/sample", r->config, r->model, NULL, &err), &err);
    assert_null(w);
}

/* A run that ends after `until` layers. */
static void interrupted(run *r, const char *path, size_t until) {
    nq_writer *w = open_run(r, path, &KEY, false);
    put_layers(r, w, until);
    assert_int_equal(nq_writer_leave(&w), until > 0);
    assert_null(w);
}

static void whole(run *r, const char *path) {
    nq_writer *w = open_run(r, path, &KEY, false);
    put_layers(r, w, r->count);
    finish_run(r, w);
}

static run sample_run(const sample *s, int single) {
    return (run){.layers = s->layer,
                 .count = SAMPLE_LAYERS,
                 .config = s->config,
                 .model = s->model,
                 .single = single};
}

/* What a plain writer makes of the same layers. */
static void reference(char hex[NQ_BLAKE3_HEX + 1], const run *r) {
    const char *path = in_scratch("reference");
    write_layers(path, r->single, r->layers, r->count, r->config, r->model);
    digest(hex, path);
    remove_tree(path);
}

static void check(const char *want, const char *path) {
    char hex[NQ_BLAKE3_HEX + 1];
    novaq_error err = {0};
    digest(hex, path);
    assert_string_equal(hex, want);
    must(verify_quietly(path, &err), &err);
}

/* ---- interrupted after any layer ------------------------------------------------------------ */

static void any_layer(void **state) {
    (void)state;
    sample s = sample_make();
    for (int single = 0; single < 2; single++) {
        char want[NQ_BLAKE3_HEX + 1];
        novaq_error err = {0};
        run r = sample_run(&s, single);
        const char *path = in_scratch(FORMS[single]);
        reference(want, &r);
        for (size_t first = 0; first <= r.count; first += 2) {
            for (size_t second = first; second <= r.count; second += 4) {
                interrupted(&r, path, first);
                assert_true(verify_quietly(path, &err) != NOVAQ_OK);
                assert_int_equal(nq_is_dir(path) || nq_is_file(path), !single && first > 0);
                interrupted(&r, path, second);
                assert_int_equal(r.recalled, first);
                assert_int_equal(r.how, first > 0 ? NQ_RESUME_SAME : NQ_RESUME_NONE);
                whole(&r, path);
                assert_int_equal(r.recalled, second);
                check(want, path);
                assert_int_equal(entries(scratch), 1);
                remove_tree(path);
            }
        }
    }
    sample_free(&s);
}

/* Looking at what is there changes nothing of it. */
static void leaving_a_replay(void **state) {
    (void)state;
    sample s = sample_make();
    for (int single = 0; single < 2; single++) {
        char want[NQ_BLAKE3_HEX + 1];
        run r = sample_run(&s, single);
        const char *path = in_scratch(FORMS[single]);
        reference(want, &r);
        interrupted(&r, path, 8);
        for (size_t part = 0; part < 8; part += 3) {
            nq_writer *w = open_run(&r, path, &KEY, false);
            assert_true(nq_writer_recallable(w) > 0);
            put_layers(&r, w, part);
            assert_true(nq_writer_leave(&w));
        }
        whole(&r, path);
        assert_int_equal(r.recalled, 8);
        check(want, path);
        remove_tree(path);
        /* Given up in the middle of it, nothing is left. */
        interrupted(&r, path, 8);
        nq_writer *w = open_run(&r, path, &KEY, false);
        put_layers(&r, w, 4);
        nq_writer_abort(&w);
        assert_int_equal(entries(scratch), 0);
    }
    sample_free(&s);
}

/* ---- several chunks -------------------------------------------------------------------------- */

#define BIG       4
#define BIG_BYTES ((uint64_t)9 << 20)

static void make_big(nq_layer *layers, char (*names)[16]) {
    for (unsigned i = 0; i < BIG; i++) {
        (void)snprintf(names[i], 16, "layer%u", i % 100);
        make_plain(&layers[i], names[i], "raw", NQ_U8, 1, BIG_BYTES, 0, BIG_BYTES);
        ((uint8_t *)(uintptr_t)layers[i].data)[7] = (uint8_t)i;
    }
}

/* 9 MiB layers make chunks of two: interrupted inside a chunk, and at the end of one. */
static void many_chunks(void **state) {
    (void)state;
    nq_layer layers[BIG];
    char names[BIG][16];
    make_big(layers, names);
    for (int single = 0; single < 2; single++) {
        char want[NQ_BLAKE3_HEX + 1];
        novaq_error err = {0};
        run r = {.layers = layers, .count = BIG, .single = single};
        const char *path = in_scratch(FORMS[single]);
        reference(want, &r);
        for (size_t first = 2; first <= 3; first++) {
            interrupted(&r, path, first);
            whole(&r, path);
            assert_int_equal(r.recalled, first);
            check(want, path);
            /* While it is replaced, what is there stays whole. */
            if (first == 3) {
                interrupted(&r, path, 3);
                must(verify_quietly(path, &err), &err);
                nq_writer *w = open_run(&r, path, &KEY, false);
                put_layers(&r, w, 3);
                nq_writer_abort(&w);
                check(want, path);
                interrupted(&r, path, 4);
                whole(&r, path);
                check(want, path);
            }
            assert_int_equal(entries(scratch), 1);
            remove_tree(path);
        }
    }
    for (unsigned i = 0; i < BIG; i++) {
        layer_free(&layers[i]);
    }
}

/* An artifact is there, and a loss of power took the end of the journal that it was made
 * with, and what followed that: no run may remove a chunk file that the manifest names. */
static void published_chunks(void **state) {
    (void)state;
    static const nq_writer_key OTHER = {"another", "tensors", "origin"};
    nq_layer layers[BIG];
    char names[BIG][16];
    char want[NQ_BLAKE3_HEX + 1];
    novaq_error err = {0};
    make_big(layers, names);
    run r = {.layers = layers, .count = BIG};
    char path[512];
    reference(want, &r);
    (void)snprintf(path, sizeof path, "%s", in_scratch("at"));
    interrupted(&r, path, 4);
    copy_file(in_scratch("at/.journal.partial"), in_scratch("journal"));
    whole(&r, path);
    for (int i = 0; i < 4; i++) {
        copy_file(in_scratch("journal"), in_scratch("at/.journal.partial"));
        nq_writer *w = open_run(&r, path, i < 2 ? &OTHER : &KEY, false);
        put_layers(&r, w, i == 3 ? 3 : 0);
        assert_int_equal(r.recalled, i == 3 ? 2 : 0); /* the others' data are elsewhere now */
        if (i == 1) {
            must(nq_writer_add(w, &layers[3], &err), &err);
        }
        nq_writer_abort(&w);
        check(want, path);
    }
    remove_tree(path);
    (void)unlink(in_scratch("journal"));
    for (unsigned i = 0; i < BIG; i++) {
        layer_free(&layers[i]);
    }
}

static void another_sum(json_t *record) {
    char sum[NQ_SHA256_HEX + 1];
    (void)snprintf(sum, sizeof sum, "%s", json_string_value(json_object_get(record, "sha256")));
    sum[NQ_SHA256_HEX - 1] = sum[NQ_SHA256_HEX - 1] == '0' ? '1' : '0';
    json_object_set_new(record, "sha256", json_string(sum));
}

/* A chunk that is not the one the journal tells of is made again, without a word. */
static void another_chunk(void **state) {
    (void)state;
    nq_layer layers[BIG];
    char names[BIG][16];
    char want[NQ_BLAKE3_HEX + 1];
    make_big(layers, names);
    run r = {.layers = layers, .count = BIG};
    reference(want, &r);
    const char *path = in_scratch("at");
    interrupted(&r, path, 3);
    edit_journal(in_scratch("at/journal"), "chunk", another_sum);
    whole(&r, path);
    assert_int_equal(r.recalled, 2);
    check(want, path);
    remove_tree(path);
    for (unsigned i = 0; i < BIG; i++) {
        layer_free(&layers[i]);
    }
}

/* Bytes of files that this process has in memory now. */
static uint64_t mapped_bytes(void) {
    unsigned long size;
    unsigned long resident;
    unsigned long shared;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f == NULL) {
        skip();
    }
    assert_int_equal(fscanf(f, "%lu %lu %lu", &size, &resident, &shared), 3);
    assert_int_equal(fclose(f), 0);
    return (uint64_t)shared * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Going on takes the memory of a layer, not of all that is there. */
static void little_memory(void **state) {
    (void)state;
    nq_layer layers[BIG];
    char names[BIG][16];
    make_big(layers, names);
    for (int single = 0; single < 2; single++) {
        run r = {.layers = layers, .count = BIG, .single = single};
        const char *path = in_scratch(FORMS[single]);
        interrupted(&r, path, BIG);
        nq_writer *w = open_run(&r, path, &KEY, false);
        uint64_t before = mapped_bytes();
        put_layers(&r, w, BIG); /* looks at all of the last one */
        assert_int_equal(r.recalled, BIG);
        assert_true(mapped_bytes() < before + BIG_BYTES + BIG_BYTES / 2);
        nq_writer_abort(&w);
    }
    for (unsigned i = 0; i < BIG; i++) {
        layer_free(&layers[i]);
    }
}

/* ---- damage ------------------------------------------------------------------------------------
 */

static const char *journal_of(int single) {
    return in_scratch(single ? "at/..one.bin.journal.partial" : "at/dir/.journal.partial");
}

static const char *data_of(int single) {
    return in_scratch(single ? "at/..one.bin.data.partial" : "at/dir/.chunk-00000.bin.partial");
}

typedef struct damage {
    run r;
    char want[NQ_BLAKE3_HEX + 1];
    char path[512];
} damage;

/* "at" holds what a run left after `until` layers; "kept" a copy of it. */
static damage open_damage(const sample *s, int single, size_t until) {
    damage d = {.r = sample_run(s, single)};
    reference(d.want, &d.r);
    assert_int_equal(nq_make_dir(in_scratch("at"), NULL), NOVAQ_OK);
    (void)snprintf(d.path, sizeof d.path, "%s", in_scratch(single ? "at/one.bin" : "at/dir"));
    interrupted(&d.r, d.path, until);
    copy_folder(in_scratch("at"), in_scratch("kept"));
    return d;
}

static void restore(void) { copy_folder(in_scratch("kept"), in_scratch("at")); }

static void close_damage(void) {
    remove_tree(in_scratch("at"));
    remove_tree(in_scratch("kept"));
}

#define LAST_LINE 600

/* The journal ends anywhere: whole lines count. Every 128th time the run is finished. */
static void torn_journal(void **state) {
    (void)state;
    sample s = sample_make();
    for (int single = 0; single < 2; single++) {
        damage d = open_damage(&s, single, 4);
        char *text = NULL;
        size_t len = 0;
        assert_int_equal(nq_read_file(&text, &len, journal_of(single), 1 << 20, NULL), NOVAQ_OK);
        size_t lines = 0;
        /* Every byte of the last line, some of the others. */
        for (size_t cut = 0; cut <= len; cut += cut + LAST_LINE < len ? 41 : 1) {
            restore();
            put_file(journal_of(single), text, cut);
            lines = 0;
            for (size_t i = 0; i < cut; i++) {
                lines += text[i] == '\n';
            }
            nq_writer *w = open_run(&d.r, d.path, &KEY, false);
            put_layers(&d.r, w, cut % 128 == 0 ? d.r.count : 4);
            assert_int_equal(d.r.recalled, lines > 0 ? lines - 1 : 0);
            if (cut % 128 == 0) {
                finish_run(&d.r, w);
                check(d.want, d.path);
            } else {
                nq_writer_abort(&w);
            }
        }
        assert_int_equal(lines, 5); /* a head and four layers */
        nq_free(text);
        close_damage();
    }
    sample_free(&s);
}

/* Every byte of the journal, and of the data, as another one. */
static void flipped_bytes(void **state) {
    (void)state;
    sample s = sample_make();
    for (int single = 0; single < 2; single++) {
        damage d = open_damage(&s, single, 4);
        for (int data = 0; data < 2; data++) {
            char *bytes = NULL;
            size_t len = 0;
            restore();
            const char *file = data ? data_of(single) : journal_of(single);
            assert_int_equal(nq_read_file(&bytes, &len, file, 1 << 20, NULL), NOVAQ_OK);
            size_t step = data ? 61 : 131;
            for (size_t at = 0; at < len; at += step) {
                restore();
                bytes[at] = (char)(bytes[at] ^ 0x21);
                put_file(data ? data_of(single) : journal_of(single), bytes, len);
                bytes[at] = (char)(bytes[at] ^ 0x21);
                nq_writer *w = open_run(&d.r, d.path, &KEY, false);
                put_layers(&d.r, w, d.r.count);
                assert_true(d.r.recalled < 4);
                finish_run(&d.r, w);
                check(d.want, d.path);
            }
            nq_free(bytes);
        }
        close_damage();
    }
    sample_free(&s);
}

/* The data end early, or are not there. */
static void lost_data(void **state) {
    (void)state;
    sample s = sample_make();
    for (int single = 0; single < 2; single++) {
        damage d = open_damage(&s, single, 6);
        size_t left = (size_t)disk_bytes(data_of(single));
        for (size_t size = 0; size < left; size += 113) {
            restore();
            assert_int_equal(truncate(data_of(single), (off_t)size), 0);
            whole(&d.r, d.path);
            assert_true(d.r.recalled < 6);
            check(d.want, d.path);
        }
        restore();
        assert_int_equal(unlink(data_of(single)), 0);
        whole(&d.r, d.path);
        assert_int_equal(d.r.recalled, 0);
        check(d.want, d.path);
        close_damage();
    }
    sample_free(&s);
}

static void endless_error(json_t *record) {
    json_array_set_new(json_object_get(record, "sums"), 1, json_string("inf"));
}

/* Sums that no writer would take are none to go on from. */
static void endless_sums(void **state) {
    (void)state;
    sample s = sample_make();
    for (int single = 0; single < 2; single++) {
        damage d = open_damage(&s, single, 4);
        edit_journal(in_scratch(single ? "at/.one.bin.journal" : "at/dir/journal"), "sums",
                     endless_error);
        whole(&d.r, d.path);
        assert_int_equal(d.r.recalled, 0);
        check(d.want, d.path);
        close_damage();
    }
    sample_free(&s);
}

/* A journal that cannot be opened costs nothing of what it tells of. */
static void unopened_journal(void **state) {
    (void)state;
    sample s = sample_make();
    for (int single = 0; single < 2; single++) {
        damage d = open_damage(&s, single, 6);
        novaq_error err = {0};
        nq_writer *w = NULL;
        int fd = open(journal_of(single), O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(flock(fd, LOCK_EX), 0);
        assert_int_equal(nq_writer_open_resumable(&w, &d.r.how, d.path, single, &KEY, false, &err),
                         NOVAQ_E_IO);
        assert_null(w);
        assert_int_equal(close(fd), 0);
        whole(&d.r, d.path);
        assert_int_equal(d.r.recalled, 6);
        check(d.want, d.path);
        close_damage();
    }
    sample_free(&s);
}

/* ---- other runs -------------------------------------------------------------------------------
 */

static void foreign_journals(void **state) {
    (void)state;
    static const nq_writer_key OTHERS[] = {{"another", "tensors", "origin"},
                                           {"recipe", "others", "origin"}};
    sample s = sample_make();
    for (int single = 0; single < 2; single++) {
        damage d = open_damage(&s, single, 6);
        for (size_t i = 0; i < 2; i++) {
            restore();
            nq_writer *w = open_run(&d.r, d.path, &OTHERS[i], false);
            assert_int_equal(d.r.how, NQ_RESUME_OTHER);
            put_layers(&d.r, w, d.r.count);
            assert_int_equal(d.r.recalled, 0);
            finish_run(&d.r, w);
            check(d.want, d.path);
        }
        /* Of the same name, but another form, garbage, a restart. */
        restore();
        put_file(journal_of(single), "no journal\n", 11);
        whole(&d.r, d.path);
        assert_int_equal(d.r.recalled, 0);
        check(d.want, d.path);
        restore();
        nq_writer *w = open_run(&d.r, d.path, &KEY, true);
        assert_int_equal(d.r.how, NQ_RESUME_NONE);
        put_layers(&d.r, w, d.r.count);
        assert_int_equal(d.r.recalled, 0);
        finish_run(&d.r, w);
        check(d.want, d.path);
        /* A writer without a journal sweeps it away. */
        restore();
        write_layers(d.path, single, d.r.layers, d.r.count, d.r.config, d.r.model);
        check(d.want, d.path);
        assert_int_equal(entries(in_scratch("at")), 1);
        close_damage();
    }
    sample_free(&s);
}

static void another_origin(void **state) {
    (void)state;
    static const nq_writer_key MOVED = {"recipe", "tensors", "elsewhere"};
    sample s = sample_make();
    for (int single = 0; single < 2; single++) {
        damage d = open_damage(&s, single, 6);
        nq_writer *w = open_run(&d.r, d.path, &MOVED, false);
        assert_int_equal(d.r.how, NQ_RESUME_DOUBTFUL);
        put_layers(&d.r, w, 8);
        assert_int_equal(d.r.recalled, 6);
        assert_true(nq_writer_leave(&w));
        /* From now on the new origin is the one that is trusted. */
        w = open_run(&d.r, d.path, &MOVED, false);
        assert_int_equal(d.r.how, NQ_RESUME_SAME);
        put_layers(&d.r, w, d.r.count);
        assert_int_equal(d.r.recalled, 8);
        finish_run(&d.r, w);
        check(d.want, d.path);
        close_damage();
    }
    sample_free(&s);
}

/* ---- notes ------------------------------------------------------------------------------------
 */

static void notes_are_kept(void **state) {
    (void)state;
    sample s = sample_make();
    for (int single = 0; single < 2; single++) {
        novaq_error err = {0};
        run r = sample_run(&s, single);
        const char *path = in_scratch(FORMS[single]);
        nq_writer *w = open_run(&r, path, &KEY, false);
        json_t *value = json_pack("[i,s]", 7, "seven");
        assert_null(nq_writer_noted(w, "first"));
        must(nq_writer_note(w, "first", value, &err), &err);
        assert_true(nq_writer_leave(&w));
        w = open_run(&r, path, &KEY, false);
        assert_true(json_equal(nq_writer_noted(w, "first"), value));
        must(nq_writer_note(w, "second", value, &err), &err);
        put_layers(&r, w, 3);
        assert_true(nq_writer_leave(&w));
        w = open_run(&r, path, &KEY, false);
        const json_t *note = NULL;
        assert_true(json_equal(nq_writer_noted(w, "first"), value));
        assert_true(json_equal(nq_writer_noted(w, "second"), value));
        assert_null(nq_writer_next(w, "another name", &note));
        assert_non_null(nq_writer_next(w, r.layers[0].name, &note));
        assert_string_equal(json_string_value(json_object_get(note, "of")), r.layers[0].name);
        /* All of it can be forgotten. */
        must(nq_writer_forget(w, &err), &err);
        assert_null(nq_writer_noted(w, "first"));
        put_layers(&r, w, 1);
        assert_int_equal(r.recalled, 0);
        nq_writer_abort(&w);
        json_decref(value);
        assert_int_equal(entries(scratch), 0);
    }
    sample_free(&s);
}

/* ---- a full disk ------------------------------------------------------------------------------
 */

/* In a child whose files may not grow beyond `limit` bytes; 0 when it came to the end,
 * else one more than the layers that were written. */
static int run_limited(run *r, const char *path, uint64_t limit) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit most = {limit, limit};
        novaq_error err = {0};
        nq_writer *w = NULL;
        (void)signal(SIGXFSZ, SIG_IGN);
        novaq_status st = setrlimit(RLIMIT_FSIZE, &most) == 0 ? NOVAQ_OK : NOVAQ_E_ARG;
        if (st == NOVAQ_OK) {
            st = nq_writer_open_resumable(&w, &r->how, path, r->single, &KEY, false, &err);
        }
        int layers = 0;
        for (size_t i = 0; st == NOVAQ_OK && i < r->count; i++) {
            nq_layer got;
            bool found = false;
            st = nq_writer_recall(&got, &found, w, r->layers[i].name, &err);
            if (st == NOVAQ_OK && !found) {
                st = nq_writer_add(w, &r->layers[i], &err);
            }
            layers += st == NOVAQ_OK;
        }
        if (st == NOVAQ_OK) {
            st = nq_writer_finish(&w, "tests/sample", r->config, r->model, NULL, &err);
        }
        (void)nq_writer_leave(&w);
        _exit(st == NOVAQ_OK ? 0 : st == NOVAQ_E_IO ? 1 + layers : 100);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void full_disk(void **state) {
    (void)state;
    sample s = sample_make();
    for (int single = 0; single < 2; single++) {
        char want[NQ_BLAKE3_HEX + 1];
        novaq_error err = {0};
        run r = sample_run(&s, single);
        const char *path = in_scratch(FORMS[single]);
        unsigned failed = 0;
        size_t recalled = 0;
        reference(want, &r);
        for (uint64_t limit = 0; limit < 20000; limit += 933) {
            int code = run_limited(&r, path, limit);
            assert_in_range(code, 0, 1 + SAMPLE_LAYERS);
            if (code != 0) {
                failed++;
                assert_true(verify_quietly(path, &err) != NOVAQ_OK);
                whole(&r, path);
                assert_int_equal(r.recalled, code - 1);
                recalled += r.recalled;
            }
            check(want, path);
            assert_int_equal(entries(scratch), 1);
            remove_tree(path);
        }
        assert_in_range(failed, 5, 20);
        assert_true(recalled > SAMPLE_LAYERS);
    }
    sample_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_layer),        cmocka_unit_test(leaving_a_replay),
        cmocka_unit_test(many_chunks),      cmocka_unit_test(torn_journal),
        cmocka_unit_test(flipped_bytes),    cmocka_unit_test(lost_data),
        cmocka_unit_test(foreign_journals), cmocka_unit_test(another_origin),
        cmocka_unit_test(notes_are_kept),   cmocka_unit_test(full_disk),
        cmocka_unit_test(published_chunks), cmocka_unit_test(another_chunk),
        cmocka_unit_test(little_memory),    cmocka_unit_test(endless_sums),
        cmocka_unit_test(unopened_journal),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}

/* sample_artifact.h - a small model of every kind of layer, for the artifact
 * tests: written with made-up symbols, so that no encoder is needed. */
#ifndef SAMPLE_ARTIFACT_H
#define SAMPLE_ARTIFACT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "artifact/manifest.h"
#include "artifact/write.h"
#include "base/half.h"
#include "base/rng.h"
#include "io/fs.h"

#define SAMPLE_LAYERS 10

typedef struct sample {
    nq_layer layer[SAMPLE_LAYERS];
    json_t *model;
    json_t *config;
} sample;

/* A scratch directory of this test program, removed by scratch_close(). */
static char scratch[256];

static inline int scratch_open(void **state) {
    (void)state;
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(scratch, sizeof scratch, "%s/novaq-test-XXXXXX", tmp != NULL ? tmp : "/tmp");
    return mkdtemp(scratch) == NULL ? -1 : 0;
}

/* Removes a file or a directory of files (no deeper). */
static inline void remove_tree(const char *path) {
    char **names = NULL;
    size_t count = 0;
    if (nq_is_dir(path) && nq_list_dir(&names, &count, path, NULL) == NOVAQ_OK) {
        for (size_t i = 0; i < count; i++) {
            char *child = NULL;
            assert_int_equal(nq_path_join(&child, path, names[i], NULL), NOVAQ_OK);
            remove_tree(child);
            nq_free(child);
        }
        nq_free_names(names, count);
        (void)rmdir(path);
    } else {
        (void)unlink(path);
    }
}

static inline int scratch_close(void **state) {
    (void)state;
    remove_tree(scratch);
    return 0;
}

/* scratch/name, in one of a few rotating buffers. */
static inline const char *in_scratch(const char *name) {
    static char buffers[8][512];
    static unsigned next;
    char *b = buffers[next++ % 8];
    (void)snprintf(b, sizeof buffers[0], "%s/%s", scratch, name);
    return b;
}

static inline void *take(uint64_t count, uint64_t size) {
    void *p = NULL;
    assert_int_equal(nq_alloc(&p, count, size, NULL), NOVAQ_OK);
    return p;
}

static inline uint16_t *make_halves(uint64_t count, float base) {
    uint16_t *h = take(count, 2);
    for (uint64_t i = 0; i < count; i++) {
        h[i] = nq_f32_to_f16(base * (1.0F + (float)(i % 7) / 8.0F));
    }
    return h;
}

/* Column exponents, odd and even, one as large as any. */
static inline int8_t *make_exponents(uint64_t cols) {
    int8_t *e = take(cols, 1);
    for (uint64_t c = 0; c < cols; c++) {
        e[c] = (int8_t)(c == 0 ? NQ_COL_EXPONENT_MAX : (int)(c * 5 % 13) - 6);
    }
    return e;
}

/* Random symbols below K, packed. */
static inline uint8_t *make_symbols(const nq_qmat *q, uint64_t seed) {
    const nq_scheme *s = &q->scheme;
    uint64_t row_bytes = nq_scheme_row_bytes(s, q->cols);
    uint64_t stride = nq_scheme_row_symbols(s, q->cols);
    uint8_t *packed = take(q->rows, row_bytes);
    uint8_t *symbols = take(stride, NQ_MAX_FIELDS);
    for (uint64_t i = 0; i < q->rows; i++) {
        for (unsigned f = 0; f < s->fields; f++) {
            for (uint64_t j = 0; j < (q->cols + s->d - 1) / s->d; j++) {
                uint64_t r = nq_hash3(seed, i * NQ_MAX_FIELDS + f, j);
                symbols[f * stride + j] = (uint8_t)(r % s->k[f]);
            }
        }
        nq_symbols_pack(packed + i * row_bytes, s, symbols, q->cols);
    }
    nq_free(symbols);
    return packed;
}

static inline void make_code(nq_layer *l, const char *name, const char *scheme, uint64_t rows,
                             uint64_t cols, uint32_t groups, uint64_t group_cols) {
    *l = (nq_layer){.name = name, .rank = 2, .shape = {rows, cols}, .elements = rows * cols};
    l->source_dtype = NQ_F16;
    l->role = NQ_ROLE_LINEAR;
    assert_int_equal(nq_scheme_parse(&l->scheme, scheme, NULL), NOVAQ_OK);
    nq_qmat *q = &l->q;
    q->scheme = l->scheme;
    q->rows = rows;
    q->cols = cols;
    q->segment_rows = 4;
    q->groups = groups;
    q->group_cols = group_cols;
    q->exponent = -3;
    q->row_scale = make_halves(rows, 0.5F);
    if (l->scheme.kind == NQ_SCHEME_Q8) {
        q->symbols = take(rows, cols);
        for (uint64_t i = 0; i < rows * cols; i++) {
            ((uint8_t *)(uintptr_t)q->symbols)[i] = (uint8_t)(i * 37);
        }
    } else {
        q->symbols = make_symbols(q, rows);
        q->codebook_scale = make_halves(groups, 0.03F);
        int8_t *books = take(nq_qmat_codebook_bytes(q), 1);
        for (uint64_t i = 0; i < nq_qmat_codebook_bytes(q); i++) {
            books[i] = (int8_t)((int)(nq_hash3(cols, 1, i) % 81) - 40);
        }
        q->codebooks = books;
    }
    l->error = (nq_layer_error){0.25, 16.0, 15.5, 15.625};
}

static inline void make_plain(nq_layer *l, const char *name, const char *scheme, nq_dtype dtype,
                              uint32_t rank, uint64_t a, uint64_t b, uint64_t bytes) {
    *l = (nq_layer){.name = name, .rank = rank, .shape = {rank > 0 ? a : 0, rank > 1 ? b : 0}};
    l->elements = rank == 0 ? 1 : rank == 1 ? a : a * b;
    l->source_dtype = dtype;
    l->role = NQ_ROLE_OTHER;
    assert_int_equal(nq_scheme_parse(&l->scheme, scheme, NULL), NOVAQ_OK);
    uint8_t *data = take(bytes, 1);
    for (uint64_t i = 0; i < bytes; i++) {
        data[i] = (uint8_t)(i * 11 % 64);
    }
    l->data = data;
    l->data_bytes = bytes;
    l->error = (nq_layer_error){0, 2.0, 2.0, 2.0};
}

static inline sample sample_make(void) {
    sample s = {0};
    nq_layer *l = s.layer;
    make_code(&l[0], "blk.0.attn_q.weight", "k16d2l3", 12, 48, 1, 48);
    l[0].q.rotation = (nq_rotation){.block = 16, .seed = UINT64_MAX};
    l[0].q.col_exponent = make_exponents(48);
    l[0].diagnostics = json_pack("{s:f,s:i}", "kurtosis", 3.25, "subspaces", 24);
    make_code(&l[1], "blk.0.attn_k.weight", "pq16x8d4", 8, 40, 2, 20);
    l[1].q.row_mean = make_halves(8, 0.125F);
    l[1].q.col_exponent = make_exponents(40);
    make_code(&l[2], "blk.0.attn_v.weight", "k6d3l2", 5, 31, 1, 31);
    make_code(&l[3], "blk.0.ffn_up.weight", "q8", 6, 64, 1, 64);
    l[3].q.rotation = (nq_rotation){.block = 64, .seed = 7};
    l[3].role = NQ_ROLE_HEAD;
    make_plain(&l[4], "blk.0.attn_norm.weight", "raw", NQ_F32, 1, 48, 0, 192);
    make_plain(&l[5], "token_embd.weight", "bf16", NQ_F32, 2, 4, 9, 72);
    l[5].role = NQ_ROLE_EMBEDDING;
    make_plain(&l[6], "scale", "raw", NQ_F32, 0, 0, 0, 4);
    make_plain(&l[7], "blocks", "raw", NQ_Q4_0, 2, 2, 32, 36);
    make_plain(&l[8], "nothing", "raw", NQ_F32, 2, 0, 4, 0);
    make_code(&l[9], "odd \"name\" \\ \n \xC3\xA9/symbols", "k200d1l1", 3, 17, 1, 17);
    s.config = json_pack("{s:f,s:i,s:s}", "target_bits", 1.5, "seed", 42, "normalize", "rotate");
    s.model = json_pack("{s:s,s:{s:i},s:{s:s,s:[s,s,s],s:i}}", "architecture", "custom",
                        "hyperparameters", "block_count", 1, "tokenizer", "model", "gpt2", "tokens",
                        "a", "b", "\xC4\xA0the", "bos_id", 1);
    assert_non_null(s.model);
    return s;
}

static inline void layer_free(nq_layer *l) {
    nq_free((void *)(uintptr_t)l->data);
    nq_free((void *)(uintptr_t)l->q.symbols);
    nq_free((void *)(uintptr_t)l->q.codebooks);
    nq_free((void *)(uintptr_t)l->q.codebook_scale);
    nq_free((void *)(uintptr_t)l->q.row_scale);
    nq_free((void *)(uintptr_t)l->q.row_mean);
    nq_free((void *)(uintptr_t)l->q.col_exponent);
    json_decref((json_t *)(uintptr_t)l->diagnostics);
}

static inline void sample_free(sample *s) {
    for (int i = 0; i < SAMPLE_LAYERS; i++) {
        layer_free(&s->layer[i]);
    }
    json_decref(s->model);
    json_decref(s->config);
}

/* Fails the test with the library's own message. */
static inline void must(novaq_status st, const novaq_error *err) {
    if (st != NOVAQ_OK) {
        fail_msg("%s: %s", novaq_status_name(st), err->msg);
    }
}

static inline void write_layers(const char *path, int single, const nq_layer *layers, size_t n,
                                const json_t *config, const json_t *model) {
    novaq_error err = {0};
    nq_writer *w = NULL;
    must(nq_writer_open(&w, path, single, &err), &err);
    for (size_t i = 0; i < n; i++) {
        must(nq_writer_add(w, &layers[i], &err), &err);
    }
    must(nq_writer_finish(&w, "tests/sample", config, model, NULL, &err), &err);
    assert_null(w);
}

static inline void sample_write(const char *path, int single) {
    sample s = sample_make();
    write_layers(path, single, s.layer, SAMPLE_LAYERS, s.config, s.model);
    sample_free(&s);
}

static inline novaq_status verify_quietly(const char *path, novaq_error *err) {
    *err = (novaq_error){0};
    return novaq_verify(NULL, path, 1, NULL, NULL, err);
}

/* Bytes of every file under path. */
static inline uint64_t disk_bytes(const char *path) {
    if (!nq_is_dir(path)) {
        struct stat st;
        assert_int_equal(stat(path, &st), 0);
        return (uint64_t)st.st_size;
    }
    char **names = NULL;
    size_t count = 0;
    uint64_t sum = 0;
    assert_int_equal(nq_list_dir(&names, &count, path, NULL), NOVAQ_OK);
    for (size_t i = 0; i < count; i++) {
        char *child = NULL;
        assert_int_equal(nq_path_join(&child, path, names[i], NULL), NOVAQ_OK);
        sum += disk_bytes(child);
        nq_free(child);
    }
    nq_free_names(names, count);
    return sum;
}

static inline size_t entries(const char *path) {
    char **names = NULL;
    size_t count = 0;
    assert_int_equal(nq_list_dir(&names, &count, path, NULL), NOVAQ_OK);
    nq_free_names(names, count);
    return count;
}

/* Writes a file without ceremony (no fsync: these tests do it thousands of times). */
static inline void put_file(const char *path, const void *data, size_t len) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

/* The path of the only chunk file of a small directory artifact. */
static inline const char *only_chunk(const char *dir) {
    static char path[512];
    char **names = NULL;
    size_t count = 0;
    assert_int_equal(nq_list_dir(&names, &count, dir, NULL), NOVAQ_OK);
    assert_int_equal(count, 2);
    assert_true(nq_is_chunk_name(names[0]));
    (void)snprintf(path, sizeof path, "%s/%s", dir, names[0]);
    nq_free_names(names, count);
    return path;
}

#endif

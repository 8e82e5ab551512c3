/* synthetic.c - see synthetic.h. */
#include "compress/synthetic.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "artifact/write.h"
#include "base/half.h"
#include "base/mem.h"
#include "base/rng.h"
#include "compress/tensor_rules.h"
#include "quant/codebook.h"

#define SEGMENT_ROWS 256
#define TASK_ROWS    64 /* rows one task fills */
#define NAME_SIZE    64

/* ---- shapes ------------------------------------------------------------------ */

typedef struct shape {
    const char *name;
    const char *architecture;
    uint32_t dim, ff, blocks, heads, heads_kv, vocab, context;
    double theta;
    bool tied;
    bool biases; /* of queries, keys and values */
} shape;

static const shape SHAPES[] = {
    {"tiny", "llama", 256, 512, 2, 4, 2, 512, 512, 1e4, true, false},
    {"llama-1b", "llama", 2048, 5632, 22, 32, 4, 49152, 4096, 1e4, true, false},
    {"llama-2-7b", "llama", 4096, 11008, 32, 32, 32, 32000, 4096, 1e4, false, false},
    {"llama-2-13b", "llama", 5120, 13824, 40, 40, 40, 32000, 4096, 1e4, false, false},
    {"llama-3-8b", "llama", 4096, 14336, 32, 32, 8, 128256, 8192, 5e5, false, false},
    {"llama-3.2-1b", "llama", 2048, 8192, 16, 32, 8, 128256, 131072, 5e5, true, false},
    {"llama-3.2-3b", "llama", 3072, 8192, 28, 24, 8, 128256, 131072, 5e5, true, false},
    {"mistral-7b", "llama", 4096, 14336, 32, 32, 8, 32768, 32768, 1e6, false, false},
    {"tinyllama-1.1b", "llama", 2048, 5632, 22, 32, 4, 32000, 2048, 1e4, false, false},
    {"smollm2-135m", "llama", 576, 1536, 30, 9, 3, 49152, 8192, 1e5, true, false},
    {"smollm2-360m", "llama", 960, 2560, 32, 15, 5, 49152, 8192, 1e5, true, false},
    {"smollm2-1.7b", "llama", 2048, 8192, 24, 32, 32, 49152, 8192, 1.3e5, true, false},
    {"qwen2.5-0.5b", "qwen2", 896, 4864, 24, 14, 2, 151936, 32768, 1e6, true, true},
    {"qwen2.5-1.5b", "qwen2", 1536, 8960, 28, 12, 2, 151936, 32768, 1e6, true, true},
    {"qwen2.5-7b", "qwen2", 3584, 18944, 28, 28, 4, 152064, 32768, 1e6, false, true},
};
#define SHAPE_COUNT (sizeof SHAPES / sizeof SHAPES[0])

static novaq_status find_shape(const shape **out, const char *name, novaq_error *err) {
    char list[512] = "";
    size_t used = 0;
    for (size_t i = 0; i < SHAPE_COUNT; i++) {
        if (strcmp(SHAPES[i].name, name) == 0) {
            *out = &SHAPES[i];
            return NOVAQ_OK;
        }
        int n =
            snprintf(list + used, sizeof list - used, "%s%s", i == 0 ? "" : ", ", SHAPES[i].name);
        used += n > 0 && (size_t)n < sizeof list - used ? (size_t)n : 0;
    }
    *out = NULL;
    return nq_fail(err, NOVAQ_E_ARG, "no shape '%s'; there are %s", name, list);
}

novaq_status nq_synthetic_shapes(json_t **out, novaq_error *err) {
    json_t *list = json_array();
    int failed = 0;
    for (size_t i = 0; i < SHAPE_COUNT; i++) {
        const shape *s = &SHAPES[i];
        failed |= json_array_append_new(
            list,
            json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "name", s->name,
                      "architecture", s->architecture, "embedding_length", (json_int_t)s->dim,
                      "feed_forward_length", (json_int_t)s->ff, "block_count",
                      (json_int_t)s->blocks, "head_count", (json_int_t)s->heads, "head_count_kv",
                      (json_int_t)s->heads_kv, "vocab_size", (json_int_t)s->vocab, "context_length",
                      (json_int_t)s->context, "tied", (int)s->tied));
    }
    *out = json_pack("{s:o}", "shapes", list);
    if (failed != 0 || *out == NULL) {
        json_decref(*out);
        *out = NULL;
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot list the shapes");
    }
    return NOVAQ_OK;
}

/* What the runtime reads of a model, see model/describe.h. */
static novaq_status describe(json_t **out, const shape *s, const char *scheme, novaq_error *err) {
    uint32_t head_dim = s->dim / s->heads;
    const char *style = strcmp(s->architecture, "llama") == 0 ? "interleaved" : "half";
    char name[NAME_SIZE + NQ_SCHEME_NAME];
    (void)snprintf(name, sizeof name, "%s %s random", s->name, scheme);
    *out = json_pack(
        "{s:s, s:s, s:s, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:s, s:f, s:I, s:b}}",
        "architecture", s->architecture, "source_format", "gguf", "name", name, "hyperparameters",
        "block_count", (json_int_t)s->blocks, "context_length", (json_int_t)s->context,
        "embedding_length", (json_int_t)s->dim, "feed_forward_length", (json_int_t)s->ff,
        "head_count", (json_int_t)s->heads, "head_count_kv", (json_int_t)s->heads_kv, "head_dim",
        (json_int_t)head_dim, "rope_dim", (json_int_t)head_dim, "rope_theta", s->theta,
        "rope_style", style, "rms_eps", 1e-5, "vocab_size", (json_int_t)s->vocab, "tie_embeddings",
        (int)s->tied);
    return *out != NULL ? NOVAQ_OK : nq_fail(err, NOVAQ_E_MEMORY, "cannot describe the model");
}

/* ---- schemes ------------------------------------------------------------------- */

novaq_status nq_synthetic_scheme(nq_scheme *out, double bits, novaq_error *err) {
    static const struct {
        double bits;
        const char *scheme;
    } rates[] = {{1, "k16d4l1"}, {1.5, "k8d2l2"}, {2, "k16d2l2"}, {3, "k8d1l2"}, {4, "k16d1l2"}};
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        if (fabs(rates[i].bits - bits) < 1e-9) {
            return nq_scheme_parse(out, rates[i].scheme, err);
        }
    }
    return nq_fail(err, NOVAQ_E_ARG,
                   "random content comes in 1, 1.5, 2, 3 or 4 bits, not %g; name a scheme instead",
                   bits);
}

/* ---- one model being written ---------------------------------------------------- */

typedef struct synthesis {
    const nq_synthetic *opt;
    const shape *shape;
    nq_scheme scheme;
    nq_rules *rules;
    nq_writer *writer;
    nq_pool *pool;
    nq_codebook codebook; /* of the scheme coded last */
    uint64_t done, total; /* elements */
} synthesis;

/* Rows of one tensor, filled in parallel. */
typedef struct filling {
    const nq_scheme *scheme;
    uint8_t *data;        /* (rows, row_bytes) */
    uint8_t *symbols;     /* (workers, fields * row symbols), for packing; or NULL */
    uint64_t symbol_room; /* bytes of one worker's symbols */
    uint64_t rows, cols, row_bytes;
    uint64_t seed, stream;
    uint64_t keep, set; /* of every 8 random bytes: bits kept, bits set */
} filling;

/* Every byte is a valid code: whole units of fields that use all their bits. */
static bool any_bytes_fit(const nq_scheme *s, uint64_t cols) {
    for (unsigned f = 0; f < s->fields; f++) {
        if (s->k[f] != 1U << nq_scheme_field_bits(s, f)) {
            return false;
        }
    }
    return cols % ((uint64_t)s->d * 8) == 0;
}

static void random_bytes(uint8_t *out, uint64_t len, const filling *f, uint64_t row) {
    uint64_t words = (f->row_bytes + 7) / 8;
    for (uint64_t i = 0; i * 8 < len; i++) {
        uint64_t v = (nq_hash3(f->seed, f->stream, row * words + i) & f->keep) | f->set;
        memcpy(out + i * 8, &v, len - i * 8 < 8 ? len - i * 8 : 8);
    }
}

static void pack_row(const filling *f, uint64_t row, uint8_t *symbols) {
    const nq_scheme *s = f->scheme;
    uint64_t stride = nq_scheme_row_symbols(s, f->cols);
    uint64_t used = (f->cols + s->d - 1) / s->d;
    memset(symbols, 0, s->fields * stride);
    for (unsigned k = 0; k < s->fields; k++) {
        for (uint64_t j = 0; j < used; j++) {
            uint64_t h = nq_hash3(f->seed, f->stream, (row * s->fields + k) * stride + j);
            symbols[k * stride + j] = (uint8_t)(h % s->k[k]);
        }
    }
    nq_symbols_pack(f->data + row * f->row_bytes, s, symbols, f->cols);
}

static void fill_task(void *ctx, uint64_t task, unsigned worker) {
    const filling *f = ctx;
    uint64_t end = (task + 1) * TASK_ROWS < f->rows ? (task + 1) * TASK_ROWS : f->rows;
    for (uint64_t row = task * TASK_ROWS; row < end; row++) {
        uint8_t *out = f->data + row * f->row_bytes;
        if (f->symbols != NULL) {
            pack_row(f, row, f->symbols + worker * f->symbol_room);
            continue;
        }
        random_bytes(out, f->row_bytes, f, row);
        for (uint64_t i = 0; f->scheme->kind == NQ_SCHEME_Q8 && i < f->cols; i++) {
            out[i] = out[i] == 0x80 ? 0x81 : out[i]; /* -127 to 127 */
        }
    }
}

static novaq_status report(synthesis *z, const char *item, novaq_error *err) {
    novaq_progress p = {"synthesize", item, z->done, z->total, "weights", NAN, 0, 0, 0};
    if (z->opt->progress != NULL && z->opt->progress(z->opt->progress_ctx, &p) != 0) {
        return nq_fail(err, NOVAQ_E_INTERRUPTED, "interrupted");
    }
    return NOVAQ_OK;
}

static void set_shape(nq_layer *l, uint64_t rows, uint64_t cols) {
    l->rank = rows == 0 ? 1 : 2;
    l->shape[0] = rows == 0 ? cols : rows;
    l->shape[1] = rows == 0 ? 0 : cols;
    l->elements = (rows == 0 ? 1 : rows) * cols;
    l->source_dtype = rows == 0 ? NQ_F32 : NQ_F16;
}

static novaq_status put_layer(synthesis *z, const nq_layer *l, novaq_error *err) {
    NQ_TRY(nq_writer_add(z->writer, l, err));
    z->done += l->elements;
    return report(z, l->name, err);
}

/* Norms are 1, biases 0. */
static novaq_status put_vector(synthesis *z, const char *name, uint64_t n, float value,
                               novaq_error *err) {
    float *x = NULL;
    NQ_TRY(nq_alloc(&x, n, sizeof *x, err));
    for (uint64_t i = 0; i < n; i++) {
        x[i] = value;
    }
    nq_layer l = {.name = name,
                  .role = NQ_ROLE_OTHER,
                  .scheme = {.kind = NQ_SCHEME_F32, .d = 1},
                  .data = (const uint8_t *)x,
                  .data_bytes = n * sizeof *x};
    set_shape(&l, 0, n);
    novaq_status st = put_layer(z, &l, err);
    nq_free(x);
    return st;
}

/* Random floats of one binade, so that no value is special: sign and mantissa are
 * random, the exponent is that of a deviation just below 1/sqrt(cols). */
static void float_bits(filling *f) {
    int e = (int)floor(-0.5 * log2((double)f->cols));
    bool half = f->scheme->kind == NQ_SCHEME_F16;
    bool wide = f->scheme->kind == NQ_SCHEME_F32;
    unsigned mantissa = half ? 10 : wide ? 23 : 7;
    unsigned width = wide ? 32 : 16;
    uint64_t exponent = (uint64_t)((half ? 15 : 127) + (e - 1)) << mantissa;
    uint64_t keep = (1ULL << (width - 1)) | ((1ULL << mantissa) - 1);
    f->keep = 0;
    for (unsigned at = 0; at < 64; at += width) {
        f->keep |= keep << at;
        f->set |= exponent << at;
    }
}

/* Mean square of a weight whose symbols are equally likely, before the row scale. */
static double mean_square(const nq_codebook *cb) {
    const nq_scheme *s = &cb->scheme;
    const float *values = cb->values;
    double total = 0;
    for (unsigned v = 0; v < s->d; v++) {
        double mean = 0;
        double variance = 0;
        const float *level = values;
        for (unsigned l = 0; l < s->levels; l++) {
            unsigned k = s->k[s->field[l]];
            double sum = 0;
            double sq = 0;
            for (unsigned b = 0; b < k; b++) {
                double x = (double)level[(size_t)b * s->d + v];
                sum += x;
                sq += x * x;
            }
            mean += sum / k;
            variance += sq / k - sum / k * (sum / k);
            level += (size_t)k * s->d;
        }
        total += variance + mean * mean;
    }
    return total / s->d;
}

static bool same_scheme(const nq_scheme *a, const nq_scheme *b) {
    char x[NQ_SCHEME_NAME];
    char y[NQ_SCHEME_NAME];
    return strcmp(nq_scheme_name(x, a), nq_scheme_name(y, b)) == 0;
}

/* The pieces besides the symbols: codebook, and the row scale that gives outputs of
 * unit variance for inputs of unit variance. row_scale (q->rows) is filled. */
static novaq_status complete_matrix(synthesis *z, nq_qmat *q, uint16_t *row_scale,
                                    novaq_error *err) {
    const double uniform8 = 127.0 * 128.0 / 3.0; /* mean square of -127 to 127 */
    double square = uniform8;
    q->segment_rows = SEGMENT_ROWS;
    q->groups = 1;
    q->group_cols = q->cols;
    q->rotation = (nq_rotation){.block = nq_rotation_block(q->cols), .seed = z->opt->seed};
    if (q->scheme.kind == NQ_SCHEME_CODE) {
        if (z->codebook.entries == NULL || !same_scheme(&z->codebook.scheme, &q->scheme)) {
            nq_codebook_close(&z->codebook);
            NQ_TRY(nq_codebook_gaussian(&z->codebook, &q->scheme, err));
        }
        q->codebooks = z->codebook.entries;
        q->codebook_scale = &z->codebook.scale;
        square = mean_square(&z->codebook);
    }
    uint16_t scale = nq_f32_to_f16((float)(1.0 / sqrt((double)q->cols * square)));
    for (uint64_t i = 0; i < q->rows; i++) {
        row_scale[i] = scale;
    }
    q->row_scale = row_scale;
    return NOVAQ_OK;
}

static novaq_status fill_rows(synthesis *z, filling *f, novaq_error *err) {
    const nq_scheme *s = f->scheme;
    f->keep = UINT64_MAX;
    if (s->kind == NQ_SCHEME_CODE && !any_bytes_fit(s, f->cols)) {
        f->symbol_room = s->fields * nq_scheme_row_symbols(s, f->cols);
        NQ_TRY(nq_alloc_raw(&f->symbols, nq_pool_threads(z->pool), f->symbol_room, err));
    } else if (s->kind != NQ_SCHEME_CODE && s->kind != NQ_SCHEME_Q8) {
        float_bits(f);
    }
    nq_pool_run(z->pool, fill_task, f, (f->rows + TASK_ROWS - 1) / TASK_ROWS);
    nq_free(f->symbols);
    return NOVAQ_OK;
}

static novaq_status put_matrix(synthesis *z, const char *name, nq_role role, uint64_t rows,
                               uint64_t cols, novaq_error *err) {
    const nq_scheme *rule = nq_rules_match(z->rules, name);
    nq_layer l = {.name = name, .role = role, .scheme = rule != NULL ? *rule : z->scheme};
    filling f = {.scheme = &l.scheme,
                 .rows = rows,
                 .cols = cols,
                 .row_bytes = nq_scheme_row_bytes(&l.scheme, cols),
                 .seed = z->opt->seed,
                 .stream = nq_stream(name)};
    bool coded = l.scheme.kind == NQ_SCHEME_CODE || l.scheme.kind == NQ_SCHEME_Q8;
    uint16_t *row_scale = NULL;
    set_shape(&l, rows, cols);
    if (l.scheme.kind == NQ_SCHEME_RAW) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: random content has no source to keep raw; use f16",
                       name);
    }
    NQ_TRY(nq_alloc_raw(&f.data, rows, f.row_bytes, err));
    novaq_status st = nq_alloc_raw(&row_scale, rows, sizeof *row_scale, err);
    if (st == NOVAQ_OK) {
        st = fill_rows(z, &f, err);
    }
    if (coded) {
        l.q = (nq_qmat){.scheme = l.scheme, .rows = rows, .cols = cols, .symbols = f.data};
        st = st == NOVAQ_OK ? complete_matrix(z, &l.q, row_scale, err) : st;
    } else {
        l.data = f.data;
        l.data_bytes = rows * f.row_bytes;
    }
    if (st == NOVAQ_OK) {
        st = put_layer(z, &l, err);
    }
    nq_free(row_scale);
    nq_free(f.data);
    return st;
}

/* ---- the tensors of a model -------------------------------------------------------- */

/* rows 0: a vector; 1 for norms, 0 for biases. */
static novaq_status put_block_tensor(synthesis *z, unsigned block, const char *what, uint64_t rows,
                                     uint64_t cols, novaq_error *err) {
    char name[NAME_SIZE];
    bool bias = strstr(what, ".bias") != NULL;
    (void)snprintf(name, sizeof name, "blk.%u.%s", block, what);
    return rows == 0 ? put_vector(z, name, cols, bias ? 0.0F : 1.0F, err)
                     : put_matrix(z, name, NQ_ROLE_LINEAR, rows, cols, err);
}

static novaq_status put_block(synthesis *z, unsigned i, novaq_error *err) {
    const shape *s = z->shape;
    uint64_t kv = (uint64_t)(s->dim / s->heads) * s->heads_kv;
    NQ_TRY(put_block_tensor(z, i, "attn_norm.weight", 0, s->dim, err));
    NQ_TRY(put_block_tensor(z, i, "attn_q.weight", s->dim, s->dim, err));
    NQ_TRY(put_block_tensor(z, i, "attn_k.weight", kv, s->dim, err));
    NQ_TRY(put_block_tensor(z, i, "attn_v.weight", kv, s->dim, err));
    if (s->biases) {
        NQ_TRY(put_block_tensor(z, i, "attn_q.bias", 0, s->dim, err));
        NQ_TRY(put_block_tensor(z, i, "attn_k.bias", 0, kv, err));
        NQ_TRY(put_block_tensor(z, i, "attn_v.bias", 0, kv, err));
    }
    NQ_TRY(put_block_tensor(z, i, "attn_output.weight", s->dim, s->dim, err));
    NQ_TRY(put_block_tensor(z, i, "ffn_norm.weight", 0, s->dim, err));
    NQ_TRY(put_block_tensor(z, i, "ffn_gate.weight", s->ff, s->dim, err));
    NQ_TRY(put_block_tensor(z, i, "ffn_up.weight", s->ff, s->dim, err));
    return put_block_tensor(z, i, "ffn_down.weight", s->dim, s->ff, err);
}

static uint64_t parameters(const shape *s) {
    uint64_t kv = (uint64_t)(s->dim / s->heads) * s->heads_kv;
    uint64_t attention = 2 * (uint64_t)s->dim * s->dim + 2 * kv * s->dim;
    uint64_t block = attention + 3 * (uint64_t)s->ff * s->dim + 2 * (uint64_t)s->dim +
                     (s->biases ? s->dim + 2 * kv : 0);
    return s->blocks * block + (s->tied ? 1U : 2U) * (uint64_t)s->vocab * s->dim + s->dim;
}

static novaq_status put_tensors(synthesis *z, novaq_error *err) {
    const shape *s = z->shape;
    z->total = parameters(s);
    NQ_TRY(put_matrix(z, "token_embd.weight", NQ_ROLE_EMBEDDING, s->vocab, s->dim, err));
    for (unsigned i = 0; i < s->blocks; i++) {
        NQ_TRY(put_block(z, i, err));
    }
    NQ_TRY(put_vector(z, "output_norm.weight", s->dim, 1.0F, err));
    return s->tied ? NOVAQ_OK : put_matrix(z, "output.weight", NQ_ROLE_HEAD, s->vocab, s->dim, err);
}

static novaq_status check_rules(const synthesis *z, novaq_error *err) {
    for (size_t i = 0; i < z->opt->tensor_type_count; i++) {
        if (!nq_rules_used(z->rules, i)) {
            return nq_fail(err, NOVAQ_E_ARG, "no tensor of %s matches '%s'", z->shape->name,
                           z->opt->tensor_types[i]);
        }
    }
    return NOVAQ_OK;
}

static novaq_status finish(synthesis *z, novaq_error *err) {
    char scheme[NQ_SCHEME_NAME];
    char source[NAME_SIZE];
    json_t *model = NULL;
    (void)nq_scheme_name(scheme, &z->scheme);
    (void)snprintf(source, sizeof source, "random:%s", z->shape->name);
    NQ_TRY(describe(&model, z->shape, scheme, err));
    json_t *config = json_pack("{s:s, s:s, s:I, s:i}", "random", z->shape->name, "scheme", scheme,
                               "seed", (json_int_t)z->opt->seed, "segment_rows", SEGMENT_ROWS);
    novaq_status st = config != NULL
                          ? nq_writer_finish(&z->writer, source, config, model, NULL, err)
                          : nq_fail(err, NOVAQ_E_MEMORY, "cannot describe the model");
    json_decref(config);
    json_decref(model);
    return st;
}

novaq_status nq_synthetic_write(const char *path, const nq_synthetic *s, nq_pool *pool,
                                novaq_error *err) {
    synthesis z = {.opt = s, .pool = pool};
    NQ_TRY(find_shape(&z.shape, s->shape, err));
    NQ_TRY(s->scheme != NULL ? nq_scheme_parse(&z.scheme, s->scheme, err)
                             : nq_synthetic_scheme(&z.scheme, s->bits, err));
    NQ_TRY(nq_rules_open(&z.rules, s->tensor_types, s->tensor_type_count, err));
    novaq_status st = nq_writer_open(&z.writer, path, s->single_file, err);
    if (st == NOVAQ_OK) {
        st = put_tensors(&z, err);
    }
    if (st == NOVAQ_OK) {
        st = check_rules(&z, err);
    }
    if (st == NOVAQ_OK) {
        st = finish(&z, err);
    }
    nq_writer_abort(&z.writer);
    nq_codebook_close(&z.codebook);
    nq_rules_close(&z.rules);
    return st;
}

/* bench_run.c - how fast a model runs.
 *
 * Owns: novaq_bench(): prompts in blocks and tokens one by one, timed as
 * llama-bench does: every test is warmed up once, then repeated on an empty cache
 * (or one filled to a depth, which is not timed); mean and standard deviation of
 * tokens per second. Also the time to open the model and the most memory it took.
 * Refuses: text and sampling; tokens are random, the next one is not the argmax,
 * which is computed all the same.
 */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/rng.h"
#include "compress/synthetic.h"
#include "eval/size.h"
#include "io/fs.h"
#include "model/model.h"

#define BLOCK      512U /* tokens fed at once */
#define LIST_MAX   64
#define TOKENS_MAX (1U << 24)
#define REPEAT_MAX 10000U

typedef struct list {
    const unsigned *items;
    size_t count;
} list;

typedef struct bench {
    const novaq_bench_options *opt;
    list prompt, generate, depth, threads;
    const char *path;
    char *folder; /* temporary, ours alone; or NULL */
    nq_pool *pool;
    nq_model *model;
    nq_run *run;
    uint32_t filled; /* positions that hold the tokens of the depth */
    nq_kv_type kv;
    float *logits;   /* (vocab) */
    int32_t *tokens; /* (BLOCK) */
    double *samples; /* (repetitions) tokens per second */
    json_t *report;
    json_t *tests;
    uint64_t done, total; /* repetitions */
} bench;

/* One line of the table; prompt or generate is 0. */
typedef struct test {
    unsigned prompt, generate, depth;
    char name[64];
} test;

/* ---- options ------------------------------------------------------------------ */

static novaq_status read_list(list *out, const unsigned *items, size_t count,
                              const unsigned *preset, unsigned max, const char *what,
                              novaq_error *err) {
    *out = (list){items, count};
    if (items == NULL || count == 0) {
        *out = (list){preset, 1};
    }
    if (out->count > LIST_MAX) {
        return nq_fail(err, NOVAQ_E_ARG, "bench: more than %d numbers of %s", LIST_MAX, what);
    }
    for (size_t i = 0; i < out->count; i++) {
        if (out->items[i] > max) {
            return nq_fail(err, NOVAQ_E_ARG, "bench: %u %s, at most %u", out->items[i], what, max);
        }
    }
    return NOVAQ_OK;
}

static size_t nonzero(const list *l) {
    size_t n = 0;
    for (size_t i = 0; i < l->count; i++) {
        n += l->items[i] != 0;
    }
    return n;
}

static const char *const KV_NAMES[] = {[NQ_KV_F32] = "f32", [NQ_KV_F16] = "f16", [NQ_KV_Q8] = "q8"};

static novaq_status read_kv_type(nq_kv_type *out, const char *name, novaq_error *err) {
    *out = NQ_KV_F16;
    for (unsigned i = 0; name != NULL && i < sizeof KV_NAMES / sizeof KV_NAMES[0]; i++) {
        if (strcmp(name, KV_NAMES[i]) == 0) {
            *out = (nq_kv_type)i;
            return NOVAQ_OK;
        }
    }
    return name == NULL
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_ARG, "bench: no cache of '%s'; f32, f16 or q8", name);
}

static novaq_status check_options(bench *b, const novaq_bench_options *o, novaq_error *err) {
    static const unsigned prompt = 512;
    static const unsigned generate = 128;
    static const unsigned none = 0;
    if (o == NULL || o->struct_size < sizeof *o || (o->model == NULL) == (o->synthetic == NULL)) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "novaq_bench: either a model or a shape, and initialised options");
    }
    if (o->repetitions == 0 || o->repetitions > REPEAT_MAX) {
        return nq_fail(err, NOVAQ_E_ARG, "bench: 1 to %u repetitions", REPEAT_MAX);
    }
    b->opt = o;
    b->path = o->model;
    NQ_TRY(read_list(&b->prompt, o->prompt, o->prompt_count, &prompt, TOKENS_MAX, "prompt tokens",
                     err));
    NQ_TRY(read_list(&b->generate, o->generate, o->generate_count, &generate, TOKENS_MAX,
                     "generated tokens", err));
    NQ_TRY(read_list(&b->depth, o->depth, o->depth_count, &none, TOKENS_MAX, "positions", err));
    NQ_TRY(read_list(&b->threads, o->threads, o->threads_count, &none, 1024, "threads", err));
    NQ_TRY(read_kv_type(&b->kv, o->kv_type, err));
    size_t tests = nonzero(&b->prompt) + nonzero(&b->generate);
    if (tests == 0) {
        return nq_fail(err, NOVAQ_E_ARG, "bench: neither a prompt nor tokens to generate");
    }
    b->total = (uint64_t)tests * b->depth.count * b->threads.count * o->repetitions;
    return NOVAQ_OK;
}

/* ---- time and memory ------------------------------------------------------------ */

/* Lets the peak begin anew, where the system can; else it is the process's own. */
static void memory_reset(void) {
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t written = write(fd, "5", 1);
        (void)written;
        (void)close(fd);
    }
}

/* Most bytes resident at a time, mapped weights included. */
static uint64_t memory_peak(void) {
    char *text = NULL;
    size_t len = 0;
    uint64_t kib = 0;
    if (nq_read_file(&text, &len, "/proc/self/status", 1 << 16, NULL) == NOVAQ_OK) {
        const char *line = strstr(text, "VmHWM:");
        kib = line != NULL ? strtoull(line + 6, NULL, 10) : 0;
    }
    nq_free(text);
    struct rusage use;
    if (kib == 0 && getrusage(RUSAGE_SELF, &use) == 0) {
        kib = (uint64_t)use.ru_maxrss;
    }
    return kib * 1024;
}

/* ---- one test --------------------------------------------------------------------- */

static novaq_status feed(bench *b, unsigned first, unsigned count, uint64_t stream,
                         novaq_error *err) {
    uint32_t vocab = b->model->hyper.vocab;
    for (unsigned at = 0; at < count;) {
        unsigned n = count - at < BLOCK ? count - at : BLOCK;
        for (unsigned i = 0; i < n; i++) {
            b->tokens[i] = (int32_t)(nq_hash3(1, stream, (uint64_t)first + at + i) % vocab);
        }
        NQ_TRY(nq_run_feed(b->run, b->tokens, 1, n, err));
        at += n;
    }
    return NOVAQ_OK;
}

/* The cache holds `depth` positions and nothing else; what it holds of them already
 * is kept. */
static novaq_status fill(bench *b, unsigned depth, novaq_error *err) {
    unsigned kept = b->filled < depth ? b->filled : depth;
    nq_run_rewind(b->run, kept);
    b->filled = 0;
    NQ_TRY(feed(b, kept, depth - kept, 0, err));
    b->filled = depth;
    return NOVAQ_OK;
}

static novaq_status last_logits(bench *b, unsigned count, novaq_error *err) {
    uint32_t row = (count - 1) % BLOCK;
    return nq_run_logits(b->logits, b->run, &row, 1, err);
}

static uint32_t argmax(const float *x, uint32_t n) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++) {
        best = x[i] > x[best] ? i : best;
    }
    return best;
}

/* Seconds of the test on a cache filled to its depth; at most `limit` tokens of a
 * generation. Logits that are no numbers mean that time was lost on infinities. */
static novaq_status once(double *seconds, bench *b, const test *t, unsigned limit,
                         novaq_error *err) {
    uint32_t vocab = b->model->hyper.vocab;
    NQ_TRY(fill(b, t->depth, err));
    double start = nq_seconds();
    if (t->prompt > 0) {
        NQ_TRY(feed(b, 0, t->prompt, 1, err));
        NQ_TRY(last_logits(b, t->prompt, err));
    }
    uint32_t best = 0;
    for (unsigned i = 0; i < t->generate && i < limit; i++) {
        NQ_TRY(feed(b, i, 1, 2, err));
        NQ_TRY(last_logits(b, 1, err));
        best = argmax(b->logits, vocab);
    }
    *seconds = nq_seconds() - start;
    if (!isfinite(b->logits[best])) {
        return nq_fail(err, NOVAQ_E_NUMERIC, "%s: the model computes NaN or infinity", b->path);
    }
    return NOVAQ_OK;
}

static novaq_status report_progress(bench *b, const test *t, double speed, novaq_error *err) {
    novaq_progress p = {"bench", t->name, b->done, b->total, "runs", speed, 0, 0, 0};
    if (b->opt->progress != NULL && b->opt->progress(b->opt->progress_ctx, &p) != 0) {
        return nq_fail(err, NOVAQ_E_INTERRUPTED, "interrupted");
    }
    return NOVAQ_OK;
}

/* Mean and standard deviation (of a sample, as llama-bench has it). */
static void summarize(double *mean, double *deviation, const double *x, unsigned n) {
    double sum = 0;
    double sq = 0;
    for (unsigned i = 0; i < n; i++) {
        sum += x[i];
    }
    *mean = sum / n;
    for (unsigned i = 0; i < n; i++) {
        sq += (x[i] - *mean) * (x[i] - *mean);
    }
    *deviation = n > 1 ? sqrt(sq / (n - 1)) : 0;
}

static novaq_status put_test(bench *b, const test *t, novaq_error *err) {
    double mean = 0;
    double deviation = 0;
    json_t *samples = json_array();
    summarize(&mean, &deviation, b->samples, b->opt->repetitions);
    for (unsigned i = 0; i < b->opt->repetitions; i++) {
        (void)json_array_append_new(samples, json_real(b->samples[i]));
    }
    json_t *o = json_pack("{s:s, s:i, s:i, s:i, s:i, s:f, s:f, s:o}", "test", t->name, "threads",
                          (int)nq_pool_threads(b->pool), "prompt", (int)t->prompt, "generate",
                          (int)t->generate, "depth", (int)t->depth, "tokens_per_second", mean,
                          "stddev", deviation, "samples", samples);
    return json_array_append_new(b->tests, o) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_MEMORY, "cannot report %s", t->name);
}

static novaq_status run_test(bench *b, unsigned prompt, unsigned generate, unsigned depth,
                             novaq_error *err) {
    test t = {.prompt = prompt, .generate = generate, .depth = depth};
    double seconds = 0;
    int n = snprintf(t.name, sizeof t.name, "%s%u", prompt > 0 ? "pp" : "tg", prompt + generate);
    if (depth > 0) {
        (void)snprintf(t.name + n, sizeof t.name - (size_t)n, " @ d%u", depth);
    }
    NQ_TRY(report_progress(b, &t, NAN, err));
    NQ_TRY(once(&seconds, b, &t, 1, err)); /* warm-up */
    for (unsigned i = 0; i < b->opt->repetitions; i++) {
        NQ_TRY(once(&seconds, b, &t, UINT32_MAX, err));
        b->samples[i] = (prompt + generate) / seconds;
        b->done++;
        NQ_TRY(report_progress(b, &t, b->samples[i], err));
    }
    return put_test(b, &t, err);
}

/* ---- one number of threads ---------------------------------------------------------- */

static unsigned largest(const list *l) {
    unsigned most = 0;
    for (size_t i = 0; i < l->count; i++) {
        most = l->items[i] > most ? l->items[i] : most;
    }
    return most;
}

/* Positions and tokens a feed, for the longest test. */
static novaq_status open_run(bench *b, novaq_error *err) {
    unsigned prompt = largest(&b->prompt);
    unsigned generate = largest(&b->generate);
    unsigned depth = largest(&b->depth);
    unsigned n_ctx = depth + (prompt > generate ? prompt : generate);
    unsigned block = prompt > depth ? prompt : depth;
    if (n_ctx > b->model->hyper.context) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: a test of %u positions, the model's context has %u",
                       b->path, n_ctx, b->model->hyper.context);
    }
    block = block == 0 ? 1 : block < BLOCK ? block : BLOCK;
    nq_run_options o = {.sequences = 1, .n_ctx = n_ctx, .block = block, .kv = b->kv};
    b->filled = 0;
    return nq_run_open_with(&b->run, b->model, &o, err);
}

static void close_model(bench *b) {
    nq_run_close(&b->run);
    nq_model_close(&b->model);
    nq_pool_close(&b->pool);
    nq_free(b->logits);
    b->logits = NULL;
}

static novaq_status put_model(bench *b, double load_ms, novaq_error *err) {
    const json_t *name = json_object_get(nq_weights_model(b->model->weights), "name");
    const char *text = json_is_string(name) ? json_string_value(name) : nq_path_base(b->path);
    nq_size size = nq_size_of(b->model->weights);
    json_t *label = json_string(text);
    int failed = json_object_set_new(b->report, "name", label != NULL ? label : json_string("?"));
    failed |=
        json_object_set_new(b->report, "architecture", json_string(b->model->hyper.arch->name));
    failed |=
        json_object_set_new(b->report, "kernel", json_string(nq_cpu_level_name(nq_cpu_features())));
    failed |= json_object_set_new(b->report, "kv_type", json_string(KV_NAMES[b->kv]));
    failed |= json_object_set_new(b->report, "repetitions",
                                  json_integer((json_int_t)b->opt->repetitions));
    failed |= json_object_set_new(b->report, "load_ms", json_real(load_ms));
    NQ_TRY(nq_size_put(b->report, &size, err));
    return failed == 0 ? NOVAQ_OK : nq_fail(err, NOVAQ_E_MEMORY, "cannot report the model");
}

static novaq_status open_model(bench *b, unsigned threads, novaq_error *err) {
    double start = nq_seconds();
    NQ_TRY(nq_pool_open(&b->pool, threads, err));
    NQ_TRY(nq_model_open(&b->model, b->path, b->pool, err));
    NQ_TRY(nq_model_prepare_fast(b->model, err));
    double load_ms = 1e3 * (nq_seconds() - start);
    if (json_object_size(b->report) == 0) {
        NQ_TRY(put_model(b, load_ms, err));
    }
    NQ_TRY(nq_alloc_raw(&b->logits, b->model->hyper.vocab, sizeof *b->logits, err));
    return open_run(b, err);
}

static novaq_status run_tests(bench *b, novaq_error *err) {
    for (size_t d = 0; d < b->depth.count; d++) {
        for (size_t i = 0; i < b->prompt.count; i++) {
            if (b->prompt.items[i] > 0) {
                NQ_TRY(run_test(b, b->prompt.items[i], 0, b->depth.items[d], err));
            }
        }
        for (size_t i = 0; i < b->generate.count; i++) {
            if (b->generate.items[i] > 0) {
                NQ_TRY(run_test(b, 0, b->generate.items[i], b->depth.items[d], err));
            }
        }
    }
    return NOVAQ_OK;
}

static novaq_status run_all(bench *b, novaq_error *err) {
    memory_reset();
    for (size_t i = 0; i < b->threads.count; i++) {
        novaq_status st = open_model(b, b->threads.items[i], err);
        if (st == NOVAQ_OK) {
            st = run_tests(b, err);
        }
        close_model(b);
        NQ_TRY(st);
    }
    return NOVAQ_OK;
}

/* ---- random content ------------------------------------------------------------------ */

static novaq_status make_folder(bench *b, novaq_error *err) {
    const char *in = getenv("TMPDIR");
    in = in != NULL && in[0] != '\0' ? in : "/var/tmp";
    NQ_TRY(nq_temp_folder(&b->folder, in, "novaq-bench.XXXXXX", err));
    b->path = b->folder;
    return NOVAQ_OK;
}

static bool wants_single_file(const char *path) {
    static const char *const ends[] = {".bin", ".novaq", ".safetensors"};
    size_t len = strlen(path);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        size_t n = strlen(ends[i]);
        if (len > n && strcmp(path + len - n, ends[i]) == 0) {
            return true;
        }
    }
    return false;
}

static novaq_status synthesize(bench *b, novaq_error *err) {
    const novaq_bench_options *o = b->opt;
    nq_synthetic s = {.shape = o->synthetic,
                      .scheme = o->scheme,
                      .bits = o->bits,
                      .tensor_types = o->tensor_types,
                      .tensor_type_count = o->tensor_type_count,
                      .seed = o->seed,
                      .progress = o->progress,
                      .progress_ctx = o->progress_ctx};
    nq_pool *pool = NULL;
    b->path = o->keep;
    if (o->keep == NULL) {
        NQ_TRY(make_folder(b, err));
    } else {
        s.single_file = wants_single_file(o->keep);
    }
    NQ_TRY(nq_pool_open(&pool, 0, err));
    novaq_status st = nq_synthetic_write(b->path, &s, pool, err);
    nq_pool_close(&pool);
    return st;
}

/* ---- the call --------------------------------------------------------------------------- */

static novaq_status finish(char **report, bench *b, novaq_error *err) {
    int failed =
        json_object_set_new(b->report, "peak_memory", json_integer((json_int_t)memory_peak()));
    failed |= json_object_set(b->report, "tests", b->tests);
    return failed == 0 ? nq_json_dump(report, b->report, 2, err)
                       : nq_fail(err, NOVAQ_E_MEMORY, "cannot write the report");
}

novaq_status novaq_bench_shapes(char **report, novaq_error *err) {
    json_t *shapes = NULL;
    *report = NULL;
    NQ_TRY(nq_synthetic_shapes(&shapes, err));
    novaq_status st = nq_json_dump(report, shapes, 2, err);
    json_decref(shapes);
    return st;
}

novaq_status novaq_bench(char **report, const novaq_bench_options *opt, novaq_error *err) {
    bench b = {0};
    *report = NULL;
    NQ_TRY(check_options(&b, opt, err));
    b.report = json_object();
    b.tests = json_array();
    novaq_status st = nq_alloc(&b.tokens, BLOCK, sizeof *b.tokens, err);
    if (st == NOVAQ_OK) {
        st = nq_alloc(&b.samples, opt->repetitions, sizeof *b.samples, err);
    }
    if (st == NOVAQ_OK && opt->synthetic != NULL) {
        st = synthesize(&b, err);
    }
    if (st == NOVAQ_OK) {
        st = run_all(&b, err);
    }
    if (st == NOVAQ_OK) {
        st = finish(report, &b, err);
    }
    nq_temp_folder_remove(&b.folder);
    nq_free(b.tokens);
    nq_free(b.samples);
    json_decref(b.report);
    json_decref(b.tests);
    return st;
}

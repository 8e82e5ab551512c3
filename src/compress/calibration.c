/* calibration.c - see calibration.h. */
#include "compress/calibration.h"

#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/rng.h"
#include "compress/recipe.h"
#include "io/fs.h"
#include "model/model.h"
#include "model/tokenizer.h"

#define SELF_TOKENS     8192 /* sampled by default */
#define SELF_LENGTH     256
#define FILE_TOKENS     16384 /* taken from a file by default */
#define FILE_LENGTH     512
#define CACHE_BYTES     ((uint64_t)1 << 30) /* keys and values of the sequences sampled at once */
#define AUTO_PARAMETERS ((uint64_t)1 << 31)
#define TEXT_MAX        ((size_t)64 << 20)

/* Samples from softmax(logits) by the Gumbel maximum. */
static int32_t sample_token(const float *logits, uint32_t vocab, uint64_t seed, uint64_t stream) {
    double best = -INFINITY;
    int32_t token = 0;
    for (uint32_t v = 0; v < vocab; v++) {
        double u = nq_uniform(seed, stream, v) + 0x1p-54;
        double g = (double)logits[v] - log(-log(u));
        if (g > best) {
            best = g;
            token = (int32_t)v;
        }
    }
    return token;
}

typedef struct sample_job {
    nq_calibration *c;
    nq_run *run;
    nq_pool *pool;
    float *logits;         /* (group, vocab) */
    int32_t *last;         /* (group) */
    uint32_t *rows;        /* (group) 0, 1, ... */
    uint32_t first, group; /* sequences at work */
    uint32_t vocab, t;
    int32_t bos;
    uint64_t seed;
    novaq_progress_fn progress;
    void *progress_ctx;
} sample_job;

static void sample_task(void *ctx, uint64_t i, unsigned worker) {
    (void)worker;
    const sample_job *j = ctx;
    uint64_t s = j->first + i;
    j->last[i] =
        sample_token(j->logits + i * j->vocab, j->vocab, j->seed, 1000 + s * j->c->length + j->t);
}

/* Sequences [first, first + group), one token of each with every pass over the weights. */
static novaq_status sample_group(sample_job *j, novaq_error *err) {
    uint32_t length = j->c->length;
    nq_run_reset(j->run);
    for (uint32_t i = 0; i < j->group; i++) {
        uint64_t s = j->first + i;
        j->rows[i] = i;
        j->last[i] = j->bos >= 0 ? j->bos : (int32_t)(nq_hash3(j->seed, 21, s) % j->vocab);
        j->c->tokens[s * length] = j->last[i];
    }
    for (j->t = 1; j->t < length; j->t++) {
        uint64_t done = (uint64_t)j->first * length + (uint64_t)j->t * j->group;
        novaq_progress p = {
            "sample", "", done, (uint64_t)j->c->sequences * length, "tokens", (double)NAN, 0, 0, 0};
        NQ_TRY(nq_report_step(j->progress, j->progress_ctx, &p, err));
        NQ_TRY(nq_run_feed(j->run, j->last, j->group, 1, err));
        NQ_TRY(nq_run_logits(j->logits, j->run, j->rows, j->group, err));
        nq_pool_run(j->pool, sample_task, j, j->group);
        for (uint32_t i = 0; i < j->group; i++) {
            j->c->tokens[(uint64_t)(j->first + i) * length + j->t] = j->last[i];
        }
    }
    return NOVAQ_OK;
}

/* As many as the cache has room for; a constant of the model, not of the machine, for
 * the samples must not depend on it. */
static uint32_t group_size(const nq_calibration *c, const nq_hyper *h) {
    uint64_t one = (uint64_t)h->blocks * 2 * h->heads_kv * h->head_dim * sizeof(float) * c->length;
    uint64_t most = one > 0 ? CACHE_BYTES / one : c->sequences;
    most = most > 0 ? most : 1;
    return most < c->sequences ? (uint32_t)most : c->sequences;
}

/* Each sequence starts with BOS, or where there is none with a token drawn by
 * hash, and goes on with samples at temperature 1. */
static novaq_status sample_text(nq_calibration *c, const nq_model *m, int32_t bos, uint64_t seed,
                                nq_pool *pool, novaq_progress_fn progress, void *ctx,
                                novaq_error *err) {
    uint32_t most = group_size(c, &m->hyper);
    sample_job j = {.c = c,
                    .pool = pool,
                    .vocab = m->hyper.vocab,
                    .bos = bos,
                    .seed = seed,
                    .progress = progress,
                    .progress_ctx = ctx};
    novaq_status st = nq_run_open(&j.run, m, most, c->length, 1, err);
    if (st == NOVAQ_OK) {
        st = nq_alloc_raw(&j.logits, (uint64_t)most * j.vocab, sizeof(float), err);
    }
    if (st == NOVAQ_OK) {
        st = nq_alloc(&j.rows, most, sizeof *j.rows, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_alloc(&j.last, most, sizeof *j.last, err);
    }
    for (; st == NOVAQ_OK && j.first < c->sequences; j.first += most) {
        j.group = c->sequences - j.first < most ? c->sequences - j.first : most;
        st = sample_group(&j, err);
    }
    nq_free(j.logits);
    nq_free(j.rows);
    nq_free(j.last);
    nq_run_close(&j.run);
    return st;
}

/* Sequences as long as usual, unless the model has not learned so many positions. */
static uint32_t length_for(const nq_model *m, uint32_t usual) {
    return m->positions != NULL && m->hyper.context < usual ? m->hyper.context : usual;
}

/* Windows of `length` tokens spread evenly over the text. */
static novaq_status file_text(nq_calibration *c, const nq_tokenizer *tok, const char *path,
                              uint32_t wanted, uint32_t length, novaq_error *err) {
    char *text = NULL;
    size_t len = 0;
    int32_t *ids = NULL;
    size_t count = 0;
    NQ_TRY(nq_read_file(&text, &len, path, TEXT_MAX, err));
    novaq_status st = nq_tokenizer_encode(&ids, &count, tok, text, len, 0, 0, err);
    nq_free(text);
    if (st == NOVAQ_OK && count < length) {
        st = nq_fail(err, NOVAQ_E_ARG,
                     "%s: %zu tokens are too few to calibrate on; give %u at least, %d are a good "
                     "number",
                     path, count, length, FILE_TOKENS);
    }
    size_t most = count / length;
    c->length = length;
    c->sequences = (wanted + length - 1) / length;
    c->sequences = c->sequences < most ? c->sequences : (uint32_t)most;
    if (st == NOVAQ_OK) {
        st = nq_alloc(&c->tokens, (uint64_t)c->sequences * length, sizeof *c->tokens, err);
    }
    for (size_t s = 0; st == NOVAQ_OK && s < c->sequences; s++) {
        size_t start = c->sequences > 1 ? (count - length) * s / (c->sequences - 1) : 0;
        int32_t *to = c->tokens + s * length;
        memcpy(to, ids + start, length * sizeof *to);
        if (nq_tokenizer_adds_bos(tok) && nq_tokenizer_bos(tok) >= 0) {
            to[0] = nq_tokenizer_bos(tok);
        }
    }
    nq_free(ids);
    return st;
}

static novaq_status fill(nq_calibration *c, const nq_model *m, const char *calibration,
                         uint32_t wanted, uint64_t seed, nq_pool *pool, novaq_progress_fn progress,
                         void *ctx, novaq_error *err) {
    bool self = strcmp(calibration, "self") == 0 || strcmp(calibration, "auto") == 0;
    wanted = wanted != 0 ? wanted : self ? SELF_TOKENS : FILE_TOKENS;
    if (wanted > NQ_CALIBRATION_TOKENS_MAX) {
        return nq_fail(err, NOVAQ_E_ARG, "%u calibration tokens; %u at most", wanted,
                       NQ_CALIBRATION_TOKENS_MAX);
    }
    nq_tokenizer *tok = NULL;
    const json_t *desc = json_object_get(nq_weights_model(m->weights), "tokenizer");
    novaq_status st = nq_tokenizer_open(&tok, desc, err);
    if (st == NOVAQ_OK && !self) {
        st = file_text(c, tok, calibration, wanted, length_for(m, FILE_LENGTH), err);
    } else if (st == NOVAQ_OK) {
        c->length = length_for(m, SELF_LENGTH);
        c->sequences = (wanted + c->length - 1) / c->length;
        st = nq_alloc(&c->tokens, (uint64_t)c->sequences * c->length, sizeof *c->tokens, err);
        if (st == NOVAQ_OK) {
            st = sample_text(c, m, nq_tokenizer_bos(tok), seed, pool, progress, ctx, err);
        }
    }
    nq_tokenizer_close(&tok);
    return st;
}

novaq_status nq_calibration_hash(char hex[NQ_BLAKE3_HEX + 1], const char *calibration,
                                 novaq_error *err) {
    char *text = NULL;
    size_t len = 0;
    struct stat st;
    hex[0] = '\0';
    if (calibration == NULL || strcmp(calibration, "none") == 0 ||
        strcmp(calibration, "self") == 0 || strcmp(calibration, "auto") == 0) {
        return NOVAQ_OK;
    }
    if (stat(calibration, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "%s: a pipe or device, and a calibration text is read more than once; write "
                       "it to a file first",
                       calibration);
    }
    NQ_TRY(nq_read_file(&text, &len, calibration, TEXT_MAX, err));
    nq_blake3_of(hex, text, len);
    nq_free(text);
    return NOVAQ_OK;
}

bool nq_calibration_is_large(const nq_tensors *ts) {
    uint64_t n = 0;
    for (size_t i = 0; i < nq_tensors_count(ts); i++) {
        n += nq_tensors_at(ts, i)->elements;
    }
    return n > AUTO_PARAMETERS;
}

static novaq_status open_model(nq_model **m, const char *path, nq_tensors *ts, nq_pool *pool,
                               bool whole, novaq_error *err) {
    if (ts == NULL) {
        return whole ? nq_model_open(m, path, pool, err) : nq_model_open_lean(m, path, pool, err);
    }
    return whole ? nq_model_open_over(m, ts, pool, err) : nq_model_open_lean_over(m, ts, pool, err);
}

novaq_status nq_calibration_open(nq_calibration *out, char **why, const char *path, nq_tensors *ts,
                                 const char *calibration, uint32_t wanted, uint64_t seed,
                                 nq_pool *pool, novaq_progress_fn progress, void *progress_ctx,
                                 novaq_error *err) {
    *out = (nq_calibration){0};
    *why = NULL;
    if (calibration == NULL || strcmp(calibration, "none") == 0) {
        return NOVAQ_OK;
    }
    bool automatic = strcmp(calibration, "auto") == 0;
    bool self = automatic || strcmp(calibration, "self") == 0;
    if (automatic && ts != NULL && nq_calibration_is_large(ts)) {
        return nq_strdup(why, "the model is large; --calibration self or FILE runs it all the same",
                         err);
    }
    nq_model *m = NULL;
    novaq_error local = {0};
    /* Sampling goes over the weights once a token; a file needs the tokenizer only. */
    novaq_status st = open_model(&m, path, ts, pool, self, &local);
    if (st == NOVAQ_OK) {
        st = fill(out, m, calibration, wanted, seed, pool, progress, progress_ctx, &local);
    }
    bool runs = m != NULL && st != NOVAQ_E_UNSUPPORTED;
    nq_model_close(&m);
    if (st == NOVAQ_OK) {
        return NOVAQ_OK;
    }
    nq_calibration_close(out);
    /* The model's fault is a hint with "auto"; the machine's or the user's is not. */
    bool excused = st == NOVAQ_E_UNSUPPORTED || st == NOVAQ_E_FORMAT || st == NOVAQ_E_NUMERIC;
    if (automatic && excused) {
        return nq_strdup(why, local.msg, err);
    }
    return runs
               ? nq_fail(err, st, "%s", local.msg)
               : nq_fail(err, st,
                         "%s: calibration needs a model that can be run, or --calibration none: %s",
                         path, local.msg);
}

void nq_calibration_close(nq_calibration *c) {
    nq_free(c->tokens);
    *c = (nq_calibration){0};
}

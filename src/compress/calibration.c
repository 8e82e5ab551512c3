/* calibration.c - see calibration.h. */
#include "compress/calibration.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "io/fs.h"
#include "model/model.h"
#include "model/tokenizer.h"

#define SELF_TOKENS     16384 /* sampled by default */
#define SELF_LENGTH     256
#define FILE_TOKENS     16384 /* taken from a file by default */
#define FILE_LENGTH     512
#define TOKENS_MAX      (1U << 22)
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
    const float *logits; /* (sequences, vocab) */
    int32_t *last;       /* (sequences) */
    uint32_t vocab, length, t;
    uint64_t seed;
} sample_job;

static void sample_task(void *ctx, uint64_t s, unsigned worker) {
    (void)worker;
    const sample_job *j = ctx;
    j->last[s] =
        sample_token(j->logits + s * j->vocab, j->vocab, j->seed, 1000 + s * j->length + j->t);
}

static novaq_status sample_steps(nq_calibration *c, nq_run *run, sample_job *j, float *logits,
                                 const uint32_t *rows, nq_pool *pool, novaq_progress_fn progress,
                                 void *ctx, novaq_error *err) {
    for (uint32_t t = 1; t < c->length; t++) {
        novaq_progress p = {"sample", "", t, c->length, "steps", NAN};
        if (progress != NULL && progress(ctx, &p) != 0) {
            return nq_fail(err, NOVAQ_E_INTERRUPTED, "interrupted; nothing was left behind");
        }
        NQ_TRY(nq_run_feed(run, j->last, c->sequences, 1, err));
        NQ_TRY(nq_run_logits(logits, run, rows, c->sequences, err));
        j->t = t;
        nq_pool_run(pool, sample_task, j, c->sequences);
        for (uint32_t s = 0; s < c->sequences; s++) {
            c->tokens[(uint64_t)s * c->length + t] = j->last[s];
        }
    }
    return NOVAQ_OK;
}

/* Each sequence starts with BOS, or where there is none with a token drawn by
 * hash, and goes on with samples at temperature 1: one pass over the weights makes
 * a token of every sequence. */
static novaq_status sample_text(nq_calibration *c, const nq_model *m, int32_t bos, uint64_t seed,
                                nq_pool *pool, novaq_progress_fn progress, void *ctx,
                                novaq_error *err) {
    uint32_t vocab = m->hyper.vocab;
    nq_run *run = NULL;
    float *logits = NULL;
    uint32_t *rows = NULL;
    sample_job j = {.vocab = vocab, .length = c->length, .seed = seed};
    novaq_status st = nq_run_open(&run, m, c->sequences, c->length, 1, err);
    if (st == NOVAQ_OK) {
        st = nq_alloc_raw(&logits, (uint64_t)c->sequences * vocab, sizeof(float), err);
    }
    if (st == NOVAQ_OK) {
        st = nq_alloc(&rows, c->sequences, sizeof *rows, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_alloc(&j.last, c->sequences, sizeof *j.last, err);
    }
    for (uint32_t s = 0; st == NOVAQ_OK && s < c->sequences; s++) {
        rows[s] = s;
        j.last[s] = bos >= 0 ? bos : (int32_t)(nq_hash3(seed, 21, s) % vocab);
        c->tokens[(uint64_t)s * c->length] = j.last[s];
    }
    j.logits = logits;
    if (st == NOVAQ_OK) {
        st = sample_steps(c, run, &j, logits, rows, pool, progress, ctx, err);
    }
    nq_free(logits);
    nq_free(rows);
    nq_free(j.last);
    nq_run_close(&run);
    return st;
}

/* Windows spread evenly over the text. */
static novaq_status file_text(nq_calibration *c, const nq_tokenizer *tok, const char *path,
                              uint32_t wanted, novaq_error *err) {
    char *text = NULL;
    size_t len = 0;
    int32_t *ids = NULL;
    size_t count = 0;
    NQ_TRY(nq_read_file(&text, &len, path, TEXT_MAX, err));
    novaq_status st = nq_tokenizer_encode(&ids, &count, tok, text, len, 0, 0, err);
    nq_free(text);
    if (st == NOVAQ_OK && count < FILE_LENGTH) {
        st = nq_fail(err, NOVAQ_E_ARG,
                     "%s: %zu tokens are too few to calibrate on; give %d at least, %d are a good "
                     "number",
                     path, count, FILE_LENGTH, FILE_TOKENS);
    }
    size_t most = count / FILE_LENGTH;
    c->length = FILE_LENGTH;
    c->sequences = (wanted + FILE_LENGTH - 1) / FILE_LENGTH;
    c->sequences = c->sequences < most ? c->sequences : (uint32_t)most;
    if (st == NOVAQ_OK) {
        st = nq_alloc(&c->tokens, (uint64_t)c->sequences * c->length, sizeof *c->tokens, err);
    }
    for (size_t s = 0; st == NOVAQ_OK && s < c->sequences; s++) {
        size_t start = c->sequences > 1 ? (count - FILE_LENGTH) * s / (c->sequences - 1) : 0;
        int32_t *to = c->tokens + s * FILE_LENGTH;
        memcpy(to, ids + start, FILE_LENGTH * sizeof *to);
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
    if (wanted > TOKENS_MAX) {
        return nq_fail(err, NOVAQ_E_ARG, "%u calibration tokens; %u at most", wanted, TOKENS_MAX);
    }
    nq_tokenizer *tok = NULL;
    const json_t *desc = json_object_get(nq_weights_model(m->weights), "tokenizer");
    novaq_status st = nq_tokenizer_open(&tok, desc, err);
    if (st == NOVAQ_OK && !self) {
        st = file_text(c, tok, calibration, wanted, err);
    } else if (st == NOVAQ_OK) {
        c->length = SELF_LENGTH;
        c->sequences = (wanted + SELF_LENGTH - 1) / SELF_LENGTH;
        st = nq_alloc(&c->tokens, (uint64_t)c->sequences * c->length, sizeof *c->tokens, err);
        if (st == NOVAQ_OK) {
            st = sample_text(c, m, nq_tokenizer_bos(tok), seed, pool, progress, ctx, err);
        }
    }
    nq_tokenizer_close(&tok);
    return st;
}

static uint64_t parameters(nq_tensors *ts) {
    uint64_t n = 0;
    for (size_t i = 0; i < nq_tensors_count(ts); i++) {
        n += nq_tensors_at(ts, i)->elements;
    }
    return n;
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
    if (automatic && parameters(ts) > AUTO_PARAMETERS) {
        return nq_strdup(why, "the model is large; --calibration self or FILE runs it all the same",
                         err);
    }
    nq_model *m = NULL;
    novaq_error local = {0};
    /* Sampling goes over the weights once a token; a file needs the tokenizer only. */
    novaq_status st =
        self ? nq_model_open(&m, path, pool, &local) : nq_model_open_lean(&m, path, pool, &local);
    if (st == NOVAQ_OK) {
        st = fill(out, m, calibration, wanted, seed, pool, progress, progress_ctx, &local);
    }
    bool runs = m != NULL && st != NOVAQ_E_UNSUPPORTED;
    nq_model_close(&m);
    if (st == NOVAQ_OK) {
        return NOVAQ_OK;
    }
    nq_calibration_close(out);
    if (automatic && st != NOVAQ_E_INTERRUPTED) {
        return nq_strdup(why, local.msg, err);
    }
    return nq_fail(err, st, "%s%s",
                   runs ? "" : "calibration needs a model that can be run, or --calibration none: ",
                   local.msg);
}

void nq_calibration_close(nq_calibration *c) {
    nq_free(c->tokens);
    *c = (nq_calibration){0};
}

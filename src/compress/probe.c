/* probe.c - see probe.h. */
#include "compress/probe.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "io/fs.h"
#include "model/model.h"
#include "model/tokenizer.h"

#define SEQUENCES       8
#define SELF_LENGTH     128 /* tokens sampled per sequence */
#define FILE_LENGTH     256 /* tokens per window of a text file */
#define SAMPLE_ROWS     256 /* inputs kept whole, per matrix */
#define AUTO_PARAMETERS ((uint64_t)1 << 31)
#define TEXT_MAX        ((size_t)64 << 20)

typedef struct entry {
    char *name; /* first tensor of a group that shares its input */
    double *energy;
    float *samples;
    uint64_t cols, seen, kept;
} entry;

typedef struct alias {
    char *name;
    size_t entry;
} alias;

struct nq_probe {
    entry *entries;
    size_t count, cap;
    alias *aliases;
    size_t alias_count, alias_cap;
    uint32_t length; /* tokens per sequence of the feed at work */
};

/* ---- collecting --------------------------------------------------------------- */

static novaq_status add_entry(nq_probe *p, const nq_linear *const *l, unsigned count,
                              novaq_error *err) {
    if (p->count == p->cap) {
        size_t cap = p->cap * 2 + 64;
        NQ_TRY(nq_grow(&p->entries, p->count, cap, sizeof *p->entries, err));
        p->cap = cap;
    }
    entry *e = &p->entries[p->count++];
    e->cols = l[0]->w->cols;
    NQ_TRY(nq_alloc(&e->energy, e->cols, sizeof(double), err));
    NQ_TRY(nq_alloc(&e->samples, e->cols * SAMPLE_ROWS, sizeof(float), err));
    NQ_TRY(nq_strdup(&e->name, l[0]->w->name, err));
    for (unsigned g = 0; g < count; g++) {
        if (p->alias_count == p->alias_cap) {
            size_t cap = p->alias_cap * 2 + 128;
            NQ_TRY(nq_grow(&p->aliases, p->alias_count, cap, sizeof *p->aliases, err));
            p->alias_cap = cap;
        }
        alias *a = &p->aliases[p->alias_count++];
        a->entry = p->count - 1;
        NQ_TRY(nq_strdup(&a->name, l[g]->w->name, err));
    }
    return NOVAQ_OK;
}

static entry *find_entry(const nq_probe *p, const char *tensor) {
    for (size_t i = 0; i < p->alias_count; i++) {
        if (strcmp(p->aliases[i].name, tensor) == 0) {
            return &p->entries[p->aliases[i].entry];
        }
    }
    return NULL;
}

/* Observer of the forward pass: x (n, cols), sequence by sequence. */
static novaq_status observe(void *ctx, const nq_linear *const *l, unsigned count, const float *x,
                            uint64_t n, novaq_error *err) {
    nq_probe *p = ctx;
    entry *e = find_entry(p, l[0]->w->name);
    if (e == NULL) {
        NQ_TRY(add_entry(p, l, count, err));
        e = &p->entries[p->count - 1];
    }
    uint64_t usable = n / p->length * (p->length - 1);
    uint64_t stride = usable / SAMPLE_ROWS + 1;
    uint64_t at = 0;
    for (uint64_t t = 0; t < n; t++) {
        const float *row = x + t * e->cols;
        for (uint64_t c = 0; c < e->cols; c++) {
            e->energy[c] += (double)row[c] * (double)row[c];
        }
        e->seen++;
        if (t % p->length == 0) {
            continue;
        }
        if (at++ % stride == 0 && e->kept < SAMPLE_ROWS) {
            memcpy(e->samples + e->kept++ * e->cols, row, e->cols * sizeof(float));
        }
    }
    return NOVAQ_OK;
}

bool nq_probe_find(nq_probe_inputs *out, const nq_probe *p, const char *tensor) {
    const entry *e = p != NULL ? find_entry(p, tensor) : NULL;
    if (e == NULL || e->seen == 0) {
        return false;
    }
    *out = (nq_probe_inputs){
        .energy = e->energy, .samples = e->samples, .count = e->kept, .cols = e->cols};
    return true;
}

void nq_probe_close(nq_probe **pp) {
    nq_probe *p = *pp;
    *pp = NULL;
    if (p == NULL) {
        return;
    }
    for (size_t i = 0; i < p->count; i++) {
        nq_free(p->entries[i].name);
        nq_free(p->entries[i].energy);
        nq_free(p->entries[i].samples);
    }
    for (size_t i = 0; i < p->alias_count; i++) {
        nq_free(p->aliases[i].name);
    }
    nq_free(p->entries);
    nq_free(p->aliases);
    nq_free(p);
}

/* ---- text ------------------------------------------------------------------------ */

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

/* tokens (SEQUENCES, SELF_LENGTH): each starts with BOS, or where there is none
 * with a token drawn by hash, and goes on with samples at temperature 1. All
 * sequences advance together: one pass over the weights makes SEQUENCES tokens. */
static novaq_status sample_text(int32_t *tokens, const nq_model *m, int32_t bos, uint64_t seed,
                                novaq_progress_fn progress, void *ctx, novaq_error *err) {
    uint32_t vocab = m->hyper.vocab;
    nq_run *run = NULL;
    float *logits = NULL;
    NQ_TRY(nq_run_open(&run, m, SEQUENCES, SELF_LENGTH, 1, err));
    novaq_status st = nq_alloc_raw(&logits, (uint64_t)SEQUENCES * vocab, sizeof(float), err);
    uint32_t rows[SEQUENCES];
    int32_t last[SEQUENCES];
    for (uint32_t s = 0; s < SEQUENCES; s++) {
        rows[s] = s;
        last[s] = bos >= 0 ? bos : (int32_t)(nq_hash3(seed, 21, s) % vocab);
        tokens[s * SELF_LENGTH] = last[s];
    }
    for (uint32_t t = 1; st == NOVAQ_OK && t < SELF_LENGTH; t++) {
        novaq_progress p = {"sample", "", t, SELF_LENGTH, "steps", NAN};
        if (progress != NULL && progress(ctx, &p) != 0) {
            st = nq_fail(err, NOVAQ_E_INTERRUPTED, "interrupted; nothing was left behind");
        }
        if (st == NOVAQ_OK) {
            st = nq_run_feed(run, last, SEQUENCES, 1, err);
        }
        if (st == NOVAQ_OK) {
            st = nq_run_logits(logits, run, rows, SEQUENCES, err);
        }
        for (uint32_t s = 0; st == NOVAQ_OK && s < SEQUENCES; s++) {
            last[s] = sample_token(logits + (uint64_t)s * vocab, vocab, seed,
                                   1000 + (uint64_t)s * SELF_LENGTH + t);
            tokens[s * SELF_LENGTH + t] = last[s];
        }
    }
    nq_free(logits);
    nq_run_close(&run);
    return st;
}

/* tokens (SEQUENCES, FILE_LENGTH): windows spread evenly over the text. */
static novaq_status file_text(int32_t *tokens, const nq_tokenizer *tok, const char *path,
                              novaq_error *err) {
    char *text = NULL;
    size_t len = 0;
    int32_t *ids = NULL;
    size_t count = 0;
    NQ_TRY(nq_read_file(&text, &len, path, TEXT_MAX, err));
    novaq_status st = nq_tokenizer_encode(&ids, &count, tok, text, len, 0, 0, err);
    nq_free(text);
    if (st == NOVAQ_OK && count < (size_t)SEQUENCES * FILE_LENGTH) {
        st = nq_fail(err, NOVAQ_E_ARG,
                     "%s: %zu tokens are too few to calibrate on; give at least %d", path, count,
                     SEQUENCES * FILE_LENGTH);
    }
    for (size_t s = 0; st == NOVAQ_OK && s < SEQUENCES; s++) {
        size_t start = (count - FILE_LENGTH) * s / (SEQUENCES - 1);
        memcpy(tokens + s * FILE_LENGTH, ids + start, FILE_LENGTH * sizeof *tokens);
        if (nq_tokenizer_adds_bos(tok) && nq_tokenizer_bos(tok) >= 0) {
            tokens[s * FILE_LENGTH] = nq_tokenizer_bos(tok);
        }
    }
    nq_free(ids);
    return st;
}

/* ---- opening -------------------------------------------------------------------- */

static novaq_status watch(nq_probe *p, const nq_model *m, const int32_t *tokens, novaq_error *err) {
    nq_run *run = NULL;
    NQ_TRY(nq_run_open(&run, m, SEQUENCES, p->length, p->length, err));
    nq_run_observe(run, observe, p);
    novaq_status st = nq_run_feed(run, tokens, SEQUENCES, p->length, err);
    nq_run_close(&run);
    for (size_t i = 0; i < p->count; i++) {
        entry *e = &p->entries[i];
        for (uint64_t c = 0; e->seen > 0 && c < e->cols; c++) {
            e->energy[c] /= (double)e->seen;
        }
    }
    return st;
}

static novaq_status fill(nq_probe *p, const nq_model *m, const char *calibration, uint64_t seed,
                         novaq_progress_fn progress, void *ctx, novaq_error *err) {
    bool self = strcmp(calibration, "self") == 0 || strcmp(calibration, "auto") == 0;
    p->length = self ? SELF_LENGTH : FILE_LENGTH;
    int32_t tokens[SEQUENCES * FILE_LENGTH];
    nq_tokenizer *tok = NULL;
    const json_t *desc = json_object_get(nq_weights_model(m->weights), "tokenizer");
    novaq_status st = nq_tokenizer_open(&tok, desc, err);
    if (st == NOVAQ_OK) {
        int32_t bos = nq_tokenizer_bos(tok);
        st = self ? sample_text(tokens, m, bos, seed, progress, ctx, err)
                  : file_text(tokens, tok, calibration, err);
    }
    if (st == NOVAQ_OK) {
        st = watch(p, m, tokens, err);
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

novaq_status nq_probe_open(nq_probe **out, char **why, const char *path, nq_tensors *ts,
                           const char *calibration, uint64_t seed, nq_pool *pool,
                           novaq_progress_fn progress, void *progress_ctx, novaq_error *err) {
    *out = NULL;
    *why = NULL;
    if (calibration == NULL || strcmp(calibration, "none") == 0) {
        return NOVAQ_OK;
    }
    bool automatic = strcmp(calibration, "auto") == 0;
    if (automatic && parameters(ts) > AUTO_PARAMETERS) {
        return nq_strdup(why, "the model is large; --calibration self runs it all the same", err);
    }
    nq_model *m = NULL;
    nq_probe *p = NULL;
    novaq_error local = {0};
    novaq_status st = nq_model_open(&m, path, pool, &local);
    if (st == NOVAQ_OK) {
        st = nq_alloc(&p, 1, sizeof *p, &local);
    }
    if (st == NOVAQ_OK) {
        st = fill(p, m, calibration, seed, progress, progress_ctx, &local);
    }
    nq_model_close(&m);
    if (st == NOVAQ_OK) {
        *out = p;
        return NOVAQ_OK;
    }
    nq_probe_close(&p);
    if (automatic && st != NOVAQ_E_INTERRUPTED) {
        return nq_strdup(why, local.msg, err);
    }
    return nq_fail(err, st, "calibration needs a model that can be run, or --calibration none: %s",
                   local.msg);
}

/* perplexity.c - see eval.h: windows through one or two models. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "eval/eval.h"

/* Tokens fed at once (several windows where they are short). */
#define BATCH_TOKENS 2048
/* Bytes of logits held at once, per model; of key/value cache, per model. */
#define LOGIT_BYTES ((uint64_t)64 << 20)
#define CACHE_BYTES ((uint64_t)512 << 20)

typedef struct scorer {
    const nq_scoring *what;
    const nq_windows *w;
    const nq_model *model[2]; /* the measured one; the base, if any */
    int models;               /* 1 or 2 */
    nq_run *run[2];
    float *logits[2];  /* (tile, vocab) */
    float *scratch;    /* (threads, vocab) */
    float *logp;       /* (threads, vocab), with a file */
    uint16_t *read;    /* (tile, words) rows of the file */
    uint16_t *written; /* (tile, words) rows to save */
    uint64_t words;    /* of a row */
    uint32_t vocab;
    uint32_t sequences; /* windows fed at once, at most */
    uint32_t block;     /* tokens of each window fed at once, at most */
    uint32_t tile;      /* positions whose logits exist at once */
    int32_t *tokens;    /* (sequences, block) */
    uint32_t *rows;     /* (sequences * block) positions to score, as rows of the feed */
    int32_t *next;      /* the token each predicts */
    nq_position **where;
    uint32_t tile_first; /* of the positions: the tile at work */
    nq_position *out;
} scorer;

uint32_t nq_windows_scored(const nq_windows *w) { return w->n_ctx - 1 - w->n_ctx / 2; }

static uint32_t plan_sequences(const nq_model *m, const nq_windows *w) {
    const nq_hyper *h = &m->hyper;
    uint64_t each = (uint64_t)h->blocks * 2 * h->heads_kv * h->head_dim * w->n_ctx * sizeof(float);
    uint64_t n = BATCH_TOKENS / w->n_ctx;
    n = n > CACHE_BYTES / each ? CACHE_BYTES / each : n;
    n = n > w->chunks ? w->chunks : n;
    return n == 0 ? 1 : (uint32_t)n;
}

static novaq_status open_scorer(scorer *s, novaq_error *err) {
    unsigned threads = nq_pool_threads(s->model[0]->pool);
    s->vocab = s->model[0]->hyper.vocab;
    s->sequences = plan_sequences(s->model[0], s->w);
    s->block = s->w->n_ctx < BATCH_TOKENS ? s->w->n_ctx : BATCH_TOKENS;
    uint32_t feed = s->sequences * s->block;
    uint64_t tile = LOGIT_BYTES / (s->vocab * sizeof(float));
    s->tile = tile < 16 ? 16 : tile > feed ? feed : (uint32_t)tile;
    for (int i = 0; i < s->models; i++) {
        NQ_TRY(nq_run_open(&s->run[i], s->model[i], s->sequences, s->w->n_ctx, s->block, err));
        NQ_TRY(nq_alloc_raw(&s->logits[i], (uint64_t)s->tile * s->vocab, sizeof(float), err));
    }
    NQ_TRY(nq_alloc_raw(&s->scratch, (uint64_t)threads * s->vocab, sizeof(float), err));
    s->words = nq_kl_row_words(s->vocab);
    if (s->what->file != NULL) {
        NQ_TRY(nq_alloc_raw(&s->logp, (uint64_t)threads * s->vocab, sizeof(float), err));
        NQ_TRY(nq_alloc_raw(&s->read, s->tile * s->words, sizeof *s->read, err));
    }
    if (s->what->save != NULL) {
        NQ_TRY(nq_alloc_raw(&s->written, s->tile * s->words, sizeof *s->written, err));
    }
    NQ_TRY(nq_alloc(&s->tokens, feed, sizeof *s->tokens, err));
    NQ_TRY(nq_alloc(&s->rows, feed, sizeof *s->rows, err));
    NQ_TRY(nq_alloc(&s->next, feed, sizeof *s->next, err));
    return nq_alloc(&s->where, feed, sizeof *s->where, err);
}

static void close_scorer(scorer *s) {
    for (int i = 0; i < 2; i++) {
        nq_run_close(&s->run[i]);
        nq_free(s->logits[i]);
    }
    nq_free(s->scratch);
    nq_free(s->logp);
    nq_free(s->read);
    nq_free(s->written);
    nq_free(s->tokens);
    nq_free(s->rows);
    nq_free(s->next);
    nq_free(s->where);
}

static void score_task(void *ctx, uint64_t task, unsigned worker) {
    const scorer *s = ctx;
    uint32_t at = s->tile_first + (uint32_t)task;
    uint64_t mine = (uint64_t)worker * s->vocab;
    const float *q = s->logits[0] + task * s->vocab;
    const float *p = s->models < 2 ? NULL : s->logits[1] + task * s->vocab;
    if (s->written != NULL) {
        nq_kl_row_encode(s->written + task * s->words, q, s->scratch + mine, s->vocab);
    }
    if (s->read == NULL) {
        *s->where[at] = nq_score_position(q, p, s->scratch + mine, s->vocab, s->next[at]);
    } else if (nq_kl_row_decode(s->logp + mine, s->read + task * s->words, s->vocab)) {
        *s->where[at] =
            nq_score_stored(q, s->logp + mine, s->scratch + mine, s->vocab, s->next[at]);
    } else {
        *s->where[at] = (nq_position){.same_top = -1}; /* found by check_tile() */
    }
}

/* Positions arrive in the order of the file's rows (a window is fed whole
 * unless it is fed alone), so a tile is a run of rows. */
static uint64_t tile_row(const scorer *s) { return (uint64_t)(s->where[s->tile_first] - s->out); }

static novaq_status check_tile(const scorer *s, uint32_t rows, novaq_error *err) {
    for (uint32_t i = 0; s->read != NULL && i < rows; i++) {
        if (s->where[s->tile_first + i]->same_top < 0) {
            const nq_kl_base *f = s->what->file;
            uint64_t offset = f->rows_at + (tile_row(s) + i) * s->words * sizeof(uint16_t);
            return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: no log-probabilities",
                           f->source->name, (unsigned long long)offset);
        }
    }
    return NOVAQ_OK;
}

static novaq_status score_tile(scorer *s, uint32_t first, uint32_t rows, novaq_error *err) {
    s->tile_first = first;
    for (int m = 0; m < s->models; m++) {
        NQ_TRY(nq_run_logits(s->logits[m], s->run[m], s->rows + first, rows, err));
    }
    if (s->read != NULL) {
        NQ_TRY(nq_kl_base_rows(s->read, s->what->file, tile_row(s), rows, err));
    }
    nq_pool_run(s->model[0]->pool, score_task, s, rows);
    NQ_TRY(check_tile(s, rows, err));
    if (s->written == NULL) {
        return NOVAQ_OK;
    }
    return nq_outfile_write(s->what->save, s->written, rows * s->words * sizeof(uint16_t), err);
}

/* Positions [pos, pos + count) of windows [first, first + sequences). */
static novaq_status score_feed(scorer *s, uint32_t first, uint32_t sequences, uint32_t pos,
                               uint32_t count, novaq_error *err) {
    const nq_windows *w = s->w;
    uint32_t n = 0;
    for (uint32_t q = 0; q < sequences; q++) {
        const int32_t *window = w->tokens + (uint64_t)(first + q) * w->n_ctx;
        memcpy(s->tokens + (uint64_t)q * count, window + pos, count * sizeof *window);
        if (pos == 0 && w->bos >= 0) {
            s->tokens[(uint64_t)q * count] = w->bos;
        }
        for (uint32_t i = 0; i < count; i++) {
            uint32_t p = pos + i;
            if (p >= w->n_ctx / 2 && p + 1 < w->n_ctx) {
                s->rows[n] = q * count + i;
                s->next[n] = window[p + 1];
                s->where[n++] =
                    s->out + (uint64_t)(first + q) * nq_windows_scored(w) + (p - w->n_ctx / 2);
            }
        }
    }
    for (int m = 0; m < s->models; m++) {
        NQ_TRY(nq_run_feed(s->run[m], s->tokens, sequences, count, err));
    }
    for (uint32_t at = 0; at < n; at += s->tile) {
        NQ_TRY(score_tile(s, at, n - at < s->tile ? n - at : s->tile, err));
    }
    return NOVAQ_OK;
}

static novaq_status score_batch(scorer *s, uint32_t first, uint32_t sequences, novaq_error *err) {
    for (int m = 0; m < s->models; m++) {
        nq_run_reset(s->run[m]);
    }
    for (uint32_t pos = 0; pos < s->w->n_ctx;) {
        uint32_t left = s->w->n_ctx - pos;
        uint32_t count = left < s->block ? left : s->block;
        NQ_TRY(score_feed(s, first, sequences, pos, count, err));
        pos += count;
    }
    return NOVAQ_OK;
}

static double running_perplexity(const nq_position *p, uint64_t n) {
    double sum = 0;
    for (uint64_t i = 0; i < n; i++) {
        sum += p[i].nll;
    }
    return exp(sum / (double)n);
}

static novaq_status score_all(scorer *s, novaq_error *err) {
    for (uint32_t done = 0; done < s->w->chunks;) {
        uint32_t left = s->w->chunks - done;
        uint32_t sequences = left < s->sequences ? left : s->sequences;
        NQ_TRY(score_batch(s, done, sequences, err));
        done += sequences;
        if (s->what->progress != NULL) {
            uint64_t scored = (uint64_t)done * nq_windows_scored(s->w);
            novaq_progress p = {.phase = "perplexity",
                                .item = "",
                                .done = done,
                                .total = s->w->chunks,
                                .unit = "chunks",
                                .value = running_perplexity(s->out, scored)};
            if (s->what->progress(s->what->progress_ctx, &p) != 0) {
                return nq_fail(err, NOVAQ_E_INTERRUPTED, "interrupted after %u chunks", done);
            }
        }
    }
    return NOVAQ_OK;
}

static novaq_status check_vocabularies(const nq_scoring *what, novaq_error *err) {
    uint32_t ours = what->model->hyper.vocab;
    uint32_t theirs = what->base != NULL   ? what->base->hyper.vocab
                      : what->file != NULL ? what->file->vocab
                                           : ours;
    if (ours == theirs) {
        return NOVAQ_OK;
    }
    return nq_fail(err, NOVAQ_E_ARG, "vocabularies of %u and %u tokens cannot be compared", ours,
                   theirs);
}

novaq_status nq_score(nq_position *out, const nq_scoring *what, novaq_error *err) {
    NQ_TRY(check_vocabularies(what, err));
    const nq_windows *w = what->w;
    scorer s = {.what = what,
                .w = w,
                .model = {what->model, what->base},
                .models = what->base == NULL ? 1 : 2,
                .out = out};
    novaq_status st = open_scorer(&s, err);
    if (st == NOVAQ_OK) {
        st = score_all(&s, err);
    }
    close_scorer(&s);
    uint64_t n = (uint64_t)w->chunks * nq_windows_scored(w);
    for (uint64_t i = 0; st == NOVAQ_OK && i < n; i++) {
        if (!isfinite(out[i].nll) || !isfinite(out[i].kld)) {
            st = nq_fail(err, NOVAQ_E_NUMERIC, "chunk %llu: the model computed no number",
                         (unsigned long long)(i / nq_windows_scored(w)));
        }
    }
    return st;
}

/* export_merges.c - from scores to merges and back.
 *
 * Owns: the list that makes a BPE with merges take the same steps as one by scores
 * (equal scores keep the order of the ids), and the scores for such a list.
 * Refuses: scores for merges that no scores can stand for, and what GGUF has no
 * name for.
 */
#include <stdlib.h>
#include <string.h>

#include "model/describe.h"
#include "model/tokenizer.h"
#include "model/tokenizer_impl.h"

typedef struct pair {
    double score; /* of what it makes */
    uint32_t id;
    uint32_t left, right;
    uint32_t cut; /* bytes of left */
} pair;

typedef struct pairs {
    pair *data;
    size_t count, cap;
} pairs;

static int best_first(const void *a, const void *b) {
    const pair *x = a;
    const pair *y = b;
    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    if (x->id != y->id) {
        return x->id < y->id ? -1 : 1;
    }
    return x->left != y->left ? (x->left > y->left) - (x->left < y->left)
                              : (x->right > y->right) - (x->right < y->right);
}

static novaq_status add_cuts(pairs *p, const nq_vocab *v, size_t id, double score,
                             novaq_error *err) {
    nq_span s = v->text[id];
    for (uint32_t cut = 1; cut < s.len; cut++) {
        int64_t left = nq_strmap_find(&v->by_text, s.data, cut);
        int64_t right = left < 0 ? -1 : nq_strmap_find(&v->by_text, s.data + cut, s.len - cut);
        if (right < 0) {
            continue;
        }
        if (p->count == p->cap) {
            size_t cap = p->cap * 2 + 1024;
            NQ_TRY(nq_grow(&p->data, p->count, cap, sizeof *p->data, err));
            p->cap = cap;
        }
        p->data[p->count++] = (pair){score, (uint32_t)id, (uint32_t)left, (uint32_t)right, cut};
    }
    return NOVAQ_OK;
}

static bool merges_to(uint8_t type) { return type == NQ_TOK_NORMAL || type == NQ_TOK_USER; }

static novaq_status list_pairs(json_t *list, const pairs *p, const nq_vocab *v, novaq_error *err) {
    for (size_t i = 0; i < p->count; i++) {
        nq_span s = v->text[p->data[i].id];
        uint32_t cut = p->data[i].cut;
        if (memchr(s.data, ' ', s.len) != NULL) {
            continue; /* no text has spaces left when merges are made */
        }
        json_t *text = json_sprintf("%.*s %.*s", (int)cut, (const char *)s.data, (int)(s.len - cut),
                                    (const char *)s.data + cut);
        if (text == NULL || json_array_append_new(list, text) != 0) {
            return nq_fail(err, NOVAQ_E_MEMORY, "no memory for the merges");
        }
    }
    return NOVAQ_OK;
}

novaq_status nq_merges_from_scores(json_t **out, const json_t *desc, novaq_error *err) {
    nq_vocab v = {0};
    pairs p = {0};
    double *scores = NULL;
    *out = NULL;
    novaq_status st = nq_vocab_init(&v, json_object_get(desc, "tokens"),
                                    json_object_get(desc, "token_types"), false, err);
    st = st == NOVAQ_OK ? nq_vocab_scores(&scores, &v, json_object_get(desc, "scores"), err) : st;
    for (size_t i = 0; st == NOVAQ_OK && i < v.count; i++) {
        st = merges_to(v.types[i]) ? add_cuts(&p, &v, i, scores[i], err) : NOVAQ_OK;
    }
    if (st == NOVAQ_OK) {
        if (p.count > 0) {
            qsort(p.data, p.count, sizeof *p.data, best_first);
        }
        *out = json_array();
        st = *out == NULL ? nq_fail(err, NOVAQ_E_MEMORY, "no memory for the merges")
                          : list_pairs(*out, &p, &v, err);
    }
    if (st != NOVAQ_OK) {
        json_decref(*out);
        *out = NULL;
    }
    nq_free(scores);
    nq_free(p.data);
    nq_vocab_free(&v);
    return st;
}

novaq_status nq_has_byte_fallback(bool *out, const json_t *desc, novaq_error *err) {
    const json_t *given = json_object_get(desc, "byte_fallback");
    nq_vocab v = {0};
    int32_t ids[256];
    const char *model = json_string_value(json_object_get(desc, "model"));
    *out = json_is_true(given);
    if (given != NULL || model == NULL || strcmp(model, "llama") != 0) {
        return NOVAQ_OK;
    }
    novaq_status st = nq_vocab_init(&v, json_object_get(desc, "tokens"),
                                    json_object_get(desc, "token_types"), false, err);
    *out = st == NOVAQ_OK && nq_vocab_byte_tokens(ids, &v) == 256;
    nq_vocab_free(&v);
    return st;
}

/* For the id of each merge's result: rank[id] = order of first appearance. False
 * when merges of one token do not follow each other. */
static novaq_status order_results(bool *ordered, double *scores, const nq_vocab *v,
                                  const json_t *merges, novaq_error *err) {
    int64_t last = -1;
    double next = 0;
    *ordered = true;
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const json_t *m = json_array_get(merges, i);
        const char *text = json_string_value(m);
        const char *space = memchr(text + 1, ' ', json_string_length(m) - 1);
        nq_span left = {(const uint8_t *)text, (uint32_t)(space - text)};
        nq_span right = {(const uint8_t *)space + 1,
                         (uint32_t)(json_string_length(m) - left.len - 1)};
        int64_t id = nq_strmap_find2(&v->by_text, left, right);
        if (id < 0 || (id != last && scores[id] < 0)) {
            *ordered = false;
            return id >= 0 ? NOVAQ_OK
                           : nq_fail(err, NOVAQ_E_FORMAT, "tokenizer: merge %zu makes no token", i);
        }
        scores[id] = id == last ? scores[id] : --next;
        last = id;
    }
    return NOVAQ_OK;
}

static novaq_status put_scores(json_t *desc, const double *scores, size_t count, novaq_error *err) {
    json_t *list = json_array();
    NQ_TRY(nq_tokdesc_put(desc, "scores", list, err));
    for (size_t i = 0; i < count; i++) {
        if (json_array_append_new(list, json_real(scores[i])) != 0) {
            return nq_fail(err, NOVAQ_E_MEMORY, "no memory for the scores");
        }
    }
    return NOVAQ_OK;
}

/* The same merges, whatever the order within one token. */
static bool same_merges(const json_t *a, const json_t *b, novaq_status *st, novaq_error *err) {
    json_t *set = json_object();
    size_t common = 0;
    for (size_t i = 0; set != NULL && i < json_array_size(a); i++) {
        if (json_object_set_new(set, json_string_value(json_array_get(a, i)), json_true()) != 0) {
            json_decref(set);
            set = NULL;
        }
    }
    if (set == NULL) {
        *st = nq_fail(err, NOVAQ_E_MEMORY, "no memory for the merges");
        return false;
    }
    for (size_t i = 0; i < json_array_size(b); i++) {
        common += json_object_get(set, json_string_value(json_array_get(b, i))) != NULL;
    }
    bool same = common == json_object_size(set) && common == json_array_size(b);
    json_decref(set);
    return same;
}

/* desc: a copy that may be changed; its merges are replaced by scores. */
static novaq_status scores_from_merges(json_t *desc, novaq_error *err) {
    nq_vocab v = {0};
    double *scores = NULL;
    json_t *again = NULL;
    bool fits = false;
    const json_t *merges = json_object_get(desc, "merges");
    novaq_status st = nq_vocab_init(&v, json_object_get(desc, "tokens"),
                                    json_object_get(desc, "token_types"), false, err);
    st = st == NOVAQ_OK ? nq_alloc(&scores, v.count, sizeof *scores, err) : st;
    st = st == NOVAQ_OK ? order_results(&fits, scores, &v, merges, err) : st;
    st = st == NOVAQ_OK ? put_scores(desc, scores, v.count, err) : st;
    if (st == NOVAQ_OK && fits) {
        st = nq_merges_from_scores(&again, desc, err);
        fits = st == NOVAQ_OK && same_merges(merges, again, &st, err);
    }
    if (st == NOVAQ_OK && !fits) {
        st = nq_fail(err, NOVAQ_E_UNSUPPORTED,
                     "the tokenizer's merges are not those of scores, which GGUF needs; export "
                     "with --to safetensors");
    }
    json_decref(again);
    nq_free(scores);
    nq_vocab_free(&v);
    return st == NOVAQ_OK && json_object_del(desc, "merges") != 0
               ? nq_fail(err, NOVAQ_E_MEMORY, "no memory for the tokenizer")
               : st;
}

novaq_status nq_tokenizer_to_gguf(json_t **out, const json_t *desc, novaq_error *err) {
    *out = NULL;
    nq_tokenizer *t = NULL;
    NQ_TRY(nq_tokenizer_open(&t, desc, err)); /* what follows relies on its checks */
    nq_tokenizer_close(&t);
    const char *pre = json_string_value(json_object_get(desc, "pre"));
    const char *model = json_string_value(json_object_get(desc, "model"));
    if (strcmp(pre, "custom") == 0) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "GGUF has no name for this model's pre-tokenizer; export with --to "
                       "safetensors");
    }
    json_t *copy = json_copy((json_t *)desc); /* members stay shared */
    if (copy == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "no memory for the tokenizer");
    }
    novaq_status st = NOVAQ_OK;
    if (strcmp(model, "llama") == 0 && json_object_get(desc, "merges") != NULL) {
        st = scores_from_merges(copy, err);
    }
    if (st != NOVAQ_OK) {
        json_decref(copy);
        return st;
    }
    *out = copy;
    return NOVAQ_OK;
}

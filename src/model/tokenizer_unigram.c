/* tokenizer_unigram.c - SentencePiece's Unigram: of all ways to cut a piece into
 * tokens, the one whose scores add up to most.
 *
 * Owns: the Viterbi search, and a set of hashes of prefixes that ends the look-up
 * of a token early (a false hit only costs time). Refuses: scores that are not
 * finite, a vocabulary without an unknown token.
 */
#include <string.h>

#include "model/tokenizer_impl.h"

#define UNKNOWN_PENALTY 10.0
#define HASH_START      0xCBF29CE484222325ULL

/* The best way to reach a byte. */
typedef struct nq_unigram_node {
    double score;
    int32_t id;
    uint32_t from; /* UINT32_MAX: not reached */
} nq_unigram_node;

static uint64_t hash_byte(uint64_t h, uint8_t b) { return (h ^ b) * 0x100000001B3ULL; }

static uint64_t bit_of(const nq_unigram *u, uint64_t h) { return (h ^ h >> 31) & u->mask; }

static novaq_status init_prefixes(nq_unigram *u, novaq_error *err) {
    const nq_vocab *v = u->vocab;
    uint64_t bytes = 0;
    for (size_t i = 0; i < v->count; i++) {
        bytes += v->text[i].len;
    }
    uint64_t bits = 1024;
    while (bits < 16 * bytes && bits < (uint64_t)1 << 34) {
        bits *= 2;
    }
    u->mask = bits - 1;
    NQ_TRY(nq_alloc(&u->prefixes, bits / 64, sizeof *u->prefixes, err));
    for (size_t i = 0; i < v->count; i++) {
        uint64_t h = HASH_START;
        for (uint32_t k = 0; k < v->text[i].len; k++) {
            h = hash_byte(h, v->text[i].data[k]);
            u->prefixes[bit_of(u, h) / 64] |= (uint64_t)1 << bit_of(u, h) % 64;
        }
    }
    return NOVAQ_OK;
}

novaq_status nq_unigram_init(nq_unigram *u, const json_t *scores, novaq_error *err) {
    if (u->unknown.id < 0) {
        return nq_fail(err, NOVAQ_E_FORMAT, "tokenizer: Unigram without an unknown token");
    }
    NQ_TRY(nq_vocab_scores(&u->scores, u->vocab, scores, err));
    double least = u->scores[0];
    for (size_t i = 1; i < u->vocab->count; i++) {
        least = u->scores[i] < least ? u->scores[i] : least;
    }
    u->unknown_score = least - UNKNOWN_PENALTY;
    return init_prefixes(u, err);
}

void nq_unigram_free(nq_unigram *u) {
    nq_free(u->scores);
    nq_free(u->prefixes);
    *u = (nq_unigram){0};
}

void nq_unigram_work_free(nq_unigram_work *w) {
    nq_free(w->nodes);
    *w = (nq_unigram_work){0};
}

static novaq_status reserve(nq_unigram_work *w, size_t len, novaq_error *err) {
    if (len > NQ_TOK_TEXT_MAX) {
        return nq_fail(err, NOVAQ_E_ARG, "text of %zu bytes is too long to tokenize at once", len);
    }
    if (len + 1 > w->cap) {
        nq_unigram_work_free(w);
        size_t cap = len + len / 2 + 64;
        NQ_TRY(nq_alloc_raw(&w->nodes, cap, sizeof *w->nodes, err));
        w->cap = cap;
    }
    for (size_t i = 0; i <= len; i++) {
        w->nodes[i] = (nq_unigram_node){0, -1, UINT32_MAX};
    }
    return NOVAQ_OK;
}

static void reach(nq_unigram_node *to, double score, int32_t id, size_t from) {
    if (to->from == UINT32_MAX || score > to->score) {
        *to = (nq_unigram_node){score, id, (uint32_t)from};
    }
}

static bool is_text(const nq_unigram *u, size_t id) {
    uint8_t type = u->vocab->types[id];
    return type == NQ_TOK_NORMAL || type == NQ_TOK_USER ||
           (type == NQ_TOK_BYTE && u->literal_bytes);
}

/* Every token that begins at `at`. */
static void step(nq_unigram_work *w, const nq_unigram *u, const uint8_t *text, size_t at,
                 size_t len, size_t character) {
    double here = w->nodes[at].score;
    bool single = false; /* the character is a token */
    uint64_t h = HASH_START;
    size_t limit = len - at < u->vocab->longest ? len - at : u->vocab->longest;
    for (size_t n = 1; n <= limit; n++) {
        h = hash_byte(h, text[at + n - 1]);
        if ((u->prefixes[bit_of(u, h) / 64] >> bit_of(u, h) % 64 & 1) == 0) {
            break;
        }
        int64_t id = n < character ? -1 : nq_strmap_find(&u->vocab->by_text, text + at, n);
        if (id >= 0 && is_text(u, (size_t)id)) {
            reach(&w->nodes[at + n], here + u->scores[id], (int32_t)id, at);
            single = single || n == character;
        }
    }
    if (!single) {
        reach(&w->nodes[at + character], here + u->unknown_score, u->unknown.id, at);
    }
}

/* Turns the links around, so that nodes[i].from is where the token at i ends. */
static void reverse(nq_unigram_node *nodes, size_t len) {
    uint32_t at = (uint32_t)len;
    uint32_t next = UINT32_MAX;
    int32_t id = -1;
    while (at != UINT32_MAX) {
        nq_unigram_node old = nodes[at];
        nodes[at].from = next;
        nodes[at].id = id;
        next = at;
        id = old.id;
        at = at == 0 ? UINT32_MAX : old.from;
    }
}

static novaq_status push_unknown(nq_ids *ids, const nq_unigram *u, const uint8_t *text, size_t len,
                                 novaq_error *err) {
    /* Characters that are unknown one by one may be a token together. */
    int64_t id = nq_strmap_find(&u->vocab->by_text, text, len);
    if (id >= 0 && is_text(u, (size_t)id)) {
        return nq_ids_push(ids, (int32_t)id, err);
    }
    if (!u->unknown.bytes) {
        return nq_ids_push(ids, u->unknown.id, err);
    }
    for (size_t i = 0; i < len; i++) {
        NQ_TRY(nq_ids_push(ids, u->unknown.byte_ids[text[i]], err));
    }
    return NOVAQ_OK;
}

novaq_status nq_unigram_encode(nq_ids *ids, nq_unigram_work *w, const nq_unigram *u,
                               const uint8_t *piece, size_t len, novaq_error *err) {
    NQ_TRY(reserve(w, len, err));
    w->nodes[0] = (nq_unigram_node){0, -1, 0};
    for (size_t i = 0; i < len;) {
        uint32_t cp = 0;
        unsigned n = nq_utf8_next(piece + i, len - i, &cp);
        n += n == 0; /* a byte that is not UTF-8 is a character of its own */
        step(w, u, piece, i, len, n);
        i += n;
    }
    reverse(w->nodes, len);
    for (size_t i = 0; i < len;) {
        int32_t id = w->nodes[i].id;
        size_t end = w->nodes[i].from;
        while (id == u->unknown.id && u->unknown.fuse && end < len &&
               w->nodes[end].id == u->unknown.id) {
            end = w->nodes[end].from;
        }
        if (id == u->unknown.id) {
            NQ_TRY(push_unknown(ids, u, piece + i, end - i, err));
        } else {
            NQ_TRY(nq_ids_push(ids, id, err));
        }
        i = end;
    }
    return NOVAQ_OK;
}

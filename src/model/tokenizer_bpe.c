/* tokenizer_bpe.c - byte-pair encoding of one piece: of bytes with merges, of
 * characters with merges, or of characters by scores as SentencePiece does.
 *
 * Owns: the merge table and the merge loop: a linked list of symbols and a heap
 * of candidates, O(n log n) in the length of the piece; of equal ranks the
 * leftmost goes first. A small cache of pieces makes common words cheap. Refuses:
 * merges whose parts or result are not in the vocabulary.
 */
#include <string.h>

#include "base/rng.h"
#include "model/tokenizer_impl.h"

typedef struct nq_bpe_symbol {
    int32_t id;   /* -1: no token */
    uint32_t len; /* bytes, 0: merged into its left neighbour */
    uint32_t at;
    int32_t prev, next;
} nq_bpe_symbol;

typedef struct nq_bpe_candidate {
    uint32_t rank;
    int32_t pos; /* of the left symbol */
    uint32_t id; /* of the token it makes */
} nq_bpe_candidate;

#define CACHE_SLOTS 8192
#define CACHE_BYTES 30
#define CACHE_IDS   8
#define CACHE_AFTER 64 /* pieces, before a text is long enough to want one */

typedef struct cache_slot {
    uint8_t len, count; /* len 0: empty */
    uint8_t bytes[CACHE_BYTES];
    int32_t ids[CACHE_IDS];
} cache_slot;

struct nq_bpe_cache {
    cache_slot slots[CACHE_SLOTS];
};

static uint64_t pair_key(uint32_t left, uint32_t right) { return (uint64_t)left << 32 | right; }

static nq_merge_slot *slot_of(const nq_bpe *b, uint64_t key) {
    uint64_t i = nq_hash3(0, 0, key) & b->mask;
    while (b->merges[i].key != UINT64_MAX && b->merges[i].key != key) {
        i = (i + 1) & b->mask;
    }
    return &b->merges[i];
}

/* Of two equal merges the later one counts, as in the reference. */
static novaq_status add_merge(nq_bpe *b, const char *text, size_t len, uint32_t rank,
                              novaq_error *err) {
    const char *space = len > 0 ? memchr(text + 1, ' ', len - 1) : NULL;
    if (space == NULL || space + 1 == text + len || text[0] == ' ' ||
        memchr(space + 1, ' ', (size_t)(text + len - space - 1)) != NULL ||
        len > 2 * NQ_TOK_TOKEN_MAX) {
        return nq_fail(err, NOVAQ_E_FORMAT, "tokenizer: merge %u is not \"left right\"",
                       (unsigned)rank);
    }
    nq_span l = {(const uint8_t *)text, (uint32_t)(space - text)};
    nq_span r = {(const uint8_t *)space + 1, (uint32_t)(len - l.len - 1)};
    const nq_strmap *m = &b->vocab->by_text;
    int64_t left = nq_strmap_find(m, l.data, l.len);
    int64_t right = nq_strmap_find(m, r.data, r.len);
    int64_t id = nq_strmap_find2(m, l, r);
    if (left < 0 || right < 0 || id < 0) {
        return nq_fail(err, NOVAQ_E_FORMAT, "tokenizer: merge %u: its %s is not a token",
                       (unsigned)rank,
                       left < 0    ? "left part"
                       : right < 0 ? "right part"
                                   : "result");
    }
    uint64_t key = pair_key((uint32_t)left, (uint32_t)right);
    *slot_of(b, key) = (nq_merge_slot){key, rank, (uint32_t)id};
    return NOVAQ_OK;
}

static novaq_status init_merges(nq_bpe *b, const json_t *merges, novaq_error *err) {
    size_t count = json_array_size(merges);
    if (!json_is_array(merges) || count > NQ_TOK_VOCAB_MAX) {
        return nq_fail(err, NOVAQ_E_FORMAT, "tokenizer: \"merges\" is not an array of at most %zu",
                       NQ_TOK_VOCAB_MAX);
    }
    uint64_t size = 16;
    while (size < 2 * (uint64_t)count) {
        size *= 2;
    }
    b->mask = size - 1;
    NQ_TRY(nq_alloc_raw(&b->merges, size, sizeof *b->merges, err));
    for (uint64_t i = 0; i < size; i++) {
        b->merges[i] = (nq_merge_slot){.key = UINT64_MAX};
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *s = json_array_get(merges, i);
        if (!json_is_string(s)) {
            return nq_fail(err, NOVAQ_E_FORMAT, "tokenizer: merge %zu is not a string", i);
        }
        NQ_TRY(add_merge(b, json_string_value(s), json_string_length(s), (uint32_t)i, err));
    }
    return NOVAQ_OK;
}

static void init_bytes(nq_bpe *b) {
    for (unsigned i = 0; i < 256; i++) {
        uint8_t text[4];
        unsigned n = nq_utf8_put(text, nq_byte_to_code((uint8_t)i));
        b->byte_id[i] = (int32_t)nq_strmap_find(&b->vocab->by_text, text, n);
    }
}

/* Ranks in the order of the scores as SentencePiece keeps them: float. */
static novaq_status init_ranks(nq_bpe *b, const json_t *scores, novaq_error *err) {
    double *values = NULL;
    novaq_status st = nq_vocab_scores(&values, b->vocab, scores, err);
    if (st == NOVAQ_OK) {
        st = nq_alloc_raw(&b->ranks, b->vocab->count, sizeof *b->ranks, err);
    }
    for (size_t i = 0; st == NOVAQ_OK && i < b->vocab->count; i++) {
        float f = (float)values[i] + 0.0F; /* no negative zero */
        uint32_t bits = 0;
        memcpy(&bits, &f, sizeof bits);
        uint32_t rising = (bits >> 31) != 0 ? ~bits : bits | 0x80000000U;
        b->ranks[i] = ~rising;
    }
    nq_free(values);
    return st;
}

/* SentencePiece reserves these for other uses. */
static bool merges_to(const nq_bpe *b, size_t id) {
    uint8_t type = b->vocab->types[id];
    return type == NQ_TOK_NORMAL || type == NQ_TOK_USER;
}

/* Notes the bytes that stand before a run of U+2581 within a token. */
static void note_inner_marks(bool joins[256], nq_span s) {
    static const uint32_t mark = sizeof NQ_META - 1;
    for (uint32_t i = 1; i + mark <= s.len; i++) {
        if (memcmp(s.data + i, NQ_META, mark) == 0 &&
            (i < mark || memcmp(s.data + i - mark, NQ_META, mark) != 0)) {
            joins[s.data[i - 1]] = true;
        }
    }
}

/* Where U+2581 is no token it may be fused with what comes before it. */
static void init_cut(nq_bpe *b) {
    b->cut = !b->byte_level &&
             nq_strmap_find(&b->vocab->by_text, (const uint8_t *)NQ_META, sizeof NQ_META - 1) >= 0;
    for (size_t i = 0; b->cut && i < b->vocab->count; i++) {
        note_inner_marks(b->joins, b->vocab->text[i]);
    }
}

/* SentencePiece would merge to an unused token and take the merge apart again. */
static novaq_status check_unused(const nq_bpe *b, novaq_error *err) {
    const nq_vocab *v = b->vocab;
    for (size_t i = 0; i < v->count; i++) {
        for (uint32_t n = 1; v->types[i] == NQ_TOK_UNUSED && n < v->text[i].len; n++) {
            if (nq_strmap_find(&v->by_text, v->text[i].data, n) >= 0 &&
                nq_strmap_find(&v->by_text, v->text[i].data + n, v->text[i].len - n) >= 0) {
                return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                               "tokenizer: unused token %zu is made of two others", i);
            }
        }
    }
    return NOVAQ_OK;
}

/* Whether the token's text is in the byte alphabet: then it is longer than its
 * bytes or plain ASCII. Other tokens stand for themselves and match no word. */
static bool is_spelled(nq_span text, nq_span bytes) {
    if (text.len != bytes.len) {
        return true;
    }
    for (uint32_t i = 0; i < bytes.len; i++) {
        if (bytes.data[i] < 0x21 || bytes.data[i] > 0x7E) {
            return false;
        }
    }
    return true;
}

static novaq_status init_words(nq_bpe *b, novaq_error *err) {
    const nq_vocab *v = b->vocab;
    NQ_TRY(nq_strmap_init(&b->words, v->bytes, v->count, err));
    for (size_t i = 0; i < v->count; i++) {
        bool plain = v->types[i] == NQ_TOK_NORMAL || v->types[i] == NQ_TOK_BYTE;
        if (plain && v->bytes[i].len > 0 && is_spelled(v->text[i], v->bytes[i])) {
            (void)nq_strmap_add(&b->words, (uint32_t)i);
        }
    }
    return NOVAQ_OK;
}

novaq_status nq_bpe_init(nq_bpe *b, const json_t *merges, const json_t *scores, novaq_error *err) {
    if (b->byte_level) {
        init_bytes(b);
    }
    init_cut(b);
    if (merges == NULL) {
        NQ_TRY(check_unused(b, err));
        return init_ranks(b, scores, err);
    }
    NQ_TRY(init_merges(b, merges, err));
    return b->ignore_merges && b->byte_level ? init_words(b, err) : NOVAQ_OK;
}

void nq_bpe_free(nq_bpe *b) {
    nq_free(b->merges);
    nq_free(b->ranks);
    nq_strmap_free(&b->words);
    *b = (nq_bpe){0};
}

novaq_status nq_ids_push(nq_ids *ids, int32_t id, novaq_error *err) {
    if (ids->count == ids->cap) {
        size_t cap = ids->cap * 2 + 64;
        NQ_TRY(nq_grow(&ids->data, ids->count, cap, sizeof *ids->data, err));
        ids->cap = cap;
    }
    ids->data[ids->count++] = id;
    return NOVAQ_OK;
}

static bool before(const nq_bpe_candidate *a, const nq_bpe_candidate *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->pos < b->pos;
}

static void heap_push(nq_bpe_work *w, nq_bpe_candidate c) {
    size_t i = w->heap_len++;
    while (i > 0 && before(&c, &w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = c;
}

static nq_bpe_candidate heap_pop(nq_bpe_work *w) {
    nq_bpe_candidate top = w->heap[0];
    nq_bpe_candidate last = w->heap[--w->heap_len];
    size_t i = 0;
    for (size_t child = 1; child < w->heap_len; child = 2 * i + 1) {
        if (child + 1 < w->heap_len && before(&w->heap[child + 1], &w->heap[child])) {
            child++;
        }
        if (!before(&w->heap[child], &last)) {
            break;
        }
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

/* The token that the symbol at pos and its right neighbour make; false if none. */
static bool merge_of(uint32_t *rank, uint32_t *id, const nq_bpe *b, const nq_bpe_symbol *s,
                     int32_t pos, const uint8_t *text) {
    int32_t next = s[pos].next;
    if (next < 0) {
        return false;
    }
    if (b->merges != NULL) {
        const nq_merge_slot *m = slot_of(b, pair_key((uint32_t)s[pos].id, (uint32_t)s[next].id));
        *rank = m->rank;
        *id = m->id;
        return m->key != UINT64_MAX;
    }
    uint32_t len = s[pos].len + s[next].len;
    int64_t found =
        len > b->vocab->longest ? -1 : nq_strmap_find(&b->vocab->by_text, text + s[pos].at, len);
    if (found < 0 || !merges_to(b, (size_t)found)) {
        return false;
    }
    *rank = b->ranks[found];
    *id = (uint32_t)found;
    return true;
}

static void offer(nq_bpe_work *w, const nq_bpe *b, int32_t pos, const uint8_t *text) {
    uint32_t rank = 0;
    uint32_t id = 0;
    if (merge_of(&rank, &id, b, w->symbols, pos, text)) {
        heap_push(w, (nq_bpe_candidate){rank, pos, id});
    }
}

static void merge_all(nq_bpe_work *w, const nq_bpe *b, size_t count, const uint8_t *text) {
    nq_bpe_symbol *s = w->symbols;
    w->heap_len = 0;
    for (size_t i = 0; i < count; i++) {
        offer(w, b, (int32_t)i, text);
    }
    while (w->heap_len > 0) {
        nq_bpe_candidate c = heap_pop(w);
        uint32_t rank = 0;
        uint32_t id = 0;
        /* Stale when a neighbour has changed and the pair makes another token. */
        if (s[c.pos].len == 0 || !merge_of(&rank, &id, b, s, c.pos, text) || id != c.id) {
            continue;
        }
        int32_t gone = s[c.pos].next;
        s[c.pos].id = (int32_t)c.id;
        s[c.pos].len += s[gone].len;
        s[c.pos].next = s[gone].next;
        s[gone].len = 0;
        if (s[c.pos].next >= 0) {
            s[s[c.pos].next].prev = c.pos;
        }
        if (s[c.pos].prev >= 0) {
            offer(w, b, s[c.pos].prev, text);
        }
        offer(w, b, c.pos, text);
    }
}

/* Symbols for len bytes; the heap sees one candidate per symbol and two per
 * merge, of which there are fewer than symbols. */
static novaq_status reserve(nq_bpe_work *w, size_t len, novaq_error *err) {
    if (len <= w->symbol_cap) {
        return NOVAQ_OK;
    }
    if (len > NQ_TOK_TEXT_MAX) {
        return nq_fail(err, NOVAQ_E_ARG, "text of %zu bytes is too long to tokenize at once", len);
    }
    nq_free(w->symbols);
    nq_free(w->heap);
    w->symbols = NULL;
    w->heap = NULL;
    w->symbol_cap = 0;
    size_t cap = len < 256 ? 256 : len + len / 2;
    NQ_TRY(nq_alloc_raw(&w->symbols, cap, sizeof *w->symbols, err));
    NQ_TRY(nq_alloc_raw(&w->heap, (uint64_t)cap * 3, sizeof *w->heap, err));
    w->symbol_cap = cap;
    w->heap_cap = cap * 3;
    return NOVAQ_OK;
}

void nq_bpe_work_free(nq_bpe_work *w) {
    nq_free(w->symbols);
    nq_free(w->heap);
    nq_free(w->cache);
    *w = (nq_bpe_work){0};
}

static void put_symbol(nq_bpe_work *w, int32_t *count, int32_t id, size_t at, size_t len) {
    w->symbols[*count] = (nq_bpe_symbol){id, (uint32_t)len, (uint32_t)at, *count - 1, *count + 1};
    ++*count;
}

static int32_t load_bytes(nq_bpe_work *w, const nq_bpe *b, const uint8_t *piece, size_t len) {
    int32_t count = 0;
    for (size_t i = 0; i < len; i++) {
        if (b->byte_id[piece[i]] >= 0) {
            put_symbol(w, &count, b->byte_id[piece[i]], i, 1);
        }
    }
    return count;
}

/* A character that is no token, before merging: with merges its bytes or the
 * unknown token, as in the reference; by scores a symbol that may still merge. */
static void load_unknown(nq_bpe_work *w, const nq_bpe *b, const uint8_t *piece, size_t at,
                         size_t len, int32_t *count) {
    const nq_unknown *u = &b->unknown;
    if (b->merges == NULL) {
        put_symbol(w, count, -1, at, len);
    } else if (u->bytes) {
        for (size_t i = 0; i < len; i++) {
            put_symbol(w, count, u->byte_ids[piece[at + i]], at + i, 1);
        }
    } else if (u->id >= 0) {
        bool joins = u->fuse && *count > 0 && w->symbols[*count - 1].id == u->id &&
                     w->symbols[*count - 1].at + w->symbols[*count - 1].len == at;
        if (joins) {
            w->symbols[*count - 1].len += (uint32_t)len;
        } else {
            put_symbol(w, count, u->id, at, len);
        }
    }
}

/* Bytes that are not UTF-8 are characters of their own that no token stands for. */
static int32_t load_characters(nq_bpe_work *w, const nq_bpe *b, const uint8_t *piece, size_t len) {
    int32_t count = 0;
    for (size_t i = 0; i < len;) {
        uint32_t cp = 0;
        unsigned n = nq_utf8_next(piece + i, len - i, &cp);
        int64_t id = n == 0 ? -1 : nq_strmap_find(&b->vocab->by_text, piece + i, n);
        n += n == 0;
        if (id >= 0 && (b->merges != NULL || merges_to(b, (size_t)id))) {
            put_symbol(w, &count, (int32_t)id, i, n);
        } else {
            load_unknown(w, b, piece, i, n, &count);
        }
        i += n;
    }
    return count;
}

/* What is no token after merging by scores: its bytes, or the unknown token. */
static novaq_status push_unknown(nq_ids *ids, const nq_bpe *b, const uint8_t *text, size_t len,
                                 bool follows, novaq_error *err) {
    const nq_unknown *u = &b->unknown;
    if (!u->bytes) {
        bool vanishes = u->id < 0 || (u->fuse && follows);
        return vanishes ? NOVAQ_OK : nq_ids_push(ids, u->id, err);
    }
    for (size_t i = 0; i < len; i++) {
        NQ_TRY(nq_ids_push(ids, u->byte_ids[text[i]], err));
    }
    return NOVAQ_OK;
}

static novaq_status push_symbols(nq_ids *ids, const nq_bpe_work *w, const nq_bpe *b,
                                 const uint8_t *piece, novaq_error *err) {
    bool unknown = false; /* the symbol before */
    for (int32_t i = 0; i >= 0; i = w->symbols[i].next) {
        const nq_bpe_symbol *s = &w->symbols[i];
        if (s->id >= 0) {
            NQ_TRY(nq_ids_push(ids, s->id, err));
        } else {
            NQ_TRY(push_unknown(ids, b, piece + s->at, s->len, unknown, err));
        }
        unknown = s->id < 0;
    }
    return NOVAQ_OK;
}

static novaq_status encode_word(nq_ids *ids, nq_bpe_work *w, const nq_bpe *b, const uint8_t *piece,
                                size_t len, novaq_error *err) {
    NQ_TRY(reserve(w, len, err));
    int32_t count =
        b->byte_level ? load_bytes(w, b, piece, len) : load_characters(w, b, piece, len);
    if (count == 0) {
        return NOVAQ_OK;
    }
    w->symbols[count - 1].next = -1;
    merge_all(w, b, (size_t)count, piece);
    return push_symbols(ids, w, b, piece, err);
}

static novaq_status encode_cached(nq_ids *ids, nq_bpe_work *w, const nq_bpe *b,
                                  const uint8_t *piece, size_t len, novaq_error *err) {
    if (len > CACHE_BYTES || w->pieces < CACHE_AFTER) {
        w->pieces += w->pieces < CACHE_AFTER;
        return encode_word(ids, w, b, piece, len, err);
    }
    if (w->cache == NULL) {
        NQ_TRY(nq_alloc(&w->cache, 1, sizeof *w->cache, err));
    }
    uint64_t h = len;
    for (size_t i = 0; i < len; i++) {
        h = (h ^ piece[i]) * 0x100000001B3ULL;
    }
    cache_slot *c = &w->cache->slots[(h ^ h >> 29) % CACHE_SLOTS];
    if (c->len == len && memcmp(c->bytes, piece, len) == 0) {
        for (size_t i = 0; i < c->count; i++) {
            NQ_TRY(nq_ids_push(ids, c->ids[i], err));
        }
        return NOVAQ_OK;
    }
    size_t before_it = ids->count;
    NQ_TRY(encode_word(ids, w, b, piece, len, err));
    size_t count = ids->count - before_it;
    if (count <= CACHE_IDS) {
        c->len = (uint8_t)len;
        c->count = (uint8_t)count;
        memcpy(c->bytes, piece, len);
        if (count > 0) {
            memcpy(c->ids, ids->data + before_it, count * sizeof *c->ids);
        }
    }
    return NOVAQ_OK;
}

/* The end of the word that starts at `from`: before the next run of U+2581 that no
 * token goes on into. */
static size_t word_end(const nq_bpe *b, const uint8_t *piece, size_t from, size_t len) {
    static const size_t mark = sizeof NQ_META - 1;
    size_t i = from;
    for (;;) {
        while (len - i >= mark && memcmp(piece + i, NQ_META, mark) == 0) {
            i += mark;
        }
        const uint8_t *hit = memmem(piece + i, len - i, NQ_META, mark);
        if (hit == NULL || !b->joins[hit[-1]]) {
            return hit == NULL ? len : (size_t)(hit - piece);
        }
        i = (size_t)(hit - piece);
    }
}

novaq_status nq_bpe_encode(nq_ids *ids, nq_bpe_work *w, const nq_bpe *b, const uint8_t *piece,
                           size_t len, novaq_error *err) {
    if (b->ignore_merges) {
        int64_t id = nq_strmap_find(b->byte_level ? &b->words : &b->vocab->by_text, piece, len);
        if (id >= 0) {
            return nq_ids_push(ids, (int32_t)id, err);
        }
    }
    size_t done = 0;
    while (done < len) {
        size_t end = b->cut ? word_end(b, piece, done, len) : len;
        NQ_TRY(encode_cached(ids, w, b, piece + done, end - done, err));
        done = end;
    }
    return NOVAQ_OK;
}

/* tokenizer_bpe.c - byte-level byte-pair encoding of one piece.
 *
 * Owns: the merge table and the merge loop: a linked list of symbols and a heap
 * of candidates, O(n log n) in the length of the piece; of equal ranks the
 * leftmost goes first. Refuses: merges whose parts
 * or result are not in the vocabulary.
 */
#include <string.h>

#include "base/rng.h"
#include "model/tokenizer_impl.h"

typedef struct nq_bpe_symbol {
    int32_t id; /* -1: merged into its left neighbour */
    int32_t prev, next;
} nq_bpe_symbol;

typedef struct nq_bpe_candidate {
    uint32_t rank;
    int32_t pos; /* of the left symbol */
    uint32_t id; /* of the token it makes */
} nq_bpe_candidate;

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
    size_t nl = (size_t)(space - text);
    size_t nr = len - nl - 1;
    char *whole = NULL;
    NQ_TRY(nq_alloc_raw(&whole, len, 1, err));
    memcpy(whole, text, nl);
    memcpy(whole + nl, space + 1, nr);
    const nq_strmap *m = &b->vocab->by_text;
    int64_t left = nq_strmap_find(m, (const uint8_t *)text, nl);
    int64_t right = nq_strmap_find(m, (const uint8_t *)space + 1, nr);
    int64_t id = nq_strmap_find(m, (const uint8_t *)whole, nl + nr);
    nq_free(whole);
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

novaq_status nq_bpe_init(nq_bpe *b, const nq_vocab *v, const json_t *merges, bool ignore_merges,
                         novaq_error *err) {
    *b = (nq_bpe){.vocab = v, .ignore_merges = ignore_merges};
    init_bytes(b);
    NQ_TRY(init_merges(b, merges, err));
    return ignore_merges ? init_words(b, err) : NOVAQ_OK;
}

void nq_bpe_free(nq_bpe *b) {
    nq_free(b->merges);
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

static const nq_merge_slot *merge_of(const nq_bpe *b, const nq_bpe_symbol *s, int32_t pos) {
    int32_t next = s[pos].next;
    if (next < 0) {
        return NULL;
    }
    const nq_merge_slot *m = slot_of(b, pair_key((uint32_t)s[pos].id, (uint32_t)s[next].id));
    return m->key == UINT64_MAX ? NULL : m;
}

static void offer(nq_bpe_work *w, const nq_bpe *b, int32_t pos) {
    const nq_merge_slot *m = merge_of(b, w->symbols, pos);
    if (m != NULL) {
        heap_push(w, (nq_bpe_candidate){m->rank, pos, m->id});
    }
}

static void merge_all(nq_bpe_work *w, const nq_bpe *b, size_t count) {
    nq_bpe_symbol *s = w->symbols;
    w->heap_len = 0;
    for (size_t i = 0; i < count; i++) {
        offer(w, b, (int32_t)i);
    }
    while (w->heap_len > 0) {
        nq_bpe_candidate c = heap_pop(w);
        if (s[c.pos].id < 0) {
            continue;
        }
        /* Stale when a neighbour has changed and the pair makes another token. */
        const nq_merge_slot *m = merge_of(b, s, c.pos);
        if (m == NULL || m->id != c.id) {
            continue;
        }
        int32_t gone = s[c.pos].next;
        s[c.pos].id = (int32_t)c.id;
        s[c.pos].next = s[gone].next;
        s[gone].id = -1;
        if (s[c.pos].next >= 0) {
            s[s[c.pos].next].prev = c.pos;
        }
        if (s[c.pos].prev >= 0) {
            offer(w, b, s[c.pos].prev);
        }
        offer(w, b, c.pos);
    }
}

/* Symbols for len bytes; the heap sees one candidate per symbol and two per
 * merge, of which there are fewer than symbols. */
static novaq_status reserve(nq_bpe_work *w, size_t len, novaq_error *err) {
    if (len <= w->symbol_cap) {
        return NOVAQ_OK;
    }
    nq_bpe_work_free(w);
    size_t cap = len < 256 ? 256 : len * 2;
    NQ_TRY(nq_alloc_raw(&w->symbols, cap, sizeof *w->symbols, err));
    NQ_TRY(nq_alloc_raw(&w->heap, (uint64_t)cap * 3, sizeof *w->heap, err));
    w->symbol_cap = cap;
    w->heap_cap = cap * 3;
    return NOVAQ_OK;
}

void nq_bpe_work_free(nq_bpe_work *w) {
    nq_free(w->symbols);
    nq_free(w->heap);
    *w = (nq_bpe_work){0};
}

novaq_status nq_bpe_encode(nq_ids *ids, nq_bpe_work *w, const nq_bpe *b, const uint8_t *piece,
                           size_t len, novaq_error *err) {
    if (b->ignore_merges) {
        int64_t id = nq_strmap_find(&b->words, piece, len);
        if (id >= 0) {
            return nq_ids_push(ids, (int32_t)id, err);
        }
    }
    NQ_TRY(reserve(w, len, err));
    int32_t count = 0;
    for (size_t i = 0; i < len; i++) {
        if (b->byte_id[piece[i]] >= 0) {
            w->symbols[count] = (nq_bpe_symbol){b->byte_id[piece[i]], count - 1, count + 1};
            count++;
        }
    }
    if (count == 0) {
        return NOVAQ_OK;
    }
    w->symbols[count - 1].next = -1;
    merge_all(w, b, (size_t)count);
    for (int32_t i = 0; i >= 0; i = w->symbols[i].next) {
        NQ_TRY(nq_ids_push(ids, w->symbols[i].id, err));
    }
    return NOVAQ_OK;
}

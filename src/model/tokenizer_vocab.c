/* tokenizer_vocab.c - token strings, what bytes they stand for, and lookup.
 *
 * Owns: GPT-2's byte alphabet, SentencePiece's U+2581 and byte tokens, the checks
 * on an untrusted vocabulary. Refuses:
 * two tokens with the same text, since an id would then be a guess.
 */
#include <math.h>
#include <string.h>

#include "model/tokenizer_impl.h"

uint32_t nq_byte_to_code(uint8_t b) {
    if ((b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD)) {
        return b;
    }
    /* The others in order, from U+0100 on. */
    if (b <= 0x20) {
        return 0x100U + b;
    }
    return b == 0xAD ? 0x143 : 0x100U + 33 + (b - 0x7FU);
}

int nq_code_to_byte(uint32_t cp) {
    if (cp < 0x100) {
        return nq_byte_to_code((uint8_t)cp) == cp ? (int)cp : -1;
    }
    if (cp <= 0x120) {
        return (int)(cp - 0x100);
    }
    if (cp < 0x143) {
        return (int)(cp - 0x121 + 0x7F);
    }
    return cp == 0x143 ? 0xAD : -1;
}

#define HASH_START 0xCBF29CE484222325ULL

/* FNV-1a, then a finaliser: slots use the low bits. */
static uint64_t hash_more(uint64_t h, const uint8_t *s, size_t len) {
    for (size_t i = 0; i < len; i++) {
        h = (h ^ s[i]) * 0x100000001B3ULL;
    }
    return h;
}

static uint64_t hash_end(uint64_t h) {
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93ULL;
    return h ^ h >> 32;
}

novaq_status nq_strmap_init(nq_strmap *m, const nq_span *keys, size_t capacity, novaq_error *err) {
    uint64_t size = 16;
    while (size < 2 * (uint64_t)capacity) {
        size *= 2;
    }
    *m = (nq_strmap){.mask = size - 1, .keys = keys};
    return nq_alloc(&m->slots, size, sizeof *m->slots, err);
}

void nq_strmap_free(nq_strmap *m) {
    nq_free(m->slots);
    *m = (nq_strmap){0};
}

/* The slot of the key, or the empty one where it belongs. */
static uint64_t slot_of(const nq_strmap *m, const uint8_t *s, size_t len) {
    uint64_t i = hash_end(hash_more(HASH_START, s, len)) & m->mask;
    while (m->slots[i] != 0) {
        const nq_span *k = &m->keys[m->slots[i] - 1];
        if (k->len == len && memcmp(k->data, s, len) == 0) {
            break;
        }
        i = (i + 1) & m->mask;
    }
    return i;
}

int64_t nq_strmap_find(const nq_strmap *m, const uint8_t *s, size_t len) {
    return (int64_t)m->slots[slot_of(m, s, len)] - 1;
}

int64_t nq_strmap_find2(const nq_strmap *m, nq_span a, nq_span b) {
    uint64_t h = hash_more(hash_more(HASH_START, a.data, a.len), b.data, b.len);
    for (uint64_t i = hash_end(h) & m->mask; m->slots[i] != 0; i = (i + 1) & m->mask) {
        const nq_span *k = &m->keys[m->slots[i] - 1];
        if (k->len == a.len + b.len && memcmp(k->data, a.data, a.len) == 0 &&
            memcmp(k->data + a.len, b.data, b.len) == 0) {
            return (int64_t)m->slots[i] - 1;
        }
    }
    return -1;
}

int64_t nq_strmap_add(nq_strmap *m, uint32_t i) {
    uint64_t slot = slot_of(m, m->keys[i].data, m->keys[i].len);
    if (m->slots[slot] != 0) {
        return (int64_t)m->slots[slot] - 1;
    }
    m->slots[slot] = i + 1;
    return -1;
}

static bool is_special(uint8_t type) { return type == NQ_TOK_CONTROL || type == NQ_TOK_USER; }

/* Bytes of a token; a character outside the alphabet makes the whole token stand
 * for itself, as in the reference's decoder. */
static uint32_t decode_alphabet(uint8_t *dst, const uint8_t *text, size_t len) {
    uint32_t n = 0;
    for (size_t i = 0; i < len;) {
        uint32_t cp = 0;
        unsigned k = nq_utf8_next(text + i, len - i, &cp);
        int b = k == 0 ? -1 : nq_code_to_byte(cp);
        if (b < 0) {
            memcpy(dst, text, len);
            return (uint32_t)len;
        }
        dst[n++] = (uint8_t)b;
        i += k;
    }
    return n;
}

int nq_byte_token(nq_span s) {
    static const char hex[] = "0123456789ABCDEF";
    if (s.len != 6 || memcmp(s.data, "<0x", 3) != 0 || s.data[5] != '>' || s.data[3] == 0 ||
        s.data[4] == 0) {
        return -1;
    }
    const char *hi = strchr(hex, s.data[3]);
    const char *lo = strchr(hex, s.data[4]);
    return hi == NULL || lo == NULL ? -1 : (int)((hi - hex) << 4 | (lo - hex));
}

unsigned nq_vocab_byte_tokens(int32_t ids[256], const nq_vocab *v) {
    unsigned count = 0;
    for (unsigned b = 0; b < 256; b++) {
        static const char hex[] = "0123456789ABCDEF";
        const uint8_t text[6] = {'<', '0', 'x', (uint8_t)hex[b >> 4], (uint8_t)hex[b & 15], '>'};
        ids[b] = (int32_t)nq_strmap_find(&v->by_text, text, sizeof text);
        count += ids[b] >= 0;
    }
    return count;
}

uint32_t nq_meta_decode(uint8_t *dst, const uint8_t *text, size_t len) {
    static const size_t mark = sizeof NQ_META - 1;
    uint32_t n = 0;
    for (size_t i = 0; i < len;) {
        bool space = len - i >= mark && memcmp(text + i, NQ_META, mark) == 0;
        dst[n++] = space ? ' ' : text[i];
        i += space ? mark : 1;
    }
    return n;
}

static uint32_t decode_token(uint8_t *dst, nq_span text, uint8_t type, bool byte_level) {
    int byte = byte_level || type != NQ_TOK_BYTE ? -1 : nq_byte_token(text);
    if (byte >= 0) {
        dst[0] = (uint8_t)byte;
        return 1;
    }
    return byte_level ? decode_alphabet(dst, text.data, text.len)
                      : nq_meta_decode(dst, text.data, text.len);
}

novaq_status nq_vocab_scores(double **out, const nq_vocab *v, const json_t *scores,
                             novaq_error *err) {
    *out = NULL;
    if (!json_is_array(scores) || json_array_size(scores) != v->count) {
        return nq_fail(err, NOVAQ_E_FORMAT, "tokenizer: %zu scores for %zu tokens",
                       json_array_size(scores), v->count);
    }
    NQ_TRY(nq_alloc_raw(out, v->count, sizeof **out, err));
    for (size_t i = 0; i < v->count; i++) {
        const json_t *s = json_array_get(scores, i);
        (*out)[i] = json_number_value(s);
        if (!json_is_number(s) || !isfinite((*out)[i])) {
            return nq_fail(err, NOVAQ_E_FORMAT, "tokenizer: score %zu is not a finite number", i);
        }
    }
    return NOVAQ_OK;
}

static novaq_status check(const json_t *tokens, const json_t *types, uint64_t *bytes,
                          novaq_error *err) {
    size_t count = json_array_size(tokens);
    if (!json_is_array(tokens) || !json_is_array(types) || count == 0 || count > NQ_TOK_VOCAB_MAX ||
        json_array_size(types) != count) {
        return nq_fail(err, NOVAQ_E_FORMAT,
                       "tokenizer: %zu tokens and %zu token types (1 to %zu of each are needed)",
                       count, json_array_size(types), NQ_TOK_VOCAB_MAX);
    }
    *bytes = 0;
    for (size_t i = 0; i < count; i++) {
        const json_t *s = json_array_get(tokens, i);
        const json_t *t = json_array_get(types, i);
        if (!json_is_string(s) || json_string_length(s) > NQ_TOK_TOKEN_MAX) {
            return nq_fail(err, NOVAQ_E_FORMAT,
                           "tokenizer: token %zu is not a string of at most %zu bytes", i,
                           NQ_TOK_TOKEN_MAX);
        }
        if (!json_is_integer(t) || json_integer_value(t) < 1 || json_integer_value(t) > 6) {
            return nq_fail(err, NOVAQ_E_FORMAT, "tokenizer: the type of token %zu is not 1 to 6",
                           i);
        }
        *bytes += json_string_length(s); /* at most 2^24 * 2^16 */
    }
    return NOVAQ_OK;
}

static novaq_status fill(nq_vocab *v, const json_t *tokens, const json_t *types, bool byte_level,
                         novaq_error *err) {
    uint8_t *p = v->storage;
    for (size_t i = 0; i < v->count; i++) {
        const json_t *s = json_array_get(tokens, i);
        uint32_t len = (uint32_t)json_string_length(s);
        v->types[i] = (uint8_t)json_integer_value(json_array_get(types, i));
        memcpy(p, json_string_value(s), len);
        v->text[i] = (nq_span){p, len};
        v->bytes[i] = v->text[i];
        v->longest = len > v->longest ? len : v->longest;
        if (!byte_level || !is_special(v->types[i])) {
            uint32_t n = decode_token(p + len, v->text[i], v->types[i], byte_level);
            v->bytes[i] = (nq_span){p + len, n};
        }
        p += 2 * (size_t)len;
        int64_t twin = nq_strmap_add(&v->by_text, (uint32_t)i);
        if (twin >= 0) {
            return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                           "tokenizer: tokens %lld and %zu have the same text", (long long)twin, i);
        }
    }
    return NOVAQ_OK;
}

novaq_status nq_vocab_init(nq_vocab *v, const json_t *tokens, const json_t *types, bool byte_level,
                           novaq_error *err) {
    *v = (nq_vocab){0};
    uint64_t bytes = 0;
    NQ_TRY(check(tokens, types, &bytes, err));
    v->count = json_array_size(tokens);
    NQ_TRY(nq_alloc(&v->text, v->count, sizeof *v->text, err));
    NQ_TRY(nq_alloc(&v->bytes, v->count, sizeof *v->bytes, err));
    NQ_TRY(nq_alloc(&v->types, v->count, 1, err));
    NQ_TRY(nq_alloc_raw(&v->storage, bytes, 2, err));
    NQ_TRY(nq_strmap_init(&v->by_text, v->text, v->count, err));
    return fill(v, tokens, types, byte_level, err);
}

void nq_vocab_free(nq_vocab *v) {
    nq_free(v->text);
    nq_free(v->bytes);
    nq_free(v->types);
    nq_free(v->storage);
    nq_strmap_free(&v->by_text);
    *v = (nq_vocab){0};
}

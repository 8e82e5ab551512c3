/* tokenizer_impl.h - the parts of a tokenizer, private to tokenizer*.c and
 * describe_tokenizer*.c.
 *
 * Owns: pre-tokenizer kinds, Unicode corrections, NFC, special-token matching
 * and byte-level BPE as separate pieces. Refuses: knowing where a description
 * came from.
 */
#ifndef NQ_MODEL_TOKENIZER_IMPL_H
#define NQ_MODEL_TOKENIZER_IMPL_H

#include "base/buf.h"
#include "base/json.h"
#include "base/mem.h"

#define NQ_TOK_VOCAB_MAX   ((size_t)1 << 24)
#define NQ_TOK_TOKEN_MAX   ((size_t)65536) /* bytes of one token */
#define NQ_TOK_SPECIAL_MAX ((size_t)1024)  /* bytes of one special token; bounds matching */
#define NQ_TOK_TEXT_MAX    ((size_t)1 << 30)

enum { NQ_TOK_NORMAL = 1, NQ_TOK_CONTROL = 3, NQ_TOK_USER = 4, NQ_TOK_UNUSED = 5, NQ_TOK_BYTE = 6 };

/* ---- bytes and code points (tokenizer_unicode.c) ------------------------ */

/* Length of the well-formed sequence at s (len > 0), 0 if there is none. */
unsigned nq_utf8_next(const uint8_t *s, size_t len, uint32_t *cp);
/* Writes at most 4 bytes, returns how many. */
unsigned nq_utf8_put(uint8_t *dst, uint32_t cp);
/* A code point with as many UTF-8 bytes whose general category is, in every
 * Unicode version, the one the reference gives cp; mostly cp itself. */
uint32_t nq_unicode_stand_in(uint32_t cp);
bool nq_unicode_is_numeric(uint32_t cp); /* Nd, Nl, No */
/* Takes no part in the reference's canonical ordering and composition. */
bool nq_unicode_is_inert(uint32_t cp);

/* ---- NFC (tokenizer_nfc.c) ---------------------------------------------- */

/* Appends the normalized text; ill-formed bytes are copied and act as starters. */
NOVAQ_CHECK novaq_status nq_nfc(nq_buf *dst, const uint8_t *text, size_t len, novaq_error *err);

/* ---- pre-tokenizers (tokenizer_pretok.c) -------------------------------- */

#define NQ_PRETOK_SPLITS 3

/* A pre-tokenizer in the parts of Hugging Face's: Digits(individual), then
 * Split(regex, Isolated)..., then ByteLevel with or without its own regex. */
typedef struct nq_pretok_kind {
    const char *name;                         /* as in tokenizer.ggml.pre */
    bool digits;                              /* each numeric character apart */
    const char *splits[NQ_PRETOK_SPLITS + 1]; /* NULL-terminated */
    bool byte_level_regex;
    bool nfc;           /* what GGUF leaves unsaid */
    bool ignore_merges; /* same */
    bool add_bos;       /* same, when the key is absent */
} nq_pretok_kind;

/* NULL when the name is not known. */
const nq_pretok_kind *nq_pretok_find(const char *name, size_t len);
/* The i-th kind, NULL past the end. */
const nq_pretok_kind *nq_pretok_at(size_t i);

typedef struct nq_pretok nq_pretok;
typedef novaq_status (*nq_piece_fn)(void *ctx, const uint8_t *piece, size_t len, novaq_error *err);

NOVAQ_CHECK novaq_status nq_pretok_open(nq_pretok **out, const nq_pretok_kind *kind,
                                        novaq_error *err);
void nq_pretok_close(nq_pretok **p);
/* Calls fn for each piece in order; together they are the text. Thread-safe. */
NOVAQ_CHECK novaq_status nq_pretok_run(const nq_pretok *p, const uint8_t *text, size_t len,
                                       nq_piece_fn fn, void *ctx, novaq_error *err);

/* ---- vocabulary and BPE (tokenizer_vocab.c, tokenizer_bpe.c) ------------ */

typedef struct nq_span {
    const uint8_t *data;
    uint32_t len;
} nq_span;

/* string -> index, keys borrowed. */
typedef struct nq_strmap {
    uint32_t *slots; /* index + 1, 0 = empty */
    uint64_t mask;
    const nq_span *keys;
} nq_strmap;

NOVAQ_CHECK novaq_status nq_strmap_init(nq_strmap *m, const nq_span *keys, size_t capacity,
                                        novaq_error *err);
/* Index of the equal key already there, or -1 once key i has been added. */
int64_t nq_strmap_add(nq_strmap *m, uint32_t i);
int64_t nq_strmap_find(const nq_strmap *m, const uint8_t *s, size_t len);
void nq_strmap_free(nq_strmap *m);

typedef struct nq_vocab {
    size_t count;
    nq_span *text;    /* as described, in GPT-2's alphabet unless special */
    nq_span *bytes;   /* what the token stands for */
    uint8_t *types;   /* NQ_TOK_* */
    uint8_t *storage; /* behind text and bytes */
    nq_strmap by_text;
} nq_vocab;

/* tokens: array of strings; types: array of as many integers 1-6. */
NOVAQ_CHECK novaq_status nq_vocab_init(nq_vocab *v, const json_t *tokens, const json_t *types,
                                       novaq_error *err);
void nq_vocab_free(nq_vocab *v);
/* The code point that stands for a byte in GPT-2's alphabet. */
uint32_t nq_byte_to_code(uint8_t b);

typedef struct nq_ids {
    int32_t *data; /* nq_free() */
    size_t count, cap;
} nq_ids;

NOVAQ_CHECK novaq_status nq_ids_push(nq_ids *ids, int32_t id, novaq_error *err);

typedef struct nq_merge_slot {
    uint64_t key; /* left << 32 | right, UINT64_MAX = empty */
    uint32_t rank;
    uint32_t id; /* of the merged token */
} nq_merge_slot;

typedef struct nq_bpe {
    const nq_vocab *vocab; /* borrowed */
    int32_t byte_id[256];  /* -1: the vocabulary lacks it, the byte is dropped */
    nq_merge_slot *merges;
    uint64_t mask;
    bool ignore_merges;
    nq_strmap words; /* by bytes, for ignore_merges */
} nq_bpe;

/* Scratch of one encode call. */
typedef struct nq_bpe_work {
    struct nq_bpe_symbol *symbols;
    size_t symbol_cap;
    struct nq_bpe_candidate *heap;
    size_t heap_len, heap_cap;
} nq_bpe_work;

/* merges: array of "left right" strings. */
NOVAQ_CHECK novaq_status nq_bpe_init(nq_bpe *b, const nq_vocab *v, const json_t *merges,
                                     bool ignore_merges, novaq_error *err);
void nq_bpe_free(nq_bpe *b);
NOVAQ_CHECK novaq_status nq_bpe_encode(nq_ids *ids, nq_bpe_work *w, const nq_bpe *b,
                                       const uint8_t *piece, size_t len, novaq_error *err);
void nq_bpe_work_free(nq_bpe_work *w);

/* ---- special tokens (tokenizer_special.c) ------------------------------- */

typedef struct nq_specials {
    nq_span *text; /* sorted by bytes */
    uint32_t *ids;
    size_t count;
    bool starts[256]; /* first bytes in use */
} nq_specials;

/* The user-defined tokens, and the control tokens too when control is set. */
NOVAQ_CHECK novaq_status nq_specials_init(nq_specials *s, const nq_vocab *v, bool control,
                                          novaq_error *err);
void nq_specials_free(nq_specials *s);
/* First position in text[from..len) where a token starts, and the longest that
 * does: *at, *id; false when there is none. */
bool nq_specials_next(const nq_specials *s, const uint8_t *text, size_t from, size_t len,
                      size_t *at, uint32_t *id);

/* ---- descriptions (describe_tokenizer.c) -------------------------------- */

/* obj[key] = value (its reference is taken over); NULL is out of memory. */
NOVAQ_CHECK novaq_status nq_tokdesc_put(json_t *obj, const char *key, json_t *value,
                                        novaq_error *err);
/* Writes *why (unless it is already set) and returns OK: not a failure of the
 * file, only something this program cannot run. */
NOVAQ_CHECK novaq_status nq_tokdesc_why(char **why, novaq_error *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Adds eot_ids, then opens the tokenizer on trial. *desc becomes *out, or is
 * released when *why says why it cannot be used. */
NOVAQ_CHECK novaq_status nq_tokdesc_finish(json_t **out, char **why, json_t **desc,
                                           novaq_error *err);

#endif

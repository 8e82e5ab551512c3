/* tokenizer_impl.h - the parts of a tokenizer, private to tokenizer*.c and
 * describe_tokenizer*.c.
 *
 * Owns: normalizers, pre-tokenizers, Unicode corrections, special-token matching,
 * BPE and Unigram as separate pieces. Refuses: knowing where a description
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

enum {
    NQ_TOK_NORMAL = 1,
    NQ_TOK_UNKNOWN = 2,
    NQ_TOK_CONTROL = 3,
    NQ_TOK_USER = 4,
    NQ_TOK_UNUSED = 5,
    NQ_TOK_BYTE = 6
};

/* ---- bytes and code points (tokenizer_unicode.c) ------------------------ */

/* Length of the well-formed sequence at s (len > 0), 0 if there is none. */
unsigned nq_utf8_next(const uint8_t *s, size_t len, uint32_t *cp);
/* Writes at most 4 bytes, returns how many. */
unsigned nq_utf8_put(uint8_t *dst, uint32_t cp);
/* A code point with as many UTF-8 bytes whose general category is, in every
 * Unicode version, the one the reference gives cp; mostly cp itself. */
uint32_t nq_unicode_stand_in(uint32_t cp);
bool nq_unicode_is_numeric(uint32_t cp);     /* Nd, Nl, No */
bool nq_unicode_is_punctuation(uint32_t cp); /* and all of ASCII's signs */
/* Takes no part in the reference's canonical ordering and composition. */
bool nq_unicode_is_inert(uint32_t cp);

/* ---- NFC (tokenizer_nfc.c) ---------------------------------------------- */

/* Appends the normalized text; ill-formed bytes are copied and act as starters. */
NOVAQ_CHECK novaq_status nq_nfc(nq_buf *dst, const uint8_t *text, size_t len, novaq_error *err);

/* ---- normalizers (tokenizer_norm.c) ------------------------------------- */

typedef struct nq_norm nq_norm;

/* desc: "none", "nfc", NULL, or a normalizer as tokenizer.json writes it: NFC,
 * Prepend, Replace of a plain string, Sequence of these. Others are refused. */
NOVAQ_CHECK novaq_status nq_norm_open(nq_norm **out, const json_t *desc, novaq_error *err);
void nq_norm_close(nq_norm **n);
bool nq_norm_is_identity(const nq_norm *n);
/* Appends the normalized text to dst. Thread-safe. */
NOVAQ_CHECK novaq_status nq_norm_run(nq_buf *dst, const nq_norm *n, const uint8_t *text, size_t len,
                                     novaq_error *err);

/* ---- pre-tokenizers: what they are (tokenizer_stages.c) ------------------ */

#define NQ_STAGES_MAX 12
#define NQ_META       "\xE2\x96\x81" /* U+2581, SentencePiece's space */

typedef enum nq_stage_type {
    NQ_STAGE_END,
    NQ_STAGE_SPLIT,
    NQ_STAGE_DIGITS,
    NQ_STAGE_PUNCTUATION,
    NQ_STAGE_BYTE_LEVEL,
    NQ_STAGE_METASPACE,
} nq_stage_type;

/* What becomes of a stage's matches, as Hugging Face names it. */
typedef enum nq_behavior {
    NQ_ISOLATED,
    NQ_REMOVED,
    NQ_MERGED_WITH_PREVIOUS,
    NQ_MERGED_WITH_NEXT,
    NQ_CONTIGUOUS,
} nq_behavior;

typedef enum nq_prepend { NQ_PREPEND_NEVER, NQ_PREPEND_FIRST, NQ_PREPEND_ALWAYS } nq_prepend;

/* One of Hugging Face's pre-tokenizers. */
typedef struct nq_stage {
    nq_stage_type type;
    nq_behavior behavior; /* Split, Punctuation */
    nq_prepend prepend;   /* Metaspace */
    const char *pattern;  /* Split */
    bool literal;         /* Split: pattern is plain text */
    bool invert;          /* Split */
    bool individual;      /* Digits: each numeric character apart */
    bool regex;           /* ByteLevel: with GPT-2's own pattern */
    bool prefix_space;    /* ByteLevel */
    bool split;           /* Metaspace: cut before each U+2581 */
} nq_stage;

typedef struct nq_pretok_kind {
    const char *name;               /* as in tokenizer.ggml.pre */
    nq_stage stages[NQ_STAGES_MAX]; /* ends at NQ_STAGE_END */
    bool nfc;                       /* what GGUF leaves unsaid */
    bool ignore_merges;             /* same */
    bool add_bos;                   /* same, when the key is absent */
} nq_pretok_kind;

/* NULL when the name is not known. */
const nq_pretok_kind *nq_pretok_find(const char *name, size_t len);
/* The kind with these stages, NULL when there is none. */
const nq_pretok_kind *nq_pretok_same(const nq_stage *stages);

/* Reads a "pre_tokenizer" of tokenizer.json; texts stay borrowed from it. */
NOVAQ_CHECK novaq_status nq_stages_read(nq_stage stages[NQ_STAGES_MAX], const json_t *pre,
                                        novaq_error *err);
/* The inverse; a new reference, NULL when out of memory. */
json_t *nq_stages_json(const nq_stage *stages);
/* How many of the stages are of a type. */
unsigned nq_stages_count(const nq_stage *stages, nq_stage_type type);

/* ---- pre-tokenizers: running them (tokenizer_pretok.c, tokenizer_regex.c) -- */

typedef struct nq_pretok nq_pretok;
typedef struct nq_pretok_work nq_pretok_work; /* scratch of one encode call */
typedef novaq_status (*nq_piece_fn)(void *ctx, const uint8_t *piece, size_t len, novaq_error *err);

NOVAQ_CHECK novaq_status nq_pretok_open(nq_pretok **out, const nq_stage *stages, novaq_error *err);
void nq_pretok_close(nq_pretok **p);
/* Calls fn for each piece in order. *work is made on first use; at_start: the text
 * begins where the whole input does. Thread-safe for different works. */
NOVAQ_CHECK novaq_status nq_pretok_run(const nq_pretok *p, nq_pretok_work **work,
                                       const uint8_t *text, size_t len, bool at_start,
                                       nq_piece_fn fn, void *ctx, novaq_error *err);
void nq_pretok_work_free(nq_pretok_work **work);

/* Ranges of code points above U+007F that patterns write out. */
typedef struct nq_literals {
    uint32_t (*ranges)[2];
    size_t count;
} nq_literals;

struct pcre2_real_code_8;
/* Compiles a pattern of the reference's regex engine if it is of the subset that
 * means the same in PCRE2, and adds its written-out code points to lit. */
NOVAQ_CHECK novaq_status nq_regex_compile(struct pcre2_real_code_8 **out, nq_literals *lit,
                                          const char *pattern, bool literal, novaq_error *err);

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
/* The key that is a followed by b. */
int64_t nq_strmap_find2(const nq_strmap *m, nq_span a, nq_span b);
void nq_strmap_free(nq_strmap *m);

typedef struct nq_vocab {
    size_t count;
    nq_span *text;    /* as described, in GPT-2's alphabet if byte_level, unless special */
    nq_span *bytes;   /* what the token stands for */
    uint8_t *types;   /* NQ_TOK_* */
    uint8_t *storage; /* behind text and bytes */
    uint32_t longest; /* bytes of the longest text */
    nq_strmap by_text;
} nq_vocab;

/* tokens: array of strings; types: array of as many integers 1-6. */
NOVAQ_CHECK novaq_status nq_vocab_init(nq_vocab *v, const json_t *tokens, const json_t *types,
                                       bool byte_level, novaq_error *err);
void nq_vocab_free(nq_vocab *v);
/* The code point that stands for a byte in GPT-2's alphabet, and back (-1: none). */
uint32_t nq_byte_to_code(uint8_t b);
int nq_code_to_byte(uint32_t cp);
/* Bytes of a SentencePiece token: U+2581 is a space. dst: len bytes. */
uint32_t nq_meta_decode(uint8_t *dst, const uint8_t *text, size_t len);
/* The byte that a text like "<0x0A>" names, -1 for other texts. */
int nq_byte_token(nq_span text);
/* ids[b] = the token "<0xB>", -1 where there is none; how many there are. */
unsigned nq_vocab_byte_tokens(int32_t ids[256], const nq_vocab *v);
/* scores: as many numbers as tokens, finite. *out: nq_free(). */
NOVAQ_CHECK novaq_status nq_vocab_scores(double **out, const nq_vocab *v, const json_t *scores,
                                         novaq_error *err);

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

/* How characters that are no token are written. */
typedef struct nq_unknown {
    bool bytes; /* as byte tokens */
    bool fuse;  /* neighbours as one unknown token */
    int32_t id; /* the unknown token, -1: they vanish */
    int32_t byte_ids[256];
} nq_unknown;

typedef struct nq_bpe {
    const nq_vocab *vocab; /* borrowed */
    bool byte_level;       /* symbols are bytes, otherwise characters */
    int32_t byte_id[256];  /* byte level; -1: the vocabulary lacks it, the byte is dropped */
    nq_unknown unknown;    /* characters */
    nq_merge_slot *merges; /* NULL: any two that make a token merge, best score first */
    uint64_t mask;
    uint32_t *ranks; /* by id, without merges; lower is better */
    bool cut;        /* before runs of U+2581, unless after one of: */
    bool joins[256]; /* bytes after which tokens go on into such a run */
    bool ignore_merges;
    nq_strmap words; /* by bytes, for ignore_merges at byte level */
} nq_bpe;

/* Scratch of one encode call. */
typedef struct nq_bpe_work {
    struct nq_bpe_symbol *symbols;
    size_t symbol_cap;
    struct nq_bpe_candidate *heap;
    size_t heap_len, heap_cap;
    struct nq_bpe_cache *cache;
    unsigned pieces; /* seen so far, while few */
} nq_bpe_work;

/* b->vocab, byte_level, unknown and ignore_merges are set. merges: array of
 * "left right" strings; NULL: scores rule. */
NOVAQ_CHECK novaq_status nq_bpe_init(nq_bpe *b, const json_t *merges, const json_t *scores,
                                     novaq_error *err);
void nq_bpe_free(nq_bpe *b);
NOVAQ_CHECK novaq_status nq_bpe_encode(nq_ids *ids, nq_bpe_work *w, const nq_bpe *b,
                                       const uint8_t *piece, size_t len, novaq_error *err);
void nq_bpe_work_free(nq_bpe_work *w);

/* ---- Unigram (tokenizer_unigram.c) --------------------------------------- */

typedef struct nq_unigram {
    const nq_vocab *vocab; /* borrowed */
    nq_unknown unknown;
    bool literal_bytes; /* byte tokens are found written out, as Hugging Face does */
    double *scores;
    double unknown_score;
    uint64_t *prefixes; /* bits: hashes of prefixes of tokens */
    uint64_t mask;
} nq_unigram;

typedef struct nq_unigram_work {
    struct nq_unigram_node *nodes;
    size_t cap;
} nq_unigram_work;

/* u->vocab and unknown are set. */
NOVAQ_CHECK novaq_status nq_unigram_init(nq_unigram *u, const json_t *scores, novaq_error *err);
void nq_unigram_free(nq_unigram *u);
/* The most probable segmentation. */
NOVAQ_CHECK novaq_status nq_unigram_encode(nq_ids *ids, nq_unigram_work *w, const nq_unigram *u,
                                           const uint8_t *piece, size_t len, novaq_error *err);
void nq_unigram_work_free(nq_unigram_work *w);

/* ---- special tokens (tokenizer_special.c) ------------------------------- */

enum { NQ_ADDED_LSTRIP = 1, NQ_ADDED_RSTRIP = 2, NQ_ADDED_NORMALIZED = 4 };

typedef struct nq_specials {
    nq_span *text; /* sorted by bytes */
    uint32_t *ids;
    size_t count;
    bool starts[256]; /* first bytes in use */
    uint8_t *storage; /* behind text where it was normalized */
} nq_specials;

/* The control, user-defined and unknown tokens whose flags have NORMALIZED as
 * asked for; those texts go through norm. flags: by id. */
NOVAQ_CHECK novaq_status nq_specials_init(nq_specials *s, const nq_vocab *v, const uint8_t *flags,
                                          const nq_norm *norm, bool normalized, int32_t unk,
                                          novaq_error *err);
void nq_specials_free(nq_specials *s);
/* First position in text[from..len) where a token starts, and the longest that
 * does: *at, *end, *id; false when there is none. */
bool nq_specials_next(const nq_specials *s, const uint8_t *text, size_t from, size_t len,
                      size_t *at, size_t *end, uint32_t *id);
/* Bytes of white space that text ends with, or begins with. */
size_t nq_space_before(const uint8_t *text, size_t len);
size_t nq_space_after(const uint8_t *text, size_t len);

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

/* ---- export (export_merges.c) -------------------------------------------- */

/* The merges that give what scores give: for each token, best first, every cut of
 * it into two tokens. *out: a new reference. */
NOVAQ_CHECK novaq_status nq_merges_from_scores(json_t **out, const json_t *desc, novaq_error *err);
/* Whether characters that are no token become byte tokens. */
NOVAQ_CHECK novaq_status nq_has_byte_fallback(bool *out, const json_t *desc, novaq_error *err);

#endif

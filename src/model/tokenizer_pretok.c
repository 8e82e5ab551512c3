/* tokenizer_pretok.c - cutting text into the pieces that BPE works on.
 *
 * Owns: the table of pre-tokenizers that can be reproduced exactly and their
 * execution by PCRE2. The patterns are the model families' own, as their
 * tokenizer.json writes them. Every pattern takes time linear in the text.
 * Refuses: pre-tokenizers that are not in the table.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "model/tokenizer_impl.h"

#define GPT2_RE       "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define TAIL_RE       "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define ABBREVIATIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define UPPER         "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER         "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"

static const nq_pretok_kind kinds[] = {
    {.name = "gpt-2", .byte_level_regex = true},
    {.name = "default", .byte_level_regex = true},
    {.name = "smollm", .digits = true, .byte_level_regex = true},
    {.name = "starcoder", .digits = true, .byte_level_regex = true},
    {.name = "refact", .digits = true, .byte_level_regex = true},
    {.name = "llama-bpe",
     .splits = {ABBREVIATIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" TAIL_RE},
     .ignore_merges = true,
     .add_bos = true},
    {.name = "qwen2",
     .splits = {ABBREVIATIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" TAIL_RE},
     .nfc = true},
    {.name = "tekken",
     .splits = {"[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER
                "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
     .ignore_merges = true,
     .add_bos = true},
    {.name = "deepseek-v3",
     .splits = {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
                "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
                "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*"
                "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"}},
};

/* Other names for the same thing in GGUF files. */
static const char *const aliases[][2] = {{"llama3", "llama-bpe"}, {"llama-v3", "llama-bpe"}};

const nq_pretok_kind *nq_pretok_at(size_t i) {
    return i < sizeof kinds / sizeof kinds[0] ? &kinds[i] : NULL;
}

static bool same(const char *a, const char *b, size_t len) {
    return strlen(a) == len && memcmp(a, b, len) == 0;
}

const nq_pretok_kind *nq_pretok_find(const char *name, size_t len) {
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++) {
        if (same(aliases[i][0], name, len)) {
            name = aliases[i][1];
            len = strlen(name);
            break;
        }
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (same(kinds[i].name, name, len)) {
            return &kinds[i];
        }
    }
    return NULL;
}

struct nq_pretok {
    bool digits;
    unsigned count; /* regex stages */
    pcre2_code *codes[NQ_PRETOK_SPLITS + 1];
};

typedef struct run {
    const nq_pretok *p;
    const uint8_t *text;
    uint8_t *shadow; /* the text with stand-ins, same offsets, valid UTF-8 */
    pcre2_match_data *md;
    pcre2_match_context *mc;
    pcre2_jit_stack *stack;
    nq_piece_fn fn;
    void *ctx;
} run;

static novaq_status compile(pcre2_code **out, const char *pattern, novaq_error *err) {
    int code = 0;
    PCRE2_SIZE at = 0;
    *out = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code,
                         &at, NULL);
    if (*out == NULL) {
        PCRE2_UCHAR why[128] = {0};
        (void)pcre2_get_error_message(code, why, sizeof why);
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "this PCRE2 cannot compile a pre-tokenizer (offset %zu: %s)", at, why);
    }
    /* Where there is no JIT the interpreter gives the same matches. */
    (void)pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE);
    return NOVAQ_OK;
}

novaq_status nq_pretok_open(nq_pretok **out, const nq_pretok_kind *kind, novaq_error *err) {
    *out = NULL;
    nq_pretok *p = NULL;
    NQ_TRY(nq_alloc(&p, 1, sizeof *p, err));
    p->digits = kind->digits;
    novaq_status st = NOVAQ_OK;
    for (unsigned i = 0; st == NOVAQ_OK && kind->splits[i] != NULL; i++) {
        st = compile(&p->codes[p->count], kind->splits[i], err);
        p->count += st == NOVAQ_OK;
    }
    if (st == NOVAQ_OK && kind->byte_level_regex) {
        st = compile(&p->codes[p->count], GPT2_RE, err);
        p->count += st == NOVAQ_OK;
    }
    if (st != NOVAQ_OK) {
        nq_pretok_close(&p);
        return st;
    }
    *out = p;
    return NOVAQ_OK;
}

void nq_pretok_close(nq_pretok **p) {
    if (*p == NULL) {
        return;
    }
    for (unsigned i = 0; i < (*p)->count; i++) {
        pcre2_code_free((*p)->codes[i]);
    }
    nq_free(*p);
    *p = NULL;
}

static novaq_status match(bool *found, const run *r, unsigned stage, size_t from, size_t start,
                          size_t to, novaq_error *err) {
    int rc = pcre2_match(r->p->codes[stage], r->shadow + from, to - from, start - from,
                         PCRE2_NO_UTF_CHECK, r->md, r->mc);
    *found = rc > 0;
    if (rc > 0 || rc == PCRE2_ERROR_NOMATCH) {
        return NOVAQ_OK;
    }
    PCRE2_UCHAR why[128] = {0};
    (void)pcre2_get_error_message(rc, why, sizeof why);
    return nq_fail(err, rc == PCRE2_ERROR_NOMEMORY ? NOVAQ_E_MEMORY : NOVAQ_E_UNSUPPORTED,
                   "pre-tokenizer at byte %zu: %s", start, why);
}

/* Matches and the gaps between them become pieces; each is a text of its own for
 * the next stage, so that look-ahead never sees beyond it. */
static novaq_status split(const run *r, unsigned stage, size_t from, size_t to, novaq_error *err) {
    if (stage == r->p->count) {
        return to > from ? r->fn(r->ctx, r->text + from, to - from, err) : NOVAQ_OK;
    }
    size_t done = from;
    while (done < to) {
        bool found = false;
        NQ_TRY(match(&found, r, stage, from, done, to, err));
        const PCRE2_SIZE *ov = pcre2_get_ovector_pointer(r->md);
        size_t first = found ? from + ov[0] : to;
        size_t end = found ? from + ov[1] : to;
        if (end <= done) {
            return nq_fail(err, NOVAQ_E_UNSUPPORTED, "pre-tokenizer matches nothing at byte %zu",
                           done);
        }
        if (first > done) {
            NQ_TRY(split(r, stage + 1, done, first, err));
        }
        NQ_TRY(split(r, stage + 1, first, end, err));
        done = end;
    }
    return NOVAQ_OK;
}

static novaq_status split_digits(const run *r, size_t len, novaq_error *err) {
    size_t done = 0;
    for (size_t i = 0; i < len;) {
        uint32_t cp = 0;
        unsigned n = nq_utf8_next(r->text + i, len - i, &cp);
        if (n > 0 && nq_unicode_is_numeric(cp)) {
            NQ_TRY(split(r, 0, done, i, err));
            NQ_TRY(split(r, 0, i, i + n, err));
            done = i + n;
        }
        i += n > 0 ? n : 1;
    }
    return split(r, 0, done, len, err);
}

/* Ill-formed bytes become U+0001, which like U+FFFD is neither letter, number
 * nor space but has one byte. */
static void cast_shadow(uint8_t *shadow, const uint8_t *text, size_t len) {
    memcpy(shadow, text, len);
    for (size_t i = 0; i < len;) {
        if (text[i] < 0x80) {
            i++;
            continue;
        }
        uint32_t cp = 0;
        unsigned n = nq_utf8_next(text + i, len - i, &cp);
        if (n == 0) {
            shadow[i++] = 1;
            continue;
        }
        uint32_t stand_in = nq_unicode_stand_in(cp);
        if (stand_in != cp) {
            (void)nq_utf8_put(shadow + i, stand_in);
        }
        i += n;
    }
}

static novaq_status run_init(run *r, size_t len, novaq_error *err) {
    r->md = pcre2_match_data_create(1, NULL);
    r->mc = pcre2_match_context_create(NULL);
    if (r->md == NULL || r->mc == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "no memory for the pre-tokenizer");
    }
    /* Long runs backtrack once per character; that is linear, not runaway. */
    (void)pcre2_set_match_limit(r->mc, UINT32_MAX);
    r->stack = pcre2_jit_stack_create((size_t)32 << 10, (size_t)16 << 20, NULL);
    pcre2_jit_stack_assign(r->mc, NULL, r->stack);
    NQ_TRY(nq_alloc_raw(&r->shadow, (uint64_t)len, 1, err));
    cast_shadow(r->shadow, r->text, len);
    return NOVAQ_OK;
}

novaq_status nq_pretok_run(const nq_pretok *p, const uint8_t *text, size_t len, nq_piece_fn fn,
                           void *ctx, novaq_error *err) {
    run r = {.p = p, .text = text, .fn = fn, .ctx = ctx};
    novaq_status st = run_init(&r, len, err);
    if (st == NOVAQ_OK) {
        st = p->digits ? split_digits(&r, len, err) : split(&r, 0, 0, len, err);
    }
    nq_free(r.shadow);
    pcre2_jit_stack_free(r.stack);
    pcre2_match_context_free(r.mc);
    pcre2_match_data_free(r.md);
    return st;
}

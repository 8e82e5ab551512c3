/* tokenizer_pretok.c - cutting text into the pieces that the model works on.
 *
 * Owns: running the stages one inside the other: each piece of a stage is a text
 * of its own for the next, so that look-ahead never sees beyond it. Every known
 * pattern takes time linear in the text. Refuses: patterns that match nothing, and
 * those that take too long.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "model/tokenizer_impl.h"

#define GPT2_RE "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

struct nq_pretok {
    nq_stage stages[NQ_STAGES_MAX]; /* patterns not kept */
    unsigned count;
    pcre2_code *codes[NQ_STAGES_MAX]; /* by stage, NULL without a pattern */
    nq_literals literals;
};

/* One stage's own texts: [0] with a prefix, [1] in another alphabet. */
typedef struct scratch {
    nq_buf text[2];
    uint8_t *shadow[2];
    size_t cap[2];
} scratch;

struct nq_pretok_work {
    pcre2_match_data *md;
    pcre2_match_context *mc;
    pcre2_jit_stack *stack;
    uint8_t *shadow;
    size_t cap;
    scratch own[NQ_STAGES_MAX];
};

typedef struct run {
    const nq_pretok *p;
    nq_pretok_work *w;
    nq_piece_fn fn;
    void *ctx;
} run;

/* A text that stages cut. */
typedef struct view {
    const uint8_t *text;
    const uint8_t *shadow; /* with stand-ins, same offsets, valid UTF-8; or NULL */
    bool at_start;         /* of the whole input */
    bool mapped;           /* in GPT-2's alphabet */
} view;

novaq_status nq_pretok_open(nq_pretok **out, const nq_stage *stages, novaq_error *err) {
    *out = NULL;
    nq_pretok *p = NULL;
    NQ_TRY(nq_alloc(&p, 1, sizeof *p, err));
    novaq_status st = NOVAQ_OK;
    for (unsigned i = 0; st == NOVAQ_OK && stages[i].type != NQ_STAGE_END; i++) {
        const nq_stage *s = &stages[i];
        bool gpt2 = s->type == NQ_STAGE_BYTE_LEVEL && s->regex;
        p->stages[i] = *s;
        p->stages[i].pattern = NULL;
        p->count = i + 1;
        if (gpt2 || s->type == NQ_STAGE_SPLIT) {
            st = nq_regex_compile(&p->codes[i], &p->literals, gpt2 ? GPT2_RE : s->pattern,
                                  s->literal, err);
        }
    }
    if (st != NOVAQ_OK) {
        nq_pretok_close(&p);
    }
    *out = p;
    return st;
}

void nq_pretok_close(nq_pretok **p) {
    if (*p == NULL) {
        return;
    }
    for (unsigned i = 0; i < (*p)->count; i++) {
        pcre2_code_free((*p)->codes[i]);
    }
    nq_free((*p)->literals.ranges);
    nq_free(*p);
    *p = NULL;
}

void nq_pretok_work_free(nq_pretok_work **work) {
    nq_pretok_work *w = *work;
    if (w == NULL) {
        return;
    }
    for (unsigned i = 0; i < 2 * NQ_STAGES_MAX; i++) {
        nq_buf_free(&w->own[i / 2].text[i % 2]);
        nq_free(w->own[i / 2].shadow[i % 2]);
    }
    nq_free(w->shadow);
    pcre2_jit_stack_free(w->stack);
    pcre2_match_context_free(w->mc);
    pcre2_match_data_free(w->md);
    nq_free(w);
    *work = NULL;
}

static novaq_status work_open(nq_pretok_work **out, novaq_error *err) {
    nq_pretok_work *w = NULL;
    NQ_TRY(nq_alloc(&w, 1, sizeof *w, err));
    for (unsigned i = 0; i < 2 * NQ_STAGES_MAX; i++) {
        w->own[i / 2].text[i % 2] = nq_buf_init(8 * NQ_TOK_TEXT_MAX);
    }
    *out = w;
    w->md = pcre2_match_data_create(1, NULL);
    w->mc = pcre2_match_context_create(NULL);
    if (w->md == NULL || w->mc == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "no memory for the pre-tokenizer");
    }
    w->stack = pcre2_jit_stack_create((size_t)32 << 10, (size_t)16 << 20, NULL);
    pcre2_jit_stack_assign(w->mc, NULL, w->stack);
    return NOVAQ_OK;
}

/* ---- shadows ---------------------------------------------------------------- */

/* Patterns that write a code point out must meet that one. */
static bool is_literal(const nq_literals *l, uint32_t cp) {
    for (size_t i = 0; i < l->count; i++) {
        if (cp >= l->ranges[i][0] && cp <= l->ranges[i][1]) {
            return true;
        }
    }
    return false;
}

/* Ill-formed bytes become U+0001, which like U+FFFD is neither letter, number
 * nor space but has one byte. */
static void cast_shadow(uint8_t *shadow, const uint8_t *text, size_t len, const nq_literals *lit) {
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
        if (stand_in != cp && !is_literal(lit, cp) && !is_literal(lit, stand_in)) {
            (void)nq_utf8_put(shadow + i, stand_in);
        }
        i += n;
    }
}

static bool matches_after(const nq_pretok *p, unsigned k) {
    while (k < p->count && p->codes[k] == NULL) {
        k++;
    }
    return k < p->count;
}

/* The shadow of a text that stages from k on will see. */
static novaq_status shadow_of(const uint8_t **out, uint8_t **shadow, size_t *cap, const run *r,
                              unsigned k, const uint8_t *text, size_t len, novaq_error *err) {
    *out = NULL;
    if (!matches_after(r->p, k)) {
        return NOVAQ_OK;
    }
    if (len > *cap || *shadow == NULL) {
        nq_free(*shadow);
        *shadow = NULL;
        *cap = 0;
        NQ_TRY(nq_alloc_raw(shadow, (uint64_t)len + len / 2 + 64, 1, err));
        *cap = len + len / 2 + 64;
    }
    cast_shadow(*shadow, text, len, &r->p->literals);
    *out = *shadow;
    return NOVAQ_OK;
}

/* ---- stages ----------------------------------------------------------------- */

static novaq_status stage(const run *r, unsigned k, view v, size_t from, size_t to,
                          novaq_error *err);

/* What one cut of a stage has found so far. */
typedef struct cutter {
    const run *r;
    unsigned next; /* the stage that gets the pieces */
    view v;
    nq_behavior behavior;
    bool invert;
    bool pending, match, after_match;
    size_t from, to;
} cutter;

static novaq_status pass_on(cutter *c, novaq_error *err) {
    bool has = c->pending;
    c->pending = false;
    return has ? stage(c->r, c->next, c->v, c->from, c->to, err) : NOVAQ_OK;
}

/* The next stretch of text, which matches or does not. */
static novaq_status feed(cutter *c, size_t from, size_t to, bool match, novaq_error *err) {
    bool join = false;
    match = match != c->invert;
    switch (c->behavior) {
    case NQ_ISOLATED: return stage(c->r, c->next, c->v, from, to, err);
    case NQ_REMOVED: return match ? NOVAQ_OK : stage(c->r, c->next, c->v, from, to, err);
    case NQ_CONTIGUOUS: join = c->pending && c->match == match; break;
    case NQ_MERGED_WITH_PREVIOUS: join = c->pending && match && !c->after_match; break;
    case NQ_MERGED_WITH_NEXT: join = c->pending && c->match && !match; break;
    }
    c->after_match = match;
    c->match = match;
    if (join) {
        c->to = to;
        return NOVAQ_OK;
    }
    NQ_TRY(pass_on(c, err));
    c->pending = true;
    c->from = from;
    c->to = to;
    return NOVAQ_OK;
}

/* Bounds the steps of one match by what a pattern needs that looks at each
 * character a few times; what takes more is hostile. */
static void limit(const run *r, size_t len) {
    uint64_t steps = 100000 + (uint64_t)len * 64;
    (void)pcre2_set_match_limit(r->w->mc, steps > UINT32_MAX ? UINT32_MAX : (uint32_t)steps);
}

static novaq_status match(bool *found, const run *r, unsigned k, const view *v, size_t from,
                          size_t start, size_t to, novaq_error *err) {
    int rc = pcre2_match(r->p->codes[k], v->shadow + from, to - from, start - from,
                         PCRE2_NO_UTF_CHECK, r->w->md, r->w->mc);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) { /* long repetitions of a group */
        rc = pcre2_match(r->p->codes[k], v->shadow + from, to - from, start - from,
                         PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, r->w->md, r->w->mc);
    }
    *found = rc >= 0;
    if (*found || rc == PCRE2_ERROR_NOMATCH) {
        return NOVAQ_OK;
    }
    PCRE2_UCHAR why[128] = {0};
    (void)pcre2_get_error_message(rc, why, sizeof why);
    return nq_fail(err, rc == PCRE2_ERROR_NOMEMORY ? NOVAQ_E_MEMORY : NOVAQ_E_UNSUPPORTED,
                   "pre-tokenizer at byte %zu: %s", start, why);
}

static novaq_status cut_pattern(cutter *c, unsigned k, size_t from, size_t to, novaq_error *err) {
    size_t done = from;
    while (done < to) {
        bool found = false;
        limit(c->r, to - from);
        NQ_TRY(match(&found, c->r, k, &c->v, from, done, to, err));
        const PCRE2_SIZE *ov = pcre2_get_ovector_pointer(c->r->w->md);
        size_t first = found ? from + ov[0] : to;
        size_t end = found ? from + ov[1] : to;
        if (end <= done || first < done) {
            return nq_fail(err, NOVAQ_E_UNSUPPORTED, "pre-tokenizer matches nothing at byte %zu",
                           done);
        }
        if (first > done) {
            NQ_TRY(feed(c, done, first, false, err));
        }
        if (end > first) {
            NQ_TRY(feed(c, first, end, true, err));
        }
        done = end;
    }
    return pass_on(c, err);
}

/* Stages that look at one character: each that is one is a match of its own. */
static novaq_status cut_characters(cutter *c, bool (*is)(uint32_t cp), size_t from, size_t to,
                                   novaq_error *err) {
    size_t done = from;
    for (size_t i = from; i < to;) {
        uint32_t cp = 0;
        unsigned n = nq_utf8_next(c->v.text + i, to - i, &cp);
        if (n > 0 && is(cp)) {
            if (i > done) {
                NQ_TRY(feed(c, done, i, false, err));
            }
            NQ_TRY(feed(c, i, i + n, true, err));
            done = i + n;
        }
        i += n > 0 ? n : 1;
    }
    if (to > done) {
        NQ_TRY(feed(c, done, to, false, err));
    }
    return pass_on(c, err);
}

/* The text of stage k's piece with something before it, as a view of its own. */
static novaq_status prefixed(view *out, const run *r, unsigned k, view v, const char *prefix,
                             size_t from, size_t to, novaq_error *err) {
    scratch *s = &r->w->own[k];
    nq_buf *b = &s->text[0];
    b->len = 0;
    NQ_TRY(nq_buf_puts(b, prefix, err));
    NQ_TRY(nq_buf_append(b, v.text + from, to - from, err));
    *out = (view){.text = b->data, .at_start = v.at_start && from == 0, .mapped = v.mapped};
    return shadow_of(&out->shadow, &s->shadow[0], &s->cap[0], r, k, b->data, b->len, err);
}

/* From the pattern of ByteLevel to the stages after it, which see GPT-2's alphabet. */
static novaq_status map_piece(const run *r, unsigned k, view v, size_t from, size_t to,
                              novaq_error *err) {
    if (k + 1 == r->p->count) {
        return r->fn(r->ctx, v.text + from, to - from, err);
    }
    scratch *s = &r->w->own[k];
    nq_buf *b = &s->text[1];
    b->len = 0;
    for (size_t i = from; i < to; i++) {
        uint8_t code[4];
        unsigned n = nq_utf8_put(code, nq_byte_to_code(v.text[i]));
        NQ_TRY(nq_buf_append(b, code, n, err));
    }
    view m = {.text = b->data, .at_start = v.at_start && from == 0, .mapped = true};
    NQ_TRY(shadow_of(&m.shadow, &s->shadow[1], &s->cap[1], r, k + 1, b->data, b->len, err));
    return stage(r, k + 1, m, 0, b->len, err);
}

static novaq_status byte_level(const run *r, unsigned k, view v, size_t from, size_t to,
                               novaq_error *err) {
    if (r->p->stages[k].prefix_space && v.text[from] != ' ') {
        NQ_TRY(prefixed(&v, r, k, v, " ", from, to, err));
        to = to - from + 1;
        from = 0;
    }
    if (!r->p->stages[k].regex) {
        return map_piece(r, k, v, from, to, err);
    }
    size_t done = from;
    limit(r, to - from);
    while (done < to) { /* the pattern leaves no gaps */
        bool found = false;
        NQ_TRY(match(&found, r, k, &v, from, done, to, err));
        size_t end = found ? from + pcre2_get_ovector_pointer(r->w->md)[1] : to;
        NQ_TRY(map_piece(r, k, v, done, end, err));
        done = end;
    }
    return NOVAQ_OK;
}

static novaq_status metaspace(const run *r, unsigned k, view v, size_t from, size_t to,
                              novaq_error *err) {
    static const size_t mark = sizeof NQ_META - 1;
    const nq_stage *st = &r->p->stages[k];
    scratch *s = &r->w->own[k];
    nq_buf *b = &s->text[0];
    bool marked =
        v.text[from] == ' ' || (to - from >= mark && memcmp(v.text + from, NQ_META, mark) == 0);
    bool at_start = v.at_start && from == 0;
    b->len = 0;
    if (!marked &&
        (st->prepend == NQ_PREPEND_ALWAYS || (st->prepend == NQ_PREPEND_FIRST && at_start))) {
        NQ_TRY(nq_buf_append(b, NQ_META, mark, err));
    }
    for (size_t i = from; i < to; i++) {
        bool space = v.text[i] == ' ';
        NQ_TRY(nq_buf_append(b, space ? NQ_META : (const char *)&v.text[i], space ? mark : 1, err));
    }
    view m = {.text = b->data, .at_start = at_start};
    NQ_TRY(shadow_of(&m.shadow, &s->shadow[0], &s->cap[0], r, k + 1, b->data, b->len, err));
    if (!st->split) {
        return stage(r, k + 1, m, 0, b->len, err);
    }
    size_t done = 0;
    while (done < b->len) {
        const uint8_t *hit = b->len - done < 2 * mark
                                 ? NULL
                                 : memmem(b->data + done + 1, b->len - done - 1, NQ_META, mark);
        size_t end = hit == NULL ? b->len : (size_t)(hit - b->data);
        NQ_TRY(stage(r, k + 1, m, done, end, err));
        done = end;
    }
    return NOVAQ_OK;
}

static novaq_status emit(const run *r, view v, size_t from, size_t to, novaq_error *err) {
    if (!v.mapped) {
        return r->fn(r->ctx, v.text + from, to - from, err);
    }
    nq_buf *b = &r->w->own[NQ_STAGES_MAX - 1].text[1];
    b->len = 0;
    for (size_t i = from; i < to;) {
        uint32_t cp = 0;
        i += nq_utf8_next(v.text + i, to - i, &cp);
        uint8_t byte = (uint8_t)nq_code_to_byte(cp);
        NQ_TRY(nq_buf_append(b, &byte, 1, err));
    }
    return r->fn(r->ctx, b->data, b->len, err);
}

static novaq_status stage(const run *r, unsigned k, view v, size_t from, size_t to,
                          novaq_error *err) {
    if (to == from) {
        return NOVAQ_OK;
    }
    if (k == r->p->count) {
        return emit(r, v, from, to, err);
    }
    const nq_stage *s = &r->p->stages[k];
    cutter c = {.r = r, .next = k + 1, .v = v, .behavior = s->behavior, .invert = s->invert};
    switch (s->type) {
    case NQ_STAGE_SPLIT: return cut_pattern(&c, k, from, to, err);
    case NQ_STAGE_DIGITS:
        c.behavior = s->individual ? NQ_ISOLATED : NQ_CONTIGUOUS;
        return cut_characters(&c, nq_unicode_is_numeric, from, to, err);
    case NQ_STAGE_PUNCTUATION: return cut_characters(&c, nq_unicode_is_punctuation, from, to, err);
    case NQ_STAGE_BYTE_LEVEL: return byte_level(r, k, v, from, to, err);
    case NQ_STAGE_METASPACE: return metaspace(r, k, v, from, to, err);
    case NQ_STAGE_END: break;
    }
    return NOVAQ_OK;
}

novaq_status nq_pretok_run(const nq_pretok *p, nq_pretok_work **work, const uint8_t *text,
                           size_t len, bool at_start, nq_piece_fn fn, void *ctx, novaq_error *err) {
    if (len == 0) {
        return NOVAQ_OK;
    }
    if (p->count == 0) {
        return fn(ctx, text, len, err);
    }
    if (*work == NULL) {
        NQ_TRY(work_open(work, err));
    }
    run r = {.p = p, .w = *work, .fn = fn, .ctx = ctx};
    view v = {.text = text, .at_start = at_start};
    NQ_TRY(shadow_of(&v.shadow, &r.w->shadow, &r.w->cap, &r, 0, text, len, err));
    return stage(&r, 0, v, 0, len, err);
}

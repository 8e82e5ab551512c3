/* tokenizer_stages.c - pre-tokenizers as a list of stages.
 *
 * Owns: the stages that can be reproduced exactly, their spelling in
 * tokenizer.json, and those that GGUF files name in tokenizer.ggml.pre; the
 * patterns are the model families' own. Refuses: other stages and other settings
 * of these, by name.
 */
#include <string.h>

#include "model/tokenizer_impl.h"

#define TAIL_RE       "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define ABBREVIATIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORD_RE       ABBREVIATIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define UPPER         "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER         "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K_RE                                                                                   \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" ABBREVIATIONS "?|[^\\r\\n\\p{L}\\p{N}]?" UPPER    \
    "+" LOWER "*" ABBREVIATIONS "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+"      \
    "|\\s+(?!\\S)|\\s+"
/* clang-format off */
/* Letters with case, as a version of Unicode had them. */
#define CASED \
    "[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-" \
    "Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ" \
    "-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]"
/* clang-format on */
#define CJK "[一-龥ࠀ-一가-퟿]+"

#define SPLIT(re)                                                                                  \
    { .type = NQ_STAGE_SPLIT, .pattern = re }
#define BYTES                                                                                      \
    { .type = NQ_STAGE_BYTE_LEVEL }
#define GPT2                                                                                       \
    { .type = NQ_STAGE_BYTE_LEVEL, .regex = true }
#define EACH_DIGIT                                                                                 \
    { .type = NQ_STAGE_DIGITS, .individual = true }

static const nq_pretok_kind kinds[] = {
    {.name = "gpt-2", .stages = {GPT2}},
    {.name = "olmo", .stages = {GPT2}, .nfc = true},
    {.name = "smollm", .stages = {EACH_DIGIT, GPT2}},
    {.name = "command-r", .stages = {EACH_DIGIT, GPT2}, .nfc = true},
    {.name = "llama-bpe",
     .stages = {SPLIT(WORD_RE "\\p{N}{1,3}" TAIL_RE), BYTES},
     .ignore_merges = true,
     .add_bos = true},
    {.name = "glm4",
     .stages = {SPLIT(WORD_RE "\\p{N}{1,3}" TAIL_RE), BYTES},
     .ignore_merges = true},
    {.name = "dbrx", .stages = {SPLIT(WORD_RE "\\p{N}{1,3}" TAIL_RE), BYTES}},
    {.name = "qwen2", .stages = {SPLIT(WORD_RE "\\p{N}" TAIL_RE), BYTES}, .nfc = true},
    {.name = "qwen35",
     .stages = {SPLIT(ABBREVIATIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}"
                                    "| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+"
                                    "|\\s+(?!\\S)|\\s+"),
                BYTES},
     .nfc = true},
    {.name = "gpt-4o", .stages = {SPLIT(O200K_RE), BYTES}},
    {.name = "tekken",
     .stages = {SPLIT("[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+|[^\\r\\n\\p{L}\\p{N}]?" UPPER
                      "+" LOWER "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+"
                      "|\\s+(?!\\S)|\\s+"),
                BYTES},
     .ignore_merges = true,
     .add_bos = true},
    {.name = "deepseek-v3",
     .stages = {SPLIT("\\p{N}{1,3}"), SPLIT("[一-龥぀-ゟ゠-ヿ]+"),
                SPLIT("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
                      "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*"
                      "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"),
                BYTES}},
    {.name = "deepseek-llm",
     .stages = {SPLIT("[\r\n]"), SPLIT("\\s?" CASED "+"), SPLIT("\\s?[!-/:-~！-／：-～‘-‟　-。]+"),
                SPLIT("\\s+$"), SPLIT(CJK), EACH_DIGIT, BYTES}},
    {.name = "deepseek-coder",
     .stages = {SPLIT("[\r\n]"), SPLIT("\\s?\\p{L}+"), SPLIT("\\s?\\p{P}+"), SPLIT(CJK), EACH_DIGIT,
                BYTES}},
    {.name = "falcon",
     .stages = {{.type = NQ_STAGE_PUNCTUATION, .behavior = NQ_CONTIGUOUS},
                GPT2,
                {.type = NQ_STAGE_DIGITS},
                SPLIT("[0-9][0-9][0-9]")}},
    {.name = "default",
     .stages = {SPLIT("[\\p{P}\\$\\+<=>\\^~\\|]+"),
                SPLIT("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+"
                      "|\\s+(?!\\S)"),
                SPLIT("\\p{N}+"), SPLIT("[0-9][0-9][0-9]"), BYTES}},
};

/* Other names for the same thing in GGUF files. */
static const char *const aliases[][2] = {
    {"llama3", "llama-bpe"},  {"llama-v3", "llama-bpe"},
    {"falcon3", "llama-bpe"}, {"lfm2", "llama-bpe"},
    {"smaug-bpe", "dbrx"},    {"chatglm-bpe", "dbrx"},
    {"glm5", "glm4"},         {"deepseek-r1-qwen", "qwen2"},
    {"llama4", "gpt-4o"},     {"starcoder", "smollm"},
    {"refact", "smollm"},     {"codeshell", "smollm"},
    {"phi-2", "gpt-2"},       {"jais", "gpt-2"},
    {"mpt", "olmo"},          {"hunyuan-dense", "deepseek-v3"}};

const nq_pretok_kind *nq_pretok_find(const char *name, size_t len) {
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++) {
        if (strlen(aliases[i][0]) == len && memcmp(aliases[i][0], name, len) == 0) {
            name = aliases[i][1];
            len = strlen(name);
            break;
        }
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strlen(kinds[i].name) == len && memcmp(kinds[i].name, name, len) == 0) {
            return &kinds[i];
        }
    }
    return NULL;
}

static bool same_stage(const nq_stage *a, const nq_stage *b) {
    if (a->type != b->type || a->behavior != b->behavior || a->prepend != b->prepend ||
        a->literal != b->literal || a->invert != b->invert || a->individual != b->individual ||
        a->regex != b->regex || a->prefix_space != b->prefix_space || a->split != b->split) {
        return false;
    }
    return a->pattern == NULL ? b->pattern == NULL
                              : b->pattern != NULL && strcmp(a->pattern, b->pattern) == 0;
}

const nq_pretok_kind *nq_pretok_same(const nq_stage *stages) {
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        size_t i = 0;
        while (same_stage(&kinds[k].stages[i], &stages[i]) && stages[i].type != NQ_STAGE_END) {
            i++;
        }
        if (kinds[k].stages[i].type == NQ_STAGE_END && stages[i].type == NQ_STAGE_END) {
            return &kinds[k];
        }
    }
    return NULL;
}

unsigned nq_stages_count(const nq_stage *stages, nq_stage_type type) {
    unsigned n = 0;
    for (unsigned i = 0; stages[i].type != NQ_STAGE_END; i++) {
        n += stages[i].type == type;
    }
    return n;
}

/* ---- tokenizer.json --------------------------------------------------------- */

static const char where[] = "tokenizer: pre_tokenizer";

static const char *const behaviors[] = {
    [NQ_ISOLATED] = "Isolated",
    [NQ_REMOVED] = "Removed",
    [NQ_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
    [NQ_MERGED_WITH_NEXT] = "MergedWithNext",
    [NQ_CONTIGUOUS] = "Contiguous",
};
static const char *const prepends[] = {
    [NQ_PREPEND_NEVER] = "never",
    [NQ_PREPEND_FIRST] = "first",
    [NQ_PREPEND_ALWAYS] = "always",
};

/* A boolean member, by_default when it is not there. */
static novaq_status get_flag(bool *out, const json_t *part, const char *key, bool by_default,
                             novaq_error *err) {
    const json_t *v = json_object_get(part, key);
    *out = v == NULL ? by_default : json_is_true(v);
    return v == NULL || json_is_boolean(v)
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_FORMAT, "%s: \"%s\" is not true or false", where, key);
}

static novaq_status get_name(int *out, const json_t *part, const char *key,
                             const char *const *names, size_t count, int by_default,
                             novaq_error *err) {
    const json_t *v = json_object_get(part, key);
    const char *name = json_string_value(v);
    *out = by_default;
    if (v == NULL && by_default >= 0) {
        return NOVAQ_OK;
    }
    for (size_t i = 0; name != NULL && i < count; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (int)i;
            return NOVAQ_OK;
        }
    }
    return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s: %s \"%.64s\"", where, key,
                   name == NULL ? "?" : name);
}

static novaq_status get_behavior(nq_behavior *out, const json_t *part, int by_default,
                                 novaq_error *err) {
    int i = 0;
    NQ_TRY(get_name(&i, part, "behavior", behaviors, sizeof behaviors / sizeof behaviors[0],
                    by_default, err));
    *out = (nq_behavior)i;
    return NOVAQ_OK;
}

static novaq_status read_split(nq_stage *s, const json_t *part, novaq_error *err) {
    const json_t *pattern = json_object_get(part, "pattern");
    s->pattern = json_string_value(json_object_get(pattern, "Regex"));
    s->literal = s->pattern == NULL;
    if (s->literal) {
        s->pattern = json_string_value(json_object_get(pattern, "String"));
    }
    if (s->pattern == NULL || s->pattern[0] == '\0') {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: Split without a pattern", where);
    }
    NQ_TRY(get_flag(&s->invert, part, "invert", false, err));
    return get_behavior(&s->behavior, part, -1, err);
}

/* Both generations of its settings. */
static novaq_status read_metaspace(nq_stage *s, const json_t *part, novaq_error *err) {
    const char *mark = json_string_value(json_object_get(part, "replacement"));
    int prepend = NQ_PREPEND_ALWAYS;
    bool space = true;
    if (mark == NULL || strcmp(mark, NQ_META) != 0) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s: Metaspace with \"%.16s\" for a space", where,
                       mark == NULL ? "?" : mark);
    }
    NQ_TRY(get_name(&prepend, part, "prepend_scheme", prepends,
                    sizeof prepends / sizeof prepends[0], prepend, err));
    NQ_TRY(get_flag(&space, part, "add_prefix_space", true, err));
    s->prepend = space ? (nq_prepend)prepend : NQ_PREPEND_NEVER;
    return get_flag(&s->split, part, "split", true, err);
}

static novaq_status read_stage(nq_stage *s, const json_t *part, novaq_error *err) {
    const char *type = json_string_value(json_object_get(part, "type"));
    type = type == NULL ? "?" : type;
    if (strcmp(type, "Split") == 0) {
        s->type = NQ_STAGE_SPLIT;
        return read_split(s, part, err);
    }
    if (strcmp(type, "Digits") == 0) {
        s->type = NQ_STAGE_DIGITS;
        return get_flag(&s->individual, part, "individual_digits", false, err);
    }
    if (strcmp(type, "Punctuation") == 0) {
        s->type = NQ_STAGE_PUNCTUATION;
        return get_behavior(&s->behavior, part, NQ_ISOLATED, err);
    }
    if (strcmp(type, "ByteLevel") == 0) {
        s->type = NQ_STAGE_BYTE_LEVEL;
        NQ_TRY(get_flag(&s->regex, part, "use_regex", true, err));
        return get_flag(&s->prefix_space, part, "add_prefix_space", true, err);
    }
    if (strcmp(type, "Metaspace") == 0) {
        s->type = NQ_STAGE_METASPACE;
        return read_metaspace(s, part, err);
    }
    return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s \"%.64s\" is not supported", where, type);
}

novaq_status nq_stages_read(nq_stage stages[NQ_STAGES_MAX], const json_t *pre, novaq_error *err) {
    memset(stages, 0, NQ_STAGES_MAX * sizeof *stages);
    if (pre == NULL || json_is_null(pre)) {
        return NOVAQ_OK;
    }
    const char *type = json_string_value(json_object_get(pre, "type"));
    if (type == NULL || strcmp(type, "Sequence") != 0) {
        return read_stage(&stages[0], pre, err);
    }
    const json_t *list = NULL;
    NQ_TRY(nq_json_get_array(&list, pre, "pretokenizers", where, err));
    if (json_array_size(list) >= NQ_STAGES_MAX) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s of more than %d stages", where,
                       NQ_STAGES_MAX - 1);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        NQ_TRY(read_stage(&stages[i], json_array_get(list, i), err));
    }
    return NOVAQ_OK;
}

static json_t *stage_json(const nq_stage *s) {
    switch (s->type) {
    case NQ_STAGE_SPLIT:
        return json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern",
                         s->literal ? "String" : "Regex", s->pattern, "behavior",
                         behaviors[s->behavior], "invert", s->invert);
    case NQ_STAGE_DIGITS:
        return json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", s->individual);
    case NQ_STAGE_PUNCTUATION:
        return json_pack("{s:s, s:s}", "type", "Punctuation", "behavior", behaviors[s->behavior]);
    case NQ_STAGE_BYTE_LEVEL:
        return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space",
                         s->prefix_space, "trim_offsets", 1, "use_regex", s->regex);
    case NQ_STAGE_METASPACE:
        return json_pack("{s:s, s:s, s:s, s:b}", "type", "Metaspace", "replacement", NQ_META,
                         "prepend_scheme", prepends[s->prepend], "split", s->split);
    case NQ_STAGE_END: break;
    }
    return json_null();
}

json_t *nq_stages_json(const nq_stage *stages) {
    if (stages[0].type == NQ_STAGE_END || stages[1].type == NQ_STAGE_END) {
        return stage_json(&stages[0]);
    }
    json_t *list = json_array();
    for (unsigned i = 0; list != NULL && stages[i].type != NQ_STAGE_END; i++) {
        if (json_array_append_new(list, stage_json(&stages[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list == NULL ? NULL : json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list);
}

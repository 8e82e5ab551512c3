/* opt.c - parsing by the table. See opt.h. */
#include "opt.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_WORD 64 /* longer words are never near a name of the table */

static opt_result bad(opt_args *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* What was typed may hold anything; the message stays one line. */
static opt_result bad(opt_args *a, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(a->error, sizeof a->error, fmt, ap);
    va_end(ap);
    for (char *p = a->error; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            *p = '?';
        }
    }
    return OPT_BAD;
}

static bool has_command(const opt_spec *s, opt_command_id c) {
    return (s->commands >> c & 1U) != 0;
}

const opt_spec *opt_find(opt_command_id command, opt_id id) {
    for (size_t i = 0; i < opt_spec_count; i++) {
        if (opt_specs[i].id == id && has_command(&opt_specs[i], command)) {
            return &opt_specs[i];
        }
    }
    return NULL;
}

opt_command_id opt_command_find(const char *name) {
    for (int c = CMD_NONE + 1; c < CMD_COUNT; c++) {
        if (strcmp(opt_commands[c].name, name) == 0) {
            return (opt_command_id)c;
        }
    }
    return CMD_NONE;
}

static bool is_word(const char *s, size_t len, const char *word) {
    return word != NULL && strlen(word) == len && memcmp(s, word, len) == 0;
}

static const opt_spec *find_long(opt_command_id c, const char *name, size_t len) {
    for (size_t i = 0; i < opt_spec_count; i++) {
        const opt_spec *s = &opt_specs[i];
        if (has_command(s, c) && (is_word(name, len, s->name) || is_word(name, len, s->alias))) {
            return s;
        }
    }
    return NULL;
}

static const opt_spec *find_letter(opt_command_id c, char letter) {
    for (size_t i = 0; i < opt_spec_count; i++) {
        if (opt_specs[i].letter == letter && has_command(&opt_specs[i], c)) {
            return &opt_specs[i];
        }
    }
    return NULL;
}

/* ---- suggestions --------------------------------------------------------- */

static unsigned min3(unsigned a, unsigned b, unsigned c) {
    unsigned m = a < b ? a : b;
    return m < c ? m : c;
}

/* Edits (insert, delete, replace, swap of neighbours) between two words. */
static unsigned edits(const char *a, size_t la, const char *b) {
    size_t lb = strlen(b);
    if (la > MAX_WORD || lb > MAX_WORD) {
        return MAX_WORD;
    }
    unsigned d[MAX_WORD + 1][MAX_WORD + 1];
    for (size_t i = 0; i <= la; i++) {
        for (size_t j = 0; j <= lb; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = (unsigned)(i + j);
                continue;
            }
            unsigned differ = a[i - 1] != b[j - 1];
            d[i][j] = min3(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + differ);
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && d[i - 2][j - 2] + 1 < d[i][j]) {
                d[i][j] = d[i - 2][j - 2] + 1;
            }
        }
    }
    return d[la][lb];
}

/* Keeps the nearer of *best and word; a word that begins with what was typed
 * counts as one edit. */
static void consider(const char **best, unsigned *distance, const char *typed, size_t len,
                     const char *word) {
    if (word == NULL) {
        return;
    }
    unsigned n = edits(typed, len, word);
    if (len >= 3 && strncmp(word, typed, len) == 0) {
        n = 1;
    }
    if (n < *distance) {
        *distance = n;
        *best = word;
    }
}

/* More edits than this make a different word. */
static unsigned tolerated(size_t len) { return len < 3 ? 2 : (unsigned)(len / 3) + 2; }

static const char *nearest_option(opt_command_id c, const char *typed, size_t len) {
    const char *best = NULL;
    unsigned distance = tolerated(len);
    for (size_t i = 0; i < opt_spec_count; i++) {
        if (has_command(&opt_specs[i], c)) {
            consider(&best, &distance, typed, len, opt_specs[i].name);
            consider(&best, &distance, typed, len, opt_specs[i].alias);
        }
    }
    return best;
}

const char *opt_suggest_command(char *buf, size_t size, const char *typed) {
    const char *best = NULL;
    size_t len = strlen(typed);
    unsigned distance = tolerated(len);
    for (int c = CMD_NONE + 1; c < CMD_COUNT; c++) {
        consider(&best, &distance, typed, len, opt_commands[c].name);
    }
    buf[0] = '\0';
    if (best != NULL) {
        (void)snprintf(buf, size, "; did you mean '%s'?", best);
    }
    return buf;
}

/* ---- values -------------------------------------------------------------- */

/* How the user is told what would be right. */
static void describe_range(char *buf, size_t size, const opt_spec *s) {
    const char *what = s->type == OPT_T_UINT ? "a whole number" : "a number";
    if (s->type == OPT_T_SIZE) {
        (void)snprintf(buf, size, "bytes such as 45000000, 45MB, 64M or 1.5GiB (M, MiB: 2^20)");
    } else if (isinf(s->max)) {
        (void)snprintf(buf, size, "%s %s %.15g", what, s->above_min ? "above" : "of at least",
                       s->min);
    } else if (s->above_min) {
        (void)snprintf(buf, size, "%s above %.15g and at most %.15g", what, s->min, s->max);
    } else if (s->max > 1e15) {
        (void)snprintf(buf, size, "%s from %.15g to 2^64-1", what, s->min);
    } else {
        (void)snprintf(buf, size, "%s from %.15g to %.15g", what, s->min, s->max);
    }
}

/* Decimal notation only: no nan, inf, hexadecimal or blanks. */
static bool parse_number(opt_value *v, opt_type type, const char *text) {
    const char *allowed = type == OPT_T_UINT ? "0123456789" : "0123456789+-.eE";
    if (*text == '\0' || text[strspn(text, allowed)] != '\0') {
        return false;
    }
    char *end;
    errno = 0;
    if (type == OPT_T_UINT) {
        v->u = strtoull(text, &end, 10);
        v->f = (double)v->u;
        return *end == '\0' && errno == 0;
    }
    v->f = strtod(text, &end);
    return *end == '\0' && end != text && isfinite(v->f);
}

/* 1 for "", 1000^n for kB MB GB TB, 1024^n for K M G T and KiB MiB GiB TiB in
 * either case; 0 for anything else. */
static double size_unit(const char *suffix) {
    static const char letters[] = "KMGT";
    const char *tail = *suffix != '\0' ? suffix + 1 : suffix;
    bool bare = *tail == '\0' || strcasecmp(tail, "iB") == 0;
    if (*suffix == '\0' || strcasecmp(suffix, "B") == 0) {
        return 1;
    }
    const char *found = strchr(letters, *suffix >= 'a' ? *suffix - 'a' + 'A' : *suffix);
    if (found == NULL || (!bare && strcasecmp(tail, "B") != 0)) {
        return 0;
    }
    double unit = 1;
    for (const char *p = letters; p <= found; p++) {
        unit *= bare ? 1024 : 1000;
    }
    return unit;
}

/* A decimal number, perhaps with a fraction, and a unit; rounded to bytes. */
static bool parse_size(opt_value *v, const char *text) {
    size_t digits = strspn(text, "0123456789");
    size_t number = digits;
    if (text[digits] == '.') {
        number += 1 + strspn(text + digits + 1, "0123456789");
    }
    double unit = size_unit(text + number);
    if (digits == 0 || digits > 20 || number - digits == 1 || !(unit > 0)) {
        return false;
    }
    v->f = floor(strtod(text, NULL) * unit);
    v->u = v->f < 9e18 ? (uint64_t)v->f : UINT64_MAX;
    return true;
}

static bool in_range(const opt_spec *s, double f) {
    return (s->above_min ? f > s->min : f >= s->min) && f <= s->max;
}

static bool is_choice(const char *choices, const char *text) {
    size_t len = strlen(text);
    for (const char *p = choices; len > 0; p++) {
        size_t n = strcspn(p, "|");
        if (n == len && memcmp(p, text, n) == 0) {
            return true;
        }
        p += n;
        if (*p == '\0') {
            break;
        }
    }
    return false;
}

static opt_result set_value(opt_args *a, const opt_spec *s, const char *text, bool seen) {
    opt_value *v = &a->value[s->id];
    char range[128];
    switch (s->type) {
    case OPT_T_UINT:
    case OPT_T_REAL:
        if (!parse_number(v, s->type, text) || !in_range(s, v->f)) {
            describe_range(range, sizeof range, s);
            return bad(a, "--%s: '%s' is not allowed; give %s", s->name, text, range);
        }
        break;
    case OPT_T_SIZE:
        if (!parse_size(v, text) || !in_range(s, v->f)) {
            describe_range(range, sizeof range, s);
            return bad(a, "--%s: '%s' is not allowed; give %s", s->name, text, range);
        }
        break;
    case OPT_T_CHOICE:
        if (!is_choice(s->choices, text)) {
            return bad(a, "--%s: '%s' is not allowed; give one of %s", s->name, text, s->choices);
        }
        break;
    case OPT_T_LIST: a->list[a->list_count++] = text; break;
    case OPT_T_TEXT:
        if (*text == '\0' && s->id != OPT_PROMPT) { /* a text may begin with nothing */
            return bad(a, "--%s: the value is empty; give %s", s->name, s->metavar);
        }
        break;
    case OPT_T_FLAG: break;
    }
    v->seen = seen;
    v->text = text;
    return OPT_OK;
}

static opt_result set_presets(opt_args *a) {
    for (size_t i = 0; i < opt_spec_count; i++) {
        const opt_spec *s = &opt_specs[i];
        if (s->preset != NULL && has_command(s, a->command)) {
            opt_result r = set_value(a, s, s->preset, false);
            if (r != OPT_OK) {
                return r;
            }
        }
    }
    return OPT_OK;
}

/* ---- arguments ----------------------------------------------------------- */

/* Takes the option's value from behind "=" or from the next argument. */
static opt_result take_option(opt_args *a, const opt_spec *s, const char *attached, int argc,
                              char *const *argv, int *i) {
    if (s->id == OPT_HELP) {
        return OPT_WANTS_HELP;
    }
    if (s->type == OPT_T_FLAG) {
        return attached != NULL ? bad(a, "--%s takes no value; leave out '=%s'", s->name, attached)
                                : set_value(a, s, "", true);
    }
    if (attached != NULL) {
        return set_value(a, s, attached, true);
    }
    if (s->metavar[0] == '[') { /* only ever attached */
        return set_value(a, s, s->preset, true);
    }
    const char *next = *i + 1 < argc ? argv[*i + 1] : NULL;
    if (next == NULL) {
        return bad(a, "--%s needs a value: --%s %s", s->name, s->name, s->metavar);
    }
    if (strncmp(next, "--", 2) == 0) {
        return bad(a, "--%s needs a value before '%s'; write --%s=VALUE if it begins with --",
                   s->name, next, s->name);
    }
    ++*i;
    return set_value(a, s, next, true);
}

static opt_result take_long(opt_args *a, int argc, char *const *argv, int *i) {
    const char *name = argv[*i] + 2;
    size_t len = strcspn(name, "=");
    const opt_spec *s = find_long(a->command, name, len);
    if (s != NULL) {
        return take_option(a, s, name[len] == '=' ? name + len + 1 : NULL, argc, argv, i);
    }
    const char *near = nearest_option(a->command, name, len);
    const char *command = opt_commands[a->command].name;
    const char *space = a->command == CMD_NONE ? "" : " ";
    const char *shown = a->command == CMD_NONE ? "" : command;
    if (near != NULL) {
        return bad(a, "unknown option '--%.*s'; did you mean '--%s'?", (int)(len & 0xff), name,
                   near);
    }
    return bad(a, "unknown option '--%.*s'; see novaq%s%s --help", (int)(len & 0xff), name, space,
               shown);
}

/* -x, -xVALUE, -x VALUE, and flags together: -qx. */
static opt_result take_letters(opt_args *a, int argc, char *const *argv, int *i) {
    for (const char *p = argv[*i] + 1; *p != '\0'; p++) {
        const opt_spec *s = find_letter(a->command, *p);
        if (s == NULL) {
            return bad(a, "unknown option '-%c'; see novaq %s --help", *p,
                       a->command == CMD_NONE ? "" : opt_commands[a->command].name);
        }
        bool flag = s->type == OPT_T_FLAG;
        opt_result r = take_option(a, s, flag || p[1] == '\0' ? NULL : p + 1, argc, argv, i);
        if (r != OPT_OK || !flag) {
            return r;
        }
    }
    return OPT_OK;
}

static opt_result check_counts(opt_args *a) {
    const opt_command *c = &opt_commands[a->command];
    if (a->arg_count < c->min_args) {
        return bad(a, "%s: %s; see novaq %s --help", c->name, c->missing, c->name);
    }
    if (a->arg_count > c->max_args) {
        return bad(a, "%s: unexpected argument '%s'; see novaq %s --help", c->name,
                   a->args[c->max_args], c->name);
    }
    return OPT_OK;
}

static opt_result parse_command(opt_args *a, int argc, char *const *argv, int i) {
    opt_result r = set_presets(a);
    bool only_args = false;
    for (; r == OPT_OK && i < argc; i++) {
        const char *arg = argv[i];
        if (only_args || arg[0] != '-' || arg[1] == '\0') {
            a->args[a->arg_count++] = arg;
        } else if (strcmp(arg, "--") == 0) {
            only_args = true;
        } else if (arg[1] == '-') {
            r = take_long(a, argc, argv, &i);
        } else {
            r = take_letters(a, argc, argv, &i);
        }
    }
    return r == OPT_OK ? check_counts(a) : r;
}

opt_result opt_parse(opt_args *out, int argc, char *const *argv) {
    *out = (opt_args){.command = CMD_NONE};
    size_t most = argc > 0 ? (size_t)argc : 1;
    out->list = calloc(most, sizeof *out->list);
    out->args = calloc(most, sizeof *out->args);
    if (out->list == NULL || out->args == NULL) {
        return bad(out, "out of memory");
    }
    if (argc < 2) {
        return bad(out, "no command; see novaq --help");
    }
    if (argv[1][0] == '-') {
        return parse_command(out, argc, argv, 1);
    }
    out->command = opt_command_find(argv[1]);
    if (out->command == CMD_NONE) {
        char near[MAX_WORD];
        (void)opt_suggest_command(near, sizeof near, argv[1]);
        return bad(out, "unknown command '%.64s'%s", argv[1],
                   near[0] != '\0' ? near : "; see novaq --help");
    }
    return parse_command(out, argc, argv, 2);
}

void opt_free(opt_args *a) {
    free(a->list);
    free(a->args);
    a->list = NULL;
    a->args = NULL;
}

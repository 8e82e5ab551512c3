/* report_plot.c - a picture of the layers, drawn by gnuplot.
 *
 * Owns: three panels (relative error, bits per weight, cosine similarity), a line for
 * each kind of matrix, a point for each block. No unchecked name reaches the script.
 * Refuses: running gnuplot (gnuplot.h).
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cmd.h"
#include "gnuplot.h"
#include "report.h"

#define KINDS_MAX 24 /* lines that can be told apart; the rest share one */
#define KIND      40

static const char *const panels[][2] = {
    {"relative_error", "relative error"},
    {"bits_per_weight", "bits per weight"},
    {"cosine_similarity", "cosine similarity"},
};
#define PANELS (sizeof panels / sizeof panels[0])

/* ---- layers to lines ----------------------------------------------------------- */

typedef struct kinds {
    char name[KINDS_MAX][KIND]; /* the last one, when reached: all others */
    size_t count;
    long last_block;
} kinds;

/* Appends a component of a name; gnuplot sees letters, digits, '_', '-' and '*'. */
static void put_component(char *kind, const char *s, size_t len) {
    size_t used = strlen(kind);
    bool number = strspn(s, "0123456789") == len;
    if (used > 0 && used + 1 < KIND) {
        kind[used++] = '.';
    }
    for (size_t i = 0; i < (number ? 1 : len) && used + 1 < KIND; i++) {
        bool plain = (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') ||
                     (s[i] >= '0' && s[i] <= '9') || s[i] == '_' || s[i] == '-';
        kind[used++] = number ? '*' : (plain ? s[i] : '-');
    }
    kind[used] = '\0';
}

/* "blk.12.attn_q.weight" is block 12 and of the kind "attn_q"; without a number the
 * block is -1 and the kind the whole name. */
static long take_apart(char kind[KIND], const char *name) {
    long block = -1;
    kind[0] = '\0';
    for (const char *p = name; *p != '\0';) {
        size_t len = strcspn(p, ".");
        bool last = p[len] == '\0';
        if (block < 0 && len > 0 && len < 7 && strspn(p, "0123456789") == len) {
            block = strtol(p, NULL, 10);
            kind[0] = '\0'; /* what stands before the number is the same for all */
        } else if (!last || strcmp(p, "weight") != 0 || kind[0] == '\0') {
            put_component(kind, p, len);
        }
        p += len + (last ? 0 : 1);
    }
    return block;
}

static size_t kind_index(kinds *k, const char *kind) {
    size_t i = 0;
    while (i < k->count && strcmp(k->name[i], kind) != 0) {
        i++;
    }
    if (i == KINDS_MAX) {
        i = KINDS_MAX - 1;
        (void)snprintf(k->name[i], KIND, "others");
    } else if (i == k->count) {
        (void)snprintf(k->name[i], KIND, "%s", kind);
        k->count++;
    }
    return i;
}

static bool is_coded(const json_t *layer) {
    const char *scheme = json_string_value(json_object_get(layer, "scheme"));
    return scheme != NULL && strcmp(scheme, "raw") != 0 &&
           json_is_number(json_object_get(layer, panels[0][0]));
}

static void find_kinds(kinds *k, const json_t *layers) {
    const char *name;
    json_t *layer;
    char kind[KIND];
    *k = (kinds){.last_block = -1};
    json_object_foreach((json_t *)(uintptr_t)layers, name, layer) {
        if (is_coded(layer)) {
            long block = take_apart(kind, name);
            (void)kind_index(k, kind);
            k->last_block = block > k->last_block ? block : k->last_block;
        }
    }
}

/* ---- the script ----------------------------------------------------------------- */

/* A named block of gnuplot: block number and the figure of each panel. */
static void put_data(FILE *out, kinds *k, size_t index, const json_t *layers) {
    const char *name;
    json_t *layer;
    char kind[KIND];
    (void)fprintf(out, "$d%zu << END\n", index);
    json_object_foreach((json_t *)(uintptr_t)layers, name, layer) {
        long block = is_coded(layer) ? take_apart(kind, name) : 0;
        if (!is_coded(layer) || kind_index(k, kind) != index) {
            continue;
        }
        (void)fprintf(out, "%ld", block);
        for (size_t p = 0; p < PANELS; p++) {
            const json_t *v = json_object_get(layer, panels[p][0]);
            if (json_is_number(v) && isfinite(json_number_value(v))) {
                (void)fprintf(out, " %.9g", json_number_value(v));
            } else {
                (void)fputs(" NaN", out);
            }
        }
        (void)fputc('\n', out);
    }
    (void)fputs("END\n", out);
}

static void put_script(FILE *out, const void *data) {
    const json_t *layers = data;
    kinds k;
    find_kinds(&k, layers);
    for (size_t i = 0; i < k.count; i++) {
        put_data(out, &k, i, layers);
    }
    long last = k.last_block > 0 ? k.last_block : 0;
    (void)fprintf(out,
                  "set multiplot layout %zu,1\nset grid\n"
                  "set lmargin at screen 0.08\nset rmargin at screen 0.78\n"
                  "set key outside right top\n"
                  "set xrange [-1.5:%ld.5]\nset xtics 0,%ld\n"
                  "set xlabel 'block (left of 0: outside the blocks)'\n",
                  PANELS, last, last / 16 + 1);
    for (size_t p = 0; p < PANELS; p++) {
        (void)fprintf(out, "set ylabel '%s'\n%splot ", panels[p][1], p == 1 ? "unset key\n" : "");
        for (size_t i = 0; i < k.count; i++) {
            /* smooth unique: in order of the blocks; of several in one, the mean. */
            (void)fprintf(out,
                          "%s$d%zu using 1:%zu smooth unique with linespoints lt %zu pt %zu ps 0.8 "
                          "title '%s'",
                          i > 0 ? ", " : "", i, p + 2, i + 1, i % 13 + 1, k.name[i]);
        }
        (void)fputc('\n', out);
    }
    (void)fputs("unset multiplot\n", out);
}

/* ---- the call -------------------------------------------------------------------- */

static bool any_coded(const json_t *layers) {
    const char *name;
    json_t *layer;
    json_object_foreach((json_t *)(uintptr_t)layers, name, layer) {
        if (is_coded(layer)) {
            return true;
        }
    }
    return false;
}

int report_plot(const char *json, const char *path) {
    json_t *o = NULL;
    novaq_error err = {.code = NOVAQ_OK};
    int ok = gnuplot_check(path);
    if (ok != EXIT_OK) {
        return ok;
    }
    if (nq_json_parse_object(&o, "report", json, strlen(json), &err) != NOVAQ_OK) {
        return cli_fail(&err);
    }
    const json_t *layers = json_object_get(o, "layers");
    const gnuplot_picture picture = {path, "stats --json", 1080, put_script, layers};
    int code = any_coded(layers)
                   ? gnuplot_draw(&picture)
                   : cli_fail_text(EXIT_FAIL, "--plot: there are no coded layers to draw; give an "
                                              "artifact that compress wrote");
    json_decref(o);
    return code;
}

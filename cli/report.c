/* report.c - see report.h. */
#include "report.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "cmd.h"

#define LABEL_WIDTH    17 /* at least */
#define EVAL_WIDTH     25
#define NAME_MAX_WIDTH 60
#define CELL           48

/* ---- text and figures ---------------------------------------------------- */

/* Prints s in at least `width` columns; control characters, which a file may
 * have put into a name, become '?'. */
static void put_text(const char *s, size_t width) {
    size_t columns = 0;
    for (const unsigned char *p = (const unsigned char *)s; *p != '\0'; p++) {
        bool c1 = p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0; /* U+0080 to U+009F */
        if (*p < 0x20 || *p == 0x7f || c1) {
            (void)putchar('?');
            p += c1 ? 1 : 0;
            columns++;
        } else {
            (void)putchar(*p);
            columns += (*p & 0xc0) != 0x80; /* continuation bytes take no column */
        }
    }
    for (; columns < width; columns++) {
        (void)putchar(' ');
    }
}

static size_t text_columns(const char *s) {
    size_t n = 0;
    for (; *s != '\0'; s++) {
        n += (*s & 0xc0) != 0x80;
    }
    return n;
}

/* "total_bytes" reads as "total bytes". */
static void put_label_wide(const char *key, int indent, size_t width) {
    char label[64];
    (void)snprintf(label, sizeof label, "%*s%s", indent, "", key);
    for (char *p = label; *p != '\0'; p++) {
        if (*p == '_') {
            *p = ' ';
        }
    }
    put_text(label, width);
}

static void put_label(const char *key) { put_label_wide(key, 0, LABEL_WIDTH); }

static void format_bytes(char *buf, size_t size, double bytes) {
    if (bytes >= 1e9) {
        (void)snprintf(buf, size, "%.2f GB (%.0f bytes)", bytes * 1e-9, bytes);
    } else if (bytes >= 1e6) {
        (void)snprintf(buf, size, "%.2f MB (%.0f bytes)", bytes * 1e-6, bytes);
    } else {
        (void)snprintf(buf, size, "%.0f bytes", bytes);
    }
}

/* A scalar as it stands in a table cell. */
static const char *format_value(char *buf, size_t size, const json_t *v) {
    if (json_is_integer(v)) {
        (void)snprintf(buf, size, "%lld", (long long)json_integer_value(v));
    } else if (json_is_real(v)) {
        (void)snprintf(buf, size, "%.6g", json_real_value(v));
    } else if (json_is_boolean(v)) {
        (void)snprintf(buf, size, "%s", json_is_true(v) ? "yes" : "no");
    } else if (json_is_string(v)) {
        return json_string_value(v);
    } else {
        (void)snprintf(buf, size, "-");
    }
    return buf;
}

/* The first of the keys that holds a number; false when none does. */
static bool number_of(double *out, const json_t *o, const char *key, const char *other) {
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v) && other != NULL) {
        v = json_object_get(o, other);
    }
    *out = json_number_value(v);
    return json_is_number(v);
}

static const char *text_of(const json_t *o, const char *key, const char *other) {
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : json_string_value(json_object_get(o, other));
}

static void print_number(const json_t *o, const char *label, const char *format, const char *key,
                         const char *other) __attribute__((format(printf, 3, 0)));

static void print_number(const json_t *o, const char *label, const char *format, const char *key,
                         const char *other) {
    double v;
    if (number_of(&v, o, key, other)) {
        put_label(label);
        (void)printf(format, v);
        (void)putchar('\n');
    }
}

static void print_bytes(const json_t *o, const char *label, const char *key, const char *other) {
    double v;
    char buf[CELL];
    if (number_of(&v, o, key, other)) {
        format_bytes(buf, sizeof buf, v);
        put_label(label);
        (void)puts(buf);
    }
}

/* ---- any object ---------------------------------------------------------- */

static bool is_scalar(const json_t *v) { return !json_is_object(v) && !json_is_array(v); }

static bool is_table(const json_t *v) {
    return json_is_array(v) && json_array_size(v) > 0 && json_is_object(json_array_get(v, 0));
}

static size_t column_width(const json_t *rows, const char *key) {
    char buf[CELL];
    size_t width = text_columns(key);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *v = json_object_get(json_array_get(rows, i), key);
        size_t n = text_columns(format_value(buf, sizeof buf, v));
        width = n > width ? n : width;
    }
    return width;
}

/* An array of objects as a table with the first one's scalar keys as columns. */
static void print_table(const json_t *rows) {
    const char *key;
    json_t *value;
    json_t *head = json_array_get(rows, 0);
    char buf[CELL];
    json_object_foreach(head, key, value) {
        if (is_scalar(value)) {
            put_text(key, column_width(rows, key) + 2);
        }
    }
    (void)putchar('\n');
    for (size_t i = 0; i < json_array_size(rows); i++) {
        json_object_foreach(head, key, value) {
            if (is_scalar(value)) {
                const json_t *cell = json_object_get(json_array_get(rows, i), key);
                put_text(format_value(buf, sizeof buf, cell), column_width(rows, key) + 2);
            }
        }
        (void)putchar('\n');
    }
}

static void print_list(const json_t *list) {
    char buf[CELL];
    size_t count = json_array_size(list);
    for (size_t i = 0; i < count && i < 8; i++) {
        const json_t *v = json_array_get(list, i);
        (void)fputs(i > 0 ? ", " : "", stdout);
        put_text(is_scalar(v) ? format_value(buf, sizeof buf, v) : "...", 0);
    }
    if (count > 8) {
        (void)printf(", ... (%zu)", count);
    }
    (void)putchar('\n');
}

static bool is_listed(const char *key, const char *const *keys) {
    for (; keys != NULL && *keys != NULL; keys++) {
        if (strcmp(key, *keys) == 0) {
            return true;
        }
    }
    return false;
}

/* Columns that the labels of an object and of those within it need. */
static size_t label_width(const json_t *object, size_t indent, size_t width) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value) {
        size_t n = indent + text_columns(key) + 2;
        width = n > width ? n : width;
        width = label_width(value, indent + 2, width);
    }
    return width < 48 ? width : 48;
}

/* Scalars and lists as "label value" lines, objects indented below their name;
 * tables come last so that they stay readable. skip: keys to leave out. */
static void print_members(const json_t *object, int indent, size_t width, const char *const *skip) {
    const char *key;
    json_t *value;
    char buf[CELL];
    json_object_foreach((json_t *)(uintptr_t)object, key, value) {
        if (is_listed(key, skip) || is_table(value)) {
            continue;
        }
        put_label_wide(key, indent, width);
        if (json_is_object(value)) {
            (void)putchar('\n');
            print_members(value, indent + 2, width, NULL);
        } else if (json_is_array(value)) {
            print_list(value);
        } else {
            put_text(format_value(buf, sizeof buf, value), 0);
            (void)putchar('\n');
        }
    }
    json_object_foreach((json_t *)(uintptr_t)object, key, value) {
        if (!is_listed(key, skip) && is_table(value)) {
            (void)putchar('\n');
            print_table(value);
        }
    }
}

/* ---- layers -------------------------------------------------------------- */

static double element_count(const json_t *shape) {
    double n = 1;
    for (size_t i = 0; i < json_array_size(shape); i++) {
        n *= json_number_value(json_array_get(shape, i));
    }
    return n;
}

static const char *format_shape(char *buf, size_t size, const json_t *shape) {
    size_t used = 0;
    buf[0] = '\0';
    for (size_t i = 0; i < json_array_size(shape) && used < size; i++) {
        int n = snprintf(buf + used, size - used, "%s%lld", i > 0 ? "x" : "",
                         (long long)json_integer_value(json_array_get(shape, i)));
        used += n > 0 ? (size_t)n : 0;
    }
    return buf[0] != '\0' ? buf : "scalar";
}

static const char *format_optional(char *buf, size_t size, const json_t *o, const char *key,
                                   const char *other) {
    double v;
    if (!number_of(&v, o, key, other)) {
        return "-";
    }
    (void)snprintf(buf, size, "%.6f", v);
    return buf;
}

/* The last column of a layer: what a coded one came to resemble, or what an error
 * in a planned one costs. */
static const char *format_last(char *buf, size_t size, const json_t *layer) {
    double v;
    if (number_of(&v, layer, "sensitivity", NULL)) {
        (void)snprintf(buf, size, "%.4g", v);
        return buf;
    }
    return format_optional(buf, size, layer, "cosine_similarity", NULL);
}

static void print_layer(const char *name, const json_t *l, size_t width) {
    char shape[CELL];
    char error[CELL];
    char last[CELL];
    double bits = 0;
    double bytes = 0;
    const json_t *dims = json_object_get(l, "shape");
    const char *scheme = text_of(l, "scheme", "dtype");
    bool has_bits = number_of(&bits, l, "bits_per_weight", "bits");
    if (!number_of(&bytes, l, "bytes", "stored_bytes")) {
        bytes = bits * element_count(dims) / 8;
    }
    put_text(name, width);
    (void)printf("  %-14s ", format_shape(shape, sizeof shape, dims));
    put_text(scheme != NULL ? scheme : "-", 10);
    if (has_bits) {
        (void)printf(" %7.3f", bits);
    } else {
        (void)printf(" %7s", "-");
    }
    (void)printf(
        " %12.0f  %10s  %11s\n", bytes,
        format_optional(error, sizeof error, l, "relative_error", "expected_relative_error"),
        format_last(last, sizeof last, l));
}

/* layers: an object by name, or an array of objects with a "name". */
static void print_layers(const json_t *layers, const char *last) {
    size_t width = 4;
    const char *key;
    json_t *value;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)layers, key, value) {
        size_t n = text_columns(key);
        width = n > width ? n : width;
    }
    json_array_foreach(layers, i, value) {
        key = text_of(value, "name", "tensor");
        size_t n = key != NULL ? text_columns(key) : 1;
        width = n > width ? n : width;
    }
    width = width < NAME_MAX_WIDTH ? width : NAME_MAX_WIDTH;
    put_text("name", width);
    (void)printf("  %-14s %-10s %7s %12s  %10s  %11s\n", "shape", "scheme", "bits", "bytes",
                 "rel. error", last);
    json_object_foreach((json_t *)(uintptr_t)layers, key, value) { print_layer(key, value, width); }
    json_array_foreach(layers, i, value) {
        key = text_of(value, "name", "tensor");
        print_layer(key != NULL ? key : "?", value, width);
    }
}

/* ---- subspaces ----------------------------------------------------------- */

static const json_t *subspaces_of(const json_t *layer) {
    return json_object_get(json_object_get(layer, "diagnostics"), "subspaces");
}

/* The values of a list as "2.99 3.98", one for each field of the symbols. */
static const char *format_fields(char *buf, size_t size, const json_t *list, const char *format)
    __attribute__((format(printf, 4, 0)));

static const char *format_fields(char *buf, size_t size, const json_t *list, const char *format) {
    size_t used = 0;
    buf[0] = '\0';
    for (size_t i = 0; i < json_array_size(list) && used + 1 < size; i++) {
        used += (size_t)snprintf(buf + used, size - used, "%s", i > 0 ? " " : "");
        int n =
            snprintf(buf + used, size - used, format, json_number_value(json_array_get(list, i)));
        used += n > 0 ? (size_t)n : 0;
    }
    return buf;
}

static void print_subspaces_of(const char *name, const json_t *s, size_t width) {
    static const char *const errors[] = {"mse_min", "mse_mean", "mse_max"};
    char cell[CELL];
    double v = 0;
    put_text(name, width);
    (void)number_of(&v, s, "count", NULL);
    (void)printf("  %7.0f", v);
    (void)number_of(&v, s, "dim", NULL);
    (void)printf(" %4.0f", v);
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        (void)number_of(&v, s, errors[i], NULL);
        (void)printf("  %10.4g", v);
    }
    (void)number_of(&v, s, "worst", NULL);
    (void)printf(" %7.0f", v);
    (void)printf("  %10s", format_optional(cell, sizeof cell, s, "cosine_min", NULL));
    (void)printf("  %-9s",
                 format_fields(cell, sizeof cell, json_object_get(s, "symbol_entropy"), "%.3f"));
    (void)printf("  %s\n",
                 format_fields(cell, sizeof cell, json_object_get(s, "symbols_used"), "%.0f"));
}

/* Of each coded layer: how its error lies over the subspaces (the columns that one
 * symbol covers) and how evenly its symbols are used. */
static void print_subspaces(const json_t *layers) {
    size_t width = 4;
    const char *name;
    json_t *layer;
    bool any = false;
    json_object_foreach((json_t *)(uintptr_t)layers, name, layer) {
        size_t n = subspaces_of(layer) != NULL ? text_columns(name) : 0;
        any = any || n > 0;
        width = n > width ? n : width;
    }
    if (!any) {
        return;
    }
    width = width < NAME_MAX_WIDTH ? width : NAME_MAX_WIDTH;
    (void)putchar('\n');
    put_text("name", width);
    (void)printf("  %7s %4s  %10s  %10s  %10s %7s  %10s  %-9s  %s\n", "subsp.", "dim", "least mse",
                 "mean mse", "worst mse", "worst", "min cosine", "entropy", "symbols");
    json_object_foreach((json_t *)(uintptr_t)layers, name, layer) {
        if (subspaces_of(layer) != NULL) {
            print_subspaces_of(name, subspaces_of(layer), width);
        }
    }
}

/* ---- reports ------------------------------------------------------------- */

/* What of a source was not read, being no part of a model of text. */
static void print_left_out(const json_t *o) {
    double tensors = 0;
    if (number_of(&tensors, json_object_get(o, "left_out"), "tensors", NULL)) {
        (void)printf("left out         %.0f tensors (images)\n", tensors);
    }
}

static void print_totals(const json_t *o) {
    print_number(o, "parameters", "%.0f", "parameters", "total_parameters");
    print_bytes(o, "size", "bytes", "total_bytes");
    print_number(o, "bits/weight", "%.4f (all tensors)", "bits_per_weight", NULL);
    print_number(o, "linear", "%.4f bits/weight", "bits_per_weight_linear", NULL);
    print_number(o, "against FP16", "%.2fx smaller", "ratio_fp16", NULL);
    print_number(o, "against FP32", "%.2fx smaller", "ratio_fp32", NULL);
    print_number(o, "relative error", "%.6f (quantized tensors)", "relative_error", NULL);
    print_number(o, "mean sq. error", "%.6g (all tensors)", "global_mse", NULL);
    print_number(o, "cosine", "%.6f (all tensors)", "global_cosine_similarity", NULL);
    print_left_out(o);
}

typedef void (*print_fn)(const json_t *o);

static int with_object(const char *json, print_fn print) {
    json_t *o = NULL;
    novaq_error err = {.code = NOVAQ_OK};
    if (nq_json_parse_object(&o, "report", json, strlen(json), &err) != NOVAQ_OK) {
        return cli_fail(&err);
    }
    print(o);
    json_decref(o);
    return EXIT_OK;
}

/* The layers' tables, if the report has layers, then the totals. */
static void print_stats(const json_t *o) {
    const json_t *layers = json_object_get(o, "layers");
    if (json_is_object(layers) || json_is_array(layers)) {
        print_layers(layers, "cosine");
        print_subspaces(layers);
        (void)putchar('\n');
    }
    print_totals(o);
}

static void print_scheme(const char *name, const json_t *s) {
    double tensors = 0;
    double parameters = 0;
    double bytes = 0;
    (void)number_of(&tensors, s, "tensors", NULL);
    (void)number_of(&parameters, s, "parameters", NULL);
    (void)number_of(&bytes, s, "bytes", NULL);
    put_text(name, 12);
    (void)printf("%9.0f %14.0f %14.0f %9.3f\n", tensors, parameters, bytes,
                 parameters > 0 ? 8 * bytes / parameters : 0);
}

/* Tensor by tensor, then scheme by scheme, then the whole. */
static void print_plan(const json_t *o) {
    const char *name;
    json_t *scheme;
    print_layers(json_object_get(o, "layers"), "sensitivity");
    (void)printf("\n%-12s%9s %14s %14s %9s\n", "scheme", "tensors", "parameters", "bytes", "bits");
    json_object_foreach(json_object_get(o, "schemes"), name, scheme) { print_scheme(name, scheme); }
    (void)putchar('\n');
    print_totals(o);
    print_number(o, "planned", "%.4f bits/weight (quantized tensors)", "bits_per_weight_quantized",
                 NULL);
    print_number(o, "expected cost", "%.6g (sum of sensitivity x error)", "expected_cost", NULL);
}

static void print_any(const json_t *o) {
    print_members(o, 0, label_width(o, 0, LABEL_WIDTH), NULL);
}

static void print_info(const json_t *o) {
    static const char *const skip[] = {"tensors", "layers", NULL};
    const json_t *tensors = json_object_get(o, "tensors");
    if (!json_is_object(tensors) && !json_is_array(tensors)) {
        tensors = json_object_get(o, "layers");
    }
    bool listed = json_is_object(tensors) || is_table(tensors);
    print_members(o, 0, label_width(o, 0, LABEL_WIDTH), listed ? skip : NULL);
    if (listed) {
        (void)putchar('\n');
        print_layers(tensors, "cosine");
    }
}

typedef enum figure_style { FIGURE_COUNT, FIGURE_PLAIN, FIGURE_FINE, FIGURE_PERCENT } figure_style;

/* One line of an evaluation: a figure, its standard error if it has one. */
typedef struct figure {
    const char *key;
    const char *stderror; /* or NULL */
    const char *label;
    figure_style style;
} figure;

static void put_figure(double v, figure_style style) {
    switch (style) {
    case FIGURE_COUNT: (void)printf("%.0f", v); break;
    case FIGURE_PLAIN: (void)printf("%.4f", v); break;
    case FIGURE_FINE: (void)printf("%.6f", v); break;
    case FIGURE_PERCENT: (void)printf("%.2f %%", v * 100); break;
    }
}

static void print_figure(const json_t *o, const figure *f) {
    double v = 0;
    if (!number_of(&v, o, f->key, NULL)) {
        return;
    }
    put_text(f->label, EVAL_WIDTH);
    put_figure(v, f->style);
    if (f->stderror != NULL && number_of(&v, o, f->stderror, NULL)) {
        (void)fputs(" +/- ", stdout);
        put_figure(v, f->style);
    }
    (void)putchar('\n');
}

static void print_layer_kld(const json_t *layers) {
    const char *name;
    json_t *value;
    size_t width = 0;
    json_object_foreach((json_t *)(uintptr_t)layers, name, value) {
        size_t n = text_columns(name);
        width = n > width ? n : width;
    }
    (void)puts("\nKL divergence mean of each layer alone");
    json_object_foreach((json_t *)(uintptr_t)layers, name, value) {
        put_text(name, width < NAME_MAX_WIDTH ? width : NAME_MAX_WIDTH);
        (void)printf("  %.6f\n", json_number_value(value));
    }
}

static void print_eval(const json_t *o) {
    static const figure figures[] = {
        {"perplexity", "perplexity_stderr", "perplexity", FIGURE_PLAIN},
        {"perplexity_against", "perplexity_against_stderr", "perplexity of reference",
         FIGURE_PLAIN},
        {"ln_ratio", "ln_ratio_stderr", "ln of their ratio", FIGURE_FINE},
        {"mean_kld", "mean_kld_stderr", "KL divergence mean", FIGURE_FINE},
        {"kld_max", NULL, "KL divergence maximum", FIGURE_FINE},
        {"kld_99", NULL, "KL divergence 99 %", FIGURE_FINE},
        {"kld_median", NULL, "KL divergence median", FIGURE_FINE},
        {"kld_01", NULL, "KL divergence 1 %", FIGURE_FINE},
        {"same_top", "same_top_stderr", "same top token", FIGURE_PERCENT},
        {"mean_dp", "mean_dp_stderr", "change of p mean", FIGURE_PERCENT},
        {"rms_dp", "rms_dp_stderr", "change of p RMS", FIGURE_PERCENT},
        {"n_ctx", NULL, "tokens in a window", FIGURE_COUNT},
        {"chunks", NULL, "windows measured", FIGURE_COUNT},
        {"chunks_available", NULL, "windows in the text", FIGURE_COUNT},
        {"tokens", NULL, "tokens scored", FIGURE_COUNT},
        {"text_tokens", NULL, "tokens in the text", FIGURE_COUNT},
    };
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        print_figure(o, &figures[i]);
    }
    const json_t *layers = json_object_get(o, "layer_kld");
    if (json_is_object(layers)) {
        print_layer_kld(layers);
    }
}

static void print_cell(const json_t *row, const char *key, int width, int digits, double scale) {
    double v = 0;
    if (number_of(&v, row, key, NULL)) {
        (void)printf("  %*.*f", width, digits, v * scale);
    } else {
        (void)printf("  %*s", width, "-");
    }
}

static void print_ablation(const json_t *o) {
    static const char *const heads[] = {"linear",  "all",     "MB",   "perplexity",
                                        "KL mean", "KL 99 %", "top %"};
    static const int widths[] = {7, 7, 9, 11, 9, 9, 6};
    const json_t *rows = json_object_get(o, "rows");
    const json_t *row;
    size_t i;
    put_text("bits/weight:", 18);
    for (i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        (void)printf("  %*s", widths[i], heads[i]);
    }
    (void)puts("  changed");
    json_array_foreach(rows, i, row) {
        const char *name = text_of(row, "variant", NULL);
        const char *failed = text_of(row, "failed", NULL);
        const char *changed = text_of(row, "changed", NULL);
        put_text(name != NULL ? name : "?", 18);
        print_cell(row, "bits_per_weight_linear", widths[0], 3, 1);
        print_cell(row, "bits_per_weight", widths[1], 3, 1);
        print_cell(row, "bytes", widths[2], 2, 1e-6);
        print_cell(row, "perplexity", widths[3], 4, 1);
        print_cell(row, "mean_kld", widths[4], 5, 1);
        print_cell(row, "kld_99", widths[5], 4, 1);
        print_cell(row, "same_top", widths[6], 2, 100);
        (void)fputs("  ", stdout);
        put_text(failed != NULL ? failed : (changed != NULL ? changed : ""), 0);
        (void)putchar('\n');
    }
    const json_t *refinement = json_object_get(o, "refinement");
    if (refinement != NULL) {
        (void)printf("Only \"full\" is refined (step %.0f of %.0f); the other rows compare with "
                     "\"no-distillation\".\n",
                     json_number_value(json_object_get(refinement, "best_step")),
                     json_number_value(json_object_get(refinement, "steps")));
    }
}

/* The summary belongs to stats; here it would bury the verdict. */
static void print_validate(const json_t *o) {
    static const char *const skip[] = {"summary", "quantized_parameters", NULL};
    print_members(o, 0, LABEL_WIDTH, skip);
}

static void print_change(const json_t *o, const char *key, const char *label) {
    const json_t *pair = json_object_get(o, key);
    double before = 0;
    double after = 0;
    if (number_of(&before, pair, "before", NULL) && number_of(&after, pair, "after", NULL)) {
        put_text(label, LABEL_WIDTH);
        (void)printf(" %.4f, before %.4f\n", after, before);
    }
}

/* What each round brought, and the new symbols after it. */
static void print_rounds(const json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *r = json_array_get(list, i);
        const json_t *symbols = json_object_get(r, "reassigned");
        char label[32];
        (void)snprintf(label, sizeof label, "round %zu KL", i + 1);
        print_change(r, "held_out_kl", label);
        if (symbols != NULL) {
            print_change(symbols, "held_out_kl", "new symbols KL");
            (void)printf("%-*s %.0f of %.0f stages, %.0f of %.0f symbols\n", LABEL_WIDTH, "kept",
                         json_number_value(json_object_get(symbols, "kept")),
                         json_number_value(json_object_get(symbols, "stages")),
                         json_number_value(json_object_get(symbols, "changed")),
                         json_number_value(json_object_get(symbols, "symbols")));
        }
    }
}

static void print_refine(const json_t *o) {
    print_rounds(json_object_get(o, "rounds"));
    print_change(o, "held_out_kl", "held-out KL");
    print_change(o, "held_out_perplexity", "held-out perpl.");
    (void)printf("%-*s %.0f of %.0f\n", LABEL_WIDTH, "best at step",
                 json_number_value(json_object_get(o, "best_step")),
                 json_number_value(json_object_get(o, "steps_done")));
    print_totals(json_object_get(o, "summary"));
}

int report_compress(const char *json) { return with_object(json, print_totals); }
int report_plan(const char *json) { return with_object(json, print_plan); }
int report_stats(const char *json) { return with_object(json, print_stats); }
int report_info(const char *json) { return with_object(json, print_info); }
int report_validate(const char *json) { return with_object(json, print_validate); }
int report_eval(const char *json) { return with_object(json, print_eval); }
int report_ablation(const char *json) { return with_object(json, print_ablation); }
int report_refine(const char *json) { return with_object(json, print_refine); }
int report_export(const char *json) { return with_object(json, print_any); }
int report_bench(const char *json) { return with_object(json, print_any); }

int report_line(char *report) {
    json_t *o = NULL;
    char *line = NULL;
    novaq_error err = {.code = NOVAQ_OK};
    novaq_status st = nq_json_parse_object(&o, "report", report, strlen(report), &err);
    json_t *wrapped = st == NOVAQ_OK ? json_pack("{s:O}", "report", o) : NULL;
    if (st == NOVAQ_OK) {
        st = nq_json_dump(&line, wrapped, 0, &err);
    }
    if (st == NOVAQ_OK) {
        (void)puts(line);
    }
    nq_free(line);
    json_decref(wrapped);
    json_decref(o);
    novaq_free(report);
    return st == NOVAQ_OK ? EXIT_OK : cli_fail(&err);
}

void report_other_warnings(const char *json, const char *told) {
    json_t *o = NULL;
    if (nq_json_parse_object(&o, "report", json, strlen(json), NULL) != NOVAQ_OK) {
        return;
    }
    const json_t *list = json_object_get(o, "warnings");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (text != NULL && (told == NULL || strcmp(text, told) != 0)) {
            cli_note("warning: %s", text);
        }
    }
    json_decref(o);
}

void report_warnings(const char *json) { report_other_warnings(json, NULL); }

void report_windows(const char *json, unsigned asked) {
    json_t *o = NULL;
    double windows = 0;
    if (nq_json_parse_object(&o, "report", json, strlen(json), NULL) != NOVAQ_OK) {
        return;
    }
    if (number_of(&windows, o, "chunks_available", NULL) && windows < asked) {
        cli_note("note: the text has only %.0f window%s", windows, windows > 1 ? "s" : "");
    }
    json_decref(o);
}

static void print_speed(const json_t *o) {
    double tokens;
    double seconds;
    if (number_of(&tokens, o, "tokens", NULL) && number_of(&seconds, o, "generate_seconds", NULL) &&
        seconds > 0) {
        (void)fprintf(stderr, "%.0f tokens in %.2f s (%.1f tokens/s)\n", tokens, seconds,
                      tokens / seconds);
    }
}

void report_speed(const char *json) { (void)with_object(json, print_speed); }

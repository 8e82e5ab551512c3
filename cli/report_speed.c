/* report_speed.c - how fast a model runs, as a table in Markdown or CSV. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "cmd.h"
#include "report.h"

static double number(const json_t *o, const char *key) {
    return json_number_value(json_object_get(o, key));
}

static const char *text(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : "?";
}

/* A name from a file: no control characters; `special` is escaped by `escape`. */
static void put_name(const char *s, char special, char escape) {
    for (; *s != '\0'; s++) {
        bool control = (unsigned char)*s < 0x20 || *s == 0x7f;
        if (*s == special) {
            (void)putchar(escape);
        }
        (void)putchar(control ? '?' : *s);
    }
}

static void format_size(char *buf, size_t size, double bytes) {
    bool giga = bytes >= 1e9;
    (void)snprintf(buf, size, "%.2f %s", bytes * (giga ? 1e-9 : 1e-6), giga ? "GB" : "MB");
}

static void format_count(char *buf, size_t size, double n) {
    bool giga = n >= 1e9;
    (void)snprintf(buf, size, "%.2f %s", n * (giga ? 1e-9 : 1e-6), giga ? "B" : "M");
}

static void print_md(const json_t *o) {
    const json_t *t;
    size_t i;
    char size[32];
    char count[32];
    format_size(size, sizeof size, number(o, "bytes"));
    format_count(count, sizeof count, number(o, "parameters"));
    (void)puts("| model | size | params | bits/weight | threads | kernel | test | t/s |");
    (void)puts("|---|---:|---:|---:|---:|---|---|---:|");
    json_array_foreach(json_object_get(o, "tests"), i, t) {
        (void)fputs("| ", stdout);
        put_name(text(o, "name"), '|', '\\');
        (void)printf(" | %s | %s | %.3f | %.0f | %s | %s | %.2f \302\261 %.2f |\n", size, count,
                     number(o, "bits_per_weight"), number(t, "threads"), text(o, "kernel"),
                     text(t, "test"), number(t, "tokens_per_second"), number(t, "stddev"));
    }
}

static void print_csv(const json_t *o) {
    const json_t *t;
    size_t i;
    (void)puts("model,bytes,parameters,bits_per_weight,kernel,kv_type,load_ms,peak_memory,threads,"
               "test,prompt,generate,depth,repetitions,tokens_per_second,stddev");
    json_array_foreach(json_object_get(o, "tests"), i, t) {
        (void)putchar('"');
        put_name(text(o, "name"), '"', '"');
        (void)printf("\",%.0f,%.0f,%.6f,%s,%s,%.3f,%.0f,%.0f,%s,%.0f,%.0f,%.0f,%.0f,%.6g,%.6g\n",
                     number(o, "bytes"), number(o, "parameters"), number(o, "bits_per_weight"),
                     text(o, "kernel"), text(o, "kv_type"), number(o, "load_ms"),
                     number(o, "peak_memory"), number(t, "threads"), text(t, "test"),
                     number(t, "prompt"), number(t, "generate"), number(t, "depth"),
                     number(o, "repetitions"), number(t, "tokens_per_second"), number(t, "stddev"));
    }
}

static int with_report(const char *json, void (*print)(const json_t *)) {
    json_t *o = NULL;
    novaq_error err = {.code = NOVAQ_OK};
    if (nq_json_parse_object(&o, "report", json, strlen(json), &err) != NOVAQ_OK) {
        return cli_fail(&err);
    }
    print(o);
    json_decref(o);
    return EXIT_OK;
}

int report_speed_md(const char *json) { return with_report(json, print_md); }
int report_speed_csv(const char *json) { return with_report(json, print_csv); }

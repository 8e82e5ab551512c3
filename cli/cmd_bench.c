/* cmd_bench.c - how fast a model runs; and the codec itself, on data whose best
 * possible error is known. */
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "report.h"

#define LIST_MAX 16

/* What only measuring the codec understands, a model, and random content. */
static const opt_id codec_options[] = {OPT_SCHEMES};
static const opt_id model_options[] = {OPT_MODEL, OPT_BENCH_PROMPT, OPT_BENCH_GENERATE,
                                       OPT_DEPTH, OPT_REPETITIONS,  OPT_KV_TYPE,
                                       OPT_FORMAT};
static const opt_id random_options[] = {OPT_SCHEME, OPT_TARGET_BITS, OPT_TENSOR_TYPE, OPT_SEED,
                                        OPT_OUTPUT};
#define COUNT(list) (sizeof(list) / sizeof(list)[0])

static const char *given_of(const opt_args *a, const opt_id *list, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (cli_given(a, list[i])) {
            return opt_find(CMD_BENCH, list[i])->name;
        }
    }
    return NULL;
}

/* "128,512" to numbers. */
static int read_list(unsigned *out, size_t *count, const opt_args *a, opt_id id, unsigned max) {
    const char *text = cli_text(a, id);
    const char *p = text;
    for (*count = 0;;) {
        size_t digits = strspn(p, "0123456789");
        unsigned long v = digits > 0 && digits < 10 ? strtoul(p, NULL, 10) : max + 1UL;
        bool more = p[digits] == ',';
        if (v > max || *count == LIST_MAX || (!more && p[digits] != '\0')) {
            return cli_usage("--%s: '%s' is not allowed; give at most %d whole numbers from 0 to "
                             "%u, separated by commas",
                             opt_find(CMD_BENCH, id)->name, text, LIST_MAX, max);
        }
        out[(*count)++] = (unsigned)v;
        if (!more) {
            return EXIT_OK;
        }
        p += digits + 1;
    }
}

/* ---- a model -------------------------------------------------------------- */

typedef struct lists {
    unsigned prompt[LIST_MAX], generate[LIST_MAX], depth[LIST_MAX], threads[LIST_MAX];
} lists;

static int fill(novaq_bench_options *o, lists *l, const opt_args *a) {
    int code = read_list(l->prompt, &o->prompt_count, a, OPT_BENCH_PROMPT, 1U << 24);
    if (code == EXIT_OK) {
        code = read_list(l->generate, &o->generate_count, a, OPT_BENCH_GENERATE, 1U << 24);
    }
    if (code == EXIT_OK) {
        code = read_list(l->depth, &o->depth_count, a, OPT_DEPTH, 1U << 24);
    }
    if (code == EXIT_OK) {
        code = read_list(l->threads, &o->threads_count, a, OPT_THREADS, 1024);
    }
    o->prompt = l->prompt;
    o->generate = l->generate;
    o->depth = l->depth;
    o->threads = l->threads;
    o->repetitions = cli_uint(a, OPT_REPETITIONS);
    o->kv_type = cli_text(a, OPT_KV_TYPE);
    o->model = a->arg_count > 0 ? a->args[0] : cli_text(a, OPT_MODEL);
    o->synthetic = cli_text(a, OPT_SYNTHETIC);
    o->scheme = cli_text(a, OPT_SCHEME);
    o->bits = cli_given(a, OPT_TARGET_BITS) ? cli_real(a, OPT_TARGET_BITS) : o->bits;
    o->tensor_types = a->list;
    o->tensor_type_count = a->list_count;
    o->seed = cli_given(a, OPT_SEED) ? a->value[OPT_SEED].u : o->seed;
    o->keep = cli_text(a, OPT_OUTPUT);
    return code;
}

static int check_model(const opt_args *a, const novaq_bench_options *o) {
    const char *random = given_of(a, random_options, COUNT(random_options));
    const char *codec = given_of(a, codec_options, COUNT(codec_options));
    if (codec != NULL) {
        return cli_usage(
            "bench: --%s is for --codec, --encoder and --kernels; a model keeps its schemes",
            codec);
    }
    if (a->arg_count > 0 && cli_given(a, OPT_MODEL)) {
        return cli_usage("bench: two models, '%s' and --model '%s'; give one", a->args[0],
                         cli_text(a, OPT_MODEL));
    }
    if (o->model != NULL && o->synthetic != NULL) {
        return cli_usage("bench: a model and --synthetic; give one");
    }
    if (o->model == NULL && o->synthetic == NULL) {
        return cli_usage("bench: no model; give one, or --synthetic SHAPE");
    }
    if (random != NULL && o->synthetic == NULL) {
        return cli_usage("bench: --%s is for --synthetic; a model keeps what compress was given",
                         random);
    }
    if (cli_given(a, OPT_SCHEME) && cli_given(a, OPT_TARGET_BITS)) {
        return cli_usage("--scheme and --bits contradict each other; give one");
    }
    return EXIT_OK;
}

static novaq_status run_bench(char **report, const void *options, novaq_error *err) {
    return novaq_bench(report, options, err);
}

/* --synthetic list */
static int list_shapes(const opt_args *a) {
    novaq_error err = {.code = NOVAQ_OK};
    char *report = NULL;
    return novaq_bench_shapes(&report, &err) == NOVAQ_OK ? cli_report(a, report, report_bench)
                                                         : cli_fail(&err);
}

static int bench_model(const opt_args *a) {
    novaq_bench_options o = NOVAQ_BENCH_OPTIONS_INIT;
    lists l;
    int code = fill(&o, &l, a);
    if (code == EXIT_OK) {
        code = check_model(a, &o);
    }
    char *report = NULL;
    if (code == EXIT_OK) {
        code = cli_work(&report, a, run_bench, &o, &o.progress, &o.progress_ctx);
    }
    if (code != EXIT_OK) {
        return code;
    }
    const char *format = cli_text(a, OPT_FORMAT);
    if (strcmp(format, "json") == 0 && !cli_flag(a, OPT_JSON)) {
        (void)printf("%s\n", report);
        novaq_free(report);
        return EXIT_OK;
    }
    return cli_report(a, report, strcmp(format, "csv") == 0 ? report_speed_csv : report_speed_md);
}

/* ---- the codec -------------------------------------------------------------- */

static int bench_codec(const opt_args *a) {
    novaq_error err = {.code = NOVAQ_OK};
    char *report = NULL;
    unsigned threads[LIST_MAX] = {0};
    size_t count = 0;
    bool encoder = cli_flag(a, OPT_ENCODER);
    bool kernels = cli_flag(a, OPT_KERNELS);
    const char *other = given_of(a, model_options, COUNT(model_options));
    other = other != NULL ? other : given_of(a, random_options, COUNT(random_options));
    if (encoder + kernels + cli_flag(a, OPT_CODEC) > 1) {
        return cli_usage(
            "bench: --codec, --encoder and --kernels are three measurements; choose one");
    }
    if (other != NULL || a->arg_count > 0) {
        return cli_usage("bench: --codec, --encoder and --kernels need no model; leave %s%s out",
                         other != NULL ? "--" : "", other != NULL ? other : a->args[0]);
    }
    int code = read_list(threads, &count, a, OPT_THREADS, 1024);
    if (code != EXIT_OK || count > 1) {
        return code != EXIT_OK ? code : cli_usage("bench: one number of threads for the codec");
    }
    novaq_status (*bench)(char **, const char *, unsigned, novaq_error *) =
        encoder   ? novaq_bench_encoder
        : kernels ? novaq_bench_kernels
                  : novaq_bench_codec;
    if (bench(&report, cli_text(a, OPT_SCHEMES), threads[0], &err) != NOVAQ_OK) {
        return cli_fail(&err);
    }
    return cli_report(a, report, report_bench);
}

int cmd_bench(const opt_args *a) {
    bool codec = cli_flag(a, OPT_CODEC) || cli_flag(a, OPT_ENCODER) || cli_flag(a, OPT_KERNELS);
    bool model = a->arg_count > 0 || cli_given(a, OPT_SYNTHETIC) ||
                 given_of(a, model_options, COUNT(model_options)) != NULL ||
                 given_of(a, random_options, COUNT(random_options)) != NULL;
    if (codec && cli_given(a, OPT_SYNTHETIC)) {
        return cli_usage(
            "bench: --synthetic is a model; --codec, --encoder and --kernels measure without");
    }
    if (cli_given(a, OPT_SYNTHETIC) && strcmp(cli_text(a, OPT_SYNTHETIC), "list") == 0) {
        return list_shapes(a);
    }
    return codec || !model ? bench_codec(a) : bench_model(a);
}

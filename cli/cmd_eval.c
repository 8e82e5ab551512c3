/* cmd_eval.c - perplexity, divergence and ablation. */
#include <stdlib.h>

#include "cmd.h"
#include "report.h"

/* What only an ablation understands. */
static const opt_id ablation_options[] = {OPT_VARIANTS,       OPT_TARGET_BITS, OPT_SCHEME,
                                          OPT_KEEP_EMBEDDING, OPT_CALIBRATION, OPT_SEED,
                                          OPT_REFINE};
/* What only a single evaluation understands. */
static const opt_id plain_options[] = {OPT_AGAINST, OPT_LAYER_KL, OPT_FAST, OPT_KL_BASE,
                                       OPT_KL_DIVERGENCE};
#define COUNT(list) (sizeof(list) / sizeof(list)[0])

/* The first of the options that was given, or OPT_COUNT. */
static opt_id first_given(const opt_args *a, const opt_id *list, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (cli_given(a, list[i])) {
            return list[i];
        }
    }
    return OPT_COUNT;
}

static int find_model(const opt_args *a, const char **model) {
    const char *named = cli_text(a, OPT_MODEL);
    *model = a->arg_count > 0 ? a->args[0] : named;
    if (*model == NULL) {
        return cli_usage("eval: no model; see novaq eval --help");
    }
    if (named != NULL && a->arg_count > 0) {
        return cli_usage("eval: two models, '%s' and --model '%s'; give one", a->args[0], named);
    }
    return EXIT_OK;
}

/* A base file brings its own text, windows and reference. */
static int check_base(const opt_args *a) {
    static const opt_id own[] = {OPT_PERPLEXITY, OPT_N_CTX, OPT_AGAINST};
    if (cli_text(a, OPT_KL_BASE) == NULL) {
        return cli_usage("--kl-divergence needs a file; give --kl-divergence-base FILE");
    }
    opt_id id = first_given(a, own, COUNT(own));
    if (id != OPT_COUNT) {
        return cli_usage("--kl-divergence takes text, windows and reference from the file; leave "
                         "--%s out",
                         opt_find(CMD_EVAL, id)->name);
    }
    return EXIT_OK;
}

static int fill(novaq_eval_options *o, const opt_args *a) {
    o->text_file = cli_text(a, OPT_PERPLEXITY);
    o->against = cli_text(a, OPT_AGAINST);
    o->layer_kl = cli_flag(a, OPT_LAYER_KL);
    o->fast = cli_flag(a, OPT_FAST);
    o->n_ctx = cli_uint(a, OPT_N_CTX);
    o->chunks = cli_uint(a, OPT_CHUNKS);
    o->threads = cli_uint(a, OPT_THREADS);
    o->kl_base = cli_text(a, OPT_KL_BASE);
    o->kl_divergence = cli_flag(a, OPT_KL_DIVERGENCE);
    int code = find_model(a, &o->model);
    if (code != EXIT_OK) {
        return code;
    }
    opt_id id = first_given(a, ablation_options, COUNT(ablation_options));
    if (id != OPT_COUNT) {
        return cli_usage("--%s is for --ablation; an artifact keeps what compress was given",
                         opt_find(CMD_EVAL, id)->name);
    }
    if (o->kl_divergence) {
        code = check_base(a);
    } else if (o->text_file == NULL) {
        code = cli_usage("eval: no text; give --perplexity TEXTFILE");
    }
    if (code == EXIT_OK && o->layer_kl && o->against == NULL) {
        code = cli_usage("--layer-kl needs a reference; give --against SOURCE");
    }
    return code;
}

static novaq_status run_eval(char **report, const void *options, novaq_error *err) {
    return novaq_eval(report, options, err);
}

static int evaluate(const opt_args *a) {
    novaq_eval_options o = NOVAQ_EVAL_OPTIONS_INIT;
    char *report = NULL;
    int code = fill(&o, a);
    if (code == EXIT_OK) {
        code = cli_work(&report, a, run_eval, &o, &o.progress, &o.progress_ctx);
    }
    if (code != EXIT_OK) {
        return code;
    }
    if (!cli_flag(a, OPT_JSON)) {
        report_windows(report, o.chunks);
    }
    return cli_report(a, report, report_eval);
}

/* ---- ablation ------------------------------------------------------------ */

static void fill_compress(novaq_compress_options *c, const opt_args *a) {
    bool chosen = cli_given(a, OPT_TARGET_BITS) || cli_given(a, OPT_SCHEME);
    c->scheme = chosen ? cli_text(a, OPT_SCHEME) : "k16d2l3";
    c->keep_embedding = !chosen || cli_flag(a, OPT_KEEP_EMBEDDING);
    if (cli_given(a, OPT_TARGET_BITS)) {
        c->target_bits = cli_real(a, OPT_TARGET_BITS);
    }
    if (cli_given(a, OPT_CALIBRATION)) {
        c->calibration = cli_text(a, OPT_CALIBRATION);
    }
    if (cli_given(a, OPT_SEED)) {
        c->seed = a->value[OPT_SEED].u;
    }
    c->refine = cli_given(a, OPT_REFINE);
    c->refine_steps = cli_uint(a, OPT_REFINE);
    c->refine_step = cli_flag(a, OPT_QUIET) ? NULL : cli_refine_note;
}

static int fill_ablation(novaq_ablation_options *o, novaq_compress_options *c, const opt_args *a) {
    int code = find_model(a, &o->model);
    if (code != EXIT_OK) {
        return code;
    }
    opt_id id = first_given(a, plain_options, COUNT(plain_options));
    if (id != OPT_COUNT) {
        return cli_usage("--ablation measures against the source anyway; leave --%s out",
                         opt_find(CMD_EVAL, id)->name);
    }
    if (cli_given(a, OPT_TARGET_BITS) && cli_given(a, OPT_SCHEME)) {
        return cli_usage("--scheme and --target-bits contradict each other; give one");
    }
    o->text_file = cli_text(a, OPT_PERPLEXITY);
    if (o->text_file == NULL) {
        return cli_usage("eval: no text; give --perplexity TEXTFILE");
    }
    o->n_ctx = cli_uint(a, OPT_N_CTX);
    o->chunks = cli_uint(a, OPT_CHUNKS);
    o->threads = cli_uint(a, OPT_THREADS);
    o->variants = cli_text(a, OPT_VARIANTS);
    o->folder = getenv("TMPDIR");
    fill_compress(c, a);
    o->compress = c;
    return EXIT_OK;
}

static novaq_status run_ablation(char **report, const void *options, novaq_error *err) {
    return novaq_ablation(report, options, err);
}

static int ablate(const opt_args *a) {
    novaq_ablation_options o = NOVAQ_ABLATION_OPTIONS_INIT;
    novaq_compress_options c = NOVAQ_COMPRESS_OPTIONS_INIT;
    char *report = NULL;
    int code = fill_ablation(&o, &c, a);
    if (code == EXIT_OK) {
        code = cli_work(&report, a, run_ablation, &o, &o.progress, &o.progress_ctx);
    }
    return code == EXIT_OK ? cli_report(a, report, report_ablation) : code;
}

int cmd_eval(const opt_args *a) { return cli_flag(a, OPT_ABLATION) ? ablate(a) : evaluate(a); }

/* cmd_eval.c - perplexity and divergence. */
#include "cmd.h"
#include "progress.h"
#include "report.h"

static int fill(novaq_eval_options *o, const opt_args *a) {
    const char *named = cli_text(a, OPT_MODEL);
    o->model = a->arg_count > 0 ? a->args[0] : named;
    o->text_file = cli_text(a, OPT_PERPLEXITY);
    o->against = cli_text(a, OPT_AGAINST);
    o->layer_kl = cli_flag(a, OPT_LAYER_KL);
    o->n_ctx = cli_uint(a, OPT_N_CTX);
    o->chunks = cli_uint(a, OPT_CHUNKS);
    o->threads = cli_uint(a, OPT_THREADS);
    if (o->model == NULL) {
        return cli_usage("eval: no model; see novaq eval --help");
    }
    if (named != NULL && a->arg_count > 0) {
        return cli_usage("eval: two models, '%s' and --model '%s'; give one", a->args[0], named);
    }
    if (o->text_file == NULL) {
        return cli_usage("eval: no text; give --perplexity TEXTFILE");
    }
    if (o->layer_kl && o->against == NULL) {
        return cli_usage("--layer-kl needs a reference; give --against SOURCE");
    }
    return EXIT_OK;
}

int cmd_eval(const opt_args *a) {
    novaq_eval_options o = NOVAQ_EVAL_OPTIONS_INIT;
    int code = fill(&o, a);
    if (code != EXIT_OK) {
        return code;
    }
    progress p;
    progress_begin(&p, cli_flag(a, OPT_QUIET));
    o.progress = progress_callback;
    o.progress_ctx = &p;
    novaq_error err = {.code = NOVAQ_OK};
    char *report = NULL;
    novaq_status st = novaq_eval(&report, &o, &err);
    progress_end(&p);
    if (st != NOVAQ_OK) {
        return cli_fail(&err);
    }
    if (!cli_flag(a, OPT_JSON)) {
        report_windows(report, o.chunks);
    }
    return cli_report(a, report, report_eval);
}

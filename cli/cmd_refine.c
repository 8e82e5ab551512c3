/* cmd_refine.c - an artifact taught by its source. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/mem.h"
#include "cmd.h"
#include "report.h"

/* Whoever reads the lines wants each when its step is done. */
void cli_refine_line(void *ctx, const char *json_line) {
    (void)ctx;
    (void)printf("{\"refine\": %s}\n", json_line);
    (void)fflush(stdout);
}

static double number(const json_t *o, const char *key) {
    return json_number_value(json_object_get(o, key));
}

static bool is_event(const json_t *o, const char *name) {
    const char *event = json_string_value(json_object_get(o, "event"));
    return event != NULL && strcmp(event, name) == 0;
}

/* What it will take, before it takes it; then each measurement. */
void cli_refine_note(void *ctx, const char *json_line) {
    json_t *o = NULL;
    (void)ctx;
    if (nq_json_parse_object(&o, "refine", json_line, strlen(json_line), NULL) != NOVAQ_OK) {
        return;
    }
    bool rolled_back = json_is_true(json_object_get(o, "rolled_back"));
    bool measured = json_object_get(o, "held_out_kl") != NULL;
    const char *warning = json_string_value(json_object_get(o, "warning"));
    if ((measured || rolled_back || warning != NULL) && isatty(STDERR_FILENO)) {
        (void)fputc('\n', stderr); /* the bar stays above */
    }
    if (is_event(o, "begin")) {
        cli_note("refine: %.0f steps, %.0f tokens of text (%.0f of %.0f sequences held out), at "
                 "most %.0f MB beside the models",
                 number(o, "steps"), number(o, "tokens"), number(o, "held_out"),
                 number(o, "sequences"), number(o, "memory_bytes") / 1e6);
    } else if (measured) {
        cli_note("step %.0f: held-out KL %.4f, perplexity %.3f; best at step %.0f",
                 number(o, "step"), number(o, "held_out_kl"), number(o, "held_out_perplexity"),
                 number(o, "best_step"));
    }
    if (rolled_back) {
        cli_note("step %.0f: diverged; back to the last good values at half the rate",
                 number(o, "step"));
    }
    if (warning != NULL) {
        cli_note("warning: %s; refining goes on without a checkpoint", warning);
    }
    json_decref(o);
}

/* No text is one that the teacher samples. */
static int fill_texts(novaq_refine_options *o, const opt_args *a) {
    for (size_t i = 0; a->list_count > 1 && i < a->list_count; i++) {
        if (strcmp(a->list[i], "self") == 0) {
            return cli_usage("--calibration self and --calibration FILE contradict each other");
        }
    }
    if (a->list_count > 0) {
        o->calibration = a->list[0];
        o->more_texts = a->list + 1;
        o->more_text_count = a->list_count - 1;
    }
    return EXIT_OK;
}

static double rate(const opt_args *a, opt_id id) { return cli_given(a, id) ? cli_real(a, id) : -1; }

static int fill(novaq_refine_options *o, const opt_args *a) {
    o->artifact = a->args[0];
    o->teacher = cli_text(a, OPT_TEACHER);
    o->output = cli_text(a, OPT_OUTPUT);
    if (o->output == NULL) {
        return cli_usage("refine: nowhere to write; give --output PATH");
    }
    if (cli_flag(a, OPT_JSON) && cli_flag(a, OPT_JSON_LINES)) {
        return cli_usage("--json and --json-lines are two forms of the report; give one");
    }
    o->single_file = cli_flag(a, OPT_SINGLE_FILE) || cli_is_file_name(o->output);
    o->steps = cli_uint(a, OPT_STEPS);
    o->calibration_tokens = cli_uint(a, OPT_CALIBRATION_TOKENS);
    o->sequence = cli_uint(a, OPT_SEQUENCE);
    o->batch = cli_uint(a, OPT_BATCH);
    o->rate = cli_real(a, OPT_RATE);
    o->scale_rate = rate(a, OPT_SCALE_RATE);
    o->gain_rate = rate(a, OPT_GAIN_RATE);
    o->lambda = cli_real(a, OPT_LAMBDA);
    o->temperature = cli_real(a, OPT_TEMPERATURE);
    o->codebook_columns = cli_uint(a, OPT_CODEBOOK_COLUMNS);
    o->seed = a->value[OPT_SEED].u;
    o->checkpoint = cli_text(a, OPT_CHECKPOINT);
    o->restart = cli_flag(a, OPT_RESTART);
    o->exact = cli_flag(a, OPT_EXACT);
    o->threads = cli_uint(a, OPT_THREADS);
    if (cli_flag(a, OPT_JSON_LINES)) {
        o->step = cli_refine_line;
    } else if (!cli_flag(a, OPT_QUIET)) {
        o->step = cli_refine_note;
    }
    return fill_texts(o, a);
}

static novaq_status run_refine(char **report, const void *options, novaq_error *err) {
    return novaq_refine(report, options, err);
}

int cmd_refine(const opt_args *a) {
    novaq_refine_options o = NOVAQ_REFINE_OPTIONS_INIT;
    char *report = NULL;
    int code = fill(&o, a);
    if (code == EXIT_OK) {
        code = cli_work(&report, a, run_refine, &o, &o.progress, &o.progress_ctx);
    }
    if (code != EXIT_OK) {
        return code;
    }
    if (cli_flag(a, OPT_JSON_LINES)) {
        return report_line(report);
    }
    bool json = cli_flag(a, OPT_JSON);
    if (!json) {
        report_warnings(report);
    }
    code = cli_report(a, report, report_refine);
    if (code == EXIT_OK && !json) {
        (void)printf("written to       %s\n", o.output);
    }
    return code;
}

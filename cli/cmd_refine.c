/* cmd_refine.c - an artifact taught by its source. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/mem.h"
#include "cmd.h"
#include "curve.h"
#include "progress.h"
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

/* Of the file of --teacher-cache, before it is made or used. */
static void note_teacher(const json_t *o) {
    const char *note = json_string_value(json_object_get(o, "note"));
    const char *file = json_string_value(json_object_get(o, "file"));
    file = file != NULL ? file : "";
    if (json_is_true(json_object_get(o, "reused"))) {
        cli_note("teacher: %s has its predictions, %.0f of each token; it is not run", file,
                 number(o, "top"));
        return;
    }
    if (note != NULL) {
        cli_note("%s", note);
    }
    cli_note("teacher: %.0f predictions of each token go to %s, %.1f MB; at most %.0f MB beside "
             "the model",
             number(o, "top"), file, number(o, "bytes") / 1e6, number(o, "memory_bytes") / 1e6);
}

/* A stage of a block whose symbols were chosen again, where they are kept. */
static void note_symbols(const json_t *o) {
    const json_t *kl = json_object_get(o, "held_out_kl");
    const char *kept = json_string_value(json_object_get(o, "kept"));
    if (kept != NULL && strcmp(kept, "old") != 0) {
        cli_note("block %.0f, %s: %.0f symbols %s, held-out KL %.4f to %.4f", number(o, "block"),
                 json_string_value(json_array_get(json_object_get(o, "matrices"), 0)),
                 number(o, "changed"), kept, number(kl, "before"), number(kl, "after"));
    }
}

/* What it will take, before it takes it; then each measurement. */
void cli_refine_note(void *ctx, const char *json_line) {
    json_t *o = NULL;
    (void)ctx;
    if (nq_json_parse_object(&o, "refine", json_line, strlen(json_line), NULL) != NOVAQ_OK) {
        return;
    }
    bool rolled_back = json_is_true(json_object_get(o, "rolled_back"));
    bool measured = is_event(o, "step") && json_object_get(o, "held_out_kl") != NULL;
    const char *warning = json_string_value(json_object_get(o, "warning"));
    if ((measured || rolled_back || warning != NULL) && isatty(STDERR_FILENO)) {
        (void)fputc('\n', stderr); /* the bar stays above */
    }
    if (is_event(o, "reassign")) {
        note_symbols(o);
    } else if (is_event(o, "begin")) {
        cli_note("refine: %.0f steps, %.0f tokens of text (%.0f of %.0f sequences held out), at "
                 "most %.0f MB beside the models",
                 number(o, "steps"), number(o, "tokens"), number(o, "held_out"),
                 number(o, "sequences"), number(o, "memory_bytes") / 1e6);
    } else if (is_event(o, "teacher")) {
        note_teacher(o);
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
        cli_note(is_event(o, "note") ? "warning: %s"
                                     : "warning: %s; refining goes on without a checkpoint",
                 warning);
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
    o->rounds = cli_uint(a, OPT_ROUNDS);
    o->calibration_tokens = cli_uint(a, OPT_CALIBRATION_TOKENS);
    o->sequence = cli_uint(a, OPT_SEQUENCE);
    o->batch = cli_uint(a, OPT_BATCH);
    o->rate = cli_real(a, OPT_RATE);
    o->scale_rate = rate(a, OPT_SCALE_RATE);
    o->gain_rate = rate(a, OPT_GAIN_RATE);
    o->lambda = cli_real(a, OPT_LAMBDA);
    o->temperature = cli_real(a, OPT_TEMPERATURE);
    o->teacher_cache = cli_text(a, OPT_TEACHER_CACHE);
    o->teacher_top = cli_given(a, OPT_TEACHER_TOP) ? cli_uint(a, OPT_TEACHER_TOP) : 0;
    if (o->teacher_cache == NULL && o->teacher_top > 0) {
        return cli_usage("--teacher-top is of --teacher-cache FILE; give both");
    }
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

/* Lines go where they went without a picture, too. */
typedef struct recording {
    curve curve;
    void (*step)(void *ctx, const char *json_line); /* or NULL */
} recording;

static void record(void *ctx, const char *json_line) {
    recording *r = ctx;
    curve_add(&r->curve, json_line);
    if (r->step != NULL) {
        r->step(NULL, json_line);
    }
}

/* With a picture of it, however it ends. */
static int refine_and_draw(char **report, const opt_args *a, novaq_refine_options *o) {
    const char *path = cli_text(a, OPT_PLOT);
    recording r = {.step = o->step};
    int code = path != NULL ? curve_probe(path) : EXIT_OK; /* not after hours */
    if (code != EXIT_OK) {
        return code;
    }
    if (path != NULL) {
        o->step = record;
        o->step_ctx = &r;
    }
    code = cli_work(report, a, run_refine, o, &o->progress, &o->progress_ctx);
    if (r.curve.count > 0) {
        interrupt_answered();
        int drawn = curve_draw(&r.curve, path);
        code = code == EXIT_OK ? drawn : code;
    }
    curve_free(&r.curve);
    return code;
}

static int print_report(const opt_args *a, char *report, const char *output) {
    if (cli_flag(a, OPT_JSON_LINES)) {
        return report_line(report);
    }
    bool json = cli_flag(a, OPT_JSON);
    if (!json) {
        report_warnings(report);
    }
    int code = cli_report(a, report, report_refine);
    if (code == EXIT_OK && !json) {
        (void)printf("written to       %s\n", output);
    }
    return code;
}

int cmd_refine(const opt_args *a) {
    novaq_refine_options o = NOVAQ_REFINE_OPTIONS_INIT;
    char *report = NULL;
    int code = fill(&o, a);
    if (code == EXIT_OK) {
        code = refine_and_draw(&report, a, &o);
    }
    /* An artifact that was written is reported, also where its picture could not be. */
    int told = report != NULL ? print_report(a, report, o.output) : EXIT_OK;
    return code == EXIT_OK ? told : code;
}

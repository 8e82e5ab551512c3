/* cmd_compress.c - compress, and its spellings local, hf, ollama, url. */
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "locate.h"
#include "progress.h"
#include "report.h"

static const opt_id paper_options[] = {OPT_LEVEL1, OPT_LEVEL2, OPT_MAX_DIM, OPT_MIN_DIM,
                                       OPT_SUBSPACES};

/* The paper's option that was given, or OPT_COUNT. */
static opt_id given_paper_option(const opt_args *a) {
    for (size_t i = 0; i < sizeof paper_options / sizeof paper_options[0]; i++) {
        if (cli_given(a, paper_options[i])) {
            return paper_options[i];
        }
    }
    return OPT_COUNT;
}

static int check_tensor_types(const opt_args *a) {
    for (size_t i = 0; i < a->list_count; i++) {
        const char *eq = strrchr(a->list[i], '=');
        if (eq == NULL || eq == a->list[i] || eq[1] == '\0') {
            return cli_usage("--tensor-type: '%s' is not REGEX=SCHEME, such as 'attn_.*=k16d1l2'",
                             a->list[i]);
        }
    }
    return EXIT_OK;
}

static int fill_paper(novaq_compress_options *o, const opt_args *a) {
    opt_id id = given_paper_option(a);
    o->paper = id != OPT_COUNT;
    if (o->paper && cli_given(a, OPT_SCHEME)) {
        return cli_usage("--scheme and --%s contradict each other; give one",
                         opt_find(a->command, id)->name);
    }
    /* With subvectors of a given length the library derives K1 and K2 from the
     * budget (0), unless they were given, too. */
    bool derive = cli_given(a, OPT_SUBSPACES);
    o->level1_centroids = derive && !cli_given(a, OPT_LEVEL1) ? 0 : cli_uint(a, OPT_LEVEL1);
    o->level2_centroids = derive && !cli_given(a, OPT_LEVEL2) ? 0 : cli_uint(a, OPT_LEVEL2);
    o->max_subspace_dim = cli_uint(a, OPT_MAX_DIM);
    o->min_subspace_dim = cli_uint(a, OPT_MIN_DIM);
    o->subspaces = cli_uint(a, OPT_SUBSPACES);
    if (o->min_subspace_dim <= o->max_subspace_dim) {
        return EXIT_OK;
    }
    /* A default gives way to what was asked for. */
    if (!cli_given(a, OPT_MIN_DIM)) {
        o->min_subspace_dim = o->max_subspace_dim;
    } else if (!cli_given(a, OPT_MAX_DIM)) {
        o->max_subspace_dim = o->min_subspace_dim;
    } else {
        return cli_usage("--min-subspace-dim %u is above --max-subspace-dim %u",
                         o->min_subspace_dim, o->max_subspace_dim);
    }
    return EXIT_OK;
}

/* Two ways to say the same, or one that leaves another nothing to decide. */
static int check_contradictions(const opt_args *a) {
    static const opt_id fixing[] = {OPT_TARGET_BITS, OPT_SCHEME, OPT_SUBSPACES};
    static const opt_id calibrated[] = {
        OPT_CALIBRATION_TOKENS, OPT_NO_FEEDBACK,   OPT_NO_PROPAGATE, OPT_SWEEPS, OPT_DAMPING,
        OPT_COLUMN_ORDER,       OPT_COLUMN_SCALES, OPT_REFINE_BLOCKS};
    if (cli_flag(a, OPT_RESUME) && cli_flag(a, OPT_RESTART)) {
        return cli_usage("--resume and --restart contradict each other; give one");
    }
    if (cli_flag(a, OPT_JSON) && cli_flag(a, OPT_JSON_LINES)) {
        return cli_usage("--json and --json-lines are two forms of the report; give one");
    }
    for (size_t i = 0; cli_given(a, OPT_TARGET_SIZE) && i < sizeof fixing / sizeof fixing[0]; i++) {
        if (cli_given(a, fixing[i])) {
            return cli_usage("--target-size and --%s contradict each other; give one",
                             opt_find(a->command, fixing[i])->name);
        }
    }
    if (strcmp(cli_text(a, OPT_CALIBRATION), "none") != 0) {
        return EXIT_OK;
    }
    for (size_t i = 0; i < sizeof calibrated / sizeof calibrated[0]; i++) {
        if (cli_given(a, calibrated[i])) {
            return cli_usage("--%s and --calibration none contradict each other; give one",
                             opt_find(a->command, calibrated[i])->name);
        }
    }
    return EXIT_OK;
}

static void fill_calibration(novaq_compress_options *o, const opt_args *a) {
    o->calibration = cli_text(a, OPT_CALIBRATION);
    o->calibration_tokens = cli_uint(a, OPT_CALIBRATION_TOKENS);
    o->feedback = !cli_flag(a, OPT_NO_FEEDBACK);
    o->propagate = !cli_flag(a, OPT_NO_PROPAGATE);
    o->sweeps = cli_uint(a, OPT_SWEEPS);
    o->damping = cli_real(a, OPT_DAMPING);
    o->column_order = cli_text(a, OPT_COLUMN_ORDER);
    o->max_memory = a->value[OPT_MAX_MEMORY].u;
}

/* Whoever reads the lines wants each when its tensor is done. */
static void print_tensor(void *ctx, const char *json_line) {
    (void)ctx;
    (void)printf("{\"tensor\": %s}\n", json_line);
    (void)fflush(stdout);
}

static int fill(novaq_compress_options *o, const opt_args *a) {
    o->output = cli_text(a, OPT_OUTPUT);
    if (o->output == NULL && !cli_flag(a, OPT_DRY_RUN)) {
        return cli_usage("compress: nowhere to write; give --output DIR, or --dry-run");
    }
    o->single_file = cli_flag(a, OPT_SINGLE_FILE) || a->command != CMD_COMPRESS ||
                     (o->output != NULL && cli_is_file_name(o->output));
    o->target_bits = cli_real(a, OPT_TARGET_BITS);
    o->target_size = a->value[OPT_TARGET_SIZE].u;
    o->max_iterations = cli_uint(a, OPT_ITERATIONS);
    o->tolerance = cli_real(a, OPT_TOLERANCE);
    o->seed = a->value[OPT_SEED].u;
    o->outlier_percentile = cli_real(a, OPT_OUTLIERS);
    o->normalize = cli_text(a, OPT_NORMALIZE);
    if (cli_given(a, OPT_COLUMN_SCALES)) {
        o->column_scales = cli_real(a, OPT_COLUMN_SCALES);
    }
    o->row_means = cli_flag(a, OPT_ROW_MEANS);
    o->rotation_block = cli_uint(a, OPT_ROTATION_BLOCK);
    o->scheme = cli_text(a, OPT_SCHEME);
    o->tensor_types = a->list;
    o->tensor_type_count = a->list_count;
    o->segment_rows = cli_uint(a, OPT_SEGMENT_ROWS);
    o->keep_embedding = cli_flag(a, OPT_KEEP_EMBEDDING);
    o->threads = cli_uint(a, OPT_THREADS);
    o->restart = cli_flag(a, OPT_RESTART);
    o->refine = cli_given(a, OPT_REFINE);
    o->refine_steps = cli_uint(a, OPT_REFINE);
    o->refine_blocks = cli_uint(a, OPT_REFINE_BLOCKS);
    o->tensor = cli_flag(a, OPT_JSON_LINES) ? print_tensor : NULL;
    if (cli_flag(a, OPT_JSON_LINES)) {
        o->refine_step = cli_refine_line;
    } else if (!cli_flag(a, OPT_QUIET)) {
        o->refine_step = cli_refine_note;
    }
    fill_calibration(o, a);
    int code = check_contradictions(a);
    if (code == EXIT_OK) {
        code = check_tensor_types(a);
    }
    return code == EXIT_OK ? fill_paper(o, a) : code;
}

static novaq_status run_compress(char **report, const void *options, novaq_error *err) {
    return novaq_compress(report, options, err);
}

static novaq_status run_plan(char **report, const void *options, novaq_error *err) {
    return novaq_plan(report, options, err);
}

static int interrupted(void *ctx) {
    (void)ctx;
    return interrupt_seen();
}

typedef struct telling {
    const novaq_compress_options *o;
    char *told; /* the note that was printed, or NULL */
} telling;

/* At once, and not again at the end. */
static void print_note(void *ctx, const char *text) {
    telling *t = ctx;
    if (t->o->progress_ctx != NULL) {
        progress_end(t->o->progress_ctx); /* the bar makes room for it */
    }
    cli_note("warning: %s", text);
    free(t->told);
    t->told = strdup(text);
}

static int print_report(const opt_args *a, char *report, const novaq_compress_options *o,
                        const char *told) {
    bool plan = cli_flag(a, OPT_DRY_RUN);
    if (cli_flag(a, OPT_JSON_LINES)) {
        return report_line(report);
    }
    if (cli_flag(a, OPT_JSON)) {
        return cli_report(a, report, report_compress);
    }
    report_other_warnings(report, told);
    int code = cli_report(a, report, plan ? report_plan : report_compress);
    if (code == EXIT_OK && !plan) {
        (void)printf("written to       %s\n", o->output);
    }
    return code;
}

static int compress(const opt_args *a, novaq_compress_options *o) {
    char *report = NULL;
    telling t = {.o = o};
    o->stop = interrupted;
    o->note = print_note;
    o->note_ctx = &t;
    int code = cli_work(&report, a, cli_flag(a, OPT_DRY_RUN) ? run_plan : run_compress, o,
                        &o->progress, &o->progress_ctx);
    if (code == EXIT_OK) {
        code = print_report(a, report, o, t.told);
    }
    free(t.told);
    return code;
}

int cmd_compress(const opt_args *a) {
    novaq_compress_options o = NOVAQ_COMPRESS_OPTIONS_INIT;
    char *locator = NULL;
    /* Usage errors first: they hold wherever the model lies. */
    int code = fill(&o, a);
    if (code == EXIT_OK) {
        code = cli_locate(&locator, a);
    }
    if (code == EXIT_OK) {
        o.input = locator;
        code = compress(a, &o);
    }
    free(locator);
    return code;
}

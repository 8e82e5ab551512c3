/* opt.h - the command line: one table of commands and options.
 *
 * Owns: the table (opt_table.c), parsing by it (opt.c), and everything that is
 * generated from it: --help, shell completions, the man page (opt_docs.c).
 * Refuses: acting on what was parsed; cmd_*.c do.
 */
#ifndef CLI_OPT_H
#define CLI_OPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum opt_command_id {
    CMD_NONE, /* novaq itself: --version, --help, ... */
    CMD_COMPRESS,
    CMD_LOCAL,
    CMD_HF,
    CMD_OLLAMA,
    CMD_URL,
    CMD_VALIDATE,
    CMD_VERIFY,
    CMD_STATS,
    CMD_INFO,
    CMD_REFINE,
    CMD_EVAL,
    CMD_RUN,
    CMD_CHAT,
    CMD_TOKENIZE,
    CMD_EXPORT,
    CMD_BENCH,
    CMD_COMPLETION,
    CMD_VERSION,
    CMD_HELP,
    CMD_COUNT
} opt_command_id;

typedef enum opt_id {
    OPT_HELP,
    OPT_VERSION,
    OPT_COMPLETION,
    OPT_MAN,
    OPT_INPUT,
    OPT_REVISION,
    OPT_OUTPUT,
    OPT_TARGET_BITS,
    OPT_TARGET_SIZE,
    OPT_LEVEL1,
    OPT_LEVEL2,
    OPT_MAX_DIM,
    OPT_MIN_DIM,
    OPT_SUBSPACES,
    OPT_ITERATIONS,
    OPT_TOLERANCE,
    OPT_SEED,
    OPT_OUTLIERS,
    OPT_NORMALIZE,
    OPT_CALIBRATION,
    OPT_CALIBRATION_TOKENS,
    OPT_NO_FEEDBACK,
    OPT_NO_PROPAGATE,
    OPT_SWEEPS,
    OPT_DAMPING,
    OPT_COLUMN_ORDER,
    OPT_COLUMN_SCALES,
    OPT_ROW_MEANS,
    OPT_ROTATION_BLOCK,
    OPT_MAX_MEMORY,
    OPT_SCHEME,
    OPT_TENSOR_TYPE,
    OPT_SEGMENT_ROWS,
    OPT_KEEP_EMBEDDING,
    OPT_SINGLE_FILE,
    OPT_RESUME,
    OPT_RESTART,
    OPT_DRY_RUN,
    OPT_REFINE,
    OPT_REFINE_BLOCKS,
    OPT_TEACHER,
    OPT_STEPS,
    OPT_ROUNDS,
    OPT_SEQUENCE,
    OPT_BATCH,
    OPT_RATE,
    OPT_SCALE_RATE,
    OPT_GAIN_RATE,
    OPT_LAMBDA,
    OPT_TEACHER_CACHE,
    OPT_TEACHER_TOP,
    OPT_CODEBOOK_COLUMNS,
    OPT_CHECKPOINT,
    OPT_EXACT,
    OPT_MODEL,
    OPT_PERPLEXITY,
    OPT_CHUNKS,
    OPT_N_CTX,
    OPT_AGAINST,
    OPT_LAYER_KL,
    OPT_FAST,
    OPT_KL_BASE,
    OPT_KL_DIVERGENCE,
    OPT_ABLATION,
    OPT_VARIANTS,
    OPT_PROMPT,
    OPT_N_PREDICT,
    OPT_TEMPERATURE,
    OPT_TOP_K,
    OPT_TOP_P,
    OPT_MIN_P,
    OPT_REPEAT_PENALTY,
    OPT_IGNORE_EOS,
    OPT_STOP,
    OPT_CHAT,
    OPT_SYSTEM,
    OPT_CHAT_TEMPLATE,
    OPT_TEMPLATE_ARGS,
    OPT_FILE,
    OPT_LINES,
    OPT_NO_SPECIAL,
    OPT_NO_PARSE_SPECIAL,
    OPT_TO,
    OPT_DTYPE,
    OPT_PLOT,
    OPT_BENCH_PROMPT,
    OPT_BENCH_GENERATE,
    OPT_DEPTH,
    OPT_REPETITIONS,
    OPT_KV_TYPE,
    OPT_FORMAT,
    OPT_SYNTHETIC,
    OPT_CODEC,
    OPT_ENCODER,
    OPT_KERNELS,
    OPT_SCHEMES,
    OPT_THREADS,
    OPT_JSON,
    OPT_JSON_LINES,
    OPT_QUIET,
    OPT_COUNT
} opt_id;

typedef enum opt_type {
    OPT_T_FLAG,
    OPT_T_TEXT,
    OPT_T_CHOICE, /* one word of spec->choices */
    OPT_T_UINT,
    OPT_T_REAL,
    OPT_T_SIZE, /* bytes: 45000000, 45MB, 1.5GiB, 64K */
    OPT_T_LIST  /* text, repeatable; at most one such option per command */
} opt_type;

typedef struct opt_spec {
    opt_id id;
    uint32_t commands;   /* bit per opt_command_id */
    opt_type type;       /* one id may have several rows with disjoint commands */
    char letter;         /* -x, or 0 */
    const char *name;    /* --name */
    const char *alias;   /* another spelling, or NULL */
    const char *metavar; /* "FILE"; NULL for flags; "[=N]": may be left out, then preset */
    const char *choices; /* "a|b|c", or NULL */
    double min, max;     /* UINT, REAL, SIZE: inclusive, except: */
    bool above_min;      /* min itself is not allowed */
    const char *preset;  /* default as it would be typed, or NULL */
    const char *help;    /* one sentence without a full stop */
} opt_spec;

typedef struct opt_command {
    const char *name;
    const char *synopsis; /* what follows the name */
    const char *summary;  /* one line */
    const char *text;     /* a paragraph for --help and the man page */
    unsigned min_args, max_args;
    const char *missing;         /* said when there are too few arguments */
    const char *const *examples; /* NULL-terminated */
} opt_command;

extern const opt_command opt_commands[CMD_COUNT];
extern const opt_spec opt_specs[];
extern const size_t opt_spec_count;

typedef struct opt_value {
    bool seen;        /* given on the command line, not the default */
    const char *text; /* as typed; NULL when neither given nor preset */
    uint64_t u;       /* UINT, SIZE */
    double f;         /* UINT, REAL and SIZE */
} opt_value;

typedef struct opt_args {
    opt_command_id command;
    opt_value value[OPT_COUNT];
    const char **list; /* values of the LIST option, in order */
    size_t list_count;
    const char **args; /* positional arguments, in order */
    size_t arg_count;
    char error[512]; /* one line, set when the result is OPT_BAD */
} opt_args;

typedef enum opt_result { OPT_OK, OPT_WANTS_HELP, OPT_BAD } opt_result;

/* argv[0] is skipped; strings are borrowed from argv. Call opt_free() on *out
 * whatever the result. */
opt_result opt_parse(opt_args *out, int argc, char *const *argv);
void opt_free(opt_args *a);

/* The row of an option for a command; NULL when the command has none. */
const opt_spec *opt_find(opt_command_id command, opt_id id);
/* CMD_NONE when no command has that name. */
opt_command_id opt_command_find(const char *name);
/* "; did you mean 'x'?" for the nearest command, or "". buf is returned. */
const char *opt_suggest_command(char *buf, size_t size, const char *typed);

/* Help for one command, or the overview for CMD_NONE. */
void opt_print_help(FILE *out, opt_command_id command);
/* shell: "bash", "zsh" or "fish"; false for any other. */
bool opt_print_completion(FILE *out, const char *shell);
/* The man page, as roff source. */
void opt_print_man(FILE *out);

#endif

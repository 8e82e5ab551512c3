/* novaq.h - the public interface of libnovaq, the only installed header.
 *
 * novaq makes large language models small (1-4 bits per weight) and runs the
 * result. Everything the command line does is reachable from here.
 *
 * Conventions
 *  - Fallible functions return novaq_status (0 = NOVAQ_OK) and, unless err is
 *    NULL, describe the failure in *err: one line naming file and offset.
 *  - Out-parameters come first and are set to NULL on failure; what they
 *    receive on success is the caller's, to be released as documented.
 *  - Option structs are initialised with their _INIT macro; struct_size lets
 *    the library add fields later.
 *  - Reports are JSON text (UTF-8, NUL-terminated), freed by novaq_free().
 *  - Threads: different objects may be used from different threads; one object
 *    by one thread at a time, unless stated. The library keeps no global state.
 *  - The library never prints, exits or aborts.
 */
#ifndef NOVAQ_H
#define NOVAQ_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NOVAQ_VERSION "0.1.0"

#if defined(__GNUC__)
#define NOVAQ_API   __attribute__((visibility("default")))
#define NOVAQ_CHECK __attribute__((warn_unused_result))
#else
#define NOVAQ_API
#define NOVAQ_CHECK
#endif

/* ---- status ------------------------------------------------------------ */

typedef enum novaq_status {
    NOVAQ_OK = 0,
    NOVAQ_E_ARG = -1,         /* a parameter is out of range or contradicts another */
    NOVAQ_E_MEMORY = -2,      /* allocation failed or a limit was reached */
    NOVAQ_E_IO = -3,          /* the operating system refused a file operation */
    NOVAQ_E_FORMAT = -4,      /* a file is malformed */
    NOVAQ_E_UNSUPPORTED = -5, /* well-formed, but not something novaq can do */
    NOVAQ_E_VERIFY = -6,      /* a hash or a structural promise does not hold */
    NOVAQ_E_NETWORK = -7,     /* network or authorization */
    NOVAQ_E_INTERRUPTED = -8, /* a progress callback asked to stop */
    NOVAQ_E_NUMERIC = -9,     /* NaN or infinity where a number is needed */
    NOVAQ_E_NOSPACE = -10     /* the disk is full */
} novaq_status;

typedef struct novaq_error {
    novaq_status code;
    char msg[512]; /* one line, no newline, NUL-terminated */
} novaq_error;

/* A short fixed name for a status ("malformed file"). Never NULL. */
NOVAQ_API const char *novaq_status_name(novaq_status s);

/* Frees any report or string this library returned. NULL is fine. */
NOVAQ_API void novaq_free(void *p);

/* ---- progress ---------------------------------------------------------- */

typedef struct novaq_progress {
    const char *phase; /* "compress", "perplexity", ...; borrowed */
    const char *item;  /* tensor or chunk at work, may be ""; borrowed */
    uint64_t done;     /* units finished */
    uint64_t total;    /* units in all, 0 if unknown */
    const char *unit;  /* "B", "tokens", ...; borrowed */
    double value;      /* a running figure (perplexity), NaN if none */
    uint64_t received; /* bytes that came over the network so far */
    uint64_t items;    /* tensors that are finished, and in all; 0 where nothing is counted */
    uint64_t items_total;
} novaq_progress;

/* Called now and then from one thread at a time. Return nonzero to stop the
 * operation, which then returns NOVAQ_E_INTERRUPTED and leaves nothing
 * half-written behind; novaq_compress() keeps what it can go on from. */
typedef int (*novaq_progress_fn)(void *ctx, const novaq_progress *p);

/* Receives generated text as it appears: len bytes, always whole UTF-8
 * sequences; none while a long prompt is processed. Return nonzero to stop
 * generating (not an error). */
typedef int (*novaq_text_fn)(void *ctx, const char *text, size_t len);

/* ---- compress ---------------------------------------------------------- */

typedef struct novaq_compress_options {
    size_t struct_size;
    /* A path (.safetensors, .gguf, .pt, .onnx, index.json, a directory), hf://ORG/NAME,
     * ollama://NAME, http(s)://... */
    const char *input;
    const char *output; /* directory, or file when single_file; unused for a plan */
    int single_file;    /* 1: one SafeTensors-compatible file; 0: directory form */
    double target_bits; /* budget in bits per weight over quantized tensors, 0.19-8 */
    /* The paper's literal parameters. paper != 0 selects its two-level product
     * quantization exactly; otherwise the planner picks sliding schemes. */
    int paper;
    unsigned level1_centroids; /* K1, 2-256; 0 = 16, or with subspaces derived from the bits */
    unsigned level2_centroids; /* K2, 2-256, 1 = no second level; 0 = 8, or derived likewise */
    unsigned max_subspace_dim; /* 1-64 */
    unsigned min_subspace_dim; /* 1-64 */
    unsigned subspaces;        /* seed spelling: length of every subvector; 0 = unset */
    unsigned max_iterations;   /* codebook training rounds, 1-1000 */
    double tolerance;          /* relative MSE improvement that ends training */
    uint64_t seed;
    double outlier_percentile;       /* paper normalization: share of rows rescaled */
    const char *normalize;           /* "rotate" (default), "row", "paper", "none" */
    const char *scheme;              /* one scheme for every quantized tensor, or NULL */
    const char *const *tensor_types; /* "REGEX=SCHEME", first match wins */
    size_t tensor_type_count;
    unsigned segment_rows; /* rows coded as one chain, default 256 */
    /* What the codec may know of the inputs of each matrix: "none" or NULL; "self":
     * the source model is run on text it samples itself; a path: on that text;
     * "auto": self where the model can be run and has at most 2^31 parameters. */
    const char *calibration;
    int keep_embedding; /* token embedding and head stay as in the source */
    unsigned threads;   /* 0 = one per online CPU */
    novaq_progress_fn progress;
    void *progress_ctx;
    /* Bytes of the whole artifact to stay within; 0: target_bits decides. */
    uint64_t target_size;
    /* Calibrated coding; all of it needs a calibration text or samples. */
    unsigned calibration_tokens; /* looked at; 0 = default of the kind of text */
    int feedback;                /* 1: errors are fed back to later columns (GPTQ/LDLQ) */
    int propagate;               /* 1: inputs come from the coded blocks before, and what those
                                    got wrong is made good as far as it can be */
    unsigned sweeps;             /* passes over the columns after the first */
    double damping;              /* share of the mean diagonal added to each Hessian */
    const char *column_order;    /* "natural" (default) or "energy" */
    /* Pieces of the normalization. */
    double column_scales;    /* exponent of the activation-aware column scales, 0 = none; below 0:
                                none with feedback, which does better without, else 0.5; above 0
                                only with normalize "rotate" */
    int row_means;           /* 1: subtract and store the mean of each row ("rotate", "row") */
    unsigned rotation_block; /* largest block of the rotation, a power of two; 0 = 512 */
    /* Bytes the state of the calibration tokens may take before it goes to a temporary
     * file; 0 = half of the machine's memory. With a limit, matrices are read when they
     * are used instead of being kept, too. Of a remote source as much may be kept; what
     * is larger is streamed. */
    uint64_t max_memory;
    /* 1: begins afresh. 0: what an interrupted run of the same source and options
     * finished is taken over from the output, and the rest is done. */
    int restart;
    /* Told of each tensor when it is finished: one line of JSON (name, scheme, shape,
     * bytes, bits_per_weight, relative_error, cosine_similarity, diagnostics, seconds,
     * resumed), borrowed. May be NULL. Called by the thread that called novaq_compress(). */
    void (*tensor)(void *ctx, const char *json_line);
    void *tensor_ctx;
    /* 1: the artifact is refined with the source as teacher, as novaq_refine() does with
     * its defaults, on the calibration text ("self" for "auto" and "none"). Budgets leave
     * room for what that adds. */
    int refine;
    unsigned refine_steps; /* 0: novaq_refine()'s default; calibration_tokens hold for it too */
    /* Steps by which each block, once it is coded, learns to give what the original one
     * gives, before the next is coded: codebooks and row scales. 0: none. Needs a
     * calibration; blocks with experts stay as they were coded, which is a warning. */
    unsigned refine_blocks;
    /* Asked by any thread, also while the network is waited for: nonzero ends the work like
     * a progress callback does. May be NULL. */
    int (*stop)(void *ctx);
    void *stop_ctx;
    /* As step of novaq_refine_options, with refine. May be NULL. */
    void (*refine_step)(void *ctx, const char *json_line);
    void *refine_step_ctx;
    /* Told at once of what is better known before the work than in the report's warnings,
     * where it stands as well: that an interrupted run is not continued, and why. May be
     * NULL. */
    void (*note)(void *ctx, const char *text);
    void *note_ctx;
} novaq_compress_options;

#define NOVAQ_COMPRESS_OPTIONS_INIT                                                                \
    {                                                                                              \
        sizeof(novaq_compress_options), 0, 0, 0, 1.5, 0, 16, 8, 16, 4, 0, 100, 1e-4, 42, 0.01,     \
            "rotate", 0, 0, 0, 256, "auto", 0, 0, 0, 0, 0, 0, 1, 1, 0, 0.03, "natural", -1, 0, 0,  \
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0                                                  \
    }

/* Compresses a model into a new artifact. *report (may be NULL) receives the
 * manifest's summary as JSON, with warnings, `resumed` (tensors, bytes) where an
 * interrupted run was continued, and `left_out` (likewise) where the source holds more
 * than a model of text. The output appears whole or not at all. Stopped by
 * the progress callback, a lost network, a full disk or a kill, a run leaves a
 * journal beside what it finished, and the same call continues; after other failures
 * nothing is left. */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_compress(char **report, const novaq_compress_options *opt,
                                                  novaq_error *err);

/* What novaq_compress() would do: schemes per tensor, bits, final size. Writes
 * nothing. With calibration the model is run to measure what errors in each matrix
 * cost, which takes about as long as compressing; without, statistics of the weights
 * stand in, at once. */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_plan(char **report, const novaq_compress_options *opt,
                                              novaq_error *err);

/* ---- refining ---------------------------------------------------------- */

typedef struct novaq_refine_options {
    size_t struct_size;
    const char *artifact; /* what is refined; never changed */
    const char *teacher;  /* source; NULL: the one the artifact names */
    const char *output;   /* a new artifact */
    int single_file;      /* 1: one SafeTensors-compatible file; 0: directory form */
    unsigned steps;       /* 0: 300 */
    /* A text file, or "self": text that the teacher samples itself. */
    const char *calibration;
    unsigned calibration_tokens; /* at most so many; 0: what the steps can use */
    unsigned sequence;           /* tokens of a sequence, default 512; fewer, but 8, where
                                    the text has no two of them */
    unsigned batch;              /* sequences a step, default 2 */
    /* Of Adam, at its height: a step changes codebook entries, gains and biases by about
     * this share of their size, row scales by this share, times the squared relative
     * error of their matrix by 0.09 (docs/METHOD.md). */
    double rate;
    double scale_rate, gain_rate; /* of row scales; of gains and biases; below 0: twice rate */
    double lambda;                /* weight of 1 - cos of residual streams, summed over blocks */
    double temperature;           /* of the predictions that are compared */
    unsigned codebook_columns;    /* columns that share codebooks; 0: as in the artifact */
    uint64_t seed;
    const char *checkpoint; /* file; NULL: OUTPUT.refine. What is there and no checkpoint of
                               this refinement is refused */
    int restart;            /* 1: a checkpoint, whose ever it is, is removed first */
    int exact;              /* 1: products of float32; 0: what is multiplied is rounded to
                               bfloat16 on CPUs that are faster so */
    unsigned threads;       /* 0 = one per online CPU */
    novaq_progress_fn progress;
    void *progress_ctx;
    /* Told of the beginning ("event": "begin", with memory_bytes, the most it will take
     * beside the models), of what may be a mistake ("event": "note": warning) and of each
     * step ("event": "step": step, steps, kl, and where it was measured held_out_kl,
     * held_out_perplexity, ...): one line of JSON, borrowed. May be NULL. */
    void (*step)(void *ctx, const char *json_line);
    void *step_ctx;
    /* Files that are read after `calibration`, in this order, as one text. */
    const char *const *more_texts;
    size_t more_text_count;
    /* A file of the teacher's predictions for this text, for a teacher that has no room
     * beside its student: used where it is one, else made first, by the teacher alone, and
     * kept for the next run. Of each token teacher_top predictions are in it (0: 64), at
     * most all; what is left counts as one. lambda must be 0. NULL: no such file; both
     * models are in memory. */
    const char *teacher_cache;
    unsigned teacher_top;
    /* The steps are split over so many rounds; between two of them symbols are chosen again
     * under what was learnt, and kept where that brings the divergence on the held-out
     * windows down. Tells `step` "event": "reassign" for each stage of each block. Not with
     * teacher_cache. 0, 1: one round, and symbols stay. */
    unsigned rounds;
} novaq_refine_options;

#define NOVAQ_REFINE_OPTIONS_INIT                                                                  \
    {                                                                                              \
        sizeof(novaq_refine_options), 0, 0, 0, 0, 0, "self", 0, 512, 2, 3e-3, -1, -1, 0, 1, 64,    \
            42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0                                              \
    }

/* Teaches an artifact by its source: codebooks, row scales, gains and biases change, and
 * symbols between rounds alone. Measured on windows of the text that are not learnt from, as
 * stored; the best values found are written, those that came in where nothing was better.
 * Stopped by the progress callback, failed or killed, a run leaves its checkpoint, and the
 * same call goes on from it, to the same bytes. *report (may be NULL): steps, best_step,
 * held_out_kl, held_out_perplexity (each before, after), seconds of this call, warnings, and
 * the summary. */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_refine(char **report, const novaq_refine_options *opt,
                                                novaq_error *err);

/* ---- artifacts and sources --------------------------------------------- */

/* Structure only (manifest, piece bounds, sizes): fast, reads no weights. */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_validate(char **report, const char *path,
                                                  novaq_error *err);

/* validate, then every SHA-256 and BLAKE3, then a full decode.
 * NOVAQ_E_VERIFY says what does not hold. */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_verify(char **report, const char *path, unsigned threads,
                                                novaq_progress_fn progress, void *progress_ctx,
                                                novaq_error *err);

/* Size and error telemetry of an artifact, or size figures of a source. Keys:
 * bytes, bits_per_weight, bits_per_weight_linear, ratio_fp16, ratio_fp32,
 * parameters, layers (object by tensor name). */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_stats(char **report, const char *path, novaq_error *err);

/* What a model is: architecture, hyperparameters, tokenizer, tensor list. */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_info(char **report, const char *path, novaq_error *err);

typedef struct novaq_export_options {
    size_t struct_size;
    const char *input;  /* artifact or source */
    const char *output; /* file (gguf) or directory (safetensors) */
    const char *format; /* "gguf" or "safetensors" */
    const char *dtype;  /* "f16" (default), "f32" or "bf16" for matrices */
    unsigned threads;
    novaq_progress_fn progress;
    void *progress_ctx;
} novaq_export_options;

#define NOVAQ_EXPORT_OPTIONS_INIT                                                                  \
    { sizeof(novaq_export_options), 0, 0, "gguf", "f16", 0, 0, 0 }

/* Writes dequantized weights (rotation undone), hyperparameters and tokenizer
 * for other tools. */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_export(char **report, const novaq_export_options *opt,
                                                novaq_error *err);

/* ---- running ----------------------------------------------------------- */

typedef struct novaq_model novaq_model; /* weights, tokenizer; read-only once open */

typedef struct novaq_model_options {
    size_t struct_size;
    unsigned threads; /* 0 = one per online CPU */
} novaq_model_options;

#define NOVAQ_MODEL_OPTIONS_INIT                                                                   \
    { sizeof(novaq_model_options), 0 }

/* Opens a source or an artifact for running. An architecture the runtime does
 * not know is NOVAQ_E_UNSUPPORTED, by name. Release with novaq_model_close(). */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_model_open(novaq_model **out, const char *path,
                                                    const novaq_model_options *opt,
                                                    novaq_error *err);
/* Frees *m and everything borrowed from it, and nulls it. NULL is fine. */
NOVAQ_API void novaq_model_close(novaq_model **m);

/* Text to token ids. add_special: BOS/EOS as the model's own settings say.
 * parse_special: special tokens written out in the text become their ids.
 * *ids is released with novaq_free(). */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_tokenize(int32_t **ids, size_t *count,
                                                  const novaq_model *m, const char *text,
                                                  size_t len, int add_special, int parse_special,
                                                  novaq_error *err);

/* Token ids to text bytes; *text is NUL-terminated, released by novaq_free(). */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_detokenize(char **text, size_t *len, const novaq_model *m,
                                                    const int32_t *ids, size_t count,
                                                    int skip_special, novaq_error *err);

typedef struct novaq_eval_options {
    size_t struct_size;
    const char *model;     /* source or artifact */
    const char *against;   /* source to measure KL against, or NULL */
    const char *text_file; /* raw text; NULL with kl_divergence */
    unsigned n_ctx;        /* window, default 512; its second half is scored */
    unsigned chunks;       /* 0 = all */
    int layer_kl;          /* with against: KL caused by each layer alone */
    unsigned threads;
    novaq_progress_fn progress;
    void *progress_ctx;
    /* File of llama-perplexity's --kl-divergence-base, or NULL: receives the
     * model's predictions, or, with kl_divergence, is what the model is measured
     * against; text and window are then the file's, `against` is not used. */
    const char *kl_base;
    int kl_divergence;
    /* 1: coded matrices are multiplied as when the model is run, with activations of 8
     * bits; 0: as float32, the same on every CPU. */
    int fast;
} novaq_eval_options;

#define NOVAQ_EVAL_OPTIONS_INIT                                                                    \
    { sizeof(novaq_eval_options), 0, 0, 0, 512, 0, 0, 0, 0, 0, 0, 0, 0 }

/* Perplexity by llama-perplexity's protocol. Keys: perplexity,
 * perplexity_stderr, chunks, tokens, arithmetic ("float32" or "int8"); with against
 * or kl_divergence: mean_kld, same_top, ... */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_eval(char **report, const novaq_eval_options *opt,
                                              novaq_error *err);

typedef struct novaq_ablation_options {
    size_t struct_size;
    const char *model;     /* source */
    const char *text_file; /* raw text */
    unsigned n_ctx;        /* window, default 512 */
    unsigned chunks;       /* 0 = all */
    const char *folder;    /* where artifacts live while they are measured; NULL = /tmp */
    /* What is ablated; input, output, single_file and progress are not used. With refine the
     * full variant is refined, and no other: what it was before is one more row. */
    const novaq_compress_options *compress;
    /* Names of rows, separated by commas; NULL = all. The full variant, and with refine what
     * it was before, are always there. */
    const char *variants;
    unsigned threads;
    novaq_progress_fn progress;
    void *progress_ctx;
} novaq_ablation_options;

#define NOVAQ_ABLATION_OPTIONS_INIT                                                                \
    { sizeof(novaq_ablation_options), 0, 0, 512, 0, 0, 0, 0, 0, 0, 0 }

/* Compresses the model as asked, then again with one part of the codec left out
 * at a time (each tensor keeps its rate), and measures every variant against the
 * source. Keys: rows (array of variant, changed, perplexity, mean_kld,
 * bits_per_weight_linear, ...; with refine also refined, true or false). A variant that
 * cannot be made has `failed`; with refine, refinement is what novaq_refine() reports. Needs
 * 2 bytes per scored token and vocabulary entry in `folder`; leaves nothing there. */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_ablation(char **report, const novaq_ablation_options *opt,
                                                  novaq_error *err);

/* A conversation for the model's chat template (a bounded subset of Jinja). */
typedef struct novaq_chat_options {
    size_t struct_size;
    const char *messages;      /* JSON: [{"role": "user", "content": "..."}, ...] */
    const char *tools;         /* JSON array of tools, or NULL */
    const char *variables;     /* JSON object of further variables, or NULL */
    const char *chat_template; /* instead of the model's own, or NULL */
    int no_generation_prompt;  /* 1: stop before the words that begin an answer */
    int64_t now;               /* local time in seconds since 1970 that strftime_now() tells;
                                  0: the template has no clock */
} novaq_chat_options;

#define NOVAQ_CHAT_OPTIONS_INIT                                                                    \
    { sizeof(novaq_chat_options), 0, 0, 0, 0, 0, 0 }

/* The text a conversation becomes; tokenize it without add_special and with
 * parse_special. NOVAQ_E_UNSUPPORTED when there is no template; NOVAQ_E_ARG with
 * the template's own words when it refuses the conversation. */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_chat_render(char **text, size_t *len, const novaq_model *m,
                                                     const novaq_chat_options *opt,
                                                     novaq_error *err);

typedef struct novaq_generate_options {
    size_t struct_size;
    const char *prompt;
    unsigned max_tokens;  /* default 128 */
    float temperature;    /* 0 = greedy */
    unsigned top_k;       /* 0 = off */
    float top_p;          /* 1 = off */
    float min_p;          /* 0 = off */
    float repeat_penalty; /* 1 = off; over the last 64 tokens */
    uint64_t seed;
    int parse_special;
    int ignore_eos;
    novaq_text_fn text;
    void *text_ctx;
    const novaq_chat_options *chat; /* instead of prompt */
    const char *const *stop;        /* UTF-8 texts that end a generation and are not part of it */
    size_t stop_count;
    /* Of novaq_generate() only; a session has its own. */
    unsigned n_ctx;      /* positions; 0: what prompt and max_tokens need */
    const char *kv_type; /* key/value cache: "f16" (NULL), "f32" or "q8" */
} novaq_generate_options;

#define NOVAQ_GENERATE_OPTIONS_INIT                                                                \
    {                                                                                              \
        sizeof(novaq_generate_options), 0, 128, 0.8F, 40, 0.95F, 0.05F, 1.0F, 42, 1, 0, 0, 0, 0,   \
            0, 0, 0, 0                                                                             \
    }

/* Continues the prompt. *report (may be NULL): text, prompt_tokens, reused_tokens,
 * tokens, seconds, prompt_seconds, generate_seconds, n_ctx, stop ("eos", "length",
 * "callback", "context", "stop"). Same seed, same text. */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_generate(char **report, novaq_model *m,
                                                  const novaq_generate_options *opt,
                                                  novaq_error *err);

/* A key/value cache that outlives a generation. The model must outlive it, and
 * generations of one model take turns. */
typedef struct novaq_session novaq_session;

typedef struct novaq_session_options {
    size_t struct_size;
    unsigned n_ctx;      /* positions; 0: the model's context, at most 8192 */
    const char *kv_type; /* "f16" (NULL), "f32" or "q8" */
} novaq_session_options;

#define NOVAQ_SESSION_OPTIONS_INIT                                                                 \
    { sizeof(novaq_session_options), 0, 0 }

NOVAQ_API NOVAQ_CHECK novaq_status novaq_session_open(novaq_session **out, novaq_model *m,
                                                      const novaq_session_options *opt,
                                                      novaq_error *err);
/* Frees *s and nulls it. NULL is fine. */
NOVAQ_API void novaq_session_close(novaq_session **s);
/* Positions the session has in all. */
NOVAQ_API unsigned novaq_session_n_ctx(const novaq_session *s);
/* As novaq_generate(): prompt or chat is the whole text, and what it has in common
 * with what the session has seen is not computed again. */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_session_generate(char **report, novaq_session *s,
                                                          const novaq_generate_options *opt,
                                                          novaq_error *err);

typedef struct novaq_bench_options {
    size_t struct_size;
    const char *model; /* source or artifact; NULL with synthetic */
    /* Lists; NULL or a count of 0 is the default. A 0 in the first two is left out. */
    const unsigned *prompt; /* tokens of each prompt that is processed; default 512 */
    size_t prompt_count;
    const unsigned *generate; /* tokens generated one by one; default 128 */
    size_t generate_count;
    const unsigned *depth; /* positions that are filled before; default 0 */
    size_t depth_count;
    const unsigned *threads; /* 0 = one per online CPU, the default */
    size_t threads_count;
    unsigned repetitions; /* of each test, default 5 */
    const char *kv_type;  /* key/value cache: "f16" (NULL), "f32" or "q8" */
    /* Instead of a model: the shape of one ("llama-1b", ...), filled with random
     * content of a scheme, or of 1, 1.5, 2, 3 or 4 bits per weight. */
    const char *synthetic;
    const char *scheme;
    double bits;
    const char *const *tensor_types; /* "REGEX=SCHEME", first match wins */
    size_t tensor_type_count;
    uint64_t seed;
    const char *keep; /* where that artifact stays; NULL: a temporary folder, removed */
    novaq_progress_fn progress;
    void *progress_ctx;
} novaq_bench_options;

#define NOVAQ_BENCH_OPTIONS_INIT                                                                   \
    { sizeof(novaq_bench_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2.0, 0, 0, 42, 0, 0, 0 }

/* How fast a model runs. Keys: name, bytes, parameters, bits_per_weight, kernel,
 * kv_type, load_ms, peak_memory (bytes), tests (array of test ("pp512", "tg128",
 * "tg128 @ d1024"), threads, prompt, generate, depth, tokens_per_second, stddev,
 * samples). Needs no tokenizer; tokens are random. */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_bench(char **report, const novaq_bench_options *opt,
                                               novaq_error *err);

/* The shapes that opt.synthetic may name, as JSON: shapes, an array of name,
 * architecture, embedding_length, feed_forward_length, block_count, head_count,
 * head_count_kv, vocab_size, context_length, tied (whether the head is the embedding). */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_bench_shapes(char **report, novaq_error *err);

/* Kernel and codec self-measurements, as JSON: for "gaussian", the MSE of each
 * scheme on unit Gaussian data beside the rate-distortion bound. */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_bench_codec(char **report, const char *schemes,
                                                     unsigned threads, novaq_error *err);

/* How fast symbols are chosen, as JSON: schemes, an array of scheme, kernel (a
 * variant this machine can run; all of them find the same symbols),
 * weights_per_second_per_core and mse. NULL schemes: a choice of them. */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_bench_encoder(char **report, const char *schemes,
                                                       unsigned threads, novaq_error *err);

/* How fast weights are multiplied, coded or plain, as JSON: read_bytes_per_second
 * (what the memory gives all threads), kernels (array of scheme, kernel, rows, cols,
 * weights_per_second and bytes_per_second of weights from memory with all threads,
 * cached_weights_per_second_per_core, bandwidth_share) and, where k16d2l2 was among
 * them, gemv_2bit_bandwidth_share. Beside schemes there is q8_0, the blocks of GGUF.
 * NULL schemes: a choice of them. */
NOVAQ_API NOVAQ_CHECK novaq_status novaq_bench_kernels(char **report, const char *schemes,
                                                       unsigned threads, novaq_error *err);

#ifdef __cplusplus
}
#endif
#endif

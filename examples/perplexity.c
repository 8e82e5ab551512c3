/* perplexity.c - measure a model on a text, then let it continue a sentence.
 *
 * The whole use of libnovaq in one page: options with their _INIT, errors in
 * the caller's struct, reports as JSON, progress and text by callback.
 *
 *   cc perplexity.c $(pkg-config --cflags --libs novaq) -o perplexity
 *   ./perplexity MODEL TEXTFILE
 */
#include <novaq.h>

#include <stdio.h>

static int show_progress(void *ctx, const novaq_progress *p) {
    (void)ctx;
    (void)fprintf(stderr, "\r%s %llu of %llu %s", p->phase, (unsigned long long)p->done,
                  (unsigned long long)p->total, p->unit);
    return 0; /* anything else stops the work: NOVAQ_E_INTERRUPTED */
}

static int show_text(void *ctx, const char *text, size_t len) {
    return fwrite(text, 1, len, (FILE *)ctx) == len ? 0 : 1;
}

/* Prints the report of novaq_eval(): {"perplexity": ..., "chunks": ...} */
static novaq_status measure(const char *model, const char *text_file, novaq_error *err) {
    novaq_eval_options opt = NOVAQ_EVAL_OPTIONS_INIT;
    opt.model = model; /* a source (GGUF, SafeTensors) or a novaq artifact alike */
    opt.text_file = text_file;
    opt.chunks = 4;
    opt.progress = show_progress;
    char *report = NULL;
    novaq_status st = novaq_eval(&report, &opt, err);
    if (st == NOVAQ_OK) {
        (void)fprintf(stderr, "\n");
        (void)puts(report);
    }
    novaq_free(report);
    return st;
}

static novaq_status continue_text(const char *path, novaq_error *err) {
    novaq_model_options how = NOVAQ_MODEL_OPTIONS_INIT;
    novaq_model *model = NULL;
    novaq_status st = novaq_model_open(&model, path, &how, err);
    if (st == NOVAQ_OK) {
        novaq_generate_options opt = NOVAQ_GENERATE_OPTIONS_INIT;
        opt.prompt = "The sea was calm that evening, and";
        opt.max_tokens = 32;
        opt.temperature = 0;
        opt.text = show_text;
        opt.text_ctx = stdout;
        st = novaq_generate(NULL, model, &opt, err);
        (void)puts("");
    }
    novaq_model_close(&model);
    return st;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        (void)fprintf(stderr, "usage: perplexity MODEL TEXTFILE\n");
        return 2;
    }
    novaq_error err;
    novaq_status st = measure(argv[1], argv[2], &err);
    if (st == NOVAQ_OK) {
        st = continue_text(argv[1], &err);
    }
    if (st != NOVAQ_OK) {
        (void)fprintf(stderr, "perplexity: %s: %s\n", novaq_status_name(st), err.msg);
        return 1;
    }
    return 0;
}

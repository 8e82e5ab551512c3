/* fuzz_model.h - running a model that may be hostile: open, generate.
 */
#ifndef NQ_TESTS_FUZZ_MODEL_H
#define NQ_TESTS_FUZZ_MODEL_H

#include "fuzz.h"

static void fuzz_run_model(const char *path) {
    novaq_error err = {0};
    novaq_model *m = NULL;
    novaq_model_options opt = NOVAQ_MODEL_OPTIONS_INIT;
    opt.threads = 1;
    novaq_status st = novaq_model_open(&m, path, &opt, &err);
    fuzz_check_error(st, &err);
    FUZZ_CHECK((st == NOVAQ_OK) == (m != NULL));
    if (st == NOVAQ_OK) {
        novaq_generate_options g = NOVAQ_GENERATE_OPTIONS_INIT;
        g.prompt = "Hello w";
        g.max_tokens = 2;
        char *report = NULL;
        st = novaq_generate(&report, m, &g, &err);
        fuzz_check_error(st, &err);
        novaq_free(report);
    }
    novaq_model_close(&m);
}

#endif

/* compress.c - novaq_compress() and novaq_plan(): what is done in which order.
 *
 * The source is opened once; all that reads it reads through one nq_tensors. Refuses:
 * running the model (eval/ does).
 */
#include "artifact/manifest.h"
#include "base/mem.h"
#include "compress/job.h"

/* ---- the two entry points ----------------------------------------------------------- */

static novaq_status dump_report(char **report, json_t *value, novaq_error *err) {
    novaq_status st = report != NULL ? nq_json_dump(report, value, 2, err) : NOVAQ_OK;
    json_decref(value);
    return st;
}

/* Plans again with what an error in each matrix really costs. */
static novaq_status replan(nq_compress_job *j, novaq_error *err) {
    bool planned = false;
    for (size_t i = 0; i < j->recipe.count; i++) {
        planned = planned || j->recipe.tensors[i].planned;
    }
    if (!planned || j->recipe.opt->paper || j->calibration.sequences == 0) {
        return NOVAQ_OK;
    }
    if (nq_intake_is_remote(j->ts) && !j->held) { /* it takes many passes over the model */
        return nq_recipe_warn(&j->recipe, err,
                              "planned from statistics of the weights: the model does not fit in "
                              "memory, which measuring what errors cost needs");
    }
    nq_sensitivity *s = NULL;
    NQ_TRY(nq_alloc(&s, j->recipe.count, sizeof *s, err));
    novaq_status st = nq_job_sensitivities(s, j, err);
    if (st == NOVAQ_OK) {
        st = nq_recipe_replan(&j->recipe, s, err);
    }
    nq_free(s);
    return st;
}

/* With calibration the matrices of the blocks come first, in the order the model
 * computes; all else as the source has it. */
static novaq_status store_all(nq_compress_job *j, novaq_error *err) {
    NQ_TRY(nq_alloc(&j->written, j->recipe.count + 1, sizeof *j->written, err));
    for (size_t i = 0; i < j->recipe.count; i++) {
        j->total += j->recipe.tensors[i].src->bytes;
    }
    NQ_TRY(nq_job_progress(j, "", err));
    if (j->calibration.sequences > 0) {
        NQ_TRY(nq_job_calibrated(j, err));
    }
    return nq_job_store_rest(j, err);
}

/* Names the source by what it holds, not by where it lies; where that was is told beside
 * the artifact. A model's name, where it is that of its folder, is left out likewise. */
static novaq_status finish(json_t **summary, nq_compress_job *j, const json_t *config,
                           novaq_error *err) {
    json_t *source = NULL;
    json_t *origin = NULL;
    char *locator = NULL;
    size_t promised = 0;
    novaq_status st = nq_tensors_verified(&j->verified, &promised, j->ts, err);
    j->refuted = st == NOVAQ_E_VERIFY;
    if (st == NOVAQ_OK && j->verified < promised && nq_intake_received(j->ts) > 0) {
        st = nq_recipe_warn(&j->recipe, err,
                            "SHA-256 of %zu of %zu files not checked: they were not read in one go "
                            "from end to end",
                            promised - j->verified, promised);
    }
    if (st == NOVAQ_OK) {
        st = nq_intake_source(&source, &j->intake, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_files_origin(&origin, nq_tensors_files(j->ts), err);
    }
    if (st == NOVAQ_OK) {
        st = nq_asprintf(&locator, err, "%s%s", NQ_SOURCE_PREFIX,
                         json_string_value(json_object_get(source, "blake3")));
    }
    if (st == NOVAQ_OK && nq_tensors_format(j->ts) != NQ_FORMAT_GGUF) {
        (void)json_object_del(j->model, "name");
    }
    if (st == NOVAQ_OK) {
        nq_writer_set_source(j->writer, source, origin);
        st = nq_writer_finish(&j->writer, locator, config, j->model, summary, err);
    }
    nq_free(locator);
    json_decref(source);
    json_decref(origin);
    return st;
}

static novaq_status run_job(json_t **summary, nq_compress_job *j, const json_t *config,
                            novaq_error *err) {
    NQ_TRY(nq_job_open_writer(j, config, err));
    NQ_TRY(nq_job_calibration(j, err));
    NQ_TRY(replan(j, err));
    NQ_TRY(store_all(j, err));
    return finish(summary, j, config, err);
}

/* What the report tells besides the manifest's summary. */
static void complete_report(json_t *summary, const nq_compress_job *j) {
    double coded = (double)j->recipe.coded_elements;
    json_object_set_new(summary, "output", json_string(j->recipe.opt->output));
    json_object_set(summary, "warnings", j->recipe.warnings);
    json_object_set(summary, "bytes", json_object_get(summary, "total_bytes"));
    json_object_set(summary, "parameters", json_object_get(summary, "total_parameters"));
    json_object_set_new(summary, "bits_per_weight_quantized",
                        json_real(coded > 0 ? 8.0 * (double)j->coded_bytes / coded : 0));
    json_object_set_new(summary, "received_bytes",
                        json_integer((json_int_t)nq_intake_received(j->ts)));
    json_object_set_new(summary, "verified_files", json_integer((json_int_t)j->verified));
    nq_intake_left_out(summary, j->ts);
    if (j->resumed > 0) {
        json_object_set_new(summary, "resumed",
                            json_pack("{s:I, s:I}", "tensors", (json_int_t)j->resumed, "bytes",
                                      (json_int_t)j->resumed_bytes));
    }
}

static novaq_status write_artifact(char **report, nq_compress_job *j, novaq_error *err) {
    json_t *config = NULL;
    json_t *summary = NULL;
    novaq_status st = nq_recipe_config(&config, &j->recipe, err);
    if (st == NOVAQ_OK) {
        st = run_job(&summary, j, config, err);
    }
    if (st != NOVAQ_OK) {
        st = nq_job_give_up(j, st, err);
    }
    json_decref(config);
    if (st == NOVAQ_OK) {
        complete_report(summary, j);
        st = dump_report(report, summary, err);
    }
    return st;
}

static novaq_status check_paths(const novaq_compress_options *o, int writing, novaq_error *err) {
    if (o == NULL || o->input == NULL || o->input[0] == '\0') {
        return nq_fail(err, NOVAQ_E_ARG, "no input given");
    }
    if (writing && (o->output == NULL || o->output[0] == '\0')) {
        return nq_fail(err, NOVAQ_E_ARG, "no output given");
    }
    return NOVAQ_OK;
}

static bool asked_to_stop(void *ctx) {
    const novaq_compress_options *o = ctx;
    return o->stop != NULL && o->stop(o->stop_ctx) != 0;
}

/* Refining comes last: hours before it is known that a model cannot be its own teacher. */
static novaq_status check_teacher(const nq_compress_job *j, novaq_error *err) {
    nq_hyper h;
    if (j->recipe.opt->refine == 0) {
        return NOVAQ_OK;
    }
    novaq_status st = nq_hyper_read(&h, j->model, j->recipe.opt->input, err);
    return st == NOVAQ_OK ? st : nq_fail_context(err, st, "refining");
}

static novaq_status open_job(nq_compress_job *j, const novaq_compress_options *o,
                             novaq_error *err) {
    *j = (nq_compress_job){.recipe = {.opt = o}};
    nq_files *files = NULL;
    NQ_TRY(nq_files_open_with(&files, o->input, asked_to_stop, (void *)(uintptr_t)o, err));
    NQ_TRY(nq_model_tensors_open_files(&j->ts, &files, err));
    j->recipe.ts = j->ts;
    nq_tensors_on_wait(j->ts, nq_job_tick, j);
    NQ_TRY(nq_intake_open(&j->intake, j->ts, o->max_memory, err));
    NQ_TRY(nq_pool_open(&j->pool, o->threads, err));
    NQ_TRY(nq_describe(&j->model, j->ts, err));
    NQ_TRY(check_teacher(j, err));
    NQ_TRY(nq_recipe_make(&j->recipe, j->ts, o, err));
    const json_t *h = json_object_get(j->model, "hyperparameters");
    j->recipe.all_experts = json_integer_value(json_object_get(h, "expert_count")) > 0;
    return NOVAQ_OK;
}

/* What comes before must not fetch much, what comes after may fetch all. */
static novaq_status decide(nq_compress_job *j, novaq_error *err) {
    NQ_TRY(nq_recipe_decide(&j->recipe, j->pool, err));
    j->held = j->recipe.held;
    j->recipe.encode.correct_share = j->recipe.opt->propagate != 0 ? 1 : 0;
    return NOVAQ_OK;
}

static void close_job(nq_compress_job *j) {
    nq_recipe_close(&j->recipe);
    nq_calibration_close(&j->calibration);
    nq_free(j->written);
    nq_intake_close(&j->intake);
    json_decref(j->model);
    nq_pool_close(&j->pool);
    nq_tensors_close(&j->ts);
}

novaq_status novaq_compress(char **report, const novaq_compress_options *opt, novaq_error *err) {
    if (report != NULL) {
        *report = NULL;
    }
    NQ_TRY(check_paths(opt, 1, err));
    if (opt->refine != 0) { /* which writes to another place first */
        NQ_TRY(nq_writer_probe(opt->output, opt->single_file, err));
        return nq_compress_refined(report, opt, err);
    }
    return nq_compress_plain(report, opt, err);
}

novaq_status nq_compress_plain(char **report, const novaq_compress_options *opt, novaq_error *err) {
    nq_compress_job j;
    novaq_status st = open_job(&j, opt, err);
    if (st == NOVAQ_OK) {
        st = nq_job_check_target(&j, err);
    }
    if (st == NOVAQ_OK) {
        st = decide(&j, err);
    }
    if (st == NOVAQ_OK) {
        st = write_artifact(report, &j, err);
    }
    close_job(&j);
    return st;
}

novaq_status novaq_plan(char **report, const novaq_compress_options *opt, novaq_error *err) {
    *report = NULL;
    NQ_TRY(check_paths(opt, 0, err));
    nq_compress_job j;
    json_t *plan = NULL;
    novaq_status st = open_job(&j, opt, err);
    if (st == NOVAQ_OK) {
        st = decide(&j, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_job_calibration(&j, err);
    }
    if (st == NOVAQ_OK) {
        st = replan(&j, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_recipe_report(&plan, &j.recipe, j.ts, err);
    }
    if (st == NOVAQ_OK) {
        nq_intake_left_out(plan, j.ts);
        st = dump_report(report, plan, err);
    }
    close_job(&j);
    return st;
}

/* refine_rounds.c - see refine_rounds.h. */
#include "compress/refine_rounds.h"

#include <string.h>

#include "base/mem.h"
#include "compress/job.h"

/* The key by which an artifact in between is known again. */
#define RUN "run"

typedef struct rounds {
    const novaq_refine_options *opt;
    const nq_rounds_host *host;
    char *base;      /* of the names in between: the output without slashes at its end */
    json_t *history; /* array: for each round steps, steps_done, best_step, held_out_kl,
                        held_out_perplexity, and reassigned, where symbols were after it */
    char *report;    /* of the last round so far */
    nq_round round;  /* that one: the host looks at it until the next */
} rounds;

/* ---- artifacts in between ---------------------------------------------------------- */

static novaq_status name_of(char **out, const rounds *r, const char *what, unsigned number,
                            novaq_error *err) {
    return nq_asprintf(out, err, "%s.%s%u", r->base, what, number);
}

static void remove_all(const rounds *r) {
    for (unsigned k = 1; k < r->opt->rounds; k++) {
        char *name = NULL;
        if (name_of(&name, r, "round", k, NULL) == NOVAQ_OK) {
            nq_remove_artifact(name);
            nq_free(name);
        }
        if (name_of(&name, r, "symbols", k, NULL) == NOVAQ_OK) {
            nq_remove_artifact(name);
            nq_free(name);
        }
    }
}

/* *record: a new reference to what the artifact at `path` says of its refinement, NULL
 * where there is none, or of another run. */
static void recall(json_t **record, const char *path, const char *run) {
    nq_artifact *a = NULL;
    *record = NULL;
    if (!nq_artifact_probe(path) || nq_artifact_open(&a, path, NULL) != NOVAQ_OK) {
        return;
    }
    json_t *config =
        json_object_get(json_object_get(nq_artifact_manifest(a), "quantization"), "config");
    json_t *found = json_object_get(config, "refinement");
    const char *key = json_string_value(json_object_get(found, RUN));
    if (key != NULL && strcmp(key, run) == 0) {
        *record = json_deep_copy(found);
    }
    nq_artifact_close(&a);
}

novaq_status nq_round_recall(char **report, const nq_round *r, const char *identity,
                             novaq_error *err) {
    json_t *record = NULL;
    *report = NULL;
    if (r->number == r->count || r->opt.restart != 0) {
        return NOVAQ_OK;
    }
    recall(&record, r->opt.output, identity);
    novaq_status st = record != NULL ? nq_json_dump(report, record, 0, err) : NOVAQ_OK;
    json_decref(record);
    return st;
}

/* ---- lines ---------------------------------------------------------------------------- */

static void add_to(json_t *line, const char *key, unsigned steps) {
    const json_t *number = json_object_get(line, key);
    if (number != NULL) {
        json_object_set_new(line, key,
                            json_integer(json_integer_value(number) + (json_int_t)steps));
    }
}

void nq_round_line(json_t *line, const nq_round *r) {
    json_object_set_new(line, "round", json_integer((json_int_t)r->number));
    json_object_set_new(line, "rounds", json_integer((json_int_t)r->count));
    add_to(line, "step", r->first);
    add_to(line, "best_step", r->first);
    add_to(line, "steps", r->steps - r->opt.steps);
}

/* ---- what is said of them ------------------------------------------------------------- */

/* A round in the history. */
static json_t *entry_of(const json_t *record) {
    static const char *const keys[] = {"steps", "steps_done", "best_step", "held_out_kl",
                                       "held_out_perplexity"};
    json_t *entry = json_object();
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        json_object_set(entry, keys[i], json_object_get(record, keys[i]));
    }
    return entry;
}

static json_int_t sum_of(const json_t *history, const char *key) {
    json_int_t sum = 0;
    for (size_t i = 0; i < json_array_size(history); i++) {
        sum += json_integer_value(json_object_get(json_array_get(history, i), key));
    }
    return sum;
}

/* Where the first round began is where all of it did. */
static void begin_with(json_t *record, const json_t *first, const char *key) {
    json_t *both = json_deep_copy(json_object_get(record, key));
    json_object_set(both, "before", json_object_get(json_object_get(first, key), "before"));
    json_object_set_new(record, key, both);
}

novaq_status nq_round_record(json_t *record, const nq_round *r, const char *identity,
                             novaq_error *err) {
    if (r->number < r->count) {
        return json_object_set_new(record, RUN, json_string(identity)) == 0
                   ? NOVAQ_OK
                   : nq_fail(err, NOVAQ_E_MEMORY, "cannot build the manifest");
    }
    json_t *list = json_deep_copy(r->history);
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *reassigned = json_object_get(json_array_get(list, i), "reassigned");
        (void)json_object_del(reassigned, "blocks");
    }
    const json_t *first = json_array_get(r->history, 0);
    json_int_t best = json_integer_value(json_object_get(record, "best_step"));
    json_array_append_new(list, entry_of(record));
    begin_with(record, first, "held_out_kl");
    begin_with(record, first, "held_out_perplexity");
    json_object_set_new(record, "best_step", json_integer((json_int_t)r->first + best));
    json_object_set_new(record, "steps", json_integer(sum_of(list, "steps")));
    json_object_set_new(record, "steps_done", json_integer(sum_of(list, "steps_done")));
    return json_object_set_new(record, "rounds", list) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_MEMORY, "cannot build the manifest");
}

/* ---- a round -------------------------------------------------------------------------------- */

static unsigned steps_until(const rounds *r, unsigned number) {
    return (unsigned)((uint64_t)r->opt->steps * number / r->opt->rounds);
}

/* artifact and output are the caller's to free. */
static novaq_status choose(char **artifact, char **output, rounds *r, unsigned number,
                           novaq_error *err) {
    bool last = number == r->opt->rounds;
    nq_round *round = &r->round;
    *round = (nq_round){
        .opt = *r->opt, .number = number, .count = r->opt->rounds, .history = r->history};
    round->opt.rounds = 1;
    round->first = steps_until(r, number - 1);
    round->steps = r->opt->steps;
    round->opt.steps = steps_until(r, number) - round->first;
    if (number > 1) {
        NQ_TRY(name_of(artifact, r, "symbols", number - 1, err));
        round->opt.artifact = *artifact;
    }
    if (!last) {
        NQ_TRY(name_of(output, r, "round", number, err));
        round->opt.output = *output;
        round->opt.single_file = 1;
    }
    return NOVAQ_OK;
}

static novaq_status refine(rounds *r, unsigned number, novaq_error *err) {
    char *artifact = NULL;
    char *output = NULL;
    json_t *record = NULL;
    nq_free(r->report);
    r->report = NULL;
    novaq_status st = choose(&artifact, &output, r, number, err);
    if (st == NOVAQ_OK) {
        st = r->host->refine(r->host->ctx, &r->report, &r->round, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_json_parse_object(&record, "report", r->report, strlen(r->report), err);
    }
    if (st == NOVAQ_OK && number < r->opt->rounds) {
        json_t *entry = entry_of(record);
        json_object_set(entry, RUN, json_object_get(record, RUN));
        json_array_append_new(r->history, entry);
    }
    json_decref(record);
    nq_free(artifact);
    nq_free(output);
    return st;
}

/* ---- new symbols --------------------------------------------------------------------------------
 */

static novaq_status reassign_to(json_t *record, const rounds *r, const char *before,
                                const char *artifact, const char *output, novaq_error *err) {
    nq_reassign_options o = {
        .artifact = artifact, .before = before, .output = output, .record = record};
    r->host->lend(r->host->ctx, &o);
    return nq_reassign(&o, err);
}

static novaq_status reassign(rounds *r, unsigned number, novaq_error *err) {
    json_t *entry = json_array_get(r->history, number - 1);
    const char *run = json_string_value(json_object_get(entry, RUN));
    char *before = NULL; /* NULL: the one that came in */
    char *artifact = NULL;
    char *output = NULL;
    char *key = NULL;
    json_t *record = NULL;
    novaq_status st = name_of(&artifact, r, "round", number, err);
    if (st == NOVAQ_OK) {
        st = name_of(&output, r, "symbols", number, err);
    }
    if (st == NOVAQ_OK && number > 1) {
        st = name_of(&before, r, "symbols", number - 1, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_asprintf(&key, err, "%s symbols", run != NULL ? run : "");
    }
    if (st == NOVAQ_OK && r->opt->restart == 0) {
        recall(&record, output, key);
    }
    if (st == NOVAQ_OK && record == NULL) {
        record = json_pack("{s:s}", RUN, key);
        st = record != NULL ? reassign_to(record, r, before != NULL ? before : r->opt->artifact,
                                          artifact, output, err)
                            : nq_fail(err, NOVAQ_E_MEMORY, "cannot build the manifest");
    }
    if (st == NOVAQ_OK) {
        (void)json_object_del(entry, RUN);
        json_object_set(entry, "reassigned", json_object_get(record, "reassigned"));
    }
    json_decref(record);
    nq_free(before);
    nq_free(artifact);
    nq_free(output);
    nq_free(key);
    return st;
}

/* ---- all of it
 * ------------------------------------------------------------------------------------- */

/* The manifest says less of each reassignment than the report. */
static novaq_status complete(char **report, const rounds *r, novaq_error *err) {
    json_t *whole = NULL;
    NQ_TRY(nq_json_parse_object(&whole, "report", r->report, strlen(r->report), err));
    const json_t *list = json_object_get(whole, "rounds");
    for (size_t i = 0; i < json_array_size(r->history); i++) {
        json_object_set(json_array_get(list, i), "reassigned",
                        json_object_get(json_array_get(r->history, i), "reassigned"));
    }
    novaq_status st = nq_json_dump(report, whole, 0, err);
    json_decref(whole);
    return st;
}

static novaq_status run(char **report, rounds *r, novaq_error *err) {
    size_t len = strlen(r->opt->output);
    while (len > 1 && r->opt->output[len - 1] == '/') {
        len--;
    }
    NQ_TRY(nq_asprintf(&r->base, err, "%.*s", (int)len, r->opt->output));
    NQ_TRY(nq_writer_probe(r->opt->output, r->opt->single_file, err));
    if (r->opt->restart != 0) {
        remove_all(r);
    }
    for (unsigned number = 1; number <= r->opt->rounds; number++) {
        NQ_TRY(refine(r, number, err));
        if (number < r->opt->rounds) {
            NQ_TRY(reassign(r, number, err));
        }
    }
    if (report != NULL) {
        NQ_TRY(complete(report, r, err));
    }
    remove_all(r);
    return NOVAQ_OK;
}

novaq_status nq_refine_rounds(char **report, const novaq_refine_options *opt,
                              const nq_rounds_host *host, novaq_error *err) {
    rounds r = {.opt = opt, .host = host, .history = json_array()};
    novaq_status st = run(report, &r, err);
    json_decref(r.history);
    nq_free(r.base);
    nq_free(r.report);
    return st;
}

/* refine_rounds.h - refinement in rounds, with new symbols in between.
 *
 * Owns: the order of rounds and reassignments (compress/reassign.h), the artifacts between
 * them (OUTPUT.round1, OUTPUT.symbols1, ...), going on from those an interrupted call left,
 * removing them in the end, what the last artifact and the report say of it all. Refuses:
 * a round (refine_run.c) and a reassignment.
 */
#ifndef NQ_COMPRESS_REFINE_ROUNDS_H
#define NQ_COMPRESS_REFINE_ROUNDS_H

#include "compress/reassign.h"

typedef struct nq_round {
    novaq_refine_options opt; /* of this round alone */
    unsigned number, count;   /* from 1 */
    unsigned first, steps;    /* steps of the rounds before; of all together */
    const json_t *history;    /* array of what came before */
} nq_round;

/* Who knows how to refine, and holds what all rounds need. */
typedef struct nq_rounds_host {
    void *ctx;
    /* One round, *report as of novaq_refine(); models and text stay open for the next. */
    novaq_status (*refine)(void *ctx, char **report, const nq_round *round, novaq_error *err);
    /* Fills in what is open: everything but artifact, output and record. */
    void (*lend)(void *ctx, nq_reassign_options *o);
} nq_rounds_host;

/* opt->rounds, more than one. */
NOVAQ_CHECK novaq_status nq_refine_rounds(char **report, const novaq_refine_options *opt,
                                          const nq_rounds_host *host, novaq_error *err);

/* For the host. A line that is told: of which round it is, steps counted over all rounds. */
void nq_round_line(json_t *line, const nq_round *r);
/* The record of a round's artifact, as without rounds and with steps_done,
 * becomes what it says as one of several; identity: of the round. */
NOVAQ_CHECK novaq_status nq_round_record(json_t *record, const nq_round *r, const char *identity,
                                         novaq_error *err);
/* *report (nq_free): the record of the artifact that an interrupted call left where this
 * round's goes, if it is the same; else NULL. */
NOVAQ_CHECK novaq_status nq_round_recall(char **report, const nq_round *r, const char *identity,
                                         novaq_error *err);

#endif

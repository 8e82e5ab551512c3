/* journal.h - what a growing artifact has finished, a line at a time.
 *
 * Owns: the journal's file: appending records, reading back those that are
 * whole. Each line is a JSON object behind a hash of itself and of the line
 * before, so that a torn or foreign tail is noticed wherever it begins, and
 * dropped. Refuses: knowing what the records mean (write_resume.c does).
 * docs/FORMAT.md, section 9.
 */
#ifndef NQ_ARTIFACT_JOURNAL_H
#define NQ_ARTIFACT_JOURNAL_H

#include "base/json.h"
#include "io/fs.h"

#define NQ_CHAIN_HEX 32

typedef struct nq_record {
    json_t *json;                 /* an object */
    uint64_t end;                 /* of its line in the file */
    char chain[NQ_CHAIN_HEX + 1]; /* its hash */
} nq_record;

typedef struct nq_journal {
    nq_outfile *file; /* NULL: there is none */
    char chain[NQ_CHAIN_HEX + 1];
    nq_record *records; /* as they were read; what is appended is not among them */
    size_t count;
    size_t cap;
} nq_journal;

/* Opens the partial file of `path` and reads what is intact. Nothing is dropped
 * from the file before nq_journal_keep(). Release with _leave() or _remove(),
 * whatever the result. */
NOVAQ_CHECK novaq_status nq_journal_open(nq_journal *j, const char *path, novaq_error *err);
/* Drops all but the first `count` records, from memory and from the file. */
NOVAQ_CHECK novaq_status nq_journal_keep(nq_journal *j, size_t count, novaq_error *err);
/* Appends a record; takes over json, which may be NULL (NOVAQ_E_MEMORY). After
 * nq_journal_keep(). */
NOVAQ_CHECK novaq_status nq_journal_append(nq_journal *j, json_t *json, novaq_error *err);
/* Closes; the file stays. */
void nq_journal_leave(nq_journal *j);
/* Closes and removes the file. */
void nq_journal_remove(nq_journal *j);

#endif

/* journal_util.h - a journal as a run before never wrote it: whole and chained, with
 * records that say something else. */
#ifndef JOURNAL_UTIL_H
#define JOURNAL_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "artifact/journal.h"

/* Edits the records that have the member `kind`. path: without the dot and the
 * ".partial" of the journal's file. */
static inline void edit_journal(const char *path, const char *kind, void (*edit)(json_t *record)) {
    nq_journal j;
    size_t i;
    json_t *record;
    json_t *all = json_array();
    size_t edited = 0;
    assert_int_equal(nq_journal_open(&j, path, NULL), NOVAQ_OK);
    for (i = 0; i < j.count; i++) {
        record = json_deep_copy(j.records[i].json);
        if (json_object_get(record, kind) != NULL) {
            edit(record);
            edited++;
        }
        assert_int_equal(json_array_append_new(all, record), 0);
    }
    assert_true(edited > 0);
    assert_int_equal(nq_journal_keep(&j, 0, NULL), NOVAQ_OK);
    json_array_foreach(all, i, record) {
        assert_int_equal(nq_journal_append(&j, json_incref(record), NULL), NOVAQ_OK);
    }
    nq_journal_leave(&j);
    json_decref(all);
}

#endif

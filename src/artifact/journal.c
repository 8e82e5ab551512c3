/* journal.c - see journal.h. */
#include "artifact/journal.h"

#include <string.h>

#include "base/blake3.h"
#include "base/mem.h"

#define JOURNAL_MAX ((size_t)256 << 20)

/* The hash of a line: of the hash before it and its text. */
static void link_line(char out[NQ_CHAIN_HEX + 1], const char *before, const char *text,
                      size_t len) {
    nq_blake3 h;
    char hex[NQ_BLAKE3_HEX + 1];
    nq_blake3_init(&h);
    nq_blake3_update(&h, before, strlen(before));
    nq_blake3_update(&h, text, len);
    nq_blake3_finish(hex, &h);
    memcpy(out, hex, NQ_CHAIN_HEX);
    out[NQ_CHAIN_HEX] = '\0';
}

/* One line without its end; false when it is not what was written. */
static bool read_line(nq_journal *j, const char *line, size_t len, uint64_t end) {
    nq_record r = {.end = end};
    if (len < NQ_CHAIN_HEX + 3 || line[NQ_CHAIN_HEX] != ' ') {
        return false;
    }
    const char *text = line + NQ_CHAIN_HEX + 1;
    size_t text_len = len - NQ_CHAIN_HEX - 1;
    link_line(r.chain, j->chain, text, text_len);
    if (memcmp(r.chain, line, NQ_CHAIN_HEX) != 0) {
        return false;
    }
    if (j->count == j->cap) {
        size_t cap = j->cap == 0 ? 64 : j->cap * 2;
        if (nq_grow(&j->records, j->cap, cap, sizeof *j->records, NULL) != NOVAQ_OK) {
            return false;
        }
        j->cap = cap;
    }
    if (nq_json_parse_object(&r.json, "journal", text, text_len, NULL) != NOVAQ_OK) {
        return false;
    }
    j->records[j->count++] = r;
    memcpy(j->chain, r.chain, sizeof j->chain);
    return true;
}

static novaq_status read_lines(nq_journal *j, novaq_error *err) {
    char *text = NULL;
    uint64_t size = nq_outfile_size(j->file);
    if (size > JOURNAL_MAX) { /* none of ours */
        return NOVAQ_OK;
    }
    NQ_TRY(nq_alloc_raw(&text, size + 1, 1, err));
    novaq_status st = nq_outfile_read(j->file, 0, text, size, err);
    uint64_t at = 0;
    while (st == NOVAQ_OK && at < size) {
        const char *end = memchr(text + at, '\n', (size_t)(size - at));
        if (end == NULL) {
            break;
        }
        size_t len = (size_t)(end - (text + at));
        if (!read_line(j, text + at, len, at + len + 1)) {
            break;
        }
        at += len + 1;
    }
    nq_free(text);
    return st;
}

novaq_status nq_journal_open(nq_journal *j, const char *path, novaq_error *err) {
    *j = (nq_journal){0};
    NQ_TRY(nq_outfile_resume(&j->file, path, err));
    return read_lines(j, err);
}

static void drop_records(nq_journal *j, size_t count) {
    while (j->count > count) {
        json_decref(j->records[--j->count].json);
    }
}

novaq_status nq_journal_keep(nq_journal *j, size_t count, novaq_error *err) {
    drop_records(j, count);
    const nq_record *last = j->count > 0 ? &j->records[j->count - 1] : NULL;
    memset(j->chain, 0, sizeof j->chain);
    if (last != NULL) {
        memcpy(j->chain, last->chain, sizeof j->chain);
    }
    return nq_outfile_truncate(j->file, last != NULL ? last->end : 0, err);
}

novaq_status nq_journal_append(nq_journal *j, json_t *json, novaq_error *err) {
    char *text = NULL;
    char chain[NQ_CHAIN_HEX + 1];
    if (json == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot build a journal record");
    }
    novaq_status st = nq_json_dump(&text, json, 0, err);
    json_decref(json);
    NQ_TRY(st);
    link_line(chain, j->chain, text, strlen(text));
    nq_buf line = nq_buf_init(JOURNAL_MAX);
    st = nq_buf_printf(&line, err, "%s ", chain);
    if (st == NOVAQ_OK) {
        st = nq_buf_puts(&line, text, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_buf_puts(&line, "\n", err);
    }
    if (st == NOVAQ_OK) {
        st = nq_outfile_write(j->file, line.data, line.len, err);
    }
    if (st == NOVAQ_OK) {
        memcpy(j->chain, chain, sizeof chain);
    }
    nq_buf_free(&line);
    nq_free(text);
    return st;
}

static void release(nq_journal *j) {
    drop_records(j, 0);
    nq_free(j->records);
    *j = (nq_journal){0};
}

void nq_journal_leave(nq_journal *j) {
    nq_outfile_leave(&j->file);
    release(j);
}

void nq_journal_remove(nq_journal *j) {
    nq_outfile_abort(&j->file);
    release(j);
}

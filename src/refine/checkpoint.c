/* checkpoint.c - see checkpoint.h. */
#include "refine/checkpoint.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "io/fs.h"

#define MAGIC   "NQREFINE"
#define VERSION 2U

typedef struct header {
    char magic[8];
    uint32_t version, number_bytes;
    uint64_t total;
    char identity[NQ_SHA256_HEX];
} header;

/* values, two moments, best, good, mean. In memory there is the unit as well, and what is
 * kept aside while something else is measured; a file is put together in memory. */
#define ARRAYS 6
_Static_assert(ARRAYS + 2 + ARRAYS == NQ_REFINE_STATE_ARRAYS, "arrays of a state");

novaq_status nq_refine_state_open(nq_refine_state *s, nq_param *params, size_t count,
                                  const nq_adam_options *opt, novaq_error *err) {
    *s = (nq_refine_state){0};
    novaq_status st = nq_adam_open(&s->adam, params, count, opt, err);
    float **list[] = {&s->best, &s->good, &s->mean, &s->keep};
    for (size_t i = 0; st == NOVAQ_OK && i < sizeof list / sizeof list[0]; i++) {
        st = nq_alloc(list[i], s->adam.total, sizeof(float), err);
    }
    if (st != NOVAQ_OK) {
        nq_refine_state_close(s);
    }
    return st;
}

void nq_refine_state_close(nq_refine_state *s) {
    nq_adam_close(&s->adam);
    nq_free(s->best);
    nq_free(s->good);
    nq_free(s->mean);
    nq_free(s->keep);
    *s = (nq_refine_state){0};
}

static header make_header(const nq_refine_state *s, const char *identity) {
    header h = {.version = VERSION, .number_bytes = sizeof(nq_refine_numbers)};
    memcpy(h.magic, MAGIC, sizeof h.magic);
    h.total = s->adam.total;
    memcpy(h.identity, identity, sizeof h.identity);
    return h;
}

static uint64_t file_bytes(const nq_refine_state *s) {
    return sizeof(header) + sizeof(nq_refine_numbers) + ARRAYS * s->adam.total * sizeof(float) +
           NQ_SHA256_HEX;
}

static void arrays_of(float *list[ARRAYS], nq_refine_state *s) {
    list[0] = s->keep;
    list[1] = s->adam.moment[0];
    list[2] = s->adam.moment[1];
    list[3] = s->best;
    list[4] = s->good;
    list[5] = s->mean;
}

nq_checkpoint_file nq_checkpoint_look(const char *path, const char *identity) {
    struct stat there;
    header h = {.version = 0};
    if (lstat(path, &there) != 0) {
        return NQ_CHECKPOINT_NONE;
    }
    FILE *f = nq_is_file(path) ? fopen(path, "rbe") : NULL;
    size_t len = f != NULL ? fread(&h, 1, sizeof h, f) : 0;
    if (f != NULL) {
        (void)fclose(f);
    }
    if (len < sizeof h.magic || memcmp(h.magic, MAGIC, sizeof h.magic) != 0) {
        return NQ_CHECKPOINT_ALIEN;
    }
    bool same = identity != NULL && len == sizeof h && h.version == VERSION &&
                h.number_bytes == sizeof(nq_refine_numbers) &&
                memcmp(h.identity, identity, sizeof h.identity) == 0;
    return same ? NQ_CHECKPOINT_SAME : NQ_CHECKPOINT_OTHER;
}

void nq_checkpoint_remove(const char *path) {
    nq_checkpoint_file what = nq_checkpoint_look(path, NULL);
    if (what != NQ_CHECKPOINT_NONE && what != NQ_CHECKPOINT_ALIEN) {
        (void)unlink(path);
    }
}

novaq_status nq_checkpoint_write(const char *path, nq_refine_state *s, const char *identity,
                                 novaq_error *err) {
    uint64_t bytes = file_bytes(s);
    uint8_t *file = NULL;
    NQ_TRY(nq_alloc_raw(&file, bytes, 1, err));
    s->n.step = s->adam.step;
    s->n.taken = s->adam.taken;
    s->n.usual = s->adam.usual;
    s->n.share = s->adam.share;
    nq_adam_gather(s->keep, &s->adam);
    header h = make_header(s, identity);
    uint8_t *at = file;
    memcpy(at, &h, sizeof h);
    at += sizeof h;
    memcpy(at, &s->n, sizeof s->n);
    at += sizeof s->n;
    float *list[ARRAYS];
    arrays_of(list, s);
    for (unsigned i = 0; i < ARRAYS; i++) {
        memcpy(at, list[i], s->adam.total * sizeof(float));
        at += s->adam.total * sizeof(float);
    }
    char hex[NQ_SHA256_HEX + 1];
    novaq_status st = nq_sha256_of(hex, file, bytes - NQ_SHA256_HEX, err);
    if (st == NOVAQ_OK) {
        memcpy(at, hex, NQ_SHA256_HEX);
        st = nq_write_file(path, file, bytes, err);
    }
    nq_free(file);
    return st;
}

static void restore(nq_refine_state *s, const uint8_t *at) {
    memcpy(&s->n, at, sizeof s->n);
    at += sizeof s->n;
    float *list[ARRAYS];
    arrays_of(list, s);
    for (unsigned i = 0; i < ARRAYS; i++) {
        memcpy(list[i], at, s->adam.total * sizeof(float));
        at += s->adam.total * sizeof(float);
    }
    s->adam.step = s->n.step;
    s->adam.taken = s->n.taken;
    s->adam.usual = s->n.usual;
    s->adam.share = s->n.share;
    nq_adam_scatter(&s->adam, s->keep);
}

novaq_status nq_checkpoint_read(bool *found, const char *path, nq_refine_state *s,
                                const char *identity, novaq_error *err) {
    *found = false;
    char *file = NULL;
    size_t len = 0;
    if (!nq_is_file(path)) {
        return NOVAQ_OK;
    }
    uint64_t bytes = file_bytes(s);
    novaq_error why = {0};
    novaq_status st = nq_read_file(&file, &len, path, bytes, &why);
    if (st != NOVAQ_OK) { /* a longer one is another run's */
        return st == NOVAQ_E_MEMORY ? nq_fail(err, st, "%s", why.msg) : NOVAQ_OK;
    }
    header h = make_header(s, identity);
    char hex[NQ_SHA256_HEX + 1];
    if (len == bytes && memcmp(file, &h, sizeof h) == 0) {
        st = nq_sha256_of(hex, file, bytes - NQ_SHA256_HEX, err);
        *found = st == NOVAQ_OK && memcmp(file + bytes - NQ_SHA256_HEX, hex, NQ_SHA256_HEX) == 0;
    }
    if (*found) {
        restore(s, (const uint8_t *)file + sizeof h);
    }
    nq_free(file);
    return st;
}

/* torch_prove.c - see torch.h: places of storages that were assumed, and their proof.
 *
 * A remote file is asked for its directory or its pickles only; the few bytes in which
 * each storage speaks of itself come along with the first tensor that lies in it.
 */
#include <stdatomic.h>

#include "base/cursor.h"
#include "base/mem.h"
#include "format/torch_impl.h"

#define NEAR ((uint64_t)64 << 10) /* bytes between them that may be fetched along */

novaq_status nq_torch_claim_add(nq_torch *o, const nq_torch_claim *claim, novaq_error *err) {
    size_t n = o->claim_count;
    if ((n & (n - 1)) == 0) { /* full: room for a power of two */
        NQ_TRY(nq_grow(&o->claims, n, n == 0 ? 1 : (uint64_t)n * 2, sizeof *o->claims, err));
    }
    nq_torch_claim *c = &o->claims[n];
    c->head = claim->head;
    c->look = claim->look;
    c->data = claim->data;
    c->bytes = claim->bytes;
    c->says = claim->says;
    atomic_init(&c->proved, false);
    o->claim_count++;
    return NOVAQ_OK;
}

/* The claim on the storage that t lies in, if it is still to be proved, else NULL. */
static nq_torch_claim *claim_of(const nq_torch *o, const nq_tensor_info *t) {
    size_t low = 0;
    size_t high = o->claim_count;
    while (low < high) { /* the first that begins behind t */
        size_t mid = low + (high - low) / 2;
        if (o->claims[mid].data <= t->offset) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    nq_torch_claim *c = low == 0 ? NULL : &o->claims[low - 1];
    bool open = c != NULL && t->elements > 0 && t->offset - c->data < c->bytes &&
                !atomic_load_explicit(&c->proved, memory_order_relaxed);
    return open ? c : NULL;
}

void nq_torch_widen(const nq_torch *o, const nq_tensor_info *t, uint64_t *begin, uint64_t *end) {
    const nq_torch_claim *c = claim_of(o, t);
    if (c != NULL && *begin - c->head <= NEAR) {
        *begin = c->head;
        *end = c->head + c->look > *end ? c->head + c->look : *end;
    }
}

static novaq_status elsewhere(const nq_source *src, const nq_torch_claim *c,
                              const nq_tensor_info *t, novaq_error *err) {
    return nq_fail(err, NOVAQ_E_FORMAT,
                   "%s: offset %llu: the storage of tensor \"%.200s\" has another place or size "
                   "than what is around it says",
                   src->name, (unsigned long long)c->head, t->name);
}

static novaq_status look_at(const nq_torch *o, const nq_torch_claim *c, const nq_tensor_info *t,
                            nq_source *src, novaq_error *err) {
    if (o->zip.count > 0) {
        uint64_t at = 0;
        NQ_TRY(nq_zip_locate(&at, &o->zip, &o->zip.entries[c->says], src, err));
        return at == c->data ? NOVAQ_OK : elsewhere(src, c, t, err);
    }
    uint8_t raw[8];
    NQ_TRY(nq_source_read(src, c->head, raw, sizeof raw, err));
    nq_cursor n = nq_cursor_init(src->name, raw, sizeof raw, c->head);
    return nq_cursor_u64(&n) == c->says ? NOVAQ_OK : elsewhere(src, c, t, err);
}

novaq_status nq_torch_prove(nq_torch *o, const nq_tensor_info *t, nq_source *near, uint64_t from,
                            nq_source *far, novaq_error *err) {
    nq_torch_claim *c = claim_of(o, t);
    if (c == NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(look_at(o, c, t, c->head >= from ? near : far, err));
    atomic_store_explicit(&c->proved, true, memory_order_relaxed);
    return NOVAQ_OK;
}

/* torch_impl.h - what the torch*.c files share; nobody else includes it.
 *
 * From a pickle's tree (torch_state.c) come views: a name, a shape and a place in
 * a storage known by its key. The container (torch.c: zip, torch_legacy.c:
 * stream) says where the storage of a key lies; torch_view.c judges the view.
 */
#ifndef NQ_FORMAT_TORCH_IMPL_H
#define NQ_FORMAT_TORCH_IMPL_H

#include "base/buf.h"
#include "format/pickle.h"
#include "format/torch.h"

/* A storage as a pickle describes it. */
typedef struct nq_torch_storage {
    uint64_t key;   /* where in nq_torch_views.text it stands, NUL-terminated */
    uint64_t bytes; /* it claims to have */
    nq_dtype dtype; /* of its elements; NQ_U8 when untyped */
    uint32_t at;    /* in the pickle */
} nq_torch_storage;

typedef struct nq_torch_view {
    uint64_t name; /* as nq_torch_storage.key */
    nq_torch_storage storage;
    nq_tensor_info info;           /* dtype, rank, shape; the rest later */
    uint64_t skip;                 /* elements of the storage before the first */
    uint64_t strides[NQ_MAX_RANK]; /* in elements */
} nq_torch_view;

typedef struct nq_torch_views {
    nq_torch_view *v;
    uint64_t count;
    uint64_t cap;
    nq_buf text; /* names and keys */
} nq_torch_views;

/* A parsed pickle and where it stands in its file. */
typedef struct nq_torch_tree {
    nq_pickle pickle;
    const char *file;
    uint64_t base;
} nq_torch_tree;

/* Where the storage of this key lies; it must have exactly this many bytes. */
typedef novaq_status (*nq_torch_find_fn)(void *ctx, uint64_t *offset, const char *key,
                                         uint64_t bytes, novaq_error *err);

NOVAQ_CHECK novaq_status nq_torch_unpickle(nq_torch_tree *out, const char *file,
                                           const uint8_t *data, uint64_t len, uint64_t base,
                                           novaq_error *err);
/* The tensors of a tree. Release with nq_torch_drop() in any case. */
NOVAQ_CHECK novaq_status nq_torch_collect(nq_torch_views *out, const nq_torch_tree *tree,
                                          novaq_error *err);
void nq_torch_drop(nq_torch_views *views);
/* The storage that a persistent id names; its key goes to text. */
NOVAQ_CHECK novaq_status nq_torch_read_storage(nq_torch_storage *out, nq_buf *text,
                                               const nq_torch_tree *tree, uint32_t node,
                                               novaq_error *err);
/* The value of a text key of a dict node, or NULL. */
const nq_pickle_node *nq_torch_member(const nq_torch_tree *tree, const nq_pickle_node *dict,
                                      const char *key);
/* Appends text[0..len) and a NUL; *at: where. */
NOVAQ_CHECK novaq_status nq_torch_keep(uint64_t *at, nq_buf *text, const char *s, uint64_t len,
                                       novaq_error *err);

/* The views as tensors of a file. */
NOVAQ_CHECK novaq_status nq_torch_finish(nq_torch *out, nq_torch_views *views, nq_source *src,
                                         nq_torch_find_fn find, void *ctx, novaq_error *err);
/* Elements, bytes and whether strides are needed (*plain: they are not); src is
 * the file, which bounds what a view may repeat. */
NOVAQ_CHECK novaq_status nq_torch_judge(nq_torch_view *v, bool *plain, const char *name,
                                        const nq_source *src, novaq_error *err);

/* One more claim; those of a file come in its order. */
NOVAQ_CHECK novaq_status nq_torch_claim_add(nq_torch *o, const nq_torch_claim *claim,
                                            novaq_error *err);

NOVAQ_CHECK novaq_status nq_torch_parse_legacy(nq_torch *out, nq_source *src, novaq_error *err);

#endif

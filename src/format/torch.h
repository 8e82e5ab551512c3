/* torch.h - what torch.save() writes: .bin, .pt, .pth, .ckpt.
 *
 * Owns: the zip form (PyTorch 1.6 and later) and the stream form before it,
 * tensors that share storages, views with strides. Reads the directory, one
 * pickle and, when asked, the bytes of a tensor; executes nothing. Refuses:
 * TorchScript programs, big-endian files, sparse, quantized and complex tensors,
 * views whose elements overlap, anything the pickle asks for beyond tensors.
 *
 * Names: the keys on the way from the root of the file to a tensor, joined by
 * dots; items of lists go by their number. Where the root holds no tensor itself
 * but a dict under "state_dict", "model_state_dict", "model" or "module" (the
 * first of them that is there), that dict takes the root's place, again and
 * again: what a training run saved beside its model is left out.
 */
#ifndef NQ_FORMAT_TORCH_H
#define NQ_FORMAT_TORCH_H

#include "format/tensors.h"
#include "format/zip.h"

/* A storage of a remote file whose place follows from what is around it; what it says
 * of itself stands right before its bytes and is looked at when those are fetched, which
 * saves a round trip for each. */
typedef struct nq_torch_claim {
    uint64_t head; /* where it speaks of itself */
    uint64_t look; /* bytes of the file to have from there on */
    uint64_t data; /* where its bytes should be */
    uint64_t bytes;
    uint64_t says; /* zip: index of the record; stream: count of elements */
    _Atomic bool proved;
} nq_torch_claim;

typedef struct nq_torch {
    nq_tensor_info *tensors;
    size_t count;
    char *names;            /* what nq_tensor_info.name points into */
    uint64_t *strides;      /* what nq_tensor_info.strides points into */
    nq_torch_claim *claims; /* in file order */
    size_t claim_count;
    nq_zip zip; /* that claims speak of; empty: the stream form */
} nq_torch;

/* *out is empty on failure. */
NOVAQ_CHECK novaq_status nq_torch_parse(nq_torch *out, nq_source *src, novaq_error *err);
void nq_torch_free(nq_torch *t);

/* bytes [offset, offset+len) of a tensor with strides, as if its elements were
 * stored in row-major order. Thread-safe. */
NOVAQ_CHECK novaq_status nq_torch_gather(void *dst, nq_source *src, const nq_tensor_info *t,
                                         uint64_t offset, uint64_t len, novaq_error *err);

/* Widens bytes [*begin, *end) of a tensor to those that prove its place, if they are
 * near and it is not proved yet. */
void nq_torch_widen(const nq_torch *o, const nq_tensor_info *t, uint64_t *begin, uint64_t *end);
/* Before a tensor is read: whether its bytes are where they were assumed. near: has the
 * file from byte `from` on; far: all of it. Nothing to do for local files. Thread-safe. */
NOVAQ_CHECK novaq_status nq_torch_prove(nq_torch *o, const nq_tensor_info *t, nq_source *near,
                                        uint64_t from, nq_source *far, novaq_error *err);

#endif

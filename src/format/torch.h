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

typedef struct nq_torch {
    nq_tensor_info *tensors;
    size_t count;
    char *names;       /* what nq_tensor_info.name points into */
    uint64_t *strides; /* what nq_tensor_info.strides points into */
} nq_torch;

/* *out is empty on failure. */
NOVAQ_CHECK novaq_status nq_torch_parse(nq_torch *out, nq_source *src, novaq_error *err);
void nq_torch_free(nq_torch *t);

/* bytes [offset, offset+len) of a tensor with strides, as if its elements were
 * stored in row-major order. Thread-safe. */
NOVAQ_CHECK novaq_status nq_torch_gather(void *dst, nq_source *src, const nq_tensor_info *t,
                                         uint64_t offset, uint64_t len, novaq_error *err);

#endif

/* tensors.h - the named tensors of a model, whatever file format holds them.
 *
 * Owns: recognising the format by content, sharding (index.json, GGUF splits),
 * names, shapes, byte ranges, reading as float32. Refuses: interpreting names
 * (model/ does), executing anything, trusting any size.
 */
#ifndef NQ_FORMAT_TENSORS_H
#define NQ_FORMAT_TENSORS_H

#include "base/dtype.h"
#include "format/gguf.h"
#include "io/files.h"

#define NQ_MAX_RANK 8

typedef struct nq_tensor_info {
    const char *name; /* borrowed from the set */
    nq_dtype dtype;
    uint32_t rank;
    uint64_t shape[NQ_MAX_RANK]; /* row-major, outermost first; GGUF's ne reversed */
    uint64_t elements;           /* product of shape, 1 for rank 0 */
    uint64_t bytes;              /* of the stored data */
    uint32_t file;               /* which shard */
    uint32_t view;               /* 0, or the ONNX reader's number for how it is stored */
    uint64_t offset;             /* in that file */
    /* Elements from one index of a dimension to the next; NULL: as in row-major order
     * without gaps. With strides, offset is the first element's, and bytes what the
     * elements take together (nq_tensors_read() brings them in order). */
    const uint64_t *strides;
} nq_tensor_info;

typedef enum nq_format {
    NQ_FORMAT_SAFETENSORS,
    NQ_FORMAT_GGUF,
    NQ_FORMAT_ONNX,
    NQ_FORMAT_PYTORCH
} nq_format;

typedef struct nq_tensors nq_tensors;

/* path: what io/files.h calls a locator. A SafeTensors, GGUF, PyTorch or ONNX file
 * (recognised by content, not by name; the first file of a GGUF split opens them
 * all), a *.index.json, or a place that holds model.safetensors, pytorch_model.bin,
 * the index of either or exactly one model file. A path that is a novaq artifact is
 * NOVAQ_E_ARG with a message saying so. */
NOVAQ_CHECK novaq_status nq_tensors_open(nq_tensors **out, const char *path, novaq_error *err);
/* The same over a place that is open; *files is taken over (and nulled) whatever
 * happens. */
NOVAQ_CHECK novaq_status nq_tensors_open_files(nq_tensors **out, nq_files **files,
                                               novaq_error *err);
void nq_tensors_close(nq_tensors **ts);

nq_format nq_tensors_format(const nq_tensors *ts);
const char *nq_tensors_path(const nq_tensors *ts);
/* Sizes of all files that hold the tensors, headers included. */
uint64_t nq_tensors_file_bytes(const nq_tensors *ts);
/* Directory with config.json, tokenizer.json ... of a Hugging Face model. */
const char *nq_tensors_dir(const nq_tensors *ts);
/* Where the tensors come from; config.json and the like are read from there, with
 * names made by nq_tensors_beside(). Borrowed. */
nq_files *nq_tensors_files(const nq_tensors *ts);
/* The name of a file in the folder of the model ("sub/config.json"); nq_free(). */
NOVAQ_CHECK novaq_status nq_tensors_beside(char **out, const nq_tensors *ts, const char *name,
                                           novaq_error *err);
/* GGUF metadata, or NULL for another format. */
const nq_gguf_kv *nq_tensors_kv(const nq_tensors *ts, size_t *count);

/* Tensors sorted by (file, offset): the order in which a stream delivers them. */
size_t nq_tensors_count(const nq_tensors *ts);
const nq_tensor_info *nq_tensors_at(const nq_tensors *ts, size_t i);
/* NULL when absent. */
const nq_tensor_info *nq_tensors_find(const nq_tensors *ts, const char *name);

/* Writes what a tensor shall be called into out, of strlen(name) + 1 bytes; false: it is
 * left out. */
typedef bool (*nq_pick_fn)(char *out, const char *name);
/* From now on the set has only the tensors that pick() keeps, under the names it gives
 * them. To be called before anything is read or transposed. */
NOVAQ_CHECK novaq_status nq_tensors_pick(nq_tensors *ts, nq_pick_fn pick, novaq_error *err);
/* How many tensors that left out; *bytes: of their data. */
size_t nq_tensors_left_out(const nq_tensors *ts, uint64_t *bytes);

/* From now on tensor i, if it is a matrix of single elements, is shown and read with
 * rows and columns exchanged. */
NOVAQ_CHECK novaq_status nq_tensors_transpose(nq_tensors *ts, size_t i, novaq_error *err);

/* bytes [offset, offset+len) of the tensor's stored data. Thread-safe. */
NOVAQ_CHECK novaq_status nq_tensors_read(void *dst, nq_tensors *ts, const nq_tensor_info *t,
                                         uint64_t offset, uint64_t len, novaq_error *err);
/* The whole tensor as float32, t->elements values. Thread-safe. */
NOVAQ_CHECK novaq_status nq_tensors_read_f32(float *dst, nq_tensors *ts, const nq_tensor_info *t,
                                             novaq_error *err);

/* ---- reading ahead -----------------------------------------------------------
 *
 * Whole tensors are fetched in a given order by a thread of its own while others are at
 * work. nq_tensors_read() and nq_tensors_read_f32() of a tensor in the list take its
 * bytes from memory, waiting for them if they must; anything else is read directly. */

/* Starts with tensors order[0..count) (copied), holding at most `bytes` of them (but a
 * mebibyte). Ends what was being read ahead before. A tensor that is larger comes in
 * slices: its reader takes them one after the other, and what he has read to its end is
 * gone (reading it again is reading directly). Is it larger and stored in another order
 * than it is presented, it is read directly, too, and nothing behind it is fetched before
 * it is released: whatever the size, a file that is read in its order is fetched so. */
NOVAQ_CHECK novaq_status nq_tensors_ahead(nq_tensors *ts, const nq_tensor_info *const *order,
                                          size_t count, uint64_t bytes, novaq_error *err);
/* The bytes of t will not be read again: makes room for the next. Of a tensor that was
 * passed over in the order the thread goes on all the same. */
void nq_tensors_release(nq_tensors *ts, const nq_tensor_info *t);
/* Keeps the stored bytes of all tensors in memory from now on, fetched in file order
 * where the source is remote; local files are left to the page cache. For work that
 * reads tensors again and again. */
NOVAQ_CHECK novaq_status nq_tensors_hold(nq_tensors *ts, novaq_error *err);
/* What waits for bytes asks this now and then, if set (by the thread that reads); a
 * status other than OK ends the wait with it, and transfers with it. */
void nq_tensors_on_wait(nq_tensors *ts, novaq_status (*tick)(void *ctx, novaq_error *err),
                        void *ctx);
/* After everything was read: promised SHA-256 of the files. *promised: of how many files;
 * *verified: how many of them were read as a whole, in order, and are right (an index, as
 * it is read, and counts for neither); NOVAQ_E_VERIFY names one whose content is another. */
NOVAQ_CHECK novaq_status nq_tensors_verified(size_t *verified, size_t *promised, nq_tensors *ts,
                                             novaq_error *err);

#endif

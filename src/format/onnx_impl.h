/* onnx_impl.h - what the onnx*.c files share; nobody else includes it.
 *
 * A model is walked twice: first tensors, aliases and scopes are collected, then
 * the nodes are seen again to learn how each tensor is used. Nodes are not kept,
 * so memory follows the number of tensors, not the size of the graph.
 */
#ifndef NQ_FORMAT_ONNX_IMPL_H
#define NQ_FORMAT_ONNX_IMPL_H

#include "format/onnx.h"
#include "format/protobuf.h"

#define NQ_ONNX_NAME_MAX 4096 /* bytes of any name, NUL included */
#define NQ_ONNX_NO_SCOPE UINT32_MAX

/* How nodes use a tensor. */
enum {
    NQ_ONNX_RIGHT = 1, /* right side of a MatMul: [in, out] */
    NQ_ONNX_GEMM = 2,  /* right side of a Gemm, not transposed by it: [in, out] */
    NQ_ONNX_AS_IS = 4, /* right side, transposed by the node: [out, in] */
    NQ_ONNX_OTHER = 8
};

typedef struct nq_onnx_item {
    nq_tensor_info info; /* shape as stored; name: its own */
    uint64_t at;         /* file offset of the TensorProto */
    size_t piece;        /* first in nq_onnx.pieces */
    size_t pieces;       /* 0: the data lie at info.offset */
    uint64_t end;        /* of the pieces, in the file */
    uint32_t scope;
    uint32_t uses;      /* NQ_ONNX_* */
    size_t same;        /* index of the item this one is a copy of, or its own */
    const char *module; /* "model.layers.0.mlp.up_proj" by the node that uses it */
    bool two_modules;   /* nodes disagree about that */
    bool constant;      /* of a Constant node */
} nq_onnx_item;

/* An output of Identity or Cast, which is as good as its input. */
typedef struct nq_onnx_alias {
    const char *name;
    const char *target;
    uint32_t scope;
} nq_onnx_alias;

typedef struct nq_onnx_scope { /* a graph */
    uint32_t parent;
    const char *label; /* "If_12/then_branch" */
} nq_onnx_scope;

typedef struct nq_onnx_key { /* a sorted table of names */
    const char *name;
    uint32_t scope;
    size_t index;
} nq_onnx_key;

typedef struct nq_onnx_file { /* external data */
    const char *location;
    nq_source *src;
    uint32_t file;
} nq_onnx_file;

typedef struct nq_onnx_walk {
    nq_onnx *out;
    nq_pb pb;
    nq_onnx_open_fn open;
    void *open_ctx;
    bool second; /* which walk this is */
    bool found;  /* the graph */
    nq_onnx_item *items;
    size_t count;
    size_t cap;
    nq_onnx_alias *aliases;
    size_t alias_count;
    size_t alias_cap;
    nq_onnx_scope *scopes;
    uint32_t scope_count;
    uint32_t scope_cap;
    uint32_t next_scope; /* number of the next graph met */
    unsigned depth;      /* graphs within graphs */
    nq_onnx_file *files; /* sorted by location */
    size_t file_count;
    size_t piece_count;
    size_t piece_cap;
    nq_onnx_key *by_name; /* items */
    nq_onnx_key *by_alias;
    char text[NQ_ONNX_NAME_MAX]; /* scratch of the innermost reader */
    char key[64];                /* likewise */
} nq_onnx_walk;

/* Adds the TensorProto in f. name: what the tensor is called when it is the value
 * of a Constant node (then vectors and matrices of floats only are added), else
 * NULL. */
NOVAQ_CHECK novaq_status nq_onnx_add_tensor(nq_onnx_walk *w, const nq_pb_field *f, uint32_t scope,
                                            const char *name, novaq_error *err);

/* A copy that lives as long as nq_onnx. */
NOVAQ_CHECK novaq_status nq_onnx_keep(const char **out, nq_onnx_text *text, const char *s,
                                      novaq_error *err);

/* One walk over all graphs. */
NOVAQ_CHECK novaq_status nq_onnx_walk_model(nq_onnx_walk *w, novaq_error *err);

/* Between the walks: sorts, refuses duplicates, finds copies in other branches. */
NOVAQ_CHECK novaq_status nq_onnx_index(nq_onnx_walk *w, novaq_error *err);
/* The item that `name` means in a scope, through aliases, or NULL. */
nq_onnx_item *nq_onnx_find(nq_onnx_walk *w, const char *name, uint32_t scope);
/* The module of a node "/model/layers.0/mlp/up_proj/MatMul" in place, as
 * "model.layers.0.mlp.up_proj"; false when the name does not tell. */
bool nq_onnx_module(char *node_name, const char *op);
/* Likewise of the list "['', 'model.norm', 'model.layers.0.mlp.up_proj', 'linear']". */
bool nq_onnx_module_of_scopes(char *scopes);
/* After the walks: the tensors as the world sees them. */
NOVAQ_CHECK novaq_status nq_onnx_present(nq_onnx_walk *w, novaq_error *err);

/* Elements [first, first + count) as stored. pieces: of the tensor. */
NOVAQ_CHECK novaq_status nq_onnx_read_stored(uint8_t *dst, nq_source *src, const nq_tensor_info *t,
                                             const nq_onnx_piece *pieces, size_t count,
                                             uint64_t first, uint64_t n, novaq_error *err);

#endif

/* onnx_graph.c - walking the graphs of a model, twice (see onnx_impl.h).
 *
 * Owns: finding every tensor wherever it is nested, refusing operators whose
 * weights are codes, and telling how each tensor is used. Refuses: following
 * anything but names.
 */
#include <string.h>

#include "base/mem.h"
#include "format/onnx_impl.h"

#define DEPTH_MAX   16 /* graphs within graphs */
#define SCOPES_MAX  ((uint32_t)1 << 18)
#define ALIASES_MAX ((size_t)1 << 20)

enum { /* fields */
       MODEL_GRAPH = 7,
       MODEL_FUNCTIONS = 25,
       FUNCTION_NODE = 7,
       GRAPH_NODE = 1,
       GRAPH_INITIALIZER = 5,
       GRAPH_SPARSE = 15,
       NODE_INPUT = 1,
       NODE_OUTPUT = 2,
       NODE_NAME = 3,
       NODE_OP = 4,
       NODE_ATTRIBUTE = 5,
       NODE_DOMAIN = 7,
       NODE_METADATA = 9,
       ATTRIBUTE_NAME = 1,
       ATTRIBUTE_INT = 3,
       ATTRIBUTE_TENSOR = 5,
       ATTRIBUTE_GRAPH = 6,
       ATTRIBUTE_TENSORS = 10,
       ATTRIBUTE_GRAPHS = 11,
       ATTRIBUTE_SPARSE = 22,
       ATTRIBUTE_SPARSES = 23
};

/* Operators that take weights as codes of fewer bits. */
static const char *const quantized_ops[] = {
    "MatMulNBits",
    "MatMulBnb4",
    "MatMulFpQ4",
    "GatherBlockQuantized",
    "MatMulInteger",
    "QLinearMatMul",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "QGemm",
    "QAttention",
    "QMoE",
    "DynamicQuantizeLSTM",
    "ConvInteger",
    "QLinearConv",
    "DequantizeBFP",
    "QEmbedLayerNormalization",
    "MatMulInteger16",
    "FusedMatMulInteger",
    "QOrderedMatMul",
    "QOrderedAttention",
};

typedef struct node {
    char op[40]; /* empty when longer: no operator that matters here */
    nq_pb_range body;
    nq_pb_field name;   /* .number 0 when absent, likewise below */
    nq_pb_field output; /* the first */
    nq_pb_field scopes; /* metadata: the modules around the node */
    uint64_t at;
    uint32_t scope;
    bool standard;   /* in the domain of ONNX itself */
    bool transposes; /* attribute transB */
    bool linear;     /* metadata: made by a torch.nn.Linear */
} node;

static novaq_status walk_graph(nq_onnx_walk *w, const nq_pb_field *graph, uint32_t parent,
                               const char *label, novaq_error *err);

/* Strings of a field that may be absent. */
static novaq_status text_of(nq_onnx_walk *w, const nq_pb_field *f, novaq_error *err) {
    w->text[0] = '\0';
    return f->number == 0 ? NOVAQ_OK : nq_pb_text(&w->pb, f, w->text, sizeof w->text, err);
}

/* ---- what a node is --------------------------------------------------------- */

/* What the exporter of PyTorch 2.5 and later says about where a node is from. */
static novaq_status read_metadata(node *n, nq_onnx_walk *w, const nq_pb_field *entry,
                                  novaq_error *err) {
    static const char linear[] = "'torch.nn.modules.linear.Linear'";
    nq_pb_range r = entry->data;
    nq_pb_field f;
    bool more = false;
    w->key[0] = '\0';
    NQ_TRY(nq_pb_expect(&w->pb, entry, NQ_PB_BYTES, err));
    for (;;) {
        NQ_TRY(nq_pb_next(&w->pb, &r, &f, &more, err));
        if (!more) {
            return NOVAQ_OK;
        }
        uint64_t len = f.data.end - f.data.pos;
        if (f.number == 1 && len < sizeof w->key) {
            NQ_TRY(nq_pb_text(&w->pb, &f, w->key, sizeof w->key, err));
        } else if (f.number != 2 || len >= sizeof w->text) {
            continue;
        } else if (strcmp(w->key, "pkg.torch.onnx.name_scopes") == 0) {
            n->scopes = f;
        } else if (strcmp(w->key, "pkg.torch.onnx.class_hierarchy") == 0) {
            NQ_TRY(nq_pb_text(&w->pb, &f, w->text, sizeof w->text, err));
            n->linear = strstr(w->text, linear) != NULL;
        }
    }
}

static novaq_status read_node(node *n, nq_onnx_walk *w, const nq_pb_field *f, uint32_t scope,
                              novaq_error *err) {
    *n = (node){.body = f->data, .at = f->at, .scope = scope, .standard = true};
    NQ_TRY(nq_pb_expect(&w->pb, f, NQ_PB_BYTES, err));
    nq_pb_range r = f->data;
    nq_pb_field g;
    bool more = false;
    for (;;) {
        NQ_TRY(nq_pb_next(&w->pb, &r, &g, &more, err));
        if (!more) {
            return NOVAQ_OK;
        }
        if (g.number == NODE_NAME) {
            n->name = g;
        } else if (g.number == NODE_OUTPUT && n->output.number == 0) {
            n->output = g;
        } else if (g.number == NODE_METADATA) {
            NQ_TRY(read_metadata(n, w, &g, err));
        } else if (g.number == NODE_OP || g.number == NODE_DOMAIN) {
            NQ_TRY(nq_pb_text(&w->pb, &g, w->text, sizeof w->text, err));
            if (g.number == NODE_DOMAIN) {
                n->standard = w->text[0] == '\0' || strcmp(w->text, "ai.onnx") == 0;
            } else if (strlen(w->text) < sizeof n->op) {
                memcpy(n->op, w->text, strlen(w->text) + 1);
            }
        }
    }
}

static novaq_status already_quantized(nq_onnx_walk *w, const node *n, novaq_error *err) {
    NQ_TRY(text_of(w, &n->name, err));
    return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                   "%s: offset %llu: node \"%.200s\" is a %s: this model is quantized already; "
                   "take its float export (fp32, fp16 or bf16)",
                   w->pb.src->name, (unsigned long long)n->at, w->text, n->op);
}

static novaq_status refuse_quantized(nq_onnx_walk *w, const node *n, novaq_error *err) {
    for (size_t i = 0; i < sizeof quantized_ops / sizeof quantized_ops[0]; i++) {
        if (strcmp(n->op, quantized_ops[i]) == 0) {
            return already_quantized(w, n, err);
        }
    }
    return NOVAQ_OK;
}

static bool is_identity(const node *n) {
    return n->standard && (strcmp(n->op, "Identity") == 0 || strcmp(n->op, "Cast") == 0);
}

static bool is_product(const node *n) {
    return (n->standard && (strcmp(n->op, "MatMul") == 0 || strcmp(n->op, "Gemm") == 0)) ||
           strcmp(n->op, "FusedMatMul") == 0;
}

/* ---- attributes ------------------------------------------------------------- */

static novaq_status enter_graph(nq_onnx_walk *w, const node *n, const nq_pb_field *graph,
                                novaq_error *err) {
    if (w->second) {
        return walk_graph(w, graph, n->scope, NULL, err);
    }
    /* The attribute's name is in key: "then_branch". */
    NQ_TRY(text_of(w, &n->name, err));
    char *label = NULL;
    const char *kept = NULL;
    const char *outer = n->scope == NQ_ONNX_NO_SCOPE ? NULL : w->scopes[n->scope].label;
    NQ_TRY(nq_asprintf(&label, err, "%s%s%.200s/%s", outer == NULL ? "" : outer,
                       outer == NULL ? "" : "/", w->text, w->key));
    novaq_status st = nq_onnx_keep(&kept, &w->out->text, label, err);
    nq_free(label);
    return st == NOVAQ_OK ? walk_graph(w, graph, n->scope, kept, err) : st;
}

static novaq_status constant(nq_onnx_walk *w, const node *n, const nq_pb_field *tensor,
                             novaq_error *err) {
    if (w->second) {
        return NOVAQ_OK;
    }
    NQ_TRY(text_of(w, &n->output, err));
    return nq_onnx_add_tensor(w, tensor, n->scope, w->text, err);
}

static novaq_status sparse(const nq_onnx_walk *w, uint64_t at, novaq_error *err) {
    return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                   "%s: offset %llu: a sparse tensor; save the model with dense weights",
                   w->pb.src->name, (unsigned long long)at);
}

static novaq_status walk_attribute(nq_onnx_walk *w, node *n, const nq_pb_field *attribute,
                                   novaq_error *err) {
    char name[sizeof w->key] = "";
    nq_pb_range r = attribute->data;
    nq_pb_field f;
    bool more = false;
    NQ_TRY(nq_pb_expect(&w->pb, attribute, NQ_PB_BYTES, err));
    for (;;) {
        NQ_TRY(nq_pb_next(&w->pb, &r, &f, &more, err));
        if (!more) {
            return NOVAQ_OK;
        }
        switch (f.number) {
        case ATTRIBUTE_NAME:
            NQ_TRY(nq_pb_text(&w->pb, &f, w->text, sizeof w->text, err));
            /* Names that matter here are short. */
            (void)memccpy(name, w->text, 0, sizeof name - 1);
            break;
        case ATTRIBUTE_INT:
            n->transposes = n->transposes || (strcmp(name, "transB") == 0 && f.value != 0);
            break;
        case ATTRIBUTE_TENSOR:
        case ATTRIBUTE_TENSORS:
            if (strcmp(n->op, "Constant") == 0) {
                NQ_TRY(constant(w, n, &f, err));
            }
            break;
        case ATTRIBUTE_GRAPH:
        case ATTRIBUTE_GRAPHS:
            memcpy(w->key, name, sizeof name);
            NQ_TRY(enter_graph(w, n, &f, err));
            break;
        case ATTRIBUTE_SPARSE:
        case ATTRIBUTE_SPARSES: return sparse(w, f.at, err);
        default: break;
        }
    }
}

static novaq_status walk_attributes(nq_onnx_walk *w, node *n, novaq_error *err) {
    nq_pb_range r = n->body;
    nq_pb_field f;
    bool more = false;
    for (;;) {
        NQ_TRY(nq_pb_next(&w->pb, &r, &f, &more, err));
        if (!more) {
            return NOVAQ_OK;
        }
        if (f.number == NODE_ATTRIBUTE) {
            NQ_TRY(walk_attribute(w, n, &f, err));
        }
    }
}

/* ---- inputs ----------------------------------------------------------------- */

static novaq_status add_alias(nq_onnx_walk *w, const node *n, const nq_pb_field *input,
                              novaq_error *err) {
    if (w->alias_count == ALIASES_MAX) {
        return nq_pb_fail(&w->pb, n->at, err, "the graph has too many nodes");
    }
    if (w->alias_count == w->alias_cap) {
        size_t cap = w->alias_cap == 0 ? 64 : w->alias_cap * 2;
        NQ_TRY(nq_grow(&w->aliases, w->alias_count, cap, sizeof *w->aliases, err));
        w->alias_cap = cap;
    }
    nq_onnx_alias a = {.scope = n->scope};
    NQ_TRY(text_of(w, &n->output, err));
    NQ_TRY(nq_onnx_keep(&a.name, &w->out->text, w->text, err));
    NQ_TRY(text_of(w, input, err));
    NQ_TRY(nq_onnx_keep(&a.target, &w->out->text, w->text, err));
    w->aliases[w->alias_count++] = a;
    return NOVAQ_OK;
}

/* The tensor is the right side of a product: the node's name tells its module. */
static novaq_status note_product(nq_onnx_walk *w, const node *n, nq_onnx_item *t,
                                 novaq_error *err) {
    t->uses |= n->transposes                ? NQ_ONNX_AS_IS
               : strcmp(n->op, "Gemm") == 0 ? NQ_ONNX_GEMM
                                            : NQ_ONNX_RIGHT;
    bool scopes = n->linear && n->scopes.number != 0;
    NQ_TRY(text_of(w, scopes ? &n->scopes : &n->name, err));
    if (!(scopes ? nq_onnx_module_of_scopes(w->text) : nq_onnx_module(w->text, n->op)) ||
        (t->module != NULL && strcmp(t->module, w->text) != 0)) {
        t->two_modules = true;
        return NOVAQ_OK;
    }
    return t->module != NULL ? NOVAQ_OK : nq_onnx_keep(&t->module, &w->out->text, w->text, err);
}

static novaq_status note_use(nq_onnx_walk *w, const node *n, const nq_pb_field *input,
                             uint64_t index, novaq_error *err) {
    NQ_TRY(text_of(w, input, err));
    nq_onnx_item *t = w->text[0] == '\0' ? NULL : nq_onnx_find(w, w->text, n->scope);
    if (t == NULL || (is_identity(n) && index == 0)) {
        return NOVAQ_OK;
    }
    if (strcmp(n->op, "DequantizeLinear") == 0 && index == 0) {
        return already_quantized(w, n, err);
    }
    if (is_product(n) && index == 1) {
        return note_product(w, n, t, err);
    }
    t->uses |= NQ_ONNX_OTHER;
    return NOVAQ_OK;
}

static novaq_status walk_inputs(nq_onnx_walk *w, const node *n, novaq_error *err) {
    nq_pb_range r = n->body;
    nq_pb_field f;
    bool more = false;
    for (uint64_t index = 0;;) {
        NQ_TRY(nq_pb_next(&w->pb, &r, &f, &more, err));
        if (!more) {
            return NOVAQ_OK;
        }
        if (f.number != NODE_INPUT) {
            continue;
        }
        if (w->second) {
            NQ_TRY(note_use(w, n, &f, index, err));
        } else if (is_identity(n) && index == 0) {
            NQ_TRY(add_alias(w, n, &f, err));
        }
        index++;
    }
}

static novaq_status walk_node(nq_onnx_walk *w, const nq_pb_field *f, uint32_t scope,
                              novaq_error *err) {
    node n;
    NQ_TRY(read_node(&n, w, f, scope, err));
    NQ_TRY(refuse_quantized(w, &n, err));
    NQ_TRY(walk_attributes(w, &n, err)); /* first: transB says what the inputs are */
    return w->second || is_identity(&n) ? walk_inputs(w, &n, err) : NOVAQ_OK;
}

/* ---- graphs ----------------------------------------------------------------- */

static novaq_status open_scope(nq_onnx_walk *w, uint64_t at, uint32_t parent, const char *label,
                               uint32_t *scope, novaq_error *err) {
    *scope = w->next_scope++;
    if (w->second) {
        return NOVAQ_OK;
    }
    if (*scope == SCOPES_MAX) {
        return nq_pb_fail(&w->pb, at, err, "too many graphs within the graph");
    }
    if (w->scope_count == w->scope_cap) {
        uint32_t cap = w->scope_cap == 0 ? 16 : w->scope_cap * 2;
        NQ_TRY(nq_grow(&w->scopes, w->scope_count, cap, sizeof *w->scopes, err));
        w->scope_cap = cap;
    }
    w->scopes[w->scope_count++] = (nq_onnx_scope){parent, label};
    return NOVAQ_OK;
}

/* Nodes and tensors of a graph, or of a function, which has no tensors. */
static novaq_status walk_body(nq_onnx_walk *w, nq_pb_range r, uint32_t scope, uint32_t node_field,
                              novaq_error *err) {
    nq_pb_field f;
    bool more = false;
    for (;;) {
        NQ_TRY(nq_pb_next(&w->pb, &r, &f, &more, err));
        if (!more) {
            return NOVAQ_OK;
        }
        if (f.number == node_field) {
            NQ_TRY(walk_node(w, &f, scope, err));
        } else if (node_field != GRAPH_NODE) {
            continue;
        } else if (f.number == GRAPH_SPARSE) {
            return sparse(w, f.at, err);
        } else if (f.number == GRAPH_INITIALIZER && !w->second) {
            NQ_TRY(nq_onnx_add_tensor(w, &f, scope, NULL, err));
        }
    }
}

static novaq_status walk_graph(nq_onnx_walk *w, const nq_pb_field *graph, uint32_t parent,
                               const char *label, novaq_error *err) {
    uint32_t scope = 0;
    NQ_TRY(nq_pb_expect(&w->pb, graph, NQ_PB_BYTES, err));
    if (w->depth == DEPTH_MAX) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s: offset %llu: graphs nested more than %d deep",
                       w->pb.src->name, (unsigned long long)graph->at, DEPTH_MAX);
    }
    NQ_TRY(open_scope(w, graph->at, parent, label, &scope, err));
    w->depth++;
    novaq_status st = walk_body(w, graph->data, scope, GRAPH_NODE, err);
    w->depth--;
    return st;
}

static novaq_status walk_function(nq_onnx_walk *w, const nq_pb_field *f, novaq_error *err) {
    uint32_t scope = 0;
    NQ_TRY(nq_pb_expect(&w->pb, f, NQ_PB_BYTES, err));
    NQ_TRY(open_scope(w, f->at, NQ_ONNX_NO_SCOPE, "function", &scope, err));
    return walk_body(w, f->data, scope, FUNCTION_NODE, err);
}

novaq_status nq_onnx_walk_model(nq_onnx_walk *w, novaq_error *err) {
    nq_pb_range r = nq_pb_whole(&w->pb);
    nq_pb_field f;
    bool more = false;
    w->next_scope = 0;
    w->found = false;
    for (;;) {
        NQ_TRY(nq_pb_next(&w->pb, &r, &f, &more, err));
        if (!more) {
            break;
        }
        if (f.number == MODEL_FUNCTIONS) {
            NQ_TRY(walk_function(w, &f, err));
        } else if (f.number == MODEL_GRAPH) {
            if (w->found) {
                return nq_pb_fail(&w->pb, f.at, err, "a second graph");
            }
            w->found = true;
            NQ_TRY(walk_graph(w, &f, NQ_ONNX_NO_SCOPE, NULL, err));
        }
    }
    return w->found ? NOVAQ_OK : nq_pb_fail(&w->pb, 0, err, "no graph: not an ONNX model");
}

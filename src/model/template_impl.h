/* template_impl.h - what the files of the template interpreter share.
 *
 * Owns: values, the syntax tree, the state of a rendering. Refuses: use outside
 * template*.c.
 *
 * Values and nodes live in arenas and are never freed one by one. All values but
 * namespaces are immutable once they can be seen by a template, so they may be
 * shared freely.
 */
#ifndef NQ_MODEL_TEMPLATE_IMPL_H
#define NQ_MODEL_TEMPLATE_IMPL_H

#include "base/buf.h"
#include "model/template.h"

/* ---- memory (template_value.c) ------------------------------------------ */

typedef struct nq_tarena {
    struct nq_tchunk *chunks; /* newest first */
    size_t used, cap;         /* of the newest */
    size_t total, max;        /* bytes */
} nq_tarena;

/* size bytes, 16-byte aligned, not zeroed, in *out (a void ** of any type). */
NOVAQ_CHECK novaq_status nq_tarena_get(void *out, nq_tarena *a, uint64_t count, size_t size,
                                       novaq_error *err);
void nq_tarena_free(nq_tarena *a);

/* ---- values ------------------------------------------------------------- */

typedef struct nq_tstr {
    const char *p; /* valid UTF-8, not terminated */
    size_t n;
} nq_tstr;

#define NQ_TSTR(literal) ((nq_tstr){(literal), sizeof(literal) - 1})

typedef enum nq_ttype {
    NQ_TV_UNDEFINED, /* s: what was not found, for messages */
    NQ_TV_NONE,
    NQ_TV_BOOL,
    NQ_TV_INT,
    NQ_TV_FLOAT,
    NQ_TV_STR,
    NQ_TV_LIST,
    NQ_TV_TUPLE, /* list */
    NQ_TV_DICT,
    NQ_TV_NAMESPACE, /* dict, mutable */
    NQ_TV_MACRO,
    NQ_TV_FUNC, /* function or bound method */
    NQ_TV_LOOP,
    NQ_TV_CYCLER
} nq_ttype;

typedef struct nq_tval {
    nq_ttype type;
    union {
        bool b;
        int64_t i;
        double f;
        nq_tstr s;
        struct nq_tlist *list;
        struct nq_tdict *dict;
        const struct nq_tmacro *macro;
        const struct nq_tfunc *func;
        struct nq_tloop *loop;
        struct nq_tcycler *cycler;
    } u;
} nq_tval;

typedef struct nq_tlist {
    nq_tval *v;
    size_t n, cap;
    bool lazy; /* a generator in Jinja: iterated, but not indexed, counted or printed */
} nq_tlist;

typedef struct nq_tdict {
    nq_tval *keys, *values; /* in order of insertion */
    size_t n, cap;
} nq_tdict;

typedef struct nq_tloop {
    const nq_tlist *items;
    size_t index;    /* from 0 */
    nq_tval changed; /* last arguments of loop.changed() */
} nq_tloop;

typedef struct nq_tcycler {
    const nq_tlist *items; /* NULL: a joiner */
    size_t at;
    nq_tstr joint;
} nq_tcycler;

/* ---- the syntax tree ----------------------------------------------------- */

typedef enum nq_tkind {
    NQ_TN_CONST,   /* val */
    NQ_TN_NAME,    /* str */
    NQ_TN_LIST,    /* a: elements */
    NQ_TN_TUPLE,   /* a: elements */
    NQ_TN_DICT,    /* a: pairs */
    NQ_TN_PAIR,    /* a: key or target, b: value */
    NQ_TN_ATTR,    /* a.str */
    NQ_TN_ITEM,    /* a[b] */
    NQ_TN_SLICE,   /* a:b:c, each may be NULL */
    NQ_TN_CALL,    /* a(b: arguments, c: keyword arguments) */
    NQ_TN_KEYWORD, /* str=a; also a parameter, a may be NULL there */
    NQ_TN_FILTER,  /* a|str(b, c); a NULL: the text of a block */
    NQ_TN_TEST,    /* a is str(b, c) */
    NQ_TN_NEG,
    NQ_TN_POS,
    NQ_TN_NOT,
    NQ_TN_BIN,     /* a op b */
    NQ_TN_CONCAT,  /* a: operands */
    NQ_TN_COMPARE, /* a, then b: operands with op */
    NQ_TN_OPERAND, /* op a */
    NQ_TN_AND,
    NQ_TN_OR,
    NQ_TN_COND, /* b if a else c */
    /* statements; d: body */
    NQ_TN_DATA,     /* str */
    NQ_TN_OUTPUT,   /* a */
    NQ_TN_IF,       /* a: branches */
    NQ_TN_BRANCH,   /* a: condition, NULL for else; d */
    NQ_TN_FOR,      /* a: target, b: iterable, c: condition, d, e: else */
    NQ_TN_SET,      /* a: target, b */
    NQ_TN_SETBLOCK, /* a: target, b: filter or NULL, d */
    NQ_TN_MACRO,    /* str, a: parameters, d, flags */
    NQ_TN_CALLER,   /* a: call, b: macro without a name */
    NQ_TN_FILTERED, /* b: filter, d */
    NQ_TN_WITH,     /* a: pairs, d */
    NQ_TN_GROUP,    /* d */
    NQ_TN_BREAK,
    NQ_TN_CONTINUE
} nq_tkind;

typedef struct nq_tnode nq_tnode;
struct nq_tnode {
    nq_tkind kind;
    int op; /* token kind */
    uint32_t line;
    unsigned flags;
    nq_tstr str;
    nq_tval val;
    nq_tnode *a, *b, *c, *d, *e;
    nq_tnode *next; /* in a list */
};

/* A macro whose body names these takes them. */
enum { NQ_TM_VARARGS = 1, NQ_TM_KWARGS = 2, NQ_TM_CALLER = 4 };

struct nq_template {
    nq_tarena arena;
    nq_tnode *body;
};

/* ---- tokens (template_lex.c) --------------------------------------------- */

/* Single characters stand for themselves. */
enum {
    NQ_TT_END = 0,
    NQ_TT_DATA = 256,
    NQ_TT_VAR_BEGIN,
    NQ_TT_VAR_END,
    NQ_TT_BLOCK_BEGIN,
    NQ_TT_BLOCK_END,
    NQ_TT_NAME,
    NQ_TT_STR, /* between the quotes, escapes resolved */
    NQ_TT_INT,
    NQ_TT_FLOAT,
    NQ_TT_POW,
    NQ_TT_FLOORDIV,
    NQ_TT_EQ,
    NQ_TT_NE,
    NQ_TT_GE,
    NQ_TT_LE,
    NQ_TT_IN,    /* made by the parser */
    NQ_TT_NOT_IN /* made by the parser */
};

typedef struct nq_ttoken {
    int kind;
    uint32_t line;
    nq_tstr str;
} nq_ttoken;

/* *tokens ends with NQ_TT_END; everything lives in the arena. */
NOVAQ_CHECK novaq_status nq_tlex(nq_ttoken **tokens, nq_tarena *a, const char *text, size_t len,
                                 novaq_error *err);

/* ---- the parser (template_parse.c, template_expr.c) ----------------------- */

typedef struct nq_tparser {
    nq_tarena *arena;
    const nq_ttoken *at;
    unsigned depth;
    unsigned loops;     /* loops around this place */
    unsigned mentioned; /* NQ_TM_* named since the macro began */
    novaq_error *err;
} nq_tparser;

NOVAQ_CHECK novaq_status nq_tparse(nq_tnode **body, nq_tarena *a, const nq_ttoken *tokens,
                                   novaq_error *err);
NOVAQ_CHECK novaq_status nq_tparse_fail(const nq_tparser *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
NOVAQ_CHECK novaq_status nq_tparse_node(nq_tnode **out, nq_tparser *p, nq_tkind kind);
NOVAQ_CHECK novaq_status nq_tparse_enter(nq_tparser *p);
bool nq_tparse_is(const nq_tparser *p, const char *name);
bool nq_tparse_skip(nq_tparser *p, const char *name);
NOVAQ_CHECK novaq_status nq_tparse_expect(nq_tparser *p, int kind, const char *what);
/* cond: "x if y else z" is part of the expression. */
NOVAQ_CHECK novaq_status nq_tparse_expr(nq_tnode **out, nq_tparser *p, bool cond);
/* An expression, or a tuple when a comma follows. */
NOVAQ_CHECK novaq_status nq_tparse_tuple(nq_tnode **out, nq_tparser *p, bool cond);
/* "| name(...)" any number of times over *node; the first bar is optional when
 * the node is NULL (filter blocks). */
NOVAQ_CHECK novaq_status nq_tparse_filters(nq_tnode **node, nq_tparser *p, bool bare);

/* ---- a rendering ---------------------------------------------------------- */

typedef struct nq_tvar {
    nq_tstr name;
    nq_tval value;
} nq_tvar;

typedef struct nq_tscope nq_tscope;
struct nq_tscope {
    nq_tscope *parent;
    nq_tvar *vars;
    size_t n, cap;
};

typedef struct nq_tmacro {
    const nq_tnode *node;
    nq_tscope *scope; /* where it was defined */
} nq_tmacro;

typedef struct nq_tctx {
    nq_tarena arena;
    nq_buf *out;
    nq_tscope *scope;
    nq_template_limits limits;
    uint64_t steps;
    unsigned depth;
    uint32_t line;
    enum { NQ_TFLOW_ON, NQ_TFLOW_BREAK, NQ_TFLOW_CONTINUE } flow;
    const struct tm *now;
    novaq_error *err;
} nq_tctx;

typedef struct nq_targs {
    const nq_tval *v;
    size_t n;
    const nq_tvar *kw;
    size_t kwn;
} nq_targs;

/* self is undefined for functions. */
typedef novaq_status (*nq_tcallable)(nq_tctx *c, nq_tval *out, const nq_tval *self,
                                     const nq_targs *a);

typedef struct nq_tfunc {
    nq_tcallable fn;
    nq_tval self;
} nq_tfunc;

/* A failure of the template at the current line. */
novaq_status nq_tfail(nq_tctx *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Counts one step and n units of work. */
NOVAQ_CHECK novaq_status nq_tcharge(nq_tctx *c, uint64_t n);
/* One level deeper; every success is followed by c->depth--. */
NOVAQ_CHECK novaq_status nq_tenter(nq_tctx *c);

/* template_value.c */
nq_tval nq_tv_bool(bool b);
nq_tval nq_tv_int(int64_t i);
nq_tval nq_tv_float(double f);
nq_tval nq_tv_str(nq_tstr s);
nq_tval nq_tv_none(void);
nq_tval nq_tv_undefined(nq_tstr what);
nq_tval nq_tv_list(nq_tlist *l);
bool nq_tstr_is(nq_tstr s, const char *literal);
bool nq_tstr_eq(nq_tstr a, nq_tstr b);
const char *nq_tv_type_name(const nq_tval *v);
bool nq_tv_is_number(const nq_tval *v); /* bool, int, float */
double nq_tv_number(const nq_tval *v);
bool nq_tv_is_seq(const nq_tval *v); /* list or tuple */
bool nq_tv_true(const nq_tval *v);
NOVAQ_CHECK novaq_status nq_tv_equal(nq_tctx *c, bool *out, const nq_tval *a, const nq_tval *b);
/* *out < 0, 0, > 0; fails on values without an order. */
NOVAQ_CHECK novaq_status nq_tv_compare(nq_tctx *c, int *out, const nq_tval *a, const nq_tval *b);
NOVAQ_CHECK novaq_status nq_tlist_new(nq_tctx *c, nq_tlist **out);
NOVAQ_CHECK novaq_status nq_tlist_push(nq_tctx *c, nq_tlist *l, nq_tval v);
NOVAQ_CHECK novaq_status nq_tdict_new(nq_tctx *c, nq_tdict **out);
NOVAQ_CHECK novaq_status nq_tdict_set(nq_tctx *c, nq_tdict *d, nq_tval key, nq_tval value);
/* *out NULL when there is none. */
NOVAQ_CHECK novaq_status nq_tdict_get(nq_tctx *c, const nq_tval **out, const nq_tdict *d,
                                      const nq_tval *key);
const nq_tval *nq_tdict_find(const nq_tdict *d, nq_tstr key);
NOVAQ_CHECK novaq_status nq_tv_pair(nq_tctx *c, nq_tval *out, nq_tval a, nq_tval b);
/* The values a for loop sees; fails on what cannot be iterated. */
NOVAQ_CHECK novaq_status nq_tv_iterate(nq_tctx *c, const nq_tlist **out, const nq_tval *v);
NOVAQ_CHECK novaq_status nq_tv_from_json(nq_tctx *c, nq_tval *out, const json_t *j);

/* template_print.c: str(), repr() and json.dumps() as Python writes them. */
NOVAQ_CHECK novaq_status nq_tv_write(nq_tctx *c, nq_buf *b, const nq_tval *v);
NOVAQ_CHECK novaq_status nq_tv_string(nq_tctx *c, nq_tstr *out, const nq_tval *v);

typedef struct nq_tjson_style {
    int indent; /* spaces, -1 = one line */
    nq_tstr item, key;
    bool sort, ascii;
} nq_tjson_style;

NOVAQ_CHECK novaq_status nq_tv_json(nq_tctx *c, nq_tstr *out, const nq_tval *v,
                                    const nq_tjson_style *style);
/* The bytes of b as a string of the rendering; b is emptied, also on failure. */
NOVAQ_CHECK novaq_status nq_tbuf_take(nq_tctx *c, nq_tstr *out, nq_buf *b);
/* A buffer with the rendering's limit. */
nq_buf nq_tbuf(const nq_tctx *c);

/* template_text.c: what Python's str does. */
uint32_t nq_tu_next(const char **p, const char *end);
size_t nq_tu_count(nq_tstr s);
bool nq_tu_space(uint32_t cp);
novaq_status nq_tu_put(nq_buf *b, uint32_t cp, novaq_error *err);
/* Byte offset of character i, s.n when there are fewer. */
size_t nq_tu_offset(nq_tstr s, size_t i);
/* side: 1 left, 2 right, 3 both; chars NULL: white space. */
nq_tstr nq_tu_strip(nq_tstr s, int side, const nq_tstr *chars);
/* First place of needle at or after from; SIZE_MAX when there is none. */
size_t nq_tu_find(nq_tstr s, nq_tstr needle, size_t from);
NOVAQ_CHECK novaq_status nq_tu_case(nq_tctx *c, nq_tstr *out, nq_tstr s, const char *how);
NOVAQ_CHECK novaq_status nq_tu_replace(nq_tctx *c, nq_tstr *out, nq_tstr s, nq_tstr old,
                                       nq_tstr with, int64_t count);
NOVAQ_CHECK novaq_status nq_tu_lines(nq_tctx *c, nq_tlist **out, nq_tstr s);

/* template_eval.c */
NOVAQ_CHECK novaq_status nq_teval(nq_tctx *c, const nq_tnode *n, nq_tval *out);
NOVAQ_CHECK novaq_status nq_tcall(nq_tctx *c, nq_tval *out, const nq_tval *callee,
                                  const nq_targs *a);
NOVAQ_CHECK novaq_status nq_tgetattr(nq_tctx *c, nq_tval *out, const nq_tval *v, nq_tstr name);
NOVAQ_CHECK novaq_status nq_tgetitem(nq_tctx *c, nq_tval *out, const nq_tval *v,
                                     const nq_tval *key);
NOVAQ_CHECK novaq_status nq_tcontains(nq_tctx *c, bool *out, const nq_tval *item,
                                      const nq_tval *container);
NOVAQ_CHECK novaq_status nq_tapply_filter(nq_tctx *c, nq_tval *out, const nq_tval *v,
                                          const nq_tnode *filter);
/* template_math.c */
NOVAQ_CHECK novaq_status nq_tmath(nq_tctx *c, nq_tval *out, int op, const nq_tval *a,
                                  const nq_tval *b);

/* template_exec.c */
NOVAQ_CHECK novaq_status nq_texec(nq_tctx *c, const nq_tnode *body);
NOVAQ_CHECK novaq_status nq_tmacro_call(nq_tctx *c, nq_tval *out, const nq_tmacro *m,
                                        const nq_targs *a);
NOVAQ_CHECK novaq_status nq_tscope_set(nq_tctx *c, nq_tscope *s, nq_tstr name, nq_tval v);
NOVAQ_CHECK novaq_status nq_tscope_new(nq_tctx *c, nq_tscope **out, nq_tscope *parent);

/* template_filter.c, template_filter_list.c, template_method.c, template_test.c */
nq_tcallable nq_tfilter_find(nq_tstr name);
nq_tcallable nq_tfilter_list_find(nq_tstr name);
NOVAQ_CHECK novaq_status nq_ttest(nq_tctx *c, bool *out, nq_tstr name, const nq_tval *v,
                                  const nq_targs *a);
/* A bound method in *out, or undefined when v has none of that name. */
NOVAQ_CHECK novaq_status nq_tmethod(nq_tctx *c, nq_tval *out, const nq_tval *v, nq_tstr name);
/* A function every template can call, or undefined. */
NOVAQ_CHECK novaq_status nq_tglobal(nq_tctx *c, nq_tval *out, nq_tstr name);

/* Argument i or the one named name; NULL when not given. */
const nq_tval *nq_targ(const nq_targs *a, size_t i, const char *name);
NOVAQ_CHECK novaq_status nq_targ_str(nq_tctx *c, nq_tstr *out, const nq_targs *a, size_t i,
                                     const char *name, nq_tstr preset);
NOVAQ_CHECK novaq_status nq_targ_int(nq_tctx *c, int64_t *out, const nq_targs *a, size_t i,
                                     const char *name, int64_t preset);
bool nq_targ_true(const nq_targs *a, size_t i, const char *name, bool preset);

typedef struct nq_tentry {
    const char *name;
    nq_tcallable fn;
} nq_tentry;

nq_tcallable nq_tentry_find(const nq_tentry *table, size_t n, nq_tstr name);

#endif

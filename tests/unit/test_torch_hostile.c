/* test_torch_hostile.c - pickles that want more than tensors, views that lead out
 * of their storage, bombs, damaged streams: the verdict, in one line that names file
 * and place. Also run under ASan and UBSan; test_torch_zip.c has the archives.
 */
#include "torch_util.h"

typedef struct pickle_case {
    const char *name;
    const char *pickle;
    size_t len;
    novaq_status want;
    const char *says;
} pickle_case;

#define P(s) s, sizeof(s) - 1

static const pickle_case pickle_cases[] = {
    {"good", P(NAMED(GOOD)), OK_, NULL},
    {"ordered dict", P(PROTO OD TEXT1("a") GOOD "s."), OK_, NULL},
    {"pairs of Python 2", P(PROTO "ccollections\nOrderedDict\n(]](U\1a" GOOD "eatR."), OK_, NULL},
    {"attributes dropped", P(PROTO OD TEXT1("a") GOOD "s}b."), OK_, NULL},
    {"unknown values beside",
     P(PROTO "}(" TEXT1("a") GOOD TEXT1("b") "G\1\2\3\4\5\6\7\10" TEXT1("c") "\x8a\x09"
                                                                             "123456789"
                                                                             "u."),
     OK_, NULL},
    /* names */
    {"os.system", P(PROTO "cos\nsystem\nX\2\0\0\0id\x85R."), UNSUP, "os.system"},
    {"posix.system", P(PROTO "cposix\nsystem\nX\2\0\0\0id\x85R."), UNSUP, "posix.system"},
    {"builtins.eval",
     P(PROTO "cbuiltins\neval\nX\1\0\0\0"
             "1\x85R."),
     UNSUP, "builtins.eval"},
    {"builtins.exec",
     P(PROTO "c__builtin__\nexec\nX\1\0\0\0"
             "1\x85R."),
     UNSUP, "__builtin__.exec"},
    {"getattr", P(PROTO "cbuiltins\ngetattr\n."), UNSUP, "builtins.getattr"},
    {"torch.load",
     P(PROTO "ctorch\nload\nX\1\0\0\0"
             "x\x85R."),
     UNSUP, "torch.load"},
    {"subprocess", P(PROTO "csubprocess\nPopen\n."), UNSUP, "subprocess.Popen"},
    {"pip", P(PROTO "cpip._internal\nmain\n."), UNSUP, "pip._internal.main"},
    {"dotted name", P(PROTO "ctorch._utils\n_rebuild_tensor_v2.__globals__\n."), UNSUP,
     "__globals__"},
    {"name with another module", P(PROTO "ctorch\nOrderedDict\n."), UNSUP, "torch.OrderedDict"},
    {"empty name", P(PROTO "c\n\n."), UNSUP, "nothing was executed"},
    {"name on the stack", P("\x80\4\x8c\2os\x8c\6system\x93."), UNSUP, "os.system"},
    {"name on the stack, no text", P("\x80\4K\1K\2\x93."), FORMAT, "short text"},
    {"quantized tensor", P(PROTO "ctorch._utils\n_rebuild_qtensor\n."), UNSUP, "_rebuild_qtensor"},
    {"module name without end", P(PROTO "cos"), FORMAT, "ends too early"},
    /* opcodes */
    {"INST", P(PROTO "(ios\nsystem\n."), UNSUP, "0x69"},
    {"OBJ", P(PROTO "(cos\nsystem\no."), UNSUP, "os.system"},
    {"EXT1", P(PROTO "\x82\1."), UNSUP, "0x82"},
    {"protocol 0 integer", P(PROTO "I1\n."), UNSUP, "0x49"},
    {"LONG4", P(PROTO "\x8b\xff\xff\xff\xff."), UNSUP, "0x8b"},
    {"DUP",
     P(PROTO "K\1"
             "2."),
     UNSUP, "0x32"},
    {"no opcode", P(PROTO "\xff."), FORMAT, "0xff"},
    {"NUL", P(PROTO "\0."), FORMAT, "0x00"},
    {"no protocol", P("}."), FORMAT, "protocol"},
    {"protocol 1", P("\x80\1}."), UNSUP, "protocol 1"},
    {"protocol 9", P("\x80\x09}."), UNSUP, "protocol 9"},
    {"protocol twice", P(PROTO PROTO "}."), FORMAT, "0x80"},
    {"nothing", P(""), FORMAT, "ends too early"},
    {"no STOP", P(PROTO "}"), FORMAT, "ends too early"},
    {"bytes behind STOP", P(NAMED(GOOD) "}"), FORMAT, "behind the end"},
    /* stack and memo */
    {"empty stack at STOP", P(PROTO "."), FORMAT, "one object"},
    {"two objects at STOP", P(PROTO "}}."), FORMAT, "one object"},
    {"open mark at STOP", P(PROTO "}(."), FORMAT, "one object"},
    {"TUPLE2 of one", P(PROTO "K\1\x86."), FORMAT, "empty stack"},
    {"TUPLE3 beyond a mark", P(PROTO "K\1K\1(K\1\x87."), FORMAT, "empty stack"},
    {"TUPLE without mark", P(PROTO "K\1t."), FORMAT, "mark"},
    {"SETITEM of nothing", P(PROTO "s."), FORMAT, "empty stack"},
    {"SETITEM to a list", P(PROTO "]K\1K\2s."), FORMAT, "no dict"},
    {"SETITEMS, odd", P(PROTO "}(K\1K\2K\3u."), FORMAT, "without a value"},
    {"SETITEMS to nothing", P(PROTO "(K\1K\2u."), FORMAT, "empty stack"},
    {"APPEND to a dict", P(PROTO "}K\1a."), FORMAT, "no list"},
    {"APPENDS to a tuple", P(PROTO ")(K\1e."), FORMAT, "no list"},
    {"memo of nothing", P(PROTO "q\0."), FORMAT, "empty stack"},
    {"memo never put", P(PROTO "h\0."), FORMAT, "memo"},
    {"memo out of range", P(PROTO "}q\0j\xff\xff\xff\xff."), FORMAT, "memo"},
    {"memo index of 2^32-1", P(PROTO "}r\xff\xff\xff\xff."), FORMAT, "memo index"},
    {"REDUCE of nothing", P(PROTO "R."), FORMAT, "empty stack"},
    {"REDUCE without tuple", P(PROTO V2 "K\1R."), FORMAT, "no function"},
    {"REDUCE of a number", P(PROTO "K\1)R."), FORMAT, "no function"},
    {"REDUCE of a storage type", P(PROTO "ctorch\nFloatStorage\n)R."), FORMAT, "no function"},
    {"NEWOBJ of a dtype", P(PROTO "ctorch\nfloat32\n)\x81."), FORMAT, "no function"},
    {"Size without argument", P(PROTO "ctorch\nSize\n)R."), FORMAT, "argument"},
    {"BUILD of a tensor", P(PROTO GOOD "}b."), FORMAT, "attributes"},
    {"dict of a number", P(PROTO "ccollections\nOrderedDict\nK\1\x85R."), FORMAT, "pairs"},
    {"dict of triples",
     P(PROTO "ccollections\nOrderedDict\n]K\1K\1K\1\x87"
             "a\x85R."),
     FORMAT, "pairs"},
    /* lengths */
    {"LONG1 of 255 bytes, cut",
     P(PROTO "\x8a\xff"
             "12."),
     FORMAT, "ends too early"},
    {"text of 2^32-1 bytes",
     P(PROTO "X\xff\xff\xff\xff"
             "abc."),
     FORMAT, "ends too early"},
    {"text of 2^64-1 bytes",
     P("\x80\4\x8d\xff\xff\xff\xff\xff\xff\xff\xff"
       "abc."),
     FORMAT, "ends too early"},
    {"float cut", P(PROTO "G\1\2."), FORMAT, "ends too early"},
    /* storages */
    {"persistent id a number", P(PROTO "}" TEXT1("a") V2 "(K\1QK\0" SHAPE DENSE "\x89" OD "tRs."),
     FORMAT, "no storage"},
    {"persistent id of a module",
     P(NAMED(V2 "((X\6\0\0\0moduleK\1K\1K\1K\1tQK\0" SHAPE DENSE "\x89" OD "tR")), FORMAT,
     "no storage"},
    {"persistent id too short", P(NAMED(V2 "((X\7\0\0\0storagetQK\0" SHAPE DENSE "\x89" OD "tR")),
     FORMAT, "no storage"},
    {"storage type a function", P(NAMED(VIEW(STORE_AS(V2, "K\4"), "K\0", SHAPE, DENSE))), FORMAT,
     "without type"},
    {"storage type a dtype",
     P(NAMED(VIEW(STORE_AS("ctorch\nfloat32\n", "K\4"), "K\0", SHAPE, DENSE))), FORMAT,
     "without type"},
    {"storage of negative size",
     P(NAMED(VIEW(STORE_AS("ctorch\nFloatStorage\n", NEGATIVE), "K\0", SHAPE, DENSE))), FORMAT,
     "without type"},
    {"storage size overflows",
     P(NAMED(VIEW(STORE_AS("ctorch\nFloatStorage\n", BIG), "K\0", SHAPE, DENSE))), FORMAT,
     "overflows"},
    {"storage larger than its record",
     P(NAMED(VIEW(STORE_AS("ctorch\nFloatStorage\n", "K\5"), "K\0", SHAPE, DENSE))), FORMAT,
     "claims 20 bytes, its record has 16"},
    {"storage smaller than its record",
     P(NAMED(VIEW(STORE_AS("ctorch\nFloatStorage\n", "K\3"), "K\0", "K\1\x85", "K\1\x85"))), FORMAT,
     "claims 12 bytes"},
    {"storage of another type",
     P(NAMED(VIEW(STORE_AS("ctorch\nHalfStorage\n", "K\4"), "K\0", SHAPE, DENSE))), FORMAT,
     "claims 8 bytes"},
    {"no such storage",
     P(NAMED(VIEW("(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"
                  "7X\3\0\0\0cpuK\4tQ",
                  "K\0", SHAPE, DENSE))),
     FORMAT, "no record"},
    {"storage key with a path",
     P(NAMED(VIEW("(X\7\0\0\0storagectorch\nFloatStorage\nX\x0b\0\0\0../data.pklX\3\0\0\0cpuK\4tQ",
                  "K\0", SHAPE, DENSE))),
     FORMAT, "no record"},
    {"storage key with a NUL",
     P(NAMED(VIEW("(X\7\0\0\0storagectorch\nFloatStorage\nX\2\0\0\0"
                  "0\0X\3\0\0\0cpuK\4tQ",
                  "K\0", SHAPE, DENSE))),
     FORMAT, "key"},
    {"storage within a storage",
     P(NAMED(VIEW("(X\7\0\0\0storagectorch\nFloatStorage\n" TEXT1("0") "X\3\0\0\0cpuK\4)tQ", "K\0",
                  SHAPE, DENSE))),
     UNSUP, "before 0.4"},
    /* views */
    {"view beyond the storage", P(NAMED(VIEW(STORE, "K\0", "K\2K\3\x86", "K\3K\1\x86"))), FORMAT,
     "needs 24 bytes of a storage of 16"},
    {"offset beyond the storage", P(NAMED(VIEW(STORE, "K\1", SHAPE, DENSE))), FORMAT,
     "needs 20 bytes"},
    {"huge offset", P(NAMED(VIEW(STORE, BIG, SHAPE, DENSE))), FORMAT, "overflow"},
    {"negative offset", P(NAMED(VIEW(STORE, NEGATIVE, SHAPE, DENSE))), FORMAT, "offset"},
    {"offset a text", P(NAMED(VIEW(STORE, TEXT1("0"), SHAPE, DENSE))), FORMAT, "offset"},
    {"negative stride", P(NAMED(VIEW(STORE, "K\0", SHAPE, "K\2" NEGATIVE "\x86"))), FORMAT,
     "strides"},
    {"huge stride", P(NAMED(VIEW(STORE, "K\0", SHAPE, BIG "K\1\x86"))), FORMAT, "overflow"},
    {"strides wrap around", P(NAMED(VIEW(STORE, "K\0", "K\3K\2\x86", BIG "K\2\x86"))), FORMAT,
     "overflow"},
    {"negative size", P(NAMED(VIEW(STORE, "K\0", NEGATIVE "K\2\x86", DENSE))), FORMAT, "shape"},
    {"size a float", P(NAMED(VIEW(STORE, "K\0", "G\0\0\0\0\0\0\0\0\x85", "K\1\x85"))), FORMAT,
     "shape"},
    {"size of 80 bits",
     P(NAMED(VIEW(STORE, "K\0",
                  "\x8a\x0a"
                  "1234567890\x85",
                  "K\1\x85"))),
     FORMAT, "shape"},
    {"shape no tuple", P(NAMED(VIEW(STORE, "K\0", "K\4", "K\1\x85"))), FORMAT, "no tuple"},
    {"product of the shape overflows", P(NAMED(VIEW(STORE, "K\0", BIG BIG "\x86", DENSE))), FORMAT,
     "overflows"},
    {"bytes overflow", P(NAMED(VIEW(STORE, "K\0", BIG "\x85", "K\0\x85"))), FORMAT, "overflow"},
    {"expanded to 2^40", P(NAMED(VIEW(STORE, "K\0", "\x8a\6\0\0\0\0\0\1\x85", "K\0\x85"))), UNSUP,
     "repeat"},
    {"overlapping view", P(NAMED(VIEW(STORE, "K\0", SHAPE, "K\1K\1\x86"))), UNSUP, "overlap"},
    {"fewer strides than sizes", P(NAMED(VIEW(STORE, "K\0", SHAPE, "K\1\x85"))), FORMAT,
     "as many strides"},
    {"nine dimensions",
     P(NAMED(VIEW(STORE, "K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t"))),
     UNSUP, "9 dimensions"},
    {"too few arguments",
     P(NAMED(V2 "(" STORE "K\0"
                "tR")),
     FORMAT, "no storage"},
    {"no arguments", P(NAMED(V2 ")R")), FORMAT, "no storage"},
    {"rebuilt from a number", P(NAMED(VIEW("K\1", "K\0", SHAPE, DENSE))), FORMAT, "no storage"},
    {"parameter of a number", P(NAMED("ctorch._utils\n_rebuild_parameter\nK\1K\1K\1\x87R")), FORMAT,
     "no tensor"},
    {"parameter of nothing", P(NAMED("ctorch._utils\n_rebuild_parameter\n)R")), FORMAT,
     "no tensor"},
    {"rebuilt by a storage type",
     P(NAMED("ctorch._tensor\n_rebuild_from_type_v2\n(ctorch\nFloatStorage\nctorch\nTensor\n)}tR")),
     FORMAT, "no tensor"},
    {"v3 without dtype",
     P(NAMED("ctorch._utils\n_rebuild_tensor_v3\n(" STORE "K\0" SHAPE DENSE "\x89" OD "tR")),
     FORMAT, "dtype"},
    {"v3 with a storage type as dtype",
     P(NAMED("ctorch._utils\n_rebuild_tensor_v3\n(" STORE "K\0" SHAPE DENSE "\x89" OD
             "ctorch\nFloatStorage\ntR")),
     FORMAT, "dtype"},
    {"v3 wider than its storage",
     P(NAMED("ctorch._utils\n_rebuild_tensor_v3\n(" STORE "K\0" SHAPE DENSE "\x89" OD
             "ctorch\nfloat64\ntR")),
     FORMAT, "needs 32 bytes"},
    {"conjugated", P(NAMED(V2 "(" STORE "K\0" SHAPE DENSE "\x89" OD "}X\4\0\0\0conj\x88stR")),
     UNSUP, "conjugated"},
    {"empty tensor far away", P(NAMED(VIEW(STORE, BIG, "K\0\x85", "K\1\x85"))), OK_, NULL},
    /* the tree */
    {"a number", P(PROTO "K\1."), FORMAT, "no dict of tensors"},
    {"a storage", P(PROTO STORE "."), FORMAT, "no dict of tensors"},
    {"an empty dict", P(PROTO "}."), FORMAT, "no tensors"},
    {"a list in itself", P(PROTO "]q\0h\0a."), FORMAT, "64 deep"},
    {"a dict in itself", P(PROTO "}q\0" TEXT1("a") "h\0s."), FORMAT, "64 deep"},
    {"a state_dict in itself", P(PROTO "}q\0X\x0a\0\0\0state_dicth\0s."), FORMAT, "64 deep"},
    {"key twice", P(PROTO "}(" TEXT1("a") GOOD TEXT1("a") GOOD "u."), FORMAT,
     "\"a\" is there twice"},
    {"key twice, as text and number", P(PROTO "}(" TEXT1("1") GOOD "K\1" GOOD "u."), FORMAT,
     "\"1\" is there twice"},
    {"key not UTF-8", P(PROTO "}" TEXT1("\xff") GOOD "s."), FORMAT, "UTF-8"},
    {"key with a NUL", P(PROTO "}" TEXT1("\0") GOOD "s."), FORMAT, "UTF-8"},
    {"empty key", P(PROTO "}X\0\0\0\0" GOOD "s."), FORMAT, "empty"},
    {"key a tuple", P(PROTO "}K\1\x85" GOOD "s."), FORMAT, "neither text nor a number"},
};

static void test_pickles(void **state) {
    (void)state;
    room *r = enter();
    for (size_t i = 0; i < sizeof pickle_cases / sizeof pickle_cases[0]; i++) {
        const pickle_case *c = &pickle_cases[i];
        archive a;
        build_checkpoint(&a, c->pickle, c->len, i % 2 == 0);
        judge(r, c->name, &a.b, c->want, c->says);
        bytes_free(&a.b);
    }
    leave(r);
}

/* Every beginning of a good pickle is refused, and so is every beginning of its
 * archive. */
static void test_cut(void **state) {
    (void)state;
    static const char good[] = NAMED(GOOD);
    room *r = enter();
    archive a;
    for (size_t n = 0; n < sizeof good - 1; n++) {
        build_checkpoint(&a, good, n, false);
        judge(r, "cut pickle", &a.b, FORMAT, "ends too early");
        bytes_free(&a.b);
    }
    build_checkpoint(&a, good, sizeof good - 1, true);
    for (size_t n = a.b.len; n > 4; n--) {
        bytes cut = {.data = a.b.data, .len = n - 1};
        judge(r, "cut archive", &cut, FORMAT, NULL);
    }
    bytes_free(&a.b);
    leave(r);
}

/* ---- bombs ------------------------------------------------------------------------ */

static void judge_pickle(const room *r, const char *name, bytes *pickle, novaq_status want,
                         const char *says) {
    archive a;
    build_checkpoint(&a, pickle->data, pickle->len, true);
    judge(r, name, &a.b, want, says);
    bytes_free(&a.b);
    bytes_free(pickle);
}

static void repeat(bytes *b, const char *s, size_t n, size_t times) {
    for (size_t i = 0; i < times; i++) {
        put(b, s, n);
    }
}

static void test_bombs(void **state) {
    (void)state;
    room *r = enter();
    bytes b = {0};
    put(&b, PROTO, 2);
    put_fill(&b, '(', 1500);
    judge_pickle(r, "endless marks", &b, FORMAT, "1000 open marks");
    put(&b, PROTO, 2);
    put_fill(&b, ']', 2000000);
    judge_pickle(r, "endless lists", &b, FORMAT, "too much on the stack");
    put(&b, PROTO, 2);
    put_fill(&b, ']', 1000);
    put_fill(&b, 'a', 999);
    put(&b, ".", 1);
    judge_pickle(r, "a thousand lists in each other", &b, FORMAT, "64 deep");
    put(&b, PROTO "]", 3);
    repeat(&b, "]a", 2, 5000000);
    judge_pickle(r, "millions of lists", &b, FORMAT, "2097152 objects");
    put(&b, PROTO "]", 3);
    repeat(&b, "Na", 2, 5000000);
    put(&b, ".", 1);
    judge_pickle(r, "five million times None", &b, FORMAT, "4194304 values");
    /* Each dict holds what is before it twice: 3^40 paths. */
    static const char twice[] = "q\0}(" TEXT1("a") "h\0" TEXT1("b") "h\0u\x86";
    put(&b, PROTO "}", 3);
    repeat(&b, twice, sizeof twice - 1, 40);
    put(&b, ".", 1);
    judge_pickle(r, "3^40 dicts", &b, FORMAT, "4194304 values");
    /* One tensor under very many names: each tuple holds the one before it 5 times. */
    static const char five[] = "(h\0h\0h\0h\0tq\0\x86q\0";
    put(&b, P(PROTO GOOD "\x85q\0"));
    repeat(&b, five, sizeof five - 1, 12);
    put(&b, ".", 1);
    judge_pickle(r, "5^12 tensors", &b, FORMAT, "so short a pickle");
    put(&b, PROTO "X", 3);
    put_int(&b, 2000, 4);
    put_fill(&b, 'n', 2000);
    put(&b, "q\0}h\0" GOOD "s\x86.", sizeof GOOD + 7);
    judge_pickle(r, "a name of 2000 bytes", &b, FORMAT, "1024 bytes");
    put(&b, PROTO "c", 3);
    put_fill(&b, 'm', 100000);
    judge_pickle(r, "a module name without end", &b, FORMAT, "256 bytes");
    leave(r);
}

/* ---- the stream form -------------------------------------------------------------- */

#define MAGIC  "\x80\2\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19."
#define VER    PROTO "M\xe9\3."
#define SYS(v) PROTO "}X\x0d\0\0\0little_endian" v "s."
#define STORE6 "(X\7\0\0\0storagectorch\nFloatStorage\n" TEXT1("0") "X\3\0\0\0cpuK\4NtQ"
#define OBJ    NAMED(VIEW(STORE6, "K\0", SHAPE, DENSE))
#define KEYS   PROTO "]" TEXT1("0") "a."
#define COUNT  "\4\0\0\0\0\0\0\0"
#define DATA   "0123456789abcdef"
#define HEAD   MAGIC VER SYS("\x88")

static const pickle_case stream_cases[] = {
    {"good", P(HEAD OBJ KEYS COUNT DATA), OK_, NULL},
    {"magic number damaged", P("\x80\2\x8a\nl\xfc\x9c\x46\xf9 j\xa8Q\x19." VER), FORMAT,
     "begins a file"},
    {"another pickle", P("\x80\2}q\1."), FORMAT, "begins a file"},
    {"a pickle that executes", P("\x80\2cos\nsystem\nX\2\0\0\0id\x85R."), FORMAT, "begins a file"},
    {"version 1000", P(MAGIC PROTO "M\xe8\3." SYS("\x88") OBJ KEYS COUNT DATA), UNSUP, "1001"},
    {"version a text", P(MAGIC PROTO TEXT1("a") "." SYS("\x88") OBJ KEYS COUNT DATA), UNSUP,
     "1001"},
    {"big-endian", P(MAGIC VER SYS("\x89") OBJ KEYS COUNT DATA), UNSUP, "big-endian"},
    {"order unknown", P(MAGIC VER SYS("K\1") OBJ KEYS COUNT DATA), FORMAT, "little-endian"},
    {"no order", P(MAGIC VER PROTO "}." OBJ KEYS COUNT DATA), FORMAT, "little-endian"},
    {"system that executes", P(MAGIC VER PROTO "cos\nsystem\n." OBJ KEYS COUNT DATA), UNSUP,
     "os.system"},
    {"objects that execute", P(HEAD PROTO "cos\nsystem\n." KEYS COUNT DATA), UNSUP, "os.system"},
    {"ends behind the system", P(HEAD), FORMAT, "ends too early"},
    {"ends behind the objects", P(HEAD OBJ), FORMAT, "ends too early"},
    {"ends behind the keys", P(HEAD OBJ KEYS), FORMAT, "wanted"},
    {"no data", P(HEAD OBJ KEYS COUNT), FORMAT, "beyond the end"},
    {"data cut", P(HEAD OBJ KEYS COUNT "0123456789abcde"), FORMAT, "beyond the end"},
    {"bytes behind", P(HEAD OBJ KEYS COUNT DATA "x"), FORMAT, "belong to no storage"},
    {"other count", P(HEAD OBJ KEYS "\5\0\0\0\0\0\0\0" DATA "0123"), FORMAT, "another size"},
    {"negative count", P(HEAD OBJ KEYS "\xff\xff\xff\xff\xff\xff\xff\xff" DATA), FORMAT,
     "another size"},
    {"no keys", P(HEAD OBJ PROTO "]."), FORMAT, "not in the file"},
    {"keys a number", P(HEAD OBJ PROTO "K\1." COUNT DATA), FORMAT, "no list"},
    {"key a number", P(HEAD OBJ PROTO "]K\1a." COUNT DATA), FORMAT, "no tensor has"},
    {"key unknown", P(HEAD OBJ PROTO "]" TEXT1("1") "a." COUNT DATA), FORMAT, "no tensor has"},
    {"key that begins like one",
     P(HEAD OBJ PROTO "]X\2\0\0\0"
                      "00a." COUNT DATA),
     FORMAT, "no tensor has"},
    {"key empty",
     P(HEAD OBJ PROTO "]X\0\0\0\0"
                      "a." COUNT DATA),
     FORMAT, "no tensor has"},
    {"key twice", P(HEAD OBJ PROTO "](" TEXT1("0") TEXT1("0") "e." COUNT DATA COUNT DATA), FORMAT,
     "twice"},
    {"one storage, two sizes",
     P(HEAD PROTO "}(" TEXT1("a") VIEW(STORE6, "K\0", SHAPE, DENSE) TEXT1("b") VIEW(
         STORE_AS("ctorch\nFloatStorage\n", "K\5"), "K\0", SHAPE, DENSE) "u." KEYS COUNT DATA),
     FORMAT, "two types or sizes"},
    {"storage of 2^63 bytes",
     P(HEAD NAMED(VIEW(STORE_AS("ctorch\nByteStorage\n", BIG), "K\0", SHAPE, DENSE)) KEYS
       "\xff\xff\xff\xff\xff\xff\xff\x7f" DATA),
     FORMAT, "beyond the end"},
    {"view beyond the storage", P(HEAD NAMED(VIEW(STORE6, "K\1", SHAPE, DENSE)) KEYS COUNT DATA),
     FORMAT, "needs 20 bytes"},
};

static void test_streams(void **state) {
    (void)state;
    room *r = enter();
    for (size_t i = 0; i < sizeof stream_cases / sizeof stream_cases[0]; i++) {
        const pickle_case *c = &stream_cases[i];
        bytes b = {0};
        put(&b, c->pickle, c->len);
        judge(r, c->name, &b, c->want, c->says);
        bytes_free(&b);
    }
    leave(r);
}

/* Pickles longer than the window they are first read in. */
static void test_long_stream(void **state) {
    (void)state;
    room *r = enter();
    bytes b = {0};
    put(&b, HEAD PROTO "}(X", sizeof(HEAD PROTO "}(X") - 1);
    put_int(&b, 3000000, 4);
    put_fill(&b, 'n', 3000000);
    put(&b, "K\1", 2);
    put(&b, P(TEXT1("a") VIEW(STORE6, "K\0", SHAPE, DENSE) "u." KEYS COUNT DATA));
    judge(r, "three megabytes of pickle", &b, OK_, NULL);
    b.len -= 1000;
    judge(r, "three megabytes, cut", &b, FORMAT, "ends too early");
    bytes_free(&b);
    leave(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pickles),     cmocka_unit_test(test_cut),
        cmocka_unit_test(test_bombs),       cmocka_unit_test(test_streams),
        cmocka_unit_test(test_long_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

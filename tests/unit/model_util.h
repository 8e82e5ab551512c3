/* model_util.h - what the tests of models share: the tiny models' expected
 * figures, a scratch folder, altered copies of a Hugging Face directory. */
#ifndef NQ_TESTS_MODEL_UTIL_H
#define NQ_TESTS_MODEL_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/mem.h"
#include "io/fs.h"

#define UNUSED     __attribute__((unused))
#define TINY(name) FIXTURES "/model/" name

UNUSED static json_t *load_json(const char *path) {
    char *text = NULL;
    size_t len = 0;
    json_t *o = NULL;
    assert_int_equal(nq_read_file(&text, &len, path, (size_t)1 << 24, NULL), NOVAQ_OK);
    assert_int_equal(nq_json_parse(&o, path, text, len, NULL), NOVAQ_OK);
    nq_free(text);
    return o;
}

UNUSED static double number(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v)) {
        fail_msg("no number \"%s\"", key);
    }
    return json_number_value(v);
}

UNUSED static void assert_near(double got, double want, double tolerance, const char *what) {
    double d = got - want;
    if (!(d <= tolerance && -d <= tolerance)) {
        fail_msg("%s: got %.9g, want %.9g", what, got, want);
    }
}

/* A fresh folder under TMPDIR; the caller frees the name. */
UNUSED static char *scratch_dir(void) {
    const char *base = getenv("TMPDIR");
    char *path = NULL;
    assert_int_equal(
        nq_asprintf(&path, NULL, "%s/novaq-model.XXXXXX", base == NULL ? "/tmp" : base), NOVAQ_OK);
    assert_non_null(mkdtemp(path));
    return path;
}

/* Removes a folder of files (and folders of files). */
UNUSED static void remove_dir(const char *path) {
    char **names = NULL;
    size_t count = 0;
    assert_int_equal(nq_list_dir(&names, &count, path, NULL), NOVAQ_OK);
    for (size_t i = 0; i < count; i++) {
        char *p = NULL;
        assert_int_equal(nq_path_join(&p, path, names[i], NULL), NOVAQ_OK);
        if (nq_is_dir(p)) {
            remove_dir(p);
        } else {
            unlink(p);
        }
        nq_free(p);
    }
    nq_free_names(names, count);
    rmdir(path);
}

UNUSED static void write_json(const char *dir, const char *file, const json_t *o) {
    char *path = NULL;
    char *text = NULL;
    assert_int_equal(nq_path_join(&path, dir, file, NULL), NOVAQ_OK);
    assert_int_equal(nq_json_dump(&text, o, 1, NULL), NOVAQ_OK);
    assert_int_equal(nq_write_file(path, text, strlen(text), NULL), NOVAQ_OK);
    nq_free(text);
    nq_free(path);
}

/* A text file of `repeats` different lines in dir; the caller frees the path. */
UNUSED static char *text_file(const char *dir, unsigned repeats) {
    char *path = NULL;
    char *text = NULL;
    size_t len = 0;
    size_t room = 80 * ((size_t)repeats + 1);
    assert_int_equal(nq_path_join(&path, dir, "text.txt", NULL), NOVAQ_OK);
    assert_int_equal(nq_alloc(&text, room, 1, NULL), NOVAQ_OK);
    for (unsigned i = 0; i < repeats; i++) {
        len +=
            (size_t)snprintf(text + len, room - len, "line %u of the small text, read again.\n", i);
    }
    assert_int_equal(nq_write_file(path, text, len, NULL), NOVAQ_OK);
    nq_free(text);
    return path;
}

/* A scratch copy of model a-hf with `key` of its config set to the JSON text
 * `value`, or removed when value is NULL. */
UNUSED static char *altered_model(const char *key, const char *value) {
    static const char *const FILES[] = {"model.safetensors", "tokenizer.json",
                                        "tokenizer_config.json"};
    char *dir = scratch_dir();
    for (size_t i = 0; i < sizeof FILES / sizeof FILES[0]; i++) {
        char *from = NULL;
        char *to = NULL;
        assert_int_equal(nq_path_join(&from, TINY("a-hf"), FILES[i], NULL), NOVAQ_OK);
        assert_int_equal(nq_path_join(&to, dir, FILES[i], NULL), NOVAQ_OK);
        assert_int_equal(symlink(from, to), 0);
        nq_free(from);
        nq_free(to);
    }
    json_t *config = load_json(TINY("a-hf/config.json"));
    if (value == NULL) {
        json_object_del(config, key);
    } else {
        json_t *v = NULL;
        assert_int_equal(nq_json_parse(&v, "value", value, strlen(value), NULL), NOVAQ_OK);
        json_object_set_new(config, key, v);
    }
    write_json(dir, "config.json", config);
    json_decref(config);
    return dir;
}

#endif

/* generate.c - a conversation with a model, one line a turn.
 *
 * What a program that talks needs of libnovaq: a model, a session that keeps what
 * was computed for earlier turns, the model's own chat template, text as it appears.
 * Messages are JSON, written by hand here.
 *
 *   cc generate.c $(pkg-config --cflags --libs novaq) -o generate
 *   echo "Name three rivers." | ./generate MODEL
 */
#include <novaq.h>

#include <stdio.h>
#include <string.h>

/* A conversation as the JSON that novaq_chat_options.messages takes. */
typedef struct conversation {
    char json[32768];
    size_t len;
} conversation;

/* What an answer becomes. */
typedef struct answer {
    char text[16384];
    size_t len;
} answer;

static int put(conversation *c, const char *s) {
    size_t n = strlen(s);
    if (n >= sizeof c->json - c->len) {
        return 0;
    }
    memcpy(c->json + c->len, s, n + 1);
    c->len += n;
    return 1;
}

/* Adds one message; 0 when the conversation is full. */
static int say(conversation *c, const char *role, const char *text) {
    if (c->len > 0) {
        c->len--; /* the bracket that ends the list */
    }
    int fits = put(c, c->len > 0 ? ",{\"role\":\"" : "[{\"role\":\"") && put(c, role) &&
               put(c, "\",\"content\":\"");
    for (; fits && *text != '\0'; text++) {
        char code[8];
        unsigned char byte = (unsigned char)*text;
        int plain = byte >= 0x20 && byte != '"' && byte != '\\';
        (void)snprintf(code, sizeof code, plain ? "%c" : "\\u%04x", byte);
        fits = put(c, code);
    }
    return fits && put(c, "\"}]");
}

/* Whole UTF-8 sequences, as they are generated. */
static int show(void *ctx, const char *text, size_t len) {
    answer *a = ctx;
    if (len >= sizeof a->text - a->len) {
        return 1; /* stops the generation; not an error */
    }
    memcpy(a->text + a->len, text, len);
    a->len += len;
    a->text[a->len] = '\0';
    return fwrite(text, 1, len, stdout) == len && fflush(stdout) == 0 ? 0 : 1;
}

static novaq_status reply(answer *a, novaq_session *session, const conversation *c,
                          novaq_error *err) {
    novaq_chat_options chat = NOVAQ_CHAT_OPTIONS_INIT;
    chat.messages = c->json;
    novaq_generate_options opt = NOVAQ_GENERATE_OPTIONS_INIT;
    opt.chat = &chat; /* instead of opt.prompt */
    opt.max_tokens = 256;
    opt.text = show;
    opt.text_ctx = a;
    *a = (answer){.len = 0};
    novaq_status st = novaq_session_generate(NULL, session, &opt, err);
    (void)puts("");
    return st;
}

static novaq_status talk(novaq_session *session, novaq_error *err) {
    conversation c = {.len = 0};
    answer a = {.len = 0};
    char line[4096];
    novaq_status st = NOVAQ_OK;
    while (st == NOVAQ_OK && fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (!say(&c, "user", line)) {
            (void)fprintf(stderr, "generate: the conversation is full\n");
            break;
        }
        st = reply(&a, session, &c, err);
        if (!say(&c, "assistant", a.text)) {
            break;
        }
    }
    return st;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        (void)fprintf(stderr, "usage: generate MODEL < LINES\n");
        return 2;
    }
    novaq_error err;
    novaq_model *model = NULL; /* a source or a novaq artifact alike */
    novaq_session *session = NULL;
    novaq_model_options how = NOVAQ_MODEL_OPTIONS_INIT;
    novaq_session_options keep = NOVAQ_SESSION_OPTIONS_INIT;
    novaq_status st = novaq_model_open(&model, argv[1], &how, &err);
    if (st == NOVAQ_OK) {
        st = novaq_session_open(&session, model, &keep, &err);
    }
    if (st == NOVAQ_OK) {
        st = talk(session, &err);
    }
    if (st != NOVAQ_OK) {
        (void)fprintf(stderr, "generate: %s: %s\n", novaq_status_name(st), err.msg);
    }
    novaq_session_close(&session);
    novaq_model_close(&model);
    return st == NOVAQ_OK ? 0 : 1;
}

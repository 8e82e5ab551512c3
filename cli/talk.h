/* talk.h - what run and chat share.
 *
 * Owns: the options of a generation, conversations as JSON, text from a model on a
 * terminal. Refuses: letting a model put control sequences on a terminal.
 */
#ifndef CLI_TALK_H
#define CLI_TALK_H

#include "cmd.h"

/* Where generated text goes as it appears. */
typedef struct talk_stream {
    bool show;         /* print it */
    bool terminal;     /* standard output is one: control characters are replaced */
    bool newline;      /* nothing printed yet, or a line feed last */
    int (*stop)(void); /* asked after each piece: nonzero ends the generation */
} talk_stream;

/* Shows text unless json is asked for; see cli's --json. */
talk_stream talk_stream_begin(const opt_args *a, int (*stop)(void));
/* A novaq_text_fn whose ctx is a talk_stream. */
int talk_on_text(void *ctx, const char *text, size_t len);
/* Ends the line that the text has begun, if it has. */
void talk_stream_end(talk_stream *s);

/* Sampling, lengths and stop texts as the options say. */
void talk_fill(novaq_generate_options *o, const opt_args *a);

/* What a conversation needs beside its messages. */
typedef struct talk_chat {
    novaq_chat_options options;
    char *chat_template; /* of --chat-template */
} talk_chat;

/* Reads --chat-template and notes the date. Returns EXIT_OK or says what failed. */
int talk_chat_begin(talk_chat *c, const opt_args *a);
void talk_chat_end(talk_chat *c);

/* Opens the model that the argument or --model names; *m NULL unless EXIT_OK. */
int talk_open(novaq_model **m, const opt_args *a, const char *command);

#endif

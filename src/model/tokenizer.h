/* tokenizer.h - text to token ids and back, exactly as the model's own tokenizer.
 *
 * Owns: BPE of bytes and of characters, SentencePiece's BPE and Unigram, with the
 * normalizers and pre-tokenizers of tokenizer_norm.c and tokenizer_stages.c.
 * Refuses (NOVAQ_E_UNSUPPORTED, by name): every tokenizer it cannot reproduce
 * exactly; nothing is approximated.
 */
#ifndef NQ_MODEL_TOKENIZER_H
#define NQ_MODEL_TOKENIZER_H

#include "base/json.h"

typedef struct nq_tokenizer nq_tokenizer;

/* desc: the "tokenizer" object of describe.h. */
NOVAQ_CHECK novaq_status nq_tokenizer_open(nq_tokenizer **out, const json_t *desc,
                                           novaq_error *err);
void nq_tokenizer_close(nq_tokenizer **t);
/* *ids: nq_free(). A byte that is not UTF-8 is a character of its own that no
 * token stands for: its byte token where there is one, else the unknown token.
 * parse_special: control tokens written out in the text are recognised (the
 * user-defined ones always are). Thread-safe. */
NOVAQ_CHECK novaq_status nq_tokenizer_encode(int32_t **ids, size_t *count, const nq_tokenizer *t,
                                             const char *text, size_t len, int add_special,
                                             int parse_special, novaq_error *err);
/* *text: nq_free(), NUL-terminated. Ids outside the vocabulary are an error. The
 * ids are a whole text: the space that encoding puts before it goes away. */
NOVAQ_CHECK novaq_status nq_tokenizer_decode(char **text, size_t *len, const nq_tokenizer *t,
                                             const int32_t *ids, size_t count, int skip_special,
                                             novaq_error *err);
/* The bytes of one token in the middle of a text; borrowed. *len is 0 for ids
 * outside the vocabulary, and for control tokens with skip_special. */
const uint8_t *nq_tokenizer_piece(size_t *len, const nq_tokenizer *t, int32_t id, int skip_special);
size_t nq_tokenizer_vocab(const nq_tokenizer *t);
int32_t nq_tokenizer_bos(const nq_tokenizer *t); /* -1 if none */
int nq_tokenizer_adds_bos(const nq_tokenizer *t);
/* Ends a generation: eos, eot and their like. */
int nq_tokenizer_is_end(const nq_tokenizer *t, int32_t id);

#endif

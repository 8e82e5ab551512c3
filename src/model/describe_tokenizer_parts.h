/* describe_tokenizer_parts.h - the two halves of reading tokenizer.json, private
 * to describe_tokenizer_hf.c and describe_tokenizer_parts.c.
 *
 * Owns: what both know of the file. Refuses: nothing by itself.
 */
#ifndef NQ_MODEL_DESCRIBE_TOKENIZER_PARTS_H
#define NQ_MODEL_DESCRIBE_TOKENIZER_PARTS_H

#include "model/tokenizer_impl.h"

typedef struct nq_hf {
    const json_t *root;
    const json_t *config; /* or NULL */
    json_t *desc;
    char **why;
    bool byte_level; /* the pre-tokenizer has a ByteLevel stage */
    bool bytes;      /* byte fallback: "<0x0A>" stands for a byte */
} nq_hf;

bool nq_hf_absent(const json_t *v);
const char *nq_hf_type_of(const json_t *part);
bool nq_hf_is_type(const json_t *part, const char *type);
/* A boolean member that equals `want`, or is absent while that is the default. */
bool nq_hf_flag_is(const json_t *part, const char *key, bool want, bool by_default);
/* The i-th element of a component that may be a Sequence of them: `list` is the
 * member's name. NULL past the end. */
const json_t *nq_hf_element(const json_t *part, const char *list, size_t i);

bool nq_hf_has_byte_level(const json_t *root);
/* model, pre, normalizer, pre_tokenizer, add_space_prefix, strip. */
NOVAQ_CHECK novaq_status nq_hf_read_around(const nq_hf *h, novaq_error *err);

#endif

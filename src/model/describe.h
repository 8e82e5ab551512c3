/* describe.h - what a model is, in one canonical JSON object.
 *
 * Owns: mapping GGUF keys and Hugging Face config.json / tokenizer.json /
 * tokenizer_config.json to the same description; artifacts store it and the
 * runtime reads nothing else. Refuses: guessing; what cannot be mapped is left
 * out and named in "unsupported".
 *
 * {
 *  "architecture": "llama",            (GGUF spelling; "unknown" if there is none)
 *  "source_format": "gguf" | "safetensors" | "pytorch" | "onnx",
 *  "name": "...",                      (general.name / directory name, optional)
 *  "hyperparameters": { "block_count", "context_length", "embedding_length",
 *      "feed_forward_length", "head_count", "head_count_kv", "head_dim",
 *      "rope_dim", "rope_theta", "rope_style": "interleaved" | "half",
 *      "rms_eps" or "layer_norm_eps", "vocab_size", "tie_embeddings": bool;
 *      where they apply:
 *      "rope_scaling": { "type": "linear" | "llama3" | "yarn" | "longrope", "factor", ... },
 *      "rope_theta_local", "sliding_window", "sliding_layers": [bool per block; all if absent],
 *      "attention_scale", "attention_softcap", "logit_softcap", "attention_bias": bool,
 *      "expert_count", "expert_used_count", "expert_feed_forward_length",
 *      "expert_weights_norm": bool },
 *  "tokenizer": { "model": "gpt2" (BPE of bytes) | "llama" (SentencePiece's BPE) |
 *          "t5" (Unigram),
 *      "pre": "smollm" (a name of tokenizer.ggml.pre) | "default" (for llama and t5:
 *          spaces become U+2581, nothing is cut) | "custom" (see pre_tokenizer),
 *      "tokens": [...],
 *      "token_types": [...], (GGUF numbers: 1 normal, 2 unknown, 3 control, 4 user-defined,
 *          5 unused, 6 byte)
 *      "merges": [...], (llama without it merges by scores)
 *      "scores": [...] (llama, t5),
 *      "bos_id", "eos_id", "eot_ids": [...], "unk_id", "pad_id" (absent if none),
 *      "add_bos": bool, "add_eos": bool, "add_space_prefix": bool,
 *      "ignore_merges": bool,
 *      "normalizer": "none" | "nfc" | {...} as in tokenizer.json,
 *      "pre_tokenizer": {...} as in tokenizer.json, when pre is "custom",
 *      "byte_fallback": bool (absent: llama with all byte tokens), "fuse_unk": bool
 *          (absent: true), for llama and t5,
 *      "literal_bytes": bool (absent: false), t5: a text like <0x0A> is that byte token,
 *      "strip": "nothing" | "space" | "token": what decoding takes from the beginning of
 *          a text (absent: a space if add_space_prefix put one),
 *      "lstrip_ids", "rstrip_ids", "normalized_ids": [...] added tokens that take white
 *          space along, or are matched after normalization (absent: none) },
 *  "chat_template": "...",             (optional)
 *  "unsupported": ["why it cannot run", ...]   (absent if it can)
 * }
 *
 * Token strings of byte-level BPE are in GPT-2's byte-to-unicode alphabet, as
 * both GGUF and tokenizer.json write them. tokens that are not valid UTF-8 make
 * the tokenizer unsupported.
 */
#ifndef NQ_MODEL_DESCRIBE_H
#define NQ_MODEL_DESCRIBE_H

#include "artifact/artifact.h"
#include "format/tensors.h"

/* As nq_tensors_open(), and matrices that the model stores as (inputs, outputs) are
 * shown and read as (outputs, inputs); of Gemma 3 with images only the text model's
 * tensors are there, as they are called in models of text alone. */
NOVAQ_CHECK novaq_status nq_model_tensors_open(nq_tensors **out, const char *path,
                                               novaq_error *err);
/* Likewise as nq_tensors_open_files(). */
NOVAQ_CHECK novaq_status nq_model_tensors_open_files(nq_tensors **out, nq_files **files,
                                                     novaq_error *err);

/* Describes any source; only I/O and malformed JSON are errors. */
NOVAQ_CHECK novaq_status nq_describe(json_t **out, const nq_tensors *ts, novaq_error *err);

/* describe_tokenizer.c: the "tokenizer" object. On an unsupported tokenizer
 * *out stays NULL and *why (nq_free) says which feature; the status is OK. */
NOVAQ_CHECK novaq_status nq_describe_tokenizer_gguf(json_t **out, char **why, const nq_gguf_kv *kvs,
                                                    size_t count, novaq_error *err);
/* tokenizer and tokenizer_config: parsed JSON (config may be NULL). */
NOVAQ_CHECK novaq_status nq_describe_tokenizer_hf(json_t **out, char **why, const json_t *tokenizer,
                                                  const json_t *tokenizer_config, novaq_error *err);
/* data[0..len): a SentencePiece file, tokenizer.model; config as above. */
NOVAQ_CHECK novaq_status nq_describe_tokenizer_spm(json_t **out, char **why, const void *data,
                                                   size_t len, const json_t *tokenizer_config,
                                                   novaq_error *err);
/* The inverse, for export: a tokenizer.json (and tokenizer_config.json) that
 * Hugging Face `tokenizers` loads, from the canonical object. */
NOVAQ_CHECK novaq_status nq_tokenizer_to_hf(json_t **tokenizer, json_t **tokenizer_config,
                                            const json_t *model, novaq_error *err);

/* The description as GGUF's keys can say it: with scores where it had the merges of
 * scores. Refuses what they cannot. *out: a new reference. */
NOVAQ_CHECK novaq_status nq_tokenizer_to_gguf(json_t **out, const json_t *tokenizer,
                                              novaq_error *err);

/* Role of a tensor by its name and rank, for any architecture. */
nq_role nq_tensor_role(const char *name, uint32_t rank);

/* How a tensor of two or more dimensions is seen as a matrix: the shortest
 * suffix of dimensions whose product is at least 32 makes the columns (all
 * dimensions but the first if none is), the rest the rows. */
void nq_matrix_view(uint64_t *rows, uint64_t *cols, uint32_t rank, const uint64_t *shape);

#endif

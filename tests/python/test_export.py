#!/usr/bin/env python3
"""Exports read by the packages that own the formats.

A small llama is written with the `gguf` package; novaq exports it to SafeTensors
and back to GGUF, and `safetensors`, `tokenizers` and `gguf` read the results.
The order of query and key rows is checked against the permutation that
llama.cpp's convert_hf_to_gguf.py applies, written here with NumPy.
Usage: test_export.py PROGRAM
"""

import json
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

NOVAQ = sys.argv[1]
DIM, HEADS, HEADS_KV, FF, BLOCKS = 96, 6, 2, 160, 2
HEAD_DIM = DIM // HEADS
VOCAB = 320


def byte_alphabet():
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    other = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(other)) for b in range(256)]


def names(block):
    """GGUF name -> Hugging Face name."""
    pairs = {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    return {
        f"blk.{block}.{a}.weight": f"model.layers.{block}.{b}.weight" for a, b in pairs.items()
    }


def shapes():
    result = {"token_embd.weight": (VOCAB, DIM), "output.weight": (VOCAB, DIM)}
    for i in range(BLOCKS):
        result |= {
            f"blk.{i}.attn_norm.weight": (DIM,),
            f"blk.{i}.attn_q.weight": (DIM, DIM),
            f"blk.{i}.attn_k.weight": (HEADS_KV * HEAD_DIM, DIM),
            f"blk.{i}.attn_v.weight": (HEADS_KV * HEAD_DIM, DIM),
            f"blk.{i}.attn_output.weight": (DIM, DIM),
            f"blk.{i}.ffn_norm.weight": (DIM,),
            f"blk.{i}.ffn_gate.weight": (FF, DIM),
            f"blk.{i}.ffn_up.weight": (FF, DIM),
            f"blk.{i}.ffn_down.weight": (DIM, FF),
        }
    return result | {"output_norm.weight": (DIM,)}


def permute(weights, heads):
    """From Hugging Face's order of rows to GGUF's."""
    rows, cols = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, cols).swapaxes(1, 2).reshape(rows, cols)


def write_source(path, tensors):
    alphabet = byte_alphabet()
    tokens = [*alphabet, "he", "ll", "<s>", "</s>", "<|user|>"]
    tokens += [f"filler{i}" for i in range(VOCAB - len(tokens))]
    kinds = [1] * 258 + [3] * 3 + [1] * (VOCAB - 261)
    w = gguf.GGUFWriter(path, "llama")
    w.add_name("tiny")
    w.add_block_count(BLOCKS)
    w.add_context_length(256)
    w.add_embedding_length(DIM)
    w.add_feed_forward_length(FF)
    w.add_head_count(HEADS)
    w.add_head_count_kv(HEADS_KV)
    w.add_rope_dimension_count(HEAD_DIM)
    w.add_rope_freq_base(50000.0)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("smollm")
    w.add_token_list(tokens)
    w.add_token_types(kinds)
    w.add_token_merges(["h e", "l l"])
    w.add_bos_token_id(258)
    w.add_eos_token_id(259)
    w.add_add_bos_token(True)
    w.add_chat_template("{{ messages }}")
    for name, data in tensors.items():
        w.add_tensor(name, data)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def novaq(*arguments):
    done = subprocess.run([NOVAQ, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout


def check_hf(folder, tensors, dtype):
    loaded = load_file(folder / "model.safetensors")
    mapping = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output.weight": "lm_head.weight",
        "output_norm.weight": "model.norm.weight",
    }
    for i in range(BLOCKS):
        mapping |= names(i)
    assert set(loaded) == set(mapping.values()), set(loaded) ^ set(mapping.values())
    for name, want in tensors.items():
        got = loaded[mapping[name]]
        assert got.dtype == (np.float32 if want.ndim == 1 else dtype), (name, got.dtype)
        if ".attn_q." in name or ".attn_k." in name:
            got = permute(got, HEADS if ".attn_q." in name else HEADS_KV)
        assert np.array_equal(got, want.astype(got.dtype)), name
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["num_attention_heads"] == HEADS and config["num_key_value_heads"] == HEADS_KV
    assert config["rope_theta"] == 50000.0 and not config["tie_word_embeddings"]
    assert abs(config["rms_norm_eps"] - 1e-6) < 1e-12


def check_tokenizer(folder, source):
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in ["hello world", "<|user|> he\n\n  said: 123!", "naïve ☃ x</s>y"]:
        report = novaq("tokenize", str(source), "--json", "--no-special", text)
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert json.loads(report)["ids"] == ids, (text, report, ids)


def value(reader, key):
    return reader.get_field(key).contents()


def check_gguf(path, tensors, dtype):
    r = gguf.GGUFReader(path)
    got = {t.name: t for t in r.tensors}
    assert set(got) == set(tensors), set(got) ^ set(tensors)
    for name, want in tensors.items():
        data = got[name].data
        assert data.dtype == (np.float32 if want.ndim == 1 else dtype), (name, data.dtype)
        assert np.array_equal(data, want.astype(data.dtype)), name
    for key, want in {
        "general.architecture": "llama",
        "llama.block_count": BLOCKS,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": HEADS_KV,
        "llama.attention.key_length": HEAD_DIM,
        "llama.rope.dimension_count": HEAD_DIM,
        "llama.rope.freq_base": 50000.0,
        "llama.vocab_size": VOCAB,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.merges": ["h e", "l l"],
        "tokenizer.ggml.bos_token_id": 258,
        "tokenizer.ggml.eos_token_id": 259,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": "{{ messages }}",
    }.items():
        assert value(r, key) == want, (key, value(r, key))
    tokens = value(r, "tokenizer.ggml.tokens")
    assert len(tokens) == VOCAB and tokens[:256] == byte_alphabet() and tokens[260] == "<|user|>"
    assert value(r, "tokenizer.ggml.token_type")[258:261] == [3, 3, 3]


def check_artifact(source, tensors):
    """What an artifact decodes to is near the source, in its order of rows."""
    # Without calibration: with it the weights are chosen for the outputs, not to be near.
    novaq("compress", "--input", str(source), "--output", "small", "--target-bits", "5",
          "--calibration", "none", "--quiet")  # fmt: skip
    novaq("export", "small", "--to", "gguf", "--output", "small.gguf", "--dtype", "f32", "-q")
    for t in gguf.GGUFReader("small.gguf").tensors:
        want = tensors[t.name]
        error = np.sum((t.data - want) ** 2) / np.sum(want**2)
        assert error < (0.01 if want.ndim == 2 else 1e-12), (t.name, error)


def check_llama3_scaling(folder):
    """llama.cpp takes Llama 3's rotary scaling from a tensor of divisors."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 64}  # fmt: skip
    path.write_text(json.dumps(config | {"rope_scaling": scaling}))
    novaq("export", str(folder), "--to", "gguf", "--output", "scaled.gguf", "--dtype", "f32")
    got = {t.name: t.data for t in gguf.GGUFReader("scaled.gguf").tensors}["rope_freqs.weight"]
    want = []
    for i in range(HEAD_DIM // 2):
        wavelength = 2 * np.pi * 50000.0 ** (2 * i / HEAD_DIM)
        if wavelength < 64 / 4.0:
            want.append(1.0)
        elif wavelength > 64 / 1.0:
            want.append(8.0)
        else:
            smooth = (64 / wavelength - 1.0) / (4.0 - 1.0)
            want.append(1 / ((1 - smooth) / 8.0 + smooth))
    assert len({1.0, 8.0} & set(want)) == 2 and len(set(want)) > 2, want
    assert np.allclose(got, want, rtol=1e-6), (got, want)


def main():
    rng = np.random.default_rng(7)
    tensors = {k: rng.standard_normal(s).astype(np.float32) / 8 for k, s in shapes().items()}
    source = Path("source.gguf")
    write_source(source, tensors)
    for dtype, kind in [("f32", np.float32), ("f16", np.float16)]:
        folder = Path(f"hf-{dtype}")
        novaq("export", str(source), "--to", "safetensors", "--output", str(folder),
              "--dtype", dtype, "--quiet")  # fmt: skip
        check_hf(folder, tensors, kind)
        check_tokenizer(folder, source)
        back = Path(f"back-{dtype}.gguf")
        novaq("export", str(folder), "--to", "gguf", "--output", str(back), "--dtype", dtype)
        check_gguf(back, tensors, kind)
    check_artifact(source, tensors)
    check_llama3_scaling(Path("hf-f32"))
    print("exports agree with gguf, safetensors and tokenizers")


main()

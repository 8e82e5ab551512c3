#!/usr/bin/env python3
"""Writes a GGUF file of a given shape and type with random content, so that another
program's speed can be measured without weights. The mixture of types is that of
llama-quantize; scales are chosen so that every matrix keeps its input's magnitude.
No tokenizer: llama-bench needs none. Standard library only.
"""

import argparse
import random
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

ALIGN = 32
POOL = 32 << 20  # bytes of random payload; longer tensors repeat it at a shifting start


@dataclass(frozen=True)
class Shape:
    dim: int
    ff: int
    blocks: int
    heads: int
    heads_kv: int
    vocab: int
    tied: bool

    def tensors(self):
        """(name, rows, cols) in the order of the file; rows 0 for vectors."""
        kv = self.dim // self.heads * self.heads_kv
        yield "token_embd.weight", self.vocab, self.dim
        for i in range(self.blocks):
            for name, rows, cols in (("attn_norm", 0, self.dim), ("attn_q", self.dim, self.dim),
                                     ("attn_k", kv, self.dim), ("attn_v", kv, self.dim),
                                     ("attn_output", self.dim, self.dim), ("ffn_norm", 0, self.dim),
                                     ("ffn_gate", self.ff, self.dim), ("ffn_up", self.ff, self.dim),
                                     ("ffn_down", self.dim, self.ff)):
                yield f"blk.{i}.{name}.weight", rows, cols
        yield "output_norm.weight", 0, self.dim
        if not self.tied:
            yield "output.weight", self.vocab, self.dim

    def parameters(self):
        return sum(max(rows, 1) * cols for _, rows, cols in self.tensors())


SHAPES = {
    "llama-1b": Shape(2048, 5632, 22, 32, 4, 49152, True),
    "llama-2-7b": Shape(4096, 11008, 32, 32, 32, 32000, False),
    "tiny": Shape(256, 512, 2, 4, 2, 512, True),
}


def half(x):
    return struct.pack("<e", x)


def every(block, parts):
    """Fills blocks with random bytes, then writes `parts` ({offset: bytes}) into each."""
    def fill(payload):
        count = len(payload) // block
        for at, value in parts.items():
            for i, byte in enumerate(value):
                payload[at + i::block] = bytes([byte]) * count
        return payload
    return fill


# High bytes of binary16 numbers: any sign, exponent 9 (2^-6), any upper mantissa bits.
F16_HIGH = bytes((b & 0x83) | (9 << 2) for b in range(256))


def fill_f16(payload):
    payload[1::2] = payload[1::2].translate(F16_HIGH)
    return payload


# name: (ggml type, elements per block, bytes per block, how random bytes become blocks).
# Offsets are those of the scales in ggml-common.h; each scale gives a deviation of 0.02.
TYPES = {
    "F32": (0, 1, 4, None),
    "F16": (1, 1, 2, fill_f16),
    "Q4_0": (2, 32, 18, every(18, {0: half(4.5e-3)})),
    "Q8_0": (8, 32, 34, every(34, {0: half(2.8e-4)})),
    "Q2_K": (10, 256, 84, every(84, {80: half(1.6e-3), 82: half(2.4e-3)})),
    "Q3_K": (11, 256, 110, every(110, {108: half(4.6e-4)})),
    "Q4_K": (12, 256, 144, every(144, {0: half(1.1e-4), 2: half(8e-4)})),
    "Q5_K": (13, 256, 176, every(176, {0: half(6e-5), 2: half(9e-4)})),
    "Q6_K": (14, 256, 210, every(210, {208: half(1.5e-5)})),
    "IQ2_XXS": (16, 256, 66, every(66, {0: half(4.6e-4)})),
}
FILE_TYPES = {"F16": 1, "Q8_0": 7, "Q4_0": 2, "Q2_K": 10, "IQ2_XXS": 19}


def type_of(name, rows, kind, shape):
    """What llama-quantize makes of a tensor for a file of type `kind`."""
    if rows == 0:
        return "F32"
    if kind in ("F16", "Q8_0"):
        return kind
    if name == "output.weight" or (shape.tied and name == "token_embd.weight"):
        return "Q5_K" if kind == "IQ2_XXS" else "Q6_K"
    if kind == "Q4_0" or name == "token_embd.weight":
        return {"IQ2_XXS": "Q2_K"}.get(kind, kind)
    grouped = shape.heads // shape.heads_kv >= 4
    if kind == "Q2_K":
        if "attn_v" in name:
            return "Q4_K" if grouped else "Q3_K"
        return "Q3_K" if "ffn_down" in name or "attn_output" in name else "Q2_K"
    if "attn_v" in name:
        return "Q4_K" if grouped else "Q2_K"
    if "ffn_down" in name and int(name.split(".")[1]) < shape.blocks // 8:
        return "Q2_K"
    return kind


def string(s):
    return struct.pack("<Q", len(s)) + s.encode()


def key(name, code, value):
    form = {4: "<I", 6: "<f"}.get(code)
    return string(name) + struct.pack("<I", code) + (
        string(value) if form is None else struct.pack(form, value))


def keys(shape, kind):
    head_dim = shape.dim // shape.heads
    return [key("general.architecture", 8, "llama"), key("general.name", 8, f"random {kind}"),
            key("general.file_type", 4, FILE_TYPES[kind]), key("llama.block_count", 4, shape.blocks),
            key("llama.context_length", 4, 4096), key("llama.embedding_length", 4, shape.dim),
            key("llama.feed_forward_length", 4, shape.ff),
            key("llama.attention.head_count", 4, shape.heads),
            key("llama.attention.head_count_kv", 4, shape.heads_kv),
            key("llama.rope.dimension_count", 4, head_dim),
            key("llama.attention.layer_norm_rms_epsilon", 6, 1e-5),
            key("llama.vocab_size", 4, shape.vocab), key("tokenizer.ggml.model", 8, "no_vocab")]


def payloads(kinds, seed):
    """{type: random blocks of it}, POOL bytes or so each."""
    rng = random.Random(seed)
    out = {}
    for kind in sorted(kinds - {"F32"}):
        _, _, block, fill = TYPES[kind]
        out[kind] = fill(bytearray(rng.randbytes(POOL // block * block)))
    return out


def write_tensor(f, kind, rows, cols, payload, start):
    """Appends one tensor; returns where in the payload the next may start, in blocks."""
    if kind == "F32":
        f.write(struct.pack("<f", 1.0) * cols)
        return start
    _, elements, block, _ = TYPES[kind]
    left = rows * cols // elements * block
    view, at = memoryview(payload), start * block % len(payload)
    while left > 0:
        part = view[at:at + left]
        f.write(part)
        left -= len(part)
        at = (at + len(part)) % len(payload)
    return at // block + 7


def write(path, shape, kind, seed=1):
    """Returns the file's bytes."""
    table, at = [], 0
    for name, rows, cols in shape.tensors():
        stored = type_of(name, rows, kind, shape)
        number, elements, block, _ = TYPES[stored]
        if cols % elements:
            sys.exit(f"random_gguf: {name}: {cols} columns are no multiple of {elements}")
        dims = (cols, rows) if rows else (cols,)
        table.append((name, stored, rows, cols, at, struct.pack(
            f"<I{len(dims)}QIQ", len(dims), *dims, number, at)))
        size = max(rows, 1) * cols // elements * block
        at += (size + ALIGN - 1) // ALIGN * ALIGN
    fields = keys(shape, kind)
    random_blocks = payloads({stored for _, stored, *_ in table}, seed)
    with open(path, "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, len(table), len(fields)) + b"".join(fields))
        for name, *_, info in table:
            f.write(string(name) + info)
        f.write(bytes(-f.tell() % ALIGN))
        start = 0
        for _, stored, rows, cols, _, _ in table:
            start = write_tensor(f, stored, rows, cols, random_blocks.get(stored), start)
            f.write(bytes(-f.tell() % ALIGN))
        return f.tell()


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("shape", choices=SHAPES)
    p.add_argument("type", choices=FILE_TYPES)
    p.add_argument("output", type=Path)
    args = p.parse_args()
    print(write(args.output, SHAPES[args.shape], args.type), args.output)


if __name__ == "__main__":
    main()

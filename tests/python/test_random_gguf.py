#!/usr/bin/env python3
"""The GGUF files that bench/speed.py hands to llama.cpp, read by the `gguf` package:
shapes, the mixture of types, and finite weights of the deviation that keeps
activations where they are. Usage: test_random_gguf.py PROGRAM
"""

import sys
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
import random_gguf  # noqa: E402

# Types of a file by kind, for tied and untied embeddings: those of llama-quantize.
MIXTURE = {
    "F16": ({"F16"}, {"F16"}),
    "Q8_0": ({"Q8_0"}, {"Q8_0"}),
    "Q4_0": ({"Q4_0", "Q6_K"}, {"Q4_0", "Q6_K"}),
    "Q2_K": ({"Q2_K", "Q3_K", "Q6_K"}, {"Q2_K", "Q3_K", "Q6_K"}),
    "IQ2_XXS": ({"IQ2_XXS", "Q2_K", "Q5_K"}, {"IQ2_XXS", "Q2_K", "Q5_K"}),
}
SHAPES = {
    "tied": random_gguf.Shape(256, 512, 16, 4, 2, 512, True),
    "untied": random_gguf.Shape(256, 512, 16, 4, 2, 512, False),
    "grouped": random_gguf.Shape(512, 512, 8, 8, 1, 256, False),
}


def check(shape, kind, wanted):
    path = f"{kind}.gguf"
    size = random_gguf.write(path, shape, kind)
    assert size == Path(path).stat().st_size
    reader = gguf.GGUFReader(path)
    expected = list(shape.tensors())
    assert [t.name for t in reader.tensors] == [name for name, _, _ in expected]
    seen = set()
    for t, (name, rows, cols) in zip(reader.tensors, expected):
        assert list(t.shape) == ([cols, rows] if rows else [cols]), name
        w = dequantize(t.data, t.tensor_type).astype(np.float64)
        assert np.isfinite(w).all(), (kind, name)
        if rows == 0:
            assert (w == 1).all(), name
            continue
        seen.add(t.tensor_type.name)
        assert 0.015 < np.sqrt((w * w).mean()) < 0.035, (kind, name, np.sqrt((w * w).mean()))
    assert seen == wanted, (kind, seen)
    assert sum(int(np.prod(t.shape)) for t in reader.tensors) == shape.parameters()
    return {t.name: t.tensor_type.name for t in reader.tensors}


for kind, (tied, untied) in MIXTURE.items():
    check(SHAPES["tied"], kind, tied)
    names = check(SHAPES["untied"], kind, untied)
    if kind == "IQ2_XXS":
        assert names["token_embd.weight"] == "Q2_K" and names["output.weight"] == "Q5_K"
        assert names["blk.1.ffn_down.weight"] == "Q2_K"
        assert names["blk.2.ffn_down.weight"] == "IQ2_XXS"
names = check(SHAPES["grouped"], "Q2_K", {"Q2_K", "Q3_K", "Q4_K", "Q6_K"})
assert names["blk.0.attn_v.weight"] == "Q4_K" and names["blk.0.attn_output.weight"] == "Q3_K"
print("random GGUF files complete")

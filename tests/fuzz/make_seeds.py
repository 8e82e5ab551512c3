#!/usr/bin/env python3
"""Makes seeds/artifact/ from the small models of tests/fixtures: one input per form
and kind of scheme, as tests/fuzz/fuzz_artifact.c spells them. Standard library only.

Usage: make_seeds.py build/novaq
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "fixtures"
SEEDS = (
    ("r-sliding", "model/b.gguf", ["--target-bits", "2"]),
    ("r-mixed", "model/b.gguf", [
        "--target-bits", "2", "--calibration", "none", "--normalize", "row",
        "--tensor-type", "attn_q=k6d3l2", "--tensor-type", "attn_k=pq16x8d4",
        "--tensor-type", "attn_v=q8", "--tensor-type", "ffn_down=bf16"]),
    ("r-paper", "readers/v3.gguf", ["--level1-centroids", "16", "--level2-centroids", "4"]),
    ("d-plain", "readers/v3.gguf", ["--target-bits", "4"]),
    ("s-single", "readers/types.safetensors", ["--target-bits", "3"]),
)


def packed(form, output):
    """The bytes fuzz_artifact.c takes apart again."""
    if form == "s":
        return b"s" + output.read_bytes()
    manifest = (output / "manifest.json").read_bytes()
    (chunk,) = output.glob("chunk-*.bin")
    return form.encode() + len(manifest).to_bytes(4, "little") + manifest + chunk.read_bytes()


def main():
    program = os.path.abspath(sys.argv[1])
    os.environ["SOURCE_DATE_EPOCH"] = "0"
    folder = HERE / "seeds" / "artifact"
    folder.mkdir(parents=True, exist_ok=True)
    for name, model, options in SEEDS:
        with tempfile.TemporaryDirectory() as temp:
            output = Path(temp) / ("a.bin" if name[0] == "s" else "a")
            subprocess.run([program, "compress", "--input", model, "--output", output, "--quiet",
                            *options], check=True, cwd=MODELS, stdout=subprocess.DEVNULL)
            (folder / name).write_bytes(packed(name[0], output))
            print(name, (folder / name).stat().st_size)


if __name__ == "__main__":
    main()

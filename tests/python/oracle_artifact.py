#!/usr/bin/env python3
"""One artifact against independent readers.

    oracle_artifact.py NOVAQ ARTIFACT [--export]

1. decode_artifact.py, written from docs/FORMAT.md alone, accepts it, recomputes
   its hashes and decodes every layer; novaq verify agrees.
2. A single file opens in the Python safetensors package: every piece is there
   under its name with its true shape and type, and its bytes are the piece's.
3. With --export: the float32 weights that novaq exports (SafeTensors, and GGUF
   where the architecture has one) are those of decode_artifact.py, bit for bit.
"""
import os
import subprocess
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from decode_artifact import Artifact, compare, need  # noqa: E402

# Element types that the package can hand over as NumPy arrays everywhere.
NUMPY = {"U8": np.uint8, "I8": np.int8, "F16": np.float16, "F32": np.float32, "F64": np.float64,
         "I16": np.int16, "U16": np.uint16, "I32": np.int32, "U32": np.uint32, "I64": np.int64,
         "U64": np.uint64}


def run(*argv):
    p = subprocess.run(argv, capture_output=True, text=True, check=False)
    need(p.returncode == 0, f"{' '.join(argv)}: exit {p.returncode}: {p.stderr.strip()}")
    return p.stdout


def check_single_file(artifact):
    """The reference package sees what the manifest says."""
    from safetensors import safe_open

    with safe_open(artifact.path, framework="numpy") as f:
        need(f.metadata()["novaq_manifest"].encode() == artifact.text, "manifest in the metadata")
        names = set(f.keys())
        for name, dtype, shape, size, place, _ in artifact.in_order():
            need(name in names, f"{name}: missing in the SafeTensors file")
            names.remove(name)
            piece = f.get_slice(name)
            need(list(piece.get_shape()) == list(shape), f"{name}: shape {piece.get_shape()}")
            need(piece.get_dtype() == dtype, f"{name}: dtype {piece.get_dtype()}")
            if dtype in NUMPY and size:
                ours = artifact.chunks[place["chunk"]][place["offset"]:place["offset"] + size]
                theirs = f.get_tensor(name)
                need(theirs.dtype == NUMPY[dtype], f"{name}: {theirs.dtype}")
                need(theirs.tobytes() == ours.tobytes(), f"{name}: bytes differ")
        for name in names:
            need(name.startswith("pad/"), f"{name}: named by nobody")
            need(not f.get_tensor(name).any(), f"{name}: padding is not zero")


def check_exports(novaq, artifact, folder):
    seen = 0
    out = os.path.join(folder, "weights")
    run(novaq, "export", artifact.path, "--to", "safetensors", "-o", out, "--dtype", "f32", "-q")
    llama = artifact.manifest["model"].get("architecture") == "llama"
    gguf = artifact.manifest["model"].get("source_format") == "gguf"
    if not (llama and gguf):  # there the names and the order of rows change
        seen += compare(artifact, out, 0)
    if gguf:
        out = os.path.join(folder, "weights.gguf")
        run(novaq, "export", artifact.path, "--to", "gguf", "-o", out, "--dtype", "f32", "-q")
        seen += compare(artifact, out, 0)
    return seen


def check(novaq, path, export):
    artifact = Artifact(path)
    artifact.check_hashes()
    artifact.tokenizer()
    weights = artifact.decode()
    run(novaq, "verify", path, "-q")
    if os.path.isfile(path):
        check_single_file(artifact)
    compared = 0
    if export:
        with tempfile.TemporaryDirectory() as folder:
            compared = check_exports(novaq, artifact, folder)
    return len(weights), compared


def main():
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    layers, compared = check(sys.argv[1], sys.argv[2], "--export" in sys.argv[3:])
    print(f"{sys.argv[2]}: {layers} layers decoded, {compared} compared with exports")
    return 0


if __name__ == "__main__":
    sys.exit(main())

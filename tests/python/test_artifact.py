#!/usr/bin/env python3
"""novaq's artifacts against docs/FORMAT.md and the safetensors package.

Compresses a small model of awkward shapes with every kind of scheme, in both
forms, and gives each artifact to oracle_artifact.py; so it does with the unit
tests' sample model. Also: both forms hold the
same chunks, and equal input gives equal bytes for any number of threads and any
instruction set.
Usage: test_artifact.py NOVAQ
"""
import json
import os
import subprocess
import sys

try:
    import numpy as np
    import safetensors  # noqa: F401  (oracle_artifact needs it)
    from safetensors.numpy import save_file
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from decode_artifact import Artifact, need  # noqa: E402
from oracle_artifact import check  # noqa: E402

SHAPES = {  # at least 4096 elements, or they stay raw; few multiples of anything
    "a.weight": (70, 64), "b.weight": (45, 96), "c.weight": (9, 513), "d.weight": (300, 48),
    "e.weight": (150, 31), "conv.weight": (16, 8, 6, 6), "norm.weight": (64,), "scalar": (),
}
MATRICES = 6
RUNS = [
    ["--scheme", "k16d2l3"], ["--scheme", "k16d2l2"], ["--scheme", "k8d2l2"],
    ["--scheme", "k4d1l3"], ["--scheme", "k16d1l2"], ["--scheme", "k16d3l2"],
    ["--scheme", "k16d4l3"], ["--scheme", "k16d8l1"], ["--scheme", "k5d2l1"],
    ["--scheme", "k200d2l1"], ["--scheme", "k2d1l1"], ["--scheme", "pq16x8d4"],
    ["--scheme", "pq6x100d3"], ["--scheme", "q8"], ["--scheme", "f16"], ["--scheme", "bf16"],
    ["--scheme", "f32"], ["--target-bits", "3"], ["--segment-rows", "17", "--scheme", "k16d2l3"],
    ["--scheme", "k16d2l2", "--normalize", "row"],
    ["--scheme", "pq16x8d4", "--normalize", "paper"],
    ["--scheme", "k16d2l2", "--normalize", "none"],
    ["--tensor-type", "^a[.]=k16d2l3", "--tensor-type", "^b[.]=q8", "--tensor-type", "^c[.]=raw",
     "--scheme", "pq8x4d2", "--seed", "18446744073709551615"],
]


def make_model(path):
    rng = np.random.default_rng(1)
    tensors = {}
    for i, (name, shape) in enumerate(SHAPES.items()):
        x = rng.standard_normal(shape) * 0.02 * (i + 1)
        tensors[name] = np.asarray(x, np.float16 if i % 2 else np.float32)
    tensors["steps"] = np.arange(3, dtype=np.int64)
    save_file(tensors, path)


def compress(novaq, output, args, **env):
    argv = [novaq, "compress", "-i", "model.safetensors", "-o", output, "-q",
            "--max-iterations", "5", *args]
    p = subprocess.run(argv, capture_output=True, text=True, check=False,
                       env={**os.environ, **env})
    need(p.returncode == 0, f"{' '.join(argv)}: exit {p.returncode}: {p.stderr.strip()}")


def quantized(path):
    """Layers that are not kept as plain elements."""
    layers = Artifact(path).manifest["layers"].values()
    return sum(layer["scheme"] not in ("raw", "f32") for layer in layers)


def digests(path):
    return [(c["bytes"], c["sha256"], c["blake3"]) for c in Artifact(path).manifest["chunks"]]


def check_sample(novaq):
    """The unit tests' sample model: several codebook groups, row means with every
    kind of layer, odd names; no encoder makes all of these."""
    program = os.path.join(os.environ.get("NOVAQ_BUILD", ""), "tests", "test_artifact")
    if not os.access(program, os.X_OK):
        print("sample model left out: no test_artifact under NOVAQ_BUILD")
        return
    subprocess.run([program, "sample", "sample.bin"], check=True)
    for path in ("sample", "sample.bin"):
        layers, compared = check(novaq, path, export=True)
        need(layers == compared == 9, f"{path}: {layers}, {compared}")


def main():
    novaq = os.path.abspath(sys.argv[1])
    check_sample(novaq)
    make_model("model.safetensors")
    for i, args in enumerate(RUNS):
        try:
            compress(novaq, f"dir{i}", args)
            compress(novaq, f"one{i}.bin", args, NOVAQ_CPU="scalar")
            for path in (f"dir{i}", f"one{i}.bin"):
                layers, compared = check(novaq, path, export=True)
                need(layers == compared == len(SHAPES) + 1, f"{path}: {layers}, {compared}")
            plain = 1 if "^c[.]=raw" in args else MATRICES if "f32" in args else 0
            need(quantized(f"dir{i}") == MATRICES - plain, f"{quantized(f'dir{i}')} quantized")
            need(digests(f"dir{i}") == digests(f"one{i}.bin"), "the forms hold different chunks")
        except Exception:
            print(f"failed: {' '.join(args)}", file=sys.stderr)
            raise
    for threads in ("1", "2", "7"):
        compress(novaq, f"t{threads}.bin", RUNS[-1] + ["--threads", threads])
    files = [open(f"t{t}.bin", "rb").read() for t in ("1", "2", "7")]
    need(files[0] == files[1] == files[2], "threads change the bytes")
    summary = Artifact("t1.bin").manifest["quantization"]["summary"]
    need(summary["total_bytes"] == os.path.getsize("t1.bin"), "total_bytes")
    print(json.dumps({"artifacts": 2 * len(RUNS), "layers_each": len(SHAPES) + 1}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

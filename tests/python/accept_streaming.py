#!/usr/bin/env python3
"""A real model from every kind of place: a GGUF file and its SafeTensors export, served by
an ordinary HTTP server, the mock of the Hub and a real registry, must give the artifacts
of the local files, byte for byte but for the name of the place. Not part of `make test`
(minutes); the acceptance of the sources.

    mkdir /var/tmp/accept && cd /var/tmp/accept
    python3 .../tests/python/accept_streaming.py .../build/novaq MODEL.gguf [OPTION...]

Further options go to compress (default: --scheme k16d2l2 --calibration none).
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
from range_server import Folder, Server  # noqa: E402

import hub_mock  # noqa: E402  (beside this file, as the next)
import ollama_registry  # noqa: E402

NOVAQ, MODEL = sys.argv[1], Path(sys.argv[2]).resolve()
OPTIONS = sys.argv[3:] or ["--scheme", "k16d2l2", "--calibration", "none"]
ENV = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "OLLAMA_MODELS": "/nonexistent",
       "HF_HOME": str(Path("no-home").resolve())}


def novaq(*arguments, **environment):
    start = time.monotonic()
    subprocess.run([NOVAQ, *map(str, arguments), "--quiet"], check=True,
                   stdout=subprocess.DEVNULL, env={**ENV, **environment})
    return time.monotonic() - start


def content(folder):
    return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


def check(name, locator, like=None, **environment):
    output = Path("out") / name
    seconds = novaq("compress", "--input", locator, "--output", output, *OPTIONS, **environment)
    verdict = ""
    if like is not None:
        here, there = content(Path("out") / like), content(output)
        differ = [k for k in here.keys() | there.keys() if here.get(k) != there.get(k)]
        if differ:
            sys.exit(f"{name}: differs from {like} in {differ}")
        verdict = f"; the same as {like}"
        shutil.rmtree(output)
    print(f"{name}: {seconds:.1f} s{verdict}", flush=True)


def main():
    shutil.rmtree("out", ignore_errors=True)
    shutil.rmtree("place", ignore_errors=True)
    gguf, plain = Path("place/org/gguf").resolve(), Path("place/org/plain").resolve()
    gguf.mkdir(parents=True)
    shutil.copy(MODEL, gguf)
    novaq("export", MODEL, "--to", "safetensors", "--output", plain)
    (weights,) = plain.glob("*.safetensors")
    check("gguf-disk", gguf / MODEL.name)
    check("safetensors-disk", plain)
    with Server(Folder("place")) as server:
        check("gguf-http", server.url(f"org/gguf/{MODEL.name}"), "gguf-disk")
        check("safetensors-http", server.url(f"org/plain/{weights.name}"), "safetensors-disk")
    _, servers = hub_mock.serve(options := hub_mock.parser().parse_args(["--root", "place"]))
    hub = {"HF_ENDPOINT": options.address}
    check("gguf-hub", "hf://org/gguf", "gguf-disk", **hub)
    check("safetensors-hub", "hf://org/plain", "safetensors-disk", **hub)
    for server in servers:
        server.shutdown()
    if ollama_registry.program() is None:
        sys.exit("no docker-registry: Ollama was not checked")
    registry = ollama_registry.Registry("registry")
    try:
        registry.push("library/model", "latest", [("model", MODEL.read_bytes())])
        check("gguf-ollama", f"ollama://{registry.host}/library/model", "gguf-disk")
    finally:
        registry.stop()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Refinement with a teacher behind an ordinary HTTP server: the same artifact as with one on
the disk, and it is fetched as a whole, not row by row.
Usage: test_refine.py NOVAQ
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
from range_server import Folder, Server  # noqa: E402

NOVAQ = sys.argv[1]
MODELS = ROOT / "tests" / "fixtures" / "model"
ENV = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "NOVAQ_HTTP_RETRIES": "0",
       "NOVAQ_HTTP_STALL": "10"}


def need(condition, *what):
    if not condition:
        print("FAILED:", *what)
        sys.exit(1)


def novaq(*arguments):
    done = subprocess.run([NOVAQ, *map(str, arguments)], capture_output=True, text=True, env=ENV,
                          stdin=subprocess.DEVNULL)
    need(done.returncode == 0, "exit", done.returncode, *arguments, done.stderr)
    return done


def refine(teacher, text, output, *options):
    report = novaq("refine", "made.novaq", "--teacher", teacher, "--calibration", text, "--output",
                   output, "--steps", "4", "--sequence", "32", "--lr", "0.01", "--json", "--quiet",
                   *options)
    return json.loads(report.stdout)


def fetched(server):
    """Bytes of ranges that were asked for, and requests."""
    asked = [r for _, name, r in server.requests if name.endswith(".gguf") and r]
    spans = [r.split("=")[1].split("-") for r in asked if not r.endswith("-")]
    return sum(int(last) - int(first) + 1 for first, last in spans), len(asked)


def test_fetched_once():
    size = (MODELS / "a.gguf").stat().st_size
    for text in (MODELS / "text.txt", "self"):
        name = "self" if text == "self" else "file"
        here = refine(MODELS / "a.gguf", text, f"here-{name}.novaq")
        with Server(Folder(MODELS)) as server:
            there = refine(server.url("a.gguf"), text, f"there-{name}.novaq")
            count, requests = fetched(server)
        need(count < 2 * size, name, "read", count, "of", size)
        need(requests <= 4, name, requests, "requests")
        need(here["held_out_kl"] == there["held_out_kl"], here, there)
        need(Path(f"here-{name}.novaq").read_bytes() == Path(f"there-{name}.novaq").read_bytes(),
             name, "differs")
        need(there["summary"]["global_mse"] is not None, there)


def test_cache():
    """With its predictions in a file the weights are not fetched again for what they would
    tell of errors: that is left out."""
    size = (MODELS / "a.gguf").stat().st_size
    cache = ["--teacher-cache", "predictions"]
    with Server(Folder(MODELS)) as server:
        refine(server.url("a.gguf"), MODELS / "text.txt", "made-cache.novaq", *cache)
        count, _ = fetched(server)
        report = refine(server.url("a.gguf"), MODELS / "text.txt", "used-cache.novaq", *cache)
    need(count < 3 * size, "read", count, "of", size)
    need(report["summary"]["global_mse"] is None, report)


novaq("compress", "--input", MODELS / "a.gguf", "--output", "made.novaq", "--scheme", "k16d2l2",
      "--calibration", "none", "--quiet")
test_fetched_once()
test_cache()

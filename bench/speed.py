#!/usr/bin/env python3
"""Tokens per second beside llama.cpp, on random weights of one shape, in one run on one
machine: every round runs llama-bench on each of its types and `novaq bench` on each rate,
one after the other; medians over the rounds. Writes bench/speed.csv, bench/speed.md and README.md's table.

LLAMA_BENCH names the program of llama.cpp (else llama-bench is looked for in PATH).
Random GGUF files take 4.7 GB for llama-1b, 29 GB for llama-2-7b: in a temporary folder,
or in --work DIR, where they stay. Standard library only.
"""

import argparse
import csv
import io
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
import random_gguf  # noqa: E402

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CSV, TABLE = HERE / "speed.csv", HERE / "speed.md"
COLUMNS = ["contestant", "bytes", "bits_per_weight", "test", "median", "low", "high", "rounds"]
TYPES = ["F16", "Q8_0", "Q4_0", "Q2_K", "IQ2_XXS"]
HOW = """speed: no llama-bench. Its source comes with a Python package:
  pip download --no-deps --no-binary :all: llama-cpp-python && tar xf llama_cpp_python-*.tar.gz
  cmake -S llama_cpp_python-*/vendor/llama.cpp -B llama -DCMAKE_BUILD_TYPE=Release
  cmake --build llama --target llama-bench
  make speed LLAMA_BENCH=$PWD/llama/bin/llama-bench
or measure without: make speed SPEED=--alone"""

# Rates that --synthetic does not choose by itself: fewer look-ups, more error.
EXTRA = {"1.5-one-level": ["--scheme", "k16d2l1", "--tensor-type", "ffn.*=k16d3l1",
                           "--tensor-type", "token_embd.*=k8d2l1"]}

# (kind of test, bits of ours, peer, ratio to reach)
TARGETS = [("tg", "2", "F16", 5.5), ("tg", "1.5", "F16", 7), ("tg", "1.5-one-level", "F16", 7),
           ("tg", "1", "F16", 10),
           ("tg", "2", "IQ2_XXS", 3.5), ("tg", "2", "Q4_0", 1.8), ("tg", "2", "Q2_K", 1.8),
           ("pp", "2", "IQ2_XXS", 1.4)]


def arguments():
    env = os.environ.get
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shape", default="llama-1b", choices=random_gguf.SHAPES)
    rates = "1,1.5,1.5-one-level,2"
    p.add_argument("--bits", default=rates, help=f"rates of ours ({rates})")
    p.add_argument("--types", default=",".join(TYPES), help="types of llama.cpp")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--prompt", default="128,512")
    p.add_argument("--generate", default="64")
    p.add_argument("--work", type=Path, help="folder for models, kept")
    p.add_argument("--alone", action="store_true", help="without llama.cpp")
    p.add_argument("--novaq", default=str(ROOT / "build" / "novaq"))
    p.add_argument("--llama-bench", default=env("LLAMA_BENCH") or shutil.which("llama-bench"))
    p.add_argument("--output", type=Path, default=CSV.with_suffix(""),
                   help="path of the tables without .csv and .md")
    args = p.parse_args()
    if args.rounds < 1:
        p.error("--rounds: at least 1")
    if not args.alone and not args.llama_bench:
        sys.exit(HOW)
    return args


def output_of(command):
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit(f"speed: exit status {done.returncode}: {' '.join(map(str, command))}\n"
                 f"{done.stderr.strip()[-2000:]}")
    return done.stdout


# ---- contestants: name -> {test: tokens per second}, and their size -----------------


class Peer:
    def __init__(self, kind, args, work):
        self.name, self.args = f"llama.cpp {kind}", args
        self.path = work / f"{args.shape}-{kind}.gguf"
        if not self.path.exists():
            print(f"speed: writing {self.path}", file=sys.stderr)
            fresh = self.path.with_suffix(".partial")
            random_gguf.write(fresh, random_gguf.SHAPES[args.shape], kind)
            fresh.replace(self.path)
        self.bytes = self.path.stat().st_size

    def run(self):
        a = self.args
        rows = csv.DictReader(io.StringIO(output_of(
            [a.llama_bench, "-m", self.path, "-t", a.threads, "-p", a.prompt, "-n", a.generate,
             "-r", 1, "-o", "csv"])))
        out = {}
        for r in rows:
            self.parameters = int(r["model_n_params"])
            name = f"pp{r['n_prompt']}" if int(r["n_prompt"]) else f"tg{r['n_gen']}"
            out[name] = float(r["avg_ts"])
        return out


class Ours:
    def __init__(self, bits, args, work):
        self.name, self.args = f"novaq {bits}", args
        self.path = work / f"{args.shape}-{bits}"
        if not (self.path / "manifest.json").exists():
            print(f"speed: writing {self.path}", file=sys.stderr)
            rate = EXTRA.get(bits, ["--bits", bits])
            output_of([args.novaq, "bench", "--synthetic", args.shape, *rate, "--output", self.path,
                       "-p", 1, "-n", 0, "-r", 1, "--quiet"])
        self.bytes = sum(f.stat().st_size for f in self.path.iterdir())

    def run(self):
        a = self.args
        report = json.loads(output_of(
            [a.novaq, "bench", self.path, "-t", a.threads, "-p", a.prompt, "-n", a.generate, "-r",
             1, "--json", "--quiet"]))
        self.parameters = report["parameters"]
        return {t["test"]: t["tokens_per_second"] for t in report["tests"]}


def contestants(args, work):
    ours = [Ours(bits, args, work) for bits in args.bits.split(",")]
    peers = [] if args.alone else [Peer(kind, args, work) for kind in args.types.split(",")]
    # Ours between theirs, so that what slows the machine down slows both.
    out = []
    for i in range(max(len(ours), len(peers))):
        out += peers[i:i + 1] + ours[i:i + 1]
    return out


def measure(args, work):
    field = contestants(args, work)
    found = {c.name: {} for c in field}
    for r in range(args.rounds):
        for c in field[r % len(field):] + field[:r % len(field)]:
            print(f"speed: round {r + 1} of {args.rounds}: {c.name}", file=sys.stderr)
            for test, value in c.run().items():
                found[c.name].setdefault(test, []).append(value)
    if len({c.parameters for c in field}) != 1:
        sys.exit(f"speed: not one shape: {[(c.name, c.parameters) for c in field]}")
    rows = []
    for c in field:
        for test, values in found[c.name].items():
            rows.append({"contestant": c.name, "bytes": c.bytes,
                         "bits_per_weight": f"{8 * c.bytes / c.parameters:.3f}", "test": test,
                         "median": f"{statistics.median(values):.2f}", "low": f"{min(values):.2f}",
                         "high": f"{max(values):.2f}", "rounds": len(values)})
    return rows


# ---- tables -------------------------------------------------------------------------


def machine():
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"^model name\s*: (.*)$", text, re.M)
    return name[1].strip() if name else os.uname().machine


def speed_table(rows):
    tests = list(dict.fromkeys(r["test"] for r in rows))
    lines = [f"| contestant | size, MB | bits/weight | {' | '.join(tests)} |",
             f"|---|---:|---:|{'---:|' * len(tests)}"]
    for name in dict.fromkeys(r["contestant"] for r in rows):
        mine = {r["test"]: r for r in rows if r["contestant"] == name}
        first = next(iter(mine.values()))
        cells = [f"{float(mine[t]['median']):.1f} ({float(mine[t]['low']):.1f} to "
                 f"{float(mine[t]['high']):.1f})" for t in tests]
        lines.append(f"| {name} | {int(first['bytes']) / 1e6:.0f} | {first['bits_per_weight']} | "
                     f"{' | '.join(cells)} |")
    return lines


def target_table(rows):
    median = {(r["contestant"], r["test"]): float(r["median"]) for r in rows}
    lines = ["| test | novaq | against | ratio | wanted | |", "|---|---:|---|---:|---:|---|"]
    for kind, bits, peer, wanted in TARGETS:
        for test in dict.fromkeys(r["test"] for r in rows if r["test"].startswith(kind)):
            ours = median.get((f"novaq {bits}", test))
            theirs = median.get((f"llama.cpp {peer}", test))
            if ours is None or theirs is None:
                continue
            ratio = ours / theirs
            verdict = "reached" if ratio >= wanted else "missed"
            rate, _, how = bits.partition("-")
            ours_is = f"{rate} bits" + (f", {how.replace('-', ' ')}" if how else "")
            lines.append(f"| {test} | {ours_is} | {peer} | {ratio:.2f} | {wanted:g} | {verdict} |")
    return lines if len(lines) > 2 else []


def write(args, rows):
    head = (f"# shape: {args.shape}; threads: {args.threads}; rounds: {args.rounds}; "
            f"machine: {machine()}")
    with open(args.output.with_suffix(".csv"), "w", newline="") as f:
        f.write(head + "\n")
        out = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        out.writeheader()
        out.writerows(rows)
    text = "\n".join([
        f"Tokens per second, median (lowest to highest) of {args.rounds} alternating rounds; "
        f"{args.shape}, random weights, {args.threads} threads, {machine()}.", "",
        *speed_table(rows), "", *target_table(rows)]).rstrip() + "\n"
    table = args.output.with_suffix(".md")
    table.write_text(text)
    if table == HERE / "speed.md" and args.shape == "llama-1b" and not args.alone:
        subprocess.run([sys.executable, HERE / "quote.py", table, HERE.parent / "README.md",
                        "speed"], check=True)
    print(text, end="")


def main():
    args = arguments()
    if args.work:
        args.work.mkdir(parents=True, exist_ok=True)
        return write(args, measure(args, args.work))
    room = os.environ.get("TMPDIR", "/var/tmp")
    with tempfile.TemporaryDirectory(prefix="novaq-speed.", dir=room) as folder:
        write(args, measure(args, Path(folder)))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What streaming is worth, and what it costs in memory, measured with a local HTTP server.

overlap: a sharded model of random weights is first compressed from disk; then the server is
slowed down until the download takes as long as that, and download-then-compress is compared
with compressing while the weights arrive. memory: a model of 2 GB that lies nowhere (the
server makes its bytes as they are read) is streamed, and the peak resident memory is
compared with 10 MB + twice the largest tensor + 100 MB. Both with --calibration none.
Writes bench/streaming.csv, bench/streaming.md and the tables in README.md and
docs/STREAMING.md. Standard library only.
"""

import argparse
import csv
import hashlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.dont_write_bytecode = True
from range_server import RandomModel, Server  # noqa: E402

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
STEM = HERE / "streaming"
INDEX = "model.safetensors.index.json"
RATIO_WANTED = 0.6


def arguments():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--overlap-mb", type=float, default=400, help="size of the model (400)")
    p.add_argument("--memory-mb", type=float, default=2140, help="size of the model (2140)")
    p.add_argument("--rounds", type=int, default=3, help="of the comparison; medians (3)")
    p.add_argument("--scheme", default="k16d2l2", help="scheme of the comparison (k16d2l2)")
    p.add_argument("--memory-scheme", default="k16d4l1", help="scheme of the other (k16d4l1)")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--novaq", type=Path, default=ROOT / "build" / "novaq")
    p.add_argument("--check", action="store_true", help="exit status 1 when a bound is missed")
    p.add_argument("--output", type=Path, default=STEM,
                   help="path of the tables without .csv and .md")
    args = p.parse_args()
    if args.rounds < 1 or args.overlap_mb < 8 or args.memory_mb < 8:
        p.error("at least one round and 8 MB")
    args.novaq = args.novaq.resolve()
    return args


def shapes(megabytes):
    """Tensors of a llama of about that many bytes in bfloat16, named as in GGUF: hidden size
    2048, less for smaller ones, so that the embedding stays below a tenth."""
    scale = 1 if megabytes >= 1000 else 2 if megabytes >= 100 else 4
    hidden, ff, keys, vocab = 2048 // scale, 5632 // scale, 256 // scale, 49152 // scale**2
    block = [("attn_q", (hidden, hidden)), ("attn_k", (keys, hidden)), ("attn_v", (keys, hidden)),
             ("attn_output", (hidden, hidden)), ("ffn_gate", (ff, hidden)),
             ("ffn_up", (ff, hidden)), ("ffn_down", (hidden, ff)), ("attn_norm", (hidden,))]
    per_block = sum(RandomModel.bytes_of(s) for _, s in block)
    blocks = max(1, round((megabytes * 1e6 - vocab * hidden * 2) / per_block))
    out = [("token_embd.weight", (vocab, hidden))]
    return out + [(f"blk.{i}.{name}.weight", shape) for i in range(blocks) for name, shape in block]


# A process begins its record with the size of the one that started it: a small one.
LAUNCH = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[
    (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)])
_, status, usage = os.wait4(pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)
"""


def run(command):
    """Seconds and peak resident bytes."""
    command = list(map(str, command))
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-ISc", LAUNCH, *command], capture_output=True,
                          text=True)
    seconds = time.monotonic() - start
    status, peak = map(int, done.stdout.split() or (1, 0))
    if status != 0:
        sys.exit(f"streaming: exit status {status}: {' '.join(command)}\n{done.stderr[-2000:]}")
    return seconds, peak


def compress(args, source, output, scheme):
    return run([args.novaq, "compress", "--input", source, "--output", output, "--scheme", scheme,
                "--calibration", "none", "--threads", args.threads, "--quiet"])


def chunks_of(artifact):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(artifact.glob("chunk-*.bin"))}


def download(server, names, folder):
    start = time.monotonic()
    for name in names:
        with urllib.request.urlopen(server.url(name)) as reply, open(folder / name, "wb") as f:
            while piece := reply.read(1 << 18):
                f.write(piece)
    return time.monotonic() - start


# ---- the two measurements -----------------------------------------------------------


def overlap(args, folder):
    model = RandomModel(shapes(args.overlap_mb))
    local = folder / "local"
    local.mkdir()
    model.write(local)
    whole = sum(model.find(name)[0] for name in model.files)
    quantize = min(compress(args, local / INDEX, folder / f"from-disk-{i}", args.scheme)[0]
                   for i in range(2))
    reference = chunks_of(folder / "from-disk-0")
    rows = []
    for i in range(args.rounds):
        print(f"streaming: overlap, round {i + 1} of {args.rounds}", file=sys.stderr)
        fetched = folder / f"fetched-{i}"
        fetched.mkdir()
        with Server(model, rate=whole / quantize) as server:
            got = download(server, model.files, fetched)
            then, _ = compress(args, fetched / INDEX, folder / f"then-{i}", args.scheme)
        with Server(model, rate=whole / quantize) as server:
            streamed, _ = compress(args, server.url(INDEX), folder / f"streamed-{i}", args.scheme)
        if not reference == chunks_of(folder / f"then-{i}") == chunks_of(folder / f"streamed-{i}"):
            sys.exit("streaming: the artifacts differ")
        rows.append((got, then, streamed, streamed / (got + then)))
    median = [statistics.median(r[k] for r in rows) for k in range(4)]
    return {"overlap_source_bytes": whole, "link_bytes_per_second": round(whole / quantize),
            "download_s": round(median[0], 2), "then_compress_s": round(median[1], 2),
            "streaming_s": round(median[2], 2), "ratio": round(median[3], 3),
            "ratio_low": round(min(r[3] for r in rows), 3),
            "ratio_high": round(max(r[3] for r in rows), 3), "ratio_wanted": RATIO_WANTED,
            "rounds": args.rounds}


def memory(args, folder):
    print("streaming: memory", file=sys.stderr)
    model = RandomModel(shapes(args.memory_mb), shards=8)
    with Server(model) as server:
        _, bare = run([args.novaq, "version"])
        _, opened = run([args.novaq, "stats", server.url(INDEX)])
        seconds, peak = compress(args, server.url(INDEX), folder / "memory", args.memory_scheme)
    bound = int(10e6 + 2 * model.largest + 100e6)
    return {"memory_source_bytes": model.total, "largest_tensor_bytes": model.largest,
            "program_bytes": bare, "opened_bytes": opened, "peak_bytes": peak,
            "bound_bytes": bound, "memory_s": round(seconds, 2)}


# ---- tables --------------------------------------------------------------------------


def machine():
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"^model name\s*: (.*)$", text, re.M)
    return name[1].strip() if name else os.uname().machine


def verdict(reached):
    return "reached" if reached else "missed"


def write(args, found):
    with open(args.output.with_suffix(".csv"), "w", newline="") as f:
        f.write(f"# scheme: {args.scheme}; scheme of memory: {args.memory_scheme}; threads: "
                f"{args.threads}; machine: {machine()}\n")
        out = csv.writer(f, lineterminator="\n")
        out.writerow(["figure", "value"])
        out.writerows(found.items())
    m = {k: v / 1e6 for k, v in found.items() if k.endswith("bytes")}
    text = "\n".join([
        f"Overlap: {m['overlap_source_bytes']:.0f} MB of random weights over a link of "
        f"{found['link_bytes_per_second'] / 1e6:.1f} MB/s, as fast as they are compressed "
        f"(`--scheme {args.scheme} --calibration none`, {args.threads} threads, {machine()}; "
        f"medians of {found['rounds']} rounds).", "",
        "| | seconds |", "|---|---:|",
        f"| download | {found['download_s']:.1f} |",
        f"| then compress | {found['then_compress_s']:.1f} |",
        f"| compress while it arrives | {found['streaming_s']:.1f} |",
        f"| ratio to download, then compress (wanted: at most {found['ratio_wanted']:g}; "
        f"{found['ratio_low']:.2f} to {found['ratio_high']:.2f}) | {found['ratio']:.2f}, "
        f"{verdict(found['ratio'] <= found['ratio_wanted'])} |", "",
        f"Memory: {m['memory_source_bytes']:.0f} MB in eight shards, streamed "
        f"(`--scheme {args.memory_scheme} --calibration none`).", "",
        "| | MB |", "|---|---:|",
        f"| largest tensor, as stored | {m['largest_tensor_bytes']:.0f} |",
        f"| the program alone | {m['program_bytes']:.0f} |",
        f"| all headers read (`novaq stats`) | {m['opened_bytes']:.0f} |",
        f"| peak while compressing | {m['peak_bytes']:.0f} |",
        f"| bound: 10 MB + 2 x the largest tensor + 100 MB | {m['bound_bytes']:.0f}, "
        f"{verdict(found['peak_bytes'] <= found['bound_bytes'])} |"]) + "\n"
    table = args.output.with_suffix(".md")
    table.write_text(text)
    if table == STEM.with_suffix(".md"):
        for page in ("README.md", "docs/STREAMING.md"):
            subprocess.run([sys.executable, HERE / "quote.py", table, ROOT / page, "streaming"],
                           check=True)
    print(text, end="")


def main():
    args = arguments()
    room = os.environ.get("TMPDIR", "/var/tmp")
    with tempfile.TemporaryDirectory(prefix="novaq-streaming.", dir=room) as folder:
        found = {**overlap(args, Path(folder)), **memory(args, Path(folder))}
    write(args, found)
    missed = (found["ratio"] > found["ratio_wanted"], found["peak_bytes"] > found["bound_bytes"])
    sys.exit(1 if args.check and any(missed) else 0)


if __name__ == "__main__":
    main()

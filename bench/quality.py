#!/usr/bin/env python3
"""Quality at every size: compresses a model to a list of targets, measures each with
llama-perplexity's statistics, and writes bench/quality.csv (one line for each target
and seed), bench/quality.md, docs/quality.svg and, between the quality markers of
README.md and docs/METHOD.md where there are such, the table.

A line that bench/quality.csv already has is kept: run it again after an interruption
and only what is missing is measured; --force measures the given targets anew.
Standard library only; gnuplot for the picture.

Targets: BITS (planner, linear layers only), a scheme such as k16d2l3 (linear layers
only), all:BITS (planner, embedding too), SIZE such as 45MB (the whole file). With +STEPS
behind it (2.05+300) the artifact is refined by so many steps; the model is the teacher.
"""

import argparse
import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WORK = ROOT / "build" / "bench"
CSV, TABLE, PEERS = HERE / "quality.csv", HERE / "quality.md", HERE / "peers.csv"
PICTURE = ROOT / "docs" / "quality.svg"
TARGETS = ["1.55", "2.05", "2.55", "3.05", "4.05", "35MB", "45MB", "60MB"]
MANY_SEEDS = 2.1  # bits; up to here the rotation's seed moves perplexity by about 10 %
FIGURES = ["bits_per_weight_linear", "bits_per_weight", "bytes", "perplexity",
           "perplexity_stderr", "mean_kld", "kld_99", "same_top"]
COLUMNS = ["target", "seed", *FIGURES, "program", "options"]
REFINED = re.compile(r"(.*)\+([1-9]\d*)")
UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9}
SIZE = re.compile(r"(\d+(?:\.\d+)?)(kB|MB|GB)")


def seed(word):
    if not word.isdecimal():
        raise argparse.ArgumentTypeError(f"'{word}' is no seed; targets come before --seed")
    return int(word)


def arguments():
    env = os.environ.get
    p = argparse.ArgumentParser(description=__doc__, usage="%(prog)s [TARGET ...] [OPTION ...]",
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("targets", nargs="*", metavar="TARGET", help=" ".join(TARGETS))
    p.add_argument("--model", default=env("NOVAQ_MODEL"), help="the demonstration model")
    p.add_argument("--text", default=env("NOVAQ_TEXT", str(ROOT / "examples/texts/time-machine.txt")))
    p.add_argument("--chunks", type=int, default=int(env("NOVAQ_CHUNKS", "20")))
    p.add_argument("--n-ctx", type=int, default=512)
    p.add_argument("--calibration", default=env("NOVAQ_CALIBRATION", "auto"))
    p.add_argument("--seed", type=seed, nargs="+", default=[1, 2, 3],
                   help=f"all of them up to {MANY_SEEDS} bits, the first above and where "
                        "refined; numbers that follow are seeds, so targets come first, or after --")
    p.add_argument("--novaq", default=str(ROOT / "build" / "novaq"))
    p.add_argument("--force", action="store_true", help="measure the targets anew")
    p.add_argument("--keep", type=Path, metavar="FOLDER",
                   help="keep the artifacts there, TARGET-SEED.novaq")
    p.add_argument("--report", action="store_true", help="measure nothing, write table and picture")
    return p.parse_args()


# ---- targets -------------------------------------------------------------------


def options_of(target):
    """The options of compress, or None when the word is no target."""
    refined = REFINED.fullmatch(target)
    if refined:
        options = options_of(refined[1])
        return options and [*options, f"--refine={refined[2]}"]
    if SIZE.fullmatch(target):
        return ["--target-size", target]
    if re.fullmatch(r"all:\d+(\.\d+)?", target):
        return ["--target-bits", target[4:]]
    if re.fullmatch(r"\d+(\.\d+)?", target):
        return ["--target-bits", target, "--keep-embedding"]
    if re.fullmatch(r"(k|pq)\d+\w*d\d+(l\d)?|q8", target):
        return ["--scheme", target, "--keep-embedding"]
    return None


def is_linear_only(target):
    return "--keep-embedding" in options_of(target)


def nominal_bits(target, parameters):
    target = target.split("+")[0]
    size = SIZE.fullmatch(target)
    scheme = re.fullmatch(r"(?:k|pq)(\d+)(?:x(\d+))?d(\d+)(?:l\d)?", target)
    if size:
        return 8 * float(size[1]) * UNITS[size[2]] / parameters
    if scheme:
        fields = [int(k) for k in scheme.group(1, 2) if k]
        return sum((k - 1).bit_length() for k in fields) / int(scheme[3])
    return 8.0 if target == "q8" else float(target.removeprefix("all:"))


# ---- measuring -----------------------------------------------------------------


class Bench:
    def __init__(self, args):
        self.args = args
        self.program = hashlib.sha256(Path(args.novaq).read_bytes()).hexdigest()[:8]
        self.base = WORK / "quality.kld"
        self.stats = self.novaq("stats", args.model)

    def novaq(self, *command):
        command = [self.args.novaq, *map(str, command), "--quiet", "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"quality: exit status {done.returncode}: {' '.join(command)}")
        return json.loads(done.stdout)

    def source(self):
        """Measures the source; its predictions are kept for the others."""
        print("quality: the source", file=sys.stderr)
        e = self.novaq("eval", self.args.model, "--perplexity", self.args.text, "--chunks",
                       self.args.chunks, "--n-ctx", self.args.n_ctx, "--kl-divergence-base",
                       self.base)
        return self.line("source", 0, self.stats, e, [])

    def line(self, target, seed, stats, evaluation, options):
        found = {**stats, **evaluation}
        row = {"target": target, "seed": seed, "program": self.program,
               "options": " ".join(options)}
        for key in FIGURES:
            value = found.get(key, "")
            row[key] = f"{value:.9g}" if isinstance(value, float) else str(value)
        return row

    def measure(self, target, seed):
        print(f"quality: {target}, seed {seed}", file=sys.stderr)
        options = options_of(target)
        with tempfile.TemporaryDirectory(dir=WORK) as folder:
            out = Path(self.args.keep or folder) / f"{target.replace(':', '-')}-{seed}.novaq"
            self.novaq("compress", "--input", self.args.model, "--output", out, *options,
                       "--seed", seed, "--calibration", self.args.calibration)
            evaluation = self.novaq("eval", out, "--kl-divergence", "--kl-divergence-base",
                                    self.base)
            return self.line(target, seed, self.novaq("stats", out), evaluation, options)


# ---- the lines measured so far ---------------------------------------------------


def protocol(args):
    """What all lines of the file have in common."""
    calibration = args.calibration
    if calibration not in ("auto", "self", "none"):
        calibration = Path(calibration).name
    return (f"# model: {Path(args.model).name}; text: {Path(args.text).name}; "
            f"chunks: {args.chunks}; n_ctx: {args.n_ctx}; calibration: {calibration}")


def load(head):
    """{(target, seed): line} of bench/quality.csv; all lines share one protocol."""
    if not CSV.is_file():
        return {}
    lines = CSV.read_text().splitlines()
    if not lines or lines[0] != head:
        sys.exit(f"quality: {CSV.relative_to(ROOT)} was measured otherwise:\n  {lines[:1]}\n"
                 f"  {[head]}\nremove it to start over")
    return {(r["target"], int(r["seed"])): r for r in csv.DictReader(lines[1:])}


def save(head, rows):
    """Whole or not at all."""
    fresh = CSV.with_suffix(".csv.new")
    with open(fresh, "w", newline="") as f:
        f.write(head + "\n")
        out = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        out.writeheader()
        out.writerows(rows.values())
    fresh.replace(CSV)


def run(args, head):
    rows = load(head)
    bench = Bench(args)
    targets = args.targets or TARGETS
    wanted = []
    for target in targets:
        if options_of(target) is None:
            sys.exit(f"quality: '{target}' is no target: give BITS, all:BITS, a scheme or SIZE")
        few = REFINED.fullmatch(target) or \
            nominal_bits(target, bench.stats["parameters"]) > MANY_SEEDS
        wanted += [(target, seed) for seed in (args.seed[:1] if few else args.seed)]
    missing = [w for w in wanted if args.force or w not in rows]
    if not missing:
        return rows
    WORK.mkdir(parents=True, exist_ok=True)
    try:
        rows["source", 0] = bench.source()
        save(head, rows)
        for target, seed in missing:
            rows[target, seed] = bench.measure(target, seed)
            save(head, rows)
    finally:
        bench.base.unlink(missing_ok=True)
    return rows


# ---- table and picture -----------------------------------------------------------


def load_peers(head, source):
    """Rows of bench/peers.csv, when they were measured as ours were."""
    lines = PEERS.read_text().splitlines()
    facts = dict(re.findall(r"^# (\w+): (.*)$", "\n".join(lines), re.M))
    same = all(f"{key}: {facts[key]};" in head for key in ("text", "chunks", "n_ctx"))
    if not same or abs(float(source["perplexity"]) / float(facts["full_precision"]) - 1) > 0.005:
        print("quality: other text, windows or model than the peers': they are left out",
              file=sys.stderr)
        return []
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def means(rows):
    """One entry for each target: mean of every figure, the seeds' perplexities."""
    groups = {}
    for (target, _), row in rows.items():
        groups.setdefault(target, []).append(row)
    out = []
    for target, group in groups.items():
        mean = {k: sum(float(r[k]) for r in group) / len(group) for k in FIGURES if group[0][k]}
        seen = sorted(float(r["perplexity"]) for r in group)
        out.append({"target": target, "seeds": sorted(int(r["seed"]) for r in group),
                    "low": seen[0], "high": seen[-1], **mean})
    # The source, then linear layers only, then whole files; each by size.
    return sorted(out, key=lambda m: (m["target"] != "source", m["target"] != "source"
                                      and not is_linear_only(m["target"]), m["bytes"]))


def best_peer(peers, bits):
    """The best one at most 5 % larger."""
    near = [p for p in peers if float(p["bits_per_weight"]) <= 1.05 * bits]
    return min(near, key=lambda p: float(p["perplexity"]), default=None)


def cells(m, peers):
    name = "the model as it came"
    peer = None
    if m["target"] != "source":
        name = f"`{' '.join(options_of(m['target']))}`"
        peer = best_peer(peers, m["bits_per_weight_linear"]) if is_linear_only(m["target"]) else None
    perplexity = f"{m['perplexity']:.2f}"
    if len(m["seeds"]) > 1:
        perplexity += f" ({m['low']:.2f} to {m['high']:.2f})"
    optional = [format(m[k], form) if k in m else "-"
                for k, form in (("mean_kld", ".4f"), ("kld_99", ".3f"), ("same_top", ".3f"))]
    other = f"{peer['type']} {peer['bits_per_weight']}: {float(peer['perplexity']):g}" if peer else "-"
    return [name, f"{m['bits_per_weight_linear']:.3f}", f"{m['bits_per_weight']:.3f}",
            f"{m['bytes'] / 1e6:.2f}", perplexity, *optional, other]


def write_table(head, summary, peers):
    names = ["target", "bits/weight, linear layers", "bits/weight, all tensors", "MB",
             "perplexity", "KL (nat)", "KL, 99 %", "same top token", "best peer at most 5 % larger"]
    if not peers:
        names.pop()
    lines = ["| " + " | ".join(names) + " |", "|---" + "|---:" * (len(names) - 1) + "|"]
    for m in summary:
        lines.append("| " + " | ".join(cells(m, peers)[:len(names)]) + " |")
    several = [m for m in summary if len(m["seeds"]) > 1]
    facts = head.removeprefix("# ").replace("; ", ", ")
    lines += ["", f"{facts[0].upper()}{facts[1:]}."]
    if several:
        seeds = sorted({s for m in several for s in m["seeds"]})
        lines[-1] += (f" Where a range stands: mean of the seeds {', '.join(map(str, seeds))}, "
                      "lowest to highest perplexity.")
    TABLE.write_text("\n".join(lines) + "\n")


def write_points(path, points):
    path.write_text("".join(f"{x},{y},{name}\n" for x, y, name in sorted(points)))


def draw(head, summary, peers):
    WORK.mkdir(parents=True, exist_ok=True)
    files = {key: WORK / f"quality-{key}.csv" for key in ("ours", "refined", "llama", "ik")}
    linear = [m for m in summary if m["target"] != "source" and is_linear_only(m["target"])]
    for key, refined in (("ours", False), ("refined", True)):
        write_points(files[key], [(m["bits_per_weight_linear"], m["perplexity"], m["target"])
                                  for m in linear if ("+" in m["target"]) == refined])
    for key, tool in (("llama", "llama.cpp"), ("ik", "ik_llama.cpp")):
        # gnuplot reads an underscore as a subscript.
        points = [(p["bits_per_weight"], p["perplexity"], p["type"].replace("_", "\\\\_"))
                  for p in peers if p["tool"] == tool]
        write_points(files[key], points)
    full = next(m for m in summary if m["target"] == "source")["perplexity"]
    facts = head.removeprefix("# ").replace("_", "\\\\_")
    settings = [f"{key}='{path}'" for key, path in files.items()]
    settings += [f"peers={int(bool(peers))}", f"full={full}", f'caption="{facts}"', f"output='{PICTURE}'"]
    try:
        subprocess.run(["gnuplot", "-e", "; ".join(settings), str(HERE / "quality.gp")], check=True)
    except FileNotFoundError:
        print("quality: no gnuplot, no picture", file=sys.stderr)


def measure_all(args):
    if args.model is None:
        fetch = subprocess.run([ROOT / "tools" / "fetch_model.sh"], check=True,
                               stdout=subprocess.PIPE, text=True)
        args.model = fetch.stdout.strip()
    if args.calibration == args.text:
        sys.exit("quality: calibrating on the text that is measured proves nothing")
    head = protocol(args)
    return head, run(args, head)


def main():
    args = arguments()
    if args.report:
        head = CSV.read_text().split("\n", 1)[0] if CSV.is_file() else ""
        rows = load(head)
    else:
        head, rows = measure_all(args)
    if ("source", 0) not in rows:
        sys.exit("quality: nothing is measured yet")
    if len({r["program"] for r in rows.values()}) > 1:
        print("quality: note: lines of different builds; --force measures anew", file=sys.stderr)
    peers = load_peers(head, rows["source", 0])
    summary = means(rows)
    write_table(head, summary, peers)
    draw(head, summary, peers)
    for page in ("README.md", "docs/METHOD.md"):
        if "<!-- quality:begin -->" in (ROOT / page).read_text():
            subprocess.run([sys.executable, HERE / "quote.py", TABLE, ROOT / page, "quality"],
                           check=True)
    print(TABLE.read_text(), end="")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Turns the reports that bench/results.sh collected into bench/results.md and
bench/codec.md (tables) and bench/results.csv (for bench/results.gp).

Usage: results.py FOLDER MODEL TEXT CHUNKS
"""

import csv
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
NAMES = {
    "source": "the model as it came",
    "planner-4": "`--target-bits 4`",
    "planner-3": "`--target-bits 3`",
    "planner-2": "`--target-bits 2`",
    "planner-1.5": "`--target-bits 1.5`",
    "k16d1l2-linear": "`--scheme k16d1l2 --keep-embedding`",
    "paper-16x8": "`--level1-centroids 16 --level2-centroids 8`",
}
HEAD = [
    "setting", "MB", "bits/weight, all tensors", "bits/weight, linear layers",
    "x smaller than FP16", "x smaller than FP32", "perplexity", "KL (nat)", "same top token",
]


def load(folder, name):
    stats = json.loads((folder / f"{name}.stats.json").read_text())
    evaluation = json.loads((folder / f"{name}.eval.json").read_text())
    return stats, evaluation


def cells(name, stats, evaluation):
    def optional(key, form):
        return format(evaluation[key], form) if key in evaluation else "-"

    return [
        NAMES[name],
        f"{stats['bytes'] / 1e6:.1f}",
        f"{stats['bits_per_weight']:.2f}",
        f"{stats['bits_per_weight_linear']:.2f}",
        f"{stats['ratio_fp16']:.2f}",
        f"{stats['ratio_fp32']:.2f}",
        f"{evaluation['perplexity']:.2f} ± {evaluation['perplexity_stderr']:.2f}",
        optional("mean_kld", ".4f"),
        optional("same_top", ".3f"),
    ]


def write_codec(report):
    lines = ["| bits | scheme | error | bound |", "|---:|---|---:|---:|"]
    schemes = json.loads(report.read_text())["schemes"]
    for r in sorted(schemes, key=lambda r: (-r["bits"], -r["mse"])):
        lines.append(f"| {r['bits']:g} | `{r['scheme']}` | {r['mse']:.4g} | "
                     f"{r['rate_distortion_bound']:.4g} |")
    (HERE / "codec.md").write_text("\n".join(lines) + "\n")


def main():
    folder, model, text, chunks = Path(sys.argv[1]), *sys.argv[2:5]
    write_codec(folder / "codec.json")
    found = [name for name in NAMES if (folder / f"{name}.eval.json").is_file()]
    rows = [(name, *load(folder, name)) for name in found]
    lines = ["| " + " | ".join(HEAD) + " |", "|---" + "|---:" * (len(HEAD) - 1) + "|"]
    lines += ["| " + " | ".join(cells(*row)) + " |" for row in rows]
    lines += ["", f"Model: {model}. Text: {text}, {chunks} windows of 512 tokens."]
    (HERE / "results.md").write_text("\n".join(lines) + "\n")
    with open(HERE / "results.csv", "w", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(["setting", "bytes", "bits_per_weight", "perplexity", "mean_kld"])
        for name, stats, evaluation in rows:
            out.writerow([name, stats["bytes"], f"{stats['bits_per_weight']:.4f}",
                          f"{evaluation['perplexity']:.4f}", evaluation.get("mean_kld", "")])
    print("\n".join(lines))


if __name__ == "__main__":
    main()

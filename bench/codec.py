#!/usr/bin/env python3
"""Measures the codec on Gaussian data (build/novaq bench --codec) and writes the table
to bench/codec.md and, between its markers, to docs/METHOD.md. About two minutes.

Usage: codec.py [PROGRAM]   (default: build/novaq). Standard library only.
"""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "novaq"
    done = subprocess.run([program, "bench", "--codec", "--json", "--quiet"], check=True,
                          stdout=subprocess.PIPE)
    lines = ["| bits | scheme | error | bound |", "|---:|---|---:|---:|"]
    for r in sorted(json.loads(done.stdout)["schemes"], key=lambda r: (-r["bits"], -r["mse"])):
        lines.append(f"| {r['bits']:g} | `{r['scheme']}` | {r['mse']:.4g} | "
                     f"{r['rate_distortion_bound']:.4g} |")
    table = HERE / "codec.md"
    table.write_text("\n".join(lines) + "\n")
    subprocess.run([sys.executable, HERE / "quote.py", table, ROOT / "docs" / "METHOD.md"],
                   check=True)
    print("\n".join(lines))


if __name__ == "__main__":
    main()

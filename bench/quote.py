#!/usr/bin/env python3
"""Puts a file between the markers of another: <!-- NAME:begin --> ... <!-- NAME:end -->.

Usage: quote.py RESULTS DOCUMENT [NAME]   (default: results)
"""

import re
import sys
from pathlib import Path


def main():
    results, document = Path(sys.argv[1]), Path(sys.argv[2])
    name = sys.argv[3] if len(sys.argv) > 3 else "results"
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    text = document.read_text()
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.S)
    if len(pattern.findall(text)) != 1:
        sys.exit(f"quote: {document} must hold {begin} ... {end} once")
    block = f"{begin}\n{results.read_text()}{end}"
    document.write_text(pattern.sub(lambda _: block, text))


if __name__ == "__main__":
    main()

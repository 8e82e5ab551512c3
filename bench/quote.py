#!/usr/bin/env python3
"""Puts a file between the results markers of another.

Usage: quote.py RESULTS DOCUMENT
"""

import re
import sys
from pathlib import Path

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def main():
    results, document = Path(sys.argv[1]), Path(sys.argv[2])
    text = document.read_text()
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.S)
    if len(pattern.findall(text)) != 1:
        sys.exit(f"quote: {document} must hold {BEGIN} ... {END} once")
    block = f"{BEGIN}\n{results.read_text()}{END}"
    document.write_text(pattern.sub(lambda _: block, text))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Checks that the source tree keeps its layering. Standard library only.

The table below is the architecture (docs/ARCHITECTURE.md): a layer may include
itself, base/, and the layers named here, nothing else. Also checked: headers
exist, no include cycles, intrinsics only in kern/*_<isa>.c, the command line sees
only novaq.h and base/, nothing includes a .c file.

Usage: check_layers.py [ROOT]. Prints one line per violation; exit 1 if any.
"""

import re
import sys
from pathlib import Path

BELOW_REFINE = {"kern", "io", "quant", "artifact", "model"}
ALLOWED = {
    "base": set(),
    "kern": set(),
    "io": set(),
    "format": {"io"},
    "quant": {"kern"},
    "artifact": {"io", "quant"},
    "model": {"kern", "io", "quant", "format", "artifact"},
    "refine": BELOW_REFINE,
    "compress": {"kern", "io", "format", "quant", "artifact", "model", "refine"},
    "eval": {"kern", "io", "format", "quant", "artifact", "model", "refine", "compress"},
}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
INTRINSICS = re.compile(r"(intrin\.h|arm_neon\.h|arm_sve\.h)$")
ISA_FILE = re.compile(r"^src/kern/(kern|gemv|gemm|attn)_(?!init|scalar|body)[a-z0-9]+\.c$")


def includes(path):
    """(line number, is_system, name) of every include outside comments."""
    text = path.read_text(encoding="utf-8")
    text = COMMENT.sub(lambda m: "\n" * m.group().count("\n"), text)
    for m in INCLUDE.finditer(text):
        yield text.count("\n", 0, m.start()) + 1, m.group(1) == "<", m.group(2)


class Checker:
    def __init__(self, root):
        self.root = root
        self.problems = []
        self.graph = {}

    def complain(self, path, line, what):
        self.problems.append(f"{path}:{line}: {what}")

    def resolve(self, file, name):
        """The path, relative to the root, that the build would find."""
        for base in ("include", "src", file.parent):
            candidate = Path(base) / name
            if (self.root / candidate).is_file():
                return candidate
        return None

    def check_file(self, file, layer, may):
        edges = self.graph.setdefault(file, [])
        for line, system, name in includes(self.root / file):
            if INTRINSICS.search(name) and not ISA_FILE.match(file.as_posix()):
                self.complain(file, line, f"<{name}> belongs in src/kern/*_<isa>.c only")
            if system:
                continue
            target = self.resolve(file, name)
            if target is None:
                self.complain(file, line, f'"{name}" does not exist')
                continue
            edges.append(target)
            if target.suffix != ".h":
                self.complain(file, line, f'includes "{name}", which is not a header')
            parts = target.parts
            if parts[0] == "include" and name == "novaq.h":
                continue
            if layer == "cli" and parts[0] == "cli":
                continue
            if parts[0] != "src" or len(parts) != 3 or name != "/".join(parts[1:]):
                self.complain(file, line, f'"{name}" must be written "layer/file.h"')
            elif parts[1] not in may | {"base", layer}:
                self.complain(file, line, f'{layer} may not include {parts[1]} ("{name}")')

    def check_tree(self):
        for folder in sorted(p for p in (self.root / "src").iterdir() if p.is_dir()):
            if folder.name not in ALLOWED:
                self.complain(f"src/{folder.name}", 1, "is not a layer of the table")
        for file in sorted((self.root / "src").rglob("*.[ch]")):
            file = file.relative_to(self.root)
            if len(file.parts) != 3:
                self.complain(file, 1, "must lie in src/<layer>/")
            else:
                self.check_file(file, file.parts[1], ALLOWED.get(file.parts[1], set()))
        for folder in ("cli", "server"):
            for file in sorted((self.root / folder).glob("*.[ch]")):
                self.check_file(file.relative_to(self.root), "cli", set())
        for file in sorted((self.root / "include").rglob("*.h")):
            for line, system, name in includes(file):
                if not system:
                    self.complain(file.relative_to(self.root), line, f'public header needs "{name}"')

    def check_cycles(self):
        done, path = set(), []

        def visit(file):
            if file in path:
                loop = [p.as_posix() for p in path[path.index(file) :] + [file]]
                self.complain(file, 1, "include cycle: " + " -> ".join(loop))
                return
            if file in done:
                return
            path.append(file)
            for target in self.graph.get(file, []):
                visit(target)
            path.pop()
            done.add(file)

        for file in sorted(self.graph):
            visit(file)


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
    checker = Checker(root)
    checker.check_tree()
    checker.check_cycles()
    for problem in checker.problems:
        print(problem)
    print(f"layers: {len(checker.graph)} files, {len(checker.problems)} violations")
    return 1 if checker.problems or not checker.graph else 0


if __name__ == "__main__":
    sys.exit(main())

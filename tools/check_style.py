#!/usr/bin/env python3
"""The rules of CONTRIBUTING.md that a script can decide. Standard library only.

C files: head comment, functions of at most 100 lines, files of at most 800
(unless a comment line "Length: ..." gives the reason), include guards, no open
ends, and below cli/ no printing, exiting, aborting or allocation outside
base/mem.c. All text files: no tabs (but Makefile), no trailing blanks, newline
at the end.

Usage: check_style.py [ROOT]. Prints one line per violation; exit 1 if any.
"""

import re
import subprocess
import sys
from pathlib import Path

MAX_FUNCTION = 100
MAX_FILE = 800
C_ROOTS = ("include", "src", "cli", "server", "tests/unit", "tests/fuzz", "bench", "examples")
TEXT_SUFFIXES = {".c", ".h", ".py", ".sh", ".md", ".cmake", ".json", ".yml", ".1"}
OPEN_END = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
PRINTING = re.compile(
    r"(?<![\w.>])(v?printf|puts|putchar|perror|exit|_exit|_Exit|quick_exit|abort|assert)\s*\(|"
    r"\b(stdout|stderr)\b"
)
ALLOCATING = re.compile(r"(?<![\w.>])(malloc|calloc|realloc|aligned_alloc|strdup|strndup)\s*\(")
UNSAFE = re.compile(r"(?<![\w.>])(gets|strcpy|strcat|sprintf|vsprintf|atoi|atol|atof|strtok)\s*\(")
NOT_CODE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
GUARD = re.compile(r"#ifndef (\w+)\n#define (\w+)\n")
NOT_FUNCTION = re.compile(r"^(typedef|struct|enum|union|extern)\b|=\s*\{?\s*$|^\}")


def blank(match):
    """Keeps the line count, drops what is not code."""
    return " " + "\n" * match.group().count("\n")


class Checker:
    def __init__(self, root):
        self.root = root
        self.problems = []

    def complain(self, file, line, what):
        self.problems.append(f"{file}:{line}: {what}")

    def check_functions(self, file, lines):
        """clang-format puts a function's closing brace, alone, in column 0."""
        start = None
        for number, line in enumerate(lines, 1):
            if start is None and re.match(r"[A-Za-z_].*", line):
                first = number
            if start is None and line.rstrip().endswith("{") and not line.startswith(" #"):
                head = lines[first - 1] if line.startswith(" ") else line
                if not NOT_FUNCTION.search(line.rstrip(" {")) and not NOT_FUNCTION.match(head):
                    start = first
            elif start is not None and line.rstrip() == "}":
                if number - start + 1 > MAX_FUNCTION:
                    name = re.search(r"(\w+)\s*\(", lines[start - 1])
                    self.complain(
                        file, start,
                        f"function {name.group(1) if name else '?'} has {number - start + 1} lines "
                        f"(at most {MAX_FUNCTION})",
                    )
                start = None

    def ban(self, file, code, pattern, why):
        for m in pattern.finditer(code):
            line = code.count("\n", 0, m.start()) + 1
            self.complain(file, line, f"{m.group().strip(' (')}: {why}")

    def check_c(self, file, text):
        if not text.startswith("/*"):
            self.complain(file, 1, "no head comment saying what the file owns")
        lines = text.split("\n")
        if len(lines) - 1 > MAX_FILE and not re.search(r"^[ /*]*Length: \S", text, re.M):
            self.complain(file, 1, f"{len(lines) - 1} lines (at most {MAX_FILE}, or say why: Length:)")
        code = NOT_CODE.sub(blank, text)
        self.check_functions(file, code.split("\n"))
        self.ban(file, code, UNSAFE, "unbounded or unchecked, use the bounded form")
        if file.suffix == ".h":
            guard = GUARD.search(code)
            if guard is None or guard.group(1) != guard.group(2):
                self.complain(file, 1, "no include guard")
        if file.parts[0] == "src":
            self.ban(file, code, PRINTING, "the library never prints, exits or aborts")
            if file.as_posix() != "src/base/mem.c":
                self.ban(file, code, ALLOCATING, "allocate through base/mem.h")

    def check_text(self, file, text):
        for number, line in enumerate(text.split("\n"), 1):
            if line != line.rstrip():
                self.complain(file, number, "trailing blanks")
            if "\t" in line and file.name != "Makefile":
                self.complain(file, number, "tab")
            if OPEN_END.search(line) and file.name != Path(__file__).name:
                self.complain(file, number, "open end: do it, or file an issue")
        if text and not text.endswith("\n"):
            self.complain(file, text.count("\n") + 1, "no newline at the end")

    def check(self, file):
        text = (self.root / file).read_text(encoding="utf-8")
        self.check_text(file, text)
        if file.suffix in (".c", ".h") and file.as_posix().startswith(C_ROOTS):
            self.check_c(file, text)


def text_files(root):
    """Files git knows or would add; everything but build/ where there is no git."""
    try:
        command = ["git", "-C", root, "ls-files", "-co", "--exclude-standard"]
        names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        names = [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()]
        names = [n for n in names if not n.startswith(("build/", ".git/"))]
    for name in sorted(set(filter(None, names))):
        file = Path(name)
        if "fixtures" in file.parts and file.suffix != ".py":
            continue
        known = file.suffix in TEXT_SUFFIXES or file.name in ("Makefile", "CMakeLists.txt")
        if known and (root / file).is_file():
            yield file


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
    checker = Checker(root)
    count = 0
    for file in text_files(root):
        checker.check(file)
        count += 1
    for problem in checker.problems:
        print(problem)
    print(f"style: {count} files, {len(checker.problems)} violations")
    return 1 if checker.problems or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())

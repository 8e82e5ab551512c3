#!/usr/bin/env python3
"""The checkers find what they claim to find: each rule is broken once, in a
small tree of its own, and must be reported; the unbroken tree must pass."""

import subprocess
import sys
import tempfile
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"
GOOD = {
    "include/novaq.h": "/* p */\n#ifndef NOVAQ_H\n#define NOVAQ_H\n#endif\n",
    "src/base/mem.h": "/* m */\n#ifndef A_H\n#define A_H\n#endif\n",
    "src/base/mem.c": '/* m */\n#include "base/mem.h"\n\nvoid *f(void) {\n    return malloc(1);\n}\n',
    "src/kern/kern.h": '/* k */\n#ifndef K_H\n#define K_H\n#include "base/mem.h"\n#endif\n',
    "src/kern/kern_avx2.c": '/* k */\n#include <immintrin.h>\n#include "kern/kern.h"\n',
    "src/quant/q.h": '/* q */\n#ifndef Q_H\n#define Q_H\n#include "kern/kern.h"\n#endif\n',
    "cli/opt.h": "/* o */\n#ifndef O_H\n#define O_H\n#endif\n",
    "cli/main.c": '/* c */\n#include "base/mem.h"\n#include "novaq.h"\n#include "opt.h"\n\n'
    'int main(void) {\n    printf("stdout, exit(1)");\n}\n',
}
LAYERS, STYLE = "check_layers.py", "check_style.py"
BODY = "/* x */\n\nvoid g(void) {\n%s}\n"
# checker, file, content, words of the report
BROKEN = [
    (LAYERS, "src/kern/x.c", '#include "quant/q.h"\n', "kern may not include quant"),
    (LAYERS, "src/base/x.c", '#include "kern/kern.h"\n', "base may not include kern"),
    (LAYERS, "src/quant/x.c", "#include <immintrin.h>\n", "belongs in src/kern/*_<isa>.c"),
    (LAYERS, "src/kern/kern_init.c", "#include <arm_neon.h>\n", "belongs in src/kern/*_<isa>.c"),
    (LAYERS, "src/quant/x.c", '#include "q.h"\n', 'must be written "layer/file.h"'),
    (LAYERS, "src/quant/x.c", '#include "quant/none.h"\n', "does not exist"),
    (LAYERS, "src/quant/x.c", '#include "base/mem.c"\n', "not a header"),
    (LAYERS, "src/odd/x.c", "", "not a layer"),
    (LAYERS, "src/quant/deep/x.c", "", "must lie in src/<layer>/"),
    (LAYERS, "cli/x.c", '#include "quant/q.h"\n', "cli may not include quant"),
    (LAYERS, "include/novaq.h", '#include "base/mem.h"\n', "public header needs"),
    (LAYERS, "src/kern/kern.h", '#include "kern/b.h"\n', "does not exist"),
    (LAYERS, "src/kern/b.h", '#include "kern/b.h"\n', "include cycle"),
    (STYLE, "src/base/x.c", "int a;\n", "no head comment"),
    (STYLE, "src/base/x.h", "/* x */\nint a;\n", "no include guard"),
    (STYLE, "src/base/x.c", BODY % ("    a();\n" * 99), "function g has 101 lines"),
    (STYLE, "src/base/x.c", "/* x */\n" + "int a;\n" * 800, "801 lines"),
    (STYLE, "src/base/x.c", BODY % '    printf("a");\n', "never prints"),
    (STYLE, "src/base/x.c", BODY % "    fputs(s, stderr);\n", "never prints"),
    (STYLE, "src/base/x.c", BODY % "    exit(1);\n", "never prints"),
    (STYLE, "src/base/x.c", BODY % "    abort();\n", "never prints"),
    (STYLE, "src/base/x.c", BODY % "    p = malloc(3);\n", "allocate through"),
    (STYLE, "cli/x.c", BODY % "    strcpy(a, b);\n", "unbounded"),
    (STYLE, "cli/x.c", BODY % "    /* TO" "DO: later */\n", "open end"),
    (STYLE, "cli/x.c", BODY % "    a();  \n", "trailing blanks"),
    (STYLE, "cli/x.c", BODY % "\ta();\n", "tab"),
    (STYLE, "cli/x.c", "/* x */", "no newline"),
]
FINE = [
    (STYLE, "src/base/x.c", BODY % ("    a();\n" * 98)),
    (STYLE, "src/base/x.c", "/* x\n * Length: one table. */\n" + "int a;\n" * 800),
    (STYLE, "src/base/x.c", BODY % '    nq_buf_printf(b, e, "exit(1)"); /* abort() */\n'),
    (LAYERS, "src/model/x.c", '/* #include "eval/no.h" */\n#include "quant/q.h"\n'),
]


def run(root, checker):
    done = subprocess.run(
        [sys.executable, TOOLS / checker, root], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def write(root, name, content):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def main():
    failed = 0
    for checker, name, content, *want in BROKEN + FINE:
        with tempfile.TemporaryDirectory() as temp:
            root = Path(temp)
            for good, text in GOOD.items():
                write(root, good, text)
            code, output = run(root, checker)
            if code != 0:
                print(f"the good tree fails {checker}: {output}")
                failed += 1
            write(root, name, content)
            code, output = run(root, checker)
            if want and (code != 1 or want[0] not in output):
                print(f"{checker} misses in {name}: {want[0]}\n{output}")
                failed += 1
            if not want and code != 0:
                print(f"{checker} complains without cause: {output}")
                failed += 1
    print(f"checks: {len(BROKEN) + len(FINE)} cases, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

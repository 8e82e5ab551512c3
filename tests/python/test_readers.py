#!/usr/bin/env python3
"""The readers against the formats' own Python packages.

1. Fixtures: tests/fixtures/readers/make_readers.py reproduces the committed
   files byte for byte, and files made with fresh seeds are read bit for bit.
2. Verdicts: thousands of damaged SafeTensors headers, each accepted or refused
   by novaq exactly as by the reference package, but for what novaq documents to
   refuse besides.

Uses the test program `test_tensors`, which links the readers directly.
Usage: test_readers.py NOVAQ   (the program itself is not used; NOVAQ_BUILD is)
"""
import filecmp
import importlib.util
import os
import random
import struct
import subprocess
import sys
import tempfile

try:
    from safetensors import deserialize
    import gguf  # noqa: F401  (make_readers needs it)
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURES = os.path.join(HERE, "..", "fixtures", "readers")
SEEDS = (1, 2, 3)
MUTANTS = 6000

# Where novaq is stricter than the reference (docs in src/format/safetensors.h):
# a verdict "accepted by the reference only" must carry one of these reasons.
STRICTER = (
    " twice",                      # duplicate keys
    "NUL in a string",
    "novaq does not read dtype",   # F4, F6, C64, ...
    "novaq reads at most 8",       # dimensions
    "a JSON object is expected",   # serde also takes an entry written as an array
)
# And where the reference is stricter, in the value of a field nobody reads.
LAXER = ("number out of range",)

BASES = [
    '{"__metadata__":{"format":"pt"},"w":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},'
    '"e":{"dtype":"F32","shape":[0,7],"data_offsets":[12,12]},'
    '"u":{"dtype":"U8","shape":[5],"data_offsets":[12,17]}}',
    '{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},'
    '"b":{"data_offsets":[4,8],"dtype":"F16","shape":[2],"x":[1,2.5,{"y":null}]},'
    '"\\u00e9":{"dtype":"I64","shape":[1,1],"data_offsets":[8,16]}}',
]
DATA = [17, 16]
PIECES = ['"', "{", "}", "[", "]", ",", ":", " ", "\n", "\0", "\\", "\\u0000", "\\ud800", "\\u0041",
          "0", "1", "-", "-1", ".", "1.0", "1e2", "e", "null", "true", "[]", "{}", "\x01", "\u00e9",
          "18446744073709551615", "18446744073709551616", "9223372036854775807", "00", "F32", "F4",
          "C64", "f32", "dtype", "shape", "data_offsets", "__metadata__", '"a":', '"x":1,', "[[[["]


def fail(text):
    print(text)
    sys.exit(1)


def mutant(rng):
    i = rng.randrange(len(BASES))
    text, data = BASES[i], DATA[i]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind, at = rng.randrange(6), rng.randrange(len(text) + 1)
        if kind == 0:
            text = text[:at] + rng.choice(PIECES) + text[at:]
        elif kind == 1:
            text = text[:at] + text[at + rng.randrange(1, 4):]
        elif kind == 2:
            text = text[:at] + rng.choice(PIECES) + text[at + 1:]
        elif kind == 3:  # another digit somewhere
            digits = [k for k, c in enumerate(text) if c.isdigit()]
            if digits:
                k = rng.choice(digits)
                text = text[:k] + rng.choice("0123456789") + text[k + 1:]
        elif kind == 4:
            data = max(0, data + rng.choice((-1, 1, 4)))
        else:
            n = rng.randrange(1, 40)
            text = text[:at] + text[at:at + n] + text[at:]
    raw = bytearray(text.encode("utf-8", "surrogatepass"))
    if rng.randrange(20) == 0 and raw:
        raw[rng.randrange(len(raw))] = rng.randrange(256)
    n = len(raw) + (rng.choice((-1, 1)) if rng.randrange(20) == 0 else 0)
    return struct.pack("<Q", max(0, n)) + bytes(raw) + bytes(data)


def check_fixtures(program, folder):
    spec = importlib.util.spec_from_file_location("make_readers",
                                                  os.path.join(FIXTURES, "make_readers.py"))
    maker = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    spec.loader.exec_module(maker)
    again = os.path.join(folder, "again")
    os.mkdir(again)
    maker.make_all(again)
    for base, _, names in os.walk(again):
        for name in names:
            fresh = os.path.join(base, name)
            committed = os.path.join(FIXTURES, os.path.relpath(fresh, again))
            if not filecmp.cmp(fresh, committed, shallow=False):
                fail(f"{committed}: not what make_readers.py writes")
    for seed in SEEDS:
        fresh = os.path.join(folder, f"seed{seed}")
        os.mkdir(fresh)
        maker.make_all(fresh, seed)
        r = subprocess.run([program, "--fixtures", fresh], capture_output=True, text=True)
        if r.returncode != 0:
            fail(f"fixtures of seed {seed}:\n{r.stdout}{r.stderr}")


def reference(raw):
    try:
        deserialize(raw)
        return None
    except Exception as e:  # noqa: BLE001  (SafetensorError, or what pyo3 raises)
        return str(e)


def check_verdicts(program, folder):
    rng = random.Random(20)
    paths = []
    theirs = []
    for i in range(MUTANTS):
        raw = mutant(rng)
        path = os.path.join(folder, f"{i}.safetensors")
        with open(path, "wb") as f:
            f.write(raw)
        paths.append(path)
        theirs.append(reference(raw))
    listing = os.path.join(folder, "list")
    with open(listing, "w") as f:
        f.write("\n".join(paths) + "\n")
    r = subprocess.run([program, "--verdicts", listing], capture_output=True, text=True,
                       errors="replace")
    lines = r.stdout.splitlines()
    if r.returncode != 0 or len(lines) != MUTANTS:
        fail(f"test_tensors --verdicts: exit {r.returncode}, {len(lines)} lines\n{r.stderr}")
    both = neither = stricter = 0
    for path, their, line in zip(paths, theirs, lines):
        status, _, message = line.split(" ", 2)
        ok = status == "0"
        if ok and their is None:
            both += 1
        elif not ok and their is not None:
            neither += 1
        elif not ok and any(s in message for s in STRICTER):
            stricter += 1
        elif not (ok and any(s in their for s in LAXER)):
            with open(path, "rb") as f:
                fail(f"disagreement on {f.read()!r}\n  novaq: {line}\n  reference: {their}")
    print(f"{MUTANTS} damaged headers: {both} accepted by both, {neither} refused by both, "
          f"{stricter} refused by novaq alone for a documented reason")
    if both < MUTANTS // 50 or neither < MUTANTS // 2:
        fail("the damage no longer tests anything")


def main():
    program = os.path.join(os.environ.get("NOVAQ_BUILD", "build"), "tests", "test_tensors")
    if not os.path.exists(program):
        print(f"skipped: {program} is not built")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        check_fixtures(program, folder)
        check_verdicts(program, folder)


if __name__ == "__main__":
    main()

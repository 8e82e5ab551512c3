#!/usr/bin/env python3
"""Token ids of `novaq tokenize` against Hugging Face `tokenizers`.

The reference tokenizer is built here from the GGUF file's own keys (vocabulary,
merges, token types and the SmolLM pre-tokenizer), with nothing of novaq's.
Compared are a text given whole, 10,000 lines of seeded random Unicode over all
planes, assigned or not, and the source files of Python's standard library.

usage: oracle_tokenizer.py NOVAQ [MODEL.gguf [TEXT]]

Without MODEL the demonstration model under $NOVAQ_BUILD/model is used; exit 77
when it is not there. Without TEXT the text is Python's own sources, joined.
"""
import json
import os
import random
import subprocess
import sys
import sysconfig
from pathlib import Path

import gguf
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

LINES = 10_000
CONTROL, USER = 3, 4


def reference(path):
    reader = gguf.GGUFReader(path)

    def key(name):
        return reader.fields["tokenizer.ggml." + name].contents()

    if key("model") != "gpt2" or key("pre") != "smollm":
        sys.exit(f"{path}: this oracle knows the smollm pre-tokenizer only")
    tokens, types = key("tokens"), key("token_type")
    merges = [tuple(m.split(" ")) for m in key("merges")]
    tok = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    for kind, add in ((CONTROL, tok.add_special_tokens), (USER, tok.add_tokens)):
        add([AddedToken(t, normalized=False, special=kind == CONTROL)
             for t, k in zip(tokens, types) if k == kind])
    return tok


def random_lines(count, seed):
    """No line breaks inside, no surrogates; every plane, common blocks more often."""
    rng = random.Random(seed)
    spaces = [0x09, 0x20, 0x20, 0x85, 0xA0, 0x180E, 0x2003, 0x200B, 0x2028, 0x3000]

    def char():
        pick = rng.random()
        if pick < 0.25:
            return chr(rng.randrange(0x20, 0x7F))
        if pick < 0.35:
            return chr(rng.choice(spaces))
        if pick < 0.55:
            return chr(rng.randrange(0x80, 0x3000))
        if pick < 0.70:
            code = rng.randrange(0x3000, 0x10000 - 0x800)
            return chr(code if code < 0xD800 else code + 0x800)
        return chr(rng.randrange(0x10000, 0x110000))

    return ["".join(char() for _ in range(rng.randrange(1, 60))) for _ in range(count)]


def sources():
    """Some of the standard library, the bigger files first: decodable ones only."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"),
                   key=lambda p: (-p.stat().st_size, p.name))
    texts = []
    for path in files[:60]:
        try:
            texts.append((path.name, path.read_bytes().decode("utf-8")))
        except UnicodeDecodeError:
            continue
    return [(n, t) for n, t in texts if "\0" not in t]


def novaq_ids(novaq, model, text, lines):
    Path("text.txt").write_bytes(text.encode("utf-8"))
    command = [novaq, "tokenize", "--model", model, "--file", "text.txt"]
    done = subprocess.run(command + (["--lines"] if lines else ["--json"]), check=False,
                          stdout=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}")
    if lines:
        return [json.loads(line) for line in done.stdout.decode().splitlines()]
    return json.loads(done.stdout)["ids"]


def compare(name, wanted, got, texts):
    """1 when anything differs; says where first."""
    tokens = sum(map(len, wanted))
    if len(wanted) != len(got):
        print(f"{name}: {len(got)} answers for {len(wanted)} texts")
        return 1
    differ = [i for i, (a, b) in enumerate(zip(wanted, got)) if a != b]
    print(f"{name}: {len(wanted)} texts, {tokens} tokens, {len(differ)} texts differ")
    for i in differ[:3]:
        pairs = zip(wanted[i] + [None], got[i] + [None])
        at = next((k for k, (a, b) in enumerate(pairs) if a != b), 0)
        print(f"  {texts[i][:60]!r}: token {at}: reference {wanted[i][at:at + 6]}, "
              f"novaq {got[i][at:at + 6]}")
    return 1 if differ else 0


def default_model():
    build = os.environ.get("NOVAQ_BUILD", "build")
    found = sorted(Path(build, "model").rglob("*.gguf"))
    if not found:
        print("no model: run tools/fetch_model.sh")
        sys.exit(77)
    return str(found[0])


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    novaq = os.path.abspath(sys.argv[1])
    model = os.path.abspath(sys.argv[2] if len(sys.argv) > 2 else default_model())
    tok = reference(model)

    def encode(texts):
        return [e.ids for e in tok.encode_batch(texts, add_special_tokens=False)]

    code = sources()
    if len(sys.argv) > 3:
        whole = Path(sys.argv[3]).read_bytes().decode("utf-8")
    else:
        whole = "".join(text for _, text in code)
    failed = compare("whole text", encode([whole]), [novaq_ids(novaq, model, whole, False)],
                     [whole])
    lines = random_lines(LINES, seed=20)
    failed |= compare("random Unicode", encode(lines),
                      novaq_ids(novaq, model, "\n".join(lines) + "\n", True), lines)
    texts = [text for _, text in code[:12]]
    failed |= compare("source files", encode(texts),
                      [novaq_ids(novaq, model, text, False) for text in texts], texts)
    return failed


if __name__ == "__main__":
    sys.exit(main())

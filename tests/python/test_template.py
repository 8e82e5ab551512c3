#!/usr/bin/env python3
"""Chat templates come out of novaq_chat_render() as out of jinja2, byte for byte.

Usage: test_template.py NOVAQ [FOLDER]

FOLDER, or NOVAQ_TEMPLATES in the environment, names a folder of published templates:
every *.jinja in it, and what tokenizer_config.json and *.gguf files hold. Without one it
is the demonstration model's own (NOVAQ_MODEL, or the one under $NOVAQ_BUILD/model). Each
is rendered with the conversations of tests/fixtures/template/conversations.py by jinja2
as `transformers` sets it up (jinja_oracle.py), and by the library beside NOVAQ. Where
jinja2 fails, the library must, too. Exit 77 without templates, library or packages.
"""
import calendar
import ctypes
import json
import os
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
CARRIER = TESTS / "fixtures" / "model" / "a.gguf"  # a model must be open to render
SHOWN = 10  # differences
sys.path.insert(0, str(TESTS / "fixtures" / "template"))
try:
    import conversations
    import gguf
    import jinja_oracle
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)


# ---- the library -----------------------------------------------------------------


class Error(ctypes.Structure):
    """novaq_error"""

    _fields_ = [("code", ctypes.c_int), ("msg", ctypes.c_char * 512)]


class ModelOptions(ctypes.Structure):
    """novaq_model_options"""

    _fields_ = [("struct_size", ctypes.c_size_t), ("threads", ctypes.c_uint)]


class ChatOptions(ctypes.Structure):
    """novaq_chat_options"""

    _fields_ = [("struct_size", ctypes.c_size_t), ("messages", ctypes.c_char_p),
                ("tools", ctypes.c_char_p), ("variables", ctypes.c_char_p),
                ("chat_template", ctypes.c_char_p), ("no_generation_prompt", ctypes.c_int),
                ("now", ctypes.c_int64)]


class Library:
    """Renders as novaq does, over a model that is open."""

    def __init__(self, path, model):
        self.lib = ctypes.CDLL(str(path))
        self.model = ctypes.c_void_p()
        error = Error()
        options = ModelOptions(ctypes.sizeof(ModelOptions), 1)
        if self.lib.novaq_model_open(ctypes.byref(self.model), os.fsencode(model),
                                     ctypes.byref(options), ctypes.byref(error)) != 0:
            sys.exit(f"{model}: {error.msg.decode()}")

    def close(self):
        self.lib.novaq_model_close(ctypes.byref(self.model))

    def render(self, template, variables, with_date):
        """As jinja_oracle.render(); template None: the model's own."""
        more = dict(variables)
        messages, tools, prompt = (more.pop(k) for k in
                                   ("messages", "tools", "add_generation_prompt"))
        now = calendar.timegm(jinja_oracle.NOW.timetuple()) if with_date else 0
        options = ChatOptions(
            ctypes.sizeof(ChatOptions), json.dumps(messages).encode(),
            None if tools is None else json.dumps(tools).encode(), json.dumps(more).encode(),
            None if template is None else template.encode(), 0 if prompt else 1, now)
        text, size, error = ctypes.c_void_p(), ctypes.c_size_t(), Error()
        if self.lib.novaq_chat_render(ctypes.byref(text), ctypes.byref(size), self.model,
                                      ctypes.byref(options), ctypes.byref(error)) != 0:
            return {"error": error.msg.decode()}
        out = ctypes.string_at(text.value, size.value).decode()
        self.lib.novaq_free(text)
        return {"text": out}


# ---- templates -------------------------------------------------------------------


def of_config(path):
    config = json.loads(path.read_text(encoding="utf-8"))
    found = config.get("chat_template") if isinstance(config, dict) else None
    if isinstance(found, str):
        yield "", found
    elif isinstance(found, list):
        for entry in found:
            yield " " + entry["name"], entry["template"]


def of_gguf(path):
    for name, field in gguf.GGUFReader(path).fields.items():
        if name.startswith("tokenizer.chat_template") and field.types == [
                gguf.GGUFValueType.STRING]:
            yield name.removeprefix("tokenizer.chat_template"), field.contents()


def of_file(path):
    if path.suffix == ".jinja":
        with open(path, encoding="utf-8", newline="") as f:
            yield "", f.read()
    elif path.name.endswith("tokenizer_config.json"):
        yield from of_config(path)
    elif path.suffix == ".gguf":
        yield from of_gguf(path)


def templates(folder):
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            for which, text in of_file(path):
                yield f"{path.relative_to(folder)}{which}", text


# ---- comparing -------------------------------------------------------------------


def outcome(result):
    return "fails" if "error" in result else "renders"


def difference(want, got):
    """None when both are the same."""
    if outcome(want) != outcome(got):
        return f"jinja2 {outcome(want)}, novaq {outcome(got)}: {(want | got)['error']}"
    if want.get("text") != got.get("text"):
        return f"jinja2 {want['text']!r}\nnovaq  {got['text']!r}"
    return None


def compare(library, name, text, given):
    """Number of cases that jinja2 renders, of those that it refuses, differences; given:
    the template as the library gets it."""
    counts, wrong = {"renders": 0, "fails": 0}, []
    for i, (variables, dated) in enumerate(conversations.all_variables(full=True)):
        want = jinja_oracle.render(text, variables, dated)
        found = difference(want, library.render(given, variables, dated))
        counts[outcome(want)] += 1
        if found is not None:
            wrong.append(f"{name}, case {i}: {found}")
    print(f"{name}: {counts['renders']} rendered, {counts['fails']} refused, "
          f"{len(wrong)} differ")
    return counts["renders"], wrong


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


def demonstration_model():
    folder = Path(os.environ.get("NOVAQ_BUILD", "build")) / "model"
    named = os.environ.get("NOVAQ_MODEL")
    found = [Path(named)] if named else sorted(folder.glob("*.gguf"))
    if not found or found[0].suffix != ".gguf" or not found[0].is_file():
        skip("no NOVAQ_TEMPLATES, and no demonstration model; tools/fetch_model.sh brings it")
    return found[0]


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    folder = sys.argv[2] if len(sys.argv) == 3 else os.environ.get("NOVAQ_TEMPLATES")
    shared = Path(sys.argv[1]).resolve().parent / "libnovaq.so"
    if not shared.is_file():
        skip(f"there is no {shared}")
    if folder:
        work = [(name, text, text) for name, text in templates(folder)]
        model = CARRIER
    else:
        model = demonstration_model()
        work = [(model.name, text, None) for which, text in of_gguf(model) if which == ""]
    if not work:
        skip(f"no chat template in {folder or model}")
    library = Library(shared, model)
    rendered, wrong = 0, []
    for name, text, given in work:
        count, differences = compare(library, name, text, given)
        rendered += count
        wrong += differences
    library.close()
    for line in wrong[:SHOWN]:
        print(line)
    print(f"{len(work)} templates, {rendered} texts, {len(wrong)} differences")
    if rendered == 0:
        sys.exit("jinja2 renders none of them: nothing was compared")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

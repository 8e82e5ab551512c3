"""Driving the test program files_probe, for the tests of places. Standard library only."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

OK, ARG, IO, FORMAT, UNSUPPORTED, VERIFY, NETWORK = 0, 1, 3, 4, 5, 6, 7

PROGRAM = Path(os.environ["NOVAQ_BUILD"]) / "tests" / "files_probe"

# What would otherwise leak from the tester's own environment.
CLEARED = ("HF_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "HUGGING_FACE_HUB_TOKEN",
           "HF_TOKEN_PATH", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME",
           "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "OLLAMA_MODELS", "HF_ENDPOINT",
           "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


def environment(**extra):
    e = {k: v for k, v in os.environ.items() if k not in CLEARED}
    e.update(HOME=str(Path.cwd() / "home"), NOVAQ_HTTP_RETRIES="3", NOVAQ_HTTP_CONNECT="5")
    e.update(extra)
    return e


class Result:
    def __init__(self, done):
        self.status, self.error = done.returncode, done.stderr
        self.lines = [line.split(" ") for line in done.stdout.splitlines()]

    def all(self, kind):
        return [line[1:] for line in self.lines if line[0] == kind]

    def one(self, kind):
        found = self.all(kind)
        assert len(found) == 1, (kind, self.lines, self.error)
        return found[0]

    @property
    def origin(self):
        return json.loads(" ".join(self.one("origin")))


def probe(locator, *commands, **extra):
    done = subprocess.run([PROGRAM, locator, *commands], env=environment(**extra), text=True,
                          capture_output=True, timeout=120)
    return Result(done)


def succeed(locator, *commands, **extra):
    r = probe(locator, *commands, **extra)
    assert r.status == OK, (locator, commands, r.status, r.error)
    return r


def refuse(status, words, locator, *commands, **extra):
    """It fails so, with one line that has all the words."""
    r = probe(locator, *commands, **extra)
    lines = r.error.splitlines()
    assert r.status == status and len(lines) == 1, (locator, r.status, r.error, r.lines)
    for word in words:
        assert word in lines[0], (locator, word, r.error)
    return r


def sha256(data):
    return hashlib.sha256(data).hexdigest()

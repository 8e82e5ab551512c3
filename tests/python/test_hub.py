#!/usr/bin/env python3
"""Models of the Hugging Face Hub, over hub_mock.py.

1. The mock is driven by the real huggingface_hub client: what works at the Hub works
   there, and refusals are the exceptions the client knows.
2. novaq (test program files_probe) lists and reads the same, bit for bit; digests are
   verified; revisions, pages, redirects, expired links, rate limits; the cache that the
   client made is used; refusals say what to do; the token goes nowhere else.

Usage: test_hub.py NOVAQ [--no-client]   (NOVAQ_BUILD is used, not the program)
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import hub_mock
from probe import FORMAT, NETWORK, VERIFY, environment, refuse, sha256, succeed

HUB = Path("hub").resolve()
TOKEN = "hf_right"


def make_models():
    r = random.Random(7)
    files = {
        "org/tiny/config.json": b'{"model_type": "llama"}',
        "org/tiny/model-00001-of-00002.safetensors": r.randbytes(3_000_000),
        "org/tiny/model-00002-of-00002.safetensors": r.randbytes(1_000_001),
        "org/tiny/model.safetensors.index.json": b'{"weight_map": {}}',
        "org/tiny/tokenizer.json": r.randbytes(20_000),
        "org/tiny/onnx/with space+%#?.onnx": r.randbytes(5_000),
        "org/tiny/empty.txt": b"",
        "org/tiny@v1/config.json": b'{"model_type": "older"}',
        "org/tiny@refs%2Fpr%2F1/config.json": b'{"model_type": "proposed"}',
        "org/gated/model.gguf": r.randbytes(9_000),
        "org/gated/.hub.json": b'{"gated": true}',
        "org/granted/model.gguf": r.randbytes(9_000),
        "org/granted/.hub.json": b'{"gated": true, "granted": true}',
        "org/private/config.json": b"{}",
        "org/private/.hub.json": b'{"private": true}',
        "org/disabled/config.json": b"{}",
        "org/disabled/.hub.json": b'{"disabled": true}',
        "gpt2/config.json": b'{"model_type": "gpt2"}',
    }
    for name, data in files.items():
        path = HUB / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return files


class Mock:
    """A mock with these options, while in a with statement."""

    def __init__(self, *options):
        self.log = Path("log").resolve()
        self.log.unlink(missing_ok=True)
        args = ["--root", str(HUB), "--log", str(self.log), *options]
        self.hub, self.servers = hub_mock.serve(hub_mock.parser().parse_args(args))
        self.url = self.hub.options.address
        self.port = self.servers[0].server_address[1]

    def __enter__(self):
        return self

    def __exit__(self, *args):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def requests(self):
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        self.log.write_text("")
        return lines

    def succeed(self, locator, *commands, **extra):
        return succeed(locator, *commands, HF_ENDPOINT=self.url, **extra)

    def refuse(self, status, words, locator, *commands, **extra):
        return refuse(status, words, locator, *commands, HF_ENDPOINT=self.url, **extra)


def main_files(files):
    return {n.removeprefix("org/tiny/"): d for n, d in files.items() if n.startswith("org/tiny/")}


# ---- the real client ----------------------------------------------------------

CLIENT = r"""
import hashlib, json, sys
from pathlib import Path
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (DisabledRepoError, EntryNotFoundError, GatedRepoError,
                                    RepositoryNotFoundError, RevisionNotFoundError)
api = HfApi()
out = {"commit": api.model_info("org/tiny").sha, "tree": {}, "files": {}}
for e in api.list_repo_tree("org/tiny", recursive=True):
    if hasattr(e, "size"):
        out["tree"][e.path] = [e.size, e.lfs.sha256 if e.lfs else None]
folder = Path(snapshot_download("org/tiny"))
for p in folder.rglob("*"):
    if p.is_file():
        name = p.relative_to(folder).as_posix()
        out["files"][name] = hashlib.sha256(p.read_bytes()).hexdigest()
out["snapshot"] = folder.name
for revision in ("v1", "refs/pr/1"):
    path = hf_hub_download("org/tiny", "config.json", revision=revision)
    out[revision] = Path(path).read_text()
def fails(kind, do):
    try:
        do()
    except kind as e:
        return type(e).__name__
    raise SystemExit(f"{kind.__name__} expected")
out["errors"] = [
    fails(GatedRepoError, lambda: hf_hub_download("org/gated", "model.gguf")),
    fails(RepositoryNotFoundError, lambda: hf_hub_download("org/private", "config.json", token=False)),
    fails(RepositoryNotFoundError, lambda: hf_hub_download("org/none", "config.json")),
    fails(RevisionNotFoundError, lambda: hf_hub_download("org/tiny", "config.json", revision="v9")),
    fails(EntryNotFoundError, lambda: hf_hub_download("org/tiny", "none.json")),
    fails(DisabledRepoError, lambda: api.model_info("org/disabled")),
]
hf_hub_download("org/private", "config.json")
print(json.dumps(out))
"""


def check_client(files):
    """The mock is what the client takes it for; leaves the client's cache behind."""
    cache = Path("client-cache").resolve()
    with Mock("--page", "3", "--rate-limit", "1", "--rate-limit-path", "/resolve/") as mock:
        e = environment(HF_ENDPOINT=mock.url, HF_HOME=str(cache), HF_TOKEN=TOKEN,
                        HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1",
                        HF_HUB_DISABLE_XET="1")
        done = subprocess.run([sys.executable, "-c", CLIENT], env=e, capture_output=True, text=True,
                              timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        seen = json.loads(done.stdout)
        requests = mock.requests()
        want = main_files(files)
        assert seen["files"] == {n: sha256(d) for n, d in want.items()}, seen["files"]
        assert seen["snapshot"] == seen["commit"]
        assert seen["v1"].encode() == files["org/tiny@v1/config.json"]
        assert seen["refs/pr/1"].encode() == files["org/tiny@refs%2Fpr%2F1/config.json"]
        kinds = {(r["status"], r["port"] == mock.port) for r in requests}
        # It went the ways that the Hub has: relative 307, 302 to another port, 429.
        assert {(307, True), (302, True), (200, False), (429, True)} <= kinds, kinds
        listed = mock.succeed("hf://org/tiny", "list").all("file")
        assert {n: [int(s), None if h == "-" else h] for *n_, s, h in listed
                for n in [" ".join(n_)]} == seen["tree"]
        check_client_cache(mock, files, cache, seen["commit"])


def check_client_cache(mock, files, cache, commit):
    want = main_files(files)
    name = "model-00001-of-00002.safetensors"
    mock.requests()
    r = mock.succeed("hf://org/tiny", "read", name, "text", "config.json", HF_HOME=str(cache))
    assert r.one("read") == [name, str(len(want[name])), sha256(want[name]), "verified", "local"]
    assert all("/resolve" not in q["path"] for q in mock.requests())
    offline = {"HF_HUB_CACHE": str(cache / "hub"), "HF_HUB_OFFLINE": "1"}
    for locator in ("hf://org/tiny", f"hf://org/tiny@{commit}"):
        r = mock.succeed(locator, "read", name, "text", "tokenizer.json", "list", **offline)
        assert r.one("locator") == [f"hf://org/tiny@{commit}"]
        assert r.one("read")[2] == sha256(want[name])
        assert {" ".join(f[:-2]) for f in r.all("file")} == set(want)
    r = mock.succeed("hf://org/tiny@refs%2Fpr%2F1", "text", "config.json", **offline)
    assert r.one("text")[2] == sha256(files["org/tiny@refs%2Fpr%2F1/config.json"])
    mock.refuse(NETWORK, ["offline", "cache"], "hf://org/granted", **offline)
    assert mock.requests() == []
    # A damaged copy of the right size is found out; one of another size is not used.
    blob = cache / "hub/models--org--tiny/blobs" / sha256(want[name])
    blob.write_bytes(bytes([want[name][0] ^ 1]) + want[name][1:])
    mock.refuse(VERIFY, ["damaged", "SHA-256"], "hf://org/tiny", "read", name, HF_HOME=str(cache))
    blob.write_bytes(want[name][:-1])
    r = mock.succeed("hf://org/tiny", "read", name, HF_HOME=str(cache))
    assert r.one("read")[2:] == [sha256(want[name]), "verified", "remote"]
    # The Hub out of reach, but the cache has it: it is said how to use it.
    refuse(NETWORK, ["HF_HUB_OFFLINE=1"], "hf://org/tiny", HF_HOME=str(cache),
           HF_ENDPOINT="http://127.0.0.1:1", NOVAQ_HTTP_RETRIES="0")


# ---- novaq --------------------------------------------------------------------

def check_files(files):
    want = main_files(files)
    for page in ("1000", "1", "3"):
        with Mock("--page", page) as mock:
            r = mock.succeed("hf://org/tiny", "list")
            listed = {" ".join(f[:-2]): f[-2:] for f in r.all("file")}
            assert set(listed) == set(want)
            for name, data in want.items():
                large = name.endswith(("safetensors", "onnx")) or len(data) >= 4096
                assert listed[name] == [str(len(data)), sha256(data) if large else "-"], name
    with Mock() as mock:
        commit = mock.succeed("hf://org/tiny").one("locator")[0].removeprefix("hf://org/tiny@")
        for name, data in want.items():
            r = mock.succeed("hf://org/tiny", "text", name, "mixed", name, "read", name, "has", name)
            assert r.one("text")[-2:] == [str(len(data)), sha256(data)], name
            for read in r.all("read"):
                large = name.endswith(("safetensors", "onnx")) or len(data) >= 4096
                assert read[-4:] == [str(len(data)), sha256(data),
                                     "verified" if large else "unverified", "remote"], (name, read)
        r = mock.succeed("hf://org/tiny", "text", "none", "has", "none", "has", "../x", "origin")
        assert r.all("text") == [["none", "absent"]]
        assert [h[1] for h in r.all("has")] == ["no", "no"]
        name = "model-00002-of-00002.safetensors"
        r = mock.succeed(f"hf://org/tiny/{name}", "read", name, "origin", "received")
        assert r.one("locator") == [f"hf://org/tiny@{commit}/{name}"]
        assert r.one("chosen") == [name]
        assert r.origin == {"locator": f"hf://org/tiny@{commit}/{name}", "revision": commit,
                            "files": {name: {"size": len(want[name]), "sha256": sha256(want[name])}}}
        assert int(r.one("received")[0]) < len(want[name]) + 10_000
        for pasted in (f"{mock.url}/org/tiny/blob/main/{name}",
                       f"{mock.url}/org/tiny/resolve/{commit}/{name}?download=true"):
            assert mock.succeed(pasted).one("locator") == [f"hf://org/tiny@{commit}/{name}"]
        for locator, key in (("hf://org/tiny@v1", "org/tiny@v1"),
                             ("hf://org/tiny@refs%2Fpr%2F1", "org/tiny@refs%2Fpr%2F1"),
                             ("hf://org/tiny@refs/pr/1", "org/tiny@refs%2Fpr%2F1"),
                             (f"hf://org/tiny@{commit[:9]}", "org/tiny"), ("hf://gpt2", "gpt2"),
                             ("hf://gpt2@main/config.json", "gpt2")):
            r = mock.succeed(locator, "text", "config.json")
            assert r.one("text")[2] == sha256(files[key + "/config.json"]), locator


def check_faults(files):
    want = main_files(files)
    name = "model-00001-of-00002.safetensors"
    with Mock("--rate-limit", "1") as mock:
        r = mock.succeed("hf://org/tiny", "read", name)
        assert r.one("read")[2:4] == [sha256(want[name]), "verified"]
        assert [q["status"] for q in mock.requests()][:2] == [429, 200]
    with Mock("--rate-limit", "100") as mock:
        mock.refuse(NETWORK, ["429", "HF_TOKEN"], "hf://org/tiny", NOVAQ_HTTP_RETRIES="1")
    # Each link is good for two requests: it has to be asked for again and again.
    with Mock("--link-requests", "2") as mock:
        r = mock.succeed("hf://org/tiny", "mixed", name)
        assert r.one("read")[2:4] == [sha256(want[name]), "verified"]
        statuses = [q["status"] for q in mock.requests()]
        assert statuses.count(302) > 5 and statuses.count(403) > 5, statuses
    # What the list promises is not what comes.
    with Mock() as mock:
        snapshot = mock.hub.snapshot(HUB / "org/tiny")
        snapshot.entries[name].sha256 = "0" * 64
        mock.refuse(VERIFY, ["SHA-256", "promised"], "hf://org/tiny", "read", name)
        snapshot.entries["tokenizer.json"].sha256 = "1" * 64
        mock.refuse(VERIFY, ["tokenizer.json"], "hf://org/tiny", "text", "tokenizer.json")
        snapshot.entries["config.json"].size += 1
        mock.refuse(VERIFY, ["config.json"], "hf://org/tiny", "text", "config.json")
        snapshot.entries[name].size -= 1
        mock.refuse(VERIFY, ["3000000 bytes instead of 2999999"], "hf://org/tiny", "read", name)


def check_hostile_lists():
    """What a list must not make us do or believe."""
    def entry(path="x.gguf", size=5, **more):
        return {"type": "file", "oid": "0" * 40, "size": size, "path": path, **more}

    lfs = {"oid": "a" * 64, "size": 5}
    hidden = ["../x", "/etc/passwd", "a/../../x", "a\\b", "a\nb", "", ".", "a//b", "x" * 2000]
    cases = [
        (FORMAT, [entry(size=-1)]), (FORMAT, [entry(size="5")]), (FORMAT, [entry(size=2 ** 60)]),
        (FORMAT, [entry(size=1.5)]), (FORMAT, [entry(lfs={**lfs, "oid": "a" * 63})]),
        (FORMAT, [entry(lfs={**lfs, "oid": "A" * 64})]), (FORMAT, [entry(lfs={**lfs, "size": 6})]),
        (FORMAT, [entry(lfs={**lfs, "oid": "../../../etc/passwd"})]),
        (FORMAT, [entry(), entry()]), (FORMAT, {"error": "x"}), (FORMAT, [1]), (FORMAT, [None]),
        (FORMAT, [{"type": "file"}]), (FORMAT, [{"path": "x"}]),
    ]
    for status, listed in cases:
        with Mock() as mock:
            mock.hub.snapshot(HUB / "org/tiny").tree = lambda recursive, x=listed: x
            if not isinstance(listed, list):
                mock.hub.snapshot(HUB / "org/tiny").tree = lambda recursive, x=listed: Whole(x)
            mock.refuse(status, [], "hf://org/tiny", "list")
    with Mock() as mock:
        odd = [entry(n) for n in hidden] + [entry("good.gguf")]
        mock.hub.snapshot(HUB / "org/tiny").tree = lambda recursive: odd
        r = mock.succeed("hf://org/tiny", "list")
        assert r.all("file") == [["good.gguf", "5", "-"]], r.lines
    # A list that goes on elsewhere is read here, and the token stays here.
    with Mock("--page", "2", "--link-host", "http://127.0.0.1:1/x") as mock:
        r = mock.succeed("hf://org/tiny", "list", HF_TOKEN=TOKEN)
        assert len(r.all("file")) == 7
    with Mock("--page", "2", "--link-host", "http://127.0.0.1:1/api/model") as mock:
        r = mock.succeed("hf://org/tiny", "list")
        assert len(r.all("file")) == 7


class Whole(dict):
    """A reply that is no list, but gets through the mock's paging."""

    def __getitem__(self, key):
        return dict(self) if isinstance(key, slice) else super().__getitem__(key)


def check_refusals():
    with Mock() as mock:
        page = mock.url
        for words, locator, commands, extra in (
            (["restricted", f"{page}/org/gated", "HF_TOKEN"], "hf://org/gated", ("read", "model.gguf"), {}),
            (["restricted", f"{page}/org/gated", "granted"], "hf://org/gated", ("read", "model.gguf"),
             {"HF_TOKEN": TOKEN}),
            (["restricted"], "hf://org/gated", ("text", "model.gguf"), {"HF_TOKEN": TOKEN}),
            (["no such model", "private", "HF_TOKEN"], "hf://org/private", (), {}),
            (["no such model", "private", "HF_TOKEN"], "hf://org/none", (), {}),
            (["no such model", "may not read"], "hf://org/none", (), {"HF_TOKEN": TOKEN}),
            (["does not accept the token"], "hf://org/tiny", (), {"HF_TOKEN": "hf_wrong"}),
            (["disabled"], "hf://org/disabled", (), {}),
            (['"v9"', "/tree/main"], "hf://org/tiny@v9", (), {}),
            (["no file", "config.json"], "hf://org/tiny/confg.json", (), {}),
            (["no file", "model.safetensors.index.json"], "hf://org/tiny/model.safetensors", (), {}),
            (["folder", "onnx/"], "hf://org/tiny/onnx", (), {}),
            (["gpt2@main/config.json"], "hf://gpt2/config.json", (), {}),
        ):
            r = mock.refuse(NETWORK, words, locator, *commands, **extra)
            assert TOKEN not in r.error and "hf_wrong" not in r.error
        r = mock.succeed("hf://org/granted", "read", "model.gguf", HF_TOKEN=TOKEN)
        assert r.one("read")[3] == "verified"
        mock.succeed("hf://org/private", "text", "config.json", HUGGINGFACE_TOKEN=TOKEN)
        refuse(NETWORK, [], "hf://org/tiny", HF_ENDPOINT="http://127.0.0.1:1", NOVAQ_HTTP_RETRIES="0")


def check_token():
    """It goes to the Hub with every request and to nobody else."""
    with Mock() as mock:
        mock.succeed("hf://org/granted", "read", "model.gguf", "mixed", "model.gguf", HF_TOKEN=TOKEN)
        requests = mock.requests()
        here = [q for q in requests if q["port"] == mock.port]
        there = [q for q in requests if q["port"] != mock.port]
        assert len(here) >= 4 and len(there) >= 1
        assert all(q["headers"].get("Authorization") == "Bearer " + TOKEN for q in here), here
        assert all("Authorization" not in q["headers"] for q in there), there
        mock.succeed("hf://org/tiny", "list", HF_TOKEN=TOKEN, HF_HUB_DISABLE_IMPLICIT_TOKEN="1")
        assert all("Authorization" not in q["headers"] for q in mock.requests())


def main():
    files = make_models()
    check_files(files)
    check_faults(files)
    check_hostile_lists()
    check_refusals()
    check_token()
    if "--no-client" in sys.argv:
        print("ok, without the real client")
        return 0
    check_client(files)
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())

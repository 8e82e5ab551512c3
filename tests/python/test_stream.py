#!/usr/bin/env python3
"""Models behind an ordinary HTTP server: the same artifact as from the disk, a dropped
network and a changed source, what is told while tensors are finished, what commands read,
nothing of the source on the disk.
Usage: test_stream.py NOVAQ
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
from range_server import Folder, RandomModel, Server  # noqa: E402

import hub_mock  # noqa: E402  (beside this file, as the next)
import ollama_registry  # noqa: E402

NOVAQ = sys.argv[1]
MODELS = ROOT / "tests" / "fixtures" / "model"
ENV = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "NOVAQ_HTTP_RETRIES": "0",
       "NOVAQ_HTTP_STALL": "10"}
ORIGIN = ".origin.json"  # behind an artifact's name: says where its source lay


def need(condition, *what):
    if not condition:
        print("FAILED:", *what)
        sys.exit(1)


def novaq(*arguments, status=0, **environment):
    done = subprocess.run([NOVAQ, *map(str, arguments)], capture_output=True, text=True,
                          env={**ENV, **environment}, stdin=subprocess.DEVNULL)
    need(done.returncode == status, "exit", done.returncode, "instead of", status, ":",
         *arguments, done.stderr)
    return done


def compress(source, output, *options, status=0):
    return novaq("compress", "--input", source, "--output", output, "--quiet", "--json", *options,
                 status=status)


def content(folder):
    """Every byte of an artifact, by file."""
    files = {p.name: p.read_bytes() for p in Path(folder).iterdir()}
    need("manifest.json" in files and len(files) > 1, folder, "is no artifact:", list(files))
    return files


def same(a, b):
    ca, cb = content(a), content(b)
    differ = [k for k in ca.keys() | cb.keys() if ca.get(k) != cb.get(k)]
    need(not differ, a, "and", b, "differ in", differ)


def origin(folder):
    return json.loads(Path(str(folder) + ORIGIN).read_text())


# ---- the same as from the disk --------------------------------------------------------


def test_same_as_local():
    """Runnable models, calibrated and not; whatever is beside them is found, too."""
    cases = [("a-hf", "a-hf/model.safetensors"), ("a.gguf", "a.gguf"), ("b.gguf", "b.gguf")]
    with Server(Folder(MODELS)) as server:
        for local, remote in cases:
            for calibration in ("none", "self"):
                options = ["--calibration", calibration, "--target-bits", "2.5"]
                here, there = f"here-{local}-{calibration}", f"there-{local}-{calibration}"
                compress(MODELS / local, here, *options)
                compress(server.url(remote), there, *options)
                same(here, there)
                novaq("verify", there, "--quiet")
        novaq("url", server.url("a.gguf"), "--calibration", "none", "--quiet")
        novaq("verify", "novaq_compressed.bin", "--quiet")
        told = origin("there-a.gguf-none")
        need(told["locator"] == server.url("a.gguf"), told)
        need(told["files"]["a.gguf"]["size"] == (MODELS / "a.gguf").stat().st_size, told)


def test_sharded_same_as_local(model):
    Path("shards").mkdir()
    model.write("shards")
    index = "model.safetensors.index.json"
    options = ["--scheme", "k16d2l2", "--calibration", "none"]
    compress(f"shards/{index}", "shards-here", *options)
    with Server(model) as server:
        compress(server.url(index), "shards-there", *options)
        fetched = sum(int(r.split("-")[1]) - int(r.split("=")[1].split("-")[0]) + 1
                      for _, name, r in server.requests if r and name.endswith(".safetensors")
                      and not r.endswith("-"))
    same("shards-here", "shards-there")
    total = sum(model.find(name)[0] for name in model.files)
    need(fetched <= 1.5 * total, "read", fetched, "of", total)


# ---- commands that only look ----------------------------------------------------------


def test_commands_over_http():
    with Server(Folder(MODELS)) as server:
        url = server.url("a.gguf")
        for command in (["info"], ["stats"]):
            here = json.loads(novaq(*command, MODELS / "a.gguf", "--json").stdout)
            there = json.loads(novaq(*command, url, "--json").stdout)
            for report in (here, there):
                for key in ("path", "source", "source_locator", "name"):
                    report.pop(key, None)
            need(here == there, command, here, there)
        here = novaq("tokenize", MODELS / "a.gguf", "some words").stdout
        need(here == novaq("tokenize", url, "some words").stdout, "tokenize")
        run = ["-p", "a b", "-n", "6", "--temperature", "0", "--ignore-eos", "--quiet"]
        need(novaq("run", MODELS / "a.gguf", *run).stdout == novaq("run", url, *run).stdout, "run")
        measure = ["--perplexity", MODELS / "text.txt", "--n-ctx", "16", "--json", "--quiet"]
        here = json.loads(novaq("eval", MODELS / "a.gguf", *measure).stdout)
        there = json.loads(novaq("eval", url, *measure).stdout)
        need(here["perplexity"] == there["perplexity"], here, there)
        novaq("export", url, "--to", "gguf", "--output", "there.gguf", "--quiet")
        novaq("export", MODELS / "a.gguf", "--to", "gguf", "--output", "here.gguf", "--quiet")
        need(Path("there.gguf").read_bytes() == Path("here.gguf").read_bytes(), "export")
        plan = ["compress", "--dry-run", "--json", "--calibration", "none", "--input"]
        here = json.loads(novaq(*plan, MODELS / "a.gguf").stdout)
        there = json.loads(novaq(*plan, url).stdout)
        need(here["layers"] == there["layers"], "plans differ")


# ---- what is told --------------------------------------------------------------------


def test_json_lines(model):
    with Server(model) as server:
        done = novaq("compress", "--input", server.url("model.safetensors.index.json"), "--output",
                     "told", "--scheme", "k16d2l2", "--calibration", "none", "--json-lines",
                     "--quiet")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    need([set(l) for l in lines] == [{"tensor"}] * (len(lines) - 1) + [{"report"}], lines[-1])
    stats = json.loads(novaq("stats", "told", "--json").stdout)
    told = {l["tensor"]["name"]: l["tensor"] for l in lines[:-1]}
    need(told.keys() == stats["layers"].keys(), told.keys() ^ stats["layers"].keys())
    for name, layer in stats["layers"].items():
        for key in ("scheme", "bits_per_weight", "relative_error", "cosine_similarity"):
            near = told[name].get(key) == layer.get(key)
            if isinstance(layer.get(key), float):
                near = abs(told[name][key] - layer[key]) <= 1e-6 * abs(layer[key])
            need(near, name, key, told[name].get(key), layer.get(key))
        need(("subspaces" in layer["diagnostics"]) ==
             ("subspaces" in told[name].get("diagnostics", {})) if "diagnostics" in layer else True,
             name, "has no subspaces")
    need(lines[-1]["report"]["bytes"] == stats["bytes"], lines[-1])


# ---- interruptions -------------------------------------------------------------------


def test_dropped_network(model):
    """The link breaks at several points; the same command goes on and gives the same
    bytes, in both forms, and fetches less than everything again."""
    index = "model.safetensors.index.json"
    options = ["--scheme", "k16d2l2", "--calibration", "none", "--threads", "1"]
    total = sum(model.find(name)[0] for name in model.files)
    with Server(model) as server:
        compress(server.url(index), "whole", *options)
        compress(server.url(index), "whole.bin", *options)
        resumed = 0
        for share in (0.0, 0.3, 0.8):
            for form in ("broken", "broken.bin"):
                server.link.sent, server.link.budget = 0, int(total * share)
                failed = compress(server.url(index), form, *options, status=4)
                need(failed.stderr.count("\n") == 1, "not one line:", failed.stderr)
                need(not failed.stdout, "a failed command printed a result")
                novaq("verify", form, "--quiet", status=3 if Path(form).is_dir() else 1)
                server.link.sent, server.link.budget = 0, None
                report = json.loads(compress(server.url(index), form, *options).stdout)
                if share >= 0.3 and "resumed" in report:
                    need(server.link.sent < total * (1.25 - share / 2), "fetched",
                         server.link.sent, "of", total, "again after", share)
                    resumed += report["resumed"]["tensors"]
                whole = "whole" + form[len("broken"):]
                if form == "broken":
                    same(whole, form)
                    left = [p for p in os.listdir(form)
                            if not p.startswith("chunk-") and p != "manifest.json"]
                    need(not left, "left behind:", left)
                    shutil.rmtree(form)
                else:
                    need(Path(whole).read_bytes() == Path(form).read_bytes(), form, "differs")
                    os.remove(form)
    need(resumed > 5, "only", resumed, "tensors were taken over")
    need(not [p for p in os.listdir(".") if "partial" in p or "journal" in p], os.listdir("."))
    print(f"dropped network: {resumed} tensors taken over in 4 runs")


def test_target_first(model):
    """A target that will not do is refused before the model is fetched."""
    total = sum(model.find(name)[0] for name in model.files)
    Path("occupied").mkdir()
    Path("occupied/notes.txt").write_text("mine")
    with Server(model) as server:
        for options in (["--calibration", "none"], ["--calibration", "self", "--max-memory", "1G"]):
            failed = compress(server.url("model.safetensors.index.json"), "occupied", *options,
                              status=2)
            need("notes.txt" in failed.stderr, failed.stderr)
            need(server.link.sent < total / 4, server.link.sent, "of", total, "were fetched")
    need(os.listdir("occupied") == ["notes.txt"], os.listdir("occupied"))


def test_changed_source():
    """What an interrupted run left of another source is not mixed in."""
    tensors = [(f"blk.{i}.ffn_up.weight", (256, 256)) for i in range(12)]
    one = RandomModel(tensors, shards=1)
    other = RandomModel([(n.replace("up", "gate"), s) for n, s in tensors], shards=1)
    name = "model-00001-of-00001.safetensors"
    options = ["--scheme", "k16d2l3", "--calibration", "none"]

    class Place:
        model = one

        def find(self, name):
            found = self.model.find(name)
            return found and (*found[:2], found[2] + str(self.model is one))

    place = Place()
    with Server(place) as server:
        server.link.budget = 12 * 256 * 256
        compress(server.url(name), "changed", *options, status=4)
        server.link.budget = None
        place.model = other
        compress(server.url(name), "changed", *options)
        compress(server.url(name), "fresh", *options)
    same("fresh", "changed")


# ---- the Hub --------------------------------------------------------------------------


def make_hub(root):
    """org/a-hf as it is; org/two with two GGUF files; gated, private."""
    for repo in ("org/a-hf", "org/gated", "org/private", "org/granted"):
        shutil.copytree(MODELS / "a-hf", root / repo)
    (root / "org/two").mkdir()
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(MODELS / name, root / "org/two" / name)
    (root / "org/two@v1.0").mkdir()
    shutil.copy(MODELS / "b.gguf", root / "org/two@v1.0" / "a.gguf")
    (root / "org/gated/.hub.json").write_text('{"gated": true}')
    (root / "org/granted/.hub.json").write_text('{"gated": true, "granted": true}')
    (root / "org/private/.hub.json").write_text('{"private": true}')


def test_hub():
    root = Path("hub").absolute()
    make_hub(root)
    options = hub_mock.parser().parse_args(["--root", str(root), "--page", "2"])
    _, servers = hub_mock.serve(options)
    hub = {"HF_ENDPOINT": options.address, "HF_HOME": str(Path("no-home").absolute())}
    right = {**hub, "HF_TOKEN": "hf_right"}
    plain = ["--calibration", "none", "--quiet"]

    def from_hub(locator, output, *options, status=0, env=hub):
        return novaq("compress", "--input", locator, "--output", output, *plain, *options,
                     status=status, **env)

    compress(root / "org/a-hf", "hub-here", "--calibration", "none")
    from_hub("hf://org/a-hf", "hub-there")
    same("hub-here", "hub-there")
    told = origin("hub-there")
    need(re.fullmatch("hf://org/a-hf@[0-9a-f]{40}", told["locator"]), told)
    digest = hashlib.sha256((MODELS / "a-hf/model.safetensors").read_bytes()).hexdigest()
    need(told["files"]["model.safetensors"]["sha256"] == digest, told)
    for repo, env in (("org/private", right), ("org/granted", right)):
        from_hub(f"hf://{repo}", repo.replace("/", "-"), env=env)
        same("hub-here", repo.replace("/", "-"))
    # The seed's spelling, and files that have to be chosen.
    novaq("hf", "org/two", "-f", "a.gguf", "--output", "two-a.bin", *plain, **hub)
    novaq("hf", "org/two", "--file", "a.gguf", "--revision", "v1.0", *plain, **hub)
    novaq("verify", "two-a.bin", "--quiet")
    names = {path: json.loads(novaq("info", path, "--json").stdout)["parameters"]
             for path in ("two-a.bin", "novaq_compressed.bin", MODELS / "a.gguf",
                          MODELS / "b.gguf")}
    need(names["two-a.bin"] == names[MODELS / "a.gguf"], names)
    need(names["novaq_compressed.bin"] == names[MODELS / "b.gguf"], names)
    page = novaq("info", f"{options.address}/org/two/blob/main/b.gguf", "--json", **hub)
    need(json.loads(page.stdout)["parameters"] == names[MODELS / "b.gguf"], "a page of the Hub")
    for locator, env, words in (
        ("hf://org/gated", hub, "HF_TOKEN"),
        ("hf://org/gated", right, "not been granted"),
        ("hf://org/private", hub, "HF_TOKEN"),
        ("hf://org/absent", hub, "no such model"),
        ("hf://org/a-hf@v7", hub, "v7"),
        ("hf://org/a-hf@main/model.gguf", hub, "model.safetensors"),
        ("hf://org/a-hf", {**hub, "HF_TOKEN": "hf_wrong"}, "token"),
    ):
        failed = from_hub(locator, "never", status=4, env=env)
        need(words in failed.stderr and failed.stderr.count("\n") == 1, locator, failed.stderr)
        need("hf_right" not in failed.stderr and "hf_wrong" not in failed.stderr, "a token!")
    failed = novaq("hf", "org/two", *plain, status=2, **hub)
    need("a.gguf" in failed.stderr and "b.gguf" in failed.stderr, failed.stderr)
    need(not Path("never").exists() and not Path("no-home").exists(), "something was written")
    test_demonstration(hub)
    for server in servers:
        server.shutdown()


# ---- Ollama ---------------------------------------------------------------------------


def test_registry():
    """The same file from a real registry and from the store of a local Ollama."""
    if ollama_registry.program() is None:
        print("docker-registry is not installed: no registry was asked")
        return
    plain = ["--calibration", "none"]
    compress(MODELS / "a.gguf", "ollama-here", *plain)
    registry = ollama_registry.Registry("registry")
    try:
        layers = [("model", (MODELS / "a.gguf").read_bytes()), ("template", b"{{ .Prompt }}")]
        registry.push("library/tiny", "8b", layers)
        env = {"OLLAMA_MODELS": str(Path("no-store").absolute())}
        name = f"{registry.host}/library/tiny:8b"
        novaq("compress", "--input", f"ollama://{name}", "--output", "ollama-there", "--quiet",
              *plain, **env)
        novaq("ollama", name, "--output", "ollama.bin", "--quiet", *plain, **env)
        failed = novaq("ollama", f"{registry.host}/library/absent:8b", "--quiet", status=4, **env)
        need("absent" in failed.stderr, failed.stderr)
    finally:
        registry.stop()
    same("ollama-here", "ollama-there")
    novaq("verify", "ollama.bin", "--quiet")
    # The store: the registry is down now.
    digest = hashlib.sha256(layers[0][1]).hexdigest()
    store = Path("store")
    (store / "manifests/registry.ollama.ai/library/tiny").mkdir(parents=True)
    (store / "blobs").mkdir()
    shutil.copy(MODELS / "a.gguf", store / f"blobs/sha256-{digest}")
    (store / "manifests/registry.ollama.ai/library/tiny/8b").write_text(json.dumps({
        "schemaVersion": 2, "layers": [{
            "mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}",
            "size": len(layers[0][1])}]}))
    novaq("compress", "--input", "ollama://tiny:8b", "--output", "ollama-store", "--quiet", *plain,
          OLLAMA_MODELS=str(store.absolute()))
    same("ollama-here", "ollama-store")


def test_demonstration(hub):
    """examples/stream_from_hf.sh, twice: the second time all is there already."""
    env = {**ENV, **hub, "NOVAQ": NOVAQ, "OUTPUT": str(Path("demo").absolute())}
    done = subprocess.run(["bash", ROOT / "examples/stream_from_hf.sh", "org/a-hf", "4", "a b"],
                          capture_output=True, text=True, env=env)
    need(done.returncode == 0, "the example failed:", done.stdout, done.stderr)
    lines = [json.loads(line) for line in Path("demo.jsonl").read_text().splitlines()]
    need("report" in lines[-1] and len(lines) > 5, lines[-1:])
    need(f"{len(lines) - 1} tensors" in done.stdout and "bits/weight" in done.stdout, done.stdout)
    novaq("verify", "demo", "--quiet")
    if shutil.which("gnuplot"):
        need(Path("demo.png").read_bytes()[:4] == b"\x89PNG", "no picture")


# ---- refusals ------------------------------------------------------------------------


def test_refusals():
    with Server(Folder(MODELS)) as server:
        failed = compress(server.url("missing.gguf"), "no", "--calibration", "none", status=4)
        need("404" in failed.stderr or "no such" in failed.stderr.lower(), failed.stderr)
        failed = novaq("info", server.url("text.txt"), status=1)
        need("text.txt" in failed.stderr, failed.stderr)
    need(not Path("no").exists(), "a failed command left something behind")


def main():
    small = RandomModel([("token_embd.weight", (512, 256))] +
                        [(f"blk.{i}.{kind}.weight", (256, 256) if kind != "norm" else (256,))
                         for i in range(10) for kind in ("attn_q", "ffn_up", "norm")], shards=3)
    before = set(os.listdir("."))
    for test, *arguments in (
        (test_same_as_local,), (test_sharded_same_as_local, small), (test_commands_over_http,),
        (test_json_lines, small), (test_dropped_network, small), (test_target_first, small),
        (test_changed_source,), (test_hub,), (test_registry,), (test_refusals,),
    ):
        start = time.monotonic()
        test(*arguments)
        print(f"{test.__name__}: {time.monotonic() - start:.1f} s", flush=True)
    need(before <= set(os.listdir(".")), "files went missing")
    print("streaming complete")


if __name__ == "__main__":
    main()

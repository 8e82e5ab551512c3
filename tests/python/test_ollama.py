#!/usr/bin/env python3
"""Models of Ollama: a real registry (Debian's docker-registry, where it is installed), a
scripted one for tokens, redirects and lies, and the store on disk.

Usage: test_ollama.py NOVAQ   (NOVAQ_BUILD is used, not the program)
"""

import http.server
import json
import random
import sys
import threading
from pathlib import Path

import hub_mock
import ollama_registry
from probe import FORMAT, NETWORK, UNSUPPORTED, VERIFY, refuse, sha256, succeed

R = random.Random(11)
MODEL = b"GGUF" + R.randbytes(2_500_000)
SPLIT = [b"GGUF" + R.randbytes(70_000), b"GGUF" + R.randbytes(50_000)]
TEMPLATE = b"{{ .System }} {{ .Prompt }}"
PARAMS = b'{"stop": ["</s>"]}'


# ---- the real registry ----------------------------------------------------------

def check_registry():
    registry = ollama_registry.Registry("registry")
    try:
        registry.push("library/tiny", "latest", [
            ("model", MODEL), ("template", TEMPLATE), ("params", PARAMS), ("license", b"free"),
            ("license", b"and more")])
        registry.push("me/split", "Q4_K_M", [("model", SPLIT[0]), ("model", SPLIT[1])])
        registry.push("me/lora", "latest", [("model", SPLIT[0]), ("adapter", SPLIT[1])])
        registry.push("me/empty", "latest", [("template", TEMPLATE)])
        check_pulls(registry.host)
    finally:
        registry.stop()
    refuse(NETWORK, [], f"ollama://{registry.host}/library/tiny", NOVAQ_HTTP_RETRIES="0")


def check_pulls(host):
    r = succeed(f"ollama://{host}/library/tiny", "list", "text", "template", "text", "params",
                "text", "system", "mixed", "model.gguf", "read", "model.gguf", "origin", "received")
    assert r.one("locator") == [f"ollama://{host}/library/tiny:latest"]
    assert r.one("chosen") == ["model.gguf"]
    assert r.all("file") == [
        ["license", "4", sha256(b"free")], ["license-2", "8", sha256(b"and more")],
        ["model.gguf", str(len(MODEL)), sha256(MODEL)],
        ["params", str(len(PARAMS)), sha256(PARAMS)],
        ["template", str(len(TEMPLATE)), sha256(TEMPLATE)]]
    assert r.all("text") == [["template", str(len(TEMPLATE)), sha256(TEMPLATE)],
                             ["params", str(len(PARAMS)), sha256(PARAMS)], ["system", "absent"]]
    assert [x[1:] for x in r.all("read")] == [
        [str(len(MODEL)), sha256(MODEL), "verified", "remote"]] * 2
    assert r.origin["revision"].startswith("sha256:")
    assert r.origin["files"]["model.gguf"]["sha256"] == sha256(MODEL)
    name = "model-00002-of-00002.gguf"
    r = succeed(f"ollama://http://{host}/me/split:Q4_K_M", "list", "read", name)
    assert [f[0] for f in r.all("file")] == ["model-00001-of-00002.gguf", name]
    assert r.one("chosen") == ["model-00001-of-00002.gguf"]
    assert r.one("read")[1:] == [str(len(SPLIT[1])), sha256(SPLIT[1]), "verified", "remote"]
    refuse(UNSUPPORTED, ["adapter"], f"ollama://{host}/me/lora")
    refuse(UNSUPPORTED, ["no model in it"], f"ollama://{host}/me/empty")
    refuse(NETWORK, ["no such model or tag"], f"ollama://{host}/me/split:none")
    refuse(NETWORK, ["no such model or tag"], f"ollama://{host}/me/none")
    refuse(NETWORK, ["no file"], f"ollama://{host}/library/tiny", "read", "system")


# ---- a scripted one -------------------------------------------------------------

class Script(http.server.BaseHTTPRequestHandler):
    """Wants a token for everything, sends blobs from another port. A token is good for
    `uses` requests."""

    protocol_version = "HTTP/1.1"
    manifest, blobs, seen, other, lie, realm = b"", {}, [], None, None, None
    uses, used, given = 0, 0, 0

    def log_message(self, *args):
        pass

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), v)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        cls, port = type(self), self.server.server_address[1]
        token = self.headers.get("Authorization")
        cls.seen.append((port, self.path.split("?")[0], token))
        host = f"http://127.0.0.1:{cls.servers[0].server_address[1]}"
        if port != cls.servers[0].server_address[1]:
            return self.send_blob(self.path.rsplit("/", 1)[1])
        if self.path.startswith("/token"):
            if "scope=repository%3Ame%2Fprivate%3Apull" in self.path:
                return self.reply(401, b"{}")
            assert "service=registry" in self.path, self.path
            cls.used, cls.given = 0, cls.given + 1
            return self.reply(200, b'{"token": "for-anybody-%d"}' % cls.given)
        cls.used += 1
        if token != f"Bearer for-anybody-{cls.given}" or (cls.uses and cls.used > cls.uses):
            name = "/".join(self.path.split("/")[2:4])
            realm = cls.realm or f"{host}/token"
            return self.reply(401, b"{}", WWW_Authenticate=(
                f'Bearer realm="{realm}",service="registry",scope="repository:{name}:pull"'))
        if "/manifests/" in self.path:
            digest = cls.lie or "sha256:" + sha256(cls.manifest)
            return self.reply(200, cls.manifest, Docker_Content_Digest=digest)
        digest = self.path.rsplit("/", 1)[1]
        link = f"http://localhost:{cls.servers[1].server_address[1]}/data/{digest}"
        return self.reply(307, Location=link)

    def send_blob(self, digest):
        data = self.blobs.get(digest)
        if data is None:
            return self.reply(404)
        first, last = 0, len(data) - 1
        wanted = self.headers.get("Range")
        if wanted:
            first, last = (int(x) for x in wanted.removeprefix("bytes=").split("-"))
        part = data[first:last + 1]
        headers = {"Content_Range": f"bytes {first}-{last}/{len(data)}"} if wanted else {}
        return self.reply(206 if wanted else 200, part, ETag='"x"', **headers)


def layer(kind, data):
    return {"mediaType": ollama_registry.KIND + kind, "digest": "sha256:" + sha256(data),
            "size": len(data)}


def check_script():
    servers = [hub_mock.Server(("127.0.0.1", 0), Script) for _ in range(2)]
    for s in servers:
        threading.Thread(target=s.serve_forever, args=(0.02,), daemon=True).start()
    Script.servers = servers
    Script.manifest = json.dumps({"schemaVersion": 2, "layers": [
        layer("model", MODEL), layer("params", PARAMS)]}).encode()
    Script.blobs = {"sha256:" + sha256(d): d for d in (MODEL, PARAMS)}
    host = f"127.0.0.1:{servers[0].server_address[1]}"
    r = succeed(f"ollama://{host}/me/mine", "read", "model.gguf", "text", "params")
    assert r.one("read")[1:] == [str(len(MODEL)), sha256(MODEL), "verified", "remote"]
    assert r.one("text")[2] == sha256(PARAMS)
    # The token stays with the one who gave it; nothing is sent with the request for it.
    first = servers[0].server_address[1]
    assert any(port == first and token for port, _, token in Script.seen)
    assert all(token is None for port, path, token in Script.seen
               if port != first or path == "/token")
    # A token that has expired is replaced: each of these reads asks for something.
    Script.uses, Script.given = 1, 0
    r = succeed(f"ollama://{host}/me/mine", "mixed", "model.gguf", "text", "params", "read",
                "model.gguf")
    assert [x[3] for x in r.all("read")] == ["verified", "verified"]
    assert r.one("text")[2] == sha256(PARAMS) and Script.given >= 3, Script.given
    Script.uses = 0
    refuse(NETWORK, ["private", "ollama pull"], f"ollama://{host}/me/private")
    Script.lie = "sha256:" + "0" * 64
    refuse(VERIFY, ["not the one announced"], f"ollama://{host}/me/mine")
    Script.lie = None
    digest = "sha256:" + sha256(MODEL)
    Script.blobs[digest] = MODEL[:1000] + b"?" + MODEL[1001:]
    refuse(VERIFY, ["SHA-256", "other content"], f"ollama://{host}/me/mine", "read", "model.gguf")
    Script.blobs["sha256:" + sha256(PARAMS)] = PARAMS[:-1] + b"!"
    refuse(VERIFY, ["params"], f"ollama://{host}/me/mine", "text", "params")
    Script.blobs["sha256:" + sha256(PARAMS)] = PARAMS + b"!"
    refuse(VERIFY, ["params"], f"ollama://{host}/me/mine", "text", "params")
    for realm in ("ftp://x/token", "file:///etc/passwd", "http://u:p@x/", "nonsense"):
        Script.realm = realm
        refuse(NETWORK, ["private"], f"ollama://{host}/me/mine")
    Script.realm = None
    for text in (b"", b"[]", b"<html>", b'{"schemaVersion": 2, "layers": 3}', b"{" * 100000):
        Script.manifest = text
        refuse(FORMAT, [], f"ollama://{host}/me/mine")
    check_incomplete_store(host)
    for s in servers:
        s.shutdown()
        s.server_close()


# ---- the store on disk ----------------------------------------------------------

def make_store(folder, host, blobs):
    manifest = json.dumps({"schemaVersion": 2, "layers": [
        layer("model", MODEL), layer("params", PARAMS)]}).encode()
    path = Path(folder) / "manifests" / host / "me" / "mine" / "latest"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(manifest)
    (Path(folder) / "blobs").mkdir(exist_ok=True)
    for data in blobs:
        (Path(folder) / "blobs" / ("sha256-" + sha256(data))).write_bytes(data)
    return manifest


def check_incomplete_store(host):
    """What the store lacks comes from the registry, with the digests of the store."""
    Script.manifest = make_store("store", host, [PARAMS])
    Script.blobs = {"sha256:" + sha256(d): d for d in (MODEL, PARAMS)}
    folder = str(Path("store").resolve())
    Script.seen.clear()
    r = succeed(f"ollama://{host}/me/mine", "text", "params", OLLAMA_MODELS=folder)
    assert r.one("text")[2] == sha256(PARAMS) and Script.seen == []
    r = succeed(f"ollama://{host}/me/mine", "read", "model.gguf", "received", OLLAMA_MODELS=folder)
    assert r.one("read")[1:] == [str(len(MODEL)), sha256(MODEL), "verified", "remote"]
    make_store("store", host, [MODEL])
    Script.seen.clear()
    r = succeed(f"ollama://{host}/me/mine", "read", "model.gguf", "received", OLLAMA_MODELS=folder)
    assert r.one("read")[3:] == ["verified", "local"] and r.one("received") == ["0"]
    assert Script.seen == []
    blob = Path("store/blobs") / ("sha256-" + sha256(MODEL))
    blob.write_bytes(MODEL[:-1] + b"?")
    refuse(VERIFY, ["damaged"], f"ollama://{host}/me/mine", "read", "model.gguf",
           OLLAMA_MODELS=folder)
    # Nobody to complete it.
    blob.unlink()
    make_store("store", "127.0.0.1:1", [])
    refuse(NETWORK, ["incomplete", "ollama pull"], "ollama://127.0.0.1:1/me/mine", "read",
           "model.gguf", OLLAMA_MODELS=folder, NOVAQ_HTTP_RETRIES="0")


def main():
    check_script()
    if ollama_registry.program() is None:
        print("skipped: no docker-registry (tools/deps.sh --test installs it)")
        return 77
    check_registry()
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""A registry as Ollama's, for tests: Debian's docker-registry, loaded with models.

    ollama_registry.py --root DIR [--port 0] [--model [NS/]NAME[:TAG]=FILE.gguf]...

The first line it prints is its host ("127.0.0.1:PORT"); the models are then to be had as
ollama://127.0.0.1:PORT/NS/NAME:TAG. It runs until it is killed. DIR (any empty folder)
keeps the registry's files. Standard library only; exits with 77 where there is no
docker-registry.
"""

import argparse
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

KIND = "application/vnd.ollama.image."
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = """\
version: 0.1
log:
  level: error
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: {root}
http:
  addr: 127.0.0.1:{port}
"""


def program():
    return shutil.which("docker-registry") or shutil.which("registry")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Registry:
    """A running docker-registry whose files are under root."""

    def __init__(self, root, port=0):
        self.root = Path(root).resolve()
        for _ in range(5):  # somebody else may take a free port first
            self.port = port or free_port()
            self.host = f"127.0.0.1:{self.port}"
            if self.start():
                return
            if port:
                break
        raise RuntimeError("docker-registry does not start: " + (self.root / "log").read_text())

    def start(self):
        config = self.root / "config.yml"
        self.root.mkdir(parents=True, exist_ok=True)
        config.write_text(CONFIG.format(root=self.root / "data", port=self.port))
        self.log = open(self.root / "log", "wb")
        self.process = subprocess.Popen([program(), "serve", config], stdout=self.log,
                                        stderr=self.log, env={**os.environ, "OTEL_TRACES_EXPORTER": "none"})
        for _ in range(1200):
            time.sleep(0.05)
            if self.process.poll() is not None:
                break
            try:
                if self.request("GET", "/v2/")[0] == 200 and self.process.poll() is None:
                    return True
            except OSError:
                pass
        self.stop()
        return False

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
        self.log.close()

    def request(self, method, path, body=None, headers=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            c.request(method, path, body, headers or {})
            r = c.getresponse()
            return r.status, dict((k.lower(), v) for k, v in r.getheaders()), r.read()
        finally:
            c.close()

    def push_blob(self, name, data):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        status, headers, _ = self.request("POST", f"/v2/{name}/blobs/uploads/")
        assert status == 202, status
        place = urllib.parse.urlsplit(headers["location"])
        query = place.query + ("&" if place.query else "") + "digest=" + digest
        status, _, body = self.request("PUT", f"{place.path}?{query}", data,
                                       {"Content-Type": "application/octet-stream"})
        assert status == 201, (status, body)
        return digest

    def push(self, name, tag, layers):
        """layers: (kind, bytes); kind as in "model", "template". Returns the digests."""
        described = []
        for kind, data in layers:
            described.append({"mediaType": KIND + kind, "digest": self.push_blob(name, data),
                              "size": len(data)})
        config = json.dumps({"model_format": "gguf", "model_family": "llama", "os": "linux",
                             "architecture": "amd64", "rootfs": {"type": "layers"}}).encode()
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json",
                       "digest": self.push_blob(name, config), "size": len(config)},
            "layers": described,
        }
        status, _, body = self.request("PUT", f"/v2/{name}/manifests/{tag}",
                                       json.dumps(manifest).encode(), {"Content-Type": MANIFEST})
        assert status == 201, (status, body)
        return [d["digest"] for d in described]


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    p.add_argument("--root", required=True, help="folder for the registry's files")
    p.add_argument("--port", type=int, default=0)
    p.add_argument("--model", action="append", default=[], help="[NS/]NAME[:TAG]=FILE.gguf")
    options = p.parse_args()
    if program() is None:
        print("skipped: no docker-registry (a package of Debian)")
        return 77
    registry = Registry(options.root, options.port)
    try:
        for model in options.model:
            name, path = model.split("=", 1)
            name, _, tag = name.partition(":")
            name = name if "/" in name else "library/" + name
            registry.push(name, tag or "latest", [
                ("model", Path(path).read_bytes()), ("template", b"{{ .Prompt }}"),
                ("params", b'{"stop":["<|im_end|>"]}'), ("license", b"see the model card\n")])
        print(registry.host, flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        registry.process.wait()
    except KeyboardInterrupt:
        pass
    finally:
        registry.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())

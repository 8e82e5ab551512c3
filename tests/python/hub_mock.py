#!/usr/bin/env python3
"""A Hugging Face Hub on this machine, for tests. Standard library only.

    hub_mock.py --root DIR [--port 0] [--log FILE] [--page N] [--rate-limit N] ...

The first line it prints is its address (the value for HF_ENDPOINT); it serves until it is
killed. DIR/ORG/NAME/ (or DIR/NAME/) holds the files of a model at its branch main,
DIR/ORG/NAME@REV/ those at another branch or tag (REV percent-encoded). A file .hub.json
there may say {"gated": true}, {"private": true} or {"disabled": true}.

Answers as the Hub does: files in git are had by a 307 to a relative address, large files
(.safetensors, .gguf, .bin, .onnx, .pt, or of 4096 bytes and more) by a 302 to signed links
of another port, which expire; lists come in pages; refusals carry X-Error-Code. Its
faithfulness is checked by driving the real huggingface_hub client with it
(test_hub.py).
"""

import argparse
import hashlib
import hmac
import json
import re
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LARGE = {".safetensors", ".gguf", ".bin", ".onnx", ".pt", ".pth"}
LARGE_BYTES = 4096
SIGNING_KEY = b"no secret"


class Refusal(Exception):
    def __init__(self, status, code=None, message="", headers=None):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = headers or {}


class Entry:
    """One file: its size, its git object id, its SHA-256 if it is a large one."""

    def __init__(self, path, name):
        self.path, self.name = path, name
        self.size = path.stat().st_size
        self.large = path.suffix in LARGE or self.size >= LARGE_BYTES
        sha1 = hashlib.sha1(b"blob %d\0" % self.size)
        sha256 = hashlib.sha256()
        with path.open("rb") as f:
            while block := f.read(1 << 20):
                sha1.update(block)
                sha256.update(block)
        self.oid, self.sha256 = sha1.hexdigest(), sha256.hexdigest()

    @property
    def etag(self):
        return self.sha256 if self.large else self.oid

    def listed(self):
        entry = {"type": "file", "oid": self.oid, "size": self.size, "path": self.name}
        if self.large:
            entry["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": 134}
        return entry


class Snapshot:
    """The files of a model at one revision."""

    def __init__(self, folder):
        names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        self.entries = {n: Entry(folder / n, n) for n in names if n != ".hub.json"}
        rules = folder / ".hub.json"
        self.rules = json.loads(rules.read_text()) if rules.exists() else {}
        state = json.dumps([[e.name, e.oid] for e in self.entries.values()])
        self.commit = hashlib.sha1(state.encode()).hexdigest()

    def tree(self, recursive):
        if not recursive:
            return [e.listed() for e in self.entries.values() if "/" not in e.name]
        folders = {str(Path(n).parent) for n in self.entries if "/" in n}
        listed = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": f} for f in folders]
        return sorted(listed + [e.listed() for e in self.entries.values()], key=lambda e: e["path"])


class Hub:
    """What both servers share."""

    def __init__(self, options):
        self.options = options
        self.root = Path(options.root)
        self.lock = threading.Lock()
        self.snapshots = {}  # folder: (state of its files, Snapshot)
        self.limited = options.rate_limit
        self.log = open(options.log, "a", buffering=1) if options.log else None
        self.cdn = None  # address of the second server
        self.served = {}  # link: bytes

    def folder(self, repo, revision):
        name = urllib.parse.quote(revision, safe="")
        return self.root / (repo if revision == "main" else f"{repo}@{name}")

    def snapshot(self, folder):
        state = [(str(p), p.stat().st_mtime_ns, p.stat().st_size)
                 for p in sorted(folder.rglob("*")) if p.is_file()]
        with self.lock:
            if self.snapshots.get(folder, (None,))[0] != state:
                self.snapshots[folder] = (state, Snapshot(folder))
            return self.snapshots[folder][1]

    def find(self, repo, revision, token):
        """The snapshot of a branch, tag or commit."""
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo) or not self.folder(repo, "main").is_dir():
            # The Hub does not tell strangers what exists.
            if token is None:
                raise Refusal(401, "RepoNotFound", "Repository not found")
            raise Refusal(404, "RepoNotFound", "Repository not found")
        if token is not None and token != self.options.token:
            raise Refusal(401, None, "Invalid credentials in Authorization header")
        main = self.snapshot(self.folder(repo, "main"))
        if main.rules.get("private") and token is None:
            raise Refusal(401, "RepoNotFound", "Repository not found")
        if main.rules.get("disabled"):
            raise Refusal(403, None, "Access to this resource is disabled.")
        base = self.folder(repo, "main")
        for folder in [base, *base.parent.glob(base.name + "@*")]:
            snapshot = self.snapshot(folder)
            named = "main" if folder == base else urllib.parse.unquote(folder.name.split("@", 1)[1])
            if revision == named or (len(revision) >= 7 and snapshot.commit.startswith(revision)):
                return snapshot, main.rules
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def may_read(self, repo, rules, token):
        if not rules.get("gated"):
            return
        page = f"{self.options.address}/{repo}"
        if token is None:
            raise Refusal(401, "GatedRepo", f"Access to model {repo} is restricted. You must have "
                          "access to it and be authenticated to access it. Please log in.")
        if not rules.get("granted"):
            raise Refusal(403, "GatedRepo", f"Access to model {repo} is restricted and you are "
                          f"not in the authorized list. Visit {page} to ask for access.")

    def sign(self, path, until):
        text = f"{path}\n{until}".encode()
        return hmac.new(SIGNING_KEY, text, hashlib.sha256).hexdigest()

    def signed_link(self, path):
        until = f"{time.time() + self.options.expire:.3f}.{time.monotonic_ns()}"
        quoted = urllib.parse.quote(str(path.relative_to(self.root)))
        return f"{self.cdn}/{quoted}?Expires={until}&Signature={self.sign(path, until)}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each small answer waits for an acknowledgement
    hub = None  # set by serve()

    def log_message(self, *args):
        pass

    def record(self, status):
        if self.hub.log is None:
            return
        wanted = ("Authorization", "Range", "If-Range", "User-Agent", "Accept-Encoding")
        self.hub.log.write(json.dumps({
            "port": self.server.server_address[1], "method": self.command, "path": self.path,
            "status": status, "headers": {k: self.headers[k] for k in wanted if self.headers[k]},
        }) + "\n")

    def reply(self, status, headers, body=b""):
        self.record(status)
        self.send_response(status)
        for name, values in headers.items():
            for value in values if isinstance(values, list) else [values]:
                self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        try:
            self.answer()
        except Refusal as r:
            headers = {"Content-Type": "application/json", **r.headers}
            if r.code:
                headers["X-Error-Code"] = r.code
            if r.message:
                headers["X-Error-Message"] = r.message
            self.reply(r.status, headers, json.dumps({"error": r.message}).encode())
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    # ---- sending a file, whole or a range of it

    def requested(self, size, etag):
        """(first, last + 1, is a range)."""
        m = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if_range = self.headers.get("If-Range")
        if not m or (if_range is not None and if_range != f'"{etag}"'):
            return 0, size, False
        if m[1] == "":
            first, end = max(0, size - int(m[2])), size
        else:
            first, end = int(m[1]), min(size, int(m[2]) + 1) if m[2] else size
        if first >= end:
            raise Refusal(416, None, "", {"Content-Range": f"bytes */{size}"})
        return first, end, True

    def send_file(self, path, etag, headers):
        size = path.stat().st_size
        first, end, partial = self.requested(size, etag)
        headers = {"ETag": f'"{etag}"', "Accept-Ranges": "bytes",
                   "Content-Type": "application/octet-stream", **headers,
                   "Content-Length": str(end - first)}
        if partial:
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
        self.reply(206 if partial else 200, headers)
        if self.command == "HEAD":
            return
        rate = self.hub.options.rate
        with path.open("rb") as f:
            f.seek(first)
            while first < end:
                block = f.read(min(65536, end - first))
                if not block:
                    self.close_connection = True
                    return
                self.wfile.write(block)
                first += len(block)
                if rate:
                    time.sleep(len(block) / rate)


class HubHandler(Handler):
    def token(self):
        value = self.headers.get("Authorization")
        return None if value is None else value.removeprefix("Bearer ")

    def answer(self):
        with self.hub.lock:
            limited = self.hub.limited > 0 and self.hub.options.rate_limit_path in self.path
            self.hub.limited -= limited
        if limited:
            raise Refusal(429, None, "We had to rate limit you", {
                "Retry-After": "1", "RateLimit": '"resolvers";r=0;t=0',
                "RateLimit-Policy": '"fixed window";"resolvers";q=3000;w=300'})
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        for pattern, method in (
            (r"/api/models/(.+)/revision/([^/]+)", self.answer_revision),
            (r"/api/models/(.+)/tree/([^/]+)(?:/.*)?", self.answer_tree),
            (r"/api/models/([^/]+(?:/[^/]+)?)", self.answer_model),
            (r"/api/resolve-cache/models/(.+)/([0-9a-f]{40})/(.+)", self.answer_cached),
            (r"/(.+?)/resolve/([^/]+)/(.+)", self.answer_resolve),
        ):
            m = re.fullmatch(pattern, url.path)
            if m:
                return method(query, *map(urllib.parse.unquote, m.groups()))
        raise Refusal(404, None, "Not found")

    def json(self, value, headers=None):
        self.reply(200, {"Content-Type": "application/json; charset=utf-8", **(headers or {})},
                   json.dumps(value).encode())

    def answer_model(self, query, repo):
        self.answer_revision(query, repo, "main")

    def answer_revision(self, query, repo, revision):
        snapshot, rules = self.hub.find(repo, revision, self.token())
        self.json({
            "_id": "0" * 24, "id": repo, "modelId": repo, "sha": snapshot.commit,
            "private": bool(rules.get("private")), "gated": "manual" if rules.get("gated") else False,
            "disabled": False, "downloads": 0, "likes": 0, "tags": [],
            "siblings": [{"rfilename": n} for n in snapshot.entries],
        })

    def answer_tree(self, query, repo, revision):
        snapshot, _ = self.hub.find(repo, revision, self.token())
        recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
        entries = snapshot.tree(recursive)
        size = self.hub.options.page
        start = int(query.get("cursor", ["0"])[0])
        headers = {}
        if start + size < len(entries):
            more = urllib.parse.urlencode({"recursive": str(recursive).lower(), "limit": size,
                                           "cursor": start + size})
            address = self.hub.options.link_host or self.hub.options.address
            path = f"/api/models/{repo}/tree/{urllib.parse.quote(revision, safe='')}"
            first = f'<{address}{path}?recursive={str(recursive).lower()}>; rel="first"'
            # As gateways do, in lines of their own, and the one that matters not first.
            headers["Link"] = ["<https://example.org/terms>; rel=license", first,
                               f'<{address}{path}?{more}>; rel="next"']
        self.json(entries[start:start + size], headers)

    def entry(self, repo, revision, name):
        snapshot, rules = self.hub.find(repo, revision, self.token())
        self.hub.may_read(repo, rules, self.token())
        if name not in snapshot.entries:
            raise Refusal(404, "EntryNotFound", "Entry not found",
                          {"X-Repo-Commit": snapshot.commit})
        return snapshot, snapshot.entries[name]

    def answer_resolve(self, query, repo, revision, name):
        snapshot, entry = self.entry(repo, revision, name)
        headers = {"X-Repo-Commit": snapshot.commit, "Accept-Ranges": "bytes"}
        if entry.large:
            headers["X-Linked-Size"] = str(entry.size)
            headers["X-Linked-Etag"] = f'"{entry.sha256}"'
            headers["Location"] = self.hub.signed_link(entry.path)
            self.reply(302, headers, b"Found. Redirecting")
        else:
            path = urllib.parse.quote(f"/api/resolve-cache/models/{repo}/{snapshot.commit}/{name}")
            headers["Location"] = path
            self.reply(307, headers, b"Temporary Redirect. Redirecting")

    def answer_cached(self, query, repo, revision, name):
        snapshot, entry = self.entry(repo, revision, name)
        self.send_file(entry.path, entry.oid, {"X-Repo-Commit": snapshot.commit})


class LinkHandler(Handler):
    """The other port: only signed links, no tokens."""

    def answer(self):
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        path = self.hub.root / urllib.parse.unquote(url.path.lstrip("/"))
        until = query.get("Expires", [""])[0]
        signature = query.get("Signature", [""])[0]
        if not hmac.compare_digest(signature, self.hub.sign(path, until)):
            raise Refusal(403, None, "SignatureDoesNotMatch")
        limit = self.hub.options.link_requests
        with self.hub.lock:
            used = self.hub.served[self.path] = self.hub.served.get(self.path, 0) + 1
        if time.time() > float(until.rsplit(".", 1)[0]) or (limit and used > limit):
            raise Refusal(403, None, "Request has expired")
        # Its ETag is neither the SHA-256 nor git's, as at the real one.
        stat = path.stat()
        etag = hashlib.sha256(f"{path} {stat.st_mtime_ns} {stat.st_size}".encode()).hexdigest()
        self.send_file(path, etag, {})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def serve(options):
    """Starts both servers; returns the Hub and the servers."""
    hub = Hub(options)
    servers = []
    for base, port in ((HubHandler, options.port), (LinkHandler, 0)):
        handler = type("Bound" + base.__name__, (base,), {"hub": hub})
        server = Server((options.host, port), handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
    options.address = f"http://{options.host}:{servers[0].server_address[1]}"
    hub.cdn = f"http://{options.link_name}:{servers[1].server_address[1]}"
    return hub, servers


def parser():
    p = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    p.add_argument("--root", required=True, help="folder of the models")
    p.add_argument("--host", default="127.0.0.1")
    p.add_argument("--port", type=int, default=0)
    p.add_argument("--log", help="a JSON line for each request")
    p.add_argument("--page", type=int, default=1000, help="files on a page of the list")
    p.add_argument("--link-host", help="address that the links to further pages name instead")
    p.add_argument("--link-name", default="localhost", help="host name of the signed links")
    p.add_argument("--rate-limit", type=int, default=0, help="429 to the first N requests")
    p.add_argument("--rate-limit-path", default="", help="... that have this in their path")
    p.add_argument("--expire", type=float, default=3600, help="seconds a signed link is good for")
    p.add_argument("--link-requests", type=int, default=0, help="requests it is good for")
    p.add_argument("--rate", type=float, default=0, help="bytes per second of each transfer")
    p.add_argument("--token", default="hf_right", help="the one that is accepted")
    return p


def main():
    options = parser().parse_args()
    hub, servers = serve(options)
    print(options.address, flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    for server in servers:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

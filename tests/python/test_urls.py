#!/usr/bin/env python3
"""Files behind plain web addresses: the query stays with the file that was named, files
beside it are found by name, and what a server cannot do is said.

Usage: test_urls.py NOVAQ   (NOVAQ_BUILD is used, not the program)
"""

import http.server
import random
import re
import sys
import threading
import urllib.parse

from hub_mock import Server as QuietServer
from probe import ARG, FORMAT, NETWORK, refuse, sha256, succeed

R = random.Random(5)
DATE = "Tue, 01 Jul 2025 00:00:00 GMT"
FILES = {
    "/m/model one.gguf": b"GGUF" + R.randbytes(1_200_000),
    "/m/config.json": b'{"a": 1}',
    "/m/sub/part%.bin": R.randbytes(1000),
    "/top.gguf": b"GGUF" + R.randbytes(100),
}


class Server(http.server.BaseHTTPRequestHandler):
    """Ranges, ETags; modes by the first folder: /signed (the query must be ?sig=right, as
    stores of signed links want it, without one 403), /nohead (405), /broken (500),
    /norange (200 to everything), /dated (no ETag but a date), /shaky
    (500 to HEAD), /bucket (403 to what is not there), /picky (406 to it, and to HEAD)."""

    protocol_version = "HTTP/1.1"
    seen = []

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def reply(self, status, body=b"", headers=()):
        self.send_response(status)
        for k, v in headers:
            self.send_header(k, v)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        type(self).seen.append((self.command, self.path))
        path = urllib.parse.unquote(url.path)
        mode = re.match(r"/(signed|nohead|broken|norange|dated|shaky|bucket|picky)(?=/)", path)
        mode = mode[1] if mode else ""
        data = FILES.get(path[len(mode) + 1:] if mode else path)
        if mode == "broken":
            return self.reply(500)
        if mode in ("nohead", "shaky") and self.command == "HEAD":
            return self.reply(405 if mode == "nohead" else 500)
        if mode in ("bucket", "picky") and data is None:
            return self.reply(403 if mode == "bucket" else 406, b"x" * 3_000_000)
        if mode == "signed" and url.query != "sig=right&x=%2F":
            return self.reply(403, b"AccessDenied" * 1000)
        if data is None:
            return self.reply(404, b"<html>no</html>" * 200_000)
        etag = ("ETag", f'"{sha256(data)[:8]}"')
        if mode == "dated":
            etag = ("Last-Modified", DATE)
        m = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not m or mode == "norange":
            return self.reply(200, data, [etag])
        first = int(m[1])
        last = min(int(m[2] or len(data)), len(data) - 1)
        span = ("Content-Range", f"bytes {first}-{last}/{len(data)}")
        return self.reply(206, data[first:last + 1], [etag, span])


def main():
    server = QuietServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    base = f"http://127.0.0.1:{server.server_address[1]}"
    model = FILES["/m/model one.gguf"]

    for prefix, query in (("", ""), ("", "?download=true#part"), ("/signed", "?sig=right&x=%2F"),
                          ("/nohead", ""), ("/shaky", ""), ("/bucket", ""), ("/picky", "")):
        r = succeed(f"{base}{prefix}/m/model%20one.gguf{query}", "read", "model one.gguf", "mixed",
                    "model one.gguf", "text", "config.json", "text", "none.json", "has",
                    "model one.gguf", "has", "config.json", "has", "none.json", "origin")
        assert r.one("locator") == [f"{base}{prefix}/m/model%20one.gguf"]
        assert r.one("chosen") == ["model", "one.gguf"]
        for read in r.all("read"):
            assert read[2:] == [str(len(model)), sha256(model), "unverified", "remote"], read
        beside = prefix != "/signed"
        assert r.all("text")[1] == ["none.json", "absent"]
        assert (r.all("text")[0][-1] != "absent") == beside
        assert [h[-1] for h in r.all("has")] == ["yes", "yes" if beside else "no", "no"]
        assert r.origin["files"] == {
            "model one.gguf": {"size": len(model), "etag": f'"{sha256(model)[:8]}"'}}, r.origin
        assert "sig=" not in str(r.origin) + str(r.lines)
    # Secrets of one link are not sent along with requests for other files.
    assert all("sig=" not in path for _, path in Server.seen if "config.json" in path)

    # Without an ETag the date and the address tell one content from another.
    known = []
    for query in ("", "?id=1", "?id=2", "?id=2#part"):
        r = succeed(f"{base}/dated/m/config.json{query}", "head", "config.json", "origin")
        known.append(r.origin["files"]["config.json"])
        assert known[-1]["modified"] == DATE and "etag" not in known[-1], known
        assert "id=" not in str(r.origin)
    assert "query_blake3" not in known[0] and len(known[1]["query_blake3"]) == 16
    assert known[1] != known[2] == known[3], known

    r = succeed(f"{base}/m/", "has", "config.json", "text", "sub/part%.bin", "read", "sub/part%.bin")
    assert r.one("chosen") == ["-"] and r.one("has") == ["config.json", "yes"]
    assert r.one("text")[2] == r.one("read")[2] == sha256(FILES["/m/sub/part%.bin"])
    r = succeed(f"{base}/top.gguf", "read", "top.gguf", "has", "none")
    assert r.one("read")[2] == sha256(FILES["/top.gguf"])
    r = succeed(f"{base}", "read", "top.gguf")
    assert r.one("read")[2] == sha256(FILES["/top.gguf"])

    refuse(NETWORK, ["404"], f"{base}/m/none.gguf", "read", "none.gguf")
    refuse(NETWORK, ["403", "get a new link"], f"{base}/bucket/none.gguf", "read", "none.gguf")
    refuse(NETWORK, ["403"], f"{base}/bucket/none.gguf", "text", "none.gguf")
    few = {"NOVAQ_HTTP_RETRIES": "0"}
    refuse(NETWORK, ["500"], f"{base}/broken/x", "text", "y", **few)
    refuse(NETWORK, ["500"], f"{base}/broken/x", "has", "y", **few)
    refuse(NETWORK, [], f"{base}/broken/x", "read", "x", **few)
    refuse(FORMAT, ["inside"], f"{base}/m/x", "read", "../top.gguf")
    refuse(ARG, ["password"], base.replace("://", "://me:secret@") + "/m/config.json")
    r = refuse(5, [], f"{base}/norange/m/model%20one.gguf", "head", "model one.gguf")
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())

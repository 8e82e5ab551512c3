#!/usr/bin/env python3
"""A small HTTP server for measurements and tests: range requests, a link of a given speed
shared by all connections, files that are made while they are read. Standard library only.

    from range_server import Server, Folder
    with Server(Folder(path), rate=20e6) as server:
        server.url("model.safetensors")

As a program: range_server.py FOLDER [--port N] [--rate BYTES/S]; prints its address.
"""

import argparse
import hashlib
import json
import re
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PIECE = 1 << 16


class Folder:
    """Files below a folder, by their path."""

    def __init__(self, path):
        self.path = Path(path)

    def find(self, name):
        """(size, read(offset, length), tag), or None."""
        path = self.path / name
        if ".." in Path(name).parts or not path.is_file():
            return None

        def read(offset, length):
            with open(path, "rb") as f:
                f.seek(offset)
                return f.read(length)

        info = path.stat()
        return info.st_size, read, f"{info.st_size:x}-{info.st_mtime_ns:x}"


class RandomModel:
    """A SafeTensors model in shards whose weights are the same pseudo-random bfloat16
    block again and again, begun elsewhere in each tensor: nothing of it is stored."""

    BLOCK = 1 << 22

    def __init__(self, tensors, shards=4):
        """tensors: [(name, shape)]."""
        text = b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(self.BLOCK // 32))
        # High bytes of moderate floats of either sign, low bytes as they come.
        table = bytes((0x3B, 0x3C, 0xBB, 0xBC)[i & 3] for i in range(256))
        block = bytearray(text)
        block[1::2] = text[1::2].translate(table)
        self.block = bytes(block)
        self.files = {}
        self.largest = max(self.bytes_of(shape) for _, shape in tensors)
        self.total = sum(self.bytes_of(shape) for _, shape in tensors)
        weight_map, at, shard = {}, 0, []
        groups = []
        for name, shape in tensors:
            shard.append((name, shape))
            at += self.bytes_of(shape)
            if at >= self.total * (len(groups) + 1) / shards:
                groups.append(shard)
                shard = []
        groups += [shard] if shard else []
        for i, group in enumerate(groups):
            file = f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors"
            self.files[file] = self.header(group)
            weight_map.update({name: file for name, _ in group})
        index = {"metadata": {"total_size": self.total}, "weight_map": weight_map}
        self.files["model.safetensors.index.json"] = (json.dumps(index).encode(), 0)

    @staticmethod
    def bytes_of(shape):
        n = 2
        for d in shape:
            n *= d
        return n

    def header(self, group):
        entries, at = {}, 0
        for name, shape in group:
            n = self.bytes_of(shape)
            entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + n]}
            at += n
        text = json.dumps(entries).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text, at

    def find(self, name):
        if name not in self.files:
            return None
        head, data = self.files[name]
        shift = sum(name.encode()) * 2

        def read(offset, length):
            out = head[offset:offset + length]
            at = max(offset, len(head)) - len(head)
            while len(out) < length:
                begin = (at + shift) % self.BLOCK
                piece = self.block[begin:begin + length - len(out)]
                out += piece
                at += len(piece)
            return out

        return len(head) + data, read, f"random-{len(head) + data:x}"

    def write(self, folder):
        """The same as files."""
        for name in self.files:
            size, read, _ = self.find(name)
            with open(Path(folder) / name, "wb") as f:
                for at in range(0, size, self.BLOCK):
                    f.write(read(at, min(self.BLOCK, size - at)))


class Link:
    """At most rate bytes per second, whoever sends them; None: no limit. budget: after
    so many bytes every connection breaks, as when a cable is pulled; None: never."""

    def __init__(self, rate=None, budget=None):
        self.rate, self.budget, self.sent = rate, budget, 0
        self.lock, self.free_at = threading.Lock(), 0.0

    def take(self, n):
        """Waits until n bytes may go; how many may."""
        with self.lock:
            if self.budget is not None:
                n = min(n, max(0, self.budget - self.sent))
            self.sent += n
            if not self.rate:
                return n
            now = time.monotonic()
            # Up to a tenth of a second of silence is made good, as buffers do.
            self.free_at = max(self.free_at, now - 0.1) + n / self.rate
            wait = self.free_at - now
        if wait > 0:
            time.sleep(wait)
        return n


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each small answer waits for an acknowledgement

    def log_message(self, *args):
        pass

    def range_of(self, size, tag):
        """(first, last + 1, status); None where it cannot be satisfied."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not wanted or self.headers.get("If-Range", tag) != tag:
            return 0, size, 200
        first = int(wanted[1])
        end = min(int(wanted[2]) + 1, size) if wanted[2] else size
        return (first, end, 206) if first < end else None

    def do_GET(self, body=True):
        server = self.server
        name = self.path.split("?")[0].lstrip("/")
        server.requests.append((self.command, name, self.headers.get("Range")))
        found = server.place.find(name)
        if found is None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size, read, tag = found[0], found[1], f'"{found[2]}"'
        part = self.range_of(size, tag)
        if part is None:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first, end, status = part
        self.send_response(status)
        self.send_header("Content-Length", str(end - first))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", tag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
        self.end_headers()
        at = first if body else end
        while at < end:
            n = min(PIECE, end - at)
            may = server.link.take(n)
            try:
                self.wfile.write(read(at, may))
            except OSError:
                break
            if may < n:
                self.close_connection = True
                return
            at += n

    def do_HEAD(self):
        self.do_GET(body=False)


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Whoever hangs up may."""


class Server:
    def __init__(self, place, rate=None, budget=None, port=0):
        self.http = Quiet(("127.0.0.1", port), Handler)
        self.http.place, self.http.link, self.http.requests = place, Link(rate, budget), []
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True)

    @property
    def link(self):
        return self.http.link

    @property
    def requests(self):
        return self.http.requests

    def url(self, name=""):
        return f"http://127.0.0.1:{self.http.server_address[1]}/{name}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *unused):
        self.http.shutdown()
        self.http.server_close()


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    p.add_argument("--port", type=int, default=0)
    p.add_argument("--rate", type=float, help="bytes per second, all connections together")
    args = p.parse_args()
    with Server(Folder(args.folder), args.rate, port=args.port) as server:
        print(server.url(), flush=True)
        try:
            server.thread.join()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()

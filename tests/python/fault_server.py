#!/usr/bin/env python3
"""A scripted HTTP server that misbehaves on request; the standard library is all it needs.

Usage: fault_server.py [FOLDER]   (FOLDER: for the certificate of the TLS port)

Prints one line, "PLAIN OTHER TLS CLOSED": the ports of two plain listeners, a TLS one (0
where openssl is missing) and one where nobody listens. It ends when its standard input
does. The first part of a path names what happens (functions do_NAME below), the rest is
free: each whole path has its own count of requests. /log/PATH tells what was asked of
/PATH: a line "connections N", then per request its method, range, If-Range and
credentials.

Content: byte i of a file is (i * 131 + (i >> 8) * 31) mod 256.
"""
import collections
import gzip
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from email.utils import formatdate

SIZE = 1_000_000
ETAG = '"version-1"'
lock = threading.Lock()
requests = collections.defaultdict(list)  # path -> [text]
connections = collections.defaultdict(set)  # path -> ids of connections
ports = {}


def content(first, last):
    """Bytes first..last, both included."""
    start = first - first % 256
    out = bytearray()
    while start <= last:
        shift = (start >> 8) * 31 & 255
        out += ROWS[shift]
        start += 256
    skip = first - (first - first % 256)
    return bytes(out[skip : skip + last - first + 1])


ROWS = [bytes((i * 131 + shift) & 255 for i in range(256)) for shift in range(256)]


class Request:
    def __init__(self, conn, ident, head):
        lines = head.decode("latin-1").split("\r\n")
        self.conn = conn
        self.method, self.target, self.version = lines[0].split(" ", 2)
        self.path = self.target.split("?")[0]
        self.headers = {}
        for line in lines[1:]:
            if ":" in line:
                name, value = line.split(":", 1)
                self.headers[name.strip().lower()] = value.strip()
        span = self.headers.get("range", "")
        self.first, self.last = 0, SIZE - 1
        if span.startswith("bytes="):
            a, b = span[6:].split("-")
            self.first, self.last = int(a), int(b) if b else SIZE - 1
        self.ranged = bool(span)
        with lock:
            connections[self.path].add(ident)
            requests[self.path].append(
                " ".join(
                    [
                        self.method,
                        span or "-",
                        self.headers.get("if-range", "-"),
                        self.headers.get("authorization", "-").replace(" ", "_"),
                        self.headers.get("x-secret", "-"),
                    ]
                )
            )
            self.n = len(requests[self.path])

    def send(self, data):
        self.conn.sendall(data)

    def head(self, status, *lines):
        text = [f"HTTP/1.1 {status} X", *lines, "", ""]
        self.send("\r\n".join(text).encode())

    def reply(self, status, *lines, body=b""):
        self.head(status, *lines, f"Content-Length: {len(body)}")
        if self.method != "HEAD":
            self.send(body)

    def range_head(self, first=None, last=None, etag=ETAG, size=SIZE, length=True, extra=()):
        first = self.first if first is None else first
        last = min(self.last, size - 1) if last is None else last
        lines = [f"Content-Range: bytes {first}-{last}/{size}", *extra]
        if length:
            lines.append(f"Content-Length: {last - first + 1}")
        if etag:
            lines.append(f"ETag: {etag}")
        self.head(206, *lines)
        return first, last

    def good(self, **how):
        """The reply a decent server gives."""
        if self.first >= SIZE:
            return self.reply(416, f"Content-Range: bytes */{SIZE}")
        first, last = self.range_head(**how)
        while first <= last:
            step = min(last, first + 65535)
            self.send(content(first, step))
            first = step + 1

    def part(self, count, **how):
        """Announces everything, sends count bytes."""
        first, last = self.range_head(**how)
        self.send(content(first, min(last, first + count - 1)))

    def reset(self):
        self.conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Close

    def url(self, port, path, scheme="http", host="127.0.0.1"):
        return f"{scheme}://{host}:{ports[port]}{path}"


class Close(Exception):
    """Ends the connection."""


# ---- breaks --------------------------------------------------------------------------


def do_plain(r):
    r.good()


def do_http10(r):
    first, last = r.first, min(r.last, SIZE - 1)
    r.send(
        f"HTTP/1.0 206 X\r\nContent-Range: bytes {first}-{last}/{SIZE}\r\nETag: {ETAG}\r\n\r\n"
        .encode() + content(first, last)
    )
    raise Close


def do_reset_once(r):
    if r.n == 2:
        r.part(300_000)
        time.sleep(0.05)
        r.reset()
    r.good()


def do_reset_always(r):
    r.part(10_000)
    time.sleep(0.02)
    r.reset()


def do_short_once(r):
    if r.n == 2:
        r.part(400_000)
        raise Close
    r.good()


def do_short_always(r):
    r.part(100)
    raise Close


def do_breaks(r):
    """Never more than 100,000 bytes in one piece: slow going, but it goes."""
    r.part(100_000)
    raise Close


def do_early_once(r):
    if r.n == 2:
        raise Close
    r.good()


def do_early_always(r):
    raise Close


def do_headers_only_once(r):
    if r.n == 2:
        r.range_head()
        raise Close
    r.good()


def do_half_headers(r):
    r.send(b"HTTP/1.1 206 X\r\nContent-Ra")
    raise Close


def do_stall_once(r):
    if r.n == 2:
        r.part(100_000)
        time.sleep(3)
        raise Close
    r.good()


def do_stall_always(r):
    r.part(1000)
    time.sleep(30)
    raise Close


def do_silent(r):
    time.sleep(30)
    raise Close


def do_drip(r):
    first, last = r.range_head()
    for i in range(first, last + 1):
        r.send(content(i, i))
        time.sleep(0.05)


def do_smaller(r):
    """Gives less than was asked for, in good order."""
    r.last = min(r.last, r.first + 150_000)
    r.good()


# ---- replies that lie ----------------------------------------------------------------


def do_wrong_start(r):
    r.good(first=r.first + 1)


def do_wrong_end(r):
    first, last = r.range_head(last=r.last + 1000)
    r.send(content(first, last))


def do_no_content_range(r):
    body = content(r.first, r.last)
    r.reply(206, "Content-Type: multipart/byteranges; boundary=x", f"ETag: {ETAG}", body=body)


def do_garbage_content_range(r):
    body = content(r.first, r.last)
    r.reply(206, "Content-Range: bytes 0-99/18446744073709551617x", body=body)


def do_wrong_length(r):
    first, last = r.first, min(r.last, SIZE - 1)
    r.head(206, f"Content-Range: bytes {first}-{last}/{SIZE}", f"Content-Length: {last - first}")
    r.send(content(first, last))


def do_too_much(r):
    first, last = r.range_head(length=False, extra=["Connection: close"])
    r.send(content(first, last + 5000))
    raise Close


def do_unknown_total(r):
    body = content(r.first, r.last)
    r.reply(206, f"Content-Range: bytes {r.first}-{r.last}/*", body=body)


def do_other_total(r):
    r.good() if r.n == 1 else r.good(size=SIZE + 1)


def do_no_ranges(r):
    r.reply(200, f"ETag: {ETAG}", body=content(0, SIZE - 1))


def do_small_whole(r):
    """No ranges either, but the file is small."""
    r.reply(200, f"ETag: {ETAG}", body=content(0, 999))


def do_empty(r):
    r.reply(416, "Content-Range: bytes */0")


def do_gzip(r):
    body = gzip.compress(content(r.first, r.last))
    first, last = r.first, r.first + len(body) - 1
    r.reply(206, f"Content-Range: bytes {first}-{last}/{SIZE}", "Content-Encoding: gzip", body=body)


def do_chunked(r):
    first, last = r.range_head(length=False, extra=["Transfer-Encoding: chunked"])
    while first <= last:
        step = min(last, first + 9999)
        piece = content(first, step)
        r.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
        first = step + 1
    r.send(b"0\r\n\r\n")


def do_chunked_broken(r):
    first, _ = r.range_head(length=False, extra=["Transfer-Encoding: chunked"])
    r.send(b"2710\r\n" + content(first, first + 9999) + b"\r\nwhat is this\r\n")
    raise Close


def do_hints(r):
    r.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
    r.good()


def do_endless_hints(r):
    for _ in range(20_000):
        r.send(b"HTTP/1.1 103 Early Hints\r\nLink: </xxxxxxxxxxxxxxxxxxxxxxxxxxx>\r\n\r\n")
    raise Close


def do_garbage_once(r):
    if r.n == 2:
        r.send(b"\x00\x01\x02 this is not HTTP \xff\r\n\r\n")
        raise Close
    r.good()


def do_garbage(r):
    r.send(b"220 mail.example ESMTP\r\n" * 50)
    raise Close


def do_big_header(r):
    r.head(206, "X-Long: " + "x" * 90_000)
    raise Close


def do_many_headers(r):
    r.send(b"HTTP/1.1 206 X\r\n")
    for i in range(100_000):
        r.send(b"X-Header-%d: %s\r\n" % (i, b"y" * 64))
    raise Close


# ---- other versions ------------------------------------------------------------------


def do_etag_changes(r):
    """Ignores If-Range, as some do."""
    r.good(etag=ETAG if r.n == 1 else '"version-2"')


def do_etag_vanishes(r):
    r.good(etag=ETAG if r.n == 1 else None)


def do_weak_etag(r):
    r.good(etag='W/"1"')


def do_date_changes(r):
    day = "Tue, 01 Jul 2025 00:00:00 GMT" if r.n == 1 else "Wed, 02 Jul 2025 00:00:00 GMT"
    r.good(etag=None, extra=[f"Last-Modified: {day}"])


def do_date_only(r):
    r.good(etag=None, extra=["Last-Modified: Tue, 01 Jul 2025 00:00:00 GMT"])


def do_if_range(r):
    """Changes after 300,000 bytes: the second version answers If-Range as it should."""
    if r.n == 2:
        r.part(300_000)
        raise Close
    if r.n > 2 and r.headers.get("if-range") == ETAG:
        return r.reply(200, 'ETag: "version-2"', body=content(0, SIZE - 1))
    r.good()


def do_gone_416(r):
    r.good() if r.n == 1 else r.reply(416, f"Content-Range: bytes */{SIZE}")


def do_shrunk_416(r):
    r.good() if r.n == 1 else r.reply(416, "Content-Range: bytes */70000")


# ---- statuses ------------------------------------------------------------------------


def do_busy_once(r):
    r.reply(503, body=b"busy") if r.n == 2 else r.good()


def do_busy_first(r):
    r.reply(502, body=b"busy") if r.n == 1 else r.good()


def do_wait_1(r):
    r.reply(429, "Retry-After: 1") if r.n == 2 else r.good()


def do_wait_limit(r):
    limit = 'RateLimit: "resolvers";r=2998;t=172, "api";r=0;t=0'
    r.reply(429, limit, "Retry-After: 900") if r.n == 2 else r.good()


def do_wait_date(r):
    now = int(time.time()) + 5000  # a clock that is wrong
    dates = [f"Date: {formatdate(now, usegmt=True)}"]
    dates.append(f"Retry-After: {formatdate(now + 1, usegmt=True)}")
    r.reply(429, *dates) if r.n == 2 else r.good()


def do_wait_hour(r):
    r.reply(429, "Retry-After: 3600")


def do_status(r):
    """/status/404/..."""
    code = int(r.path.split("/")[2])
    said = ["X-Error-Message: Access to model x is restricted"] if code == 403 else []
    if "authorization" in r.headers:
        said = ["X-Error-Message: bad " + r.headers["authorization"]]
    r.reply(code, *said, body=b"no")


def do_big_404(r):
    r.head(404, "Content-Length: 100000000")
    for _ in range(1000):
        r.send(b"x" * 100_000)


def do_wants_fresh(r):
    """Tokens are good for two requests; the next one is "fresh-1", "fresh-2"..."""
    good = r.headers.get("authorization") == f"Bearer fresh-{(r.n + 1) // 3}"
    r.good() if good or r.n == 1 else r.reply(401)


def do_big_error(r):
    r.head(500, "Content-Length: 100000000")
    for _ in range(1000):
        r.send(b"x" * 100_000)


def do_no_head(r):
    r.reply(405) if r.method == "HEAD" else r.good()


# ---- redirects -----------------------------------------------------------------------


def do_relative(r):
    r.reply(307, "Location: /plain/" + r.path.split("/", 2)[2], body=b"see there")


def do_cross(r):
    r.reply(302, "Location: " + r.url("other", "/signed/cross?signature=abc"))


def do_cross_back(r):
    """Leaves and comes back: the way back is another's wish."""
    r.reply(302, "Location: " + r.url("other", "/back/x"))


def do_back(r):
    r.reply(302, "Location: " + r.url("plain", "/plain/back"))


def do_host(r):
    r.reply(301, "Location: " + r.url("plain", "/plain/host", host="localhost"))


def do_userinfo(r):
    r.reply(302, "Location: " + f"http://eve:pw@127.0.0.1:{ports['other']}/plain/userinfo")


def do_signed(r):
    r.good()


def do_expiring(r):
    r.reply(302, "Location: " + r.url("other", f"/ticket/{r.n}"))


def do_expiring_400(r):
    r.reply(302, "Location: " + r.url("other", f"/ticket/{r.n}/400"))


def do_ticket(r):
    """A link good for one request; then /ticket/N/400 is 400."""
    status = int((r.path.split("/") + ["403"])[3])
    r.good() if r.n == 1 else r.reply(status, body=b"expired")


def do_expired(r):
    r.reply(302, "Location: " + r.url("other", "/status/403/expired"))


def do_denied(r):
    """As stores explain themselves."""
    body = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>No</Message></Error>'
    r.reply(403, body=body)


def do_to_denied(r):
    r.reply(302, "Location: " + r.url("other", "/denied/there"))


def do_to_stranger(r):
    """Without TLS to a host that is not this machine."""
    r.reply(302, "Location: http://192.0.2.1/x")


def do_to_pretender(r):
    r.reply(302, "Location: http://127.example.invalid/x")


def do_loop(r):
    r.reply(302, "Location: /loop/x")


def do_nowhere(r):
    r.reply(302)


def do_to_file(r):
    r.reply(302, "Location: file:///etc/passwd")


def do_to_ftp(r):
    r.reply(302, "Location: ftp://127.0.0.1/x")


def do_to_plain(r):
    r.reply(302, "Location: " + r.url("plain", "/plain/downgrade"))


def do_to_garbage(r):
    r.reply(302, "Location: http://[::1/x")


# ---- the rest ------------------------------------------------------------------------


def do_document(r):
    body = b'{"a": 1}'
    r.reply(200, "X-Repo-Commit: abc", "ETag:   W/\"d\"  ", body=body)


def do_accept(r):
    r.reply(200, body=f"{r.headers.get('accept')} {r.headers.get('x-secret')}".encode())


def do_to_accept(r):
    r.reply(302, "Location: " + r.url("other", "/accept/x"))


def do_big_document(r):
    r.head(200, "Transfer-Encoding: chunked")
    for _ in range(200):
        r.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
    r.send(b"0\r\n\r\n")


def do_zipped_document(r):
    r.reply(200, "Content-Encoding: gzip", body=gzip.compress(b"x" * 1000))


def do_huge(r):
    """A file of 1 GiB, sent as fast as it is taken."""
    size = 1 << 30
    first, last = r.range_head(last=min(r.last, size - 1), size=size)
    while first <= last:
        step = min(last, first + 65535)
        r.send(content(first, step))
        first = step + 1


def do_log(r):
    path = r.path[4:]
    with lock:
        lines = [f"connections {len(connections[path])}", *requests[path]]
    r.reply(200, body="\n".join(lines + [""]).encode())


# ---- serving -------------------------------------------------------------------------


def one_request(conn, ident, data):
    while b"\r\n\r\n" not in data:
        more = conn.recv(65536)
        if not more:
            raise Close
        data += more
    head, data = data.split(b"\r\n\r\n", 1)
    request = Request(conn, ident, head)
    globals()["do_" + request.path.split("/")[1].replace("-", "_")](request)
    return data


def serve(conn, ident):
    data = b""
    try:
        while True:
            data = one_request(conn, ident, data)
    except (Close, OSError):
        pass
    finally:
        conn.close()


def listen(name, context=None):
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    ports[name] = listener.getsockname()[1]

    def loop():
        ident = 0
        while True:
            conn, _ = listener.accept()
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ident += 1
            threading.Thread(target=handle, args=(conn, (name, ident)), daemon=True).start()

    def handle(conn, ident):
        try:
            if context is not None:
                conn = context.wrap_socket(conn, server_side=True)
        except OSError:
            conn.close()
            return
        serve(conn, ident)

    threading.Thread(target=loop, daemon=True).start()


def tls_context(folder):
    """A certificate for 127.0.0.1 that nobody knows, not for localhost."""
    cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        + ["-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=fault"]
        + ["-addext", "subjectAltName=IP:127.0.0.1"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def main():
    listen("plain")
    listen("other")
    ports["tls"] = 0
    if len(sys.argv) > 1:
        try:
            listen("tls", tls_context(sys.argv[1]))
        except (OSError, subprocess.CalledProcessError):
            pass
    closed = socket.create_server(("127.0.0.1", 0))
    closed_port = closed.getsockname()[1]
    closed.close()
    print(ports["plain"], ports["other"], ports["tls"], closed_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()

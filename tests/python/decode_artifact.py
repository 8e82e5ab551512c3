#!/usr/bin/env python3
"""An independent reader of novaq artifacts, written from docs/FORMAT.md alone.

Needs only NumPy. Use it as a module (`Artifact(path).decode()` gives {name:
float32 array}) or as a program:

    decode_artifact.py ARTIFACT [--check-hashes] [--compare EXPORT [--tol T]]

EXPORT is a SafeTensors file, a directory of such files, or a GGUF file (needs
the gguf package) that `novaq export` made from the artifact. Every tensor that
both have must agree: bit for bit after rounding to the exported type, or within
T times its largest magnitude.
"""
import argparse
import hashlib
import json
import os
import re
import struct
import sys
import zlib

import numpy as np

ALIGN = 64
ORDER = ("symbols", "codebooks", "codebook_scale", "row_scale", "row_mean", "col_exponent",
         "data")
PLAIN = {
    "f64": "<f8", "f32": "<f4", "f16": "<f2", "bf16": "<u2", "f8_e4m3": "u1", "f8_e5m2": "u1",
    "i64": "<i8", "i32": "<i4", "i16": "<i2", "i8": "i1",
    "u64": "<u8", "u32": "<u4", "u16": "<u2", "u8": "u1", "bool": "u1",
}


class FormatError(Exception):
    """The artifact breaks a rule of docs/FORMAT.md."""


def need(condition, message):
    if not condition:
        raise FormatError(message)


# ---- hashes -----------------------------------------------------------------

B3_IV = np.array(
    [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB,
     0x5BE0CD19], dtype=np.uint32)
B3_PERMUTE = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
B3_MIXES = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
            (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]


def b3_rotate(x, n):
    return (x >> np.uint32(n)) | (x << np.uint32(32 - n))


def b3_compress(cv, words, counter, length, flags):
    """cv (8, lanes), words (16, lanes), counter (lanes): one compression per lane."""
    lanes = cv.shape[1]
    v = np.empty((16, lanes), np.uint32)
    v[:8] = cv
    v[8:12] = B3_IV[:4, None]
    v[12] = counter & 0xFFFFFFFF
    v[13] = counter >> 32
    v[14] = length
    v[15] = flags
    m = list(words)
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(B3_MIXES):
            for x, r1, r2 in ((m[2 * i], 16, 12), (m[2 * i + 1], 8, 7)):
                v[a] += v[b] + x
                v[d] = b3_rotate(v[d] ^ v[a], r1)
                v[c] += v[d]
                v[b] = b3_rotate(v[b] ^ v[c], r2)
        m = [m[i] for i in B3_PERMUTE]
    return v[:8] ^ v[8:]


def blake3(data):
    """BLAKE3 of bytes, as hexadecimal text; chunks side by side."""
    count = max(1, -(-len(data) // 1024))
    padded = np.zeros(count * 1024, np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    words = padded.view("<u4").reshape(count, 16, 16)
    cv = np.repeat(B3_IV[:, None], count, axis=1)
    counter = np.arange(count, dtype=np.uint64)
    last = len(data) - 1024 * (count - 1)  # bytes of the last chunk
    root = 8 if count == 1 else 0
    for block in range(16):
        flags = np.full(count, (1 if block == 0 else 0) | (2 if block == 15 else 0), np.uint32)
        length = np.full(count, 64, np.uint32)
        live = count
        if last <= 64 * block and not (block == 0):
            live = count - 1  # the last chunk has ended
        elif last <= 64 * (block + 1):
            flags[-1] |= 2 | root
            length[-1] = last - 64 * block
        if live > 0:
            cv[:, :live] = b3_compress(cv[:, :live], words[:live, block].T, counter[:live],
                                       length[:live], flags[:live])
    while cv.shape[1] > 1:
        pairs = cv.shape[1] // 2
        odd = cv[:, 2 * pairs:]
        both = np.concatenate([cv[:, 0:2 * pairs:2], cv[:, 1:2 * pairs:2]])
        flag = 4 | (8 if cv.shape[1] == 2 else 0)
        start = np.repeat(B3_IV[:, None], pairs, axis=1)
        merged = b3_compress(start, both, np.zeros(pairs, np.uint64), 64, flag)
        cv = np.concatenate([merged, odd], axis=1)
    return cv[:, 0].astype("<u4").tobytes().hex()


# ---- schemes ------------------------------------------------------------------

class Scheme:
    """Fields (K), subvector length d and levels [(field, lag)] of a code."""

    def __init__(self, name):
        self.name = name
        self.fields, self.levels, self.d = [], [], 1
        sliding = re.fullmatch(r"k(\d+)d(\d+)(?:l(\d))?", name)
        product = re.fullmatch(r"pq(\d+)(?:x(\d+))?d(\d+)", name)
        if sliding:
            self.fields = [int(sliding[1])]
            self.d = int(sliding[2])
            self.levels = [(0, lag) for lag in range(int(sliding[3] or 1))]
        elif product:
            self.fields = [int(product[1])] + ([int(product[2])] if product[2] else [])
            self.d = int(product[3])
            self.levels = [(f, 0) for f in range(len(self.fields))]
        else:
            need(name in ("q8", "f32", "f16", "bf16", "raw"), f"unknown scheme {name}")
        self.coded = bool(self.fields)
        self.bits = [(k - 1).bit_length() for k in self.fields]

    def row_symbols(self, cols):
        return -(-(-(-cols // self.d)) // 8) * 8

    def row_bytes(self, cols):
        return self.row_symbols(cols) // 8 * sum(self.bits)

    def entries(self):
        return sum(self.fields[f] for f, _ in self.levels)


def plane_widths(bits):
    widths = []
    for width in (8, 4, 2, 1):
        while bits >= width:
            widths.append(width)
            bits -= width
    return widths


def unpack_unit(fields, packed, u, scheme):
    """packed (rows, bytes of one unit) into fields[f] (rows, u); returns bytes used."""
    at = 0
    for f, bits in enumerate(scheme.bits):
        shift = 0
        for width in plane_widths(bits):
            m = u * width // 8
            plane = packed[:, at:at + m]
            for k in range(8 // width):
                part = (plane >> np.uint8(k * width)) & np.uint8((1 << width) - 1)
                fields[f][:, k * m:(k + 1) * m] |= part << np.uint8(shift)
            at += m
            shift += width
    return at


def unpack_symbols(packed, scheme, cols):
    """packed (rows, row_bytes) to one (rows, S) array per field."""
    total = scheme.row_symbols(cols)
    fields = [np.zeros((packed.shape[0], total), np.uint8) for _ in scheme.fields]
    at = 0
    for start in range(0, total, 32):
        u = min(32, total - start)
        views = [f[:, start:start + u] for f in fields]
        at += unpack_unit(views, packed[:, at:], u, scheme)
    need(at == packed.shape[1], "row_bytes do not fit the scheme")
    return fields


# ---- rotation -------------------------------------------------------------------

def mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def signs(seed, cols):
    with np.errstate(over="ignore"):
        z = mix(np.array([seed], np.uint64) + np.uint64(0x9E3779B97F4A7C15))
        z = mix(z ^ (np.uint64(cols) + np.array([0xD1B54A32D192ED03], np.uint64)))
        index = np.arange(1, cols + 1, dtype=np.uint64)
        z = mix(z + index * np.uint64(0x9E3779B97F4A7C15))
    return np.where(z & np.uint64(1), np.float32(-1), np.float32(1))


def unrotate(x, block, seed):
    rows, cols = x.shape
    y = x.reshape(rows, cols // block, block)
    h = 1
    while h < block:
        z = y.reshape(rows, cols // block, block // (2 * h), 2, h)
        a, b = z[..., 0, :], z[..., 1, :]
        y = np.stack([a + b, a - b], axis=-2).reshape(rows, cols // block, block)
        h *= 2
    y = y * np.float32(1 / np.sqrt(np.float64(block)))
    return y.reshape(rows, cols) * signs(seed, cols)


# ---- the artifact ------------------------------------------------------------------

class Artifact:
    def __init__(self, path):
        self.path = path
        self.head = b""
        if os.path.isdir(path):
            with open(os.path.join(path, "manifest.json"), "rb") as f:
                text = f.read()
            need(text.startswith(b'{"schema_version":"'), "not a novaq manifest")
        else:
            text = self.read_head()
        self.text = text
        self.manifest = json.loads(text, object_pairs_hook=self.no_duplicates)
        m = self.manifest
        need(re.fullmatch(r"1\.\d+\.\d+", m["schema_version"]), "unknown schema version")
        key = b'"manifest_sha256":"'
        at = text.index(key) + len(key)
        blank = text[:at] + b"0" * 64 + text[at + 64:]
        digest = hashlib.sha256(blank).hexdigest()
        need(text[at:at + 64].decode() == digest == m["manifest_sha256"], "manifest_sha256")
        if "source" in m:
            source = m["source"]
            need(source["format"] in ("safetensors", "gguf", "pytorch", "onnx"), "source.format")
            need(all(type(source[k]) is int and source[k] >= 0 for k in ("tensors", "bytes")),
                 "source's counts")
            need(re.fullmatch("[0-9a-f]{64}", source["blake3"]), "source.blake3")
            need(m["source_locator"] == "tensors:blake3:" + source["blake3"], "source_locator")
        need(m["form"] == ("single" if self.head else "directory"), "form")
        self.chunks = self.open_chunks()
        self.check_placement()
        total = self.data_bytes + (len(self.head) or len(text))
        need(total == m["quantization"]["summary"]["total_bytes"], "total_bytes")
        if self.head:
            need(self.derive_head() == self.head, "header and manifest differ")

    @staticmethod
    def no_duplicates(pairs):
        keys = [k for k, _ in pairs]
        need(len(set(keys)) == len(keys), "duplicate key in JSON")
        return dict(pairs)

    # -- opening

    def read_head(self):
        with open(self.path, "rb") as f:
            start = f.read(8)
            need(len(start) == 8, "too short for an artifact")
            size = struct.unpack("<Q", start)[0]
            need(size <= 100_000_000, "header too large")
            self.head = start + f.read(size)
        need(self.head[8:].startswith(b'{"__metadata__":{"novaq_manifest":"'), "not an artifact")
        header = json.loads(self.head[8:], object_pairs_hook=self.no_duplicates)
        return header["__metadata__"]["novaq_manifest"].encode()

    def open_chunks(self):
        views, offset = [], 0
        whole = np.memmap(self.path, np.uint8, "r") if self.head else None
        for i, chunk in enumerate(self.manifest["chunks"]):
            need(chunk["index"] == i and chunk["bytes"] > 0 and chunk["bytes"] % ALIGN == 0,
                 f"chunk {i}: index or size")
            if self.head:
                need(chunk["offset"] == offset, f"chunk {i}: offset")
                begin = len(self.head) + offset
                view = whole[begin:begin + chunk["bytes"]]
            else:
                name = f"chunk-{i:05d}-{chunk['sha256'][:8]}.bin"
                need(chunk["file"] == name, f"chunk {i}: file name")
                view = np.memmap(os.path.join(self.path, name), np.uint8, "r")
            need(len(view) == chunk["bytes"], f"chunk {i}: size on disk")
            views.append(view)
            offset += chunk["bytes"]
        if self.head:
            need(len(whole) == len(self.head) + offset, "bytes after the last chunk")
        self.data_bytes = offset
        return views

    # -- pieces

    def expected(self, name):
        """[(piece, SafeTensors dtype, shape, bytes)] that a layer must have, in order."""
        layer = self.manifest["layers"][name]
        scheme = Scheme(layer["scheme"])
        if not scheme.coded and layer["scheme"] != "q8":
            kind = layer["source_dtype"] if layer["scheme"] == "raw" else layer["scheme"]
            if kind in PLAIN:
                size = int(np.prod(layer["shape"], dtype=np.int64)) * np.dtype(PLAIN[kind]).itemsize
                return [("data", kind.upper(), layer["shape"], size)]
            size = layer["pieces"]["data"]["bytes"]
            return [("data", "U8", [size], size)]
        rows, cols = layer["rows"], layer["cols"]
        need(rows * cols == np.prod(layer["shape"], dtype=np.int64), f"{name}: rows x cols")
        out = []
        if scheme.coded:
            groups, d = layer["groups"], scheme.d
            need(groups == -(-cols // layer["group_cols"]), f"{name}: groups")
            size = scheme.row_bytes(cols)
            out.append(("symbols", "U8", [rows, size], rows * size))
            shape = [groups, scheme.entries(), d]
            out.append(("codebooks", "I8", shape, groups * scheme.entries() * d))
            out.append(("codebook_scale", "F16", [groups], 2 * groups))
        else:
            out.append(("symbols", "I8", [rows, cols], rows * cols))
        out.append(("row_scale", "F16", [rows], 2 * rows))
        if "row_mean" in layer["pieces"]:
            out.append(("row_mean", "F16", [rows], 2 * rows))
        if "col_exponent" in layer["pieces"]:
            out.append(("col_exponent", "I8", [cols], cols))
        return out

    def in_order(self):
        """(tensor name, dtype, shape, bytes, place, first of its layer) of every piece."""
        for name, layer in self.manifest["layers"].items():
            want = self.expected(name)
            need(set(layer["pieces"]) == {w[0] for w in want}, f"{name}: pieces")
            for i, (piece, dtype, shape, size) in enumerate(want):
                yield f"{name}/{piece}", dtype, shape, size, layer["pieces"][piece], i == 0
        tokenizer = self.manifest["model"].get("tokenizer")
        if isinstance(tokenizer, dict):
            size = tokenizer["bytes"]
            yield "tokenizer/zlib", "U8", [size], size, tokenizer, True

    def check_placement(self):
        chunk, at = 0, 0
        for name, _, _, size, place, first in self.in_order():
            need(place["bytes"] == size, f"{name}: bytes")
            begin = -(-at // ALIGN) * ALIGN
            if first and place["chunk"] == chunk + 1 and begin == len(self.chunks[chunk]):
                chunk, begin = chunk + 1, 0
            need((place["chunk"], place["offset"]) == (chunk, begin), f"{name}: place")
            at = begin + size
            need(at <= len(self.chunks[chunk]), f"{name}: beyond its chunk")
        need(chunk == len(self.chunks) - 1 and -(-at // ALIGN) * ALIGN == len(self.chunks[chunk]),
             "bytes that no piece names")

    def derive_head(self):
        """The single-file form's header, from the manifest alone."""
        def text(s):
            out = []
            for c in s:
                if c in '"\\':
                    out.append("\\" + c)
                elif c == "\n":
                    out.append("\\n")
                elif ord(c) < 0x20:
                    out.append(f"\\u{ord(c):04x}")
                else:
                    out.append(c)
            return "".join(out)

        parts = ['{"__metadata__":{"novaq_manifest":"' + text(self.text.decode()) + '"}']
        end, gaps = 0, 0

        def tensor(name, dtype, shape, begin, size):
            dims = ",".join(str(n) for n in shape)
            parts.append(f',"{text(name)}":{{"dtype":"{dtype}","shape":[{dims}],'
                         f'"data_offsets":[{begin},{begin + size}]}}')

        starts = [c["offset"] for c in self.manifest["chunks"]]
        for name, dtype, shape, size, place, _ in self.in_order():
            begin = starts[place["chunk"]] + place["offset"]
            if begin > end:
                tensor(f"pad/{gaps}", "U8", [begin - end], end, begin - end)
                gaps += 1
            tensor(name, dtype, shape, begin, size)
            end = begin + size
        if self.data_bytes > end:
            tensor(f"pad/{gaps}", "U8", [self.data_bytes - end], end, self.data_bytes - end)
        header = ("".join(parts) + "}").encode()
        header += b" " * (-(8 + len(header)) % ALIGN)
        return struct.pack("<Q", len(header)) + header

    def piece(self, name, piece):
        place = self.manifest["layers"][name]["pieces"][piece]
        return self.chunks[place["chunk"]][place["offset"]:place["offset"] + place["bytes"]]

    def halves(self, name, piece):
        return self.piece(name, piece).view("<f2").astype(np.float32)

    # -- contents

    def tokenizer(self):
        place = self.manifest["model"].get("tokenizer")
        if not isinstance(place, dict):
            return None
        need(place["encoding"] == "zlib", "tokenizer encoding")
        data = self.chunks[place["chunk"]][place["offset"]:place["offset"] + place["bytes"]]
        text = zlib.decompress(data.tobytes())
        need(len(text) == place["inflated_bytes"], "tokenizer: inflated_bytes")
        return json.loads(text)

    def check_hashes(self):
        for i, chunk in enumerate(self.manifest["chunks"]):
            data = self.chunks[i].tobytes()
            need(hashlib.sha256(data).hexdigest() == chunk["sha256"], f"chunk {i}: sha256")
            need(blake3(data) == chunk["blake3"], f"chunk {i}: blake3")
        end = [0] * len(self.chunks)
        for name, _, _, size, place, _ in self.in_order():
            c = place["chunk"]
            need(not self.chunks[c][end[c]:place["offset"]].any(), f"{name}: bytes in the gap")
            end[c] = place["offset"] + size
        for c, view in enumerate(self.chunks):
            need(not view[end[c]:].any(), f"chunk {c}: bytes at its end")

    def sums(self, name, scheme):
        """The summed codebook entries (rows, S, d) as signed bytes."""
        layer = self.manifest["layers"][name]
        rows, cols, d = layer["rows"], layer["cols"], scheme.d
        packed = self.piece(name, "symbols").reshape(rows, -1)
        fields = unpack_symbols(packed, scheme, cols)
        used = -(-cols // d)
        for f, k in zip(fields, scheme.fields):
            need((f[:, :used] < k).all(), f"{name}: symbol out of range")
            need(not f[:, used:].any(), f"{name}: padding symbol")
        books = self.piece(name, "codebooks").view(np.int8)
        books = books.reshape(layer["groups"], scheme.entries(), d)
        group = np.minimum(np.arange(fields[0].shape[1]) * d // layer["group_cols"],
                           layer["groups"] - 1)
        total = np.zeros((rows, fields[0].shape[1], d), np.int8)
        first = 0
        for field, lag in scheme.levels:
            symbols = fields[field]
            if lag:
                symbols = np.zeros_like(symbols)
                symbols[lag:] = fields[field][:-lag]
                symbols[np.arange(rows) % layer["segment_rows"] < lag] = 0
            total += books[group[None, :], first + symbols.astype(np.int64)]
            first += scheme.fields[field]
        return total, group

    def column_factors(self, name):
        e = self.piece(name, "col_exponent").view(np.int8).astype(np.int32)
        need((np.abs(e) <= 64).all(), f"{name}: column exponent out of range")
        odd = e % 2  # of h = -e as well
        root = np.where(odd == 1, np.float32(1.41421354), np.float32(1)).astype(np.float32)
        return np.ldexp(root, (-e - odd) // 2).astype(np.float32)

    def matrix(self, name):
        layer = self.manifest["layers"][name]
        scheme = Scheme(layer["scheme"])
        rows, cols = layer["rows"], layer["cols"]
        factor = np.ldexp(self.halves(name, "row_scale"), layer["exponent"]).astype(np.float32)
        if scheme.coded:
            total, group = self.sums(name, scheme)
            scale = factor[:, None] * self.halves(name, "codebook_scale")[group][None, :]
            x = scale[:, :, None] * total.astype(np.float32)
            x = x.reshape(rows, -1)[:, :cols]
        else:
            values = self.piece(name, "symbols").view(np.int8).reshape(rows, cols)
            x = factor[:, None] * values.astype(np.float32)
        if "row_mean" in layer["pieces"]:
            x = x + self.halves(name, "row_mean")[:, None]
        need(x.dtype == np.float32, "precision")
        block = layer["rotation"]["block"]
        if block:
            x = unrotate(x, block, int(layer["rotation"]["seed"]))
        if "col_exponent" in layer["pieces"]:
            x = x * self.column_factors(name)[None, :]
            need(x.dtype == np.float32, "precision")
        need(np.isfinite(x).all(), f"{name}: not finite")
        return x

    def plain(self, name):
        """Elements as float32, or None for a ggml block type."""
        layer = self.manifest["layers"][name]
        kind = layer["source_dtype"] if layer["scheme"] == "raw" else layer["scheme"]
        if kind not in PLAIN or kind.startswith("f8"):
            return None
        data = self.piece(name, "data").view(PLAIN[kind])
        if kind == "bf16":
            return (data.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return data.astype(np.float32)

    def layer(self, name):
        info = self.manifest["layers"][name]
        coded = info["scheme"] == "q8" or Scheme(info["scheme"]).coded
        x = self.matrix(name) if coded else self.plain(name)
        return None if x is None else x.reshape(info["shape"])

    def decode(self):
        """{name: float32 array}; layers kept as ggml blocks are left out."""
        out = {}
        for name in self.manifest["layers"]:
            x = self.layer(name)
            if x is not None:
                out[name] = x
        return out


# ---- comparing with an export -----------------------------------------------------

def read_safetensors(path):
    with open(path, "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(size))
    data = np.memmap(path, np.uint8, "r", offset=8 + size)
    for name, t in header.items():
        if name != "__metadata__" and t["dtype"].lower() in PLAIN:
            raw = data[t["data_offsets"][0]:t["data_offsets"][1]].view(PLAIN[t["dtype"].lower()])
            yield name, t["dtype"].lower(), raw.reshape(t["shape"])


def read_gguf(path):
    from gguf import GGUFReader
    for t in GGUFReader(path).tensors:
        kind = t.tensor_type.name.lower()
        if kind in PLAIN:
            shape = [int(n) for n in reversed(t.shape)]
            raw = np.ascontiguousarray(t.data).view(np.uint8).reshape(-1).view(PLAIN[kind])
            yield t.name, kind, raw.reshape(shape)


def read_export(path):
    if os.path.isdir(path):
        for name in sorted(os.listdir(path)):
            if name.endswith(".safetensors"):
                yield from read_safetensors(os.path.join(path, name))
    elif path.endswith(".gguf"):
        yield from read_gguf(path)
    else:
        yield from read_safetensors(path)


def as_stored(x, kind):
    """float32 rounded to an exported type, as that type's bits."""
    if kind == "bf16":
        bits = x.view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return x.astype(PLAIN[kind])


def as_float(raw, kind):
    if kind == "bf16":
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return raw.astype(np.float32)


def compare(artifact, export, tol):
    """Tensors of the export that the artifact has too; FormatError where they differ."""
    seen = 0
    for name, kind, raw in read_export(export):
        if name not in artifact.manifest["layers"]:
            continue
        x = artifact.layer(name)
        if x is None:
            continue
        x = np.ascontiguousarray(x).reshape(x.shape)  # NumPy makes scalars 1-D
        need(list(x.shape) == list(raw.shape), f"{name}: shape {raw.shape} in the export")
        if tol > 0:
            far = np.abs(as_float(raw, kind) - x).max(initial=0)
            need(far <= tol * max(np.abs(x).max(initial=0), 1e-30), f"{name}: differs by {far}")
        else:
            same = np.array_equal(as_stored(x, kind), raw)
            need(same, f"{name}: differs from the export ({kind})")
        seen += 1
    need(seen > 0, f"{export}: no tensor in common with the artifact")
    return seen


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("artifact")
    parser.add_argument("--check-hashes", action="store_true")
    parser.add_argument("--compare", metavar="EXPORT")
    parser.add_argument("--tol", type=float, default=0.0)
    args = parser.parse_args()
    try:
        a = Artifact(args.artifact)
        if args.check_hashes:
            a.check_hashes()
        tokenizer = a.tokenizer()
        if args.compare:
            seen = compare(a, args.compare, args.tol)
            print(f"{args.artifact}: {seen} tensors equal those of {args.compare}")
        else:
            weights = a.decode()
            count = sum(x.size for x in weights.values())
            print(f"{args.artifact}: {len(weights)} layers, {count} weights decoded"
                  f"{', tokenizer' if tokenizer else ''}")
    except (FormatError, KeyError, ValueError) as e:
        print(f"{args.artifact}: {type(e).__name__}: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

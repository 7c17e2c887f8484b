#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks what a BlockHost ledger says of itself, with nothing but Python's standard library.

PATH is a ledger's directory, an exported C2SP tlog-tiles directory, a directory of block files, a .tlog-proof, or a
consistency file. This program shares no code with the one that writes ledgers: it is short enough to be read first.
Formats: docs/ledger.md, RFC 6962 (tree), RFC 8785 (records), RFC 8032 (Ed25519), c2sp.org/{signed-note,tlog-tiles}.
Everything it reads may be hostile: lengths are bounded before anything is allocated, and no input is executed.
"""
import argparse
import base64
import hashlib
import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys

MAX_TEXT = 256 * 1024           # keys, checkpoints, proofs
MAX_RECORD = 65535
MAX_KEPT = 64 << 20            # what stays of the records of a pruned segment
MAX_BLOCK_FILE = 20 << 20       # 256 records of 64 KiB, and their hashes
SEGMENT_RECORDS = 65536
BUNDLE = 256                    # records in a tile, a bundle, a block
HEX64 = re.compile(r"[0-9a-f]{64}\Z")


class Bad(Exception):
    """Something does not verify."""


class Unreadable(Exception):
    """There is nothing to verify."""


# --- Ed25519 (RFC 8032), verification only ---------------------------------------------------------------------------
P = 2 ** 255 - 19
L = 2 ** 252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)


def _add(p, q):
    """Adds two points in extended coordinates (x, y, z, x*y)."""
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _times(scalar, point):
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point = _add(point, point)
        scalar >>= 1
    return result


def _point(data):
    """Decodes a point; None when it is no canonical encoding of one."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (1 << 255) - 1
    if y >= P:
        return None
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * SQRT_M1 % P
    if (x * x - x2) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def _same(p, q):
    return (p[0] * q[2] - q[0] * p[2]) % P == 0 and (p[1] * q[2] - q[1] * p[2]) % P == 0


BASE = _point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def ed25519_verify(key, message, signature):
    """Is `signature` made over `message` by the 32 bytes of public `key`? Keys of small order verify nothing."""
    if len(key) != 32 or len(signature) != 64:
        return False
    a, r = _point(key), _point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L:
        return False
    if any(_same(_times(8, point), (0, 1, 1, 0)) for point in (a, r)):
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    return _same(_times(s, BASE), _add(r, _times(k, a)))


# --- The tree (RFC 6962) ---------------------------------------------------------------------------------------------
def sha256(data):
    return hashlib.sha256(data).digest()


def leaf_hash(data):
    return sha256(b"\0" + data)


def node_hash(left, right):
    return sha256(b"\1" + left + right)


class Frontier:
    """The right edge of a growing tree, and its root at the sizes in `wanted`."""

    def __init__(self, wanted=()):
        self.size, self.peaks, self.roots = 0, [], {}
        self.wanted = set(wanted)
        if 0 in self.wanted:
            self.roots[0] = self.root()

    def push(self, leaf):
        size = self.size
        while size & 1:
            leaf = node_hash(self.peaks.pop(), leaf)
            size >>= 1
        self.peaks.append(leaf)
        self.size += 1
        if self.size in self.wanted:
            self.roots[self.size] = self.root()

    def root(self):
        if not self.peaks:
            return sha256(b"")
        result = self.peaks[-1]
        for left in self.peaks[-2::-1]:
            result = node_hash(left, result)
        return result


def tree_root(leaves):
    frontier = Frontier()
    for leaf in leaves:
        frontier.push(leaf)
    return frontier.root()


def root_of_path(leaf, index, size, path):
    """RFC 9162 section 2.1.3.2: the root that a path leads to; None when it is not as long as index and size ask for."""
    if index >= size:
        return None
    node, last = index, size - 1
    for sibling in path:
        if last == 0:
            return None
        if node & 1 or node == last:
            leaf = node_hash(sibling, leaf)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            leaf = node_hash(leaf, sibling)
        node, last = node >> 1, last >> 1
    return leaf if last == 0 else None


def consistent(old, old_root, new, new_root, proof):
    """RFC 9162 section 2.1.4.2."""
    if old == new:
        return not proof and old_root == new_root
    if old > new:
        return False
    if old == 0:
        return not proof and old_root == sha256(b"")
    proof = list(proof)
    if old & (old - 1) == 0:
        proof.insert(0, old_root)
    if not proof:
        return False
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    first = second = proof[0]
    for hash_ in proof[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            first, second = node_hash(hash_, first), node_hash(hash_, second)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            second = node_hash(second, hash_)
        node, last = node >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


# --- Texts: keys, notes, checkpoints (C2SP) --------------------------------------------------------------------------
def unbase64(text, what, length=None):
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise Bad("%s is not base64" % what)
    if base64.b64encode(data).decode() != text or (length is not None and len(data) != length):
        raise Bad("%s is not base64 of the right length" % what)
    return data


def decimal(text, what):
    if not re.match(r"(0|[1-9][0-9]{0,19})\Z", text, re.ASCII) or int(text) >= 1 << 64:
        raise Bad("%s is not a number" % what)
    return int(text)


class Key:
    """A verifier key: name+id+base64(type 1, 32 bytes)."""

    def __init__(self, text):
        parts = text.strip().split("+", 2)
        if len(parts) != 3 or not parts[0] or re.search(r"[\s\x00-\x1f\x7f]", parts[0]):
            raise Bad("not a verifier key (name+id+base64)")
        data = unbase64(parts[2], "the verifier key", 33)
        self.name, self.id, self.key = parts[0], sha256(parts[0].encode() + b"\n" + data)[:4], data[1:]
        if data[0] != 1 or self.id.hex() != parts[1].lower() or _point(self.key) is None:
            raise Bad("not an Ed25519 verifier key, or its id does not belong to its name and key")

    def body(self, size, root):
        return ("%s\n%d\n%s\n" % (self.name, size, base64.b64encode(root).decode())).encode()

    def short(self):
        return "%s+%s" % (self.name, self.id.hex())


def parse_checkpoint(note):
    """Origin, size, root, signed text, and signature lines (name, key id, signature) of a checkpoint."""
    if re.search(r"[\x00-\x09\x0b-\x1f]", note) or not note.endswith("\n") or "\n\n" not in note:
        raise Bad("not a signed note")
    body, lines = note[:-1].rsplit("\n\n", 1)
    signatures = []
    for line in lines.split("\n"):
        match = re.match("\u2014 ([^\\s+]+) (\\S+)\\Z", line)
        if not match:
            raise Bad("not a signed note: a signature line is not one")
        data = unbase64(match.group(2), "a signature")
        if len(data) < 5:
            raise Bad("a signature is shorter than its key id")
        signatures.append((match.group(1), data[:4], data[4:]))
    fields = body.split("\n")
    if len(fields) < 3 or not fields[0]:
        raise Bad("not a checkpoint: origin, size and root are expected")
    size, root = decimal(fields[1], "the size"), unbase64(fields[2], "the root", 32)
    return fields[0], size, root, (body + "\n").encode(), signatures


def open_checkpoint(note, keys, what):
    """Size and root of a checkpoint that one of the keys signed."""
    return open_with(note, keys, what)[:2]


def open_with(note, keys, what):
    """Size, root and the place of the newest key that signed a checkpoint; which sizes a key may sign only the ledger says."""
    origin, size, root, body, signatures = parse_checkpoint(note)
    signed = None
    for place, key in enumerate(keys):
        for name, id_, signature in signatures:
            if (name, id_) == (key.name, key.id) and key.name == origin:
                if not ed25519_verify(key.key, body, signature):
                    raise Bad("%s: the signature of %s does not match" % (what, key.short()))
                signed = place
    if signed is None:
        raise Bad("%s of %r is not signed by the key %s" % (what, origin, ", ".join(k.short() for k in keys)))
    return size, root, signed


# --- Records and canonical JSON (RFC 8785, integers only) ------------------------------------------------------------
def _integer(text):
    if len(text) > 17:
        raise ValueError("a number is too large")
    return int(text)


def _no_doubles(pairs):
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is there twice")
    return result


def parse_json(data, what):
    try:
        return json.loads(data.decode("utf-8"), parse_int=_integer, object_pairs_hook=_no_doubles)
    except (ValueError, RecursionError) as error:
        raise Bad("%s is not JSON: %s" % (what, error))


def canonical(value, depth=0):
    if depth > 40:
        raise Bad("nested too deep")
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ",".join(canonical(item, depth + 1) for item in value) + "]"
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(json.dumps(k, ensure_ascii=False) + ":" + canonical(value[k], depth + 1) for k in keys) + "}"
    raise Bad("a number with a fraction")


def canonical_bytes(value):
    try:
        return canonical(value).encode("utf-8")
    except (UnicodeEncodeError, RecursionError):
        raise Bad("a text is not Unicode, or nested too deep")


def last_text(record, key):
    """A text field that sorts behind everything nested; the last place where it stands is the field."""
    opening = b'"' + key + b'":"'
    at = record.rfind(opening)
    return None if at < 0 else record[at + len(opening):].split(b'"', 1)[0]


def check_record(record, height, prev):
    """Is this the record that belongs here?"""
    match = re.search(rb'"height":([1-9][0-9]{0,18})[,}]', record)
    if not match or int(match.group(1)) != height:
        raise Bad("the record does not say height %d: records were moved, removed or added" % height)
    if last_text(record, b"prev_hash") != prev.hex().encode():
        raise Bad("prev_hash is not the hash of the record before it: one of the two was changed")


class Epochs:
    """The keys of a log from its first: a record signed by one key names the next."""

    def __init__(self, first):
        self.list = [(1, first, 0)] if first else []

    def of_size(self, size):
        return [e for e in self.list if e[2] < size or e[2] == 0][-1]

    def keys(self):
        return [key for _, key, _ in self.list]

    def named(self, record):
        """Number and key that a record names as the next, or None."""
        if not record.startswith(b'{"action":"ledger-rotate-key",'):
            return None
        if last_text(record, b"phase") != b"epoch" or last_text(record, b"plugin_id") != b"ledger":
            return None
        metadata = parse_json(record, "the epoch record").get("metadata")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("vkey"), str):
            raise Bad("the epoch record names no key")
        return metadata.get("epoch"), Key(metadata["vkey"])

    def begin(self, named, size):
        number, key = named
        now = self.list[-1]
        if type(number) is not int or number != now[0] + 1 or key.name != now[1].name or key.key in [k.key for k in self.keys()]:
            raise Bad("the epoch record does not name a new key for epoch %d of this log" % (now[0] + 1))
        self.list.append((number, key, size))


# --- Files -----------------------------------------------------------------------------------------------------------
def open_file(path):
    """A regular file; links are not followed. None when there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unreadable("cannot open %s: %s" % (path, error.strerror))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Unreadable("%s is not a file" % path)
    return os.fdopen(fd, "rb")


def read_file(path, limit):
    file = open_file(path)
    if file is None:
        return None
    with file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Bad("%s is larger than it can be" % path)
    return data


def read_bytes(path, what):
    data = sys.stdin.buffer.read(MAX_TEXT + 1) if path == "-" else read_file(path, MAX_TEXT)
    if data is None or len(data) > MAX_TEXT:
        raise Unreadable("%s %s is missing or too large" % (what, path))
    return data


def read_text(path, what):
    return as_text(read_bytes(path, what), path, what)


def as_text(data, path, what):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Bad("%s %s is not text" % (what, path))


def list_dir(path):
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        raise Unreadable("cannot list %s: %s" % (path, error.strerror))


class Report:
    def __init__(self, kind):
        self.kind, self.problems, self.notes, self.facts = kind, [], [], {}

    def problem(self, place, what, height=None):
        self.problems.append({"height": height, "place": place, "what": what})
        if len(self.problems) > 100:
            raise Bad("and more; stopped after 100 problems")


# --- A ledger's directory --------------------------------------------------------------------------------------------
def _crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = _crc_table()


def crc32c(data, crc=0):
    table, crc = CRC_TABLE, crc ^ 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


class Commit:
    def __init__(self, data):
        if len(data) != 116:
            raise Bad("a commit of the wrong length")
        self.size, self.root, _, self.epoch, self.signature = struct.unpack("<Q32sqI64s", data)


class Ledger:
    """Follows the log from its first record: chain, tree, commits, signatures."""

    def __init__(self, report, first_key, wanted, every):
        self.report, self.epochs, self.every = report, Epochs(first_key), every
        self.frontier, self.prev = Frontier(wanted), bytes(32)
        self.leaves = bytearray()
        self.commits = self.signatures = self.unread = 0
        self.unchecked = None       # the newest commit whose signature was not verified yet
        self.named = None
        self.pruned, self.prunings = {}, {}     # segments without payloads, and what committed records say about such
        self.said = []              # what records behind the last commit say

    def add(self, record):
        check_record(record, self.frontier.size + 1, self.prev)
        if record.startswith(b'{"action":"ledger-prune"'):
            said = parse_json(record, "the record of a pruning")
            if said.get("plugin_id") == "ledger" and said.get("phase") == "prune" and isinstance(said.get("metadata"), dict):
                said, height = said["metadata"], self.frontier.size + 1
                first, count = said.get("first_height"), said.get("records")
                if type(first) is int and type(count) is int and 0 < first and 0 < count and first + count <= height:
                    self.said.append((first - 1, (count, said.get("hashes_sha256"), said.get("kept_sha256"), height)))
        named = self.epochs.named(record) if self.epochs.list else None
        if named and self.named:
            raise Bad("two records begin an epoch before the next commit")
        self.named = self.named or named
        self.add_leaf(leaf_hash(record))

    def add_leaf(self, leaf):
        self.prev = leaf
        self.leaves += leaf
        self.frontier.push(leaf)

    def commit(self, commit):
        if commit.size != self.frontier.size or commit.root != self.frontier.root():
            raise Bad("the commit signs %d records with another root than the %d before it have: records were changed, "
                      "removed or added" % (commit.size, self.frontier.size))
        self.commits += 1
        for first, what in self.said:
            self.prunings.setdefault(first, what)
        self.said = []
        if not self.epochs.list:
            return
        if commit.epoch != self.epochs.list[-1][0]:
            raise Bad("the commit says epoch %d, but epoch %d is in force" % (commit.epoch, self.epochs.list[-1][0]))
        self.unchecked = commit
        if self.every or self.named:
            self.check_signature()
        if self.named:
            self.epochs.begin(self.named, commit.size)
            self.named = None

    def check_signature(self):
        commit, self.unchecked = self.unchecked, None
        if commit:
            key = self.epochs.of_size(commit.size)[1]
            if not ed25519_verify(key.key, key.body(commit.size, commit.root), commit.signature):
                raise Bad("the signature of the commit of %d records was not made by %s" % (commit.size, key.short()))
            self.signatures += 1

    def log(self, name, file, first, last):
        """A segment that is not sealed. What stands behind its last commit is no part of the history."""
        head = file.read(64)
        if last and not head.strip(b"\0"):
            return
        if len(head) != 64 or head[:8] != b"BHLEDGER" or struct.unpack("<I", head[60:])[0] != crc32c(head[:60]):
            raise Bad("the header is not one")
        version, height, root, salt = struct.unpack("<8xIQ32s8s4x", head)
        if version != 1 or height != first + 1 or root != self.frontier.root():
            raise Bad("the header does not continue the segment before it, or is of another version")
        offset, pending, kept = 64, [], 64
        before = (self.frontier.size, list(self.frontier.peaks), self.prev)
        why = None
        while True:
            frame = file.read(9)
            if not frame.strip(b"\0"):
                break
            length, crc, kind = struct.unpack("<IIB", frame) if len(frame) == 9 else (1 << 20, 0, 0)
            payload = file.read(length) if length <= MAX_RECORD else b""
            start = crc32c(salt + struct.pack("<QB", offset, kind))
            if len(payload) != length or crc32c(payload, start) != crc:
                why = "what stands here is no frame, or its checksum is wrong"
                break
            offset += 9 + length
            if kind == 1:
                self.add(payload)
                pending.append(1)
            elif kind == 2:
                self.commit(Commit(payload))
                pending, kept = [], offset
                before = (self.frontier.size, list(self.frontier.peaks), self.prev)
            elif kind == 3:
                if length < 40 or struct.unpack("<Q", payload[:8])[0] > self.frontier.size:
                    raise Bad("a cosigned head that the log does not reach")
                kept = offset
            else:
                raise Bad("a frame of the unknown type %d" % kind)
        # Records without a commit are not history.
        self.frontier.size, self.frontier.peaks, self.prev = before
        del self.leaves[32 * self.frontier.size:]
        self.frontier.roots = {n: r for n, r in self.frontier.roots.items() if n <= self.frontier.size}
        self.named, self.said = None, []
        behind, found = self.behind(file, kept, salt)
        if found:
            raise Bad("byte %d: %s; but a commit follows at byte %d, so this is no crash (or one that the agent has not repaired)"
                      % (offset, why or "nothing is written here", found))
        if behind and not last:
            raise Bad("%s, and more segments follow" % (why or "something stands behind the last commit"))
        if behind:
            self.report.notes.append("%d bytes behind the last commit: an append going on or interrupted; no part of the history" % behind)

    @staticmethod
    def behind(file, start, salt):
        """Bytes written behind `start`, and where the first valid commit among them is (0: none)."""
        file.seek(start)
        mark, at, written, rest = struct.pack("<I", 116), start, 0, b""
        while True:
            chunk = file.read(1 << 20)
            if not chunk:
                return written, 0
            data, base = rest + chunk, at - len(rest)
            filled = len(chunk.rstrip(b"\0"))
            if filled:
                written = at + filled - start
            place = data.find(mark) if data.strip(b"\0") else -1
            while place >= 0:
                frame = data[place:place + 125]
                if len(frame) == 125 and frame[8] == 2 and base + place >= start:
                    if crc32c(salt + struct.pack("<QB", base + place, 2) + frame[9:]) == struct.unpack("<I", frame[4:8])[0]:
                        return written, base + place
                place = data.find(mark, place + 1)
            at += len(chunk)
            rest = data[-124:]

    def sealed(self, seg, first, file):
        """A sealed segment: leaf hashes and the last commit from .hsh, the records from .zst where zstd is installed."""
        fixed = file.read(216)
        if len(fixed) != 216 or fixed[:8] != b"BHSEALED":
            raise Bad("it does not begin with BHSEALED")
        version, count, height, root, prev = struct.unpack("<8xIIQ32s32s", fixed[:88])
        commit, (places, epochs, cosigned) = Commit(fixed[88:204]), struct.unpack("<III", fixed[204:])
        if version != 1 or not 0 < count <= SEGMENT_RECORDS or places > count or epochs > 1024 or cosigned > MAX_TEXT:
            raise Bad("its head is impossible, or of another version")
        bundles = -(-count // BUNDLE)
        at = bundles * 49 + places * 4
        rest = file.read(at + epochs * 120 + cosigned + 4)
        if len(rest) != at + epochs * 120 + cosigned + 4 or crc32c(rest[:-4], crc32c(fixed)) != struct.unpack("<I", rest[-4:])[0]:
            raise Bad("the checksum of its head is wrong")
        if height != first + 1 or root != self.frontier.root() or prev != self.prev:
            raise Bad("its head does not continue the segment before it")
        # The last commits that the old keys signed in this segment, each of them with the record that names the next key.
        turns = [Commit(rest[n + 4:n + 120]) for n in range(at, at + epochs * 120, 120)]
        hashes = file.read(count * 32 + 1)
        if len(hashes) != count * 32:
            raise Bad("it has not as many hashes as records")
        leaves = [hashes[at:at + 32] for at in range(0, len(hashes), 32)]
        table = [struct.unpack("<IIBq32s", rest[at:at + 49]) for at in range(0, bundles * 49, 49)]
        for number, (_, plain, flags, _, bundle_root) in enumerate(table):
            if flags > 1 or plain > BUNDLE * (2 + MAX_RECORD):
                raise Bad("the description of bundle %d is impossible" % number)
            if tree_root(leaves[number * BUNDLE:][:BUNDLE]) != bundle_root:
                raise Bad("the root of bundle %d is not that of its hashes" % number)
        path = os.path.join(seg, "%012d.zst" % first)
        packed = open_file(path)
        if packed is None:
            self.without_payloads(seg, first, leaves, turns, sha256(fixed + rest + hashes).hex())
            return self.commit(commit)
        with packed:
            if os.fstat(packed.fileno()).st_size != sum(entry[0] for entry in table):
                raise Bad("%s does not have the length that its hashes say" % path)
            readable = shutil.which("zstd") is not None
            if turns and not readable and self.epochs.list:
                raise Unreadable("a record in %s names the next key; install zstd, so that it can be read" % path)
            records = self.unpack(packed, table, leaves) if readable else leaves
            for record in records:
                if readable:
                    self.add(record)
                else:
                    self.unread += 1
                    self.add_leaf(record)
                if turns and turns[0].size == self.frontier.size:
                    self.commit(turns.pop(0))
        if turns:
            raise Bad("a commit in it is of records that it does not have")
        self.commit(commit)

    def without_payloads(self, seg, first, leaves, turns, hashes):
        """A segment whose payloads may have been pruned: the hashes, and the records that were kept."""
        name = "%012d.kept" % first
        data = read_file(os.path.join(seg, name), MAX_KEPT)
        if data is None or first % BUNDLE or len(leaves) % BUNDLE:
            raise Bad("%012d.zst is missing" % first)
        lines = data.split(b"\n")
        if lines.pop():
            raise Bad("%s ends inside a line" % name)
        kept, at = {}, 0
        for leaf in map(leaf_hash, lines):
            while at < len(leaves) and leaves[at] != leaf:
                at += 1
            if at == len(leaves):
                raise Bad("a record in %s is not of this segment, or not in order" % name)
            kept[at], at = lines[len(kept)], at + 1
        for place, leaf in enumerate(leaves):
            if place in kept:
                self.add(kept[place])
            else:
                self.add_leaf(leaf)
            if turns and turns[0].size == self.frontier.size:
                self.commit(turns.pop(0))
        if turns:
            raise Bad("a commit in it is of records that it does not have")
        self.pruned[first] = (len(leaves), hashes, sha256(data).hex())

    def may_be_gone(self):
        """Is there a record for each segment without payloads?"""
        for first, found in sorted(self.pruned.items()):
            count, hashes, kept, by = self.prunings.get(first, (None, None, None, None))
            if (count, hashes, kept) != found:
                raise Bad("%012d.zst is missing, and no record says that records %d to %d were pruned like this"
                          % (first, first + 1, first + found[0]))
            self.report.notes.append("the payloads of records %d to %d were pruned, as record %d says: only their hashes were checked"
                                     % (first + 1, first + found[0], by))

    def unpack(self, packed, table, leaves):
        """The records of a sealed segment, each the one with the hash kept for it. zstd is asked for bounded amounts."""
        zstd = subprocess.Popen(["zstd", "-q", "-d", "-c", "--memory=32MB"], stdin=packed, stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, close_fds=True, env={"PATH": os.environ.get("PATH", os.defpath)})
        try:
            index, prev = 0, self.prev
            for _, plain, elided, _, _ in table:
                data, at = zstd.stdout.read(plain), 0
                if len(data) != plain:
                    raise Bad("the records of height %d on cannot be unpacked" % (self.frontier.size + 1))
                for leaf in leaves[index:index + BUNDLE]:
                    length = int.from_bytes(data[at:at + 2], "big")
                    record, at = data[at + 2:at + 2 + length], at + 2 + length
                    if elided:
                        place = record.rfind(b'"prev_hash":""')
                        record = record[:place + 13] + prev.hex().encode() + record[place + 13:] if place >= 0 else b""
                    if leaf_hash(record) != leaf:
                        raise Bad("the record is not the one with the hash kept for it")
                    yield record
                    index, prev = index + 1, leaf
                if at != plain:
                    raise Bad("there is more in a bundle than its records")
            if zstd.stdout.read(1):
                raise Bad("there is more in the segment than its records")
        finally:
            zstd.kill()
            zstd.stdout.close()
            zstd.wait()


def verify_ledger(root, args):
    report = Report("ledger")
    keys = args.keys
    if not keys:
        text = read_file(os.path.join(root, "vkey"), MAX_TEXT)
        lines = text.decode("utf-8", "replace").split("\n") if text else []
        keys = [Key(line) for line in lines[:1] if line.strip()]
        report.notes.append("the key was read beside the ledger: this shows that nothing is inconsistent, not that it is "
                            "authentic; give the key kept elsewhere with --key" if keys else
                            "there is no verifier key: NO SIGNATURE WAS CHECKED; give it with --key")
        if not keys:
            report.problem("vkey", "there is no verifier key")
    heads = []
    for name in ("checkpoint", "cosigned"):
        data = read_file(os.path.join(root, name), MAX_TEXT)
        if data is not None:
            heads.append((name, data.decode("utf-8", "replace"), "published"))
    if args.trusted:
        heads.append(("the trusted checkpoint", args.trusted, "kept elsewhere"))
    parsed = []
    for name, note, how in heads:
        try:
            parsed.append((name, note, how) + parse_checkpoint(note)[:3])
        except Bad as error:
            report.problem(name, str(error))
    ledger = Ledger(report, keys[0] if keys else None, [head[4] for head in parsed], args.every)
    seg, segments = os.path.join(root, "seg"), {}
    for name in list_dir(seg):
        match = re.match(r"([0-9]{12,20})\.(log|hsh)\Z", name, re.ASCII)
        # While there is a log it is the truth: its sealed form may not be finished.
        if match and name == "%012d.%s" % (int(match.group(1)), match.group(2)):
            segments[int(match.group(1))] = min(name, segments.get(int(match.group(1)), name), key=lambda n: n.endswith("hsh"))
    place = "seg"
    try:
        for number, (first, name) in enumerate(sorted(segments.items())):
            place = "seg/" + name
            if first != ledger.frontier.size:
                raise Bad("this segment begins with height %d, the one before it ends with %d: a segment is missing or was moved"
                          % (first + 1, ledger.frontier.size))
            with open_file(os.path.join(seg, name)) as file:
                if name.endswith(".hsh"):
                    ledger.sealed(seg, first, file)
                else:
                    ledger.log(name, file, first, number + 1 == len(segments))
        ledger.check_signature()
        ledger.may_be_gone()
        whole = True
    except Bad as error:
        report.problem(place, str(error), ledger.frontier.size + 1)
        whole = False
    if whole:
        compare_heads(report, ledger, parsed)
        verify_beside(report, root, ledger)
    if ledger.unread:
        report.notes.append("zstd is not installed: of %d sealed records only the hashes were checked, not the records" % ledger.unread)
    if ledger.commits > ledger.signatures and keys:
        report.notes.append("%d of %d commits had their signature verified (the last of each key covers all before it); "
                            "--all-signatures verifies each" % (ledger.signatures, ledger.commits))
    report.facts = {"records": ledger.frontier.size, "root": ledger.frontier.root().hex(), "commits": ledger.commits,
                    "signatures": ledger.signatures, "keys": [key.short() for key in ledger.epochs.keys()],
                    "key_given": bool(args.keys), "records_not_read": ledger.unread}
    return report


def compare_heads(report, ledger, heads):
    for name, note, how, _, size, root in heads:
        try:
            if ledger.epochs.list:
                open_checkpoint(note, [ledger.epochs.of_size(size)[1]], name)
            if size > ledger.frontier.size:
                raise Bad("the head %s has %d records, the ledger has only %d: its end was cut off or an old copy was put back"
                          % (how, size, ledger.frontier.size))
            if ledger.frontier.roots.get(size) != root:
                raise Bad("the first %d records do not have the root of the head %s: the history was rewritten" % (size, how))
        except Bad as error:
            report.problem(name, str(error))


def verify_beside(report, root, ledger):
    """Block files beside the segments, which they are derived from."""
    blocks = os.path.join(root, "blockchain")
    if os.path.isdir(blocks):
        inner = Report("blocks")
        if ledger.pruned:
            report.notes.append("block files were not compared: those of pruned records are gone")
        else:
            check_blocks(inner, blocks, lambda height: bytes(ledger.leaves[32 * height - 32:32 * height]))
        report.problems += inner.problems
        report.notes += inner.notes


# --- Block files -----------------------------------------------------------------------------------------------------
BLOCK_FIELDS = ("block_id", "first_height", "merkle_root", "previous_hash", "timestamp", "tree_size")


def check_blocks(report, root, expected=None, wanted=()):
    """Every block: its hash, the block before it, its records, the tree up to it. `expected` gives the leaf of a height."""
    names = [name for name in list_dir(root) if name.startswith("block_")]
    frontier, prev, before, lines = Frontier(wanted), bytes(32), "0" * 64, []
    for number, name in enumerate(names, 1):
        try:
            if name != "block_%010d.json" % number:
                raise Bad("block %d is missing, or this is not a block" % number)
            block = parse_json(read_file(os.path.join(root, name), MAX_BLOCK_FILE) or b"", name)
            head = {key: block.get(key) for key in BLOCK_FIELDS} if isinstance(block, dict) else {}
            footprints = block.get("footprints") if head else None
            if not isinstance(footprints, list) or not 0 < len(footprints) <= BUNDLE or set(block) - set(BLOCK_FIELDS) != {"block_hash", "footprints"}:
                raise Bad("it is not a block: other fields, or no records")
            if head["block_id"] != number or head["previous_hash"] != before or head["first_height"] != frontier.size + 1:
                raise Bad("it does not follow the block before it")
            before = sha256(canonical_bytes(head)).hex()
            if block["block_hash"] != before:
                raise Bad("block_hash is not the hash of its head")
            for footprint in footprints:
                height = frontier.size + 1
                if not isinstance(footprint, dict):
                    raise Bad("height %d is no record" % height)
                hash_ = footprint.pop("hash", None)
                features = footprint.pop("vector_features", [0] * 64)
                if not isinstance(features, list) or len(features) != 64 or not all(type(n) in (int, float) and -33 < n < 33 for n in features):
                    raise Bad("the features of height %d are not 64 small numbers" % height)
                record = canonical_bytes(footprint)
                check_record(record, height, prev)
                prev = leaf_hash(record)
                if hash_ != prev.hex() or (expected and expected(height) != prev):
                    raise Bad("the record of height %d is not the one with its hash" % height)
                if "metadata" in footprint and footprint.get("data_hash") != sha256(canonical_bytes(footprint["metadata"])).hex():
                    raise Bad("the data_hash of height %d is not that of its metadata" % height)
                frontier.push(prev)
            if head["tree_size"] != frontier.size or head["merkle_root"] != frontier.root().hex():
                raise Bad("the tree up to this block is another one")
            if len(footprints) < BUNDLE and number < len(names):
                raise Bad("it is not full, and more blocks follow")
            lines.append((number, before))
        except Bad as error:
            report.problem(os.path.join(os.path.basename(root), name), str(error), frontier.size + 1)
            return frontier
    index = read_file(os.path.join(root, "index.json"), 1 << 30)
    if index is not None and names:
        listed = index_blocks(root, parse_json(index, "index.json"), len(names))
        found = [(b.get("block_id"), b.get("block_hash")) for b in listed if isinstance(b, dict)] if isinstance(listed, list) else None
        # The open block may have been rewritten, or begun, a moment before the index.
        if not found or found[:-1] != lines[:len(found) - 1] or len(lines) - len(found) not in (0, 1):
            report.problem("index.json", "the index does not list these blocks")
    return frontier


def index_blocks(root, index, blocks):
    """The blocks that the index lists, with those in its pages; None when a page is missing or is none."""
    if not isinstance(index, dict):
        return None
    listed, pages = [], index.get("pages", 0)
    # Each page has 256 blocks: no more are read than there can be.
    if type(pages) is not int or not 0 <= pages <= blocks // BUNDLE:
        return None
    for number in range(1, pages + 1):
        name = "index_%010d.json" % number
        page = parse_json(read_file(os.path.join(root, name), MAX_TEXT) or b"", name)
        inner = page.get("blocks") if isinstance(page, dict) else None
        if not isinstance(inner, list):
            return None
        listed += inner
    last = index.get("blocks")
    return listed + last if isinstance(last, list) else None


def verify_blocks(root, args):
    report = Report("blocks")
    heads = [("the trusted checkpoint", args.trusted, "kept elsewhere")] if args.trusted else []
    parsed = [head + parse_checkpoint(head[1])[:3] for head in heads]
    frontier = check_blocks(report, root, None, [head[4] for head in parsed])
    for name, note, how, _, size, root_hash in parsed:
        if args.keys:
            open_checkpoint(note, args.keys, name)
        if not report.problems and frontier.roots.get(size) != root_hash:
            report.problem(name, "the blocks do not begin with its %d records: cut off, or rewritten" % size)
    if not (args.trusted and args.keys):
        report.notes.append("block files carry no signature: NO SIGNATURE WAS CHECKED; give --key and --trusted-checkpoint")
    report.facts = {"records": frontier.size, "root": frontier.root().hex()}
    return report


# --- An exported C2SP tlog-tiles directory ---------------------------------------------------------------------------
def tile_name(index):
    name = "%03d" % (index % 1000)
    while index >= 1000:
        index //= 1000
        name = "x%03d/%s" % (index % 1000, name)
    return name


def read_tile(root, kind, index, width, limit):
    base = os.path.join(root, "tile", kind, tile_name(index))
    for path in ([base] if width == BUNDLE else [os.path.join(base + ".p", str(width)), base]):
        data = read_file(path, limit)
        if data is not None:
            return data
    raise Bad("%s is missing" % base)


def verify_c2sp(root, args):
    report = Report("c2sp")
    note = read_text(os.path.join(root, "checkpoint"), "the checkpoint")
    if args.keys:
        size, head = open_checkpoint(note, args.keys, "checkpoint")
    else:
        size, head = parse_checkpoint(note)[1:3]
        report.problem("checkpoint", "no key was given: NO SIGNATURE WAS CHECKED; give it with --key")
    trusted = parse_checkpoint(args.trusted)[1:3] if args.trusted else None
    if trusted and args.keys:
        open_checkpoint(args.trusted, args.keys, "the trusted checkpoint")
    if size > 1 << 40:
        raise Bad("the checkpoint has more records than can be here")
    frontier, prev = Frontier([trusted[0]] if trusted else []), bytes(32)
    waiting = [[] for _ in range(8)]   # hashes of each level, as far as its tile is not full

    def check_tile(level, index, hashes):
        data = read_tile(root, str(level), index, len(hashes), BUNDLE * 32)
        if data[:len(hashes) * 32] != b"".join(hashes):
            raise Bad("tile/%d/%s does not have the hashes of what is below it" % (level, tile_name(index)))

    try:
        for index in range(-(-size // BUNDLE)):
            width = min(BUNDLE, size - index * BUNDLE)
            data, at = read_tile(root, "entries", index, width, BUNDLE * (MAX_RECORD + 2)), 0
            for _ in range(width):
                length = int.from_bytes(data[at:at + 2], "big")
                record, at = data[at + 2:at + 2 + length], at + 2 + length
                if at > len(data):
                    raise Bad("tile/entries/%s ends inside a record" % tile_name(index))
                check_record(record, frontier.size + 1, prev)
                prev = leaf_hash(record)
                frontier.push(prev)
                waiting[0].append(prev)
            level = 0
            while len(waiting[level]) == BUNDLE:
                check_tile(level, (frontier.size >> 8 * (level + 1)) - 1, waiting[level])
                waiting[level + 1].append(tree_root(waiting[level]))
                waiting[level] = []
                level += 1
        for level, hashes in enumerate(waiting):
            if hashes:
                check_tile(level, frontier.size >> 8 * (level + 1), hashes)
        if frontier.root() != head:
            raise Bad("the records do not have the root of the checkpoint")
        if trusted and frontier.roots.get(trusted[0]) != trusted[1]:
            raise Bad("the log does not begin with the %d records of the checkpoint kept elsewhere: cut off, or rewritten" % trusted[0])
    except Bad as error:
        report.problem("tile", str(error), frontier.size + 1)
    report.facts = {"records": frontier.size, "root": frontier.root().hex()}
    return report


# --- Files: proofs and claims ----------------------------------------------------------------------------------------
def verify_proof(text, args):
    report = Report("proof")
    head, _, note = text.partition("\n\n")
    lines = head.split("\n")[1:]
    extra = unbase64(lines.pop(0)[6:], "the extra line") if lines and lines[0].startswith("extra ") else None
    if not lines or not lines[0].startswith("index "):
        raise Bad("there is no line `index N`")
    index = decimal(lines[0][6:], "the index")
    if len(lines) > 65:
        raise Bad("the path is longer than any tree is high")
    path = [unbase64(line, "a line of the path", 32) for line in lines[1:]]
    keys = need_keys(args)
    size, root, place = open_with(note, keys, "the checkpoint")
    if place + 1 < len(keys):
        report.notes.append("signed by %s, key %d of %d given, which was replaced: whoever got hold of it since could have made this "
                            "proof; ask for a new one, and give the newest key only" % (keys[place].short(), place + 1, len(keys)))
    record = args.record_bytes if args.record_bytes is not None else extra
    if record is None:
        raise Bad("the proof does not carry its record; give its exact bytes with --record")
    if root_of_path(leaf_hash(record), index, size, path) != root:
        raise Bad("the record is not number %d of the %d records of the signed head" % (index, size))
    if args.trusted and parse_checkpoint(args.trusted)[1:3] != (size, root):
        report.notes.append("the head of the proof is not the checkpoint kept elsewhere; a consistency file shows how they are related")
    report.facts = {"height": index + 1, "records": size, "root": root.hex(), "leaf": leaf_hash(record).hex()}
    return report


def unpack_compact(data, args):
    """The text that a compact proof stands for, about the record given."""
    if args.record_bytes is None:
        raise Bad("a compact proof does not carry its record; give its exact bytes with --record")
    name, rest = data[5:5 + data[4]], data[5 + data[4]:]
    if len(data) > 4096 or len(rest) < 84 or (len(rest) - 84) % 32:
        raise Bad("it is not a whole compact proof")
    index, size = struct.unpack(">QQ", rest[4:20])
    path = [rest[at:at + 32] for at in range(84, len(rest), 32)]
    root = root_of_path(leaf_hash(args.record_bytes), index, size, path)
    if root is None:
        raise Bad("its path does not have the length that index and size ask for")
    encode = lambda part: base64.b64encode(part).decode()
    try:
        name = name.decode("utf-8")
    except UnicodeDecodeError:
        raise Bad("the name of its log is not text")
    return "c2sp.org/tlog-proof@v1\nindex %d\n%s\n%s\n%d\n%s\n\n\u2014 %s %s\n" % (
        index, "".join(encode(hash_) + "\n" for hash_ in path), name, size, encode(root), name, encode(rest[:4] + rest[20:84]))


def verify_claim(text, args):
    report = Report("consistency")
    parts = text.split("\n\n")
    if len(parts) not in (3, 5):
        raise Bad("it does not have one or two checkpoints")
    lines = parts[0].split("\n")[1:]
    fields = lines[0].split(" ") if lines else []
    if len(fields) != 3 or fields[0] != "old" or len(lines) > 66:
        raise Bad("there is no line `old SIZE ROOT`, or the proof is too long")
    old = decimal(fields[1], "the older size"), unbase64(fields[2], "the older root", 32)
    proof = [unbase64(line, "a line of the proof", 32) for line in lines[1:]]
    keys = need_keys(args)
    new = open_with(parts[1] + "\n\n" + parts[2] + ("\n" if len(parts) == 5 else ""), keys, "the newer checkpoint")
    signed = False
    if len(parts) == 5:
        note = parts[3] + "\n\n" + parts[4]
        origin, size, root, _, signatures = parse_checkpoint(note)
        signed = any((key.name, key.id) == (name, id_) for key in keys for name, id_, _ in signatures)
        if signed:
            place = open_with(note, keys, "the older checkpoint")[2]
            if place > new[2] or (place != new[2] and size == new[0]):
                raise Bad("the newer checkpoint is signed by %s, which %s of the older one replaced: whoever has that old key made it"
                          % (keys[new[2]].short(), keys[place].short()))
        if (size, root) != old or origin != keys[0].name:
            raise Bad("the older checkpoint in the file is not the one that its proof begins with")
    if args.trusted and parse_checkpoint(args.trusted)[1:3] != old:
        raise Bad("the older head in the file is not the checkpoint kept elsewhere")
    if not consistent(old[0], old[1], new[0], new[1], proof):
        raise Bad("the %d records of the newer head do not begin with the %d of the older one" % (new[0], old[0]))
    if not signed and not args.trusted:
        report.notes.append("the older head is not signed by the key given: compare it with what you kept")
    report.facts = {"old_records": old[0], "old_root": old[1].hex(), "records": new[0], "root": new[1].hex(), "old_signed": signed}
    return report


def need_keys(args):
    if not args.keys:
        raise Unreadable("a proof needs the key that you trust: --key")
    return args.keys


# --- The command -----------------------------------------------------------------------------------------------------
FILES = {"c2sp.org/tlog-proof@v1": verify_proof, "blockhost-ledger/consistency@v1": verify_claim}


def verify(args):
    if args.path != "-" and os.path.isdir(args.path):
        for name, how in (("seg", verify_ledger), ("tile", verify_c2sp), ("block_0000000001.json", verify_blocks)):
            if os.path.lexists(os.path.join(args.path, name)):
                return how(args.path, args)
        raise Unreadable("%s has neither seg/ nor tile/ nor block files" % args.path)
    data = read_bytes(args.path, "the file")
    text = unpack_compact(data, args) if data.startswith(b"BHP\1") and len(data) > 5 else as_text(data, args.path, "the file")
    how = FILES.get(text.split("\n", 1)[0])
    if how is None:
        raise Unreadable("%s is neither a .tlog-proof nor a consistency file" % args.path)
    return how(text, args)


def printable(text):
    """Nothing that a terminal would obey."""
    return "".join(c if c.isprintable() else "\\u{%x}" % ord(c) for c in str(text))


def load_keys(given):
    text = given if re.match(r"\S+\+[0-9a-fA-F]{8}\+\S+\Z", given) else read_text(given, "the verifier key")
    return [Key(line) for line in text.split("\n") if line.strip()]


def main(argv=None):
    parser = argparse.ArgumentParser(
        description="Verify a BlockHost ledger, or a proof from one, with Python's standard library alone.",
        epilog="Exit codes: 0 good, 1 not verified, 2 wrong usage or nothing that can be read. "
               "Example: blockhost-ledger-verify --key ledger.vkey --trusted-checkpoint kept.txt /var/lib/blockhost-ledger")
    parser.add_argument("path", metavar="PATH", help="ledger directory, C2SP export, block files, .tlog-proof or consistency file (- for standard input)")
    parser.add_argument("--key", metavar="VKEY", help="the verifier key you trust (a ledger's first), or a file with it")
    parser.add_argument("--trusted-checkpoint", metavar="FILE", help="a checkpoint kept elsewhere: shows cutting, rollback and rewriting")
    parser.add_argument("--record", metavar="FILE", help="the record's exact bytes, for a proof that does not carry it")
    parser.add_argument("--all-signatures", dest="every", action="store_true", help="verify the signature of every commit (slow)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    try:
        args.keys = load_keys(args.key) if args.key else []
        args.trusted = read_text(args.trusted_checkpoint, "the trusted checkpoint") if args.trusted_checkpoint else None
        args.record_bytes = None
        if args.record:
            args.record_bytes = read_file(args.record, MAX_RECORD)
            if args.record_bytes is None:
                raise Unreadable("%s is missing" % args.record)
        report = verify(args)
    except Bad as error:
        report = Report("")
        report.problems.append({"height": None, "place": args.path, "what": str(error)})
    except (Unreadable, OSError) as error:
        if args.json:
            print(json.dumps({"ok": False, "error": str(error)}))
        print("blockhost-ledger-verify: %s" % printable(error), file=sys.stderr)
        return 2
    good = not report.problems
    if args.json:
        print(json.dumps(dict(report.facts, ok=good, kind=report.kind, problems=report.problems, notes=report.notes)))
    else:
        for problem in report.problems:
            height = "height %d: " % problem["height"] if problem["height"] else ""
            print("WRONG  %s%s: %s" % (height, printable(problem["place"]), printable(problem["what"])))
        for note in report.notes:
            print("note   %s" % printable(note))
        facts = ", ".join("%s %s" % (name, value) for name, value in report.facts.items())
        print("%s  %s" % ("good " if good else "WRONG", printable(facts)))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

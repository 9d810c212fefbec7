"""What a disk holds after a power cut, from the log of everything that was written to it.

The log is ``faulty_disk.c``'s. The one idea: a file's bytes last from its own fsync on, a name from
the fsync of its folder on, and a cut between any two calls keeps what lasts, plus, as the mode
says, names without their bytes, bytes without their names, or a chance part of both.
"""

import hashlib
import json
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

MODES: Final = ("nothing more", "names", "bytes", "some")
"""What the disk holds beside what was fsynced."""
_HEAD: Final = struct.Struct("=cIqQq")


@dataclass(slots=True)
class Node:
    """A file or a folder, as programs see it and as it lasts."""

    folder: bool
    content: bytearray = field(default_factory=bytearray)
    lasting: bytes = b""
    since: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Writes since the last fsync: where and what; None cuts the file there."""
    names: "dict[str, Node]" = field(default_factory=dict)
    lasting_names: "dict[str, Node]" = field(default_factory=dict)

    def write(self, offset: int, data: bytes | None) -> None:
        self.since.append((offset, data))
        _change(self.content, offset, data)

    def last(self) -> None:
        """fsync."""
        self.lasting, self.lasting_names = bytes(self.content), dict(self.names)
        self.since.clear()


def _change(content: bytearray, offset: int, data: bytes | None) -> None:
    end = offset if data is None else offset + len(data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset:end] = data


@dataclass(frozen=True, slots=True)
class Call:
    """One record of the log."""

    kind: str
    """C create, T cut, W write, S fsync a file, D fsync a folder, R rename, M mkdir, U remove, A
    an acknowledgement."""
    path: str
    offset: int
    data: bytes
    number: int
    """Which watched call of the command it was, from 1; an acknowledgement has that before it."""


def read_log(path: Path) -> Iterator[Call]:
    """The calls of one command, in order."""
    content, at = path.read_bytes(), 0
    while at < len(content):
        kind, length, offset, size, number = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        name = content[at : at + length].decode()
        data = content[at + length : at + length + size]
        yield Call(kind.decode(), name, offset, data, number)
        at += length + size


class Model:
    """A folder on a disk, call by call."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self.top = Node(folder=True)
        self.books: dict[str, Any] | None = None
        """What the ledger acknowledged last."""
        self.past: dict[str, set[str]] = {}
        """Files that were there when the graph went past its last border: what each held then and
        has held since, as SHA-256."""

    def follow(self, call: Call) -> None:
        """Take in one call."""
        if call.kind == "A":
            self._acknowledge(json.loads(call.data))
            return
        if call.path.endswith(" (deleted)"):
            return
        if call.path == self._root:
            self.top.last()
            return
        parent, name = self._place(call.path)
        match call.kind:
            case "C" | "M":
                parent.names[name] = Node(folder=call.kind == "M")
            case "W":
                parent.names[name].write(call.offset, call.data)
            case "T":
                parent.names[name].write(call.offset, None)
            case "S" | "D":
                parent.names[name].last()
            case "U":
                parent.names.pop(name)
            case "R":
                target, new = self._place(call.data.decode())
                target.names[new] = parent.names.pop(name)
                self._seen()

    def _place(self, path: str) -> tuple[Node, str]:
        node = self.top
        *above, name = path.removeprefix(f"{self._root}/").split("/")
        for part in above:
            node = node.names[part]
        return node, name

    def _acknowledge(self, said: dict[str, Any]) -> None:
        if "books" in said:
            self.books = said["books"]
        else:
            self.past = {name: {_sha(data)} for name, data in self._records().items()}

    def _seen(self) -> None:
        for name, data in self._records().items():
            if name in self.past:
                self.past[name].add(_sha(data))

    def _records(self) -> dict[str, bytes]:
        """Every file that is not a database, a lock or a scratch file, as programs see it."""
        held = {name: bytes(n.content) for name, n in _files(self.top, "")}
        return {name: data for name, data in held.items() if is_record(name)}

    def after_a_cut(self, mode: str, chance: random.Random) -> dict[str, bytes]:
        """Files, by path, that the disk holds if the power fails now."""
        return dict(_held(self.top, "", mode, chance))


def is_record(name: str) -> bool:
    """Whether a file is one that is written once and replaced as a whole."""
    last = name.rsplit("/", 1)[-1]
    return not (
        ".sqlite" in last or last == "run.lock" or any(p.startswith(".") for p in name.split("/"))
    )


def _files(node: Node, prefix: str) -> Iterator[tuple[str, Node]]:
    for name, child in node.names.items():
        if child.folder:
            yield from _files(child, f"{prefix}{name}/")
        else:
            yield prefix + name, child


def _held(node: Node, prefix: str, mode: str, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    current = mode == "names" or (mode == "some" and chance.random() < 0.5)
    for name, child in (node.names if current else node.lasting_names).items():
        if child.folder:
            yield from _held(child, f"{prefix}{name}/", mode, chance)
        else:
            yield prefix + name, _bytes(child, mode, chance)


def _bytes(node: Node, mode: str, chance: random.Random) -> bytes:
    if mode == "bytes":
        return bytes(node.content)
    content = bytearray(node.lasting)
    if mode == "some":
        for offset, data in node.since:
            if chance.random() < 0.5:
                _change(content, offset, data)
    return bytes(content)


def restore(held: dict[str, bytes], folder: Path) -> None:
    """Make ``folder`` hold that; what SQLite shares in memory does not outlive a power cut."""
    for name, content in held.items():
        if name.endswith("-shm"):
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def lost_records(model: Model, held: dict[str, bytes]) -> list[str]:
    """Records that the graph went past and the disk does not hold in that or a later text."""
    return [
        name
        for name, known in model.past.items()
        if name not in held or _sha(held[name]) not in known
    ]

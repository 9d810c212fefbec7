"""How the graph's checkpoints lie on the disk: sealed JSON, and a file that can be set aside.

LangGraph is ``graph.py``'s. The one idea: a checkpoint is a hint, and what was paid for is in the
journal; so whatever is not exactly what was written is dropped, and nothing in it is ever called.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from agent import files
from agent.errors import StorageError

KIND: Final = "sealed-json"
"""What a value's type column says."""
MAX_BYTES: Final = 1 << 16
"""Of one value; a longer one was not written here."""
_DIGITS: Final = 64
_INTERRUPT: Final = {"interrupt", "id"}
_THE_FOLDER: Final = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
"""Errors of SQLite about what may be written; also what it says of a damaged header."""
_THE_DISK: Final = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
}
"""Errors of SQLite that do not say that the file is damaged."""


class Damaged(ValueError):
    """A checkpoint is not what was written."""


class SealedJson:
    """LangGraph's serializer: JSON behind the SHA-256 of its bytes, and nothing else.

    No type is looked up by name, so a hostile file can name none. The one object that LangGraph
    adds to plain values, its interrupt, is made by the function given.
    """

    def __init__(self, interrupt: Callable[..., Any]) -> None:
        self._interrupt = interrupt

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """What the columns for type and value hold."""
        text = json.dumps(obj, separators=(",", ":"), allow_nan=False, default=_as_json)
        body = text.encode("ascii")
        assert len(body) <= MAX_BYTES - _DIGITS, "samples belong into artifacts"
        return KIND, hashlib.sha256(body).hexdigest().encode("ascii") + body

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """The value of those columns.

        Raises:
            Damaged: if they are not what :meth:`dumps_typed` gave.
        """
        kind, content = data
        if kind != KIND or not isinstance(content, bytes) or len(content) > MAX_BYTES:
            raise Damaged(f"a value of type {str(kind)[:40]!r}")
        seal, body = content[:_DIGITS], content[_DIGITS:]
        if hashlib.sha256(body).hexdigest().encode("ascii") != seal:
            raise Damaged("a value that its seal does not fit")
        try:
            return json.loads(body, object_hook=self._from_json)
        except (ValueError, RecursionError) as error:
            raise Damaged("a value that is not JSON") from error

    def _from_json(self, found: dict[str, Any]) -> Any:
        if found.keys() != _INTERRUPT:
            return found
        return self._interrupt(value=found["interrupt"], id=found["id"])


def _as_json(value: Any) -> dict[str, Any]:
    """An interrupt; anything else in a checkpoint is a programmer's mistake."""
    return {"interrupt": value.value, "id": value.id}


def set_aside(path: Path) -> None:
    """Give a damaged file, and what SQLite keeps beside it, another name.

    Raises:
        StorageError: if the disk refuses, which may be why it could not be read.
    """
    for suffix in ("", "-wal", "-shm"):
        with files.storage_errors(path), suppress(FileNotFoundError):
            beside = path.with_name(path.name + suffix)
            beside.replace(path.with_name(f"{path.name}.damaged{suffix}"))


def is_sound(path: Path, read: Callable[[sqlite3.Connection], object]) -> bool:
    """Whether SQLite finds no fault with a file and ``read`` can read it, or it is not there.

    Raises:
        sqlite3.Error: if the disk, and not the file, is at fault.
    """
    if not path.exists():
        return True
    try:
        with closing(sqlite3.connect(path, check_same_thread=False)) as connection:
            found: list[Any] = connection.execute("PRAGMA integrity_check").fetchall()
            if found != [("ok",)]:
                return False
            read(connection)
    except sqlite3.Error as error:
        if _of_the_disk(error, path):
            raise
        return False
    except (ValueError, TypeError, KeyError, AttributeError, LookupError):
        # What a reader meets where a column holds another kind of value than was written.
        return False
    return True


def _of_the_disk(error: sqlite3.Error, path: Path) -> bool:
    code: Any = getattr(error, "sqlite_errorcode", None)
    if not isinstance(code, int):
        return False
    if code & 0xFF in _THE_FOLDER:
        return not (os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK))
    return code & 0xFF in _THE_DISK


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite says of the disk into a :class:`StorageError`."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"cannot write {path}: {error}; make room on the disk, then resume the run"
        ) from error

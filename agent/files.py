"""Files that are either whole or not there, even after a power cut.

Knows nothing of runs; ``agent/store.py`` decides which paths may be written. The one idea: write
beside, fsync, rename, fsync the folder. Whatever the operating system refuses becomes a
:class:`StorageError` that says what to do.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from agent.errors import StorageError

_SCRATCH: Final = re.compile(r"\..+\.[0-9]+\.[0-9a-f]{8}\.tmp")

_ADVICE: Final = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "your disk quota is used up: free some space",
    errno.EFBIG: "the file would exceed the size limit (ulimit -f): raise it",
    errno.EIO: "the disk reports an error: check or replace it",
    errno.EROFS: "the disk is mounted read-only: mount it for writing",
    errno.EACCES: "permission denied: make the folder yours to write",
    errno.EPERM: "permission denied: make the folder yours to write",
}


@contextmanager
def storage_errors(path: Path, *, then: str = "resume the run") -> Iterator[None]:
    """Turn an :class:`OSError` of a write below ``path`` into a :class:`StorageError`.

    ``then`` says what to do after its cause is mended.
    """
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, error.strerror or "the write failed")
        raise StorageError(f"cannot write {path}: {advice}, then {then}") from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file object beside ``path`` that takes its place when the block ends without an error.

    Raises:
        StorageError: if the disk refuses; ``path`` then holds what it held before.
    """
    with beside(path.parent, path.name) as (stream, temporary):
        yield stream
        keep(stream, temporary, path=path)


@contextmanager
def beside(folder: Path, name: str) -> Iterator[tuple[BinaryIO, Path]]:
    """A scratch file in ``folder`` that is gone after the block, unless it was kept.

    Raises:
        StorageError: if the disk refuses.
    """
    temporary = scratch(folder / name)
    with storage_errors(folder / name):
        try:
            with temporary.open("xb") as stream:
                yield stream, temporary
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def scratch(path: Path) -> Path:
    """A name beside ``path`` that no other process uses, and that :func:`sweep` knows."""
    return path.with_name(f".{path.name[:80]}.{os.getpid()}.{os.urandom(4).hex()}.tmp")


def keep(stream: BinaryIO, temporary: Path, *, path: Path) -> None:
    """Make a scratch file from :func:`beside` durable under the name ``path``."""
    stream.flush()
    os.fsync(stream.fileno())
    temporary.replace(path)
    fsync_folder(path.parent)


def sweep(folder: Path) -> int:
    """Remove what killed writers left below ``folder``; only for the holder of its lock.

    Returns:
        How many files and folders were removed.
    """
    left = [path for path in folder.rglob(".*.tmp") if _SCRATCH.fullmatch(path.name)]
    with storage_errors(folder):
        for path in left:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    return len(left)


def fsync_folder(folder: Path) -> None:
    """Make the names in ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Make the names in ``folder`` and in every folder below it survive a power cut."""
    for at, _, _ in os.walk(folder):
        fsync_folder(Path(at))


def swap_folder(finished: Path, target: Path) -> None:
    """Give a finished folder beside ``target`` its name, durably.

    What held the name is moved out of the way first, so that nothing half-removed ever bears it.
    """
    aside = scratch(target)
    if target.exists():
        target.replace(aside)
    finished.replace(target)
    fsync_folder(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Create ``folder`` and the missing ones above it, durably.

    Raises:
        StorageError: if the disk refuses.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with storage_errors(folder):
        folder.mkdir(exist_ok=True)
        fsync_folder(folder.parent)

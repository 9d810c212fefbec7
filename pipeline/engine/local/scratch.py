"""Folders for files in the making, which a killed process does not leave behind for long.

The one idea: whoever works in such a folder holds a lock in it, which the kernel lets go of when
the process dies; whoever makes the next one first removes those that nobody holds.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

PREFIX: Final = ".convert-"
_LOCK: Final = "lock"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent``, removed at the end, and before it those that were abandoned."""
    parent.mkdir(parents=True, exist_ok=True)
    for folder in parent.glob(f"{PREFIX}*"):
        _remove_abandoned(folder)
    folder, lock = _locked(parent)
    with lock:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    with suppress(OSError), (folder / _LOCK).open("ab") as lock:  # held, or gone already
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


def _locked(parent: Path) -> tuple[Path, IO[bytes]]:
    """A new folder and its lock; another one where a neighbour took it for abandoned."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=PREFIX))
        try:
            lock = (folder / _LOCK).open("ab")
        except FileNotFoundError:
            continue
        with suppress(OSError):  # a file system without locks: nobody can take it away either
            fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock.fileno()).st_nlink:
            return folder, lock
        lock.close()

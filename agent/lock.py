"""One process per run: a lock that the operating system releases, however the process dies.

Fencing off a process that lost its lock without noticing is ``RunDatabase.claim``'s part. The one
idea: ``flock`` decides; what is written into the file only names its holder for the message.
"""

import fcntl
import json
import os
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final

from agent.errors import RunLocked
from agent.files import storage_errors

_TRIES: Final = 5
_PAUSE_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that works on a run."""

    pid: int
    """Its process id."""
    host: str
    """The machine it runs on."""
    started: str
    """When it took the lock: ISO 8601, UTC."""


class RunLock:
    """Held while a process works on a run; a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def __enter__(self) -> "RunLock":
        """Take the lock.

        Raises:
            RunLocked: naming the process that holds it.
            StorageError: if the file cannot be written.
        """
        with ExitStack() as undo:
            with storage_errors(self.path):
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                handle = os.open(self.path, flags, 0o644)
            undo.callback(os.close, handle)
            if not _take(handle):
                raise RunLocked(_refusal(self.path, _read(handle)))
            with storage_errors(self.path):
                _write(handle)
            undo.pop_all()
        self._handle = handle
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        # The file stays: removing it would let two processes lock two files of the same name.
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def holder(path: Path) -> Holder | None:
    """The process that works on the run whose lock is at ``path``, or None."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(handle) or Holder(0, "unknown", "unknown")
    finally:
        os.close(handle)
    return None


def _take(handle: int) -> bool:
    # A few tries, since holder() holds a shared lock for an instant.
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False


def _write(handle: int) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps(asdict(Holder(os.getpid(), os.uname().nodename, now)))
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode(), 0)


def _read(handle: int) -> Holder | None:
    try:
        found = json.loads(os.pread(handle, 4096, 0))
        return Holder(int(found["pid"]), str(found["host"]), str(found["started"]))
    except (ValueError, KeyError, TypeError):
        return None


def _refusal(path: Path, found: Holder | None) -> str:
    who = f"process {found.pid} on {found.host} (since {found.started})" if found else "a process"
    return (
        f"{who} works on run {path.parent.name!r}: wait until it ends, or stop it "
        "with Ctrl-C, then resume"
    )

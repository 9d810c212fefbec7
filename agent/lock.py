"""One process per run: a lock that the operating system releases, however the process dies.

Fencing off a process that lost its lock without noticing is ``RunDatabase.claim``'s part. The one
idea: ``flock`` decides; what is written into the file only names its holder for the message, and
its time stamp, renewed every second, tells when a holder that was killed was last alive.
"""

import fcntl
import json
import os
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final

from agent.errors import RunLocked
from agent.files import storage_errors

HEARTBEAT_SECONDS: Final = 1.0
"""How often a holder shows that it is alive."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
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
    boot: str = ""
    """Which start of the machine it runs in; empty where the system does not tell."""


class RunLock:
    """Held while a process works on a run; a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last_alive: float | None = None
        """When the holder before was last alive: seconds since 1970; None if nobody can tell."""
        self._handle: int | None = None
        self._released = threading.Event()

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
            self.last_alive = _last_alive(handle)
            with storage_errors(self.path):
                _write(handle)
            undo.pop_all()
        self._handle = handle
        self._released.clear()
        threading.Thread(target=self._beat, args=(handle,), daemon=True).start()
        return self

    def _beat(self, handle: int) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            try:
                os.utime(handle)
            except OSError:
                return  # released in this instant

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        # The file stays: removing it would let two processes lock two files of the same name.
        self._released.set()
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
    text = json.dumps(asdict(Holder(os.getpid(), os.uname().nodename, now, _boot())))
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode(), 0)


def _read(handle: int) -> Holder | None:
    try:
        found = json.loads(os.pread(handle, 4096, 0))
        names = (str(found["host"]), str(found["started"]))
        return Holder(int(found["pid"]), *names, str(found["boot"]) if "boot" in found else "")
    except (ValueError, KeyError, TypeError):
        return None


def _boot() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _last_alive(handle: int) -> float | None:
    """The time stamp of a dead holder; after a restart of the machine it may be stale."""
    before = _read(handle)
    if before is None or not before.boot or before.boot != _boot():
        return None
    return os.fstat(handle).st_mtime


def _refusal(path: Path, found: Holder | None) -> str:
    who = f"process {found.pid} on {found.host} (since {found.started})" if found else "a process"
    return (
        f"{who} works on run {path.parent.name!r}: wait until it ends, or stop it "
        "with Ctrl-C, then resume"
    )

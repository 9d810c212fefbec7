"""One connection to ``run.sqlite``: transactions, the fence against a second writer, and errors.

Knows nothing of money; tables are in ``schema.py``. The one idea: whatever must be true
together is written in one immediate transaction, and a transaction begun inside another joins it.
Whoever only looks opens the file read-only, which leaves it as it is, byte for byte.
SQLite before 3.51.3 can corrupt a file in WAL mode with two writers, so the rollback journal is
used, and EXTRA makes its removal durable too.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from agent.errors import AgentError, LedgerError, RunError, RunLocked, StorageError
from agent.money.chain import Entry, append
from agent.money.schema import TABLES, VERSION

WAIT_SECONDS: Final = 30.0
"""How long a transaction waits for another process's one."""

Value = str | int | float | None

_STORAGE: Final = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_IOERR: "the disk reports an error or is full: check it",
    sqlite3.SQLITE_READONLY: "it is read-only: make it writable",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened or its folder cannot be written: check both",
}
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class RunDatabase:
    """A run's database, usable from any thread of this process."""

    def __init__(
        self,
        path: Path,
        *,
        create: bool = False,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the file at ``path``, made first if ``create`` is set.

        With ``read_only`` neither it nor its folder is written to, nor has to be writable.

        Raises:
            RunError: if it is missing, damaged, or of another version; with ``read_only`` also if
                a process that was killed left it in the middle of a transaction.
            StorageError: if the disk refuses.
        """
        assert not (create and read_only)
        self.path = path
        self.read_only = read_only
        self.clock = clock
        self.owner = 0
        self._depth = 0
        self._lock = threading.RLock()
        if not create and not path.is_file():
            raise RunError(f"there is no ledger at {path}: the run was never started")
        with self._errors():
            self._sql = self._connect()
        try:
            self._prepare()
        except AgentError:
            self._sql.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        mode = "ro" if self.read_only else "rwc"
        sql = sqlite3.connect(
            f"file:{quote(str(self.path.absolute()))}?mode={mode}",
            uri=True,
            timeout=WAIT_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        sql.row_factory = sqlite3.Row
        return sql

    def _prepare(self) -> None:
        if not self.read_only:
            with self._errors():
                for pragma in ("journal_mode=TRUNCATE", "synchronous=EXTRA", "foreign_keys=ON"):
                    self._sql.execute(f"PRAGMA {pragma}").fetchall()
        if self._version() == 0 and not self.read_only:
            with self.transaction():
                # Asked again, since another process may have made the tables meanwhile.
                if self._version() == 0:
                    for statement in TABLES:
                        self.execute(statement)
                    self.execute(f"PRAGMA user_version={VERSION}")
        if (found := self._version()) != VERSION:
            raise RunError(
                f"{self.path} is of version {found}, this program reads {VERSION}: "
                "use the program that wrote it"
            )

    def _version(self) -> int:
        (row,) = self.query("PRAGMA user_version")
        return int(row[0])

    def close(self) -> None:
        """Close the file; the database is not used again."""
        with self._lock:
            self._sql.close()

    def __enter__(self) -> "RunDatabase":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def claim(self) -> int:
        """Become the run's only writer of money; an earlier one is fenced off for good.

        Returns:
            The fencing number, which is higher than every earlier one.
        """
        pid, host = os.getpid(), os.uname().nodename
        with self.transaction():
            (row,) = self.query("SELECT coalesce(max(epoch), 0) + 1 FROM owners")
            epoch = int(row[0])
            at = append(self, Entry("claim", "run", "run", amount=pid, note=host), owner=epoch)
            self.execute("INSERT INTO owners VALUES (?, ?, ?, ?)", (epoch, pid, host, at))
        self.owner = epoch
        return epoch

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All that is queried within is of one instant, whatever other processes write."""
        with self._lock:
            if self._sql.in_transaction:
                yield
                return
            with self._errors():
                self._sql.execute("BEGIN")
            try:
                yield
            finally:
                self._sql.execute("ROLLBACK")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is executed within is committed together, or not at all.

        Raises:
            RunLocked: if this process claimed the run and another one has claimed it since.
            StorageError: if the disk refuses; nothing of the transaction is then kept.
        """
        with self._lock:
            begin, commit, undo = self._verbs()
            with self._errors():
                self._sql.execute(begin)
            self._depth += 1
            done = False
            try:
                self._check_fence()
                yield
                with self._errors():
                    self._sql.execute(commit)
                done = True
            finally:
                self._depth -= 1
                # A full disk can end the transaction by itself.
                if not done and self._sql.in_transaction:
                    for statement in undo:
                        self._sql.execute(statement)

    def _verbs(self) -> tuple[str, str, tuple[str, ...]]:
        if self._depth == 0:
            return "BEGIN IMMEDIATE", "COMMIT", ("ROLLBACK",)
        name = f"inner{self._depth}"
        return f"SAVEPOINT {name}", f"RELEASE {name}", (f"ROLLBACK TO {name}", f"RELEASE {name}")

    def _check_fence(self) -> None:
        if not self.owner:
            return
        (row,) = self.query("SELECT max(epoch) FROM owners")
        if row[0] != self.owner:
            raise RunLocked(
                f"another process took {self.path.parent.name!r} over while this one was away; "
                "nothing was written: stop this one"
            )

    def execute(self, statement: str, values: tuple[Value, ...] = ()) -> int:
        """Run one statement within a transaction; returns how many rows it changed.

        Raises:
            sqlite3.IntegrityError: if a constraint refuses it.
        """
        assert self._depth, "execute() is for the inside of a transaction"
        with self._errors():
            return self._sql.execute(statement, values).rowcount

    def query(self, statement: str, values: tuple[Value, ...] = ()) -> list[sqlite3.Row]:
        """Rows of one SELECT."""
        with self._lock, self._errors():
            return self._sql.execute(statement, values).fetchall()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            raise _translated(error, self.path) from error


def _translated(error: sqlite3.DatabaseError, path: Path) -> Exception:
    """The error for a person that stands for SQLite's."""
    code: Any = getattr(error, "sqlite_errorcode", None)
    kind = code & 0xFF if isinstance(code, int) else None
    if code == sqlite3.SQLITE_READONLY_ROLLBACK:
        return RunError(
            f"{path} was left in the middle of a transaction by a process that was killed: "
            "resume the run once, which repairs it"
        )
    # Text that is not UTF-8 is found by Python, which gives no code.
    if kind is None and isinstance(error, sqlite3.OperationalError):
        kind = sqlite3.SQLITE_CORRUPT
    if kind in _STORAGE:
        return StorageError(f"cannot use {path}: {_STORAGE[kind]}, then resume the run")
    if kind in _DAMAGED:
        return RunError(f"{path} is damaged ({error}): restore it from a copy")
    if kind in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return LedgerError(
            f"{path} was held by another process for {WAIT_SECONDS:.0f} s: try again"
        )
    return error

"""One connection to ``run.sqlite``: transactions, the fence against a second writer, and errors.

Knows nothing of money; tables are in ``schema.py``. The one idea: whatever must be true
together is written in one immediate transaction, and a transaction begun inside another joins it.
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

from agent.errors import AgentError, LedgerError, RunError, RunLocked, StorageError
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
        self, path: Path, *, create: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        """Open the file at ``path``, made first if ``create`` is set.

        Raises:
            RunError: if it is missing, damaged, or of a later version.
            StorageError: if the disk refuses.
        """
        self.path = path
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
        sql = sqlite3.connect(
            self.path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )
        sql.row_factory = sqlite3.Row
        return sql

    def _prepare(self) -> None:
        with self._errors():
            for pragma in ("journal_mode=TRUNCATE", "synchronous=EXTRA", "foreign_keys=ON"):
                self._sql.execute(f"PRAGMA {pragma}").fetchall()
        if self._version() == 0:
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
        with self.transaction():
            self.execute(
                "INSERT INTO owners (pid, host, at) VALUES (?, ?, ?)",
                (os.getpid(), os.uname().nodename, self.clock()),
            )
            (row,) = self.query("SELECT max(epoch) FROM owners")
        self.owner = int(row[0])
        return self.owner

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
    if kind in _STORAGE:
        return StorageError(f"cannot use {path}: {_STORAGE[kind]}, then resume the run")
    if kind in _DAMAGED:
        return RunError(f"{path} is damaged ({error}): restore it from a copy")
    if kind in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return LedgerError(
            f"{path} was held by another process for {WAIT_SECONDS:.0f} s: try again"
        )
    return error

"""The durable borders of a working run, found while it works, and death at one of them.

A border is whatever makes something last: a file forced to the disk, given its name or taken away,
a folder made, a transaction committed, in any of the run's databases. Nothing is listed by hand:
what a run passes through is what there is, so a border that is added later is found by itself.
"""

import os
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parents[2]
HOUSE = tuple(str(ROOT / name) + os.sep for name in ("agent", "pipeline"))
CALLS = ("fsync", "fdatasync", "replace", "rename", "unlink", "remove", "mkdir", "rmdir", "link")
IDLE = ("SELECT", "SAVEPOINT", "RELEASE", "ROLLBACK", "COMMIT")
"""Statements after which a commit has nothing to make last."""

Side = Literal["before", "after"]


@dataclass(frozen=True)
class Failpoint:
    """A kind of border and who caused it: what two kills have to differ in to be two."""

    kind: str
    """The call, or ``commit``."""
    place: str
    """Functions of the product that led to it, the innermost first."""


@dataclass(frozen=True)
class Death:
    """Where a process is to be killed."""

    number: int
    """The how many-th border of ``at``, from 1; or of all borders, if there is no ``at``."""
    side: Side
    """Before or after what makes it last."""
    at: Failpoint | None = None
    """Only borders of this failpoint count."""
    by: int = signal.SIGKILL
    """The signal: SIGSTOP makes it a sleep that another has to end."""
    note: str = ""
    """A file that is told the time by the monotonic clock just before."""


class Borders:
    """Counts the borders that this process passes, and kills it where that was asked for."""

    def __init__(self, death: Death | None = None) -> None:
        self.passed: list[Failpoint] = []
        """Every border so far, in order."""
        self._death = death
        self._seen: Counter[Failpoint | None] = Counter()
        self._lock = threading.Lock()

    def install(self) -> None:
        """From now on; for a process that does nothing else, since nothing is taken back."""
        for name in CALLS:
            setattr(os, name, self._around(name, getattr(os, name)))
        borders, connect = self, sqlite3.connect

        class Connection(sqlite3.Connection):
            changed = False

            def commit(self) -> None:
                if self.in_transaction:
                    borders.pass_("commit", super().commit)
                else:
                    super().commit()

            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                run = lambda: super(Connection, self).execute(sql, *values)  # noqa: E731
                verb = sql.split(maxsplit=1)[0]
                if verb == "COMMIT" and self.changed:
                    return borders.pass_("commit", run)
                self.changed = verb != "BEGIN" and (self.changed or verb not in IDLE)
                return run()

            def executescript(self, sql: str) -> sqlite3.Cursor:
                return borders.pass_("script", lambda: super(Connection, self).executescript(sql))

        @wraps(connect)
        def connecting(*arguments: Any, **named: Any) -> sqlite3.Connection:
            return connect(*arguments, **named, factory=Connection)

        sqlite3.connect = connecting  # type: ignore[assignment]

    def pass_(self, kind: str, work: Callable[[], Any]) -> Any:
        """Do ``work``, which makes something last."""
        here = Failpoint(kind, _place())
        with self._lock:
            self.passed.append(here)
            self._seen[here] += 1
            self._seen[None] += 1
            sides = self._sides(here)
        if "before" in sides:
            self._strike()
        try:
            return work()
        finally:
            if "after" in sides:
                self._strike()

    def _strike(self) -> None:
        assert self._death is not None
        if self._death.note:
            Path(self._death.note).write_text(str(time.monotonic()), encoding="utf-8")
        os.kill(os.getpid(), self._death.by)

    def _sides(self, here: Failpoint) -> set[Side]:
        wanted = self._death
        if wanted is None or wanted.at not in (None, here):
            return set()
        return {wanted.side} if self._seen[wanted.at] == wanted.number else set()

    def _around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def around(*arguments: Any, **named: Any) -> Any:
            return self.pass_(name, lambda: call(*arguments, **named))

        return around


def _place() -> str:
    """The functions of the product on the stack, the innermost first."""
    names = []
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(HOUSE):
            names.append(f"{Path(code.co_filename).stem}.{code.co_qualname}")
        frame = frame.f_back  # type: ignore[assignment]
    return " < ".join(name for name in names if "<lambda>" not in name)

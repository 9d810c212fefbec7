"""A run's books opened to be looked at, also where a process was killed in a transaction.

Nothing in the run's folder changes. The one idea: what a transaction had begun to write is taken
back by SQLite itself, in a copy, exactly as it will be when the run is resumed.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from agent.errors import RunError
from agent.files import storage_errors
from agent.money.database import RunDatabase
from agent.records import RunRecord
from agent.verify.folder import BOOKS, OWN, RECORD, Folder

CUT_SHORT: Final = "a transaction was cut short; checked as resume would find it"
_JOURNAL: Final = f"{BOOKS}-journal"


class NotOpened(RunError):
    """The books hold nothing yet."""


def just_begun(folder: Folder, run: RunRecord | None) -> bool:
    """Whether a run's folder holds no more than its record as it was made."""
    if run is None or set(folder.names) - OWN != {RECORD} or folder.links:
        return False
    first = (run.status, run.reason, run.confirmed_usd, run.possible_usd)
    later = (run.engine, run.need, run.plan, run.dataset, run.replans or None)
    return first == ("running", "just begun", 0.0, 0.0) and later == (None,) * 5


@contextmanager
def opened(folder: Folder, notes: list[str]) -> Iterator[RunDatabase]:
    """The books, as they are or as ``resume`` would find them; the latter is noted.

    Raises:
        NotOpened: if they are missing or empty.
        RunError: if they are damaged, or of another version.
        StorageError: if the disk refuses.
    """
    path = folder.path / BOOKS
    if not path.is_file() or (not path.stat().st_size and not _journal(folder)):
        raise NotOpened(f"there is no ledger at {path}")
    with _database(folder, notes) as database, database.snapshot():
        if not database.query("SELECT 1 FROM entries LIMIT 1"):
            raise NotOpened(f"{path} holds no entry")
        yield database


def _journal(folder: Folder) -> bool:
    path = folder.path / _JOURNAL
    return _JOURNAL in folder.names and path.stat().st_size > 0


@contextmanager
def _database(folder: Folder, notes: list[str]) -> Iterator[RunDatabase]:
    try:
        database = RunDatabase(folder.path / BOOKS, read_only=True)
    except RunError as error:
        if not _is_cut_short(error) or not {BOOKS, _JOURNAL} <= set(folder.names):
            raise
        notes.append(CUT_SHORT)
        with _rolled_back(folder.path) as database, database:
            yield database
        return
    with database:
        yield database


def _is_cut_short(error: RunError) -> bool:
    code = getattr(error.__cause__, "sqlite_errorcode", None)
    return code == sqlite3.SQLITE_READONLY_ROLLBACK


@contextmanager
def _rolled_back(path: Path) -> Iterator[RunDatabase]:
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / BOOKS
        with storage_errors(copy):
            for file in (BOOKS, _JOURNAL):
                shutil.copyfile(path / file, copy.with_name(file), follow_symlinks=False)
        try:
            with closing(sqlite3.connect(copy)) as sql:
                tables = sql.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise RunError(f"{path / BOOKS} is damaged ({error})") from error
        if not tables:
            raise NotOpened(f"{path / BOOKS} holds no table")
        yield RunDatabase(copy, read_only=True)

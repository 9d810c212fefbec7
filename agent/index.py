"""``reports/index.sqlite``: what the records of all runs say of their reviews, read once and kept.

Never the truth: it can be deleted at any time, and whatever is wrong with it only means that the
runs are read again (``agent/tracks.py`` does that). The one idea: it is one small file that is read
whole and replaced whole, with a checksum of itself, so that it is never locked, never half written,
and two processes that write it at once leave one of two good files.
"""

import sqlite3
import stat
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.files import beside
from agent.review_records import Outcome, Track

NAME: Final = "index.sqlite"
"""The file's name in a reports folder."""
VERSION: Final = 2
"""Of its tables: one of another version is made again."""
_HEADER: Final = 100
_CHECKSUM: Final = slice(68, 72)
"""Here SQLite's header has room for a number of its user's, the ``application_id``."""
_MOST_BYTES: Final = 256 * 1024 * 1024

TABLES: Final = f"""
CREATE TABLE runs (run_id TEXT PRIMARY KEY, stamp TEXT NOT NULL, problem TEXT NOT NULL);
CREATE TABLE reviews (
    run_id TEXT NOT NULL, round INTEGER NOT NULL, reviewer TEXT NOT NULL, cost_usd REAL NOT NULL,
    reverted INTEGER NOT NULL, PRIMARY KEY (run_id, round));
CREATE TABLE predictions (
    run_id TEXT NOT NULL, round INTEGER NOT NULL, reviewer TEXT NOT NULL, metric TEXT NOT NULL,
    low REAL NOT NULL, high REAL NOT NULL, probability REAL NOT NULL, actual REAL,
    hit INTEGER, score REAL);
CREATE INDEX predictions_of_run ON predictions (run_id);
PRAGMA user_version = {VERSION};
"""
_TRACKS: Final = """
WITH measured AS (
    SELECT reviewer, count(*) AS predictions, sum(hit) AS hits,
           round(avg(probability), 9) AS claimed, round(avg(score), 9) AS brier
    FROM predictions WHERE score IS NOT NULL GROUP BY reviewer)
SELECT reviews.reviewer AS reviewer, count(DISTINCT run_id) AS runs, count(*) AS reviews,
       coalesce(predictions, 0) AS predictions, coalesce(hits, 0) AS hits, claimed, brier,
       sum(reverted) AS reverted, round(sum(cost_usd), 6) AS cost_usd
FROM reviews LEFT JOIN measured ON measured.reviewer = reviews.reviewer
GROUP BY reviews.reviewer ORDER BY reviews.reviewer
"""


@dataclass(frozen=True, slots=True)
class Told:
    """One review, as it counts for its reviewer."""

    round: int
    """The round that was reviewed."""
    reviewer: str
    """Who reviewed."""
    cost_usd: float
    """Dollars for its requests."""
    reverted: bool
    """The round that tried its changes was significantly worse, and was undone, or was the last."""
    outcomes: tuple[Outcome, ...]
    """What became of its predictions."""


class Index:
    """The tables, in memory."""

    def __init__(self, content: bytes | None = None) -> None:
        """Tables from the bytes of a file, or empty ones."""
        self._sql = sqlite3.connect(":memory:", isolation_level=None)
        self._sql.row_factory = sqlite3.Row
        if content is None:
            self._sql.executescript(TABLES)
        else:
            self._sql.deserialize(content)

    def close(self) -> None:
        """Let go of the memory."""
        self._sql.close()

    def stamps(self) -> dict[str, str]:
        """Every run that was read, with the stamp that its records then had."""
        return dict(map(tuple, self._sql.execute("SELECT run_id, stamp FROM runs")))

    def problems(self) -> dict[str, str]:
        """Runs whose records do not count, and why."""
        found = "SELECT run_id, problem FROM runs WHERE problem <> '' ORDER BY run_id"
        return dict(map(tuple, self._sql.execute(found)))

    def tracks(self) -> tuple[Track, ...]:
        """How every reviewer did, by name."""
        return tuple(Track.model_validate(dict(row)) for row in self._sql.execute(_TRACKS))

    def forget(self, run_ids: Iterable[str]) -> None:
        """Remove runs and all that was said of them."""
        gone = [(run_id,) for run_id in run_ids]
        for table in ("runs", "reviews", "predictions"):
            self._sql.executemany(f"DELETE FROM {table} WHERE run_id = ?", gone)  # noqa: S608

    def enter(self, run_id: str, stamp: str, told: Iterable[Told], *, problem: str = "") -> None:
        """Put a run's reviews, or the reason why they do not count, in place of what was there."""
        self.forget([run_id])
        self._sql.execute("INSERT INTO runs VALUES (?, ?, ?)", (run_id, stamp, problem))
        for review in told:
            self._sql.execute(
                "INSERT INTO reviews VALUES (?, ?, ?, ?, ?)",
                (run_id, review.round, review.reviewer, review.cost_usd, review.reverted),
            )
            who = (run_id, review.round, review.reviewer)
            self._sql.executemany(
                "INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(*who, *_values(outcome)) for outcome in review.outcomes],
            )

    def version(self) -> int:
        """Of the tables."""
        return int(self._sql.execute("PRAGMA user_version").fetchone()[0])

    def content(self) -> bytes:
        """The bytes of a file that holds the tables."""
        return _sealed(self._sql.serialize())


def _values(outcome: Outcome) -> tuple[str | float | None, ...]:
    said = outcome.prediction
    foretold = (said.metric, said.low, said.high, said.probability)
    return (*foretold, outcome.actual, outcome.hit, outcome.score)


def load(path: Path) -> tuple[Index, str]:
    """The index in a file; an empty one, and why, if there is none that can be used."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES:
            return Index(), "it is not a file of this program"
        content = path.read_bytes()
    except FileNotFoundError:
        return Index(), ""
    except OSError as error:
        return Index(), f"it cannot be read: {error.strerror or error}"
    if len(content) < _HEADER or content != _sealed(content):
        return Index(), "it is damaged"
    try:
        index = Index(content)
        found_version = index.version()
    except sqlite3.Error as error:
        return Index(), f"it is damaged: {error}"
    if found_version != VERSION:
        return Index(), f"it is of version {found_version}, this program writes {VERSION}"
    return index, ""


def save(index: Index, path: Path) -> None:
    """Replace the file; after a power cut its checksum tells whether all of it arrived.

    Raises:
        StorageError: if the disk refuses; the file then is as it was before.
    """
    with beside(path.parent, path.name) as (stream, temporary):
        stream.write(index.content())
        stream.close()
        temporary.replace(path)


def _sealed(content: bytes) -> bytes:
    """The bytes of a database with their checksum in its header."""
    open_ = bytearray(content)
    open_[_CHECKSUM] = bytes(4)
    open_[_CHECKSUM] = zlib.crc32(open_).to_bytes(4, "big")
    return bytes(open_)

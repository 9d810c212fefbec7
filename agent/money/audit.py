"""The ledger checked against its own entries: every column of every table, and the tables' rules.

Artifacts and reports are for others to verify; what entries mean is told in ``replay.py``. The one
idea: entries are sealed, all else follows from them, so any difference is named and none can hide.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, Final

from agent.money import chain
from agent.money.chain import SealedEntry
from agent.money.database import RunDatabase
from agent.money.replay import DIGESTED, Replay, Row
from agent.money.schema import GENESIS, TABLES

KEYS: Final = {
    "totals": "id",
    "sub_caps": "name",
    "owners": "epoch",
    "envelopes": "id",
    "operations": "op_id",
    "results": "op_id",
    "plans": "hash",
    "approvals": "id",
}
"""Every table but the entries, and what its rows are called by."""


def audit(database: RunDatabase) -> tuple[str, ...]:
    """What is wrong with the ledger, a sentence each; empty if it is sound.

    Reads one instant of a ledger that others write to meanwhile.

    Raises:
        RunError: if the file is so damaged that it cannot be read.
    """
    with database.snapshot():
        if unlike := tuple(_schema_problems(database)):
            return unlike
        entries = chain.read(database)
        replay = Replay()
        broken = [
            f"entry {number} {fault}"
            for number, sealed in enumerate(entries, start=1)
            for fault in replay.follow(sealed)
        ]
        return (
            *_file_problems(database),
            *_chain_problems(entries),
            *broken,
            *_table_problems(database, replay),
        )


def _schema_problems(database: RunDatabase) -> Iterator[str]:
    """Constraints and triggers that are not the ones this program makes."""
    with closing(sqlite3.connect(":memory:")) as fresh:
        for statement in TABLES:
            fresh.execute(statement)
        made = {tuple(row) for row in fresh.execute(_SCHEMA)}
    stored = {tuple(row) for row in database.query(_SCHEMA)}
    for kind, name, *_ in sorted(made ^ stored, key=str):
        yield f"the {kind} {name!r} is not as this program makes it"


_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_schema"


def _file_problems(database: RunDatabase) -> Iterator[str]:
    """What SQLite itself finds: pages, indexes and constraints that do not fit their rows."""
    for (found,) in database.query("PRAGMA integrity_check"):
        if found != "ok":
            yield f"the file is damaged: {found}"
    for row in database.query("PRAGMA foreign_key_check"):
        yield f"a row of {row[0]} names one of {row[2]} that does not exist"


def _chain_problems(entries: Iterable[SealedEntry]) -> Iterator[str]:
    previous = GENESIS
    for number, found in enumerate(entries, start=1):
        try:
            expected = chain.seal(
                found.entry, seq=number, at=found.at, owner=found.owner, previous=previous
            )
        except (TypeError, ValueError):
            expected = None
        if found != expected:
            yield f"entry {number} does not carry the hash of its content"
        previous = found.hash


def _table_problems(database: RunDatabase, replay: Replay) -> Iterator[str]:
    for table, told in replay.tables.items():
        stored = _stored(database, table)
        # Attempts are shown in the order of their reservation.
        if table == "operations" and list(stored) != list(told) and stored.keys() == told.keys():
            yield "the order of operations is not the order of their entries"
        for name in sorted(stored.keys() | told.keys(), key=str):
            yield from _differences(f"{table} {name!r}", stored.get(name), told.get(name))


def _stored(database: RunDatabase, table: str) -> dict[Any, Row]:
    rows = [dict(row) for row in database.query(f"SELECT * FROM {table} ORDER BY rowid")]
    if table in DIGESTED:
        column = DIGESTED[table]
        rows = [row | {column: _digest(row[column])} for row in rows]
    return {row[KEYS[table]]: row for row in rows}


def _digest(body: object) -> str:
    return hashlib.sha256(str(body).encode("utf-8")).hexdigest()


def _differences(name: str, stored: Row | None, told: Row | None) -> Iterator[str]:
    if stored is None:
        yield f"{name} is missing, the entries tell of it"
    elif told is None:
        yield f"{name} stands there, no entry tells of it"
    else:
        for column, value in stored.items():
            if repr(value) != repr(told[column]):
                yield f"{name}: {column} is {value!r}, the entries give {told[column]!r}"

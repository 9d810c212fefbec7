"""The ledger's entries: append-only, each sealed with a hash over itself and the one before.

What entries mean is in ``ledger.py``; replaying them against the books is in
``audit.py``. The one idea: an entry that is changed, removed or slipped in breaks every seal
after it, and the totals row pins the last one.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from agent.money.database import RunDatabase

EntryKind = Literal["open", "reserve", "post", "void", "envelope", "close"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One event in the life of the run's money."""

    kind: EntryKind
    """open: the cap; reserve, post, void: an operation; envelope, close: an envelope."""
    op_id: str
    """The operation's attempt, or the envelope."""
    stage: str
    """pilot, review, scale, ..."""
    round: int | None
    """The round it belongs to, if to one."""
    envelope: str | None
    """The envelope that it draws on."""
    amount: int
    """Micro-dollars: the worst case, the actual cost, the maximum, or what was released."""
    excess: int = 0
    """Micro-dollars of a post that do not fit under the cap."""
    note: str = ""
    """What else is to be known of it."""


@dataclass(frozen=True, slots=True)
class SealedEntry:
    """An entry as it stands in the ledger."""

    seq: int
    """1 for the first."""
    at: float
    """Seconds since 1970, UTC."""
    entry: Entry
    """What happened."""
    owner: int
    """Fencing number of the process that wrote it; 0 for one that had not claimed the run."""
    hash: str
    """SHA-256 over all of the above and the hash before."""


def seal(entry: Entry, *, seq: int, at: float, owner: int, previous: str) -> SealedEntry:
    """``entry`` with its hash, chained to the ``previous`` one."""
    body = [
        previous, seq, at, owner, entry.kind, entry.op_id, entry.stage, entry.round,
        entry.envelope, entry.amount, entry.excess, entry.note,
    ]  # fmt: skip
    text = json.dumps(body, separators=(",", ":"), allow_nan=False)
    return SealedEntry(seq, at, entry, owner, hashlib.sha256(text.encode("ascii")).hexdigest())


def append(database: RunDatabase, entry: Entry) -> None:
    """Add ``entry`` to the chain, within the caller's transaction."""
    (pin,) = database.query("SELECT entries, head FROM totals")
    sealed = seal(
        entry,
        seq=pin["entries"] + 1,
        at=database.clock(),
        owner=database.owner,
        previous=pin["head"],
    )
    database.execute(
        "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            sealed.seq, sealed.at, entry.kind, entry.op_id, entry.stage, entry.round,
            entry.envelope, entry.amount, entry.excess, entry.note, sealed.owner, sealed.hash,
        ),
    )  # fmt: skip
    database.execute("UPDATE totals SET entries = ?, head = ?", (sealed.seq, sealed.hash))


def read(database: RunDatabase) -> list[SealedEntry]:
    """Every entry, in order, as stored."""
    return [
        SealedEntry(
            row["seq"],
            row["at"],
            Entry(
                row["kind"], row["op_id"], row["stage"], row["round"], row["envelope"],
                row["amount"], row["excess"], row["note"],
            ),
            row["owner"],
            row["hash"],
        )
        for row in database.query("SELECT * FROM entries ORDER BY seq")
    ]  # fmt: skip

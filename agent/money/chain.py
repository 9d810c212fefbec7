"""The ledger's entries: append-only, each sealed with a hash over itself and the one before.

What entries mean is in ``ledger.py``, ``approval.py`` and ``database.py``; replaying them against
the books is in ``audit.py``. The one idea: an entry that is changed, removed or slipped in breaks
every seal after it, and the totals row pins the last one.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agent.errors import RunError

if TYPE_CHECKING:
    from agent.money.database import RunDatabase

EntryKind = Literal[
    "open", "claim", "reserve", "post", "void", "envelope", "close",
    "offer", "approve", "reject", "use",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One event in the life of the run's money, or in what a person said about a plan."""

    kind: EntryKind
    """open: the cap, or a stage's own; claim: a process that writes from now on; reserve, post,
    void: an operation; envelope, close: an envelope; offer, approve, reject, use: a plan."""
    op_id: str
    """The operation's attempt, the envelope, the plan's hash, or the approval."""
    stage: str
    """pilot, review, scale, ..."""
    round: int | None = None
    """The round it belongs to, if to one."""
    envelope: str | None = None
    """The envelope that it draws on."""
    amount: int = 0
    """Micro-dollars: the cap, the worst case, the actual cost, the maximum, or what was released;
    of a claim, the process's id."""
    excess: int = 0
    """Micro-dollars of a post that do not fit under the cap."""
    engine_seconds: float = 0.0
    """Wall seconds of the engine that a post is for."""
    note: str = ""
    """What else is to be known of it."""
    digest: str = ""
    """SHA-256 of the result that a post is stored with, or of the plan that is meant."""


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
        entry.envelope, entry.amount, entry.excess, entry.engine_seconds, entry.note, entry.digest,
    ]  # fmt: skip
    text = json.dumps(body, separators=(",", ":"), allow_nan=False)
    return SealedEntry(seq, at, entry, owner, hashlib.sha256(text.encode("ascii")).hexdigest())


def append(database: "RunDatabase", entry: Entry, *, owner: int | None = None) -> float:
    """Add ``entry`` to the chain, within the caller's transaction, and return when that was.

    Raises:
        RunError: if the books were never opened.
    """
    found = database.query("SELECT entries, head FROM totals")
    if not found:
        raise RunError(f"{database.path} holds no ledger: the run was never started")
    sealed = seal(
        entry,
        seq=found[0]["entries"] + 1,
        at=float(database.clock()),
        owner=database.owner if owner is None else owner,
        previous=found[0]["head"],
    )
    database.execute(
        "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            sealed.seq, sealed.at, entry.kind, entry.op_id, entry.stage, entry.round,
            entry.envelope, entry.amount, entry.excess, entry.engine_seconds, entry.note,
            entry.digest, sealed.owner, sealed.hash,
        ),
    )  # fmt: skip
    database.execute("UPDATE totals SET entries = ?, head = ?", (sealed.seq, sealed.hash))
    return sealed.at


def read(database: "RunDatabase") -> list[SealedEntry]:
    """Every entry, in order, as stored."""
    return [
        SealedEntry(
            row["seq"],
            row["at"],
            Entry(
                row["kind"], row["op_id"], row["stage"], row["round"], row["envelope"],
                row["amount"], row["excess"], row["engine_seconds"], row["note"], row["digest"],
            ),
            row["owner"],
            row["hash"],
        )
        for row in database.query("SELECT * FROM entries ORDER BY seq")
    ]  # fmt: skip

"""What the books say: totals, sums by stage, every attempt. Reads only.

``ledger.py`` writes. The one idea: two figures are always shown apart, what is confirmed
(posted) and what is possible (posted and pending).
"""

from dataclasses import dataclass
from typing import Literal

from agent.money.amounts import micro_to_usd
from agent.money.database import RunDatabase
from agent.records import Spend


@dataclass(frozen=True, slots=True)
class Totals:
    """The run's money, in micro-dollars."""

    limit: int
    """The cap."""
    confirmed: int
    """Posted under the cap."""
    pending: int
    """Reserved and not settled, envelopes included."""
    excess: int = 0
    """Spent beyond the cap by attempts that outran their reservation; not in ``confirmed``."""

    @property
    def possible(self) -> int:
        """Posted and pending: never above the cap."""
        return self.confirmed + self.pending

    @property
    def remaining(self) -> int:
        """What can still be reserved."""
        return self.limit - self.possible

    @property
    def limit_usd(self) -> float:
        """The cap in dollars."""
        return micro_to_usd(self.limit)

    @property
    def confirmed_usd(self) -> float:
        """Posted, in dollars."""
        return micro_to_usd(self.confirmed)

    @property
    def possible_usd(self) -> float:
        """Posted and pending, in dollars."""
        return micro_to_usd(self.possible)

    @property
    def remaining_usd(self) -> float:
        """What can still be reserved, in dollars."""
        return micro_to_usd(self.remaining)


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One attempt at a paid operation; amounts in micro-dollars."""

    op_id: str
    """Its id; ``#2`` and so on mark repeats after a failure."""
    stage: str
    """pilot, review, scale, ..."""
    round: int | None
    """The round it belongs to, if to one."""
    envelope: str | None
    """The envelope that it draws on."""
    worst_case: int
    """Reserved."""
    state: Literal["pending", "posted", "void"]
    """Where it stands."""
    actual: int | None
    """What it cost; None until posted."""
    excess: int
    """The part of ``actual`` that does not fit under the cap."""
    engine_seconds: float
    """Wall seconds of the engine."""
    note: str
    """What else is to be known of it."""
    at: float
    """When it was reserved: seconds since 1970, UTC."""
    owner: int
    """Fencing number of the process that reserved it."""

    @property
    def overrun(self) -> int:
        """How much more it cost than was reserved."""
        return max(0, (self.actual or 0) - self.worst_case)

    def __str__(self) -> str:
        cost = "" if self.actual is None else f", cost {self.actual}"
        return (
            f"{self.state} ({self.stage}, round {self.round}, worst case {self.worst_case}{cost})"
        )


@dataclass(frozen=True, slots=True)
class Envelope:
    """Money set aside for an approved plan, in micro-dollars."""

    id: str
    """Its name: the approval's id."""
    stage: str
    """What it is for."""
    maximum: int
    """Set aside at first."""
    spent: int
    """Posted by its children."""
    held: int
    """Pending in its children."""
    state: Literal["open", "closed"]
    """Whether children may draw on it."""

    @property
    def left(self) -> int:
        """Not spent: what is still pending against the cap while it is open."""
        return self.maximum - self.spent

    @property
    def free(self) -> int:
        """What its children can still reserve."""
        return self.maximum - self.spent - self.held


@dataclass(frozen=True, slots=True)
class StageTotal:
    """Sums over the attempts of one stage and round, in micro-dollars."""

    stage: str
    """pilot, review, scale, ..."""
    round: int | None
    """The round, if the stage has rounds."""
    attempts: int
    """How many, void ones not counted."""
    confirmed: int
    """Posted under the cap."""
    pending: int
    """Reserved against the cap and not settled."""
    excess: int
    """Spent beyond the cap."""
    unknown: int
    """The part of ``confirmed`` that was charged in full because its outcome is unknown."""
    engine_seconds: float
    """Wall seconds of the engine."""


_COLUMNS = (
    "op_id, stage, round, envelope, worst_case, state, actual, excess, engine_seconds, note, at,"
    " owner"
)


def last_posted(database: RunDatabase, row: LedgerRow) -> float | None:
    """When the process that reserved ``row`` last posted engine time before; None if never."""
    (found,) = database.query(
        "SELECT max(at) FROM entries WHERE owner = ? AND kind = 'post' AND stage <> 'review'",
        (row.owner,),
    )
    return None if found[0] is None else float(found[0])


def totals(database: RunDatabase) -> Totals:
    """Cap, confirmed and pending."""
    (row,) = database.query("SELECT cap, posted, pending, excess FROM totals")
    return Totals(*row)


def rows(database: RunDatabase) -> list[LedgerRow]:
    """Every attempt, in the order of reservation."""
    return [
        LedgerRow(*row)
        for row in database.query(f"SELECT {_COLUMNS} FROM operations ORDER BY rowid")
    ]


def find(database: RunDatabase, op_id: str) -> LedgerRow | None:
    """One attempt, or None."""
    found = database.query(f"SELECT {_COLUMNS} FROM operations WHERE op_id = ?", (op_id,))
    return LedgerRow(*found[0]) if found else None


def attempts(database: RunDatabase, op_id: str) -> list[LedgerRow]:
    """Every attempt at the operation ``op_id``, the first one first."""
    # '$' follows '#', so that the range holds exactly the ids that begin with "op_id#".
    found = database.query(
        f"SELECT {_COLUMNS} FROM operations WHERE op_id = ? OR (op_id > ? AND op_id < ?)"
        " ORDER BY rowid",
        (op_id, op_id + "#", op_id + "$"),
    )
    return [LedgerRow(*row) for row in found]


def next_attempt(database: RunDatabase, op_id: str) -> str:
    """The id of the next attempt at ``op_id``: itself, then ``op_id#2``, and so on."""
    earlier = len(attempts(database, op_id))
    return f"{op_id}#{earlier + 1}" if earlier else op_id


def find_envelope(database: RunDatabase, envelope: str) -> Envelope | None:
    """One envelope, or None."""
    found = database.query(
        "SELECT id, stage, maximum, spent, held, state FROM envelopes WHERE id = ?", (envelope,)
    )
    return Envelope(*found[0]) if found else None


def by_stage(database: RunDatabase) -> list[StageTotal]:
    """Sums by stage and round, in the order in which they began."""
    return [StageTotal(*row) for row in database.query(_BY_STAGE)]


def spend(database: RunDatabase, round: int | None) -> Spend:
    """What a round cost so far, or with None the whole run; excess included."""
    (row,) = database.query(_SPEND, (round, round))
    return Spend(
        engine_seconds=row["engine_seconds"],
        engine_usd=micro_to_usd(row["engine"]),
        review_usd=micro_to_usd(row["review"]),
    )


# Children of an envelope are pending within it, so only the envelope counts against the cap.
_BY_STAGE = """
SELECT stage, round, sum(attempts), sum(confirmed), sum(pending), sum(excess), sum(unknown),
       sum(engine_seconds)
FROM (
    SELECT rowid AS place, stage, round, state <> 'void' AS attempts,
           coalesce(actual, 0) - excess AS confirmed,
           iif(state = 'pending' AND envelope IS NULL, worst_case, 0) AS pending,
           excess,
           iif(note LIKE 'outcome unknown%', coalesce(actual, 0) - excess, 0) AS unknown,
           engine_seconds
    FROM operations
    UNION ALL
    SELECT 1e18, stage, NULL, 0, 0, maximum - spent, 0, 0, 0.0 FROM envelopes WHERE state = 'open'
)
GROUP BY stage, round ORDER BY min(place)
"""
_SPEND = """
SELECT coalesce(sum(engine_seconds), 0.0) AS engine_seconds,
       coalesce(sum(iif(stage = 'review', 0, actual)), 0) AS engine,
       coalesce(sum(iif(stage = 'review', actual, 0)), 0) AS review
FROM operations WHERE state = 'posted' AND (? IS NULL OR round = ?)
"""

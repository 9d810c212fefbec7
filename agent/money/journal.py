"""Paid work, done once: its result is stored in the transaction that settles its price.

The ledger keeps the money, the run's folder keeps the rows; a result is a small dictionary of
hashes and figures. The one idea: after a crash at any instant, an operation either has a result
and is never bought again, or it has none, is charged for what it may have cost, and its repeat is
another attempt under another id.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from agent.errors import LedgerError
from agent.money import statement
from agent.money.ledger import UNKNOWN, Ledger

_MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one paid piece of work came to."""

    result: dict[str, Any]
    """JSON: hashes of artifacts and figures, never rows."""
    actual_micro: int
    """What it cost, in micro-dollars."""
    engine_seconds: float = 0.0
    """Wall seconds of the engine."""


@dataclass(frozen=True, slots=True)
class Result:
    """The stored result of a paid operation."""

    op_id: str
    """The operation."""
    attempt: str
    """The attempt that succeeded."""
    result: dict[str, Any]
    """What was stored."""
    actual_micro: int
    """What that attempt cost, in micro-dollars."""
    repeated: bool
    """True if it was looked up and nothing was bought."""


Incurred = Callable[[BaseException], Outcome | None]
"""What failed work is known to have cost; None if that is not known."""


class Journal:
    """Results of paid operations, beside the ledger that they are settled in."""

    def __init__(self, ledger: Ledger, *, envelope: str | None = None) -> None:
        """A journal whose operations draw on ``envelope``, or directly on the cap."""
        self.ledger = ledger
        self.envelope = envelope

    def within(self, envelope: str) -> "Journal":
        """The same journal, for operations that draw on an approved envelope."""
        return Journal(self.ledger, envelope=envelope)

    def find(self, op_id: str) -> Result | None:
        """The stored result of an operation, or None."""
        found = self.ledger.database.query(
            "SELECT attempt, body, actual FROM results JOIN operations"
            " ON operations.op_id = attempt WHERE results.op_id = ?",
            (op_id,),
        )
        if not found:
            return None
        row = found[0]
        return Result(op_id, row["attempt"], json.loads(row["body"]), row["actual"], True)

    def once(
        self,
        op_id: str,
        *,
        worst_case: int,
        stage: str,
        do: Callable[[], Outcome],
        round: int | None = None,
        incurred: Incurred | None = None,
    ) -> Result:
        """The result of ``do``, which is called only if there is none yet.

        If ``do`` raises anything at all, what ``incurred`` knows is charged (nothing is a void),
        or the worst case in full; the exception goes on, and a later call is another attempt.

        Raises:
            BudgetError: if the worst case does not fit; ``do`` was then not called.
            LedgerError: if an attempt of this operation is under way.
        """
        if (stored := self.find(op_id)) is not None:
            return stored
        attempt = self._next_attempt(op_id)
        self.ledger.reserve(attempt, worst_case, stage=stage, round=round, envelope=self.envelope)
        with _Paying(self.ledger, attempt, worst_case, incurred):
            outcome = do()
            body = self._store(op_id, attempt, outcome)
        return Result(op_id, attempt, json.loads(body), outcome.actual_micro, False)

    def _next_attempt(self, op_id: str) -> str:
        earlier = statement.attempts(self.ledger.database, op_id)
        if any(row.state == "pending" for row in earlier):
            raise LedgerError(
                f"an attempt at {op_id!r} is under way: wait for it, or resume the run, "
                "which settles what a dead process left"
            )
        return statement.next_attempt(self.ledger.database, op_id)

    def _store(self, op_id: str, attempt: str, outcome: Outcome) -> str:
        body = json.dumps(outcome.result, sort_keys=True, allow_nan=False)
        assert len(body) <= _MAX_BYTES, f"the result of {op_id} belongs into an artifact"
        database = self.ledger.database
        with database.transaction():
            # What was really spent is booked even where the bound was wrong.
            self.ledger.post(
                attempt,
                outcome.actual_micro,
                engine_seconds=outcome.engine_seconds,
                overrun=True,
                digest=hashlib.sha256(body.encode("utf-8")).hexdigest(),
            )
            database.execute("INSERT INTO results VALUES (?, ?, ?)", (op_id, attempt, body))
        return body


class _Paying:
    """Settles an attempt whose work raised, whatever it raised, and lets the exception go on."""

    def __init__(
        self, ledger: Ledger, attempt: str, worst_case: int, incurred: Incurred | None
    ) -> None:
        self._ledger = ledger
        self._attempt = attempt
        self._worst_case = worst_case
        self._incurred = incurred

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if error is None or self._settled():
            return
        known = self._incurred(error) if self._incurred else None
        name = type(error).__name__
        if known is None:
            self._ledger.post(self._attempt, self._worst_case, note=UNKNOWN)
        elif known.actual_micro == 0:
            self._ledger.void(self._attempt, note=f"nothing was bought: {name}")
        else:
            self._ledger.post(
                self._attempt,
                known.actual_micro,
                engine_seconds=known.engine_seconds,
                overrun=True,
                note=f"failed: {name}",
            )

    def _settled(self) -> bool:
        """Whether it is booked already: a commit whose last fsync failed may have been made."""
        row = statement.find(self._ledger.database, self._attempt)
        return row is not None and row.state != "pending"

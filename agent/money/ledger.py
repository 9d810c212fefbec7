"""Reserve, post, void: money that cannot be overspent.

The cap's constraint is in ``schema.py``, balances are in ``books.py``, what they say
is read in ``statement.py``, doing paid work once is ``journal.py``'s. The one idea: the
worst case is reserved before anything is bought, so that what is posted can only be less, and an
unknown outcome is charged in full. An envelope is money set aside once; its children draw on it
and are not counted against the cap a second time.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from agent.errors import LedgerError, RunError
from agent.money import books, caps, statement
from agent.money.amounts import check_micro, show_usd
from agent.money.caps import SubCap
from agent.money.chain import Entry, append
from agent.money.database import RunDatabase
from agent.money.statement import Envelope, LedgerRow, StageTotal, Totals
from agent.records import Spend

UNKNOWN: Final = "outcome unknown: charged in full"
"""Note of a post whose true cost is not known."""
KILLED: Final = "killed: charged up to its last sign of life"
"""Note of a post for an attempt whose process died at a known time."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What an attempt is charged whose process was killed."""

    micro: int
    """Its cost, in micro-dollars."""
    engine_seconds: float
    """The engine's time that this pays for."""
    note: str = KILLED
    """How the cost was found."""


_NONE: Final[Mapping[str, int]] = MappingProxyType({})
_OP_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}(#[0-9]{1,6})?")


class Ledger:
    """The money of one run; amounts are whole micro-dollars."""

    def __init__(self, database: RunDatabase) -> None:
        """The ledger in ``database``, which :meth:`create` has opened at some time.

        Raises:
            RunError: if it has never been opened.
        """
        self.database = database
        if not database.query("SELECT 1 FROM totals"):
            raise RunError(f"{database.path} holds no ledger: the run was never started")

    @classmethod
    def create(
        cls, database: RunDatabase, limit: int, *, sub_caps: Mapping[str, int] = _NONE
    ) -> "Ledger":
        """Open the books with a cap of ``limit``; the same again changes nothing.

        ``sub_caps`` are the caps of stages that have one, by a name of ``caps.SUB_CAPS``.

        Raises:
            LedgerError: if they were opened with other caps.
        """
        wanted = {name: sub_caps.get(name) for name in caps.SUB_CAPS}
        assert sub_caps.keys() <= wanted.keys()
        for amount in (limit, *sub_caps.values()):
            check_micro(amount)
        with database.transaction():
            if not database.query("SELECT 1 FROM totals"):
                caps.open_books(database, limit, wanted)
        ledger = cls(database)
        found = {own.name: own.cap for own in ledger.sub_caps()}
        if (ledger.totals().limit, found) != (limit, wanted):
            raise LedgerError(
                f"this run's caps are {caps.describe(ledger.totals().limit, found)}, found "
                f"{caps.describe(limit, wanted)}: a cap is set once; start another run for "
                "another cap"
            )
        return ledger

    def reserve(
        self,
        op_id: str,
        worst_case: int,
        *,
        stage: str,
        round: int | None = None,
        envelope: str | None = None,
    ) -> None:
        """Set ``worst_case`` aside for one attempt; the same again changes nothing.

        Raises:
            BudgetError: if it does not fit under the cap, or into the envelope.
            LedgerError: if the id is taken by another operation.
        """
        check_micro(worst_case)
        if not _OP_ID.fullmatch(op_id):
            raise LedgerError(f"{op_id[:140]!r} is not the id of an operation")
        wanted = (stage, round, envelope, worst_case)
        with self.database.transaction():
            if (held := statement.find(self.database, op_id)) is not None:
                if (held.stage, held.round, held.envelope, held.worst_case) != wanted:
                    raise LedgerError(f"operation {op_id!r} was reserved otherwise before: {held}")
                return
            if envelope is None:
                books.set_aside(self.database, stage, worst_case)
            else:
                books.draw(self.database, envelope, asked=worst_case, held=worst_case)
            entry = Entry("reserve", op_id, stage, round, envelope, worst_case)
            at = append(self.database, entry)
            self.database.execute(
                "INSERT INTO operations (op_id, stage, round, envelope, worst_case, owner, at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (op_id, *wanted, self.database.owner, at),
            )

    def post(
        self,
        op_id: str,
        actual: int,
        *,
        engine_seconds: float = 0.0,
        overrun: bool = False,
        note: str = "",
        digest: str = "",
    ) -> None:
        """Book what a reserved attempt cost; the same again changes nothing.

        ``overrun`` admits more than was reserved: it is counted against the cap as far as it
        fits, and what does not fit is booked as excess, outside the cap and in full view.
        ``digest`` is the SHA-256 of the result that is stored with it.

        Raises:
            LedgerError: if the attempt was never reserved, is settled otherwise, or costs more
                than its worst case without ``overrun``.
        """
        check_micro(actual)
        with self.database.transaction():
            held = self._need(op_id)
            if held.state == "posted" and held.actual == actual:
                return
            if held.state != "pending":
                raise LedgerError(f"operation {op_id!r} cannot be posted: it is {held}")
            if actual > held.worst_case and not overrun:
                raise LedgerError(
                    f"operation {op_id!r} cost {show_usd(actual)}, more than its worst case "
                    f"{show_usd(held.worst_case)}: the bound was wrong"
                )
            excess = books.settle(self.database, held, actual)
            self.database.execute(
                "UPDATE operations SET state = 'posted', actual = ?, excess = ?,"
                " engine_seconds = ?, note = ? WHERE op_id = ?",
                (actual, excess, engine_seconds, note, op_id),
            )
            append(
                self.database,
                Entry(
                    "post", op_id, held.stage, held.round, held.envelope, actual, excess,
                    float(engine_seconds), note, digest,
                ),
            )  # fmt: skip

    def void(self, op_id: str, *, note: str = "") -> None:
        """Give a reservation back: nothing was sent. The same again changes nothing.

        Raises:
            LedgerError: if the attempt was never reserved, or is posted.
        """
        with self.database.transaction():
            held = self._need(op_id)
            if held.state == "void":
                return
            if held.state != "pending":
                raise LedgerError(f"operation {op_id!r} cannot be voided: it is {held}")
            books.give_back(self.database, held)
            self.database.execute(
                "UPDATE operations SET state = 'void', note = ? WHERE op_id = ?", (note, op_id)
            )
            entry = Entry(
                "void", op_id, held.stage, held.round, held.envelope, held.worst_case, note=note
            )
            append(self.database, entry)

    def reconcile(
        self, known: Callable[[LedgerRow], Charge | None] = lambda row: None
    ) -> tuple[str, ...]:
        """Charge every attempt that a dead process left pending.

        Called once the run's lock is held and the run is claimed, so that whatever another
        process reserved is known to be dead.

        Args:
            known: What an attempt is known to have cost; None, if that is not known, charges it
                in full.

        Returns:
            The attempts that were charged.
        """
        with self.database.transaction():
            left = [
                row
                for row in self.rows()
                if row.state == "pending" and (row.owner != self.database.owner or row.owner == 0)
            ]
            for row in left:
                found = known(row) or Charge(row.worst_case, 0.0, UNKNOWN)
                self.post(
                    row.op_id, found.micro, engine_seconds=found.engine_seconds, overrun=True,
                    note=found.note,
                )  # fmt: skip
        return tuple(row.op_id for row in left)

    def reserve_envelope(self, envelope: str, maximum: int, *, stage: str = "scale") -> None:
        """Set ``maximum`` aside under the name ``envelope``; the same again changes nothing.

        Raises:
            BudgetError: if it does not fit under the cap.
            LedgerError: if there is another envelope of that name.
        """
        check_micro(maximum)
        with self.database.transaction():
            if (held := statement.find_envelope(self.database, envelope)) is not None:
                if (held.maximum, held.stage, held.state) != (maximum, stage, "open"):
                    raise LedgerError(f"envelope {envelope!r} was set aside otherwise: {held}")
                return
            books.set_aside(self.database, stage, maximum)
            self.database.execute(
                "INSERT INTO envelopes (id, stage, maximum) VALUES (?, ?, ?)",
                (envelope, stage, maximum),
            )
            append(self.database, Entry("envelope", envelope, stage, None, None, maximum))

    def close_envelope(self, envelope: str) -> int:
        """Release what an envelope has left, and return it; 0 if it is closed already.

        Raises:
            LedgerError: if it does not exist, or a child of it is pending.
        """
        with self.database.transaction():
            held = books.need_envelope(self.database, envelope)
            if held.state == "closed":
                return 0
            if held.held:
                raise LedgerError(
                    f"envelope {envelope!r} has {show_usd(held.held)} pending: "
                    "post or void its operations first"
                )
            books.set_aside(self.database, held.stage, -held.left)
            self.database.execute("UPDATE envelopes SET state = 'closed' WHERE id = ?", (envelope,))
            append(self.database, Entry("close", envelope, held.stage, None, None, held.left))
        return held.left

    def totals(self) -> Totals:
        """Cap, confirmed and pending."""
        return statement.totals(self.database)

    def sub_caps(self) -> tuple[SubCap, ...]:
        """The stages' own caps, with what is used of them."""
        return caps.sub_caps(self.database)

    def room(self, stage: str) -> int:
        """What can still be reserved for ``stage``, under the cap and its own."""
        own = caps.sub_cap(self.database, stage)
        return min(self.totals().remaining, own.remaining)

    def by_stage(self) -> list[StageTotal]:
        """Sums by stage and round."""
        return statement.by_stage(self.database)

    def rows(self) -> list[LedgerRow]:
        """Every attempt, in the order of reservation."""
        return statement.rows(self.database)

    def spend(self, round: int | None = None) -> Spend:
        """What ``round`` cost so far, or the whole run."""
        return statement.spend(self.database, round)

    def envelope(self, envelope: str) -> Envelope | None:
        """The envelope of that name, or None."""
        return statement.find_envelope(self.database, envelope)

    def _need(self, op_id: str) -> LedgerRow:
        if (held := statement.find(self.database, op_id)) is None:
            raise LedgerError(f"operation {op_id[:140]!r} was never reserved")
        return held

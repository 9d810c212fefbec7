"""A run's books as they stood after each entry: the entries followed again by the ledger itself.

Whether the entries are genuine is ``audit.py``'s question. The one idea: the same verbs on the
same entries, in a database in memory, give the same balances, so that a figure which was written
long ago is compared with the money of its own moment.
"""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.errors import LedgerError, RunError
from agent.money.caps import SUB_CAPS
from agent.money.chain import SealedEntry
from agent.money.database import RunDatabase
from agent.money.ledger import Ledger
from agent.rescoring import STAGE as WHATIF


class _InMemory(RunDatabase):
    """The tables of a run without a file."""

    def _connect(self) -> sqlite3.Connection:
        sql = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        sql.row_factory = sqlite3.Row
        return sql


class Timeline:
    """The books of a run at any of its entries."""

    def __init__(self, entries: Sequence[SealedEntry]) -> None:
        """The timeline that begins with the first of ``entries``.

        Raises:
            RunError: if they do not open any books.
        """
        self.entries = tuple(entries)
        self._places: dict[tuple[str, str], int] = {
            (e.entry.kind, e.entry.op_id): e.seq for e in reversed(self.entries)
        }
        self.ledger, self.position = self._opened(), 0

    @property
    def end(self) -> int:
        """Place of the last entry, from 1."""
        return len(self.entries)

    def place(self, kind: str, op_id: str) -> int | None:
        """Place of the first entry of a kind about ``op_id``, or None."""
        return self._places.get((kind, op_id))

    def before_next(self, place: int) -> int:
        """The last place at which nothing has been begun since ``place``.

        What the engine costs until it is given back, and what a person asked, begin nothing.
        """
        for sealed in self.entries[place:]:
            kind, entry = sealed.entry.kind, sealed.entry
            asked = entry.stage == WHATIF or entry.op_id.startswith("engine-release")
            if kind in ("offer", "envelope", "close") or (kind == "reserve" and not asked):
                return sealed.seq - 1
        return self.end

    def at(self, place: int) -> Ledger:
        """The books after the entry at ``place``; before the first one, with caps and no more.

        Raises:
            RunError: if the ledger refuses an entry.
        """
        if place < self.position:
            self.ledger.database.close()
            self.ledger, self.position = self._opened(), 0
        for sealed in self.entries[self.position : place]:
            self._follow(sealed)
        self.position = max(place, 0)
        return self.ledger

    def first(self, low: int, high: int, fits: Callable[[Ledger], bool]) -> Ledger:
        """The books at the first place from ``low`` to ``high`` that fits, or else at ``low``."""
        for place in range(low, high + 1):
            if fits(self.at(place)):
                return self.ledger
        return self.at(low)

    def _opened(self) -> Ledger:
        opened = [e.entry for e in self.entries if e.entry.kind == "open"]
        caps = [e.amount for e in opened if e.op_id == "cap"]
        if not caps:
            raise RunError("the ledger's entries name no cap")
        sub_caps = {e.stage: e.amount for e in opened if e.stage in SUB_CAPS}
        database = _InMemory(Path("memory"), create=True)
        return Ledger.create(database, caps[0], sub_caps=sub_caps)

    def _follow(self, sealed: SealedEntry) -> None:
        try:
            self._apply(sealed)
        except (LedgerError, sqlite3.IntegrityError, AssertionError) as error:
            raise RunError(f"the ledger's entry {sealed.seq} cannot be followed: {error}") from None

    def _apply(self, sealed: SealedEntry) -> None:
        ledger, entry = self.ledger, sealed.entry
        match entry.kind:
            case "reserve":
                ledger.reserve(
                    entry.op_id, entry.amount,
                    stage=entry.stage, round=entry.round, envelope=entry.envelope,
                )  # fmt: skip
            case "post":
                ledger.post(
                    entry.op_id, entry.amount,
                    engine_seconds=entry.engine_seconds, overrun=True, note=entry.note,
                )  # fmt: skip
            case "void":
                ledger.void(entry.op_id, note=entry.note)
            case "envelope":
                ledger.reserve_envelope(entry.op_id, entry.amount, stage=entry.stage)
            case "close":
                ledger.close_envelope(entry.op_id)
            case _:
                return

"""The caps of a run: the whole one, and what pilots, reviews and scale may use of it.

How money moves under them is ``books.py``'s. The one idea: they are written down once, when the
books are opened, and a stage without a cap of its own is counted all the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.money.amounts import MAX_MICRO, show_usd
from agent.money.chain import Entry, append
from agent.money.database import RunDatabase

SUB_CAPS: Final = {"pilot": "the pilots'", "review": "the reviews'", "scale": "scale's"}
"""What may have a cap of its own; ``pilot`` is whatever is neither a review nor scale."""


def sub_cap_of(stage: str) -> str:
    """The sub-cap that a stage's money is counted under."""
    return stage if stage in SUB_CAPS else "pilot"


@dataclass(frozen=True, slots=True)
class SubCap:
    """The part of the cap that some stages may use, in micro-dollars."""

    name: str
    """One of :data:`SUB_CAPS`."""
    cap: int | None
    """The most that they may use; None is all that the run's cap leaves."""
    posted: int
    """Posted under it."""
    pending: int
    """Reserved and not settled."""
    excess: int
    """Spent beyond it by attempts that outran their reservation."""

    @property
    def remaining(self) -> int:
        """What can still be reserved, as far as this cap goes."""
        return MAX_MICRO if self.cap is None else self.cap - self.posted - self.pending

    @property
    def title(self) -> str:
        """Whose it is and how much, for messages."""
        return f"{SUB_CAPS[self.name]} {'whole cap' if self.cap is None else show_usd(self.cap)}"


def sub_caps(database: RunDatabase) -> tuple[SubCap, ...]:
    """The stages' own caps, with what is used of them."""
    found = database.query("SELECT name, cap, posted, pending, excess FROM sub_caps ORDER BY rowid")
    return tuple(SubCap(*row) for row in found)


def sub_cap(database: RunDatabase, stage: str) -> SubCap:
    """The cap of its own that ``stage`` is counted under."""
    (row,) = database.query(
        "SELECT name, cap, posted, pending, excess FROM sub_caps WHERE name = ?",
        (sub_cap_of(stage),),
    )
    return SubCap(*row)


def open_books(database: RunDatabase, limit: int, sub_caps: Mapping[str, int | None]) -> None:
    """Write the caps of a run down, within the caller's transaction."""
    database.execute("INSERT INTO totals (id, cap) VALUES (1, ?)", (limit,))
    append(database, Entry("open", "cap", "run", amount=limit))
    for name, cap in sub_caps.items():
        database.execute("INSERT INTO sub_caps (name, cap) VALUES (?, ?)", (name, cap))
        if cap is not None:
            append(database, Entry("open", "sub-cap", name, amount=cap))


def describe(limit: int, sub_caps: Mapping[str, int | None]) -> str:
    """The caps of a run, for a message."""
    own = [f"{name} {show_usd(cap)}" for name, cap in sub_caps.items() if cap is not None]
    return ", ".join([show_usd(limit), *own])

"""The seam between the loop and whoever reviews: what is asked, answered, and paid for.

A reviewer is given the learnings report exactly as it is stored, and answers with a typed review.
The one idea: every request is paid for by itself. Its worst case is reserved before it is sent,
its answer is kept before it is read, and what nobody settled is charged in full; so a reviewer
knows prices, and nothing of books.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from agent.errors import ReviewerError
from agent.records import RoundRecord
from agent.review_records import Review

Keep = Callable[[str], None]
"""Stores the body of one answer durably, before it is read."""


@dataclass(slots=True)
class Bill:
    """What one request came to; as it is made, the outcome is unknown and charged in full."""

    keep: Keep
    """Where the answer goes before it is read."""
    cost_micro: int | None = None
    """Micro-dollars by the provider's own count; None if that is unknown."""
    unbilled: bool = False
    """Nothing was sent, or the provider refused it: nothing is charged."""


Pay = Callable[[int], AbstractContextManager[Bill]]
"""Pays for one request: reserves its worst case in micro-dollars, or raises a BudgetError, then
hands out the bill to fill in, and settles it when the block ends, however it ends."""


class ReviewFailed(ReviewerError):
    """No usable review: the run holds. What was paid for it is in the books."""


class Reviewer(Protocol):
    """Reads a learnings report and recommends changes."""

    @property
    def name(self) -> str:
        """``rules``, or ``llm:<model>``."""

    def review(self, learnings: str, rounds: Sequence[RoundRecord], *, pay: Pay) -> Review:
        """A review of the last of ``rounds``, which ``learnings`` reports.

        Args:
            learnings: The report, byte for byte as stored.
            rounds: The records that it was made from, oldest first.
            pay: Pays for each request; one that is not paid for is not sent.

        Raises:
            ReviewFailed: if there is no usable answer.
            BudgetError: if the next request does not fit under the cap.
        """

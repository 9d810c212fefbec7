"""The seam between the loop and whoever reviews: what is asked, answered, and charged.

A reviewer is given the learnings report exactly as it is stored, and answers with a typed review.
The one idea: an answer that was paid for is never lost. Each raw answer is handed to ``keep``
before it is parsed, and a failure carries the last one with what it cost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.errors import ReviewerError
from agent.records import Review, RoundRecord

Keep = Callable[[str], None]
"""Stores one raw answer, before it is parsed."""


def discard(raw: str) -> None:
    """A :data:`Keep` that keeps nothing."""


@dataclass(frozen=True, slots=True)
class ReviewerAnswer:
    """One review and what it took to get it."""

    review: Review
    """The validated answer; what it asks for is still to be guarded."""
    raw: str
    """The text that it was read from."""
    cost_usd: float
    """Dollars to post, failed requests included."""
    requests: int
    """Requests on the wire."""


class ReviewFailed(ReviewerError):
    """No usable review: the run holds. Carries what was answered and what it cost."""

    def __init__(
        self, message: str, *, raw: str = "", cost_usd: float = 0.0, requests: int = 0
    ) -> None:
        super().__init__(message)
        self.raw = raw
        """The last raw answer; empty when there was none."""
        self.cost_usd = cost_usd
        """Dollars to post."""
        self.requests = requests
        """Requests on the wire."""


class Reviewer(Protocol):
    """Reads a learnings report and recommends changes."""

    @property
    def name(self) -> str:
        """``rules``, or ``llm:<model>``."""

    def worst_case_usd(self, learnings: str) -> float:
        """What one review of ``learnings`` can cost at most, to be reserved before it."""

    def review(
        self, learnings: str, rounds: Sequence[RoundRecord], *, keep: Keep = discard
    ) -> ReviewerAnswer:
        """A review of the last of ``rounds``, which ``learnings`` reports.

        Args:
            learnings: The report, byte for byte as stored.
            rounds: The records that it was made from, oldest first.
            keep: Called with each raw answer before it is parsed.

        Raises:
            ReviewFailed: if there is no usable answer; it carries the cost all the same.
        """

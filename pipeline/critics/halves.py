"""Whether margins hold on controls that they were not set on: each half judged by the other.

A margin is set on the controls that then certify it. The one idea: set on every other control and
counted on the rest, and the other way round, false accepts are no longer those it was chosen for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.critics.margins import set_margin
from pipeline.verdict import lower_limit


@dataclass(frozen=True, slots=True)
class Halves:
    """What margins of one half accept in the other, both ways together."""

    bad_accepted: int
    """Bad controls accepted,"""
    bad: int
    """of so many."""
    good_accepted: int
    """Good controls accepted,"""
    good: int
    """of so many."""

    def refutes(self, max_false_accept: float) -> bool:
        """Whether more bad controls are surely accepted than may be (lower 95 % limit)."""
        return lower_limit(self.bad_accepted, self.bad) >= max_false_accept


def judge_by_halves(
    good: Sequence[float], bad: Sequence[float], *, max_false_accept: float
) -> Halves | None:
    """Set a margin on each half of the controls and count the other half; None if neither can.

    Args:
        good: Scores of good controls.
        bad: Scores of bad controls.
        max_false_accept: What the upper 95 % limit of false accepts must stay below.
    """
    margins = [
        set_margin(good[h::2], bad[h::2], max_false_accept=max_false_accept).margin for h in (0, 1)
    ]
    counted = [
        (sum(s > margin for s in bad[1 - h :: 2]), sum(s > margin for s in good[1 - h :: 2]), h)
        for h, margin in enumerate(margins)
        if margin is not None
    ]
    if not counted:
        return None
    return Halves(
        bad_accepted=sum(b for b, _, _ in counted),
        bad=sum(len(bad[1 - h :: 2]) for _, _, h in counted),
        good_accepted=sum(g for _, g, _ in counted),
        good=sum(len(good[1 - h :: 2]) for _, _, h in counted),
    )

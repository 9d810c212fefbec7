"""Margins: how high a critic must score a row to accept it, set from its scores on controls.

Which controls is decided in ``controls.py``, what scores mean in ``scores.py``. The one idea: a
margin exists only where the upper 95 % limit of what it falsely accepts stays below a maximum;
elsewhere the critic's acceptance is uncertified.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.critics.areas import auc
from pipeline.types import Certificate
from pipeline.verdict import lower_limit, upper_limit

_BOUND = 20.0
"""Margins are tuned within this many nats of 0."""


@dataclass(frozen=True, slots=True)
class Margin:
    """A margin, and what the critic does with controls at it."""

    margin: float | None
    """A row is accepted when its score exceeds it, in nats; None where it could not be set."""
    false_accept: float | None
    """Share of bad controls accepted."""
    false_accept_high: float | None
    """Its upper 95 % limit."""
    true_accept: float | None
    """Share of good controls accepted."""
    auc: float | None
    """Area under the ROC curve over the same controls."""
    good: int
    """Good controls scored."""
    bad: int
    """Bad controls scored."""
    reason: str
    """Why, in one phrase."""

    def certificate(self, name: str) -> Certificate:
        """What the critic showed, as the certificate of the metric ``name``.

        Good controls are what it is to catch; the limits of both shares are those of detectors.
        """
        certified = self.margin is not None
        if self.true_accept is None or self.false_accept is None:
            return Certificate(name, None, None, self.good, self.bad, certified, self.reason)
        caught = round(self.true_accept * self.good)
        spared = self.bad - round(self.false_accept * self.bad)
        return Certificate(
            name, self.true_accept, 1 - self.false_accept, self.good, self.bad,
            certified, self.reason,
            lower_limit(caught, self.good), upper_limit(caught, self.good),
            lower_limit(spared, self.bad), upper_limit(spared, self.bad),
        )  # fmt: skip

    def because(self, reason: str) -> "Margin":
        """The same result without its margin: for ``reason`` it may not be used."""
        return replace(self, margin=None, reason=reason)


def set_margin(good: Sequence[float], bad: Sequence[float], *, max_false_accept: float) -> Margin:
    """The margin that parts good and bad best among those that accept few enough bad ones.

    Args:
        good: Scores of good controls.
        bad: Scores of bad controls.
        max_false_accept: What the upper 95 % limit of false accepts must stay below.
    """
    area = auc(good, bad)
    if area is None:
        return _none(good, bad, area, "no controls")
    admissible = _admissible(good, bad, max_false_accept)
    if not admissible:
        return _none(good, bad, area, f"{len(bad)} bad controls cannot show so few false accepts")
    best = max(admissible, key=lambda m: (_gain(good, bad, m), -abs(m)))
    best = round(best, 6)
    return check_margin(best, good, bad, max_false_accept=max_false_accept)


def lowest_margin(
    good: Sequence[float], bad: Sequence[float], *, max_false_accept: float
) -> float | None:
    """The loosest margin whose false accepts stay below the maximum; None if there is none."""
    found = _admissible(good, bad, max_false_accept) if good and bad else []
    return min(found, default=None)


def check_margin(
    margin: float, good: Sequence[float], bad: Sequence[float], *, max_false_accept: float
) -> Margin:
    """What a given margin does with controls; without a margin if it accepts too many bad ones."""
    area = auc(good, bad)
    if area is None:
        return _none(good, bad, area, "no controls")
    accepted, wrongly = _above(good, margin), _above(bad, margin)
    high = upper_limit(wrongly, len(bad))
    shares = (wrongly / len(bad), high, accepted / len(good))
    found = (
        f"accepts {wrongly} of {len(bad)} bad controls (at most {high:.1%}; {max_false_accept:.0%} "
        f"allowed) and {accepted} of {len(good)} good ones"
    )
    useful = accepted / len(good) > wrongly / len(bad) and high < max_false_accept
    return Margin(margin if useful else None, *shares, area, len(good), len(bad), found)


def _none(good: Sequence[float], bad: Sequence[float], area: float | None, reason: str) -> Margin:
    return Margin(None, None, None, None, area, len(good), len(bad), reason)


def _admissible(
    good: Sequence[float], bad: Sequence[float], max_false_accept: float
) -> list[float]:
    """Margins within bounds that accept few enough bad controls."""
    return [
        m
        for m in _candidates(good, bad)
        if abs(m) <= _BOUND and upper_limit(_above(bad, m), len(bad)) < max_false_accept
    ]


def _candidates(good: Sequence[float], bad: Sequence[float]) -> list[float]:
    """Half-way between neighbouring scores, and just above the highest."""
    scores = sorted({*good, *bad})
    return [(a + b) / 2 for a, b in zip(scores, scores[1:], strict=False)] + [scores[-1]]


def _above(scores: Sequence[float], margin: float) -> int:
    return sum(score > margin for score in scores)


def _gain(good: Sequence[float], bad: Sequence[float], margin: float) -> float:
    """Youden's index: true accepts less false accepts."""
    return _above(good, margin) / len(good) - _above(bad, margin) / len(bad)

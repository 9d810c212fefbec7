"""ROC areas: how surely a critic's scores part good controls from bad ones.

Which controls, and what follows from an area, is left to others. The one idea: a critic sees a
fault when even the lower end of the area's 90 % interval (two-sided, so one-sided 95 %) is high
enough; a point estimate of a few dozen controls proves nothing.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

_Z: Final = 1.6448536269514722
"""Normal quantile of 95 %: two-sided 90 %."""


@dataclass(frozen=True, slots=True)
class Area:
    """A ROC area with its interval."""

    value: float
    """Probability that a good control scores above a bad one, ties counted half."""
    low: float
    """Lower end of its two-sided 90 % interval."""
    high: float
    """Upper end."""


@dataclass(frozen=True, slots=True)
class FaultCertificate:
    """What one critic showed on controls with one kind of fault."""

    subject: str
    """instruction or pair."""
    critic: str
    """label, lift or combined."""
    fault: str
    """Kind of fault; those of the run's own rows begin with ``own``."""
    good: int
    """Good controls scored."""
    bad: int
    """Bad controls scored."""
    area: float | None = None
    """ROC area; None without controls."""
    low: float | None = None
    """Lower end of its two-sided 90 % interval (Newcombe 2006, method 5)."""
    high: float | None = None
    """Upper end."""
    seen: bool = False
    """Whether ``low`` reaches the minimum."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object with every field."""
        return asdict(self)


def auc(good: Sequence[float], bad: Sequence[float]) -> float | None:
    """Probability that a good control scores above a bad one, ties counted half.

    None without controls (Mann & Whitney 1947).
    """
    if not good or not bad:
        return None
    ranked = sorted(bad)
    wins = sum(bisect_left(ranked, g) + bisect_right(ranked, g) for g in good)
    return wins / (2 * len(good) * len(bad))


def area(good: Sequence[float], bad: Sequence[float]) -> Area | None:
    """The ROC area with its interval by Newcombe (2006), method 5; None without controls.

    A score interval with Hanley & McNeil's variance: unlike DeLong's it is no point where good and
    bad are parted without a mistake.
    """
    value = auc(good, bad)
    if value is None:
        return None
    m, n = len(good), len(bad)

    def beyond(theta: float) -> float:
        return abs(value - theta) - _Z * _deviation(theta, m, n)

    return Area(value, _edge(beyond, 0.0, value), _edge(beyond, 1.0, value))


def _deviation(theta: float, m: int, n: int) -> float:
    more = (m + n) / 2 - 1
    terms = 1 + more * ((1 - theta) / (2 - theta) + theta / (1 + theta))
    return math.sqrt(theta * (1 - theta) * terms / (m * n))


def _edge(beyond: Callable[[float], float], outer: float, inner: float) -> float:
    """Where ``beyond`` changes its sign, from ``outer`` where it is positive; by bisection."""
    for _ in range(60):
        middle = (outer + inner) / 2
        outer, inner = (middle, inner) if beyond(middle) > 0 else (outer, middle)
    return (outer + inner) / 2

"""How many distinct instructions, and kept rows, a number of attempts will yield.

What the draws so far say of kinds not yet seen is ``abundance.py``'s; what a forecast is used for
is not known here. The one idea: a forecast is a sample of possible futures, so medians, intervals
and the fewest attempts that suffice are all read off the same draws.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.abundance import DRAWS, Unseen, stream
from pipeline.novelty import normalise

VALIDATED_FACTOR: Final = 20
"""Up to this many times the draws, forecasts have been checked against the truth,"""
VALIDATED_DRAWS: Final = 150
"""from this many draws on."""
METHOD: Final = "log-normal or Pitman-Yor abundances, averaged over their posterior"
"""How distinct instructions beyond the draws are computed."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Distinct instructions after a number of attempts."""

    attempts: int
    """Instructions drawn in all, those seen included."""
    expected: float
    """Median of distinct ones."""
    low: float
    """Lower end of the 90 % interval."""
    high: float
    """Upper end."""
    coverage: float | None
    """Good-Turing: probability that the next draw has been seen; None without draws."""
    method: str
    """How it was computed."""
    within_validated_range: bool
    """Whether forecasts so far beyond the draws have been checked."""


@dataclass(frozen=True, slots=True)
class KeptForecast:
    """Distinct kept rows after a number of attempts."""

    attempts: int
    """Instructions drawn in all."""
    expected: float
    """Median of kept rows."""
    low: float
    """Lower end of the 90 % interval."""
    high: float
    """Upper end."""
    target: int
    """Rows wanted."""
    attempts_needed: int | None
    """Fewest attempts whose median reaches the target; None if ``attempts`` do not suffice."""
    draws: int
    """Instructions that the forecast is made from."""
    within_validated_range: bool
    """Whether forecasts so far beyond the draws have been checked."""


def good_turing_coverage(counts: Sequence[int]) -> float | None:
    """Probability that the next draw has been seen, from how often each kind was (Good 1953)."""
    total = sum(counts)
    if total == 0:
        return None
    return 1 - sum(c == 1 for c in counts) / total


def forecast_distinct(instructions: Sequence[str], attempts: int) -> Forecast:
    """Forecast distinct instructions after ``attempts`` draws, 90 % interval.

    Args:
        instructions: Every parsed instruction in draw order, repeats included.
        attempts: Draws in all; fewer than were made are interpolated.
    """
    counts = _counts(instructions)
    total = sum(counts)
    if total == 0:
        return Forecast(attempts, 0.0, 0.0, float(attempts), None, "no draws", False)
    low, middle, high = _quantiles(_Kinds(counts).distinct(attempts))
    method = METHOD if attempts > total else "rarefaction"
    return Forecast(
        attempts, middle, float(math.floor(low)), float(math.ceil(high)),
        good_turing_coverage(counts), method, _validated(total, attempts),
    )  # fmt: skip


def forecast_kept(
    instructions: Sequence[str], *, kept: int, distinct: int, attempts: int, target: int
) -> KeptForecast:
    """Forecast kept rows: distinct instructions times the share of them that is kept.

    Args:
        instructions: Every parsed instruction in draw order, repeats included.
        kept: Rows kept,
        distinct: of this many distinct instructions that had their chance.
        attempts: The most attempts allowed.
        target: Rows wanted.
    """
    counts = _counts(instructions)
    total = sum(counts)
    within = _validated(total, attempts)
    if total == 0 or distinct == 0:
        return KeptForecast(attempts, 0.0, 0.0, float(attempts), target, None, total, False)
    posterior = _Kinds(counts)
    rate = stream("rate").beta(kept + 0.5, distinct - kept + 0.5, DRAWS)
    luck = stream("luck").standard_normal(DRAWS)

    def at(count: int) -> tuple[float, float, float]:
        novel = posterior.distinct(count)
        # Which of them are kept is chance too: a binomial, by its normal limit.
        kept_ones = novel * rate + luck * (novel * rate * (1 - rate)) ** 0.5
        return _quantiles(kept_ones.clip(0, novel))

    low, middle, high = at(attempts)
    needed = _fewest(lambda count: at(count)[1] >= target, attempts) if middle >= target else None
    return KeptForecast(attempts, middle, low, high, target, needed, total, within)


def _counts(instructions: Sequence[str]) -> list[int]:
    return list(Counter(map(normalise, instructions)).values())


def _validated(total: int, attempts: int) -> bool:
    return attempts <= total or VALIDATED_DRAWS <= total >= attempts / VALIDATED_FACTOR


def _fewest(reaches: Callable[[int], bool], most: int) -> int:
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def _quantiles(sample: Any) -> tuple[float, float, float]:
    import numpy as np

    low, middle, high = np.quantile(sample, [0.05, 0.5, 0.95])
    return float(low), float(middle), float(high)


class _Kinds:
    """Draws of the number of kinds after any number of draws."""

    def __init__(self, counts: Sequence[int]) -> None:
        self.counts, self.kinds, self.total = counts, len(counts), sum(counts)
        self.unseen = Unseen(counts)
        self.luck = stream("part").standard_normal(DRAWS)

    def distinct(self, attempts: int) -> Any:
        """Draws of the number of distinct kinds after ``attempts`` draws in all."""
        if attempts > self.total:
            return self.kinds + self.unseen.further(attempts - self.total)
        mean, variance = _rarefied(self.counts, attempts)
        part = mean + variance**0.5 * self.luck
        return part.clip(min(attempts, 1), min(attempts, self.kinds))


def _rarefied(counts: Sequence[int], attempts: int) -> tuple[float, float]:
    """Expected kinds in a random part of the draws (Hurlbert 1971), and a bound on their variance.

    The bound leaves out that two kinds are missed together less often than by chance.
    """
    total = sum(counts)

    def missed(count: int) -> float:
        if total - count < attempts:
            return 0.0
        lg = math.lgamma
        top = lg(total - count + 1) - lg(total - count - attempts + 1)
        return math.exp(top - lg(total + 1) + lg(total - attempts + 1))

    each = [(missed(count), kinds) for count, kinds in Counter(counts).items()]
    mean = math.fsum(kinds * (1 - q) for q, kinds in each)
    return mean, math.fsum(kinds * q * (1 - q) for q, kinds in each)

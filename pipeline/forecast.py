"""How many distinct instructions, and kept rows, a number of attempts will yield.

A Pitman-Yor process (Pitman & Yor 1997; Lijoi, Mena & Pruenster 2007, "Bayesian nonparametric
estimation of the probability of discovering new species") is fitted to how often each instruction
was drawn. What a forecast is used for is not known here. The one idea: discount and concentration
are uncertain, so a forecast averages over their posterior instead of trusting the likeliest pair.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.novelty import normalise

VALIDATED_FACTOR: Final = 20
"""Up to this many times the draws, forecasts have been checked against the truth."""
_DRAWS = 4000
"""Draws from the posterior; the interval's ends move by about one part in a hundred."""


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
    sample = _Posterior(counts).distinct(attempts)
    low, middle, high = _quantiles(sample)
    method = "rarefaction" if attempts <= total else "Pitman-Yor, averaged over its posterior"
    within = attempts <= VALIDATED_FACTOR * total
    return Forecast(attempts, middle, low, high, good_turing_coverage(counts), method, within)


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
    within = attempts <= VALIDATED_FACTOR * total
    if total == 0 or distinct == 0:
        return KeptForecast(attempts, 0.0, 0.0, float(attempts), target, None, total, False)
    posterior = _Posterior(counts)
    rate = _stream("rate").beta(kept + 0.5, distinct - kept + 0.5, _DRAWS)
    luck = _stream("luck").standard_normal(_DRAWS)

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


def _fewest(reaches: Any, most: int) -> int:
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def _quantiles(sample: Any) -> tuple[float, float, float]:
    import numpy as np

    low, middle, high = np.quantile(sample, [0.05, 0.5, 0.95])
    return float(low), float(middle), float(high)


def _stream(name: str) -> Any:
    """A fixed stream of random numbers: the same data give the same forecast."""
    import numpy as np

    return np.random.default_rng(list(name.encode()))


class _Posterior:
    """Draws of (discount, concentration) given how often each kind was drawn."""

    def __init__(self, counts: Sequence[int]) -> None:
        self.kinds, self.total, self.counts = len(counts), sum(counts), counts
        discount, concentration, weight = _grid(counts)
        chosen = _stream("posterior").choice(len(weight), size=_DRAWS, p=weight)
        self.discount, self.concentration = discount[chosen], concentration[chosen]
        self.normal = _stream("spread").standard_normal(_DRAWS)

    def distinct(self, attempts: int) -> Any:
        """Draws of the number of distinct kinds after ``attempts`` draws in all."""
        import numpy as np

        if attempts <= self.total:
            return np.full(_DRAWS, _rarefied(self.counts, attempts))
        further = attempts - self.total
        mean, variance = self._further(further)
        fresh = mean + np.sqrt(np.maximum(variance, 0.0)) * self.normal
        return self.kinds + np.clip(fresh, 0, further)

    def _further(self, further: int) -> tuple[Any, Any]:
        """Mean and variance of further kinds.

        X = concentration / discount + kinds has rising-factorial moments that grow by a ratio of
        gamma functions a step, so both are closed forms.
        """
        import numpy as np
        from scipy.special import gammaln

        s, t, n = self.discount, self.concentration, self.total

        def growth(order: int) -> Any:
            up = gammaln(t + n + order * s + further) - gammaln(t + n + order * s)
            return np.expm1(up - gammaln(t + n + further) + gammaln(t + n))

        x, first, second = t / s + self.kinds, growth(1), growth(2)
        mean = x * first
        variance = x * (x + 1) * (second + 1) - (x + mean) - (x + mean) ** 2
        # Where the discount nearly vanishes the difference is lost to rounding; there the
        # further kinds are a sum of independent events.
        return mean, np.where(s < 0.02, mean, variance)


def _rarefied(counts: Sequence[int], attempts: int) -> float:
    """Expected kinds in a random part of the draws (Hurlbert 1971)."""
    total = sum(counts)

    def missed(count: int) -> float:
        if total - count < attempts:
            return 0.0
        lg = math.lgamma
        top = lg(total - count + 1) - lg(total - count - attempts + 1)
        return math.exp(top - lg(total + 1) + lg(total - attempts + 1))

    return len(counts) - math.fsum(map(missed, counts))


def _grid(counts: Sequence[int]) -> tuple[Any, Any, Any]:
    """Discounts, concentrations and posterior weights.

    The prior is flat in the discount and in the logarithm of the concentration.
    """
    import numpy as np

    discount, log_concentration = np.meshgrid(
        np.linspace(0.005, 0.995, 100), np.linspace(math.log(0.1), math.log(1e6), 120)
    )
    s, t = discount.ravel(), np.exp(log_concentration.ravel())
    log = _log_likelihood(counts, s, t)
    weight = np.exp(log - log.max())
    return s, t, weight / weight.sum()


def _log_likelihood(counts: Sequence[int], s: Any, t: Any) -> Any:
    """Exchangeable-partition probability of the counts (Pitman 1995), up to a constant."""
    import numpy as np
    from scipy.special import gammaln

    kinds, total = len(counts), sum(counts)
    value = (kinds - 1) * np.log(s) + gammaln(t / s + kinds) - gammaln(t / s + 1)
    value -= gammaln(t + total) - gammaln(t + 1)
    for size, times in Counter(counts).items():
        value += times * (gammaln(size - s) - gammaln(1 - s))
    return value

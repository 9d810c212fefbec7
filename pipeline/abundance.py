"""How likely each kind is to be drawn: what the kinds seen so far say of those not yet seen.

A hypothesis is a distribution of log p, p the probability of the kind of a random draw.
*Log-normal* (Preston 1948), with a variance in proportion to its mean: a text's log-probability is
a sum over its tokens (asymptotic equipartition; Cover & Thomas 2006, chapter 3). For draws that no
language model made, log-normal with any variance, and *Pitman-Yor* (1997) with its power-law tail.
What is made of them is ``forecast.py``'s. The one idea: parameters and hypothesis are uncertain,
so forecasts are averaged over the posterior of both, then spread by how wrong the first
hypothesis was about real draws.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

DRAWS: Final = 4000
"""Draws from the posterior; the interval's ends move by about one part in a hundred."""
_RATIO: Final = (1.35, 0.15)
"""Spread of log p over the root of its mean: middle, and deviation of its log.

Fitted to 6,000 real draws it is 1.4 at temperature 0.3 and 0.9 at 0.7, where it hardly matters.
"""
_MISFIT: Final = 0.03
"""Deviation of the log-odds of a further draw being new that is left with parameters known well."""
_ANY_SPREAD: Final = 0.03
"""Prior probability of log-normal with any spread."""
_POWER_LAW: Final = 0.05
"""Prior probability of Pitman-Yor."""
_COMMON: Final = 50
"""Kinds drawn more often than this have a known probability."""
_FLOOR: Final = 1e-300
"""Stands for probabilities too small for a float."""


@dataclass(frozen=True)
class _Hypothesis:
    """A family of distributions of log p with two parameters."""

    prior: float
    """Its probability before any draw."""
    first: tuple[float, float, int]
    """Range of the first parameter, and points on it."""
    second: tuple[float, float, int]
    """Range of the second."""
    density: Callable[[Any, Any], Any]
    """Log-density over the grid of log p, up to a constant, from columns of both parameters."""
    weight: Callable[[Any, Any], Any]
    """Log prior density of both parameters, up to a constant."""


@dataclass(frozen=True)
class _Fit:
    """One hypothesis on a grid of its parameters, given counts."""

    mass: Any
    """Probabilities of log p, one row a point of the grid."""
    log_weight: Any
    """Logarithm of each point's share of the evidence."""


class Unseen:
    """The kinds that have not been drawn, given how often each of the others was."""

    def __init__(self, counts: Sequence[int]) -> None:
        import numpy as np
        from scipy.special import logsumexp

        self.total = sum(counts)
        fits = [_fit(hypothesis, counts) for hypothesis in _hypotheses()]
        self._mass = np.concatenate([fit.mass for fit in fits])
        log_weight = np.concatenate([fit.log_weight for fit in fits])
        share = np.exp(log_weight - logsumexp(log_weight))
        self._chosen = stream("posterior").choice(len(share), size=DRAWS, p=share / share.sum())
        self._luck = stream("spread").standard_normal(DRAWS)
        self._misfit = _MISFIT * stream("misfit").standard_normal(DRAWS)

    def further(self, draws: int) -> Any:
        """Posterior draws of the number of kinds that ``draws`` more draws bring."""
        import numpy as np
        from scipy.special import expit, logit

        p = np.exp(_log_p())
        first_later = np.exp(-self.total * p) * -np.expm1(-draws * p) / p
        share = np.clip((self._mass @ first_later)[self._chosen] / draws, _FLOOR, 1 - 1e-12)
        share = expit(logit(share) + self._misfit)
        # Each kind comes or does not: about Poisson while few do, and never more than draws.
        deviation = np.sqrt(draws * share * (1 - share))
        return np.clip(draws * share + deviation * self._luck, 0, draws)


def stream(name: str) -> Any:
    """A fixed stream of random numbers: the same data give the same forecast."""
    import numpy as np

    return np.random.default_rng(list(name.encode()))


@cache
def _log_p() -> Any:
    import numpy as np

    return np.linspace(-45.0, -0.0005, 450)


@cache
def _hypotheses() -> tuple[_Hypothesis, ...]:
    import numpy as np

    middle, deviation = _RATIO

    def log_normal(log_mean: Any, log_ratio: Any) -> Any:
        mean = np.exp(log_mean)
        return -((_log_p() + mean) ** 2) / (2 * mean * np.exp(2 * log_ratio))

    def log_normal_prior(log_mean: Any, log_ratio: Any) -> Any:
        # Falls with the mean: no repeat in a few draws is no proof of endless variety.
        return -log_mean / 2 - ((log_ratio - math.log(middle)) / deviation) ** 2 / 2

    def pitman_yor(discount: Any, log_concentration: Any) -> Any:
        x = _log_p()
        rest = np.log(-np.expm1(x))
        return (1 - discount) * x + (np.exp(log_concentration) + discount - 1) * rest

    def flat(discount: Any, _: Any) -> Any:
        return np.zeros_like(discount)

    means, near = (math.log(0.5), math.log(40.0), 40), 3 * deviation
    ratios = (math.log(middle) - near, math.log(middle) + near, 15)
    return (
        _Hypothesis(1 - _ANY_SPREAD - _POWER_LAW, means, ratios, log_normal, log_normal_prior),
        _Hypothesis(_ANY_SPREAD, means, (math.log(0.02), math.log(5.0), 40), log_normal, flat),
        _Hypothesis(
            _POWER_LAW, (0.01, 0.99, 25), (math.log(0.1), math.log(1e6), 30), pitman_yor, flat
        ),
    )


def _fit(hypothesis: _Hypothesis, counts: Sequence[int]) -> _Fit:
    """The hypothesis on a grid laid over what the counts leave of its parameters."""
    import numpy as np
    from scipy.special import logsumexp

    seen = _kernel(counts)
    first, second, mass, prior, scale = _table(hypothesis)
    log = _log_likelihood(mass, *seen) + prior
    near = log > log.max() - 8
    ranges = (
        (*_around(first[near], hypothesis.first), 32),
        (*_around(second[near], hypothesis.second), 24),
    )
    _, _, mass, prior, _ = _lay(hypothesis, *ranges)
    log = _log_likelihood(mass, *seen) + prior + math.log(_area(*ranges)) - scale
    assert np.isfinite(logsumexp(log)), "a likelihood is not a number"
    return _Fit(mass, log + math.log(hypothesis.prior))


def _around(values: Any, full: tuple[float, float, int]) -> tuple[float, float]:
    low, high, points = full
    step = (high - low) / (points - 1)
    return max(low, float(values.min()) - step), min(high, float(values.max()) + step)


def _area(*ranges: tuple[float, float, int]) -> float:
    return math.prod((high - low) / (points - 1) for low, high, points in ranges)


@cache
def _table(hypothesis: _Hypothesis) -> tuple[Any, ...]:
    return _lay(hypothesis, hypothesis.first, hypothesis.second)


def _lay(
    hypothesis: _Hypothesis, first: tuple[float, float, int], second: tuple[float, float, int]
) -> tuple[Any, ...]:
    """Both parameters, the mass of log p and the log prior at each point; the prior's log total."""
    import numpy as np
    from scipy.special import logsumexp

    a, b = (axis.reshape(-1, 1) for axis in np.meshgrid(np.linspace(*first), np.linspace(*second)))
    log = hypothesis.density(a, b)
    mass = np.exp(log - logsumexp(log, axis=1, keepdims=True))
    prior = hypothesis.weight(a, b)[:, 0]
    return a[:, 0], b[:, 0], mass, prior, logsumexp(prior) + math.log(_area(first, second))


def _kernel(counts: Sequence[int]) -> tuple[Any, ...]:
    """How many kinds were drawn k times, and what turns mass of log p into expected numbers.

    The last two columns are the expected number of kinds, and of squared draws.
    """
    import numpy as np
    from scipy.special import gammaln

    x = _log_p()
    times, kinds = np.array(sorted(Counter(counts).items()), dtype=float).T
    rate = sum(counts) * np.exp(x)
    rows = np.exp(times[:, None] * np.log(rate) - rate - gammaln(times + 1)[:, None] - x)
    for row, k in enumerate(times):
        if k > _COMMON:
            # Narrower than the grid: the density at k draws, between two of its points.
            place = np.clip(math.log(k / sum(counts)), x[0], x[-1])
            rows[row] = np.maximum(0, 1 - np.abs(x - place) / (x[1] - x[0]))
            rows[row] *= np.exp(-x) / (k * (x[1] - x[0]))
    both = [-np.expm1(-rate) * np.exp(-x), (rate + rate**2) * np.exp(-x)]
    return kinds, np.vstack([rows, *both]).T


def _log_likelihood(mass: Any, kinds: Any, kernel: Any) -> Any:
    """Of the numbers of kinds drawn k times: independent Poisson ones, given the draws in all."""
    import numpy as np

    expected = mass @ kernel
    each = np.log(expected[:, :-2] + _FLOOR) @ kinds
    # The draws in all are fixed; under the Poisson model they have this variance.
    return each - expected[:, -2] + np.log(expected[:, -1]) / 2

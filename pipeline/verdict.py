"""What counts justify: PASS, FAIL or INSUFFICIENT, from tests that stay valid while one looks.

Each test is an e-process (Ramdas et al. 2023, "Game-theoretic statistics and safe anytime-valid
inference"): a likelihood ratio against the limit, mixed over rates on one side of it. Under the
hypothesis it argues against it exceeds 1 / alpha with probability alpha at most, over all sample
sizes together (Ville's inequality). Which counts are compared with which limit is decided in
``metrics.py``. The one idea: the mixtures are truncated beta distributions, so everything is a
ratio of incomplete beta functions, computed as logarithms.
"""

import math
from dataclasses import dataclass

from pipeline.types import Verdict

_MOST_ROWS = 10**7
"""Beyond this many further rows a verdict counts as out of reach."""
_LARGEST_LOG = 700.0
"""``exp`` of more overflows; an e-value is shown up to here."""
_ONE_SIDED = 0.05
"""Chance that a one-sided limit misses."""


@dataclass(frozen=True, slots=True)
class RateVerdict:
    """What a count of bad rows says about a limit."""

    verdict: Verdict
    """PASS: the rate is below the limit; FAIL: it is above; INSUFFICIENT: not known yet."""
    e_pass: float
    """Evidence against "at or above the limit"; PASS from 1 / alpha on."""
    e_fail: float
    """Evidence against "at or below the limit"; FAIL from 1 / alpha on."""
    rows_needed: int | None
    """Further rows that would decide at the rate seen so far; None if decided or out of reach."""


def alpha_for_round(alpha: float, k: int) -> float:
    """The share of ``alpha`` that round ``k`` = 1, 2, ... may spend; they sum to ``alpha``."""
    return alpha / (k * (k + 1))


def judge_rate(bad: int | None, n: int, *, limit: float, alpha: float) -> RateVerdict:
    """Judge "the rate of bad rows is below ``limit``" from ``bad`` of ``n``.

    Unmeasured (None) and empty never pass. ``limit`` is in (0, 1).
    """
    if bad is None or n == 0:
        return RateVerdict("INSUFFICIENT", 1.0, 1.0, None)
    assert 0 <= bad <= n, f"{bad} bad rows of {n}"
    log_pass, log_fail = _log_e(bad, n, limit)
    verdict = _decide(log_pass, log_fail, alpha)
    needed = _rows_needed(bad, n, limit, alpha) if verdict == "INSUFFICIENT" else None
    return RateVerdict(verdict, _exp(log_pass), _exp(log_fail), needed)


def judge_rate_at_least(good: int | None, n: int, *, limit: float, alpha: float) -> RateVerdict:
    """Judge "the rate of good rows is at least ``limit``": the same with good and bad exchanged."""
    bad = None if good is None else n - good
    return judge_rate(bad, n, limit=1.0 - limit, alpha=alpha)


def confidence_sequence(k: int, n: int, alpha: float) -> tuple[float, float]:
    """An interval for a rate that holds at all sample sizes at once with 1 - ``alpha``.

    The rates at which a Beta(1/2, 1/2) mixture's likelihood ratio stays below 1 / alpha (Robbins
    1970), inverted by bisection.
    """
    from scipy.special import betaln

    if n == 0:
        return 0.0, 1.0
    mixture = float(betaln(k + 0.5, n - k + 0.5) - betaln(0.5, 0.5))
    floor = mixture + math.log(alpha)
    return _edge(k, n, floor, outer=0.0), _edge(k, n, floor, outer=1.0)


def clopper_pearson(k: int, n: int, alpha: float) -> tuple[float, float]:
    """The exact two-sided interval for a rate whose ``n`` was fixed beforehand.

    For a one-sided limit at 1 - ``alpha``, pass twice that ``alpha``.
    """
    from scipy.special import betaincinv

    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, alpha / 2))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - alpha / 2))
    return low, high


def wilson(k: int, n: int, alpha: float) -> tuple[float, float]:
    """The two-sided score interval (Wilson 1927) for a rate whose ``n`` > 0 was fixed before."""
    from scipy.special import ndtri

    z = float(ndtri(1 - alpha / 2))
    middle, spread = k + z**2 / 2, z * math.sqrt(k * (n - k) / n + z**2 / 4)
    return max(0.0, (middle - spread) / (n + z**2)), min(1.0, (middle + spread) / (n + z**2))


def lower_limit(k: int, n: int) -> float:
    """One-sided lower 95 % limit of a share whose ``n`` was fixed; 0 without rows."""
    return clopper_pearson(k, n, 2 * _ONE_SIDED)[0] if n else 0.0


def upper_limit(k: int, n: int) -> float:
    """One-sided upper 95 % limit of a share; 1 without rows."""
    return clopper_pearson(k, n, 2 * _ONE_SIDED)[1] if n else 1.0


def _edge(k: int, n: int, floor: float, *, outer: float) -> float:
    """Where the log-likelihood crosses ``floor`` between the observed rate and ``outer``."""
    inner = k / n
    if inner == outer:
        return outer
    for _ in range(60):
        middle = (inner + outer) / 2
        if _log_likelihood(k, n, middle) >= floor:
            inner = middle
        else:
            outer = middle
    return outer


def _log_likelihood(k: float, n: float, p: float) -> float:
    def term(count: float, share: float) -> float:
        if count == 0:
            return 0.0
        return count * math.log(share) if share > 0 else -math.inf

    return term(k, p) + term(n - k, 1 - p)


def _exp(log: float) -> float:
    return math.exp(min(log, _LARGEST_LOG))


def _decide(log_pass: float, log_fail: float, alpha: float) -> Verdict:
    needed = -math.log(alpha)
    if log_pass >= needed:
        return "PASS"
    return "FAIL" if log_fail >= needed else "INSUFFICIENT"


def _log_e(bad: float, n: float, limit: float) -> tuple[float, float]:
    """Logarithms of the e-values for PASS and for FAIL."""
    null = _log_likelihood(bad, n, limit)
    below = _log_truncated(bad, n, (0.25, 2 / limit), limit) - null
    # I_x(a, b) = 1 - I_{1-x}(b, a): the upper tail is a lower one with the arguments exchanged.
    above = _log_truncated(n - bad, n, (1 / (4 * limit), 1.0), 1 - limit) - null
    return below, above


def _log_truncated(k: float, n: float, prior: tuple[float, float], x: float) -> float:
    """Log-likelihood of k in n, mixed over Beta(*prior) truncated to [0, x]."""
    from scipy.special import betaln

    a, b = prior
    after = float(betaln(a + k, b + n - k)) + _log_betainc(a + k, b + n - k, x)
    return after - float(betaln(a, b)) - _log_betainc(a, b, x)


def _log_betainc(a: float, b: float, x: float) -> float:
    """Logarithm of the regularised incomplete beta function, also where that underflows."""
    from scipy.special import betainc, betaln

    value = float(betainc(a, b, x))
    if value > 1e-280:
        return math.log(value)
    head = a * math.log(x) + b * math.log1p(-x) - math.log(a) - float(betaln(a, b))
    return head + math.log(_continued_fraction(a, b, x))


def _continued_fraction(a: float, b: float, x: float) -> float:
    """Lentz's evaluation of the fraction in DLMF 8.17.22; used far below the mean only."""
    tiny = 1e-300
    c, d = 1.0, 1 / max(1 - (a + b) * x / (a + 1), tiny)
    value = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for step in (even, odd):
            d = 1 / (1 + step * d or tiny)
            c = 1 + step / c or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-12:
            break
    return value


def _rows_needed(bad: int, n: int, limit: float, alpha: float) -> int | None:
    """Smallest number of further rows, at the rate seen so far, that decides."""
    rate = bad / n

    def decided(total: int) -> bool:
        return _decide(*_log_e(rate * total, total, limit), alpha) != "INSUFFICIENT"

    high = max(n, 8)
    while not decided(high):
        high *= 2
        if high > _MOST_ROWS:
            return None
    low = n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high - n

"""Verdicts: the figures that the design states, both sides, and their error under watching."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.verdict import (
    alpha_for_round,
    clopper_pearson,
    confidence_sequence,
    judge_rate,
    judge_rate_at_least,
)


@pytest.mark.parametrize(
    ("alpha", "limit", "rows"),
    [
        (0.05, 0.05, 63), (0.05, 0.10, 31), (0.05, 0.02, 160),
        (alpha_for_round(0.05, 1), 0.05, 77), (alpha_for_round(0.05, 1), 0.10, 38),
        (alpha_for_round(0.05, 1), 0.02, 196), (alpha_for_round(0.05, 2), 0.05, 100),
        (alpha_for_round(0.05, 2), 0.10, 49), (alpha_for_round(0.05, 2), 0.02, 252),
    ],
)  # fmt: skip
def test_rows_without_a_bad_one_that_certify_a_limit(alpha, limit, rows):
    assert judge_rate(0, rows - 1, limit=limit, alpha=alpha).verdict == "INSUFFICIENT"
    assert judge_rate(0, rows - 1, limit=limit, alpha=alpha).rows_needed == 1
    assert judge_rate(0, rows, limit=limit, alpha=alpha).verdict == "PASS"


def test_thirty_rows_pass_nothing_at_five_percent():
    """A hand-run pilot's gate did."""
    assert judge_rate(0, 30, limit=0.05, alpha=0.05).verdict == "INSUFFICIENT"


@pytest.mark.parametrize("limit", [0.001, 0.05, 0.5, 0.999])
def test_unmeasured_and_empty_never_pass(limit):
    for bad in (None, 0):
        for judge in (judge_rate, judge_rate_at_least):
            assert judge(bad, 0, limit=limit, alpha=0.05).verdict == "INSUFFICIENT"
    assert judge_rate(None, 1000, limit=limit, alpha=0.05).verdict == "INSUFFICIENT"


@pytest.mark.parametrize(
    ("bad", "n", "verdict"),
    [
        (0, 160, "PASS"), (1, 160, "PASS"), (8, 160, "INSUFFICIENT"), (40, 160, "FAIL"),
        (10, 24, "FAIL"), (2, 24, "INSUFFICIENT"), (160, 160, "FAIL"),
    ],
)  # fmt: skip
def test_three_verdicts(bad, n, verdict):
    assert judge_rate(bad, n, limit=0.05, alpha=0.05).verdict == verdict


@given(st.integers(0, 300), st.integers(0, 300), st.sampled_from([0.02, 0.1, 0.5, 0.9]))
def test_at_least_is_the_same_with_good_and_bad_exchanged(good, bad, limit):
    one = judge_rate_at_least(good, good + bad, limit=1 - limit, alpha=0.05)
    other = judge_rate(bad, good + bad, limit=limit, alpha=0.05)
    assert one.verdict == other.verdict
    assert one.e_pass == pytest.approx(other.e_pass)


@given(st.integers(0, 10**6), st.data(), st.sampled_from([1e-3, 0.02, 0.05, 0.5, 0.98]))
def test_no_count_breaks_the_arithmetic(n, data, limit):
    bad = data.draw(st.integers(0, n))
    result = judge_rate(bad, n, limit=limit, alpha=0.025)
    assert 0 <= result.e_pass < float("inf") and 0 <= result.e_fail < float("inf")
    assert not (result.e_pass >= 40 and result.e_fail >= 40)
    low, high = confidence_sequence(bad, n, 0.05)
    assert 0 <= low <= (bad / n if n else 0.5) <= high <= 1
    if n and bad / n > limit:
        assert result.verdict != "PASS"


@pytest.mark.parametrize(("bad", "n"), [(1, 64), (2, 64), (45, 100)])
def test_rows_needed_is_the_smallest_number_that_decides(bad, n):
    needed = judge_rate(bad, n, limit=0.05 if bad < 9 else 0.3, alpha=0.025).rows_needed
    if needed is not None:
        assert needed > 0
    exact = judge_rate(0, 50, limit=0.05, alpha=0.025).rows_needed
    assert exact == 27


@pytest.mark.parametrize(("limit", "smallest"), [(0.02, 160), (0.05, 63), (0.10, 31)])
def test_at_the_limit_few_runs_pass_and_below_it_most(limit, smallest):
    """Exact, for looks after each row; the two last figures are the least the design asks for."""
    bound = _bounds(limit, rows=1200)
    assert 0.03 < _passed(limit, bound) <= 0.05
    assert _passed(limit / 5, bound[: 1 + 3 * smallest]) >= 0.67
    assert _passed(limit / 5, bound[: 1 + round(6.5 * smallest)]) >= 0.97


def _passed(rate, bound):
    """Probability that a run at ``rate`` has at some time no more bad rows than ``bound``."""
    running = np.array([1.0])
    passed = 0.0
    for most in bound[1:]:
        running = np.append(running * (1 - rate), 0) + np.append(0, running * rate)
        passed += running[: most + 1].sum()
        running[: most + 1] = 0
    return passed


LOOKS = (32, *range(128, 1088, 96))
"""Rows at which a round is looked at: its smoke test, then every micro-batch to the maximum."""
ROUNDS = 6


@pytest.mark.parametrize("limit", [0.02, 0.05, 0.10, 0.5])
@pytest.mark.parametrize("over", [0.0, 0.002])
def test_of_2000_runs_just_above_the_limit_at_most_one_in_twenty_ever_passes(limit, over):
    """Six rounds of fresh rows, each looked at after every micro-batch."""
    chance = np.random.default_rng(11)
    passed = np.zeros(2000, dtype=bool)
    for round_ in range(1, ROUNDS + 1):
        passed |= _ever_passes(chance, limit + over, limit, alpha_for_round(0.05, round_))
    assert 0 < passed.mean() <= 0.05


@pytest.mark.parametrize("limit", [0.02, 0.05, 0.10, 0.5])
def test_of_2000_runs_looked_at_after_every_row_few_pass_falsely(limit):
    passed = _ever_passes(
        np.random.default_rng(12), limit * 1.01, limit, 0.05, looks=tuple(range(1, 1025))
    )
    assert 0 < passed.mean() <= 0.05


@pytest.mark.parametrize(("limit", "smallest"), [(0.02, 160), (0.05, 63), (0.10, 31)])
@pytest.mark.parametrize(("times", "share"), [(3.0, 0.65), (6.5, 0.95)])
def test_of_2000_runs_at_a_fifth_of_the_limit_most_pass_soon(limit, smallest, times, share):
    looks = tuple(range(smallest, round(times * smallest) + 1))
    passed = _ever_passes(np.random.default_rng(13), limit / 5, limit, 0.05, looks=looks)
    assert passed.mean() >= share


def _ever_passes(chance, rate, limit, alpha, looks=LOOKS):
    """Which of 2,000 runs at a true ``rate`` pass at one of the looks."""
    most = np.array([_most_bad(n, limit, alpha) for n in looks])
    steps = np.diff(looks, prepend=0)
    return (np.cumsum(chance.binomial(steps, rate, size=(2000, len(looks))), axis=1) <= most).any(
        axis=1
    )


def _most_bad(n, limit, alpha):
    """Most bad rows of n with which the verdict is PASS; -1 if it never is."""
    low, high = -1, n
    while high - low > 1:
        middle = (low + high) // 2
        passes = judge_rate(middle, n, limit=limit, alpha=alpha).verdict == "PASS"
        low, high = (middle, high) if passes else (low, middle)
    return low


def _bounds(limit, *, rows):
    """Most bad rows with which n = 0 .. rows pass; more rows never allow fewer."""
    bound = [-1]
    for n in range(1, rows + 1):
        bad = bound[-1]
        while bad < n and judge_rate(bad + 1, n, limit=limit, alpha=0.05).e_pass >= 20:
            bad += 1
        bound.append(bad)
    return bound


def test_the_confidence_sequence_holds_at_all_times():
    runs, rows, rate = 1000, 300, 0.1
    bad = np.cumsum(np.random.default_rng(9).random((runs, rows)) < rate, axis=1)
    inside = {}
    missed = 0
    for run in bad:
        for n, k in enumerate(run, 1):
            key = (int(k), n)
            if key not in inside:
                low, high = confidence_sequence(int(k), n, 0.05)
                inside[key] = low <= rate <= high
            if not inside[key]:
                missed += 1
                break
    assert missed / runs <= 0.05


@pytest.mark.parametrize(
    ("k", "n", "low", "high"), [(0, 30, 0.0, 0.1157), (5, 10, 0.1871, 0.8129), (30, 30, 0.8843, 1)]
)
def test_clopper_pearson_against_published_values(k, n, low, high):
    assert clopper_pearson(k, n, 0.05) == pytest.approx((low, high), abs=1e-4)


def test_rounds_spend_alpha_once():
    assert sum(alpha_for_round(0.05, k) for k in range(1, 10_000)) == pytest.approx(0.05, rel=1e-3)
    assert alpha_for_round(0.05, 1) == 0.025

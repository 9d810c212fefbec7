"""Forecasts of distinct and kept rows against populations whose truth is known."""

import time

import numpy as np
import pytest

from pipeline.forecast import forecast_distinct, forecast_kept, good_turing_coverage


def draws(a, n, seed=0):
    return [f"Instruction {k}" for k in np.random.default_rng(seed).zipf(a, size=n)]


@pytest.mark.parametrize("a", [1.2, 1.5, 2.0])
def test_intervals_hold_the_truth_about_as_often_as_they_say(a):
    held = 0
    for seed in range(20):
        every = draws(a, 6000, seed)
        result = forecast_distinct(every[:400], 6000)
        held += result.low <= len(set(every)) <= result.high
        assert result.within_validated_range
    assert held >= 15


def test_a_short_look_ahead_is_as_uncertain_as_the_draws_themselves():
    """With 2,000 draws the parameters are known well; chance alone moves the next 100."""
    held = 0
    for seed in range(20):
        every = draws(1.2, 2100, seed)
        result = forecast_distinct(every[:2000], 2100)
        held += result.low <= len(set(every)) <= result.high
        assert 8 < result.high - result.low < 40
    assert held >= 15


def test_a_collapse_into_duplicates_is_foreseen():
    """67 % duplicates at scale, 1,311 distinct of 3,968, was visible in the pilot."""
    chance = np.random.default_rng(3)
    common = ["What is the capital city of France?", "Name a fruit.", "What is 2 + 2?", "Say hi."]
    weights = 0.07 / np.arange(1, 5)
    rest = 1 / np.arange(1, 3000) ** 0.9
    p = np.concatenate([weights, (1 - weights.sum()) * rest / rest.sum()])
    names = common + [f"Rare instruction {k}" for k in range(2999)]
    every = [names[k] for k in chance.choice(len(names), size=3968, p=p)]
    result = forecast_distinct(every[:200], 3968)
    assert result.low <= len(set(every)) <= result.high
    assert result.expected < 0.6 * 3968


def test_spelling_variants_are_one_instruction():
    same = ["Name a fruit.", " name  a FRUIT. ", "NAME A FRUIT."] * 20
    result = forecast_distinct(same, 1000)
    assert result.expected < 20
    assert result.coverage == 1.0


def test_fewer_attempts_than_draws_are_interpolated():
    every = draws(1.5, 500)
    result = forecast_distinct(every, 500)
    assert result.expected == pytest.approx(len(set(every)))
    assert forecast_distinct(every, 100).expected < result.expected
    assert forecast_distinct(every, 0).expected == pytest.approx(0.0, abs=1e-6)


def test_nothing_drawn_promises_nothing():
    result = forecast_distinct([], 100)
    assert (result.expected, result.low, result.high) == (0.0, 0.0, 100.0)
    assert result.coverage is None and not result.within_validated_range
    kept = forecast_kept([], kept=0, distinct=0, attempts=100, target=10)
    assert kept.expected == 0 and kept.attempts_needed is None


def test_far_beyond_the_draws_it_says_so():
    every = draws(1.5, 150)
    assert forecast_distinct(every, 3000).within_validated_range
    assert not forecast_distinct(every, 3001).within_validated_range
    assert not forecast_distinct(every[:149], 1000).within_validated_range
    assert forecast_distinct(every[:149], 100).within_validated_range


def test_good_turing_coverage():
    assert good_turing_coverage([3, 1, 1, 5]) == pytest.approx(0.8)
    assert good_turing_coverage([]) is None


def test_the_same_data_give_the_same_forecast():
    every = draws(1.5, 300)
    assert forecast_distinct(every, 5000) == forecast_distinct(list(every), 5000)


def test_kept_rows_need_the_fewest_attempts_whose_median_reaches_the_target():
    every = draws(1.2, 500)
    distinct = len(set(every))
    found = forecast_kept(every, kept=distinct // 2, distinct=distinct, attempts=5000, target=600)
    assert found.low < found.expected < found.high
    assert found.attempts_needed is not None and found.attempts_needed < 5000
    for attempts, reached in ((found.attempts_needed, True), (found.attempts_needed - 1, False)):
        again = forecast_kept(
            every, kept=distinct // 2, distinct=distinct, attempts=attempts, target=600
        )
        assert (again.expected >= 600) is reached


def test_a_target_out_of_reach_has_no_number_of_attempts():
    every = draws(2.0, 500)
    found = forecast_kept(every, kept=20, distinct=len(set(every)), attempts=75_000, target=15_000)
    assert found.attempts_needed is None and found.high < 15_000


def test_a_forecast_for_a_whole_run_is_quick():
    every = draws(1.2, 1000)
    forecast_distinct(every, 75_000)
    started = time.process_time()
    forecast_distinct(every, 75_000)
    assert time.process_time() - started < 0.2


@pytest.mark.parametrize(("pilot", "attempts"), [(320, 300), (320, 1000)])
def test_the_interval_of_kept_rows_has_room_for_luck(pilot: int, attempts: int) -> None:
    """With every instruction distinct and 82 % kept, nine in ten intervals hold the truth."""
    import numpy as np

    chance = np.random.default_rng(5)
    instructions = [f"What is {i}?" for i in range(pilot)]
    held = 0
    for _ in range(60):
        kept = int(chance.binomial(pilot, 0.82))
        found = forecast_kept(instructions, kept=kept, distinct=pilot, attempts=attempts, target=10)
        held += found.low <= chance.binomial(attempts, 0.82) <= found.high
    assert held >= 48

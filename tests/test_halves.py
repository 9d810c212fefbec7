"""pipeline/critics/halves.py: margins on controls that they were not set on."""

import random

from pipeline.critics.halves import Halves, judge_by_halves


def scores(mean: float, n: int, seed: int) -> list[float]:
    chance = random.Random(seed)
    return [chance.gauss(mean, 1.0) for _ in range(n)]


def test_a_critic_that_parts_them_holds_on_the_other_half() -> None:
    found = judge_by_halves(scores(3.0, 60, 1), scores(-1.0, 60, 2), max_false_accept=0.2)
    assert found is not None and (found.bad, found.good) == (60, 60)
    assert found.bad_accepted <= 6 and found.good_accepted >= 50
    assert not found.refutes(0.2)


def test_a_margin_that_fits_one_half_alone_is_refuted() -> None:
    """Bad controls that score high stand in the odd half only: the even half's margin lets in."""
    good, bad = [2.0 + i / 100 for i in range(60)], [0.0, 5.0] * 30
    found = judge_by_halves(good, bad, max_false_accept=0.2)
    assert found is not None and (found.bad_accepted, found.bad) == (30, 30)
    assert found.refutes(0.2)


def test_half_of_few_controls_says_nothing() -> None:
    assert judge_by_halves([2.0] * 8, [0.0] * 8, max_false_accept=0.2) is None
    assert judge_by_halves([], [], max_false_accept=0.2) is None


def test_some_more_than_allowed_is_no_proof() -> None:
    assert not Halves(14, 60, 50, 60).refutes(0.2)
    assert Halves(20, 60, 50, 60).refutes(0.2)

"""agent/report/calibration.py: words only where a test of the figures allows them."""

import random
from statistics import mean
from typing import Any

import pytest
from builders import review, round_record, run_record, story
from scipy import stats

from agent.report.calibration import ENOUGH, INDEPENDENT, _at_most, calibration, held, judgement
from agent.review import brier
from agent.review_records import Track


def track(**changes: Any) -> Track:
    values = {
        "reviewer": "rules", "runs": 4, "reviews": 9, "predictions": 100, "hits": 80,
        "claimed": 0.8, "brier": 0.1, "reverted": 1, "cost_usd": 0.0,
    }  # fmt: skip
    return Track.model_validate(values | changes)


CASES = [
    ({"predictions": ENOUGH - 1, "hits": 0}, "too few to judge"),
    ({"predictions": 0, "hits": 0, "claimed": None, "brier": None}, "too few to judge"),
    ({}, "claims about what holds, better than a constant guess"),
    ({"brier": 0.17}, "claims about what holds, no better than a constant guess"),
    ({"hits": 71, "brier": 0.2}, f"claims too much {INDEPENDENT}, better than a constant guess"),
    ({"hits": 72, "brier": 0.3}, "claims about what holds, no better than a constant guess"),
    ({"hits": 89, "brier": 0.2},
     f"claims too little {INDEPENDENT}, no better than a constant guess"),
    ({"hits": 100, "brier": 0.04}, f"claims too little {INDEPENDENT}"),
    ({"hits": 100, "claimed": 1.0, "brier": 0.0}, "claims about what holds"),
    ({"hits": 99, "claimed": 1.0, "brier": 0.01},
     f"too much {INDEPENDENT}, no better than a constant guess"),
    ({"hits": 0, "claimed": 0.0, "brier": 0.0}, "claims about what holds"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), CASES)
def test_a_judgement_follows_from_the_figures(changes: dict[str, Any], words: str) -> None:
    assert judgement(track(**changes)).endswith(words)


@pytest.mark.parametrize(
    ("hits", "count", "chance"), [(0, 20, 0.1), (71, 100, 0.8), (9000, 10_000, 0.91)]
)
def test_the_tail_is_that_of_the_binomial(hits: int, count: int, chance: float) -> None:
    assert _at_most(hits, count, chance) == pytest.approx(stats.binom.cdf(hits, count, chance))


def test_an_honest_reviewer_is_rarely_accused() -> None:
    """Who claims what they believe, and believes rightly, is accused in at most 5 % of records."""
    chance = random.Random(3)
    accused = 0
    for _ in range(1000):
        claims = [chance.choice((0.5, 0.7, 0.95)) for _ in range(60)]
        hits = [chance.random() < p for p in claims]
        said = judgement(
            track(
                predictions=60, hits=sum(hits), claimed=mean(claims),
                brier=mean(brier(p, h) for p, h in zip(claims, hits, strict=True)),
            )
        )  # fmt: skip
        accused += "too" in said
    assert accused <= 50


def test_a_boaster_is_found_out() -> None:
    assert judgement(track(predictions=40, hits=24, claimed=0.9, brier=0.33)) == (
        "claims too much (if predictions of one round are taken as independent), no better than a "
        "constant guess"
    )


def test_a_line_says_what_was_claimed_and_what_held() -> None:
    assert held(track()) == "80 of 100 held (80.0%), 80.0% claimed on average, Brier score 0.100"
    none = track(predictions=0, hits=0, claimed=None, brier=None)
    assert held(none) == "none has been measured"


def test_this_run_stands_beside_earlier_ones() -> None:
    earlier = track(reviewer="llm:gpt-5-mini", cost_usd=0.25)
    llm, rules = calibration(story(), run_record(tracks=(earlier, track(reviewer="other"))))
    assert llm == (
        "**Predictions of llm:gpt-5-mini:** 1 of 2 held (50.0%), 80.0% claimed on average, Brier "
        "score 0.340. In 4 earlier runs: 80 of 100 held (80.0%), 80.0% claimed on average, Brier "
        "score 0.100; 1 of 9 reviews undone, $0.25: claims about what holds, better than a "
        "constant guess."
    )
    assert rules.startswith("**Predictions of rules:** 2 of 2 held")
    assert rules.endswith("It reviewed no earlier run here.")


def test_a_review_without_predictions_is_no_perfect_record() -> None:
    (line,) = calibration([round_record(review=review({}, []))], run_record())
    assert line == (
        "**Predictions of rules:** none has been measured. It reviewed no earlier run here."
    )
    assert calibration([round_record(review=None)], run_record()) == []

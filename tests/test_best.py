"""agent/best.py: which setting is the best so far, when a round is undone, and what that costs."""

import random
from math import comb
from typing import Any

import pytest
from builders import metrics, rate, round_record

from agent.best import base, best, clearly_worse, compared, kept_share, with_best
from agent.policy import Decision, Step
from agent.records import RoundRecord
from pipeline.types import Funnel


def measured(
    number: int, kept: int | None, n: int, *, repeats: int = 0, unflagged: int = 0, **changes: Any
) -> RoundRecord:
    """A round that drew ``n`` instructions; ``kept`` None: critics that nobody believes."""
    table = metrics({"duplicates": repeats}, n=n, generated=n, kept=kept or 0, distinct=None)
    if kept is None:
        table = tuple(
            m | {"value": None, "count": None, "n": 0} if m["name"] == "raw_acceptance" else m
            for m in table
        )
    funnel = Funnel(n, n, n - repeats, n - repeats, n - repeats, unflagged, kept or 0, n).to_json()
    return round_record(number, metrics=table, funnel=funnel, review=None, **changes)


WORSE: dict[str, tuple[RoundRecord, RoundRecord, bool]] = {
    "half of 24, then a quarter": (measured(2, 6, 24), measured(1, 12, 24), False),
    "half of 24, then none": (measured(2, 0, 24), measured(1, 12, 24), True),
    "half of 100, then a quarter": (measured(2, 25, 100), measured(1, 50, 100), True),
    "a point of 100,000": (measured(2, 49_000, 100_000), measured(1, 50_000, 100_000), False),
    "three points of 100,000": (measured(2, 47_000, 100_000), measured(1, 50_000, 100_000), True),
    "none of 24 after one in twenty of 300": (measured(2, 0, 24), measured(1, 15, 300), False),
    "better": (measured(2, 50, 100), measured(1, 25, 100), False),
    "nothing measured": (measured(2, None, 0), measured(1, 50, 100), False),
    "by flags where critics say nothing": (
        measured(2, None, 100, unflagged=25), measured(1, 90, 100, unflagged=90), True,
    ),
    "by flags after a replay": (
        measured(2, 99, 100, unflagged=25, replayed=True), measured(1, 10, 100, unflagged=90), True,
    ),
    "longer, and only more repeats": (
        measured(2, 120, 300, repeats=100), measured(1, 30, 50, repeats=0), False,
    ),
    "of one length, and more repeats": (
        measured(2, 120, 300, repeats=100), measured(1, 180, 300, repeats=0), True,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("record", "other", "worse"), WORSE.values(), ids=WORSE)
def test_clearly_worse(record: RoundRecord, other: RoundRecord, worse: bool) -> None:
    assert clearly_worse(record, other) is worse
    assert not (worse and clearly_worse(other, record)), "not both ways"


def test_the_best_of_several_is_partly_luck() -> None:
    now, other = measured(5, 36, 100), measured(1, 50, 100)
    assert clearly_worse(now, other) and not clearly_worse(now, other, among=4)


def test_the_level_is_the_exact_tail_of_fisher() -> None:
    """Fisher's tea: all of four right has chance 1 in 70; the 16 worse in 70 are too many."""
    assert clearly_worse(measured(2, 0, 4), measured(1, 4, 4))
    assert not clearly_worse(measured(2, 1, 4), measured(1, 3, 4))


def test_the_best_is_the_one_that_surely_kept_most() -> None:
    lucky, sure, replayed = (
        measured(1, 15, 24), measured(2, 165, 300), measured(3, 90, 100, replayed=True),
    )  # fmt: skip
    assert best([lucky, sure, replayed]) is sure
    assert best([measured(1, None, 0), measured(2, None, 0)]).round == 2


def test_changes_apply_to_the_last_round_unless_it_is_clearly_worse() -> None:
    first, harmed, recovered = measured(1, 50, 100), measured(2, 20, 100), measured(3, 45, 100)
    assert base([first]) is first
    assert base([first, harmed]) is first
    assert base([first, harmed, recovered]) is recovered
    assert base([first, harmed, measured(3, 22, 100)]) is first


@pytest.mark.parametrize(
    ("before", "after", "percent"),
    [(0.05, 0.05, 0.2), (0.5, 0.5, 3.0), (0.9, 0.9, 1.3), (0.5, 0.4, 12), (0.5, 0.25, 45),
     (0.9, 0.7, 43)],
)  # fmt: skip
def test_the_table_of_the_decision_is_what_the_test_does(
    before: float, after: float, percent: float
) -> None:
    """The row of 24 of docs/decisions/014-revert.md, summed over every pair of counts."""
    ways = [comb(24, k) for k in range(25)]

    def chance(k: int, share: float) -> float:
        return ways[k] * share**k * (1 - share) ** (24 - k)

    rounds = [[measured(number, k, 24) for k in range(25)] for number in (1, 2)]
    undone = sum(
        chance(i, before) * chance(j, after)
        for i, first in enumerate(rounds[0])
        for j, second in enumerate(rounds[1])
        if clearly_worse(second, first)
    )
    assert 100 * undone == pytest.approx(percent, abs=0.5 if percent >= 10 else 0.05)


def test_the_more_rounds_were_bought_the_surer_a_revert_has_to_be() -> None:
    """The last one is clearly worse than any one round, and not than the best of three."""
    rounds = [measured(1, 50, 100), measured(2, 45, 100), measured(3, 44, 100)]
    last = measured(4, 36, 100)
    assert clearly_worse(last, best(rounds))
    assert base([rounds[0], last.model_copy(update={"round": 2})]) is rounds[0]
    assert base([*rounds, last]) is last
    replayed = [r.model_copy(update={"replayed": True}) for r in rounds[1:]]
    assert base([rounds[0], *replayed, last]) is rounds[0], "those cost no chance"


def test_a_revert_is_told_with_its_counts() -> None:
    assert compared(measured(2, 20, 100), measured(1, 50, 100)) == (
        "Round 2 kept 20 of 100 rows, round 1 50 of 100"
    )
    replayed = measured(2, 0, 80, unflagged=9, replayed=True)
    assert kept_share(replayed) is None
    assert compared(replayed, measured(1, 50, 100, unflagged=60)) == (
        "Round 2 has no flag in 9 of 80 rows, round 1 60 of 100"
    )


@pytest.mark.parametrize(
    ("step", "rounds", "told"),
    [
        (Step.STOP_ROUNDS, [measured(1, 50, 100), measured(2, 20, 100)], True),
        (Step.STOP_BUDGET, [measured(1, 50, 100), measured(2, 20, 100)], True),
        (Step.STOP_NO_CHANGE, [measured(1, 50, 100)], False),
        (Step.DONE, [measured(1, 50, 100), measured(2, 20, 100)], False),
        (Step.STOP_BUDGET, [measured(1, 5, 100), measured(2, 9, 99, step="APPROVE")], False),
        (Step.STOP_BUDGET, [], False),
    ],
    ids=["rounds", "budget", "one setting", "done", "passed", "before any"],
)
def test_an_ending_without_a_pass_names_the_best_setting(
    step: Step, rounds: list[RoundRecord], told: bool
) -> None:
    reason = with_best(Decision(step, "why"), rounds).reason
    expected = "; the best of 2 settings was round 1's, with 50 of 100 rows"
    assert reason == f"why{expected if told else ''}"


@pytest.mark.parametrize("n", [24, 48, 100, 300])
def test_a_harmless_change_is_rarely_undone(n: int) -> None:
    """Four settings of one true share, each round of 24 or ``n`` rows: undone in 5 % at most."""
    chance = random.Random(n)
    undone, trials = 0, 1000
    form = measured(1, 0, n)

    def drawn(number: int, share: float) -> RoundRecord:
        rows = chance.choice((24, n))
        kept = sum(chance.random() < share for _ in range(rows))
        table = (rate("raw_acceptance", kept, rows).to_json(),)
        return form.model_copy(update={"round": number, "metrics": table})

    for _ in range(trials):
        share = chance.choice((0.05, 0.3, 0.6, 0.9))
        rounds = [drawn(number, share) for number in range(1, 5)]
        undone += base(rounds) is not rounds[-1]
    assert undone <= 0.05 * trials + 2 * (0.05 * 0.95 * trials) ** 0.5

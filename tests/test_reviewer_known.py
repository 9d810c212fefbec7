"""agent/reviewers/known.py: the rules look at what stored rows say before they propose."""

from typing import Any

import pytest
from builders import LIMITS, flagged, metrics, round_record, sample

from agent.guard import guard
from agent.records import RoundRecord
from agent.review_records import Candidate, Review, StopDryRun
from agent.reviewers.rules import recommend
from pipeline.params import GenParams

STOPS = ["\nInstruction", "\nQ:"]
RUN_ON = GenParams()
SET = RUN_ON.replace({"response.stop": STOPS})


def dry(stop: str, ended: int, cut: int = 0) -> StopDryRun:
    return StopDryRun(stop=stop, ended=ended, flagged=80, cut=cut, good=100)


RUNS = (dry("\nInstruction", 70), dry("\nQ:", 9), dry("\n###", 0, cut=1), dry("\nUser:", 4, cut=9))


def known(changes: dict[str, Any], fails: tuple[str, ...] = (), **values: float) -> Candidate:
    rates: dict[str, float | None] = {**dict.fromkeys(LIMITS, 0.0), "raw_acceptance": 0.9}
    verdicts = {name: "FAIL" if name in fails else "INSUFFICIENT" for name in LIMITS}
    return Candidate(
        changes=changes, rows=80, changed=60, unscored=0, values=rates | values, verdicts=verdicts
    )


def stopped(cap: int | None = None, **more: Any) -> Candidate:
    return known(
        {"response.stop": STOPS} | ({"response.max_new_tokens": cap} if cap else {}), **more
    )


def measured(params: GenParams = RUN_ON, **bad: int) -> RoundRecord:
    counts = {"duplicates": 2, **bad}
    return round_record(
        1,
        params=params,
        metrics=metrics(counts, n=200, generated=200, kept=60, distinct=30_000.0),
        causes={},
        stops={"eos": 60, "length": 140},
        random_samples=tuple(sample(i) for i in range(10)),
        flagged_samples=(flagged(50), flagged(51)),
        review=None,
    )


def told(record: RoundRecord, *candidates: Candidate, runs: Any = RUNS) -> RoundRecord:
    return record.model_copy(update={"candidates": candidates, "stop_candidates": runs})


def changed(review: Review) -> dict[str, Any]:
    return {change.parameter: change.value for change in review.changes}


RUNNING = measured(runaway=160, token_limit=120)


def test_stop_strings_are_those_that_all_rows_bear_out():
    """Not those of the ten rows shown: these name only one of them, and the usual ones cut."""
    review = recommend([told(RUNNING)], max_changes=4)
    assert changed(review)["response.stop"] == STOPS
    assert "\nQ:" in STOPS and "\n###" not in STOPS


def test_the_guard_refuses_none_of_what_the_dry_run_proposes():
    record = told(RUNNING)
    by_stop = {run.stop: run for run in RUNS}
    review = recommend([record], max_changes=4)

    def cuts(stops: tuple[str, ...]) -> tuple[int, int]:
        return sum(by_stop[stop].cut for stop in stops), RUNS[0].good

    assert not guard(review, record.params, max_changes=4, tried=[record], cuts=cuts).refused


CAPS = [
    ("the present cap is enough with the stop strings", [stopped(), stopped(120)], None),
    ("the lowest that is enough", [stopped(token_limit=0.08), stopped(100, token_limit=0.05),
                                   stopped(160)], 100),
    ("else the one that is hit least", [stopped(token_limit=0.3), stopped(100, token_limit=0.2),
                                        stopped(160, token_limit=0.12)], 160),
    ("not one that fails what passes now", [stopped(token_limit=0.3),
                                            stopped(160, fails=("empty",), empty=0.5)], None),
    ("a lower cap is no remedy", [stopped(40), stopped(token_limit=0.2)], None),
]  # fmt: skip


@pytest.mark.parametrize(("candidates", "cap"), [c[1:] for c in CAPS], ids=[c[0] for c in CAPS])
def test_the_cap_is_the_one_that_stored_rows_know_to_be_enough(candidates, cap):
    review = recommend([told(RUNNING, *candidates)], max_changes=4)
    expected = {"response.stop": STOPS} | ({"response.max_new_tokens": cap} if cap else {})
    assert changed(review) == expected


def test_without_candidates_the_cap_is_guessed_as_before():
    assert changed(recommend([told(RUNNING)], max_changes=4))["response.max_new_tokens"] == 100


def test_what_is_foretold_is_what_stored_rows_say():
    review = recommend([told(RUNNING, stopped(runaway=0.1, token_limit=0.04))], max_changes=4)
    by_metric = {p.metric: p for p in review.predictions}
    assert by_metric["runaway"].high == 0.15 and by_metric["token_limit"].high == 0.1
    assert "of 80 stored rows" in review.changes[0].reason


@pytest.mark.parametrize("failed", ["runaway", "empty"], ids=["what it treats", "what passes now"])
def test_a_remedy_that_fails_on_stored_rows_is_not_proposed(failed):
    record = measured(runaway=160)
    passed = record.metric("empty")
    assert passed is not None and passed["verdict"] == "PASS"
    bad = stopped(fails=(failed,), **{failed: 0.4})
    assert changed(recommend([told(record, bad)], max_changes=4)) == {"fewshot.count": 9}
    other = stopped(fails=("token_limit",), token_limit=0.4)
    fails_now = measured(runaway=160, token_limit=120)
    assert "response.stop" in changed(recommend([told(fails_now, other)], max_changes=4))


def test_a_cap_on_the_way_is_proposed_though_it_fails():
    """From a cap far too low every reachable one fails; the loop replays it and goes on."""
    low = SET.replace({"response.max_new_tokens": 16})
    record = measured(low, token_limit=190)
    reach = [
        known({"response.max_new_tokens": cap}, fails=("token_limit",), token_limit=rate)
        for cap, rate in ((8, 0.99), (20, 0.9), (24, 0.8), (32, 0.6))
    ]
    review = recommend([told(record, *reach, runs=())], max_changes=4)
    assert changed(review)["response.max_new_tokens"] == 32

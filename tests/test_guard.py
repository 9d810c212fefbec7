"""agent/guard.py: what foretells nothing, contradicts itself or did harm is refused, and why."""

import math
from typing import Any

import pytest
from builders import metrics, round_record

from agent.guard import guard, usable
from agent.records import RoundRecord
from agent.review_records import Change, Prediction, Review
from pipeline.metrics import METRICS
from pipeline.params import GenParams

FORETOLD = Prediction(metric="runaway", low=0.0, high=0.1, probability=0.8)
COOLER = ("response.temperature", 0.2)


def review(
    *changes: tuple[str, Any], predictions: tuple[Prediction, ...] = (FORETOLD,), stop: bool = False
) -> Review:
    return Review(
        diagnosis="d",
        changes=tuple(Change(parameter=p, value=v, reason="r") for p, v in changes),
        predictions=predictions,
        confidence=0.5,
        stop=stop,
    )


def foretold(metric: str, low: float, high: float, probability: float = 0.8) -> Prediction:
    """A prediction that nobody has validated."""
    return Prediction.model_construct(metric=metric, low=low, high=high, probability=probability)


USELESS = [
    (foretold("no_such", 0.0, 0.1), "not in the metric table"),
    (foretold("runaway" * 40, 0.0, 0.1), "not in the metric table"),
    (foretold("runaway", 0.0, 1.0), "foretells nothing"),
    (foretold("yield", 0.0, 1e9), "foretells nothing"),
    (foretold("runaway", 0.2, 0.1), "from 0.2 down to 0.1"),
    (foretold("runaway", -0.1, 0.1), "within 0 to 1"),
    (foretold("runaway", 0.1, 1.1), "within 0 to 1"),
    (foretold("median_tokens", 10, 2000), "within 0 to 1024"),
    (foretold("runaway", math.nan, 0.1), "not finite"),
    (foretold("runaway", 0.0, math.inf), "not finite"),
    (foretold("runaway", 0.0, 0.999999, 1.0), "0.75 wide"),
    (foretold("pair_acceptance", 0.2, 1.0), "0.75 wide"),
    (foretold("yield", 0.0, 9e8, 1.0), "a factor of 10"),
    (foretold("yield", 100.0, 1001.0), "a factor of 10"),
    (foretold("median_tokens", 0.5, 11.0), "a factor of 10"),
    (foretold("runaway", 0.0, 0.1, math.nan), "not finite"),
    (foretold("runaway", 0.0, 0.1, 1.1), "probability 1.1"),
    (foretold("runaway", 0.0, 0.1, -0.1), "probability -0.1"),
]


@pytest.mark.parametrize(("prediction", "why"), USELESS, ids=[w for _, w in USELESS])
def test_a_prediction_that_nobody_can_be_held_to_is_of_no_use(prediction, why):
    found = usable(prediction)
    assert found is not None and why in found and len(found) < 150


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_can_be_foretold(metric):
    assert usable(foretold(metric, 0.25, 1.0)) is None
    assert usable(foretold(metric, 0.0, 0.75)) is None
    assert usable(foretold(metric, 0.0, 0.0, 0.0)) is None


@pytest.mark.parametrize(
    ("predictions", "why"),
    [
        ((), "needs a prediction that it can be held to: there is none"),
        ((foretold("runaway", 0.0, 1.0),), "foretells nothing"),
        ((foretold("no_such", 0.0, 0.1), foretold("runaway", 0.0, 1.0)), "metric table"),
    ],
)
def test_a_change_without_a_prediction_is_refused(predictions, why):
    asked = review(COOLER, ("topics", "x"), predictions=predictions)
    guarded = guard(asked, GenParams(), max_changes=4)
    assert guarded.params == GenParams() and not guarded.applied
    cooler, topics = guarded.refused
    assert why in cooler.why
    assert "one of off, hints" in topics.why, "what is wrong with itself is said first"


def test_one_usable_prediction_is_enough():
    asked = review(COOLER, predictions=(foretold("no_such", 0.0, 0.1), FORETOLD))
    assert not guard(asked, GenParams(), max_changes=4).refused


def test_changes_beside_a_stop_are_contradictory():
    guarded = guard(review(COOLER, stop=True), GenParams(), max_changes=4)
    assert guarded.params == GenParams() and "also says stop" in guarded.refused[0].why


def rows(cut: int, good: int) -> Any:
    return lambda stops: (cut, good)


STOPPED = ("response.stop", ["\nInstruction"])


@pytest.mark.parametrize(
    ("cut", "good", "refused"),
    [
        (7, 61, True), (3, 61, False), (4, 61, True), (1, 20, False), (2, 20, True),
        (1, 19, True), (0, 19, False), (1, 1, True), (0, 0, False),
    ],
)  # fmt: skip
def test_a_stop_string_may_cut_one_good_row_in_twenty(cut, good, refused):
    """Of fewer than 20 one is more than 5 %; where there are none the string itself decides."""
    guarded = guard(review(STOPPED), GenParams(), max_changes=4, cuts=rows(cut, good))
    assert bool(guarded.refused) is refused
    if refused:
        assert f"would cut {cut} of {good} good rows" in guarded.refused[0].why


def test_only_fresh_stop_strings_are_tried_on_rows():
    """Rows that a present one has ended cannot say what it cut."""
    asked: set[str] = set()

    def watched(stops: tuple[str, ...]) -> tuple[int, int]:
        asked.update(stops)
        return 0, 50

    now = GenParams().replace({"response.stop": ["\nQ:"]})
    guard(review(("response.stop", ["\nQ:", "\n###"])), now, max_changes=4, cuts=watched)
    assert asked == {"\n###"}


@pytest.mark.parametrize(("each", "refused"), [(8, True), (3, False)])
def test_stop_strings_may_together_cut_one_good_row_in_twenty(each, refused):
    """Two at 5 % each cut a tenth, and eight of them two good rows in five."""
    asked = review(("response.stop", ["\nQ:", "\n###"]))
    guarded = guard(asked, GenParams(), max_changes=4, cuts=lambda s: (each * len(s), 160))
    assert [r.why for r in guarded.refused] == [
        "the 2 fresh stop strings together would cut 16 of 160 good rows"
    ] * refused
    assert bool(guarded.applied) is not refused


STRINGS = GenParams().replace({"response.stop": ["\nQ:", "\nUser:"]})


def test_one_setting_written_in_two_ways_is_measured_once():
    """The order of stop strings and the tenth place of a number are no settings."""
    hotter = GenParams().replace({"response.temperature": 0.6})
    for known, asked in [
        (STRINGS, ("response.stop", ["\nUser:", "\nQ:"])),
        (hotter, ("response.temperature", 0.6 + 1e-9)),
        (hotter, ("response.temperature", 0.59999)),
    ]:
        guarded = guard(review(asked), GenParams(), max_changes=4, tried=[GenParams(), known])
        assert "already measured in round 2" in guarded.refused[0].why
    now = GenParams().response.temperature + 1e-9
    guarded = guard(review(("response.temperature", now)), GenParams(), max_changes=4)
    assert "no change" in guarded.refused[0].why


@pytest.mark.parametrize(
    ("now", "asked", "why"),
    [
        ((), ["\nInstruction", "\nInstruction:"], r"'\nInstruction:' can never fire"),
        (("\nInstruction",), ["\nInstruction", "\n\nInstruction:"], "it holds '\\nInstruction'"),
        (("\n\nInstruction:",), ["\nInstruction", "\n\nInstruction:"], None),
        ((), ["\nQ:", "\nQ:"], "contradictory: a stop string is named twice"),
    ],
)
def test_stop_strings_that_contradict_each_other_are_refused(now, asked, why):
    params = GenParams().replace({"response.stop": list(now)})
    guarded = guard(review(("response.stop", asked)), params, max_changes=4)
    assert [why in r.why for r in guarded.refused] == ([] if why is None else [True])  # type: ignore[operator]


def measured(number: int, params: GenParams, kept: int) -> RoundRecord:
    table = metrics({}, n=200, generated=200, kept=kept, distinct=None)
    return round_record(number, params=params, metrics=table, review=None)


START = GenParams()
HISTORY = [
    measured(1, START, 150),
    measured(2, START.replace({"response.temperature": 0.2}), 60),
    measured(3, START.replace({"topics": "hints", "fewshot.count": 8}), 60),
]


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (COOLER, True),
        (("response.temperature", 0.15), True),
        (("response.temperature", 0.3), False),
        (("response.temperature", 0.6), False),
        (("topics", "hints"), False),
    ],
    ids=["the same", "further the same way", "not so far", "the other way", "not by itself"],
)
def test_what_made_things_worse_by_itself_is_refused_with_round_and_figure(change, refused):
    asked = review(change, ("fewshot.rotation", "rotate"))
    guarded = guard(asked, START, max_changes=4, tried=HISTORY)
    assert [r.parameter for r in guarded.refused] == [change[0]] * refused
    if refused:
        why = guarded.refused[0].why
        assert "already tried and worse: with 0.2 round 2 kept 60 of 200 (30.0%)" in why
        assert "round 1 kept 150 of 200 (75.0%)" in why
    assert guarded.params.fewshot.rotation == "rotate"


def test_what_made_things_worse_did_so_in_any_order_and_to_four_places():
    history = [measured(1, START, 150), measured(2, STRINGS, 60)]
    asked = review(("response.stop", ["\nUser:", "\nQ:"]), ("topics", "hints"))
    guarded = guard(asked, START, max_changes=4, tried=history)
    assert "already tried and worse" in guarded.refused[0].why
    asked = review(("response.temperature", 0.200001), ("topics", "hints"))
    guarded = guard(asked, START, max_changes=4, tried=HISTORY)
    assert "already tried and worse" in guarded.refused[0].why


def test_what_was_tried_and_is_no_worse_may_be_tried_with_something_else():
    history = [HISTORY[0], measured(2, START.replace({"response.temperature": 0.2}), 145)]
    asked = review(COOLER, ("topics", "hints"))
    assert not guard(asked, START, max_changes=4, tried=history).refused


def test_settings_already_measured_are_named_with_their_figure():
    history = [measured(1, START, 150), measured(2, START.replace({"topics": "hints"}), 140)]
    guarded = guard(review(("topics", "off")), history[1].params, max_changes=4, tried=history)
    assert "already measured: round 1 kept 150 of 200 (75.0%)" in guarded.refused[0].why
    replayed = history[0].model_copy(update={"replayed": True})
    asked = review(("topics", "off"))
    again = guard(asked, history[1].params, max_changes=4, tried=[replayed, history[1]])
    assert "on stored rows: round 1 left 5 of 28 answered rows" in again.refused[0].why

"""agent/reviewers/bayes.py: a search that is a function of records and seed, within every bound."""

import builtins
import importlib.util
import logging
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from builders import flagged, metrics, rate, round_record, story
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.best import base
from agent.config import PricesSection, ReviewerSection, RunConfig
from agent.errors import ConfigError
from agent.guard import guard
from agent.least import lease_of
from agent.records import RoundRecord
from agent.review_records import Change, Review, StopDryRun
from agent.reviewers import choose_reviewer
from agent.reviewers.bayes import BayesReviewer, _draw, objective, propose
from agent.reviewers.reach import reach, stop_sets
from pipeline.params import TUNABLE, GenParams

FLOORS = {"instruction": 0.4, "pair": 0.2}
CRITIC = {"critic.instruction_margin": 0.7, "critic.pair_margin": 0.56}


def measured(number: int, params: GenParams, **bad: int) -> RoundRecord:
    """A round of 100 rows at ``params``, with ``kept`` of them and some bad ones."""
    kept = bad.pop("kept", 60)
    table = metrics(bad, n=100, generated=100, kept=kept, distinct=None)
    used = {subject: {"floor": floor} for subject, floor in FLOORS.items()}
    return round_record(
        number, params=params, metrics=table, critics={"faults": [], "used": used}, review=None
    )


def at(**values: Any) -> GenParams:
    return GenParams().replace(CRITIC | {n.replace("__", "."): v for n, v in values.items()})


def floors() -> dict[str, float]:
    return {f"critic.{subject}_margin": floor for subject, floor in FLOORS.items()}


_SETTINGS = st.builds(
    lambda values: GenParams().replace(CRITIC | values),
    st.fixed_dictionaries(
        {},
        optional={
            "instruction.temperature": st.floats(0.1, 2.0),
            "response.temperature": st.floats(0.1, 2.0),
            "response.top_p": st.floats(0.5, 1.0),
            "response.repetition_penalty": st.floats(1.0, 1.5),
            "response.max_new_tokens": st.integers(8, 1024),
            "instruction.max_new_tokens": st.integers(8, 1024),
            "response.stop": st.sampled_from([(), ("\nQ:",), ("\nInstruction", "\n###")]),
            "fewshot.count": st.integers(3, 12),
            "fewshot.rotation": st.sampled_from(["fixed", "rotate", "pool"]),
            "critic.instruction_margin": st.floats(-20, 20),
            "critic.pair_margin": st.floats(0.2, 20),
            "oversample": st.floats(1.0, 5.0),
        },
    ),
)
_HISTORY = st.lists(
    st.tuples(_SETTINGS, st.integers(0, 100), st.integers(0, 100), st.booleans()),
    min_size=1, max_size=9, unique_by=lambda entry: entry[0].model_dump_json(),
)  # fmt: skip


def rounds_of(history: list[tuple[GenParams, int, int, bool]]) -> list[RoundRecord]:
    made = [
        measured(i + 1, params, kept=kept, runaway=bad)
        for i, (params, kept, bad, _) in enumerate(history)
    ]
    for i, (*_, replayed) in enumerate(history):
        if replayed and i:
            made[i] = made[i].model_copy(update={"replayed": True})
    return made


@settings(max_examples=40, deadline=None)
@given(_HISTORY, st.integers(0, 99), st.integers(1, 16))
def test_whatever_was_measured_the_guard_refuses_nothing(history, seed, most):
    rounds = rounds_of(history)
    review = propose(rounds, max_changes=most, seed=seed)
    assert 1 <= len(review.changes) <= most and not review.stop
    found = guard(
        review, base(rounds).params, max_changes=most, tried=rounds, margin_floors=floors()
    )
    assert found.refused == ()
    assert found.params not in [record.params for record in rounds]


@settings(max_examples=15, deadline=None)
@given(_HISTORY, st.integers(0, 99))
def test_the_same_records_and_seed_give_the_same_review(history, seed):
    rounds = rounds_of(history)
    first = propose(rounds, max_changes=4, seed=seed)
    again = [RoundRecord.model_validate(record.model_dump(mode="json")) for record in rounds]
    assert propose(again, max_changes=4, seed=seed) == first


def test_other_seeds_and_later_rounds_draw_otherwise():
    rounds = story()[:1]
    drawn = {propose(rounds, max_changes=4, seed=s).model_dump_json() for s in range(8)}
    assert len(drawn) == 8
    again = rounds[0].model_copy(update={"round": 2, "replayed": True, "review": None})
    later = propose([*rounds, again], max_changes=4, seed=0)
    assert later.changes != propose(rounds, max_changes=4, seed=0).changes


def test_it_changes_as_many_parameters_as_are_allowed_those_that_moved_most():
    rounds = [measured(1, at(), kept=0)]
    few, many = (propose(rounds, max_changes=most, seed=3).changes for most in (3, 16))
    assert len(few) == 3 < len(many)
    spans = reach(rounds[0], stop_sets(rounds, rounds[0].params))

    def moved(changes: Sequence[Change]) -> list[float]:
        plain = [tuple(c.value) if isinstance(c.value, list) else c.value for c in changes]
        return [spans[c.parameter].moved(v) for c, v in zip(changes, plain, strict=True)]

    assert sorted(moved(few)) == sorted(moved(many))[-3:]


def test_it_draws_where_better_rounds_are_denser():
    """Rounds that differ in one parameter alone, and get better one way or the other."""
    temperatures = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]

    def mean(*, hot_is_good: bool) -> float:
        rounds = [
            measured(i + 1, at(instruction__temperature=t), kept=10 * (i if hot_is_good else 6 - i))
            for i, t in enumerate(temperatures)
        ]
        spans = reach(rounds[3], ())
        drawn = [_draw(rounds, spans, seed=s)["instruction.temperature"] for s in range(12)]
        return sum(float(value) for value in drawn) / len(drawn)  # type: ignore[arg-type]

    assert mean(hot_is_good=False) < 0.65 < 0.75 < mean(hot_is_good=True)


def test_replayed_rounds_are_no_trials():
    rounds = [measured(i + 1, at(oversample=1.5 + 0.3 * i), kept=10 * i) for i in range(6)]
    best = measured(7, at(oversample=1.2), kept=100)
    spans = reach(rounds[-1], ())
    replayed = best.model_copy(update={"replayed": True})
    draws = [[_draw(r, spans, seed=s) for s in range(4)]
             for r in (rounds, [*rounds, replayed], [*rounds, best])]  # fmt: skip
    assert draws[0] == draws[1] != draws[2]


def test_what_was_measured_already_is_drawn_anew():
    last = measured(2, at())

    def asked(first: GenParams, seed: int) -> tuple[Review, GenParams]:
        before = measured(1, first).model_copy(update={"replayed": True})
        review = propose([before, last], max_changes=2, seed=seed)
        values = {c.parameter: c.value for c in review.changes}
        return review, last.params.replace(values)

    seed = next(
        s for s in range(9) if asked(at(topics="hints"), s)[1].response == last.params.response
    )
    review, drawn = asked(at(topics="hints"), seed)
    other, after = asked(drawn, seed)
    assert other != review and after != drawn


@pytest.mark.parametrize(
    ("bad", "kept", "value"),
    [
        ({}, 60, 0.6),
        ({"runaway": 100}, 0, -1.0),
        ({"runaway": 24}, 50, 0.5 - (0.24 - 0.05) / 0.95),
        ({"runaway": 4, "token_limit": 9}, 60, 0.6),
        ({"instruction_acceptance": 25, "pair_acceptance": 0}, 0, -0.5 - 1.0),
    ],
    ids=["no trouble", "all run on", "some run on", "within limits", "nothing is accepted"],
)
def test_the_objective_is_the_share_kept_less_what_gates_are_short_of(bad, kept, value):
    assert objective(measured(1, at(), kept=kept, **bad)) == pytest.approx(value)


def test_an_unmeasured_gate_counts_as_wholly_missed():
    table = tuple(
        rate("runaway", None, 0).to_json() if m["name"] == "runaway" else m
        for m in measured(1, at()).metrics
    )
    assert objective(measured(1, at()).model_copy(update={"metrics": table})) == pytest.approx(-0.4)


def test_its_prediction_is_that_the_share_kept_will_be_the_best_so_far():
    rounds = [measured(1, at(), kept=40), measured(2, at(topics="hints"), kept=30)]
    (said,) = propose(rounds, max_changes=2, seed=1).predictions
    assert (said.metric, said.low, said.high, said.probability) == ("raw_acceptance", 0.4, 1.0, 0.5)
    (said,) = propose([measured(1, at(), kept=0)], max_changes=2, seed=1).predictions
    assert said.low > 0, "what cannot fail is no prediction"


def test_a_margin_without_a_floor_is_out_of_reach_and_one_with_it_goes_no_lower():
    rounds = [measured(1, at(critic__pair_margin=1.0))]
    spans = reach(rounds[0], ())
    assert (spans["critic.pair_margin"].low, spans["critic.pair_margin"].high) == (0.2, 3.0)
    bare = rounds[0].model_copy(update={"critics": None})
    assert not {"critic.pair_margin", "critic.instruction_margin"} & reach(bare, ()).keys()


def test_every_parameter_of_the_closed_list_is_in_reach():
    rounds = [measured(1, at(), kept=0)]
    assert reach(rounds[0], stop_sets(rounds, rounds[0].params)).keys() == TUNABLE.keys()


def test_stop_strings_are_chosen_among_those_seen_and_none_that_would_cut():
    def run_on(index: int, marker: str) -> dict[str, Any]:
        return flagged(index, raw=f"Paris.\n{marker} Name a river.")

    rows = (*(run_on(i, "Exercise:") for i in range(3)), run_on(4, "Question:"), run_on(5, "AI:"))
    record = measured(1, at(response__stop=("\nQ:",))).model_copy(update={"flagged_samples": rows})
    offered = stop_sets([record], record.params)
    assert offered[0] == ("\nQ:",) and ("\nExercise:",) in offered
    cut = StopDryRun(stop="\nExercise:", ended=3, flagged=5, cut=9, good=60)
    warned = record.model_copy(update={"stop_candidates": (cut,)})
    fresh = {s for stops in stop_sets([warned], warned.params) for s in stops}
    assert "\nExercise:" not in fresh and "\nQuestion:" in fresh


def test_it_is_chosen_by_the_configuration_and_says_nothing(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    section = ReviewerSection(kind="bayes", max_changes=3)
    reviewer, why = choose_reviewer(section, PricesSection(), {}, 5)
    assert isinstance(reviewer, BayesReviewer) and "costs nothing" in why
    with caplog.at_level(logging.DEBUG):
        review = reviewer.review("report", story()[:2], pay=pytest.fail)  # type: ignore[arg-type]
    assert review == propose(story()[:2], max_changes=3, seed=5)
    assert [r for r in caplog.records if r.name.startswith("optuna")] == []
    assert capfd.readouterr() == ("", "")


def test_no_money_is_kept_for_waiting_on_it():
    assert lease_of(RunConfig(), BayesReviewer(max_changes=4, seed=1)).pause_seconds == 0


def test_without_the_package_the_configuration_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "agent.reviewers.find_spec", lambda name: None if name == "optuna" else find(name)
    )
    with pytest.raises(ConfigError, match=r"pip install 'sft-assay\[bayes\]'"):
        choose_reviewer(ReviewerSection(kind="bayes"), PricesSection(), {})


def test_the_package_is_imported_by_a_draw_alone(monkeypatch: pytest.MonkeyPatch):
    real, asked = builtins.__import__, []
    monkeypatch.setattr(
        builtins, "__import__", lambda name, *a, **k: asked.append(name) or real(name, *a, **k)
    )
    monkeypatch.delitem(sys.modules, "agent.reviewers.bayes")
    choose_reviewer(ReviewerSection(kind="bayes"), PricesSection(), {})
    assert not [name for name in asked if name.startswith("optuna")]

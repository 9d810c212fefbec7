"""The need: the same instructions with and without examples, judged by one critic."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pipeline.critics.panel import Panel
from pipeline.engine.scripted import ScriptedEngine
from pipeline.good_pairs import good_pairs
from pipeline.need import (
    ASKED,
    Accepted,
    Need,
    gap_interval,
    measure_need,
    sample_instructions,
    unmeasured_need,
)
from pipeline.novelty import normalise
from pipeline.params import GenParams
from pipeline.types import Completion, GenRequest
from prompts.library import fewshot_set

PARAMS = GenParams().replace(
    {"critic.pair": "lift", "critic.pair_margin": 0.2, "critic.instruction_margin": 0.0}
)
LIFT = Panel.naming(instruction="label", pair="lift")


class _Able(ScriptedEngine):
    """Answers without examples as it does after them."""

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        return super().generate([replace(r, prefix="always the same") for r in requests])


class _Silent(ScriptedEngine):
    """Has nothing to say."""

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        return [Completion("", (), "eos") for _ in requests]


def measured(engine: ScriptedEngine) -> Need:
    return measure_need(engine, PARAMS, LIFT, seed=1)


def test_a_model_that_needs_examples_shows_a_gap() -> None:
    found = measured(ScriptedEngine())
    assert found.without is not None and found.examples is not None and found.gap is not None
    assert found.without.of == found.examples.of == ASKED
    assert found.gap == pytest.approx(found.examples.rate - found.without.rate)
    assert found.gap > 0.2 and found.gap_low is not None and found.gap_high is not None
    assert found.gap_low < found.gap < found.gap_high
    assert found.without.low < found.without.rate < found.without.high
    assert found.warning(0.1) == "" and found.warning(0.99)


def test_a_model_that_needs_none_is_warned_of() -> None:
    """A team's base model followed the instructions already; nobody had asked it."""
    found = measured(_Able())
    assert found.without == found.examples and found.gap == 0
    words = found.warning(0.1)
    assert words.count(f"of {ASKED}") == 2 and "at least 10%" in words


def test_no_answer_is_not_an_accepted_one() -> None:
    found = measured(_Silent())
    assert found.without is not None and found.without.count == 0
    assert "accepts few answers either way" in found.warning(0.1)


def test_a_gap_must_be_shown_not_only_seen() -> None:
    """By the lower end of its interval; what was seen below the least gap is said to be."""
    found = measured(ScriptedEngine())
    assert found.gap is not None and found.gap_low is not None
    assert found.warning(found.gap_low) == ""
    between = found.warning((found.gap + found.gap_low) / 2)
    assert "is wanted, and its interval reaches below" in between
    assert "is wanted, for the data" in found.warning(found.gap + 0.01)


def test_without_a_critic_to_believe_it_is_unmeasured_and_warns_of_that() -> None:
    found = unmeasured_need("lift", "uncertified: no controls")
    assert found.gap is None and found.without is None
    assert found.warning(0.0) == "the need was not measured: uncertified: no controls"


@pytest.mark.parametrize("need", [measured(_Able()), unmeasured_need("label", "why")])
def test_it_goes_through_json(need: Need) -> None:
    assert Need.from_json(json.loads(json.dumps(need.to_json()))) == need


def test_the_instructions_are_the_same_in_every_run_and_no_example_is_asked() -> None:
    asked = sample_instructions(ASKED)
    assert asked == sample_instructions(ASKED) and len(set(asked)) == ASKED
    examples = {normalise(e.instruction) for name in ("core", "wide") for e in fewshot_set(name)}
    assert not examples & set(map(normalise, asked))
    assert set(asked) <= {pair.instruction for pair in good_pairs()}


@pytest.mark.parametrize(
    ("more", "less", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_the_gap_against_published_intervals(
    more: tuple[int, int], less: tuple[int, int], low: float, high: float
) -> None:
    """Newcombe 1998, table II, method 10, at 95 %."""
    one, other = (Accepted(*counts, 0.0, 1.0) for counts in (more, less))
    assert gap_interval(one, other, alpha=0.05) == pytest.approx((low, high), abs=1e-4)

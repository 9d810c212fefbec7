"""agent/review.py and agent/guard.py: no reply crashes the loop or leaves the bounds."""

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import RunConfig
from agent.errors import ReviewerError
from agent.guard import guard
from agent.review import METRICS, brier, parse_review, review_schema, score_predictions, scored
from agent.review_records import Change, Prediction, Review
from pipeline.params import TUNABLE, GenParams

GOOD: dict[str, Any] = {
    "diagnosis": "responses run on",
    "changes": [
        {"parameter": "response.stop", "value": ["\nInstruction", "\n###"], "reason": "ends them"},
        {"parameter": "response.max_new_tokens", "value": 100, "reason": "room"},
    ],
    "predictions": [{"metric": "runaway", "low": 0, "high": 0.03, "probability": 0.8}],
    "distrusted_metrics": ["truncated"],
    "confidence": 0.7,
    "stop": False,
}


FORETOLD = Prediction(metric="runaway", low=0.0, high=0.1, probability=0.5)


def review(*changes: tuple[str, Any], predictions: tuple[Prediction, ...] = (FORETOLD,)) -> Review:
    return Review(
        diagnosis="d",
        changes=tuple(Change(parameter=p, value=v, reason="r") for p, v in changes),
        predictions=predictions,
        confidence=0.5,
    )


def text(**fields: Any) -> str:
    return json.dumps({**GOOD, **fields})


def without(name: str) -> str:
    return json.dumps({k: v for k, v in GOOD.items() if k != name})


def test_a_good_answer_is_read_as_written():
    parsed = parse_review(text())
    assert parsed.diagnosis == "responses run on"
    assert [c.value for c in parsed.changes] == [["\nInstruction", "\n###"], 100]
    assert parsed.predictions[0].high == 0.03
    assert parsed.distrusted_metrics == ("truncated",)
    assert parsed.confidence == 0.7 and parsed.stop is False


def test_changing_nothing_is_an_answer():
    assert parse_review(text(changes=[], predictions=[])).changes == ()


WRAPPED = [
    ("thought", "<think>a { b</think>\n" + text(), True),
    ("thinking", "<thinking>\n</thinking>" + text(), True),
    ("fence", f"```json\n{text()}\n```", True),
    ("bare fence", f"\n```\n{text()}\n```\n", True),
    ("thought, then fence", f"<think>x</think>\n```json\n{text()}\n```", True),
    ("a thought within a thought", "<think>a<think>b</think>{}</think>" + text(), True),
    ("a thought that the prompt began", "Let me see {.\n</think>\n" + text(), True),
    ("thought in brackets", "[THINK]hm[/THINK]" + text(), True),
    (
        "channels",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final"
        f" <|constrain|>json<|message|>{text()}<|return|>",
        True,
    ),
    ("open thought", "<think>a" + text(), False),
    ("open channel", "<|channel|>analysis<|message|>" + text(), False),
    ("two thoughts around", f"<think>a</think>{text()}<think>b</think>", False),
    ("an answer before the thought", text() + "</think>" + text(), False),
    ("prose before", "Here it is: " + text(), False),
    ("prose after", text() + " Good luck!", False),
    ("two objects", text() + text(), False),
    ("two fences", f"```json\n{text()}\n```\n```json\n{text()}\n```", False),
    ("a list", f"[{text()}]", False),
    ("a string", json.dumps(text()), False),
]


@pytest.mark.parametrize(("raw", "valid"), [w[1:] for w in WRAPPED], ids=[w[0] for w in WRAPPED])
def test_only_thoughts_and_one_fence_are_taken_off(raw, valid):
    if valid:
        assert parse_review(raw) == parse_review(text())
    else:
        with pytest.raises(ReviewerError, match="not valid"):
            parse_review(raw)


CHANGE = {"parameter": "topics", "value": "hints", "reason": "r"}
PREDICTION = {"metric": "runaway", "low": 0.0, "high": 0.1, "probability": 0.5}
MALFORMED = [
    ("unknown key", text(cap_usd=1e6), "cap_usd: Extra inputs"),
    ("unknown key in a change", text(changes=[{**CHANGE, "model": "x"}]), "changes.0.model"),
    ("missing diagnosis", without("diagnosis"), "diagnosis: Field required"),
    ("missing changes", without("changes"), "changes: Field required"),
    ("missing confidence", without("confidence"), "confidence: Field required"),
    ("empty diagnosis", text(diagnosis=""), "diagnosis: String"),
    ("diagnosis is a number", text(diagnosis=1), "diagnosis: Input should be a valid string"),
    ("confidence is true", text(confidence=True), "confidence"),
    ("confidence in words", text(confidence="0.7"), "confidence"),
    ("confidence above 1", text(confidence=1.01), "confidence"),
    ("stop is 1", text(stop=1), "stop: Input should be a valid boolean"),
    ("stop is a word", text(stop="false"), "stop"),
    ("probability below 0", text(predictions=[{**PREDICTION, "probability": -0.1}]), "probability"),
    ("interval reversed", text(predictions=[{**PREDICTION, "low": 0.2}]), "above high"),
    ("low is null", text(predictions=[{**PREDICTION, "low": None}]), "predictions.0.low"),
    ("changes is an object", text(changes={"topics": "hints"}), "changes"),
    ("33 changes", text(changes=[CHANGE] * 33), "changes"),
    ("metric is a number", text(distrusted_metrics=[1]), "distrusted_metrics.0"),
    ("NaN", text().replace("0.7", "NaN"), "NaN is not a number"),
    ("overflow", text().replace("0.7", "1e999"), "not a finite number"),
    ("duplicate key", text()[:-1] + ', "stop": true}', "'stop' is there twice"),
    ("5,000 digits", text().replace("100", "9" * 5000), "5,000 digits"),
    ("100,000 levels", '{"diagnosis": ' + "[" * 60_000, "nested"),
    ("too large", text(diagnosis="x" * 70_000), "at most 65,536"),
    ("truncated", text()[:-20], "not valid JSON"),
    ("empty", "", "not valid JSON"),
    ("an error message", "Error: 401 Unauthorized", "not valid JSON"),
    ("half a character", text(diagnosis="\ud800"), "surrogates"),
]


@pytest.mark.parametrize(("raw", "why"), [m[1:] for m in MALFORMED], ids=[m[0] for m in MALFORMED])
def test_a_malformed_answer_is_a_reviewer_error_that_says_why(raw, why):
    with pytest.raises(ReviewerError) as caught:
        parse_review(raw)
    assert why in str(caught.value) and len(str(caught.value)) < 2000


def test_the_guard_applies_what_is_allowed_and_says_what_changed():
    guarded = guard(parse_review(text()), GenParams(), max_changes=4)
    assert guarded.params.response.stop == ("\nInstruction", "\n###")
    assert guarded.params.response.max_new_tokens == 100
    assert [(a.parameter, a.before, a.after) for a in guarded.applied] == [
        ("response.stop", [], ["\nInstruction", "\n###"]),
        ("response.max_new_tokens", 80, 100),
    ]
    assert guarded.refused == ()


REFUSED: list[tuple[str, str, Any, str]] = [
    ("unknown", "response.top_k", 40, "closed list"),
    ("look-alike", "response.tеmperature", 0.5, "closed list"),
    ("blank around", " topics", "hints", "closed list"),
    ("a group", "response", {"temperature": 0.5}, "closed list"),
    ("dunder", "response.__class__", "x", "closed list"),
    ("the critic", "critic.pair", "label", "closed list"),
    ("a threshold", "thresholds.runaway.max", 0.9, "closed list"),
    ("the model", "engine.model", "other", "closed list"),
    ("the cap", "budget.limit_usd", 1e6, "closed list"),
    ("true", "response.temperature", True, "expected a number"),
    ("a word", "response.temperature", "0.5", "expected a number"),
    ("null", "response.temperature", None, "expected a number"),
    ("a list", "response.temperature", [0.5], "expected a number"),
    ("NaN", "response.temperature", math.nan, "not a finite number"),
    ("infinity", "response.temperature", math.inf, "not a finite number"),
    ("too low", "response.temperature", 0.09, "outside 0.1 to 2"),
    ("too high", "response.temperature", 10, "outside 0.1 to 2"),
    ("immense", "response.max_new_tokens", 10**400, "outside 8 to 1024"),
    ("too large a step", "response.temperature", 0.71, "a larger step than 0.3"),
    ("too large a step down", "response.top_p", 0.79, "a larger step than 0.1"),
    ("too large a factor", "response.max_new_tokens", 161, "a factor of 2"),
    ("too small a factor", "response.max_new_tokens", 39, "a factor of 2"),
    ("a fraction", "response.max_new_tokens", 100.0, "whole number"),
    ("true for a count", "fewshot.count", True, "whole number"),
    ("no change", "response.temperature", 0.4, "no change"),
    ("no change in kind", "topics", "off", "no change"),
    ("no change in order", "response.stop", [], "no change"),
    ("no such set", "fewshot.set", "../../etc/passwd", "one of core, wide"),
    ("choice by number", "topics", 1, "one of off, hints"),
    ("margin", "critic.pair_margin", 0.5, "locked"),
    ("stop as a string", "response.stop", "\n###", "list of strings"),
    ("stop of numbers", "response.stop", [1], "list of strings"),
    ("nine stops", "response.stop", [f"\nQ{i}:" for i in range(9)], "at most 8"),
    ("a stop twice", "response.stop", ["\nQ:", "\nQ:"], "named twice"),
    ("a lone newline", "response.stop", ["\nInstruction", "\n"], "only space"),
    ("a full stop", "response.stop", ["."], "punctuation"),
    ("a common word", "response.stop", [" the "], "ordinary words"),
    ("an escape", "response.stop", ["\x1b[2J"], "cannot be printed"),
]


@pytest.mark.parametrize(
    ("name", "value", "why"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_the_guard_refuses_and_never_clamps(name, value, why):
    guarded = guard(review((name, value), ("topics", "hints")), GenParams(), max_changes=4)
    if name == "topics":
        why = "more than once"
    refused = next(r for r in guarded.refused if r.parameter == name[:64])
    assert why in refused.why and len(refused.value) <= 64
    assert guarded.params in (GenParams(), GenParams().replace({"topics": "hints"}))


@pytest.mark.parametrize("value", ["hints", "off", "x"])
def test_a_parameter_named_twice_gets_neither_value(value):
    guarded = guard(review(("topics", "hints"), ("topics", value)), GenParams(), max_changes=4)
    assert guarded.params == GenParams() and len(guarded.refused) == 2


def test_a_step_at_its_limit_is_allowed():
    changes = ("response.temperature", 0.7), ("response.top_p", 1.0), ("oversample", 2)
    guarded = guard(review(*changes), GenParams(), max_changes=4)
    assert not guarded.refused
    assert guarded.params.oversample == 2.0 and isinstance(guarded.params.oversample, float)


def test_changes_beyond_the_number_allowed_are_refused_in_order():
    changes = [
        ("topics", "hints"),
        ("response.temperature", 99),
        ("fewshot.count", 8),
        ("fewshot.rotation", "rotate"),
    ]
    guarded = guard(review(*changes), GenParams(), max_changes=2)
    assert [a.parameter for a in guarded.applied] == ["topics", "fewshot.count"]
    assert "more than 2" in guarded.refused[-1].why


def test_a_revert_leaves_room_for_a_remedy():
    start = GenParams()
    cooled = {
        "instruction.temperature": 0.6,
        "instruction.top_p": 0.85,
        "response.temperature": 0.3,
        "response.top_p": 0.85,
    }
    now = start.replace(cooled)
    back = [(name, start.get(name)) for name in cooled]
    asked = review(*back, ("response.stop", ["\nInstruction"]), ("topics", "hints"))
    guarded = guard(asked, now, max_changes=2, tried=[start, now])
    assert not guarded.refused and len(guarded.applied) == 6
    more = review(*back, ("response.stop", ["\nQ:"]), ("topics", "hints"), ("oversample", 1.5))
    assert [r.parameter for r in guard(more, now, max_changes=2, tried=[start]).refused] == [
        "oversample"
    ]


def test_settings_already_measured_are_not_measured_again():
    start = GenParams()
    now = start.replace({"topics": "hints"})
    guarded = guard(review(("topics", "off")), now, max_changes=4, tried=[start, now])
    assert guarded.params == now and guarded.applied == ()
    assert "already measured in round 1" in guarded.refused[0].why


MARGINS = [
    (0.5, None, None),
    (2.0, None, None),
    (0.4, None, "below 0.5"),
    (2.6, None, "larger step"),
    (1.5, 3.0, None),
    (0.5, 3.0, "larger step"),
    (True, None, "expected a number"),
]


@pytest.mark.parametrize(("value", "current", "why"), MARGINS)
def test_a_margin_moves_only_where_controls_certify_it(value, current, why):
    params = GenParams().replace({"critic.pair_margin": current})
    floors = {"critic.pair_margin": 0.5}
    change = review(("critic.pair_margin", value))
    guarded = guard(change, params, max_changes=4, margin_floors=floors)
    if why is None and value != 0.5:
        assert guarded.params.critic.pair_margin == value
    elif why is not None:
        assert why in guarded.refused[0].why
    other = review(("critic.instruction_margin", 0.5))
    assert "locked" in guard(other, params, max_changes=4, margin_floors=floors).refused[0].why


def test_predictions_are_scored_and_unmeasured_is_neither():
    asked = tuple(
        Prediction(metric=m, low=0.0, high=0.1, probability=0.5)
        for m in ("runaway", "truncated", "empty", "no_such")
    )
    metrics = [
        {"name": "runaway", "value": 0.1},
        {"name": "truncated", "value": 0.11},
        {"name": "empty", "value": None},
    ]
    outcomes = score_predictions(review(predictions=asked), metrics)
    assert [(o.actual, o.hit) for o in outcomes] == [
        (0.1, True),
        (0.11, False),
        (None, None),
        (None, None),
    ]


BRIER = [(1, True, 0), (1, False, 1), (0.5, True, 0.25), (0.8, True, 0.04), (0.8, False, 0.64)]


@pytest.mark.parametrize(("probability", "hit", "score"), BRIER)
def test_a_prediction_is_scored_by_brier(probability, hit, score):
    asked = Prediction(metric="runaway", low=0.0, high=0.1, probability=probability)
    (outcome,) = score_predictions(
        review(predictions=(asked,)), [{"name": "runaway", "value": 0.05 if hit else 0.2}]
    )
    assert outcome.hit is hit and outcome.score == pytest.approx(score)


def test_the_score_is_proper():
    """Whoever believes p expects the best score from saying p."""
    for belief in (0.05, 0.3, 0.5, 0.9):
        expected = {
            said / 100: belief * brier(said / 100, True) + (1 - belief) * brier(said / 100, False)
            for said in range(101)
        }
        assert min(expected, key=lambda said: expected[said]) == belief


def test_what_could_not_miss_or_was_foretold_before_is_not_scored():
    certain = Prediction(metric="runaway", low=0.0, high=1.0, probability=1.0)
    first = Prediction(metric="empty", low=0.0, high=0.1, probability=0.9)
    unmeasured = Prediction(metric="yield", low=9.0, high=1e4, probability=0.9)
    outcomes = scored([(certain, 0.4), (first, 0.2), (first, 0.2), (unmeasured, None)])
    assert [o.score for o in outcomes] == [None, pytest.approx(0.81), None, None]
    assert [o.hit for o in outcomes] == [None, False, None, None]
    assert [o.actual for o in outcomes] == [0.4, 0.2, 0.2, None]


def test_the_schema_names_every_field_and_parameter():
    schema = review_schema()
    assert set(schema["properties"]) == set(GOOD) == set(schema["required"])
    change = schema["properties"]["changes"]["items"]
    assert change["properties"]["parameter"]["enum"] == list(TUNABLE)
    assert schema["additionalProperties"] is False is change["additionalProperties"]


def test_predictions_may_speak_of_every_gate():
    gates = set(RunConfig().thresholds.model_dump()) - {"alpha"}
    assert gates | {"yield"} < set(METRICS)


def test_the_bounds_of_the_list_are_the_bounds_of_the_parameters():
    for tunable in TUNABLE.values():
        for bound, beyond in ((tunable.low, -1), (tunable.high, 1)):
            if bound is None:
                continue
            value = int(bound) if tunable.kind == "int" else float(bound)
            GenParams().replace({tunable.name: value})
            with pytest.raises(ValueError, match="validation error"):
                GenParams().replace({tunable.name: value + beyond})


def assert_within_bounds(before: GenParams, after: GenParams) -> None:
    """The oracle: written from the specification, not from the guard."""
    GenParams.model_validate(after.model_dump())
    assert after.critic == before.critic
    for name, tunable in TUNABLE.items():
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if isinstance(new, float | int):
            assert isinstance(old, float | int) and not isinstance(new, bool)
            assert math.isfinite(new)
            assert tunable.low is not None and tunable.high is not None
            assert tunable.low <= new <= tunable.high
            assert not tunable.step or abs(new - old) <= tunable.step + 1e-6
            assert not tunable.factor or 1 / tunable.factor <= new / old <= tunable.factor
        elif isinstance(new, tuple):
            assert len(new) <= 8 and all(1 <= len(s) <= 32 for s in new)
            assert not any(s.isspace() or s.strip() in {".", ","} for s in new)
        else:
            assert new in tunable.choices


_NUMBERS = [0.5, 0.4, 0.7, 1, 0, -1, 100, 160, 10**9, 1e308, 5e-324, 0.1, 2.0, 2.0000001, True]
_STRINGS = ["hints", "rotate", "off", "wide", "\n", ".", "\nQ:", "e", "", "0.5", "NaN", "../x"]
_NAMES = [
    *TUNABLE,
    "response",
    "engine.model",
    "critic.pair",
    "response.tеmperature",
    "",
    "__init__",
]


def _value(rng: random.Random) -> Any:
    return rng.choice(
        [
            rng.choice(_NUMBERS),
            rng.uniform(-3, 3),
            rng.choice(_STRINGS),
            [rng.choice(_STRINGS) for _ in range(rng.randrange(10))],
            None,
            {"a": 1},
            [[]],
        ]
    )


def _near(rng: random.Random, name: str, params: GenParams) -> Any:
    """A value about one step from the present one, allowed or just not."""
    tunable, current = TUNABLE.get(name), None if name not in TUNABLE else params.get(name)
    if tunable is None or rng.random() < 0.3:
        return _value(rng)
    if tunable.kind == "int":
        return round(current * rng.choice([0.5, 0.49, 2.0, 2.01, 1.3]))  # type: ignore[operator]
    if tunable.kind == "float" and current is not None:
        return current + rng.uniform(-1.1, 1.1) * (tunable.step or 1)  # type: ignore[operator]
    if tunable.kind == "strings":
        return [rng.choice(["\nQ:", "\n###", "\nUser:", "\n", "the"]) for _ in range(2)]
    return rng.choice([*tunable.choices, "core "])


def _hostile(rng: random.Random, params: GenParams) -> str:
    """A review with hostile values, sometimes mangled as text."""
    names = [rng.choice(_NAMES) for _ in range(rng.randrange(8))]
    tree: dict[str, Any] = {
        **GOOD,
        "changes": [
            {"parameter": name, "value": _near(rng, name, params), "reason": "r"} for name in names
        ],
    }
    if rng.random() < 0.3:
        tree[rng.choice([*GOOD, "thresholds"])] = _value(rng)
    raw = json.dumps(tree)
    match rng.randrange(8):
        case 0:
            cut = rng.randrange(len(raw))
            return raw[:cut] + rng.choice(["NaN", "1e999", "{", '"', "", "\x00", "9" * 5000])
        case 1:
            at = rng.randrange(len(raw))
            return raw[:at] + chr(rng.randrange(0x110000)) + raw[at + 1 :]
        case 2:
            return raw.replace(
                rng.choice(["0.7", "100", "true", ":"]), rng.choice(["1e999", "NaN"])
            )
        case _:
            return raw


def test_2000_hostile_replies_crash_nothing_and_leave_no_bound():
    rng = random.Random(20_261_122)
    parsed = applied = 0
    params = GenParams()
    for _ in range(2000):
        try:
            answer = parse_review(_hostile(rng, params))
        except ReviewerError:
            continue
        parsed += 1
        guarded = guard(answer, params, max_changes=4, tried=[params])
        assert len(guarded.applied) + len(guarded.refused) == len(answer.changes)
        assert len(guarded.applied) <= 4
        assert_within_bounds(params, guarded.params)
        applied += len(guarded.applied)
        params = guarded.params  # so that bounds are approached from everywhere
    # The fuzz reaches both walls: it is worth nothing if all replies fail to parse.
    assert 500 < parsed < 1900 and applied > 200


@settings(max_examples=200, deadline=None)
@given(st.text() | st.text(alphabet='{}[]":,\\truefalsn0123456789.e- '))
def test_any_text_is_a_review_or_a_reviewer_error(raw):
    try:
        parse_review(raw)
    except ReviewerError:
        pass

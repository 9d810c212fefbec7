"""pipeline/engine/scripted.py, stops.py: reproducible, fast, failing as a base model fails."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.critics.scores import instruction_scores, pair_scores
from pipeline.engine.scripted import ScriptedEngine
from pipeline.engine.stops import first_stop, settle
from pipeline.errors import EngineError
from pipeline.types import Completion, GenRequest, Sampling, ScoreRequest

STOPS = ("\nInstruction", "\nQ:", "\n###", "\nUser:", "\nResponse:")
WRITE = Sampling(0.7, 48, top_p=0.9, repetition_penalty=1.1, stop=("\n",))
ANSWER = Sampling(0.4, 100, top_p=0.9, repetition_penalty=1.1, stop=STOPS)


def written(sampling: Sampling, rows: int = 600) -> list[Completion]:
    prompts = [GenRequest("shots\n\n", "Instruction:", sampling, seed) for seed in range(rows)]
    return ScriptedEngine().generate(prompts)


def answered(sampling: Sampling, rows: int = 600) -> list[Completion]:
    asked = [c.text.strip() for c in written(WRITE, rows)]
    return ScriptedEngine().generate(
        [
            GenRequest("shots\n\n", f"Instruction: {text}\nResponse:", sampling, seed)
            for seed, text in enumerate(asked)
        ]
    )


def share(completions: Sequence[Completion], reason: str) -> float:
    return Counter(c.finish_reason for c in completions)[reason] / len(completions)


def test_rows_depend_on_nothing_but_themselves() -> None:
    requests = [GenRequest("p", f"Instruction: {i}?\nResponse:", ANSWER, i) for i in range(40)]
    together = ScriptedEngine().generate(requests)
    assert ScriptedEngine().generate(requests[::-1]) == together[::-1]
    assert [ScriptedEngine().generate([request])[0] for request in requests] == together


def test_four_answers_in_five_run_on_without_stop_strings() -> None:
    rows = answered(replace(ANSWER, stop=()))
    assert 0.7 < sum("\n" in c.text for c in rows) / len(rows) < 0.95


def test_with_stop_strings_and_room_hardly_any_row_is_bad() -> None:
    rows = answered(ANSWER)
    assert share(rows, "length") < 0.03
    assert sum(first_stop(c.text, STOPS) is not None for c in rows) == 0
    assert {c.stop for c in rows} >= {"\nInstruction", "\nQ:", None}


def test_a_low_cap_cuts_and_stop_strings_do_not_move_the_draw() -> None:
    long, short = answered(ANSWER), answered(replace(ANSWER, max_new_tokens=24))
    assert share(short, "length") > 0.3
    assert all(b.token_ids == a.token_ids[:24] for a, b in zip(long, short, strict=True))


def test_a_low_temperature_repeats_itself() -> None:
    distinct = [
        len({c.text for c in written(replace(WRITE, temperature=t))}) for t in (0.3, 0.7, 1.0)
    ]
    assert distinct[0] < distinct[1] / 1.2 < distinct[2] / 1.3


def test_critics_tell_good_from_bad() -> None:
    good = [c.text.strip() for c in written(WRITE, 60)]
    bad = ["The museum was closed on Monday.", "river the long of Name", "Do it."]
    engine = ScriptedEngine()
    threshold = max(instruction_scores(engine, bad))
    assert sum(score > threshold for score in instruction_scores(engine, good)) >= 50
    pairs = list(zip(good, [c.text for c in answered(ANSWER, 60)], strict=True))
    shuffled = [(i, r) for (i, _), (_, r) in zip(pairs, pairs[7:] + pairs[:7], strict=True)]
    lifts, others = (sorted(pair_scores(engine, p, "lift")) for p in (pairs, shuffled))
    assert lifts[12] > others[48], "four in five good pairs above four in five shuffled ones"


def test_ten_thousand_rows_a_second() -> None:
    began = time.process_time()
    written(WRITE, 2000)
    assert time.process_time() - began < 1.0, "five times the time it takes alone"


def test_faults_are_injected_on_demand() -> None:
    engine = ScriptedEngine(fail_after=2)
    request = GenRequest("", "Instruction:", WRITE, 1)
    assert len(engine.generate([request, request])) == 2
    with pytest.raises(EngineError, match="told to fail"):
        engine.score([ScoreRequest("", "x", (" A",))])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; expected at least 1"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0; expected above 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"top_k": -1}, "top_k is -1"),
        ({"min_p": 2.0}, "min_p is 2.0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"stop": ("",)}, "stop strings are"),
        ({"stop": (3,)}, "stop strings are"),
        ({"max_new_tokens": 40_000}, r"40000 more exceed the model's context of 32768"),
    ],
    ids=str,
)
def test_parameters_that_cannot_be_honoured_are_refused(
    change: dict[str, int], message: str
) -> None:
    with pytest.raises(EngineError, match=f"row 0: .*{message}"):
        ScriptedEngine().generate([GenRequest("", "x", replace(WRITE, **change), 1)])


def test_empty_prompts_and_continuations_are_refused() -> None:
    with pytest.raises(EngineError, match="prompt is empty"):
        ScriptedEngine().generate([GenRequest("", "", WRITE, 1)])
    for request in (
        ScoreRequest("", "", ("x",)),
        ScoreRequest("", "x", ()),
        ScoreRequest("", "x", ("",)),
    ):
        with pytest.raises(EngineError, match="row 0"):
            ScriptedEngine().score([request])


TEXT = st.text(alphabet="ab\nIé", max_size=30)


@given(
    TEXT,
    st.lists(st.text(alphabet="ab\nIé", min_size=1, max_size=4), max_size=4),
    st.integers(1, 40),
)
def test_the_text_rule_is_the_smallest_count_of_tokens_that_holds_a_stop(
    text: str, stops: list[str], cap: int
) -> None:
    """Tokens are single characters here, and the rule is written out in full."""
    end = settle(lambda k: text[:k], len(text), stops=stops, cap=cap, eos=True)
    firing = [k for k in range(1, min(len(text), cap) + 1) if any(s in text[:k] for s in stops)]
    if firing:
        assert (end.finish_reason, end.tokens) == ("stop", firing[0])
        assert end.stop in stops and text[: firing[0]].startswith(end.text + (end.stop or "?"))
        assert all(s not in end.text for s in stops)
    else:
        assert end.finish_reason == ("eos" if len(text) < cap else "length")
        assert end.text == text[:cap] and end.stop is None


def test_the_longest_of_two_stop_strings_at_one_place_is_named() -> None:
    assert first_stop("a\nQ: b", ["\nQ", "\nQ:", "b"]) == (1, "\nQ:")


def test_a_stream_that_breaks_off_is_no_completion() -> None:
    with pytest.raises(ValueError, match="without an end"):
        settle(lambda k: "abc"[:k], 3, stops=(), cap=9, eos=False)

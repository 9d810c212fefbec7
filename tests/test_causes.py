"""Causes: what could treat a bad row, told from raw text, stop reason and cleaned text."""

from dataclasses import replace
from itertools import combinations
from typing import get_args

import pytest

from pipeline.causes import TREATED_BY, Cause, cause, treated_by
from pipeline.detection.clean import clean
from pipeline.detection.detectors import detect
from pipeline.params import TUNABLE
from pipeline.types import Sample

PAIR = Sample(0, "Name a fruit.", "Name a fruit.")


def judged(raw, reason="eos", *, text=None):
    text = clean(raw) if text is None else text
    one = replace(PAIR, raw=raw, clean=text, finish_reason=reason)
    return replace(one, flags=detect(one), dropped="detector")


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (replace(PAIR, dropped="parser"), "parser"),
        (replace(PAIR, dropped="duplicate"), "sampling"),
        (replace(PAIR, dropped="instruction_critic"), "critic"),
        (replace(PAIR, raw="A pear.", clean="A pear.", dropped="pair_critic"), "critic"),
        (replace(PAIR, raw="A pear.", clean="A pear."), None),
        (PAIR, None),
        (judged("A pear.\n\nInstruction: Name a tree."), "stop_rule"),
        (judged("A pear.\n\nInstruction: Name a tree.", "length"), "stop_rule"),
        (judged("A pear is a fruit that", "length"), "token_cap"),
        (judged("A pear is a fruit that is grown in the"), "sampling"),
        (judged("Use these:", "stop"), "stop_rule"),
        (judged("pear " * 40), "sampling"),
        (judged("  "), "sampling"),
        (judged("Pears. ### Apples"), "stop_rule"),
        (judged("Here is a program:\n\nprint(1)", text="Here is a program:"), "cleaner"),
        (judged("A pear.", text=""), "cleaner"),
        (replace(PAIR, raw="A pear.", clean="A pear.", flags=("truncated",)), "detector_suspect"),
    ],
)
def test_cause(sample, expected):
    assert cause(sample) == expected


def test_code_that_a_cleaner_cut_is_not_blamed_on_the_cap():
    """A hand-run pilot raised its token cap for this."""
    one = judged(
        "Here is a simple Python program:\n\nprint('Hello')",
        text="Here is a simple Python program:",
    )
    assert one.flags == ("truncated",) and cause(one) == "cleaner"


NAMES = ("runaway", "repetition", "token_limit", "truncated", "delimiter_leak", "empty")
EVERY = [flags for n in range(1, 4) for flags in combinations(NAMES, n)]


@pytest.mark.parametrize("reason", ["eos", "stop", "length", None])
@pytest.mark.parametrize("flags", EVERY, ids="+".join)
def test_every_bad_row_has_exactly_one_of_the_seven(flags, reason):
    one = replace(PAIR, raw="A pear.", clean="A pear.", flags=flags, finish_reason=reason)
    assert cause(one) in get_args(Cause)


def test_causes_are_treated_by_parameters_that_exist():
    assert set(TREATED_BY) == set(get_args(Cause))
    assert {name for names in TREATED_BY.values() for name in names} <= set(TUNABLE)
    assert TREATED_BY["stop_rule"] == ("response.stop",)
    assert TREATED_BY["token_cap"] == ("response.max_new_tokens",)


@pytest.mark.parametrize("name", ["cleaner", "detector_suspect", "unheard of"])
def test_what_no_parameter_treats_is_said_to_be_the_measurement(name):
    assert "metric is wrong" in treated_by(name)
    assert "response.stop" in treated_by("stop_rule")

"""Causes: what could treat a bad row, told from raw text, stop reason and cleaned text."""

from dataclasses import replace

import pytest

from pipeline.causes import cause
from pipeline.detection.clean import clean
from pipeline.detection.detectors import detect
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

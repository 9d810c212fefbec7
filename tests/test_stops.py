"""agent/stops.py: a stop string is refused when good answers hold it."""

import pytest

from agent.reviewers.markers import DEFAULT_STOPS
from agent.stops import stop_refusal

ALLOWED = [
    *DEFAULT_STOPS,
    "\n\nInstruction:",
    "###",
    "### Instruction",
    "<|im_end|>",
    "[INST]",
    "\nAssistant:",
    "Instruction:",
    "</s>",
    "\nFrage:",
    "\n==",
    "x" * 31 + ":",
]
REFUSED = [
    ("", "0 characters"),
    ("x" * 33, "33 characters"),
    ("\n", "only space"),
    ("\n\n", "only space"),
    (" ", "only space"),
    (".", "only space or punctuation"),
    (". ", "only space or punctuation"),
    ("...", "only space or punctuation"),
    ("?!", "only space or punctuation"),
    ("\n-", "only space or punctuation"),
    (":", "one character"),
    ("\n#", "one character"),
    ("\n*", "one character"),
    ("e", "one character"),
    ("\nQ", "one character"),
    ("the", "ordinary words"),
    (" and the ", "ordinary words"),
    ("Instruction", "ordinary words"),
    ("\n1.", "list item"),
    ("\n10)", "list item"),
    ("\n(2)", "list item"),
    ("\n3:", "list item"),
    ("\na)", "list item"),
    ("\n**", "list item"),
    ("\n```", "punctuation"),
    ("```python", "code block"),
    ("\n\x1b[", "cannot be printed"),
    ("\nQ:\u202e", "cannot be printed"),
    ("\tQ:", "cannot be printed"),
    ("\ud800:", "cannot be printed"),
]


@pytest.mark.parametrize("text", ALLOWED)
def test_scaffold_markers_are_allowed(text):
    assert stop_refusal(text) is None


@pytest.mark.parametrize(("text", "why"), REFUSED)
def test_what_good_answers_hold_is_refused(text, why):
    assert why in (stop_refusal(text) or "allowed")

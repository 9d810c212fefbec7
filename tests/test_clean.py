"""The cleaner: what it takes, what it must never take, and that it says what it took."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detection.clean import clean, trim
from pipeline.good_pairs import good_pairs
from tests.detector_cases import GOOD

STOPS = ("\nInstruction", "\nQ:", "\n###", "\nUser:", "\nResponse:")


@pytest.mark.parametrize("pair", good_pairs(), ids=lambda p: p.id)
def test_good_answers_come_through_whole(pair):
    assert clean(f" {pair.response}\n") == pair.response
    assert clean(f" {pair.response}\n", instruction=pair.instruction) == pair.response


def test_code_after_a_blank_line_is_kept():
    """A hand-run pilot's cleaner cut at the first blank line and the token cap was blamed."""
    raw = " Here is a simple Python program:\n\nprint('Hello')\n"
    assert clean(raw, stop=STOPS) == raw.strip()


@pytest.mark.parametrize(
    ("raw", "text", "reason"),
    [
        (" Paris.\n\nInstruction: Name a fruit.", "Paris.", "next_task"),
        (" Paris.\n\nQ: Name a fruit.\nA: Apple", "Paris.", "next_task"),
        (" Paris.\n\n---\n\n### Instruction:\nName", "Paris.", "next_task"),
        (" Paris.\n\n3. Instruction: Name", "Paris.", "next_task"),
        (" Paris.<|endoftext|>The next", "Paris.", "next_task"),
        (" Paris.###", "Paris.", "delimiter"),
        (" Paris.\n###", "Paris.", "delimiter"),
        (" Paris.\n###\nName", "Paris.", "next_task"),
        (" Paris.\n\nInstr", "Paris.", "delimiter"),
        (" Response: Paris.", "Paris.", "echo"),
        ("\n\nInstruction: Name a fruit.", "", "next_task"),
    ],
)
def test_what_is_not_the_answer_goes_and_is_named(raw, text, reason):
    result = trim(raw)
    assert result.text == text
    assert [r.reason for r in result.removed] == [reason]


@pytest.mark.parametrize(
    ("raw", "stop", "text"),
    [
        ("Paris.\nUs", ("\nUser:",), "Paris."),
        ("Paris. END", ("END",), "Paris."),
        ("The END", ("END",), "The"),
        ("Paris.@@", ("@@@",), "Paris."),
        ("Paris.@", ("@@@",), "Paris.@"),
        ("Editor\nUser", ("\nUser:",), "Editor\nUser"),
        ("User", ("\nUser:",), "User"),
        ("Paris. " + "#" * 1_000_000, ("\n###",), "Paris."),
        ("Paris.\n\nTask: b", ("\nTask",), "Paris."),
    ],
)
def test_what_is_left_of_a_stop_string_goes(raw, stop, text):
    assert clean(raw, stop=stop) == text


def test_an_instruction_that_asks_for_the_form_keeps_it():
    raw = "Sure!\n\nQ: Why?\nA: Because."
    assert clean(raw, instruction="Tell me a joke.") == raw
    assert clean(raw, instruction="What is the capital of France?") == "Sure!"


@given(st.lists(st.sampled_from([*[r for _, r in GOOD], *STOPS, "\n\n", "###", " "]), max_size=6))
def test_cleaning_twice_changes_nothing_more_and_invents_nothing(parts):
    raw = "".join(parts)
    once = clean(raw, stop=STOPS)
    assert once in raw
    assert once == once.strip()
    assert not any(form in once for form in STOPS)
    assert clean(once, stop=STOPS) in once

"""Detectors on cases that are not among their controls, and on what hand-run pilots got wrong."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.detection.clean import clean
from pipeline.detection.detectors import DETECTORS, detect
from pipeline.types import Sample
from tests.detector_cases import BAD, GOOD

STOPS = ("\nInstruction", "\nQ:", "\n###", "\nUser:", "\nResponse:")


def sample(raw, instruction="", reason="eos", stop=(), fired=None):
    text = clean(raw, stop=stop)
    return Sample(
        0, instruction, instruction, raw=raw, clean=text, finish_reason=reason, stop=fired
    )


@pytest.mark.parametrize(("instruction", "response"), GOOD, ids=[i[:40] for i, _ in GOOD])
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_good_answers_are_left_alone(instruction, response, known):
    one = sample(f" {response}", instruction if known else "")
    assert one.clean == response
    assert detect(one) == ()


@pytest.mark.parametrize(("flag", "instruction", "raw", "reason"), BAD)
def test_faults_are_flagged(flag, instruction, raw, reason):
    assert flag in detect(sample(raw, instruction, reason))


def test_length_is_no_runaway():
    """A hand-run pilot's first detector called these runaways."""
    ecosystem = (
        "An ecosystem is a community of living organisms, such as plants, animals and microbes, "
        "in conjunction with the non-living components of their environment, such as air, water "
        "and mineral soil, which interact as a system and are linked together through nutrient "
        "cycles and flows of energy."
    )
    habitat = (
        "Owls nest in hollow trees, where their young are safe from the wind. Foxes dig a den "
        "under roots or take over one that badgers have left. Trout need cold water that runs "
        "over gravel. Camels can do without a drink for more than a week. Bees choose a place "
        "with flowers close by. Seals come ashore to rest there and to give birth. Moles hardly "
        "ever leave their tunnels, which they dig with broad front feet. Swifts sleep in the air "
        "and land only to breed."
    )
    assert len(ecosystem) > 270 and len(habitat) > 450
    assert detect(sample(ecosystem)) == detect(sample(habitat)) == ()
    assert detect(sample(" ".join([ecosystem, habitat]))) == ()


def test_hash_marks_that_leaked_into_a_third_of_the_rows_are_seen():
    leaked = Sample(0, "", raw="Paris.###", clean="Paris.###", finish_reason="eos")
    assert detect(leaked, stop=("###END###",)) == ("delimiter_leak",)
    assert clean("The capital of France is Paris.###", stop=("\n###",)).endswith("Paris.")


@pytest.mark.parametrize("part", ["###END###", "###END", "###", "##", "<|im_end|>", "\nInstr"])
def test_a_delimiter_or_the_beginning_of_one_at_the_end_leaks(part):
    text = f"Paris is the capital.{part}"
    left = Sample(0, "", raw=text, clean=text, finish_reason="eos")
    assert "delimiter_leak" in detect(left, stop=("###END###",))


def test_runaway_looks_at_what_the_cleaner_has_not_touched():
    one = sample(" Paris.\n\nInstruction: Name a fruit.\nResponse: Apple.")
    assert one.clean == "Paris."
    assert detect(one) == ("runaway",)
    assert detect(replace(one, raw=one.clean)) == ()


def test_a_capped_row_is_not_also_truncated():
    assert detect(sample(" Plants need light and", reason="length")) == ("token_limit",)
    assert detect(sample(" Plants need light and")) == ("truncated",)


def test_a_row_without_finish_reason_is_judged_by_its_text():
    assert detect(sample(" Plants need light and", reason=None)) == ("truncated",)


def test_an_unanswered_sample_has_no_flags():
    assert detect(Sample(0, "Name a fruit.", "Name a fruit.")) == ()


def test_an_answers_stop_string_after_a_second_paragraph_tells_of_another_task():
    raw = " She was a chemist.\n\nCommentary: Describe two techniques of washing."
    assert detect(sample(raw, fired="\nResponse:", reason="stop")) == ("runaway",)
    assert detect(sample(raw, fired="\nInstruction", reason="stop")) == ()
    assert detect(sample(" She was a chemist.", fired="\nResponse:", reason="stop")) == ()


@pytest.mark.parametrize("stop", STOPS)
def test_a_stop_string_left_in_raw_text_is_a_runaway(stop):
    one = sample(f" Paris.{stop} Name it.", stop=(stop,))
    assert one.clean == "Paris."
    assert "runaway" in detect(one, stop=(stop,))


def test_every_detector_names_its_text_its_reason_and_its_source():
    assert list(DETECTORS) == [
        "runaway", "repetition", "token_limit", "truncated", "delimiter_leak", "empty",
    ]  # fmt: skip
    assert all(d.reason and d.source and d.name == name for name, d in DETECTORS.items())


HOSTILE = {
    "a": "a", "spaces": " ", "newlines": "\n", "hashes": "#", "words": "the cat sat on a mat ",
    "roles": "Instruction:\n", "keys": "Name: x\nUser: y\n", "tags": "<p </p>", "digits": "12",
    "fences": "```\n", "dots": "a.b", "brackets": "[INST", "quotes": '"', "items": "ab,",
    "questions": "What is it about then?\n\n", "moulds": "If it is a cat then it eats.\n",
    "labels": "Abc: What is it about?\nDef: x\n", "counters": "1) ", "rules": "- ",
    "inline": "So it is. Why is the sky so blue now? The sky is so. ",
    "pairs": "Abc 3: It is a cat.\nDef: It is a dog.\n", "orders": "Name a tall bird.\nIt is so.\n",
    "blanks": " \n\t", "here": "here is ", "colons": ":\nUser: a\n",
}  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_takes_linear_time(unit):
    """400,000 characters; quadratic work on them would take minutes."""
    raw = unit * (400_000 // len(unit))
    started = time.process_time()
    one = Sample(0, "", "Write a poem about it, please.", raw=raw, clean=raw, finish_reason="eos")
    clean(raw, stop=STOPS)
    detect(one, stop=STOPS)
    assert time.process_time() - started < 12


REAL = [
    json.loads(line)
    for line in (Path(__file__).parent / "real_responses.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
]
"""Responses of the embedded base model on six scaffolds, with and without stop strings; what is
expected of each was read and judged by a person."""


@pytest.mark.parametrize("row", REAL, ids=lambda r: f"{r['scaffold']}: {r['instruction'][:30]}")
def test_real_responses_of_a_base_model(row):
    stop = (*STOPS, "\nInput:", "\nTask") if row["stops"] else ()
    one = sample(row["raw"], row["instruction"], row["finish_reason"], stop, row["stop"])
    assert one.clean == row["clean"]
    assert list(detect(one, stop=stop)) == row["flags"]


def test_what_stands_over_every_task_of_a_scaffold_is_no_loop():
    over = "Below is an instruction that describes a task. Write a response that completes it."
    asks = ("Name a tall bird.", "Where do pears grow?", "Who wrote Faust?", "Why is snow white?")
    tasks = "".join(f"\n\n{over}\n\n### Instruction:\n{ask}" for ask in asks)
    assert "repetition" not in detect(sample(f"Paris.{tasks}", "What is the capital of France?"))
    assert "repetition" in detect(sample("Paris." + f"\n\n{over}" * 5, "What is it called?"))


def test_words_in_a_row_and_bare_numbers_are_no_cut_sentences():
    assert detect(sample(" Green green blue blue orange yellow gold or silver", "Which?")) == ()
    assert "truncated" in detect(sample(" The green one is in the blue box and it is"))
    assert "truncated" not in detect(sample(" 1.\n2.\n3.", "List three."))
    assert "truncated" in detect(sample(" Three are:\n1. Oak\n2.", "List three."))


def test_how_many_times_is_asked_and_not_ordered():
    text = "\n".join(f"{i}. {10 * i} times" for i in range(1, 17))
    assert "repetition" in detect(sample(text, "How many times does it rain?"))
    assert "repetition" not in detect(sample(text, "Count the drops sixteen times."))


def test_a_prompt_for_a_bot_may_show_an_example():
    text = "You help cooks.\n\nExample\nUser: Halve this cake.\nAssistant: For half: 2 eggs."
    assert "runaway" in detect(sample(text, "What is a cook?"))
    asked = Sample(0, "", "Write a system prompt for a bot.", raw=text, clean=text)
    assert detect(asked) == ()

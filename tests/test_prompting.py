"""Prompts: the scaffold, which examples stand in it, and topics."""

import pytest

from pipeline.params import TUNABLE, FewshotParams
from pipeline.prompting import choose_examples, instruction_prompts, response_prompts, topic_hints
from prompts.library import Example, fewshot_set, rubric, topics

SHIPPED = TUNABLE["fewshot.set"].choices


def choose(rotation: str, number: int = 0, pool: tuple[Example, ...] = ()) -> tuple[Example, ...]:
    fewshot = FewshotParams(count=6, rotation=rotation)  # type: ignore[arg-type]
    return choose_examples(fewshot, seed=1, place=("pilot", 1, number), pool=pool)


def test_fixed_examples_never_change() -> None:
    assert choose("fixed", 0) == choose("fixed", 1) == fewshot_set("core")[:6]


def test_rotated_examples_change_with_the_batch_and_only_with_it() -> None:
    assert choose("rotate", 0) == choose("rotate", 0)
    assert choose("rotate", 0) != choose("rotate", 1)
    assert len(set(choose("rotate", 0))) == 6


def test_a_pool_gives_half_of_the_examples() -> None:
    pool = tuple(Example("", f"Own {i}?", f"Answer {i}.") for i in range(50))
    chosen = choose("pool", 0, pool)
    assert sum(e in pool for e in chosen) == 3
    assert len(choose("pool", 0)) == 6, "an empty pool leaves the shipped ones"


def test_an_instruction_prompt() -> None:
    examples = (Example("food", "How?", "So."), Example("", "Why?", "Because."))
    plain = instruction_prompts(examples, hints=[None])[0].text
    assert plain == "Instruction: How?\n\nInstruction: Why?\n\nInstruction:"
    first, second = instruction_prompts(examples, hints=["art", "law"])
    assert first.prefix == second.prefix
    assert first.text.startswith("Topic: food\nInstruction: How?\n\nInstruction: Why?\n\n")
    assert second.suffix == "Topic: law\nInstruction:"


def test_a_response_prompt() -> None:
    prompt = response_prompts((Example("x", "How?", "So."),), ["Why {{ 1 }}?"])[0]
    assert prompt.text == "Instruction: How?\nResponse: So.\n\nInstruction: Why {{ 1 }}?\nResponse:"


def test_topics_are_drawn_evenly_and_again_the_same() -> None:
    hints = topic_hints(2000, seed=1, place=("pilot", 1, 0))
    assert hints == topic_hints(2000, seed=1, place=("pilot", 1, 0))
    assert set(hints) == set(topics())


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_set_is_clean(name: str) -> None:
    examples = fewshot_set(name)
    assert len(examples) >= 12, "the largest prompt has twelve examples"
    assert len({e.instruction for e in examples}) == len(examples)
    for example in examples:
        assert example.topic and "\n" not in example.instruction
        assert example.instruction == example.instruction.strip()
        assert example.response == example.response.strip() != ""


@pytest.mark.parametrize("name", ["instruction", "pair"])
def test_a_rubric_shows_both_labels_about_equally(name: str) -> None:
    text = rubric(name)
    good, bad = text.count("Answer: A\n"), text.count("Answer: B\n")
    assert good == bad >= 4
    assert text.endswith("\n\n")

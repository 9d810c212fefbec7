"""What every contender does: write instructions, answer others, score instructions and pairs.

Prompts, sampling parameters and critics are those of a run. Instructions to be answered, and the
responses of pairs, are fixed texts, so that no contender's work depends on what it wrote. Each
round has other rows: a server that remembers whole prompts gains nothing from that.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, Literal

from pipeline.critics.scores import Pair
from pipeline.params import GenParams
from pipeline.prompting import (
    INSTRUCTION_STOP,
    Prompt,
    choose_examples,
    instruction_prompts,
    response_prompts,
    topic_hints,
)
from pipeline.seeds import derive, rng
from pipeline.types import GenRequest, Sampling
from prompts.library import fewshot_set, topics

PhaseName = Literal["instructions", "answers", "labels", "lifts"]
GENERATION: Final[tuple[PhaseName, ...]] = ("instructions", "answers")
SCORING: Final[tuple[PhaseName, ...]] = ("labels", "lifts")

ANSWER_STOP: Final = ("\n\nInstruction:", "\nInstruction:")
ANSWER_TOKENS: Final = 100
_SEED: Final = 1
_TASKS: Final = (
    "Explain {} to a child of ten.",
    "Name three books about {}.",
    "What should a beginner know about {}?",
    "Write one sentence about {}.",
    "What is a common mistake in {}?",
    "Why do people care about {}?",
    "Give an example of {} in daily life.",
    "How has {} changed in the last hundred years?",
    "List four words that belong to {}.",
    "Write a short poem about {}.",
    "Describe {} without using the word itself.",
    "What question about {} is still open?",
)


@dataclass(frozen=True, slots=True)
class Workload:
    """One round's work, the same for every contender."""

    instructions: tuple[GenRequest, ...]
    """Instruction completions to draw."""
    answers: tuple[GenRequest, ...]
    """Responses to draw."""
    texts: tuple[str, ...]
    """Instructions to score with the label critic."""
    pairs: tuple[Pair, ...]
    """Pairs to score with the lift critic."""


def workload(rows: int, *, number: int) -> Workload:
    """Round ``number``, with ``rows`` rows in each of its four phases."""
    first = rows * number
    texts = tuple(instruction(first + i) for i in range(rows))
    shown = responses()
    pairs = tuple((text, shown[(first + i) % len(shown)]) for i, text in enumerate(texts))
    return Workload(writing(rows, number=number), answering(first, rows), texts, pairs)


def writing(rows: int, *, number: int) -> tuple[GenRequest, ...]:
    """Instruction completions, each with a topic of its own."""
    p, place = GenParams().instruction, ("bench", number)
    sampling = Sampling(
        p.temperature, p.max_new_tokens, p.top_p,
        repetition_penalty=p.repetition_penalty, stop=INSTRUCTION_STOP,
    )  # fmt: skip
    examples = choose_examples(GenParams().fewshot, seed=_SEED, place=place)
    hints = topic_hints(rows, seed=_SEED, place=place)
    return _requests(
        instruction_prompts(examples, hints=hints),
        sampling,
        verb="instruction",
        first=rows * number,
    )


def answering(first: int, rows: int) -> tuple[GenRequest, ...]:
    """Responses to instructions ``first`` to ``first + rows - 1`` of the fixed list."""
    p = GenParams().response
    sampling = Sampling(
        p.temperature, ANSWER_TOKENS, p.top_p,
        repetition_penalty=p.repetition_penalty, stop=ANSWER_STOP,
    )  # fmt: skip
    examples = choose_examples(GenParams().fewshot, seed=_SEED, place=("bench",))
    texts = [instruction(first + i) for i in range(rows)]
    return _requests(response_prompts(examples, texts), sampling, verb="response", first=first)


def instruction(index: int) -> str:
    """Instruction ``index`` of the fixed list, which begins again at its end."""
    known = _instructions()
    return known[index % len(known)]


@cache
def _instructions() -> tuple[str, ...]:
    """Shipped instructions and simple tasks about the shipped topics, a thousand in all."""
    shipped = [e.instruction for name in ("core", "wide") for e in fewshot_set(name)]
    shipped += [pair["instruction"] for pair in _good_pairs()]
    tasks = [task.format(topic) for task in _TASKS for topic in topics()]
    known = list(dict.fromkeys(shipped + tasks))
    rng(_SEED, "bench", "instructions").shuffle(known)
    return tuple(known)


@cache
def responses() -> tuple[str, ...]:
    """Shipped responses."""
    shown = [e.response for name in ("core", "wide") for e in fewshot_set(name)]
    return tuple(shown + [pair["response"] for pair in _good_pairs()])


def _good_pairs() -> list[dict[str, str]]:
    text = (files("prompts") / "controls" / "good_pairs.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _requests(
    prompts: Sequence[Prompt], sampling: Sampling, *, verb: str, first: int
) -> tuple[GenRequest, ...]:
    return tuple(
        GenRequest(p.prefix, p.suffix, sampling, derive(_SEED, "bench", verb, first + i))
        for i, p in enumerate(prompts)
    )

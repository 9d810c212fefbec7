"""The two few-shot prompts, from examples to text; nothing else knows the scaffold.

A prompt is a prefix that a whole micro-batch shares and a suffix of the row's own, so that an
engine computes the prefix once. Completion, not chat: no template tokens, no roles.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.params import FewshotParams
from pipeline.seeds import rng
from prompts.library import Example, fewshot_set, topics

INSTRUCTION_STOP = ("\n",)
"""An instruction is one line, so that one completion is one trial of the statistics."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt in two parts."""

    prefix: str
    """Shared by the micro-batch."""
    suffix: str
    """This row's own."""

    @property
    def text(self) -> str:
        """The whole."""
        return self.prefix + self.suffix


def choose_examples(
    fewshot: FewshotParams, *, seed: int, place: Sequence[str | int], pool: Sequence[Example] = ()
) -> tuple[Example, ...]:
    """The examples of one micro-batch.

    ``fixed`` takes the first of the set, ``rotate`` others each micro-batch, and ``pool`` up to
    half from rows accepted before, so that the examples drift with what was written.
    """
    shipped = fewshot_set(fewshot.set)
    if fewshot.rotation == "fixed":
        return shipped[: fewshot.count]
    chance = rng(seed, *place, "examples")
    own = min(len(pool), fewshot.count // 2) if fewshot.rotation == "pool" else 0
    chosen = chance.sample(shipped, fewshot.count - own) + chance.sample(list(pool), own)
    chance.shuffle(chosen)
    return tuple(chosen)


def instruction_prompts(
    examples: Sequence[Example], *, hints: Sequence[str | None]
) -> list[Prompt]:
    """A prompt a row; a hint names the topic of its row, and then every example names its own."""
    hinted = any(hints)
    topic = {e: f"Topic: {e.topic}\n" if hinted and e.topic else "" for e in examples}
    prefix = "".join(f"{topic[e]}Instruction: {e.instruction}\n\n" for e in examples)
    return [Prompt(prefix, f"Topic: {h}\nInstruction:" if h else "Instruction:") for h in hints]


def response_prompts(examples: Sequence[Example], instructions: Sequence[str]) -> list[Prompt]:
    """A prompt for each instruction, after whole example pairs."""
    prefix = "".join(f"Instruction: {e.instruction}\nResponse: {e.response}\n\n" for e in examples)
    return [Prompt(prefix, f"Instruction: {i}\nResponse:") for i in instructions]


def topic_hints(count: int, *, seed: int, place: Sequence[str | int]) -> list[str]:
    """A topic a row, drawn evenly from the shipped list."""
    chance = rng(seed, *place, "topics")
    return [chance.choice(topics()) for _ in range(count)]

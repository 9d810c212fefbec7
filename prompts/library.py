"""Data files of this package, found by name: few-shot sets, rubrics and topics.

Each example is one question or task with one good answer. The same examples stand in both
prompts: their instructions alone where instructions are written, whole pairs where they are
answered.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Example:
    """One few-shot example."""

    topic: str
    """One word for what it is about, shown where topics are hinted at."""
    instruction: str
    """A single line."""
    response: str
    """A good answer; may have several lines."""


@cache
def fewshot_set(name: str) -> tuple[Example, ...]:
    """The shipped set called ``name``.

    Raises:
        FileNotFoundError: if there is no such set.
    """
    text = (files("prompts") / "fewshot" / f"{name}.jsonl").read_text(encoding="utf-8")
    return tuple(Example(**json.loads(line)) for line in text.splitlines())


@cache
def topics() -> tuple[str, ...]:
    """Topics that instruction prompts can hint at."""
    return tuple((files("prompts") / "topics.txt").read_text(encoding="utf-8").split("\n")[:-1])


@cache
def rubric(name: str, *, yes: str = "A", no: str = "B") -> str:
    """The few-shot rubric that the label critic called ``name`` reads first."""
    text = (files("prompts") / "rubrics" / f"{name}.txt").read_text(encoding="utf-8")
    return text.replace("{yes}", yes).replace("{no}", no)

"""Good pairs: instructions with answers that people hold to be good, shipped with the prompts.

What controls are made from: detectors must leave them alone, critics must like them, and faults
are planted in them. They are read from ``prompts/controls`` and never changed by a run.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Pair:
    """One good instruction with one good answer."""

    id: str
    """Its name."""
    kind: str
    """What sort of answer: fact, explanation, code, list, table ..."""
    instruction: str
    """What is asked."""
    response: str
    """A good answer."""


@cache
def good_pairs() -> tuple[Pair, ...]:
    """The shipped good pairs."""
    text = (files("prompts") / "controls" / "good_pairs.jsonl").read_text(encoding="utf-8")
    return tuple(Pair(**json.loads(line)) for line in text.splitlines())


@cache
def vague_instructions() -> tuple[str, ...]:
    """Shipped instructions that nobody could follow."""
    path = files("prompts") / "controls" / "vague_instructions.txt"
    return tuple(path.read_text(encoding="utf-8").splitlines())

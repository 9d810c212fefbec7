"""A sign that a response goes on into further tasks, and what such signs weigh.

The signs themselves are found in ``further.py``, ``asked.py`` and ``turns.py``. The one idea: a
sign that good answers hardly ever show decides by itself, and two that they show now and then do
together.
"""

import re
from dataclasses import dataclass
from typing import Final

ENOUGH: Final = 2.0
"""The sum of weights from which a response runs away."""
SURE: Final = 2.0
"""A sign that decides by itself."""
LIKELY: Final = 1.0
"""A sign that a good answer shows once, but hardly twice or with another."""

POSSIBLE: Final = 0.5
"""A sign that some good answers show a few times."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing that a good answer to its instruction seldom shows."""

    reason: str
    """What it is, in a few words."""
    weight: float
    """How much it counts; see ``ENOUGH``."""


def alike(line: str, instruction: str, share: float = 0.8) -> bool:
    """A line says the instruction again, or a part of it: so much of their words is common."""
    words, own = set(_WORD.findall(line.lower())), set(_WORD.findall(instruction.lower()))
    return words <= own or own <= words or len(words & own) >= share * len(words | own)

"""A response as the boundary rules see it: its lines, its code blocks, its keys.

Where a next task begins is decided in ``boundary.py`` and ``role_marks.py``. The one idea: what
stands around a mark tells whether it belongs to the answer.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

from pipeline.detection.scaffold import ASKS, REPLIES

CODE: Final = re.compile(r"```.*?(?:```|\Z)|`[^`\n]{1,200}`", re.DOTALL)
"""A code block, or code within a line."""

_FENCE = re.compile(r"^[ \t]*(```|~~~)", re.MULTILINE)
_KEY_LINE = re.compile(r"[ \t]*(?:[-*•][ \t]+)?\**([A-Za-z][\w '/-]{0,30})\**:\**[ \t]")
_NEAR = 2000
"""Characters before a mark in which its last line is looked for."""


@dataclass(frozen=True, slots=True)
class Body:
    """A response and what it responds to."""

    text: str
    """The response."""
    instruction: str
    """What it responds to; empty when unknown."""
    fences: tuple[int, ...]
    """Offsets of the lines that open and close code blocks, in turn."""

    @classmethod
    def of(cls, text: str, instruction: str) -> "Body":
        """A response with its code blocks found."""
        return cls(text, instruction, tuple(m.start() for m in _FENCE.finditer(text)))

    def fenced(self, place: int) -> bool:
        """Within a code block that is closed; one left open hides nothing."""
        passed = bisect_right(self.fences, place)
        return passed % 2 == 1 and passed < len(self.fences)

    def after_block(self, place: int) -> bool:
        """After a whole code block."""
        return len(self.fences) >= 2 and self.fences[1] < place

    def before(self, place: int) -> str:
        """The last line with something in it before ``place``, or an empty string."""
        head = self.text[max(0, place - _NEAR) : place].rstrip()
        return head.rpartition("\n")[2].strip()

    def after(self, place: int) -> str:
        """The line that follows the one of ``place``."""
        rest = self.text[place : place + _NEAR].partition("\n")[2]
        return rest.partition("\n")[0]

    def adjacent(self, place: int) -> bool:
        """The line right before the one that begins at ``place`` is not blank."""
        head = self.text[max(0, place - _NEAR) : place].removesuffix("\n")
        return place > 0 and bool(head.rpartition("\n")[2].strip())

    def opens(self, place: int) -> bool:
        """Nothing but blanks stands before ``place``: the answer itself begins so."""
        return place < _NEAR and not self.text[:place].strip(" \t")


def is_key(line: str) -> bool:
    """``Name: value`` with a name that is no role word, as in a list of settings."""
    match = _KEY_LINE.match(line)
    return match is not None and match[1].lower() not in {**ASKS, **REPLIES}

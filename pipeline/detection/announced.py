"""Answers that end with what they announce: a colon, a heading, "the list is as follows".

How prose ends is read in ``endings.py``. The one idea: a sentence that leads up to something is
whole, and the answer is not.
"""

import re
from collections.abc import Sequence
from typing import Final

_HEADING = re.compile(r"^#{1,6}[ \t]+\S")
_BARE = re.compile(r"[-*•]|\d{1,3}[.)]")
"""The mark of a list item, and nothing else."""
_ANNOUNCES = re.compile(
    r"(?:^|[.!?\n]\s*)(?:sure[,!.]? |certainly[,!.]? |okay[,!.]? )?(?:here|below)(?: is"
    r"| are|'s|’s)\b[^.!?:,\n]{0,120}"
    r"\b(?:lists?|examples?|programs?|codes?|scripts?|functions?|steps?|tables?|poems?"
    r"|story|recipes?|essay|letter"
    r"|tips|ways|ideas|sentences?|paragraphs?|answers?|solutions?|instructions"
    r"|summary)[^.!?:,\n]{0,60}[.!]?$"
    r"|\b(?:as follows|the following|such as|for example|for instance|including|e\.g|namely"
    r"|(?:shown|listed|given|described) below)[.,]?$",
    re.IGNORECASE,
)
_LEADING: Final = (
    *("here", "below", "follow", "such as", "for example", "for instance", "including", "e.g"),
    "namely",
)
"""Words without one of which nothing is announced."""
_INTENDS = re.compile(
    r"(?:sure[,!.]? |certainly[,!.]? |okay[,!.]? )?i(?:['’]ll| will| can|['’]m going to"
    r"| am going to) (?:now )?(?:write|generate|create|list|make|provide|give you|show you)\b"
    r"[^.!?\n]{0,120}\b(?:lists?|examples?|programs?|code|scripts?|functions?|tables?|poems?|story"
    r"|recipes?|essay|letter|tips|ideas|sentences?|words|names)\b[^.!?\n]{0,40}[.!:]?"
    r"|i(?:['’]ll| will|['’]m going to| am going to) (?:now )?(?:tell|show) you (?!that\b)"
    r"[^.!?,\n]{0,160}[.!:]?",
    re.IGNORECASE,
)
"""An intention that is the whole answer."""


def announces(last: str, lines: Sequence[str]) -> bool:
    """Whether the last line, one of these, leads up to something."""
    if last.endswith((":", "：")):
        return True
    if _HEADING.match(last) and len(lines) > 1:
        return True
    if _BARE.fullmatch(last):
        return not all(_BARE.fullmatch(line.strip()) for line in lines)
    if re.fullmatch(r"\*\*[^*]{1,80}:\*\*", last):
        return True
    end = last[-240:]
    return any(word in end.lower() for word in _LEADING) and bool(_ANNOUNCES.search(end))


def only_intends(text: str) -> bool:
    """Whether a text says what it will write, and no more."""
    return _INTENDS.fullmatch(text.strip()) is not None

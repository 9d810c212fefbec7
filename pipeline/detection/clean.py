"""The cleaner: takes away what is surely not the answer, and nothing else.

White space at the ends, an echo of the scaffold's own "Response:", a stop string or the beginning
of one at the end, and everything from the next task on. It never cuts at a blank line, and never
within code, a list, a table or a heading. The one idea: every removal is kept with its reason, so
that an audit can ask what was taken.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.detection.boundary import next_task

Reason = Literal["echo", "next_task", "delimiter"]

_ECHO = re.compile(
    r"\s*(?:#{1,6}[ \t]*)?\*{0,2}(?:Response|Assistant|RESPONSE)\*{0,2}[:：]\*{0,2}[ \t]*"
)
_RULE_AT_END = re.compile(r"(?:^|\n)[ \t]*(?:\d{1,3}[.)]|[-*_=]{3,}|#+|[*>]+)[ \t]*$")
_KNOWN_DELIMITERS = (
    "###",
    "###END###",
    "<|endoftext|>",
    "<|im_end|>",
    "</s>",
    "<eos>",
    "<end_of_turn>",
)
_KNOWN_LINES = ("Instruction:", "Response:", "### Instruction:", "### Response:")
_SENTENCE_ENDS = (".", "!", "?", '"', "'", ")", "”")
_LONGEST = 64
"""Characters at the end in which the rest of a delimiter is looked for."""


@dataclass(frozen=True, slots=True)
class Removal:
    """One piece that was taken away."""

    reason: Reason
    """Why it is not the answer."""
    text: str
    """What it was, white space included."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A response without what is surely not the answer."""

    text: str
    """What is left."""
    removed: tuple[Removal, ...]
    """What was taken, white space apart."""


def clean(raw: str, *, stop: Sequence[str] = (), instruction: str = "") -> str:
    """The answer in ``raw``; see :func:`trim`."""
    return trim(raw, stop=stop, instruction=instruction).text


def trim(raw: str, *, stop: Sequence[str] = (), instruction: str = "") -> Cleaned:
    """The answer in ``raw``, and what was taken from it.

    Args:
        raw: What the engine returned.
        stop: Stop strings in force; what is left of one at the end goes.
        instruction: What ``raw`` responds to, when known.
    """
    removed: list[Removal] = []
    text = raw
    echo = _ECHO.match(text)
    if echo:
        removed.append(Removal("echo", echo.group()))
        text = text[echo.end() :]
    boundary = next_task(text, instruction=instruction, stop=stop)
    if boundary:
        head = _without_rules(text[: boundary.start])
        removed.append(Removal("next_task", text[len(head) :]))
        text = head
    text = text.strip()
    while rest := delimiter_at_end(text, stop=stop):
        # A run of one character goes at once, so that a long one costs no more than a short one.
        left = text.rstrip(rest[0]) if len(set(rest)) == 1 else text[: -len(rest)]
        removed.append(Removal("delimiter", text[len(left) :]))
        text = left.rstrip()
    return Cleaned(text, tuple(removed))


def delimiter_at_end(text: str, *, stop: Sequence[str] = ()) -> str:
    """The stop string, or beginning of one, with which a text ends; empty if it ends otherwise.

    A beginning has at least two characters that are not blank. One of letters counts only as a
    line of its own after a finished sentence, since a word is part of an answer more often.
    """
    best = ""
    forms = (*stop, *_KNOWN_DELIMITERS, *_KNOWN_LINES)
    if not text or all(text[-1] not in form for form in forms):
        return best
    for delimiter in forms:
        form = delimiter.strip()
        for size in range(min(len(form), len(text), _LONGEST), 1, -1):
            part = form[:size]
            if (
                len(part.replace(" ", "")) >= 2
                and text.endswith(part)
                and _stands_alone(text, part, form)
            ):
                best = max(best, part, key=len)
                break
    return best


def _stands_alone(text: str, part: str, form: str) -> bool:
    """Whether the end of a text can only be a delimiter's: marks can, words by their place."""
    if not part[0].isalnum():
        return not (part.startswith("<") and len(part) < 3)
    head = text[: -len(part)]
    whole = part == form and not form[-1].isalnum()
    if not head.strip():
        return whole
    if head.endswith("\n"):
        return head.endswith("\n\n") or head.rstrip().endswith(_SENTENCE_ENDS)
    return whole and head.rstrip().endswith(_SENTENCE_ENDS)


def _without_rules(head: str) -> str:
    """A text without the rules, ordinals and hashes that lead over to a next task."""
    head = head.rstrip()
    while match := _RULE_AT_END.search(head, max(0, len(head) - 40)):
        head = head[: match.start()].rstrip()
    return head

"""Where a response goes on into another task, turn or document, if it does.

The runaway detector looks here on raw text, and the cleaner cuts here, so that the two cannot
disagree. The one idea: a mark that opens a task is a boundary unless the answer itself is in that
form: it starts with the mark, announces it ("Here is a dialogue:"), was asked for it, lists it
among other keys, or quotes it in a code block. Length is never evidence.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from pipeline.detection.body import CODE, Body
from pipeline.detection.role_marks import foreign_roles
from pipeline.detection.scaffold import (
    DOCUMENT_LINE,
    HARD,
    INLINE_ASK,
    ITEM_LINE,
    MARKUP_REQUEST,
    PAGE_TAGS,
    ROLE_TAG,
    SEPARATOR_LINE,
    SERIES_LINE,
    SPECIAL_TOKEN,
)
from pipeline.detection.unmarked import label_turns

Kind = Literal["stop", "role", "series", "token", "separator", "document", "echo"]

_WORD = re.compile(r"\w+")
_LABEL = re.compile(r"^[\W\d]*[A-Z]\w{0,14}(?: \d{1,3})?[:：]\W*(?=\w)|^[\W\d]+")
_TAG = re.compile(r"<(?P<closing>/?)(?P<tag>[a-zA-Z][a-zA-Z0-9]{0,10})\b[^<>]{0,200}>")
_INLINE_REPLY = re.compile(r"(?<=[.!?\"'”)\]\s])(?:A|Answer|Response|Assistant|Output)[:：]")


@dataclass(frozen=True, slots=True)
class Boundary:
    """The place at which something else than the answer begins."""

    start: int
    """Offset of the mark's first character."""
    mark: str
    """The text that gives it away, cut to 40 characters."""
    kind: Kind
    """What sort of mark it is."""


def next_task(text: str, *, instruction: str = "", stop: Sequence[str] = ()) -> Boundary | None:
    """The first place where another task, turn or document begins; None if there is none.

    Args:
        text: A response.
        instruction: What it responds to, when known; it may ask for a form that has marks.
        stop: Stop strings in force; one that is left in the text ended the answer.
    """
    return _first_boundary(text, instruction, tuple(stop))


@lru_cache(maxsize=4)
def _first_boundary(text: str, instruction: str, stop: tuple[str, ...]) -> Boundary | None:
    """Cached, since three detectors and the cleaner ask the same of one row."""
    body = Body.of(text, instruction)
    rules = (
        _stops(body, stop),
        (_at(match, "role") for match in foreign_roles(body)),
        _series(body),
        _items(body),
        _tokens(body),
        _separators(body),
        _documents(body),
        _orphans(body),
        _tags(body),
        _labels(body),
        _echoes(body),
    )
    found = (next(rule, None) for rule in rules)
    return min((b for b in found if b), key=lambda b: b.start, default=None)


def inline_task(text: str) -> bool:
    """Whether another task begins in the middle of a line, which the cleaner does not cut."""
    if ":" not in text and "：" not in text:
        return False
    prose = CODE.sub(" ", text)
    for match in INLINE_ASK.finditer(prose):
        role = match["role"].lower()
        if role in HARD or _INLINE_REPLY.search(prose, match.end(), match.end() + 600):
            return True
    return False


def _at(match: re.Match[str], kind: Kind) -> Boundary:
    return Boundary(match.start(), match.group().strip()[:40], kind)


def _stops(body: Body, stop: Sequence[str]) -> Iterator[Boundary]:
    places = ((body.text.find(s), s) for s in stop if s.strip())
    for place, string in sorted(p for p in places if p[0] >= 0):
        yield Boundary(place, string, "stop")


def _series(body: Body) -> Iterator[Boundary]:
    """``Task 3:`` where no ``Task 2:`` came before: the series is not the answer's own."""
    seen: dict[str, int] = {}
    for match in SERIES_LINE.finditer(body.text):
        word, number = match["word"], int(match["number"])
        if word not in seen and number > 1 and body.before(match.start()):
            yield _at(match, "series")
        seen[word] = number


def _items(body: Body) -> Iterator[Boundary]:
    """A first item with a number above 1, after a finished answer that is no list."""
    match = ITEM_LINE.search(body.text)
    if not match or int(match["number"]) < 2 or body.fenced(match.start()):
        return
    before = body.before(match.start())
    finished = before.endswith((".", "!", "?", ")", '"')) or not body.adjacent(match.start())
    listed = re.search(
        r"\b1[.)]|\bcontinue\b|\blist\b", body.text[: match.start()] + body.instruction
    )
    if before and finished and not before.endswith(":") and not listed:
        yield _at(match, "series")


def _tokens(body: Body) -> Iterator[Boundary]:
    if "<" not in body.text and "[" not in body.text:
        return
    for match in SPECIAL_TOKEN.finditer(body.text):
        if not body.fenced(match.start()) and body.text[match.start() - 1 : match.start()] != "`":
            yield _at(match, "token")


def _separators(body: Body) -> Iterator[Boundary]:
    for match in SEPARATOR_LINE.finditer(body.text):
        before = body.before(match.start())
        titled = body.adjacent(match.start()) and not before.endswith((".", "!", "?"))
        setext = match.group().lstrip().startswith("=") and titled
        goes_on = match.end() < len(body.text.rstrip())
        if goes_on and not setext and not body.fenced(match.start()):
            yield _at(match, "separator")


def _documents(body: Body) -> Iterator[Boundary]:
    for match in DOCUMENT_LINE.finditer(body.text):
        if MARKUP_REQUEST.search(body.instruction):
            return
        before = body.before(match.start())
        page = "<" in body.text[: match.start()]
        if before and not page and not before.endswith(":") and not body.fenced(match.start()):
            yield _at(match, "document")


def _tags(body: Body) -> Iterator[Boundary]:
    """``<question>`` or another role's tag after an answer."""
    if "<" in body.text and not MARKUP_REQUEST.search(body.instruction):
        for match in ROLE_TAG.finditer(body.text):
            if body.before(match.start()) and not body.fenced(match.start()):
                yield _at(match, "role")


def _labels(body: Body) -> Iterator[Boundary]:
    match = label_turns(body)
    if match:
        yield _at(match, "role")


def _orphans(body: Body) -> Iterator[Boundary]:
    """A closing tag whose element was never opened: the text came out of a page."""
    if "</" not in body.text or MARKUP_REQUEST.search(body.instruction):
        return
    opened: set[str] = set()
    for match in _TAG.finditer(body.text):
        tag = match["tag"].lower()
        quoted = body.text[max(0, match.start() - 1) : match.start()] in {"`", '"', "'"}
        if not match["closing"]:
            opened.add(tag)
        elif tag in PAGE_TAGS and tag not in opened and not quoted:
            if body.before(match.start()) and not body.fenced(match.start()):
                yield _at(match, "document")


def _echoes(body: Body) -> Iterator[Boundary]:
    """A later line that sets the instruction again, or one much like it."""
    own = _WORD.findall(body.instruction.lower())
    said = body.text.lower()
    if len(own) < 4 or own[0] not in said or own[1] not in said:
        return
    place = len(body.text) - len(body.text.lstrip())
    place = body.text.find("\n", place)
    while 0 <= place < len(body.text) - 1:
        end = body.text.find("\n", place + 1)
        end = len(body.text) if end < 0 else end
        line = body.text[place + 1 : end] if end - place < 400 else ""
        line = _LABEL.sub("", line, count=1)
        if line.rstrip().endswith(("?", ".")) and _alike(own, _WORD.findall(line.lower())):
            yield Boundary(place + 1, line.strip()[:40], "echo")
        place = end


def _alike(own: list[str], line: list[str]) -> bool:
    if len(line) < 4 or line[:2] != own[:2]:
        return False
    one, other = set(own), set(line)
    return len(one & other) > 0.5 * len(one | other)

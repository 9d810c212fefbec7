"""Signs of further tasks in what a response asks: questions and orders.

Exams are looked for in ``exams.py``, labels in ``turns.py``. The one idea: a good answer may ask
its reader something, but what it asks is led up to, is about the reader, or was asked for.
"""

import re
from collections.abc import Iterator, Sequence

from pipeline.detection.exams import exam_forms
from pipeline.detection.lines import Line
from pipeline.detection.requests import ABOUT_US, sets_tasks
from pipeline.detection.sign import LIKELY, POSSIBLE, SURE, Sign, alike
from pipeline.detection.topic import asked_of_nobody, asks_back, foreign_to, stems
from pipeline.detection.wants import Wants

_QUESTIONS = re.compile(r"\b(questions?|ask|quiz|review|reflect|discuss\w*)\b", re.IGNORECASE)
_EXAM_ORDER = re.compile(
    r"(?:Circle|Draw|Underline|Identify|Compare and contrast|Make sentences|(?:Read|Find) and"
    r"|(?:Fill in|Complete|Choose|Match) (?:the|this|each)|Use the correct|Explain|Describe"
    r"|Define|Compare|Translate|Name|Classify|Calculate|Generate|Compose"
    r"|Give (?:an?|two|three) (?:example|synonym|antonym|definition)"
    r"|List (?:the|two|three|four|five|\d+|some) "
    r"|Write (?:an?|one|two|three|\d) (?:short )?(?:sentence|paragraph|poem|story|essay|word)s?)\b"
)
"""Orders that advice never gives."""
_INLINE_QUESTION = re.compile(
    r"(?<=[.!?] )(?:What|Why|How|Who|Whose|When|Where|Which|Is|Are|Was|Were|Do|Does|Did|Can|Name)"
    r"\b[^.!?\"]{8,200}\?(?= )"
)
_NEXT = 120
"""Characters after a question in which its answer begins."""
_SAID = 600
"""Characters before a question on its line that may lead up to it."""


def asked_for_more(lines: Sequence[Line], instruction: str, wants: Wants) -> Iterator[Sign]:
    """What a response asks that its instruction did not ask for."""
    if not (wants.open and lines[0].marked):
        yield from _in_place(lines, instruction, wants)
    yield from _questions(lines, instruction, wants)
    yield from _orders(lines, instruction, wants)
    yield from exam_forms(lines, instruction, wants)


def _in_place(lines: Sequence[Line], instruction: str, wants: Wants) -> Iterator[Sign]:
    """The response opens with a request that is not the instruction said again."""
    first = lines[0]
    if not first.requests or first.label:
        return
    again = alike(first.text, instruction, 0.8 if len(lines) == 1 else 0.4)
    if _EXAM_ORDER.match(first.text) and not again:
        # An order about the same, with other lines under it, may be the task in other words.
        sure = foreign_to(stems(instruction), first.text) or len(lines) == 1 or lines[1].requests
        yield Sign("an exam's order in place of an answer", SURE if sure else LIKELY)
        return
    if again or _handed_back(first, instruction) or wants.one or (first.headed and len(lines) > 1):
        return
    if first.asks and (wants.prose or first.personal and asks_back(first.text, instruction)):
        return
    if first.orders and wants.orders:
        return
    if first.asks or len(lines) == 1 or lines[1].requests:
        yield Sign("a request in place of an answer", SURE)
    else:
        yield Sign("a request before anything else", LIKELY)


def _handed_back(first: Line, instruction: str) -> bool:
    """Most of what the instruction is about is in the first line again."""
    asked = stems(instruction)
    return len(asked) >= 2 and len(asked & stems(first.text)) >= 0.6 * len(asked)


def _questions(lines: Sequence[Line], instruction: str, wants: Wants) -> Iterator[Sign]:
    """A line that asks, after the answer, though nothing led up to it."""
    if not any(line.asks or "? " in line.text for line in lines):
        return
    listed = False
    known = set(stems(instruction))
    for line, follower in zip(lines, [*lines[1:], None], strict=True):
        listed = listed or _announces_questions(line)
        if "? " in line.text and not (line.headed or wants.long_prose):
            yield from _inline(line.text, known)
        if line.before and line.asks and not (line.led_up_to or line.marked and listed):
            found = _question(line, follower, known, wants)
            if found and not (line is lines[-1] and line.foreign and found.weight == SURE):
                yield found
        known |= stems(line.text)


def _inline(text: str, known: set[str]) -> Iterator[Sign]:
    """Questions in the middle of a line, and whether the line goes on to answer them."""
    for match in _INLINE_QUESTION.finditer(text):
        asked = match.group()
        before = stems(text[max(0, match.start() - _SAID) : match.start()])
        after = stems(text[match.end() : match.end() + _NEXT])
        foreign = foreign_to(known, asked, least=2) and not stems(asked) & before
        if foreign and stems(asked) & after:
            yield Sign("a question about something else with its answer", SURE)
        elif not ABOUT_US.search(asked):
            yield Sign("a question among statements", LIKELY)


def _question(line: Line, follower: Line | None, known: set[str], wants: Wants) -> Sign | None:
    """What a question after the answer weighs, of which this much is known."""
    if line.headed:
        if foreign_to(known, line.text, least=2) and not wants.open:
            sure = foreign_to(known, line.text, least=3)
            return Sign("a heading that asks about something else", SURE if sure else LIKELY)
        return Sign("a question that heads an item", POSSIBLE / 2)
    if wants.long_prose and (line.label or not line.alone) or wants.open and line.marked:
        return None
    if not (wants.long_prose or wants.open) and _restated(line, follower):
        return Sign("a question with its own answer", SURE)
    if wants.long_prose or _own(line, wants.instruction, known):
        return Sign("a question that may be the answer's own", POSSIBLE)
    apart = _answered(follower) or asked_of_nobody(line.text)
    if line.personal and not (apart or foreign_to(known, line.text, least=3)):
        return Sign("a question to the reader about something else", LIKELY)
    if not line.marked and (line.opens or foreign_to(known, line.text)):
        return Sign("a question by itself after the answer", SURE)
    return Sign("a question after the answer", LIKELY)


def _answered(follower: Line | None) -> bool:
    """A statement follows."""
    return follower is not None and not (follower.requests or follower.marked)


def _restated(line: Line, follower: Line | None) -> bool:
    """The next line says again what this one asks, as an answer to it does."""
    if follower is None or not _answered(follower) or line.marked or follower.opens:
        return False
    return bool(stems(line.text) & stems(follower.text)) and follower.text.endswith((".", "!"))


def _own(line: Line, instruction: str, known: set[str]) -> bool:
    """A question that asks back, or is about what was just said."""
    if line.personal:
        under = line.before.startswith("#")
        return under or asks_back(line.text, instruction) or not foreign_to(known, line.text)
    generic = line.text.isascii() and not any(mark.isdigit() for mark in line.text)
    return generic and not line.alone and not stems(line.text)


def _announces_questions(line: Line) -> bool:
    """A heading over questions, or a sentence to the reader that leads up to them."""
    if not (line.marked or line.personal or line.text.endswith((":", "!"))):
        return False
    led = _QUESTIONS.search(line.before + " " + line.text)
    return bool(led) and not (sets_tasks(line.before) or sets_tasks(line.text))


def _orders(lines: Sequence[Line], instruction: str, wants: Wants) -> Iterator[Sign]:
    """A line that orders to write, list or explain, after the answer."""
    if not any(line.orders for line in lines):
        return
    known = set(stems(instruction))
    for line, follower in zip(lines, [*lines[1:], None], strict=True):
        if line.before and line.orders and not line.led_up_to:
            found = _order(line, follower, known, wants)
            if found:
                yield found
        known |= stems(line.text)


def _order(line: Line, follower: Line | None, known: set[str], wants: Wants) -> Sign | None:
    """What an order after the answer weighs, of which this much is known."""
    listed = line.marked or line.text.endswith(":")
    foreign = foreign_to(known, line.text, least=2)
    apart = foreign and line.opens and not listed
    exam = _EXAM_ORDER.match(line.text) is not None
    if exam and not wants.long_prose and (apart or _restated(line, follower)):
        return Sign("an exam's order", SURE)
    if exam and apart:
        return Sign("an exam's order in a letter or a story", LIKELY)
    if wants.orders:
        return Sign("an order about something else", POSSIBLE) if apart else None
    if listed:
        return Sign("an order that may be the answer's own", POSSIBLE / 2)
    sure = (line.opens or foreign) and not wants.long_prose
    return Sign("an order after the answer", SURE if sure else LIKELY)

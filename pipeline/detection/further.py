"""Signs that a response goes on into further tasks, weighed together.

A mark that is a boundary by itself is found in ``boundary.py``, where the cleaner cuts; here
nothing is cut, so a sign may be weak. The one idea: each sign holds on any scaffold, and a
response runs away when the weights of its signs reach ``ENOUGH``: one that good answers hardly ever
show, or two that they show now and then.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.detection.pages import is_address, of_page
from pipeline.detection.requests import ABOUT_US, Line, Wants, lines_of, sets_tasks
from pipeline.detection.scaffold import ASKS, MARKUP_REQUEST, REPLIES, REQUESTS

ENOUGH: Final = 2.0
"""The sum of weights from which a response runs away."""
SURE: Final = 2.0
"""A sign that decides by itself."""
LIKELY: Final = 1.0
"""A sign that a good answer shows once, but hardly twice or with another."""

POSSIBLE: Final = 0.5
"""A sign that some good answers show a few times."""

_QUESTIONS = re.compile(r"\b(questions?|ask|quiz|review|reflect|discuss\w*)\b", re.IGNORECASE)
_INLINE_QUESTION = re.compile(
    r"(?<=[.!?] )(?:What|Why|How|Who|Whose|When|Where|Which|Is|Are|Was|Were|Do|Does|Did|Can|Name)"
    r"\b[^.!?\"]{8,200}\?(?= )"
)
_LESSON = re.compile(
    r"^(?:Lesson|Unit|Chapter|Activity|Worksheet|Quiz|Section|Exercise|Page|Grade|Level|Test|Practice"
    r"|Assignment|Homework|Answer key|Part [A-D\d]|Vocabulary|Directions?|Objectives?|Example \d"
    r"|Problem \d)\b.{0,60}$|^\#(?!include|define|if|endif|pragma)\w+ \w",
    re.IGNORECASE,
)
_BLANK = re.compile(r"_{3,}|\.{6,}|\( {2,}\)|(?<=.)\[ {1,}\]")
_CHOICE = re.compile(r"\(?([A-Da-d])[.)][ \t]*\S")
_INLINE_CHOICE = re.compile(r"[?:] *\(?[Aa][.)] [^\n]{1,200}? \(?[Bb][.)] ")
_FORM = re.compile(
    r"\b(form|template|letter|fill|blank|complete|checklist|to-?do|contract)\b", re.IGNORECASE
)
_NUMBERED = re.compile(r"[A-Z]\w+[ \t]#?(?:[2-9]|[1-9]\d)[:.]")
"""A numbered label that is not the first of its kind."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing that a good answer to its instruction seldom shows."""

    reason: str
    """What it is, in a few words."""
    weight: float
    """How much it counts; see ``ENOUGH``."""


def further_tasks(text: str, instruction: str) -> bool:
    """Whether the signs of further tasks in a response are enough."""
    return sum(sign.weight for sign in signs(text, instruction)) >= ENOUGH


def signs(text: str, instruction: str) -> list[Sign]:
    """What speaks for further tasks in a response, each with its weight."""
    lines = list(lines_of(text))
    if not lines or not instruction:
        return []  # Nobody can say what was asked for.
    first = lines[0].text
    wants = Wants(instruction, first if first.endswith((":", "：")) else "")
    found = [*_page(lines, instruction), *_echoes(lines, instruction)]
    asked = [
        *_in_place(lines, instruction, wants),
        *_questions(lines, wants),
        *_orders(lines, wants),
        *_exam(lines, instruction, wants),
    ]
    if asked and not wants.requests:
        found += asked
    if any(line.label for line in lines[1:]) and not wants.talk:
        found += _labels(lines, wants, computes=_computes(text, instruction))
    return found


def _in_place(lines: Sequence[Line], instruction: str, wants: Wants) -> Iterator[Sign]:
    """The response opens with a request that is not the instruction said again."""
    first = lines[0]
    if not first.requests or first.label:
        return
    again = _alike(first.text, instruction, 0.8 if len(lines) == 1 else 0.4)
    if again or wants.one or (first.headed and len(lines) > 1):
        return
    if first.asks and (first.personal or wants.prose) or first.orders and wants.orders:
        return
    if first.asks or len(lines) == 1 or lines[1].requests:
        yield Sign("a request in place of an answer", SURE)
    else:
        yield Sign("a request before anything else", LIKELY)


def _questions(lines: Sequence[Line], wants: Wants) -> Iterator[Sign]:
    """A line that asks, after the answer, though nothing led up to it."""
    if not any(line.asks or "? " in line.text for line in lines):
        return
    listed = False
    for line in lines:
        listed = listed or _announces_questions(line)
        inline = "? " in line.text and not line.headed
        for asked in _INLINE_QUESTION.findall(line.text) if inline else ():
            if not wants.prose and not ABOUT_US.search(asked):
                yield Sign("a question among statements", LIKELY)
        if not line.before or not line.asks or line.led_up_to or line.marked and listed:
            continue
        if line.headed:
            yield Sign("a question that heads or explains an item", POSSIBLE / 2)
        elif wants.prose or line.personal:
            if not (wants.prose and (line.label or not line.alone)):
                yield Sign("a question that may be the answer's own", POSSIBLE)
        elif line.alone and not line.marked and not (line is lines[-1] and line.foreign):
            yield Sign("a question by itself after the answer", SURE)
        else:
            yield Sign("a question after the answer", LIKELY)


def _announces_questions(line: Line) -> bool:
    """A heading over questions, or a sentence to the reader that leads up to them."""
    if not (line.marked or line.personal or line.text.endswith((":", "!"))):
        return False
    led = _QUESTIONS.search(line.before + " " + line.text)
    return bool(led) and not (sets_tasks(line.before) or sets_tasks(line.text))


def _orders(lines: Sequence[Line], wants: Wants) -> Iterator[Sign]:
    """A line that orders to write, list or explain, after the answer."""
    for line in lines[1:]:
        if not line.orders or line.led_up_to or wants.orders:
            continue
        if line.marked or line.text.endswith(":"):
            yield Sign("an order that may be the answer's own", POSSIBLE / 2)
        else:
            sure = line.alone and not wants.prose
            yield Sign("an order after the answer", SURE if sure else LIKELY)


def _exam(lines: Sequence[Line], instruction: str, wants: Wants) -> Iterator[Sign]:
    """The words and forms of exams, worksheets and prompts."""
    asked = instruction.lower()
    for line, follower in zip(lines, [*lines[1:], None], strict=False):
        if line.formal and not _alike(line.text, instruction):
            sure = line.alone and not (wants.orders and line.orders)
            said = not line.marked and not line.orders
            sure = sure or (said and follower is not None and follower.requests)
            yield Sign("speaks of the form of a task", SURE if sure else LIKELY)
        if _blank(line.text) and not _FORM.search(instruction):
            yield Sign("a blank to fill in", LIKELY)
        title = _LESSON.match(line.text) if line.before and not line.marked else None
        if title and title.group().split()[0].lower() not in asked:
            yield Sign("the title of a lesson or exercise", POSSIBLE)
    if any(line.before and _INLINE_CHOICE.search(line.text) for line in lines):
        yield Sign("a question with answers to choose from on its line", SURE)
    choices = "".join(m[1] for m in (_CHOICE.match(line.whole) for line in lines) if m).lower()
    if "abc" in choices and any(line.asks for line in lines[1:]):
        yield Sign("a question with answers to choose from", LIKELY)


def _blank(line: str) -> bool:
    return any(mark in line for mark in ("___", "......", "(  ", "[ ")) and bool(
        _BLANK.search(line)
    )


def _page(lines: Sequence[Line], instruction: str) -> Iterator[Sign]:
    """Parts of web pages after an answer that had none."""
    parts = [line for line in lines[1:] if of_page(line.whole) or is_address(line.text)]
    if not parts or of_page(lines[0].whole) or MARKUP_REQUEST.search(instruction):
        return
    for line in parts:
        if of_page(line.whole):
            yield Sign("a part of a web page", SURE if line.alone else LIKELY)
        else:
            yield Sign("an address or a byline by itself", LIKELY)


def _echoes(lines: Sequence[Line], instruction: str) -> Iterator[Sign]:
    """The instruction said again after the answer, in its own words or nearly."""
    size = len(instruction)
    if len(set(_WORD.findall(instruction.lower()))) < 4:
        return
    for line in lines[1:]:
        near = size < 2 * len(line.text) < 4 * size
        if near and line.text.count(" ") >= 3 and _alike(line.text, instruction):
            yield Sign("the instruction again", LIKELY)


def _labels(lines: Sequence[Line], wants: Wants, *, computes: bool) -> Iterator[Sign]:
    """Labels of tasks and replies, or of whatever wording, after an answer that had none."""
    if lines[0].label:
        return
    labelled = [line for line in lines[1:] if line.label and not (computes and _io(line.label))]
    if not computes:
        yield from _turns(lines[1:], wants)
    if wants.requests:
        return
    for line, follower in zip(lines[1:], [*lines[2:], None], strict=False):
        plain = not line.marked or line.whole.startswith("#")
        if line.label and plain and (line.requests or _opens(line, follower)):
            turn = follower is not None and follower.label not in ("", line.label)
            sure = turn and not line.personal or _NUMBERED.match(line.whole)
            yield Sign("a label with a request", SURE if sure else LIKELY)
    for name, count in Counter(line.label for line in labelled).items():
        if name.lower() in ASKS and not wants.orders:
            yield Sign("the label of a task", LIKELY)
        if name.lower() in REPLIES:
            yield Sign("the label of a reply", LIKELY if count == 1 else SURE)


def _opens(line: Line, follower: Line | None) -> bool:
    """A label by itself, over a request."""
    return not line.text and follower is not None and follower.requests


def _turns(lines: Sequence[Line], wants: Wants) -> Iterator[Sign]:
    """Two labels take turns line by line, or come back, though nothing led up to them."""
    plain = [line for line in lines if line.label and not line.marked]
    if wants.orders or not plain or plain[0].led_up_to:
        return
    names = ["" if line.marked else line.label for line in lines]
    fours = zip(names, names[1:], names[2:], names[3:], strict=False)
    if any(a and b and a == c and b == d for a, b, c, d in fours):
        yield Sign("two labels take turns", SURE)
    elif sum(count >= 2 for count in Counter(line.label for line in plain).values()) >= 2:
        yield Sign("labels that come back", LIKELY)


def _computes(text: str, instruction: str) -> bool:
    """Code was asked for or shown, which has inputs and outputs."""
    return "```" in text or REQUESTS["io"].search(instruction) is not None


def _io(label: str) -> bool:
    return (ASKS | REPLIES).get(label.lower()) == "io"


def _alike(line: str, instruction: str, share: float = 0.8) -> bool:
    """A line says the instruction again, or a part of it: so much of their words is common."""
    words, own = set(_WORD.findall(line.lower())), set(_WORD.findall(instruction.lower()))
    return words <= own or own <= words or len(words & own) >= share * len(words | own)

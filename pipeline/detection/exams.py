"""Signs of further tasks in the words and forms of exams, worksheets, lessons and prompts.

Questions and orders are weighed in ``asked.py``. The one idea: blanks, choices, titles of lessons
and the words of teachers turn up where a response left its instruction for a page of exercises.
"""

import re
from collections.abc import Iterator, Sequence

from pipeline.detection.lines import Line
from pipeline.detection.sign import LIKELY, POSSIBLE, SURE, Sign, alike
from pipeline.detection.wants import Wants

_LESSON = re.compile(
    r"^(?:Lesson|Unit|Chapter|Activity|Worksheet|Quiz|Section|Exercise|Page|Grade|Level|Test"
    r"|Practice"
    r"|Assignment|Homework|Answer key|Part [A-D\d]|Vocabulary|Directions?|Objectives?|Example \d"
    r"|Problem \d)\b.{0,60}$|^\#(?!include|define|if|endif|pragma)\w+ \w",
    re.IGNORECASE,
)
_CLASS = re.compile(
    r"\bthis (?:question|activity|lesson|worksheet|exercise|assignment|quiz|unit)\b"
    r"|\bhomework\b|\bstudents? (?:will|should|must|can|are|is|was)\b|\bpupils?\b",
    re.IGNORECASE,
)
"""Words of teachers, which answers about something else do not use."""
_LATER = re.compile(r"\w+ (?:[2-9]|[1-9]\d)\b")
"""A number that is not the first of its kind."""
_BLANK = re.compile(r"_{3,}|\.{6,}|\( {2,}\)|(?<=.)\[ {1,}\]")
_CHOICE = re.compile(r"\(?([A-Da-d])[.)][ \t]*\S")
_INLINE_CHOICE = re.compile(r"[?:] *\(?[Aa][.)] [^\n]{1,200}? \(?[Bb][.)] ")
_FORM = re.compile(
    r"\b(form|template|letter|fill|blank|complete|checklist|to-?do|contract)\b", re.IGNORECASE
)


def exam_forms(lines: Sequence[Line], instruction: str, wants: Wants) -> Iterator[Sign]:
    """The words and forms of exams, worksheets and prompts."""
    asked = instruction.lower()
    titled: set[str] = set()
    teaches = not _CLASS.search(instruction) and any(_CLASS.search(line.text) for line in lines)
    for line, follower in zip(lines, [*lines[1:], None], strict=False):
        if line.formal and not alike(line.text, instruction):
            sure = line.alone and not (wants.orders and line.orders)
            said = not line.marked and not line.orders
            sure = sure or (said and follower is not None and follower.requests)
            yield Sign("speaks of the form of a task", SURE if sure else LIKELY)
        if line.before and teaches:
            lessons = {match.group().lower() for match in _CLASS.finditer(line.text)}
            yield from (Sign("speaks of a lesson", LIKELY) for _ in lessons)
        if _blank(line.text) and not _FORM.search(instruction):
            yield Sign("a blank to fill in", LIKELY)
        title = _LESSON.match(line.text) if not line.marked else None
        kind = title.group().split()[0].lower() if title else ""
        if title and line.before and kind not in asked:
            later = kind not in titled and line.opens and _LATER.match(line.whole)
            yield Sign("the title of a lesson or exercise", SURE if later else POSSIBLE)
        titled.add(kind)
    if any(line.before and _INLINE_CHOICE.search(line.text) for line in lines):
        yield Sign("a question with answers to choose from on its line", SURE)
    choices = "".join(m[1] for m in (_CHOICE.match(line.whole) for line in lines) if m).lower()
    if "abc" in choices and any(line.asks for line in lines[1:]):
        yield Sign("a question with answers to choose from", LIKELY)


def _blank(line: str) -> bool:
    return any(mark in line for mark in ("___", "......", "(  ", "[ ")) and bool(
        _BLANK.search(line)
    )

"""Signs of further tasks in labels: turns, numbered tasks, blocks that come back.

Marks that end an answer for certain are in ``role_marks.py`` and ``boundary.py``. The one idea: an
answer that had no labels and announces none does not go over to labelled lines by itself.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from pipeline.detection.lines import Line
from pipeline.detection.scaffold import ASKS, REPLIES
from pipeline.detection.sign import LIKELY, SURE, Sign
from pipeline.detection.topic import stems
from pipeline.detection.wants import Wants

_NUMBERED = re.compile(r"[A-Z]\w+[ \t]#?(?:[2-9]|[1-9]\d)[:.]")
"""A numbered label that is not the first of its kind."""
_ENDED = (".", "!", "?", ".)", '."', ".”")
_CUT: Final = frozenset(
    {"task", "question", "answer", "response", "instruction", "input", "output"}
)
"""Role words that stand alone at the end, where a stop string or the cap cut their colon off."""


def labelled(lines: Sequence[Line], wants: Wants, *, computes: bool) -> Iterator[Sign]:
    """Labels of tasks and replies, or of whatever wording, after an answer that had none."""
    if not wants.requests:
        yield from _cut_label(lines[-1])
    if lines[0].label:
        yield from _replies(lines, wants)
        return
    marks = [line for line in lines[1:] if _marks(line) and not (computes and _io(line.label))]
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
    yield from _series(lines)
    yield from _pair(lines, wants)
    for name, count in Counter(line.label for line in marks).items():
        if _role(name) in ASKS and not wants.orders:
            yield Sign("the label of a task", LIKELY)
        if _role(name) in REPLIES:
            yield Sign("the label of a reply", LIKELY if count == 1 else SURE)


def _marks(line: Line) -> bool:
    """A label, which in small letters is a key unless a sentence follows it."""
    return bool(line.label) and (line.label[0].isupper() or line.text.count(" ") >= 2)


def _cut_label(last: Line) -> Iterator[Sign]:
    """The last line is a role word and nothing else."""
    if last.before and last.whole.lower() in _CUT and last.before.endswith(_ENDED):
        yield Sign("a role word by itself at the end", SURE)


def _replies(lines: Sequence[Line], wants: Wants) -> Iterator[Sign]:
    """A reply's label at the beginning, and again later: a second answer."""
    label = _role(lines[0].label)
    again = sum(_role(line.label) == label for line in lines[1:])
    if again and label in REPLIES and len(label) > 1 and not (wants.requests or wants.orders):
        yield Sign("the label of a second answer", SURE)


def _series(lines: Sequence[Line]) -> Iterator[Sign]:
    """``Reading 4:`` where no ``Reading 3:`` came before."""
    seen: set[tuple[str, int]] = set()
    for line in lines:
        if line.label and line.number and not line.marked:
            place = int(line.number)
            if place > 1 and (line.label, place - 1) not in seen and line.before.endswith(_ENDED):
                yield Sign("a numbered label from the middle of a series", SURE)
            seen.add((line.label, place))


def _pair(lines: Sequence[Line], wants: Wants) -> Iterator[Sign]:
    """A sentence under a label, another under the next, about something else than the answer."""
    named = [bool(line.label) for line in lines]
    if wants.orders or wants.long_prose or (True, True) not in zip(named, named[1:], strict=False):
        return
    known = set(stems(wants.instruction))
    for line, follower in zip(lines, [*lines[1:], lines[0]], strict=True):
        apart = line.before.endswith(_ENDED) and not stems(line.text) & known
        two = line.label and follower.label and follower.label != line.label and line.before
        if two and apart and _plain(line) and _plain(follower) and not follower.opens:
            yield Sign("two labels about something else", SURE)
        known |= stems(line.text)


def _plain(line: Line) -> bool:
    """A whole sentence under a label, without the marks of a list or of bold print."""
    return not line.marked and "*" not in line.whole and line.text.endswith((".", "?", "!"))


def _role(label: str) -> str:
    """A label as a role word: small, and one of several."""
    small = label.lower()
    return small if small in ASKS or small in REPLIES else small.removesuffix("s")


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


def _io(label: str) -> bool:
    return (ASKS | REPLIES).get(label.lower()) == "io"

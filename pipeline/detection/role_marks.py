"""Role words at the start of a line: a next task's, or part of the answer?

``Instruction:``, ``Q:``, ``User:`` and their like. Other kinds of marks are in ``boundary.py``. The
one idea: a mark belongs to the answer if the answer is in that form itself: it begins with the
mark, announces it, lists it among other keys, or shows what a code block above it does.
"""

import re
from collections.abc import Iterator

from pipeline.detection.body import Body, is_key
from pipeline.detection.scaffold import ASKS, HARD, REPLIES, REQUESTS, ROLE_LINE
from pipeline.detection.unmarked import task_like

_QUESTIONS = {"q", "question"}
"""An answer that opens with one of these, such as a riddle, has no claim to the other."""
_OWN_SCAFFOLD = {"instruction", "response"}
"""Role words that are part of an answer only where they were asked for."""
_HEADING = re.compile(r"^[ \t]*#{1,6}[ \t]+\S[^\n]*", re.MULTILINE)
_NEXT_LINES = 600
"""Characters after a task's mark in which its reply's mark is looked for."""


def foreign_roles(body: Body) -> Iterator[re.Match[str]]:
    """Marks of role words that open a task or turn which is not the answer's own."""
    own: set[str] = set()
    for match in ROLE_LINE.finditer(body.text):
        role = match["role"].lower()
        if match["bare"] is not None and not match["heading"] and not _title(body, match):
            continue
        if role in own or body.fenced(match.start()) or _section(body, match):
            continue
        if _own_form(body, match, role):
            own |= _claimed(body, match, role)
        elif _opens_turn(body, match, role):
            yield match


def _opens_turn(body: Body, match: re.Match[str], role: str) -> bool:
    if match["role"].islower() and role in ASKS and role not in HARD:
        return _reply_follows(body.text, match.end())
    if role == "problem" and not match["number"] and not match["heading"]:
        return _set_problem(body, match)
    if role in ASKS or role in HARD or bool(match["heading"]):
        return True
    return _row_of_replies(body, match, role)


def _set_problem(body: Body, match: re.Match[str]) -> bool:
    """A problem to solve, not one that a user has: it asks, or an ``Answer:`` follows."""
    said = body.text[match.end() : match.end() + _NEXT_LINES].partition("\n")[0]
    return task_like(said) or "?" in said or _reply_follows(body.text, match.end())


def _row_of_replies(body: Body, match: re.Match[str], role: str) -> bool:
    """Line after line begins with the same reply's mark: answers to nothing."""
    if REQUESTS["chat"].search(body.instruction) or REQUESTS["qa"].search(body.instruction):
        return False
    lines = body.text[match.start() : match.start() + _NEXT_LINES].split("\n", 3)[:3]
    marks = [ROLE_LINE.match(line) for line in lines]
    return len(marks) == 3 and all(mark and mark["role"].lower() == role for mark in marks)


def _section(body: Body, match: re.Match[str]) -> bool:
    """A heading of a document that has headings of its own, such as ``### Input``."""
    if not match["heading"] or match["bare"] is None or match["role"].lower() in _OWN_SCAFFOLD:
        return False
    others = (m for m in _HEADING.finditer(body.text) if not ROLE_LINE.match(m.group()))
    return next(others, None) is not None and next(others, None) is not None


def _title(body: Body, match: re.Match[str]) -> bool:
    """``Instruction`` or ``Response`` as a line of its own, after a blank one."""
    alone = match["role"].lower() in _OWN_SCAFFOLD
    return alone and not body.adjacent(match.start()) and match.end() < len(body.text)


def _claimed(body: Body, match: re.Match[str], role: str) -> set[str]:
    """Roles that belong to the answer after this mark of its own."""
    if not body.opens(match.start()) or match["number"] == "1":
        return _family(role)
    if not _reply_follows(body.text, match.end()):
        return set()
    return {role} if role in _QUESTIONS else _family(role)


def _family(role: str) -> set[str]:
    family = ASKS.get(role) or REPLIES[role]
    return {word for table in (ASKS, REPLIES) for word, other in table.items() if other == family}


def _own_form(body: Body, match: re.Match[str], role: str) -> bool:
    """Whether the answer itself is in the form of the mark."""
    place = match.start()
    requested = bool(REQUESTS[ASKS.get(role) or REPLIES[role]].search(body.instruction))
    if body.opens(place):
        return role in ASKS and (requested or role != "instruction")
    before = body.before(place)
    if not before:
        return False
    if before.endswith((":", "：")) and not ROLE_LINE.match(before):
        return requested or (not body.instruction and role not in _OWN_SCAFFOLD)
    if role not in ASKS and role not in HARD:
        return False
    coded = before.endswith((")", ";", "}")) and (requested or not body.instruction)
    if role == "input" and (coded or body.after_block(place)):
        return True
    if not _reply_follows(body.text, match.end()):
        headed = not match["heading"] or _HEADING.search(body.text, 0, place)
        if (role == "instructions" and headed) or _among_keys(body, match, before):
            return True
    preamble = before.endswith("!") or before.startswith(("#", "**", "Example"))
    return requested and preamble and role not in _OWN_SCAFFOLD


def _among_keys(body: Body, match: re.Match[str], before: str) -> bool:
    """The line before or after is another key with its value, as in a list of settings."""
    return (body.adjacent(match.start()) and is_key(before)) or is_key(body.after(match.end()))


def _reply_follows(text: str, place: int) -> bool:
    """A reply's mark opens one of the next few lines."""
    for match in ROLE_LINE.finditer(text, place, place + _NEXT_LINES):
        return match["role"].lower() in REPLIES
    return False

"""Further tasks without a known mark: labels of any wording, and what a stop string tells.

Known marks are in ``role_marks.py`` and ``boundary.py``. The one idea: a task reads as one, a
question or an order to write, list or explain, and tasks that take turns with answers are not part
of the answer that came first.
"""

import re
from collections import defaultdict
from typing import Final

from pipeline.detection.body import Body
from pipeline.detection.scaffold import QUESTION, REPLIES, REQUESTS, ROLE_LINE

_VERBS: Final = (
    "Write|Name|List|Explain|Describe|Translate|Summari[sz]e|Define|Compare|Classify|Rewrite"
    "|Convert|Calculate|Generate|Compose|Identify|Discuss|Outline|Paraphrase|Give (?:an?|one|two"
    "|three|four|five|me|some|the)|Tell (?:me|us)|Create an?|Make an?|Suggest an?|Provide an?"
    "|Choose the|Find the|Complete the"
)
_ORDER: Final = re.compile(rf"(?:Please )?(?:{_VERBS})\b[^\n]{{6,300}}")
_LABEL_LINE = re.compile(
    r"^[ \t]*(?:[#*_>]{1,4}[ \t]*)?(?P<label>[A-Z][a-z]{1,14}(?: [a-z]{1,12})?)(?:[ \t]#?\d{1,3})?"
    r"[*_]{0,3}[:：][*_]{0,3}[ \t]*(?P<said>[^\n]*)",
    re.MULTILINE,
)


def task_like(text: str) -> bool:
    """Whether a line reads as a task: one question, or an order to write, list or explain."""
    line = text.strip()
    return bool(QUESTION.fullmatch(line) or _ORDER.fullmatch(line))


def label_turns(body: Body) -> re.Match[str] | None:
    """The first of two or more labelled tasks, each with a labelled answer, after an answer.

    ``Command: Name a fruit.`` with ``Result: A pear.`` under it, whatever the labels are.
    """
    if ":" not in body.text and "：" not in body.text:
        return None
    marks = [m for m in _LABEL_LINE.finditer(body.text) if not body.fenced(m.start())]
    turns: dict[tuple[str, str], list[re.Match[str]]] = defaultdict(list)
    for mark, follower in zip(marks, marks[1:], strict=False):
        if mark["label"] != follower["label"] and task_like(mark["said"]):
            turns[mark["label"], follower["label"]].append(mark)
    found = [marked[0] for marked in turns.values() if len(marked) >= 2]
    first = min(found, key=lambda m: m.start(), default=None)
    before = body.before(first.start()) if first else ""
    if not before or before.endswith((":", "：")):
        return None
    requested = any(REQUESTS[form].search(body.instruction) for form in ("qa", "chat", "task"))
    return first if not requested or before.endswith((".", "!", "?")) else None


def unanswered_task(text: str, stop: str | None) -> bool:
    """Whether an answer's stop string ended the text after a second paragraph.

    Then what came before that string was another task, under whatever name.
    """
    mark = ROLE_LINE.match((stop or "").strip() + (":" if stop and ":" not in stop else ""))
    if not mark or mark["role"].lower() not in REPLIES:
        return False
    head, _, last = text.rstrip().rpartition("\n\n")
    return bool(head.strip()) and "\n" not in last and last.rstrip().endswith((".", "?", ":"))

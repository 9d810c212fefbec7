"""The lines of a response, each with its mark, its label and what stands around it.

What a request is, is said in ``requests.py``. The one idea: a line is read apart from its list
mark, number and label, so that what is said of it holds on any scaffold.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pipeline.detection.body import CODE
from pipeline.detection.requests import ABOUT_US, FORMAT, FORMAT_WORDS, ORDERS, sets_tasks
from pipeline.detection.scaffold import QUESTION

_LEAD = re.compile(
    r"^[ \t]*(?P<mark>[#>*_\-•+]*[ \t]*)(?P<ordinal>\(?(?:\d{1,3}[.):]|[a-zA-Z][.)])[ \t]*)?[*_]*"
    r"(?:(?P<label>[A-Z](?:[^\W\d_]|['-]){0,14}(?: [^\W\d_]{1,12})?|[A-Za-z]"
    r"|instruction|response|input|output|task|answer|question|user|assistant|human|prompt)"
    r"[ \t]?(?P<number>\#?\d{1,3})?[*_]{0,3}"
    r"[:：][*_]*[ \t]*)?"
)
_HEADED = re.compile(r"(?:[-*•+]|\d{1,3}[.)])[ \t]+\*\*[^*\n]{1,60}\*\*")
_SAYS = re.compile(r"\w")
_QUESTION_MARKS: Final = ("?", "？", "؟")
_MISMARKED = re.compile(
    r"(?:(?:What|Why|How|Who|Where) (?:is|are|was|were|do|does|did|would|can)|How (?:many|much"
    r"|long)"
    r"|What (?:kind|type|color|colour)s?) [^.,;:!?\n]{16,200}\."
)
"""A question that ends with a full stop."""
_TRAILING = re.compile(r"[ \t]*(?:\([^()\n]{0,60}\)|\[[^\[\]\n]{0,60}\]|[_.]{3,})?[ \t]*$")


def _leads(line: str) -> bool:
    """A sentence that a list follows: it announces, or asks the reader, and is no exam's."""
    if line.startswith("#") or line.count(" ") < 2:
        return False
    announces = line.endswith((":", "：")) or (line.endswith("?") and ABOUT_US.search(line))
    return bool(announces) and not sets_tasks(line)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a response, with what stands around it."""

    whole: str
    """The line as it stands, without blanks at its ends."""
    text: str
    """The line without its mark, ordinal and label."""
    label: str
    """What stands before its colon, in a few words; empty without one."""
    number: str
    """The number after the label, as in ``Task 3:``; empty without one."""
    marked: bool
    """A heading, a list item or a quotation."""
    before: str
    """The last line with something in it before this one; empty for the first."""
    lead: str
    """The line over the list in which it stands; ``before`` outside of lists."""
    opens: bool
    """A blank line, or nothing, stands above it."""
    alone: bool
    """Blank lines, or the ends of the text, stand around it."""
    asks: bool
    """It is a question as a whole."""
    orders: bool
    """It orders to write, list or explain something."""

    @property
    def led_up_to(self) -> bool:
        """What is above announces it, or asks the reader; a heading's colon does not count."""
        if self.before.endswith((":", "：")) and not self.before.startswith("#"):
            return True
        return self.marked and _leads(self.lead)

    @property
    def foreign(self) -> bool:
        """In another language than English, where nobody can say whether it is personal."""
        return not self.text.isascii() and not QUESTION.match(self.text)

    @property
    def headed(self) -> bool:
        """A heading, or a list item that opens with a bold title and goes on about it."""
        return self.whole.startswith("#") or _HEADED.match(self.whole) is not None

    @property
    def personal(self) -> bool:
        """It speaks of the reader or the writer, as an offer or a clarifying question does."""
        return bool(ABOUT_US.search(self.text))

    @property
    def formal(self) -> bool:
        """It speaks of the form of a task, in the words of exams and of prompts."""
        said = self.text[:300].lower()
        return any(word in said for word in FORMAT_WORDS) and bool(FORMAT.search(said))

    @property
    def requests(self) -> bool:
        """A question or an order."""
        return self.asks or self.orders


def lines_of(text: str) -> Iterator[Line]:
    """The lines of a response that have something in them, outside code blocks."""
    rows = [row.strip() for row in CODE.sub("`code`", text).split("\n")]
    rows = [row if _SAYS.search(row) else "" for row in rows]
    before = over = ""
    in_list = False
    for place, row in enumerate(rows):
        if row:
            lead = _LEAD.match(row)
            end = lead.end() if lead else 0
            label = (lead and lead["label"]) or ""
            marked = bool(lead and (lead["mark"].strip() or lead["ordinal"]))
            opens = not (place and rows[place - 1])
            alone = opens and not "".join(rows[place + 1 : place + 2])
            said = row[end:].strip(" *_")
            orders = ORDERS.fullmatch(said) is not None
            listed = marked and not row.startswith("#")
            over = over if listed and in_list else before
            in_list = listed
            number = ((lead and lead["number"]) or "").strip("#")
            stands = (before, over, opens, alone)
            yield Line(row, said, label, number, marked, *stands, _asks(said), orders)
            before = row


def _asks(line: str) -> bool:
    if _MISMARKED.fullmatch(line):
        return True
    if "?" not in line and not line.endswith(_QUESTION_MARKS):
        return False
    said = _TRAILING.sub("", line)
    head, mark, last = said.rpartition("? ")
    if mark and ORDERS.fullmatch(last):
        said = head + "?"
    return said.endswith(_QUESTION_MARKS) and (said.count(" ") >= 2 or not said.isascii())

"""Lines and list items that come back, counters without content, rules without end.

Sentences that return are found in ``said_again.py``. The one idea: a list or a text in lines says
something else in each of them; where a quarter of them were there before, it goes round.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Final

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_SAYS = re.compile(r"\w")
_MARK = re.compile(r"[<>{}|=;\[\]\\]")
_CALL = re.compile(r"\w\(")
_PROMPT = re.compile(r"\s*(?:[$>]|//|#)")
_ITEM = re.compile(r"(?:\(?\d{1,3}[.)]|[-*•])\s*(?=\S)")
_INLINE_ITEM = re.compile(r"(?:(?<=\s)|^)\(?\d{1,3}[.)]\s*(?=[^\W\d_])")
_INLINE_LETTER = re.compile(r"(?:(?<=\s)|^)\(?[A-Za-z][.)]\s+(?=[^\W\d_])")
_DIGITS = re.compile(r"\d+")
_COUNTED: Final = 12
"""Items that differ in their numbers alone, from which a list counts on without end."""
_BARE_LABEL = re.compile(r"^[ \t]*[*#]*[ \t]*[A-Za-z]{1,20}(?: \d{1,4})?[ \t]*[:：.]\**[ \t]*$")
_COUNTER = re.compile(r"\d[.):]\s+(?:\(?\d{1,4}[.):]\s+){5}")
_RULE = re.compile(r"([^\w\s|`]|_)(?:[ \t\n]{0,3}\1){39,}")
_VERDICTS: Final = frozenset({"true", "false", "yes", "no"})
"""Items that a key to a test repeats."""


def marked_up(line: str) -> bool:
    """A line of code, of a table or of markup, whose form repeats by nature."""
    call = "(" in line and _CALL.search(line)
    return bool(call or _MARK.search(line) or _PROMPT.match(line))


def recurs(text: str, patience: int) -> bool:
    """Whether lines or items of a text keep coming back.

    Args:
        text: A raw response without its code blocks.
        patience: 1, or more where the instruction asks for repetition.
    """
    rows = [row for row in map(str.strip, text.split("\n")) if _SAYS.search(row)]
    plain = [row for row in rows if not marked_up(row)]
    return (
        _same_rows(rows, plain, patience)
        or _same_items(plain, patience)
        or _counts_on(plain, patience)
        or any(_same_named(row, patience) for row in plain)
        or any(_inline_list(row, patience) for row in rows)
        or _nothing_said(text, rows, patience)
    )


def _same_rows(rows: Sequence[str], plain: Sequence[str], patience: int) -> bool:
    """One line over and over, or many lines of which a quarter were there before."""
    if any(len(list(run)) >= 6 * patience for _, run in groupby(rows)):
        return True
    return len(plain) >= 12 * patience and len(set(plain)) <= 0.75 / patience * len(plain)


def _same_items(rows: Sequence[str], patience: int) -> bool:
    """A list one of whose items comes three times among others, or a quarter of them twice."""
    items = [" ".join(_words(_ITEM.sub("", row, count=1))) for row in rows if _ITEM.match(row)]
    named = [item for item in items if len(item) > 3 and item not in _VERDICTS]
    counts = Counter(item for item in named if item.count(" ") >= 1)
    extra = sum(counts.values()) - len(counts)
    if counts and max(counts.values()) >= 3 * patience and extra >= 0.3 * len(items):
        return True
    return len(named) >= 8 * patience and len(set(named)) <= 0.75 / patience * len(named)


def _same_named(row: str, patience: int) -> bool:
    """Things named between commas, a quarter of which were named before."""
    if row.count(",") + row.count(";") < 9:
        return False
    items = [" ".join(_words(item)) for item in re.split(r"[,;]", row)]
    named = [item for item in items if len(item) >= 3 and not item.replace(" ", "").isdigit()]
    return len(named) >= 10 * patience and len(set(named)) <= 0.7 / patience * len(named)


def _inline_list(row: str, patience: int) -> bool:
    """A numbered list on one line that names the same few things again and again."""
    if row.count(".") + row.count(")") < 8:
        return False
    for mark in (_INLINE_ITEM, _INLINE_LETTER):
        items = [" ".join(_words(part)[:6]) for part in mark.split(row)[1:]]
        if len(items) >= 8 * patience and len(set(items)) <= 0.7 * len(items):
            return True
    return False


def _counts_on(rows: Sequence[str], patience: int) -> bool:
    """Item after item that says the same of another number."""
    items = (
        _DIGITS.sub("0", _ITEM.sub("", row, count=1)) if _ITEM.match(row) else "" for row in rows
    )
    return any(
        item.count("0") == 1
        and item.strip("0 .,").isalpha()
        and len(list(run)) >= _COUNTED * patience
        for item, run in groupby(items)
    )


def _nothing_said(text: str, rows: Sequence[str], patience: int) -> bool:
    """Labels or numbers with nothing after them, or one mark without end."""
    bare = (_BARE_LABEL.match(row) is not None for row in rows)
    if any(same and len(list(run)) >= 5 * patience for same, run in groupby(bare)):
        return True
    if _COUNTER.search(text):
        return True
    longest = max((len(match.group()) for match in _RULE.finditer(text)), default=0)
    return longest >= 40 and (longest >= 160 or longest > 0.5 * len(text))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())

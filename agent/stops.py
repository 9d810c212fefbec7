"""Which strings may end a response: only those that good answers do not hold.

A stop string that matches ordinary text cuts good answers and hides it, so it is judged twice: by
what it is, before any sample is at stake, and by what it would have done to the rows that are
stored. It leaves finding candidates to the reviewers, and reading rows to
``agent/stages/candidates.py``.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from agent.review_records import StopDryRun

Cuts = Callable[[tuple[str, ...]], tuple[int, int]]
"""How many good stored rows strings would cut together as stop strings, and of how many."""
_LONGEST: Final = 32
_MOST: Final = 8
_ONE_IN: Final = 20
_MARKERS: Final = frozenset("#:<>|[]{}=*_~@%^\\")
_LISTS: Final = re.compile(r"[-*+•]+|\(?\d+[.):]?|[a-z][.)]", re.IGNORECASE)
_CODE: Final = re.compile(r"[`~]+\w*")


def cuts_too_much(found: StopDryRun) -> bool:
    """Whether a string would cut more than 5 % of the good rows.

    Of fewer than 20 good rows one is more than that, so one is enough; where there are none, what
    the string is must decide.
    """
    return _more_than_one_in_20(found.cut, found.good)


def stops_refusal(value: Any, current: Sequence[str], cuts: Cuts | None = None) -> str | None:
    """Why ``value`` may not take the place of the ``current`` stop strings, or None if it may.

    Args:
        value: What was asked for, of any type.
        current: What is set now.
        cuts: Asks stored rows; None does not.
    """
    if not isinstance(value, list | tuple) or not all(isinstance(s, str) for s in value):
        return "expected a list of strings"
    if len(value) > _MOST:
        return f"{len(value)} stop strings; at most {_MOST}"
    if len(set(value)) < len(value):
        return "contradictory: a stop string is named twice"
    if set(value) == set(current):
        return "no change: these are the present stop strings"
    fresh = [s for s in value if s not in current]
    judges = (stop_refusal, lambda s: _never_fires(s, value))
    refused = next((why for judge in judges for s in fresh if (why := judge(s))), None)
    return refused or _cut_refusal(fresh, cuts)


def stop_refusal(text: str) -> str | None:
    """Why ``text`` may not be a stop string, or None if it may."""
    if not 1 <= len(text) <= _LONGEST:
        return f"a stop string of {len(text)} characters; 1 to {_LONGEST}"
    if not text.replace("\n", "").isprintable():
        return f"stop string {text!r} holds a character that cannot be printed"
    core = text.strip()
    if not any(c.isalnum() or c in _MARKERS for c in core):
        return f"stop string {text!r} is only space or punctuation, which good answers hold"
    if len(core) < 2:
        return f"stop string {text!r} is one character, which good answers hold"
    if _LISTS.fullmatch(core) or _CODE.fullmatch(core):
        return f"stop string {text!r} starts a list item or code block of good answers"
    if "\n" not in text and not any(c in _MARKERS for c in core):
        return f"stop string {text!r} is ordinary words: it needs a line break or a marker"
    return None


def _never_fires(text: str, others: Sequence[str]) -> str | None:
    """A text that holds ``text`` has ended at the shorter string before."""
    shorter = next((s for s in others if s != text and s in text), None)
    if shorter is None:
        return None
    return f"contradictory: stop string {text!r} can never fire, since it holds {shorter!r}"


def _cut_refusal(fresh: Sequence[str], cuts: Cuts | None) -> str | None:
    """The limit holds for one string, and for all ``fresh`` ones together."""
    if cuts is None or not fresh:
        return None
    for text in fresh:
        cut, good = cuts((text,))
        if _more_than_one_in_20(cut, good):
            return f"stop string {text!r} would cut {cut} of {good} good rows"
    cut, good = cuts(tuple(fresh))
    if not _more_than_one_in_20(cut, good):
        return None
    return f"the {len(fresh)} fresh stop strings together would cut {cut} of {good} good rows"


def _more_than_one_in_20(cut: int, good: int) -> bool:
    return _ONE_IN * cut > good

"""What the built-in rules would have done in a reviewer's place, beside what it did.

The rules cost nothing, so a reviewer that is paid for has to be read against them. The one idea:
only what would have taken effect is compared, and agreement is said in two words.
"""

from collections.abc import Sequence
from typing import Any, Final

from agent.report.text import code, escape, sentence, setting, table
from agent.review_records import Applied, Baseline, Refused, ReviewRecord

SAME: Final = "the same"
"""How the rules' opinion is shown where it is the reviewer's."""


def change_words(change: Applied) -> str:
    """A change as ``name`` before → after."""
    return f"`{change.parameter}` {setting(change.before)} → {setting(change.after)}"


def refused_table(refused: Sequence[Refused]) -> str:
    """What the guard refused; empty if nothing."""
    rows = [[code(r.parameter), code(r.value), escape(r.why)] for r in refused]
    return table(["Refused", "Value", "Why"], rows) if rows else ""


def rules_words(review: ReviewRecord) -> str:
    """The rules' opinion in a sentence; where it differs, their words follow."""
    if review.baseline is None:
        return ""
    if agrees(review, review.baseline):
        return f"{SAME}."
    other = review.baseline.review
    words = "stop" if other.stop else "other changes" if review.baseline.applied else "no change"
    return f"{words}. They say: {sentence(other.diagnosis, limit=800)}"


def agrees(review: ReviewRecord, rules: Baseline) -> bool:
    """Whether the rules would have done exactly the same."""
    one, other = _values(review.applied), _values(rules.applied)
    return review.review.stop == rules.review.stop and one == other


def _values(applied: Sequence[Applied]) -> dict[str, Any]:
    return {c.parameter: _plain(c.after) for c in applied}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def rules_table(review: ReviewRecord) -> str:
    """The rules' changes beside the reviewer's; empty where they are the same."""
    rules = review.baseline
    if rules is None or agrees(review, rules) or not (review.applied or rules.applied):
        return ""
    mine, theirs = _values(review.applied), _values(rules.applied)
    why = {c.parameter: escape(c.reason) for c in rules.applied}
    rows = [
        [
            f"`{name}`",
            setting(mine[name]) if name in mine else "–",
            _theirs(name, mine, theirs),
            why.get(name, "–"),
        ]
        for name in dict.fromkeys([*mine, *theirs])
    ]
    header = ["Parameter", escape(review.reviewer, limit=60), "Rules", "The rules' reason"]
    refused = refused_table(rules.refused)
    return table(header, rows) + (f"\n\n{refused}" if refused else "")


def _theirs(name: str, mine: dict[str, Any], theirs: dict[str, Any]) -> str:
    if name not in theirs:
        return "–"
    return SAME if _same(name, mine, theirs) else setting(theirs[name])


def rules_cell(review: ReviewRecord) -> str:
    """The rules' opinion for a cell: the same, or which parameters they would have changed."""
    rules = review.baseline
    if rules is None:
        return "–"
    if agrees(review, rules):
        return SAME
    if rules.review.stop:
        return "stop"
    mine, theirs = _values(review.applied), _values(rules.applied)
    names = (f"`{n}`" + (f" ({SAME})" if _same(n, mine, theirs) else "") for n in theirs)
    return ", ".join(names) or "no change"


def _same(name: str, mine: dict[str, Any], theirs: dict[str, Any]) -> bool:
    return name in mine and name in theirs and bool(mine[name] == theirs[name])

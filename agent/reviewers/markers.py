"""Where a response runs on into the next task: the marks that show it, and strings to end it.

Looks at samples only, so a stop string is proposed because it was seen, most often seen first, and
never when good answers hold it too: by what it would do to every stored row where that was asked,
else by the rows that a record shows. Whether a string may be used at all is ``agent/stops.py``'s.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from agent.review_records import StopDryRun
from agent.stops import cuts_too_much

Row = Mapping[str, Any]
"""A ``pipeline.types.Sample`` as JSON."""
DEFAULT_STOPS: Final = ("\nInstruction", "\nQ:", "\n###", "\nUser:", "\nResponse:")
"""The strings that worked as intent where this program comes from."""
_MOST: Final = 8
_WITH_COLON: Final = (
    "Q|A|Question|Answer|User|Assistant|Human|AI|Bot|Input|Output|Task|Exercise|Problem|Prompt"
)
_LINE_START: Final = re.compile(
    rf"\n[ \t]*(?:(?P<open>Instruction|Response|###)|(?P<colon>{_WITH_COLON})(?: ?\d+)?:)"
)
_INLINE: Final = re.compile(r"###|<\|[a-z_]{1,20}\|>|\[/?INST\]|</?s>|<(?:start|end)_of_turn>")


def markers_seen(rows: Iterable[Row], *, field: str = "raw") -> Counter[str]:
    """How many rows run on at each marker, as the stop string that would have ended them."""
    seen: Counter[str] = Counter()
    for row in rows:
        seen.update(_markers(row[field] or ""))
    return seen


def marks_of(flagged: Iterable[Row]) -> Counter[str]:
    """How many rows run on at, or leak, each marker."""
    rows = list(flagged)
    leaked = (dict.fromkeys(_INLINE.findall(row["clean"] or "")) for row in rows)
    inline = Counter(mark for marks in leaked for mark in marks)
    return markers_seen(rows) + markers_seen(rows, field="clean") + inline


def proposed_stops(
    current: Sequence[str],
    flagged: Sequence[Row] = (),
    good: Sequence[Row] = (),
    *,
    runs: Sequence[StopDryRun] = (),
) -> tuple[str, ...]:
    """The ``current`` stop strings, then those seen in bad rows, then the usual ones.

    Args:
        current: What is set now.
        flagged: Rows that ran on or leaked a marker; asked where there are no ``runs``.
        good: Rows with no flag; a string that one of them holds is left out.
        runs: What each string would do to all stored rows, the most useful one first. One that
            cuts too many good rows beside those before it, or more than it ends bad ones, is
            left out.
    """
    if runs:
        seen = list(_sparing(runs))
    else:
        listed = [*(mark for mark, _ in marks_of(flagged).most_common()), *DEFAULT_STOPS]
        seen = [c for c in listed if not any(c in (row["clean"] or "") for row in good)]
    chosen = list(current)
    for stop in seen:
        if not any(known in stop for known in chosen):
            # A longer one that was just added would never fire beside it.
            chosen = [s for s in chosen if s in current or stop not in s] + [stop]
    return tuple(chosen[:_MOST])


def _sparing(runs: Sequence[StopDryRun]) -> Iterator[str]:
    """Strings that do more good than harm, as many as cut few rows though no two cut the same."""
    cut = 0
    for run in runs:
        together = run.model_copy(update={"cut": cut + run.cut})
        if run.cut <= run.ended and not cuts_too_much(together):
            cut += run.cut
            yield run.stop


def share_ended(rows: Sequence[Row], stops: Sequence[str]) -> float | None:
    """Share of ``rows`` whose raw text holds one of ``stops``; None without rows."""
    if not rows:
        return None
    return sum(any(stop in (row["raw"] or "") for stop in stops) for row in rows) / len(rows)


def _markers(text: str) -> list[str]:
    """Each marker in ``text`` once, in order, so that equal counts keep one order."""
    matches = _LINE_START.finditer("\n" + text.lstrip("\n"))
    found = (f"\n{m['open']}" if m["open"] else f"\n{m['colon']}:" for m in matches)
    return list(dict.fromkeys(found))

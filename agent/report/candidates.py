"""What stored rows say of the obvious next settings and stop strings, at no cost.

The reviewer is told the same. The one idea: a list of strings that many candidates share is written
once, so that the table shows what they differ in.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from agent.records import RoundRecord
from agent.report.text import code, escape, number, percent, scaled, setting, table
from agent.review_records import Candidate


def candidate_table(record: RoundRecord) -> str:
    """Every candidate with what fails; empty where there was none."""
    lists = _lists(record.candidates)
    rows = [
        [
            "; ".join(f"`{n}` {_value(v, lists)}" for n, v in c.changes.items()) or "as it is",
            number(c.rows),
            number(c.changed),
            _failed(c) or "–",
            ", ".join(_gates(c, "INSUFFICIENT")) or "–",
            percent(c.values.get("raw_acceptance")),
        ]
        for c in record.candidates
    ]
    header = ["Change", "Responses", "Would end elsewhere", "Fails", "Undecided", "Kept of drawn"]
    where = "".join(f"\n\n{name}: {setting(list(strings))}." for strings, name in lists.items())
    return table(header, rows, "lrrllr") + where if rows else ""


def _lists(candidates: Sequence[Candidate]) -> dict[tuple[str, ...], str]:
    """A name for each list of strings."""
    values = (v for c in candidates for v in c.changes.values() if isinstance(v, list | tuple))
    return {strings: f"S{i}" for i, strings in enumerate(dict.fromkeys(map(tuple, values)), 1)}


def _value(value: Any, lists: Mapping[tuple[str, ...], str]) -> str:
    return lists[tuple(value)] if isinstance(value, list | tuple) else setting(value)


def _failed(candidate: Candidate) -> str:
    return ", ".join(f"{n} {scaled(n, candidate.values.get(n))}" for n in _gates(candidate, "FAIL"))


def _gates(candidate: Candidate, verdict: str) -> list[str]:
    return [escape(name) for name, said in candidate.verdicts.items() if said == verdict]


def stop_string_table(record: RoundRecord) -> str:
    """What every string would do as a stop string; empty where none was tried."""
    rows = [
        [code(s.stop, limit=64), f"{s.ended} of {s.flagged}", f"{s.cut} of {s.good}"]
        for s in record.stop_candidates
    ]
    header = ["Stop string", "Flagged responses it ends", "Good responses it cuts"]
    return table(header, rows, "lrr") if rows else ""

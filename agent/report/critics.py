"""What a report says of the critics: which faults each sees, which ones judge, and why.

A pure function of the record; the scores that the figures come from stay in the run's journal.
"""

from collections.abc import Mapping
from typing import Any

from agent.records import RoundRecord
from agent.report.text import escape, percent, table

_CRITICS = ("label", "lift", "combined")


def fault_table(record: RoundRecord) -> str:
    """Area with interval of every critic on every kind of fault; empty where none was recorded."""
    if not record.critics:
        return ""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for found in record.critics["faults"]:
        row = cells.setdefault((found["subject"], found["fault"]), {})
        row[found["critic"]] = _area(found)
    shown = [c for c in _CRITICS if any(c in row for row in cells.values())]
    rows = [
        [subject, fault.replace("_", " "), *(row.get(critic, "not measured") for critic in shown)]
        for (subject, fault), row in cells.items()
    ]
    return table(["Controls", "Fault", *shown], rows)


def critic_words(record: RoundRecord) -> list[str]:
    """Which critic judges instructions and pairs, at which margin, and why."""
    if not record.critics:
        return []
    return [_used(subject, used) for subject, used in record.critics["used"].items()]


def _area(found: Mapping[str, Any]) -> str:
    if found["area"] is None:
        return "not measured"
    seen = "seen" if found["seen"] else "not seen"
    return f"{found['area']:.2f} ({found['low']:.2f} to {found['high']:.2f}), {seen}"


def _used(subject: str, used: Mapping[str, Any]) -> str:
    head = f"Critic of {subject}s: **{escape(used['critic'])}**; {escape(used['why'])}."
    if used["margin"] is None:
        return f"{head} Uncertified, so acceptance is unmeasured: {escape(used['reason'])}."
    return (
        f"{head} Its margin is {used['margin']:.2f}, set from {escape(used['source'])}: it accepts "
        f"{percent(used['true_accept'])} of {used['good']} good and "
        f"{percent(used['false_accept'])} of {used['bad']} bad ones "
        f"(at most {percent(used['false_accept_high'])})."
    )

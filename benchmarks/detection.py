"""Detectors against labels: ``python -m benchmarks.detection``, on rows that people read.

Base-model rows were labelled by two readers before any detector saw them; the answers of a tuned
model are all good. One half of each was free to be looked at while detectors were written, the
other half was not. The one idea: beside every figure stands its interval, and beside our detectors
the simplest rule that people start with.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.qc import flag_rows
from pipeline.verdict import clopper_pearson

DATA = Path(__file__).parents[1] / "tests" / "data" / "labelled"
BAD = ("runaway", "repetition", "truncated")
"""What makes a row bad in the comparison over all of them."""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Share:
    """A count with its 95 % interval (Clopper-Pearson)."""

    k: int
    """How many,"""
    n: int
    """of these."""

    @property
    def value(self) -> float | None:
        """The share; None of none."""
        return self.k / self.n if self.n else None

    def __str__(self) -> str:
        if not self.n:
            return "-"
        low, high = clopper_pearson(self.k, self.n, 0.05)
        return f"{self.k / self.n:.3f} ({self.k}/{self.n}; {low:.3f} to {high:.3f})"


@dataclass(frozen=True, slots=True)
class Found:
    """What a detector did with one half."""

    sensitivity: Share
    """Of base-model rows that the readers flagged."""
    specificity: Share
    """Of base-model rows that they did not flag."""
    tuned: Share
    """Of a tuned model's good answers."""


def load(name: str, half: str) -> list[Row]:
    """One half of ``base_rows`` or ``good_answers``: ``seen`` or ``held out``."""
    text = (DATA / f"{name}.jsonl").read_text(encoding="utf-8")
    return [row for row in map(json.loads, text.splitlines()) if row["half"] == half]


def flags(rows: Sequence[Row], *, finish_reason: bool = True) -> list[set[str]]:
    """Flags of rows as ``agent qc`` gives them, from ``instruction`` and ``response`` alone.

    With ``finish_reason`` the file says how each response ended, where that is known.
    """
    names = ["instruction", "response"] + ["finish_reason"] * finish_reason
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        lines = (json.dumps({n: row[n] for n in names if n in row}) for row in rows)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return [set(found) for _, found in flag_rows(path)]


def simplest(rows: Sequence[Row]) -> list[set[str]]:
    """The rule that people start with: over 200 characters, or more than three full stops."""
    long = (len(row["response"]) > 200 or row["response"].count(".") > 3 for row in rows)
    return [{"runaway"} if bad else set() for bad in long]


def compare(
    names: Iterable[str],
    half: str,
    judge: Callable[[Sequence[Row]], list[set[str]]] = flags,
    *,
    sure: bool = False,
) -> Found:
    """How ``judge`` agrees with the readers about any of ``names``.

    With ``sure``, only about base-model rows on which neither reader had a doubt.
    """
    wanted = set(names)
    base, good = load("base_rows", half), load("good_answers", half)
    base = [row for row in base if row["sure"] or not sure]
    pairs = [
        (bool(wanted & set(row["labels"])), bool(wanted & found))
        for row, found in zip(base, judge(base), strict=True)
    ]
    bad = [found for label, found in pairs if label]
    fine = [found for label, found in pairs if not label]
    spared = sum(not wanted & found for found in judge(good))
    return Found(
        Share(sum(bad), len(bad)),
        Share(len(fine) - sum(fine), len(fine)),
        Share(spared, len(good)),
    )


def table() -> list[str]:
    """Every comparison as lines of a Markdown table."""
    lines = [
        "| half | flagged | sensitivity | specificity, base model | specificity, tuned model |",
        "| --- | --- | --- | --- | --- |",
    ]
    for half in ("seen", "held out"):
        for name, names in [("any of the three", BAD), *((n, (n,)) for n in BAD)]:
            found = compare(names, half)
            lines.append(
                f"| {half} | {name} | {found.sensitivity} | {found.specificity} | {found.tuned} |"
            )
        found = compare(BAD, half, sure=True)
        lines.append(
            f"| {half} | any, where both readers were sure | {found.sensitivity} "
            f"| {found.specificity} | {found.tuned} |"
        )
        first = compare(BAD, half, simplest)
        lines.append(
            f"| {half} | over 200 characters or 3 full stops | {first.sensitivity} "
            f"| {first.specificity} | {first.tuned} |"
        )
    return lines


if __name__ == "__main__":
    print("\n".join(table()))

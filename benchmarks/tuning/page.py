"""The page docs/TUNING.md: its tables are written from finished cells, its words are people's.

A cell that ends without a pass counts at its limit: 2,000 rows, and what they would have cost it at
its own rate. Targets are printed with what was measured; the targets are medians over all starts
and seeds, so none is met or missed by a median before all of them are there.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf, isinf
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.tuning.cells import TUNERS, Cell
from benchmarks.tuning.kept import REPORTED, Kept, named
from benchmarks.tuning.starts import LIMIT_ROWS, STARTS, config
from benchmarks.tuning.truth import Truth, rows_needed

BEGIN, END = "<!-- tuning: written by python -m benchmarks.tuning -->", "<!-- end -->"
TOKEN_SHARE: Final = 1 / 5
"""What the rules may generate at most, of TPE's tokens."""
ROWS_FACTOR: Final = 2.0
"""What they may use at most, by the rows that the gates need at the setting they end on."""
CELLS: Final = len(STARTS) * len(REPORTED)
"""Cells of one tuner in the whole comparison."""
_FEWEST: Final = 32


@dataclass(frozen=True, slots=True)
class Counted:
    """A cell as it counts."""

    rounds: float
    """Rounds bought."""
    rows: float
    """Answered rows."""
    tokens: float
    """Tokens generated."""
    seconds: float
    """Engine seconds."""
    usd: float
    """Dollars."""


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that is wanted, with what was measured."""

    wanted: str
    """What, in a sentence."""
    found: str
    """What was measured."""
    met: bool | None
    """Whether that is enough; None while that cannot be told."""
    count: int = 0
    """Cells, or pairs of cells, that it was measured on, of :data:`CELLS`."""

    @property
    def verdict(self) -> str:
        """met, MISSED or not measured yet."""
        if self.met is None:
            return f"not measured yet ({self.count} of {CELLS})"
        return "met" if self.met else "**MISSED**"


def counted(cell: Cell) -> Counted:
    """A cell's figures; without a pass they are scaled to the limit on rows."""
    scale = 1.0
    if not cell.passed and cell.ending != "limit":
        scale = LIMIT_ROWS / max(cell.rows, _FEWEST)
    rows = cell.rows if cell.passed else LIMIT_ROWS
    return Counted(
        cell.rounds, rows, cell.tokens * scale, cell.engine_seconds * scale, cell.usd * scale
    )


def tables(kept: Kept) -> str:
    """Everything between the page's marks."""
    cells = [c for c in kept.cells.values() if c.seed in REPORTED]
    if not cells:
        return "Nothing is measured yet."
    parts = [
        _conditions(cells),
        *_by_start(cells),
        "### Targets\n",
        *_targets_table(targets(kept)),
        "### Rows that the gates need at the settings on which the rules ended\n",
        *_truths_table(kept),
    ]
    return "\n".join(parts)


def page(text: str, kept: Kept) -> str:
    """``text`` with what is between its marks written anew."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{tables(kept).strip()}\n\n{END}{after}"


def write(kept: Kept, path: Path) -> None:
    """Write the page at ``path`` anew."""
    path.write_text(page(path.read_text(encoding="utf-8"), kept), encoding="utf-8")


def targets(kept: Kept) -> list[Target]:
    """The three targets of the rules."""
    cells = [c for c in kept.cells.values() if c.seed in REPORTED]
    return [_all_pass(cells), _few_tokens(cells), _few_rows(kept)]


def _conditions(cells: Sequence[Cell]) -> str:
    machines = ", ".join(sorted({c.machine for c in cells}))
    versions = sorted({c.version for c in cells})
    seeds = ", ".join(str(seed) for seed in sorted({c.seed for c in cells}))
    sources = f"sources {versions[0]}" if len(versions) == 1 else (
        f"sources of {len(versions)} states ({', '.join(versions)}), since cells were run in "
        "several sittings"
    )  # fmt: skip
    finished = max(c.finished for c in cells)[:10]
    return (
        f"{len(cells)} of {len(STARTS) * 4 * len(REPORTED)} cells (without an LLM), seeds {seeds}; "
        f"{machines}; {sources}; last cell {finished}.\n"
    )


def _by_start(cells: Sequence[Cell]) -> list[str]:
    lines = [
        "| start | tuner | certified | rounds | rows | tokens | engine s | dollars |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for start, (words, _) in STARTS.items():
        for tuner in TUNERS:
            mine = [c for c in cells if (c.start, c.tuner) == (start, tuner)]
            if mine:
                lines.append(f"| {words} | {tuner} | {_medians(mine)} |")
    return [*lines, ""]


def _medians(cells: Sequence[Cell]) -> str:
    """How many passed, and medians; a median that is a limit says so."""
    found = [counted(cell) for cell in cells]
    passed = sum(c.passed for c in cells)
    bound = "" if 2 * passed > len(cells) else ">= "

    def middle(of: Callable[[Counted], float], form: str) -> str:
        return format(median(of(c) for c in found), form)

    return " | ".join(
        [
            f"{passed} of {len(cells)}",
            middle(lambda c: c.rounds, ".0f"),
            bound + middle(lambda c: c.rows, ",.0f"),
            bound + middle(lambda c: c.tokens, ",.0f"),
            bound + middle(lambda c: c.seconds, ",.0f"),
            bound + "$" + middle(lambda c: c.usd, ".4f"),
        ]
    )


def _targets_table(found: Iterable[Target]) -> list[str]:
    lines = ["| target | measured | |", "| --- | --- | --- |"]
    return [*lines, *(f"| {t.wanted} | {t.found} | {t.verdict} |" for t in found), ""]


def _all_pass(cells: Sequence[Cell]) -> Target:
    wanted = "the rules reach certified settings from all five starts"
    mine = [c for c in cells if c.tuner == "rules"]
    if not mine:
        return Target(wanted, "nothing yet", None)
    missed = [named(c) for c in mine if not c.passed]
    starts = {c.start for c in mine}
    found = f"{len(mine) - len(missed)} of {len(mine)} cells, from {len(starts)} starts"
    if missed:
        found += "; not from " + ", ".join(missed)
    # One cell without a pass is a miss, whatever the others come to.
    return Target(wanted, found, False if missed else _verdict(True, len(mine)), len(mine))


def _verdict(good: bool, count: int) -> bool | None:
    """Nothing is said before every start was tried with every seed."""
    return good if count >= CELLS else None


def _few_tokens(cells: Sequence[Cell]) -> Target:
    wanted = "the rules generate at most a fifth of the tokens of TPE (`bayes`; median)"
    by_place = {(c.start, c.tuner, c.seed): counted(c).tokens for c in cells}
    shares = {
        (start, seed): by_place[start, "rules", seed] / tokens
        for (start, tuner, seed), tokens in by_place.items()
        if tuner == "bayes" and (start, "rules", seed) in by_place
    }
    if not shares:
        return Target(wanted, "nothing yet", None)
    each = {s: median(v for (start, _), v in shares.items() if start == s)
            for s in STARTS if any(start == s for start, _ in shares)}  # fmt: skip
    value = median(shares.values())
    found = f"{value:.2f} of them over {len(shares)} pairs of cells; " + ", ".join(
        f"{start} {share:.2f}" for start, share in each.items()
    )
    return Target(wanted, found, _verdict(value <= TOKEN_SHARE, len(shares)), len(shares))


def _few_rows(kept: Kept) -> Target:
    wanted = "the rules use at most twice the rows that the gates need at the setting they end on"
    wanted += " (median)"
    factors = [_times(cell, _needed(cell, truth)) for cell, truth in _pairs(kept)]
    mine = [c for c in kept.cells.values() if c.tuner == "rules" and c.seed in REPORTED]
    lost = sum(not c.passed for c in mine)
    factors += [inf] * lost
    if not factors:
        return Target(wanted, "nothing yet", None)
    value = median(factors)
    starts = {c.start for c in mine}
    said = f"{value:.2f} times over {len(factors)} cells, from {len(starts)} starts"
    if lost:
        said += f"; {lost} without a pass count as infinite"
    return Target(wanted, said, _verdict(value <= ROWS_FACTOR, len(factors)), len(factors))


def _pairs(kept: Kept) -> list[tuple[Cell, Truth]]:
    """Cells of the rules that passed, with the true rates of their setting."""
    return [
        (kept.cells[name], truth)
        for name, truth in kept.truths.items()
        if truth.tuner == "rules" and truth.seed in REPORTED and name in kept.cells
        and kept.cells[name].passed
    ]  # fmt: skip


def _needed(cell: Cell, truth: Truth, *, round_: int | None = None) -> float:
    settings = config(cell.start, seed=cell.seed, engine="hf", reviewer={})
    return rows_needed(truth, settings, round_=round_ or cell.rounds)


def _truths_table(kept: Kept) -> list[str]:
    pairs = _pairs(kept)
    if not pairs:
        return ["Not measured yet.", ""]
    lines = [
        "| start | seed | rows used | needed at its round's alpha | times | needed in a first "
        "round | rates of bad rows, of |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cell, truth in pairs:
        need, first = _needed(cell, truth), _needed(cell, truth, round_=1)
        lines.append(
            f"| {cell.start} | {cell.seed} | {cell.rows:,} | {_rows(need)} | "
            f"{_times(cell, need):.2f} | {_rows(first)} | {_rates(truth)} |"
        )
    return [*lines, ""]


def _times(cell: Cell, need: float) -> float:
    """Rows used by rows needed; a setting on which the gates mostly never pass is no credit."""
    return need if isinf(need) else cell.rows / need


def _rows(value: float) -> str:
    return "never" if isinf(value) else f"{value:,.0f}"


def _rates(truth: Truth) -> str:
    """The rates that are not 0, of bad rows: what is not accepted is bad."""
    bad = {n: (total - k if n.endswith("acceptance") else k, total)
           for n, (k, total) in truth.counts.items()}  # fmt: skip
    said = ", ".join(f"{n} {k / total:.1%}" for n, (k, total) in bad.items() if k and total)
    return f"{said or 'none'}; {truth.answered:,}"

"""``python -m benchmarks.tuning``: run the cells that are not there yet, and write the page."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.tuning import page
from benchmarks.tuning.cells import TUNERS, Cell, Interrupted, llm_sections, run_cell
from benchmarks.tuning.kept import REPORTED, Bench, Kept
from benchmarks.tuning.starts import STARTS, config
from benchmarks.tuning.truth import Truth, measure_truth
from pipeline.errors import AgentError
from pipeline.params import GenParams

TRUTH: Final = "truth"
"""True rates of the settings that the rules ended on."""
KINDS: Final = (*TUNERS, TRUTH)
_GUESSES: Final = {"rules": 600.0, TRUTH: 420.0}
"""Seconds that a cell may take before one of its kind is finished; others take longer."""
_LONG: Final = 1500.0


@dataclass(frozen=True, slots=True)
class Task:
    """One cell that is to be run."""

    kind: str
    """A tuner, or the true rates of the setting that the rules ended on."""
    start: str
    """Where it begins."""
    seed: int
    """The run's seed."""

    @property
    def name(self) -> str:
        """What it is called in the results."""
        return f"{self.start}/{'rules' if self.kind == TRUTH else self.kind}/{self.seed}"


def main(arguments: Sequence[str] | None = None, *, bench: Bench | None = None) -> int:
    """Run what fits, keep each cell as it is finished, write the page; the exit code."""
    options, bench = _options(arguments), bench or Bench()
    llm = llm_sections(options.llm)
    end = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    code = 0
    for task in _tasks(options, with_llm=llm is not None):
        kept = Kept.read(bench.file(task.seed))
        if not _is_due(task, kept, again=options.again):
            continue
        if time.monotonic() + _expected(task, kept) > end:
            _say(f"stopped before {task.kind} {task.name}, which may not fit; run it again later")
            break
        try:
            _run(task, kept, bench, llm)
        except Interrupted:
            _say("  interrupted; this cell is begun again the next time")
            code = 130
            break
        except AgentError as error:
            _say(f"  failed, begun again the next time: {error}")
            code = 1
    reported = Kept.read(bench.results)
    page.write(reported, bench.page)
    for target in page.targets(reported):
        print(f"{target.verdict:>12}  {target.wanted}: {target.found}")
    return code


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuning", description=__doc__)
    add = parser.add_argument
    add("--only", choices=KINDS, action="append", help="these kinds of cell alone; may be repeated")
    add("--start", choices=STARTS, action="append", help="these starts alone")
    add("--seed", type=int, action="append",
        help=f"these seeds alone; others than {REPORTED} are not reported")  # fmt: skip
    add("--minutes", type=float, help="begin no cell that would not be finished by then")
    add("--again", action="store_true", help="run cells anew that are there")
    add("--llm", type=Path, help="a budget.yaml whose reviewer takes part as llm")
    return parser.parse_args(arguments)


def _tasks(options: argparse.Namespace, *, with_llm: bool) -> Iterator[Task]:
    """The cells in the order in which they are run: seed by seed, and the rules first."""
    kinds = [k for k in options.only or KINDS if k != "llm" or with_llm]
    for seed in options.seed or REPORTED:
        for kind in (k for k in KINDS if k in kinds):
            for start in options.start or STARTS:
                yield Task(kind, start, seed)


def _is_due(task: Task, kept: Kept, *, again: bool) -> bool:
    if task.kind != TRUTH:
        return again or task.name not in kept.cells
    passed = task.name in kept.cells and kept.cells[task.name].passed
    return passed and (again or task.name not in kept.truths)


def _expected(task: Task, kept: Kept) -> float:
    """Seconds that a cell may take: as long as the longest of its kind so far."""
    if task.kind == TRUTH:
        known = [t.wall_seconds for t in kept.truths.values()]
    else:
        known = [c.wall_seconds for c in kept.cells.values() if c.tuner == task.kind]
    return max(known, default=_GUESSES.get(task.kind, _LONG))


def _run(task: Task, kept: Kept, bench: Bench, llm: Any) -> None:
    """Run one cell and keep it."""
    began = time.monotonic()
    _say(f"{task.kind} {task.name} ...")
    if task.kind == TRUTH:
        found: Cell | Truth = _truth(task, kept.cells[task.name], bench)
        said = f"{found.answered} rows"
    else:
        found = run_cell(
            task.start, task.kind, task.seed, folder=bench.folder(task.name),
            engine=bench.engine, llm=llm, limit=bench.limit,
        )  # fmt: skip
        said = f"{found.ending}, {found.rounds} rounds, {found.rows} rows, {found.tokens} tokens"
    kept.add(bench.file(task.seed), found)
    _say(f"  {said}, {time.monotonic() - began:.0f} s")


def _truth(task: Task, cell: Cell, bench: Bench) -> Truth:
    settings = config(task.start, seed=task.seed, engine=bench.engine, reviewer={})
    params = GenParams.model_validate(cell.params)
    rows = bench.truth_rows
    return measure_truth(params, settings, start=task.start, tuner=cell.tuner, rows=rows)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

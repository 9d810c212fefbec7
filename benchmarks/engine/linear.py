"""What ten times the rows cost: time and memory of 960 answers, and of the same ones in tenths.

Both are drawn in fresh processes, in batches of as many rows as a tenth has. A tenth is timed as
the mean of ten calls over the same 960 instructions, because single tenths differ in length by more
than what is looked for.
"""

from dataclasses import dataclass, replace
from statistics import mean
from typing import Final

from benchmarks.engine.child import Answers, Worker
from benchmarks.engine.contenders import OURS
from benchmarks.engine.setup import Setup

TIMES: Final = 10
TARGET: Final = 10.5


@dataclass(frozen=True, slots=True)
class Linear:
    """Two ways to draw the same answers."""

    rows: int
    """Rows of a tenth."""
    seconds: float
    """Mean time of a tenth."""
    peak_bytes: int | None
    """Largest resident memory of the process that drew tenths."""
    cuda_peak_bytes: int | None
    """Largest memory that torch held on the GPU there."""
    many_seconds: float
    """Time of all rows in one call."""
    many_peak_bytes: int | None
    """Largest resident memory of the process that drew all at once."""
    many_cuda_peak_bytes: int | None
    """Largest memory that torch held on the GPU there."""

    @property
    def ratio(self) -> float:
        """Time of all by that of a tenth."""
        return self.many_seconds / self.seconds

    @property
    def passed(self) -> bool:
        """Whether ten times the rows cost at most what they may."""
        return self.ratio <= TARGET


def measure(setup: Setup) -> Linear:
    """Draw ten times ``setup.rows`` answers twice, with this engine.

    Raises:
        Absent: if the engine cannot be opened here.
    """
    rows = setup.rows
    setup = replace(setup, batch_size=rows)
    tenths = [Answers(rows * i, rows) for i in range(TIMES)]
    few, peak, cuda = _run(setup, tenths)
    many, many_peak, many_cuda = _run(setup, [Answers(0, rows * TIMES)])
    return Linear(rows, mean(few), peak, cuda, sum(many), many_peak, many_cuda)


def _run(setup: Setup, orders: list[Answers]) -> tuple[list[float], int | None, int | None]:
    worker = Worker(OURS, setup)
    try:
        worker.answer()
        reports = [worker.ask(order) for order in orders]
    finally:
        worker.close()
    return [r.seconds for r in reports], reports[-1].peak_bytes, reports[-1].cuda_peak_bytes

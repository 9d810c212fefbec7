"""A contender in a process of its own: loaded once, warmed up, then idle until it is its turn.

Its peak memory and its threads are its own. It is told what to do, and answers with seconds.
"""

import multiprocessing
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Final, cast

from benchmarks.engine.contenders import Absent, Contender, Scoring, open_contender
from benchmarks.engine.floor import Pass
from benchmarks.engine.setup import Setup
from benchmarks.engine.workload import GENERATION, SCORING, PhaseName, Workload, answering, workload
from pipeline.critics.scores import instruction_scores, pair_scores
from pipeline.engine.base import Engine
from pipeline.errors import EngineError
from pipeline.types import Completion

Made = Sequence[Completion] | Sequence[float]
"""What a phase makes: completions or scores."""
_WARM_ROWS: Final = 8
_WARM_ROUND: Final = 50
"""A round that is not measured, so that its prompts are not met again."""
_PATIENCE: Final = 3600.0
"""Seconds that a contender may take to load, or for one round."""
_FAREWELL: Final = 10.0


@dataclass(frozen=True, slots=True)
class Round:
    """Do all phases of round ``number``."""

    number: int
    """From 0."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Draw the answers to ``rows`` instructions of the fixed list, beginning with ``first``."""

    first: int
    """Index of the first."""
    rows: int
    """How many, in one call."""


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """One phase of one round."""

    name: PhaseName
    """Which."""
    rows: int
    """Rows that ``seconds`` are for."""
    seconds: float
    """Wall time, scaled to all rows where fewer were done."""
    tokens: float
    """Tokens kept up to the stop, scaled likewise; 0 for scoring."""
    passes: Counter[Pass] | None
    """Forward passes, where they are counted."""
    products_seconds: float | None = None
    """Time of the products of these passes alone, where it was measured."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a contender says when it is ready, and after each turn."""

    notes: tuple[str, ...]
    """What is to be known of its figures."""
    phases: tuple[PhaseResult, ...]
    """What it did in this turn."""
    seconds: float
    """Wall time of the whole turn, not scaled."""
    peak_bytes: int | None
    """Largest resident memory of its process so far."""
    cuda_peak_bytes: int | None
    """Largest memory that torch held on the GPU so far."""


class Worker:
    """The process of one contender, as its owner sees it."""

    def __init__(self, key: str, setup: Setup) -> None:
        """Start it; nothing is known of it until :meth:`answer`."""
        context = multiprocessing.get_context("spawn")
        self._connection, end = context.Pipe()
        self._process = context.Process(target=_main, args=(end, key, setup))
        self._process.start()
        end.close()

    def ask(self, order: Round | Answers) -> Report:
        """Have it work, and wait for its report; errors as in :meth:`answer`."""
        with suppress(BrokenPipeError):  # its answer says how it ended
            self._connection.send(order)
        return self.answer()

    def answer(self) -> Report:
        """Its next report, the first of which says that it is ready.

        Raises:
            Absent: if it cannot take part, or not any more.
        """
        if not self._connection.poll(_PATIENCE):
            self.close()
            raise Absent(f"gave no answer within {_PATIENCE:g} s")
        try:
            found = self._connection.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            raise Absent(f"its process ended with code {code}; see its messages above") from None
        if isinstance(found, str):
            raise Absent(found)
        return cast(Report, found)

    def close(self) -> None:
        """End the process; an idle one ends by itself when nobody can ask it any more."""
        self._connection.close()
        self._process.join(_FAREWELL)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


def _main(connection: Connection, key: str, setup: Setup) -> None:
    try:
        contender = open_contender(key, setup)
        _turn(contender, workload(min(_WARM_ROWS, setup.rows), number=_WARM_ROUND))
        connection.send(_report(contender, (), 0.0))
        while True:
            connection.send(obey(contender, setup, connection.recv()))
    except (Absent, EngineError, ImportError) as reason:
        connection.send(str(reason))
    except (EOFError, BrokenPipeError):
        return


def obey(contender: Contender, setup: Setup, order: Round | Answers) -> Report:
    """Have a contender do what was ordered, and time it."""
    began = time.perf_counter()
    if isinstance(order, Round):
        phases = _turn(contender, workload(setup.rows, number=order.number))
        report = _report(contender, phases, time.perf_counter() - began)
        return replace(report, phases=tuple(_with_products(contender, p) for p in phases))
    asked = answering(order.first, order.rows)
    phases = (_phase(contender, "answers", order.rows, lambda: contender.generate(asked)),)
    return _report(contender, phases, time.perf_counter() - began)


def _turn(contender: Contender, work: Workload) -> tuple[PhaseResult, ...]:
    """All phases that a contender takes part in."""
    rows, limit, engine = len(work.texts), contender.traits.limit, cast(Engine, Scoring(contender))
    verbs: dict[PhaseName, Callable[[], Made]] = {
        "instructions": lambda: contender.generate(work.instructions[:limit]),
        "answers": lambda: contender.generate(work.answers[:limit]),
        "labels": lambda: instruction_scores(engine, work.texts[:limit]),
        "lifts": lambda: pair_scores(engine, work.pairs[:limit], "lift"),
    }
    names = GENERATION + SCORING if contender.traits.scores else GENERATION
    return tuple(_phase(contender, name, rows, verbs[name]) for name in names)


def _phase(
    contender: Contender, name: PhaseName, rows: int, work: Callable[[], Made]
) -> PhaseResult:
    before = None if contender.traits.passes is None else contender.traits.passes.copy()
    began = time.perf_counter()
    made = work()
    seconds = time.perf_counter() - began
    scale = rows / len(made)
    tokens = sum(len(each.token_ids) for each in made if isinstance(each, Completion))
    passes = None if before is None else (contender.traits.passes or Counter()) - before
    return PhaseResult(name, rows, seconds * scale, tokens * scale, passes)


def _with_products(contender: Contender, phase: PhaseResult) -> PhaseResult:
    """A phase of this engine with the time of its products alone, measured after it."""
    alone = getattr(contender, "products_seconds", None)
    if alone is None or phase.passes is None:
        return phase
    return replace(phase, products_seconds=alone(phase.passes))


def _report(contender: Contender, phases: tuple[PhaseResult, ...], seconds: float) -> Report:
    peak = cuda = None
    if contender.traits.own_memory:
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = kilobytes * (1 if sys.platform == "darwin" else 1024)
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            cuda = int(torch.cuda.max_memory_allocated())
    return Report(contender.traits.notes, phases, seconds, peak, cuda)

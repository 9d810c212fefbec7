"""How many rows the gates need at a setting, whoever found it: the yardstick of rows used.

The setting that a cell ended on writes fresh rows, far more than a pilot; their rates are taken for
the true ones, and the gates' test is run again and again on counts drawn at these rates. The one
idea: it looks where a pilot looks, after the smoke rows and after every micro-batch.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from statistics import median
from typing import Any, Final

from agent.config import RunConfig
from agent.engines import engine_spec
from agent.thresholds import bounds
from benchmarks.tuning.host import machine, sources_digest
from pipeline.critics.kept import kept_scores
from pipeline.engine import open_engine
from pipeline.engine.base import Engine
from pipeline.engine.local.models import cache_folder
from pipeline.generate import MicroBatch, drawn, run_micro_batch
from pipeline.metrics import Bound, Margins, Rules, measure
from pipeline.novelty import NoveltyIndex
from pipeline.params import GenParams
from pipeline.types import Sample
from pipeline.verdict import alpha_for_round
from prompts.library import Example

TRUTH_ROWS: Final = 2000
"""Answered rows from which true rates are taken, at least."""
PATHS: Final = 400
"""Simulated pilots."""
_MOST_DRAWN: Final = 20_000
_STAGE_ROUND: Final = 0
"""No run has a round of this number, so its rows share no seed with any pilot."""


@dataclass(frozen=True, slots=True)
class Truth:
    """Counts over many fresh rows of one setting. It is kept as JSON."""

    start: str
    """Where the cell began that ended on the setting."""
    tuner: str
    """Who tuned it."""
    seed: int
    """Its seed."""
    params: Mapping[str, Any]
    """The setting."""
    drawn: int
    """Instructions drawn."""
    answered: int
    """Rows with a response."""
    counts: Mapping[str, tuple[int, int]]
    """By gate: rows that it counts, and of how many."""
    tokens: int
    """Tokens generated."""
    wall_seconds: float
    """What it took."""
    version: str = field(default_factory=lambda: sources_digest())
    """Digest of the program's sources."""
    machine: str = field(default_factory=lambda: machine())
    """Where it ran."""
    finished: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """UTC."""


def measure_truth(
    params: GenParams, settings: RunConfig, *, start: str, tuner: str, rows: int = TRUTH_ROWS
) -> Truth:
    """Draw at least ``rows`` answered rows at a setting, and count what each gate counts."""
    began = time.monotonic()
    engine = open_engine(engine_spec(settings.engine, os.environ))
    try:
        samples, tokens = _draw(engine, params, settings, rows)
    finally:
        engine.close()
    rules = Rules(bounds(settings), {}, 0.05, Margins.of(params.critic))
    found = measure(samples, rules, wanted=rows)
    return Truth(
        start=start,
        tuner=tuner,
        seed=settings.pilot.seed,
        params=params.model_dump(mode="json"),
        drawn=len(samples),
        answered=found.funnel.answered,
        counts={m.name: (m.count or 0, m.n) for m in found.metrics if m.name in rules.thresholds},
        tokens=tokens,
        wall_seconds=round(time.monotonic() - began, 1),
    )


def _draw(
    engine: Engine, params: GenParams, settings: RunConfig, rows: int
) -> tuple[list[Sample], int]:
    spec = engine_spec(settings.engine, os.environ)
    scores, _ = kept_scores(engine, cache_folder(spec) if spec.kind == "hf" else None)
    critic, pilot = params.critic, settings.pilot
    critics = scores.panel().only(instruction=critic.instruction, pair=critic.pair)
    samples: list[Sample] = []
    seen, tokens = NoveltyIndex(), 0
    while sum(s.answered for s in samples) < rows and len(samples) < _MOST_DRAWN:
        batch = MicroBatch(
            "pilot", _STAGE_ROUND, len(samples) // drawn(pilot.micro_batch, params),
            len(samples), pilot.micro_batch, pilot.seed,
        )  # fmt: skip
        pool = [Example("", s.instruction, s.clean or "") for s in samples if s.kept]
        made = run_micro_batch(engine, batch, params, seen=seen, pool=pool, critics=critics)
        samples += made.samples
        tokens += made.tokens
    return samples, tokens


def rows_needed(truth: Truth, settings: RunConfig, *, round_: int, paths: int = PATHS) -> float:
    """Median of answered rows until every gate passes at once; infinite where most never do.

    Args:
        truth: Rates, as counts.
        settings: Thresholds, and the sizes of micro-batches.
        round_: How many rounds were bought, since later ones have less of alpha.
        paths: Simulated pilots.
    """
    import numpy as np

    alpha, limits = alpha_for_round(settings.thresholds.alpha, round_), bounds(settings)
    sizes = _sizes(truth, settings)
    chance = np.random.default_rng(7)
    found = [_path(truth, limits, alpha, sizes, chance) for _ in range(paths)]
    return float(median(found))


def _sizes(truth: Truth, settings: RunConfig) -> list[int]:
    """Instructions drawn by each time that a pilot is looked at."""
    params, pilot = GenParams.model_validate(truth.params), settings.pilot
    first, more = drawn(pilot.smoke_rows, params), drawn(pilot.micro_batch, params)
    looks = 1 + round(pilot.max_rows * truth.drawn / max(truth.answered, 1)) // more
    return [first + k * more for k in range(looks)]


def _path(
    truth: Truth, limits: Mapping[str, Bound], alpha: float, sizes: Sequence[int], chance: Any
) -> float:
    """Answered rows of one simulated pilot when all gates pass; infinite if it ends otherwise."""
    counts, before = dict.fromkeys(truth.counts, 0), dict.fromkeys(truth.counts, 0)
    for size in sizes:
        verdicts = []
        for name, (k, n) in truth.counts.items():
            rows = round(size * n / truth.drawn)
            counts[name] += int(chance.binomial(rows - before[name], k / n if n else 0.0))
            before[name] = rows
            verdicts.append(_judge(limits[name], counts[name], rows, alpha))
        if all(verdict == "PASS" for verdict in verdicts):
            return size * truth.answered / truth.drawn
        if "FAIL" in verdicts and size > sizes[0]:
            break
    return float("inf")


@lru_cache(maxsize=100_000)
def _judge(limit: Bound, count: int, rows: int, alpha: float) -> str:
    return limit.judge(count, rows, alpha).verdict

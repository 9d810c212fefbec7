"""One cell of the comparison: a start, a tuner and a seed, from the first pilot to its end.

The run is the program's own, in a folder of its own, with its preflight, its ledger and its gates;
a tuner takes the reviewer's seat. The one idea: what a cell came to is read from the run's records
and books, and a limit on rows ends it from outside, as nothing within the run knows of it.
"""

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from agent import runner
from agent.archive import open_archive
from agent.config import RunConfig
from agent.errors import ReviewerError
from agent.policy import Step
from agent.records import RoundRecord, pilots
from agent.reviewers.base import Reviewer
from benchmarks.tuning.host import machine, sources_digest
from benchmarks.tuning.manual import ManualReviewer
from benchmarks.tuning.random_search import RandomReviewer
from benchmarks.tuning.starts import LIMIT_ROWS, config

TUNERS: Final = ("rules", "bayes", "random", "manual", "llm")
"""Who is compared, in the order in which cells are run."""
RUN_ID: Final = "cell"


@dataclass(frozen=True, slots=True)
class Cell:
    """What one cell came to. It is kept as JSON."""

    start: str
    """Where it began."""
    tuner: str
    """Who tuned."""
    seed: int
    """The run's seed."""
    passed: bool
    """Whether every gate was certified on fresh rows within the limit."""
    ending: str
    """How it ended: waiting (it passed), limit, or as the run says."""
    reason: str
    """Why, in the run's words."""
    rounds: int
    """Rounds bought."""
    replayed: int
    """Proposals that failed on stored rows and were not bought."""
    rows: int
    """Answered rows bought in rounds."""
    tokens: int
    """Tokens generated in rounds."""
    engine_seconds: float
    """Wall seconds of the engine after the preflight, its waits while a tuner thinks included."""
    usd: float
    """Dollars for them and for reviews, at the configured price."""
    preflight_seconds: float
    """The same of the preflight, which is before any tuner and equal for all of a start."""
    wall_seconds: float
    """What the cell took, loading included."""
    params: Mapping[str, Any]
    """The setting that it ended on."""
    path: Sequence[str] = ()
    """Each round in a phrase."""
    version: str = field(default_factory=lambda: sources_digest())
    """Digest of the program's sources."""
    machine: str = field(default_factory=lambda: machine())
    """Where it ran."""
    finished: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """UTC."""


class Interrupted(Exception):
    """A signal stopped the run of a cell: it is not finished, and begun again the next time."""


class _LimitReached(Exception):
    """The next micro-batch would pass the limit on rows."""


class _Watch:
    """Counts rows and tokens as they are bought, and ends the cell before the limit is passed."""

    def __init__(self, limit: int, batch: int) -> None:
        self._most = limit - batch
        self._rows: dict[int, int] = {}
        self.tokens = 0

    @property
    def rows(self) -> int:
        return sum(self._rows.values())

    def __call__(self, event: Mapping[str, Any]) -> None:
        if event["kind"] == "batch":
            self._rows[event["round"]] = event["rows"]
            self.tokens += event["tokens"]
        goes_on = event.get("step") in (Step.CONTINUE.value, Step.REVIEW.value)
        if event["kind"] == "decision" and goes_on and self.rows > self._most:
            raise _LimitReached


def run_cell(
    start: str,
    tuner: str,
    seed: int,
    *,
    folder: Path,
    engine: str = "hf",
    llm: Mapping[str, Any] | None = None,
    limit: int = LIMIT_ROWS,
) -> Cell:
    """Run one cell from its beginning; whatever lies in ``folder`` from a killed try is removed.

    Args:
        start: A name of ``starts.STARTS``.
        tuner: A name of :data:`TUNERS`.
        seed: The run's seed.
        folder: Where the run's folder goes; it stays there.
        engine: ``hf`` for the embedded model, ``scripted`` for tests.
        llm: The ``reviewer`` and ``prices`` sections for ``llm``.
        limit: Answered rows.
    """
    shutil.rmtree(folder, ignore_errors=True)
    settings = config(start, seed=seed, engine=engine, reviewer=_section(tuner, llm))
    watch = _Watch(limit, settings.pilot.micro_batch)
    began = time.monotonic()
    with _seated(tuner, settings):
        ending, reason = _work(folder, settings, watch)
    return _cell(
        start, tuner, seed, ending=ending, reason=reason, watch=watch, folder=folder,
        wall_seconds=time.monotonic() - began,
    )  # fmt: skip


def _section(tuner: str, llm: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if tuner == "llm":
        assert llm is not None, "llm is run only where one is configured"
        return llm
    return {"reviewer": {"kind": "bayes" if tuner == "bayes" else "rules"}}


@contextmanager
def _seated(tuner: str, settings: RunConfig) -> Iterator[None]:
    """The tuner in the reviewer's seat; those that the program has are its own choice."""
    most, seed = settings.reviewer.max_changes, settings.pilot.seed
    ours: dict[str, Reviewer] = {
        "random": RandomReviewer(max_changes=most, seed=seed),
        "manual": ManualReviewer(max_changes=most),
    }
    if tuner not in ours:
        yield
        return
    with patch("agent.session.choose_reviewer", lambda *_: (ours[tuner], tuner)):
        yield


def _work(folder: Path, settings: RunConfig, watch: _Watch) -> tuple[str, str]:
    """How the run ended, and why."""
    try:
        ending = runner.start(folder, settings, RUN_ID, watch)
    except _LimitReached:
        return "limit", f"{watch.rows} answered rows bought"
    except ReviewerError as error:
        return "held", str(error)
    if ending.status == "drained":
        raise Interrupted(ending.reason)
    return ending.status, ending.reason


def _cell(
    start: str, tuner: str, seed: int, *,
    ending: str, reason: str, watch: _Watch, folder: Path, wall_seconds: float,
) -> Cell:  # fmt: skip
    with open_archive(folder, RUN_ID) as archive:
        rounds = archive.store.load_rounds()
        totals = archive.journal.ledger.by_stage()
    before = [t for t in totals if t.stage == "preflight"]
    after = [t for t in totals if t.stage != "preflight"]
    return Cell(
        start=start,
        tuner=tuner,
        seed=seed,
        passed=ending == "waiting",
        ending=ending,
        reason=reason,
        rounds=pilots(rounds) + (ending == "limit" and _undecided(rounds, watch)),
        replayed=len(rounds) - pilots(rounds),
        rows=watch.rows,
        tokens=watch.tokens,
        engine_seconds=round(sum(t.engine_seconds for t in after), 1),
        usd=sum(t.confirmed + t.excess for t in after) / 1e6,
        preflight_seconds=round(sum(t.engine_seconds for t in before), 1),
        wall_seconds=round(wall_seconds, 1),
        params=rounds[-1].params.model_dump(mode="json"),
        path=[_phrase(record) for record in rounds],
    )


def _undecided(rounds: Sequence[RoundRecord], watch: _Watch) -> bool:
    """Whether the limit ended a round before it was decided: then it has no record."""
    return sum(r.funnel["answered"] for r in rounds if not r.replayed) < watch.rows


def _phrase(record: RoundRecord) -> str:
    review = record.review
    changes = "; ".join(f"{a.parameter} {a.after}" for a in review.applied) if review else ""
    on = "stored rows" if record.replayed else f"{record.funnel['answered']} rows"
    return f"{record.round}: {on}, {record.reason[:160]}" + (f" -> {changes}" if changes else "")


def llm_sections(path: Path | None, environ: Mapping[str, str] = os.environ) -> Any:
    """The ``reviewer`` and ``prices`` sections of a budget.yaml; None without one."""
    if path is None:
        return None
    from agent.config_file import load_config

    found = load_config(path).model_dump(mode="json")
    return {"reviewer": found["reviewer"] | {"kind": "llm"}, "prices": found["prices"]}

"""How every reviewer did over all runs of a reports folder: held to what it foretold.

The records of the runs are the truth; what they say is kept in ``agent/index.py``'s file, so that
only runs that have changed since are read. The one idea: asked at the beginning of a run, it costs
milliseconds, and nothing that is wrong with a record or with the index keeps a run from beginning.
"""

import os
import sqlite3
import stat
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Protocol, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from agent import index
from agent.best import Measured, base
from agent.errors import StorageError
from agent.index import Index, Told
from agent.paths import RUN_ID
from agent.policy import Step
from agent.review import scored
from agent.review_records import ReviewRecord, Track

RECORD: Final = "run.json"
ROUNDS: Final = "rounds"
_Model = TypeVar("_Model", bound=BaseModel)
_Rows = Annotated[int, Field(ge=0, le=2_000_000)]
"""A count of a round's rows, within what can be compared in a second."""


class _NoRun(Exception):
    """A folder whose records do not count."""


class Reviewed(Measured, Protocol):
    """A round, as far as reviewers are held to account for it."""

    @property
    def step(self) -> str:
        """What the policy decided."""
        ...

    @property
    def review(self) -> ReviewRecord | None:
        """The review that followed."""
        ...


class _Review(ReviewRecord):
    reviewer: str = Field(max_length=1000)
    cost_usd: float = Field(ge=0, le=1e9)


class _Metric(BaseModel):
    name: str
    count: _Rows | None = None
    n: _Rows = 0


class _Round(BaseModel):
    """What is read of a round's record, whatever else an older program wrote there.

    Every figure has bounds, so that whatever a file says can be counted.
    """

    round: int = Field(ge=1, le=1_000_000)
    step: str = ""
    replayed: bool = False
    funnel: dict[str, _Rows] = {"generated": 0, "answered": 0, "unflagged": 0}
    metrics: tuple[_Metric, ...] = ()
    review: _Review | None = None

    @model_validator(mode="after")
    def _of_one_draw(self) -> "_Round":
        found = [self.funnel.get(name) for name in ("unflagged", "answered", "generated")]
        if None in found or found[0] > found[1]:  # type: ignore[operator]
            raise ValueError("its rows do not add up")
        return self

    def metric(self, name: str) -> dict[str, Any] | None:
        """The metric called ``name``, or None."""
        return next((m.model_dump() for m in self.metrics if m.name == name), None)


class _Run(BaseModel):
    """What is read of a run's record."""

    run_id: str = Field(max_length=200)


@dataclass(frozen=True, slots=True)
class Tracks:
    """How reviewers did."""

    by_reviewer: tuple[Track, ...]
    """Each of them, by name."""
    runs: int
    """Runs that were looked at."""
    skipped: dict[str, str]
    """Those of them whose records do not count, and why."""
    note: str
    """What is wrong with the index; empty if nothing is."""


def tracks(root: Path, *, rebuild: bool = False) -> Tracks:
    """How reviewers did in the runs of a reports folder, as they stand now.

    The index there is brought up to date; if it cannot be used it is made again, and if it cannot
    be written the answer is the same. Nothing is written where there is nothing to be kept. With
    ``rebuild`` every run is read again.
    """
    found, wrong = (Index(), "") if rebuild else index.load(root / index.NAME)
    try:
        return _up_to_date(found, root, wrong)
    except (sqlite3.Error, ValidationError) as error:
        return _up_to_date(Index(), root, f"it is damaged: {type(error).__name__}")


def of_rounds(rounds: Sequence[Reviewed]) -> tuple[Track, ...]:
    """How reviewers did in the rounds of one run, counted in the same way."""
    with closing(Index()) as counted:
        counted.enter("", "", _told(rounds))
        return counted.tracks()


def _up_to_date(known: Index, root: Path, wrong: str) -> Tracks:
    with closing(known):
        now, before = _stamps(root), known.stamps()
        gone = before.keys() - now.keys()
        changed = [run_id for run_id, stamp in now.items() if before.get(run_id) != stamp]
        known.forget(gone)
        for run_id in changed:
            _enter(known, root / run_id, now[run_id])
        unkept = _keep(known, root / index.NAME) if wrong or gone or changed else ""
        answer = known.tracks(), len(now), known.problems()
    return Tracks(*answer, note="; ".join(filter(None, (wrong, unkept))))


def _stamps(root: Path) -> dict[str, str]:
    """Every run with what changes when one of its records does: no record is opened."""
    stamps = {}
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if RUN_ID.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                    with suppress(OSError):
                        stamps[entry.name] = _stamp(entry.path)
    except OSError:
        return {}
    return stamps


def _stamp(folder: str) -> str:
    """A record is always replaced by a new file, which its folder's time tells of."""
    run = os.lstat(f"{folder}/{RECORD}")
    try:
        rounds = os.lstat(f"{folder}/{ROUNDS}").st_ctime_ns
    except OSError:
        rounds = 0
    return f"{run.st_size} {run.st_ctime_ns} {rounds}"


def _enter(known: Index, folder: Path, stamp: str) -> None:
    """Read a run's records; what cannot be opened now is tried again next time."""
    try:
        known.enter(folder.name, stamp, _told(_rounds(folder)))
    except OSError as error:
        known.enter(folder.name, "", (), problem=f"it cannot be read: {error.strerror or error}")
    except _NoRun as error:
        known.enter(folder.name, stamp, (), problem=str(error))


def _rounds(folder: Path) -> list[_Round]:
    run = _parsed(folder / RECORD, _Run)
    if run.run_id != folder.name:
        raise _NoRun(f"it is a copy of run {run.run_id!r}, or was renamed")
    if (folder / ROUNDS).is_symlink():
        raise _NoRun(f"{ROUNDS} is a link")
    files = [path for path in (folder / ROUNDS).glob("*.json") if path.stem.isdecimal()]
    return sorted((_parsed(path, _Round) for path in files), key=lambda found: found.round)


def _parsed(path: Path, model: type[_Model]) -> _Model:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise _NoRun(f"{path.name} is not a file of its own")
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise _NoRun(f"{path.name} is damaged") from error


def _told(rounds: Sequence[Reviewed]) -> list[Told]:
    """Reviews as they count: scored again, so that records without scores count, too."""
    reviews = {r.round: r.review for r in rounds if r.review is not None}
    undone = {number - 1 for number, review in reviews.items() if review.base is not None}
    if rounds and _lost_last(rounds):
        undone.add(rounds[-1].round - 1)
    return [
        Told(
            round=number,
            reviewer=review.reviewer,
            cost_usd=review.cost_usd,
            reverted=number in undone,
            outcomes=scored((o.prediction, o.actual) for o in review.outcomes),
        )
        for number, review in reviews.items()
    ]


def _lost_last(rounds: Sequence[Reviewed]) -> bool:
    """Whether the last round, which no review followed, would have been undone by one."""
    last = rounds[-1]
    open_ = last.review is None and last.step != Step.APPROVE
    return open_ and base(rounds).round != last.round


def _keep(known: Index, path: Path) -> str:
    """Write the index; what keeps it from being written, if anything does."""
    try:
        index.save(known, path)
    except StorageError as error:
        return f"it cannot be written: {error.__cause__}"
    return ""

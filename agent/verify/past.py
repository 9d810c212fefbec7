"""A session with the past: the run's own stages, given what was bought and nothing to buy with.

Which stages are done again, and in which order, is ``again.py``'s. The one idea: reading goes to
the run's folder and its books, writing stays in memory, so that the code that made a run says what
it must have written, and changes nothing.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agent.config_file import check_config
from agent.errors import RunError
from agent.money.approval import Approvals, Plan
from agent.money.chain import read
from agent.money.database import RunDatabase
from agent.money.journal import Journal
from agent.money.ledger import Ledger
from agent.money.metered import EngineMeter, Lease
from agent.records import RoundRecord, RunRecord
from agent.review_records import Review
from agent.reviewers.base import Pay
from agent.session import Session
from agent.store import RunStore, canonical_json
from agent.verify.timeline import Timeline
from pipeline.engine.base import Engine

QUIET: Final[Callable[[Mapping[str, Any]], None]] = lambda event: None  # noqa: E731


class NotBought(RunError):
    """The run had not come so far when it was last worked on."""


def as_json(value: Any) -> bytes:
    """A JSON file as a store writes it."""
    text = json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False)
    return f"{text}\n".encode("utf-8", errors="replace")


class MemoryStore(RunStore):
    """A run's folder that is read, with all that is written kept in memory."""

    def __init__(self, path: Path, record: RunRecord) -> None:
        super().__init__(path.parent, path.name)
        self.run_id = record.run_id
        self.run = record
        self.runs = [record]
        """The run's record after each note, the beginning first."""
        self.versions: dict[int, list[bytes]] = {}
        """Every round's record as it was written one time after another."""
        self.rounds: dict[int, RoundRecord] = {}
        self.reported: list[tuple[RunRecord, tuple[RoundRecord, ...]]] = []
        """Records each time that reports were rendered from them on the way."""
        self.written: dict[str, bytes] = {}
        self.made: dict[str, list[dict[str, Any]]] = {}
        self.sound: set[str] = set()
        """Artifacts that were read, and have the hash that is their name."""

    def write_bytes(self, relative: str, content: bytes) -> Path:
        """Remember what would be written."""
        self.written[relative] = content
        return self.path / relative

    def put_artifact(self, rows: Iterable[Mapping[str, Any]]) -> str:
        """The name that rows would be kept under."""
        kept = [dict(row) for row in rows]
        content = "".join(f"{canonical_json(row)}\n" for row in kept)
        name = hashlib.sha256(content.encode("ascii")).hexdigest()
        self.made[name] = kept
        return name

    def get_artifact(self, sha256: str) -> list[dict[str, Any]]:
        """The rows kept under ``sha256``, or made since.

        Raises:
            RunError: if they are missing, or are not what was kept.
        """
        if sha256 in self.made:
            return self.made[sha256]
        rows = super().get_artifact(sha256)
        self.sound.add(sha256)
        return rows

    def save_round(self, record: RoundRecord) -> None:
        """Remember a round, as it would be read back."""
        content = as_json(record.model_dump(mode="json"))
        self.versions.setdefault(record.round, []).append(content)
        self.rounds[record.round] = RoundRecord.model_validate_json(content)

    def load_rounds(self) -> tuple[RoundRecord, ...]:
        """The rounds done again so far."""
        return tuple(self.rounds[number] for number in sorted(self.rounds))

    def save_run(self, record: RunRecord) -> None:
        """Remember the run's record, as it would be read back."""
        self.run = RunRecord.model_validate_json(as_json(record.model_dump(mode="json")))
        self.runs.append(self.run)

    def load_run(self) -> RunRecord:
        """The run's record as far as it is done again."""
        return self.run

    @contextmanager
    def replacing_folder(self, relative: str) -> Iterator[Path]:
        """A folder elsewhere; what is written into it is remembered."""
        memory = Path("/dev/shm")
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
            folder = Path(name)
            yield folder
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                inner = path.relative_to(folder).as_posix()
                self.written[f"{relative}/{inner}"] = path.read_bytes()


class _NoEngine(EngineMeter):
    """Finds what was bought, and buys nothing."""

    def run(
        self,
        op_id: str,
        work: Callable[[Engine], dict[str, Any]],
        *,
        stage: str,
        round: int | None = None,
    ) -> dict[str, Any]:
        """The stored result.

        Raises:
            NotBought: if there is none.
        """
        if self.journal.find(op_id) is None:
            raise NotBought(f"{op_id} was not bought yet")
        return super().run(op_id, work, stage=stage, round=round)


class _Offered(Approvals):
    """Plans as they were offered; none is offered anew."""

    def offer(self, plan: Plan) -> str:
        """The plan's hash."""
        return plan.hash

    def in_use(self) -> str | None:
        """None: when the first plan was offered, none was in use."""
        return None


@dataclass(frozen=True, slots=True)
class _Named:
    """Whoever reviewed, by name alone."""

    name: str

    def review(self, learnings: str, rounds: Sequence[RoundRecord], *, pay: Pay) -> Review:
        """Nobody is asked again."""
        raise NotBought("no reviewer is asked again")


@dataclass(slots=True)
class Past(Session):
    """A session in which everything has happened already."""

    memory: MemoryStore = field(kw_only=True)
    """The store, by what it remembers."""
    timeline: Timeline = field(kw_only=True)
    """The books at every moment."""

    def write_reports(self) -> None:
        """Remember what they would be rendered from; those of the end are rendered later."""
        self.memory.reported.append((self.memory.run, self.memory.load_rounds()))

    def close_envelope(self, envelope: str) -> None:
        """The books have closed it."""

    def found(self, op_id: str) -> dict[str, Any]:
        """The result of a paid operation, with what it re-planned taken over.

        Raises:
            NotBought: if there is none.
        """
        return self.buy(op_id, _nothing, QUIET, stage="")

    def posted(self, op_id: str) -> int:
        """Place of the entry that paid for an operation's result.

        Raises:
            NotBought: if it has none.
        """
        stored = self.journal.find(op_id)
        place = None if stored is None else self.timeline.place("post", stored.attempt)
        if place is None:
            raise NotBought(f"{op_id} was not bought yet")
        return place

    def stand(self, low: int, high: int, fits: Callable[[Ledger], bool]) -> None:
        """Set the books to the first place that fits."""
        self.ledger = self.timeline.first(low, high, fits)

    def reviewed_by(self, name: str) -> None:
        """Name the reviewer of what follows."""
        self.reviewer = _Named(name)


def _nothing(engine: Engine) -> dict[str, Any]:
    raise NotBought("nothing is bought again")


def open_past(path: Path, record: RunRecord, database: RunDatabase) -> Past:
    """The past of the run in ``path``, as its record began.

    Raises:
        AgentError: if its configuration or its books cannot be read.
    """
    store = MemoryStore(path, record)
    config = check_config(record.config, source=str(path / "run.json"))
    timeline = Timeline(read(database))
    journal = Journal(Ledger(database))
    lease = Lease(record.device_price_usd_per_hour or 0.0, config.engine.lease_seconds)
    return Past(
        config=config,
        store=store,
        ledger=timeline.at(0),
        journal=journal,
        approvals=_Offered(database),
        meter=_NoEngine(journal, _no_engine, lease=lease),
        reviewer=_Named("rules"),
        reviewer_reason="",
        memory=store,
        timeline=timeline,
    )


def _no_engine() -> Engine:
    raise NotBought("no engine is opened")

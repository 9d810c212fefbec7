"""One process's hold on one run: its folder, its books, its engine meter, its reviewer.

Stages are given a session and nothing else. It opens what a run needs in the right order, keeps
``run.json`` and the reports in step with the records, and closes the engine whatever happens.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from agent.committed import Committed
from agent.config import RunConfig
from agent.config_file import check_config
from agent.engines import engine_spec, find_model, price_per_hour
from agent.errors import RunError
from agent.files import sweep
from agent.index import NAME as INDEX
from agent.least import check_sub_caps, lease_of
from agent.lock import RunLock
from agent.money.amounts import cap_to_micro
from agent.money.approval import Approvals, Plan
from agent.money.database import RunDatabase
from agent.money.journal import Journal
from agent.money.killed import cost_of_killed
from agent.money.ledger import Ledger
from agent.money.metered import EngineMeter
from agent.policy import Decision
from agent.records import RunRecord
from agent.report.render import render_all
from agent.reviewers import choose_reviewer
from agent.reviewers.base import Reviewer
from agent.store import RunStore
from agent.tracks import tracks
from pipeline.engine import open_engine
from pipeline.engine.base import Engine, EngineSpec

OpenEngine = Callable[[EngineSpec], Engine]
Show = Callable[[Mapping[str, Any]], None]
"""Where a stage sends what the display shows."""


def program_version() -> str:
    """Version of the installed distribution."""
    try:
        return version("sft-assay")
    except PackageNotFoundError:
        return "unknown"


@dataclass(slots=True)
class Session:
    """What the stages of a run work with."""

    config: RunConfig
    """The run's own configuration, as stored when it began."""
    store: RunStore
    """Its folder."""
    ledger: Ledger
    """Its money."""
    journal: Journal
    """What was paid for, and what came of it."""
    approvals: Approvals
    """Plans, and a person's answers to them."""
    meter: EngineMeter
    """The engine, and its price."""
    reviewer: Reviewer
    """Who is asked when a round does not pass."""
    reviewer_reason: str
    """Which reviewer it is, and why."""
    committed: Committed = field(default_factory=Committed)
    """What scale has bought, as far as this process has read it."""

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.store.run_id

    def paid(self, op_id: str) -> dict[str, Any]:
        """The stored result of an operation that was paid for."""
        found = self.journal.find(op_id)
        if found is None:
            raise RunError(
                f"the journal of run {self.run_id!r} holds no result of {op_id!r}, which its "
                "records name: restore the run's folder from a copy, or start another run"
            )
        return found.result

    def has(self, op_id: str) -> bool:
        """Whether an operation was paid for and has a result."""
        return self.journal.find(op_id) is not None

    def buy(
        self,
        op_id: str,
        work: Callable[[Engine], dict[str, Any]],
        show: Show,
        *,
        stage: str,
        round: int | None = None,
    ) -> dict[str, Any]:
        """The result of one micro-batch, bought or found bought.

        A smaller batch that it forced on the engine is shown, and is the run's from then on.

        Raises:
            BudgetError: if its worst case does not fit under the cap.
            EngineError: if the engine fails.
        """
        try:
            return self.meter.run(op_id, work, stage=stage, round=round)
        finally:
            for replan in self.meter.replans:
                show({"kind": "replan", "text": replan.describe()})
                self._hold_to(replan.after)

    def _hold_to(self, batch_size: int) -> None:
        run = self.store.load_run()
        if run.engine is not None and run.engine.get("batch_size") != batch_size:
            engine = run.engine | {"batch_size": batch_size}
            self.note(run.status, run.reason, engine=engine)

    def money(self) -> dict[str, float]:
        """What the display shows of the ledger."""
        totals = self.ledger.totals()
        return {"confirmed_usd": totals.confirmed_usd, "limit_usd": totals.limit_usd}

    def note(self, status: str, reason: str, **facts: Any) -> None:
        """Bring ``run.json`` up to date; ``facts`` are further fields of :class:`RunRecord`."""
        totals = self.ledger.totals()
        record = self.store.load_run().model_copy(
            update={
                "status": status,
                "reason": reason,
                "confirmed_usd": totals.confirmed_usd,
                "possible_usd": totals.possible_usd,
                **facts,
            }
        )
        self.store.save_run(record)

    def write_reports(self) -> None:
        """Render every report and picture of the run from its records."""
        run, rounds = self.store.load_run(), self.store.load_rounds()
        for name, content in render_all(run, rounds).items():
            if isinstance(content, str):
                self.store.write_text(name, content)
            else:
                self.store.write_bytes(name, content)

    def read_committed(self, plan: Plan) -> Committed:
        """What scale has bought under ``plan``, read up to now."""
        self.committed.read(self.journal, self.store, shard_rows=plan.shard_rows)
        return self.committed

    def draw_on(self, envelope: str) -> None:
        """From now on the engine is paid for from an approved envelope."""
        self.meter.journal = self.journal.within(envelope)

    def close_envelope(self, envelope: str) -> None:
        """Free what an approved plan did not need."""
        self.meter.release()
        self.meter.journal = self.journal
        self.ledger.close_envelope(envelope)

    def finish(self, decision: Decision) -> None:
        """Release the engine and record how the run ended."""
        self.meter.release()
        self.note(decision.step.value.lower(), decision.reason)
        self.write_reports()


def create_run(root: Path, run_id: str, config: RunConfig, *, show: Show | None = None) -> None:
    """Make the folder and the books of a run that does not exist yet.

    How reviewers did in all other runs is put into its record, and stays there as it was then.

    Raises:
        ConfigError: if a price or a reviewer's key is missing, or a stage's cap pays for nothing.
        EngineError: if there is no such model.
        RunError: if the id is taken or not valid.
    """
    price = price_per_hour(config)
    find_model(config)
    chosen, reviewer = choose_reviewer(
        config.reviewer, config.prices, os.environ, config.pilot.seed
    )
    check_sub_caps(config, lease_of(config, chosen))
    store = RunStore.create(root, run_id)
    earlier = tracks(root)
    if show and earlier.note:
        show({"kind": "phase", "text": f"{INDEX}: {earlier.note}; the runs' own records are used"})
    record = RunRecord(
        run_id=run_id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=program_version(),
        config=config.model_dump(mode="json"),
        config_digest=config.digest(),
        engine=None,
        device_price_usd_per_hour=price,
        reviewer=reviewer,
        limit_usd=config.budget.limit_usd,
        confirmed_usd=0.0,
        possible_usd=0.0,
        status="running",
        reason="just begun",
        tracks=earlier.by_reviewer,
    )
    # Once the record is there the run exists; opening it makes the books if they are missing.
    store.save_run(record)


@contextmanager
def open_session(
    root: Path,
    run_id: str,
    *,
    engine: OpenEngine = open_engine,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Session]:
    """Take the run's lock, settle what a dead process left, and give the engine back at the end.

    Raises:
        RunError: if there is no such run, or its records are damaged.
        RunLocked: if another process works on it.
    """
    store = RunStore.open(root, run_id)
    run = store.load_run()
    config = check_config(run.config, source=str(store.path / "run.json"))
    with (
        RunLock(store.lock_path) as lock,
        RunDatabase(store.database_path, create=True) as database,
    ):
        Ledger.create(database, cap_to_micro(run.limit_usd), sub_caps=_sub_caps(config))
        database.claim()
        store.fence = database.transaction
        sweep(store.path)
        session = _assemble(store, database, config, engine=engine, clock=clock)
        rate = session.meter.lease.usd_per_hour
        known = cost_of_killed(session.ledger, usd_per_hour=rate, last_alive=lock.last_alive)
        session.ledger.reconcile(known)
        try:
            yield session
        finally:
            session.meter.release()


def _assemble(
    store: RunStore,
    database: RunDatabase,
    config: RunConfig,
    *,
    engine: OpenEngine,
    clock: Callable[[], float],
) -> Session:
    ledger = Ledger(database)
    journal = Journal(ledger)
    reviewer, reason = choose_reviewer(
        config.reviewer, config.prices, os.environ, config.pilot.seed
    )
    lease = lease_of(config, reviewer)
    return Session(
        config=config,
        store=store,
        ledger=ledger,
        journal=journal,
        approvals=Approvals(database),
        meter=EngineMeter(journal, lambda: engine(_spec(config, store)), lease=lease, clock=clock),
        reviewer=reviewer,
        reviewer_reason=reason,
    )


def _sub_caps(config: RunConfig) -> dict[str, int]:
    return {name: cap_to_micro(usd) for name, usd in config.budget.sub_caps.items()}


def _spec(config: RunConfig, store: RunStore) -> EngineSpec:
    """The configured engine, with the batch size that the run has come to."""
    engine = store.load_run().engine or {}
    spec = engine_spec(config.engine, os.environ)
    return replace(spec, batch_size=engine.get("batch_size", spec.batch_size))

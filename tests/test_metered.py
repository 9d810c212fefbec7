from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import Clock, in_memory, open_books

from agent.errors import BudgetError, EngineError, LedgerError, StorageError
from agent.money import chain
from agent.money.audit import audit
from agent.money.journal import Journal
from agent.money.metered import EngineMeter, Lease
from pipeline.engine.base import Engine, Replan
from pipeline.errors import EngineLost, EngineOutOfMemory, EngineTimeout
from pipeline.types import Completion, EngineInfo, GenRequest, Score, ScoreRequest

memory = pytest.fixture(in_memory)

DOLLAR = 1_000_000
RATE = 3600.0  # a dollar a second, so that seconds and dollars are the same number


class FakeEngine:
    info = EngineInfo("scripted", "m", "0", "cpu", "float32", "t", 1024)

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.closed = 0

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        return []

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[Score, ...]]:
        return []

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return []

    def close(self) -> None:
        self.clock.pass_(2)
        self.closed += 1


class Bench:
    """A meter, its clock, and engines that take 5 s to load and 2 s to close."""

    def __init__(
        self,
        folder: Path,
        dollars: int = 1000,
        envelope: int | None = None,
        sub_caps: dict[str, int] | None = None,
    ) -> None:
        self.clock = Clock()
        self.ledger = open_books(folder, dollars * DOLLAR, sub_caps=sub_caps)
        self.engines: list[FakeEngine] = []
        journal = Journal(self.ledger)
        if envelope is not None:
            self.ledger.reserve_envelope("plan", envelope * DOLLAR)
            journal = journal.within("plan")
        self.meter = EngineMeter(
            journal, self.open_engine, lease=Lease(RATE, seconds=100.0), clock=self.clock
        )

    def open_engine(self) -> Engine:
        self.clock.pass_(5)
        self.engines.append(FakeEngine(self.clock))
        return self.engines[-1]

    def run(self, op_id: str, seconds: float, error: BaseException | None = None) -> None:
        def work(engine: Engine) -> dict[str, object]:
            self.clock.pass_(seconds)
            if error is not None:
                raise error
            return {"done": op_id}

        assert self.meter.run(op_id, work, stage="pilot", round=1) == {"done": op_id}

    def rows(self) -> list[tuple[str, float, float]]:
        """What was posted, in that order: reserved and paid."""
        reserved = {row.op_id: row.worst_case for row in self.ledger.rows()}
        posted = [s.entry for s in chain.read(self.ledger.database) if s.entry.kind == "post"]
        return [(e.op_id, reserved[e.op_id] / DOLLAR, e.amount / DOLLAR) for e in posted]


def test_every_second_from_start_to_release_is_paid_for(memory: Path) -> None:
    bench = Bench(memory)
    bench.clock.pass_(50)
    bench.run("a", 10)
    bench.clock.pass_(3)
    bench.run("b", 20)
    bench.clock.pass_(1)
    bench.meter.release()
    bench.clock.pass_(50)
    # The pause before b is due already, so it is part of what b reserves.
    assert bench.rows() == [("a", 100, 15), ("b", 103, 23), ("engine-release", 5, 3)]
    spend = bench.ledger.spend(1)
    assert (spend.engine_seconds, spend.engine_usd) == (41.0, 41.0)
    assert (len(bench.engines), bench.engines[0].closed) == (1, 1)
    assert audit(bench.ledger.database) == ()


def test_a_stored_result_opens_no_engine(memory: Path) -> None:
    bench = Bench(memory)
    bench.run("a", 10)
    bench.meter.release()
    bench.run("a", 10)
    bench.meter.release()
    assert len(bench.engines) == 1
    assert [name for name, _, _ in bench.rows()] == ["a", "engine-release"]


def test_an_engine_opened_again_is_metered_again(memory: Path) -> None:
    bench = Bench(memory)
    for name in ("a", "b"):
        bench.run(name, 10)
        bench.meter.release()
        bench.clock.pass_(1000)
    assert bench.rows() == [
        ("a", 100, 15),
        ("engine-release", 5, 2),
        ("b", 100, 15),
        ("engine-release#2", 5, 2),
    ]


@pytest.mark.parametrize("error", [EngineError("x"), KeyboardInterrupt()])
def test_failed_work_is_paid_for_by_the_second(memory: Path, error: BaseException) -> None:
    bench = Bench(memory)
    with pytest.raises(type(error)):
        bench.run("a", 10, error)
    bench.run("a", 20)
    bench.meter.release()
    assert bench.rows() == [("a", 100, 15), ("a#2", 100, 20), ("engine-release", 5, 2)]


def test_an_engine_that_cannot_be_opened_is_paid_for_and_forgotten(memory: Path) -> None:
    bench = Bench(memory)

    def broken() -> Engine:
        bench.clock.pass_(7)
        raise EngineError("no model")

    meter = EngineMeter(
        Journal(bench.ledger), broken, lease=Lease(RATE, seconds=100.0), clock=bench.clock
    )
    for _ in range(2):
        with pytest.raises(EngineError):
            meter.run("a", lambda engine: {}, stage="pilot")
        bench.clock.pass_(50)
    meter.release()
    assert bench.rows() == [("a", 100, 7), ("a#2", 100, 7)]


def test_a_shorter_lease_is_taken_near_the_cap(memory: Path) -> None:
    bench = Bench(memory, dollars=90)
    bench.run("a", 5)
    # 80 of 90 are left, and 5 of them are kept for closing.
    with pytest.raises(BudgetError, match="at least 60 s"):
        bench.run("b", 16)
        bench.run("c", 1)
    bench.meter.release()
    assert bench.rows() == [("a", 85, 10), ("b", 75, 16), ("engine-release", 5, 2)]
    assert bench.ledger.totals().excess == 0


def test_a_pause_is_reserved_too_and_shortens_the_lease(memory: Path) -> None:
    bench = Bench(memory, dollars=90)
    bench.run("a", 5)
    bench.clock.pass_(10)
    # 80 are left: 10 are due for the pause, 5 kept for closing, 65 are the lease.
    bench.run("b", 1)
    assert bench.rows()[1] == ("b", 75, 11)


def test_the_time_that_booking_takes_is_paid_for(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(memory)
    real = bench.ledger.post

    def slow(*arguments: Any, **named: Any) -> None:
        real(*arguments, **named)
        bench.clock.pass_(4)

    with monkeypatch.context() as patch:
        patch.setattr(bench.ledger, "post", slow)
        bench.run("a", 10)
    bench.run("b", 1)
    assert [actual for _, _, actual in bench.rows()] == [15, 5]


def test_an_overrun_is_posted_and_shown(memory: Path) -> None:
    bench = Bench(memory, dollars=400)
    bench.run("a", 200)
    assert bench.rows() == [("a", 100, 205)]
    assert next(r for r in bench.ledger.rows() if r.op_id == "a").overrun == 105 * DOLLAR
    bench.run("b", 500)
    totals = bench.ledger.totals()
    # 5 of the 400 stay reserved for the engine's release.
    assert (totals.confirmed_usd, totals.excess / DOLLAR) == (395, 310)
    assert bench.ledger.spend(1).engine_usd == 705
    bench.meter.release()
    assert audit(bench.ledger.database) == ()


def test_within_an_envelope_the_lease_fits_the_envelope(memory: Path) -> None:
    bench = Bench(memory, envelope=130)
    bench.run("a", 45)
    bench.run("b", 20)
    with pytest.raises(BudgetError):
        bench.run("c", 1)
    bench.meter.release()
    assert bench.rows() == [("a", 100, 50), ("b", 75, 20), ("engine-release", 5, 2)]
    assert bench.ledger.close_envelope("plan") == 58 * DOLLAR
    assert bench.ledger.totals().confirmed_usd == 72


def test_an_envelope_is_not_closed_under_an_open_engine(memory: Path) -> None:
    bench = Bench(memory, envelope=130)
    bench.run("a", 45)
    with pytest.raises(LedgerError, match="pending"):
        bench.ledger.close_envelope("plan")
    bench.meter.release()
    assert bench.ledger.close_envelope("plan") == 78 * DOLLAR
    assert bench.ledger.totals().confirmed_usd == 52


def test_a_posting_that_fails_leaves_the_time_due(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(memory)
    bench.run("a", 10)

    def full(*_: object, **__: object) -> str:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(bench.meter.journal, "_store", full)
        with pytest.raises(StorageError):
            bench.run("b", 30)
    bench.run("b", 1)
    assert bench.rows() == [("a", 100, 15), ("b", 100, 30), ("b#2", 100, 1)]


def test_a_free_device_needs_no_money(memory: Path) -> None:
    bench = Bench(memory, dollars=0)
    bench.meter.lease = Lease(0.0, seconds=100.0)
    bench.run("a", 10)
    bench.meter.release()
    assert bench.ledger.spend().engine_seconds == 17.0


def test_the_money_to_finish_cannot_be_spent_on_anything_else(memory: Path) -> None:
    bench = Bench(memory, dollars=200)
    bench.run("a", 10)
    with pytest.raises(BudgetError):
        bench.ledger.reserve("review", 181 * DOLLAR, stage="review")
    bench.ledger.reserve("review", 180 * DOLLAR, stage="review")
    bench.clock.pass_(3)
    bench.ledger.post("review", 180 * DOLLAR)
    bench.meter.release()
    assert bench.rows()[-1] == ("engine-release", 5, 5)
    totals = bench.ledger.totals()
    assert (totals.confirmed_usd, totals.remaining, totals.excess) == (200, 0, 0)
    assert audit(bench.ledger.database) == ()


def test_a_pause_that_is_expected_is_set_aside_except_within_a_plan(memory: Path) -> None:
    bench = Bench(memory)
    bench.meter.lease = Lease(RATE, seconds=100.0, pause_seconds=120.0)
    bench.run("a", 10)
    assert bench.ledger.totals().pending == 125 * DOLLAR
    bench.meter.release()
    bench.ledger.reserve_envelope("plan", 200 * DOLLAR)
    bench.meter.journal = bench.meter.journal.within("plan")
    bench.run("b", 10)
    envelope = bench.ledger.envelope("plan")
    assert envelope is not None and envelope.held == 5 * DOLLAR


def test_a_lease_is_shortened_near_a_stages_own_cap(memory: Path) -> None:
    bench = Bench(memory, sub_caps={"pilot": 90 * DOLLAR})
    bench.run("a", 5)
    with pytest.raises(BudgetError, match=r"the pilots' \$90\.00 pays for .* at least 60 s"):
        bench.run("b", 16)
        bench.run("c", 1)
    bench.meter.release()
    assert bench.rows() == [("a", 85, 10), ("b", 75, 16), ("engine-release", 5, 2)]
    assert bench.ledger.sub_caps()[0].remaining == 62 * DOLLAR


def test_release_without_an_engine_books_nothing(memory: Path) -> None:
    bench = Bench(memory)
    bench.meter.release()
    assert bench.rows() == []


class LeasedEngine(FakeEngine):
    """It knows its lease, dies at its end, and re-plans when told to."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.leases: list[float] = []
        self.replans: tuple[Replan, ...] = ()

    def lease(self, seconds: float) -> None:
        self.leases.append(seconds)

    def work(self, seconds: float, *, dying: float = 0.0) -> None:
        if seconds > self.leases[-1]:
            self.clock.pass_(self.leases[-1] + dying)
            raise EngineTimeout("its lease ended")
        self.clock.pass_(seconds)


class LeasedBench(Bench):
    def open_engine(self) -> Engine:
        self.clock.pass_(5)
        self.engines.append(LeasedEngine(self.clock))
        return self.engines[-1]

    def run(self, op_id: str, seconds: float, error: BaseException | None = None) -> None:
        def work(engine: Engine) -> dict[str, object]:
            assert isinstance(engine, LeasedEngine)
            engine.work(seconds, dying=0.25)
            if error is not None:
                raise error
            return {}

        self.meter.run(op_id, work, stage="pilot", round=1)

    @property
    def leases(self) -> list[float]:
        return [s for e in self.engines if isinstance(e, LeasedEngine) for s in e.leases]


def test_an_engine_is_leased_what_was_reserved_loading_included(memory: Path) -> None:
    bench = LeasedBench(memory, dollars=140)
    bench.run("a", 10)
    bench.clock.pass_(3)
    bench.run("b", 20)
    # 102 are left, and 5 of them are kept for closing.
    bench.run("c", 5)
    assert bench.leases == [95, 100, 97]


def test_an_engine_that_its_lease_ended_costs_its_lease_and_is_released(memory: Path) -> None:
    bench = LeasedBench(memory)
    with pytest.raises(EngineTimeout):
        bench.run("a", 500)
    assert bench.meter.engine is None and bench.engines[0].closed == 1
    assert bench.rows() == [("a", 100, 100), ("engine-release", 5, 2.25)]
    assert next(r for r in bench.ledger.rows() if r.op_id == "a").overrun == 0
    bench.run("a", 10)
    assert bench.rows()[2] == ("a#2", 100, 15), "another engine was opened"
    assert audit(bench.ledger.database) == ()


@pytest.mark.parametrize("error", [EngineLost("x"), EngineOutOfMemory("x")])
def test_an_engine_that_was_lost_is_paid_up_to_now_and_released(
    memory: Path, error: EngineError
) -> None:
    bench = LeasedBench(memory)
    with pytest.raises(type(error)):
        bench.run("a", 10, error)
    assert bench.rows() == [("a", 100, 15), ("engine-release", 5, 2)]
    assert bench.meter.engine is None
    bench.meter.release()
    assert len(bench.rows()) == 2


def test_what_an_engine_re_planned_stands_in_the_result_of_that_operation(memory: Path) -> None:
    bench = LeasedBench(memory)
    replan = Replan("no room", 96, 48)

    def work(engine: Engine) -> dict[str, Any]:
        assert isinstance(engine, LeasedEngine)
        engine.replans += (replan,)
        return {"done": True}

    told = {"done": True, "replans": [{"cause": "no room", "before": 96, "after": 48}]}
    assert bench.meter.run("a", work, stage="pilot") == told
    assert bench.meter.replans == (replan,)
    assert bench.meter.run("b", lambda e: {}, stage="pilot") == {}
    assert bench.meter.replans == ()
    assert bench.meter.run("a", work, stage="pilot") == told
    assert bench.meter.replans == (replan,), "looked up"


def test_an_engine_stopped_while_it_opens_is_closed_and_paid_for(memory: Path) -> None:
    bench = Bench(memory)

    def opened() -> Engine:
        bench.meter.stop()
        return bench.open_engine()

    meter = EngineMeter(
        Journal(bench.ledger), opened, lease=Lease(RATE, seconds=100.0), clock=bench.clock
    )
    bench.meter = meter
    for _ in range(2):
        with pytest.raises(EngineLost, match="stopped"):
            meter.run("a", lambda engine: {}, stage="pilot")
    assert meter.engine is None and [e.closed for e in bench.engines] == [1], "opened once only"
    assert bench.rows() == [("a", 100, 5), ("engine-release", 5, 2)]


@pytest.mark.parametrize("error", [EngineError("x"), EngineTimeout("x")])
def test_an_opening_that_fails_after_its_lease_is_paid_for_in_full(
    memory: Path, error: EngineError
) -> None:
    bench = Bench(memory)

    def slow() -> Engine:
        bench.clock.pass_(120)
        raise error

    meter = EngineMeter(
        Journal(bench.ledger), slow, lease=Lease(RATE, seconds=100.0), clock=bench.clock
    )
    with pytest.raises(type(error)):
        meter.run("a", lambda engine: {}, stage="pilot")
    assert bench.rows() == [("a", 100, 100), ("engine-release", 5, 20)]
    meter.release()
    assert len(bench.rows()) == 2 and audit(bench.ledger.database) == ()

"""What a killed process is charged: up to its last sign of life, or in full where nobody knows."""

import json
import os
import time
from pathlib import Path

import pytest
from bookkeeping import Clock, child, in_memory, open_books, wait

from agent.lock import HEARTBEAT_SECONDS, RunLock
from agent.money.audit import audit
from agent.money.database import RunDatabase
from agent.money.killed import CLOSING, cost_of_killed
from agent.money.ledger import KILLED, UNKNOWN, Ledger

memory = pytest.fixture(in_memory)

DOLLAR = 1_000_000
RATE = 3600.0  # a dollar a second
KEEPER = """
import sys, time
from pathlib import Path
from agent.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def crash(folder: Path, *, stage: str, posted: bool, worst: int = 900) -> tuple[Ledger, Clock]:
    """Books in which a process died with an attempt under way, reserved at t = 1,030 s."""
    clock = Clock(1_000.0)
    ledger = open_books(folder, 5_000 * DOLLAR, clock)
    if posted:
        ledger.reserve("a", 10 * DOLLAR, stage="pilot")
        clock.pass_(10)
        ledger.post("a", 10 * DOLLAR)
    clock.now = 1_030.0
    ledger.reserve("b", worst * DOLLAR, stage=stage)
    ledger.database.close()
    database = RunDatabase(folder / "run.sqlite", clock=clock)
    database.claim()
    return Ledger(database), clock


@pytest.mark.parametrize(
    ("stage", "posted", "last_alive", "dollars", "note"),
    [
        pytest.param("pilot", False, 1_050.0, 22, KILLED, id="from its reservation"),
        pytest.param("pilot", True, 1_050.0, 42, KILLED, id="from what was posted last"),
        pytest.param("pilot", False, 1_029.5, 2, KILLED, id="at least two intervals"),
        pytest.param("pilot", False, 9_999.0, 900, KILLED, id="at most its worst case"),
        pytest.param("pilot", False, None, 900, UNKNOWN, id="in full when nobody can tell"),
        pytest.param("review", False, 1_050.0, 900, UNKNOWN, id="a review in full"),
    ],
)
def test_a_killed_attempt(
    memory: Path, stage: str, posted: bool, last_alive: float | None, dollars: int, note: str
) -> None:
    ledger, _ = crash(memory, stage=stage, posted=posted)
    ledger.reconcile(cost_of_killed(ledger, usd_per_hour=RATE, last_alive=last_alive))
    row = next(r for r in ledger.rows() if r.op_id == "b")
    assert (row.state, row.actual, row.note) == ("posted", dollars * DOLLAR, note)
    assert row.engine_seconds == (0 if stage == "review" else dollars), "a dollar a second"
    assert ledger.totals().pending == 0
    assert audit(ledger.database) == ()
    ledger.database.close()


@pytest.mark.parametrize(
    ("working", "dollars"),
    [
        pytest.param(False, [7, 12], id="an idle engine as long as it was"),
        pytest.param(True, [0, 7, 12], id="once, by the micro-batch under way"),
    ],
)
def test_the_time_of_an_engine_that_was_killed_is_paid_for_once(
    memory: Path, working: bool, dollars: list[int]
) -> None:
    clock = Clock(1_000.0)
    ledger = open_books(memory, 5_000 * DOLLAR, clock)
    ledger.reserve(CLOSING, 5 * DOLLAR, stage="pilot")
    ledger.reserve("a", 100 * DOLLAR, stage="pilot")
    clock.pass_(7)
    ledger.post("a", 7 * DOLLAR)
    if working:
        ledger.reserve("b", 100 * DOLLAR, stage="pilot")
    ledger.database.close()
    database = RunDatabase(memory / "run.sqlite", clock=clock)
    database.claim()
    ledger = Ledger(database)
    ledger.reconcile(cost_of_killed(ledger, usd_per_hour=RATE, last_alive=1_017.0))
    paid = sorted((row.actual or 0) // DOLLAR for row in ledger.rows())
    assert paid == dollars
    assert sum(row.engine_seconds for row in ledger.rows() if "killed" in row.note) == sum(
        (row.actual or 0) / DOLLAR for row in ledger.rows() if "killed" in row.note
    )
    assert (ledger.totals().pending, ledger.totals().excess) == (0, 0)
    assert audit(database) == ()
    database.close()


def test_a_holder_shows_that_it_is_alive(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with RunLock(path) as lock:
        assert lock.last_alive is None, "there was no holder before"
        os.utime(path, (0, 0))
        time.sleep(2.5 * HEARTBEAT_SECONDS)
        assert time.time() - path.stat().st_mtime < 2 * HEARTBEAT_SECONDS


def test_the_next_holder_learns_when_the_last_one_died(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    process = child(KEEPER, path)
    assert process.stdout is not None and process.stdout.readline().strip() == "held"
    process.kill()
    wait(process)
    died = time.time()
    with RunLock(path) as lock:
        assert lock.last_alive is not None
        assert abs(died - lock.last_alive) < 3 * HEARTBEAT_SECONDS


def test_after_a_restart_of_the_machine_nobody_can_tell(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with RunLock(path):
        pass
    told = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(told | {"boot": "another"}), encoding="utf-8")
    with RunLock(path) as lock:
        assert lock.last_alive is None

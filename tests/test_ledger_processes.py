"""Several processes at one ledger, and processes that are killed in the middle of a purchase."""

import os
import signal
from pathlib import Path

import pytest
from bookkeeping import CAP, child, in_memory, open_books, wait

from agent.money.audit import audit
from agent.money.database import RunDatabase
from agent.money.ledger import UNKNOWN, Ledger

memory = pytest.fixture(in_memory)

RACER = """
import random, sys, time
from pathlib import Path
from agent.money.database import RunDatabase
from agent.errors import BudgetError
from agent.money.ledger import Ledger

name = sys.argv[2]
chance = random.Random(name)
ledger = Ledger(RunDatabase(Path(sys.argv[1]) / "run.sqlite"))
refused = 0
print("ready", flush=True)
while not (Path(sys.argv[1]) / "go").exists():
    time.sleep(0.001)
for turn in range(50):
    op_id, worst = f"{name}-{turn}", chance.randint(1, 60)
    try:
        ledger.reserve(op_id, worst, stage="pilot", round=1)
    except BudgetError:
        refused += 1
        continue
    totals = ledger.totals()
    assert totals.possible <= totals.limit
    match chance.randrange(4):
        case 0: ledger.void(op_id)
        case 1: ledger.post(op_id, worst // 2); ledger.post(op_id, worst // 2)
        case 2: ledger.post(op_id, worst)
        case 3: pass
print(refused)
"""
DIER = """
import os, sys
from pathlib import Path
from agent.money.database import RunDatabase
from agent.money.ledger import Ledger

database = RunDatabase(Path(sys.argv[1]) / "run.sqlite")
database.claim()
ledger = Ledger(database)
ledger.reserve("first", 700, stage="pilot", round=1)
if sys.argv[2] == "inside":
    with database.transaction():
        ledger.post("first", 1)
        print("ready", flush=True)
        os.kill(os.getpid(), 19)
print("ready", flush=True)
os.kill(os.getpid(), 19)
"""


def test_racing_processes_never_exceed_the_cap(memory: Path) -> None:
    with RunDatabase(memory / "run.sqlite", create=True) as database:
        ledger = Ledger.create(database, 1500)
        racers = [child(RACER, memory, f"p{i}") for i in range(4)]
        assert [p.stdout.readline() for p in racers if p.stdout] == ["ready\n"] * 4
        (memory / "go").touch()
        results = [wait(p) for p in racers]
        assert [(status, errors) for status, _, errors in results] == [(0, "")] * 4
        refused = sum(int(out) for _, out, _ in results)
        assert refused > 0, "the race never met the cap"
        assert len(ledger.rows()) == 200 - refused
        pending = [row.op_id for row in ledger.rows() if row.state == "pending"]
        assert set(ledger.reconcile()) == set(pending)
        totals = ledger.totals()
        assert totals.confirmed == sum(row.actual or 0 for row in ledger.rows())
        assert (totals.pending, totals.excess) == (0, 0)
        assert audit(database) == ()


@pytest.mark.parametrize("where", ["between", "inside"])
def test_kill_9_between_reserve_and_post_is_charged_in_full(memory: Path, where: str) -> None:
    open_books(memory, CAP).database.close()
    process = child(DIER, memory, where)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGKILL)
    wait(process)
    ledger = open_books(memory, CAP)
    assert ledger.reconcile() == ("first",)
    (row,) = ledger.rows()
    assert (row.state, row.actual, row.note) == ("posted", 700, UNKNOWN)
    assert (ledger.totals().confirmed, ledger.totals().pending) == (700, 0)
    assert audit(ledger.database) == ()

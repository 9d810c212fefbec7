import sqlite3
import threading
from pathlib import Path

import pytest
from bookkeeping import Clock, child, in_memory, open_books, wait

from agent.errors import LedgerError, RunError, RunLocked, StorageError
from agent.money import database as module
from agent.money.database import RunDatabase

memory = pytest.fixture(in_memory)

FILLER = """
import resource, sys
from pathlib import Path
from agent.money.database import RunDatabase
from agent.errors import StorageError
from agent.money.ledger import Ledger
import signal

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger(RunDatabase(Path(sys.argv[1]) / "run.sqlite"))
size = (Path(sys.argv[1]) / "run.sqlite").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 4096, size + 4096))
done = 0
try:
    for turn in range(1000):
        ledger.reserve(f"op-{turn}", 1, stage="pilot", round=1)
        done += 1
except StorageError as error:
    print(done, error)
"""


def test_a_transaction_is_all_or_nothing(memory: Path) -> None:
    ledger = open_books(memory, 1000)
    with pytest.raises(RuntimeError), ledger.database.transaction():
        ledger.reserve("a", 1, stage="pilot")
        raise RuntimeError
    assert ledger.rows() == []


def test_an_inner_transaction_can_fail_alone(memory: Path) -> None:
    ledger = open_books(memory, 1000)
    with ledger.database.transaction():
        ledger.reserve("a", 1, stage="pilot")
        with pytest.raises(RuntimeError), ledger.database.transaction():
            ledger.reserve("b", 1, stage="pilot")
            raise RuntimeError
        ledger.reserve("c", 1, stage="pilot")
    assert [row.op_id for row in ledger.rows()] == ["a", "c"]


def test_an_inner_transaction_falls_with_the_outer_one(memory: Path) -> None:
    ledger = open_books(memory, 1000)
    with pytest.raises(RuntimeError), ledger.database.transaction():
        with ledger.database.transaction():
            ledger.reserve("a", 1, stage="pilot")
        raise RuntimeError
    assert ledger.rows() == []


def test_threads_share_it(memory: Path) -> None:
    ledger = open_books(memory, 1000)

    def spend(name: str) -> None:
        for turn in range(10):
            ledger.reserve(f"{name}-{turn}", 2, stage="pilot")
            ledger.post(f"{name}-{turn}", 1)

    threads = [threading.Thread(target=spend, args=(f"t{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (ledger.totals().confirmed, ledger.totals().pending) == (40, 0)


def test_a_runner_that_wakes_up_after_a_takeover_writes_nothing(memory: Path) -> None:
    sleeper = open_books(memory, 1000)
    sleeper.reserve("a", 10, stage="pilot")
    successor = open_books(memory, 1000)
    for act in (
        lambda: sleeper.post("a", 5),
        lambda: sleeper.void("a"),
        lambda: sleeper.reserve("b", 10, stage="pilot"),
    ):
        with pytest.raises(RunLocked, match="took"):
            act()
    assert [row.state for row in successor.rows()] == ["pending"]
    assert successor.reconcile() == ("a",)


def test_durability_settings(memory: Path) -> None:
    database = open_books(memory).database
    assert database.query("PRAGMA journal_mode")[0][0] == "truncate"
    assert database.query("PRAGMA synchronous")[0][0] == 3


def test_a_missing_file(memory: Path) -> None:
    with pytest.raises(RunError, match="never started"):
        RunDatabase(memory / "run.sqlite")


def test_a_damaged_file(memory: Path) -> None:
    path = memory / "run.sqlite"
    path.write_bytes(b"not a database" * 500)
    with pytest.raises(RunError, match="damaged"):
        RunDatabase(path)


def test_a_file_of_a_later_version(memory: Path) -> None:
    open_books(memory).database.close()
    raw = sqlite3.connect(memory / "run.sqlite")
    raw.execute("PRAGMA user_version=99")
    raw.close()
    with pytest.raises(RunError, match="version 99"):
        RunDatabase(memory / "run.sqlite")


def test_a_folder_that_is_not_there(memory: Path) -> None:
    with pytest.raises(StorageError, match="cannot be opened"):
        RunDatabase(memory / "none" / "run.sqlite", create=True)


def test_a_file_that_another_process_holds(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.05)
    ledger = open_books(memory)
    other = RunDatabase(memory / "run.sqlite", clock=Clock())
    with other, other.transaction(), pytest.raises(LedgerError, match="held by another process"):
        ledger.reserve("a", 1, stage="pilot")
    ledger.reserve("a", 1, stage="pilot")


def test_a_full_disk_keeps_what_was_acknowledged(memory: Path) -> None:
    open_books(memory).database.close()
    status, out, errors = wait(child(FILLER, memory))
    assert (status, errors) == (0, "")
    done, message = out.split(" ", 1)
    assert "resume" in message
    ledger = open_books(memory)
    assert int(done) > 0
    assert len(ledger.rows()) == int(done)
    ledger.reserve("after", 1, stage="pilot")

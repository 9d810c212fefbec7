import os
import sqlite3
import threading
from pathlib import Path

import pytest
from bookkeeping import Clock, child, in_memory, open_books, wait

from agent.errors import LedgerError, RunError, RunLocked, StorageError
from agent.money import chain
from agent.money import database as module
from agent.money.audit import audit
from agent.money.database import RunDatabase
from agent.money.ledger import Ledger

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


STRUCK = """
import os, sys
from pathlib import Path
from agent.money.database import RunDatabase
from agent.money.ledger import Ledger

database = RunDatabase(Path(sys.argv[1]) / "run.sqlite")
ledger = Ledger(database)
with database.transaction():
    database._sql.execute("PRAGMA cache_size=1")
    for turn in range(500):
        ledger.reserve(f"op-{turn}", 1, stage="pilot", round=1)
    os.kill(os.getpid(), 9)
"""


def look(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file, its content and when it was written."""
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


def test_a_reader_leaves_everything_as_it_is(memory: Path) -> None:
    ledger = open_books(memory, 1000)
    ledger.reserve("a", 10, stage="pilot")
    ledger.database.close()
    before = look(memory)
    with RunDatabase(memory / "run.sqlite", read_only=True) as reader:
        assert audit(reader) == ()
        assert [row.op_id for row in Ledger(reader).rows()] == ["a"]
        with pytest.raises(StorageError, match="read-only"):
            Ledger(reader).post("a", 5)
        with pytest.raises(StorageError, match="read-only"):
            reader.claim()
    assert look(memory) == before


def test_a_reader_needs_only_the_file(memory: Path) -> None:
    open_books(memory, 1000).database.close()
    copy = memory / "copy of a run #1?"
    copy.mkdir()
    (copy / "run.sqlite").write_bytes((memory / "run.sqlite").read_bytes())
    (copy / "run.sqlite").chmod(0o400)
    copy.chmod(0o500)
    with RunDatabase(copy / "run.sqlite", read_only=True) as reader:
        assert audit(reader) == ()
    assert [p.name for p in copy.iterdir()] == ["run.sqlite"]
    copy.chmod(0o700)


def test_a_reader_reads_while_a_run_works(memory: Path) -> None:
    ledger = open_books(memory, 1000)
    with RunDatabase(memory / "run.sqlite", read_only=True) as reader:
        for turn in range(1, 4):
            with ledger.database.transaction():
                ledger.reserve(f"a{turn}", 10, stage="pilot")
                ledger.post(f"a{turn}", 5)
                assert Ledger(reader).totals().confirmed == 5 * (turn - 1), "not committed yet"
            assert Ledger(reader).totals().confirmed == 5 * turn
            assert audit(reader) == ()


def test_what_a_killed_process_left_half_done_is_repaired_by_the_run_alone(memory: Path) -> None:
    open_books(memory, 1_000_000).database.close()
    assert wait(child(STRUCK, memory))[0] == -9
    before = look(memory)
    assert before["run.sqlite-journal"][0], "the transaction was not torn"
    with pytest.raises(RunError, match="resume the run once, which repairs it"):
        RunDatabase(memory / "run.sqlite", read_only=True)
    assert look(memory) == before
    assert open_books(memory, 1_000_000).rows() == []
    with RunDatabase(memory / "run.sqlite", read_only=True) as reader:
        assert audit(reader) == ()


def test_a_reader_of_an_empty_file(memory: Path) -> None:
    (memory / "run.sqlite").touch()
    with pytest.raises(RunError, match="version 0"):
        RunDatabase(memory / "run.sqlite", read_only=True)


def test_every_claim_is_sealed(memory: Path) -> None:
    first = open_books(memory, 1000)
    second = open_books(memory, 1000)
    assert (first.database.owner, second.database.owner) == (1, 2)
    claims = [s for s in chain.read(second.database) if s.entry.kind == "claim"]
    assert [(s.owner, s.entry.amount) for s in claims] == [(1, os.getpid()), (2, os.getpid())]
    with RunDatabase(memory / "run.sqlite") as database, pytest.raises(RunLocked):
        database.owner = 1
        database.claim()


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

import sqlite3
from pathlib import Path

import pytest
from bookkeeping import in_memory, open_books

from agent.money.audit import audit
from agent.money.database import RunDatabase

memory = pytest.fixture(in_memory)

TAMPERING = {
    "amount of an entry": "UPDATE entries SET amount = amount + 1 WHERE seq = 3",
    "stage of an entry": "UPDATE entries SET stage = 'review' WHERE seq = 2",
    "round of an entry": "UPDATE entries SET round = 2 WHERE seq = 2",
    "time of an entry": "UPDATE entries SET at = at + 1 WHERE seq = 1",
    "owner of an entry": "UPDATE entries SET owner = 7 WHERE seq = 2",
    "note of an entry": "UPDATE entries SET note = 'x' WHERE seq = 2",
    "hash of an entry": "UPDATE entries SET hash = 'x' WHERE seq = 2",
    "last entry cut off": "DELETE FROM entries WHERE seq = (SELECT max(seq) FROM entries)",
    "first entry cut off": "DELETE FROM entries WHERE seq = 1",
    "middle entry cut out": "DELETE FROM entries WHERE seq = 3",
    "posted": "UPDATE totals SET posted = posted - 1",
    "pending": "UPDATE totals SET pending = pending + 1",
    "cap": "UPDATE totals SET cap = cap + 1",
    "excess": "UPDATE totals SET excess = 1",
    "pinned hash": "UPDATE totals SET head = 'x'",
    "actual of an operation": "UPDATE operations SET actual = 1 WHERE op_id = 'a'",
    "worst case of an operation": "UPDATE operations SET worst_case = 1 WHERE op_id = 'b'",
    "an operation removed": "DELETE FROM operations WHERE op_id = 'c'",
    "an envelope": "UPDATE envelopes SET maximum = maximum + 1",
}


@pytest.fixture
def folder(memory: Path) -> Path:
    ledger = open_books(memory, 1000)
    ledger.reserve("a", 400, stage="pilot", round=1)
    ledger.post("a", 100)
    ledger.reserve_envelope("plan", 300)
    ledger.reserve("b", 200, stage="scale", envelope="plan")
    ledger.reserve("c", 50, stage="pilot", round=1)
    ledger.void("c")
    assert audit(ledger.database) == ()
    ledger.database.close()
    return memory


@pytest.mark.parametrize("statement", TAMPERING.values(), ids=TAMPERING)
def test_tampering_shows(folder: Path, statement: str) -> None:
    raw = sqlite3.connect(folder / "run.sqlite", isolation_level=None)
    raw.execute("DROP TRIGGER entries_stay")
    raw.execute("DROP TRIGGER entries_remain")
    raw.execute("PRAGMA foreign_keys=OFF")
    assert raw.execute(statement).rowcount > 0
    raw.close()
    with RunDatabase(folder / "run.sqlite") as database:
        assert audit(database)


def test_an_entry_above_the_cap_shows_even_if_tables_agree(folder: Path) -> None:
    raw = sqlite3.connect(folder / "run.sqlite", isolation_level=None)
    raw.execute("DROP TRIGGER entries_stay")
    raw.execute("UPDATE entries SET amount = 99 WHERE seq = 1")
    raw.close()
    with RunDatabase(folder / "run.sqlite") as database:
        assert any("exceeds the cap" in problem for problem in audit(database))

"""Whatever is changed in the books shows, and is named: each column of each row of each table."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import Clock, in_memory, open_books, plan

from agent.errors import RunError
from agent.money.approval import Approvals
from agent.money.audit import KEYS, audit
from agent.money.database import RunDatabase
from agent.money.journal import Journal, Outcome
from agent.money.schema import TABLES

memory = pytest.fixture(in_memory)

TRIGGERS = [statement for statement in TABLES if "TRIGGER" in statement]
DAMAGE = {
    "last entry cut off": "DELETE FROM entries WHERE seq = (SELECT max(seq) FROM entries)",
    "first entry cut off": "DELETE FROM entries WHERE seq = 1",
    "middle entry cut out": "DELETE FROM entries WHERE seq = 3",
    "all entries cut off": "DELETE FROM entries",
    **{f"a row of {table} removed": f"DELETE FROM {table} WHERE rowid IN"
       f" (SELECT max(rowid) FROM {table})" for table in KEYS},
    "two attempts in another order": "UPDATE operations SET rowid = 999 WHERE op_id = 'a'",
    "a row slipped in": "INSERT INTO owners VALUES (9, 1, 'x', 0)",
    "a result slipped in": "INSERT INTO results VALUES ('a', 'a', '{}')",
}  # fmt: skip
SCHEMA = {
    "a trigger": "DROP TRIGGER entries_stay",
    "an index": "DROP INDEX one_given",
    "another table": "CREATE TABLE more (x)",
    "a cap taken out": "UPDATE sqlite_schema SET sql = replace(sql,"
    " 'posted + pending <= cap', '1') WHERE name = 'totals'",
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Books in which every table holds rows and every kind of entry stands."""
    folder = tmp_path_factory.mktemp("books")
    clock = Clock()
    first = open_books(folder, 10_000_000, clock, sub_caps={"pilot": 4_000_000, "review": 1_000})
    first.reserve("a", 400, stage="pilot", round=1)
    clock.pass_(1.5)
    first.post("a", 100, engine_seconds=2.25)
    first.reserve("left", 50, stage="review", round=1)
    first.database.close()
    ledger = open_books(folder, 10_000_000, clock, sub_caps={"pilot": 4_000_000, "review": 1_000})
    ledger.reconcile()
    journal, approvals = Journal(ledger), Approvals(ledger.database)
    journal.once("r01/b000", worst_case=90, stage="pilot", round=1, do=lambda: Outcome({"x": 1}, 7))
    approvals.approve(approvals.offer(plan(examples=9)))
    approvals.reject("too dear")
    clock.pass_(2)
    approval = approvals.approve(approvals.offer(plan()))
    approvals.consume(approval, ledger)
    within = journal.within(approval)
    within.once("scale/b0", worst_case=900, stage="scale", do=lambda: Outcome({"y": None}, 500))
    ledger.reserve("scale/b1", 800, stage="scale", envelope=approval)
    ledger.reserve_envelope("other", 70)
    ledger.close_envelope("other")
    ledger.reserve("c", 50, stage="pilot", round=1)
    ledger.void("c", note="nothing was sent")
    approvals.approve(approvals.offer(plan(examples=10)))
    assert audit(ledger.database) == ()
    ledger.database.close()
    return folder / "run.sqlite"


def tampered(sound: Path, folder: Path, *statements: str, values: tuple[Any, ...] = ()) -> Path:
    """A copy of the books, changed behind the program's back; triggers are put back."""
    path = folder / "run.sqlite"
    shutil.copyfile(sound, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        for pragma in ("foreign_keys=OFF", "ignore_check_constraints=ON", "writable_schema=ON"):
            raw.execute(f"PRAGMA {pragma}")
        raw.execute("DROP TRIGGER entries_stay")
        raw.execute("DROP TRIGGER entries_remain")
        before = raw.total_changes
        for statement in statements:
            raw.execute(statement, values)
        assert raw.total_changes > before or any("sqlite_schema" in s for s in statements)
        for statement in TRIGGERS:
            raw.execute(statement)
    return path


def problems(path: Path) -> tuple[str, ...]:
    with RunDatabase(path, read_only=True) as database:
        return audit(database)


def other(value: object) -> object:
    """A value near ``value`` and of its type."""
    match value:
        case None:
            return 1
        case int() | float():
            return value + 1000
        case str():
            return value[:-1] + chr(ord(value[-1]) ^ 16) if value else "x"
    raise AssertionError(value)


def test_books_put_back_together_are_sound(sound: Path, memory: Path) -> None:
    assert problems(tampered(sound, memory, "UPDATE totals SET cap = cap")) == ()


def test_every_column_of_every_row_of_every_table_is_checked(sound: Path, memory: Path) -> None:
    with closing(sqlite3.connect(sound)) as raw:
        raw.row_factory = sqlite3.Row
        rows = {t: raw.execute(f"SELECT rowid AS place, * FROM {t}").fetchall()
                for t in (*KEYS, "entries")}  # fmt: skip
    assert all(rows.values()), "a table without rows would show nothing"
    changed = 0
    for table, found in rows.items():
        for row in found:
            for column in row.keys()[1:]:
                value = other(row[column])
                # An envelope and a plan are named by other tables' rows: text stays text.
                if value == 1 and column in ("envelope", "rejected"):
                    value = "x"
                path = tampered(
                    sound, memory, f"UPDATE {table} SET {column} = ? WHERE rowid = {row['place']}",
                    values=(value,),
                )  # fmt: skip
                said = problems(path)
                key = KEYS.get(table)
                named = (
                    f"entry {row['seq']} does not carry" if key is None and column != "seq"
                    else "does not carry" if key is None
                    else f"{table} {value!r} stands there" if column == key
                    else f"{table} {row[key]!r}: {column} is"
                )  # fmt: skip
                assert any(named in problem for problem in said), (table, column, said)
                changed += 1
    assert changed > 300, "columns of a run with every kind of row"


@pytest.mark.parametrize("statement", DAMAGE.values(), ids=DAMAGE)
def test_what_is_taken_out_or_slipped_in_shows(sound: Path, memory: Path, statement: str) -> None:
    assert problems(tampered(sound, memory, statement))


@pytest.mark.parametrize("statement", SCHEMA.values(), ids=SCHEMA)
def test_a_rule_that_was_taken_out_of_the_database_shows(
    sound: Path, memory: Path, statement: str
) -> None:
    path = tampered(sound, memory, "UPDATE totals SET cap = cap")
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("PRAGMA writable_schema=ON")
        raw.execute(statement)
    assert any("is not as this program makes it" in problem for problem in problems(path))


def test_an_entry_above_the_cap_shows_even_if_the_chain_was_sealed_anew(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_books(memory, 1000)
    database = ledger.database
    with monkeypatch.context() as patch:
        patch.setattr("agent.money.books._change", lambda *_, **__: None)
        ledger.reserve("a", 1001, stage="pilot")
    with database.transaction(), pytest.raises(sqlite3.IntegrityError):
        database.execute("UPDATE totals SET pending = 1001")
    said = audit(database)
    assert any("exceeds the cap" in problem for problem in said)


def test_text_that_is_no_text_is_named_as_damage(sound: Path, memory: Path) -> None:
    path = memory / "run.sqlite"
    content = sound.read_bytes()
    assert content.count(b"nothing was sent") >= 1
    path.write_bytes(content.replace(b"nothing was sent", b"nothing \xffas sent"))
    with pytest.raises(RunError, match="damaged"):
        problems(path)


def test_the_books_are_audited_as_of_one_instant(memory: Path) -> None:
    ledger = open_books(memory, 1_000_000)
    with RunDatabase(memory / "run.sqlite", read_only=True) as reader, reader.snapshot():
        assert reader.query("SELECT pending FROM totals")[0][0] == 0
        with pytest.MonkeyPatch.context() as patch:
            ledger.database._sql.execute("PRAGMA busy_timeout=10")
            patch.setattr("agent.money.database.WAIT_SECONDS", 0.01)
            with pytest.raises(Exception, match="held by another process"):
                ledger.reserve("a", 10, stage="pilot")
        assert audit(reader) == ()
    ledger.reserve("a", 10, stage="pilot")

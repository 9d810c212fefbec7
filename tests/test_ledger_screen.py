"""What the ledger command shows: of books made for it, while a run writes, and as CSV."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from bookkeeping import Clock
from builders import round_record, run_record, story
from typer.testing import CliRunner

from agent.__main__ import app
from agent.ledger_screen import CSV_COLUMNS, attempts_csv, ledger
from agent.money.database import RunDatabase
from agent.money.journal import Journal, Outcome
from agent.money.ledger import Ledger
from agent.store import RunStore

DOLLAR = 1_000_000
CLOCK = Clock(1_790_000_000.25)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    made = RunStore.create(tmp_path, "r")
    made.save_run(run_record(run_id="r", limit_usd=20.0))
    for record in story():
        made.save_round(record)
    return made


@pytest.fixture
def books(store: RunStore) -> Ledger:
    """$1 of preflight, $2 and $3 of pilots, $0.5 of a review of unknown outcome, $4 of scale."""
    database = RunDatabase(store.database_path, create=True, clock=CLOCK)
    made = Ledger.create(
        database, 20 * DOLLAR, sub_caps={"pilot": 8 * DOLLAR, "review": DOLLAR // 2}
    )
    journal = Journal(made)
    for name, stage, round_, dollars in (
        ("preflight", "preflight", None, 1),
        ("r01/b000", "pilot", 1, 2),
        ("r04/b000", "pilot", 4, 3),
    ):
        journal.once(
            name, worst_case=4 * DOLLAR, stage=stage, round=round_,
            do=lambda paid=dollars: Outcome({}, paid * DOLLAR, 60.0 * paid),  # type: ignore[misc]
        )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        journal.once("r01/review", worst_case=DOLLAR // 2, stage="review", round=1, do=_interrupted)
    made.reserve_envelope("approval-1", 9 * DOLLAR)
    journal.within("approval-1").once(
        "scale/b0", worst_case=5 * DOLLAR, stage="scale", do=lambda: Outcome({}, 4 * DOLLAR, 240.0)
    )
    return made


def _interrupted() -> Outcome:
    raise KeyboardInterrupt


def cells(text: str, first: str) -> list[str]:
    """The figures of the line that begins with ``first``."""
    line = next(line for line in text.splitlines() if line.strip().startswith(first))
    return re.split(r"\s{2,}", line.strip())[1:]


def test_the_table_says_every_figure(store: RunStore, books: Ledger) -> None:
    text = ledger(store.path.parent, "r").text
    assert cells(text, "preflight") == ["1", "60.0", "$1.000000", "$1.000000", "0", "0"]
    assert cells(text, "pilot") == ["1", "1", "120.0", "$2.000000", "$2.000000", "0", "0"]
    assert cells(text, "review") == ["1", "1", "0.0", "$0.500000", "$0.500000", "$0.500000", "0"]
    assert cells(text, "scale") == ["1", "240.0", "$4.000000", "$9.000000", "0", "0"]
    assert cells(text, "all") == ["5", "600.0", "$10.500000", "$15.500000", "$0.500000", "0"]
    assert cells(text, "the run") == ["$20.000000", "$10.500000", "$15.500000", "$4.500000"]
    assert cells(text, "pilots") == ["$8.000000", "$6.000000", "$6.000000", "$2.000000"]
    assert cells(text, "reviews") == ["$0.500000", "$0.500000", "$0.500000", "0"]
    assert "$0.500000 charged in full because the outcome is unknown" in text
    assert "beyond the cap" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_json_holds_the_same(store: RunStore, books: Ledger) -> None:
    data = json.loads(json.dumps(ledger(store.path.parent, "r").data))
    assert (data["confirmed_usd"], data["possible_usd"], data["remaining_usd"]) == (10.5, 15.5, 4.5)
    assert sum(s["confirmed_usd"] for s in data["stages"]) == data["confirmed_usd"]
    assert sum(s["possible_usd"] for s in data["stages"]) == data["possible_usd"]
    assert [s["limit_usd"] for s in data["sub_caps"]] == [8.0, 0.5, None]
    assert data["sub_caps"][2]["remaining_usd"] == 4.5


def test_a_row_is_priced_by_the_last_pilot_then_by_the_data_set(
    store: RunStore, books: Ledger
) -> None:
    rows = ledger(store.path.parent, "r").data["rows"]
    assert rows == {
        "kept": 355, "of": "round 4's pilot",
        "usd_per_row": 10.5 / 355, "alone_usd_per_row": 3 / 355,
    }  # fmt: skip
    store.save_run(run_record(run_id="r", dataset={"rows": 200}))
    screen = ledger(store.path.parent, "r")
    assert screen.data["rows"] == {
        "kept": 200, "of": "the data set", "usd_per_row": 0.0525, "alone_usd_per_row": 0.02
    }  # fmt: skip
    assert "which kept 200: $0.052 by all" in screen.text and "scale alone" in screen.text


def test_a_run_without_a_pilot_has_no_price_of_a_row(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path, "r")
    store.save_run(run_record(run_id="r"))
    store.save_round(round_record(1, replayed=True))
    with RunDatabase(store.database_path, create=True) as database:
        Ledger.create(database, DOLLAR)
    screen = ledger(tmp_path, "r")
    assert screen.data["rows"]["usd_per_row"] is None and "not known" in screen.text


def test_excess_is_said(store: RunStore, books: Ledger) -> None:
    books.reserve("late", 0, stage="pilot")
    books.post("late", 7 * DOLLAR, overrun=True)
    text = ledger(store.path.parent, "r").text
    assert "$2.500000 were spent beyond the cap" in text
    assert cells(text, "all")[-1] == "$2.500000"


def test_it_shows_while_the_run_writes_and_changes_nothing(store: RunStore, books: Ledger) -> None:
    with books.database.transaction():
        books.reserve("b", DOLLAR, stage="pilot", round=5)
        before = {p.name: p.read_bytes() for p in store.path.glob("run.sqlite*")}
        assert "15.500000" in ledger(store.path.parent, "r").text
        assert before == {p.name: p.read_bytes() for p in store.path.glob("run.sqlite*")}
    assert "16.500000" in ledger(store.path.parent, "r").text


def test_csv_is_one_line_an_attempt(store: RunStore, books: Ledger) -> None:
    text = attempts_csv(store.path.parent, "r")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 5 and tuple(rows[0]) == CSV_COLUMNS
    assert rows[-1] == {
        "op_id": "scale/b0", "stage": "scale", "round": "", "envelope": "approval-1",
        "worst_case_usd": "5.000000", "state": "posted", "actual_usd": "4.000000",
        "excess_usd": "0.000000", "engine_seconds": "240.000", "note": "",
        "reserved_at": "2026-09-21T14:13:20.250+00:00",
    }  # fmt: skip


@pytest.mark.parametrize("note", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_of_csv_is_a_formula(store: RunStore, books: Ledger, note: str) -> None:
    books.reserve("b", 1, stage="pilot")
    books.void("b", note=note)
    last = list(
        csv.DictReader(
            io.StringIO(
                attempts_csv(store.path.parent, "r"),
            )
        )
    )[-1]
    assert last["note"].startswith("'") and last["note"].endswith(note.strip())
    assert last["reserved_at"], "it stayed on its line"


def test_the_command(store: RunStore, books: Ledger) -> None:
    shell = CliRunner()
    where = ["--reports", str(store.path.parent)]
    assert shell.invoke(app, ["ledger", "r", *where]).output.startswith("  stage")
    assert (
        json.loads(shell.invoke(app, ["ledger", "r", "--json", *where]).output)["limit_usd"] == 20
    )
    assert shell.invoke(app, ["ledger", "last", "--csv", *where]).output == attempts_csv(
        store.path.parent, "r"
    )
    both = shell.invoke(app, ["ledger", "r", "--json", "--csv", *where])
    assert both.exception is not None and "choose one" in str(both.exception)

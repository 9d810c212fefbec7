import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from bookkeeping import CAP, Clock, in_memory, open_books

from agent.errors import BudgetError, LedgerError, RunError
from agent.money import chain
from agent.money.audit import audit
from agent.money.database import RunDatabase
from agent.money.ledger import UNKNOWN, Ledger

memory = pytest.fixture(in_memory)


@pytest.fixture
def ledger(memory: Path) -> Ledger:
    return open_books(memory, 1000)


def figures(ledger: Ledger) -> tuple[int, int, int]:
    totals = ledger.totals()
    return totals.confirmed, totals.pending, totals.remaining


def test_reserve_post_void(ledger: Ledger) -> None:
    ledger.reserve("a", 400, stage="pilot", round=1)
    ledger.reserve("b", 600, stage="review", round=1)
    assert figures(ledger) == (0, 1000, 0)
    ledger.post("a", 150, engine_seconds=2.5)
    assert figures(ledger) == (150, 600, 250)
    ledger.void("b")
    assert figures(ledger) == (150, 0, 850)
    assert audit(ledger.database) == ()


def test_what_does_not_fit_is_refused_with_every_figure(ledger: Ledger) -> None:
    ledger.reserve("a", 500, stage="pilot")
    ledger.post("a", 300)
    ledger.reserve("b", 400, stage="pilot")
    with pytest.raises(BudgetError) as refused:
        ledger.reserve("c", 301, stage="pilot")
    for figure in ("$0.000301", "$0.001000", "$0.000300", "$0.000400"):
        assert figure in str(refused.value)
    ledger.reserve("c", 300, stage="pilot")
    assert ledger.totals().possible == ledger.totals().limit


def test_repeats_change_nothing(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.reserve("a", 400, stage="pilot", round=1)
        ledger.reserve("b", 400, stage="pilot", round=1)
    for _ in range(2):
        ledger.post("a", 100)
        ledger.void("b")
    ledger.reserve("a", 400, stage="pilot", round=1)
    assert figures(ledger) == (100, 0, 900)
    kinds = [sealed.entry.kind for sealed in chain.read(ledger.database)]
    assert kinds == ["open", "claim", "reserve", "reserve", "post", "void"]


CONTRADICTIONS: dict[str, Callable[[Ledger], None]] = {
    "other amount": lambda books: books.reserve("posted", 401, stage="pilot"),
    "other stage": lambda books: books.reserve("posted", 400, stage="scale"),
    "other round": lambda books: books.reserve("posted", 400, stage="pilot", round=2),
    "posted otherwise": lambda books: books.post("posted", 101),
    "posted then void": lambda books: books.void("posted"),
    "void then posted": lambda books: books.post("void", 0),
    "post of nothing": lambda books: books.post("nothing", 1),
    "void of nothing": lambda books: books.void("nothing"),
    "above worst case": lambda books: books.post("open", 11),
    "negative": lambda books: books.post("open", -1),
    "a fraction": lambda books: books.reserve("new", 1.5, stage="pilot"),  # type: ignore[arg-type]
    "hostile id": lambda books: books.reserve("a b\n", 1, stage="pilot"),
    "no id": lambda books: books.reserve("", 1, stage="pilot"),
    "unknown envelope": lambda books: books.reserve("new", 1, stage="scale", envelope="none"),
}


@pytest.mark.parametrize("act", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictions_are_refused_and_leave_no_trace(
    ledger: Ledger, act: Callable[[Ledger], None]
) -> None:
    ledger.reserve("posted", 400, stage="pilot")
    ledger.post("posted", 100)
    ledger.reserve("void", 400, stage="pilot")
    ledger.void("void")
    ledger.reserve("open", 10, stage="pilot")
    before = (ledger.totals(), ledger.rows(), chain.read(ledger.database))
    with pytest.raises(LedgerError):
        act(ledger)
    assert (ledger.totals(), ledger.rows(), chain.read(ledger.database)) == before


def test_an_overrun_is_booked_in_full_while_the_cap_allows(ledger: Ledger) -> None:
    ledger.reserve("a", 100, stage="pilot")
    ledger.post("a", 700, overrun=True)
    assert figures(ledger) == (700, 0, 300)
    assert ledger.rows()[0].overrun == 600


def test_an_overrun_beyond_the_cap_is_shown_as_excess(ledger: Ledger) -> None:
    ledger.reserve("a", 100, stage="pilot")
    ledger.reserve("b", 800, stage="pilot")
    ledger.post("a", 450, overrun=True)
    totals = ledger.totals()
    assert (totals.confirmed, totals.pending, totals.excess) == (200, 800, 250)
    assert ledger.rows()[0].actual == 450
    assert ledger.by_stage()[0].excess == 250
    assert ledger.spend().engine_usd == 0.00045
    assert audit(ledger.database) == ()


def test_an_envelope_is_counted_once(ledger: Ledger) -> None:
    ledger.reserve_envelope("plan", 600)
    assert figures(ledger) == (0, 600, 400)
    ledger.reserve("a", 200, stage="scale", envelope="plan")
    assert figures(ledger) == (0, 600, 400)
    ledger.post("a", 150)
    assert figures(ledger) == (150, 450, 400)
    ledger.reserve("b", 450, stage="scale", envelope="plan")
    with pytest.raises(BudgetError, match="approved"):
        ledger.reserve("c", 1, stage="scale", envelope="plan")
    ledger.void("b")
    assert ledger.close_envelope("plan") == 450
    assert figures(ledger) == (150, 0, 850)
    assert audit(ledger.database) == ()


def test_an_envelope_must_fit_and_is_closed_once(ledger: Ledger) -> None:
    with pytest.raises(BudgetError):
        ledger.reserve_envelope("plan", 1001)
    ledger.reserve_envelope("plan", 1000)
    ledger.reserve_envelope("plan", 1000)
    with pytest.raises(LedgerError, match="otherwise"):
        ledger.reserve_envelope("plan", 999)
    ledger.reserve("a", 10, stage="scale", envelope="plan")
    with pytest.raises(LedgerError, match="pending"):
        ledger.close_envelope("plan")
    ledger.post("a", 10)
    assert (ledger.close_envelope("plan"), ledger.close_envelope("plan")) == (990, 0)
    with pytest.raises(LedgerError, match="closed"):
        ledger.reserve("b", 1, stage="scale", envelope="plan")
    with pytest.raises(LedgerError, match="otherwise"):
        ledger.reserve_envelope("plan", 1000)


def test_a_childs_overrun_takes_the_envelope_then_the_cap_then_excess(ledger: Ledger) -> None:
    ledger.reserve_envelope("plan", 300)
    ledger.reserve("other", 600, stage="review")
    ledger.reserve("a", 100, stage="scale", envelope="plan")
    ledger.reserve("b", 150, stage="scale", envelope="plan")
    ledger.post("a", 400, overrun=True)
    # 150 were free for it inside, 100 under the cap, and 150 fit nowhere.
    totals = ledger.totals()
    assert (totals.confirmed, totals.pending, totals.excess) == (250, 750, 150)
    envelope = ledger.envelope("plan")
    assert envelope is not None
    assert (envelope.spent, envelope.held) == (150, 150)
    ledger.post("b", 150)
    assert audit(ledger.database) == ()


def test_the_cap_is_a_constraint_of_the_database(ledger: Ledger) -> None:
    database = ledger.database
    with pytest.raises(sqlite3.IntegrityError, match="cap"), database.transaction():
        database.execute("UPDATE totals SET posted = 600, pending = 401")
    assert figures(ledger) == (0, 0, 1000)


@pytest.mark.parametrize("statement", ["UPDATE entries SET amount = 0", "DELETE FROM entries"])
def test_entries_are_append_only(ledger: Ledger, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="append-only"), ledger.database.transaction():
        ledger.database.execute(statement)


OWN = {"pilot": 400, "review": 100}


@pytest.mark.parametrize(
    ("stage", "title"),
    [
        ("preflight", r"the pilots' \$0\.000400"),
        ("pilot", r"the pilots' \$0\.000400"),
        ("review", r"the reviews' \$0\.000100"),
    ],
)
def test_a_stage_has_a_cap_of_its_own(memory: Path, stage: str, title: str) -> None:
    ledger = open_books(memory, 1000, sub_caps=OWN)
    ledger.reserve("p", 300, stage="pilot")
    ledger.post("p", 250)
    ledger.reserve("r", 50, stage="review")
    with pytest.raises(BudgetError, match=title):
        ledger.reserve("more", 151, stage=stage)
    assert figures(ledger) == (250, 50, 700)
    ledger.reserve("scale", 700, stage="scale")
    assert (ledger.room("pilot"), ledger.room("review"), ledger.room("scale")) == (0, 0, 0)
    ledger.void("scale")
    assert (ledger.room("pilot"), ledger.room("review"), ledger.room("scale")) == (150, 50, 700)
    assert audit(ledger.database) == ()


def test_an_envelope_draws_on_scales_own_cap_as_a_whole(memory: Path) -> None:
    ledger = open_books(memory, 1000, sub_caps={"scale": 500})
    with pytest.raises(BudgetError, match=r"scale's \$0\.000500"):
        ledger.reserve_envelope("plan", 501)
    ledger.reserve_envelope("plan", 500)
    ledger.reserve("a", 300, stage="scale", envelope="plan")
    ledger.post("a", 200)
    own = ledger.sub_caps()[2]
    assert (own.posted, own.pending, own.remaining) == (200, 300, 0)
    ledger.close_envelope("plan")
    assert ledger.room("scale") == 300
    assert audit(ledger.database) == ()


def test_what_outruns_a_stages_own_cap_counts_under_the_runs(memory: Path) -> None:
    ledger = open_books(memory, 1000, sub_caps=OWN)
    ledger.reserve("r", 60, stage="review")
    ledger.post("r", 170, overrun=True)
    own = ledger.sub_caps()[1]
    assert (own.posted, own.pending, own.excess) == (100, 0, 70)
    assert figures(ledger) == (170, 0, 830)
    assert ledger.totals().excess == 0
    ledger.reserve("s", 830, stage="scale")
    ledger.reserve("p", 0, stage="pilot")
    ledger.post("p", 30, overrun=True)
    assert ledger.totals().excess == 30
    assert sum(c.posted + c.excess for c in ledger.sub_caps()) == 200
    assert audit(ledger.database) == ()


def test_a_stages_own_cap_is_a_constraint_of_the_database(memory: Path) -> None:
    database = open_books(memory, 1000, sub_caps=OWN).database
    with pytest.raises(sqlite3.IntegrityError, match="sub_cap"), database.transaction():
        database.execute("UPDATE sub_caps SET posted = 60, pending = 41 WHERE name = 'review'")


def test_a_stages_own_cap_is_set_once(memory: Path) -> None:
    ledger = open_books(memory, 1000, sub_caps=OWN)
    Ledger.create(ledger.database, 1000, sub_caps=OWN)
    for other in ({}, {"pilot": 400}, OWN | {"pilot": 401}, OWN | {"scale": 900}):
        with pytest.raises(LedgerError, match="set once"):
            Ledger.create(ledger.database, 1000, sub_caps=other)


def test_reconcile_charges_the_dead_in_full_and_spares_the_living(memory: Path) -> None:
    dead = open_books(memory, 1000)
    dead.reserve("a", 300, stage="pilot", round=2)
    dead.reserve_envelope("plan", 500)
    dead.reserve("b", 200, stage="scale", envelope="plan")
    dead.database.close()
    living = open_books(memory, 1000)
    living.reserve("mine", 10, stage="pilot")
    assert living.reconcile() == ("a", "b")
    assert living.reconcile() == ()
    assert figures(living) == (500, 310, 190)
    assert [row.note for row in living.rows()] == [UNKNOWN, UNKNOWN, ""]
    assert sum(stage.unknown for stage in living.by_stage()) == 500
    assert audit(living.database) == ()


def test_sums_by_stage_are_the_totals(ledger: Ledger) -> None:
    ledger.reserve("a", 100, stage="pilot", round=1)
    ledger.post("a", 50, engine_seconds=3.0)
    ledger.reserve("b", 100, stage="review", round=1)
    ledger.post("b", 70)
    ledger.reserve("c", 90, stage="pilot", round=2)
    ledger.reserve_envelope("plan", 200)
    ledger.reserve("d", 60, stage="scale", envelope="plan")
    stages = ledger.by_stage()
    assert [(s.stage, s.round, s.confirmed, s.pending) for s in stages] == [
        ("pilot", 1, 50, 0),
        ("review", 1, 70, 0),
        ("pilot", 2, 0, 90),
        ("scale", None, 0, 200),
    ]
    totals = ledger.totals()
    assert sum(s.confirmed for s in stages) == totals.confirmed
    assert sum(s.pending for s in stages) == totals.pending


def test_spend_of_a_round_and_of_the_run(ledger: Ledger) -> None:
    ledger.reserve("a", 500, stage="pilot", round=1)
    ledger.post("a", 400, engine_seconds=3.0)
    ledger.reserve("b", 100, stage="review", round=1)
    ledger.post("b", 70)
    ledger.reserve("c", 100, stage="pilot", round=2)
    first, run = ledger.spend(1), ledger.spend()
    assert (first.engine_seconds, first.engine_usd, first.review_usd) == (3.0, 0.0004, 0.00007)
    assert run == first
    assert ledger.spend(2).total_usd == 0.0


def test_the_cap_is_set_once(memory: Path) -> None:
    ledger = open_books(memory, CAP)
    assert Ledger.create(ledger.database, CAP).totals().limit == CAP
    with pytest.raises(LedgerError, match=r"\$300\.00"):
        Ledger.create(ledger.database, CAP + 1)


def test_books_that_were_never_opened(memory: Path) -> None:
    with RunDatabase(memory / "run.sqlite", create=True, clock=Clock()) as database:
        with pytest.raises(RunError, match="never started"):
            Ledger(database)

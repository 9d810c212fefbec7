from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import CAP, child, in_memory, open_books, wait

from agent.errors import BudgetError, EngineError, LedgerError, StorageError
from agent.money.audit import audit
from agent.money.journal import Journal, Outcome
from agent.money.ledger import UNKNOWN

memory = pytest.fixture(in_memory)

DIER = """
import os, sys
from pathlib import Path
from agent.money.database import RunDatabase
from agent.money.journal import Journal, Outcome
from agent.money.ledger import Ledger

folder, where = Path(sys.argv[1]), sys.argv[2]
database = RunDatabase(folder / "run.sqlite")
database.claim()
ledger = Ledger(database)
journal = Journal(ledger)

def die(place):
    if place == where:
        os._exit(9)

def dying(act, before, after):
    def wrapped(*arguments, **named):
        die(before)
        result = act(*arguments, **named)
        die(after)
        return result
    return wrapped

def do():
    with (folder / "bought").open("a") as bought:
        bought.write("x")
    die("in the work")
    return Outcome({"artifact": "a", "ids": (1, 2)}, 40, 1.5)

ledger.reserve = dying(ledger.reserve, "before the reservation", "after the reservation")
ledger.post = dying(ledger.post, "before the posting", "between posting and result")
journal._store = dying(journal._store, "after the work", "after the commit")
ledger.reconcile()
print(journal.once("op", worst_case=100, stage="pilot", round=1, do=do).result)
"""

# Where it dies: what was charged by then, and how often the work is done in all.
BORDERS = {
    "before the reservation": (0, 1),
    "after the reservation": (100, 1),
    "in the work": (100, 2),
    "after the work": (100, 2),
    "before the posting": (100, 2),
    "between posting and result": (100, 2),
    "after the commit": (40, 1),
    "nowhere": (40, 1),
}


class Buyer:
    """Work that counts how often it is done."""

    def __init__(self, *, fails: BaseException | None = None) -> None:
        self.bought = 0
        self.fails = fails

    def __call__(self) -> Outcome:
        self.bought += 1
        if self.fails is not None:
            raise self.fails
        return Outcome({"ids": (1, 2), "b": None}, 40, 1.5)


@pytest.fixture
def journal(memory: Path) -> Journal:
    return Journal(open_books(memory, 1000))


def once(journal: Journal, do: Callable[[], Outcome], **named: Any) -> dict[str, Any]:
    return journal.once("op", worst_case=100, stage="pilot", round=1, do=do, **named).result


def states(journal: Journal) -> list[tuple[str, str, int | None]]:
    return [(row.op_id, row.state, row.actual) for row in journal.ledger.rows()]


def test_work_is_done_once_and_its_result_kept(journal: Journal) -> None:
    buyer = Buyer()
    first = journal.once("op", worst_case=100, stage="pilot", round=1, do=buyer)
    again = journal.once("op", worst_case=999, stage="pilot", round=1, do=buyer)
    assert (first.repeated, again.repeated, buyer.bought) == (False, True, 1)
    assert first.result == again.result == {"ids": [1, 2], "b": None}
    assert (again.attempt, again.actual_micro) == ("op", 40)
    assert states(journal) == [("op", "posted", 40)]
    assert journal.ledger.spend(1).engine_seconds == 1.5


def test_nothing_is_done_that_does_not_fit(journal: Journal) -> None:
    buyer = Buyer()
    with pytest.raises(BudgetError):
        journal.once("op", worst_case=1001, stage="pilot", do=buyer)
    assert (buyer.bought, states(journal)) == (0, [])


@pytest.mark.parametrize("error", [EngineError("x"), KeyboardInterrupt(), ValueError("x")])
@pytest.mark.parametrize(
    ("known", "state", "charged"),
    [(None, "posted", 100), (0, "void", None), (30, "posted", 30), (150, "posted", 150)],
)
def test_failed_work_is_charged_what_it_is_known_to_cost(
    journal: Journal, error: BaseException, known: int | None, state: str, charged: int | None
) -> None:
    def incurred(raised: BaseException) -> Outcome | None:
        assert raised is error
        return None if known is None else Outcome({}, known, 0.5)

    with pytest.raises(type(error)):
        once(journal, Buyer(fails=error), incurred=incurred)
    assert states(journal) == [("op", state, charged)]
    assert journal.find("op") is None
    once(journal, Buyer())
    assert states(journal)[1] == ("op#2", "posted", 40)
    assert audit(journal.ledger.database) == ()


def test_an_unknown_cost_is_the_worst_case(journal: Journal) -> None:
    with pytest.raises(EngineError):
        once(journal, Buyer(fails=EngineError("x")))
    assert [row.note for row in journal.ledger.rows()] == [UNKNOWN]


def test_attempts_are_numbered(journal: Journal) -> None:
    for _ in range(3):
        with pytest.raises(EngineError):
            once(journal, Buyer(fails=EngineError("x")))
    journal.once("op-2", worst_case=1, stage="pilot", do=lambda: Outcome({}, 0))
    once(journal, Buyer())
    assert [name for name, _, _ in states(journal)] == ["op", "op#2", "op#3", "op-2", "op#4"]


def test_a_wrong_bound_never_hides_the_cost(journal: Journal) -> None:
    journal.once("op", worst_case=100, stage="pilot", do=lambda: Outcome({}, 170))
    assert journal.ledger.totals().confirmed == 170


def test_a_result_that_cannot_be_kept_is_charged(journal: Journal) -> None:
    with pytest.raises(TypeError):
        once(journal, lambda: Outcome({"x": object()}, 40))
    with pytest.raises(ValueError, match="Out of range"):
        once(journal, lambda: Outcome({"x": float("nan")}, 40))
    assert states(journal) == [("op", "posted", 100), ("op#2", "posted", 100)]


def test_one_attempt_at_a_time(journal: Journal) -> None:
    def again() -> Outcome:
        once(journal, Buyer())
        return Outcome({}, 0)

    with pytest.raises(LedgerError, match="under way"):
        once(journal, again)


def test_results_are_found_from_within_an_envelope(journal: Journal) -> None:
    journal.ledger.reserve_envelope("plan", 300)
    inside = journal.within("plan")
    once(inside, Buyer())
    assert journal.find("op") == inside.find("op")
    assert [row.envelope for row in journal.ledger.rows()] == ["plan"]
    assert journal.ledger.totals().possible == 300


def test_a_disk_that_fills_while_settling(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = journal.ledger.database
    real = database.execute

    def full(statement: str, values: tuple[Any, ...] = ()) -> int:
        if statement.startswith("INSERT INTO results"):
            raise StorageError("the disk is full")
        return real(statement, values)

    with monkeypatch.context() as patch:
        patch.setattr(database, "execute", full)
        with pytest.raises(StorageError):
            once(journal, Buyer())
    # The posting fell with the result; what is charged is the unknown outcome.
    assert states(journal) == [("op", "posted", 100)]
    assert journal.find("op") is None
    assert audit(database) == ()


@pytest.mark.parametrize("where", BORDERS)
def test_a_crash_at_each_border(memory: Path, where: str) -> None:
    open_books(memory, CAP).database.close()
    charged, bought = BORDERS[where]
    status, _, errors = wait(child(DIER, memory, where))
    assert (status, errors) == (0 if where == "nowhere" else 9, "")
    ledger = open_books(memory, CAP)
    ledger.reconcile()
    assert ledger.totals().confirmed == charged
    status, out, errors = wait(child(DIER, memory, "nowhere"))
    assert (status, out, errors) == (0, "{'artifact': 'a', 'ids': [1, 2]}\n", "")
    assert (memory / "bought").stat().st_size == bought
    assert ledger.totals().confirmed == (charged if charged == 40 else charged + 40)
    assert ledger.totals().pending == 0
    assert audit(ledger.database) == ()

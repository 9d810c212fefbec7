from pathlib import Path

import pytest
from bookkeeping import CAP, Clock, child, in_memory, open_books, plan, wait

from agent.errors import ApprovalError, BudgetError
from agent.money.approval import EXPIRY_SECONDS, Approvals
from agent.money.audit import audit
from agent.money.ledger import Ledger
from agent.money.plan import Interval, Plan
from pipeline.params import GenParams

memory = pytest.fixture(in_memory)

DIER = """
import os, sys
from pathlib import Path
from agent.money.approval import Approvals
from agent.money.database import RunDatabase
from agent.money.ledger import Ledger

database = RunDatabase(Path(sys.argv[1]) / "run.sqlite", clock=lambda: 1000.0)
ledger = Ledger(database)
if sys.argv[3] == "inside":
    ledger.reserve_envelope = lambda *a, real=ledger.reserve_envelope: (real(*a), os._exit(9))
print(Approvals(database).consume(sys.argv[2], ledger), flush=True)
os._exit(9)
"""
OTHER: dict[str, object] = {
    "run_id": "r2",
    "version": "0.2.0",
    "params": GenParams().replace({"response.temperature": 0.41}),
    "model": "other",
    "model_digest": "0" * 64,
    "prompts_digest": "0" * 64,
    "config_digest": "0" * 64,
    "device": "cuda:0",
    "dtype": "float32",
    "threads": 2,
    "seed": 2,
    "examples": 201,
    "attempts": 801,
    "max_attempts": 1001,
    "micro_batch": 95,
    "batch_size": 95,
    "wave": 2,
    "shard_rows": 1501,
    "usd_per_hour": 0.051,
    "max_cost_usd": 2.51,
    "cost_usd": Interval(expected=2.0, low=1.0, high=3.1),
    "seconds": Interval(expected=2.0, low=1.0, high=3.1),
    "rows": Interval(expected=2.0, low=1.0, high=3.1),
    "usd_per_row": Interval(expected=2.0, low=1.0, high=3.1),
    "validated": False,
    "need": "without examples 50 % are accepted, with them 51 %",
}


class Desk:
    def __init__(self, folder: Path, limit: int = CAP) -> None:
        self.clock = Clock()
        self.ledger: Ledger = open_books(folder, limit, self.clock)
        self.approvals = Approvals(self.ledger.database)

    def approved(self) -> str:
        return self.approvals.approve(self.approvals.offer(plan()))


@pytest.fixture
def desk(memory: Path) -> Desk:
    return Desk(memory)


def test_offer_approve_consume(desk: Desk) -> None:
    digest = desk.approvals.offer(plan())
    assert desk.approvals.plan(digest) == plan()
    assert desk.approvals.given() is None
    approval = desk.approvals.approve(digest[:8])
    assert desk.approvals.given() == approval
    assert desk.approvals.approved_plan(approval) == plan()
    assert desk.approvals.consume(approval, desk.ledger, plan=plan()) == approval
    envelope = desk.ledger.envelope(approval)
    assert envelope is not None
    assert (envelope.maximum, envelope.state) == (2_500_000, "open")
    assert desk.approvals.given() is None
    assert audit(desk.ledger.database) == ()


def test_the_hash_covers_every_field(desk: Desk) -> None:
    assert OTHER.keys() == Plan.model_fields.keys()
    hashes = {plan(**{name: value}).hash for name, value in OTHER.items()}
    assert len(hashes | {plan().hash}) == len(OTHER) + 1
    assert Plan.model_validate_json(plan().canonical).hash == plan().hash


@pytest.mark.parametrize("name", OTHER)
def test_whatever_changes_makes_an_approval_void(desk: Desk, name: str) -> None:
    approval = desk.approved()
    with pytest.raises(ApprovalError, match=rf"but {name} changed"):
        desk.approvals.consume(approval, desk.ledger, plan=plan(**{name: OTHER[name]}))
    assert desk.ledger.envelope(approval) is None
    assert desk.ledger.totals().pending == 0


def test_an_approval_is_used_once(desk: Desk) -> None:
    approval = desk.approved()
    assert desk.approvals.approve(plan().hash) == approval
    desk.approvals.consume(approval, desk.ledger)
    for _ in range(3):
        with pytest.raises(ApprovalError, match="used already"):
            desk.approvals.consume(approval, desk.ledger)
    with pytest.raises(ApprovalError, match="counts once"):
        desk.approvals.approve(plan().hash)
    assert desk.ledger.totals().pending == 2_500_000


def test_a_repeated_step_finds_the_envelope_it_opened(desk: Desk) -> None:
    approval = desk.approved()
    for _ in range(3):
        assert desk.approvals.authorise(approval, desk.ledger, plan=plan()) == approval
    assert desk.ledger.totals().pending == 2_500_000
    with pytest.raises(ApprovalError, match="seed changed"):
        desk.approvals.authorise(approval, desk.ledger, plan=plan(seed=2))
    desk.ledger.close_envelope(approval)
    with pytest.raises(ApprovalError, match="used already"):
        desk.approvals.authorise(approval, desk.ledger)


def test_offers_and_approvals_expire(desk: Desk) -> None:
    digest = desk.approvals.offer(plan())
    desk.clock.pass_(EXPIRY_SECONDS)
    with pytest.raises(ApprovalError, match="72 h"):
        desk.approvals.approve(digest)
    desk.approvals.offer(plan())
    desk.clock.pass_(EXPIRY_SECONDS - 1)
    approval = desk.approvals.approve(digest)
    desk.clock.pass_(EXPIRY_SECONDS - 1)
    assert desk.approvals.given() == approval
    desk.clock.pass_(1)
    assert desk.approvals.given() is None
    with pytest.raises(ApprovalError, match="expired"):
        desk.approvals.consume(approval, desk.ledger)
    desk.approvals.offer(plan())
    assert desk.approvals.approve(digest) != approval


@pytest.mark.parametrize(
    "prefix", ["", "abc", "z" * 64, "A" * 64, "0" * 8, "*" * 8, "%" * 8, "a" * 65, "../../x"]
)
def test_only_an_offered_plan_can_be_approved(desk: Desk, prefix: str) -> None:
    desk.approvals.offer(plan())
    with pytest.raises(ApprovalError):
        desk.approvals.approve(prefix)
    assert desk.approvals.given() is None


def test_a_prefix_of_seven_is_too_short(desk: Desk) -> None:
    digest = desk.approvals.offer(plan())
    with pytest.raises(ApprovalError, match="8 to 64"):
        desk.approvals.approve(digest[:7])


def test_a_prefix_must_be_unique(desk: Desk) -> None:
    digest = desk.approvals.offer(plan())
    twin = digest[:10] + ("0" if digest[10] != "0" else "1") * 54
    with desk.ledger.database.transaction():
        desk.ledger.database.execute("INSERT INTO plans VALUES (?, '{}', 0, NULL)", (twin,))
    with pytest.raises(ApprovalError, match="several"):
        desk.approvals.approve(digest[:10])
    assert desk.approvals.approve(digest[:11])


def test_a_yes_to_another_plan_takes_its_place(desk: Desk) -> None:
    first = desk.approved()
    second = desk.approvals.approve(desk.approvals.offer(plan(examples=500)))
    assert desk.approvals.given() == second
    with pytest.raises(ApprovalError, match="replaced"):
        desk.approvals.consume(first, desk.ledger)


def test_one_plan_at_a_time(desk: Desk) -> None:
    first = desk.approvals.consume(desk.approved(), desk.ledger)
    second = desk.approvals.approve(desk.approvals.offer(plan(examples=500)))
    with pytest.raises(ApprovalError, match="works under"):
        desk.approvals.consume(second, desk.ledger)
    desk.ledger.close_envelope(first)
    desk.approvals.consume(second, desk.ledger)


def test_a_maximum_that_no_longer_fits(memory: Path) -> None:
    desk = Desk(memory, 3_000_000)
    approval = desk.approved()
    desk.ledger.reserve("late", 500_001, stage="review")
    with pytest.raises(BudgetError):
        desk.approvals.consume(approval, desk.ledger)
    assert desk.approvals.given() == approval
    desk.ledger.void("late")
    desk.approvals.consume(approval, desk.ledger)


def test_a_rejection_voids_plans_and_approvals(desk: Desk) -> None:
    approval = desk.approved()
    desk.approvals.reject("too few rows")
    with pytest.raises(ApprovalError, match="rejected"):
        desk.approvals.consume(approval, desk.ledger)
    with pytest.raises(ApprovalError, match="too few rows"):
        desk.approvals.approve(plan().hash)
    with pytest.raises(ApprovalError, match="too few rows"):
        desk.approvals.offer(plan())
    assert desk.approvals.approve(desk.approvals.offer(plan(examples=500)))


def test_an_id_that_nobody_gave(desk: Desk) -> None:
    for act in (desk.approvals.approved_plan, lambda x: desk.approvals.consume(x, desk.ledger)):
        with pytest.raises(ApprovalError, match="there is no approval"):
            act("approval-0")


def test_a_plan_altered_in_the_database(desk: Desk) -> None:
    approval = desk.approved()
    body = plan(max_cost_usd=250.0).canonical
    for altered in (body, "{}", "not json"):
        with desk.ledger.database.transaction():
            desk.ledger.database.execute("UPDATE plans SET body = ?", (altered,))
        with pytest.raises(ApprovalError, match=r"damaged|not what was offered"):
            desk.approvals.consume(approval, desk.ledger)


@pytest.mark.parametrize("where", ["inside", "after"])
def test_a_crash_while_consuming_is_all_or_nothing(memory: Path, where: str) -> None:
    desk = Desk(memory)
    approval = desk.approved()
    status, _, errors = wait(child(DIER, memory, approval, where))
    assert (status, errors) == (9, "")
    envelope = desk.ledger.envelope(approval)
    assert (envelope is not None) == (where == "after")
    assert (desk.approvals.given() is None) == (where == "after")
    assert desk.approvals.authorise(approval, desk.ledger) == approval
    assert desk.ledger.totals().pending == 2_500_000
    assert audit(desk.ledger.database) == ()


def test_of_four_that_consume_at_once_one_does(memory: Path) -> None:
    desk = Desk(memory)
    approval = desk.approved()
    results = [wait(p) for p in [child(DIER, memory, approval, "after") for _ in range(4)]]
    assert sum(out.strip() == approval for _, out, _ in results) == 1
    assert sum(status == 9 for status, _, _ in results) == 1
    assert sum("used already" in errors for _, _, errors in results) == 3
    assert desk.ledger.totals().pending == 2_500_000

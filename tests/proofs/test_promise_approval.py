"""P17: an approval covers exactly what was shown, and counts once."""

import json
import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import CAP, Clock, in_memory, open_books, plan
from faulty_disk import WAITING, faults_of, fresh, shared_disk, undisturbed_run
from power_cut import read_log
from pydantic import ValidationError

from agent.errors import ApprovalError, BudgetError
from agent.money.approval import EXPIRY_SECONDS, Approvals
from agent.money.audit import audit
from agent.money.database import RunDatabase
from agent.money.ledger import Ledger
from agent.money.plan import Plan
from agent.store import canonical_json

memory = pytest.fixture(in_memory)
Leaf = tuple[str | int, ...]
KILLED = -9


class Desk:
    """Books, a clock set by hand, and the approvals of one run."""

    def __init__(self, folder: Path, limit: int = CAP) -> None:
        self.clock = Clock()
        self.ledger: Ledger = open_books(folder, limit, self.clock)
        self.approvals = Approvals(self.ledger.database)

    def approved(self, **changes: object) -> str:
        return self.approvals.approve(self.approvals.offer(plan(**changes)))

    def untouched(self, *, pending: int = 0) -> bool:
        """Nothing was set aside for a plan, and the books are in order."""
        used = self.ledger.database.query("SELECT 1 FROM approvals WHERE state = 'used'")
        envelopes = self.ledger.database.query("SELECT 1 FROM envelopes")
        left = self.ledger.totals().pending == pending
        return left and not used and not envelopes and audit(self.ledger.database) == ()


@pytest.fixture
def desk(memory: Path) -> Desk:
    return Desk(memory)


def leaves(value: Any, path: Leaf = ()) -> Iterator[tuple[Leaf, Any]]:
    """Every value in a tree of JSON."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    else:
        yield path, value


def other_values(value: Any) -> tuple[Any, ...]:
    match value:
        case bool():
            return (not value,)
        case int():
            return (value + 1, value - 1)
        case float():
            return (value + 1e-9, value - 1e-9, value + 0.01, value - 0.01)
        case str():
            return (f"{value}x", "off", "hints", "fixed", "rotate", "pool", "lift", "label")
        case list():
            return ([*value, "###"], value[1:])
        case None:
            return (1, 0.5)
    raise AssertionError(value)


def with_leaf(tree: dict[str, Any], path: Leaf, value: Any) -> dict[str, Any]:
    changed: dict[str, Any] = json.loads(json.dumps(tree))
    inner: Any = changed
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return changed


def changed_plans(original: Plan) -> Iterator[tuple[Leaf, Plan]]:
    """The plan with one value changed, once for every value in it."""
    tree = original.model_dump(mode="json")
    for path, value in leaves(tree):
        yield path, _changed(tree, path, value)


def _changed(tree: dict[str, Any], path: Leaf, value: Any) -> Plan:
    for candidate in other_values(value):
        try:
            found = Plan.model_validate_json(json.dumps(with_leaf(tree, path, candidate)))
        except ValidationError:
            continue
        if found.model_dump(mode="json") != tree:
            return found
    raise AssertionError(f"no other value of {path} is valid")


def test_every_field_is_covered(desk: Desk, figure: Callable[[str, str], None]) -> None:
    approval = desk.approved()
    fields: set[str] = set()
    values = 0
    for path, changed in changed_plans(plan()):
        with pytest.raises(ApprovalError, match=rf"but {path[0]} changed since"):
            desk.approvals.consume(approval, desk.ledger, plan=changed)
        with pytest.raises(ApprovalError, match="no plan of this run begins"):
            desk.approvals.approve(changed.hash)
        fields.add(str(path[0]))
        values += 1
    assert fields == set(Plan.model_fields), "a field that no change was tried for"
    assert desk.untouched()
    assert desk.approvals.consume(approval, desk.ledger, plan=plan()) == approval
    figure("P17", f"{values} of {values} values in {len(fields)} fields of the plan, changed one "
           "at a time, refused by the field's name")  # fmt: skip


def test_a_stored_plan_that_was_changed_is_not_the_one_approved(memory: Path) -> None:
    for number, (path, changed) in enumerate(changed_plans(plan())):
        folder = memory / str(number)
        folder.mkdir()
        desk = Desk(folder)
        approval = desk.approved()
        with closing(sqlite3.connect(folder / "run.sqlite")) as raw:
            raw.execute(
                "UPDATE plans SET body = ?", (canonical_json(changed.model_dump(mode="json")),)
            )
            raw.commit()
        for act in (
            lambda desk=desk: desk.approvals.plan(plan().hash),
            lambda desk=desk, id_=approval: desk.approvals.consume(id_, desk.ledger),
        ):
            with pytest.raises(ApprovalError, match="not what was offered"):
                act()
        assert desk.ledger.envelope(approval) is None, path
        desk.ledger.database.close()
        shutil.rmtree(folder)


def submit(folder: Path, go: int) -> None:
    """A process that says yes to the plan, and acts on it; exits 0 if it was the one."""
    code = 9
    try:
        database = RunDatabase(folder / "run.sqlite", clock=Clock())
        ledger, approvals = Ledger(database), Approvals(database)
        os.read(go, 1)
        approval = approvals.approve(plan().hash)
        approvals.consume(approval, ledger, plan=plan())
        code = 0
    except ApprovalError:
        code = 2
    finally:
        os._exit(code)


def together(folder: Path, count: int) -> list[int]:
    """Exit codes of ``count`` processes that submit at once."""
    read, write = os.pipe()
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            os.close(write)
            submit(folder, read)
        children.append(child)
    os.close(read)
    os.close(write)
    return sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


def test_double_submits(effort: Callable[..., int], figure: Callable[[str, str], None]) -> None:
    trials = effort(sample=25, proof=200, soak=1000)
    parent = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    codes: Counter[tuple[int, ...]] = Counter()
    for trial in range(trials):
        processes = 2 if trial % 10 else 8
        with tempfile.TemporaryDirectory(dir=parent) as name:
            folder = Path(name)
            desk = Desk(folder)
            desk.approvals.offer(plan())
            desk.ledger.database.close()
            ended = together(folder, processes)
            with RunDatabase(folder / "run.sqlite", clock=Clock()) as database:
                used = database.query("SELECT id FROM approvals WHERE state = 'used'")
                envelopes = database.query("SELECT id FROM envelopes")
                pending = Ledger(database).totals().pending
                assert [r[0] for r in used] == [r[0] for r in envelopes], f"trial {trial}"
                assert (len(used), pending) == (1, 2_500_000), f"trial {trial}"
                assert audit(database) == ()
        assert ended == [0] + [2] * (processes - 1), f"trial {trial}: {ended}"
        codes[tuple(ended)] += 1
    figure("P17", f"{trials} double submits by 2 to 8 processes at once: exactly one consumed in "
           f"{codes.total()}")  # fmt: skip


class TestStale:
    """Every yes that no longer stands for what would be done."""

    def test_an_old_offer(self, desk: Desk) -> None:
        digest = desk.approvals.offer(plan())
        desk.clock.pass_(EXPIRY_SECONDS)
        with pytest.raises(ApprovalError, match="72 h ago"):
            desk.approvals.approve(digest)
        assert desk.untouched()

    def test_an_old_yes(self, desk: Desk) -> None:
        approval = desk.approved()
        desk.clock.pass_(EXPIRY_SECONDS)
        for act in (desk.approvals.consume, desk.approvals.authorise):
            with pytest.raises(ApprovalError, match="expired"):
                act(approval, desk.ledger, plan=plan())
        assert desk.approvals.given() is None
        assert desk.untouched()

    def test_a_yes_a_second_before_it_expires(self, desk: Desk) -> None:
        approval = desk.approved()
        desk.clock.pass_(EXPIRY_SECONDS - 1)
        assert desk.approvals.consume(approval, desk.ledger, plan=plan()) == approval

    def test_a_replaced_yes(self, desk: Desk) -> None:
        first, second = desk.approved(), desk.approved(examples=500)
        with pytest.raises(ApprovalError, match="replaced"):
            desk.approvals.consume(first, desk.ledger)
        assert desk.untouched()
        assert desk.approvals.given() == second

    def test_a_rejected_one(self, desk: Desk) -> None:
        approval = desk.approved()
        desk.approvals.reject("too dear")
        for act in (
            lambda: desk.approvals.consume(approval, desk.ledger),
            lambda: desk.approvals.approve(plan().hash),
            lambda: desk.approvals.offer(plan()),
        ):
            with pytest.raises(ApprovalError, match="rejected"):
                act()
        assert desk.untouched()

    def test_the_same_approval_again(self, desk: Desk) -> None:
        approval = desk.approved()
        desk.approvals.consume(approval, desk.ledger)
        for act in (
            lambda: desk.approvals.consume(approval, desk.ledger),
            lambda: desk.approvals.approve(plan().hash),
        ):
            with pytest.raises(ApprovalError, match="used"):
                act()
        desk.ledger.close_envelope(approval)
        with pytest.raises(ApprovalError, match="used already"):
            desk.approvals.authorise(approval, desk.ledger)
        assert desk.ledger.totals().pending == 0

    def test_a_cap_that_filled_up_since(self, memory: Path) -> None:
        desk = Desk(memory, 3_000_000)
        approval = desk.approved()
        desk.ledger.reserve("review/01", 500_001, stage="review")
        with pytest.raises(BudgetError):
            desk.approvals.consume(approval, desk.ledger, plan=plan())
        assert desk.untouched(pending=500_001)
        desk.ledger.post("review/01", 500_000)
        assert desk.approvals.consume(approval, desk.ledger, plan=plan()) == approval


def unapproved(reports: Path) -> tuple[int, list[str]]:
    """How many approvals were used, and what was bought for scale without one."""
    with RunDatabase(reports / "r" / "run.sqlite") as database:
        used = {r["id"]: r["plan"] for r in database.query(
            "SELECT id, plan FROM approvals WHERE state = 'used'")}  # fmt: skip
        bought = database.query("SELECT op_id, envelope FROM operations WHERE stage = 'scale'")
        results = database.query("SELECT op_id FROM results WHERE op_id LIKE 'scale/%'")
        approvals = Approvals(database)
        for approval, digest in used.items():
            assert approvals.approved_plan(approval).hash == digest
    paid = {row["op_id"].split("#")[0] for row in bought}
    free = [row["op_id"] for row in results if row["op_id"] not in paid and not _attempt_of(
        row["op_id"], paid)]  # fmt: skip
    return len(used), [r["op_id"] for r in bought if r["envelope"] not in used] + free


def _attempt_of(op_id: str, paid: set[str]) -> bool:
    return any(attempt.startswith(op_id) for attempt in paid)


def test_kills_between_approve_and_scale(
    effort: Callable[..., int], figure: Callable[[str, str], None]
) -> None:
    kills = effort(sample=3, proof=100, soak=10_000)
    disk, log = shared_disk(), undisturbed_run().logs[1]
    waiting, reports = undisturbed_run().waiting, fresh(disk, "killed")
    last = next(c.number for c in read_log(log) if "/artifacts/.artifact" in c.path)
    points = range(1, last + 1)
    ended: Counter[str] = Counter()
    for k in (
        points if kills >= last else [points[int((i + 0.6) * last / kills)] for i in range(kills)]
    ):
        shutil.rmtree(reports)
        shutil.copytree(waiting, reports)
        assert disk.approve(reports, fail_at=k, error=0).code == KILLED
        used, free = unapproved(reports)
        assert (used <= 1, free) == (True, []), f"kill at {k}"
        resumed = disk.resume(reports)
        after, free = unapproved(reports)
        assert free == [], f"kill at {k}"
        assert after == used, f"kill at {k}: nobody said yes in between"
        assert resumed.code == (0 if used else WAITING), f"kill at {k}: {resumed.err[-500:]}"
        ended["acted on the yes" if used else "waited"] += 1
        if not used:
            assert disk.approve(reports).code == 0, f"kill at {k}"
        assert unapproved(reports) == (1, []), f"kill at {k}"
        assert faults_of(reports) == [], f"kill at {k}"
    assert len(ended) == 2, "kills before and after the yes was used"
    figure("P17", f"{ended.total()} kills between approve and the first micro-batch of scale: "
           f"resume waited {ended['waited']} times and acted on the yes "
           f"{ended['acted on the yes']} times, never twice; 0 micro-batches without a used "
           "approval")  # fmt: skip

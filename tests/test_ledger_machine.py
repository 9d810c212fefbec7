"""The ledger against a model of a few lines, over random histories with crashes in them."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import pytest
from bookkeeping import in_memory, open_books
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.errors import BudgetError, LedgerError
from agent.money.audit import audit

CAP = 1_000
OWN = {"review": 250, "scale": 500}
"""The stages' own caps; pilots have none but the run's."""
NAMES = st.sampled_from([f"op{i}" for i in range(16)])
ENVELOPES = st.sampled_from(["plan1", "plan2"])
AMOUNTS = st.integers(0, 400)
STAGES = st.sampled_from(["pilot", "review", "scale", "preflight"])


class Crash(Exception):
    pass


class LedgerMachine(RuleBasedStateMachine):
    tally: ClassVar[Counter[str]] = Counter()
    """What all histories came to, for whoever wants to tell."""

    def __init__(self) -> None:
        super().__init__()
        self.tally["histories"] += 1
        self.open = ExitStack()
        self.folder = self.open.enter_context(contextmanager(in_memory)())
        self.ledger = open_books(self.folder, CAP, sub_caps=OWN)
        self.operations: dict[str, dict[str, Any]] = {}
        self.envelopes: dict[str, dict[str, int]] = {}

    def teardown(self) -> None:
        self.ledger.database.close()
        self.open.close()

    # The model: balances are computed from scratch, never kept.

    def inside(self, name: str) -> int:
        """What the children of an envelope drew on it."""
        return self.envelopes[name]["spent"] + self.held(name)

    def held(self, name: str | None, cap: str | None = None) -> int:
        return sum(
            op["worst"]
            for op in self.operations.values()
            if op["state"] == "pending" and op["envelope"] == name
            if cap is None or op["cap"] == cap
        )

    def posted(self, cap: str | None = None) -> int:
        """Under the run's cap, or under a stage's own."""
        if cap is None:
            return sum(op.get("counted", 0) for op in self.operations.values())
        return sum(op.get("within", 0) for op in self.operations.values() if op["cap"] == cap)

    def pending(self, cap: str | None = None) -> int:
        envelopes = sum(e["maximum"] - e["spent"] for e in self.envelopes.values() if e["open"])
        return self.held(None, cap) + (envelopes if cap in (None, "scale") else 0)

    def fits(self, amount: int, cap: str) -> bool:
        own = OWN.get(cap, CAP)
        return (
            self.posted() + self.pending() + amount <= CAP
            and self.posted(cap) + self.pending(cap) + amount <= own
        )

    def expect(self, error: type[Exception] | None, act: Callable[[], object]) -> None:
        if error is None:
            act()
        else:
            with pytest.raises(error) as raised:
                act()
            assert raised.type is error

    @rule(name=NAMES, amount=AMOUNTS, envelope=st.none() | ENVELOPES, stage=STAGES)
    def reserve(self, name: str, amount: int, envelope: str | None, stage: str) -> None:
        own = "pilot" if stage == "preflight" else stage
        known = self.operations.get(name)
        error: type[Exception] | None = None
        if known is not None:
            same = (known["worst"], known["envelope"], known["stage"]) == (amount, envelope, stage)
            error = None if same else LedgerError
        elif envelope is None:
            error = None if self.fits(amount, own) else BudgetError
        elif envelope not in self.envelopes or not self.envelopes[envelope]["open"]:
            error = LedgerError
        elif self.inside(envelope) + amount > self.envelopes[envelope]["maximum"]:
            error = BudgetError
        self.expect(
            error, lambda: self.ledger.reserve(name, amount, stage=stage, envelope=envelope)
        )
        if known is None and error is None:
            self.operations[name] = {
                "worst": amount, "envelope": envelope, "state": "pending", "stage": stage,
                "cap": own if envelope is None else "scale",
            }  # fmt: skip

    def aimed(self, name: str, aim: bool) -> str:
        """Mostly an attempt that is pending, so that histories do not run dry."""
        pending = [n for n, op in self.operations.items() if op["state"] == "pending"]
        return pending[int(name[2:]) % len(pending)] if aim and pending else name

    @rule(name=NAMES, aim=st.booleans(), amount=AMOUNTS, overrun=st.booleans())
    def post(self, name: str, aim: bool, amount: int, overrun: bool) -> None:
        name = self.aimed(name, aim)
        known = self.operations.get(name)
        if known is not None and known["state"] == "posted" and known["actual"] == amount:
            self.ledger.post(name, amount, overrun=overrun)
            return
        worst = 0 if known is None else known["worst"]
        if known is None or known["state"] != "pending" or (amount > worst and not overrun):
            self.expect(LedgerError, lambda: self.ledger.post(name, amount, overrun=overrun))
            return
        self.ledger.post(name, amount, overrun=overrun)
        free = CAP - self.posted() - self.pending()
        cap = known["cap"]
        room = OWN.get(cap, CAP) - self.posted(cap) - self.pending(cap)
        if known["envelope"] is None:
            freed, counted = worst, min(amount, worst + free)
        else:
            envelope = self.envelopes[known["envelope"]]
            freed = min(amount, envelope["maximum"] - self.inside(known["envelope"]) + worst)
            counted = freed + min(amount - freed, free)
            envelope["spent"] += freed
        within = min(counted, freed + room)
        known.update(state="posted", actual=amount, counted=counted, within=within)

    @rule(name=NAMES)
    def void(self, name: str) -> None:
        known = self.operations.get(name)
        fine = known is not None and known["state"] in {"pending", "void"}
        self.expect(None if fine else LedgerError, lambda: self.ledger.void(name))
        if known is not None and fine:
            known["state"] = "void"

    @rule(name=ENVELOPES, maximum=AMOUNTS)
    def set_aside(self, name: str, maximum: int) -> None:
        known = self.envelopes.get(name)
        error: type[Exception] | None = None
        if known is not None:
            error = None if (known["maximum"], known["open"]) == (maximum, 1) else LedgerError
        elif not self.fits(maximum, "scale"):
            error = BudgetError
        self.expect(error, lambda: self.ledger.reserve_envelope(name, maximum))
        if known is None and error is None:
            self.envelopes[name] = {"maximum": maximum, "spent": 0, "open": 1}

    @rule(name=ENVELOPES)
    def close(self, name: str) -> None:
        known = self.envelopes.get(name)
        fine = known is not None and (not known["open"] or self.held(name) == 0)
        self.expect(None if fine else LedgerError, lambda: self.ledger.close_envelope(name))
        if known is not None and fine:
            known["open"] = 0

    @precondition(lambda self: self.operations)
    @rule(name=NAMES)
    def crash_and_reopen(self, name: str) -> None:
        """Die in the middle of a transaction, come back, and settle what was left."""
        self.tally["crashes"] += 1
        with pytest.raises(Crash), self.ledger.database.transaction():
            self.ledger.reserve(f"{name}-torn", 0, stage="pilot")
            raise Crash
        self.ledger.database.close()
        self.ledger = open_books(self.folder, CAP, sub_caps=OWN)
        self.ledger.reconcile()
        for known in self.operations.values():
            if known["state"] == "pending":
                worst = known["worst"]
                if known["envelope"] is not None:
                    self.envelopes[known["envelope"]]["spent"] += worst
                known.update(state="posted", actual=worst, counted=worst, within=worst)

    @invariant()
    def the_books_are_the_models(self) -> None:
        self.tally["compared"] += 1
        totals = self.ledger.totals()
        assert (totals.confirmed, totals.pending) == (self.posted(), self.pending())
        assert totals.possible <= CAP
        for own in self.ledger.sub_caps():
            assert (own.posted, own.pending) == (self.posted(own.name), self.pending(own.name))
            assert own.posted + own.pending <= OWN.get(own.name, CAP)
            paid = sum(v.get("actual", 0) for v in self.operations.values() if v["cap"] == own.name)
            assert own.excess == paid - own.posted
        rows = {row.op_id: (row.state, row.actual) for row in self.ledger.rows()}
        assert rows == {k: (v["state"], v.get("actual")) for k, v in self.operations.items()}
        assert audit(self.ledger.database) == ()


LedgerMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
TestLedger = LedgerMachine.TestCase

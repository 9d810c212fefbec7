"""The ledger against a model of a few lines, over random histories with crashes in them."""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from bookkeeping import in_memory, open_books
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.errors import BudgetError, LedgerError
from agent.money.audit import audit

CAP = 1_000
NAMES = st.sampled_from([f"op{i}" for i in range(8)])
ENVELOPES = st.sampled_from(["plan1", "plan2"])
AMOUNTS = st.integers(0, 400)


class Crash(Exception):
    pass


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.open = ExitStack()
        self.folder = self.open.enter_context(contextmanager(in_memory)())
        self.ledger = open_books(self.folder, CAP)
        self.operations: dict[str, dict[str, Any]] = {}
        self.envelopes: dict[str, dict[str, int]] = {}

    def teardown(self) -> None:
        self.ledger.database.close()
        self.open.close()

    # The model: balances are computed from scratch, never kept.

    def inside(self, name: str) -> int:
        """What the children of an envelope drew on it."""
        return self.envelopes[name]["spent"] + self.held(name)

    def held(self, name: str | None) -> int:
        return sum(
            op["worst"]
            for op in self.operations.values()
            if op["state"] == "pending" and op["envelope"] == name
        )

    def posted(self) -> int:
        return sum(op.get("counted", 0) for op in self.operations.values())

    def pending(self) -> int:
        envelopes = sum(e["maximum"] - e["spent"] for e in self.envelopes.values() if e["open"])
        return self.held(None) + envelopes

    def expect(self, error: type[Exception] | None, act: Callable[[], object]) -> None:
        if error is None:
            act()
        else:
            with pytest.raises(error) as raised:
                act()
            assert raised.type is error

    @rule(name=NAMES, amount=AMOUNTS, envelope=st.none() | ENVELOPES)
    def reserve(self, name: str, amount: int, envelope: str | None) -> None:
        known = self.operations.get(name)
        error: type[Exception] | None = None
        if known is not None:
            same = (known["worst"], known["envelope"]) == (amount, envelope)
            error = None if same else LedgerError
        elif envelope is None:
            error = BudgetError if self.posted() + self.pending() + amount > CAP else None
        elif envelope not in self.envelopes or not self.envelopes[envelope]["open"]:
            error = LedgerError
        elif self.inside(envelope) + amount > self.envelopes[envelope]["maximum"]:
            error = BudgetError
        self.expect(error, lambda: self.ledger.reserve(name, amount, stage="s", envelope=envelope))
        if known is None and error is None:
            self.operations[name] = {"worst": amount, "envelope": envelope, "state": "pending"}

    @rule(name=NAMES, amount=AMOUNTS, overrun=st.booleans())
    def post(self, name: str, amount: int, overrun: bool) -> None:
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
        if known["envelope"] is None:
            counted = min(amount, worst + free)
        else:
            envelope = self.envelopes[known["envelope"]]
            room = envelope["maximum"] - self.inside(known["envelope"]) + worst
            inside = min(amount, room)
            counted = inside + min(amount - inside, free)
            envelope["spent"] += inside
        known.update(state="posted", actual=amount, counted=counted)

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
        elif self.posted() + self.pending() + maximum > CAP:
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
        with pytest.raises(Crash), self.ledger.database.transaction():
            self.ledger.reserve(f"{name}-torn", 0, stage="s")
            raise Crash
        self.ledger.database.close()
        self.ledger = open_books(self.folder, CAP)
        self.ledger.reconcile()
        for known in self.operations.values():
            if known["state"] == "pending":
                worst = known["worst"]
                if known["envelope"] is not None:
                    self.envelopes[known["envelope"]]["spent"] += worst
                known.update(state="posted", actual=worst, counted=worst)

    @invariant()
    def the_books_are_the_models(self) -> None:
        totals = self.ledger.totals()
        assert (totals.confirmed, totals.pending) == (self.posted(), self.pending())
        assert totals.possible <= CAP
        rows = {row.op_id: (row.state, row.actual) for row in self.ledger.rows()}
        assert rows == {k: (v["state"], v.get("actual")) for k, v in self.operations.items()}
        assert audit(self.ledger.database) == ()


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLedger = LedgerMachine.TestCase

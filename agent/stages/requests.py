"""Requests of a review in the books: each one reserved, sent, kept and settled by itself.

The reviewer decides what is asked, the ledger holds the money. The one idea: a request has exactly
one attempt in the ledger, reserved right before it is sent and settled right after, and its answer
is on disk before it is settled; so whenever a process dies, what was sent is charged, and an answer
that was stored is not bought again.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from agent.errors import ReviewerError
from agent.money import statement
from agent.money.ledger import UNKNOWN, Ledger
from agent.money.statement import LedgerRow
from agent.review_records import Review
from agent.reviewers.base import Bill
from agent.reviewers.reply import read_reply
from agent.store import RunStore

STAGE: Final = "review"
"""What its attempts are booked under."""


def op_id(round_: int) -> str:
    """The review of a round as an operation; its requests are numbered below it."""
    return f"r{round_:02d}/review"


def answer_path(round_: int, number: int) -> str:
    """Where the body of the answer to a request is kept, byte for byte but for our key."""
    return f"rounds/{round_:02d}-answer-{number}.txt"


class Requests:
    """What was and is asked for the review of one round, repeats after a failure included."""

    def __init__(self, ledger: Ledger, store: RunStore, round_: int) -> None:
        self._ledger = ledger
        self._store = store
        self._round = round_
        # Whatever follows the first one is a repeat: there was no usable answer.
        self._name = f"{op_id(round_)}/request"

    def rows(self) -> list[LedgerRow]:
        """Every request so far, the first one first."""
        return statement.attempts(self._ledger.database, self._name)

    @contextmanager
    def pay(self, worst_case: int) -> Iterator[Bill]:
        """Pay for the request that is sent within; what the block leaves open is charged in full.

        Raises:
            BudgetError: if ``worst_case`` does not fit under the cap; nothing may be sent.
        """
        database = self._ledger.database
        with database.transaction():
            number = len(self.rows()) + 1
            attempt = statement.next_attempt(database, self._name)
            self._ledger.reserve(attempt, worst_case, stage=STAGE, round=self._round)
        bill = Bill(keep=lambda body: self._keep(number, body))
        try:
            yield bill
        finally:
            self._settle(attempt, worst_case, bill)

    def _keep(self, number: int, body: str) -> None:
        self._store.write_text(answer_path(self._round, number), body)

    def _settle(self, attempt: str, worst_case: int, bill: Bill) -> None:
        if bill.unbilled:
            self._ledger.void(attempt, note="not sent, or refused by the provider")
        elif bill.cost_micro is None:
            self._ledger.post(attempt, worst_case, note=UNKNOWN)
        else:
            self._ledger.post(attempt, bill.cost_micro)

    def kept_review(self) -> Review | None:
        """The review in the last answer, which nobody lived to read; None if it holds none."""
        found = self._answers()
        if not found:
            return None
        try:
            return read_reply(self._store.read_text(found[-1])).review()
        except (ReviewerError, ValueError):
            return None

    def digests(self) -> dict[str, str]:
        """Every kept answer of the round, with the SHA-256 of its bytes."""
        read = self._store.read_bytes
        return {path: hashlib.sha256(read(path)).hexdigest() for path in self._answers()}

    def _answers(self) -> list[str]:
        """Paths of the kept answers, the first one first."""
        numbered = (answer_path(self._round, n + 1) for n in range(len(self.rows())))
        return [path for path in numbered if self._store.resolve(path).is_file()]

"""A purse for reviewers under test: it pays for every request, and notes what each one came to."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from agent.reviewers.base import Bill


@dataclass
class Purse:
    """What was reserved, charged and kept; enough for any request."""

    reserved: list[int] = field(default_factory=list)
    """Worst cases in micro-dollars, one a request."""
    charged: list[int] = field(default_factory=list)
    """What each came to; 0 where nothing was billed."""
    kept: list[str] = field(default_factory=list)
    """Bodies of answers."""

    @contextmanager
    def pay(self, worst_case: int) -> Iterator[Bill]:
        """Pay as the books do: what is left open is charged in full."""
        self.reserved.append(worst_case)
        bill = Bill(self.kept.append)
        try:
            yield bill
        finally:
            known = worst_case if bill.cost_micro is None else bill.cost_micro
            self.charged.append(0 if bill.unbilled else known)

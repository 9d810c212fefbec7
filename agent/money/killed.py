"""What an engine cost whose process was killed: its rows are pending, and nobody is left to ask.

Settling them is ``Ledger.reconcile``'s. The one idea: an engine dies with the process that pays for
it, so what it ran is known up to that process's last sign of life, and is charged once.
"""

from collections.abc import Callable
from typing import Final

from agent.lock import HEARTBEAT_SECONDS
from agent.money.amounts import time_to_micro
from agent.money.ledger import Ledger
from agent.money.statement import LedgerRow, last_posted

CLOSING: Final = "engine-release"
"""What the ledger calls the time from an engine's last micro-batch to its release."""


def cost_of_killed(
    ledger: Ledger, *, usd_per_hour: float, last_alive: float | None
) -> Callable[[LedgerRow], int | None]:
    """What an engine's attempt cost whose process was killed; None where that is not known.

    The engine's own process dies with the one that pays for it, so it ran: from what was posted
    last, or from the reservation, to the last sign of life and the two intervals in which it may
    have come after. A micro-batch costs its lease at most, which is where its engine was killed;
    an engine that was open and idle costs as long as it was.
    A review's cost is its provider's to know, not the clock's.
    """

    def cost(row: LedgerRow) -> int | None:
        if last_alive is None or row.stage == "review":
            return None
        closing = row.op_id.partition("#")[0] == CLOSING
        if closing and _working(ledger, row):
            return 0
        posted = last_posted(ledger.database, row)
        since = row.at if posted is None else posted
        seconds = last_alive + 2 * HEARTBEAT_SECONDS - (since if closing else min(since, row.at))
        found = time_to_micro(max(seconds, 2 * HEARTBEAT_SECONDS), usd_per_hour)
        return found if closing else min(found, row.worst_case)

    return cost


def _working(ledger: Ledger, closing: LedgerRow) -> bool:
    """Whether a micro-batch of the same process was under way, which pays for that time."""
    return any(
        row.state == "pending" and row.owner == closing.owner and row.op_id != closing.op_id
        for row in ledger.rows()
        if row.stage != "review"
    )

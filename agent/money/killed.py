"""What an engine cost whose process was killed: its rows are pending, and nobody is left to ask.

Settling them is ``Ledger.reconcile``'s. The one idea: an engine dies with the process that pays for
it, so what it ran is known up to that process's last sign of life, and is charged once.
"""

import math
from collections.abc import Callable
from typing import Final

from agent.lock import HEARTBEAT_SECONDS
from agent.money.amounts import time_to_micro, time_within
from agent.money.ledger import UNKNOWN, Charge, Ledger
from agent.money.statement import LedgerRow, last_posted

CLOSING: Final = "engine-release"
"""What the ledger calls the time from an engine's last micro-batch to its release."""


def cost_of_killed(
    ledger: Ledger, *, usd_per_hour: float, last_alive: float | None
) -> Callable[[LedgerRow], Charge | None]:
    """What an engine's attempt cost whose process was killed; None if that is not the clock's.

    The engine's own process dies with the one that pays for it, so it ran: from what was posted
    last, or from the reservation, to the last sign of life and the two intervals in which it may
    have come after. A micro-batch costs its lease at most, which is where its engine was killed;
    an engine that was open and idle costs as long as it was.
    Where nobody knows when it died, it is charged in full, time and money.
    A review's cost is its provider's to know, not the clock's.
    """

    def cost(row: LedgerRow) -> Charge | None:
        if row.stage == "review":
            return None
        longest = time_within(row.worst_case, usd_per_hour)
        if last_alive is None:
            return Charge(row.worst_case, longest if math.isfinite(longest) else 0.0, UNKNOWN)
        closing = row.op_id.partition("#")[0] == CLOSING
        if closing and _working(ledger, row):
            return Charge(0, 0.0)
        posted = last_posted(ledger.database, row)
        since = row.at if posted is None else posted
        seconds = last_alive + 2 * HEARTBEAT_SECONDS - (since if closing else min(since, row.at))
        seconds = max(seconds, 2 * HEARTBEAT_SECONDS)
        found = time_to_micro(seconds, usd_per_hour)
        if closing or found <= row.worst_case:
            return Charge(found, seconds)
        return Charge(row.worst_case, longest)

    return cost


def _working(ledger: Ledger, closing: LedgerRow) -> bool:
    """Whether a micro-batch of the same process was under way, which pays for that time."""
    return any(
        row.state == "pending" and row.owner == closing.owner and row.op_id != closing.op_id
        for row in ledger.rows()
        if row.stage != "review"
    )

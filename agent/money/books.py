"""The two balances of the ledger, the run's totals and an envelope's, and how money moves.

Which moves there are is ``ledger.py``'s; reading for people is ``statement.py``'s.
The one idea: every change is one UPDATE that the schema's constraints admit or refuse, so no
sequence of calls can leave a balance above its cap. All of it is for the inside of a transaction.
"""

import sqlite3

from agent.errors import BudgetError, LedgerError
from agent.money import statement
from agent.money.amounts import show_usd
from agent.money.database import RunDatabase
from agent.money.statement import Envelope, LedgerRow


def need_envelope(database: RunDatabase, name: str) -> Envelope:
    """The envelope called ``name``.

    Raises:
        LedgerError: if there is none.
    """
    if (held := statement.find_envelope(database, name)) is None:
        raise LedgerError(f"there is no envelope {name[:140]!r}")
    return held


def settle(database: RunDatabase, held: LedgerRow, actual: int) -> int:
    """Move a pending attempt's money to posted.

    A child's cost is taken from its envelope as far as that reaches, then from under the cap.

    Returns:
        The part of ``actual`` that fits under neither.
    """
    remaining = statement.totals(database).remaining
    if held.envelope is None:
        excess = max(0, actual - held.worst_case - remaining)
        move(database, posted=actual - excess, pending=-held.worst_case, excess=excess)
        return excess
    inside = min(actual, need_envelope(database, held.envelope).free + held.worst_case)
    excess = max(0, actual - inside - remaining)
    draw(database, held.envelope, spent=inside, held=-held.worst_case)
    move(database, posted=actual - excess, pending=-inside, excess=excess)
    return excess


def give_back(database: RunDatabase, held: LedgerRow) -> None:
    """Release a pending attempt's reservation."""
    if held.envelope is None:
        move(database, pending=-held.worst_case)
    else:
        draw(database, held.envelope, held=-held.worst_case)


def move(
    database: RunDatabase, *, asked: int = 0, posted: int = 0, pending: int = 0, excess: int = 0
) -> None:
    """Change the totals; ``asked`` is what the message names.

    Raises:
        BudgetError: if posted and pending would exceed the cap.
    """
    try:
        database.execute(
            "UPDATE totals SET posted = posted + ?, pending = pending + ?, excess = excess + ?",
            (posted, pending, excess),
        )
    except sqlite3.IntegrityError as error:
        now = statement.totals(database)
        raise BudgetError(
            f"{show_usd(asked)} does not fit under the cap of {show_usd(now.limit)}: "
            f"{show_usd(now.confirmed)} is confirmed, {show_usd(now.pending)} pending, "
            f"{show_usd(now.remaining)} left"
        ) from error


def draw(
    database: RunDatabase, name: str, *, asked: int = 0, spent: int = 0, held: int = 0
) -> None:
    """Change an open envelope; ``asked`` is what the message names.

    Raises:
        BudgetError: if spent and held would exceed its maximum.
        LedgerError: if it is closed.
    """
    now = need_envelope(database, name)
    if now.state != "open":
        raise LedgerError(f"envelope {name!r} is closed: what it had left is released")
    try:
        database.execute(
            "UPDATE envelopes SET spent = spent + ?, held = held + ? WHERE id = ?",
            (spent, held, name),
        )
    except sqlite3.IntegrityError as error:
        raise BudgetError(
            f"{show_usd(asked)} does not fit into the approved {show_usd(now.maximum)}: "
            f"{show_usd(now.spent)} is confirmed, {show_usd(now.held)} pending, "
            f"{show_usd(now.free)} left"
        ) from error

"""The balances of the ledger, of the run, of a stage and of an envelope, and how money moves.

Which moves there are is ``ledger.py``'s; reading for people is ``statement.py``'s.
The one idea: every change is an UPDATE that the schema's constraints admit or refuse, so no
sequence of calls can leave a balance above its cap. All of it is for the inside of a transaction,
which falls as a whole when a constraint refuses.
"""

import sqlite3

from agent.errors import BudgetError, LedgerError
from agent.money import caps, statement
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

    A child's cost is taken from its envelope as far as that reaches, then from under the cap. What
    is beyond the stage's sub-cap and fits under the run's cap still counts against that.

    Returns:
        The part of ``actual`` that fits under neither.
    """
    remaining = statement.totals(database).remaining
    if held.envelope is None:
        stage, freed = held.stage, held.worst_case
    else:
        envelope = need_envelope(database, held.envelope)
        stage, freed = envelope.stage, min(actual, envelope.free + held.worst_case)
        draw(database, held.envelope, spent=freed, held=-held.worst_case)
    excess = max(0, actual - freed - remaining)
    within = min(actual - excess, freed + caps.sub_cap(database, stage).remaining)
    _post(database, stage, within, actual - within, pending=-freed)
    _change(database, posted=actual - excess, pending=-freed, excess=excess)
    return excess


def give_back(database: RunDatabase, held: LedgerRow) -> None:
    """Release a pending attempt's reservation."""
    if held.envelope is None:
        set_aside(database, held.stage, -held.worst_case)
    else:
        draw(database, held.envelope, held=-held.worst_case)


def set_aside(database: RunDatabase, stage: str, amount: int) -> None:
    """Make ``amount`` pending for ``stage``, or if it is negative no longer pending.

    Raises:
        BudgetError: if posted and pending would exceed the cap, or the stage's own.
    """
    try:
        _change(database, pending=amount)
    except sqlite3.IntegrityError as error:
        now = statement.totals(database)
        raise BudgetError(
            f"{show_usd(amount)} does not fit under the cap of {show_usd(now.limit)}: "
            f"{_left(now.confirmed, now.pending, now.remaining)}"
        ) from error
    try:
        _post(database, stage, 0, 0, pending=amount)
    except sqlite3.IntegrityError as error:
        own = caps.sub_cap(database, stage)
        raise BudgetError(
            f"{show_usd(amount)} does not fit under {own.title}: "
            f"{_left(own.posted, own.pending, own.remaining)}"
        ) from error


def _left(confirmed: int, pending: int, remaining: int) -> str:
    return (
        f"{show_usd(confirmed)} is confirmed, {show_usd(pending)} pending, "
        f"{show_usd(remaining)} left"
    )


def _change(database: RunDatabase, *, posted: int = 0, pending: int = 0, excess: int = 0) -> None:
    database.execute(
        "UPDATE totals SET posted = posted + ?, pending = pending + ?, excess = excess + ?",
        (posted, pending, excess),
    )


def _post(database: RunDatabase, stage: str, posted: int, excess: int, *, pending: int) -> None:
    database.execute(
        "UPDATE sub_caps SET posted = posted + ?, pending = pending + ?, excess = excess + ?"
        " WHERE name = ?",
        (posted, pending, excess, caps.sub_cap_of(stage)),
    )


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
            f"{_left(now.spent, now.held, now.free)}"
        ) from error

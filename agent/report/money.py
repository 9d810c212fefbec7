"""What the rounds cost, and what the ledger says of the whole run.

Rounds are summed from their records; the ledger also holds what belongs to no round, such as
loading the model, so both are shown and neither is derived from the other.
"""

from collections.abc import Sequence

from agent.records import RoundRecord, RunRecord
from agent.report.replays import round_title
from agent.report.text import dollars, minutes, share, table


def cost_table(rounds: Sequence[RoundRecord], run: RunRecord) -> str:
    """Engine time and dollars of each round, running total and share of the cap."""
    rows, total = [], 0.0
    for record in rounds:
        spend = record.spend
        total += spend.total_usd
        rows.append(
            [
                round_title(record),
                minutes(spend.engine_seconds),
                dollars(spend.engine_usd),
                dollars(spend.review_usd),
                dollars(spend.total_usd),
                dollars(total),
                share(total, run.limit_usd),
                _per_kept(record),
            ]
        )
    header = ["Round", "Engine time", "Engine", "Review", "Together", "Running total", "Of the cap"]
    return table([*header, "Per kept row"], rows, "lr")


def _per_kept(record: RoundRecord) -> str:
    if record.replayed:
        return "no row bought"
    kept = record.funnel["kept"]
    return dollars(record.spend.total_usd / kept) if kept else "no row kept"


def totals(run: RunRecord) -> str:
    """Confirmed and possible spend, its share of the cap, and what remains, in a sentence."""
    left = max(0.0, run.limit_usd - run.possible_usd)
    return (
        f"Used, by the ledger of the whole run: {dollars(run.confirmed_usd)} confirmed, "
        f"{dollars(run.possible_usd)} possible, "
        f"{share(run.possible_usd, run.limit_usd)} of the cap of {dollars(run.limit_usd)}; "
        f"{dollars(left)} remain."
    )

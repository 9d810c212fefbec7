"""General statements that the figures of all rounds justify, and whether gates recovered.

The one idea: a sentence is a quotient of fields of records with its numbers beside it; where the
records hold nothing to divide, there is no sentence.
"""

from collections.abc import Callable, Sequence

from agent.records import RoundRecord, RunRecord
from agent.report.calibration import calibration
from agent.report.tables import metrics_of
from agent.report.text import dollars, escape, number, share


def normalised(record: RoundRecord, before: RoundRecord | None) -> str:
    """Whether the gates that failed in the round before still fail."""
    if before is None:
        return "First round: there is none before it to compare with."
    was = {m.name for m in metrics_of(before) if m.verdict == "FAIL"}
    now = {m.name for m in metrics_of(record) if m.verdict == "FAIL"}
    parts = [
        ("no longer failing", was - now),
        ("still failing", was & now),
        ("failing since this round", now - was),
    ]
    found = [f"{words}: {', '.join(sorted(names))}" for words, names in parts if names]
    return "; ".join(found) or "No gate failed in either round."


def insights(rounds: Sequence[RoundRecord], run: RunRecord) -> list[str]:
    """Sentences that the figures of all rounds justify; empty where there is nothing to say."""
    bought = [r for r in rounds if not r.replayed]
    found = [_price(bought), _acceptance(bought), _causes(rounds[-1]), *calibration(rounds, run)]
    return [line for line in (*found, _search_cost(rounds, run), _speed(rounds)) if line]


def _per_round(rounds: Sequence[RoundRecord], cell: Callable[[RoundRecord], str]) -> str:
    return ", ".join(f"{cell(r)} (round {r.round})" for r in rounds[-6:])


def _price(rounds: Sequence[RoundRecord]) -> str:
    with_rows = [r for r in rounds if r.funnel["kept"]]
    if not with_rows:
        return ""
    words = _per_round(with_rows, lambda r: dollars(r.spend.total_usd / r.funnel["kept"]))
    return f"**A kept row cost** {words}, review included."


def _acceptance(rounds: Sequence[RoundRecord]) -> str:
    words = _per_round(rounds, lambda r: share(r.funnel["kept"], r.funnel["generated"]))
    return f"**Of the instructions drawn, kept as rows:** {words}."


def _causes(record: RoundRecord) -> str:
    total = sum(record.causes.values())
    if not total:
        return ""
    name, count = min(record.causes.items(), key=lambda item: (-item[1], item[0]))
    return (
        f"**Most bad rows of round {record.round}** have the cause {escape(name)}: "
        f"{share(count, total)} ({count}/{total})."
    )


def _search_cost(rounds: Sequence[RoundRecord], run: RunRecord) -> str:
    total = sum(r.spend.total_usd for r in rounds)
    reviews = sum(r.spend.review_usd for r in rounds)
    if not total:
        return ""
    return (
        f"**The rounds cost** {dollars(total)}, {share(total, run.limit_usd)} of the cap; reviews "
        f"were {share(reviews, total)} of it. Preflight, releases of the engine and scale are not "
        f"in it; the whole run stands at {dollars(run.confirmed_usd)}."
    )


def _speed(rounds: Sequence[RoundRecord]) -> str:
    timed = [r for r in rounds if r.spend.engine_seconds > 0]
    if not timed:
        return ""
    words = _per_round(timed, lambda r: number(r.tokens / r.spend.engine_seconds))
    return f"**Tokens a second, everything included:** {words}."

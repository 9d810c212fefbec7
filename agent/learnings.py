"""The learnings report: everything a reviewer is told, as one text made from records.

A pure function of the round records: figures with their counts and intervals, what was changed and
what became of it, samples as they are. It leaves prose and layout to
``prompts/templates/learnings.md.j2``; here figures become words. Unmeasured is "not measured",
never 0, and text of a model is fenced and cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from agent.records import RoundRecord
from agent.report.critics import critic_words, fault_table
from agent.review_records import Replay
from pipeline.causes import treated_by
from pipeline.params import TUNABLE, GenParams
from pipeline.types import Funnel
from prompts.render import render_blocks

TEMPLATE: Final = "learnings.md.j2"
"""The report's template; its digest belongs into the record of a review."""
_SAMPLE_CHARS: Final = 600


def learnings(
    rounds: Sequence[RoundRecord],
    *,
    limit_usd: float,
    confirmed_usd: float,
    max_changes: int,
    rounds_left: int | None = None,
) -> str:
    """The report on the last of ``rounds``, with the earlier ones as its history.

    Args:
        rounds: Every round of the run so far, oldest first; at least one.
        limit_usd: The cap on everything.
        confirmed_usd: What is posted so far.
        max_changes: Changes that the guard applies at most.
        rounds_left: Rounds that may still follow; None leaves it out.
    """
    assert rounds, "a learnings report needs a measured round"
    parts = render_blocks(
        TEMPLATE,
        rounds=rounds,
        now=rounds[-1],
        metrics=[_metric_row(metric, rounds) for metric in rounds[-1].metrics],
        parameters=[_parameter_row(name, rounds) for name in TUNABLE],
        stages=[field.name for field in fields(Funnel)],
        fixed=_fixed(rounds[-1].params),
        faults=fault_table(rounds[-1]),
        critics=critic_words(rounds[-1]),
        samples=_samples(rounds[-1]),
        reviews=[r for r in rounds if r.review is not None],
        spend=_spend(rounds, limit_usd=limit_usd, confirmed_usd=confirmed_usd),
        max_changes=max_changes,
        rounds_left=rounds_left,
        figure=figure,
        dollars=dollars,
        value=_value,
        limits=_limits,
        treated_by=treated_by,
        replayed=_replayed,
        cut=_SAMPLE_CHARS,
    )
    return "".join(parts.values())


def _replayed(replay: Replay) -> str:
    """What stored rows said of a setting, in a line."""
    if not replay.sources:
        names = sorted({r.partition(":")[0] for rs in replay.refused.values() for r in rs})
        return f"replay: no stored rows could answer ({', '.join(names)}); a pilot was bought"
    found = [m for m in replay.metrics if m["verdict"] == "FAIL"]
    failed = ", ".join(f"{m['name']} {figure(m['name'], m['value'])}" for m in found)
    said = f"fails: {failed}; no pilot was bought" if found else "nothing fails; a pilot was bought"
    return f"replay on {replay.rows} stored rows ({', '.join(replay.sources)}): {said}"


def figure(metric: str, value: float | None) -> str:
    """A metric's value in words: a percentage, or a count where it is one."""
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if metric in {"median_tokens", "yield"} else f"{value:.1%}"


def dollars(amount: float) -> str:
    """An amount in whole cents, or to the micro-dollar where cents would hide some of it."""
    return f"${amount:,.2f}" if abs(amount - round(amount, 2)) < 5e-7 else f"${amount:,.6f}"


def _limits(low: float | None, high: float | None) -> str:
    """One-sided 95 % limits, or nothing where there are none."""
    return f" [{figure('', low)}, {figure('', high)}]" if low is not None else ""


def _metric_row(metric: Mapping[str, Any], rounds: Sequence[RoundRecord]) -> dict[str, Any]:
    name = metric["name"]
    counted = metric["count"] is not None
    known = metric["low"] is not None and metric["high"] is not None
    earlier = [figure(name, (r.metric(name) or {"value": None})["value"]) for r in rounds[:-1]]
    return {
        "name": name,
        "value": figure(name, metric["value"]),
        "count": f"{metric['count']}/{metric['n']}" if counted else f"n = {metric['n']}",
        "interval": f"{figure(name, metric['low'])} to {figure(name, metric['high'])}"
        if known
        else "-",
        "threshold": metric["threshold"] or "shown only",
        "verdict": metric["verdict"] or "-",
        "reason": metric["reason"],
        "earlier": earlier,
    }


def _parameter_row(name: str, rounds: Sequence[RoundRecord]) -> dict[str, Any]:
    values = [_value(r.params.get(name)) for r in rounds]
    return {
        "name": name,
        "values": values,
        "changed": len(values) > 1 and values[-1] != values[-2],
        "range": TUNABLE[name].describe(),
    }


def _fixed(params: GenParams) -> dict[str, str]:
    """What no review can change, by dotted name."""
    return {"critic.instruction": params.critic.instruction, "critic.pair": params.critic.pair}


def _value(value: Any) -> str:
    """A parameter's value as JSON writes it."""
    import json

    if value is None:
        return "set from controls"
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _samples(record: RoundRecord) -> list[tuple[str, tuple[dict[str, Any], ...]]]:
    shown = {row["index"] for row in record.random_samples}
    return [
        ("Answered rows, drawn at random", record.random_samples),
        ("Flagged rows", tuple(r for r in record.flagged_samples if r["index"] not in shown)),
    ]


def _spend(
    rounds: Sequence[RoundRecord], *, limit_usd: float, confirmed_usd: float
) -> dict[str, str]:
    costs = [record.spend.total_usd for record in rounds if not record.replayed]
    left = limit_usd - confirmed_usd
    return {
        "limit": dollars(limit_usd),
        "confirmed": dollars(confirmed_usd),
        "left": dollars(left),
        "share": f"{100 * confirmed_usd / limit_usd:.3g} %",
        "round": dollars(sum(costs) / len(costs)),
        "last": dollars(rounds[-1].spend.total_usd),
        "reviews": dollars(sum(record.spend.review_usd for record in rounds)),
    }

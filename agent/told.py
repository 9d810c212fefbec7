"""A round's records as the words and table rows of a learnings report.

Layout is ``prompts/templates/learnings.md.j2``'s, what goes in is ``agent/learnings.py``'s. The one
idea: a figure stands with its count, and unmeasured is "not measured", never 0.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from agent.records import RoundRecord
from agent.review_records import Candidate, Refused, Replay, Track
from agent.stops import cuts_too_much
from pipeline.metrics import METRICS
from pipeline.params import TUNABLE
from prompts.render import inline

_MOVED: Final = 0.01
"""Rates that moved less between two rounds are told in one word."""
_REFUSED: Final = 8
"""Refused changes of one review that are told; the others are counted."""
_RATES: Final = (
    "runaway", "repetition", "token_limit", "truncated", "delimiter_leak", "empty",
    "instruction_acceptance", "pair_acceptance", "raw_acceptance",
)  # fmt: skip


def figure(metric: str, value: float | None) -> str:
    """A metric's value in words: a percentage, or a count where it is one."""
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if metric in {"median_tokens", "yield"} else f"{value:.1%}"


def dollars(amount: float) -> str:
    """An amount in whole cents, or to the micro-dollar where cents would hide some of it."""
    return f"${amount:,.2f}" if abs(amount - round(amount, 2)) < 5e-7 else f"${amount:,.6f}"


def value_text(value: Any) -> str:
    """A parameter's value as JSON writes it."""
    if value is None:
        return "set from controls"
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def limits_text(low: float | None, high: float | None) -> str:
    """One-sided 95 % limits, or nothing where there are none."""
    return f" [{figure('', low)}, {figure('', high)}]" if low is not None else ""


def metric_rows(rounds: Sequence[RoundRecord]) -> list[dict[str, Any]]:
    """The metric table of the last round, with the values of earlier ones."""
    return [_metric_row(metric, rounds) for metric in rounds[-1].metrics]


def _metric_row(metric: Mapping[str, Any], rounds: Sequence[RoundRecord]) -> dict[str, Any]:
    name = metric["name"]
    counted = metric["count"] is not None
    known = metric["low"] is not None and metric["high"] is not None
    low, high = figure(name, metric["low"]), figure(name, metric["high"])
    earlier = [figure(name, (r.metric(name) or {"value": None})["value"]) for r in rounds[:-1]]
    return {
        "name": name,
        "value": figure(name, metric["value"]),
        "count": f"{metric['count']}/{metric['n']}" if counted else f"n = {metric['n']}",
        "interval": f"{low} to {high}" if known else "-",
        "threshold": metric["threshold"] or "shown only",
        "verdict": metric["verdict"] or "-",
        "reason": metric["reason"],
        "earlier": earlier,
    }


def parameter_rows(rounds: Sequence[RoundRecord], base: RoundRecord) -> list[dict[str, Any]]:
    """Each parameter: the value that changes apply to, those of all rounds, and its range."""
    return [_parameter_row(name, rounds, base) for name in TUNABLE]


def _parameter_row(name: str, rounds: Sequence[RoundRecord], base: RoundRecord) -> dict[str, Any]:
    values = [value_text(r.params.get(name)) for r in rounds]
    return {
        "name": name,
        "value": value_text(base.params.get(name)),
        "values": values if len(set(values)) > 1 else [],
        "changed": len(values) > 1 and values[-1] != values[-2],
        "range": TUNABLE[name].describe(),
    }


def effects(rounds: Sequence[RoundRecord]) -> list[dict[str, Any]]:
    """For every review that changed something: what the rates did from its base to its trial."""
    by_number = {record.round: record for record in rounds}
    found = []
    for before, after in zip(rounds, rounds[1:], strict=False):
        if before.review is None or not before.review.applied:
            continue
        base = by_number[before.review.base or before.round]
        found.append(
            {
                "base": base.round,
                "after": after.round,
                "replayed": after.replayed,
                "changes": [_change(a.parameter, a.before, a.after) for a in before.review.applied],
                "moved": list(_moved(base, after)),
            }
        )
    return found


def _change(name: str, before: Any, after: Any) -> str:
    return f"{name} {value_text(before)} -> {value_text(after)}"


def _moved(before: RoundRecord, after: RoundRecord) -> Iterator[str]:
    for name in _RATES:
        one, two = before.metric(name), after.metric(name)
        if one is None or two is None or one["value"] is None or two["value"] is None:
            continue
        verdicts = [str(m["verdict"]) for m in (one, two) if m["verdict"]]
        turned = len(set(verdicts)) > 1
        if abs(one["value"] - two["value"]) >= _MOVED or (turned and "FAIL" in verdicts):
            told = f" ({' -> '.join(verdicts)})" if turned else ""
            yield f"{name} {_share(one)} -> {_share(two)}{told}"


def _share(metric: Mapping[str, Any]) -> str:
    return f"{metric['count']}/{metric['n']} {figure(metric['name'], metric['value'])}"


def candidate_rows(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """What stored rows say of each obvious setting; stop strings are named S where they change."""
    return [
        {
            "changes": ", ".join(_named(n, v) for n, v in c.changes.items()),
            "rows": f"{c.rows}, {c.changed} end elsewhere"
            + (f", {c.unscored} unscored" if c.unscored else ""),
            "fails": ", ".join(_gates(c, "FAIL")) or "none",
            "undecided": ", ".join(_gates(c, "INSUFFICIENT")) or "none",
            "kept": figure("", c.values.get("raw_acceptance")),
        }
        for c in candidates
    ]


def candidate_stops(candidates: Sequence[Candidate]) -> str | None:
    """The stop strings that S stands for; None where no candidate changes them."""
    found = (c.changes["response.stop"] for c in candidates if "response.stop" in c.changes)
    return next(map(value_text, found), None)


def _named(name: str, value: Any) -> str:
    return "S" if name == "response.stop" else f"{name} = {value_text(value)}"


def _gates(candidate: Candidate, verdict: str) -> Iterator[str]:
    """Gates with a verdict; those without a bad row are counted, not named."""
    clean = 0
    for name, said in candidate.verdicts.items():
        value = candidate.values[name]
        if said == verdict and value == 0:
            clean += 1
        elif said == verdict:
            yield f"{name} {figure(name, value)}"
    if clean:
        yield f"{clean} at 0.0%"


def stop_rows(record: RoundRecord) -> list[dict[str, Any]]:
    """What each string would do to all stored rows as a stop string."""
    return [
        {
            "stop": value_text(run.stop),
            "ended": f"{run.ended} of {run.flagged}",
            "cut": f"{run.cut} of {run.good}",
            "refused": cuts_too_much(run),
        }
        for run in record.stop_candidates
    ]


def refused_text(refused: Sequence[Refused]) -> str:
    """What a reviewer asked for in vain, in its own words, and why."""
    shown = [
        f"{inline(x.parameter, 64)} = {inline(x.value, 64)}: {inline(x.why)}"
        for x in refused[:_REFUSED]
    ]
    more = [f"{len(refused) - _REFUSED} more"] if len(refused) > _REFUSED else []
    return "\n".join((*shown, *more))


def distrusted(rounds: Sequence[RoundRecord]) -> dict[str, Any]:
    """What became of distrust, the last time for each metric; other names are only counted."""
    found = [a for r in rounds if r.review is not None for a in r.review.audits]
    return {
        "audits": list({a.metric: a for a in found if a.metric in METRICS}.values()),
        "no_metrics": len({a.metric for a in found if a.metric not in METRICS}),
    }


def replay_text(replay: Replay) -> str:
    """What stored rows said of a setting, in a line."""
    if not replay.sources:
        names = sorted({r.partition(":")[0] for rs in replay.refused.values() for r in rs})
        return f"replay: no stored rows could answer ({', '.join(names)}); a pilot was bought"
    found = [m for m in replay.metrics if m["verdict"] == "FAIL"]
    failed = ", ".join(f"{m['name']} {figure(m['name'], m['value'])}" for m in found)
    said = f"fails: {failed}; no pilot was bought" if found else "nothing fails; a pilot was bought"
    return f"replay on {replay.rows} stored rows ({', '.join(replay.sources)}): {said}"


def track_text(track: Track) -> str:
    """How a reviewer did in other runs, in a line."""
    said = f"{track.reviewer}: {track.reviews} reviews in {track.runs} runs"
    if track.predictions and track.claimed is not None and track.brier is not None:
        said += (
            f"; of {track.predictions} predictions that were measured {track.hits} held "
            f"({track.hits / track.predictions:.0%}; claimed {track.claimed:.0%}), mean Brier "
            f"score {track.brier:.2f}"
        )
    return f"{said}; {track.reverted} made things worse and were undone; {dollars(track.cost_usd)}"


def spend_facts(
    rounds: Sequence[RoundRecord], *, limit_usd: float, confirmed_usd: float
) -> dict[str, str]:
    """What was spent, is left, and a further round can be expected to cost."""
    bought = [record for record in rounds if not record.replayed]
    engine = [record.spend.engine_usd for record in bought]
    reviews = [record.review.cost_usd for record in rounds if record.review is not None]
    rows = sum(record.funnel["answered"] for record in bought)
    each, review = sum(engine) / len(engine), sum(reviews) / len(reviews) if reviews else 0.0
    return {
        "limit": dollars(limit_usd),
        "confirmed": dollars(confirmed_usd),
        "left": dollars(limit_usd - confirmed_usd),
        "share": f"{100 * confirmed_usd / limit_usd:.3g} %",
        "next": dollars(round(each + review, 6)),
        "engine": dollars(round(each, 6)),
        "least": dollars(min(engine)),
        "most": dollars(max(engine)),
        "row": dollars(round(sum(engine) / rows, 6)) if rows else "not known",
        "review": dollars(round(review, 6)) if reviews else "not known yet",
        "reviews": dollars(sum(reviews)),
    }

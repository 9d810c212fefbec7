"""The tables of a report: rounds side by side, and one round from its metrics to its causes.

How a value looks is decided in ``report_text.py``, what the tables mean in ``report_findings.py``.
The one idea: a cell is a field of a record or a quotient of two, so that each can be recomputed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from agent.records import RoundRecord
from agent.report.replays import round_title
from agent.report.text import (
    MARKS,
    UNMEASURED,
    arrow,
    code,
    escape,
    interval_of,
    number,
    percent,
    setting,
    share,
    table,
    threshold_of,
    value_of,
    verdict_of,
)
from pipeline.params import TUNABLE, GenParams
from pipeline.types import Certificate, Metric

WIDEST: Final = 6
"""Rounds side by side at most: the baseline and the latest ones."""
STAGES: Final[tuple[tuple[str, str, str], ...]] = (
    ("generated", "instruction completions drawn", ""),
    ("parsed", "with an instruction in them", "no instruction found"),
    ("distinct", "not seen before", "repeats"),
    ("accepted", "accepted by the instruction critic", "refused by the critic"),
    ("answered", "with a response", "not answered"),
    ("unflagged", "with no detector's flag", "flagged"),
    ("kept", "accepted by the pair critic", "refused by the critic"),
)
"""The funnel's stages: field, what survives it, what it drops."""
TREATMENTS: Final[dict[str, str]] = {
    "sampling": "temperature, top-p, repetition penalty",
    "stop_rule": "`response.stop`",
    "token_cap": "`response.max_new_tokens`",
    "parser": "`instruction.max_new_tokens`, few-shot examples",
    "critic": "critic margins, few-shot examples",
    "cleaner": "no parameter: look at the rows below",
    "detector_suspect": "no parameter: look at the rows below",
}
"""What a reviewer may change against each cause."""


def metric_of(record: RoundRecord | None, name: str) -> Metric | None:
    """A round's metric as a typed value."""
    found = record.metric(name) if record else None
    return Metric.from_json(found) if found else None


def metrics_of(record: RoundRecord) -> list[Metric]:
    """All metrics of a round, in the order of the metric table."""
    return [Metric.from_json(m) for m in record.metrics]


def target_of(rounds: Sequence[RoundRecord], name: str) -> str:
    """The latest threshold of a metric; one that is not measured may not name it."""
    found = [m for r in rounds if (m := metric_of(r, name)) and m.threshold]
    return threshold_of(found[-1]) if found else "–"


def side_by_side(rounds: Sequence[RoundRecord]) -> list[tuple[RoundRecord | None, RoundRecord]]:
    """The rounds that stand in columns, each with the round before it."""
    pairs = list(zip([None, *rounds], rounds, strict=False))
    return pairs if len(pairs) <= WIDEST else [pairs[0], *pairs[1 - WIDEST :]]


def iteration_table(rounds: Sequence[RoundRecord]) -> str:
    """A row for each metric, a column for each round, the target last."""
    columns = side_by_side(rounds)
    rows = [
        _row("Rows kept", columns, lambda r: "–" if r.replayed else number(r.funnel["kept"])),
        _row("Rows answered", columns, lambda r: number(r.funnel["answered"])),
    ]
    rows[0][-1] = number(rounds[-1].funnel["wanted"])
    for metric in metrics_of(rounds[-1]):
        cells = [_moved(before, after, metric.name) for before, after in columns]
        rows.append([metric.name, *cells, target_of(rounds, metric.name)])
    rows.append(_row("Decision", columns, lambda r: r.step))
    header = ["Metric", *(round_title(after) for _, after in columns), "Target"]
    return table(header, rows, "lr")


def _row(
    name: str,
    columns: Sequence[tuple[RoundRecord | None, RoundRecord]],
    cell: Callable[[RoundRecord], str],
) -> list[str]:
    return [name, *(cell(after) for _, after in columns), "–"]


def _moved(before: RoundRecord | None, after: RoundRecord, name: str) -> str:
    now = metric_of(after, name)
    if now is None:
        return UNMEASURED
    mark = MARKS[now.verdict] if now.verdict else ""
    return " ".join(filter(None, [value_of(now), arrow(metric_of(before, name), now), mark]))


def parameter_table(rounds: Sequence[RoundRecord], following: GenParams, *, title: str) -> str:
    """A row for each parameter that ever changed, changes bold; ``title`` heads ``following``."""
    columns = side_by_side(rounds)
    ahead = following != rounds[-1].params
    rows = []
    for name in _changing(rounds, following):
        values = [*_values(rounds, name), following.get(name)]
        ends = [after.round for _, after in columns] + ([len(rounds) + 1] if ahead else [])
        rows.append([f"`{name}`", *(_changed(values[:end]) for end in ends)])
    header = ["Parameter", *(round_title(after) for _, after in columns)]
    header += [title] if ahead else []
    return table(header, rows) if rows else "No parameter has changed in any round."


def constant_parameters(rounds: Sequence[RoundRecord], following: GenParams) -> str:
    """The parameters that have one value throughout, with it."""
    changing = _changing(rounds, following)
    return ", ".join(
        f"`{name}` {setting(following.get(name))}" for name in TUNABLE if name not in changing
    )


def _changing(rounds: Sequence[RoundRecord], following: GenParams) -> list[str]:
    return [n for n in TUNABLE if any(v != following.get(n) for v in _values(rounds, n))]


def _values(rounds: Sequence[RoundRecord], name: str) -> list[Any]:
    return [r.params.get(name) for r in rounds]


def _changed(history: Sequence[Any]) -> str:
    """The last value of a history, marked if it differs from the one before."""
    now = setting(history[-1])
    if len(history) < 2 or history[-1] == history[-2]:
        return now
    before, after = history[-2], history[-1]
    mark = "✎"
    if isinstance(before, int | float) and isinstance(after, int | float):
        mark = "↑" if after > before else "↓"
    back = " (reverted)" if after in history[:-2] else ""
    return f"**{now}** {mark}{back}"


def metric_table(record: RoundRecord) -> str:
    """Every metric of a round with count, interval, threshold, verdict, certificate and reason."""
    rows = []
    for metric in metrics_of(record):
        rows.append(
            [
                metric.name,
                value_of(metric),
                interval_of(metric),
                threshold_of(metric),
                verdict_of(metric),
                _certified(record, metric.name),
                _why(metric),
            ]
        )
    header = ["Metric", "Value", "Interval", "Threshold", "Verdict", "Certificate", "Why"]
    return table(header, rows, "lrrrlll")


def _why(metric: Metric) -> str:
    needed = metric.rows_needed
    more = f"; about {needed} more rows" if needed and str(needed) not in metric.reason else ""
    return escape(metric.reason) + more


def _certified(record: RoundRecord, name: str) -> str:
    found = [c for c in record.certificates if c["name"] == name]
    return ("✅ certified" if found[0]["certified"] else "❌ uncertified") if found else "–"


def funnel_table(funnel: Mapping[str, int]) -> str:
    """The count at every stage, and what each stage dropped."""
    rows, before = [], None
    for name, what, dropped in STAGES:
        count = funnel[name]
        lost = 0 if before is None else before - count
        drop = f"−{lost:,} {dropped}" if lost else "–"
        rest = "–" if before is None else share(count, before)
        rows.append([f"{name}: {what}", number(count), drop, rest])
        before = count
    rows.append(["wanted", number(funnel["wanted"]), "", ""])
    return table(["Stage", "Rows", "Dropped here", "Passed on"], rows, "lrlr")


def cause_table(record: RoundRecord, before: RoundRecord | None) -> str:
    """Bad rows by cause, against the round before, with what can treat each cause."""
    earlier = before.causes if before else {}
    names = sorted({*record.causes, *earlier}, key=lambda c: (-record.causes.get(c, 0), c))
    if not names:
        return ""
    total = sum(record.causes.values())
    rows = [
        [
            c,
            number(record.causes.get(c, 0)),
            share(record.causes.get(c, 0), total),
            number(earlier.get(c, 0)) if before else "–",
            TREATMENTS.get(c, "–"),
        ]
        for c in names
    ]
    return table(["Cause", "Bad rows", "Share", "Round before", "Treated by"], rows, "lrrrl")


def stop_table(record: RoundRecord) -> str:
    """What ended the responses: each stop string, the end token, the cap."""
    total = sum(record.stops.values())
    words = {"eos": "end token", "length": f"token cap ({record.params.response.max_new_tokens})"}
    counts = {**dict.fromkeys(record.params.response.stop, 0), **record.stops}
    rows = [
        [words.get(name) or f"stop string {code(name)}", number(count), share(count, total)]
        for name, count in sorted(counts.items(), key=lambda item: -item[1])
    ]
    return table(["Ended by", "Responses", "Share"], rows, "lrr") if rows else ""


def _shown(share: float | None, low: float | None, count: int) -> str:
    """A share of controls with its one-sided lower 95 % limit."""
    limit = "" if low is None else f" (≥ {percent(low)})"
    return f"{percent(share)}{limit} of {count}"


def certificate_table(record: RoundRecord) -> str:
    """What each detector and critic showed on planted controls."""
    rows = []
    for certificate in (Certificate(**c) for c in record.certificates):
        rows.append(
            [
                certificate.name,
                "✅ yes" if certificate.certified else "❌ no",
                _shown(certificate.sensitivity, certificate.sensitivity_low, certificate.positives),
                _shown(certificate.specificity, certificate.specificity_low, certificate.negatives),
                escape(certificate.reason),
            ]
        )
    header = ["Of the metric", "Certified", "Sensitivity", "Specificity", "Why"]
    return table(header, rows, "llrrl") if rows else ""

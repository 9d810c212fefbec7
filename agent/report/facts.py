"""Forecast, plan, data set and provenance: what others recorded, in words and small tables.

Their shapes belong to forecast, approval and data set; a field that is missing is left out, never
guessed. The one idea: the unit in a field's name says how it is printed.
"""

from collections.abc import Mapping
from typing import Any, Final

from agent.records import RunRecord
from agent.report.tables import funnel_table
from agent.report.text import (
    dollars,
    escape,
    interval_of,
    minutes,
    number,
    percent,
    table,
    threshold_of,
    value_of,
    verdict_of,
)
from pipeline.types import Metric

PLAN: Final[dict[str, str]] = {
    "examples": "Rows wanted",
    "rows": "Rows forecast, with 90 % interval",
    "attempts": "Instructions drawn, by the median of the forecast",
    "max_attempts": "Instructions drawn at most",
    "validated": "Forecast within the validated range",
    "cost_usd": "Cost forecast, with 90 % interval",
    "usd_per_row": "Cost of a row, with 90 % interval",
    "max_cost_usd": "Cost at most: what approval sets aside",
    "seconds": "Time forecast, with 90 % interval",
    "usd_per_hour": "Price of an hour of the device",
    "micro_batch": "Instructions in a micro-batch",
    "wave": "Micro-batches in a wave",
    "shard_rows": "Rows in a shard",
    "hash": "Hash: what approval covers",
}
"""Fields of a plan that people read, in order."""
DATASET: Final[dict[str, str]] = {
    "rows": "Rows",
    "wanted": "Rows wanted",
    "forecast": "Rows forecast, with 90 % interval",
    "attempts": "Instructions drawn",
    "qc": "QC over everything that was attempted",
    "stopped": "Why it ended",
    "folder": "Folder",
    "files": "Files",
    "plan": "Plan",
    "approval": "Approval",
}
"""Fields of a data set that people read, in order."""
ENGINE: Final = ("kind", "model", "digest", "device", "dtype", "tokenizer", "context", "batch_size")


def forecast_words(forecast: Mapping[str, Any] | None) -> str:
    """A forecast of kept rows, or of distinct instructions, in words; empty if none was made."""
    if not forecast or forecast.get("expected") is None:
        return ""
    target = forecast.get("target")
    unit = "distinct instructions" if target is None else "rows"
    text = (
        f"{number(forecast.get('attempts'))} instructions drawn are expected to yield "
        f"**{number(forecast['expected'])} {unit}**, "
        f"90 % interval [{number(forecast.get('low'))}, {number(forecast.get('high'))}]"
    )
    if target is not None:
        text += f"; {number(target)} are wanted{_reached(forecast.get('attempts_needed'))}"
    if forecast.get("coverage") is not None:
        text += f"; Good-Turing coverage so far {percent(forecast['coverage'])}"
    outside = forecast.get("within_validated_range") is False
    return text + ("; **outside the validated range**." if outside else ".")


def need_words(need: Mapping[str, Any] | None) -> str:
    """Acceptance with and without examples, and what it warns of; empty before the check."""
    if not need:
        return ""
    if need["gap"] is None:
        return f"**Warning: unmeasured**: {escape(need['reason'], limit=400)}."
    ways = (("without examples", need["without"]), ("with examples", need["examples"]))
    rows = [
        [way, f"{found['count']} of {found['of']}",
         f"{percent(found['low'])} to {percent(found['high'])}"]
        for way, found in ways
    ]  # fmt: skip
    gap = (
        f"The gap is {percent(need['gap'])}, 90 % interval [{percent(need['gap_low'])}, "
        f"{percent(need['gap_high'])}], by the {escape(need['critic'])} critic."
    )
    warning = need.get("warning")
    rest = f" **Warning: {escape(warning, limit=400)}.**" if warning else ""
    return f"{table(['Answers', 'Accepted', '90 % interval'], rows)}\n\n{gap}{rest}"


def _reached(attempts: float | None) -> str:
    return f", reached after about {number(attempts)}" if attempts else ", and are not reached"


def plan_table(plan: Mapping[str, Any] | None) -> str:
    """A plan's figures; empty without a plan."""
    return _chosen(plan or {}, PLAN, "Plan")


def dataset_tables(dataset: Mapping[str, Any] | None) -> str:
    """A data set's figures, its funnel and its QC metrics; empty without a data set."""
    found = dataset or {}
    funnel = funnel_table(found["funnel"]) if "funnel" in found else ""
    parts = (_chosen(found, DATASET, "Data set"), funnel, _metric_rows(found.get("metrics")))
    return "\n\n".join(filter(None, parts))


def _chosen(values: Mapping[str, Any], words: Mapping[str, str], title: str) -> str:
    rows = [[word, _fact(name, values[name])] for name, word in words.items() if name in values]
    return table([title, ""], rows) if rows else ""


def provenance(run: RunRecord) -> str:
    """What made the run: program, configuration, model and price."""
    engine = run.engine or {}
    values = {
        "created": run.created,
        "program version": run.version,
        "configuration": run.config_digest,
        **{f"engine {name}": engine[name] for name in ENGINE if name in engine},
        "device, usd an hour": run.device_price_usd_per_hour,
    }
    return table(["What", "Value"], [[name, _fact(name, value)] for name, value in values.items()])


def _fact(name: str, value: Any) -> str:
    if isinstance(value, Mapping) and "expected" in value:
        low, high = _fact(name, value.get("low")), _fact(name, value.get("high"))
        return f"{_fact(name, value['expected'])} [{low}, {high}]"
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    if isinstance(value, int | float):
        if "usd" in name:
            return dollars(value)
        return minutes(value) if name.endswith("seconds") else number(value)
    if isinstance(value, list | tuple):
        return ", ".join(escape(_item(v), limit=80) for v in value[:20]) or "none"
    return escape(str(value), limit=120)


def _item(value: Any) -> str:
    return str(value.get("path", value)) if isinstance(value, Mapping) else str(value)


def _metric_rows(metrics: Any) -> str:
    """QC metrics, whether listed or by name."""
    if isinstance(metrics, Mapping):
        metrics = [{"name": name, **m} for name, m in metrics.items()]
    blank = {"count": None, "n": 0, "low": None, "high": None, "threshold": None, "reason": ""}
    rows = [
        [escape(m.name), value_of(m), interval_of(m), threshold_of(m), verdict_of(m)]
        for m in (Metric.from_json({**blank, **values}) for values in metrics or ())
    ]
    header = ["Metric", "Value", "Interval", "Threshold", "Verdict"]
    return table(header, rows, "lrrrl") if rows else ""

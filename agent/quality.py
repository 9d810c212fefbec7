"""Files that no run made: QC with a configuration's thresholds, and the forecast, as screens."""

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from agent.config import RunConfig
from agent.config_file import check_config, load_config
from agent.engines import engine_spec, find_model
from agent.errors import ConfigError
from agent.files import storage_errors
from agent.report.text import plural
from agent.screens import Screen, columns, metric_table
from agent.thresholds import bounds
from pipeline.engine import open_engine
from pipeline.engine.local.models import cache_folder
from pipeline.forecast import VALIDATED_DRAWS, VALIDATED_FACTOR, forecast_distinct
from pipeline.metrics import Rules
from pipeline.qc import QcResult, qc
from pipeline.qc_critics import Criticised, calibrated, criticise
from pipeline.rows import read_instructions

RELEVANCE: Final = "lift measures relevance, not correctness"
"""What must be said wherever its scores are."""


def settings(config: Path | None, *, model: str | None = None) -> RunConfig:
    """The configuration of ``config``, or the defaults, with another model if one is named.

    Raises:
        ConfigError: if the file, or the engine with that model, is not valid.
    """
    found = load_config(config) if config else RunConfig()
    if model is None:
        return found
    engine = found.engine.model_dump() | {"model": model}
    return check_config(found.model_dump() | {"engine": engine}, source=f"--model {model}")


def check(
    file: Path, config: RunConfig, *, rows: Path | None, require: Sequence[str], critics: bool
) -> tuple[Screen, bool]:
    """QC of a file of rows, by detectors and on wish by critics, and whether it passes."""
    if rows is not None:
        _check_target(rows)
    found = qc(
        file,
        thresholds=bounds(config),
        alpha=config.thresholds.alpha,
        require=require,
        stop=config.parameters.response.stop,
        minimum=config.certificates.minimum,
    )
    lines, data = [f"{file}: {found.rows} rows"], found.to_json()
    extra: list[str] = []
    if critics:
        judged = _with_critics(found, config)
        found, data, extra = judged.found, judged.to_json(), _critic_lines(judged)
    if rows is not None:
        with storage_errors(rows, then="repeat the command"):
            found.write_rows(rows)
    text = "\n".join([*lines, *metric_table(found.metrics), *extra])
    return Screen(text, data), found.exit_status == 0


def _check_target(rows: Path) -> None:
    """Before anything is judged: a wish that cannot be met is bad input, not a full disk."""
    if rows.is_dir():
        raise ConfigError(f"--rows {rows}: it is a folder; expected the name of a file to write")
    if not rows.parent.is_dir():
        raise ConfigError(f"--rows {rows}: there is no folder {rows.parent}; make it first")


def _with_critics(found: QcResult, config: RunConfig) -> Criticised:
    """The file's rows scored by the configured engine; nothing of it stands in any ledger."""
    spec = engine_spec(config.engine, os.environ)
    find_model(config)
    rules = Rules(bounds(config), {}, config.thresholds.alpha)
    with closing(open_engine(spec)) as engine:
        most = config.critic.max_false_accept
        known = calibrated(engine, cache_folder(spec), max_false_accept=most)
        return criticise(
            engine, found, rules=rules, calibration=known, critic=config.parameters.critic
        )


def _critic_lines(judged: Criticised) -> list[str]:
    """What the critics showed on controls, and which of them decide."""
    head = ("subject", "critic", "fault", "ROC area", "90 % interval", "seen")
    rows = [
        (f["subject"], f["critic"], f["fault"], *_area(f), "yes" if f["seen"] else "no")
        for f in judged.certificate["faults"]
    ]
    used = [
        f"  {subject}s by {u['critic']}: {u['why']}; margins from {u['source']}: {u['reason']}"
        for subject, u in judged.certificate["used"].items()
    ]
    taken = f"  {judged.scored:,} pairs scored in {judged.seconds:.0f} s, the model being open"
    return ["", *columns([head, *rows]), "", *used, taken, f"  {RELEVANCE}"]


def _area(fault: Mapping[str, Any]) -> tuple[str, str]:
    if fault["area"] is None:
        return "not scored", ""
    return f"{fault['area']:.2f}", f"{fault['low']:.2f} to {fault['high']:.2f}"


def foresee(file: Path, attempts: int) -> Screen:
    """The forecast of distinct instructions from a file of draws in their order."""
    draws = list(read_instructions(file))
    found = forecast_distinct(draws, attempts)
    distinct = {
        "expected": round(found.expected, 1), "low": round(found.low), "high": round(found.high),
    }  # fmt: skip
    data = {
        "attempts": attempts,
        "distinct": distinct,
        "coverage": found.coverage,
        "method": found.method,
        "draws": len(draws),
        "validated": found.within_validated_range,
    }
    checked = f"validated to {VALIDATED_FACTOR} times the draws, from {VALIDATED_DRAWS} on"
    lines = [
        f"{file}: {plural(len(draws), 'draw')}",
        f"  distinct in {plural(attempts, 'draw')}   {found.expected:,.0f}   "
        f"(90 %: {found.low:,.0f} to {found.high:,.0f})",
        f"  seen before, of the next draw   {found.coverage or 0:.1%}   (Good-Turing)",
        f"  method   {found.method}",
        f"  range    {'' if found.within_validated_range else 'OUTSIDE THE VALIDATED RANGE: '}"
        f"{checked}",
    ]
    return Screen("\n".join(lines), data)

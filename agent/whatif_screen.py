"""What stored rows say of another setting, as a screen: the table, the rows, what is not known.

What was asked and answered is ``agent/whatif.py``'s work. Everything here is told twice, for people
and for programs.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.archive import open_archive
from agent.report.text import plural, threshold_of, value_of
from agent.rescoring import rescored
from agent.screens import Screen, columns
from agent.session import open_session
from agent.stages.stored import Found
from agent.whatif import CRITICS, Answer, answer, parse_settings
from pipeline.metrics import Measurement
from pipeline.params import TUNABLE
from pipeline.types import Metric
from prompts.render import plain


def whatif(root: Path, run_id: str, settings: Sequence[str], *, score: bool) -> tuple[Screen, bool]:
    """The answer as a screen, and whether stored rows could give one.

    With ``score``, the run's engine scores the texts that replay changed; that is paid for from
    the run's budget, once.

    Raises:
        BudgetError: if scoring does not fit under the cap.
        ConfigError: for a parameter or value that is not valid.
        RunError: if there is no such run, it has no rows, or with ``score`` another process works
            on it.
    """
    values = parse_settings(settings)
    with open_archive(root, run_id) as archive:
        told = answer(archive, values)
    if score and told.quote is not None:
        with open_session(root, run_id) as session:
            rescored(session, told.found, told.wanted)
        with open_archive(root, run_id) as archive:
            told = answer(archive, values)
    return screen(run_id, told), told.after is not None


def screen(run_id: str, told: Answer) -> Screen:
    """An answer as text and as data."""
    lines = [f"{run_id}: replay of stored rows, nothing is generated", *_changes(told), ""]
    lines += _table(told) if told.after else ["  No stored rows can answer: it needs generation."]
    lines += ["", *_rows_used(told), *_refusals(told.base.name, told.found)]
    if told.after:
        lines += [line for name, found in told.passed_over for line in _refusals(name, found)]
    lines += _unmeasured(told)
    return Screen("\n".join(lines), _data(run_id, told))


def _changes(told: Answer) -> list[str]:
    names = (*TUNABLE, *CRITICS)
    pairs = [(n, told.base.params.get(n), told.wanted.get(n)) for n in names]
    changed = [f"  {n}: {_shown(a)} -> {_shown(b)}" for n, a, b in pairs if a != b]
    return [f"from the setting of {told.base.name}:", *(changed or ["  nothing is changed"])]


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _table(told: Answer) -> list[str]:
    assert told.after is not None
    head = ("metric", "before", "after", "count", "wanted", "verdict")
    return columns([head, *(_row(m, told.before) for m in told.after.metrics)])


def _row(after: Metric, before: Measurement | None) -> tuple[str, ...]:
    return (
        after.name,
        value_of(before[after.name]) if before else "–",
        value_of(after),
        "" if after.count is None else f"{after.count}/{after.n}",
        threshold_of(after),
        after.verdict or "",
    )


def _rows_used(told: Answer) -> list[str]:
    found = told.found
    if not found.used:
        return []
    lines = [
        f"rows: {plural(found.answered, 'response')} of {', '.join(found.used)}; "
        f"{found.rows.changed} end elsewhere than they did",
        f"exact for the rows as they were drawn; judged as pilot {told.pilot} would be, at its "
        "share of alpha",
    ]
    if told.before is None:
        lines.append(f"before: these rows cannot answer for the setting of {told.base.name}")
    if told.quote is not None:
        lines.append(f"not scored again: {plural(found.rows.unscored, 'text')}; {told.quote}")
    return lines


def _refusals(base: str, found: Found) -> list[str]:
    return [
        f"needs generation from {base}: {r.parameter} ({name}): {plain(r.reason)}"
        for name, refusals in found.refused.items()
        for r in refusals
    ]


def _unmeasured(told: Answer) -> list[str]:
    metrics = told.after.metrics if told.after else ()
    return [
        f"unmeasured: {m.name}: {plain(m.reason.removeprefix('not measured: '))}"
        for m in metrics
        if m.value is None
    ]


def _data(run_id: str, told: Answer) -> dict[str, Any]:
    found = told.found
    return {
        "run_id": run_id,
        "from": told.base.name,
        "present": told.base.params.model_dump(mode="json"),
        "wanted": told.wanted.model_dump(mode="json"),
        "used": list(found.used),
        "rows": found.answered,
        "changed": found.rows.changed,
        "unscored": found.rows.unscored,
        "judged_as_pilot": told.pilot,
        "scoring": told.quote.to_json() if told.quote else None,
        "refused": _by_rows(found),
        "passed_over": {name: _by_rows(other) for name, other in told.passed_over},
        "before": _metrics(told.before),
        "after": _metrics(told.after),
    }


def _by_rows(found: Found) -> dict[str, list[dict[str, str]]]:
    return {
        name: [{"parameter": r.parameter, "reason": r.reason} for r in refusals]
        for name, refusals in found.refused.items()
    }


def _metrics(found: Measurement | None) -> list[dict[str, Any]] | None:
    return None if found is None else [m.to_json() for m in found.metrics]

"""What commands print: each screen is text for people and the same facts as data for ``--json``.

Screens read records and books, and change nothing. Model text is never on them.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.display import duration
from agent.lock import holder
from agent.money.amounts import cap_to_micro, show_usd
from agent.money.plan import Plan
from agent.records import RoundRecord, RunRecord
from agent.report.text import dollars, interval_of, number, threshold_of, value_of
from agent.runner import Ending
from agent.store import RunStore
from pipeline.types import Metric
from prompts.render import plain


@dataclass(frozen=True, slots=True)
class Screen:
    """One answer, twice."""

    text: str
    """For people."""
    data: dict[str, Any]
    """For programs."""


def status(root: Path, run_id: str) -> Screen:
    """What a run does now, its metrics, and its money."""
    store = RunStore.open(root, run_id)
    run, rounds = store.load_run(), store.load_rounds()
    working = holder(store.lock_path)
    lines = [
        f"{run_id}: {run.status}" + (f", process {working.pid} works on it" if working else ""),
        f"  {plain(run.reason)}",
        f"  {len(rounds)} rounds decided; {_spent(run)}; reviewer {run.reviewer}",
    ]
    if rounds:
        lines += ["", *metric_table(Metric.from_json(m) for m in rounds[-1].metrics)]
    lines += ["", _next(root, run)]
    data = run.model_dump(mode="json") | {
        "working_pid": working.pid if working else None,
        "rounds": [_round_facts(r) for r in rounds],
    }
    return Screen("\n".join(lines), data)


def _round_facts(record: RoundRecord) -> dict[str, Any]:
    return {
        "round": record.round,
        "replayed": record.replayed,
        "step": record.step,
        "reason": record.reason,
        "metrics": list(record.metrics),
        "params": record.params.model_dump(mode="json"),
        "spend_usd": record.spend.total_usd,
    }


def _spent(run: RunRecord) -> str:
    pending = round(run.possible_usd - run.confirmed_usd, 6)
    rest = f" ({_booked(pending)} more are set aside)" if pending else ""
    cap = show_usd(cap_to_micro(run.limit_usd))
    return f"{_booked(run.confirmed_usd)} of {cap} spent{rest}"


def _booked(usd: float) -> str:
    """An amount of the books: below a cent all six places, as the ledger has them."""
    return f"${usd:.6f}" if 0 < usd < 0.01 else dollars(usd)


def _command(root: Path, command: str) -> str:
    """A command to copy, with the reports folder where it is not the usual one."""
    place = "" if root == Path("reports") else f" --reports {shlex.quote(str(root))}"
    return f"python -m agent {command}{place}"


def _next(root: Path, run: RunRecord) -> str:
    name = run.run_id
    match run.status:
        case "waiting":
            return _answers(root, name, run.plan or {})
        case "running" | "drained" | "held":
            return f"continue with: {_command(root, f'resume {name}')}"
        case _:
            check = _command(root, f"verify {name}")
            return f"read: {root / name / 'report.md'}\ncheck every figure: {check}"


def _answers(root: Path, run_id: str, waiting: Mapping[str, Any]) -> str:
    """The exact commands of a run that waits for a person's answer to the plan ``waiting``."""
    yes = (waiting.get("hash", "HASH")[:16], *waiting.get("accept", ()))
    commands = {
        "read it": f"report {run_id}",
        "plan N rows": f"plan {run_id} --examples N",
        "approve": f"approve {run_id} --plan {' '.join(yes)}",
        "reject": f"reject {run_id} --reason WHY",
    }
    lines = [f"  {what:<13}{_command(root, command)}" for what, command in commands.items()]
    waits = (
        "The run waits for your approval; no engine is running, but a rented machine still costs."
    )
    return "\n".join([waits, *lines])


def plan(root: Path, run_id: str, offered: Plan) -> Screen:
    """One plan in full, and how to approve it."""
    rows, cost, time, row = offered.rows, offered.cost_usd, offered.seconds, offered.usd_per_row
    yes = " ".join((f"approve {run_id} --plan {offered.hash[:16]}", *offered.accept))
    lines = [
        f"plan {offered.hash}",
        f"  rows wanted    {offered.examples:,} from about {offered.attempts:,} attempts, "
        f"at most {offered.max_attempts:,}",
        f"  forecast       {rows.expected:,.0f} distinct kept rows within all attempts "
        f"(90 %: {rows.low:,.0f} to {rows.high:,.0f})"
        + ("  SHORT OF THE TARGET" if offered.short else "")
        + ("" if offered.validated else "  OUTSIDE THE VALIDATED RANGE"),
        f"  time           {duration(time.expected)} "
        f"({duration(time.low)} to {duration(time.high)})",
        f"  cost           {dollars(cost.expected)} "
        f"({dollars(cost.low)} to {dollars(cost.high)}); never above "
        f"{dollars(offered.max_cost_usd)}, which is set aside",
        f"  a row          {dollars(row.expected)} ({dollars(row.low)} to {dollars(row.high)})",
        f"  model          {offered.model}, {offered.dtype} on {offered.device}",
        *([f"  WARNING        {plain(offered.need)}"] if offered.need else []),
        f"approve with: {_command(root, yes)}",
    ]
    return Screen("\n".join(lines), offered.model_dump(mode="json") | {"hash": offered.hash})


def report(root: Path, run_id: str) -> Screen:
    """Render every report again, and say where they are."""
    from agent.report.render import render_all

    store = RunStore.open(root, run_id)
    files = render_all(store.load_run(), store.load_rounds())
    for name, content in files.items():
        data = content.encode("utf-8", errors="replace") if isinstance(content, str) else content
        store.write_bytes(name, data)
    paths = [str(store.path / name) for name in sorted(files)]
    main = str(store.path / "report.md")
    return Screen(f"{main}\n({len(paths)} files written)", {"report": main, "files": paths})


def ending(root: Path, end: Ending) -> Screen:
    """How an invocation ended, and the commands that follow."""
    store = RunStore.open(root, end.run_id)
    run = store.load_run()
    lines = [
        f"{end.run_id}: {end.status.replace('_', ' ')}: {plain(end.reason)}",
        f"  {_spent(run)}",
        f"  {store.path / 'report.md'}",
        _next(root, run),
    ]
    facts = {
        "run_id": end.run_id,
        "status": end.status,
        "reason": end.reason,
        "exit_code": end.exit_code,
        "report": str(store.path / "report.md"),
        "plan": (run.plan or {}).get("hash"),
        "confirmed_usd": run.confirmed_usd,
        "possible_usd": run.possible_usd,
        "limit_usd": run.limit_usd,
    }
    return Screen("\n".join(lines), facts)


def metric_table(metrics: Iterable[Metric]) -> list[str]:
    """Metrics as lines of a table."""
    head = ("metric", "value", "count", "interval", "wanted", "verdict")
    rows = [
        (
            m.name,
            value_of(m),
            "" if m.count is None else f"{number(m.count)}/{m.n}",
            interval_of(m),
            threshold_of(m),
            m.verdict or "",
        )
        for m in metrics
    ]
    return columns([head, *rows])


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells of equal number a row, aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]

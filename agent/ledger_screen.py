"""The books of a run as a person and a spreadsheet read them: by stage and round, and by attempt.

Sums are ``money/statement.py``'s. The one idea: the file is opened read-only and read as of one
instant, so that looking at a run that works, or at a copied folder, disturbs nothing.
"""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.money.amounts import micro_to_usd
from agent.money.caps import SUB_CAPS, SubCap
from agent.money.database import RunDatabase
from agent.money.ledger import Ledger
from agent.money.statement import LedgerRow, StageTotal, Totals
from agent.records import RoundRecord, RunRecord
from agent.report.text import dollars
from agent.screens import Screen
from agent.store import RunStore
from prompts.render import inline, plain

CSV_COLUMNS = (
    "op_id", "stage", "round", "envelope", "worst_case_usd", "state", "actual_usd", "excess_usd",
    "engine_seconds", "note", "reserved_at",
)  # fmt: skip
_ACTIVE = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


def ledger(root: Path, run_id: str) -> Screen:
    """What was spent and what may be, by stage and round, under each cap, and for each row."""
    store = RunStore.open(root, run_id)
    with RunDatabase(store.database_path, read_only=True) as database, database.snapshot():
        books = Ledger(database)
        totals, stages, sub_caps = books.totals(), books.by_stage(), books.sub_caps()
    price = _price_of_a_row(store.load_run(), store.load_rounds(), stages)
    lines = [
        *_right_aligned(_stage_table(stages, totals)),
        "",
        *_right_aligned(_cap_table(totals, sub_caps)),
        "",
        *_remarks(totals, stages),
        _price_line(price),
    ]
    return Screen("\n".join(lines), _facts(totals, stages, sub_caps) | {"rows": price})


def attempts_csv(root: Path, run_id: str) -> str:
    """Every attempt as a line of CSV, in the order of reservation; no cell is a formula."""
    store = RunStore.open(root, run_id)
    with RunDatabase(store.database_path, read_only=True) as database:
        rows = Ledger(database).rows()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows([_inert(cell) for cell in _cells(row)] for row in rows)
    return out.getvalue()


def _cells(row: LedgerRow) -> tuple[str, ...]:
    return (
        row.op_id,
        row.stage,
        "" if row.round is None else str(row.round),
        row.envelope or "",
        _exact(row.worst_case),
        row.state,
        "" if row.actual is None else _exact(row.actual),
        _exact(row.excess),
        f"{row.engine_seconds:.3f}",
        row.note,
        datetime.fromtimestamp(row.at, UTC).isoformat(timespec="milliseconds"),
    )


def _exact(micro: int) -> str:
    return f"{micro_to_usd(micro):.6f}"


def _inert(text: str) -> str:
    """A cell on one line that a spreadsheet shows and does not compute."""
    return ("'" if text.startswith(_ACTIVE) else "") + inline(text)


def _usd(micro: int) -> str:
    """To the micro-dollar, as it is booked; nothing is a plain zero."""
    return f"${micro_to_usd(micro):,.6f}" if micro else "0"


def _stage_table(stages: Sequence[StageTotal], totals: Totals) -> list[tuple[str, ...]]:
    head = ("stage", "round", "attempts", "engine s", "confirmed", "possible", "unknown", "excess")
    rows = [
        (
            plain(s.stage),
            "" if s.round is None else str(s.round),
            str(s.attempts),
            f"{s.engine_seconds:,.1f}",
            *map(_usd, (s.confirmed, s.confirmed + s.pending, s.unknown, s.excess)),
        )
        for s in stages
    ]
    sums = (
        "all", "", str(sum(s.attempts for s in stages)),
        f"{sum(s.engine_seconds for s in stages):,.1f}",
        *map(_usd, (totals.confirmed, totals.possible, sum(s.unknown for s in stages),
                    totals.excess)),
    )  # fmt: skip
    return [head, *rows, sums]


def _cap_table(totals: Totals, sub_caps: Sequence[SubCap]) -> list[tuple[str, ...]]:
    head = ("cap of", "limit", "confirmed", "possible", "remaining")
    run = (totals.limit, totals.confirmed, totals.possible, totals.remaining)
    rows = [("the run", *map(_usd, run))]
    for own in sub_caps:
        if own.cap is not None:
            possible = own.posted + own.pending
            left = min(own.remaining, totals.remaining)
            rows.append((_OWNERS[own.name], *map(_usd, (own.cap, own.posted, possible, left))))
    return [head, *rows]


_OWNERS = {"pilot": "pilots", "review": "reviews", "scale": "scale"}
assert _OWNERS.keys() == SUB_CAPS.keys()


def _right_aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table whose first column holds words and whose others hold figures."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  " + "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]  # fmt: skip


def _remarks(totals: Totals, stages: Sequence[StageTotal]) -> list[str]:
    lines = []
    if unknown := sum(s.unknown for s in stages):
        lines.append(
            f"of confirmed, {_usd(unknown)} charged in full because the outcome is unknown"
        )
    if totals.excess:
        lines.append(
            f"excess: {_usd(totals.excess)} were spent beyond the cap by attempts that outran "
            "their reservation"
        )
    return lines


def _price_of_a_row(
    run: RunRecord, rounds: Sequence[RoundRecord], stages: Sequence[StageTotal]
) -> dict[str, Any]:
    """Dollars for each row that was kept: of the data set, else of the last pilot."""
    bought = [r for r in rounds if not r.replayed]
    if run.dataset is not None:
        kept, of, stage, round_ = int(run.dataset["rows"]), "the data set", "scale", None
    elif bought:
        round_ = bought[-1].round
        kept, of, stage = bought[-1].funnel["kept"], f"round {round_}'s pilot", "pilot"
    else:
        kept, of, stage, round_ = 0, "a pilot", "pilot", None
    spent = sum(s.confirmed + s.excess for s in stages)
    alone = sum(s.confirmed + s.excess for s in stages if (s.stage, s.round) == (stage, round_))
    return {
        "kept": kept,
        "of": of,
        "usd_per_row": micro_to_usd(spent) / kept if kept else None,
        "alone_usd_per_row": micro_to_usd(alone) / kept if kept else None,
    }


def _price_line(price: dict[str, Any]) -> str:
    if price["usd_per_row"] is None:
        return f"a row of {price['of']}: not known, none was kept"
    alone = "scale" if price["of"] == "the data set" else "that pilot"
    return (
        f"a row of {price['of']}, which kept {price['kept']:,}: "
        f"{dollars(price['usd_per_row'])} by all that the run spent,\n"
        f"  {dollars(price['alone_usd_per_row'])} by what {alone} alone spent"
    )


def _facts(
    totals: Totals, stages: Sequence[StageTotal], sub_caps: Sequence[SubCap]
) -> dict[str, Any]:
    return {
        "limit_usd": totals.limit_usd,
        "confirmed_usd": totals.confirmed_usd,
        "possible_usd": totals.possible_usd,
        "remaining_usd": totals.remaining_usd,
        "excess_usd": micro_to_usd(totals.excess),
        "sub_caps": [
            {
                "name": own.name,
                "limit_usd": None if own.cap is None else micro_to_usd(own.cap),
                "confirmed_usd": micro_to_usd(own.posted),
                "possible_usd": micro_to_usd(own.posted + own.pending),
                "remaining_usd": micro_to_usd(min(own.remaining, totals.remaining)),
                "excess_usd": micro_to_usd(own.excess),
            }
            for own in sub_caps
        ],
        "stages": [
            {
                "stage": s.stage,
                "round": s.round,
                "attempts": s.attempts,
                "engine_seconds": s.engine_seconds,
                "confirmed_usd": micro_to_usd(s.confirmed),
                "possible_usd": micro_to_usd(s.confirmed + s.pending),
                "unknown_usd": micro_to_usd(s.unknown),
                "excess_usd": micro_to_usd(s.excess),
            }
            for s in stages
        ],
    }

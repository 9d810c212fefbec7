"""A comparison as JSON and as a page of Markdown; figures are made elsewhere."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.engine.contenders import NAMES, OURS
from benchmarks.engine.host import Host
from benchmarks.engine.linear import TARGET, Linear
from benchmarks.engine.results import Entry, Figures, Floor
from benchmarks.engine.workload import ANSWER_STOP, ANSWER_TOKENS, GENERATION, SCORING


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that one invocation found."""

    host: Host
    """Where."""
    rows: int
    """Rows in each phase of a round."""
    rounds: int
    """Rounds asked for."""
    entries: tuple[Entry, ...]
    """What each contender reported."""
    figures: tuple[Figures, ...]
    """Their medians and ratios, in the same order."""
    floors: tuple[Floor, ...]
    """This engine's floors."""
    linear: Linear | None
    """Ten times the rows, if that was asked for."""


def write(found: Comparison, folder: Path) -> tuple[Path, Path]:
    """Write both files; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"engine-{_slug(found.host)}"
    page, data = folder / f"{name}.md", folder / f"{name}.json"
    page.write_text(markdown(found), encoding="utf-8")
    data.write_text(json.dumps(to_json(found), indent=1) + "\n", encoding="utf-8")
    return page, data


def to_json(found: Comparison) -> dict[str, Any]:
    """The comparison as JSON, each round with its passes as [rows, slots, kept, times]."""
    linear = found.linear
    judged = {"ratio": linear.ratio, "target": TARGET, "passed": linear.passed} if linear else {}
    return {
        "host": asdict(found.host),
        "rows": found.rows,
        "rounds": found.rounds,
        "figures": [asdict(each) for each in found.figures],
        "floors": [asdict(each) for each in found.floors],
        "linear": asdict(linear) | judged if linear else None,
        "measured": {
            entry.key: [_phases(r.phases) for r in entry.reports] for entry in found.entries
        },
    }


def _phases(phases: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {
            "phase": p.name, "rows": p.rows, "seconds": p.seconds, "tokens": p.tokens,
            "passes": None if p.passes is None else [[*k, n] for k, n in sorted(p.passes.items())],
        }
        for p in phases
    ]  # fmt: skip


def markdown(found: Comparison) -> str:
    """The comparison as a page."""
    parts = [_heading(found), _table(found), _notes(found), _floors(found), _linear(found)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(found: Comparison) -> str:
    h, rows = found.host, found.rows
    stops = ", ".join(map(repr, ANSWER_STOP))
    return f"""# Engine comparison on {h.name}

{h.model}, {h.dtype}, {_millions(h.weights.body + h.weights.head)} parameters; {h.cores} cores,
{h.threads} threads; torch {h.torch}, transformers {h.transformers}; {h.date}; revision
{h.revision or "unknown"}.

One round: {rows} instruction completions with a topic each, {rows} answers (at most {ANSWER_TOKENS}
tokens; stop strings {stops}), {rows} label scores and {rows} lift scores.
Contenders are processes of their own, loaded throughout; one works at a time, in turn; figures
are medians over the rounds, of which there were {found.rounds}. Useful tokens are those kept up to
the stop; rows a second are {rows} by the time of all phases that a contender does. Ratios are this
engine's figure by the contender's in the same round, rows a second over the phases that both do.
Memory is the largest resident set of a process, loading included."""


def _table(found: Comparison) -> str:
    if not found.figures:
        return ""
    phases = GENERATION + SCORING
    gpu = any(f.cuda_peak_bytes for f in found.figures)
    head = ["", "contender", "completions/s", "useful tokens/s", "rows/s", "rows: ours / theirs"]
    head += ["tokens: ours / theirs", *(f"{name}, s" for name in phases), "memory, GB"]
    head += ["GPU memory, GB"] * gpu
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2)]
    for f in found.figures:
        if f.rows_per_second is None:
            lines.append([f.key, NAMES[f.key], f"not measured: {_line(f.absent or '')}"])
            lines[-1] += [""] * (len(head) - 3)
            continue
        bold = "**" if f.key == OURS else ""
        cells = [f.completions_per_second, f.tokens_per_second, f.rows_per_second]
        cells += [f.rows_ratio, f.tokens_ratio, *(f.seconds.get(name) for name in phases)]
        cells += [_gigabytes(f.peak_bytes)] + [_gigabytes(f.cuda_peak_bytes)] * gpu
        lines.append([f.key, f"{bold}{NAMES[f.key]}{bold}", *map(_number, cells)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _notes(found: Comparison) -> str:
    lines = []
    for f in found.figures:
        said = list(f.notes)
        if f.rows_per_second is not None and not set(SCORING) & f.seconds.keys():
            said.append("does not score: compared on the two phases that generate")
        if f.rows_per_second is not None and f.absent:
            said.append(f"left before the last round: {_line(f.absent)}")
        lines += [f"- {f.key}: {'; '.join(said)}."] if said else []
    return "\n".join(lines)


def _floors(found: Comparison) -> str:
    if not found.floors:
        return ""
    w, r = found.host.weights, found.host.rates
    text = f"""## Floor

Least time of the forward passes that this engine made. Each reads {_millions(w.bytes)}B of
weights at {r.bytes_per_second / 1e9:.1f} GB/s, or multiplies {_millions(w.body)} parameters with
its tokens and {_millions(w.head)} with its rows of logits at {r.flops_per_second / 1e9:,.0f}
GFLOP/s, whichever is slower; both rates were measured here. Products alone is what the tensor
library's own kernels take for the same products in the same shapes, back to back.

| phase | passes | tokens | floor, s | products alone, s | measured, s | floor / measured |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
"""
    return text + "\n".join(
        f"| {f.phase} | {f.passes:.0f} | {f.tokens:,.0f} | {_number(f.floor_seconds)} "
        f"| {_number(f.products_seconds)} | {_number(f.seconds)} | {f.share:.0%} |"
        for f in found.floors
    )


def _linear(found: Comparison) -> str:
    if (ten := found.linear) is None:
        return ""
    verdict = "met" if ten.passed else "missed"
    text = f"""## Ten times the rows

{ten.rows * 10} answers in one call, in batches of {ten.rows}, cost {ten.ratio:.2f} times the mean \
of {ten.rows} (target: at most {TARGET}, {verdict}).

| answers | seconds | memory, GB | GPU memory, GB |
| ---: | ---: | ---: | ---: |
"""
    lines = (
        (ten.rows, ten.seconds, ten.peak_bytes, ten.cuda_peak_bytes),
        (ten.rows * 10, ten.many_seconds, ten.many_peak_bytes, ten.many_cuda_peak_bytes),
    )
    cells = [[s, _gigabytes(peak), _gigabytes(gpu)] for _, s, peak, gpu in lines]
    return text + "\n".join(
        f"| {line[0]} | " + " | ".join(map(_number, row)) + " |"
        for line, row in zip(lines, cells, strict=True)
    )


def _number(value: float | None) -> str:
    """Three digits, or a dash for what was not measured."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _millions(count: int) -> str:
    return f"{_number(count / 1e6)} M"


def _gigabytes(count: int | None) -> float | None:
    return None if count is None else count / 1e9


def _line(text: str) -> str:
    """A reason as one short line that cannot break a table."""
    return " ".join(text.split()).replace("|", "/")[:200]


def _slug(host: Host) -> str:
    plain = re.sub(r"\((r|tm)\)", "", host.name.lower())
    return re.sub(r"[^a-z0-9]+", "-", f"{plain} {host.cores} cores").strip("-")

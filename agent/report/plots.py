"""The pictures of a report as PNG bytes: gates over rounds, response lengths, spend by round.

How they look is decided in ``plot_style.py``. The one idea: a verdict is a shape before it is a
colour, and what was not measured is written and never drawn at 0.
"""

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Final

from agent.records import RoundRecord, RunRecord
from agent.report.plot_style import (
    BEHIND,
    BLUE,
    DASHES,
    GREY,
    HATCHED,
    INK,
    MARKER,
    ORANGE,
    YELLOW,
    figure,
    label,
    note,
    nothing,
    png,
    round_axis,
    titled,
    value_axis,
)
from agent.report.tables import metric_of, metrics_of, target_of
from agent.report.text import NUMBERS, dollars, percent, share
from pipeline.types import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERDICTS: Final[dict[str | None, tuple[str, str, str]]] = {
    "PASS": ("o", "#008060", "pass"),
    "FAIL": ("X", ORANGE, "fail"),
    "INSUFFICIENT": ("D", "#57606a", "not enough rows to tell"),
}
"""Marker, colour and words of each verdict; the diamond is hollow."""
PANELS: Final = 3
"""Gates side by side."""


def metrics_over_rounds(rounds: Sequence[RoundRecord]) -> bytes:
    """A panel for each gate: value, interval and verdict by round, against its threshold."""
    names = [m.name for m in metrics_of(rounds[-1]) if m.verdict]
    lines = max(1, -(-len(names) // PANELS))
    with figure(0.6 + 1.5 * lines) as drawn:
        panels = list(drawn.subplots(lines, PANELS, squeeze=False).flat)
        for name, axes in zip(names, panels, strict=False):
            _gate(axes, rounds, name)
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        drawn.supxlabel("round", fontsize=8.5)
        _verdict_legend(drawn)
        return png(drawn)


def token_lengths(record: RoundRecord) -> bytes:
    """How long the responses of a round were, with the median and the cap."""
    lengths = record.response_tokens
    with figure(2.7) as drawn:
        axes = drawn.subplots()
        titled(axes, f"Response length in tokens, round {record.round}")
        if not lengths:
            nothing(axes, "no response was generated")
            return png(drawn)
        width = -(-record.params.response.max_new_tokens // 40)
        tallest = _length_bars(axes, record, width)
        axes.set_ylim(0, 1.32 * tallest)
        _length_notes(axes, record)
        axes.set(xlabel="tokens, as generated", ylabel="responses")
        value_axis(axes, lambda v: f"{v:,.0f}", whole=True)
        return png(drawn)


def spend(rounds: Sequence[RoundRecord], run: RunRecord) -> bytes:
    """Dollars of each round, engine and reviews stacked, with the share of the cap."""
    total = sum(r.spend.total_usd for r in rounds)
    places = [r.round for r in rounds]
    engine = [r.spend.engine_usd for r in rounds]
    with figure(2.5) as drawn:
        axes = drawn.subplots()
        part = f"{dollars(total)}, {share(total, run.limit_usd)} of {dollars(run.limit_usd)}"
        titled(axes, "Spend by round", f"together {part}")
        axes.bar(places, engine, width=0.5, color=BLUE, label="engine")
        axes.bar(
            places,
            [r.spend.review_usd for r in rounds],
            width=0.5,
            bottom=engine,
            color=YELLOW,
            label="review",
            **HATCHED,
        )
        if len(rounds) <= 8:
            _totals_above(axes, rounds)
        axes.set_ylim(0, 1.18 * (max(r.spend.total_usd for r in rounds) or 0.01))
        axes.set_xlabel("round")
        round_axis(axes, places)
        value_axis(axes, dollars)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02))
        return png(drawn)


def _gate(axes: "Axes", rounds: Sequence[RoundRecord], name: str) -> None:
    found = [(r.round, m) for r in rounds if (m := metric_of(r, name))]
    points = [(x, m.value) for x, m in found if m.value is not None]
    last = next((m for _, m in reversed(found) if m.threshold), found[-1][1])
    titled(axes, name.replace("_", " "), target_of(rounds, name))
    top = _top(name, [m for _, m in found], _limit(last))
    axes.set_ylim(-0.04 * top, top)
    _threshold(axes, last, top)
    axes.plot([x for x, _ in points], [v for _, v in points], color=GREY, linewidth=1)
    for x, metric in found:
        _point(axes, x, metric, middle=top / 2)
    if points:
        label(axes, points[-1], _tick(name, points[-1][1], places=1))
    round_axis(axes, [r.round for r in rounds], room=0.4 + 0.2 * len(rounds))
    value_axis(axes, lambda v: _tick(name, v))


def _threshold(axes: "Axes", metric: Metric, top: float) -> None:
    limit = _limit(metric)
    if limit is None:
        return
    below = (metric.threshold or "").startswith("<")
    axes.axhline(limit, color=INK, linewidth=1, linestyle=DASHES)
    bad = (limit, top) if below else (-0.04 * top, limit)
    axes.axhspan(*bad, color=ORANGE, alpha=0.06, linewidth=0)


def _point(axes: "Axes", x: int, metric: Metric, *, middle: float) -> None:
    if metric.value is None:
        words = axes.annotate("not measured", (x, middle), ha="center", va="center", fontsize=7)
        words.set(rotation=90, in_layout=False)
        words.set_bbox(BEHIND)
        return
    marker, colour, _ = VERDICTS[metric.verdict]
    if metric.low is not None and metric.high is not None:
        axes.vlines(x, metric.low, metric.high, color=colour, linewidth=2.6, alpha=0.35)
    face = "white" if metric.verdict == "INSUFFICIENT" else colour
    look = {**MARKER, "marker": marker, "color": colour, "markerfacecolor": face}
    axes.plot([x], [metric.value], clip_on=False, zorder=5, **look)


def _top(name: str, metrics: Sequence[Metric], limit: float | None) -> float:
    """Upper end of a panel: room for values, intervals and both sides of the threshold."""
    values = [1.25 * m.value for m in metrics if m.value is not None]
    highs = [1.05 * m.high for m in metrics if m.high is not None]
    need = max([*values, *highs, 2.2 * (limit or 0.0), 1e-6])
    return need if name in NUMBERS else min(1.04, need)


def _limit(metric: Metric) -> float | None:
    try:
        return float((metric.threshold or "").split()[-1])
    except (ValueError, IndexError):
        return None


def _tick(name: str, value: float, *, places: int = 0) -> str:
    if name not in NUMBERS:
        return percent(value) if places else f"{100 * value:g}%"
    return f"{value / 1000:.3g}k" if abs(value) >= 1000 else f"{value:.3g}"


def _verdict_legend(drawn: "Figure") -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            marker=marker,
            color=colour,
            markerfacecolor="white" if verdict == "INSUFFICIENT" else colour,
            label=words,
            **MARKER,
        )
        for verdict, (marker, colour, words) in VERDICTS.items()
    ]
    handles.append(Line2D([], [], color=GREY, linewidth=2.6, alpha=0.6, label="interval"))
    handles.append(Line2D([], [], color=INK, linewidth=1, linestyle=DASHES, label="threshold"))
    drawn.legend(handles=handles, loc="outside upper left", ncols=5, columnspacing=1.6)


def _length_bars(axes: "Axes", record: RoundRecord, width: int) -> float:
    """Bars of ``width`` tokens, those at the cap apart; returns the tallest one's height."""
    cap = record.params.response.max_new_tokens
    free = [n for n in record.response_tokens if n < cap]
    at_cap = len(record.response_tokens) - len(free)
    edges = list(range(cap % -width, cap, width))
    heights = [sum(low <= n < low + width for n in free) for low in edges]
    axes.bar(
        edges, heights, width=width, align="edge", color=BLUE, edgecolor="white", linewidth=0.6
    )
    axes.bar([cap], [at_cap], width=width, align="edge", color=ORANGE, **HATCHED)
    axes.set_xlim(edges[0], cap + 2 * width)
    return max([*heights, at_cap, 1])


def _length_notes(axes: "Axes", record: RoundRecord) -> None:
    cap, hits = record.params.response.max_new_tokens, record.stops.get("length", 0)
    of, middle = sum(record.stops.values()), median(record.response_tokens)
    axes.axvline(cap, color=ORANGE, linewidth=1.2)
    note(axes, cap, f"cap {cap} ended {hits} of {of} ({share(hits, of)})", height=1, left_of=True)
    axes.axvline(middle, color=INK, linewidth=1, linestyle=DASHES)
    note(axes, middle, f"median {middle:g}", height=0.88, left_of=middle > cap / 2)


def _totals_above(axes: "Axes", rounds: Sequence[RoundRecord]) -> None:
    for record in rounds:
        height = record.spend.total_usd
        axes.annotate(
            dollars(height), (record.round, height), (0, 3), textcoords="offset points", ha="center"
        )

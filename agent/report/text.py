"""How one value looks in a report: figures, dollars, intervals, table cells, text of a model.

What stands in which table is decided in ``report_tables.py``. The one idea: an unmeasured value is
printed as such and never as 0, and text that a model wrote can neither end a cell nor start markup.
"""

import json
import math
import re
from collections.abc import Sequence
from typing import Any, Final

from pipeline.types import Metric

UNMEASURED: Final = "not measured"
NUMBERS: Final[dict[str, str]] = {"yield": "rows", "median_tokens": "tokens"}
"""Metrics that are numbers rather than rates, with their unit."""
MARKS: Final[dict[str | None, str]] = {"PASS": "✅", "FAIL": "❌", "INSUFFICIENT": "❔", None: "·"}
"""A sign for each verdict; the shapes differ, so that they read without colour."""
_MARKUP: Final = re.compile(r"([\\`*\[\]<>~&$#{}]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z]))")
_LINKLIKE: Final = re.compile(r"://|www\.|@", re.IGNORECASE)
_LEADING: Final = re.compile(r"^([-+=]|\d+[.)])(?=\s|$)")


def dollars(value: float | None) -> str:
    """Dollars with two decimals, or with two significant digits below ten cents."""
    if value is None:
        return UNMEASURED
    if value == 0:
        return "$0.00"
    if abs(value) < 1e-8:
        return "< $0.00000001"
    places = min(9, max(2, 1 - math.floor(math.log10(abs(value)))))
    return f"{'-' if value < 0 else ''}${abs(value):,.{places}f}"


def percent(rate: float | None) -> str:
    """A rate as a percentage with one decimal; what is not 0 or 1 never prints as it."""
    if rate is None:
        return UNMEASURED
    text = f"{100 * rate:.1f}%"
    if text == "0.0%" and rate > 0:
        return "<0.1%"
    if text == "100.0%" and rate < 1:
        return ">99.9%"
    return text


def number(value: float | None) -> str:
    """A count or a number, with thousands separated and at most one decimal."""
    if value is None:
        return UNMEASURED
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:,.1f}"


def minutes(seconds: float) -> str:
    """Wall time: seconds below two minutes, then minutes, then hours."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def share(part: float, whole: float) -> str:
    """``part`` of ``whole`` as a percentage; nothing of nothing is unmeasured."""
    return percent(part / whole if whole else None)


def value_of(metric: Metric) -> str:
    """A metric's value with its count, such as ``4.7% (3/64)``."""
    if metric.value is None:
        return UNMEASURED
    if metric.name in NUMBERS:
        return number(metric.value)
    count = "" if metric.count is None else f" ({metric.count}/{metric.n})"
    return percent(metric.value) + count


def interval_of(metric: Metric) -> str:
    """A metric's interval, such as ``[1.2%, 11.8%]``."""
    if metric.low is None or metric.high is None:
        return "–"
    look = number if metric.name in NUMBERS else percent
    return f"[{look(metric.low)}, {look(metric.high)}]"


def scaled(name: str, value: float | None) -> str:
    """A bare value of the metric called ``name``: a percentage, or a number."""
    return number(value) if name in NUMBERS else percent(value)


def threshold_of(metric: Metric) -> str:
    """A metric's threshold in the unit of its value, such as ``< 5%``."""
    if metric.threshold is None:
        return "–"
    sign, _, bound = metric.threshold.partition(" ")
    try:
        limit = float(bound)
    except ValueError:
        return escape(metric.threshold)
    shown = f"{limit:,g}" if metric.name in NUMBERS else f"{100 * limit:g}%"
    return f"{sign.replace('>=', '≥').replace('<=', '≤')} {shown}"


def verdict_of(metric: Metric) -> str:
    """A verdict with its mark."""
    return f"{MARKS[metric.verdict]} {metric.verdict}" if metric.verdict else "shown"


def arrow(before: Metric | None, after: Metric | None) -> str:
    """How a metric moved: ``↑`` beyond half a point, ``↑↑`` beyond ten, ``(↑)`` within chance.

    Numbers move by ratio: one arrow beyond 5 %, two beyond 50 %. Parentheses say that the two
    intervals overlap.
    """
    if before is None or after is None or before.value is None or after.value is None:
        return ""
    size = after.value - before.value
    small, large = 0.005, 0.10
    if after.name in NUMBERS:
        small, large = 0.05 * abs(before.value), 0.5 * abs(before.value)
    distance = round(abs(size), 9)
    if distance <= small:
        return ""
    sign = ("↑" if size > 0 else "↓") * (2 if distance > large else 1)
    return f"({sign})" if overlap(before, after) else sign


def overlap(before: Metric, after: Metric) -> bool:
    """Whether two intervals overlap, so that chance may explain the difference."""
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return False
    return before.low <= after.high and after.low <= before.high


def escape(text: str, *, limit: int = 400) -> str:
    """A model's sentence on one line, in which nothing is markup: not a link, tag, cell or list."""
    words = _cut(" ".join(text.split()), limit).split(" ")
    plain = " ".join(code(w, quoted=False) if _LINKLIKE.search(w) else _escaped(w) for w in words)
    return _LEADING.sub(lambda m: m[1][:-1] + "\\" + m[1][-1], plain)


def code(text: str, *, limit: int = 80, quoted: bool = True) -> str:
    r"""A model's string as inline code, JSON-escaped, so that it fits a cell and shows white space.

    Pipes and backticks become ``\u`` escapes, which JSON reads back.
    """
    inside = "".join(map(_visible, json.dumps(_cut(text, limit), ensure_ascii=False)))
    inside = inside.replace("|", "\\u007c").replace("`", "\\u0060")
    return f"`{inside}`" if quoted else f"`{inside[1:-1]}`"


def sentence(text: str, *, limit: int = 400) -> str:
    """A reason as an escaped sentence that ends in one full stop."""
    return escape(text, limit=limit).rstrip(" .") + "."


def plural(count: int, word: str) -> str:
    """A count and its noun."""
    ending = "" if count == 1 else "es" if word.endswith("ch") else "s"
    return f"{count:,} {word}{ending}"


def setting(value: Any) -> str:
    """A parameter's value for a cell."""
    if value is None:
        return "from controls"
    if isinstance(value, str):
        return value if value.isidentifier() else code(value, limit=64)
    if isinstance(value, list | tuple):
        return " ".join(code(str(v), limit=64) for v in value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return escape(str(value))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> str:
    """A Markdown table, padded so that it also reads as plain text; ``align`` holds l and r."""
    marks = align.ljust(len(header), align[-1:] or "l")
    widths = [
        min(48, max(3, *(len(row[i]) for row in (header, *rows)))) for i in range(len(header))
    ]
    rule = ["-" * (w - 1) + (":" if a == "r" else "-") for w, a in zip(widths, marks, strict=True)]
    lines = [_line(header, widths, marks), "| " + " | ".join(rule) + " |"]
    return "\n".join([*lines, *(_line(row, widths, marks) for row in rows)])


def _line(row: Sequence[str], widths: Sequence[int], marks: str) -> str:
    cells = (
        text.rjust(width) if mark == "r" else text.ljust(width)
        for text, width, mark in zip(row, widths, marks, strict=True)
    )
    return "| " + " | ".join(cells) + " |"


def _escaped(word: str) -> str:
    return _MARKUP.sub(r"\\\1", "".join(map(_visible, word))).replace("|", "&#124;")


def _visible(char: str) -> str:
    return char if char.isprintable() else json.dumps(char)[1:-1]


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + f" … (+{len(text) - limit:,} characters)"

"""How far one review can move each parameter: the guard's bounds, as ranges to draw from.

For reviewers that search instead of reasoning. The one idea: whatever is drawn from a span is
within the guard's bounds, so a search wastes hardly a round on a refusal. What stored rows say of
stop strings is known here of the strings that a round's record names, not of the others: the guard
asks the rows themselves, and may refuse a set that was drawn.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from agent.guard import guard
from agent.records import RoundRecord
from agent.review_records import Review
from agent.reviewers.markers import DEFAULT_STOPS, markers_seen
from agent.stops import cuts_too_much, stop_refusal
from pipeline.params import TUNABLE, GenParams, ParamValue, Tunable

_MARGINS: Final = {
    "critic.instruction_margin": "instruction",
    "critic.pair_margin": "pair",
}
_SIZES: Final = (1, 2, 4, 8)
"""How many of the strings seen most often are offered as a set; 8 is the most that may be set."""


@dataclass(frozen=True, slots=True)
class Span:
    """What one parameter can become in one review."""

    tunable: Tunable
    """The parameter."""
    before: ParamValue
    """Its value now."""
    low: float = 0.0
    """Smallest value, for numbers."""
    high: float = 0.0
    """Largest value, for numbers."""
    choices: tuple[ParamValue, ...] = ()
    """The values, for a choice and for stop strings; the present one is among them."""

    def at(self, value: ParamValue) -> ParamValue:
        """A drawn ``value`` as it can be set: rounded, and never beyond the span."""
        if self.choices or isinstance(value, str | tuple):
            return value
        if self.tunable.kind == "int":
            return round(value)
        return min(max(round(float(value), 4), self.low), self.high)

    def moved(self, value: ParamValue) -> float:
        """How far ``value`` is from the present one, 1 being as far as anything here can be."""
        if isinstance(value, str | tuple) or isinstance(self.before, str | tuple):
            return float(value != self.before)
        longest = max(self.high - self.before, self.before - self.low)
        return abs(value - self.before) / longest if longest else 0.0


def reach(record: RoundRecord, stop_sets: Sequence[tuple[str, ...]]) -> dict[str, Span]:
    """The span of every parameter that can move from the setting of ``record``.

    Args:
        record: The round whose setting is moved.
        stop_sets: Sets of stop strings to choose among.
    """
    found = {name: _span(tunable, record, stop_sets) for name, tunable in TUNABLE.items()}
    return {name: span for name, span in found.items() if span is not None}


def refused(review: Review, now: RoundRecord, rounds: Sequence[RoundRecord], most: int) -> bool:
    """Whether the guard would refuse any of a review's changes to the setting of ``now``.

    A setting that was measured already is refused, and so is a change that made things worse. What
    ``most`` changes are allowed, and what margins may be, is known here as it is there.
    """
    known = {name: _floor(now, subject) for name, subject in _MARGINS.items()}
    floors = {name: floor for name, floor in known.items() if floor is not None}
    found = guard(review, now.params, max_changes=most, tried=rounds, margin_floors=floors)
    return bool(found.refused)


def stop_sets(rounds: Sequence[RoundRecord], now: GenParams) -> tuple[tuple[str, ...], ...]:
    """The present stop strings, those of earlier rounds, and the strings seen most often."""
    seen: Counter[str] = Counter()
    for record in rounds:
        seen += markers_seen(row for row in record.flagged_samples if "runaway" in row["flags"])
    found = (dry_run for record in rounds for dry_run in record.stop_candidates)
    cuts = {dry_run.stop for dry_run in found if cuts_too_much(dry_run)}
    ordered = [mark for mark, _ in seen.most_common()] + list(DEFAULT_STOPS)
    usable = _apart(s for s in ordered if stop_refusal(s) is None and s not in cuts)
    offered = [now.response.stop, *(r.params.response.stop for r in rounds)]
    offered += [usable[:size] for size in _SIZES]
    return tuple({frozenset(stops): stops for stops in reversed(offered)}.values())[::-1]


def _apart(strings: Iterable[str]) -> tuple[str, ...]:
    """The strings in order, without those that hold or are held by an earlier one."""
    chosen: list[str] = []
    for text in strings:
        if not any(text in other or other in text for other in chosen):
            chosen.append(text)
    return tuple(chosen)


def _span(
    tunable: Tunable, record: RoundRecord, stop_sets: Sequence[tuple[str, ...]]
) -> Span | None:
    before = record.params.get(tunable.name)
    if before is None:
        return None
    if isinstance(before, str):
        return Span(tunable, before, choices=tunable.choices)
    if isinstance(before, tuple):
        return Span(tunable, before, choices=(before, *(s for s in stop_sets if s != before)))
    low, high = _limits(tunable, before)
    if tunable.name in _MARGINS:
        floor = _floor(record, _MARGINS[tunable.name])
        if floor is None:
            return None
        low = max(low, floor)
    return Span(tunable, before, low=low, high=high) if low < high else None


def _limits(tunable: Tunable, before: float) -> tuple[float, float]:
    """The range, within one step of the present value."""
    assert tunable.low is not None and tunable.high is not None
    if tunable.factor:
        near = ceil(before / tunable.factor), int(before * tunable.factor)
        return max(tunable.low, near[0]), min(tunable.high, near[1])
    assert tunable.step is not None
    return max(tunable.low, before - tunable.step), min(tunable.high, before + tunable.step)


def _floor(record: RoundRecord, subject: str) -> float | None:
    """The lowest margin that controls allow; None where they certify no range."""
    floor = ((record.critics or {}).get("used", {}).get(subject) or {}).get("floor")
    return None if floor is None else float(floor)

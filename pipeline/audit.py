"""The smoke-test audit of a pilot's first micro-batch: is a second one worth its price?

Four questions that people who run pilots by hand come to ask: are there answers to look at, are
stop strings firing, does the cleaner cut good text, is the flagged share within reach. Verdicts on
thresholds are not given here. The one idea: what would make every further row worthless shows in
thirty rows already.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pipeline.detection.clean import trim
from pipeline.detection.detectors import DETECTORS
from pipeline.metrics import FLAGGED, Bound
from pipeline.types import Sample

SHOWN_ROWS: Final = 10
"""Flagged rows that are shown to people."""
HOPELESS_FACTOR: Final = 5
"""A rate this many times its limit is out of reach of luck."""
FEWEST_ROWS: Final = 8
"""Rows before a rate may be called hopeless."""
_RUN_ON_SHARE: Final = 0.25
"""Share of rows that run on at which stop strings are found wanting."""
_OVERTRIMMED_SHARE: Final = 0.05
"""Share of rows that a cleaner may spoil before it is called broken."""


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """One question of the audit and its answer."""

    name: Literal["answers", "stop_strings", "cleaner", "flagged"]
    """Which question."""
    passed: bool
    """Whether a second micro-batch may be bought."""
    found: str
    """What was seen, with counts."""


@dataclass(frozen=True, slots=True)
class SmokeAudit:
    """The audit of a first micro-batch."""

    rows: int
    """Answered rows looked at."""
    passed: bool
    """All checks passed."""
    checks: tuple[AuditCheck, ...]
    """Each question and its answer."""
    flagged_ids: tuple[int, ...]
    """Indices of up to ten flagged rows, every flag represented."""


def audit(
    samples: Sequence[Sample],
    *,
    stop: Sequence[str],
    thresholds: Mapping[str, Bound],
    wanted: int | None = None,
) -> SmokeAudit:
    """Audit the first micro-batch of a pilot.

    Args:
        samples: Every instruction drawn, dropped ones too.
        stop: The stop strings in force.
        thresholds: Bounds by metric name.
        wanted: Responses wanted; None for one for each instruction drawn.
    """
    answered = [s for s in samples if s.answered]
    checks = (
        _answers(len(answered), len(samples) if wanted is None else wanted),
        _stop_strings(answered, stop),
        _cleaner(answered, stop),
        _flagged(answered, thresholds),
    )
    passed = all(check.passed for check in checks)
    return SmokeAudit(len(answered), passed, checks, flagged_rows(answered))


def flagged_rows(samples: Sequence[Sample], most: int = SHOWN_ROWS) -> tuple[int, ...]:
    """Indices of up to ``most`` flagged rows: first one for every flag, then the others."""
    flagged = [s for s in samples if s.flags]
    chosen: dict[int, None] = {}
    for name in DETECTORS:
        first = next((s.index for s in flagged if name in s.flags), None)
        if first is not None:
            chosen[first] = None
    for sample in flagged:
        chosen[sample.index] = None
    return tuple(sorted(list(chosen)[:most]))


def _answers(answered: int, wanted: int) -> AuditCheck:
    found = f"{answered} of {wanted} rows have a response; half are needed"
    return AuditCheck("answers", wanted > 0 and 2 * answered >= wanted, found)


def _stop_strings(answered: Sequence[Sample], stop: Sequence[str]) -> AuditCheck:
    fired = Counter(s.stop for s in answered if s.stop is not None)
    running = sum("runaway" in s.flags for s in answered)
    inside = [form for form in stop if any(form in (s.raw or "") for s in answered)]
    many = running > _RUN_ON_SHARE * max(1, len(answered))
    if not stop:
        found = f"none is configured; {running} of {len(answered)} responses run on"
    else:
        counts = ", ".join(f"{form!r} {count}" for form, count in fired.most_common())
        found = f"fired: {counts or 'none'}; {running} of {len(answered)} responses run on"
    if inside:
        found += "; still inside a raw text: " + ", ".join(map(repr, inside))
    silent = many and (not stop or not fired)
    return AuditCheck("stop_strings", not inside and not silent, found)


def _cleaner(answered: Sequence[Sample], stop: Sequence[str]) -> AuditCheck:
    spoilt = [s.index for s in answered if _overtrimmed(s, stop)]
    rows = f" (rows {', '.join(map(str, spoilt[:5]))})" if spoilt else ""
    found = f"{len(spoilt)} of {len(answered)} responses lost text that belongs to them{rows}"
    return AuditCheck("cleaner", len(spoilt) <= max(1, _OVERTRIMMED_SHARE * len(answered)), found)


def _overtrimmed(sample: Sample, stop: Sequence[str]) -> bool:
    """Text is missing that belongs to the answer.

    The stored clean text is shorter than scaffold and delimiters account for, or it lost more
    than half and what is left is unfinished.
    """
    raw, text = (sample.raw or "").strip(), sample.clean or ""
    due = trim(sample.raw or "", stop=stop).text
    if len(text) < len(due):
        return True
    lost = len(raw) - len(text)
    return "truncated" in sample.flags and 2 * lost > len(raw) and "runaway" not in sample.flags


def _flagged(answered: Sequence[Sample], thresholds: Mapping[str, Bound]) -> AuditCheck:
    rates: list[str] = []
    hopeless: list[str] = []
    for name in FLAGGED:
        limit = thresholds[name].max if name in thresholds else None
        count = sum(name in s.flags for s in answered)
        if limit is None or not count:
            continue
        rates.append(f"{name} {count} of {len(answered)}")
        if len(answered) >= FEWEST_ROWS and count >= HOPELESS_FACTOR * limit * len(answered):
            hopeless.append(f"{name} ({HOPELESS_FACTOR} times its limit of {limit:g} or more)")
    found = ", ".join(rates) or "no row is flagged"
    if hopeless:
        found += "; out of reach: " + ", ".join(hopeless)
    return AuditCheck("flagged", not hopeless, found)

"""What stored rows say, at no cost, of the obvious next settings and of strings to stop at.

Stop strings, caps and margins only cut or judge what is there, so a review need not guess what they
would do. Which rows there are and how they are judged is given; what is made of the answers is the
reviewers' and the guard's work. The one idea: what nothing stored can answer for is left out, never
estimated.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from math import ceil
from typing import Any, Final

from agent.archive import Bought
from agent.review_records import Candidate, StopDryRun
from agent.reviewers.markers import DEFAULT_STOPS, marks_of, proposed_stops
from agent.stages.stored import Found, Source, ask, sources
from agent.stops import Cuts, stop_refusal
from pipeline.detection.clean import clean
from pipeline.metrics import GATES, Measurement
from pipeline.params import TUNABLE, GenParams
from pipeline.types import Sample

Judge = Callable[[Found, GenParams], Measurement]
"""Measures stored rows as the next pilot of a setting would be judged."""
_CAP: Final = "response.max_new_tokens"
_FACTORS: Final = (0.5, 1.0, 1.25, 1.5, 2.0)
"""Caps as multiples of the present one: those that the built-in rules would choose, and half."""
_MOST_MARKS: Final = 12
_SHOWN: Final = (*(name for name in GATES if name != "yield"), "raw_acceptance")


def candidates(
    stored: Sequence[Source],
    params: GenParams,
    *,
    stops: Sequence[StopDryRun],
    floors: Mapping[str, float],
    judge: Judge,
) -> tuple[Candidate, ...]:
    """Settings near ``params`` that ``stored`` rows answer for: stop strings x caps, and margins.

    Args:
        stored: Every row that the run has.
        params: The setting that they are compared with.
        stops: What each string would do to these rows.
        floors: The lowest admissible value of each margin that has one.
        judge: Measures them.
    """
    found = []
    for changes in _obvious(params, stops, floors):
        wanted = params.replace(changes)
        rows = ask(stored, wanted)
        if rows.used:
            found.append(_candidate(changes, rows, judge(rows, wanted)))
    return tuple(found)


def dry_runs(stored: Sequence[Source], params: GenParams) -> tuple[StopDryRun, ...]:
    """What each string seen in flagged rows, and each usual one, would do; the best one first.

    Those that are not allowed, or could never fire beside the present ones, are left out.
    """
    rows = _answered(stored)
    flagged = [{"raw": s.raw, "clean": s.clean} for s in rows if s.flags]
    seen = [mark for mark, _ in marks_of(flagged).most_common(_MOST_MARKS)]
    strings = dict.fromkeys((*seen, *DEFAULT_STOPS))
    idle = {s for s in strings if any(stop in s for stop in params.response.stop)}
    found = [_would_do(rows, s) for s in strings if s not in idle and stop_refusal(s) is None]
    return tuple(sorted(found, key=lambda run: -run.ended))


def dry_run(bought: Bought, *, before: int) -> Cuts:
    """What strings would cut of the rows stored before round ``before``; read when asked."""

    @cache
    def good() -> Sequence[Sample]:
        return [s for s in _answered(sources(bought, before=before)) if not s.flags]

    return lambda stops: (sum(_loses(s, stops) for s in good()), len(good()))


def _answered(stored: Sequence[Source]) -> list[Sample]:
    return [s for source in stored for s in source.samples if s.answered]


def _would_do(rows: Sequence[Sample], stop: str) -> StopDryRun:
    flagged, good = [s for s in rows if s.flags], [s for s in rows if not s.flags]
    return StopDryRun(
        stop=stop,
        ended=sum(stop in (s.raw or "") for s in flagged),
        flagged=len(flagged),
        cut=sum(_loses(s, (stop,)) for s in good),
        good=len(good),
    )


def _loses(sample: Sample, stops: Sequence[str]) -> bool:
    """Whether the cleaned text would be shorter; what the cleaner takes anyway is no loss."""
    raw = sample.raw or ""
    ends = [at for stop in stops if (at := raw.find(stop)) >= 0]
    if not ends:
        return False
    return len(clean(raw[: min(ends)], instruction=sample.instruction)) < len(sample.clean or "")


def _obvious(
    params: GenParams, stops: Sequence[StopDryRun], floors: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """At most eight changes: with better stop strings every cap, without them fewer."""
    now = params.response
    better = proposed_stops(now.stop, runs=stops)
    added: dict[str, Any] = {} if set(better) == set(now.stop) else {"response.stop": list(better)}
    if added:
        doubled = _caps(now.max_new_tokens, (2.0,))
        yield from ({_CAP: cap} for cap in doubled if cap != now.max_new_tokens)
    for cap in _caps(now.max_new_tokens, _FACTORS):
        changes = added | ({} if cap == now.max_new_tokens else {_CAP: cap})
        if changes:
            yield changes
    for name, floor in floors.items():
        margin, step = params.get(name), TUNABLE[name].step or 0.0
        if isinstance(margin, int | float) and floor < margin:
            yield added | {name: ceil(max(floor, margin - step) * 1e6) / 1e6}


def _caps(cap: int, factors: Sequence[float]) -> list[int]:
    tunable = TUNABLE[_CAP]
    low, high = int(tunable.low or 1), int(tunable.high or cap)
    wanted = (ceil(cap * f) if f < 1 else round(cap * f) for f in factors)
    return list(dict.fromkeys(min(max(value, low), high) for value in wanted))


def _candidate(changes: dict[str, Any], found: Found, said: Measurement) -> Candidate:
    verdicts = said.verdicts()
    return Candidate(
        changes=changes,
        rows=found.answered,
        changed=found.rows.changed,
        unscored=found.rows.unscored,
        values={name: said[name].value for name in _SHOWN},
        verdicts={name: verdicts[name] for name in _SHOWN if name in verdicts},
    )

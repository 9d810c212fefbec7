"""From what contenders reported to the figures of the table: medians over rounds, and ratios.

A ratio compares this engine with a peer over the phases that both do, within one round; the median
of the rounds is reported, so that a machine that slows down between rounds does not show.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.engine.child import PhaseResult, Report
from benchmarks.engine.contenders import OURS
from benchmarks.engine.floor import Rates, Weights, floor_seconds
from benchmarks.engine.workload import GENERATION, PhaseName


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of one contender."""

    key: str
    """Its letter."""
    absent: str | None
    """Why it did not take part, or not to the end."""
    reports: tuple[Report, ...]
    """One for each round that it finished."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One contender's figures; None is not measured."""

    key: str
    """Its letter."""
    absent: str | None
    """Why it has no figures."""
    notes: tuple[str, ...]
    """What is to be known of them."""
    completions_per_second: float | None
    """Over the two phases that generate."""
    tokens_per_second: float | None
    """Tokens kept up to the stop, over the same phases."""
    rows_per_second: float | None
    """Rows by the time of all phases that it does."""
    seconds: dict[PhaseName, float]
    """Of each phase."""
    peak_bytes: int | None
    """Largest resident memory of its process, loading included."""
    cuda_peak_bytes: int | None
    """Largest memory that torch held on the GPU."""
    rows_ratio: float | None
    """Rows a second of this engine by those of the contender, over the phases that both do."""
    tokens_ratio: float | None
    """The same of useful tokens, over the phases that generate."""


@dataclass(frozen=True, slots=True)
class Floor:
    """How near one phase of this engine comes to what the machine could do."""

    phase: str
    """Its name, or all."""
    passes: float
    """Forward passes, median of the rounds."""
    tokens: float
    """Tokens in them, padding counted."""
    floor_seconds: float
    """Least time in which the machine can make them."""
    seconds: float
    """Measured."""
    share: float
    """floor_seconds / seconds, median of the rounds."""
    products_seconds: float | None = None
    """Time of the products alone, made by the same kernels; None where it was not measured."""


def figures(entry: Entry, ours: Entry | None) -> Figures:
    """Medians over the rounds of one contender, compared with this engine's."""
    reports = entry.reports
    names = [phase.name for phase in reports[0].phases] if reports else []
    last = reports[-1] if reports else None
    return Figures(
        key=entry.key,
        absent=entry.absent,
        notes=last.notes if last else (),
        completions_per_second=_median(_completions_rate(r.phases) for r in reports),
        tokens_per_second=_median(_tokens_rate(r.phases) for r in reports),
        rows_per_second=_median(r.phases[0].rows / _seconds(r.phases) for r in reports),
        seconds={n: median(_seconds(r.phases, [n]) for r in reports) for n in names},
        peak_bytes=last.peak_bytes if last else None,
        cuda_peak_bytes=last.cuda_peak_bytes if last else None,
        rows_ratio=_median(_rows_ratio(o, r) for o, r in _both(ours, entry)),
        tokens_ratio=_median(
            _tokens_rate(o.phases) / _tokens_rate(r.phases) for o, r in _both(ours, entry)
        ),
    )


def floors(entry: Entry, weights: Weights, rates: Rates) -> list[Floor]:
    """The floor of each phase of a contender that counts its passes, and of all together."""
    if not entry.reports:
        return []
    names = [phase.name for phase in entry.reports[0].phases]
    parts = [(str(name), [name]) for name in names]
    return [
        _floor(label, [_chosen(r.phases, only) for r in entry.reports], weights, rates)
        for label, only in [*parts, ("all", names)]
    ]


def _floor(
    label: str, rounds: Sequence[Sequence[PhaseResult]], weights: Weights, rates: Rates
) -> Floor:
    counted = [[p.passes for p in phases if p.passes is not None] for phases in rounds]
    least = [sum(floor_seconds(c, weights, rates) for c in made) for made in counted]
    taken = [_seconds(phases) for phases in rounds]
    return Floor(
        phase=label,
        passes=median(sum(c.total() for c in made) for made in counted),
        tokens=median(
            sum(n * p.rows * p.slots for c in made for p, n in c.items()) for made in counted
        ),
        floor_seconds=median(least),
        seconds=median(taken),
        share=median(a / b for a, b in zip(least, taken, strict=True)),
        products_seconds=_products(rounds),
    )


def _products(rounds: Sequence[Sequence[PhaseResult]]) -> float | None:
    known = [[p.products_seconds for p in phases] for phases in rounds]
    sums = [sum(s for s in each if s is not None) for each in known if None not in each]
    return median(sums) if sums else None


def _both(ours: Entry | None, entry: Entry) -> list[tuple[Report, Report]]:
    if ours is None or entry.key == OURS:
        return []
    return list(zip(ours.reports, entry.reports, strict=False))


def _rows_ratio(ours: Report, theirs: Report) -> float:
    names = {p.name for p in ours.phases} & {p.name for p in theirs.phases}
    return _seconds(theirs.phases, names) / _seconds(ours.phases, names)


def _completions_rate(phases: Sequence[PhaseResult]) -> float:
    return sum(p.rows for p in _chosen(phases, GENERATION)) / _seconds(phases, GENERATION)


def _tokens_rate(phases: Sequence[PhaseResult]) -> float:
    return sum(p.tokens for p in _chosen(phases, GENERATION)) / _seconds(phases, GENERATION)


def _seconds(phases: Sequence[PhaseResult], names: Iterable[PhaseName] | None = None) -> float:
    return sum(p.seconds for p in (phases if names is None else _chosen(phases, names)))


def _chosen(phases: Sequence[PhaseResult], names: Iterable[PhaseName]) -> list[PhaseResult]:
    wanted = set(names)
    return [p for p in phases if p.name in wanted]


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return median(known) if known else None

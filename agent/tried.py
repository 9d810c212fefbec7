"""What a run has tried already: the same setting, and single changes that made things worse.

Whether a round is worse than another is ``agent/best.py``'s, refusing is ``agent/guard.py``'s. The
one idea: what is not tried again is named with its round and its figure, and is the same however
it is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.best import clearly_worse
from agent.records import RoundRecord
from pipeline.params import TUNABLE, GenParams, ParamValue

Tried = GenParams | RoundRecord
"""A setting that was measured, by itself or with what was measured."""
_PLACES: Final = 4
"""Numbers that agree to so many places are the same setting."""


def normal(value: ParamValue | None) -> ParamValue | None:
    """A value as it is compared: stop strings in one order, numbers to four places."""
    if isinstance(value, tuple):
        return tuple(sorted(value))
    return round(value, _PLACES) if isinstance(value, float) else value


def same(one: GenParams, other: GenParams) -> bool:
    """Whether two settings ask for the same."""
    return not _differing(one, other)


def _differing(one: GenParams, other: GenParams) -> list[str]:
    """Parameters that are not the same; no review changes any other."""
    return [name for name in TUNABLE if normal(one.get(name)) != normal(other.get(name))]


@dataclass(frozen=True, slots=True)
class Worse:
    """A parameter that alone led from one round to a clearly worse one."""

    parameter: str
    """Its dotted name."""
    record: RoundRecord
    """The round that was worse."""
    base: RoundRecord
    """The round that differs from it in this parameter alone."""

    def as_far(self, value: ParamValue, current: ParamValue | None) -> bool:
        """Whether ``value`` is what was tried, or further the same way from ``current``."""
        tried = self.record.params.get(self.parameter)
        if not all(isinstance(x, int | float) for x in (value, tried, current)):
            return normal(value) == normal(tried)
        asked, went = value - current, tried - current  # type: ignore[operator]
        return asked * went > 0 and round(abs(asked), _PLACES) >= round(abs(went), _PLACES)

    def describe(self) -> str:
        """With both rounds and their figures."""
        tried = self.record.params.get(self.parameter)
        shown = list(tried) if isinstance(tried, tuple) else tried
        return (
            f"already tried and worse: with {shown!r} round {self.record.round} "
            f"{kept(self.record)}, without it round {self.base.round} {kept(self.base)}"
        )


def setting(tried: Tried) -> GenParams:
    """The setting of what was tried."""
    return tried.params if isinstance(tried, RoundRecord) else tried


def made_worse(tried: Sequence[Tried], params: GenParams) -> tuple[Worse, ...]:
    """Every single change from ``params`` that led to a clearly worse round."""
    records = [t for t in tried if isinstance(t, RoundRecord)]
    base = next((r for r in reversed(records) if same(r.params, params)), None)
    if base is None:
        return ()
    differing = ((r, _differing(r.params, params)) for r in records)
    alone = (Worse(names[0], r, base) for r, names in differing if len(names) == 1)
    return tuple(worse for worse in alone if clearly_worse(worse.record, base))


def measured_before(tried: Sequence[Tried], index: int) -> str:
    """That the setting at ``index`` was measured, with what it came to."""
    known = tried[index]
    if not isinstance(known, RoundRecord):
        return f"these settings were already measured in round {index + 1}"
    how = " on stored rows" if known.replayed else ""
    return f"these settings were already measured{how}: round {known.round} {kept(known)}"


def kept(record: RoundRecord) -> str:
    """What a round is compared by, in words."""
    metric = record.metric("raw_acceptance")
    if metric is not None and metric["count"] is not None and not record.replayed:
        return f"kept {metric['count']} of {metric['n']} ({metric['value']:.1%})"
    funnel = record.funnel
    return f"left {funnel['unflagged']} of {funnel['answered']} answered rows without a flag"
